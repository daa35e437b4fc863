"""A family of symmetric distributions of integers, each named by two bytes.

The weight of magnitude k is close to (1 + (k / s)^(2^a))^-(2^b): Student's t, Laplace's and the
normal distribution and their like, by the shape (a, b) and the scale s. It is computed by whole
numbers alone, so that every machine has the same table.
"""

from __future__ import annotations

import functools

import numpy as np

from inr.errors import CorruptFile

SHAPES = ((0, 1), (0, 2), (0, 5), (1, 0), (1, 1), (1, 2), (1, 5), (2, 4))
"""(a, b): heavy tails first, within each a; (0, 5) is nearly Laplace's, (1, 5) nearly normal."""

FIRST = 16
"""First bytes of models from here on name a shape and an extent."""

EIGHTHS = (1048576, 1143480, 1246974, 1359835, 1482910, 1617125, 1763488, 1923097)
"""2^(20 + j/8), rounded: written out, so that no power is computed where a file is decoded."""

TABLE_MAGNITUDE = (1 << 15) - 1
"""Largest magnitude in one table of frequencies."""


@functools.lru_cache(maxsize=1)
def extents() -> tuple[int, ...]:
    """Largest magnitudes of tables: 1, 2, 3, 4, 6, 8, 12, and so on up to 2^15 - 1."""
    tail = [1 << i // 2 + 1 if i % 2 == 0 else 3 << i // 2 for i in range(28)]
    return (1, *tail, TABLE_MAGNITUDE)


def extent_of(magnitude: int) -> int:
    """Index of the smallest extent that holds a magnitude."""
    return next(i for i, extent in enumerate(extents()) if extent >= magnitude)


def first_byte(shape: int, extent: int) -> int:
    """How a model names both."""
    return FIRST + len(extents()) * shape + extent


def shape_and_extent(byte: int) -> tuple[int, int]:
    """Inverse of `first_byte`.

    Raises:
        CorruptFile: the byte names none.
    """
    if byte < FIRST:
        raise CorruptFile("holds an entropy model of no known shape")
    return divmod(byte - FIRST, len(extents()))


def scale(index: int) -> int:
    """The scale of a byte in 256ths: 2^(index / 8), rounded down."""
    return EIGHTHS[index % 8] << (index // 8) >> 20


def weights(shape: int, extent: int, scaled: int) -> np.ndarray:
    """Weights of the magnitudes 0 ... K, int64, at most 2^30.

    Args:
        shape: Index into `SHAPES`.
        extent: Index into `extents`.
        scaled: The scale in 256ths, 1 to 2^33.
    """
    squarings, powers = SHAPES[shape]
    x = (np.arange(extents()[extent] + 1, dtype=np.int64) << 20) // scaled  # k / s, in 4096ths
    x = np.minimum(x, 1 << 21)
    for _ in range(squarings):
        x = x * x >> 12
    w = (1 << 42) // ((1 << 12) + x)
    for _ in range(powers):
        w = w * w >> 30
    return w


# ------------------------------------------------------------------------------ choosing


def _costs(counts: np.ndarray, shape: int, extent: int, indices: np.ndarray) -> np.ndarray:
    """About how many bits symbols cost under each scale; no decoder depends on it."""
    squarings, powers = SHAPES[shape]
    at, width = _nodes(extents()[extent])
    scales = np.exp2(indices / 8 - 8)
    total = np.log2((np.exp2(_logs(at, scales, squarings, powers)) * width).sum(1))
    seen = np.flatnonzero(counts)
    return counts.sum() * total - _logs(seen, scales, squarings, powers) @ counts[seen]


def _logs(at: np.ndarray, scales: np.ndarray, squarings: int, powers: int) -> np.ndarray:
    """log2 of the weights of magnitudes, shape (scales, magnitudes)."""
    ratio = np.minimum(at / scales[:, None], 512.0) ** (1 << squarings)
    return np.maximum(-(1 << powers) * np.log2(1 + ratio), -40.0)


def _nodes(largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes at which weights are summed, and how many symbols each stands for."""
    if largest < 256:
        at = np.arange(largest + 1)
        return at, np.where(at > 0, 2.0, 1.0)
    edges = np.unique(np.concatenate([np.arange(64), np.geomspace(64, largest + 1, 192).round()]))
    width = np.diff(edges)
    return edges[:-1] + (width - 1) / 2, np.where(edges[:-1] > 0, 2 * width, 1.0)


def best(counts: np.ndarray) -> bytes:
    """The model of this family under which symbols cost least.

    Args:
        counts: How often each magnitude occurs, of which the last does.
    """
    extent = extent_of(len(counts) - 1)
    spread = np.sqrt((counts * np.arange(len(counts)) ** 2.0).sum() / max(counts.sum(), 1))
    middle = 8 * np.log2(256 * max(spread, 2.0**-6))
    tried = np.unique(np.clip(np.round(middle + np.arange(-24, 57, 4)), 0, 255)).astype(int)
    costs = [_costs(counts, shape, extent, tried) for shape in range(len(SHAPES))]
    shape, at = divmod(int(np.argmin(costs)), len(tried))
    near = np.unique(np.clip(tried[at] + np.arange(-3, 4), 0, 255))
    found = near[int(np.argmin(_costs(counts, shape, extent, near)))]
    return bytes([first_byte(shape, extent), int(found)])
