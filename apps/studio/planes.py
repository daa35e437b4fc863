"""Zoom without end: any window of a plane through a signal, evaluated where its pixels lie."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.decoded import Decoded
from fields.kernels.grid import NumpyGrid
from inr.errors import UsageError

if TYPE_CHECKING:
    from inr.signals.base import Domain

SIDE = 2048
"""Pixels of a picture's sides at most."""

SECONDS = 4.0
"""What a window may take to render, about: of a slow field it is made with fewer pixels."""

SMOOTH_SECONDS = 0.25
"""What means over cells may take beside, where a pixel is larger than a sample."""

BAND_NUMBERS = 1 << 23
"""Numbers that are evaluated at a time."""

SMALLEST_STEP = 2.0**-19
"""Steps in coordinates below which float32 would be seen: it tells 2^-24 apart."""

WINDOW_SIDE = 32
WINDOW_SHARE = 0.001
"""Values of a volume are shown between those that such a share lies below and above."""

OVERVIEW = 768
"""Pixels along the longer side of the picture that zooming begins with."""

LEVEL_COLOUR = (0, 0, 0)


@dataclass(frozen=True)
class Plane:
    """Two axes of a signal, the others held at a place.

    Args:
        rows: The axis that goes down.
        columns: The axis that goes to the right.
        across: The axis that a slice is cut across, if one can be chosen; else -1.
        place: Position along each axis, in samples, counted from the centre of the first.
        flipped: Whether rows go upwards, and columns to the left.
        scale: Units of the picture per sample, down and to the right.
        size: Height and width in those units.
    """

    rows: int
    columns: int
    across: int
    place: tuple[float, ...]
    flipped: tuple[bool, bool]
    scale: tuple[float, float]
    size: tuple[float, float]


def slices(domain: Domain) -> list[dict[str, Any]]:
    """The slices that may be chosen: `axis`, `name`, `low`, `high` and `value` (the middle).

    A signal without a choice has one of axis -1; one that has no planes, such as sound, has none.
    """
    kind, axes = domain.kind, len(domain.shape)
    if axes < 2:
        return []
    if axes == 2:
        return [{"axis": -1, "name": "all of it", "low": 0, "high": 0, "value": 0}]
    names = _names(domain)
    chosen = (0,) if kind == "video" else (0, 1, 2) if axes == 3 else (axes - 3,)
    return [
        {
            "axis": axis,
            "name": names[axis],
            "low": 0,
            "high": domain.shape[axis] - 1,
            "value": (domain.shape[axis] - 1) // 2,
        }
        for axis in chosen
    ]


