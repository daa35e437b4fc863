"""Uniform quantisation of parameters: which step for which row.

A parameter is stored as the integer nearest to parameter / step, and restored as integer * step,
one rounding in float32 on every machine. Steps are powers of 2^(1/8), so a byte names one.

Steps are shared out by reverse water-filling. Quantising row t with step d adds an error of about
s_t d^2 to the signal, with a sensitivity s_t that is measured; it costs n_t log2(1/d) bits, with
n_t the parameters that are not zero anyway. Fewest bits at equal error: d_t^2 proportional to
n_t / s_t. The common factor is then found by bisection on the real decoded error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fields.octaves import eighth
from inr.codec.entropy import MAX_MAGNITUDE, Row
from inr.metrics import largest

STEP_BIAS = 192

FAR = 3.0
"""Growth of the error by a trial step beyond which it tells little of small steps."""

CLOSE = 2e-7
"""A mean squared error of values in [-1, 1] that is small in any case."""

FINER = 24
"""By how many indices such a trial is repeated with a finer step: an eighth of it."""

Distortion = Callable[[Sequence[np.ndarray]], float]


def step_size(index: int) -> np.float32:
    """Step of an index 0..255: 2^((index - 192) / 8), from 2^-24 to 2^7.9."""
    return np.float32(eighth(index - STEP_BIAS))


def step_index(step: float) -> int:
    """Index of the largest step that is not above `step` (or of the smallest step)."""
    index = math.floor(8 * math.log2(step) + 1e-6) + STEP_BIAS if step > 0 else 0
    return min(255, max(0, index))


def quantize(values: np.ndarray, index: int) -> Row:
    """Quantise a row with a step, or with the smallest larger step that its values allow."""
    peak = float(np.abs(values).max(initial=0))
    while index < 255 and peak / float(step_size(index)) > MAX_MAGNITUDE:
        index += 1
    symbols = np.rint(values.astype(np.float64) / float(step_size(index)))
    return Row(index, np.clip(symbols, -MAX_MAGNITUDE, MAX_MAGNITUDE).astype(np.int32).ravel())


def dequantize(row: Row) -> np.ndarray:
    """Restore the values of a row, float32; numbers that were kept as they are, float64."""
    if row.symbols.dtype == np.float64:
        return row.symbols
    return row.symbols.astype(np.float32) * step_size(row.step)


def choose_steps(
    rows: Sequence[np.ndarray], shares: Sequence[float], distortion: Distortion, allowed: float
) -> list[int]:
    """Step indices that cost the fewest bits while the distortion stays within `allowed`.

    Args:
        rows: Values of each row.
        shares: Relative step of each row, from `step_shares`.
        distortion: Mean squared error of the signal when the rows take given values.
        allowed: The largest acceptable value of it.

    Returns:
        One step index per row; the finest steps where even they exceed `allowed`.
    """

    def indices(factor: float) -> list[int]:
        return [step_index(factor * share) for share in shares]

    def accept(factor: float) -> bool:
        return distortion(restored(rows, indices(factor))) <= allowed

    expected = math.sqrt(allowed)  # were the field without error itself
    return indices(largest(accept, 1e-4 * expected, 1e2 * expected, 14))


def restored(rows: Sequence[np.ndarray], indices: Sequence[int]) -> list[np.ndarray]:
    """What decoding gives for rows quantised with these steps."""
    return [dequantize(quantize(r, i)) for r, i in zip(rows, indices, strict=True)]


def step_shares(
    rows: Sequence[np.ndarray], distortion: Distortion, far: float = FAR
) -> list[float]:
    """Relative step of each row, from its measured sensitivity.

    Steps of f times these add an error of about f^2 to the signal.

    Args:
        rows: Values of the stored rows.
        distortion: Mean squared error when the rows take given values.
        far: Growth of the error by a trial step, half the spread of a row at first, beyond which
            the trial is repeated with a finer one.
    """
    base = distortion(rows)
    shares = []
    total = 0
    for t, row in enumerate(rows):
        spread = float(np.sqrt(np.mean(np.square(row, dtype=np.float64)))) if row.size else 0.0
        if spread == 0:
            shares.append(1.0)
            continue
        index = step_index(spread / 2)
        alive = 0
        while True:
            trial = _rounded(row, index)
            moved = distortion([trial if i == t else r for i, r in enumerate(rows)])
            alive = alive or max(1, int(np.count_nonzero(trial)))
            # far from the signal an error no longer grows as the square of the step
            if moved <= far * max(base, CLOSE) or index < FINER:
                break
            index -= FINER
        sensitivity = max(moved - base, 1e-4 * base, 1e-15) / float(step_size(index)) ** 2
        shares.append(math.sqrt(alive / sensitivity))
        total += alive
    return [share / math.sqrt(max(total, 1)) for share in shares]


def _rounded(row: np.ndarray, index: int) -> np.ndarray:
    """A row as rounding to a step would change it, were its values anywhere between the steps.

    Values that happen to lie on the steps (a layer's gains, all 1) are not insensitive: they are
    moved by the root mean square of a rounding error, to and fro.
    """
    trial = dequantize(quantize(row, index))
    alive = np.flatnonzero(trial)
    usual = float(step_size(index)) / math.sqrt(12)
    if alive.size and np.square(trial[alive] - row[alive]).mean() < usual**2 / 10:
        trial[alive] += (usual * (1 - 2 * (np.arange(alive.size) % 2))).astype(np.float32)
    return trial
