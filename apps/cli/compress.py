"""`inr compress`: signals in, `.inr` files of a size or a quality out."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

import inr
from apps.cli import choosing
from apps.cli.common import (
    Parser,
    add_reading_options,
    build_kernels,
    check_output,
    write_stdout,
)
from apps.cli.info import EXACT
from apps.cli.voice import STDIN, Voice, complain, each, number, printable
from inr.errors import TargetNotReached, UsageError
from inr.rate.targets import TargetOptions, wanted
from inr.signals import KINDS

if TYPE_CHECKING:
    from inr.fitting.callbacks import ProgressBar
    from inr.rate.control import Compressed, Trial

MULTIPLES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20}

OPTIONS = {
    "weight": "--lambda",
    **{name: f"--{name}" for name in ("bpp", "kbps", "bytes", "psnr", "snr", "iou")},
}

EFFORT_HELP = (
    "1 to 9: how long to search and train. 4 trains for the preset's steps after two short fits, "
    "and again where that field is ill-sized for the target; 1, 2 and 3 take a quarter, half and "
    "three quarters of the steps; from 5 on, up to ten times the steps at 9, more fits, and a last "
    "phase of training with the parameters rounded as in the file"
)


def run(argv: Sequence[str]) -> int:
    """Compress each input; returns the exit code."""
    argv = choosing.rewritten(argv, "compress")
    work = choosing.prepare("compress", argv, parser(), _parsed, _check)
    return each(work.args.inputs, lambda source: _compress(source, work), work.voice)


def parser(
    kind: str = "image",
    field_name: str | None = None,
    suited: str | None = None,
    *,
    with_class: bool = False,
) -> Parser:
    """The parser; with the field's class it also takes that field's hyperparameters.

    Args:
        kind: Kind of the signals, on which the defaults depend.
        field_name: The field; if not given, that of the preset.
        suited: Name of the preset; the kind's default if not given.
        with_class: Whether to add options for its hyperparameters.
    """
    base = choosing.base_of(kind, field_name, suited)
    p = choosing.start_parser(
        "compress",
        "Fit and code each input so that its .inr file meets a target: a size that it never "
        "exceeds, or a quality that the decoded file never falls below.",
    )
    group = p.add_argument_group("the target, one of")
    group.add_argument("--bytes", type=str, help="size of the file at most: 20k, 1.5M, 64Ki")
    group.add_argument(
        "--bpp", type=float, help="bits per pixel, voxel or other sample at most, whole file"
    )
    group.add_argument(
        "--kbps", type=float, help="for sound and video: kilobits per second at most"
    )
    group.add_argument("--psnr", type=float, help="PSNR of the decoded file at least, in dB")
    group.add_argument("--snr", type=float, help="for sound: signal-to-noise ratio at least, in dB")
    group.add_argument("--iou", type=float, help="for solids: intersection over union at least")
    group = p.add_argument_group("what it may cost")
    group.add_argument("--effort", type=int, default=4, help=EFFORT_HELP)
    group.add_argument("--seconds", type=float, help="bound on the seconds of all fits of an input")
    group.add_argument(
        "--lambda",
        type=float,
        help="weight of the rate (recipe.rate_weight), for experts: it is then not searched, and "
        "no target is needed",
    )
    p.settings = (
        *("effort", "seconds", "lambda", "seed", "device", "threads", "backend"),
        *("bytes", "bpp", "kbps", "psnr", "snr", "iou"),
        *add_reading_options(p, KINDS),
    )
    choosing.add_field_options(p, "compress", base, with_class=with_class)
    return p


def _parsed(argv: Sequence[str], kind: str, suited: str | None = None) -> Namespace:
    return choosing.with_field(parser, argv, kind, suited)


def _check(args: Namespace) -> None:
    """Refuse what is no target, and efforts that there are not."""
    wanted(_target(args), OPTIONS)
    if not 1 <= args.effort <= 9:
        raise UsageError(f"--effort is {args.effort}: give a whole number from 1 to 9")
    if args.seconds is not None and not 0 < args.seconds < 1e12:
        raise UsageError(f"--seconds is {args.seconds}: give a number above 0")


def _target(args: Namespace) -> TargetOptions:
    return {
        "weight": args["lambda"],
        "bpp": args.bpp,
        "kbps": args.kbps,
        "bytes": None if args.bytes is None else size_of(args.bytes),
        "psnr": args.psnr,
        "snr": args.snr,
        "iou": args.iou,
    }


def size_of(text: str) -> float:
    """Bytes of a text such as 20k, 1.5M or 64KiB; k, M and G are thousands, Ki and Mi 1024s.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*?)[bB]?", text.strip())
    if not found or found[2].lower() not in MULTIPLES:
        raise UsageError(f"--bytes is {text!r}: give a number of bytes such as 2000, 20k or 64Ki")
    return float(found[1]) * MULTIPLES[found[2].lower()]


