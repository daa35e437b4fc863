"""What a sound's metrics need beside its error: spectra frame by frame, and silence block by block.

Both take a sound and its decode piece by piece, in order, so that a long one needs little memory.
"""

from __future__ import annotations

import numpy as np

FRAME = 2048
HOP = 512
FLOOR = 1e-8
FRAMES_AT_ONCE = 256

BLOCK = 4096
QUIET = 1e-4
"""Blocks with less than this part of the mean power count as silent themselves."""

SILENT_POWER = 0.1
SILENT_SNR = 1.0
"""A block of the decode is silent where it has less than SILENT_POWER of the power that it should
have, both about their means, and an SNR below SILENT_SNR dB, a constant offset apart."""


class Pieces:
    """Joins pieces of shape (n, channels) and gives them out in blocks of whole strides."""

    def __init__(self, channels: int) -> None:
        self._held = np.zeros((0, 2, channels))

    def push(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Add a piece of both."""
        pair = np.stack([original, decoded], axis=1)
        self._held = np.concatenate([self._held, pair]) if len(self._held) else pair

    def take(self, length: int, stride: int) -> np.ndarray:
        """All whole frames of `length` so far, `stride` apart: (frames, 2, channels, length)."""
        count = max(0, (len(self._held) - length) // stride + 1)
        if count == 0:
            return np.zeros((0, *self._held.shape[1:], length))
        frames = np.lib.stride_tricks.sliding_window_view(self._held, length, axis=0)
        frames = frames[: count * stride : stride]
        self._held = self._held[count * stride :]
        return frames

    def rest(self) -> np.ndarray:
        """What no frame has taken yet, (n, 2, channels)."""
        return self._held


class LogSpectralDistance:
    """Mean over frames of the root mean square over frequencies of a difference of log spectra.

    LSD = mean_t sqrt(mean_f (log10 max(|S|^2, 1e-8) - log10 max(|S'|^2, 1e-8))^2), with S and S'
    the unscaled discrete Fourier transforms of frames of 2,048 samples under a (periodic) Hann
    window, 512 apart, of values in [-1, 1]; 0 is best. Channels are frames of their own. A sound
    shorter than a frame is filled up with its first value in both; elsewhere the samples behind the
    last whole frame do not count.
    """

    def __init__(self, channels: int) -> None:
        self._pieces = Pieces(channels)
        self._total = 0.0
        self._frames = 0

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Add the next piece of both, shape (n, channels), values in [-1, 1]."""
        self._pieces.push(original, decoded)
        self._compare(self._pieces.take(FRAME, HOP))

    def value(self) -> float:
        """The distance so far."""
        if not self._frames and len(self._pieces.rest()):
            held = self._pieces.rest()
            fill = np.broadcast_to(held[0, 0], (FRAME - len(held), *held.shape[1:]))
            self._compare(np.concatenate([held, fill]).transpose(1, 2, 0)[None])
        return self._total / max(self._frames, 1)

    def _compare(self, frames: np.ndarray) -> None:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            spectra = np.abs(np.fft.rfft(frames[start : start + FRAMES_AT_ONCE] * window)) ** 2
            logs = np.log10(np.maximum(spectra, FLOOR))
            distances = np.sqrt(np.square(logs[:, 0] - logs[:, 1]).mean(-1))
            self._total += float(distances.sum())
            self._frames += distances.size


class Silence:
    """Part of the blocks of 4,096 samples in which the sound has been lost (see SILENT_POWER)."""

    def __init__(self, channels: int) -> None:
        self._pieces = Pieces(channels)
        self._powers: list[np.ndarray] = []

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Add the next piece of both, shape (n, channels)."""
        self._pieces.push(original, decoded)
        self._measure(self._pieces.take(BLOCK, BLOCK))

    def value(self) -> float:
        """From 0, none, to 1; of the blocks that are not silent themselves."""
        held = self._pieces.rest()
        powers = [*self._powers]
        if len(held) > 1:
            powers.append(_powers(held.transpose(1, 2, 0)[None]))
        if not powers:
            return 0.0
        sound, decode, error = np.concatenate(powers).T
        heard = sound > QUIET * sound.mean()
        lost = (decode < SILENT_POWER * sound) & (error > sound * 10 ** (-SILENT_SNR / 10))
        return float((lost & heard).sum() / max(heard.sum(), 1))

    def _measure(self, blocks: np.ndarray) -> None:
        if len(blocks):
            self._powers.append(_powers(blocks))


def _powers(blocks: np.ndarray) -> np.ndarray:
    """Variances of sound, decode and their difference in each block, shape (blocks, 3)."""
    sound, decode = blocks[:, 0], blocks[:, 1]
    parts = (sound, decode, decode - sound)
    return np.stack([part.var(-1).mean(-1) for part in parts], axis=-1)
