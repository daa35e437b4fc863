"""`inr doctor`: what this machine has, and what computes each field on it."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse
from apps.cli.voice import Voice
from fields import registry
from fields.kernels import build, select
from fields.kernels.build import NoKernel
from fields.kernels.select import Machine


def run(argv: Sequence[str]) -> int:
    """Look at the machine, and say what is there; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args)
    import torch  # it knows GPUs better than the driver's files do

    failed = _build(voice) if args.build else {}
    machine = select.look()
    facts = _facts(machine, failed, torch.get_num_threads())
    voice.event({"event": "machine"} | facts, *(f"{k:<13}{v}" for k, v in facts.items() if v), "")
    devices = ["cpu", *(["cuda"] if machine.gpu else [])]
    for device in devices:
        by_choice: dict[tuple[str, str], list[str]] = {}
        for name in registry.names():
            choice = select.choose(select.refusal(name), device, machine)
            # a reason that begins with the field's name is the same for all of them
            reason = choice.reason.removeprefix(f"{name} ")
            by_choice.setdefault((choice.backend, reason), []).append(name)
            event = {"event": "field", "name": name, "device": device}
            voice.event(event | {"backend": choice.backend, "reason": choice.reason})
        if not voice.as_json:
            limits = ", within the limits that docs/CUDA.md names" if device == "cuda" else ""
            voice.event({}, f"fields on {device}{limits}:", *_told(by_choice), "")
    return int(bool(failed))


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("doctor", "Show what this machine has, and what computes each field on it.")
    p.add_argument(
        "--build", action="store_true", help="compile the CPU kernels now, not with the first fit"
    )
    return p


def _build(voice: Voice) -> dict[str, str]:
    """Compile what is not there yet; returns what failed, and why."""
    failed = {}
    for name in build.KERNELS:
        begin = time.perf_counter()
        ready = build.built(name)
        try:
            build.library(name)
        except NoKernel as error:
            failed[name] = str(error)
            continue
        seconds = time.perf_counter() - begin
        took = "was there" if ready else f"compiled in {seconds:.1f} s"
        told = {"name": name, "seconds": round(seconds, 3), "compiled": not ready}
        voice.event({"event": "kernel"} | told, f"CPU kernel {name}: {took}")
    return failed


def _facts(machine: Machine, failed: dict[str, str], threads: int) -> dict[str, Any]:
    """What the machine has, by short names."""
    kernels = "built" if machine.built else "not built yet: the first fit does, or --build"
    capability = ".".join(map(str, machine.capability or ()))
    return {
        "processor": f"{_model()}, {machine.vectors}",
        "threads": threads,
        "torch": _version("torch"),
        "compiler": machine.compiler or "none: CPU kernels need g++ or clang++",
        "CPU kernels": "; ".join(failed.values()) or (kernels if machine.compiler else "none"),
        "kept in": str(build.folder()),
        "GPU": f"{machine.gpu}, compute capability {capability}" if machine.gpu else "none",
        "triton": _version("triton"),
        "tinycudann": _version("tinycudann"),
    }


def _told(by_choice: dict[tuple[str, str], list[str]]) -> list[str]:
    """Lines that say which fields have which backend, and why."""
    return [
        f"  {backend:<11}{', '.join(names)} ({reason})"
        for (backend, reason), names in by_choice.items()
    ]


def _model() -> str:
    lines = [x for x in build.processor().splitlines() if x.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
