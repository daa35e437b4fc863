"""Volumes: numbers on a lattice of three axes in space, such as CT, MR and microscope stacks.

Voxel (i, j, k) is the cell [i, i+1) x [j, j+1) x [k, k+1) of the array, in its own order of axes,
and its sample lies at the centre, so that a rendering at any size or crop registers in space. The
affine says where that is: it takes the indices of a voxel to millimetres, x to the right, y to the
front and z to the top of a person (RAS), as in NIfTI.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits
from inr.signals.array import Ranged, check_range, in_known_type
from inr.signals.base import GridSignal

if TYPE_CHECKING:
    from fields.base import Field

EXTRAS = ("spacing", "affine", "scaling")
"""Arrays that say something of the volume beside them in a `.npz` file."""

ALIGNED = 2
"""NIfTI's code of the space of an affine of which nothing more is known."""

SPACES = 5
"""NIfTI's codes of spaces: 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 another template."""

T = TypeVar("T")

LARGEST_MM = 1e9
LARGEST_FACTOR = 1e30


class Window(NamedTuple):
    """Where the voxels of a rendering lie.

    Args:
        shape: Voxels per axis.
        starts: Where it begins along each axis, in voxels of the source.
        lengths: How far it reaches.
    """

    shape: tuple[int, ...]
    starts: tuple[float, ...]
    lengths: tuple[float, ...]


def replaced(whole: tuple[T, ...], axis: int, one: T) -> tuple[T, ...]:
    """The same with another entry for one axis."""
    return (*whole[:axis], one, *whole[axis + 1 :])


