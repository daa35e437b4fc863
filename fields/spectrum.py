"""First-layer frequencies drawn from a signal's spectrum.

Ours. A sine network combines and bends the frequencies that its first layer starts with; it hardly
moves them. SIREN draws them from a uniform law, and WINNER (`fields.winner`) from a wider normal
one, both blind to where in its band the signal has its power. Here unit j of the first layer starts
at a frequency drawn with a probability proportional to |Y_f|^p, Y being the discrete Fourier
transform of the signal under a Hann window per axis. docs/benchmarks/audio.md has what it gains.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fields.base import SignalStatistics

POWER = 1.25
"""p: 1 spends many units on the weak floor of a spectrum, 2 leaves all but its peaks to chance."""


def draw_frequencies(
    statistics: SignalStatistics, count: int, power: float = POWER
) -> Float[Tensor, "count d"] | None:
    """Frequency vectors that a signal calls for, in radians per half domain.

    Within its bin a frequency is uniform. The mean does not count. Draws from torch's CPU
    generator.

    Args:
        statistics: The signal; magnitudes are summed over its channels.
        count: Number of frequencies.
        power: Exponent p.

    Returns:
        float64, or None for a constant signal, which calls for none.
    """
    values = statistics.samples.detach().cpu().movedim(-1, 0).double()
    shape = statistics.shape
    axes = list(range(1, values.ndim))
    values = values - values.mean(axes, keepdim=True)
    for axis, n in enumerate(shape, 1):
        # half a sample off the ends: of one or two samples something is left
        window = torch.sin(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n).square()
        values = values * window.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    magnitudes = torch.fft.rfftn(values, dim=axes).abs().sum(0)
    magnitudes.view(-1)[0] = 0
    largest = magnitudes.max()
    if not largest > 0:
        return None
    chances = (magnitudes / largest).pow(power).flatten().cumsum(0)
    drawn = torch.searchsorted(chances, torch.rand(count, dtype=torch.float64) * chances[-1])
    bins = torch.stack(torch.unravel_index(drawn, magnitudes.shape), dim=-1).double()
    sizes = torch.tensor(shape, dtype=torch.float64)
    bins = torch.where(bins > sizes / 2, bins - sizes, bins)
    return math.pi * (bins + torch.rand(count, len(shape), dtype=torch.float64) - 0.5)
