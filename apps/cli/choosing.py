"""How a command line becomes signals, fields and recipes, for the verbs that fit.

The options depend on the kinds of the inputs and on the field: its hyperparameters are options too.
So inputs, kinds and the field's name are found ahead of the parser.
"""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jsonargparse import Namespace

import inr
from apps.cli.common import (
    Parser,
    add_metadata_options,
    add_output_options,
    make_folder,
    metadata_of,
    new_parser,
    parse,
    reading_of,
    set_computing,
)
from apps.cli.voice import STDIN, Voice, complain
from inr import presets
from inr.errors import InputError, UsageError
from inr.files import suffix_of
from inr.presets import Preset, Recipe
from inr.signals import KINDS, kind_of

if TYPE_CHECKING:
    from fields.base import Field
    from inr.fitting.callbacks import StopOnSignal
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

ONE_LAYER = "its file has one layer: only grid, multistage and progressive have more"

FIELD_HELP = (
    "which field; `inr fields` lists them, `inr {verb} --field NAME --help` its hyperparameters"
)


class Parsed(Protocol):
    """The command line as signals of a kind have it, or those that a preset suits."""

    def __call__(self, argv: Sequence[str], kind: str, suited: str | None = None) -> Namespace:
        """Parse it."""


@dataclass
class Work:
    """What a command line asks for.

    Args:
        args: Its options; those of the field and the recipe depend on the kind (see `preset`).
        voice: What tells of it.
        targets: By input, where its file goes.
    """

    args: Namespace
    voice: Voice
    targets: dict[str, str]
    _contents: dict[str, str | bytes]
    _kinds: dict[str, str]
    _reading: dict[str, dict[str, Any]]
    _chosen: dict[str, Preset]
    _argv: Sequence[str]
    _parsed: Parsed

    def opener(self, source: str) -> Callable[[], Signal]:
        """What opens an input."""
        kind = self._kinds[source]
        content = self._contents[source]
        return functools.partial(inr.open, content, kind=kind, **self._reading[kind])

    def metadata(self, source: str) -> dict[str, str]:
        """What the file of an input is to say of it."""
        return metadata_of(self.args, self._contents[source])

    def preset(self, source: str, signal: Signal) -> Preset:
        """What is to be fitted to an input."""
        kind = self._kinds[source]
        if signal.preset is None:
            return self._chosen[kind]
        return preset_of(self._parsed(self._argv, kind, signal.preset), kind)


def prepare(
    verb: str,
    argv: Sequence[str],
    plain: Parser,
    parsed: Parsed,
    check: Callable[[Namespace], None],
) -> Work:
    """Find out all that a command line asks for, and refuse what cannot be, before anything runs.

    Args:
        verb: The command.
        argv: Its arguments, as `rewritten` makes them.
        plain: A parser of all options but those of a field.
        parsed: The parser of a kind of signal, as a function.
        check: Refuses further options that are wrong.

    Raises:
        UsageError: an option is wrong.
    """
    contents = _inputs(argv, plain)
    forced = _forced_kind(argv)
    kinds = {source: forced or kind_of(content) for source, content in contents.items()}
    of_kind = {
        kind: parsed(argv, kind) for kind in sorted(set(kinds.values()) or {forced or _kind(argv)})
    }
    args = next(iter(of_kind.values()))  # they differ in fields and recipes only
    targets = dict(_jobs(args, verb))
    if not 0 <= args.seed < 1 << 63:
        raise UsageError(f"--seed is {args.seed}: give a whole number from 0 to 2^63 - 1")
    check(args)
    metadata_of(args)
    reading = reading_of(args, kinds.values())
    chosen = {kind: preset_of(its, kind) for kind, its in of_kind.items()}
    set_computing(args)
    if args.out_dir:
        make_folder(args.out_dir)
    voice = Voice(args, to_stderr=args.output == "-")
    return Work(args, voice, targets, contents, kinds, reading, chosen, argv, parsed)


