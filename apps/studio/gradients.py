"""Derivatives of a field as pictures: how steep it is, in which direction, and its normals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.decoded import Decoded
from apps.studio.planes import SMALLEST_STEP
from apps.view.page import Section
from apps.view.pieces import Sampled, bar, coloured, deflated, png, slices
from inr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from fields.base import Field
    from inr.signals.base import Domain

SECONDS = 4.0
"""What derivatives may take, about."""

MOST_POINTS = 1 << 18
LEAST_POINTS = 1 << 9
COST = 4
"""What a derivative costs beside a value, about."""

MOST_CHANNELS = 4
"""Channels beyond these are left out."""

SHOWN = 0.999
"""Share of the values within the colours of a map."""

CURVE_POINTS = 1 << 12
CURVE_SAMPLES = 1 << 10
"""Samples of a curve that are shown if nothing else is asked: what lies between them is seen."""

SHORTEST = 1e-6
"""Samples of a stretch of a curve at least."""

STENCIL = 0.5
"""Half the distance, in samples, over which a field with kinks is differenced."""

MESH_CELLS = (24, 96)
"""Least and most cells per axis of a surface whose normals are shown."""


def sections(
    file: Decoded, start: float | None = None, length: float | None = None
) -> list[Section]:
    """What is shown of the derivatives of a file's field.

    Args:
        file: The file.
        start: Where the stretch of a curve begins that is shown, in seconds of a sound, else in
            samples; about the middle if not given.
        length: How long it is; `CURVE_SAMPLES` if not given.

    Raises:
        UsageError: the stretch lies outside.
    """
    kind, axes = file.domain.kind, len(file.domain.shape)
    if kind == "shape":
        return _shape(file)
    if axes == 1:
        return [_curve(file, start, length)]
    if kind in ("image", "video") or axes == 2:
        return [_flat(file)]
    return _solid(file)


def derivatives(
    field: Field, axes: Sequence[np.ndarray], *, differences: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A field and its first derivatives on a lattice.

    By automatic differentiation, or, for a field that has no derivative everywhere, as central
    differences over one sample (see `STENCIL`).

    Args:
        field: A field with a domain.
        axes: Coordinates along each axis.
        differences: Whether differences are taken of any field.

    Returns:
        Values, shape (*lengths, channels), and derivatives per sample of the signal, shape
        (*lengths, axes, channels); both normalised as the field has them, of `MOST_CHANNELS`
        channels at most.
    """
    import torch

    from fields.base import points_per_tile

    like = next(field.parameters())
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    points = torch.from_numpy(lattice.reshape(-1, len(axes))).to(like)
    # coordinates per sample
    units = torch.tensor([2 / n for n in field.domain.shape]).to(like)
    exact = field.smoothness >= 1 and not differences
    step: Callable[[Field, Tensor, Tensor], tuple[Tensor, Tensor]] = _exact if exact else _stencil
    found = [step(field, tile, units) for tile in points.split(max(1, points_per_tile(field) // 2))]
    shape = lattice.shape[:-1]
    values = torch.cat([value for value, _ in found]).cpu().double().numpy()
    slopes = torch.cat([slope for _, slope in found]).cpu().double().numpy()
    values, slopes = (np.nan_to_num(x, posinf=0.0, neginf=0.0) for x in (values, slopes))
    return values.reshape(*shape, -1), slopes.reshape(*shape, len(axes), -1)


def told(field: Field) -> str:
    """What is to be said of a field's derivatives."""
    if field.smoothness < 1:
        return (
            "This field is continuous, but not differentiable: it has kinks. What is shown are "
            "differences over one sample."
        )
    smooth = math.isinf(field.smoothness)
    many = "The field is infinitely smooth." if smooth else f"It has {field.smoothness:g} of them."
    return f"Exact derivatives, by automatic differentiation. {many}"


def _exact(field: Field, points: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = field(points)[..., :MOST_CHANNELS]
        last = values.shape[-1] - 1
        slopes = [
            torch.autograd.grad(value.sum(), points, retain_graph=i < last)[0] * units
            for i, value in enumerate(values.unbind(-1))
        ]
    return values.detach(), torch.stack(slopes, -1)


def _stencil(field: Field, points: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    with torch.no_grad():
        slopes = []
        for axis, unit in enumerate(units):
            ends = []
            for way in (STENCIL, -STENCIL):
                moved = points.clone()
                moved[:, axis] += way * unit
                # beyond the border no field is fitted
                ends.append(moved.clamp_(-1, 1))
            apart = (ends[0] - ends[1])[:, axis : axis + 1] / unit
            high, low = (field(end)[..., :MOST_CHANNELS] for end in ends)
            slopes.append((high - low) / apart)
        return field(points)[..., :MOST_CHANNELS], torch.stack(slopes, 1)


# ------------------------------------------------------------------------------ by kind


def _flat(file: Decoded) -> Section:
    """A picture, a plane of two axes, or the middle frame of a clip."""
    domain: Any = file.domain
    clip = domain.kind == "video"
    lattice, factor = _thinned(domain.shape[-2:], _points(file))
    axes = [*_coordinates(domain, lattice, factor)]
    if clip:
        middle = (domain.frames - 1) // 2
        axes = [domain.cell_centres(0, middle, middle + 1, 1), *axes]
    _, slopes = derivatives(file.field, axes)
    slopes = slopes.reshape(*lattice, len(domain.shape), -1) * (domain.peak / 2)
    grey = slopes.mean(-1)
    down, right = grey[..., -2], grey[..., -1]
    size = np.sqrt(np.square(slopes[..., -2:, :]).sum(-2).mean(-1))
    panes = [
        _heights("size of the gradient", size),
        _pane(
            "direction (colour) and size (brightness)",
            png(_bytes(_hues(np.arctan2(down, right), np.sqrt(size / _top(size))))),
        ),
        _signed("along the columns, d/dx", right),
        _signed("along the rows, d/dy", down),
        _pane("normals of the height field", png(_bytes(_normals(down, right)))),
    ]
    if clip:
        panes.insert(3, _signed("in time, per frame, d/dt", grey[..., 0]))
    notes = [told(file.field), "Per sample of the source, mean over channels."]
    if clip:
        notes.append(f"Of frame {middle}.")
    if factor > 1:
        notes.append(f"At one place in {factor} x {factor} samples.")
    data = {"size": [lattice[1], lattice[0]], "panes": panes}
    return Section("Gradients and normals", "panes", data, notes)


def _solid(file: Decoded) -> list[Section]:
    """Three axes, the last ones: how steep the field is, and its unit normals."""
    domain: Any = file.domain
    lattice, factor = _thinned(domain.shape[-3:], _points(file))
    others = len(domain.shape) - 3
    axes = [
        domain.cell_centres(i, (n - 1) // 2, (n - 1) // 2 + 1, 1)
        for i, n in enumerate(domain.shape[:others])
    ]
    axes += _coordinates(domain, lattice, factor)
    _, slopes = derivatives(file.field, axes)
    slopes = slopes.reshape(*lattice, len(domain.shape), -1)[..., -3:, :] * (domain.peak / 2)
    spacing = getattr(domain, "spacing", None) or (1.0, 1.0, 1.0)
    slopes = slopes / np.asarray(spacing)[:, None]
    size = np.sqrt(np.square(slopes).sum(-2).mean(-1))
    grey = slopes.mean(-1)
    length = np.linalg.norm(grey, axis=-1, keepdims=True)
    normals = np.divide(grey, length, out=np.zeros_like(grey), where=length > 0)
    names = [f"axis {i}" for i in range(others, others + 3)]
    planes = [f"across {name}" for name in names]
    look = {"spacing": list(spacing), "names": names, "planes": planes}
    factors = (factor,) * 3

    def shown(title: str, samples: np.ndarray, colours: str, *notes: str) -> Section:
        found = Sampled(samples.astype(np.float32), None, factors, title, means=False)
        part = slices(title, found, look, colours)
        return Section(part.title, part.widget, part.data, [*part.notes, *notes])

    unit = "mm" if getattr(domain, "spacing", None) else "sample"
    each = f"Values per {unit}."
    return [
        shown("Size of the gradient", size[..., None], "inferno", told(file.field), each),
        shown("Normals", normals, "signed", f"Unit vectors; channels are {', '.join(names)}."),
    ]


def _shape(file: Decoded) -> list[Section]:
    """Normals on three planes through the middle, and on the surface."""
    domain: Any = file.domain
    field = file.field
    side = max(16, min(256, math.isqrt(int(_points(file) / 3))))
    line = (2 * np.arange(side) + 1) / side - 1
    panes, sizes = [], []
    for axis, across in enumerate("xyz"):
        axes = [np.zeros(1) if i == axis else line for i in range(3)]
        _, slopes = derivatives(field, axes)
        slopes = np.moveaxis(slopes[..., 0].reshape(side, side, 3), 0, 1)[::-1]
        # per unit of length, in the unit of the values: of a distance it is 1 near the surface
        slopes = slopes * (domain.shape[0] / 2) * (domain.peak / 2) / domain.half
        length = np.linalg.norm(slopes, axis=-1, keepdims=True)
        normals = np.divide(slopes, length, out=np.zeros_like(slopes), where=length > 0)
        colours = png(_bytes((normals * domain.outward + 1) / 2))
        panes.append(_pane(f"normals, across {across}", colours))
        sizes.append(length[..., 0])
    top = _top(np.stack(sizes)) if domain.target == "occupancy" else 2.0
    steep = [
        _heights(f"size of the gradient, across {name}", size, top)
        for name, size in zip("xyz", sizes, strict=True)
    ]
    notes = [
        told(field),
        "Through the middle of the cube. Red, green and blue are x, y and z of the normal.",
    ]
    each = "Per unit of length."
    if domain.target != "occupancy":
        each += " The gradient of a distance has size 1; where it is cut off, 0."
    size = [side, side]
    return [
        Section("Normals", "panes", {"size": size, "panes": panes}, notes),
        Section("Size of the gradient", "panes", {"size": size, "panes": steep}, [each]),
        *surface(file),
    ]


def surface(file: Decoded) -> list[Section]:
    """The surface, coloured by where its normals point."""
    from apps.view.shape import meshed
    from inr.surface import extract, normals

    domain: Any = file.domain
    least, most = MESH_CELLS
    # a surface takes about 16 points for each of its cells
    cells = max(least, min(most, math.isqrt(int(file.speed * SECONDS / 32))))
    surface = extract(file.field, cells, thickness=domain.thickness).oriented(domain.outward)
    if not len(surface.faces):
        return []
    vertices = domain.to_units(surface.vertices)
    box = (vertices.min(0), vertices.max(0))
    mesh, _ = meshed("surface", (vertices, surface.faces), box, len(surface.faces))
    upwards = normals(file.field, surface.vertices)[:, 2] * domain.outward
    mesh["values"] = deflated(np.rint((upwards.clip(-1, 1) + 1) / 2 * 65535).astype(np.uint16))
    data = {
        "low": box[0].tolist(),
        "high": box[1].tolist(),
        "focus": [side.tolist() for side in box],
        "meshes": [mesh],
        "bar": bar("signed", -1, 1) | {"name": "z of the normal"},
    }
    note = f"The surface with {cells} cells per axis; its colours are those of the field's normals."
    return [Section("Normals on the surface", "mesh", data, [note])]


def _curve(file: Decoded, start: float | None, length: float | None) -> Section:
    """A stretch of a curve, between its samples too, over its derivative."""
    domain: Any = file.domain
    sound = domain.kind == "audio"
    total, rate = domain.shape[0], domain.rate if sound else 1
    long = min(total, CURVE_SAMPLES) if length is None else min(length * rate, float(total))
    first = (total - long) / 2 if start is None else start * rate
    if not (long >= SHORTEST and 0 <= first < total):
        raise UsageError(
            f"the stretch is outside: it begins at 0 to {total / rate:g}, and is "
            f"{SHORTEST / rate:g} long at least"
        )
    first = min(first, total - long)
    steps = (first + (np.arange(CURVE_POINTS) + 0.5) * (long / CURVE_POINTS)) * 2 / total - 1
    fine = long / CURVE_POINTS / total * 2 < SMALLEST_STEP
    values, slopes = derivatives(file.double if fine else file.field, [steps])
    half = domain.peak / 2
    if sound:
        kind = domain.to_samples(np.zeros((1, 1))).dtype
        half /= 1.0 if kind.kind == "f" else float(np.iinfo(kind).max) + 1
    series = []
    for channel in range(min(values.shape[-1], 2)):
        of = "" if values.shape[-1] == 1 else f", channel {channel}"
        curves = {"value": values[:, channel] * half, "derivative": slopes[:, 0, channel] * half}
        curves["derivative"] = curves["derivative"] * rate
        series += [
            {
                "name": name + of,
                "colour": group + 2 * channel,
                "group": group,
                "values": deflated(numbers.astype(np.float32)),
            }
            for group, (name, numbers) in enumerate(curves.items())
        ]
    place = "seconds" if sound else "index"
    data = {
        "label": "values, and their derivative",
        "x": [first / rate, (first + long) / rate, place],
        "y": "value",
        "series": series,
    }
    notes = [
        told(file.field),
        f"{CURVE_POINTS / long:.4g} points per sample; derivatives per "
        f"{'second' if sound else 'sample'}; {long:.6g} of {total:,} samples.",
    ]
    return Section("The curve and its derivative", "plot", data, notes)


# ---------------------------------------------------------------------------------- pieces


def _points(file: Decoded) -> int:
    """How many derivatives are worth their time."""
    return int(min(max(file.speed * SECONDS / COST, LEAST_POINTS), MOST_POINTS))


def _thinned(lengths: Sequence[int], points: int) -> tuple[tuple[int, ...], int]:
    """Lengths of a lattice with one place for each cube of samples; and the cube's side."""
    factor = 1
    while math.prod(max(1, n // factor) for n in lengths) > points:
        factor += 1
    return tuple(max(1, n // factor) for n in lengths), factor


def _coordinates(domain: Domain, lattice: Sequence[int], factor: int) -> list[np.ndarray]:
    """Centres of these cells along the last axes."""
    first = len(domain.shape) - len(lattice)
    return [
        domain.cell_centres(first + i, 0, min(n * factor, domain.shape[first + i]), n)
        for i, n in enumerate(lattice)
    ]


def _top(values: np.ndarray) -> float:
    return float(np.quantile(values, SHOWN)) or float(values.max()) or 1.0


def _pane(name: str, picture: str, legend: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "label": name, "frames": [picture]} | ({"bar": legend} if legend else {})


def _heights(name: str, values: np.ndarray, top: float | None = None) -> dict[str, Any]:
    """A pane of values from 0 up."""
    top = top or _top(values)
    return _pane(name, coloured(values, 0, top, "inferno"), bar("inferno", 0, top))


def _signed(name: str, values: np.ndarray) -> dict[str, Any]:
    """A pane of values of both signs."""
    top = _top(np.abs(values))
    return _pane(name, coloured(values, -top, top, "signed"), bar("signed", -top, top))


def _normals(down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Normals of the surface whose height is the field, as colours from 0 to 1.

    Heights are such that all but the steepest slopes are below 45 degrees.
    """
    slope = float(np.quantile(np.hypot(down, right), 0.95)) or 1.0
    normals = np.stack([-right / slope, down / slope, np.ones_like(down)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return (normals + 1) / 2


def _hues(angles: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Angles as the colours of the rainbow, from 0 to 1."""
    places = angles[..., None] * (3 / np.pi) + np.array([0.0, 4.0, 2.0])
    return (np.abs(places % 6 - 3) - 1).clip(0, 1) * brightness.clip(0, 1)[..., None]


def _bytes(shares: np.ndarray) -> np.ndarray:
    return np.rint(shares.clip(0, 1) * 255).astype(np.uint8)
