"""What is assumed of a signal besides what was observed: that it changes little, or evenly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMOOTH = 1e-3
"""Differences well below this, of values in [-1, 1], do not count as edges: the norms are rounded
off so that they have a gradient at 0."""


def total_variation(values: Tensor) -> Tensor:
    """Mean over samples of the norm of the differences to the next ones, along all axes.

    Args:
        values: Shape (*lattice, channels). Axes of one sample do not count.
    """
    axes = [axis for axis in range(values.ndim - 1) if values.shape[axis] > 1]
    return _mean_norm([_difference(values, [axis], axes) for axis in axes], values)


def curvature(values: Tensor) -> Tensor:
    """Mean over samples of the Frobenius norm of the second differences.

    Args:
        values: Shape (*lattice, channels). Axes of fewer than three samples do not count.
    """
    axes = [axis for axis in range(values.ndim - 1) if values.shape[axis] > 2]
    pairs = [[a, b] for a in axes for b in axes]
    return _mean_norm([_difference(values, pair, axes, margin=2) for pair in pairs], values)


def _difference(values: Tensor, along: list[int], axes: list[int], margin: int = 1) -> Tensor:
    """Forward differences along axes, all cut to the same samples."""
    for axis in along:
        values = values.diff(dim=axis)
    for axis in axes:
        spare = margin - along.count(axis)
        values = values.narrow(axis, 0, values.shape[axis] - spare)
    return values


def _mean_norm(parts: list[Tensor], like: Tensor) -> Tensor:
    if not parts:
        return like.new_zeros(())
    # channels count as one edge together, whose height is their root mean square
    squares = torch.stack([part.square().mean(-1) for part in parts]).sum(0)
    return (squares + SMOOTH**2).sqrt().mean() - SMOOTH


def noise_level(values: Tensor) -> float:
    """Standard deviation of white noise on a signal, from its differences along all axes at once.

    Their median magnitude is that of noise wherever most of the signal is smooth (D. Donoho,
    I. Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81, 1994).

    Args:
        values: Shape (*lattice, channels).
    """
    axes = [axis for axis in range(values.ndim - 1) if values.shape[axis] > 1]
    for axis in axes:
        values = values.diff(dim=axis)
    # of a normal distribution the median magnitude is 0.6745 standard deviations
    return float(values.abs().median()) / 0.6745 / math.sqrt(2) ** len(axes)


def denoising_weight(values: Tensor) -> float:
    """Weight of the total variation that suits a noisy signal.

    It is in proportion to the noise, and lower where the signal itself varies more than the noise
    does: the best weights of six photographs at two sizes are 1.4 to 2.2 standard deviations of
    the noise, but 1 of one that is all texture. How much it varies is seen at half the size, less
    what the noise contributes there.

    Args:
        values: Shape (*lattice, channels), in [-1, 1] but for the noise.
    """
    noise = noise_level(values)
    halved = values
    axes = [axis for axis in range(values.ndim - 1) if values.shape[axis] > 3]
    for axis in axes:
        pairs = halved.narrow(axis, 0, halved.shape[axis] // 2 * 2).unflatten(axis, (-1, 2))
        halved = pairs.mean(axis + 1)
    shared = noise * math.sqrt(2 * len(axes) / 2 ** len(axes))
    variation = math.sqrt(max(0.0, float(total_variation(halved)) ** 2 - shared**2))
    return noise * min(1.4, 0.9 * noise / max(variation, 1e-9))
