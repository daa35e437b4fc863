"""`inr decode`: an `.inr` file in; a picture or array of any size, a sound of any rate out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli import decode_array, decode_audio, decode_image
from apps.cli.common import (
    add_output_options,
    check_output,
    new_parser,
    parse,
    read_input,
    set_threads,
    write_stdout,
)
from apps.cli.voice import STDIN, Voice, each
from inr.errors import UsageError

KINDS: dict[str, tuple[Any, Any, str]] = {
    "array": (decode_array, decode_array.Array, "arrays"),
    "audio": (decode_audio, decode_audio.Sound, "sound"),
    "image": (decode_image, decode_image.Picture, "pictures"),
}
"""By kind of signal: the module of its options, what renders it, and what people call it."""


def run(argv: Sequence[str]) -> int:
    """Decode one file; returns the exit code."""
    args = parse(parser(), argv)
    how = {kind: module.options(args) for kind, (module, _, _) in KINDS.items()}
    if args.input == "-" and not args.output:
        raise UsageError("standard input has no name: say where to write with -o")
    set_threads(args.threads)
    voice = Voice(args, to_stderr=args.output == "-")
    return each([args.input], lambda source: _decode(source, how, args, voice), voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("decode", "Render an .inr file at any size or rate.")
    p.add_argument("input", help=".inr file; - for standard input")
    add_output_options(p)
    for module, _, _ in KINDS.values():
        module.add_options(p)
    return p


def _decode(source: str, how: dict[str, dict[str, Any]], args: Namespace, voice: Voice) -> int:
    """Decode one file; returns its exit code."""
    from inr.codec.decode import decode
    from inr.files import atomic_path

    field = decode(read_input(source))
    kind = field.domain.kind
    names = (STDIN if source == "-" else source, "standard output")
    for other, (module, _, noun) in KINDS.items():
        given = [name for name in module.OPTIONS if getattr(args, name) is not None]
        if other != kind and given:
            raise UsageError(f"--{given[0]} is for {noun}: {names[0]} holds {KINDS[kind][2]}")
    job = KINDS[kind][1](field, how[kind])
    target = args.output or str(Path(source).with_suffix(job.suffix))
    suffix = job.suffix if target == "-" else Path(target).suffix
    job.check(suffix, to_file=target != "-")
    if not check_output(target, source, force=args.force, skip=args.skip_existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    begin = time.perf_counter()
    if target == "-":
        write_stdout(job.to_bytes(suffix))
    else:
        names = (names[0], target)
        with atomic_path(target, overwrite=args.force) as part:
            job.write(part)
    seconds = time.perf_counter() - begin
    voice.event(
        {
            "event": "done",
            "input": source,
            "output": target,
            **job.facts,
            "seconds": round(seconds, 3),
        },
        f"{names[0]} -> {names[1]}: {job.text} in {seconds:.1f} s",
    )
    return 0
