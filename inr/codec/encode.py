"""Field -> bytes of an `.inr` file.

stored tensors -> rows -> steps (quantize) -> range coder (entropy) -> container (format) -> bytes,
which are decoded again and compared before anyone sees them.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fields import registry
from inr.codec import format as container
from inr.codec.decode import decode, join_rows
from inr.codec.entropy import Row, decode_rows, encode_rows
from inr.codec.quantize import (
    Distortion,
    choose_steps,
    dequantize,
    quantize,
    restored,
    step_shares,
)
from inr.errors import FitError, UsageError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Batch, Domain, Points, Signal

MAX_LOSS_DB = 0.1
SEARCH_SCALARS = 1 << 23
"""Steps are searched on as many points as make activations of this size, but at most 2^18; the
final error is taken on all points."""

ATTEMPTS = 5
"""Searches with a tighter bound each, where the error on all samples exceeds that on the few."""

UNSEEN_PSNR = 60.0
"""Where the signal is not at hand, quantisation stays this far (in dB) below the field itself."""


def encode(
    field: Field,
    signal: Signal | None = None,
    *,
    max_loss_db: float = MAX_LOSS_DB,
    target_psnr: float | None = None,
    rounding: Sequence[int] | None = None,
) -> bytes:
    """Compress a field that has a domain into the bytes of a file.

    Args:
        field: The field; it stays as it is.
        signal: What it was fitted to. Without it, and where it is not the signal itself (see
            `Signal.complete`), the quantised field is held to 60 dB of the unquantised one.
        max_loss_db: PSNR that quantisation may cost.
        target_psnr: A quality that suffices: a field above it may be quantised down to it.
        rounding: Index of each stored row's quantisation step, where the fit has settled them
            (`Fit.rounding`); the two bounds above are then without effect.

    Raises:
        FitError: the field holds NaN or infinite parameters.
        UsageError: the field has no domain, its class is not registered, or `rounding` belongs to
            another field.
    """
    import torch

    if field.domain is None:
        raise UsageError("this field has no domain: fit it to a signal first")
    if signal is not None and not signal.complete:
        signal = None
    name = registry.name_of(field)
    stored = field.stored_parameters()
    if not all(bool(torch.isfinite(s.tensor).all()) for s in stored):
        raise FitError("the field holds NaN or infinite parameters: nothing is written")
    rows = split_rows(field)
    if rounding is not None and len(rounding) != len(rows):
        raise UsageError(f"rounding has {len(rounding)} steps: this field has {len(rows)} rows")
    work = copy.deepcopy(field).cpu()
    if rounding is not None:
        indices = list(rounding)
    elif signal is None:
        distortion = distortion_of(work, signal)
        shares = step_shares(rows, distortion)
        indices = choose_steps(rows, shares, distortion, 4 * 10 ** (-UNSEEN_PSNR / 10))
    else:
        wanted = signal.quality(field) - max_loss_db
        if target_psnr is not None:
            wanted = min(wanted, target_psnr) if wanted + max_loss_db >= target_psnr else wanted
        indices, quality = _search(work, rows, signal, wanted)
    quantised = [quantize(row, index) for row, index in zip(rows, indices, strict=True)]
    work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
    facts: dict[str, Any] = {}
    if signal is not None:
        if rounding is not None:
            quality = signal.quality(work)
        if rounding is None and quality < wanted and signal.domain.precision == "float64":
            # beyond the reach of any step
            quantised = [Row(0, row.astype(np.float64)) for row in rows]
            work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
            quality = signal.quality(work)
        facts["q"] = min(math.floor(100 * quality), 0xFFFE) if math.isfinite(quality) else 0xFFFF
    data = pack(name, field, field.domain, quantised, facts)
    _verify(data, quantised, work.to(getattr(torch, field.domain.precision)))
    return data


def distortion_of(work: Field, signal: Signal | None) -> Distortion:
    """Mean squared error when a field's rows take given values, on points of bounded number.

    Args:
        work: The field; each call leaves other parameters in it.
        signal: What it is compared with; without it, with the field as it is now.
    """
    import torch

    batch = _search_points(work, signal)

    def distortion(values: Sequence[np.ndarray]) -> float:
        work.load_stored(join_rows(work, values))
        with torch.no_grad():
            error = batch.evaluate(work).clamp(-1, 1) - batch.values
        return float(error.double().square().mean())

    return distortion


def _search(
    work: Field, rows: Sequence[np.ndarray], signal: Signal, wanted: float
) -> tuple[list[int], float]:
    """The coarsest steps with which all samples have the PSNR `wanted`, and what they have."""
    distortion = distortion_of(work, signal)
    shares = step_shares(rows, distortion)
    # what is finer than a tenth of the signal's own grain nobody sees
    allowed = max(4 * 10 ** (-wanted / 10), (0.1 * signal.domain.grain) ** 2 / 12)
    for _ in range(ATTEMPTS):
        indices = choose_steps(rows, shares, distortion, allowed)
        work.load_stored(join_rows(work, restored(rows, indices)))
        quality = signal.quality(work)  # on all samples, rounded
        if quality >= wanted:
            break
        allowed *= 10 ** (-(wanted - quality + 0.01) / 10)
    return indices, quality


def pack(
    name: str, field: Field, domain: Domain, rows: Sequence[Row], facts: dict[str, Any]
) -> bytes:
    """Put quantised rows and what is needed to rebuild the field into a container."""
    shape = list(domain.shape)
    # null stands for "the domain's shape", the one long hyperparameter that grids share with it
    given = [None if v == shape else _unnamed(v) for v in field.hyperparameters.values()]
    header = [domain.kind, domain.header(), name, given, *([facts] if facts else [])]
    chunks = [(container.PARAMETERS, encode_rows(rows))]
    profile = getattr(domain, "icc", b"")
    if profile:
        chunks.append((container.COLOUR_PROFILE, zlib.compress(profile, 9)))
    return container.pack(container.Container(header, chunks))


def _unnamed(value: Any) -> Any:
    """A hyperparameter with parts' own ones, which are all there and in order, as plain lists."""
    if isinstance(value, dict):
        value = list(value.values())
    return [_unnamed(v) for v in value] if isinstance(value, list) else value


