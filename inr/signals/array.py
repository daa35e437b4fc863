"""Arrays: numbers of 1 to 5 axes without further meaning, such as samples of a function.

Sample k of n along an axis lies at the centre of cell k of n equal cells of [-1, 1]. Float64 stays
float64 from the fit's first step to the decode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from inr.errors import CorruptFile, InputError
from inr.limits import Limits
from inr.metrics import psnr
from inr.signals import npyfile
from inr.signals.base import Domain, GridSignal

if TYPE_CHECKING:
    from fields.base import Field

MAX_AXES = 5
MAX_CHANNELS = 4096

CHANNEL_SIZES = (2, 3, 4)
"""A last axis of so many entries behind others is taken to hold the channels of one sample."""

DTYPES: dict[str, Any] = {"u1": np.uint8, "i2": np.int16, "u2": np.uint16, "i4": np.int32,
          "f4": np.float32, "f8": np.float64}  # fmt: skip
"""Types of samples by the name that files carry."""


class Ranged(Domain):
    """A domain of numbers of one type, whose range is that of the samples themselves.

    Attributes:
        dtype: Type of a value, a key of `DTYPES`.
        low: Value that -1 stands for: the lowest.
        high: Value that 1 stands for: the highest.
    """

    dtype: str
    low: float
    high: float

    @property
    def peak(self) -> float:
        return float(self.high) - float(self.low) or 1.0

    @property
    def grain(self) -> float:
        if self.dtype[0] == "f":
            return float(np.finfo(DTYPES[self.dtype]).eps)
        return 2 / self.peak

    @property
    def precision(self) -> str:
        return "float64" if self.dtype == "f8" else "float32"

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        """Normalise samples to floats in [-1, 1]; a constant becomes 0."""
        if self.high == self.low:
            return np.zeros(samples.shape, self.precision)
        # halves first: the range of float64 may exceed float64
        middle, half = self.low / 2 + self.high / 2, self.high / 2 - self.low / 2
        return ((samples.astype(np.float64) - middle) / half).astype(self.precision)

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        clipped = np.clip(values.astype(np.float64), -1, 1)
        scaled = clipped * (self.high / 2 - self.low / 2) + (self.low / 2 + self.high / 2)
        if self.dtype[0] != "f":  # an integer for NaN must be the same on every machine
            scaled = np.nan_to_num(np.rint(scaled), copy=False)
        return scaled.clip(self.low, self.high).astype(DTYPES[self.dtype])


def check_range(dtype: Any, low: Any, high: Any) -> None:
    """Raise CorruptFile unless a header's type is known and its range lies within it."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CorruptFile("the header claims values of an unknown type")
    number: Any = float if dtype[0] == "f" else int
    limits: Any = (np.finfo if dtype[0] == "f" else np.iinfo)(DTYPES[dtype])
    lowest, highest = number(limits.min), number(limits.max)
    if not (type(low) is type(high) is number and lowest <= low <= high <= highest):
        raise CorruptFile("the value range in the header is malformed")


def in_known_type(samples: np.ndarray) -> tuple[np.ndarray, str]:
    """The same numbers in the machine's byte order and a type of `DTYPES`, and its name.

    Raises:
        InputError: none holds them.
    """
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if samples.dtype in (np.bool_, np.int8):
        samples = samples.astype(np.uint8 if samples.dtype == np.bool_ else np.int16)
    elif samples.dtype == np.float16:
        samples = samples.astype(np.float32)
    elif samples.dtype.kind in "iu" and samples.dtype.itemsize > 2:
        narrow = samples.astype(np.int32, copy=False)
        samples = narrow if np.array_equal(samples, narrow) else samples
    name = {np.dtype(t): name for name, t in DTYPES.items()}.get(samples.dtype)
    if name is None:
        raise InputError(
            f"values of type {samples.dtype} are not supported: convert them to integers "
            "within 32 bits or to float"
        )
    return samples, name


