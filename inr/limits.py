"""Bounds on what a file from a stranger may ask for, checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from inr.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """Passed down explicitly, never global. `Limits()` suits a desktop machine.

    Args:
        file_bytes: Size of a `.inr` file.
        header_bytes: Size of its header (the format itself allows no more than 65,536).
        chunks: Chunks in a file.
        rows: Entropy-coded rows of parameters in a file.
        symbols: Quantised parameters in a file, and numbers in the field that it makes.
        drawn: Numbers that a field draws from a seed.
        symbols_per_byte: Parameters per byte of their chunk; a coded parameter never costs less
            than 1/178 bit, so more than 1,424 is a lie.
        source_bytes: Size of a picture (or other source) to be fitted.
        samples: Pixels (or other samples) of a source image, or of one decoded array.
    """

    file_bytes: int = 256 << 20
    header_bytes: int = 1 << 16
    chunks: int = 64
    rows: int = 4096
    symbols: int = 1 << 27
    drawn: int = 1 << 32
    symbols_per_byte: int = 1500
    source_bytes: int = 1 << 32
    samples: int = 1 << 28

    def check(self, what: str, value: int, limit: int) -> int:
        """Return `value`, or raise LimitExceeded if it is above `limit`."""
        if value > limit:
            raise LimitExceeded(f"{what} is {value:,}: the limit is {limit:,}")
        return value

    def check_samples(self, shape: Sequence[int]) -> None:
        """Refuse a lattice of more than `samples` samples."""
        self.check(f"the size {'x'.join(map(str, shape))}", math.prod(shape), self.samples)
