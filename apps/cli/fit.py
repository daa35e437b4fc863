"""`inr fit`: signals in, `.inr` files out."""

from __future__ import annotations

import inspect
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli.common import (
    Voice,
    add_output_options,
    check_output,
    exit_code,
    new_parser,
    number,
    parse,
)
from inr import presets
from inr.errors import InrError, TargetNotReached, UsageError
from inr.presets import Preset, Recipe

KIND = "image"
FIELD_HELP = "name of the field; `inr fields` lists them, `inr fields NAME` its hyperparameters"


def run(argv: Sequence[str]) -> int:
    """Fit each input; returns the exit code."""
    argv = _rewritten(argv)
    name = _chosen_field(argv)
    show_help = any(a in ("-h", "--help") for a in argv)
    # the field's class brings torch: plain --help does without
    needs_class = not show_help or any(a.startswith("--field.name") for a in argv)
    args = parse(parser(name, with_class=needs_class), argv)
    jobs = _jobs(args)
    preset = _preset(args)

    voice = Voice(args.json, args.quiet, to_stderr=args.output == "-")
    codes = []
    for source, target in jobs:
        try:
            codes.append(_fit_one(source, target, preset, args, voice))
        except InrError as error:
            if len(jobs) == 1:
                raise
            voice.failure(source, error)
            codes.append(error.exit_code)
        if codes[-1] >= 128:  # stopped by hand: the rest is not begun
            return codes[-1]
    return exit_code(codes)


def parser(field_name: str = "grid", *, with_class: bool = False) -> ArgumentParser:
    """The parser; with the field's class it also takes that field's hyperparameters."""
    p = new_parser("fit", "Fit a field to each input and store it as a compressed .inr file.")
    p.add_argument("inputs", nargs="+", help="files to fit; - for standard input")
    add_output_options(p)
    p.add_argument("--out-dir", type=str, help="folder for the outputs; made if it is not there")
    p.add_argument(
        "--config", action="config", help="preset by name (image/grid-fast) or YAML file"
    )
    p.add_argument("--steps", type=int | None, help="budget in optimiser steps")
    p.add_argument("--seconds", type=float | None, help="budget in seconds of fitting")
    p.add_argument("--psnr", type=float | None, help="stop at this quality, in dB")
    p.add_argument("--seed", type=int, default=0, help="seed of initialisation and batches")
    p.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--threads", type=int | None, help="CPU threads of torch")
    p.add_argument("--max-loss-db", type=float, default=0.1, help="PSNR that coding may cost")
    p.add_argument("--resume", action="store_true", help="go on from OUTPUT.snapshot if it exists")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    p.add_argument("--field.name", type=str, default=field_name, help=FIELD_HELP)
    p.add_class_arguments(Recipe, "recipe", sub_configs=False)
    preset = presets.for_field(KIND, field_name)
    p.set_defaults({f"recipe.{k}": v for k, v in vars(preset.recipe).items()})
    if with_class:
        _add_hyperparameters(p, preset)
    return p


def _add_hyperparameters(p: ArgumentParser, preset: Preset) -> None:
    """One option for each keyword of the field's constructor; null leaves it to the field."""
    import typing

    from fields import registry
    from fields.base import FieldError, hyperparameter_names

    try:
        cls = registry.field_class(preset.field)
    except FieldError as error:
        raise UsageError(f"--field: {error}") from None
    hints = typing.get_type_hints(cls.__init__)
    defaults = inspect.signature(cls).parameters
    for name in hyperparameter_names(cls):
        p.add_argument(
            f"--field.{name}",
            type=hints[name] | None,
            default=preset.hyperparameters.get(name),
            help=f"null: {defaults[name].default!r}, or what suits the signal",
        )


def _rewritten(argv: Sequence[str]) -> list[str]:
    """`--field NAME` is short for `--field.name NAME`; presets by name become paths."""
    out: list[str] = []
    for i, word in enumerate(argv):
        if word == "--field" or word.startswith("--field="):
            word = word.replace("--field", "--field.name", 1)
        elif word.startswith("--config="):
            word = "--config=" + str(presets.path_of(word.partition("=")[2]))
        elif i and argv[i - 1] == "--config":
            word = str(presets.path_of(word))
        out.append(word)
    return out


