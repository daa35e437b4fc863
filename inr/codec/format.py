"""The `.inr` container: signature, header, chunks, digest. `docs/FORMAT.md` is its law.

    signature | header length, CRC-32, header | chunk ... chunk | end marker, digest
                                                type, length, CRC-32, body

Pure bytes in and out: no torch, no numpy, nothing imported by what a file says.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any

from inr.errors import CorruptFile, UnsupportedFile
from inr.limits import Limits

SIGNATURE = b"\x89INR"
VERSION = 1
END = b"Z"
DIGEST_BYTES = 8

PARAMETERS = b"P"
COLOUR_PROFILE = b"c"
KNOWN = {PARAMETERS, COLOUR_PROFILE}


@dataclass(frozen=True)
class Container:
    """A parsed file.

    Args:
        header: What the canonical CBOR header holds: a list.
        chunks: (type, body) in file order. An upper-case type is critical, a lower-case one may
            be skipped by a reader that does not know it.
    """

    header: list[Any]
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)

    def bodies(self, kind: bytes) -> list[bytes]:
        """Bodies of all chunks of one type, in order."""
        return [body for chunk, body in self.chunks if chunk == kind]


def pack(container: Container) -> bytes:
    """Serialise; `unpack` of the result gives an equal container."""
    import cbor2

    header = cbor2.dumps(container.header, canonical=True)
    out = bytearray(SIGNATURE + bytes([VERSION]))
    out += varint(len(header)) + _crc(header) + header
    for kind, body in container.chunks:
        out += kind + varint(len(body)) + _crc(kind + body) + body
    out += END
    return bytes(out) + _digest(out)


def unpack(data: bytes, limits: Limits = Limits()) -> Container:  # noqa: B008
    """Parse and check a whole file.

    Raises:
        CorruptFile: any bit differs from what was written, or the file is cut or extended.
        UnsupportedFile: a newer version, or a critical chunk that this build does not know.
        LimitExceeded: the file asks for more than `limits` allow.
    """
    limits.check("the file's size", len(data), limits.file_bytes)
    if data[:4] != SIGNATURE:
        raise CorruptFile("is not an .inr file")
    if len(data) < 5:
        raise CorruptFile("is cut short inside the signature")
    if data[4] != VERSION:
        raise UnsupportedFile(f"is of format version {data[4]}: this build reads {VERSION}")
    size, at = read_varint(data, 5)
    limits.check("the header's size", size, min(limits.header_bytes, 1 << 16))
    raw, at = _checked(data, at, size, b"", "header")
    header = _header(raw)

    chunks: list[tuple[bytes, bytes]] = []
    while (kind := data[at : at + 1]) != END:
        if not kind:
            raise CorruptFile("is cut short before its end")
        if not kind.isalpha():
            raise CorruptFile(f"has no chunk at byte {at}")
        limits.check("the number of chunks", len(chunks) + 1, limits.chunks)
        size, at = read_varint(data, at + 1)
        body, at = _checked(data, at, size, kind, f"chunk {kind.decode()}")
        if kind not in KNOWN and kind.isupper():
            raise UnsupportedFile(f"needs a newer version: chunk {kind.decode()} is unknown")
        chunks.append((kind, body))
    digest = data[at + 1 :]
    if len(digest) != DIGEST_BYTES:
        raise CorruptFile("is cut short or has bytes behind its end")
    if digest != _digest(data[: at + 1]):
        raise CorruptFile("does not match its digest")
    return Container(header, chunks)


def overhead(data: bytes) -> int:
    """Bytes of a valid file that are not bodies of parameter chunks."""
    return len(data) - sum(len(body) for body in unpack(data).bodies(PARAMETERS))


def varint(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, least significant first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 of at most five bytes; returns (value, next position)."""
    value = 0
    for i in range(5):
        if at + i >= len(data):
            raise CorruptFile("is cut short inside a length")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if byte == 0 and i:
                raise CorruptFile("holds a length that is not in its shortest form")
            return value, at + i + 1
    raise CorruptFile("holds a length of more than five bytes")


def _checked(data: bytes, at: int, size: int, prefix: bytes, what: str) -> tuple[bytes, int]:
    """Body of `size` bytes behind its CRC-32, checked against what is really there."""
    body = data[at + 4 : at + 4 + size]
    if size > len(data) - at - 4 or len(body) != size:
        raise CorruptFile(f"is cut short inside its {what}")
    if data[at : at + 4] != _crc(prefix + body):
        raise CorruptFile(f"is damaged: the checksum of its {what} does not match")
    return body, at + 4 + size


def _header(raw: bytes) -> list[Any]:
    """Decode canonical CBOR without tags, indefinite lengths, deep nesting or spare bytes."""
    import cbor2

    try:
        header = cbor2.loads(
            raw,
            tag_hook=_refuse,
            semantic_decoders=dict.fromkeys(_TAGS, _refuse),
            max_depth=8,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        canonical = cbor2.dumps(header, canonical=True)
    except Exception:  # cbor2 raises its own errors and, on odd input, OverflowError and others
        raise CorruptFile("has a header that is no plain CBOR") from None
    if canonical != raw or not isinstance(header, list) or len(header) < 4:
        raise CorruptFile("has a header that is not canonical")
    return header


_TAGS = [*range(64), 100, 258, 260, 261, 1004, 43000, 55799]
"""CBOR tags that a library may give a meaning to; a header has none."""


def _refuse(*_: Any) -> Any:
    raise ValueError("tags are not allowed")


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
