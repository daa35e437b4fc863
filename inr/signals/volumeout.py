"""Writing volumes while they are rendered, and single planes of them as pictures."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from inr.errors import UsageError
from inr.files import stream_npy, suffix_of
from inr.signals.volume import VolumeDomain, Window, render_volume, replaced

if TYPE_CHECKING:
    from fields.base import Field

SLAB_VOXELS = 1 << 22
"""What is rendered at a time, if that is at least one plane."""

NIFTI = (".nii", ".nii.gz")
TIFF = (".tif", ".tiff")
FORMATS = (*NIFTI, ".npy", ".npz", *TIFF)


def write_volume(
    target: Path | BinaryIO, field: Field, place: Window | None = None, suffix: str = ""
) -> None:
    """Render a volume's field into a file, slab by slab; the format is that of the suffix.

    NIfTI keeps type, affine, slope and intercept; `.npz` too, as arrays `volume`, `spacing`,
    `affine`, `scaling`; OME-TIFF keeps type and spacing, `.npy` the type.

    Args:
        target: Where to write; a path should be a temporary one (see `inr.files.atomic_path`).
        field: The field of a volume.
        place: From `VolumeDomain.window`; the source's own voxels if not given.
        suffix: Format; a path's own if not given.

    Raises:
        UsageError: the format is unknown, or cannot hold this.
    """
    domain: VolumeDomain = field.domain
    place = place or domain.window()
    domain = domain.resampled(place)
    if isinstance(target, Path):
        suffix = suffix or suffix_of(target)
        with target.open("wb") as file:
            write_volume(file, field, place, suffix)
        return
    suffix = suffix.lower()
    check_format(suffix, domain)
    if suffix in NIFTI:
        from inr.signals import nifti

        nifti.write(target, domain, _parts(field, place, 2), packed=suffix == ".nii.gz")
    elif suffix in TIFF:
        from inr.signals import tiffstack

        tiffstack.write(target, domain, _parts(field, place, 0))
    elif suffix == ".npy":
        stream_npy(target, place.shape, domain.dtype_of_samples, _parts(field, place, 0))
    else:
        _write_npz(target, domain, _parts(field, place, 0))


def check_format(suffix: str, domain: VolumeDomain) -> None:
    """Raise UsageError now if `write_volume` would refuse this suffix for this domain."""
    if suffix.lower() not in FORMATS:
        raise UsageError(
            f"volumes are not written as {suffix!r}: write one of {', '.join(FORMATS)}"
        )
    if suffix.lower() in NIFTI:
        from inr.signals import nifti

        nifti.check_writable(domain.shape)


def _parts(field: Field, place: Window, axis: int) -> Iterator[np.ndarray]:
    """A rendering in parts of whole planes along an axis."""
    plane = math.prod(place.shape) // place.shape[axis]
    step = max(1, SLAB_VOXELS // plane)
    width = place.lengths[axis] / place.shape[axis]
    for k in range(0, place.shape[axis], step):
        m = min(step, place.shape[axis] - k)
        yield render_volume(
            field,
            Window(
                replaced(place.shape, axis, m),
                replaced(place.starts, axis, place.starts[axis] + k * width),
                replaced(place.lengths, axis, m * width),
            ),
        )


def _write_npz(file: BinaryIO, domain: VolumeDomain, bands: Iterator[np.ndarray]) -> None:
    facts: dict[str, Any] = {"spacing": domain.spacing, "scaling": domain.scaling}
    if domain.affine is not None:
        facts = {"affine": domain.affine, "scaling": domain.scaling}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, numbers in facts.items():
            if len(numbers):
                head = io.BytesIO()
                np.save(head, np.asarray(numbers, np.float64))
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), head.getvalue())
        entry = zipfile.ZipInfo("volume.npy")  # dated 1980: the same volume makes the same bytes
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w", force_zip64=True) as member:
            stream_npy(cast(BinaryIO, member), domain.shape, domain.dtype_of_samples, bands)


# ------------------------------------------------------------------------------- pictures


def plane_of(field: Field, place: Window, axis: int) -> np.ndarray:
    """The one plane of a cut (see `VolumeDomain.window`), shape of its other two axes."""
    return render_volume(field, place).squeeze(axis)


def picture_of(plane: np.ndarray, domain: VolumeDomain, axis: int) -> np.ndarray:
    """A plane as a grey picture, black at the volume's lowest value and white at its highest.

    Where the affine is known it stands upright: up is the top of the person, or the front where the
    plane lies flat, and the person's right is on the left, as radiologists have it. Otherwise it
    lies as the array does.

    Args:
        plane: Shape of the two other axes, in the volume's own type.
        domain: That of the volume.
        axis: The one that the plane is cut across.

    Returns:
        Shape (height, width, 1), 8 bits for a volume of 8 bits, 16 for others.
    """
    top = 255 if domain.dtype == "u1" else 65535
    share = (plane.astype(np.float64) - domain.low) / domain.peak
    picture = np.rint(share.clip(0, 1) * top).astype(np.uint8 if top == 255 else np.uint16)
    if domain.affine is not None:
        columns = domain.affine[:3, :3] / np.asarray(domain.spacing)
        kept = [np.delete(columns, axis, axis=1)[:, i] for i in (0, 1)]
        along = [int(np.abs(column).argmax()) for column in kept]
        for i in (0, 1):
            if kept[i][along[i]] > 0:
                picture = np.flip(picture, i)
        if along[0] < along[1]:
            picture = picture.T
    return np.ascontiguousarray(picture).reshape(*picture.shape, 1)
