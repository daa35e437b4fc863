"""`inr decode`: an `.inr` file in, a picture of any size out."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

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
from inr.limits import Limits

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.image import ImageDomain

STREAMED = (".npy", ".tif", ".tiff")
"""Formats that are written band by band, so that a picture may exceed the memory."""

STREAM_BYTES = 1 << 28
"""A TIFF larger than this is written so, and uncompressed."""

MAX_SIDE = (1 << 24) - 1


def run(argv: Sequence[str]) -> int:
    """Decode one file; returns the exit code."""
    args = parse(parser(), argv)
    size = numbers("--size", args.size, 2, "x") if args.size else None
    crop = numbers("--crop", args.crop, 4, ",") if args.crop else None
    if args.scale is not None and not 0 < args.scale <= 1e6:
        raise UsageError(f"--scale is {args.scale}: give a number above 0")
    if size and args.scale is not None:
        raise UsageError("--size and --scale exclude each other: give one of them")
    if args.input == "-" and not args.output:
        raise UsageError("standard input has no name: say where to write with -o")
    how = {
        "size": size and (int(size[1]), int(size[0])),
        "scale": args.scale,
        "crop": crop and (crop[1], crop[0], crop[3], crop[2]),
    }
    set_threads(args.threads)
    voice = Voice(args, to_stderr=args.output == "-")
    return each([args.input], lambda source: _decode(source, how, args, voice), voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("decode", "Render an .inr file at any size.")
    p.add_argument("input", help=".inr file; - for standard input")
    add_output_options(p)
    p.add_argument("--scale", type=float, help="factor on the size of the source (or crop)")
    p.add_argument("--size", type=str, help="WIDTHxHEIGHT in pixels, instead of --scale")
    p.add_argument("--crop", type=str, help="X,Y,WIDTH,HEIGHT in pixels of the source")
    return p


def numbers(option: str, text: str, count: int, separator: str) -> list[float]:
    """Parse '640x480' or '0,0,64,64', or raise UsageError that names the option."""
    try:
        values = [float(word) for word in text.lower().split(separator)]
    except ValueError:
        values = []
    whole = separator != "x" or all(v == int(v) and v >= 1 for v in values if v < 1e9)
    if len(values) != count or not whole or not all(abs(v) < 1e9 for v in values):
        form = "WIDTHxHEIGHT, such as 640x480" if count == 2 else "X,Y,WIDTH,HEIGHT"
        raise UsageError(f"{option} is {text!r}: give {form}")
    return values


def _decode(source: str, how: dict[str, Any], args: Namespace, voice: Voice) -> int:
    """Decode one file; returns its exit code."""
    from inr.codec.decode import decode
    from inr.rendering import target_shape
    from inr.signals.image import check_format, default_suffix

    field = decode(read_input(source))
    domain: ImageDomain = field.domain
    target = args.output or str(Path(source).with_suffix(default_suffix(domain)))
    suffix = default_suffix(domain) if target == "-" else Path(target).suffix
    check_format(suffix, domain)
    shape = target_shape(domain, how["size"], how["scale"], how["crop"])
    streamed = target != "-" and suffix.lower() in STREAMED
    if max(shape) > MAX_SIDE or (not streamed and math.prod(shape) > Limits().samples):
        raise UsageError(
            f"{shape[1]} x {shape[0]} pixels are too many for one picture: choose a smaller "
            "--size, --scale or --crop, or write .tif or .npy, with sides of 16,777,215 at most"
        )
    if not check_output(target, source, force=args.force, skip=args.skip_existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0

    begin = time.perf_counter()
    if target == "-":
        write_stdout(_picture(field, how, suffix))
    else:
        _write(field, target, how, args.force)
    seconds = time.perf_counter() - begin
    names = (STDIN if source == "-" else source, "standard output" if target == "-" else target)
    voice.event(
        {
            "event": "done",
            "input": source,
            "output": target,
            "width": shape[1],
            "height": shape[0],
            "seconds": round(seconds, 3),
        },
        f"{names[0]} -> {names[1]}: {shape[1]} x {shape[0]} pixels in {seconds:.1f} s",
    )
    return 0


def _picture(field: Field, how: dict[str, Any], suffix: str) -> bytes:
    """A rendering as the bytes of a picture file."""
    from inr.rendering import render
    from inr.signals.image import write_image

    buffer = io.BytesIO()
    write_image(buffer, render(field, **how), field.domain, suffix)
    return buffer.getvalue()


def _write(field: Field, target: str, how: dict[str, Any], overwrite: bool) -> None:
    """Render into a file."""
    import numpy as np

    from inr.files import atomic_path
    from inr.rendering import render, render_bands, target_shape, window
    from inr.signals.image import DTYPES, stream_tiff, write_image

    domain: ImageDomain = field.domain
    shape = target_shape(domain, how["size"], how["scale"], how["crop"])
    whole = (*shape, domain.channels)
    dtype = np.dtype(DTYPES[domain.depth])
    suffix = Path(target).suffix.lower()
    bands = (band for _, band in render_bands(field, domain, shape, *window(domain, how["crop"])))
    with atomic_path(target, overwrite=overwrite) as part:
        if suffix == ".npy":
            # plain writes: a mapped file on a full disk kills the process
            descr = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": descr, "fortran_order": False, "shape": whole}
            with part.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for band in bands:
                    file.write(band.tobytes())
        elif suffix in STREAMED and math.prod(whole) * dtype.itemsize > STREAM_BYTES:
            stream_tiff(part, shape, domain, bands)
        else:
            write_image(part, render(field, **how), domain)
