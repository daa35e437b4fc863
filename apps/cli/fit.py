"""`inr fit`: signals in, `.inr` files out."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

import inr
from apps.cli import choosing, operators
from apps.cli.common import (
    Parser,
    add_reading_options,
    build_kernels,
    check_output,
    write_stdout,
)
from apps.cli.info import EXACT
from apps.cli.voice import STDIN, complain, each, number, printable
from inr.errors import TargetNotReached, UsageError
from inr.signals import KINDS

if TYPE_CHECKING:
    from inr.fitting.fit import Fit
    from inr.signals.base import Signal


def run(argv: Sequence[str]) -> int:
    """Fit each input; returns the exit code."""
    argv = choosing.rewritten(argv, "fit")
    work = choosing.prepare("fit", argv, parser(), _parsed, _check)
    args = work.args
    operator = operators.build(args)

    def one(source: str) -> int:
        opened = work.opener(source)
        if operator is not None:
            simulate = args.operator.simulate
            opened = functools.partial(
                operators.observed, opened, operator, args.truth, simulate=simulate
            )
        return _fit(source, opened, work)

    return each(args.inputs, one, work.voice)


def parser(
    kind: str = "image",
    field_name: str | None = None,
    suited: str | None = None,
    operator: str | None = None,
    *,
    with_class: bool = False,
) -> Parser:
    """The parser; with the field's class it also takes that field's hyperparameters.

    Args:
        kind: Kind of the signals, on which the defaults depend.
        field_name: The field; if not given, that of the preset.
        suited: Name of the preset; the kind's default if not given.
        operator: The operator through which the inputs were observed, if any.
        with_class: Whether to add options for its hyperparameters.
    """
    base = choosing.base_of(kind, field_name, suited)
    p = choosing.start_parser(
        "fit", "Fit a field to each input and store it as a compressed .inr file."
    )
    p.add_argument("--resume", action="store_true", help="go on from OUTPUT.snapshot if it exists")
    p.add_argument("--steps", type=int, help="budget in optimiser steps")
    p.add_argument("--seconds", type=float, help="budget in seconds of fitting")
    p.add_argument("--psnr", type=float, help="stop at this quality, in dB")
    p.add_argument("--max-loss-db", type=float, default=0.1, help="PSNR that coding may cost")
    p.settings = (
        *("steps", "seconds", "psnr", "seed", "device", "max_loss_db", "threads", "backend"),
        *add_reading_options(p, KINDS),
    )
    operators.add_options(p, operator)
    choosing.add_field_options(p, "fit", base, with_class=with_class)
    return p


def _parsed(argv: Sequence[str], kind: str, suited: str | None = None) -> Namespace:
    """The command line as signals of a kind have it, or those that a preset suits."""
    operator = operators.chosen(argv)
    build = functools.partial(parser, operator=operator)
    return choosing.with_field(build, argv, kind, suited or operators.preset_of(operator, kind))


def _check(args: Namespace) -> None:
    """Refuse numbers that no fit could use."""
    if not 0 <= args.max_loss_db <= 100:
        raise UsageError(f"--max-loss-db is {args.max_loss_db}: give dB from 0 to 100")


def _fit(source: str, opened: Callable[[], Signal], work: choosing.Work) -> int:
    """Fit one input; returns its exit code."""
    args, voice, target = work.args, work.voice, work.targets[source]
    metadata = work.metadata(source)
    # what an interrupted run wrote is to be replaced by what comes of it
    unfinished = args.resume and target != "-" and Path(f"{target}.snapshot").exists()
    force = args.force or unfinished
    skip = args.skip_existing and not unfinished
    if not check_output(target, source, force=force, skip=skip):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    from inr.codec.encode import encode
    from inr.files import write_bytes
    from inr.fitting.callbacks import ProgressBar, Report, StopOnSignal
    from inr.fitting.snapshot import Snapshot

    given = STDIN if source == "-" else source
    source_signal = opened()
    choosing.inspected(source_signal, source, voice)
    stop = StopOnSignal()
    snapshot = None if target == "-" else Snapshot(f"{target}.snapshot", resume=args.resume)
    callbacks: list[Any] = [stop] if snapshot is None else [stop, snapshot]
    if voice.as_json:
        callbacks.append(Report(voice.event, 1.0))
    elif not voice.quiet:
        callbacks.append(ProgressBar(printable(source)))
    budget = {"steps": args.steps, "seconds": args.seconds, "psnr": args.psnr}
    preset = work.preset(source, source_signal)
    build_kernels([preset.field], args.device)
    try:
        fit = inr.fit(
            source_signal,
            preset,
            **budget,
            seed=args.seed,
            device=args.device,
            callbacks=callbacks,
        )
    except KeyboardInterrupt:  # the second one
        return 128 + (stop.received or signal.SIGINT)
    name = "standard output" if target == "-" else target
    begin = time.perf_counter()
    with choosing.finishing(stop, f"{name}: is being written; the next Ctrl-C would lose it"):
        fit.field.layered = fit.field.layered or args.progressive
        data = encode(
            fit.field,
            source_signal,
            max_loss_db=args.max_loss_db,
            target_psnr=args.psnr,
            rounding=fit.rounding,
            metadata=metadata,
        )
        seconds_encoding = time.perf_counter() - begin
        if target == "-":
            write_stdout(data)
        else:
            write_bytes(target, data, overwrite=force)
    whole = fit.ended != "stopped"
    if whole and snapshot is not None:
        snapshot.discard()

    event = _done(fit, data) | {"seconds_encoding": round(seconds_encoding, 3)}
    shown = "exact" if event["psnr"] is None else f"{event['psnr']:.2f} dB"
    shown += "" if source_signal.complete else " to what was observed"
    unit, cost = next(iter(fit.signal.domain.density(len(data)).items()))
    told = "".join(f", {k} {fit.metrics[k]:.4g}" for k in source_signal.shown if k in fit.metrics)
    lines = [
        f"{given} -> {name}: {shown}{told}, {len(data):,} bytes, {cost:.3f} {unit}, "
        f"{fit.steps} steps in {fit.seconds:.1f} s, encoded in {seconds_encoding:.1f} s, "
        f"backend {fit.backend.backend} ({fit.backend.reason})"
    ]
    if fit.ended == "stalled":
        lines.append(f"stage {len(fit.stages)} lowered nothing and is left out")
    if args.progressive and len(fit.field.groups()) == 1:
        lines.append(choosing.ONE_LAYER)
    if not whole and snapshot is not None and snapshot.path.exists():
        lines.append("stopped before its end; the same command with --resume goes on")
    voice.event({"event": "done", "input": source, "output": target} | event, *lines)
    for complaint in source_signal.verdict(fit.field, fit.metrics):
        if voice.as_json:
            voice.event({"event": "warning", "input": source, "warning": complaint})
        complain(f"{given}: {complaint}")
    if stop.received:
        return 128 + stop.received
    if args.psnr is not None and event["psnr"] is not None and event["psnr"] < args.psnr:
        raise TargetNotReached(
            f"{given}: reached {shown} of {args.psnr:g} within the budget, which {name} holds; "
            "give more --steps or --seconds, or a larger field"
        )
    return 0


def _done(fit: Fit, data: bytes) -> dict[str, Any]:
    """The facts of a fit, JSON-ready; a `psnr` of None stands for an exact file."""
    from inr.codec.decode import inspect as inspect_file

    quality = inspect_file(data).psnr if fit.signal.complete else fit.metrics["psnr"]
    quality = quality or 0.0
    told = ("psnr", "psnr_float")
    others = {f"{k}_fit": number(v) for k, v in fit.metrics.items() if k not in told}
    return {
        "psnr": None if quality > EXACT else quality,
        "psnr_fit": number(fit.metrics["psnr_float"]),
        **others,
        "bytes": len(data),
        **{unit: round(cost, 4) for unit, cost in fit.signal.domain.density(len(data)).items()},
        "steps": fit.steps,
        "seconds": round(fit.seconds, 3),
        "ended": fit.ended,
        "backend": fit.backend.backend,
        "backend_reason": fit.backend.reason,
    }
