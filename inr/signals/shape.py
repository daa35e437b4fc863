"""Shapes: solids bounded by meshes, and surfaces given by points with normals.

A field stands for a function of space whose level 0 is the surface: the signed distance, cut off at
a truncation or not, or the occupancy. It is fitted at points drawn once per fit: most of them near
the surface, where precision counts.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits
from inr.meshes import Cloud, Mesh, read_mesh
from inr.metrics import psnr
from inr.signals.base import Domain, Points, Signal
from inr.solid import Solid, nearest, sample_surface

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from fields.base import Field, SignalStatistics

TARGETS = ("tsdf", "sdf", "occupancy")
"""What a field may stand for: distance that is cut off near the surface, distance everywhere
(both negative inside), or 1 inside and -1 outside."""

TRUNCATION = 0.015
"""Distance at which a tsdf is cut off, as a share of the bounding box's diagonal."""

MARGIN = 1.1
"""Side of the cube that a field lives in, over the longest side of the bounding box."""

RESOLUTION = 256
"""Points per axis of the nominal lattice, and cells per axis of a surface if nothing else is
asked."""

SAMPLES = 1 << 19
"""Points that a fit draws."""

HELD_OUT = 1 << 16
"""Points on which quality is measured, drawn apart from those that are fitted."""

BOX_POINTS = 1 << 17
"""Points of the bounding box on which intersection and union are counted, at most."""

SURFACE_POINTS = 1 << 15
"""Points on each of two surfaces that are compared."""

FRESH = 0.125
"""Share of a batch that is drawn anew where a look at a lattice of CELLS has told that all values
are 1, or all -1: space that is known for its points alone would hold surfaces between them."""

CELLS = 48

COARSE = 16
"""Points per axis at which the largest distance in a cube is looked for."""

STATISTICS = 48
"""Points per axis of the lattice that `Field.adapt` sees."""

SHARES = {"near": 0.5, "wide": 0.25, "on": 0.125, "uniform": 0.125}
"""How the points of a fit are drawn: about the surface with a standard deviation of NEAR and of
WIDE truncations, on it, and anywhere in the cube."""

NEAR, WIDE = 0.4, 2.0

MAX_COUNT = 1 << 40