@dataclass(frozen=True)
class VolumeDomain(Ranged):
    """Shape, type, value range and place in space of a volume.

    Args:
        shape: Voxels per axis.
        dtype: "u1", "i2", "u2", "i4" or "f4".
        low: Value that -1 stands for: the volume's lowest, as stored.
        high: Value that 1 stands for: its highest.
        geometry: Nothing where it is unknown; the 3 sizes of a voxel in mm; or the 12 numbers of an
            affine, the first three rows of the matrix that takes (i, j, k, 1) to mm.
        scaling: Nothing, or slope and intercept: a stored value v means slope v + intercept.
        space: NIfTI's code of the space that the affine leads to; 0 without one.
    """

    kind: ClassVar[str] = "volume"
    channels = 1
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    geometry: tuple[float, ...] = ()
    scaling: tuple[float, ...] = ()
    space: int = 0

    def header(self) -> list[Any]:
        return [
            list(self.shape),
            self.dtype,
            self.low,
            self.high,
            list(self.geometry),
            list(self.scaling),
            self.space,
        ]

    @classmethod
    def from_header(cls, items: Any) -> Self:
        if not isinstance(items, list) or len(items) != 7:
            raise CorruptFile("the volume domain in the header is malformed")
        shape, dtype, low, high, geometry, scaling, space = items
        if not all(isinstance(part, list) for part in (shape, geometry, scaling)):
            raise CorruptFile("the volume domain in the header is malformed")
        if len(shape) != 3 or not all(type(n) is int and 0 < n < 1 << 31 for n in shape):
            raise CorruptFile(f"the header claims a volume of shape {str(shape)[:80]}")
        check_range(dtype, low, high)
        if dtype == "f8":
            raise CorruptFile("the header claims voxels of an unknown type")
        if not all(type(x) is float for x in (*geometry, *scaling)) or type(space) is not int:
            raise CorruptFile("the volume domain in the header is malformed")
        wrong = _wrong(geometry, scaling, space)
        if wrong:
            raise CorruptFile(f"the header's {wrong}")
        return cls(tuple(shape), dtype, low, high, tuple(geometry), tuple(scaling), space)

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "shape": list(self.shape),
            "dtype": self.dtype_of_samples.name,
            "low": self.low,
            "high": self.high,
        }
        if self.spacing:
            facts["spacing_mm"] = [round(x, 6) for x in self.spacing]
        if self.affine is not None:
            facts["affine"] = [[round(x, 6) for x in row] for row in self.affine[:3].tolist()]
        if self.scaling:
            facts |= {"slope": self.scaling[0], "intercept": self.scaling[1]}
        return facts

    @property
    def dtype_of_samples(self) -> np.dtype[Any]:
        """The type of a voxel."""
        return np.dtype(self.dtype)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each axis in mm; nothing where it is unknown."""
        if self.affine is None:
            return self.geometry
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    @property
    def affine(self) -> np.ndarray | None:
        """The 4 x 4 matrix that takes (i, j, k, 1) to mm, where there is one."""
        if len(self.geometry) != 12:
            return None
        return np.array([*self.geometry, 0, 0, 0, 1.0]).reshape(4, 4)

    def axis_along(self, name: str) -> int:
        """The axis of the array that is nearest to x, y or z of the person (RAS).

        Without an affine x is the last, the columns of planes, y the one before, z the first.
        """
        world = "xyz".index(name)
        if self.affine is None:
            return 2 - world
        shares = np.abs(self.affine[world, :3]) / np.asarray(self.spacing)
        return int(shares.argmax())

    def window(
        self,
        size: Sequence[int] | None = None,
        *,
        scale: float | None = None,
        spacing: Sequence[float] | None = None,
        crop: Sequence[float] | None = None,
        cut: tuple[int, float] | None = None,
    ) -> Window:
        """Where the voxels of a rendering lie.

        Args:
            size: Voxels per axis; those of the source, or of the crop, if nothing else is given.
            scale: Factor on that.
            spacing: Size of a voxel in mm along each axis, to the nearest whole number of voxels.
            crop: Start per axis, then length per axis, in voxels of the source.
            cut: An axis and a position along it, in voxels of the source, counted from the centre
                of the first: the one plane of voxels that is centred there.

        Raises:
            UsageError: an argument does not fit the volume.
        """
        from inr.rendering import target_shape, window

        starts, lengths = window(self, crop)
        if spacing is not None:
            if size is not None or scale is not None:
                raise UsageError("give one of size, scale and spacing")
            size = self._size_at(spacing, lengths)
        shape = target_shape(self, size, scale, crop)
        if cut is not None:
            axis, position = cut
            low, high = starts[axis], starts[axis] + lengths[axis] - 1
            if not low <= position <= max(low, high):
                raise UsageError(
                    f"position {position:g} along axis {axis} is outside: "
                    f"give {low:g} to {max(low, high):g}"
                )
            shape = replaced(shape, axis, 1)
            starts, lengths = replaced(starts, axis, position), replaced(lengths, axis, 1.0)
        return Window(shape, starts, lengths)

    def _size_at(self, spacing: Sequence[float], lengths: Sequence[float]) -> tuple[int, ...]:
        if not self.spacing:
            raise UsageError("the spacing of this volume is unknown: give a size or a scale")
        if len(spacing) != 3 or not all(0 < s < LARGEST_MM for s in spacing):
            raise UsageError(f"spacing is {tuple(spacing)}: give 3 sizes of a voxel in mm")
        ratios = zip(lengths, self.spacing, spacing, strict=True)
        return tuple(max(1, round(n * old / new)) for n, old, new in ratios)

    def resampled(self, place: Window) -> Self:
        """The domain of a rendering: the same space, other voxels in it."""
        factors = np.divide(place.lengths, place.shape)
        geometry = tuple((np.asarray(self.geometry[:3]) * factors[: len(self.geometry)]).tolist())
        if self.affine is not None:
            first = np.asarray(place.starts) + (factors - 1) / 2  # the centre of its first voxel
            moved = self.affine[:3].copy()
            moved[:, 3] += moved[:, :3] @ first
            moved[:, :3] *= factors
            geometry = tuple(moved.ravel().tolist())
        return replace(self, shape=tuple(place.shape), geometry=geometry)


def _wrong(geometry: Sequence[float], scaling: Sequence[float], space: int) -> str:
    """What is wrong with where a volume lies and what its values mean, if anything is."""
    if len(geometry) not in (0, 3, 12) or not all(abs(x) <= LARGEST_MM for x in geometry):
        return "place in space is malformed"
    columns = [geometry[i::4] for i in range(3)] if len(geometry) == 12 else []
    if (len(geometry) == 3 and min(geometry) < 1 / LARGEST_MM) or any(
        math.hypot(*column) < 1 / LARGEST_MM for column in columns
    ):
        return "voxels have no size"
    if len(scaling) not in (0, 2) or not all(abs(x) <= LARGEST_FACTOR for x in scaling):
        return "slope and intercept are malformed"
    if scaling and abs(scaling[0]) < 1 / LARGEST_FACTOR:
        return "slope is zero"
    if not 0 <= space <= SPACES or (space > 0) != (len(geometry) == 12):
        return "space is malformed"
    return ""


class Volume(GridSignal):
    """A volume to be fitted; `Volume.from_array` makes one from numpy."""

    domain: VolumeDomain

    @classmethod
    def from_array(
        cls,
        samples: np.ndarray,
        *,
        spacing: Sequence[float] | None = None,
        affine: np.ndarray | None = None,
        scaling: Sequence[float] | None = None,
        space: int = 0,
    ) -> Self:
        """Make a signal from samples of three axes.

        Args:
            samples: Integers within 32 bits, or finite floats, which are taken as float32. A
                memory map stays one where its numbers are of a type that volumes have.
            spacing: Size of a voxel along each axis, in mm.
            affine: 4 x 4 matrix from indices to mm in RAS, instead of `spacing`.
            scaling: Slope and intercept: a stored value v means slope v + intercept.
            space: NIfTI's code of the affine's space; "aligned" (2) if not given.

        Raises:
            InputError: the shape, the type, a value or the place in space cannot be fitted.
        """
        if samples.ndim != 3 or 0 in samples.shape:
            raise InputError(f"an array of shape {samples.shape} is no volume: give three axes")
        if samples.dtype == np.float64:
            with np.errstate(over="ignore"):
                samples = samples.astype(np.float32)
        samples, name = in_known_type(samples)
        low, high = _range(samples)
        geometry = () if spacing is None else tuple(map(float, spacing))
        if affine is not None:
            if np.shape(affine) != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
                raise InputError("its affine is no 4 x 4 matrix with the last row 0 0 0 1")
            geometry, space = tuple(map(float, affine[:3].ravel())), space or ALIGNED
        factors = () if scaling is None else tuple(map(float, scaling))
        wrong = _wrong(geometry, factors, space)
        if wrong:
            raise InputError(f"its {wrong}")
        domain = VolumeDomain(samples.shape, name, low, high, geometry, factors, space)
        return cls(domain, samples[..., None])


def _range(samples: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value, found in parts of bounded memory.

    Raises:
        InputError: a value is NaN or infinite.
    """
    slowest = max(range(3), key=lambda axis: abs(samples.strides[axis]))
    lows, highs, bad = [], [], 0
    for part in np.moveaxis(samples, slowest, 0):
        if samples.dtype.kind == "f":
            bad += part.size - int(np.isfinite(part).sum())
        lows.append(part.min().item())
        highs.append(part.max().item())
    if bad:
        raise InputError(f"holds {bad:,} NaN or infinite voxels: replace them first")
    return min(lows), max(highs)


