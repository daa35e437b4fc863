"""Moving pictures: 8 and 16 bits per sample, grey or RGB, at an even frame rate.

Frame k of a clip of T is shown from k / rate to (k + 1) / rate, and pixel (i, j) covers the cell
[i, i+1) x [j, j+1). Samples lie at the centres of these cells, on all three axes (t, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits
from inr.metrics import bits_per_pixel
from inr.signals.base import Domain, GridSignal

if TYPE_CHECKING:
    from fields.base import Field

MODES = {1: "grey", 3: "RGB"}
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16}
DEFAULT_RATE = Fraction(25)
"""Frames per second of what does not say, such as a folder of pictures."""

HIGHEST_RATE = 100_000
LONGEST_FRAME = 1000
"""Seconds that a frame may last."""


@dataclass(frozen=True)
class VideoDomain(Domain):
    """Length, size, channels, frame rate and depth of a clip.

    Args:
        frames: Frames, T.
        height: Rows.
        width: Columns.
        channels: 1 grey, 3 RGB.
        rate: Frames per second, exactly.
        depth: Bits per sample: 8 or 16, unsigned, full range.
    """

    kind: ClassVar[str] = "video"
    frames: int
    height: int
    width: int
    channels: int
    rate: Fraction = DEFAULT_RATE
    depth: int = 8

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.frames, self.height, self.width)

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return float(self.frames / self.rate)

    def header(self) -> list[Any]:
        sizes = [self.frames, self.height, self.width, self.channels]
        return [*sizes, self.rate.numerator, self.rate.denominator, self.depth]

    @classmethod
    def from_header(cls, items: Any) -> Self:
        if not isinstance(items, list) or len(items) != 7 or not all(type(n) is int for n in items):
            raise CorruptFile("the video domain in the header is malformed")
        frames, height, width, channels, top, bottom, depth = items
        if not all(0 < n < 1 << 31 for n in items[:3]) or channels not in MODES:
            raise CorruptFile(
                f"the header claims a video of {frames} x {height} x {width} x {channels}"
            )
        lasting = 0 < top < 1 << 31 and 0 < bottom < 1 << 31
        # lowest terms: one domain has one header
        if not lasting or math.gcd(top, bottom) != 1 or not _possible(Fraction(top, bottom)):
            raise CorruptFile(f"the header claims {top}/{bottom} frames per second")
        if depth not in DTYPES:
            raise CorruptFile(f"the header claims {depth} bits per sample")
        return cls(frames, height, width, channels, Fraction(top, bottom), depth)

    def describe(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "height": self.height,
            "width": self.width,
            "mode": MODES[self.channels],
            "depth": self.depth,
            "fps": round(float(self.rate), 3),
            "length_seconds": round(self.seconds, 6),
        }

    def density(self, file_bytes: int) -> dict[str, float]:
        pixels = math.prod(self.shape)
        return {
            "kbps": 8 * file_bytes / self.seconds / 1000,
            "bpp": bits_per_pixel(file_bytes, pixels),
        }

    @property
    def peak(self) -> float:
        return float(2**self.depth - 1)

    @property
    def grain(self) -> float:
        return 2 / self.peak

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        values = samples.astype(np.float32)  # exact, and the only copy: a clip may be large
        values *= np.float32(2 / self.peak)
        values -= 1
        return values

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        clipped = np.clip(values.astype(np.float64), -1, 1)
        # an integer for NaN must be the same on every machine
        scaled = np.nan_to_num(np.rint((clipped + 1) * (self.peak / 2)), copy=False)
        return scaled.astype(DTYPES[self.depth])

    def window(
        self,
        fps: Fraction | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> tuple[int, float, float]:
        """Where the frames of a piece lie: (number, first edge, length), in source frames.

        Frame j of the piece is shown from start + j / fps to start + (j + 1) / fps. What is left
        behind the last whole one, less than a frame, is left out.

        Args:
            fps: Frames per second; the source's if not given.
            start: Seconds at which it begins.
            end: Seconds at which it ends.

        Raises:
            UsageError: a number is out of range, or no frame is left.
        """
        rate = self.rate if fps is None else fps
        if not _possible(rate):
            raise UsageError(_bad_rate(rate))
        for name, value in (("start", start), ("end", end)):
            if value is not None and not 0 <= value <= self.seconds * (1 + 1e-9):
                raise UsageError(f"{name} is {value}: give seconds from 0 to {self.seconds:g}")
        first = 0.0 if start is None else min(start * float(self.rate), float(self.frames))
        last = float(self.frames) if end is None else end * float(self.rate)
        width = float(self.rate / rate)
        count = math.floor((min(last, self.frames) - first) / width + 1e-6)
        if count < 1:
            raise UsageError(
                f"no frame lies between {start or 0:g} s and "
                f"{self.seconds if end is None else end:g} s: give an end behind the start, "
                "or a higher fps"
            )
        return count, first, count * width


def rational(fps: float) -> Fraction:
    """A frame rate as a ratio, that of television (29.97 is 30000/1001) where it is meant.

    Raises:
        UsageError: it is no possible rate.
    """
    if not math.isfinite(fps) or not _possible(Fraction(fps)):
        raise UsageError(_bad_rate(fps))
    television = Fraction(1000 * round(fps * 1.001), 1001)
    if fps != round(fps) and abs(float(television) - fps) < 0.005:
        return television
    return Fraction(fps).limit_denominator(1000)


def _possible(rate: Fraction) -> bool:
    return Fraction(1, LONGEST_FRAME) <= rate <= HIGHEST_RATE


def _bad_rate(rate: float | Fraction) -> str:
    return f"fps is {float(rate):g}: give frames per second, up to {HIGHEST_RATE:,}"


class Video(GridSignal):
    """A clip to be fitted; `Video.from_array` makes one from numpy."""

    domain: VideoDomain
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_array(
        cls, samples: np.ndarray, rate: Fraction = DEFAULT_RATE, *, remarks: tuple[str, ...] = ()
    ) -> Self:
        """Make a signal from samples of shape (frames, height, width) or (..., channels).

        Args:
            samples: uint8 or uint16, full range; it may lie in a file (`numpy.memmap`), from which
                only what is looked at is read.
            rate: Frames per second.
            remarks: What `notes` is to say.

        Raises:
            InputError: the shape, the type or the rate does not make a clip.
        """
        samples = samples[..., None] if samples.ndim == 3 else samples
        if samples.ndim != 4 or 0 in samples.shape or samples.shape[-1] not in MODES:
            raise InputError(
                f"an array of shape {samples.shape} is no clip: give (frames, height, width, "
                "channels), of 1 or 3 channels"
            )
        if samples.dtype.kind != "u" or samples.dtype.itemsize > 2:
            raise InputError(
                f"samples of type {samples.dtype} are not supported: "
                "convert them to 8 or 16 bits unsigned"
            )
        if len(samples) == 1:
            raise InputError("holds one frame: that is a picture; fit it as an image")
        if not _possible(rate):
            raise InputError(_bad_rate(rate))
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        if not samples.flags.c_contiguous:
            samples = np.ascontiguousarray(samples)
        frames, height, width, channels = samples.shape
        depth = 8 * samples.dtype.itemsize
        signal = cls(VideoDomain(frames, height, width, channels, rate, depth), samples)
        signal.remarks = remarks
        return signal

    @property
    def notes(self) -> tuple[str, ...]:
        return self.remarks


def open_video(
    source: str | Path | bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    fps: float | None = None,
) -> Video:
    """Read a clip from a path, from the bytes of a file, or from a folder of pictures.

    MP4, MOV, MKV, WebM, AVI and what else ffmpeg reads of `inr.signals.ffmpeg.CONTAINERS`;
    animated GIF, WebP, PNG and AVIF; `.npz` and `.npy` arrays of (frames, height, width[, 1 or 3])
    in 8 or 16 bits; a folder, whose pictures are taken in the order of the numbers in their names.
    Frames go into a temporary file as they are read, so that a long clip needs little memory.

    Args:
        source: Path, or bytes.
        limits: What it may ask for.
        fps: Frames per second, instead of what the file says.

    Raises:
        InputError: no clip, damaged, or holding values that cannot be fitted.
        LimitExceeded: more samples than `limits` allow.
        UsageError: `fps` is out of range.
    """
    from inr.signals import clips

    rate = None if fps is None else rational(fps)
    name = "standard input" if isinstance(source, bytes) else str(source)
    given = source if isinstance(source, bytes) else Path(source)
    try:
        clip = clips.read(given, limits, rate)
        return Video.from_array(clip.samples, clip.rate, remarks=tuple(clip.remarks))
    except InputError as error:
        text = str(error)
        raise type(error)(text if text.startswith(name) else f"{name}: {text}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None


def frames_of(
    field: Field,
    size: tuple[int, int],
    place: tuple[int, float, float],
    crop: tuple[float, float, float, float],
) -> Iterator[np.ndarray]:
    """Yield the frames of a rendering one by one, each of shape (height, width, channels).

    Where the result is coarser than the source, each sample is the mean over its cell, in time too.

    Args:
        field: The field of a clip.
        size: (height, width).
        place: What `VideoDomain.window` returned.
        crop: (y, x, height, width), in pixels of the source.
    """
    from inr.rendering import render_bands

    count, first, length = place
    y, x, height, width = crop
    starts, lengths = (first, y, x), (length, height, width)
    for _, band in render_bands(field, field.domain, (count, *size), starts, lengths):
        yield from band