def split_rows(field: Field) -> list[np.ndarray]:
    """The stored tensors as flat rows, each to get a step and a model of its own."""
    rows: list[np.ndarray] = []
    for stored in field.stored_parameters():
        values = stored.tensor.detach().cpu().numpy()
        rows += [r.ravel() for r in values] if stored.per_row else [values.ravel()]
    return rows


def _search_points(field: Field, signal: Signal | None) -> Batch | Points:
    """Points of bounded number, and the values that the field is compared with there."""
    import torch

    from inr.signals.base import Batch

    limit = min(1 << 18, SEARCH_SCALARS // field.widest)
    if signal is not None:
        return signal.to("cpu").probe(limit)
    domain: Domain = field.domain
    share = min(1.0, (limit / math.prod(domain.shape)) ** (1 / len(domain.shape)))
    sizes = [max(1, round(n * share)) for n in domain.shape]
    like = next(field.parameters())
    axes = [
        torch.from_numpy(domain.cell_centres(i, 0, n, m)).to(like)
        for i, (n, m) in enumerate(zip(domain.shape, sizes, strict=True))
    ]
    with torch.no_grad():
        return Batch(axes, field.on_grid(axes).clamp(-1, 1))


def _verify(data: bytes, rows: Sequence[Row], expected: Field) -> None:
    """Decode what was written; a difference is a bug, and no file may come of it."""
    bodies = container.unpack(data).bodies(container.PARAMETERS)
    decoded = [row for body in bodies for row in decode_rows(body)]
    same = len(decoded) == len(rows) and all(
        a.step == b.step and np.array_equal(a.symbols, b.symbols)
        for a, b in zip(decoded, rows, strict=True)
    )
    rebuilt = dict(decode(data).named_parameters())
    if not same or any(not p.equal(rebuilt[n]) for n, p in expected.named_parameters()):
        raise FitError("the encoded file does not decode to what was encoded: please report this")