@dataclass(frozen=True)
class ArrayDomain(Ranged):
    """Shape, type and value range of an array.

    Args:
        shape: Samples per axis, 1 to 5 of them.
        channels: Values per sample.
        dtype: Type of a value, a key of `DTYPES`.
        low: Value that -1 stands for: the array's lowest.
        high: Value that 1 stands for: the array's highest.
    """

    kind: ClassVar[str] = "array"
    shape: tuple[int, ...]
    channels: int
    dtype: str
    low: float
    high: float

    def header(self) -> list[Any]:
        return [list(self.shape), self.channels, self.dtype, self.low, self.high]

    @classmethod
    def from_header(cls, items: Any) -> Self:
        if not isinstance(items, list) or len(items) != 5:
            raise CorruptFile("the array domain in the header is malformed")
        shape, channels, dtype, low, high = items
        if not isinstance(shape, list) or not all(type(n) is int for n in (*shape, channels)):
            raise CorruptFile("the array domain in the header is malformed")
        sizes = 1 <= len(shape) <= MAX_AXES and all(0 < n < 1 << 31 for n in shape)
        if not sizes or not 0 < channels <= MAX_CHANNELS:
            raise CorruptFile(f"the header claims an array of {str(shape)[:80]} x {channels}")
        check_range(dtype, low, high)
        return cls(tuple(shape), channels, dtype, low, high)

    def describe(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "channels": self.channels,
            "dtype": np.dtype(DTYPES[self.dtype]).name,
            "low": self.low,
            "high": self.high,
        }


class ArraySignal(GridSignal):
    """An array to be fitted; `ArraySignal.from_array` makes one from numpy."""

    domain: ArrayDomain

    @classmethod
    def from_array(cls, samples: np.ndarray, *, channels_last: bool | None = None) -> Self:
        """Make a signal from samples of shape (n_0, ..., n_d) or (n_0, ..., n_d, channels).

        Args:
            samples: Integers within 32 bits, or finite floats; float64 is kept as such.
            channels_last: Whether the last axis holds the channels of one sample. If not given, it
                does where it has 2 to 4 entries and other axes stand before it.

        Raises:
            InputError: the shape, the type or a value cannot be fitted.
        """
        if channels_last is None:
            channels_last = samples.ndim > 1 and samples.shape[-1] in CHANNEL_SIZES
        samples = samples if channels_last else samples[..., None]
        *shape, channels = samples.shape if samples.ndim else (0,)
        if not 1 <= len(shape) <= MAX_AXES or 0 in samples.shape or channels > MAX_CHANNELS:
            raise InputError(
                f"an array of shape {tuple(shape)} with {channels} channels cannot be fitted: "
                f"give 1 to {MAX_AXES} axes and 1 to {MAX_CHANNELS} channels"
            )
        samples, name = in_known_type(samples)
        if not np.isfinite(samples).all():
            raise InputError("the array holds NaN or infinite values: replace them first")
        samples = np.ascontiguousarray(samples)
        low, high = samples.min().item(), samples.max().item()
        domain = ArrayDomain(tuple(shape), channels, name, low, high)
        return cls(domain, samples)

    def metrics(self, field: Field) -> dict[str, float]:
        """Quality of the decode in the array's own type, and before rounding.

        `psnr` with the array's range as R; `psnr_float` before rounding; `relative_l2`, the norm of
        the error over that of the array.
        """
        errors = self.measure(field)
        share = errors.rounded / (errors.power or 1 / self.samples.size)
        return {
            "psnr": psnr(errors.rounded, self.domain.peak),
            "psnr_float": psnr(errors.exact, 2.0),
            "relative_l2": math.sqrt(share),
        }


def open_array(source: str | Path | bytes, limits: Limits = Limits()) -> ArraySignal:  # noqa: B008
    """Read a `.npy` file, or a `.npz` file of one array, from a path or from its bytes.

    Raises:
        InputError: it is no such file, damaged, or holding values that cannot be fitted.
        LimitExceeded: more samples than `limits` allow.
    """
    from inr.files import read_bytes

    name = "standard input" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_bytes(source, limits.source_bytes)
    try:
        samples, _ = npyfile.load(data, limits)
        return ArraySignal.from_array(samples)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None
    except Exception as error:  # numpy and zipfile raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: is no .npy or .npz file ({reason})") from None