def render_volume(field: Field, place: Window | None = None) -> np.ndarray:
    """Sample a volume's field; see `VolumeDomain.window`, and `VolumeDomain.resampled` for where.

    Returns:
        Array of the window's shape, in the volume's own type, as stored (see `scaling`).

    Raises:
        UsageError: the field is none of a volume.
    """
    from inr.rendering import render_window

    domain = field.domain
    if not isinstance(domain, VolumeDomain):
        raise UsageError("this field is none of a volume: fit it to one, or load it from a file")
    return render_window(field, *(place or domain.window()))[..., 0]


# ------------------------------------------------------------------------------- reading


def open_volume(
    source: str | Path | bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    spacing: list[float] | None = None,
    index: int | None = None,
) -> Volume:
    """Read a volume from a path or from the bytes of a file.

    NIfTI (`.nii`, `.nii.gz`), `.npy`, `.npz` (see `EXTRAS`), TIFF stacks, and folders of one DICOM
    series.

    Args:
        source: Path, or bytes.
        limits: What it may ask for.
        spacing: Size of a voxel in mm along each axis, as [1,1,1], where the source does not say
            it or is wrong.
        index: Which volume, from 0, of a NIfTI file of several.

    Raises:
        InputError: no volume, damaged, or holding values that cannot be fitted.
        LimitExceeded: more voxels than `limits` allow.
    """
    name = "standard input" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes):
        source = Path(source)
    try:
        volume = _reader(source, index)(source, limits)
        if spacing is not None:
            volume = Volume.from_array(
                volume.samples[..., 0], spacing=spacing, scaling=volume.domain.scaling or None
            )
        return volume
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except OSError as error:
        raise InputError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None
    except Exception as error:  # readers raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: is damaged or no volume ({reason})") from None


def _reader(source: Path | bytes, index: int | None) -> Callable[[Any, Limits], Volume]:
    """What reads a source, by its first bytes."""
    from inr.signals import dicom, nifti, peek, tiffstack

    head = peek.head(source)
    if peek.is_nifti(head) or peek.is_gzip(head):
        return functools.partial(nifti.read, index=index)
    if index is not None:
        raise InputError("is no NIfTI file: its volume has no index")
    if isinstance(source, Path) and source.is_dir():
        return dicom.read_folder
    if head[:4] == b"PK\x03\x04" or head[:6] == b"\x93NUMPY":
        return _read_numpy
    if peek.is_tiff(head):
        return tiffstack.read
    if peek.is_dicom(head):
        raise InputError("is one file of a DICOM series: give the folder that holds the series")
    if isinstance(source, Path):
        with source.open("rb"):  # or the system says why not
            pass
    raise InputError("is no volume: give NIfTI, a TIFF stack, .npy, .npz, or a folder of DICOM")


def _read_numpy(source: Path | bytes, limits: Limits) -> Volume:
    from inr.signals import npyfile

    samples, extras = npyfile.load(source, limits, EXTRAS)
    if "spacing" in extras:  # one for all axes, or one each
        extras["spacing"] = np.broadcast_to(extras["spacing"].ravel(), (3,))
    return Volume.from_array(samples, **extras)  # type: ignore[arg-type]
