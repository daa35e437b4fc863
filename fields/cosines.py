"""Cosine series: a linear map of the cosines that a discrete cosine transform is made of.

N. Ahmed, T. Natarajan, K. R. Rao, "Discrete Cosine Transform", IEEE Transactions on Computers
C-23(1), 1974: at the centres of n equal cells the first n terms are its orthogonal basis (DCT-II).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.additive import AdditiveField
from fields.base import whole

MAX_TERMS = 1 << 13

ENOUGH_TERMS = 1024
"""Photographs and films have little left beyond so many on an axis; more are for the asking."""


class Cosines(AdditiveField):
    """y(x) = b + sum over axes i and k = 1..K-1 of w_ik cos(k pi (x_i + 1) / 2).

    It is linear in its parameters, and only they are stored: frequencies need none. On one axis it
    is a band-limited interpolation, even at both ends, without the jump of a Fourier series there.
    On several it is a sum of functions of one coordinate each, of little use: it is meant for the
    factors of `finr`, which starts exactly at a signal's decomposition in it.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        terms: K, the constant included. As many as there are samples on an axis hold whatever lies
            on it.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf
    sizes = ("terms",)

    def __init__(self, in_features: int, out_features: int, *, terms: int = 64) -> None:
        super().__init__(in_features, out_features)
        self.terms = whole("terms", terms, 2, MAX_TERMS)
        self.out = nn.Linear(in_features * (self.terms - 1), out_features)
        with torch.no_grad():  # amplitudes of a function without jumps
            decay = torch.arange(1, self.terms).to(self.out.weight)
            self.out.weight.normal_().div_(decay.repeat(in_features))
            self.out.bias.zero_()

    @property
    def widest(self) -> int:
        return max(self.in_features * self.terms, self.out_features)

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """A term per sample of the longest axis."""
        return {"terms": min(max(2, *shape), ENOUGH_TERMS)}

    def part(self, axis: int, x: Float[Tensor, " points"]) -> Float[Tensor, "points terms"]:
        """The axis's own cosines, with zeros in the place of those of the others."""
        steps = torch.arange(1, self.terms, dtype=x.dtype, device=x.device)
        cosines = ((x[:, None] + 1) * (math.pi / 2) * steps).cos()
        before, after = axis * (self.terms - 1), (self.in_features - 1 - axis) * (self.terms - 1)
        return nn.functional.pad(cosines, (before, after))

    def rest(self, z: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch d_out"]:
        """The linear map."""
        return self.out(z)
