"""Quantisation-aware fine-tuning: the last part of a fit works on parameters as a file holds them.

The quantisation steps are chosen once, as the codec chooses them, but coarse enough to cost a
stated number of dB at first. From then on each pass sees rounded parameters and Adam moves the
unrounded ones by the gradient found there (the straight-through estimator of Y. Bengio, N. Leonard,
A. Courville, arXiv:1308.3432), so that what rounding spoils is learnt anew.

Where the recipe weighs the rate, the loss is D + lambda R with R the estimated bits per sample of
the rounded rows, and the steps are learnt with the parameters: a step's gradient is that of D by
what rounding moves (S. Esser, J. McKinstry, D. Bablani, R. Appuswamy, D. Modha, "Learned Step Size
Quantization", ICLR 2020, arXiv:1902.08153, eq. 3) and that of R, which always asks for a larger
one. D + lambda R over a network's weights is the loss of D. Oktay, J. Balle, S. Singh,
A. Shrivastava, "Scalable Model Compression by Entropy Penalized Reparameterization", ICLR 2020,
arXiv:1906.06624; here the steps are per row, and no model of the weights is trained or sent.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from inr.codec.encode import distortion_of, split_rows
from inr.codec.entropy import MAX_MAGNITUDE
from inr.codec.quantize import (
    FAR,
    STEP_BIAS,
    choose_steps,
    quantize,
    step_shares,
    step_size,
)

if TYPE_CHECKING:
    from fields.base import Field, StoredTensor
    from inr.signals.base import Signal

STEP_LR = 0.12
"""Adam's rate for the steps, in indices (eighths of an octave), where the schedule is at 1."""

LEAST_SPREAD = 0.08
"""Of a row's model, in symbols: a row of zeros costs 1/178 bit each, which is the coder's least."""

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


def row_count(field: Field) -> int:
    """Rows that a file of this field has, each with a step."""
    return sum(stored.rows for stored in field.stored_parameters())


def stored_bits(field: Field, places: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Differentiable estimate of the bits of the coded symbols, without any side information.

    Each row's symbols are taken to follow a logistic distribution about 0, cut at half-integers,
    of the spread that they have. Gradients pass the rounding as if it were not there.

    Args:
        field: The field with unrounded parameters.
        places: The rows' steps as indices, which may lie between two; the nearest counts.
    """
    values, row = _flat(field)
    symbols = values / _steps(places)[row]
    symbols = symbols + (symbols.detach().round() - symbols.detach())
    sums = symbols.new_zeros(len(places)).index_add(0, row, symbols.square())
    sizes = torch.bincount(row, minlength=len(places)).clamp(min=1)
    spread = (3 * sums / sizes).clamp(min=(math.pi * LEAST_SPREAD) ** 2).sqrt() / math.pi
    # P(k) = F(k + 1/2) - F(k - 1/2) = sigmoid(-a) sigmoid(b) (1 - e^(a - b)), for |k|: no tail
    # is a difference of numbers that are almost alike
    width = (1 / spread)[row]
    a = (symbols.abs() - 0.5) * width
    negative_log = F.softplus(a) + F.softplus(-a - width) - torch.log(-torch.expm1(-width))
    return negative_log.sum() / math.log(2)


def weigh_rate(field: Field, places: Float[Tensor, " rows"], weight: float) -> None:
    """Add the gradients of `weight` times `stored_bits`, and the steps' gradient of the error.

    Args:
        field: The field with unrounded parameters; they carry the error's gradient, found at
            rounded ones.
        places: The rows' steps as indices. Their gradient is set.
        weight: Weight of a bit.
    """
    with torch.no_grad():
        values, row = _flat(field)
        steps = _steps(places)[row]
        moved = (values / steps).round() * steps - values
        slopes = [
            torch.zeros_like(s.tensor) if s.tensor.grad is None else s.tensor.grad
            for s in field.stored_parameters()
        ]
        product = moved * torch.cat([slope.flatten() for slope in slopes])
        by_log_step = torch.zeros_like(places).index_add(0, row, product.to(places))
    (weight * stored_bits(field, places)).backward()
    assert places.grad is not None
    places.grad += by_log_step * (math.log(2) / 8)


def nearest(places: Float[Tensor, " rows"]) -> list[int]:
    """Indices of the steps that count."""
    return [int(i) for i in places.detach().round().clamp(0, 255)]


def _steps(places: Tensor) -> Tensor:
    """Steps of the nearest indices; their gradient is that of the steps in between."""
    index = places + (places.detach().round().clamp(0, 255) - places.detach())
    return torch.exp2((index - STEP_BIAS) / 8)


def _flat(field: Field) -> tuple[Tensor, Tensor]:
    """All stored numbers in one vector, and the row that each belongs to."""
    stored = field.stored_parameters()
    rows = [s.tensor.flatten(1) if s.per_row else s.tensor.reshape(1, -1) for s in stored]
    sizes = [row.shape[1] for row in rows for _ in range(len(row))]
    device = rows[0].device
    counts = torch.tensor(sizes, device=device)
    index = torch.arange(len(sizes), device=device).repeat_interleave(counts)
    return torch.cat([row.flatten() for row in rows]), index


def _with_steps(field: Field, indices: Sequence[int]) -> Iterator[tuple[StoredTensor, Tensor]]:
    """Each stored tensor with its steps, float64, of a shape that multiplies it row by row."""
    left = list(indices)
    for stored in field.stored_parameters():
        own, left = left[: stored.rows], left[stored.rows :]
        steps = torch.tensor([float(step_size(i)) for i in own], dtype=torch.float64)
        tail = [1] * (stored.tensor.ndim - 1)
        yield stored, steps.reshape(-1, *tail).to(stored.tensor.device)
