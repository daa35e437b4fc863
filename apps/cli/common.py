"""What the verbs share: parsers that fail in one line, inputs, outputs."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli.voice import complain
from fields.kernels.select import BACKENDS
from inr.backend import prefer
from inr.errors import InputError, OutputError, UsageError
from inr.limits import Limits


class Parser(ArgumentParser):
    """A parser whose `--print_config` shows what shapes a result, not this run's files and flags.

    Attributes:
        settings: Options beyond `field` and `recipe` that a printed configuration names, where
            they are not at their defaults.
    """

    settings: Sequence[str] = ()

    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:
        """Serialise a configuration; `--config` reads it back."""
        kept = Namespace(field=namespace.field, recipe=namespace.recipe)
        for key in self.settings:
            if namespace[key] != self.get_default(key):
                kept[key] = namespace[key]
        return super().dump(kept, *args, **(kwargs | {"skip_validation": True}))

    def format_help(self, *args: Any) -> str:
        """Show what is short for longer options: `--field NAME` for `--field.name NAME`."""
        text = super().format_help(*args)
        for option in ("field", "operator"):
            text = text.replace(f"--{option}.name NAME", f"--{option} NAME")
        return text.replace("--image.keep KEEP", "--keep KEEP")


def new_parser(verb: str, description: str) -> Parser:
    """A parser for one verb, with the options that all of them have."""
    parser = Parser(
        prog=f"inr {verb}", description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per event")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse, or raise UsageError in one line that names the option."""
    try:
        return parser.parse_args(list(argv))
    except argparse.ArgumentError as error:
        text = " ".join(str(error).split()).replace("Parser key ", "")
        text = re.sub(r"Expected an? <class '(\w+)'>. Got value:", r"expected \1, got", text)
        text = re.sub(r"Expected a typing.Literal\[(.*)\]. Got value:", r"give \1, not", text)
        verb = parser.prog.removeprefix("inr ")
        raise UsageError(f"{verb}: {text} (see `{parser.prog} --help`)") from None


def add_output_options(parser: ArgumentParser) -> None:
    """-o, -f, --skip-existing, --threads and -q."""
    parser.add_argument("-o", "--output", type=str, help="file to write; - for standard output")
    parser.add_argument("-f", "--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave existing outputs alone, quietly, even with -f",
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    add_backend_option(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")


def add_reading_options(p: Parser, kinds: Iterable[str]) -> list[str]:
    """For each kind of signal one option for each keyword of its opener; returns their names."""
    from inr.signals import reading_help, reading_options

    names = []
    for kind in kinds:
        options = reading_options(kind)
        if not options:
            continue
        group = p.add_argument_group(f"how files of {kind} are read")
        texts = reading_help(kind)
        for name, hint in options.items():
            group.add_argument(
                f"--{kind}.{name}", type=hint | None, help=texts[name].replace("%", "%%")
            )
            names.append(f"{kind}.{name}")
    return names


def reading_of(args: Namespace, kinds: Collection[str]) -> dict[str, dict[str, Any]]:
    """By kind, how files are to be read.

    Raises:
        UsageError: an option is for a kind that no input is of.
    """
    from inr.signals import KINDS

    reading = {}
    for kind in KINDS:
        values = vars(args[kind]) if kind in args else {}
        reading[kind] = {name: value for name, value in values.items() if value is not None}
        if reading[kind] and kind not in kinds:
            raise UsageError(f"--{kind}.{next(iter(reading[kind]))}: no input is of {kind}")
    return reading


def add_metadata_options(p: ArgumentParser) -> None:
    """--title, --author, --date, --comment and --source-hash."""
    group = p.add_argument_group("what the file says of the signal (by default nothing)")
    group.add_argument("--title", type=str, help="its name")
    group.add_argument("--author", type=str, help="who made it")
    group.add_argument("--date", type=str, help="when, in ISO 8601, such as 2026-11-21")
    group.add_argument("--comment", type=str, help="whatever else is worth saying")
    group.add_argument("--source-hash", action="store_true", help="SHA-256 of the input file")


def metadata_of(args: Namespace, content: str | bytes | None = None) -> dict[str, str]:
    """What a file is to say of its signal, by names, as `inr.codec.encode` takes it.

    Args:
        args: Parsed arguments.
        content: The input's path or bytes; without it, the hash of the input is left out.

    Raises:
        UsageError: a text is too long, or not what it should be.
        InputError: the input is no file that has a hash.
    """
    from inr.codec import metadata

    given = {key: getattr(args, key) for key in ("title", "author", "date", "comment")}
    said = {key: text for key, text in given.items() if text is not None}
    metadata.pack(said)  # a mistake is told before any work
    if args.source_hash and content is not None:
        said["source_sha256"] = metadata.source_hash(content)
    return said


def add_backend_option(parser: ArgumentParser) -> None:
    """--backend."""
    parser.add_argument(
        "--backend",
        type=str,
        default="auto",
        help=f"what computes fields: {', '.join(BACKENDS)}; `inr doctor` tells what is here",
    )


def set_computing(args: Namespace) -> None:
    """Set threads and backend as the user asked.

    Raises:
        UsageError: --threads or --backend is wrong.
    """
    prefer(args.backend)
    if args.threads is None:
        return
    if not 1 <= args.threads <= 1024:
        raise UsageError(f"--threads is {args.threads}: give a number from 1 to 1024")
    import torch

    torch.set_num_threads(args.threads)


def build_kernels(fields: Iterable[str], device: str) -> None:
    """Compile the CPU kernels of some fields now, if they are to be used and are not there yet.

    It is told on stderr, as it takes seconds. What goes wrong is told by the fit, which then goes
    on without.
    """
    from fields.kernels import build, select

    on_gpu = device.startswith("cuda") or (device == "auto" and select.look().gpu is not None)
    if on_gpu or select.preferred() not in ("auto", "cpp"):
        return
    kernels = {kernel for name in fields if (kernel := select.kernel_of(name))}
    missing = sorted(kernel for kernel in kernels if not build.built(kernel))
    if not missing or build.compiler() is None:
        return
    complain("compiling CPU kernels for this machine, once; this takes some seconds")
    for kernel in missing:
        with contextlib.suppress(build.NoKernel):
            build.library(kernel)


def read_input(source: str) -> bytes:
    """Bytes of an `.inr` file or of standard input, within the limits."""
    from inr.files import read_bytes

    limit = Limits().file_bytes
    if source != "-":
        return read_bytes(source, limit)
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"is larger than {limit:,} bytes")
    return data


def check_output(
    target: str, source: str, *, force: bool, skip: bool, folder: bool = False
) -> bool:
    """Whether to go on and write `target`, a file or, if `folder`, a folder of files.

    Raises:
        OutputError: it exists and may not be replaced, or nothing can be written there.
        UsageError: it is a terminal.
    """
    if target == "-":
        if sys.stdout.isatty():
            raise UsageError("a binary file does not go to a terminal: use -o FILE, or a pipe")
        return True
    from inr.files import check_folder, check_target

    with contextlib.suppress(OSError):
        if skip and (Path(target).is_file() or (folder and any(Path(target).iterdir()))):
            return False
    if folder:
        check_folder(target)
        return True
    if os.path.realpath(source) == str(check_target(target, overwrite=force)):
        raise OutputError(f"{target}: is the input itself; give another name")
    return True


def write_stdout(data: bytes) -> None:
    """Write the result itself to standard output."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {(error.strerror or str(error)).lower()}") from None


def make_folder(path: str) -> None:
    """Make a folder for outputs, if it is not there."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{path}: cannot be made a folder for outputs ({reason})") from None
