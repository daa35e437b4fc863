"""Sound: PCM of 8 to 32 bits and float, any number of channels up to 32.

Sample k of a sound of n lies at the instant k / rate. Its coordinate is that of the centre of cell
k of n equal cells of [-1, 1], so that images and sound share their lattice.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple, Self

import numpy as np

from inr.errors import CorruptFile, InputError, OutputError, UsageError
from inr.limits import Limits
from inr.metrics import psnr
from inr.rendering import render_window
from inr.signals.base import Domain, GridSignal
from inr.signals.spectral import LogSpectralDistance, Silence

if TYPE_CHECKING:
    from fields.base import Field

FLOAT = -32
"""The depth that stands for float32, as in FITS; integers have their number of bits."""

DTYPES: dict[int, Any] = {8: np.int16, 16: np.int16, 24: np.int32, 32: np.int32, FLOAT: np.float32}
"""The type of samples by depth. Integers narrower than theirs are left-justified in it, as in
libsndfile and scipy, so that full scale is that of the type."""

DEPTH_NAMES = {"8": 8, "16": 16, "24": 24, "32": 32, "float": FLOAT}
"""What people call them."""

FLOAT_MAX = float(np.finfo(np.float32).max)
MAX_CHANNELS = 32
MAX_RATE = (1 << 31) - 1

READABLE = ("AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX")
"""What libsndfile may open. Its others are raw data, or of instruments of the past."""

DEPTHS = {
    "PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32,
    "ALAC_16": 16, "ALAC_20": 24, "ALAC_24": 24, "ALAC_32": 32,
    "ULAW": 16, "ALAW": 16, "IMA_ADPCM": 16, "MS_ADPCM": 16, "GSM610": 16,
    "FLOAT": FLOAT, "DOUBLE": FLOAT, "VORBIS": FLOAT, "OPUS": FLOAT,
    "MPEG_LAYER_I": FLOAT, "MPEG_LAYER_II": FLOAT, "MPEG_LAYER_III": FLOAT,
}  # fmt: skip
"""libsndfile's codings, each with the depth that holds all that its decoder gives."""


class Container(NamedTuple):
    """What a file format holds."""

    name: str
    channels: int
    lowest_rate: int
    highest_rate: int
    subtypes: dict[int, str]


