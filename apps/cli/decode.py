"""`inr decode`: an `.inr` file in, a picture of any size out."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli.common import Voice, add_output_options, check_output, new_parser, parse
from inr.errors import UsageError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.image import ImageDomain

STREAMED = (".tif", ".tiff")
STREAM_BYTES = 1 << 28
"""A TIFF larger than this is written uncompressed, band by band, instead of from memory."""


def run(argv: Sequence[str]) -> int:
    """Decode one file; returns the exit code."""
    args = parse(parser(), argv)
    size = numbers("--size", args.size, 2, "x") if args.size else None
    crop = numbers("--crop", args.crop, 4, ",") if args.crop else None
    if args.scale is not None and not args.scale > 0:
        raise UsageError(f"--scale is {args.scale}: give a number above 0")

    from inr.files import read_bytes
    from inr.io import load
    from inr.limits import Limits
    from inr.signals.image import check_format, default_suffix

    if args.input == "-":
        from inr.codec.decode import decode

        field = decode(sys.stdin.buffer.read(Limits().file_bytes + 1))
    else:
        read_bytes(args.input, Limits().file_bytes)
        field = load(args.input)
    domain: ImageDomain = field.domain
    target = args.output or _default_name(args.input, default_suffix(domain))
    if target != "-":
        check_format(Path(target).suffix, domain)
    if not check_output(target, args.force, args.skip_existing):
        return 0

    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    window = None if crop is None else (crop[1], crop[0], crop[3], crop[2])
    shape = None if size is None else (int(size[1]), int(size[0]))
    begin = time.perf_counter()
    drawn = _write(field, target, {"size": shape, "scale": args.scale, "crop": window}, args)
    seconds = time.perf_counter() - begin
    Voice(args.json, args.quiet, to_stderr=target == "-").event(
        {
            "event": "done",
            "input": args.input,
            "output": target,
            "width": drawn[1],
            "height": drawn[0],
            "seconds": round(seconds, 3),
        },
        f"{args.input} -> {target}: {drawn[1]} x {drawn[0]} pixels in {seconds:.1f} s",
    )
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("decode", "Render an .inr file at any size.")
    p.add_argument("input", help=".inr file; - for standard input")
    add_output_options(p)
    p.add_argument("--scale", type=float | None, help="factor on the size of the source (or crop)")
    p.add_argument("--size", type=str | None, help="WIDTHxHEIGHT in pixels, instead of --scale")
    p.add_argument("--crop", type=str | None, help="X,Y,WIDTH,HEIGHT in pixels of the source")
    p.add_argument("--threads", type=int | None, help="CPU threads of torch")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
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


def _default_name(source: str, suffix: str) -> str:
    if source == "-":
        raise UsageError("standard input has no name: say where to write with -o")
    return str(Path(source).with_suffix(suffix))


def _write(field: Field, target: str, how: dict[str, Any], args: Namespace) -> tuple[int, ...]:
    """Render into the target; returns (height, width)."""
    import numpy as np

    from inr.files import atomic_path
    from inr.render import _window, render, render_bands, target_shape
    from inr.signals.image import default_suffix, stream_tiff, write_image

    domain: ImageDomain = field.domain
    shape = target_shape(domain, how["size"], how["scale"], how["crop"])
    if target == "-":
        buffer = io.BytesIO()
        write_image(buffer, render(field, **how), domain, default_suffix(domain))
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
        return shape
    bytes_out = shape[0] * shape[1] * domain.channels * max(1, domain.depth // 8)
    with atomic_path(target, overwrite=args.force) as part:
        if part.suffix.lower() == ".npy":
            dtype = domain.to_samples(np.zeros(0, np.float32)).dtype
            out = np.lib.format.open_memmap(part, "w+", dtype, (*shape, domain.channels))
            render(field, out=out, **how)
            out.flush()
        elif part.suffix.lower() in STREAMED and bytes_out > STREAM_BYTES:
            rows = render_bands(field, domain, shape, *_window(domain, how["crop"]))
            stream_tiff(part, shape, domain, (band for _, band in rows))
        else:
            write_image(part, render(field, **how), domain)
    return shape
