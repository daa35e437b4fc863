"""What a page shows of a sound: players, its wave, spectrograms."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.view.page import Section
from apps.view.pieces import Sampled, bar, coloured, data_uri, spectra

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.audio import AudioDomain
    from inr.signals.base import GridSignal

FULL = 32767
PLAYABLE = range(3000, 384_001)
"""Rates in Hz that browsers play."""

WINDOW_SECONDS = 0.04
COLUMNS = 1200
ROWS = 257
FLOOR = 90.0
"""Decibels below the loudest that spectrograms show."""


def sections(field: Field, original: GridSignal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes."""
    from inr.signals.audio import FLOAT, render_audio

    domain: AudioDomain = field.domain
    tracks = 1 if original is None else 3
    heard = min(domain.channels, 2)
    # base64 takes 4 bytes for 3
    length = min(domain.samples, max(1, int(room * 0.7 / (2 * heard * tracks))))
    decoded = floats(render_audio(field, end=length / domain.rate)[:length], domain)
    truth = None if original is None else floats(original.samples[: len(decoded)], domain)
    found = Sampled(decoded, truth, (1,))
    loudest = max(1.0, *(float(np.abs(x).max()) for x in (decoded, truth) if x is not None))

    given = [("original", truth, 0)] if truth is not None else []
    given.append(("decoded", decoded, 1))
    if truth is not None:
        given.append(("error", found.error, 2))
    data = played([(n, s / loudest, c) for n, s, c in given], domain.rate)
    data["spectrograms"] = spectrograms([(n, s.mean(-1)) for n, s, _ in given], domain.rate)
    notes = ["Players hold 16 bits; waves and spectrograms are means over channels."]
    if domain.channels > 2:
        notes.append(f"The mean of {domain.channels} channels is played.")
    if length < domain.samples:
        notes.append(
            f"The first {length / domain.rate:.1f} of {domain.seconds:.1f} seconds are here: "
            "--max-mb gives a page more room."
        )
    if loudest > 1:
        notes.append(f"The sound goes beyond full scale: it is played {loudest:.2f} times softer.")
    if domain.rate not in PLAYABLE:
        notes.append(f"Browsers may not play sound of {domain.rate:,} Hz.")
    if domain.depth == FLOAT:
        notes.append("The file itself holds float samples.")
    return [Section("Sound", "sound", data, notes), *spectra(found)]


def played(given: list[tuple[str, np.ndarray, int]], rate: int, start: float = 0) -> dict[str, Any]:
    """Players of sounds, as the widget has them but for spectrograms.

    Args:
        given: Name, samples of shape (n, 1 or 2) from -1 to 1, and number of the colour of each.
        rate: Samples per second.
        start: Second at which they begin.
    """
    return {
        "start": start,
        "rate": rate,
        "tracks": [
            {
                "name": name,
                "colour": colour,
                "channels": samples.shape[1],
                "error": name == "error",
                "src": _player(samples, rate),
            }
            for name, samples, colour in given
        ],
    }


def floats(samples: np.ndarray, domain: AudioDomain) -> np.ndarray:
    """Samples from -1 to 1, of one channel, or two; more are averaged."""
    full = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max) + 1
    floats = samples.astype(np.float64) / full
    return floats if domain.channels <= 2 else floats.mean(-1, keepdims=True)


def _player(samples: np.ndarray, rate: int) -> str:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples.clip(-1, 1) * FULL).astype("<i2").tobytes())
    return data_uri("audio/wav", buffer.getvalue())


def spectrograms(
    given: list[tuple[str, np.ndarray]], rate: int, size: tuple[int, int] = (ROWS, COLUMNS)
) -> list[dict[str, Any]]:
    """Power over time and frequency as pictures on one scale, of about `size` pixels."""
    powers = [(name, _power(sound, rate, *size)) for name, sound in given]
    top = 10 * np.log10(max(float(power.max()) for _, power in powers) or 1.0)
    return [
        {
            "label": f"spectrogram: {name} (0 dB is the loudest)",
            "picture": coloured(
                10 * np.log10(np.maximum(power, 1e-30)), top - FLOOR, top, "inferno"
            ),
            "bar": bar("inferno", -FLOOR, 0.0, "dB"),
        }
        for name, power in powers
    ]


def _power(sound: np.ndarray, rate: int, rows: int, columns: int) -> np.ndarray:
    """Power of a sound, shape (frequencies from high to low, instants)."""
    width = max(8, min(2 * (ROWS - 1) * 4, round(WINDOW_SECONDS * rate), len(sound)))
    centres = (np.arange(columns) + 0.5) * (len(sound) / columns)
    padded = np.pad(sound, width)  # windows at the ends see silence beyond them
    starts = np.rint(centres).astype(int) + width // 2
    power = np.empty((width // 2 + 1, columns))
    shape = np.hanning(width + 1)[:-1]
    for column, start in enumerate(starts):
        power[:, column] = np.square(np.abs(np.fft.rfft(padded[start : start + width] * shape)))
    step = max(1, len(power) // rows)
    kept = power[: len(power) // step * step].reshape(-1, step, columns).mean(1)
    return kept[::-1]
