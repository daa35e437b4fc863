"""Damage to files, for fuzzing: what storage, networks and strangers do to them."""

import functools
import hashlib
import math
import random
import zlib
from collections.abc import Callable
from typing import Any

import cbor2

from inr.codec import format as container

EXTREMES = [b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08"]

LIES: list[Any] = [
    None, True, False, 0, 1, -1, 7, 62, 63, 255, 4096, 8192, 65535, 1 << 20, 1 << 27, (1 << 31) - 1,
    1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.0, -0.0, 0.5, 30.0, -1.0, 1e-300,
    1e300, math.inf, -math.inf, math.nan, "", "siren", "grid", "doh", "finr", "windows",
    "multistage", "image", "array", "../x", "\x1b[2J", "x" * 300, [], {}, [0], [[]], [1, 2],
    [8] * 50, {"q": 1},
]  # fmt: skip
"""What stands in a header where something else belongs."""


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One random mutation of a container, its checksums as they were: never a valid file.

    Bits flip, bytes are cut, appended, replaced or spliced with another file's, numbers and lengths
    take extreme values, whole chunks are swapped, doubled or lost.
    """
    kind = rng.randrange(9)
    body = bytearray(data)
    if kind == 0:
        for _ in range(rng.randrange(1, 9)):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del body[rng.randrange(len(body)) :]
    elif kind == 2:
        body[rng.randrange(len(body)) :] = other[rng.randrange(len(other)) :]
    elif kind == 3:
        at = rng.randrange(len(body))
        extreme = rng.choice(EXTREMES)
        body[at : at + len(extreme)] = extreme
    elif kind == 4:
        start, size = rng.randrange(len(body)), rng.randrange(1, 40)
        body[start : start + size] = rng.randbytes(rng.randrange(40))
    elif kind == 5:
        body += rng.randbytes(rng.randrange(1, 20))
    elif kind == 6:  # a length
        at = rng.choice(_spans(data))[0] + 1
        body[at : container.read_varint(data, at)[1]] = rng.choice(EXTREMES)
    elif kind == 7:  # a chunk or the header, doubled or lost
        start, stop = rng.choice(_spans(data))
        body[start:stop] = data[start:stop] * rng.choice((0, 2, 70))
    else:  # two of them in each other's place, or one of another file
        start, stop = rng.choice(_spans(data))
        first, last = rng.choice(_spans(other))
        body[start:stop] = other[first:last]
    return bytes(body)


@functools.lru_cache(maxsize=256)
def _spans(data: bytes) -> list[tuple[int, int]]:
    """Where header and chunks of a valid file lie: from before the length to behind the body."""
    spans, at = [], 4  # behind the signature is the version, a byte like a chunk's type
    while data[at : at + 1] != container.END or not spans:
        size, after = container.read_varint(data, at + 1)
        spans.append((at, after + 4 + size))
        at = after + 4 + size
    return spans


def resealed(data: bytes, rng: random.Random) -> bytes:
    """A file whose checksums are right but whose contents lie: header or chunks are mutated."""
    parsed = container.unpack(data)
    items = parsed.header
    if rng.random() < 0.3:
        items = lied(items, rng)
    header = cbor2.dumps(items, canonical=True)
    chunks = list(parsed.chunks)
    if rng.random() < 0.2:
        header = damaged(header, header, rng)
    if rng.random() < 0.6 and chunks:
        i = rng.randrange(len(chunks))
        kind, body = chunks[i]
        # the models lie at the front: damage there reaches furthest
        cut = rng.randrange(1, max(2, min(len(body), 400)))
        chunks[i] = (kind, damaged(body[:cut], body, rng) + body[cut:])
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    if rng.random() < 0.1:
        del chunks[rng.randrange(len(chunks))]
    if rng.random() < 0.1 and chunks:
        chunks += [rng.choice(chunks)] * rng.randrange(1, 80)
    return seal(header, chunks, rng.choice((1, 1, 1, 1, 17, rng.randrange(256))))


def damaged(part: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bytes of no container, mutated: flips, cuts, splices, extremes."""
    body = bytearray(part or b"\0")
    at = rng.randrange(len(body))
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randrange(1, 9)):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        body[at:] = other[rng.randrange(len(other)) :] if other else b""
    elif kind == 2:
        extreme = rng.choice(EXTREMES)
        body[at : at + len(extreme)] = extreme
    else:
        body[at : at + rng.randrange(1, 40)] = rng.randbytes(rng.randrange(40))
    return bytes(body)


def lied(value: Any, rng: random.Random) -> Any:
    """A copy of nested lists in which one item, at any depth, is another."""
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = rng.randrange(len(value))
        if rng.random() < 0.1:
            return [*value[:i], *value[i + rng.choice((0, 1)) :], rng.choice(LIES)]
        return [*value[:i], lied(value[i], rng), *value[i + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, value, 10 * value, 1000))
    return rng.choice(LIES)


def seal(header: bytes, chunks: list[tuple[bytes, bytes]], version: int = 1) -> bytes:
    """Container around any header bytes and chunks, checksums right."""
    out = container.SIGNATURE + bytes([version]) + container.varint(len(header))
    out += zlib.crc32(header).to_bytes(4, "big") + header
    for kind, body in chunks:
        out += kind + container.varint(len(body)) + zlib.crc32(kind + body).to_bytes(4, "big")
        out += body
    out += container.END
    return out + digest(out)


def digest(data: bytes) -> bytes:
    """What stands behind the end marker, over all before it."""
    return hashlib.blake2b(data, digest_size=container.DIGEST_BYTES).digest()


def outcome(call: Callable[[bytes], object], data: bytes, allowed: type[Exception]) -> str:
    """'value' or the allowed error's name; any other exception passes through and fails."""
    try:
        call(data)
    except allowed as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"{error!r} is not one line") from error
        return type(error).__name__
    return "value"
