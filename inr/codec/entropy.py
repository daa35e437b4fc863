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
    5  interlaced  buckets that depend on neighbours, for features on a lattice (`interlace`)
  16+  family      a shape and a scale: two bytes, for most rows of a network (`family`)

Models from 5 on, and a last word that is cut short, came with version 1.1 of the format.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inr.codec import family, interlace
from inr.codec.family import EIGHTHS, TABLE_MAGNITUDE
from inr.codec.format import read_varint, varint
from inr.errors import CorruptFile
from inr.limits import Limits

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS
CEILING = TOTAL - (1 << 16)
"""No symbol is more likely than this: each costs at least 1/178 bit, which bounds what a small
file can claim to hold."""

LOW_BITS = 9
MAX_MAGNITUDE = TABLE_MAGNITUDE << LOW_BITS
"""Largest of all: float32 has it exactly."""

ZEROS, GEOMETRIC, BUCKETS, VERBATIM, WIDE, INTERLACED = 0, 1, 2, 3, 4, 5
UNCODED = (ZEROS, VERBATIM)

INTERLACED_BUCKETS = 36
"""Magnitudes of an interlaced row are below 1,024: this bounds what its many tables take."""

INTERLACED_SYMBOLS = 200
"""Rows of fewer symbols are not worth the bytes of that model."""


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
        if model[0] not in UNCODED:
            _encode(coder, row.symbols.astype(np.int32), model)
    return bytes(side) + _shortest(coder)


