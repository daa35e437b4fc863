"""`inr bench`: comparisons under one protocol, with tables and curves."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from apps.cli.common import make_folder, new_parser, parse
from apps.cli.voice import Voice, complain
from inr.errors import UsageError

if TYPE_CHECKING:
    from apps.bench.shootout import Run, Settings

SMALL = {"image": 64, "sound": 4096, "shape": 16, "scalars": 4_000, "steps": 300}
"""Ends within 20 minutes on two cores."""

FULL = {"image": 1 << 20, "sound": 150_000, "shape": 128, "scalars": 199_000, "steps": 5_000}
"""The papers' sizes; for a GPU."""


def run(argv: Sequence[str]) -> int:
    """Run one comparison; returns the exit code."""
    args = parse(parser(), argv)
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("the curves need matplotlib: pip install 'inr-studio[bench]'")
    settings = _settings(args)
    from apps.bench.machine import machine
    from apps.bench.results import write
    from apps.bench.shootout import shoot

    voice = Voice(args)
    jobs = _given(args.jobs, 1 if settings.device.startswith("cuda") else os.cpu_count() or 1)
    if not 1 <= jobs <= 256:
        raise UsageError(f"--jobs is {jobs}: give a number from 1 to 256")
    make_folder(args.out_dir)
    folder = Path(args.out_dir)
    journal = folder / "runs.jsonl"
    if journal.exists() and not args.resume:
        raise UsageError(f"{journal} exists: give --resume to go on, or another --out-dir")
    where = machine()
    begin = time.perf_counter()

    def tell(done: int, expected: int, finished: Run) -> None:
        shown = "diverged" if finished.psnr is None else f"{finished.psnr:.2f} dB"
        voice.event(
            {"event": "run", "done": done, "expected": expected, "contestant": finished.contestant}
            | {"source": finished.source, "lr": finished.lr, "seed": finished.seed}
            | {"psnr": finished.psnr, "seconds": finished.seconds},
            f"{done}/{expected}  {finished.source:<12}{finished.contestant:<16}"
            f"lr {finished.lr:<8.2g} seed {finished.seed}  {shown:>10}  {finished.seconds:.1f} s",
        )

    try:
        runs = shoot(settings, journal, jobs, tell)
    except KeyboardInterrupt:
        complain(f"stopped; the same command with --resume goes on from {journal}")
        return 130
    report = write(folder, settings, runs, where)
    minutes = (time.perf_counter() - begin) / 60
    voice.event(
        {"event": "done", "report": str(report), "runs": len(runs), "minutes": round(minutes, 2)},
        "",
        *report.read_text(encoding="utf-8").splitlines(),
        f"{len(runs)} runs in {minutes:.1f} minutes; tables and pictures: {report}",
    )
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("bench", "Compare fields under one protocol (see docs/benchmarks/fields.md).")
    p.add_argument("what", choices=["fields"], help="fields: all of them on the same signals")
    p.add_argument("--image", nargs="*", help="pictures; default: camera; none: no picture")
    p.add_argument("--sound", nargs="*", help="sounds; default: a synthetic pluck")
    p.add_argument("--shape", nargs="*", help="meshes; default: a trefoil knot")
    p.add_argument("--full", action="store_true", help="the papers' sizes, for a GPU")
    for name, unit in (
        ("image", "longest side in pixels, by averaging"),
        ("sound", "samples from the start of the sound"),
        ("shape", "points per axis of the shape's lattice"),
    ):
        p.add_argument(f"--{name}-size", type=int, help=unit)
    p.add_argument("--scalars", type=int, help="stored scalars of each field, at most")
    p.add_argument("--steps", type=int, help="optimiser steps of each run")
    p.add_argument("--seeds", type=int, default=3, help="seeds at the best learning rate")
    p.add_argument("--fields", type=str, help="contestants, separated by commas; default: all")
    p.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("-j", "--jobs", type=int, help="runs at a time; default: one per core, or GPU")
    p.add_argument("--out-dir", type=str, default="bench-fields", help="folder for the results")
    p.add_argument("--resume", action="store_true", help="go on with what --out-dir holds")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    return p


def _settings(args: Namespace) -> Settings:
    """What was asked for, refused here where it cannot work."""
    import torch

    from apps.bench.contestants import BY_NAME
    from apps.bench.shootout import Settings
    from apps.bench.signals import BUILT_IN, Source

    sizes = FULL if args.full else SMALL
    sources = []
    for kind, name in BUILT_IN.items():
        size = _given(getattr(args, f"{kind}_size"), sizes[kind])
        if not 4 <= size <= 1 << 24:
            raise UsageError(f"--{kind}-size is {size}: give a number from 4 up")
        paths = getattr(args, kind)
        sources += [Source(kind, path, size) for path in ([name] if paths is None else paths)]
    names = [source.name for source in sources]
    if not sources or len(set(names)) < len(names):
        raise UsageError("give at least one signal, and no two of one name")
    chosen = args.fields.split(",") if args.fields else list(BY_NAME)
    unknown = [name for name in chosen if name not in BY_NAME]
    if unknown:
        raise UsageError(
            f"--fields: no contestant {unknown[0]!r}; choose from {', '.join(BY_NAME)}"
        )
    numbers = {name: _given(getattr(args, name), sizes[name]) for name in ("scalars", "steps")}
    for option, value in (numbers | {"seeds": args.seeds}).items():
        if not 1 <= value <= 10**9:
            raise UsageError(f"--{option} is {value}: give a number from 1 up")
    device = args.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return Settings(tuple(sources), tuple(chosen), seeds=args.seeds, device=device, **numbers)


def _given(value: int | None, fallback: int) -> int:
    return fallback if value is None else value
