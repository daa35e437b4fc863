"""Stacks of grey TIFF pages as volumes, with the size of a voxel where ImageJ or OME say it."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from inr.errors import InputError
from inr.limits import Limits
from inr.signals.volume import Volume, VolumeDomain

MILLIMETRES = {
    "nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "\\u00b5m": 1e-3, "micron": 1e-3,
    "microns": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1e3, "inch": 25.4,
}  # fmt: skip
"""By the names of units that ImageJ and OME write, in lower case."""


def is_stack(source: Path | bytes) -> bool:
    """Whether a TIFF holds one series of several grey pages."""
    with _opened(source) as tiff:
        return _is_stack(tiff)


def read(source: Path | bytes, limits: Limits) -> Volume:
    """Read a stack; axes are those of the pages, then rows, then columns.

    Raises:
        InputError: it is none.
        LimitExceeded: it claims more voxels than `limits` allow.
    """
    with _opened(source) as tiff:
        if not _is_stack(tiff):
            raise InputError("holds no stack of grey pages of one size: save it anew as one")
        series: Any = tiff.series[0]
        limits.check_samples(series.shape)
        samples = series.asarray()
        return Volume.from_array(samples, spacing=_spacing(tiff))


def write(file: BinaryIO, domain: VolumeDomain, bands: Iterable[np.ndarray]) -> None:
    """Write an OME-TIFF from bands of planes as they come, of shape (m, n_1, n_2)."""
    import tifffile

    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, size in zip("ZYX", domain.spacing, strict=False):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "mm"}
    tifffile.imwrite(
        file,
        (plane for band in bands for plane in band),
        shape=domain.shape,
        dtype=domain.dtype_of_samples,
        photometric="minisblack",
        ome=True,
        metadata=metadata,
    )


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[Any]:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters is an error
    with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as tiff:
        yield tiff


def _is_stack(tiff: Any) -> bool:
    if len(tiff.series) != 1:
        return False
    series = tiff.series[0]
    return (
        len(series.shape) == 3
        and min(series.shape) > 1
        and not set(series.axes) & set("SC")
        and series.axes.endswith("YX")
        and series.dtype is not None
        and series.dtype.kind in "biuf"
    )


def _spacing(tiff: Any) -> tuple[float, ...] | None:
    """Size of a voxel in mm, where the file says it along all axes."""
    if tiff.ome_metadata:
        import tifffile

        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        sizes = [
            _length(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "um"))
            for a in "ZYX"
        ]
    elif tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", ""))
        tags = tiff.pages[0].tags
        across = [
            tags[name].value if name in tags else (0, 1) for name in ("YResolution", "XResolution")
        ]
        sizes = [
            _length(tiff.imagej_metadata.get("spacing"), unit),
            *(_length(b / a if a else None, unit) for a, b in across),
        ]
    else:
        return None
    return tuple(sizes) if all(sizes) else None


def _length(size: Any, unit: str) -> float:
    """Millimetres; 0 where size or unit are unknown."""
    scale = MILLIMETRES.get(unit.lower(), 0.0)
    length = float(size or 0) * scale
    return length if math.isfinite(length) and length > 0 else 0.0