_PCM = {16: "PCM_16", 24: "PCM_24", 32: "PCM_32", FLOAT: "FLOAT"}
_AIFF = Container("AIFF", MAX_CHANNELS, 1, MAX_RATE, {8: "PCM_S8"} | _PCM)
WRITABLE = {
    ".aif": _AIFF,
    ".aiff": _AIFF,
    ".flac": Container(
        "FLAC", 8, 1, 655_350, {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24", FLOAT: "PCM_24"}
    ),
    # beyond these rates libvorbis crashes the process
    ".ogg": Container("OGG", 8, 8000, 192_000, dict.fromkeys(DTYPES, "VORBIS")),
    ".wav": Container("WAV", MAX_CHANNELS, 1, MAX_RATE, {8: "PCM_U8"} | _PCM),
}
"""Formats that are written, by suffix."""

UNKNOWN_LENGTH = 0x7FFF0000
"""A RIFF header that claims this many bytes or more was written into a pipe."""


@dataclass(frozen=True)
class AudioDomain(Domain):
    """Length, channels, rate, depth and value range of a sound.

    Args:
        samples: Samples per channel, n.
        channels: 1 mono, 2 stereo (left, right), up to 32.
        rate: Samples per second.
        depth: Bits of an integer sample: 8, 16, 24 or 32; or -32 for float32.
        low: Value that -1 stands for: the clip's lowest, in units of the last bit for integers.
        high: Value that 1 stands for: the clip's highest.
    """

    kind: ClassVar[str] = "audio"
    samples: int
    channels: int
    rate: int
    depth: int
    low: float
    high: float

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.samples,)

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return self.samples / self.rate

    def header(self) -> list[Any]:
        return [self.samples, self.channels, self.rate, self.depth, self.low, self.high]

    @classmethod
    def from_header(cls, items: Any) -> Self:
        if not isinstance(items, list) or len(items) != 6:
            raise CorruptFile("the audio domain in the header is malformed")
        samples, channels, rate, depth, low, high = items
        if not all(type(n) is int for n in items[:4]) or depth not in DTYPES:
            raise CorruptFile("the audio domain in the header is malformed")
        sizes = 0 < samples < 1 << 31 and 0 < channels <= MAX_CHANNELS and 0 < rate <= MAX_RATE
        if not sizes:
            raise CorruptFile(f"the header claims {samples} x {channels} samples at {rate} Hz")
        if depth == FLOAT:
            sound = type(low) is type(high) is float and -FLOAT_MAX <= low <= high <= FLOAT_MAX
        else:
            full = _full(depth)
            sound = type(low) is type(high) is int and -full <= low <= high < full
        if not sound:
            raise CorruptFile("the value range in the header is malformed")
        return cls(samples, channels, rate, depth, low, high)

    def describe(self) -> dict[str, Any]:
        return {
            "length_seconds": round(self.seconds, 6),
            "samples": self.samples,
            "rate": self.rate,
            "channels": self.channels,
            "depth": "float32" if self.depth == FLOAT else self.depth,
            "low": self.low,
            "high": self.high,
        }

    def density(self, file_bytes: int) -> dict[str, float]:
        return {"kbps": 8 * file_bytes / self.seconds / 1000} | super().density(file_bytes)

    @property
    def peak(self) -> float:
        return (self.high - self.low) * _unit(self.depth) or 1.0

    @property
    def grain(self) -> float:
        finest = 2.0**-23  # float32 tells no more
        if self.depth == FLOAT or self.high == self.low:
            return finest
        return max(2 / (self.high - self.low), finest)

    def first_edge(self, start: float, width: float) -> float:
        # samples lie at instants start + j width, whatever the width
        return start + (1 - width) / 2

    def cell_centres(self, axis: int, start: float, stop: float, n: int) -> np.ndarray:
        # at another rate the outermost cells reach beyond the sound, where no field is fitted
        return super().cell_centres(axis, start, stop, n).clip(-1, 1)

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        """Normalise samples to float32 in [-1, 1]; a constant becomes 0."""
        if self.high == self.low:
            return np.zeros(samples.shape, np.float32)
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return ((samples.astype(np.float64) / _unit(self.depth) - middle) / half).astype(np.float32)

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        clipped = np.clip(values.astype(np.float64), -1, 1)
        scaled = (clipped + 1) * ((self.high - self.low) / 2) + self.low
        if self.depth != FLOAT:  # an integer for NaN must be the same on every machine
            full = _full(self.depth)
            scaled = np.nan_to_num(np.rint(scaled), copy=False).clip(-full, full - 1)
            scaled *= _unit(self.depth)
        return scaled.astype(DTYPES[self.depth])

    def at_depth(self, depth: int) -> AudioDomain:
        """The same sound for samples of another depth; what exceeds full scale will be clipped.

        It is for rendering alone: its range may be no whole numbers, which a header has.
        """
        scale = _full(depth) / _full(self.depth)
        return dataclasses.replace(self, depth=depth, low=self.low * scale, high=self.high * scale)

    def window(
        self, rate: int | None = None, start: float | None = None, end: float | None = None
    ) -> tuple[int, float, float]:
        """Where the samples of a piece lie: (number, first position, length), in source samples.

        Sample j lies at the instant j / rate, counted from the beginning of the sound; the piece
        has those j for which it is within [start, end), to the nearest sample. So a piece is a
        part of the whole at the same rate.

        Args:
            rate: Samples per second; the source's if not given.
            start: Seconds at which it begins.
            end: Seconds before which it ends.

        Raises:
            UsageError: a number is out of range, or no sample is left.
        """
        hertz = self.rate if rate is None else rate
        if not 1 <= hertz <= MAX_RATE:
            raise UsageError(f"rate is {hertz}: give Hz from 1 to {MAX_RATE:,}")
        for name, value in (("start", start), ("end", end)):
            if value is not None and not 0 <= value <= self.seconds * (1 + 1e-9):
                raise UsageError(f"{name} is {value}: give seconds from 0 to {self.seconds:g}")
        whole = -(-self.samples * hertz // self.rate)
        first = 0 if start is None else round(start * hertz)
        last = whole if end is None else min(round(end * hertz), whole)
        if first >= last:
            raise UsageError(
                f"no sample lies between {start or 0:g} s and "
                f"{self.seconds if end is None else end:g} s: give an end behind the start"
            )
        step = self.rate / hertz
        return last - first, first * step, (last - first) * step


def _full(depth: int) -> int:
    """Full scale in units of the last bit, 1 for floats."""
    return 1 if depth == FLOAT else 1 << (depth - 1)


def _unit(depth: int) -> int:
    """What the last bit of an integer of that depth, or a float of 1, is in its type."""
    return 1 if depth == FLOAT else 1 << (8 * np.dtype(DTYPES[depth]).itemsize - depth)


LONG = 1 << 21
"""Samples beyond which a sound takes the preset for long ones."""

TOLD_SILENCE = 0.1
"""Part of a sound that is told where it is lost."""


class Audio(GridSignal):
    """A sound to be fitted; `Audio.from_array` makes one from numpy."""

    shown = ("snr", "lsd")
    domain: AudioDomain

    @classmethod
    def from_array(cls, samples: np.ndarray, rate: int, *, depth: int | None = None) -> Self:
        """Make a signal from samples of shape (n,) or (n, channels).

        Args:
            samples: int16 or int32 (full range), uint8 (128 is zero), or finite floats.
            rate: Samples per second.
            depth: Bits that an integer really has, left-justified: 8 of int16, 24 of int32.

        Raises:
            InputError: the shape, the type, the rate or a value does not make a sound.
        """
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or not 0 < samples.shape[1] <= MAX_CHANNELS or len(samples) == 0:
            raise InputError(
                f"an array of shape {samples.shape} is no sound: "
                f"give (samples, channels), of 1 to {MAX_CHANNELS} channels"
            )
        if not 1 <= rate <= MAX_RATE:
            raise InputError(f"a rate of {rate} Hz is out of range: give 1 to {MAX_RATE:,}")
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        if samples.dtype == np.uint8:
            samples, depth = (samples.astype(np.int16) - 128) << 8, 8
        if samples.dtype in (np.int16, np.int32):
            depth = 8 * samples.dtype.itemsize if depth is None else depth
        elif samples.dtype.kind == "f":
            with np.errstate(over="ignore"):
                samples = samples.astype(np.float32)
            if not np.isfinite(samples).all():
                raise InputError("the sound holds NaN or infinite values: replace them first")
            depth = FLOAT if depth is None else depth
        if depth is None or DTYPES.get(depth) != samples.dtype:
            raise InputError(
                f"samples of type {samples.dtype}, {depth or 'unknown'} bits deep, are not "
                "supported: convert them to 16 or 32 bits signed, or to float"
            )
        samples = np.ascontiguousarray(samples)
        n, channels = samples.shape
        low, high = samples.min().item(), samples.max().item()
        if depth != FLOAT:  # bits below the depth, should there be any, are rounded
            low, high = (round(x / _unit(depth)) for x in (low, high))
        domain = AudioDomain(n, channels, int(rate), depth, low, high)
        return cls(domain, samples)

    @property
    def preset(self) -> str | None:
        return "audio/windows-long" if self.count > LONG else None

    @property
    def objection(self) -> str | None:
        if self.domain.low < self.domain.high:
            return None
        return "is silent: all its samples are alike, and there is nothing to fit"

    @property
    def notes(self) -> tuple[str, ...]:
        found = []
        if self.preset is not None:
            found.append(f"a sound of {self.domain.seconds:.0f} s: {self.preset} suits it")
        if self.count > 1 << 24:
            found.append(
                "coordinates have 24 bits: of so long a sound neighbouring samples may share one; "
                "cut it up where that matters"
            )
        return tuple(found)

    def metrics(self, field: Field) -> dict[str, float]:
        """`psnr` and `snr` of the decode in the sound's own type, `psnr_float` before rounding.

        R of the PSNR is the clip's own range, from its lowest to its highest value: 2 after
        normalisation, as in the literature, which scales a clip to [-1, 1]. For a quiet clip this
        is lower than the PSNR at full scale, by 20 log10(2 / range). `snr` is the clip's power
        about zero, a constant offset included, over that of the error. `lsd` is the log-spectral
        distance (see `LogSpectralDistance`), and `silent` the part of the clip in which the
        decode is silent and the sound is not (see `Silence`).
        """
        spectra = LogSpectralDistance(self.channels)
        silence = Silence(self.channels)

        def watch(original: np.ndarray, decoded: np.ndarray) -> None:
            pair = self.domain.to_values(original), self.domain.to_values(decoded)
            spectra.add(*pair)
            silence.add(*pair)

        errors = self.measure(field, watch)
        return {
            "psnr": psnr(errors.rounded, self.domain.peak),
            "psnr_float": psnr(errors.exact, 2.0),
            "snr": psnr(errors.rounded, math.sqrt(errors.power)),
            "lsd": spectra.value(),
            "silent": silence.value(),
        }

    def quality(self, field: Field) -> float:
        return psnr(self.measure(field).rounded, self.domain.peak)

    def verdict(self, field: Field, metrics: dict[str, float]) -> list[str]:
        """Tell the spectral bottleneck: a network that cannot reach a sound's frequencies is mute.

        H. Chandravamsi et al., arXiv:2509.09719: at such frequencies a sine network that starts
        too low ends at zero output instead.
        """
        lost = metrics["silent"]
        if lost < TOLD_SILENCE:
            return []
        from fields.windows import Windows

        others = "" if isinstance(field, Windows) else "the default field (windows), "
        where = "all of" if lost > 0.995 else f"{lost:.0%} of"
        return [
            f"the fit is silent in {where} the sound, whose frequencies its network does not reach "
            f"(spectral bottleneck): try {others}--init winner, more steps or a "
            "lower sample rate"
        ]


# ------------------------------------------------------------------------------- reading


def open_audio(source: str | Path | bytes, limits: Limits = Limits()) -> Audio:  # noqa: B008
    """Read a sound from a path or from the bytes of a file.

    WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and what else is in `READABLE`. PCM keeps its depth;
    what MP3 and Ogg decode to is float.

    Raises:
        InputError: no sound, damaged, or holding values that cannot be fitted.
        LimitExceeded: more samples than `limits` allow.
    """
    name = "standard input" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        data = source
    else:
        from inr.files import read_bytes

        data = read_bytes(source, limits.source_bytes)
    if not data:
        raise InputError(f"{name}: is empty")
    try:
        return _decode(data, limits)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None


class _Bytes(io.BytesIO):
    """The bytes of a file; where damage asks for an impossible place, it stays where it is.

    libsndfile notices; from an exception inside its callback it would print a traceback.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _decode(data: bytes, limits: Limits) -> Audio:
    """The sound in a file; damage of any kind is an InputError of one line."""
    soundfile = _soundfile()
    order = {b"RIFF": "little", b"FORM": "big"}.get(data[:4])
    claimed = int.from_bytes(data[4:8], order) if order else 0  # type: ignore[arg-type]
    if len(data) - 8 < claimed - 1 and claimed < UNKNOWN_LENGTH:  # libsndfile would not say
        raise InputError(f"is cut short: {len(data):,} bytes of {claimed + 8:,}")
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            depth = DEPTHS.get(file.subtype)
            if file.format not in READABLE or depth is None:
                raise InputError(
                    f"holds {file.format} sound coded as {file.subtype}, which is not supported: "
                    "save it anew as WAV or FLAC"
                )
            if file.frames == 0:
                raise InputError("holds no samples")
            if file.frames > 1 << 48:
                raise InputError("does not say how long it is: save it anew as WAV or FLAC")
            limits.check_samples((file.frames, file.channels))
            claimed, rate = file.frames, file.samplerate
            samples = file.read(dtype=np.dtype(DTYPES[depth]).name, always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error :").strip(" .").lower()
        raise InputError(
            f"is damaged or no sound ({reason}): save it anew as WAV or FLAC"
        ) from None
    if len(samples) < claimed:
        raise InputError(f"is cut short: {len(samples):,} samples of {claimed:,}")
    return Audio.from_array(samples, rate, depth=depth)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: without libsndfile
        raise InputError(
            "sound needs the package soundfile: pip install 'inr-studio[audio]'"
        ) from None
    return soundfile


# --------------------------------------------------------------------- rendering, writing


def render_audio(
    field: Field,
    rate: int | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
) -> np.ndarray:
    """Sample a sound's field at any rate, in the sound's own type; see `AudioDomain.window`.

    At a lower rate than the source's each sample is the mean over its stretch, which weakens what
    would alias, and weakens the highest frequencies too.

    Returns:
        Array of shape (samples, channels).

    Raises:
        UsageError: an argument does not fit the sound.
    """
    domain = field.domain
    if not isinstance(domain, AudioDomain):
        raise UsageError("this field is none of a sound: fit it to one, or load it from a file")
    n, first, length = domain.window(rate, start, end)
    return render_window(field, (n,), (first,), (length,))


def write_audio(
    target: Path | BinaryIO,
    samples: np.ndarray | Iterable[np.ndarray],
    domain: AudioDomain,
    suffix: str = "",
    *,
    rate: int | None = None,
) -> None:
    """Write samples of shape (n, channels), or pieces of such as they come, as the suffix says.

    WAV and AIFF hold every depth, FLAC 8 to 24 bits, and floats within [-1, 1] as 24 bits; Ogg
    (Vorbis) is lossy. A path should be a temporary one (see `inr.files.atomic_path`); an open
    file needs a `suffix`.

    Args:
        target: Where to write.
        samples: In the domain's type.
        domain: Channels and depth.
        suffix: Format; a path's own if not given.
        rate: Samples per second, where it is not the domain's.

    Raises:
        UsageError: the format is unknown, or cannot hold this.
        OutputError: the file could not be written whole.
    """
    if isinstance(target, Path):
        suffix = suffix or target.suffix
    rate = domain.rate if rate is None else rate
    check_format(suffix, domain, rate)
    container = WRITABLE[suffix.lower()]
    soundfile = _soundfile()
    pieces = [samples] if isinstance(samples, np.ndarray) else samples
    try:
        with soundfile.SoundFile(
            str(target) if isinstance(target, Path) else target,
            "w",
            samplerate=rate,
            channels=domain.channels,
            format=container.name,
            subtype=container.subtypes[domain.depth],
        ) as file:
            for piece in pieces:
                file.write(piece)
    except soundfile.LibsndfileError as error:
        raise OutputError(
            f"{target if isinstance(target, Path) else 'sound'}: could not be written whole "
            f"({error.error_string.strip(' .').lower()}); is the disk full?"
        ) from None


def check_format(suffix: str, domain: AudioDomain, rate: int) -> None:
    """Raise UsageError now if `write_audio` would refuse this suffix for this domain and rate."""
    container = WRITABLE.get(suffix.lower())
    if container is None:
        raise UsageError(f"sound is not written as {suffix!r}: try .wav or .flac")
    if domain.depth not in container.subtypes:
        raise UsageError(f"{suffix} cannot hold {domain.depth}-bit samples: write .wav")
    if (
        container.name == "FLAC"
        and domain.depth == FLOAT
        and not -1 <= domain.low <= domain.high <= 1
    ):
        raise UsageError(f"{suffix} cannot hold float values beyond -1 and 1: write .wav")
    if domain.channels > container.channels:
        raise UsageError(f"{suffix} cannot hold {domain.channels} channels: write .wav")
    if not container.lowest_rate <= rate <= container.highest_rate:
        raise UsageError(
            f"{suffix} cannot hold {rate:,} Hz: choose a rate from {container.lowest_rate:,} to "
            f"{container.highest_rate:,}, or write .wav"
        )
