"""`inr fit`: signals in, `.inr` files out."""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

import inr
from apps.cli import operators
from apps.cli.common import (
    Parser,
    add_output_options,
    add_reading_options,
    check_output,
    make_folder,
    new_parser,
    parse,
    reading_of,
    set_threads,
    write_stdout,
)
from apps.cli.info import EXACT
from apps.cli.voice import STDIN, Voice, complain, each, number, printable
from inr import presets
from inr.errors import InputError, TargetNotReached, UsageError
from inr.files import suffix_of
from inr.presets import Preset, Recipe
from inr.signals import KINDS, kind_of

if TYPE_CHECKING:
    from fields.base import Field
    from inr.fitting.callbacks import StopOnSignal
    from inr.fitting.fit import Fit
    from inr.signals.base import Signal

EXAMPLES = {
    "audio": ((4096,), 1),
    "image": ((64, 64), 3),
    "shape": ((64, 64, 64), 1),
    "video": ((16, 32, 32), 3),
    "volume": ((32, 32, 32), 1),
}
"""By kind of signal, a shape and channels on which hyperparameters are checked. An array's number
of axes is known when it is opened."""

FIELD_HELP = (
    "which field; `inr fields` lists them, `inr fit --field NAME --help` its hyperparameters"
)


def run(argv: Sequence[str]) -> int:
    """Fit each input; returns the exit code."""
    argv = _rewritten(argv)
    contents = _inputs(argv)
    forced = _forced_kind(argv)
    kinds = {source: forced or kind_of(content) for source, content in contents.items()}
    parsed = {
        kind: _parsed(argv, kind) for kind in sorted(set(kinds.values()) or {forced or _kind(argv)})
    }
    args = next(iter(parsed.values()))  # they differ in fields and recipes only
    targets = dict(_jobs(args))
    _check(args)
    operator = operators.build(args)
    reading = reading_of(args, kinds.values())
    chosen = {kind: _preset(its, kind) for kind, its in parsed.items()}
    set_threads(args.threads)
    if args.out_dir:
        make_folder(args.out_dir)
    voice = Voice(args, to_stderr=args.output == "-")

    def suited(kind: str, signal: Signal) -> Preset:
        if signal.preset is None:
            return chosen[kind]
        return _preset(_parsed(argv, kind, signal.preset), kind)

    def work(source: str) -> int:
        kind = kinds[source]
        opened = functools.partial(inr.open, contents[source], kind=kind, **reading[kind])
        if operator is not None:
            simulate = args.operator.simulate
            opened = functools.partial(
                operators.observed, opened, operator, args.truth, simulate=simulate
            )
        how = functools.partial(suited, kind)
        return _fit(source, opened, targets[source], how, args, voice)

    return each(args.inputs, work, voice)


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
    if field_name:
        base = presets.for_field(kind, field_name)
    else:
        base = presets.load(suited or presets.DEFAULTS[kind], kind)
    p = new_parser("fit", "Fit a field to each input and store it as a compressed .inr file.")
    p.add_argument("inputs", nargs="+", help="files to fit; - for standard input")
    p.add_argument(
        "--kind", type=str, help=f"what the files hold, if they do not say: {', '.join(KINDS)}"
    )
    add_output_options(p)
    p.add_argument("--out-dir", type=str, help="folder for the outputs; made if it is not there")
    p.add_argument("--resume", action="store_true", help="go on from OUTPUT.snapshot if it exists")
    p.add_argument(
        "--config", action="config", help="preset by name (image/grid-fast) or YAML file"
    )
    p.add_argument("--steps", type=int, help="budget in optimiser steps")
    p.add_argument("--seconds", type=float, help="budget in seconds of fitting")
    p.add_argument("--psnr", type=float, help="stop at this quality, in dB")
    p.add_argument("--seed", type=int, default=0, help="seed of initialisation and batches")
    p.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--max-loss-db", type=float, default=0.1, help="PSNR that coding may cost")
    p.settings = (
        *("steps", "seconds", "psnr", "seed", "device", "max_loss_db", "threads"),
        *add_reading_options(p, KINDS),
    )
    operators.add_options(p, operator)
    p.add_argument("--field.name", type=str, default=base.field, help=FIELD_HELP)
    if with_class:
        _add_hyperparameters(p, base)
    training = p.add_argument_group("how the field is trained")
    training.add_class_arguments(Recipe, "recipe", as_group=False)
    p.set_defaults({f"recipe.{k}": v for k, v in vars(base.recipe).items()})
    return p


