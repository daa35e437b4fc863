"""`.npy` and `.npz` files of strangers: what their headers claim, and arrays within limits."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from inr.errors import InputError

if TYPE_CHECKING:
    from inr.limits import Limits

ITEM_BYTES = 16
"""The widest number that numpy knows."""

HEADER_BYTES = 1 << 16

EXTRA_NUMBERS = 64
"""What says something of an array is at most this long."""


class Header(NamedTuple):
    """What the head of a `.npy` file claims."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def read_header(file: Any) -> Header:
    """Read the head of a `.npy` file and leave the file where its numbers begin.

    Raises:
        InputError: it holds objects, which only pickle could read.
        ValueError: it is none.
    """
    major, _ = np.lib.format.read_magic(file)
    if major == 1:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:  # its length is a number of 32 bits, which numpy would inflate before it looks at it
        size = file.read(4)
        if int.from_bytes(size, "little") > HEADER_BYTES:
            raise ValueError("its head is too long")
        head = io.BytesIO(size + file.read(int.from_bytes(size, "little")))
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
    if dtype.hasobject or dtype.itemsize > ITEM_BYTES:
        raise InputError(f"values of type {dtype} are not supported: convert them to numbers")
    return Header(shape, dtype, fortran)


def read(file: Any, limits: Limits) -> np.ndarray:
    """The array in an open `.npy` file, of whose size the head is believed as far as limits go."""
    header = read_header(file)
    limits.check_samples(header.shape)
    size = math.prod(header.shape) * header.dtype.itemsize
    raw = file.read(size)
    if len(raw) != size:
        raise InputError("is cut short")
    order = "F" if header.fortran else "C"
    return np.frombuffer(raw, header.dtype).reshape(header.shape, order=order)  # type: ignore[call-overload]


def load(
    source: Path | bytes, limits: Limits, extras: Collection[str] = ()
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The array of a `.npy` or `.npz` file, and what else the latter says of it.

    Args:
        source: Path, or the bytes of the file.
        limits: What it may ask for.
        extras: Names in a `.npz` that say something of the one array beside them.

    Returns:
        The array, mapped from the disk where a `.npy` file holds it in C order; and the extras
        that are there, by name.

    Raises:
        InputError: it does not hold one array.
        LimitExceeded: the array is too large.
    """
    with _opened(source) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return _mapped(source, limits) if isinstance(source, Path) else read(file, limits), {}
        with zipfile.ZipFile(file) as archive:
            main, others = _members(archive, extras)
            found = {}
            for name in others:
                with archive.open(f"{name}.npy") as member:
                    if math.prod(read_header(member).shape) > EXTRA_NUMBERS:
                        raise InputError(f"its {name} is no short list of numbers")
                with archive.open(f"{name}.npy") as member:
                    found[name] = read(member, limits)
            with archive.open(main) as member:
                return read(member, limits), found


def peek(source: Path | bytes, extras: Collection[str] = ()) -> tuple[str, Header] | None:
    """Name ("" in a `.npy` file) and header of the one array; None where there is no such thing."""
    try:
        with _opened(source) as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return "", read_header(file)
            with zipfile.ZipFile(file) as archive:
                main, _ = _members(archive, extras)
                with archive.open(main) as member:
                    return main.removesuffix(".npy"), read_header(member)
    except Exception:  # numpy and zipfile raise whatever they like; who opens it, says what it is
        return None


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        yield file


def _mapped(path: Path, limits: Limits) -> np.ndarray:
    """The array of a `.npy` file, of which only what is looked at is ever read."""
    with path.open("rb") as file:
        header = read_header(file)
        if header.fortran or math.prod(header.shape) == 0:
            file.seek(0)
            return read(file, limits)
        limits.check_samples(header.shape)
        offset = file.tell()
    if path.stat().st_size < offset + math.prod(header.shape) * header.dtype.itemsize:
        raise InputError("is cut short")
    return np.memmap(path, header.dtype, "r", offset, header.shape)


def _members(archive: zipfile.ZipFile, extras: Collection[str]) -> tuple[str, list[str]]:
    """The member that holds the one array, and the extras that are there."""
    names = archive.namelist()
    others = [n for n in extras if f"{n}.npy" in names]
    main = [n for n in names if n.removesuffix(".npy") not in extras]
    if len(main) != 1:
        held = ", ".join(n.removesuffix(".npy") for n in main[:8])
        raise InputError(f"holds {len(main)} arrays ({held}): save the one to fit alone")
    return main[0], others
