"""Other codecs at equal bytes: the largest file that is not above a given size."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.compare import pictures, sounds
from inr.errors import InputError, UsageError
from inr.files import suffix_of
from inr.metrics import psnr_arrays

if TYPE_CHECKING:
    import numpy as np

    from apps.compare.codec import Codec
    from inr.signals.base import Signal

CODECS: dict[str, tuple[Codec, ...]] = {"image": pictures.CODECS, "audio": sounds.CODECS}
"""By kind of signal, what else it may be coded by."""

SUFFIXES = {
    "jpeg": ".jpg",
    "jpeg-444": ".jpg",
    "webp": ".webp",
    "avif": ".avif",
    "avif-420": ".avif",
    "jp2": ".j2k",
    "opus": ".opus",
    "mp3": ".mp3",
}


def file_of(source: str, index: int, own: str, suffix: str = ".inr") -> str:
    """The name of a contestant's file: the source's, its number, and its field or codec."""
    name = Path(source).name
    stem = name.removesuffix(suffix_of(name)) or "signal"
    return f"{stem}-{index + 1}-{re.sub(r'[^A-Za-z0-9-]', '-', own)}{suffix}"


def codecs_for(kind: str) -> list[Codec]:
    """Codecs of a kind of signal for which all that they need is installed."""
    found = []
    for codec in CODECS.get(kind, ()):
        try:
            codec.about()
        except UsageError:
            continue
        found.append(codec)
    return found


def settings_of(codec: Codec) -> list[float]:
    """All settings that are tried, from those of small files to those of large ones."""
    if isinstance(codec, pictures.PictureCodec):
        if codec.form == "JPEG2000":
            return [ratio / 4 for ratio in range(1600, 3, -1)]
        return list(range(1, 101))
    if codec.name == "opus":
        return list(range(6, 161))
    return list(codec.ladder)


def largest(
    codec: Codec, signal: Signal, most: int, stop: Callable[[], object]
) -> tuple[float, bytes]:
    """A codec's largest file of at most so many bytes; its smallest where none is small enough.

    Args:
        codec: The codec.
        signal: What it codes, as `prepared` returned it.
        most: Bytes.
        stop: Whether to give up; it is asked between two files.

    Returns:
        The setting, and the file.

    Raises:
        InputError: the signal cannot be coded so.
        UsageError: it was stopped.
    """
    settings = settings_of(codec)
    best = settings[0], codec.encode(signal, settings[0])
    low, high = 1, len(settings) - 1
    while low <= high and len(best[1]) <= most:
        if stop():
            raise UsageError("stopped before its file was found")
        middle = (low + high) // 2
        data = codec.encode(signal, settings[middle])
        if len(data) <= most:
            best, low = (settings[middle], data), middle + 1
        else:
            high = middle - 1
    return best


def prepared(signal: Signal) -> tuple[Signal, list[str]]:
    """A signal as codecs of its kind get it, and what is to be known of that."""
    if signal.domain.kind == "image":
        return pictures.prepared(signal)
    if signal.domain.kind == "audio":
        return sounds.prepared(signal)
    raise InputError("codecs are compared for pictures and sounds")


def decoded(codec: Codec, data: bytes, signal: Any) -> tuple[np.ndarray, dict[str, float]]:
    """What a codec's file holds, in the signal's own length and type; and how good it is."""
    samples = codec.decode(data, signal)
    if signal.domain.kind == "image":
        return samples, pictures.measure(signal, samples)
    most = round(sounds.LARGEST_SHIFT * signal.domain.rate)
    metrics = sounds.measure(signal, samples)
    samples = sounds.aligned(samples, signal.samples, most)
    metrics["psnr"] = psnr_arrays(signal.samples, samples, signal.domain.peak)
    return samples, metrics