def _add_hyperparameters(p: Parser, base: Preset) -> None:
    """One option for each keyword of the field's constructor, as its docstring tells it."""
    import typing

    import docstring_parser

    from fields.base import hyperparameter_names

    cls = _field_class(base.field)
    hints = typing.get_type_hints(cls.__init__)
    defaults = inspect.signature(cls).parameters
    texts = {x.arg_name: x.description for x in docstring_parser.parse(cls.__doc__ or "").params}
    adaptive = cls.suggest((64, 64))
    group = p.add_argument_group(f"hyperparameters of {base.field}")
    for name in hyperparameter_names(cls):
        text = " ".join((texts.get(name) or "").replace("%", "%%").split())
        fallback = None if name in adaptive else defaults[name].default
        group.add_argument(
            f"--field.{name}",
            type=hints[name],
            default=base.hyperparameters.get(name, fallback),
            help=f"{text} null: what suits the signal." if name in adaptive else text,
        )


def _rewritten(argv: Sequence[str]) -> list[str]:
    """`--field NAME`, `--operator NAME` and `--init X` are short for `--field.name NAME` and so on.

    Presets by name become paths.

    Configurations move to the front, so that an option wins over them wherever it stands.
    """
    configs: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--config":
            value = next(words, None)
            if value is None:
                raise UsageError("fit: --config needs a preset's name or a file")
            configs.append(f"--config={presets.path_of(value)}")
        elif word.startswith("--config="):
            configs.append(f"--config={presets.path_of(word.partition('=')[2])}")
        elif word == "--field" or word.startswith("--field="):
            rest.append(word.replace("--field", "--field.name", 1))
        elif word == "--init" or word.startswith("--init="):
            rest.append(word.replace("--init", "--field.init", 1))
        elif word == "--operator" or word.startswith("--operator="):
            rest.append(word.replace("--operator", "--operator.name", 1))
        else:
            rest.append(word)
    return configs + rest


def _inputs(argv: Sequence[str]) -> dict[str, str | bytes]:
    """The inputs by name, each as `inr.open` takes it.

    They are found ahead of the parser, which depends on their kinds.
    """
    valued = {
        option
        for action in parser()._actions  # argparse has no public way to see options
        if action.nargs is None
        for option in action.option_strings
    }
    sources: list[str] = []
    has_output = False
    words = iter(argv)
    for word in words:
        if word == "--":
            sources += words
        elif word == "-" or not word.startswith("-") or word[1].isdigit():
            sources.append(word)
        else:
            has_output = has_output or word.startswith(("-o", "--output"))
            if word in valued or (word.startswith(("--field.", "--operator.")) and "=" not in word):
                next(words, None)
    # without -o the command is refused, and nobody is to wait for what is typed
    return {s: sys.stdin.buffer.read() if s == "-" and has_output else s for s in sources}


def _forced_kind(argv: Sequence[str]) -> str | None:
    """What `--kind` says, on which the parser depends too."""
    kind = None
    for word, following in itertools.pairwise([*argv, ""]):
        name, _, value = word.partition("=")
        if word == "--":
            break
        if name == "--kind":
            kind = value or following
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind is {kind!r}: choose from {', '.join(KINDS)}")
    return kind


