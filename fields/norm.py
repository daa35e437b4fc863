"""Layer normalisation, in a form that compresses well."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """x -> (1 + g) (x - mean) / sqrt(var + 1e-5) + b over the last axis, g and b trained from 0.

    It is torch's LayerNorm, but what is kept is the deviation g of the gains from 1: a row around
    zero, as the codec's models expect, and not one of ones, which a coarse step represents exactly
    and the next one not at all.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        return nn.functional.layer_norm(x, self.gain.shape, 1 + self.gain, self.bias)
