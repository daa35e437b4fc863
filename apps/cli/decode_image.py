"""What `inr decode` does with a picture: --size, --scale, --crop, and formats in bands of rows."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from inr.errors import UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.image import ImageDomain

OPTIONS = {
    "scale": (float, "factor on the size of the source (or crop)"),
    "size": (str, "WIDTHxHEIGHT in pixels, instead of --scale"),
    "crop": (str, "X,Y,WIDTH,HEIGHT in pixels of the source"),
}

STREAMED = (".npy", ".tif", ".tiff")
"""Formats that are written band by band, so that a picture may exceed the memory."""

STREAM_BYTES = 1 << 28
"""A TIFF larger than this is written so, and uncompressed."""

MAX_SIDE = (1 << 24) - 1


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for, as `inr.rendering.render` takes it.

    Raises:
        UsageError: an option is malformed, or excludes another.
    """
    size = numbers("--size", args.size, 2, "x") if args.size else None
    crop = numbers("--crop", args.crop, 4, ",") if args.crop else None
    if args.scale is not None and not 0 < args.scale <= 1e6:
        raise UsageError(f"--scale is {args.scale}: give a number above 0")
    if size and args.scale is not None:
        raise UsageError("--size and --scale exclude each other: give one of them")
    return {
        "size": size and (int(size[1]), int(size[0])),
        "scale": args.scale,
        "crop": crop and (crop[1], crop[0], crop[3], crop[2]),
    }


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


class Picture:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.
    """

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        from inr.rendering import target_shape
        from inr.signals.image import default_suffix

        self.field, self.how = field, how
        self.domain: ImageDomain = field.domain
        self.shape = target_shape(self.domain, how["size"], how["scale"], how["crop"])
        self.suffix = default_suffix(self.domain)
        self.facts = {"width": self.shape[1], "height": self.shape[0]}
        self.text = f"{self.shape[1]} x {self.shape[0]} pixels"

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        from inr.signals.image import check_format

        check_format(suffix, self.domain)
        streamed = to_file and suffix.lower() in STREAMED
        too_many = not streamed and math.prod(self.shape) > Limits().samples
        if max(self.shape) > MAX_SIDE or too_many:
            raise UsageError(
                f"{self.text} are too many for one picture: choose a smaller "
                "--size, --scale or --crop, or write .tif or .npy, with sides of 16,777,215 at most"
            )

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a picture file."""
        from inr.rendering import render
        from inr.signals.image import write_image

        buffer = io.BytesIO()
        write_image(buffer, render(self.field, **self.how), self.domain, suffix)
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Render into a file, in the format of its suffix."""
        import numpy as np

        from inr.files import write_npy
        from inr.rendering import render, render_bands, window
        from inr.signals.image import DTYPES, stream_tiff, write_image

        domain, shape, suffix = self.domain, self.shape, path.suffix.lower()
        whole = (*shape, domain.channels)
        dtype = np.dtype(DTYPES[domain.depth])
        place = window(domain, self.how["crop"])
        pieces = (band for _, band in render_bands(self.field, domain, shape, *place))
        if suffix == ".npy":
            write_npy(path, whole, dtype, pieces)
        elif suffix in STREAMED and math.prod(whole) * dtype.itemsize > STREAM_BYTES:
            stream_tiff(path, shape, domain, pieces)
        else:
            write_image(path, render(self.field, **self.how), domain)
