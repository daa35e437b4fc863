"""NIfTI-1 and NIfTI-2 files in, NIfTI-1 files out, slab by slab; nibabel knows their headers.

What is stored is kept as it is stored, with slope, intercept and affine beside it, so that a decode
makes the same kind of file again.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from inr.errors import InputError, UsageError
from inr.limits import Limits
from inr.signals import peek
from inr.signals.volume import ALIGNED, SPACES, Volume, VolumeDomain

SLAB_BYTES = 1 << 24
"""What is read at a time, if that is at least one plane."""

EXTENSION_BYTES = 1 << 26
"""Header and extensions are at most this long."""

LONGEST_AXIS = (1 << 15) - 1

MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}
"""By NIfTI's code of a unit of length; what is unknown is taken as mm, as everywhere."""


def read(source: Path | bytes, limits: Limits, index: int | None = None) -> Volume:
    """Read a volume; of what the header claims nothing is allocated before it is checked.

    Args:
        source: Path, or the bytes of a file.
        limits: What it may ask for.
        index: Which volume of a file of several.

    Raises:
        InputError: it is no NIfTI file of one volume, or damaged.
        LimitExceeded: it claims more voxels than `limits` allow.
    """
    try:
        with _stream(source) as file:
            header = _header(file)
            shape, skipped = _shape(header, index)
            limits.check_samples(shape)
            dtype = header.get_data_dtype()
            _skip(file, skipped * math.prod(shape) * dtype.itemsize)
            samples = _samples(file, shape, dtype)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"is cut short or damaged ({str(error).lower()})") from None
    unit = MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    place: dict[str, Any] = {}
    code = int(header["sform_code"]) or int(header["qform_code"])
    sizes = np.abs(header["pixdim"][1:4].astype(np.float64)) * unit
    if code:
        affine = header.get_best_affine().astype(np.float64)
        affine[:3] *= unit
        place = {"affine": affine, "space": code if 0 < code <= SPACES else ALIGNED}
    elif np.isfinite(sizes).all() and sizes.min() > 0:
        place = {"spacing": sizes}
    slope, intercept = header.get_slope_inter()
    scaling = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
    return Volume.from_array(samples, **place, scaling=scaling)


def write(
    file: BinaryIO, domain: VolumeDomain, slabs: Iterable[np.ndarray], *, packed: bool
) -> None:
    """Write a NIfTI-1 file, gzipped or not, from slabs along the last axis as they come.

    Args:
        file: Where to write.
        domain: Shape, type, place in space and scaling of what comes.
        slabs: Arrays of shape (n_0, n_1, m), in order.
        packed: Whether to gzip it.

    Raises:
        UsageError: an axis is too long for the format.
    """
    head = _head(domain)
    # without a time or a name: the same volume makes the same bytes
    packer = gzip.GzipFile("", "wb", 6, file, mtime=0) if packed else contextlib.nullcontext(file)
    with packer as out:
        out.write(head)
        for slab in slabs:
            out.write(slab.tobytes(order="F"))


def check_writable(shape: tuple[int, ...]) -> None:
    """Raise UsageError where the format or the machine cannot write such a volume."""
    if max(shape) > LONGEST_AXIS:
        raise UsageError(f"NIfTI holds axes of {LONGEST_AXIS:,} voxels at most: write .npy or .tif")
    try:
        _nibabel()
    except InputError as error:
        raise UsageError(str(error)) from None


def _head(domain: VolumeDomain) -> bytes:
    """Header and the four bytes that say that there are no extensions."""
    check_writable(domain.shape)
    header = _nibabel().Nifti1Header()
    header.set_data_dtype(domain.dtype_of_samples)
    header.set_data_shape(domain.shape)
    header.set_xyzt_units("mm" if domain.spacing else "unknown")
    if domain.spacing:
        header.set_zooms(domain.spacing)
    affine = domain.affine
    if affine is not None:
        header.set_sform(affine, code=domain.space)
        header.set_qform(affine, code=domain.space, strip_shears=True)
        if not np.allclose(header.get_qform(), affine, rtol=1e-4, atol=1e-4 * min(domain.spacing)):
            header["qform_code"] = 0  # it knows no shears
    if domain.scaling:
        header["scl_slope"], header["scl_inter"] = domain.scaling
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise InputError(
            "NIfTI needs the package nibabel: pip install 'inr-studio[volume]'"
        ) from None
    return nibabel


@contextlib.contextmanager
def _stream(source: Path | bytes) -> Iterator[BinaryIO]:
    """The bytes of a file, inflated as far as they are read."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked  # type: ignore[misc]


def _header(file: BinaryIO) -> Any:
    """The header, as nibabel has it; the file is left where the voxels begin."""
    nibabel = _nibabel()
    raw = file.read(348)
    if raw[344:347] == b"ni1":
        raise InputError("is one of a pair of files, .hdr and .img: save it as one .nii")
    if not peek.is_nifti(raw):
        raise InputError("is no NIfTI file")
    form = nibabel.Nifti1Header
    if raw[4:8] == b"n+2\0":
        form = nibabel.Nifti2Header
        raw += file.read(540 - 348)
    if len(raw) < form.sizeof_hdr:
        raise InputError("is cut short")
    header = form(raw, check=False)
    offset = int(header["vox_offset"]) or form.sizeof_hdr + 4
    if not form.sizeof_hdr <= offset <= EXTENSION_BYTES:
        raise InputError(f"its voxels would begin at byte {offset:,}: the header is damaged")
    _skip(file, offset - form.sizeof_hdr)
    return header


def _shape(header: Any, index: int | None) -> tuple[tuple[int, ...], int]:
    """Three lengths, of which short headers leave out the last; and the volumes to be skipped."""
    count = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : 1 + max(count, 0)]]
    if not 1 <= count <= 7 or min(sizes) < 1:
        raise InputError(f"claims {count} axes of {sizes} voxels: the header is damaged")
    volumes = math.prod(sizes[3:])
    if volumes > 1 and index is None:
        raise InputError(f"holds {volumes:,} volumes: choose one with --volume.index")
    if index is not None and not 0 <= index < volumes:
        raise InputError(f"holds {volumes:,} volumes: there is none of index {index}")
    return tuple([*sizes, 1, 1][:3]), index or 0


def _samples(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """The voxels in C order and the machine's byte order; doubles become floats."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"voxels of type {dtype} are not supported: convert them to numbers")
    native = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    samples = np.empty(shape, native)
    plane = math.prod(shape[:2])
    step = max(1, SLAB_BYTES // (plane * dtype.itemsize))
    for k in range(0, shape[2], step):
        m = min(step, shape[2] - k)
        slab = np.frombuffer(_exactly(file, plane * m * dtype.itemsize), dtype)
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            samples[..., k : k + m] = slab.reshape((*shape[:2], m), order="F")
    return samples


def _skip(file: BinaryIO, size: int) -> None:
    for start in range(0, size, SLAB_BYTES):
        _exactly(file, min(SLAB_BYTES, size - start))


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise InputError("is cut short")
    return data
