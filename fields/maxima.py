"""Where a signal is singular: the local maxima of its wavelet modulus.

S. Mallat, S. Zhong, "Characterization of Signals from Multiscale Edges", IEEE TPAMI 1992: with the
gradient of a Gaussian as wavelet, the points where the modulus is largest along the direction of
the gradient are the edges of the signal at that scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fields.base import SignalStatistics

PLATEAU = 1e-4
"""How much larger than a neighbour, relatively, a maximum is: rounding makes none on a slope."""

FAINT = 1e-5
"""Modulus that counts as nothing, for values in [-1, 1]."""


@dataclass(frozen=True)
class Maxima:
    """Modulus maxima of one scale.

    Args:
        centres: Coordinates in [-1, 1], shape (count, axes).
        modulus: Scale times length of the gradient, shape (count,).
        directions: Unit vectors along the gradient, shape (count, axes).
    """

    centres: Tensor
    modulus: Tensor
    directions: Tensor

    def draw(self, count: int) -> Tensor:
        """Indices of `count` maxima, with probability proportional to the modulus."""
        total = self.modulus.double().cumsum(0)
        found = torch.searchsorted(total, torch.rand(count, dtype=torch.float64) * total[-1])
        return found.clamp(max=len(total) - 1)


@torch.no_grad()
def modulus_maxima(statistics: SignalStatistics, scale: float) -> Maxima:
    """Maxima at one scale, the standard deviation of the Gaussian in coordinates of [-1, 1]."""
    samples = statistics.samples.detach().to("cpu", torch.float32)
    shape = statistics.shape
    axes = range(len(shape))
    sigmas = [max(scale * n / 2, 0.5) for n in shape]  # in samples
    strides = [max(1, int(sigma / 2)) for sigma in sigmas]

    slopes = []
    for derived in axes:
        slope = samples
        for axis in axes:
            slope = _smooth(slope, axis, sigmas[axis], strides[axis], axis == derived)
        slopes.append(slope)
    gradients = torch.stack(slopes, dim=-1)  # (*lattice, channels, axes)
    lengths = gradients.norm(dim=-1)
    strongest = lengths.argmax(dim=-1)[..., None, None].expand(*lengths.shape[:-1], 1, len(shape))
    direction = torch.nn.functional.normalize(gradients.gather(-2, strongest)[..., 0, :], dim=-1)
    modulus = lengths.norm(dim=-1)

    where = torch.stack(torch.meshgrid(*map(torch.arange, modulus.shape), indexing="ij"), dim=-1)
    cells = torch.tensor([2 * k / n for k, n in zip(strides, shape, strict=True)])
    step = direction / cells
    step = (step / step.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)).round().long()
    last = torch.tensor(modulus.shape) - 1
    sides = [
        modulus[tuple((where + side).clamp(min=torch.zeros_like(last), max=last).unbind(-1))]
        for side in (step, -step)
    ]
    low, high = torch.minimum(*sides), torch.maximum(*sides)
    found = (modulus >= high) & (modulus > (1 + PLATEAU) * low) & (modulus > FAINT)

    first = torch.tensor([1 / n for n in shape]) - 1
    return Maxima(first + cells * where[found], modulus[found], direction[found])


def _smooth(values: Tensor, axis: int, sigma: float, stride: int, derive: bool) -> Tensor:
    """Convolve along an axis with a Gaussian, or sigma times its derivative, and thin out."""
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-((offsets / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    if derive:  # conv1d correlates, so the sign is that of the slope
        kernel = kernel * offsets / sigma
    rows = values.movedim(axis, -1)
    lines = rows.reshape(-1, 1, rows.shape[-1])
    padded = torch.nn.functional.pad(lines, (reach, reach), mode="replicate")
    thin = torch.nn.functional.conv1d(padded, kernel.float()[None, None], stride=stride)
    return thin.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
