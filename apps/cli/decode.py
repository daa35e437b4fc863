"""`inr decode`: an `.inr` file in; a picture or array of any size, a sound of any rate out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace

from apps.cli import (
    decode_array,
    decode_audio,
    decode_image,
    decode_shape,
    decode_video,
    decode_volume,
)
from apps.cli.common import (
    add_output_options,
    check_output,
    new_parser,
    parse,
    read_input,
    set_computing,
    write_stdout,
)
from apps.cli.info import EXACT
from apps.cli.voice import STDIN, Voice, each
from inr.errors import UsageError

if TYPE_CHECKING:
    from inr.codec.decode import Contents


class Kind(NamedTuple):
    """How one kind of signal is rendered.

    Args:
        module: Has OPTIONS, the options that the kind takes, each with its type and help, and a
            function `options` of the parsed arguments. Several kinds may take the same option.
        job: What renders, made of a field and of what `options` returned.
        noun: What people call it.
    """

    module: Any
    job: Any
    noun: str


KINDS = {
    "array": Kind(decode_array, decode_array.Array, "arrays"),
    "audio": Kind(decode_audio, decode_audio.Sound, "sound"),
    "image": Kind(decode_image, decode_image.Picture, "pictures"),
    "shape": Kind(decode_shape, decode_shape.Model, "shapes"),
    "video": Kind(decode_video, decode_video.Clip, "clips"),
    "volume": Kind(decode_volume, decode_volume.Scan, "volumes"),
}
"""By kind of signal."""


def run(argv: Sequence[str]) -> int:
    """Decode one file; returns the exit code."""
    args = parse(parser(), argv)
    if args.input == "-" and not args.output:
        raise UsageError("standard input has no name: say where to write with -o")
    set_computing(args)
    voice = Voice(args, to_stderr=args.output == "-")
    return each([args.input], lambda source: _decode(source, args, voice), voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("decode", "Render an .inr file at any size or rate.")
    p.add_argument("input", help=".inr file; - for standard input")
    add_output_options(p)
    p.add_argument(
        "--partial",
        action="store_true",
        help="make do with the first bytes of a progressive file: its layers as far as they go",
    )
    groups: dict[str, Any] = {}
    for name, kinds in _takers().items():
        title = _nouns(kinds)
        if title not in groups:
            groups[title] = p.add_argument_group(title)
        told: dict[str, list[Kind]] = {}
        for kind in kinds:
            told.setdefault(kind.module.OPTIONS[name][1], []).append(kind)
        text = "; ".join(f"{_nouns(own)}: {text}" for text, own in told.items())
        text = text if len(told) > 1 else next(iter(told))
        groups[title].add_argument(f"--{name}", type=kinds[0].module.OPTIONS[name][0], help=text)
    return p


def _takers() -> dict[str, list[Kind]]:
    """By option, the kinds that take it."""
    takers: dict[str, list[Kind]] = {}
    for kind in KINDS.values():
        for name in kind.module.OPTIONS:
            takers.setdefault(name, []).append(kind)
    return takers


def _nouns(kinds: Sequence[Kind]) -> str:
    *others, last = (kind.noun for kind in kinds)
    return f"{', '.join(others)} and {last}" if others else last


def _options(args: Namespace, kind: Kind, name: str) -> dict[str, Any]:
    """What the user asked for, in the words of the kind that the file of that name holds."""
    for option, kinds in _takers().items():
        if getattr(args, option.replace("-", "_")) is not None and kind not in kinds:
            raise UsageError(f"--{option} is for {_nouns(kinds)}: {name} holds {kind.noun}")
    return kind.module.options(args)


def _layers(contents: Contents) -> str:
    """Which layers of a file are there, and what they are said to be worth."""
    count, present = contents.layers, contents.present
    if count == 1 and not contents.container.cut:
        return "the file has one layer only"
    of = "" if contents.container.cut and not contents.boundaries else f" of {count}"
    text = f"made of layers 1 to {present}{of}"
    if (quality := contents.quality) is None:
        return text
    return f"{text}, which are exact" if quality > EXACT else f"{text}, which have {quality:.2f} dB"


def _decode(source: str, args: Namespace, voice: Voice) -> int:
    """Decode one file; returns its exit code."""
    from inr.codec.decode import build, inspect
    from inr.codec.light import build_light
    from inr.files import atomic_folder, atomic_path, suffix_of

    names = (STDIN if source == "-" else source, "standard output")
    data = read_input(source)
    contents = inspect(data, partial=args.partial)
    # whoever names a backend gets that one
    light = None if args.partial or args.backend != "auto" else build_light(contents)
    field = light or build(contents)
    kind = KINDS[field.domain.kind]
    job = kind.job(field, _options(args, kind, names[0]))
    target = args.output or str(Path(source).with_suffix(job.suffix))
    suffix = job.suffix if target == "-" else suffix_of(target)
    job.check(suffix, to_file=target != "-")
    folder = target != "-" and not suffix
    existing = {"force": args.force, "skip": args.skip_existing, "folder": folder}
    if not check_output(target, source, **existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    begin = time.perf_counter()
    if target == "-":
        write_stdout(job.to_bytes(suffix))
    else:
        names = (names[0], target)
        place = atomic_folder(target) if folder else atomic_path(target, overwrite=args.force)
        with place as part, voice.bar(target) as job.progress:
            job.write(part)
    seconds = time.perf_counter() - begin
    event = {"event": "done", "input": source, "output": target, **job.facts}
    lines = [f"{names[0]} -> {names[1]}: {job.text} in {seconds:.1f} s"]
    if args.partial:
        event |= {"layers": contents.present, "layers_of_file": contents.layers}
        if (quality := contents.quality) is not None:
            event["psnr"] = None if quality > EXACT else quality
        lines.append(f"{names[0]}: {_layers(contents)}")
    voice.event(event | {"seconds": round(seconds, 3)}, *lines)
    return 0
