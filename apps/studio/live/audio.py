"""A sound while it is fitted: players, waves and spectrograms of a stretch of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import RESERVE, ROOM, Cut, Truth, View, number
from apps.view.audio import PLAYABLE, floats, played, spectrograms
from apps.view.page import Section

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.audio import AudioDomain
    from inr.signals.base import GridSignal

SIZE = (129, 256)
"""Rows and columns of spectrograms."""

SPECTROGRAM_BYTES = 110_000
"""What three of them take of a frame, about."""

HEARD = 0.75
"""Seconds of which the loudest are looked for."""

BLOCKS = 16
"""Parts of them at which the loudest may begin."""


class AudioView(View):
    """A sound; `look["start"]` says at which second the stretch begins that is shown.

    If nothing is said it is where the sound is loudest.
    """

    least = 1 << 12

    def __init__(self, domain: AudioDomain, original: GridSignal | None) -> None:
        super().__init__()
        self.domain = domain
        self.truth = Truth(original)
        usual = 0 if original is None else _loudest(original.samples, domain.rate)
        self.controls = {"start": (0.0, domain.seconds, usual / domain.rate)}
        self._length = 0
        tracks = 1 if original is None else 2
        # base64 takes 4 bytes for 3
        self._most = 0.75 * (ROOM - SPECTROGRAM_BYTES) / (2 * min(domain.channels, 2) * tracks)

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        domain = self.domain
        length = self._stretch(points)
        start = round(number(look, "start", self.controls["start"]) * domain.rate)
        cut = Cut(min(start, domain.samples - length), 1, length)
        fit = floats(self.samples(field, domain, [cut]), domain)
        truth = self.truth.at([cut])
        given = [("fit", fit, 1)]
        if truth is not None:
            given.insert(0, ("original", floats(truth, domain), 0))
        loudest = max(1.0, *(float(np.abs(samples).max()) for _, samples, _ in given))
        data = played(
            [(name, samples / loudest, colour) for name, samples, colour in given],
            domain.rate,
            cut.first / domain.rate,
        )
        pictures = [(name, samples.mean(-1)) for name, samples, _ in given]
        if truth is not None:
            pictures.append(("error", pictures[1][1] - pictures[0][1]))
        data["spectrograms"] = spectrograms(pictures, domain.rate, SIZE)
        return [Section("Sound", "sound", data, self._notes(cut, loudest))]

    def _stretch(self, points: int) -> int:
        """How many samples are shown: the whole, or a half of it, a quarter, and so on."""
        total = self.domain.samples

        def longest(allowed: float) -> int:
            halvings = 0
            while total >> halvings > allowed:
                halvings += 1
            return total >> halvings

        length = longest(points)
        if self._length and length > self._length:
            length = max(longest(points / RESERVE), self._length)
        self._length = length
        return length

    def _notes(self, cut: Cut, loudest: float) -> list[str]:
        domain = self.domain
        notes = []
        if cut.size < domain.samples:
            begin, end = cut.first / domain.rate, (cut.first + cut.size) / domain.rate
            notes.append(
                f"Seconds {begin:.2f} to {end:.2f} of {domain.seconds:.2f} are heard and shown."
            )
        if domain.channels > 2:
            notes.append(f"The mean of {domain.channels} channels is played.")
        if loudest > 1:
            notes.append(f"It goes beyond full scale: it is played {loudest:.2f} times softer.")
        if domain.rate not in PLAYABLE:
            notes.append(f"Browsers may not play sound of {domain.rate:,} Hz.")
        return notes


def _loudest(samples: Any, rate: int) -> int:
    """Where the loudest stretch of `HEARD` seconds begins."""
    step = max(1, round(HEARD * rate / BLOCKS))
    power = [
        float(np.square(samples[k : k + step].astype(np.float64)).sum())
        for k in range(0, len(samples), step)
    ]
    stretches = np.convolve(power, np.ones(min(BLOCKS, len(power))), "valid")
    return int(stretches.argmax()) * step
