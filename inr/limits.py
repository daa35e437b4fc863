"""Bounds on what a file from a stranger may ask for, checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from inr.errors import LimitExceeded


@dataclass(frozen=True)
class Limits:
    """Passed down explicitly, never global. `Limits()` suits a desktop machine.

    Args:
        file_bytes: Size of a `.inr` file.
        header_bytes: Size of its header (the format itself allows no more than 65,536).
        nesting: Lists within lists in it (the format: 8).
        chunks: Chunks in a file.
        metadata_bytes: Size of its metadata.
        text_bytes: Size of one text in them.
        profile_bytes: Size of its ICC colour profile, unpacked.
        exif_bytes: Size of its EXIF data, unpacked.
        rows: Entropy-coded rows of parameters in a file.
        symbols: Quantised parameters in a file, and numbers in the field that it makes.
        tensors: Tensors of a field, besides four for each row of parameters in its file.
        rank: Axes of a stored tensor.
        layers: Layers of a network within the field: sizes that a hyperparameter named
            `hidden_layers` may have.
        width: Scalars per point in the widest intermediate tensor of a field: 256 points, the
            least that are computed at once, have 512 MiB of them. No field goes beyond.
        drawn: Numbers that a field draws from a seed.
        symbols_per_byte: Parameters per byte of their chunk; a coded parameter never costs less
            than 1/178 bit, so more than 1,424 is a lie.
        source_bytes: Size of a picture (or other source) to be fitted.
        samples: Pixels (or other samples) of a source image, or of one decoded array.
        values: Numbers in these, all channels together, of what a file holds.
    """

    file_bytes: int = 256 << 20
    header_bytes: int = 1 << 16
    nesting: int = 8
    chunks: int = 64
    metadata_bytes: int = 1 << 16
    text_bytes: int = 4096
    profile_bytes: int = 4 << 20
    exif_bytes: int = 1 << 20
    rows: int = 4096
    symbols: int = 1 << 27
    tensors: int = 256
    rank: int = 8
    layers: int = 64
    width: int = 1 << 19
    drawn: int = 1 << 32
    symbols_per_byte: int = 1500
    source_bytes: int = 1 << 32
    samples: int = 1 << 28
    values: int = 1 << 32

    @classmethod
    def strict(cls) -> Self:
        """For a server that decodes what anybody sends: 4 million parameters, 16 of samples."""
        return cls(
            file_bytes=16 << 20,
            profile_bytes=1 << 20,
            exif_bytes=1 << 16,
            symbols=1 << 22,
            layers=16,
            width=1 << 12,
            drawn=1 << 26,
            source_bytes=64 << 20,
            samples=1 << 24,
            values=1 << 26,
        )

    def check(self, what: str, value: int, limit: int) -> int:
        """Return `value`, or raise LimitExceeded if it is above `limit`."""
        if value > limit:
            raise LimitExceeded(f"{what} is {value:,}: the limit is {limit:,}")
        return value

    def check_samples(self, shape: Sequence[int], channels: int = 1) -> None:
        """Refuse a lattice of more than `samples` samples, or of more than `values` numbers."""
        size = "x".join(map(str, shape))
        self.check(f"the size {size}", math.prod(shape), self.samples)
        self.check(f"the size {size}x{channels}", math.prod(shape) * channels, self.values)
