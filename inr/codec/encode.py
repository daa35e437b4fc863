"""Field -> bytes of an `.inr` file.

stored tensors -> rows -> steps (quantize) -> range coder (entropy) -> container (format) -> bytes,
which are decoded again and compared before anyone sees them.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fields import registry
from inr.backend import computed
from inr.codec import format as container
from inr.codec import layers
from inr.codec import metadata as texts
from inr.codec.decode import decode, join_rows
from inr.codec.entropy import Row, decode_rows, encode_rows, minor_version
from inr.codec.quantize import (
    Distortion,
    choose_steps,
    dequantize,
    step_index,
    step_shares,
)
from inr.codec.rounding import EFFORTS, Rounding, coarser, nearest, spend
from inr.errors import FitError, TargetNotReached, UsageError
from inr.metrics import largest

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


@computed
def encode(  # noqa: PLR0913 (bounds of which each call has one)
    field: Field,
    signal: Signal | None = None,
    *,
    max_loss_db: float = MAX_LOSS_DB,
    target_psnr: float | None = None,
    max_bytes: int | None = None,
    least: tuple[str, float] | None = None,
    rounding: Sequence[int] | None = None,
    metadata: Mapping[str, str] | None = None,
    effort: int = 4,
) -> bytes:
    """Compress a field that has a domain into the bytes of a file.

    Args:
        field: The field; it stays as it is. If it is `layered`, so is the file.
        signal: What it was fitted to. Without it, and where it is not the signal itself (see
            `Signal.complete`), the quantised field is held to 60 dB of the unquantised one.
        max_loss_db: PSNR that quantisation may cost.
        target_psnr: A quality that suffices: a field above it may be quantised down to it.
        max_bytes: Size that the file must not exceed; its steps are then as fine as that allows,
            and the three other bounds are without effect.
        least: Name of a measure of `signal.metrics`, larger is better, and the value that the
            decoded file must have: the coarsest steps that keep it, in place of `max_loss_db`.
        rounding: Index of each stored row's quantisation step, where the fit has settled them
            (`Fit.rounding`); the bounds above are then without effect.
        metadata: Texts that the file is to carry, by their names (see `inr.codec.metadata`).
        effort: 1 (rounding to the nearest step only) to 9: how much time the choice of symbols may
            take (see `inr.codec.rounding`). More of it makes smaller files.

    Raises:
        FitError: the field holds NaN or infinite parameters.
        TargetNotReached: no file of at most `max_bytes` holds this field, or no steps keep `least`.
        UsageError: the field has no domain, its class is not registered, `rounding` belongs to
            another field, or there is no such effort.
    """
    import torch

    domain: Domain | None = field.domain
    if domain is None:
        raise UsageError("this field has no domain: fit it to a signal first")
    if signal is not None and not signal.complete:
        signal = None
    if effort not in EFFORTS:
        raise UsageError(f"effort is {effort}: give 1 to 9")
    name = registry.name_of(field)
    stored = field.stored_parameters()
    if not all(bool(torch.isfinite(s.tensor).all()) for s in stored):
        raise FitError("the field holds NaN or infinite parameters: nothing is written")
    rows = split_rows(field)
    if rounding is not None and len(rounding) != len(rows):
        raise UsageError(f"rounding has {len(rounding)} steps: this field has {len(rows)} rows")
    work = copy.deepcopy(field).cpu()

    ends = layers.boundaries(field)

    def size(quantised: Sequence[Row]) -> int:
        stated = layers.facts([layers.EXACT] * (len(ends) - 1)) | {"q": layers.EXACT}
        return len(pack(name, field, domain, quantised, stated, metadata, ends))

    if rounding is not None:
        quantised = nearest(rows, rounding)
    elif max_bytes is not None:
        quantised = _within(_rounding(work, rows, signal), max_bytes, size, effort)
    elif least is not None and signal is not None:
        quantised = _keeping(work, rows, signal, least, effort)
    elif signal is None:
        quantised = _unseen(work, rows, effort)
    else:
        wanted = signal.quality(field) - max_loss_db
        if target_psnr is not None:
            wanted = min(wanted, target_psnr) if wanted + max_loss_db >= target_psnr else wanted
        quantised = _search(work, rows, signal, wanted, effort)
    work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
    facts: dict[str, Any] = {}
    if signal is not None:
        quality = signal.quality(work)
        settled = rounding is not None or max_bytes is not None or least is not None
        if not settled and quality < wanted and signal.domain.precision == "float64":
            # beyond the reach of any step
            quantised = [Row(0, row.astype(np.float64)) for row in rows]
            work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
            quality = signal.quality(work)
        facts["q"] = layers.stated(quality)
    ends, stated = layers.divide(work, quantised, signal)
    facts |= layers.facts(stated)
    data = pack(name, field, domain, quantised, facts, metadata, ends)
    _verify(data, quantised, work.to(getattr(torch, field.domain.precision)))
    return data


def distortion_of(work: Field, signal: Signal | None) -> Distortion:
    """Mean squared error when a field's rows take given values, on points of bounded number.

    Args:
        work: The field; each call leaves other parameters in it.
        signal: What it is compared with; without it, with the field as it is now.
    """
    return _distortion(work, _search_points(work, signal))


def _distortion(work: Field, batch: Batch | Points) -> Distortion:
    import torch

    def distortion(values: Sequence[np.ndarray]) -> float:
        work.load_stored(join_rows(work, values))
        with torch.no_grad():
            error = batch.evaluate(work).clamp(-1, 1) - batch.values
        return float(error.double().square().mean())

    return distortion


def _rounding(work: Field, rows: Sequence[np.ndarray], signal: Signal | None) -> Rounding:
    """What rounding does to the signal, or to the field itself; its shares are measured."""
    batch = _search_points(work, signal)
    shares = step_shares(rows, _distortion(work, batch))
    whole = batch.count >= math.prod(work.domain.shape) * work.out_features
    return Rounding(work, batch, rows, shares, whole)


def _search(
    work: Field, rows: Sequence[np.ndarray], signal: Signal, wanted: float, effort: int
) -> list[Row]:
    """The coarsest rows with which all samples have the PSNR `wanted`; if none have, fine ones."""
    rounding = _rounding(work, rows, signal)
    distortion = _distortion(work, rounding.batch)
    # what is finer than a tenth of the signal's own grain nobody sees
    allowed = max(4 * 10 ** (-wanted / 10), (0.1 * signal.domain.grain) ** 2 / 12)

    def accept(quantised: Sequence[Row]) -> bool:
        work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
        return signal.quality(work) >= wanted  # on all samples, rounded

    for _ in range(ATTEMPTS):
        found = nearest(rows, choose_steps(rows, rounding.shares, distortion, allowed))
        if accept(found):
            return coarser(rounding, found, accept, effort, 0.998 * allowed)
        allowed *= 10 ** (-(wanted - signal.quality(work) + 0.01) / 10)
    return found


def _unseen(work: Field, rows: Sequence[np.ndarray], effort: int) -> list[Row]:
    """The coarsest rows that keep a field near what it is now."""
    rounding = _rounding(work, rows, None)
    distortion = _distortion(work, rounding.batch)
    allowed = 4 * 10 ** (-UNSEEN_PSNR / 10)

    def accept(quantised: Sequence[Row]) -> bool:
        return distortion([dequantize(row) for row in quantised]) <= allowed

    found = nearest(rows, choose_steps(rows, rounding.shares, distortion, allowed))
    return coarser(rounding, found, accept, effort, 0.998 * allowed) if accept(found) else found


def _keeping(
    work: Field,
    rows: Sequence[np.ndarray],
    signal: Signal,
    least: tuple[str, float],
    effort: int,
) -> list[Row]:
    """The coarsest rows with which all samples have at least a value of a measure."""
    rounding = _rounding(work, rows, signal)
    measure, value = least

    def at(factor: float) -> list[Row]:
        return nearest(rows, [step_index(factor * share) for share in rounding.shares])

    def accept(quantised: Sequence[Row]) -> bool:
        work.load_stored(join_rows(work, [dequantize(row) for row in quantised]))
        return signal.metric(measure, work) >= value

    found = at(largest(lambda factor: accept(at(factor)), 1e-6, 1e2, 20))
    if not accept(found):
        raise TargetNotReached(f"the field itself has no {measure} of {value:g}: fit it further")
    allowed = _distortion(work, rounding.batch)([dequantize(row) for row in found])
    return coarser(rounding, found, accept, effort, allowed)


def _within(
    rounding: Rounding, max_bytes: int, size: Callable[[Sequence[Row]], int], effort: int
) -> list[Row]:
    """The finest rows of a file of at most `max_bytes`, rounded by what that does."""
    found = spend(rounding, max_bytes, size, effort)
    if (least := size(found)) > max_bytes:
        raise TargetNotReached(
            f"the smallest file of this field has {least:,} bytes, not {max_bytes:,}: "
            "take a smaller field"
        )
    return found


def pack(
    name: str,
    field: Field,
    domain: Domain,
    rows: Sequence[Row],
    facts: dict[str, Any],
    metadata: Mapping[str, str] | None = None,
    ends: Sequence[int] | None = None,
) -> bytes:
    """Put quantised rows and what is needed to rebuild the field into a container."""
    profile, exif = getattr(domain, "icc", b""), getattr(domain, "exif", b"")
    chunks = []  # what is needed to show the first layer comes before it
    if profile:
        chunks.append((container.COLOUR_PROFILE, zlib.compress(profile, 9)))
    if metadata:
        chunks.append((container.METADATA, texts.pack(metadata)))
    for start, end in itertools.pairwise([0, *(ends or [len(rows)])]):
        chunks.append((container.PARAMETERS, encode_rows(rows[start:end])))
    if exif:
        chunks.append((container.EXIF, zlib.compress(exif, 9)))
    minor = max(minor_version(body) for kind, body in chunks if kind == container.PARAMETERS)
    given, shorter = _compact(type(field), field.hyperparameters)
    shape = list(domain.shape)
    # null stands for "the domain's shape", the one long hyperparameter that grids share with it
    given = [None if value == shape else value for value in given]
    header = [domain.kind, domain.header(), name, given, *([facts] if facts else [])]
    return container.pack(container.Container(header, chunks, max(minor, int(shorter))))


def _compact(cls: type[Field], hyperparameters: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Hyperparameters as a file has them, parts' own ones as lists within.

    The last ones are left out as long as they concern training alone and have their defaults.

    Returns:
        The values, and whether any is left out.
    """
    from fields.base import one_each

    kept = dict(hyperparameters)
    defaults = inspect.signature(cls).parameters
    while kept and (last := next(reversed(kept))) in cls.training_only:
        if kept[last] != defaults[last].default:
            break
        del kept[last]
    shorter = len(kept) < len(hyperparameters)
    for key, options in kept.items():
        if key.endswith("_options"):
            names = kept[key.removesuffix("_options")]
            each = options if isinstance(options, list) else [options]
            parts = [
                _compact(registry.field_class(part), own)
                for part, own in zip(one_each(key, names, len(each)), each, strict=True)
            ]
            values = [part for part, _ in parts]
            kept[key] = values if isinstance(options, list) else values[0]
            shorter = shorter or any(left_out for _, left_out in parts)
    return list(kept.values()), shorter


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
