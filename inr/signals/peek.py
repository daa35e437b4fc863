"""What a file or folder holds, where its first bytes or its name alone do not tell.

A zip of numbers may be a clip, a volume or an array; a TIFF may be a picture or a stack; a folder
may hold frames or slices. Only heads are read.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path

HEAD_BYTES = 352
"""As far as the signatures of DICOM and NIfTI reach."""

PACKED_BYTES = 1 << 12
"""What is read for them of a gzipped file."""

EXTRAS = ("affine", "fps", "scaling", "spacing")
"""Arrays that say something of the one beside them in a `.npz` file."""

FRAMES = "frames"
"""An array of this name in a `.npz` file is a clip."""

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Names of files in a folder of frames."""


def kind(source: str | Path | bytes) -> str | None:
    """The kind of signal that a source holds; None where its first bytes and name must tell."""
    if not isinstance(source, bytes):
        source = Path(source)
        if source.is_dir():
            return folder_kind(source)
    first = head(source)
    if first[:4] == b"PK\x03\x04" or first[:6] == b"\x93NUMPY":
        return _numpy_kind(source)
    if is_nifti(first) or is_dicom(first) or (is_tiff(first) and _is_stack(source)):
        return "volume"
    moves = first[:4] in (b"GIF8", b"\x89PNG") or first[8:12] == b"WEBP"
    return "video" if moves and _is_animated(source) else None


def head(source: Path | bytes) -> bytes:
    """The first bytes, inflated where they are gzipped; nothing where they cannot be read."""
    if isinstance(source, bytes):
        first = source[:PACKED_BYTES]
    else:
        try:
            with source.open("rb") as file:
                first = file.read(PACKED_BYTES)
        except OSError:
            return b""  # who opens it says what is wrong
    if is_gzip(first):
        try:
            return zlib.decompressobj(wbits=31).decompress(first, HEAD_BYTES) or first
        except zlib.error:
            return first
    return first[:HEAD_BYTES]


def is_gzip(first: bytes) -> bool:
    """Whether a file begins as gzip, which here only NIfTI files are packed with."""
    return first[:2] == b"\x1f\x8b"


def is_nifti(first: bytes) -> bool:
    """Whether a file begins as NIfTI-1 (single or one of a pair) or NIfTI-2."""
    return first[344:348] in (b"n+1\0", b"ni1\0") or first[4:8] == b"n+2\0"


def is_dicom(first: bytes) -> bool:
    """Whether a file begins as DICOM does."""
    return first[128:132] == b"DICM"


def is_tiff(first: bytes) -> bool:
    """Whether a file begins as TIFF or BigTIFF."""
    return first[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def folder_kind(folder: Path) -> str | None:
    """The kind of a folder with DICOM files, else with pictures; None for others."""
    if next(dicom_files(folder), None) is not None:
        return "volume"
    names = (path.suffix.lower() for path in _visible(folder))
    return "video" if any(suffix in PICTURES for suffix in names) else None


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files right in a folder; its index, DICOMDIR, is none."""
    for path in _visible(folder):
        named = path.name != "DICOMDIR" and path.suffix.lower() not in PICTURES
        if named and path.is_file() and is_dicom(head(path)):
            yield path


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []  # who opens it says what is wrong


def _numpy_kind(source: Path | bytes) -> str | None:
    """By name, shape and type; float64 stays an array, whose precision is kept."""
    from inr.signals import npyfile

    found = npyfile.peek(source, EXTRAS)
    if found is None:
        return None
    name, (shape, dtype, _) = found
    clip = dtype == "u1" and len(shape) == 4 and shape[-1] in (1, 3, 4)
    if clip or (name == FRAMES and len(shape) in (3, 4)):
        return "video"
    numbers = dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 4)
    return "volume" if len(shape) == 3 and shape[-1] > 4 and numbers else None


def _is_stack(source: Path | bytes) -> bool:
    from inr.signals import tiffstack

    try:
        return tiffstack.is_stack(source)
    except Exception:  # readers raise whatever they like; who opens it says what is wrong
        return False


def _is_animated(source: Path | bytes) -> bool:
    import warnings

    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with PIL.Image.open(file, formats=("GIF", "PNG", "WEBP")) as picture:
                return bool(getattr(picture, "is_animated", False))
    except Exception:  # as above
        return False
