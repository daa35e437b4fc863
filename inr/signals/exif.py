"""EXIF data of pictures: what is kept of a source's, and how they come into a TIFF.

EXIF data (CIPA DC-008) are a small TIFF file without a picture: a header and a directory of tagged
values, from which two others hang, of the exposure and of the place. Here values are copied byte by
byte under the types and in the byte order that they have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import BinaryIO, NamedTuple

from inr.errors import CorruptFile

MOST_BYTES = 1 << 20
"""More than any camera writes, thumbnail and maker's notes left out."""

MOST_ENTRIES = 1024

EXPOSURE, PLACE = 34665, 34853
"""Tags in the main directory whose values say where the other two lie."""

KEPT = {
    270, 271, 272, 282, 283, 296, 301, 305, 306, 315, 316, 318, 319, 529, 531, 532, 18246, 18249,
    33432, 40091, 40092, 40093, 40094, 40095,
}  # fmt: skip
"""Tags of the main directory that say something of a picture; others say how a file holds it. The
orientation (274) is among these, for samples are turned when they are read."""

LEFT_OUT = {37500, 40962, 40963, 40965, 59932}
"""Tags of the exposure that are not kept: the maker's notes, which do not survive being moved, the
size, which a rendering need not have, a directory about exchange between cameras, and padding."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of one value by its type; the three of 16 to 18 are BigTIFF's."""
SIZES |= {16: 8, 17: 8, 18: 8}


class Entry(NamedTuple):
    """A tag's value.

    Args:
        kind: Type, a key of `SIZES`.
        data: All its values, as they stand in the file.
    """

    kind: int
    data: bytes


Directory = dict[int, Entry]


class Layout(NamedTuple):
    """How directories are written down.

    Args:
        order: Byte order, "<" or ">".
        number: Format of their number of entries.
        entry: Format of an entry's tag, type and number of values.
        offset: Format of a place in the file; values that take no more room stand there themselves.
    """

    order: str
    number: str
    entry: str
    offset: str

    @property
    def inline(self) -> int:
        """Bytes of an offset."""
        return struct.calcsize(self.offset)


def cleaned(block: bytes) -> bytes:
    """What is worth keeping of EXIF data, written down anew; empty if that is nothing.

    Args:
        block: The data from the TIFF header on; a whole TIFF file has them as well.

    Raises:
        CorruptFile: they are malformed, or more than 1 MiB.
    """
    try:
        found = _read(block)
    except struct.error:
        raise CorruptFile("has EXIF data that are cut short") from None
    kept = {
        0: {tag: entry for tag, entry in found[0].items() if tag in KEPT},
        EXPOSURE: {tag: e for tag, e in found[EXPOSURE].items() if tag not in LEFT_OUT},
        PLACE: found[PLACE],
    }
    if not any(kept.values()):
        return b""
    order = byte_order(block)
    layout = Layout(order, f"{order}H", f"{order}HHI", f"{order}I")
    head = block[:2] + struct.pack(f"{order}HI", 42, 8)
    clean = head + _tree(kept, [], 8, layout)
    if len(clean) > MOST_BYTES:
        raise CorruptFile(f"has {len(clean):,} bytes of EXIF data: {MOST_BYTES:,} are allowed")
    return clean


def has_place(block: bytes) -> bool:
    """Whether clean EXIF data say where a picture was taken."""
    return bool(_read(block)[PLACE])


def byte_order(block: bytes) -> str:
    """The byte order of EXIF data, "<" or ">"; without data, the usual one."""
    return ">" if block[:2] == b"MM" else "<"


def add_to_tiff(file: BinaryIO, block: bytes) -> None:
    """Add EXIF data to a TIFF file of one page and of their byte order.

    A new directory at its end, which has the entries of the old one too, takes the old one's place.

    Args:
        file: The file, open for reading and writing.
        block: Clean EXIF data.
    """
    file.seek(0)
    head = file.read(16)
    layout, where, at = _layout(head)
    file.seek(where)
    count = struct.unpack(layout.number, file.read(struct.calcsize(layout.number)))[0]
    size = struct.calcsize(layout.entry) + layout.inline
    old = [file.read(size) for _ in range(count)]
    found = _read(block)
    old = [raw for raw in old if struct.unpack(f"{layout.order}H", raw[:2])[0] not in found[0]]
    end = file.seek(0, 2)
    file.write(bytes(end % 2))
    end += end % 2
    file.write(_tree(found, old, end, layout))
    file.seek(at)
    file.write(struct.pack(layout.offset, end))


