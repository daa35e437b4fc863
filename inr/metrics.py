"""Quality measures, defined once.

PSNR = 10 log10(R^2 / MSE) in dB with the stated range R, over all samples and channels. For files
it is taken on the 8-bit rounded decode with R = 255; floats and 16-bit images use their own range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def psnr(mse: float, value_range: float) -> float:
    """PSNR in dB for a mean squared error and a range R; infinite for no error, -inf for inf."""
    if not 0 < mse < math.inf:
        return math.inf if mse <= 0 else -math.inf
    return 10 * math.log10(value_range**2 / mse)


def psnr_arrays(a: np.ndarray, b: np.ndarray, value_range: float) -> float:
    """PSNR in dB between two arrays of one shape, computed in float64, in bounded memory.

    Raises:
        ValueError: the shapes differ.
    """
    import numpy as np

    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    total = 0.0
    for row_a, row_b in zip(a, b, strict=True):
        total += float(np.square(row_a.astype(np.float64) - row_b.astype(np.float64)).sum())
    return psnr(total / max(a.size, 1), value_range)


def bits_per_pixel(file_bytes: int, pixels: int) -> float:
    """8 x bytes of the whole file / pixels."""
    return 8 * file_bytes / pixels


def largest(accept: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """Largest x in [low, high] that `accept` takes, by bisection on a log scale; `low` if none."""
    best = low
    for _ in range(steps):
        middle = math.sqrt(low * high)
        if accept(middle):
            best = low = middle
        else:
            high = middle
    return best
