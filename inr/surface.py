"""The surface in a field: marching cubes in blocks, where a coarse look says that it may be.

W. Lorensen, H. Cline, "Marching Cubes", SIGGRAPH 1987, in the form of T. Lewiner et al.,
"Efficient Implementation of Marching Cubes' Cases with Topological Guarantees", 2003, which
scikit-image has. Memory is that of one block and of the triangles.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from fields.base import Field

COARSE = 64
"""Cells per axis of the first look, at least, where the result has more."""

FINEST = 2048
"""Cells per axis of the result at most."""

CHUNK = 64
"""Cells per axis of what marching cubes sees at a time."""

MARGIN = 0.5
"""A block is entered unless its coarse values stay away from the level by this share of their
range. The range of 3 coarse values per axis says how steep the field is there."""

NUDGE = 1e-4
"""Values this close to the level, in shares of the largest step from node to node, are moved away:
a vertex would else lie on a node of the lattice, and triangles about it would have no area."""

POINTS = 1 << 18
"""Points evaluated at a time."""

STENCIL = 1e-3
"""Half the distance, in coordinates, over which a field without derivatives is differenced."""


@dataclass(frozen=True)
class Surface:
    """Triangles in the coordinates of a field.

    Args:
        vertices: Shape (v, 3), float64, in [-1, 1].
        faces: Shape (f, 3), int64, seen counter-clockwise from where values are larger.
        visited: Share of the lattice's cells that was looked at closely.
    """

    vertices: np.ndarray
    faces: np.ndarray
    visited: float

    def oriented(self, outward: int) -> Surface:
        """The same, seen counter-clockwise from outside, where values rise (1) or fall (-1)."""
        if outward > 0:
            return self
        return dataclasses.replace(self, faces=np.ascontiguousarray(self.faces[:, ::-1]))


def extract(
    field: Field,
    resolution: int,
    *,
    level: float = 0.0,
    thickness: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Surface:
    """Triangulate where a field of 3 coordinates takes a value.

    The surface is closed unless it leaves [-1, 1]^3, and blocks join without seams. It has what a
    lattice of COARSE cells, of cells as wide as `thickness`, or of every eighth node can notice.

    Args:
        field: Its first value is taken.
        resolution: Cells per axis.
        level: The value, between -1 and 1.
        thickness: Distance from the surface, in coordinates, within which values tell of it.
        progress: Called with the share that is done, now and then.

    Raises:
        UsageError: an argument is out of range.
    """
    if not 2 <= resolution <= FINEST:
        raise UsageError(f"resolution is {resolution}: give cells per axis from 2 to {FINEST:,}")
    if not -1 < level < 1:
        raise UsageError(f"level is {level}: give a number between -1 and 1")
    looks = max(COARSE, resolution // 8, math.ceil(2 / thickness) if thickness else 0)
    looks = min(looks, 4 * COARSE)
    stride = max(1, resolution // looks)
    coarse = _lattice(field, _nodes(resolution, stride), resolution) - level
    block = stride * 2 if stride > 1 else CHUNK
    active = _active(coarse, block // stride)
    steepest = max(float(np.abs(np.diff(coarse, axis=axis)).max()) for axis in range(3))
    nudge = NUDGE * steepest / stride
    builder = _Builder(resolution)
    chunks = [*_chunks(active, block, resolution)]
    for done, (start, stop, blocks) in enumerate(chunks):
        volume = _filled(coarse, start, stop, stride)
        _evaluate(field, volume, start, blocks, (block, resolution, level))
        volume[np.abs(volume) < nudge] = nudge
        builder.add(volume, start)
        if progress is not None:
            progress((done + 1) / len(chunks))
    vertices, faces = builder.joined()
    return Surface(vertices, faces, float(active.mean()))


def normals(field: Field, vertices: np.ndarray) -> np.ndarray:
    """Unit normals at points of shape (n, 3), towards larger values: the field's gradient.

    By automatic differentiation, or for a field that has no derivative everywhere by differences.
    Where the gradient is 0, so is the normal.
    """
    import torch

    like = next(field.parameters())
    parts = []
    for points in torch.from_numpy(vertices).to(like).split(POINTS // 4):
        if field.smoothness >= 1:
            with torch.enable_grad():
                points = points.detach().requires_grad_()
                gradient = torch.autograd.grad(field(points)[..., 0].sum(), points)[0]
        else:
            gradient = _differences(field, points)
        parts.append(torch.nn.functional.normalize(gradient.double(), dim=-1).cpu())
    return torch.cat(parts).numpy() if parts else np.zeros((0, 3))


def _differences(field: Field, points: Tensor) -> Tensor:
    import torch

    steps = STENCIL * torch.eye(3).to(points)
    with torch.no_grad():
        return torch.stack([field(points + s)[:, 0] - field(points - s)[:, 0] for s in steps], -1)


def _nodes(resolution: int, stride: int) -> np.ndarray:
    """Indices of every `stride`-th node, and of the last one."""
    return np.unique(np.append(np.arange(0, resolution, stride), resolution))


def _coordinates(nodes: Any, resolution: int) -> np.ndarray:
    return (2 * np.asarray(nodes, np.float64) / resolution - 1).astype(np.float64)


def _lattice(field: Field, nodes: np.ndarray, resolution: int) -> np.ndarray:
    """Values on the cube of some nodes, float32."""
    import torch

    from inr.rendering import bands

    axis = torch.from_numpy(_coordinates(nodes, resolution)).to(next(field.parameters()))
    parts = [values[..., 0].float().cpu().numpy() for _, values in bands(field, [axis] * 3)]
    return np.concatenate(parts)


def _active(coarse: np.ndarray, cells: int) -> np.ndarray:
    """Which blocks of so many coarse cells per axis the surface may cross."""
    low, high = coarse, coarse
    for axis in range(3):
        last = coarse.shape[axis] - 1
        starts = np.arange(0, last, cells)
        pieces = [np.arange(s, min(s + cells, last) + 1) for s in starts]
        low = np.stack([low.take(p, axis).min(axis) for p in pieces], axis)
        high = np.stack([high.take(p, axis).max(axis) for p in pieces], axis)
    spare = MARGIN * (high - low)
    return (low - spare <= 0) & (high + spare >= 0)


def _chunks(
    active: np.ndarray, block: int, resolution: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(first node, last node, active blocks) of each chunk that has any."""
    per_axis = max(1, CHUNK // block)
    for corner in itertools.product(*(range(0, n, per_axis) for n in active.shape)):
        part = active[tuple(slice(c, c + per_axis) for c in corner)]
        if part.any():
            start = np.array(corner) * block
            stop = np.minimum(start + per_axis * block, resolution)
            yield start, stop, np.argwhere(part) + corner


def _filled(coarse: np.ndarray, start: np.ndarray, stop: np.ndarray, stride: int) -> np.ndarray:
    """A chunk's values as the coarse look has them, each node that of the nearest coarse one."""
    index = [
        np.minimum((np.arange(a, b + 1) + stride // 2) // stride, coarse.shape[0] - 1)
        for a, b in zip(start, stop, strict=True)
    ]
    return coarse[np.ix_(*index)]


def _evaluate(
    field: Field,
    volume: np.ndarray,
    start: np.ndarray,
    blocks: np.ndarray,
    lattice: tuple[int, int, float],
) -> None:
    """Put the field's values, less the level, into a chunk's active blocks."""
    import torch

    block, resolution, level = lattice
    wanted = np.zeros(volume.shape, bool)
    for corner in blocks * block - start:
        wanted[tuple(slice(c, c + block + 1) for c in corner)] = True
    like = next(field.parameters())
    places = np.argwhere(wanted)
    coordinates = torch.from_numpy(_coordinates(places + start, resolution)).to(like)
    from fields.base import points_per_tile

    with torch.no_grad(), field.one_step():
        tiles = coordinates.split(points_per_tile(field))
        values = torch.cat([field(tile)[:, 0] for tile in tiles])
    volume[wanted] = values.float().cpu().numpy() - np.float32(level)


class _Builder:
    """Puts the triangles of chunks together; vertices on the same edge become one."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.nodes = resolution + 1
        self.count = 0
        self.vertices: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.keys: list[np.ndarray] = []

    def add(self, volume: np.ndarray, start: np.ndarray) -> None:
        """Triangulate one chunk, whose first node is `start`."""
        from skimage.measure import marching_cubes

        if not volume.min() < 0 < volume.max():
            return
        vertices, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="descent")
        vertices = vertices.astype(np.float64)
        below = np.floor(vertices + 1e-7).astype(np.int64)
        along = (vertices - below) > 1e-6
        edge = along.sum(1) == 1
        axis = along.argmax(1)
        ends = below + np.eye(3, dtype=np.int64)[axis]
        ends = np.minimum(ends, np.array(volume.shape) - 1)
        a, b = (volume[tuple(x.T)].astype(np.float64) for x in (below, ends))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = a / (a - b)
        # the same numbers, whichever chunk an edge is met in
        exact = below + np.where(edge, share, 0.0)[:, None] * np.eye(3)[axis]
        vertices = np.where(edge[:, None], exact, vertices) + start
        flat = np.ravel_multi_index(tuple((below + start).T), (self.nodes,) * 3)
        # a vertex within a cell is nobody else's: it gets a number of its own
        own = -1 - self.count - np.arange(len(vertices))
        self.keys.append(np.where(edge, flat * 3 + axis, own))
        self.vertices.append(vertices)
        self.faces.append(faces.astype(np.int64) + self.count)
        self.count += len(vertices)

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """All vertices, in coordinates, and all faces."""
        if not self.count:
            return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
        _, first, index = np.unique(
            np.concatenate(self.keys), return_index=True, return_inverse=True
        )
        vertices = np.concatenate(self.vertices)[first]
        faces = index[np.concatenate(self.faces)]
        a, b, c = faces.T
        faces = faces[(a != b) & (b != c) & (c != a)]
        return _coordinates(vertices, self.resolution), np.ascontiguousarray(faces)
