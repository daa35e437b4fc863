"""Quantisation-aware fine-tuning: the last part of a fit works on parameters as a file holds them.

The quantisation steps are chosen once, as the codec chooses them, but coarse enough to cost a
stated number of dB at first. From then on each pass sees rounded parameters and Adam moves the
unrounded ones by the gradient found there (the straight-through estimator of Y. Bengio, N. Leonard,
A. Courville, arXiv:1308.3432), so that what rounding spoils is learnt anew.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inr.codec.encode import distortion_of, split_rows
from inr.codec.entropy import MAX_MAGNITUDE
from inr.codec.quantize import FAR, choose_steps, quantize, step_shares, step_size

if TYPE_CHECKING:
    from fields.base import Field, StoredTensor
    from inr.signals.base import Signal

COARSE_DB = 2.0
"""Rounding that may cost more has steps of about half the spread of a row."""


def choose(field: Field, signal: Signal, db: float) -> list[int]:
    """Index of the quantisation step of each stored row, fewest bits at an error that grows by db.

    Args:
        field: The field as fitted so far; it stays as it is.
        signal: What it is fitted to.
        db: How far rounding may lower the PSNR, before any training with it.
    """
    rows = split_rows(field)
    distortion = distortion_of(copy.deepcopy(field).cpu(), signal)
    # steps that cost much are coarse, and how much they cost shows at coarse ones only
    shares = step_shares(rows, distortion, FAR if db <= COARSE_DB else math.inf)
    allowed = max(distortion(rows) * 10 ** (db / 10), (0.1 * signal.domain.grain) ** 2 / 12)
    indices = choose_steps(rows, shares, distortion, allowed)
    # no step so fine that a row's values would not fit
    return [quantize(row, index).step for row, index in zip(rows, indices, strict=True)]


@torch.no_grad()
def round_stored(field: Field, indices: Sequence[int]) -> None:
    """Set the stored parameters to what a file with these steps gives back."""
    for stored, steps in _with_steps(field, indices):
        symbols = torch.round(stored.tensor.double() / steps).clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE)
        stored.tensor.copy_(symbols.float() * steps.float())


@contextlib.contextmanager
def rounded(field: Field, indices: Sequence[int] | None) -> Iterator[None]:
    """Within it the stored parameters are rounded, if there are steps; after it they are not."""
    if indices is None:
        yield
        return
    kept = [stored.tensor.detach().clone() for stored in field.stored_parameters()]
    round_stored(field, indices)
    try:
        yield
    finally:
        with torch.no_grad():
            for stored, values in zip(field.stored_parameters(), kept, strict=True):
                stored.tensor.copy_(values)


def _with_steps(field: Field, indices: Sequence[int]) -> Iterator[tuple[StoredTensor, Tensor]]:
    """Each stored tensor with its steps, float64, of a shape that multiplies it row by row."""
    left = list(indices)
    for stored in field.stored_parameters():
        count = stored.tensor.shape[0] if stored.per_row else 1
        own, left = left[:count], left[count:]
        steps = torch.tensor([float(step_size(i)) for i in own], dtype=torch.float64)
        tail = [1] * (stored.tensor.ndim - 1)
        yield stored, steps.reshape(-1, *tail).to(stored.tensor.device)
