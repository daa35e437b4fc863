"""The `.inr` container: signature, header, chunks, digest. `docs/FORMAT.md` is its law.

    signature, version | header length, CRC-32, header | chunk ... chunk | end marker, digest
                                                         type, length, CRC-32, body

Pure bytes in and out: no torch, no numpy, nothing imported by what a file says.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inr.errors import CorruptFile, UnsupportedFile
from inr.limits import Limits

SIGNATURE = b"\x89INR"
VERSION = 1
"""Major version: files of another one are another format."""

MINOR = 1
"""The latest minor version that this build knows; it reads all earlier ones."""

END = b"Z"
DIGEST_BYTES = 8
HEADER_BYTES = 1 << 16
NESTING = 8
"""The format's own bounds on a header: its size, and lists within lists."""

PARAMETERS = b"P"
COLOUR_PROFILE = b"c"
METADATA = b"m"
EXIF = b"e"
KNOWN = {PARAMETERS: 0, COLOUR_PROFILE: 0, METADATA: 1, EXIF: 1}
"""Types of chunks, each with the minor version that brought it."""

FACTS = {"q": 0, "l": 1}
"""Names of facts in the header, likewise; what is not here came with the latest."""

NEW_FIELDS: dict[str, int] = {"progressive": 1}
"""Likewise the fields that 1.0 did not have."""


@dataclass(frozen=True)
class Container:
    """A parsed file.

    Args:
        header: What the canonical CBOR header holds: a list.
        chunks: (type, body) in file order. An upper-case type is critical, a lower-case one may
            be skipped by a reader that does not know it.
        minor: Minor version. What header and chunks show to be newer raises it when the file is
            written; who puts something else that is new into a body says so here.
        cut: Whether these are the first chunks of a file only, the others cut off or damaged.
    """

    header: list[Any]
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    minor: int = 0
    cut: bool = False

    @property
    def version(self) -> str:
        """Such as "1.0"."""
        return f"{VERSION}.{self.minor}"

    def bodies(self, kind: bytes) -> list[bytes]:
        """Bodies of all chunks of one type, in order."""
        return [body for chunk, body in self.chunks if chunk == kind]


def pack(container: Container) -> bytes:
    """Serialise, under the smallest minor version that knows all that is in it."""
    import cbor2

    header = cbor2.dumps(container.header, canonical=True)
    minor = max(container.minor, _needed(container))
    out = bytearray(SIGNATURE + bytes([VERSION | minor << 4]))
    out += varint(len(header)) + _crc(header) + header
    for kind, body in container.chunks:
        out += kind + varint(len(body)) + _crc(kind + body) + body
    out += END
    return bytes(out) + _digest(out)


def unpack(
    data: bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    partial: bool = False,
) -> Container:
    """Parse and check a whole file.

    Args:
        data: Its bytes.
        limits: What it may ask for.
        partial: Whether a file that is cut short, or damaged behind its header, is taken as far as
            its chunks are intact one after the other.

    Raises:
        CorruptFile: any bit differs from what was written, or the file is cut or extended.
        UnsupportedFile: a later major version, or a critical chunk that this build does not know.
        LimitExceeded: the file asks for more than `limits` allow.
    """
    limits.check("the file's size", len(data), limits.file_bytes)
    if data[:4] != SIGNATURE:
        raise CorruptFile("is not an .inr file")
    if len(data) < 5:
        raise CorruptFile("is cut short inside the signature")
    minor = read_version(data[4])
    size, at = read_varint(data, 5)
    limits.check("the header's size", size, min(limits.header_bytes, HEADER_BYTES))
    raw, at = _checked(data, at, size, b"", "header")
    header = _header(raw, limits)

    chunks: list[tuple[bytes, bytes]] = []
    cut = False
    try:
        for chunk in _chunks(data, at, limits):
            chunks.append(chunk)
    except CorruptFile:
        if not partial:
            raise
        cut = True
    # a file that is damaged is to be called so before anything else
    check_critical(chunks, minor)
    if len(header) > 5 and minor <= MINOR:
        raise CorruptFile("has a header that is too long")
    return Container(header, chunks, minor, cut)