def _kind(argv: Sequence[str]) -> str:
    """The kind of signal that the configurations are for."""
    configs = [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    return presets.kind_of(Path(configs[-1] if configs else ""))


def _parsed(argv: Sequence[str], kind: str, suited: str | None = None) -> Namespace:
    """The command line as signals of a kind have it, or those that a preset suits."""
    name = _chosen_field(argv, kind)
    plain = name is None and any(a in ("-h", "--help") for a in argv)
    operator = operators.chosen(argv)
    suited = suited or operators.preset_of(operator, kind)
    # the field's class brings torch: plain --help does without
    return parse(parser(kind, name, suited, operator, with_class=not plain), argv)


def _chosen_field(argv: Sequence[str], kind: str) -> str | None:
    """The field's name: from the command line, else from a configuration.

    Only sine networks have an `init`: where that is given and no field, SIREN is meant.
    """
    name = None
    has_init = False
    for word, following in itertools.pairwise([*argv, ""]):
        key, _, value = word.partition("=")
        if key == "--config":
            name = presets.read(Path(value)).get("field", {}).get("name", name)
        elif key == "--field.name":
            name = value or following
        elif key == "--field.init":
            has_init = True
    if name is None and has_init:
        from fields.base import hyperparameter_names

        default = presets.default(kind).field
        return default if "init" in hyperparameter_names(_field_class(default)) else "siren"
    return name


def _check(args: Namespace) -> None:
    """Refuse numbers that no fit could use."""
    if not 0 <= args.seed < 1 << 63:
        raise UsageError(f"--seed is {args.seed}: give a whole number from 0 to 2^63 - 1")
    if not 0 <= args.max_loss_db <= 100:
        raise UsageError(f"--max-loss-db is {args.max_loss_db}: give dB from 0 to 100")


def _preset(args: Namespace, kind: str) -> Preset:
    """What was asked for, refused here if no such field can be built."""
    import torch

    from fields.base import FieldError

    given = {k: v for k, v in vars(args.field).items() if k != "name" and v is not None}
    preset = Preset(args.field.name, given, Recipe(**vars(args.recipe)))
    cls = _field_class(preset.field)
    if kind not in EXAMPLES:
        return preset
    shape, channels = EXAMPLES[kind]
    try:
        with torch.device("meta"):  # its checks, without its memory
            cls(len(shape), channels, **cls.complete(shape, given))
    except FieldError as error:
        raise UsageError(f"--field {preset.field}: {error}") from None
    return preset


def _field_class(name: str) -> type[Field]:
    from fields import registry
    from fields.base import FieldError

    try:
        return registry.field_class(name)
    except FieldError as error:
        raise UsageError(f"--field: {error}") from None


def _jobs(args: Namespace) -> list[tuple[str, str]]:
    """(input, output) pairs, refused before anything runs where outputs would clash."""
    if args.output and (args.out_dir or len(args.inputs) > 1):
        raise UsageError("-o names one file: for several inputs give --out-dir")
    jobs = []
    for source in args.inputs:
        if source == "-" and not args.output:
            raise UsageError("standard input has no name: say where to write with -o")
        folder = Path(args.out_dir) if args.out_dir else Path(source).parent
        stem = Path(source).name.removesuffix(suffix_of(source))
        jobs.append((source, args.output or str(folder / f"{stem}.inr")))
    counts = collections.Counter(os.path.realpath(target) for _, target in jobs)
    for _, target in jobs:
        if counts[os.path.realpath(target)] > 1:
            raise UsageError(f"several inputs would become {target}: fit them one by one with -o")
    return jobs


def _fit(
    source: str,
    opened: Callable[[], Signal],
    target: str,
    suited: Callable[[Signal], Preset],
    args: Namespace,
    voice: Voice,
) -> int:
    """Fit one input; returns its exit code."""
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
    _inspected(source_signal, source, voice)
    stop = StopOnSignal()
    snapshot = None if target == "-" else Snapshot(f"{target}.snapshot", resume=args.resume)
    callbacks: list[Any] = [stop] if snapshot is None else [stop, snapshot]
    if voice.as_json:
        callbacks.append(Report(voice.event, 1.0))
    elif not voice.quiet:
        callbacks.append(ProgressBar(printable(source)))
    budget = {"steps": args.steps, "seconds": args.seconds, "psnr": args.psnr}
    try:
        fit = inr.fit(
            source_signal,
            suited(source_signal),
            **budget,
            seed=args.seed,
            device=args.device,
            callbacks=callbacks,
        )
    except KeyboardInterrupt:  # the second one
        return 128 + (stop.received or signal.SIGINT)
    name = "standard output" if target == "-" else target
    begin = time.perf_counter()
    with _finishing(stop, name):
        data = encode(
            fit.field,
            source_signal,
            max_loss_db=args.max_loss_db,
            target_psnr=args.psnr,
            rounding=fit.rounding,
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
        f"{fit.steps} steps in {fit.seconds:.1f} s, encoded in {seconds_encoding:.1f} s"
    ]
    if fit.ended == "stalled":
        lines.append(f"stage {len(fit.stages)} lowered nothing and is left out")
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


def _inspected(found: Signal, source: str, voice: Voice) -> None:
    """Say what was found in an input, and refuse it where there is nothing to fit."""
    given = STDIN if source == "-" else source
    if found.objection is not None:
        raise InputError(f"{given}: {found.objection}")
    for note in found.notes:
        voice.event({"event": "note", "input": source, "note": note}, f"{given}: {note}")


@contextlib.contextmanager
def _finishing(stop: StopOnSignal, name: str) -> Iterator[None]:
    """Once a fit is done, let the first signal wait until its file is written."""

    def note(number: int, frame: object) -> None:
        stop.received = number
        restore()
        complain(f"{name}: is being written; the next Ctrl-C would lose it")

    def restore() -> None:
        while old:
            signal.signal(*old.popitem())

    old: dict[int, Any] = {}
    if not stop.received and threading.current_thread() is threading.main_thread():
        old = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


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
    }