def start_parser(verb: str, description: str) -> Parser:
    """A parser with the options that do not depend on the field, for any verb that fits."""
    p = new_parser(verb, description)
    p.add_argument("inputs", nargs="+", help=f"files to {verb}; - for standard input")
    p.add_argument(
        "--kind", type=str, help=f"what the files hold, if they do not say: {', '.join(KINDS)}"
    )
    add_output_options(p)
    p.add_argument("--out-dir", type=str, help="folder for the outputs; made if it is not there")
    p.add_argument(
        "--config", action="config", help="preset by name (image/grid-fast) or YAML file"
    )
    p.add_argument("--seed", type=int, default=0, help="seed of initialisation and batches")
    p.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument(
        "--progressive",
        action="store_true",
        help="coarse to fine: the file's first bytes make a picture (inr decode --partial)",
    )
    add_metadata_options(p)
    return p


def add_field_options(p: Parser, verb: str, base: Preset, *, with_class: bool) -> None:
    """Which field, its hyperparameters if its class may be looked at, and the recipe."""
    p.add_argument("--field.name", type=str, default=base.field, help=FIELD_HELP.format(verb=verb))
    if with_class:
        _add_hyperparameters(p, base)
    training = p.add_argument_group("how the field is trained")
    training.add_class_arguments(Recipe, "recipe", as_group=False)
    p.set_defaults({f"recipe.{k}": v for k, v in vars(base.recipe).items()})


def base_of(kind: str, field_name: str | None, suited: str | None) -> Preset:
    """The preset that options are relative to: a field's, or one by name, or the kind's default."""
    if field_name:
        return presets.for_field(kind, field_name)
    return presets.load(suited or presets.DEFAULTS[kind], kind)


def inspected(found: Signal, source: str, voice: Voice) -> None:
    """Say what was found in an input, and refuse it where there is nothing to fit."""
    given = STDIN if source == "-" else source
    if found.objection is not None:
        raise InputError(f"{given}: {found.objection}")
    for note in found.notes:
        voice.event({"event": "note", "input": source, "note": note}, f"{given}: {note}")


@contextlib.contextmanager
def finishing(stop: StopOnSignal, message: str) -> Iterator[None]:
    """Within it the first signal is noted, and said, and the work goes on; the second one ends it.

    Args:
        stop: Where it is noted. One that it noted itself, in a fit within, counts as the first.
        message: What is said.
    """

    def note(number: int, frame: object) -> None:
        again = stop.received
        stop.received = number
        restore()
        if again:
            raise KeyboardInterrupt
        complain(message)

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


def rewritten(argv: Sequence[str], verb: str) -> list[str]:
    """`--field NAME`, `--operator NAME` and `--init X` are short for `--field.name NAME` and so on.

    `--keep X` is short for `--image.keep X`.

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
                raise UsageError(f"{verb}: --config needs a preset's name or a file")
            configs.append(f"--config={presets.path_of(value)}")
        elif word.startswith("--config="):
            configs.append(f"--config={presets.path_of(word.partition('=')[2])}")
        elif word == "--field" or word.startswith("--field="):
            rest.append(word.replace("--field", "--field.name", 1))
        elif word == "--init" or word.startswith("--init="):
            rest.append(word.replace("--init", "--field.init", 1))
        elif word == "--keep" or word.startswith("--keep="):
            rest.append(word.replace("--keep", "--image.keep", 1))
        elif word == "--operator" or word.startswith("--operator="):
            rest.append(word.replace("--operator", "--operator.name", 1))
        else:
            rest.append(word)
    return configs + rest


def _inputs(argv: Sequence[str], plain: Parser) -> dict[str, str | bytes]:
    """The inputs by name, each as `inr.open` takes it.

    They are found ahead of the parser, which depends on their kinds.
    """
    valued = {
        option
        for action in plain._actions  # argparse has no public way to see options
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


def with_field(
    build: Callable[..., Parser], argv: Sequence[str], kind: str, suited: str | None
) -> Namespace:
    """Parse with the options of the field that is chosen.

    Args:
        build: Makes the parser of a kind, a field's name, a preset's name, and `with_class`.
        argv: The arguments.
        kind: Kind of the signals.
        suited: Name of the preset that suits them, if it is not the kind's default.
    """
    name = _chosen_field(argv, kind)
    plain = name is None and any(a in ("-h", "--help") for a in argv)
    # the field's class brings torch: plain --help does without
    return parse(build(kind, name, suited, with_class=not plain), argv)


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


def preset_of(args: Namespace, kind: str) -> Preset:
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


def _jobs(args: Namespace, verb: str) -> list[tuple[str, str]]:
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
            raise UsageError(
                f"several inputs would become {target}: {verb} them one by one with -o"
            )
    return jobs