def _compress(source: str, work: choosing.Work) -> int:
    """Compress one input; returns its exit code."""
    args, voice, target = work.args, work.voice, work.targets[source]
    if not check_output(target, source, force=args.force, skip=args.skip_existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    from inr.files import write_bytes

    given = STDIN if source == "-" else source
    opened = work.opener(source)()
    choosing.inspected(opened, source, voice)
    preset = work.preset(source, opened)
    build_kernels([preset.field], args.device)
    watch = _watch(source, voice)
    later = f"{given}: ends when what is being coded is coded; the next Ctrl-C ends it at once"
    try:
        with choosing.finishing(watch[0], later):
            found = inr.compress(
                opened,
                preset,
                effort=args.effort,
                seconds=args.seconds,
                seed=args.seed,
                device=args.device,
                callbacks=watch,
                metadata=work.metadata(source),
                progressive=args.progressive,
                **_target(args),
            )
    except KeyboardInterrupt:  # the second one
        return 128 + (watch[0].received or signal.SIGINT)
    except TargetNotReached as error:
        if watch[0].received:
            complain(f"{given}: {error}")
            return 128 + watch[0].received
        raise TargetNotReached(f"{given}: {error}") from None
    name = "standard output" if target == "-" else target
    with choosing.finishing(watch[0], f"{name}: is being written; the next Ctrl-C would lose it"):
        if target == "-":
            write_stdout(found.data)
        else:
            write_bytes(target, found.data, overwrite=args.force)

    event = _done(found)
    lines = _told(found, given, name)
    if args.progressive and len(found.fit.field.groups()) == 1:
        lines.append(choosing.ONE_LAYER)
    voice.event({"event": "done", "input": source, "output": target} | event, *lines)
    for complaint in opened.verdict(found.fit.field, found.quality):
        if voice.as_json:
            voice.event({"event": "warning", "input": source, "warning": complaint})
        complain(f"{given}: {complaint}")
    if watch[0].received:
        return 128 + watch[0].received
    if not found.reached:
        assert found.target is not None
        got = f"{found.target.measure} {found.quality[found.target.measure]:.4g}"
        raise TargetNotReached(
            f"{given}: reached {got} of {found.target}, which {name} holds; give more --effort, "
            "or another --field"
        )
    return 0


def _watch(source: str, voice: Voice) -> list[Any]:
    """What watches the fits: first what stops them, then what shows them."""
    from inr.fitting.callbacks import ProgressBar, Report, StopOnSignal
    from inr.rate.control import OnTrial

    bar = None if voice.as_json or voice.quiet else ProgressBar(printable(source))

    class Stop(StopOnSignal, OnTrial):
        """Ends the search at a signal, and tells of each fit."""

        def on_trial(self, trial: Trial) -> bool:
            if voice.as_json:
                said = {"number": trial.number, "of": trial.of, "purpose": trial.purpose}
                voice.event({"event": "trial", "input": source, **said, "dial": trial.label})
            elif bar is not None:
                _label(bar, source, trial)
            return not self.received

    shown = Report(voice.event, 1.0) if bar is None else bar
    return [Stop()] if voice.quiet and not voice.as_json else [Stop(), shown]


def _label(bar: ProgressBar, source: str, trial: Trial) -> None:
    what = f"fit {trial.number} of up to {trial.of}: {trial.purpose}, {trial.label}"
    bar.label = printable(f"{source}: {what}")


def _done(found: Compressed) -> dict[str, Any]:
    """The facts of a file, JSON-ready; a `psnr` of None stands for an exact one."""
    quality = {name: number(value) for name, value in found.quality.items()}
    quality.pop("psnr_float", None)
    if found.quality["psnr"] > EXACT:
        quality["psnr"] = None
    target = found.target
    return {
        "target": None if target is None else {target.measure: target.value},
        "reached": found.reached,
        **quality,
        "bytes": len(found.data),
        **{unit: round(v, 4) for unit, v in _density(found).items()},
        "fits": [vars(trial) | {"quality": number(trial.quality)} for trial in found.trials],
        "seconds": round(found.seconds, 3),
        "stopped": found.stopped,
    }


def _density(found: Compressed) -> dict[str, float]:
    return found.fit.signal.domain.density(len(found.data))


def _told(found: Compressed, given: str, name: str) -> list[str]:
    """The same for people."""
    quality = found.quality
    shown = "exact" if quality["psnr"] > EXACT else f"{quality['psnr']:.2f} dB"
    more = [f"{k} {quality[k]:.4g}" for k in found.fit.signal.shown if k in quality]
    size = f"{len(found.data):,} bytes"
    if found.target is not None and found.target.is_size:
        size += f" of {found.target.max_bytes:,}"
    unit, cost = next(iter(_density(found).items()))
    fits = f"{len(found.trials)} fits" if len(found.trials) != 1 else "1 fit"
    facts = ", ".join(
        [shown, *more, size, f"{cost:.3f} {unit}", f"{fits} in {found.seconds:.1f} s"]
    )
    lines = [f"{given} -> {name}: {facts}"]
    if found.stopped:
        lines.append("stopped before its end: this is the best file so far that meets the target")
    return lines
