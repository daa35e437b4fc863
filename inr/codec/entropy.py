"""Range coding of quantised parameters under integer frequency tables.

A parameter chunk holds rows of integers. Each row names its own model in a few bytes; from them
integer arithmetic alone builds a table of frequencies that sum to 2^24, and `constriction`'s range
coder works on that table. No probability is ever computed in floating point, so that every machine
decodes the same symbols.

Models, by their first byte:
    0  zeros       nothing is coded
    1  geometric   P(0) and a decay: three bytes, for rows of few symbols
    2  buckets     one byte for each magnitude class present, for rows of many
    3  verbatim    the row's float64 numbers as they are, where no step is fine enough
    4  wide        two parts of each symbol, for rows of large numbers under a fine step
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inr.codec.format import read_varint, varint
from inr.errors import CorruptFile
from inr.limits import Limits

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
CEILING = TOTAL - (1 << 16)
"""No symbol is more likely than this: each costs at least 1/178 bit, which bounds what a small
file can claim to hold."""

TABLE_MAGNITUDE = (1 << 15) - 1
"""Largest magnitude in one table of frequencies."""

LOW_BITS = 9
MAX_MAGNITUDE = TABLE_MAGNITUDE << LOW_BITS
"""Largest of all: float32 has it exactly."""

ZEROS, GEOMETRIC, BUCKETS, VERBATIM, WIDE = 0, 1, 2, 3, 4
UNCODED = (ZEROS, VERBATIM)


@dataclass(frozen=True)
class Row:
    """Integers that share a quantisation step and an entropy model, or numbers as they are.

    Args:
        step: Index into `inr.codec.quantize.step_size`, 0 to 255; of no meaning to numbers.
        symbols: int32, flat, magnitudes up to MAX_MAGNITUDE; or float64, the numbers themselves.
    """

    step: int
    symbols: np.ndarray


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Serialise rows: their count, each one's size, step and model, then the coder's words."""
    from constriction import stream

    side = bytearray(varint(len(rows)))
    coder = stream.queue.RangeEncoder()
    for row in rows:
        model = best_model(row.symbols)
        side += varint(len(row.symbols)) + bytes([row.step]) + model
        if model[0] in UNCODED:
            continue
        symbols, low = row.symbols.astype(np.int32), _low_bits(model)
        if low:
            symbols, parts = symbols >> low, symbols & ((1 << low) - 1)
        offset = np.int32(len(frequencies(model)) // 2)
        coder.encode(symbols + offset, _categorical(model))
        if low:
            coder.encode(parts, _uniform(low))
    words = coder.get_compressed().astype("<u4").tobytes()
    return bytes(side) + words


def decode_rows(body: bytes, limits: Limits = Limits()) -> list[Row]:  # noqa: B008
    """Inverse of `encode_rows`; the body's checksum must have been verified before.

    Raises:
        CorruptFile: the body is malformed.
        LimitExceeded: it claims more than `limits` allow.
    """
    count, at = read_varint(body, 0)
    limits.check("the number of parameter rows", count, limits.rows)
    plan: list[tuple[int, int, bytes]] = []
    total = 0
    for _ in range(count):
        size, at = read_varint(body, at)
        total = limits.check("the number of parameters", total + size, limits.symbols)
        model = _read_model(body, at + 1, size)
        plan.append((size, body[at], model))
        at += 1 + len(model)
    coded = sum(size for size, _, model in plan if model[0] not in UNCODED)
    if coded > limits.symbols_per_byte * (len(body) + 16):
        raise CorruptFile(f"claims {coded:,} parameters in {len(body):,} bytes")
    if (len(body) - at) % 4:
        raise CorruptFile("holds coded parameters that are not whole words")
    return _decode(plan, np.frombuffer(body, "<u4", offset=at).astype(np.uint32))


def _decode(plan: Sequence[tuple[int, int, bytes]], words: np.ndarray) -> list[Row]:
    from constriction import stream

    decoder = stream.queue.RangeDecoder(words)
    rows = []
    for size, step, model in plan:
        if model[0] == VERBATIM:
            numbers = np.frombuffer(model, "<f8", offset=1).astype(np.float64)
            if not np.isfinite(numbers).all():
                raise CorruptFile("holds parameters that are no finite numbers")
            rows.append(Row(step, numbers))
            continue
        if model[0] == ZEROS or not size:
            rows.append(Row(step, np.zeros(size, np.int32)))
            continue
        offset, low = np.int32(len(frequencies(model)) // 2), _low_bits(model)
        try:
            symbols = decoder.decode(_categorical(model), size) - offset
            if low:
                symbols = (symbols << low) + decoder.decode(_uniform(low), size)
        except AssertionError:  # what constriction raises on impossible data
            raise CorruptFile("holds parameters that cannot be decoded") from None
        rows.append(Row(step, symbols))
    return rows


# -------------------------------------------------------------------------------- models


@functools.lru_cache(maxsize=64)
def frequencies(model: bytes) -> np.ndarray:
    """Integer frequencies of -K..K under a model, each at least 1, their sum exactly 2^24.

    Those of a wide model are of its symbols' upper parts.

    Raises:
        CorruptFile: the model's bytes make no table.
    """
    model = model[2:] if model[0] == WIDE else model
    weights, sizes = _geometric(model) if model[0] == GEOMETRIC else _buckets(model)
    symbols = 2 * sum(sizes) - 1
    scale = 2 * sum(w * n for w, n in zip(weights, sizes, strict=True)) - weights[0]
    if scale == 0:
        raise CorruptFile("holds an empty entropy model")
    # Python's integers: products here exceed 64 bits
    shares = [1 + (TOTAL - symbols) * weight // scale for weight in weights]
    positive = np.repeat(np.array(shares, np.int64), sizes)
    table = np.concatenate([positive[:0:-1], positive])
    top = int(table.argmax())
    table[top] += TOTAL - table.sum()
    excess = int(table[top]) - CEILING
    if excess > 0:  # hand it to the next symbol, on the side of zero
        table[top] -= excess
        table[top + 1 if top <= symbols // 2 else top - 1] += excess
    table.flags.writeable = False
    return table


def best_model(symbols: np.ndarray) -> bytes:
    """The model, as bytes, that stores these symbols in the fewest bits, itself included."""
    if symbols.dtype == np.float64:
        return bytes([VERBATIM]) + symbols.astype("<f8").tobytes()
    magnitude = np.abs(symbols.astype(np.int64))
    largest = int(magnitude.max(initial=0))
    if largest == 0:
        return bytes([ZEROS])
    low = max(0, largest.bit_length() - TABLE_MAGNITUDE.bit_length())
    if low:  # upper parts are rounded down: the least of them may be one more in magnitude
        low += -(-largest >> low) > TABLE_MAGNITUDE
        upper = np.abs(symbols.astype(np.int64) >> low)
        return bytes([WIDE, low]) + _bucket_model(np.bincount(upper))
    counts = np.bincount(magnitude)
    candidates = [_bucket_model(counts)]
    if largest <= 255:
        candidates.append(_geometric_model(counts))
    return min(candidates, key=lambda model: 8 * len(model) + cost_bits(counts, model))


def cost_bits(counts: np.ndarray, model: bytes) -> float:
    """Ideal bits for symbols whose magnitudes occur `counts` times, under a model."""
    table = frequencies(model).astype(np.float64)
    half = len(table) // 2
    used = counts[: half + 1]
    return float(-(used * np.log2(table[half : half + len(used)] / TOTAL)).sum())


def _geometric_model(counts: np.ndarray) -> bytes:
    n, zeros = int(counts.sum()), int(counts[0])
    p_zero = min(255, max(0, round(256 * zeros / n - 0.5)))
    nonzero = max(1, n - zeros)
    mean = float((counts * np.arange(len(counts))).sum()) / nonzero  # at least 1
    decay = min(255, max(0, round(256 * (1 - 1 / mean))))
    return bytes([GEOMETRIC, p_zero, decay, len(counts) - 1])


def _geometric(model: bytes) -> tuple[list[int], list[int]]:
    """Weights of the magnitudes 0..K, one symbol each."""
    _, p_zero, decay, largest = model
    tail, weight = [], 1 << 40
    for _ in range(largest):
        tail.append(max(weight, 1))
        weight = weight * decay >> 8
    # P(0) = (2 p_zero + 1) / 512, so that neither side is ever empty
    zero = 2 * sum(tail) * (2 * p_zero + 1) // (511 - 2 * p_zero)
    return [zero, *tail], [1] * (1 + largest)


@functools.lru_cache(maxsize=1)
def bucket_edges() -> tuple[int, ...]:
    """First magnitude of each class: 0..7 singly, then four classes to the octave up to 2^15."""
    octaves = [range(1 << k, 2 << k, 1 << (k - 2)) for k in range(3, 15)]
    return (*range(8), *itertools.chain.from_iterable(octaves), TABLE_MAGNITUDE + 1)


def _bucket_model(counts: np.ndarray) -> bytes:
    edges = bucket_edges()
    used = next(i for i, edge in enumerate(edges) if edge >= len(counts))
    sums = [int(counts[edges[i] : edges[i + 1]].sum()) for i in range(used)]
    finest = max(sums)
    # eighths of an octave below the fullest class; 0 stands for an empty one
    levels = [max(1, 255 - round(8 * math.log2(finest / s))) if s else 0 for s in sums]
    return bytes([BUCKETS, used, *levels])


def _buckets(model: bytes) -> tuple[list[int], list[int]]:
    """Weights of one magnitude of each class, and how many magnitudes it has."""
    edges = bucket_edges()
    sizes = [edges[i + 1] - edges[i] for i in range(len(model) - 2)]
    shares = [_EIGHTHS[b % 8] << (b // 8) if b else 0 for b in model[2:]]
    # a magnitude other than 0 stands for two symbols
    return [2 * shares[0], *(s // n for s, n in zip(shares[1:], sizes[1:], strict=True))], sizes


_EIGHTHS = (1048576, 1143480, 1246974, 1359835, 1482910, 1617125, 1763488, 1923097)
"""2^(20 + j/8), rounded: written out, so that no power is computed where a file is decoded."""


def _read_model(body: bytes, at: int, size: int) -> bytes:
    kind = body[at] if at < len(body) else -1
    length = {ZEROS: 1, GEOMETRIC: 4, VERBATIM: 1 + 8 * size}.get(kind, 0)
    if kind == WIDE:
        low = body[at + 1] if at + 1 < len(body) else 0
        upper = _read_model(body, at + 2, size)
        if not 1 <= low <= LOW_BITS or upper[0] != BUCKETS:
            raise CorruptFile("holds a malformed entropy model of wide symbols")
        return body[at : at + 2] + upper
    if kind == BUCKETS and at + 1 < len(body):
        used = body[at + 1]
        if not 2 <= used <= len(bucket_edges()) - 1:
            raise CorruptFile(f"holds an entropy model of {used} classes")
        length = 2 + used
    if not length or at + length > len(body):
        raise CorruptFile("is cut short or malformed inside its entropy models")
    model = body[at : at + length]
    if kind == GEOMETRIC and model[3] == 0:
        raise CorruptFile("holds an empty entropy model")
    return model


def _low_bits(model: bytes) -> int:
    """Bits of the lower part of each symbol, coded after the upper parts of all the row."""
    return model[1] if model[0] == WIDE else 0


@functools.lru_cache(maxsize=LOW_BITS)
def _uniform(bits: int) -> Any:
    """All of 0..2^bits - 1 alike."""
    from constriction import stream

    weights = np.full(1 << bits, (TOTAL >> bits) - 1, np.float64)
    return stream.model.Categorical(weights, perfect=False)


@functools.lru_cache(maxsize=16)
def _categorical(model: bytes) -> Any:
    """A model of constriction with exactly the frequencies of ours.

    Its fast constructor gives every symbol one count and shares the rest in proportion to the
    weights. Weights f - 1 sum to just that rest, so every product and sum in it is a whole number
    below 2^24, exact in floating point: the table is used as it stands (tests compare with an
    independent decoder).
    """
    from constriction import stream

    return stream.model.Categorical(frequencies(model).astype(np.float64) - 1, perfect=False)