def plane_of(domain: Domain, axis: int = -1, position: float | None = None) -> Plane:
    """The plane of a slice.

    Args:
        domain: That of the signal.
        axis: Which of `slices`; the first if -1.
        position: In samples along it; the middle if not given.

    Raises:
        UsageError: there is no such slice.
    """
    known = {one["axis"]: one for one in slices(domain)}
    if not known:
        raise UsageError(f"a signal of kind {domain.kind} has no plane to look at")
    if axis == -1:
        axis = next(iter(known))
    if axis not in known:
        raise UsageError(f"axis is {axis}: choose from {', '.join(map(str, known))}")
    one = known[axis]
    at = float(one["value"] if position is None else position)
    if not one["low"] <= at <= one["high"]:
        raise UsageError(f"position is {at:g}: give {one['low']} to {one['high']}")
    place = [(n - 1) / 2 for n in domain.shape]
    if axis >= 0:
        place[axis] = at
    if len(domain.shape) > 3:
        place = [at if i == axis else float((n - 1) // 2) for i, n in enumerate(domain.shape)]
    rows, columns = [i for i in range(len(domain.shape)) if i != axis][-2:]
    flipped = (False, False)
    if domain.kind in ("shape", "volume"):
        rows, columns, flipped = _standing(domain, axis, rows, columns)
    spacing = getattr(domain, "spacing", None) or (1.0,) * len(domain.shape)
    finest = min(spacing[rows], spacing[columns])
    scale = (spacing[rows] / finest, spacing[columns] / finest)
    size = (domain.shape[rows] * scale[0], domain.shape[columns] * scale[1])
    return Plane(rows, columns, axis, tuple(place), flipped, scale, size)


def overview(size: tuple[float, float]) -> list[int]:
    """Rows and columns of the picture that zooming begins with."""
    share = OVERVIEW / max(size)
    return [max(1, round(side * share)) for side in size]


def picture(
    file: Decoded, plane: Plane, crop: Sequence[float], size: Sequence[int]
) -> tuple[bytes, tuple[int, int]]:
    """A window of a plane as a PNG; what lies beyond the signal is transparent.

    Args:
        file: The file.
        plane: From `plane_of`.
        crop: y, x, height, width in the plane's units.
        size: Rows and columns of pixels.

    Returns:
        The PNG, and its size: less than was asked for where the field is so slow that it would take
        longer than about `SECONDS`.

    Raises:
        UsageError: crop or size are not what they should be.
    """
    import PIL.Image

    shape = checked(crop, size)
    most = max(SECONDS * file.speed, 1.0)
    if math.prod(shape) > most:
        share = math.sqrt(most / math.prod(shape))
        shape = (max(1, int(shape[0] * share)), max(1, int(shape[1] * share)))
    rows = _inside(crop[0], crop[2], shape[0], plane.size[0])
    columns = _inside(crop[1], crop[3], shape[1], plane.size[1])
    count = (rows.stop - rows.start, columns.stop - columns.start)
    if 0 in count:
        pixels = np.zeros((*shape, 4), np.uint8)
    else:
        steps = (crop[2] / shape[0], crop[3] / shape[1])
        part = (
            crop[0] + rows.start * steps[0],
            crop[1] + columns.start * steps[1],
            count[0] * steps[0],
            count[1] * steps[1],
        )
        pixels = coloured(file, plane, values(file, plane, part, count))
        if count != shape:
            clear = np.zeros((*shape, 4), np.uint8)
            clear[rows, columns] = np.asarray(_pillow(pixels).convert("RGBA"))
            pixels = clear
    buffer = io.BytesIO()
    profile = getattr(file.domain, "icc", b"")
    options: dict[str, Any] = {"icc_profile": profile} if profile and count == shape else {}
    made: PIL.Image.Image = _pillow(pixels)
    made.save(buffer, "PNG", compress_level=1, **options)
    return buffer.getvalue(), shape


def checked(crop: Any, size: Any) -> tuple[int, int]:
    """Rows and columns of a window's picture, if crop and size (see `picture`) make sense.

    Raises:
        UsageError: they are not.
    """
    # a page may send anything
    numbers = [*crop, *size] if isinstance(crop, list) and isinstance(size, list) else []
    plain = all(type(x) in (int, float) and math.isfinite(x) for x in numbers)
    if len(numbers) != 6 or not plain or min(crop[2:]) <= 0 or max(map(abs, crop)) > 1e12:
        raise UsageError("crop is not what it should be: give y, x, height, width")
    height, width = size
    if not (type(height) is type(width) is int and 1 <= height <= SIDE and 1 <= width <= SIDE):
        raise UsageError(f"size is not what it should be: give rows and columns from 1 to {SIDE:,}")
    return height, width


def values(
    file: Decoded, plane: Plane, crop: Sequence[float], shape: tuple[int, int]
) -> np.ndarray:
    """A field's samples in a window within a plane, in the signal's own type.

    A pixel that is larger than a sample is a mean over its cell, as far as time allows; where all
    fit in, these are the pixels of `inr decode`.

    Args:
        file: The file.
        plane: The plane.
        crop: y, x, height, width in the plane's units.
        shape: Rows and columns of pixels.

    Returns:
        Shape (*shape, channels); of many channels the first ones.
    """
    domain = file.domain
    sides = (plane.rows, plane.columns)
    starts, lengths = list(plane.place), [1.0] * len(domain.shape)
    for i, axis in enumerate(sides):
        lengths[axis] = crop[2 + i] / plane.scale[i]
        start = crop[i] / plane.scale[i]
        starts[axis] = domain.shape[axis] - start - lengths[axis] if plane.flipped[i] else start
    over = [max(1, math.ceil(lengths[a] / n - 1e-9)) for a, n in zip(sides, shape, strict=True)]
    most = max(math.prod(shape), SMOOTH_SECONDS * file.speed)
    while math.prod(shape) * math.prod(over) > most and max(over) > 1:
        over[int(np.argmax(over))] -= 1
    counts = [shape[i] * over[i] for i in (0, 1)]
    steps = [2 * lengths[a] / n / domain.shape[a] for a, n in zip(sides, counts, strict=True)]
    fine = min(steps) < SMALLEST_STEP and domain.precision != "float64"
    field = file.fine if fine else file.drawn
    axes = []
    for i, n in enumerate(domain.shape):
        many = counts[sides.index(i)] if i in sides else 1
        centres = starts[i] + (np.arange(many) + 0.5) * (lengths[i] / many)
        axes.append((2 * centres / n - 1).astype("float64" if fine else domain.precision))
    parts = [_means(part, over) for part in _evaluated(field, axes, sides, over[0], domain)]
    found = domain.to_samples(np.concatenate(parts))
    for i in (0, 1):
        if plane.flipped[i]:
            found = np.flip(found, i)
    return found


def coloured(file: Decoded, plane: Plane, samples: np.ndarray) -> np.ndarray:
    """Samples as pixels: shape (height, width, 1 to 4), uint8."""
    from apps.view.pieces import eight_bits

    domain: Any = file.domain
    if samples.dtype.kind == "f":
        samples = np.nan_to_num(samples)
    if domain.kind == "image":
        return eight_bits(samples, domain.low, domain.high)
    if domain.kind == "video":
        return eight_bits(samples, 0, domain.peak)
    if domain.kind == "volume":
        return eight_bits(samples, *_window(file))
    if domain.kind == "shape":
        return _distances(samples[..., 0], domain)
    return mapped(samples[..., 0], float(domain.low), float(domain.high), "viridis")


def mapped(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    """Values of shape (height, width) under a colour map, RGB."""
    from apps.view.pieces import eight_bits

    return _palette(name)[eight_bits(values, low, high)]


# ---------------------------------------------------------------------------------- within


def _names(domain: Domain) -> list[str]:
    if domain.kind == "video":
        return ["frame", "row", "column"]
    if domain.kind == "shape":
        return ["x", "y", "z"]
    if domain.kind == "volume" and getattr(domain, "affine", None) is not None:
        from apps.view.volume import PLANES, upright

        axes, _ = upright(domain)  # type: ignore[arg-type]
        named = dict(zip(axes, PLANES, strict=True))
        return [f"{named[axis]} (axis {axis})" for axis in range(3)]
    return [f"axis {axis}" for axis in range(len(domain.shape))]


def _standing(
    domain: Any, axis: int, rows: int, columns: int
) -> tuple[int, int, tuple[bool, bool]]:
    """Axes of a slice as people stand, where up is known."""
    if domain.kind == "shape":
        return columns, rows, (True, False)
    if domain.affine is None:
        return rows, columns, (False, False)
    from apps.view.volume import upright

    order, flipped = upright(domain)
    kept = [i for i, a in enumerate(order) if a != axis]
    down, right = kept
    return order[down], order[right], (down in flipped, right in flipped)


def _inside(start: float, length: float, n: int, whole: float) -> slice:
    """Which of n pixels have their centres within a plane's side."""
    centres = start + (np.arange(n) + 0.5) * (length / n)
    found = np.flatnonzero((centres >= 0) & (centres <= whole))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _evaluated(
    field: Any, axes: list[np.ndarray], sides: tuple[int, int], multiple: int, domain: Domain
) -> Iterator[np.ndarray]:
    """Values on bands of rows, each a whole multiple of so many, the first channels alone.

    Their shape is (rows, columns, channels).
    """
    from inr.rendering import sampled

    rows, columns = sides
    order = [*(i for i in range(len(axes)) if i not in sides), rows, columns]
    swapped = rows > columns
    if isinstance(field, NumpyGrid) and order != sorted(order):
        # it interpolates along one axis after the other: those of a single place come first
        field, axes = _turned(field, order), [axes[i] for i in order]
        rows, swapped = len(axes) - 2, False
    band = math.prod(len(axis) for i, axis in enumerate(axes) if i != rows) * domain.channels
    step = max(1, BAND_NUMBERS // band // multiple) * multiple
    kept = domain.channels if domain.kind in ("image", "video") else 1
    for start in range(0, len(axes[rows]), step):
        part = [axis[start : start + step] if i == rows else axis for i, axis in enumerate(axes)]
        found = np.concatenate([values[..., :kept] for values in sampled(field, part)])
        # all other axes have one place
        down, right = len(part[rows]), math.prod(found.shape[:-1]) // len(part[rows])
        if swapped:
            yield found.reshape(right, down, kept).swapaxes(0, 1)
        else:
            yield found.reshape(down, right, kept)


def _turned(field: NumpyGrid, order: Sequence[int]) -> NumpyGrid:
    """The same grid with its axes in another order."""
    places = [0, *(1 + axis for axis in order)]
    tables = [table.transpose(places) for table in field.tables]
    return NumpyGrid(field.linear, field.mlp, tables)


def _means(values: np.ndarray, over: Sequence[int]) -> np.ndarray:
    """A band with each pixel the mean of its parts."""
    if max(over) == 1:
        return values
    down, right = over
    height, width, channels = values.shape
    shape = (height // down, down, width // right, right, channels)
    return values.reshape(shape).mean((1, 3))


def _window(file: Decoded) -> tuple[float, float]:
    """Values of a volume that are black and white; kept with the file."""
    found: tuple[float, float] | None = file.__dict__.get("_shown")
    if found is None:
        from inr.rendering import sampled

        domain: Any = file.domain
        axes = [
            domain.cell_centres(i, 0, n, min(n, WINDOW_SIDE)) for i, n in enumerate(domain.shape)
        ]
        samples = domain.to_samples(np.concatenate(list(sampled(file.drawn, axes))))
        shares = [WINDOW_SHARE, 1 - WINDOW_SHARE]
        low, high = np.quantile(np.nan_to_num(samples), shares).tolist()
        found = (low, high) if high > low else (float(domain.low), float(domain.high))
        file.__dict__["_shown"] = found
    return found


def _distances(samples: np.ndarray, domain: Any) -> np.ndarray:
    """Distances or occupancies in colours that differ within and without; the surface is black."""
    occupancy = domain.target == "occupancy"
    low, high = (0.0, 1.0) if occupancy else (-domain.truncation, domain.truncation)
    pixels = mapped(samples, low, high, "signed")
    inside = samples > (low + high) / 2
    edge = np.zeros(samples.shape, bool)
    edge[:-1] |= inside[:-1] != inside[1:]
    edge[:, :-1] |= inside[:, :-1] != inside[:, 1:]
    pixels[edge] = LEVEL_COLOUR
    return pixels


@functools.cache
def _palette(name: str) -> np.ndarray:
    """A colour map as 256 RGB triples."""
    from apps.view.page import PALETTE

    stops = np.array([[int(s[i : i + 2], 16) for i in (1, 3, 5)] for s in PALETTE[name]])
    places = np.linspace(0, len(stops) - 1, 256)
    whole = [np.interp(places, range(len(stops)), stops[:, c]) for c in range(3)]
    return np.rint(np.stack(whole, -1)).astype(np.uint8)


def _pillow(pixels: np.ndarray) -> Any:
    import PIL.Image

    return PIL.Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
