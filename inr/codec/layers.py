"""Progressive files: where the rows of a field are split into layers, and what each is worth.

M. Conde et al., "Streaming Neural Images", ICIP 2024, arXiv:2409.17134, ask that the first bytes of
a field already render. Here a file's parameter chunks are its layers, coarse to fine; what has not
arrived counts as zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inr.codec.decode import join_rows
from inr.codec.entropy import Row, encode_rows
from inr.codec.quantize import dequantize

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Signal

LAYER_BYTES = 16
"""What a boundary costs: the frame of a chunk (8), its quality in the header (3), and what two
streams of the range coder take more than one."""

SHARE = 0.01
"""Part of a file that boundaries may cost; the smallest layers join the next until it holds."""

LEAST_GAIN_DB = 0.25
"""A layer that improves the signal by less joins the next."""

EXACT = 0xFFFF


def boundaries(field: Field) -> list[int]:
    """How many rows there are up to the end of each layer of a field, if it is to have layers."""
    rows = [stored.rows for stored in field.stored_parameters()]
    groups = field.groups() if field.layered else [len(rows)]
    return [sum(rows[:end]) for end in itertools.accumulate(groups)]


def divide(
    work: Field, rows: Sequence[Row], signal: Signal | None
) -> tuple[list[int], list[int | None]]:
    """Where it pays to split quantised rows, and the quality at each split.

    Args:
        work: The field with the values of these rows, which it has again in the end.
        rows: Its quantised rows.
        signal: What it was fitted to, if that is at hand.

    Returns:
        Numbers of rows up to the end of each layer; and the quality of all layers but the last, as
        `stated` has it, which rises from layer to layer, or None where there is no signal.
    """
    ends = boundaries(work)
    if len(ends) == 1:
        return ends, []
    qualities: dict[int, float] = {}
    if signal is not None:
        qualities = {end: _quality(work, rows, end, signal) for end in ends}
        kept: list[int] = []
        for end in ends[:-1]:
            # the last layer, too, is to improve on those before it
            least = qualities[kept[-1]] + LEAST_GAIN_DB if kept else -math.inf
            if least <= qualities[end] <= qualities[ends[-1]] - LEAST_GAIN_DB:
                kept.append(end)
        ends = [*kept, ends[-1]]
    parts = itertools.pairwise([0, *ends])
    sizes = {end: len(encode_rows(rows[start:end])) for start, end in parts}
    total = sum(sizes.values())
    while (len(ends) - 1) * LAYER_BYTES > SHARE * total:
        smallest = min(range(len(ends) - 1), key=lambda i: sizes[ends[i]])
        size = sizes.pop(ends.pop(smallest))
        sizes[ends[smallest]] += size
    return ends, [stated(qualities[end]) if qualities else None for end in ends[:-1]]


def stated(psnr: float) -> int:
    """PSNR in hundredths of a dB as a header states it, rounded down; EXACT for an infinite one."""
    return max(0, min(math.floor(100 * psnr), EXACT - 1)) if math.isfinite(psnr) else EXACT


def facts(qualities: Sequence[int | None]) -> dict[str, Any]:
    """What a header says of the layers."""
    return {"l": list(qualities)} if qualities else {}


def _quality(work: Field, rows: Sequence[Row], end: int, signal: Signal) -> float:
    """PSNR of the first rows alone, whose values the field then has."""
    values = [dequantize(row) for row in rows]
    cut = [v if i < end else np.zeros_like(v) for i, v in enumerate(values)]
    work.load_stored(join_rows(work, cut))
    return signal.quality(work)
