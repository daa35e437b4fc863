"""Networks whose first layer is a sum of one-dimensional functions of the coordinates.

On a lattice of n_0 x n_1 x ... points such a layer needs n_0 + n_1 + ... evaluations of its basis
instead of their product, which makes even hundreds of basis functions cost next to nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fields import base
from fields.base import Field


class AdditiveField(Field):
    """values = rest(sum over i of part(i, x_i))."""

    @abstractmethod
    def part(self, axis: int, x: Float[Tensor, " points"]) -> Float[Tensor, "points hidden"]:
        """What coordinate number `axis` adds to the first layer's output."""

    @abstractmethod
    def rest(self, z: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch d_out"]:
        """All that follows the sum."""

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        flat = coords.reshape(-1, self.in_features)
        total = self.part(0, flat[:, 0])
        for axis in range(1, self.in_features):
            total = total + self.part(axis, flat[:, axis])
        return self.rest(total).reshape(*coords.shape[:-1], self.out_features)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """Basis functions per axis, sums over the lattice, the rest in tiles of bounded memory."""
        base.check_axes(self, axes)
        if len(axes) == 1:  # nothing is shared, and an axis may be long: all of it in tiles
            return super().on_grid(axes)
        parts = [self.part(i, axis) for i, axis in enumerate(axes)]
        values = torch.cat(list(self._tiles(parts, torch.zeros_like(parts[0][:1]))))
        return values.reshape(*map(len, axes), self.out_features)

    def _tiles(self, parts: list[Tensor], offset: Tensor) -> Iterator[Tensor]:
        """Values on the product of `parts`, tile by tile in row-major order."""
        points = base.points_per_tile(self)
        inner = math.prod(len(part) for part in parts[1:])
        if inner > points and len(parts[0]):  # an empty axis makes one empty tile below
            for row in parts[0]:
                yield from self._tiles(parts[1:], offset + row)
            return
        for z in (offset + parts[0]).split(max(1, points // max(inner, 1))):
            for part in parts[1:]:
                z = (z[:, None] + part).flatten(0, 1)
            yield self.rest(z)
