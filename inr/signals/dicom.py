"""Folders of one DICOM series as volumes; pydicom knows the files.

Slices are sorted by their positions along the normal of their planes. Axes are (slice, row,
column); the affine leads from there to RAS, whereas DICOM's own axes point to the left and back.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inr.errors import InputError
from inr.limits import Limits
from inr.signals import peek
from inr.signals.volume import Volume

DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax whose files are inflated whole before anything can be checked."""

SCANNER = 1
"""NIfTI's code of the scanner's own space."""

NEEDED = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")

UNEVEN = 0.02
"""Part of a slice's distance by which another one may differ."""


def read_folder(folder: Path, limits: Limits) -> Volume:
    """Read the series of a folder.

    Values are kept as stored, with slope and intercept beside them; where these differ from slice
    to slice, they are applied and the volume is float32.

    Raises:
        InputError: the folder holds no series, several, or one with gaps.
        LimitExceeded: it holds more voxels than `limits` allow.
    """
    pydicom = _pydicom()
    with _quiet():
        slices = _sorted(_headers(folder, limits))
        first = slices[0][1]
        shape = (len(slices), int(first.Rows), int(first.Columns))
        limits.check_samples(shape)
        scalings = [_scaling(header) for _, header in slices]
        same = len(set(scalings)) == 1
        samples: np.ndarray | None = None
        for k, (path, _) in enumerate(slices):
            plane = _plane(pydicom, path, shape[1:])
            if samples is None:
                samples = np.empty(shape, plane.dtype if same else np.float32)
            if samples.dtype != plane.dtype and same:
                raise InputError(f"{path.name}: is of type {plane.dtype}, others {samples.dtype}")
            slope, intercept = scalings[k]
            samples[k] = plane if same else plane * slope + intercept
    assert samples is not None
    scaling = scalings[0] if same and scalings[0] != (1.0, 0.0) else None
    return Volume.from_array(
        samples,
        affine=_affine([header for _, header in slices]),
        space=SCANNER,
        scaling=scaling,
    )


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise InputError(
            "DICOM needs the package pydicom: pip install 'inr-studio[volume]'"
        ) from None
    return pydicom


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What pydicom finds unusual is no news; what it cannot read is an error."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _headers(folder: Path, limits: Limits) -> list[tuple[Path, Any]]:
    """The images of a folder without their pixels.

    Raises:
        InputError: they are not of one series of single grey planes.
    """
    pydicom = _pydicom()
    found = []
    total = 0
    for path in peek.dicom_files(folder):
        total += path.stat().st_size
        limits.check("the size of its files in bytes", total, limits.source_bytes)
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DEFLATED:
                raise InputError(f"{path.name}: is deflated; save it anew without compression")
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InputError:
            raise
        except Exception as error:  # pydicom raises whatever it likes
            raise InputError(f"{path.name}: is damaged ({_one_line(error)})") from None
        if "Rows" in header:  # or it is a report, a plan or the like
            found.append((path, header))
    if not found:
        raise InputError("holds no DICOM images")
    series = {str(header.get("SeriesInstanceUID", "")) for _, header in found}
    if len(series) > 1:
        raise InputError(f"holds {len(series)} DICOM series: give a folder that holds one")
    for path, header in found:
        missing = [name for name in NEEDED if not header.get(name)]
        if missing:
            raise InputError(f"{path.name}: does not say its {missing[0]}, so it has no place")
        if header.get("SamplesPerPixel", 1) != 1 or int(header.get("NumberOfFrames") or 1) > 1:
            raise InputError(f"{path.name}: holds colours or several frames: convert it to NIfTI")
        if "ModalityLUTSequence" in header:
            raise InputError(f"{path.name}: has a table of values: convert it to NIfTI")
    return found


def _sorted(slices: Sequence[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Slices along the normal of their planes.

    Raises:
        InputError: they do not make a regular lattice.
    """
    first = slices[0][1]
    for path, header in slices:
        if (header.Rows, header.Columns) != (first.Rows, first.Columns):
            raise InputError(f"{path.name}: is of another size than the other slices")
        for name in ("ImageOrientationPatient", "PixelSpacing"):
            if not np.allclose(_numbers(header, name), _numbers(first, name), atol=1e-3):
                raise InputError(f"{path.name}: has another {name} than the other slices")
    across, down = _numbers(first, "ImageOrientationPatient").reshape(2, 3)
    normal = np.cross(across, down)
    heights = [float(_numbers(h, "ImagePositionPatient") @ normal) for _, h in slices]
    order = np.argsort(heights, kind="stable")
    steps = np.diff(np.asarray(heights)[order])
    if len(steps) and steps.min() <= 1e-4:
        raise InputError("holds several slices of one place: give a folder of one volume")
    if len(steps) and np.ptp(steps) > UNEVEN * np.median(steps):
        raise InputError(
            f"has slices {steps.min():.3g} to {steps.max():.3g} mm apart: one may be missing"
        )
    return [slices[i] for i in order]


def _affine(headers: Sequence[Any]) -> np.ndarray:
    """From (slice, row, column) to RAS (DICOM PS3.3, C.7.6.2.1.1, whose axes are LPS)."""
    first, last = headers[0], headers[-1]
    across, down = _numbers(first, "ImageOrientationPatient").reshape(2, 3)
    between_rows, between_columns = _numbers(first, "PixelSpacing")
    corner = _numbers(first, "ImagePositionPatient")
    if len(headers) > 1:
        step = (_numbers(last, "ImagePositionPatient") - corner) / (len(headers) - 1)
    else:
        step = np.cross(across, down) * float(first.get("SliceThickness") or 1)
    affine = np.eye(4)
    affine[:3] = np.stack([step, down * between_rows, across * between_columns, corner], axis=1)
    affine[:2] = 0.0 - affine[:2]  # and no zero with a sign
    return affine


def _numbers(header: Any, name: str) -> np.ndarray:
    count = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}[name]
    values = np.atleast_1d(np.asarray(header.get(name), dtype=np.float64))
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"a file's {name} is malformed")
    return values


def _scaling(header: Any) -> tuple[float, float]:
    slope = header.get("RescaleSlope")
    intercept = header.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope), float(intercept or 0))


def _plane(pydicom: Any, path: Path, shape: Sequence[int]) -> np.ndarray:
    try:
        file = pydicom.dcmread(path)
        plane = file.pixel_array
    except Exception as error:  # pydicom raises whatever it likes
        if _is_compressed(pydicom, path):
            raise InputError(
                f"{path.name}: its pixels are compressed in a way that is not read here: "
                "decompress the series first"
            ) from None
        raise InputError(f"{path.name}: is damaged ({_one_line(error)})") from None
    if plane.shape != tuple(shape):
        raise InputError(f"{path.name}: holds pixels of shape {plane.shape}")
    return np.asarray(plane)


def _is_compressed(pydicom: Any, path: Path) -> bool:
    """Whether a file's pixels are compressed."""
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    return bool(syntax is not None and syntax.is_compressed)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