@dataclass(frozen=True)
class ShapeDomain(Domain):
    """What a field's values mean, and where its cube lies.

    Args:
        target: One of `TARGETS`.
        truncation: Distance that a value of 1 stands for, in the file's units; what an occupancy
            was drawn with.
        centre: The cube's middle, x, y, z in the file's units.
        half: Half the cube's side: a coordinate of 1.
        vertices: Vertices of the source, or its points.
        faces: Triangles of the source; 0 for points.
    """

    kind: ClassVar[str] = "shape"
    target: str
    truncation: float
    centre: tuple[float, float, float]
    half: float
    vertices: int
    faces: int

    channels: ClassVar[int] = 1  # type: ignore[misc]
    shape: ClassVar[tuple[int, ...]] = (RESOLUTION,) * 3  # type: ignore[misc]

    def header(self) -> list[Any]:
        return [
            self.target, self.truncation, list(self.centre), self.half, self.vertices, self.faces
        ]  # fmt: skip

    @classmethod
    def from_header(cls, items: Any) -> Self:
        if not isinstance(items, list) or len(items) != 6:
            raise CorruptFile("the shape's domain in the header is malformed")
        target, truncation, centre, half, vertices, faces = items
        if not isinstance(target, str) or target not in TARGETS:
            raise CorruptFile("the header claims a shape of an unknown target")
        if not isinstance(centre, list) or len(centre) != 3:
            raise CorruptFile("the shape's domain in the header is malformed")
        numbers = (truncation, half, *centre)
        if not all(type(x) is float and math.isfinite(x) for x in numbers):
            raise CorruptFile("the shape's place in the header is malformed")
        if not (truncation > 0 and half > 0):
            raise CorruptFile("the header claims a shape without size")
        if not all(type(n) is int and 0 <= n <= MAX_COUNT for n in (vertices, faces)):
            raise CorruptFile("the header claims impossible numbers of vertices or faces")
        return cls(target, truncation, (centre[0], centre[1], centre[2]), half, vertices, faces)

    def describe(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "truncation": float(f"{self.truncation:.6g}"),
            "centre": [float(f"{x:.6g}") for x in self.centre],
            "side": float(f"{2 * self.half:.6g}"),
            "vertices": self.vertices,
            "faces": self.faces,
        }

    def density(self, file_bytes: int) -> dict[str, float]:
        if self.faces:
            return {"bytes_per_face": file_bytes / self.faces}
        return {"bytes_per_point": file_bytes / max(self.vertices, 1)}

    @property
    def peak(self) -> float:
        return 1.0 if self.target == "occupancy" else 2 * self.truncation

    @property
    def grain(self) -> float:
        return 2.0**-23

    @property
    def outward(self) -> int:
        """1 where values grow towards the outside, -1 where they fall."""
        return -1 if self.target == "occupancy" else 1

    @property
    def thickness(self) -> float:
        """Distance from the surface, in coordinates, within which values differ from +-1."""
        return 0.0 if self.target == "occupancy" else self.truncation / self.half

    def level(self, sample: float | None = None) -> float:
        """The normalised value that stands for a distance in the file's units, or an occupancy.

        Args:
            sample: If not given, what the source's own surface has.

        Raises:
            UsageError: no value does.
        """
        if sample is None:
            return 0.0
        occupancy = self.target == "occupancy"
        value = 2 * sample - 1 if occupancy else sample / self.truncation
        if not -1 < value < 1:
            low, high = (0.0, 1.0) if occupancy else (-self.truncation, self.truncation)
            raise UsageError(f"level is {sample:g}: give a number between {low:g} and {high:g}")
        return value

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        """Distances in the file's units, or occupancies from 0 to 1; float32."""
        clipped = np.clip(values.astype(np.float64), -1, 1)
        if self.target == "occupancy":
            return ((clipped + 1) / 2).astype(np.float32)
        return (clipped * self.truncation).astype(np.float32)

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        """Inverse of `to_samples`, for what was not clipped."""
        if self.target == "occupancy":
            return (2 * samples - 1).astype(np.float32)
        return (samples / self.truncation).astype(np.float32)

    def to_coords(self, points: np.ndarray) -> np.ndarray:
        """Coordinates of points in the file's units; shape (n, 3), float64."""
        return (points - np.array(self.centre)) / self.half

    def to_units(self, coords: np.ndarray) -> np.ndarray:
        """Points in the file's units; shape (n, 3), float64."""
        return coords * self.half + np.array(self.centre)


class Distances(NamedTuple):
    """How far two surfaces are apart.

    Args:
        chamfer: Half the sum of the two mean distances, in the file's units.
        points: Points of the other surface that are nearest to some of the solid's, shape (n, 3).
        faces: The solid's triangles that these lie on, shape (n,).
    """

    chamfer: float
    points: np.ndarray
    faces: np.ndarray