def _encode(coder: Any, symbols: np.ndarray, model: bytes) -> None:
    if model[0] == INTERLACED:
        width = read_varint(model, 1)[0]
        magnitudes = np.abs(symbols).reshape(-1, width)
        for places, table in _interlaced(model, magnitudes):
            coder.encode(symbols[places] + np.int32(len(table) // 2), _perfect(table))
        return
    low = _low_bits(model)
    upper = symbols >> low
    coder.encode(upper + np.int32(len(frequencies(model)) // 2), _categorical(model))
    if low:
        coder.encode(symbols & ((1 << low) - 1), _uniform(low))


def _shortest(coder: Any) -> bytes:
    """The coder's words, without what a decoder does not need of the last ones.

    Words beyond the end read as 0. Of the numbers in the coder's last interval, the one with the
    most zeros at its end is taken, and they are left out.
    """
    words = coder.get_compressed()
    count, (low, width) = coder.pos()
    point = sum(int(word) << 32 - 32 * i for i, word in enumerate(words[count:]))
    # an interval may reach over the end of 64 bits; what is before it already says on which side
    low, high = (low, low + width) if point >= low else (0, low + width - (1 << 64))
    high = min(high, 1 << 64)
    for zeros in range(64, -1, -8):
        point = -(-low >> zeros) << zeros
        if point < high:
            break
    digits = words[:count].astype(">u4").tobytes() + point.to_bytes(8, "big")
    digits = digits.rstrip(b"\0")
    whole = len(digits) // 4 * 4
    return np.frombuffer(digits[:whole], ">u4").astype("<u4").tobytes() + digits[whole:]


def minor_version(body: bytes) -> int:
    """The smallest minor version of the format whose readers know all that is in `body`."""
    plan, at = _read_plan(body, Limits())
    new = any(max(model[0], model[2] if model[0] == WIDE else 0) > WIDE for _, _, model in plan)
    return int(new or (len(body) - at) % 4 > 0)


def decode_rows(body: bytes, limits: Limits = Limits()) -> list[Row]:  # noqa: B008
    """Inverse of `encode_rows`; the body's checksum must have been verified before.

    Raises:
        CorruptFile: the body is malformed.
        LimitExceeded: it claims more than `limits` allow.
    """
    plan, at = _read_plan(body, limits)
    coded = sum(size for size, _, model in plan if model[0] not in UNCODED)
    if coded > limits.symbols_per_byte * (len(body) + 16):
        raise CorruptFile(f"claims {coded:,} parameters in {len(body):,} bytes")
    whole = at + (len(body) - at) // 4 * 4
    words = np.frombuffer(body[at:whole], "<u4").astype(np.uint32)
    if whole < len(body):
        words = np.append(words, np.uint32(int.from_bytes(body[whole:].ljust(4, b"\0"), "big")))
    return _decode(plan, words)


def claimed_sizes(body: bytes, limits: Limits = Limits()) -> list[int]:  # noqa: B008
    """How many symbols each row is said to have; none of them is decoded."""
    return [size for size, _, _ in _read_plan(body, limits)[0]]


def _read_plan(body: bytes, limits: Limits) -> tuple[list[tuple[int, int, bytes]], int]:
    """Size, step and model of each row, and where the coder's words begin."""
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
    return plan, at


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
            # one zero that is seen so often: no memory until it is known that the field has them
            rows.append(Row(step, np.broadcast_to(np.int32(0), size)))
            continue
        try:
            rows.append(Row(step, _decode_row(decoder, size, model)))
        except AssertionError:  # what constriction raises on impossible data
            raise CorruptFile("holds parameters that cannot be decoded") from None
    return rows


def _decode_row(decoder: Any, size: int, model: bytes) -> np.ndarray:
    if model[0] == INTERLACED:
        symbols = np.zeros(size, np.int32)
        magnitudes = np.zeros((size // (width := read_varint(model, 1)[0]), width), np.int32)
        for places, table in _interlaced(model, magnitudes):
            symbols[places] = decoder.decode(_perfect(table), len(places)) - len(table) // 2
            magnitudes.ravel()[places] = np.abs(symbols[places])
        return symbols
    low = _low_bits(model)
    symbols = decoder.decode(_categorical(model), size) - np.int32(len(frequencies(model)) // 2)
    return (symbols << low) + decoder.decode(_uniform(low), size) if low else symbols


def _interlaced(model: bytes, magnitudes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Flat indices of symbols that are coded together, in their order, and their table.

    Args:
        model: An interlaced one.
        magnitudes: Of the symbols on their lattice. Those of places that were yielded must be known
            when the next are asked for.
    """
    whole, changes = _read_interlaced(model)
    for part in interlace.passes(*magnitudes.shape):
        places = part.places(magnitudes.shape[1])
        if not part.distance:
            yield places, frequencies(whole)
            continue
        own = changes[0 if part.diagonal else 1]
        classes = part.classes(magnitudes, len(own))
        for kind in range(len(own)):
            if len(chosen := places[classes == kind]):
                levels = interlace.tilted(whole[2:], *own[kind])
                yield chosen, frequencies(bytes([*whole[:2], *levels]))


# -------------------------------------------------------------------------------- models


@functools.lru_cache(maxsize=64)
def frequencies(model: bytes) -> np.ndarray:
    """Integer frequencies of -K..K under a model, each at least 1, their sum exactly 2^24.

    Those of a wide model are of its symbols' upper parts.

    Raises:
        CorruptFile: the model's bytes make no table.
    """
    model = model[2:] if model[0] == WIDE else model
    if model[0] >= family.FIRST:
        shape, extent = family.shape_and_extent(model[0])
        w = family.weights(shape, extent, family.scale(model[1]))
        return _table(1 + (TOTAL - 2 * len(w) + 1) * w // int(2 * w.sum() - w[0]))
    weights, sizes = _geometric(model) if model[0] == GEOMETRIC else _buckets(model)
    symbols = 2 * sum(sizes) - 1
    scale = 2 * sum(w * n for w, n in zip(weights, sizes, strict=True)) - weights[0]
    if scale == 0:
        raise CorruptFile("holds an empty entropy model")
    # Python's integers: products here exceed 64 bits
    shares = [1 + (TOTAL - symbols) * weight // scale for weight in weights]
    return _table(np.repeat(np.array(shares, np.int64), sizes))


def _table(positive: np.ndarray) -> np.ndarray:
    """Frequencies of -K..K from those of 0..K, which fall short of their sum by little."""
    symbols = 2 * len(positive) - 1
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
        counts = np.bincount(np.abs(symbols.astype(np.int64) >> low))
        models = (_bucket_model(counts), family.best(counts))
        best = min(models, key=lambda model: 8 * len(model) + cost_bits(counts, model))
        return bytes([WIDE, low]) + best
    counts = np.bincount(magnitude)
    candidates = [_bucket_model(counts), family.best(counts)]
    if largest <= 255:
        candidates.append(_geometric_model(counts))
    costs = [8 * len(model) + cost_bits(counts, model) for model in candidates]
    cheapest = int(np.argmin(costs))
    other = _interlaced_model(symbols, candidates[0])
    if other is not None and 8 * len(other) + interlaced_bits(symbols, other) < costs[cheapest]:
        return other
    return candidates[cheapest]


def cost_bits(counts: np.ndarray, model: bytes) -> float:
    """Ideal bits for symbols whose magnitudes occur `counts` times, under a model."""
    table = frequencies(model).astype(np.float64)
    half = len(table) // 2
    used = counts[: half + 1]
    return float(-(used * np.log2(table[half : half + len(used)] / TOTAL)).sum())


def interlaced_bits(symbols: np.ndarray, model: bytes) -> float:
    """Ideal bits for symbols under an interlaced model."""
    magnitudes = np.abs(symbols).reshape(-1, read_varint(model, 1)[0])
    bits = 0.0
    for places, table in _interlaced(model, magnitudes):
        half = len(table) // 2
        counts = np.bincount(magnitudes.ravel()[places])
        bits -= float((counts * np.log2(table[half : half + len(counts)] / TOTAL)).sum())
    return bits


def _interlaced_model(symbols: np.ndarray, buckets: bytes) -> bytes | None:
    """The model with neighbours, where the symbols lie on lines and are not too large."""
    if len(symbols) < INTERLACED_SYMBOLS or buckets[1] > INTERLACED_BUCKETS:
        return None
    width = interlace.period(symbols)
    if width is None:
        return None
    changes = interlace.fit(symbols, width, buckets[2:], bucket_edges()[: buckets[1] + 1])
    model = bytes([INTERLACED]) + varint(width) + bytes(map(len, changes)) + buckets
    return model + bytes(itertools.chain.from_iterable(itertools.chain.from_iterable(changes)))


def _read_interlaced(model: bytes) -> tuple[bytes, list[list[tuple[int, int]]]]:
    """The buckets of the whole row, and what each class of neighbours changes in them."""
    _, at = read_varint(model, 1)
    sizes = model[at : at + 2]
    whole = model[at + 2 : at + 4 + model[at + 3]]
    changes = model[at + 2 + len(whole) :]
    pairs = list(zip(changes[::2], changes[1::2], strict=True))
    return whole, [pairs[: sizes[0]], pairs[sizes[0] :]]


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
    shares = [EIGHTHS[b % 8] << (b // 8) if b else 0 for b in model[2:]]
    # a magnitude other than 0 stands for two symbols
    return [2 * shares[0], *(s // n for s, n in zip(shares[1:], sizes[1:], strict=True))], sizes


def _read_model(body: bytes, at: int, size: int) -> bytes:
    kind = body[at] if at < len(body) else -1
    length = {ZEROS: 1, GEOMETRIC: 4, VERBATIM: 1 + 8 * size}.get(kind, 0)
    if kind == WIDE:
        low, inner = (*body[at + 1 : at + 3], 0, 0)[:2]
        # checked before it is read: models in each other have no end
        if not 1 <= low <= LOW_BITS or (inner != BUCKETS and inner < family.FIRST):
            raise CorruptFile("holds a malformed entropy model of wide symbols")
        return body[at : at + 2] + _read_model(body, at + 2, size)
    if kind == INTERLACED:
        return _read_interlaced_model(body, at, size)
    if kind >= family.FIRST:
        length = 2
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


def _read_interlaced_model(body: bytes, at: int, size: int) -> bytes:
    width, sizes = read_varint(body, at + 1)
    classes, inner = body[sizes : sizes + 2], body[sizes + 2 : sizes + 4]
    end = sizes + 4 + sum(inner[1:]) + 2 * sum(classes)
    if (
        not size
        or not width
        or size % width
        or not all(1 <= count <= interlace.MOST_CLASSES for count in classes)
        or inner[:1] != bytes([BUCKETS])
        or not 2 <= sum(inner[1:]) <= INTERLACED_BUCKETS
        or end > len(body)
    ):
        raise CorruptFile("holds a malformed entropy model of interlaced symbols")
    return body[at:end]


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
    return _perfect(frequencies(model))


def _perfect(table: np.ndarray) -> Any:
    """A model of constriction with exactly the frequencies of ours.

    Its fast constructor gives every symbol one count and shares the rest in proportion to the
    weights. Weights f - 1 sum to just that rest, so every product and sum in it is a whole number
    below 2^24, exact in floating point: the table is used as it stands (tests compare with an
    independent decoder).
    """
    from constriction import stream

    return stream.model.Categorical(table.astype(np.float64) - 1, perfect=False)