def _layout(head: bytes) -> tuple[Layout, int, int]:
    """By a TIFF header, the layout, where the main directory lies, and where that is said."""
    if head[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if head[:1] == b"I" else ">"
        layout, at = Layout(order, f"{order}H", f"{order}HHI", f"{order}I"), 4
    elif head[:4] in (b"II+\0", b"MM\0+"):
        order = "<" if head[:1] == b"I" else ">"
        layout, at = Layout(order, f"{order}Q", f"{order}HHQ", f"{order}Q"), 8
    else:
        raise CorruptFile("has EXIF data that begin with no TIFF header")
    return layout, struct.unpack_from(layout.offset, head, at)[0], at


def _read(block: bytes) -> dict[int, Directory]:
    """The main directory under 0, and those of exposure and place, empty where there is none."""
    layout, at, _ = _layout(block)
    found = {0: _directory_at(block, at, layout, {*KEPT, EXPOSURE, PLACE})}
    for tag in (EXPOSURE, PLACE):
        pointer = found[0].pop(tag, None)
        place = b"" if pointer is None else pointer.data
        where = int.from_bytes(place, "little" if layout.order == "<" else "big")
        found[tag] = {} if pointer is None else _directory_at(block, where, layout, None)
    return found


def _directory_at(block: bytes, at: int, layout: Layout, wanted: set[int] | None) -> Directory:
    """The entries of a directory; of the main one, those that are wanted."""
    if at > len(block):
        raise CorruptFile("has EXIF data that are cut short")
    count = struct.unpack_from(layout.number, block, at)[0]
    if count > MOST_ENTRIES:
        raise CorruptFile(f"has EXIF data of {count:,} entries: {MOST_ENTRIES:,} are allowed")
    at += struct.calcsize(layout.number)
    entries: Directory = {}
    total = 0
    for _ in range(count):
        tag, kind, length = struct.unpack_from(layout.entry, block, at)
        at += struct.calcsize(layout.entry)
        if (tag in wanted) if wanted is not None else (tag not in LEFT_OUT):
            size = length * SIZES.get(kind, 0)
            inline = size <= layout.inline
            start = at if inline else struct.unpack_from(layout.offset, block, at)[0]
            total += size
            # several entries may claim the same bytes
            if kind not in SIZES or start + size > len(block) or total > MOST_BYTES:
                raise CorruptFile(f"has EXIF data that are damaged at tag {tag}")
            entries[tag] = Entry(kind, block[start : start + size])
        at += layout.inline
    return entries


def _tree(
    found: Mapping[int, Directory], others: Iterable[bytes], at: int, layout: Layout
) -> bytes:
    """All directories as they are written from byte `at` on, the main one first.

    Args:
        found: The directories.
        others: Entries that the main one is to have besides, as they are written.
        at: Where it all begins.
        layout: How it is written.
    """
    main, below = dict(found[0]), b""
    others = list(others)
    # its length does not depend on what the pointers say
    links = [tag for tag in (EXPOSURE, PLACE) if found[tag]]
    kind = 4 if layout.inline == 4 else 16
    main |= {tag: Entry(kind, bytes(layout.inline)) for tag in links}
    length = len(_written(main, others, at, layout))
    for tag in links:
        where = at + length + len(below)
        main[tag] = Entry(kind, struct.pack(layout.offset, where))
        below += _written(found[tag], [], where, layout)
    return _written(main, others, at, layout) + below


def _written(entries: Directory, others: Iterable[bytes], at: int, layout: Layout) -> bytes:
    """A directory as it is written at byte `at`, its longer values behind it."""
    rows = list(others)
    behind = at + struct.calcsize(layout.number) + layout.inline
    behind += (len(entries) + len(rows)) * (struct.calcsize(layout.entry) + layout.inline)
    tail = b""
    for tag, (kind, data) in sorted(entries.items()):
        row = struct.pack(layout.entry, tag, kind, len(data) // SIZES[kind])
        if len(data) <= layout.inline:
            row += data.ljust(layout.inline, b"\0")
        else:
            row += struct.pack(layout.offset, behind + len(tail))
            tail += data + bytes(len(data) % 2)
        rows.append(row)
    rows.sort(key=lambda row: struct.unpack(f"{layout.order}H", row[:2]))
    head = struct.pack(layout.number, len(rows))
    return head + b"".join(rows) + bytes(layout.inline) + tail
