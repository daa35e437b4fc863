"""`fields.grid.Grid` on a lattice in numpy: it draws a picture before torch is even imported.

Importing torch takes about a second, decoding a photograph's grid a fifth of one. Dense levels
only; `Grid.on_grid` defines what is right.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

TILE_POINTS = 1 << 14
"""Points whose features are in a core's cache while the maps are applied to them."""

NAMES = ("resolution", "levels", "features", "log2_table", "hidden_features", "hidden_layers")


class NumpyGrid:
    """A multi-resolution feature grid whose levels are all dense.

    Args:
        linear: Weight (c, z) and bias (c) of the linear map.
        mlp: Weight and bias of each layer of the MLP; none if it has no hidden layer.
        tables: Features of each level, shape (f, *nodes), coarse to fine.
    """

    def __init__(
        self,
        linear: tuple[np.ndarray, np.ndarray],
        mlp: Sequence[tuple[np.ndarray, np.ndarray]],
        tables: Sequence[np.ndarray],
    ) -> None:
        self.linear, self.mlp, self.tables = linear, list(mlp), list(tables)
        self.domain: Any = None

    @classmethod
    def shapes(
        cls, in_features: int, out_features: int, given: Mapping[str, Any]
    ) -> list[tuple[tuple[int, ...], bool]] | None:
        """Shape of each stored tensor of a grid, and whether its first axis makes rows.

        None for what this class does not take: hashed levels, and hyperparameters that are missing
        or out of range, of which `Grid` itself tells what is wrong.
        """
        if list(given) != list(NAMES):
            return None
        resolution, *others = given.values()
        levels, features, log2_table, hidden, depth = others
        finest = [resolution] * in_features if type(resolution) is int else resolution
        if (
            not isinstance(finest, list)
            or len(finest) != in_features
            or any(type(n) is not int for n in (*finest, *others))
            or not all(1 <= n <= 1 << 20 for n in finest)
            or not (1 <= levels <= 24 and 0 <= features <= 64 and 4 <= log2_table <= 27)
            or not (1 <= hidden <= 1024 and 0 <= depth <= 8)
        ):
            return None
        width = features or out_features
        nodes = [tuple(-(-n // 2**k) for n in finest) for k in reversed(range(levels))]
        if math.prod(nodes[-1]) > 1 << log2_table:
            return None
        sizes = [levels * width, *[hidden] * depth, out_features]
        maps = [(sizes[-1], sizes[0]), (sizes[-1],)]
        for before, after in itertools.pairwise(sizes) if depth else ():
            maps += [(after, before), (after,)]
        return [(m, False) for m in maps] + [((width, *n), True) for n in nodes]

    @classmethod
    def of(cls, tensors: Sequence[np.ndarray], levels: int) -> NumpyGrid:
        """From the stored tensors, float32, of the shapes that `shapes` gives."""
        maps, tables = tensors[:-levels], tensors[-levels:]
        linear, *mlp = zip(maps[::2], maps[1::2], strict=True)
        return cls(linear, mlp, tables)

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """As `Field.one_step`: there is nothing to share."""
        yield

    def on_grid(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Values on the product of one coordinate vector per axis, shape (n_0, ..., n_d, c)."""
        features = []
        for table in self.tables:
            for i, axis in enumerate(axes):
                table = _lerp(table, 1 + i, axis)
            features.append(table.reshape(len(table), -1))
        points = math.prod(len(axis) for axis in axes)
        channels = len(self.linear[1])
        values = np.empty((points, channels), np.float32)
        for start in range(0, points, TILE_POINTS):
            part = slice(start, start + TILE_POINTS)
            z = np.concatenate([level[:, part] for level in features])
            with np.errstate(all="ignore"):  # a stranger's numbers may be as large as floats go
                values[part] = self._head(z).T
        return values.reshape(*map(len, axes), channels)

    def _head(self, z: np.ndarray) -> np.ndarray:
        """Values, shape (c, points), of features, shape (z, points)."""
        weight, bias = self.linear
        out = weight @ z + bias[:, None]
        for i, (weight, bias) in enumerate(self.mlp):
            z = weight @ z + bias[:, None]
            if i + 1 < len(self.mlp):
                np.maximum(z, 0, out=z)
        return out + z if self.mlp else out


def _lerp(table: np.ndarray, axis: int, x: np.ndarray) -> np.ndarray:
    """Interpolate linearly along one axis whose nodes are cell centres."""
    n = table.shape[axis]
    place = ((x + x.dtype.type(1)) * x.dtype.type(n / 2) - x.dtype.type(0.5)).clip(0, n - 1)
    below = np.minimum(np.floor(place), max(n - 2, 0)).astype(np.intp)
    share = place - below.astype(x.dtype)
    low = np.take(table, below, axis)
    step = np.take(table, np.minimum(below + 1, n - 1), axis)
    step -= low
    step *= share.reshape([-1 if i == axis else 1 for i in range(table.ndim)])
    step += low
    return step
