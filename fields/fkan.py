"""FKAN: a learnable Fourier series per coordinate, then an MLP with gated activations.

A. Mehrabian, P. Mojarad Adi, M. Heidari, I. Hacihaliloglu, "Implicit Neural Representations with
Fourier Kolmogorov-Arnold Networks", ICASSP 2025, arXiv:2409.09323.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.additive import AdditiveField
from fields.base import FieldError, one_of, positive, whole
from fields.norm import LayerNorm


class Fkan(AdditiveField):
    """A Fourier series, LayerNorm, and dense layers x -> g(W x + b) before a linear output.

    The series is y_j = b_j + sum over i and k = 1..K of A_{ijk} cos(k x_i) + B_{ijk} sin(k x_i),
    and g(u) = (u + tanh(omega u)) sigmoid(u), as in the authors' code. A and B start as
    N(0, 1) / sqrt(d K), b as 0; dense weights as U(-sqrt(6/n)/omega, sqrt(6/n)/omega) with n the
    fan-in, their biases as torch has them, U(+-1/sqrt(n)).

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        fourier_features: Outputs of the series, j.
        frequencies: Highest frequency K of the series, in radians per half domain (the
            authors' grid size).
        hidden_features: Widths of the dense layers, one number each.
        omega: Steepness of g's tanh, and the divisor in the initialisation of dense weights.
        smooth: Whether A and B start as N(0, 1) / (sqrt(d) k^2) instead, so that the series is
            Lipschitz from the start, whatever K.
        variant: How the output's weights start: "official" takes `fourier_features` for their
            fan-in, as the authors' code does; "clean" takes the real one. On a photograph of
            128 x 128, 400 steps end at 25.4 and 25.1 dB, so the authors' is the default.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf
    training_only = (
        "smooth",
        "variant",
    )
    sizes = ("fourier_features", "frequencies", "hidden_features")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        fourier_features: int = 128,
        frequencies: int = 270,
        hidden_features: list[int] = [256, 256, 256, 512],  # noqa: B006 (never changed)
        omega: float = 30.0,
        smooth: bool = False,
        variant: Literal["official", "clean"] = "official",
    ) -> None:
        super().__init__(in_features, out_features)
        first = whole("fourier_features", fourier_features, 1, 8192)
        self.frequencies = whole("frequencies", frequencies, 1, 4096)
        if not isinstance(hidden_features, list) or not 1 <= len(hidden_features) <= 16:
            raise FieldError(f"hidden_features is {hidden_features!r}: give a list of 1 to 16")
        widths = [first, *(whole("hidden_features", n, 1, 8192) for n in hidden_features)]
        self.omega = positive("omega", omega, 1e6)
        if not isinstance(smooth, bool):
            raise FieldError(f"smooth is {smooth!r}: give true or false")
        one_of("variant", variant, ("official", "clean"))

        k = torch.arange(1.0, self.frequencies + 1)
        decay = 1 / k**2 if smooth else 1 / math.sqrt(self.frequencies)
        noise = torch.randn(in_features, first, 2, self.frequencies)
        # [A, B] side by side: the series is one product with [cos kx, sin kx]
        self.coefficients = nn.Parameter((noise * decay / math.sqrt(in_features)).flatten(2))
        self.bias = nn.Parameter(torch.zeros(first))
        self.norm = LayerNorm(first)
        fans = [*widths[:-1], first if variant == "official" else widths[-1]]
        layers = [nn.Linear(n, m) for n, m in pairwise([*widths, out_features])]
        for layer, fan_in in zip(layers, fans, strict=True):
            bound = math.sqrt(6 / fan_in) / self.omega
            nn.init.uniform_(layer.weight, -bound, bound)
        self.dense = nn.ModuleList(layers[:-1])
        self.out = layers[-1]
        self._widest = max(2 * self.frequencies, *widths)

    @property
    def widest(self) -> int:
        return self._widest

    def part(self, axis: int, x: Float[Tensor, " points"]) -> Float[Tensor, "points hidden"]:
        phase = x[:, None] * torch.arange(1, self.frequencies + 1, dtype=x.dtype, device=x.device)
        basis = torch.cat([phase.cos(), phase.sin()], dim=-1)
        return nn.functional.linear(basis, self.coefficients[axis], None if axis else self.bias)

    def rest(self, z: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch d_out"]:
        x = self.norm(z)
        for layer in self.dense:
            x = self.activation(layer(x))
        return self.out(x)

    def activation(self, u: Tensor) -> Tensor:
        """(u + tanh(omega u)) sigmoid(u), elementwise."""
        return (u + torch.tanh(self.omega * u)) * torch.sigmoid(u)
