"""Files of clips: what `inr.signals.video` reads and writes, frame by frame."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inr.errors import InputError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.signals import ffmpeg, image, npyfile, peek
from inr.signals.video import DEFAULT_RATE, DTYPES, VideoDomain, rational

if TYPE_CHECKING:
    import PIL.Image

HELD_BYTES = 1 << 26
"""A clip of at most so many bytes is kept in memory; a larger one in a temporary file."""

ANIMATED = rb"GIF8|\x89PNG|RIFF....WEBP"
"""How the files begin that Pillow reads frame by frame."""

SMALLEST_DURATION = 20
"""Milliseconds; what claims less is played at 100, as browsers do."""

USUAL_DURATION = 100

NO_ALPHA = "its transparency is left out"

WRITABLE = (*ffmpeg.ENCODERS, ".gif", ".npy", ".npz")
"""Formats that are written, by suffix; a name without one is a folder of PNG files."""


class Clip(NamedTuple):
    """What was read.

    Args:
        samples: Shape (frames, height, width[, channels]).
        rate: Frames per second.
        remarks: What was lost or assumed, a line each.
    """

    samples: np.ndarray
    rate: Fraction
    remarks: list[str]


def read(source: Path | bytes, limits: Limits, rate: Fraction | None = None) -> Clip:
    """Read a clip, by what its first bytes say; a folder as one of pictures.

    Args:
        source: Path, or the bytes of a file.
        limits: What it may ask for.
        rate: Frames per second, instead of what the file says.

    Raises:
        InputError: no clip, or damaged; the message does not name the file.
        LimitExceeded: more samples than `limits` allow.
    """
    if isinstance(source, Path) and source.is_dir():
        return _read_folder(source, limits, rate)
    head = _head(source, limits)
    try:
        if head[:4] == b"PK\x03\x04" or head[:6] == b"\x93NUMPY":
            return _read_array(source, limits, rate)
        if re.match(ANIMATED, head, re.DOTALL):
            return _read_animation(source, limits, rate)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow, numpy and zipfile raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"is damaged or unusual ({reason})") from None
    if isinstance(source, Path):
        return _read_video(source, limits, rate)
    with tempfile.NamedTemporaryFile(prefix="inr-") as file:  # ffmpeg jumps to and fro in it
        file.write(source)
        file.flush()
        return _read_video(Path(file.name), limits, rate)


def _head(source: Path | bytes, limits: Limits) -> bytes:
    from inr.files import read_bytes

    if isinstance(source, Path):
        head = peek.head(source) or read_bytes(source, limits.source_bytes)  # which says why
        limits.check("its size in bytes", source.stat().st_size, limits.source_bytes)
    else:
        head = source[:16]
    if not head:
        raise InputError("is empty")
    return head


# ------------------------------------------------------------------------------- reading


def collect(frames: Iterable[np.ndarray], limits: Limits) -> np.ndarray:
    """Frames of one shape as one array, in memory or, where that is large, mapped from a file.

    Raises:
        InputError: they are of several shapes or types, or there is no room for them.
        LimitExceeded: they are too many.
    """
    shape: tuple[int, ...] = ()
    dtype: Any = None
    count = 0
    try:
        with tempfile.TemporaryFile(prefix="inr-") as file:
            for frame in frames:
                if not count:
                    shape, dtype = frame.shape, frame.dtype
                elif (frame.shape, frame.dtype) != (shape, dtype):
                    raise InputError(
                        f"frame {count + 1} is {_size(frame.shape)} in {frame.dtype}, "
                        f"the first {_size(shape)} in {dtype}: make them alike"
                    )
                count += 1
                check_size((count, *shape[:2]), limits)
                file.write(frame.tobytes())
            if not count:
                raise InputError("holds no frames")
            file.flush()
            if count * math.prod(shape) * dtype.itemsize > HELD_BYTES:
                return np.memmap(file, dtype, "r", shape=(count, *shape))
            file.seek(0)
            return np.frombuffer(file.read(), dtype).reshape(count, *shape)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"its frames cannot be kept in {tempfile.gettempdir()}: {reason}"
        ) from None


def check_size(shape: tuple[int, ...], limits: Limits) -> None:
    """Raise LimitExceeded where (frames, height, width) are more samples than `limits` allow."""
    try:
        limits.check_samples(shape)
    except LimitExceeded as error:
        raise LimitExceeded(f"{error}; take a part of it, or make its frames smaller") from None


def _read_video(path: Path, limits: Limits, rate: Fraction | None) -> Clip:
    facts = ffmpeg.probe(path)
    expected = max(1, math.floor(facts.seconds * float(facts.rate)))
    check_size((expected, facts.height, facts.width), limits)
    samples = collect(ffmpeg.read(path, facts), limits)
    return Clip(samples, rate or facts.rate, facts.remarks)


def _read_array(source: Path | bytes, limits: Limits, rate: Fraction | None) -> Clip:
    samples, found = npyfile.load(source, limits, ("fps",))
    remarks = []
    if samples.ndim == 4 and samples.shape[-1] == 4:
        samples = samples[..., :3]
        remarks.append(NO_ALPHA)
    if rate is None and "fps" in found:
        told = found["fps"]
        if told.size != 1 or told.dtype.kind not in "iuf":
            raise InputError("its fps is no single number")
        try:
            rate = rational(float(told.item()))
        except UsageError as error:
            raise InputError(f"its {error}") from None
    if rate is None:
        remarks.append(_assumed())
    return Clip(samples, rate or DEFAULT_RATE, remarks)


def _assumed() -> str:
    return f"does not say its frames per second: {DEFAULT_RATE} are assumed; see --video.fps"


def _read_folder(folder: Path, limits: Limits, rate: Fraction | None) -> Clip:
    paths = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in peek.PICTURES and p.name[0] != "."),
        key=_natural,
    )
    if len(paths) < 2:
        raise InputError(f"holds {len(paths)} pictures: a clip has two or more")
    remarks: list[str] = []
    samples = collect(_pictures(paths, limits, remarks), limits)
    if rate is None:
        remarks.append(_assumed())
    return Clip(samples, rate or DEFAULT_RATE, remarks)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which image2 stands before image10."""
    words = re.split(r"(\d+)", path.name)
    return [(int(w), "") if w.isdigit() else (-1, w) for w in words]