def _chosen_field(argv: Sequence[str]) -> str:
    """The field's name: from the command line, else from the config, else the default."""
    import yaml

    given = {}
    for word, following in itertools.pairwise([*argv, ""]):
        key, _, value = word.partition("=")
        given[key] = value or following
    if "--field.name" in given:
        return given["--field.name"]
    if "--config" in given:
        try:
            items = yaml.safe_load(Path(given["--config"]).read_text(encoding="utf-8"))
            return str(items["field"]["name"])
        except (OSError, UnicodeError, TypeError, KeyError, yaml.YAMLError):
            pass  # it names no field, or the parser will say what is wrong with it
    return presets.default(KIND).field


def _preset(args: Namespace) -> Preset:
    given = {k: v for k, v in vars(args.field).items() if k != "name" and v is not None}
    return Preset(args.field.name, given, Recipe(**vars(args.recipe)))


def _jobs(args: Namespace) -> list[tuple[str, str]]:
    """(input, output) pairs, refused before anything runs where outputs would clash."""
    if args.output and (args.out_dir or len(args.inputs) > 1):
        raise UsageError("-o names one file: for several inputs give --out-dir")
    jobs = []
    for source in args.inputs:
        if source == "-":
            if not args.output:
                raise UsageError("standard input has no name: say where to write with -o")
            target = args.output
        else:
            path = Path(source)
            folder = Path(args.out_dir) if args.out_dir else path.parent
            target = args.output or str(folder / f"{path.stem}.inr")
        jobs.append((source, target))
    targets = [target for _, target in jobs]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"several inputs would become {target}: fit them one by one with -o")
    return jobs


def _fit_one(source: str, target: str, preset: Preset, args: Namespace, voice: Voice) -> int:
    if not check_output(target, args.force, args.skip_existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    import torch

    import inr
    from inr.codec.encode import encode
    from inr.files import write_bytes
    from inr.fitting.callbacks import ProgressBar, Report, StopOnSignal
    from inr.fitting.snapshot import Snapshot
    from inr.metrics import bits_per_pixel

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.out_dir:
        _make_folder(args.out_dir)
    image = inr.open(sys.stdin.buffer.read() if source == "-" else source)
    stop = StopOnSignal()
    snapshot = Snapshot(f"{target}.snapshot", resume=args.resume) if target != "-" else None
    bar = Report(voice.event, 1.0) if args.json else ProgressBar(source)
    callbacks: list[Any] = [stop, *([snapshot] if snapshot else [])]
    if args.json or not args.quiet:
        callbacks.append(bar)
    fit = inr.fit(
        image,
        preset,
        steps=args.steps,
        seconds=args.seconds,
        psnr=args.psnr,
        seed=args.seed,
        device=args.device,
        callbacks=callbacks,
    )
    begin = time.perf_counter()
    data = encode(fit.field, image, max_loss_db=args.max_loss_db, target_psnr=args.psnr)
    encoding = time.perf_counter() - begin
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_bytes(target, data, overwrite=args.force)
        if snapshot and not stop.received:
            snapshot.discard()

    from inr.codec.decode import inspect as inspect_file

    quality = inspect_file(data).psnr or 0.0
    bpp = bits_per_pixel(len(data), image.domain.shape[0] * image.domain.shape[1])
    shown = "exact" if quality > 600 else f"{quality:.2f} dB"
    voice.event(
        {
            "event": "done",
            "input": source,
            "output": target,
            "psnr": None if quality > 600 else quality,
            "psnr_fit": number(fit.metrics["psnr_float"]),
            "bytes": len(data),
            "bpp": round(bpp, 4),
            "steps": fit.steps,
            "seconds": round(fit.seconds, 3),
            "seconds_encoding": round(encoding, 3),
            "ended": fit.ended,
        },
        f"{source} -> {target}: {shown}, {len(data):,} bytes, {bpp:.3f} bpp, "
        f"{fit.steps} steps in {fit.seconds:.1f} s, encoded in {encoding:.1f} s",
    )
    if stop.received:
        return 128 + int(stop.received)
    if args.psnr is not None and quality < args.psnr:
        raise TargetNotReached(
            f"{source}: reached {quality:.2f} dB of {args.psnr:g} within the budget; {target} "
            "holds it; give more --steps or --seconds, or a larger field"
        )
    return 0


def _make_folder(path: str) -> None:
    from inr.errors import OutputError

    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {(error.strerror or str(error)).lower()}") from None