class Shape(Signal):
    """A solid to be fitted; `Shape.from_mesh` makes one.

    Args:
        domain: Its domain.
        solid: The solid, in the file's units.
        samples: Points that a fit draws.
        detail: Cells per axis of the surface that `metrics` compares.
    """

    domain: ShapeDomain
    shown = ("iou", "chamfer_share")

    def __init__(
        self, domain: ShapeDomain, solid: Solid, *, samples: int = SAMPLES, detail: int = RESOLUTION
    ) -> None:
        self.domain = domain
        self.solid = solid
        self.samples = samples
        self.detail = detail
        self.device = "cpu"
        self._pools: dict[tuple[int, int], Points] = {}  # by seed and size, on the CPU
        self._cells: list[Tensor] = []
        self._here: dict[tuple[int, int], Points] = {}  # the same on the device

    @classmethod
    def from_mesh(
        cls,
        mesh: Mesh,
        target: str = "tsdf",
        truncation: float = TRUNCATION,
        *,
        samples: int = SAMPLES,
        detail: int = RESOLUTION,
    ) -> Self:
        """Inspect a mesh and make a signal of what it bounds.

        Args:
            mesh: From `inr.meshes.read_mesh` or `make_mesh`.
            target: One of `TARGETS`.
            truncation: Distance at which a tsdf is cut off, as a share of the diagonal.
            samples: Points that a fit draws.
            detail: Cells per axis of the surface that `metrics` compares.

        Raises:
            InputError: the mesh encloses nothing.
            UsageError: the target is unknown, or the truncation out of range.
        """
        if target not in TARGETS:
            raise UsageError(f"target is {target!r}: choose from {', '.join(TARGETS)}")
        if not 1e-4 <= truncation <= 1:
            raise UsageError(f"truncation is {truncation}: give a share from 0.0001 to 1")
        solid = Solid(mesh)
        half = float((solid.high - solid.low).max()) / 2 * MARGIN
        middle = (solid.low + solid.high) / 2
        reach = _farthest(solid, middle, half) if target == "sdf" else truncation * solid.diagonal
        domain = ShapeDomain(
            target, float(reach), (float(middle[0]), float(middle[1]), float(middle[2])), half,
            len(mesh.vertices), len(mesh.faces),
        )  # fmt: skip
        return cls(domain, solid, samples=samples, detail=detail)

    @property
    def count(self) -> int:
        return self.samples

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.float32

    @property
    def notes(self) -> tuple[str, ...]:
        return self.solid.notes

    def to(self, device: str) -> Self:
        moved = copy.copy(self)  # what was drawn stays in common
        moved.device, moved._here = device, {}
        return moved

    def digest(self) -> str:
        items = (self.domain.header(), self.samples)
        return digest(self.solid.vertices, self.solid.faces, np.array(repr(items).encode()))

    def values(self, points: np.ndarray) -> np.ndarray:
        """What a field should have at points in the file's units; shape (n,), in [-1, 1]."""
        if self.domain.target == "occupancy":
            return np.where(self.solid.inside(points), 1.0, -1.0)
        return self.solid.truncated(points, self.domain.truncation)

    def statistics(self) -> SignalStatistics:
        import torch

        from fields.base import SignalStatistics

        def lattice(place: tuple[slice, ...]) -> Tensor:
            places = self._lattice(STATISTICS)[place]
            values = self.values(places.reshape(-1, 3))
            return torch.from_numpy(values.reshape(*places.shape[:-1], 1).astype(np.float32))

        return SignalStatistics(lattice, (STATISTICS,) * 3 + (1,))

    def full_batch(self) -> Points:
        return self._pool(0, self.samples)

    def random_batch(self, points: int, generator: Any) -> Points:
        """Some of the points that the fit draws once, by its generator's seed."""
        import torch

        pool = self._pool(int(generator.initial_seed()), self.samples)
        coords = torch.rand((int(FRESH * points), 3), generator=generator) * 2 - 1
        cells = ((coords + 1) * (CELLS / 2)).long().clamp(max=CELLS - 1)
        values = self._far()[cells[:, 0], cells[:, 1], cells[:, 2]]
        known = values != 0
        coords, values = coords[known], values[known, None]
        left = points - len(coords)
        chosen = torch.randint(self.samples, (left,), generator=generator).to(self.device)
        return Points(
            torch.cat([pool.coords[chosen], coords.to(self.device)]),
            torch.cat([pool.values[chosen], values.to(self.device)]),
        )

    def probe(self, points: int) -> Points:
        held_out = self._held_out()
        return Points(held_out.coords[:points], held_out.values[:points])

    def differences(self, field: Field, batch: Any) -> Tensor:
        """How far a field is off; where a value is cut off, what lies beyond it is no error."""
        return _off(batch.evaluate(field), batch.values)

    def loss(self, field: Field, batch: Any) -> Tensor:
        """Sum of squared `differences`, the mean of it over a field's trained outputs."""
        import torch

        outputs = batch.outputs(field)
        return torch.stack([_off(out, batch.values).square().sum() for out in outputs]).mean()

    def quality(self, field: Field) -> float:
        """PSNR (R = 2) at held-out points, drawn as those of a fit are; values clipped."""
        import torch

        held_out = self._held_out()
        error = 0.0
        like = next(field.parameters())
        with torch.no_grad(), field.one_step():
            for tile in held_out.tiles(HELD_OUT // 4):
                there = Points(tile.coords.to(like), tile.values.to(like))
                values = there.evaluate(field).clamp(-1, 1)
                error += float((values - there.values).double().square().sum())
        return psnr(error / held_out.values.numel(), 2.0)

    def metrics(self, field: Field) -> dict[str, float]:
        """How well a field holds the solid and its surface.

        `psnr` and `psnr_float` as `quality` has it. `iou`: points of the bounding box, with a
        margin, that are inside both solids over those inside any, at the level 0. `chamfer`: half
        the sum of the two mean distances, each from points drawn evenly on one surface to the
        other, in the file's units; `chamfer_share` of the bounding box's diagonal.
        `normal_consistency`: mean |cosine| between the normals of points of the source and the
        field's gradient at the nearest points of its surface. A cap that closes a hole counts as
        surface on the way from the field to the source only.
        """
        quality = self.quality(field)
        found = {"psnr": quality, "psnr_float": quality, "iou": self.metric("iou", field)}
        return found | self._surfaces(field)

    def metric(self, name: str, field: Field) -> float:
        if name == "iou":
            return self.overlap(self.insider(field))
        return super().metric(name, field)

    def verdict(self, field: Field, metrics: dict[str, float]) -> list[str]:
        """Say so where the field has no surface, or a poor one."""
        if not math.isfinite(metrics["chamfer"]):
            return ["the field is 0 nowhere, so that it has no surface: give more steps"]
        if metrics["iou"] < 0.9:
            return [f"the solid is poorly met, at an IoU of {metrics['iou']:.2f}: give more steps"]
        return []

    def _held_out(self) -> Points:
        return self._pool(-1, min(HELD_OUT, self.samples))

    def _pool(self, seed: int, count: int) -> Points:
        """Points drawn by a seed, and their values; those of a seed of -1 belong to no fit."""
        import torch

        key = (seed, count)
        if key not in self._pools:
            rng = np.random.default_rng([seed + 1, 0x5EED])
            places = self.domain.to_coords(self._draw(rng, count)).astype(np.float32)
            # values belong to the coordinates as they are after rounding
            values = self.values(self.domain.to_units(places.astype(np.float64)))
            self._pools[key] = Points(
                torch.from_numpy(places), torch.from_numpy(values.astype(np.float32)[:, None])
            )
        if key not in self._here:
            pool = self._pools[key]
            self._here[key] = Points(pool.coords.to(self.device), pool.values.to(self.device))
        return self._here[key]

    def _far(self) -> Tensor:
        """1 or -1 for cells of the cube throughout which values are that, else 0."""
        import torch

        if not self._cells:
            reach = 0.0 if self.domain.target == "occupancy" else self.domain.truncation
            places = self._lattice(CELLS).reshape(-1, 3)
            radius = math.sqrt(3) / CELLS * self.domain.half
            found = self.solid.beyond(places, reach, radius).reshape((CELLS,) * 3)
            found *= self.domain.outward
            self._cells.append(torch.from_numpy(found).float())
        return self._cells[0]

    def _lattice(self, n: int) -> np.ndarray:
        """Middles of n^3 equal cells of the cube, in the file's units, shape (n, n, n, 3)."""
        axis = (2 * np.arange(n) + 1) / n - 1
        return self.domain.to_units(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1))

    def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Points in the file's units, those of the surface first."""
        domain = self.domain
        width = min(domain.truncation, TRUNCATION * self.solid.diagonal)
        counts = {name: int(share * count) for name, share in SHARES.items()}
        counts["near"] += count - sum(counts.values())
        if domain.target == "occupancy":  # on the surface it is neither
            counts["near"] += counts.pop("on")
        points, _ = self.solid.sample(count - counts["uniform"], rng, caps=True)
        near, wide = counts["near"], counts["wide"]
        points[:near] += rng.normal(0, NEAR * width, (near, 3))
        points[near : near + wide] += rng.normal(0, WIDE * width, (wide, 3))
        low, high = (np.array(domain.centre) + side * domain.half for side in (-1, 1))
        everywhere = rng.uniform(low, high, (counts["uniform"], 3))
        return np.concatenate([points, everywhere]).clip(low, high)

    def insider(self, field: Field) -> Callable[[np.ndarray], np.ndarray]:
        """What tells whether points of shape (n, 3), in the file's units, lie within a field."""

        def inside(points: np.ndarray) -> np.ndarray:
            return evaluate(field, self.domain.to_coords(points)) * self.domain.outward < 0

        return inside

    def overlap(self, inside: Callable[[np.ndarray], np.ndarray]) -> float:
        """Intersection over union with another solid, counted in the bounding box and a margin.

        Args:
            inside: Whether points of shape (n, 3), in the file's units, lie in the other one.
        """
        rng = np.random.default_rng(1)
        spare = self.domain.half * (1 - 1 / MARGIN)  # as far as the cube reaches
        low, high = self.solid.low - spare, self.solid.high + spare
        points = rng.uniform(low, high, (min(BOX_POINTS, 8 * self.samples), 3))
        truth = self.solid.inside(points)
        found = inside(points)
        return float((truth & found).sum() / max((truth | found).sum(), 1))

    def distances(self, vertices: np.ndarray, faces: np.ndarray) -> Distances:
        """How far another surface, in the file's units, is from the solid's."""
        solid = self.solid
        rng = np.random.default_rng(2)
        there, _ = sample_surface(vertices, faces, SURFACE_POINTS, rng)
        forth = np.abs(solid.truncated(there, solid.diagonal)) * solid.diagonal
        here, own = solid.sample(SURFACE_POINTS, rng)
        squares, _, there = nearest(here, vertices, faces)
        return Distances(float(forth.mean() + np.sqrt(squares).mean()) / 2, there, own)

    def _surfaces(self, field: Field) -> dict[str, float]:
        from inr.surface import extract, normals

        domain, solid = self.domain, self.solid
        surface = extract(field, self.detail, thickness=domain.thickness)
        if not len(surface.faces):
            return {"chamfer": math.inf, "chamfer_share": math.inf, "normal_consistency": 0.0}
        found = self.distances(domain.to_units(surface.vertices), surface.faces)
        gradients = normals(field, domain.to_coords(found.points))
        cosines = (gradients * solid.face_normals()[found.faces]).sum(1)
        return {
            "chamfer": found.chamfer,
            "chamfer_share": found.chamfer / solid.diagonal,
            "normal_consistency": float(np.abs(cosines).mean()),
        }