def _pictures(paths: list[Path], limits: Limits, remarks: list[str]) -> Iterator[np.ndarray]:
    first: tuple[int, ...] = ()
    for path in paths:
        picture = image.open_image(path, limits).samples
        if picture.shape[-1] in (2, 4):
            picture = picture[..., :-1]
            if not remarks:
                remarks.append(NO_ALPHA)
        first = first or picture.shape
        if picture.shape != first:
            raise InputError(
                f"{path.name} is {_size(picture.shape)}, {paths[0].name} {_size(first)}: "
                "make all frames alike"
            )
        yield picture


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} x {shape[2] if len(shape) > 2 else 1}"


@contextlib.contextmanager
def _animation(source: Path | bytes) -> Iterator[PIL.Image.Image]:
    from inr.files import read_bytes

    data = source if isinstance(source, bytes) else read_bytes(source)
    with image.PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with image.open_pillow(data, ("GIF", "PNG", "WEBP")) as picture:
            yield picture


def _read_animation(source: Path | bytes, limits: Limits, rate: Fraction | None) -> Clip:
    remarks: list[str] = []
    durations: list[float] = []
    with _animation(source) as picture:
        count = getattr(picture, "n_frames", 1)
        check_size((count, picture.height, picture.width), limits)
        samples = collect(_drawn(picture, count, durations, remarks), limits)
    if rate is None:
        rate = rational(1000 * count / sum(durations))
        if max(durations) > min(durations):
            remarks.append(
                f"its frames last from {min(durations):g} to {max(durations):g} ms each: "
                f"they are taken at their mean rate, {float(rate):.4g} per second"
            )
    return Clip(samples, rate, remarks)