def _chunks(data: bytes, at: int, limits: Limits) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each chunk, checked one by one, and in the end the digest."""
    count = 0
    while (kind := data[at : at + 1]) != END:
        if not kind:
            raise CorruptFile("is cut short before its end")
        if not kind.isalpha():
            raise CorruptFile(f"has no chunk at byte {at}")
        count = limits.check("the number of chunks", count + 1, limits.chunks)
        size, at = read_varint(data, at + 1)
        body, at = _checked(data, at, size, kind, f"chunk {kind.decode()}")
        yield kind, body
    digest = data[at + 1 :]
    if len(digest) != DIGEST_BYTES:
        raise CorruptFile("is cut short or has bytes behind its end")
    if digest != _digest(data[: at + 1]):
        raise CorruptFile("does not match its digest")


def read_version(byte: int) -> int:
    """The minor version in the byte behind the signature.

    Raises:
        CorruptFile: there never was such a major version.
        UnsupportedFile: it is a later one.
    """
    major, minor = byte & 0xF, byte >> 4
    if major < VERSION:
        raise CorruptFile(f"claims format {major}.{minor}, which never was")
    if major > VERSION:
        raise UnsupportedFile(f"needs format {major}.{minor}: {_READS}")
    return minor


def check_critical(chunks: list[tuple[bytes, bytes]], minor: int) -> None:
    """Refuse a file of which a critical chunk is unknown.

    Raises:
        UnsupportedFile: the message names the version that the file says it needs.
    """
    for kind, _ in chunks:
        if kind.isupper() and kind not in KNOWN:
            needed = f"format {VERSION}.{minor}" if minor > MINOR else "a newer format"
            raise UnsupportedFile(f"needs {needed}: {_READS}; chunk {kind.decode()} is unknown")


@contextlib.contextmanager
def read_as(minor: int) -> Iterator[None]:
    """Within it, what is wrong with a whole file of a later minor version is called unsupported.

    Raises:
        UnsupportedFile: in place of a CorruptFile or an UnsupportedFile, naming the version.
    """
    try:
        yield
    except (CorruptFile, UnsupportedFile) as error:
        if minor <= MINOR or _READS in str(error):
            raise
        raise UnsupportedFile(f"needs format {VERSION}.{minor}: {_READS} ({error})") from None


def overhead(data: bytes) -> int:
    """Bytes of a valid file that are not bodies of parameter chunks."""
    return len(data) - sum(len(body) for body in unpack(data).bodies(PARAMETERS))


def ends(container: Container, size: int) -> list[int]:
    """How many bytes of a whole file of `size` bytes reach to the end of each parameter chunk."""
    at = size - len(END) - DIGEST_BYTES
    found = []
    for kind, body in reversed(container.chunks):
        if kind == PARAMETERS:
            found.append(at)
        at -= len(kind) + len(varint(len(body))) + 4 + len(body)
    return found[::-1]


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


def _needed(container: Container) -> int:
    """The smallest minor version that has all that a header and types of chunks show."""
    _, _, *named = container.header
    facts = container.header[4] if len(container.header) > 4 else {}
    return max(
        [
            *(KNOWN.get(kind, MINOR) for kind, _ in container.chunks),
            *(FACTS.get(name, MINOR) for name in facts),
            *(NEW_FIELDS.get(name, 0) for name in _texts(named)),
        ],
        default=0,
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested lists: a field's name may stand in another's hyperparameters."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _header(raw: bytes, limits: Limits) -> list[Any]:
    header = plain_cbor(raw, "header", limits)
    if not isinstance(header, list) or len(header) < 4:
        raise CorruptFile("has a header that is not canonical")
    return header


def plain_cbor(raw: bytes, what: str, limits: Limits) -> Any:
    """Decode canonical CBOR without tags, indefinite lengths, deep nesting or spare bytes.

    Args:
        raw: All of it.
        what: What it is called in errors.
        limits: Of which `nesting` is looked at.

    Raises:
        CorruptFile: it is anything else.
    """
    import cbor2

    try:
        value = cbor2.loads(
            raw,
            tag_hook=_refuse,
            semantic_decoders=dict.fromkeys(_TAGS, _refuse),
            max_depth=min(limits.nesting, NESTING),
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        canonical = cbor2.dumps(value, canonical=True)
    except Exception:  # cbor2 raises its own errors and, on odd input, OverflowError and others
        raise CorruptFile(f"has a {what} that is no plain CBOR") from None
    if canonical != raw:
        raise CorruptFile(f"has a {what} that is not canonical")
    return value


_TAGS = [*range(64), 100, 258, 260, 261, 1004, 43000, 55799]
"""CBOR tags that a library may give a meaning to; our files have none."""

_READS = f"this build reads {VERSION}.{MINOR}"


def _refuse(*_: Any) -> Any:
    raise ValueError("tags are not allowed")


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