def _farthest(solid: Solid, middle: np.ndarray, half: float) -> float:
    """A distance from the surface that no point of a cube exceeds, nor is far below."""
    axis = (2 * np.arange(COARSE) + 1) / COARSE - 1
    places = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3) * half + middle
    return float(solid.distance(places).max()) + half * math.sqrt(3) / COARSE


def _off(values: Tensor, target: Tensor) -> Tensor:
    import torch

    beyond = torch.relu(1 - values * target)
    return torch.where(target.abs() < 1, values - target, beyond)


def evaluate(field: Field, coords: np.ndarray) -> np.ndarray:
    """A field's first value at points of shape (n, 3), float32."""
    import torch

    from fields.base import points_per_tile

    like = next(field.parameters())
    tiles = torch.from_numpy(coords).to(like).split(points_per_tile(field))
    with torch.no_grad(), field.one_step():
        return torch.cat([field(tile)[:, 0] for tile in tiles]).float().cpu().numpy()


def digest(*arrays: np.ndarray) -> str:
    """Hash of arrays, in order."""
    import hashlib

    whole = hashlib.blake2b(digest_size=16)
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def open_shape(
    source: str | Path | bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    target: str | None = None,
    truncation: float | None = None,
) -> Signal:
    """Read a mesh as a solid, or points with normals as a surface.

    Args:
        source: See `inr.meshes.read_mesh`.
        limits: What it may ask for.
        target: What a mesh's field stands for: tsdf (distance, cut off near the surface; the
            default), sdf (distance everywhere) or occupancy.
        truncation: Where a tsdf is cut off, as a share of the bounding box's diagonal; 0.015 if
            not given.

    Raises:
        InputError: no such file, damaged, without triangles, or enclosing nothing.
        LimitExceeded: more than `limits` allow.
        UsageError: an option is out of range, or for meshes only.
    """
    found = read_mesh(source, limits)
    if isinstance(found, Cloud):
        from inr.signals.oriented import OrientedPoints

        if target not in (None, "sdf") or truncation is not None:
            raise UsageError("points with normals give a signed distance: leave out shape.target")
        return OrientedPoints(found)
    if truncation is not None and target not in (None, "tsdf"):
        raise UsageError(f"shape.truncation is for a tsdf: leave it out with {target}")
    try:
        share = TRUNCATION if truncation is None else truncation
        return Shape.from_mesh(found, target or "tsdf", share)
    except InputError as error:
        name = "standard input" if isinstance(source, bytes) else str(source)
        raise type(error)(f"{name}: {error}") from None