def _drawn(
    picture: PIL.Image.Image, count: int, durations: list[float], remarks: list[str]
) -> Iterator[np.ndarray]:
    """Frames of an animation as they are shown, on white where they are transparent."""
    import PIL.Image

    for k in range(count):
        picture.seek(k)
        frame = picture.convert("RGBA")
        told = float(picture.info.get("duration") or 0)
        durations.append(told if told >= SMALLEST_DURATION else USUAL_DURATION)
        if np.asarray(frame.getchannel("A")).min() < 255:
            if not remarks:
                remarks.append("it is put on white where it is transparent")
            frame = PIL.Image.alpha_composite(PIL.Image.new("RGBA", frame.size, "white"), frame)
        yield np.asarray(frame.convert("RGB"))


# ------------------------------------------------------------------------------- writing


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    domain: VideoDomain,
    shape: tuple[int, int, int],
    rate: Fraction,
) -> None:
    """Write frames of shape (height, width, channels) as they come, as the suffix of a path says.

    `.npz` (arrays "frames" and "fps"), `.npy` and a folder of PNG files are exact. MP4, MOV, MKV
    and WebM hold 8 bits, and colours at half the size; GIF holds 256 colours a frame, and instants
    in hundredths of a second. A path should be a temporary one.

    Args:
        path: Where to write; a folder that exists takes one PNG file a frame.
        frames: As many as `shape` says.
        domain: Channels and depth.
        shape: (frames, height, width).
        rate: Frames per second.

    Raises:
        UsageError: the format is unknown, or cannot hold them.
    """
    count, height, width = shape
    suffix = path.suffix.lower()
    if path.is_dir():
        picture = image.ImageDomain(height, width, domain.channels, domain.depth)
        digits = max(4, len(str(count - 1)))
        for k, frame in enumerate(frames):
            image.write_image(path / f"frame{k:0{digits}}.png", frame, picture)
    elif suffix in (".npy", ".npz"):
        _write_array(path, frames, (*shape, domain.channels), DTYPES[domain.depth], rate)
    elif suffix == ".gif":
        _write_gif(path, (_in_bytes(frame) for frame in frames), count, rate)
    else:
        check_format(suffix, (height, width))
        ffmpeg.write(path, (_in_bytes(frame) for frame in frames), (height, width), rate, suffix)


def check_format(suffix: str, size: tuple[int, int]) -> None:
    """Raise UsageError now if `write` would refuse this suffix ("" is a folder) or this size."""
    suffix = suffix.lower()
    if suffix and suffix not in WRITABLE:
        raise UsageError(
            f"clips are not written as {suffix!r}: write {', '.join(WRITABLE)}, or a folder of "
            "pictures, with a name without a dot"
        )
    if suffix in ffmpeg.ENCODERS:
        ffmpeg.check_size(size, suffix)


def _in_bytes(frame: np.ndarray) -> np.ndarray:
    return frame if frame.dtype == np.uint8 else np.rint(frame / 257).astype(np.uint8)


def _write_array(
    path: Path,
    frames: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: Any,
    rate: Fraction,
) -> None:
    from inr.files import stream_npy, write_npy

    if path.suffix.lower() == ".npy":
        write_npy(path, shape, dtype, frames)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("frames.npy", "w", force_zip64=True) as member:
            stream_npy(member, shape, dtype, frames)
        with archive.open("fps.npy", "w") as member:
            np.lib.format.write_array(member, np.array(float(rate)))


def _write_gif(path: Path, frames: Iterable[np.ndarray], count: int, rate: Fraction) -> None:
    import PIL.Image

    # instants are rounded, not lengths, so that the mean rate stays
    instants = [round(100 * k / rate) for k in range(count + 1)]
    durations = [10 * max(2, b - a) for a, b in itertools.pairwise(instants)]
    pictures = (
        PIL.Image.fromarray(f[..., 0] if f.shape[2] == 1 else f).quantize(256) for f in frames
    )
    first = next(pictures)
    first.save(
        path, format="GIF", save_all=True, append_images=pictures, duration=durations, loop=0
    )
