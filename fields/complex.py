"""Complex numbers as pairs of real ones: all real parts along the last axis, then all imaginary.

One real matrix product of twice the width does the work of a complex one; parameters, files and
derivatives stay real.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ComplexLinear(nn.Module):
    """z -> W z + b for complex W and b, on pairs.

    Shapes: (..., 2 in_features) -> (..., 2 out_features). Real and imaginary parts have torch's
    initialisation, U(+-1/sqrt(fan_in)), independently, as torch gives to complex layers.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.real = nn.Linear(in_features, out_features, bias)
        self.imag = nn.Linear(in_features, out_features, bias)

    def forward(self, z: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(z, *self.pairs())

    def pairs(self) -> tuple[Tensor, Tensor | None]:
        """The real matrix that does it, (2 out, 2 in), and its bias."""
        a, b = self.real, self.imag
        rows = [torch.cat([a.weight, -b.weight], dim=-1), torch.cat([b.weight, a.weight], dim=-1)]
        bias = None if a.bias is None else torch.cat([a.bias, b.bias], dim=-1)
        return torch.cat(rows, dim=-2), bias


class RealPart(nn.Module):
    """z -> Re(W z) + b for complex W and real b; the imaginary part of b would do nothing.

    Shapes: (..., 2 in_features) -> (..., out_features). Initialised as `ComplexLinear`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.real = nn.Linear(in_features, out_features, bias)
        self.imag = nn.Linear(in_features, out_features, bias=False)

    def forward(self, z: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(z, *self.pairs())

    def pairs(self) -> tuple[Tensor, Tensor | None]:
        """The real matrix that does it, (out, 2 in), and its bias."""
        return torch.cat([self.real.weight, -self.imag.weight], dim=-1), self.real.bias


def wave(exponent: Tensor, phase: Tensor) -> Tensor:
    """exp(exponent + i phase), as pairs."""
    modulus = torch.exp(exponent)
    return torch.cat([modulus * torch.cos(phase), modulus * torch.sin(phase)], dim=-1)


def truncated_exp(z: Tensor, degree: int) -> Tensor:
    """Return z + z^2/2! + ... + z^degree/degree! of real numbers, by Horner's rule."""
    total = z / degree
    for k in range(degree - 1, 0, -1):
        total = z * (1 + total) / k
    return total


def complex_truncated_exp(z: Tensor, degree: int) -> Tensor:
    """The same of complex numbers, as pairs."""
    x, y = z.chunk(2, dim=-1)
    real, imag = x / degree, y / degree
    for k in range(degree - 1, 0, -1):
        real = 1 + real
        real, imag = (x * real - y * imag) / k, (x * imag + y * real) / k
    return torch.cat([real, imag], dim=-1)
