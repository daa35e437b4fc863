"""Damage to files, for fuzzing: what storage, networks and strangers do to them."""

import random
import zlib
from collections.abc import Callable

from inr.codec import format as container

EXTREMES = [b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08"]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One random mutation: flips, a cut, a splice with another file, or extreme lengths."""
    kind = rng.randrange(6)
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
    else:
        body += rng.randbytes(rng.randrange(1, 20))
    return bytes(body)


def resealed(data: bytes, rng: random.Random) -> bytes:
    """A file whose checksums are right but whose contents lie: header or chunks are mutated."""
    parsed = container.unpack(data)
    import cbor2

    header = cbor2.dumps(parsed.header, canonical=True)
    chunks = list(parsed.chunks)
    if rng.random() < 0.4:
        header = mutate(header, header, rng)
    if rng.random() < 0.8 and chunks:
        i = rng.randrange(len(chunks))
        kind, body = chunks[i]
        # the models lie at the front: damage there reaches furthest
        cut = rng.randrange(1, max(2, min(len(body), 400)))
        chunks[i] = (kind, mutate(body[:cut], body, rng) + body[cut:])
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    if rng.random() < 0.1:
        chunks += [rng.choice(chunks)] * rng.randrange(1, 80)
    return seal(header, chunks)


def seal(header: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Container around any header bytes and chunks, checksums right."""
    out = container.SIGNATURE + bytes([container.VERSION]) + container.varint(len(header))
    out += zlib.crc32(header).to_bytes(4, "big") + header
    for kind, body in chunks:
        out += kind + container.varint(len(body)) + zlib.crc32(kind + body).to_bytes(4, "big")
        out += body
    out += container.END
    return out + container._digest(out)


def outcome(call: Callable[[bytes], object], data: bytes, allowed: type[Exception]) -> str:
    """'value' or the allowed error's name; any other exception passes through and fails."""
    try:
        call(data)
    except allowed as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"{error!r} is not one line") from error
        return type(error).__name__
    return "value"
