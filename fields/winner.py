"""WINNER: noise on the first two layers of a sine network, scaled by the signal's spectrum.

H. Chandravamsi, D. V. Shenoy, I. Zinn, S. Pisnoy, S. H. Frankel, "Spectral Bottleneck in Deep
Neural Networks: Noise is All You Need" (later: "Spectral Bottleneck in Sinusoidal Representation
Networks"), 2025, arXiv:2509.09719.

After SIREN's initialisation, W_0 += s_0 / omega_0 N(0, 1) and W_1 += s_1 / omega_0 N(0, 1), where
W_0 and W_1 are the weights of the first two layers and omega_0 is that of the hidden layers. With
first_omega = omega_0, s_0 is thus the standard deviation of the first layer's added angular
frequencies in radians per half domain, and s_1 adds s_1^2 n / 2 to the variance of the second
layer's phases. The scales grow with the spectral centroid of the signal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fields.base import SignalStatistics


class Law(NamedTuple):
    """s_0 = top (1 - exp(-rise q_0)) and s_1 = slope q_1, with q_0 and q_1 from the centroid."""

    top: float
    rise: float
    slope: float


LAWS = {
    "paper": {1: Law(3500, 5, 3), 2: Law(50, 5, 0.4)},
    "code": {1: Law(3500, 7, 3), 2: Law(50, 5, 0.4)},
}
"""By form and number of axes. Sound and images are the authors'; they leave three axes and more to
the user's hand, and we take the law of images there: it is written in angular frequency per half
domain, and volumes have about as many samples per axis as images."""


def spectral_centroid(samples: Tensor, form: str = "paper") -> float:
    """Mean frequency of a signal, weighted by the magnitude of its spectrum, over Nyquist's.

    Args:
        samples: Shape (*shape, channels).
        form: "paper": 2 sum f |y_f| / sum |y_f|, f in cycles per sample, over all lines along an
            axis, then the mean over axes (the paper gives the sum for one axis) and channels.
            "code": as the released scripts compute it: an image is taken row by row as one long
            line, three axes and more by the unweighted mean over the lines of the last axis, and
            the sum over channels is divided by their number twice.

    Returns:
        A number in [0, 1]: 0 for a constant signal's zero frequency or silence, 1 for all energy
        at Nyquist's frequency.
    """
    values = samples.detach().movedim(-1, 0).double()  # (channels, *shape)
    if form == "paper":
        per_axis = []
        for axis in range(1, values.ndim):
            magnitudes = torch.fft.rfft(values, dim=axis).abs().movedim(axis, -1)
            pooled = magnitudes.reshape(len(values), -1, magnitudes.shape[-1]).sum(1)
            per_axis.append(_centroids(pooled, values.shape[axis]).mean().item())
        return 2 * sum(per_axis) / len(per_axis)
    if values.ndim <= 3:
        values = values.flatten(1)
    magnitudes = torch.fft.rfft(values).abs()
    return 2 * _centroids(magnitudes, values.shape[-1]).mean().item() / len(values)


def noise_scales(statistics: SignalStatistics, form: str = "paper") -> tuple[float, float]:
    """The scales s_0 and s_1 that a signal calls for, by the paper's law or the released code's."""
    channels = statistics.channels
    law = LAWS[form][min(len(statistics.shape), 2)]
    centroid = spectral_centroid(statistics.samples, form)
    if form == "paper":
        first, second = math.sqrt(centroid) / channels, centroid / math.sqrt(channels)
    else:
        first = second = centroid / channels
    return law.top * -math.expm1(-law.rise * first), law.slope * second


def _centroids(magnitudes: Tensor, length: int) -> Tensor:
    """Mean frequency in cycles per sample under each spectrum (last axis); silence has 0."""
    frequencies = torch.fft.rfftfreq(length, dtype=magnitudes.dtype, device=magnitudes.device)
    total = magnitudes.sum(-1)
    return (magnitudes * frequencies).sum(-1) / total.where(total > 0, torch.ones_like(total))
