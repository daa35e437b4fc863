"""What `inr decode` does with a volume: its lattice, its place in space, planes as pictures."""

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
    from inr.signals.volume import VolumeDomain

OPTIONS = {
    "shape": (str, "voxels per axis, such as 128,128,64"),
    "size": (str, "the same as 128x128x64"),
    "scale": (float, "factor on the number of voxels of the source (or crop), along each axis"),
    "spacing": (str, "size of a voxel in mm, such as 1,1,1, or 1 for all axes"),
    "crop": (str, "start per axis, then length per axis, such as 0,0,0,64,64,64, in voxels"),
    "slice": (
        str,
        "one plane, as AXIS=POSITION: 0=128, in voxels of the source, or 0=50%%; x, y and z are "
        "the axes nearest to left-right, back-front and bottom-top, or 2, 1 and 0",
    ),
}


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for, as `VolumeDomain.window` takes it, and `slice` as it was given.

    Raises:
        UsageError: an option is malformed, or excludes another.
    """
    if args.shape is not None and args.size is not None:
        raise UsageError("--shape and --size exclude each other: give one of them")
    size = args.shape and _numbers("--shape", args.shape, (3,), "128,128,64")
    if args.size is not None:
        size = _numbers("--size", args.size.lower().replace("x", ","), (3,), "128x128x64")
    spacing = args.spacing and _numbers("--spacing", args.spacing, (1, 3), "1,1,1")
    return {
        "size": size,
        "scale": args.scale,
        "spacing": spacing and (spacing * 3)[:3],
        "crop": args.crop and _numbers("--crop", args.crop, (6,), "0,0,0,64,64,64"),
        "slice": args.slice,
    }


def _numbers(option: str, text: str, counts: tuple[int, ...], example: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(abs(v) < 1e12 for v in values):
        raise UsageError(f"{option} is {text!r}: give numbers such as {example}")
    return values


class Scan:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.
    """

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        self.field = field
        self.domain: VolumeDomain = field.domain
        how = dict(how)
        cut = _cut(how.pop("slice"), self.domain)
        self.axis = None if cut is None else cut[0]
        try:
            self.place = self.domain.window(**how, cut=cut)
        except UsageError as error:
            names = ("size", "scale", "spacing", "crop", "position")
            option = {"position": "slice: position"}
            word = str(error).partition(" ")[0]
            text = str(error).replace(word, option.get(word, word), 1)
            raise UsageError(f"--{text}" if word in names else text) from None
        self.suffix = ".nii.gz" if self.domain.geometry else ".npy"
        self.facts: dict[str, Any] = {"shape": list(self.place.shape)}
        self.text = " x ".join(map(str, self.place.shape)) + " voxels"
        spacing = self.domain.resampled(self.place).spacing
        if self.axis is not None:
            self.suffix = ".png"
        if spacing:
            self.facts["spacing_mm"] = [round(x, 6) for x in spacing]
            self.text += " of " + " x ".join(f"{x:.4g}" for x in spacing) + " mm"

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        from inr.signals.image import ImageDomain
        from inr.signals.image import check_format as check_picture
        from inr.signals.volumeout import FORMATS, check_format

        suffix = suffix.lower()
        if self._is_picture(suffix):
            check_picture(suffix, ImageDomain(1, 1, 1, 16))
        elif self.axis is None and suffix not in FORMATS:
            raise UsageError(
                f"volumes are not written as {suffix!r}: write one of {', '.join(FORMATS)}, "
                "or a picture of one plane with --slice"
            )
        else:
            check_format(suffix, self.domain.resampled(self.place))
        too_many = math.prod(self.place.shape) > Limits().samples
        if too_many and (not to_file or self._is_picture(suffix)):
            raise UsageError(
                f"{self.text} are too many: choose fewer with --shape, --scale or --crop, "
                "or write a volume to a file"
            )

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a file."""
        buffer = io.BytesIO()
        self._write(buffer, suffix.lower())
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Render into a file, in the format of its suffix."""
        from inr.files import suffix_of

        with path.open("wb") as file:
            self._write(file, suffix_of(path).lower())

    def _is_picture(self, suffix: str) -> bool:
        return self.axis is not None and suffix not in (".npy", ".npz", ".nii", ".nii.gz")

    def _write(self, file: Any, suffix: str) -> None:
        import numpy as np

        from inr.signals.image import ImageDomain, write_image
        from inr.signals.volumeout import picture_of, plane_of, write_volume

        if self.axis is not None and suffix == ".npy":
            np.save(file, plane_of(self.field, self.place, self.axis))
        elif self.axis is not None and self._is_picture(suffix):
            plane = plane_of(self.field, self.place, self.axis)
            picture = picture_of(plane, self.domain, self.axis)
            height, width, _ = picture.shape
            domain = ImageDomain(height, width, 1, 8 * picture.dtype.itemsize)
            write_image(file, picture, domain, suffix)
        else:
            write_volume(file, self.field, self.place, suffix)


def _cut(text: str | None, domain: VolumeDomain) -> tuple[int, float] | None:
    """Axis and position of --slice, in voxels.

    Raises:
        UsageError: it is malformed.
    """
    if text is None:
        return None
    name, _, position = text.partition("=")
    try:
        axis = domain.axis_along(name) if name in ("x", "y", "z") else ("0", "1", "2").index(name)
        value = float(position.removesuffix("%"))
    except ValueError:
        raise UsageError(
            f"--slice is {text!r}: give an axis and a position, such as 0=128 or z=50%"
        ) from None
    if position.endswith("%"):  # from the first voxel to the last
        value = value / 100 * (domain.shape[axis] - 1)
    return axis, value
