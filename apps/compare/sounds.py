"""Sounds: Opus and MP3, by the encoders that PyAV brings.

Both aim at what is heard, not at the waveform: a signal-to-noise ratio flatters codecs that do not.
The log-spectral distance is reported beside it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.compare.codec import Codec, version
from inr.errors import InputError
from inr.metrics import psnr
from inr.signals.audio import FLOAT, Audio
from inr.signals.base import Signal
from inr.signals.spectral import LogSpectralDistance

CHUNK = 1 << 16
"""Samples handed to an encoder at a time."""

LARGEST_SHIFT = 0.25
"""Seconds by which a decode may come late or early; it is shifted to where it fits best."""

LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class SoundCodec(Codec):
    """An encoder of libavcodec at constant settings of kbit/s for each channel.

    Args:
        coder: libavcodec's name of it.
        muxer: libavformat's name of its file.
        rates: Sampling rates that it takes; others become the last.
        told: What is fixed, for people.
        options: Of the muxer.
    """

    coder: str
    muxer: str
    rates: tuple[int, ...]
    told: str
    options: tuple[tuple[str, str], ...] = ()

    def about(self) -> str:
        return f"PyAV {version('av', f'{self.name} needs')}, {self.coder}, {self.told}"

    def label(self, setting: float) -> str:
        return f"{setting:g} kbit/s a channel"

    def encode(self, signal: Signal, setting: float) -> bytes:
        import av

        assert isinstance(signal, Audio)
        layout = LAYOUTS[signal.channels]
        rate = signal.domain.rate if signal.domain.rate in self.rates else self.rates[-1]
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=self.muxer, options=dict(self.options)) as file:
            stream: Any = file.add_stream(self.coder, rate=rate, layout=layout)
            stream.bit_rate = round(1000 * setting * signal.channels)
            resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
            for frame in _frames(signal, layout):
                for ready in resampler.resample(frame):
                    file.mux(stream.encode(ready))
            for ready in resampler.resample(None):
                file.mux(stream.encode(ready))
            file.mux(stream.encode(None))
        return buffer.getvalue()

    def decode(self, data: bytes, signal: Signal) -> np.ndarray:
        """Samples in the sound's own type; they may come late, and be more or fewer."""
        import av

        assert isinstance(signal, Audio)
        parts = []
        with av.open(io.BytesIO(data), "r", format=self.muxer) as file:
            resampler = av.AudioResampler("fltp", LAYOUTS[signal.channels], signal.domain.rate)
            for frame in file.decode(audio=0):
                parts += [f.to_ndarray() for f in resampler.resample(frame)]
            parts += [f.to_ndarray() for f in resampler.resample(None)]
        whole = np.concatenate([part.reshape(signal.channels, -1) for part in parts], 1)
        return _in_type(whole.T, signal)


CODECS = (
    SoundCodec(
        "opus", (6, 8, 12, 16, 24, 32, 48, 64, 96), "libopus", "ogg",
        (8000, 12000, 16000, 24000, 48000), "variable bit rate, in Ogg",
    ),
    SoundCodec(
        "mp3", (16, 24, 32, 48, 64, 96, 128), "libmp3lame", "mp3",
        (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
        "constant bit rate, without tags but LAME's", (("id3v2_version", "0"),),
    ),
)  # fmt: skip


def aligned(decoded: np.ndarray, original: np.ndarray, most: int) -> np.ndarray:
    """A decode of the original's length, moved by the delay at which the two agree best.

    Args:
        decoded: Shape (m, channels).
        original: Shape (n, channels).
        most: Largest delay either way, in samples.

    Returns:
        Shape (n, channels), with zeros where there is nothing.
    """
    n = len(original)
    most = min(most, n - 1)
    size = 1 << math.ceil(math.log2(n + len(decoded)))
    spectra = [np.fft.rfft(x.mean(1) - x.mean(), size) for x in (decoded, original)]
    likeness = np.fft.irfft(spectra[0] * spectra[1].conj(), size)
    delays = np.arange(-most, most + 1)
    delay = int(delays[likeness[delays].argmax()])
    made = np.zeros_like(original)
    start = max(0, -delay)
    piece = decoded[max(0, delay) :][: n - start]
    made[start : start + len(piece)] = piece
    return made


def _frames(signal: Audio, layout: str) -> Iterator[Any]:
    import av

    for start in range(0, signal.count, CHUNK):
        values = _floats(signal, slice(start, start + CHUNK))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values.T), "fltp", layout)
        frame.sample_rate, frame.pts = signal.domain.rate, start
        yield frame


def _floats(signal: Audio, rows: slice = slice(None)) -> np.ndarray:
    """Samples as float32, full scale 1; shape (n, channels)."""
    samples = signal.samples[rows]
    if signal.domain.depth == FLOAT:
        return samples
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)


def _in_type(values: np.ndarray, signal: Audio) -> np.ndarray:
    if signal.domain.depth == FLOAT:
        return values
    limits = np.iinfo(signal.samples.dtype)
    scaled = np.rint(values.astype(np.float64) * -float(limits.min))
    return scaled.clip(limits.min, limits.max).astype(limits.dtype)


def prepared(signal: Signal) -> tuple[Audio, list[str]]:
    """The sound, and what is to be known of it.

    Raises:
        InputError: it is silent, or of more than two channels.
    """
    assert isinstance(signal, Audio)
    if signal.channels not in LAYOUTS:
        raise InputError(f"has {signal.channels} channels: sounds of one or two are compared")
    if signal.objection is not None:
        raise InputError(signal.objection)
    return signal, list(signal.notes)


def measure(signal: Signal, decoded: np.ndarray) -> dict[str, float]:
    """`snr` in dB and `lsd` of a decode that is shifted to where it fits best.

    Both are what `inr.signals.audio.Audio.metrics` tells, but that the SNR is of what remains when
    each channel's mean is taken from sound and error: Opus removes a constant offset, and nobody
    hears it.
    """
    assert isinstance(signal, Audio)
    found = aligned(decoded, signal.samples, round(LARGEST_SHIFT * signal.domain.rate))
    original = signal.samples.astype(np.float64)
    error = float((found - original).var(0).mean())
    spectra = LogSpectralDistance(signal.channels)
    spectra.add(signal.domain.to_values(signal.samples), signal.domain.to_values(found))
    return {
        "snr": psnr(error, math.sqrt(float(original.var(0).mean()))),
        "lsd": spectra.value(),
    }
