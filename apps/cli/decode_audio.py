"""What `inr decode` does with a sound: --rate, --start, --end, written as it is rendered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from inr.errors import UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from fields.base import Field
    from inr.signals.audio import AudioDomain

OPTIONS = {
    "rate": (int, "samples per second; the source's if not given"),
    "start": (float, "seconds at which to begin"),
    "end": (float, "seconds before which to end"),
    "depth": (str, "bits of a sample: 8, 16, 24, 32 or float; the source's if not given"),
}


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for: a depth, and the others as `AudioDomain.window` takes them."""
    return {name: getattr(args, name) for name in OPTIONS}


class Sound:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.
    """

    suffix = ".wav"

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        from inr.signals.audio import DEPTH_NAMES

        self.field = field
        self.domain: AudioDomain = field.domain
        depth = how["depth"]
        if depth is not None:
            if depth not in DEPTH_NAMES:
                raise UsageError(f"--depth is {depth!r}: choose from {', '.join(DEPTH_NAMES)}")
            self.domain = self.domain.at_depth(DEPTH_NAMES[depth])
        how = {name: value for name, value in how.items() if name != "depth"}
        try:
            self.length, *self._place = self.domain.window(**how)
        except UsageError as error:
            raise UsageError(
                f"--{error}" if str(error).startswith(tuple(OPTIONS)) else str(error)
            ) from None
        self.rate = self.domain.rate if how["rate"] is None else how["rate"]
        self.facts = {
            "samples": self.length,
            "rate": self.rate,
            "channels": self.domain.channels,
        }
        self.text = f"{self.length / self.rate:.2f} s at {self.rate:,} Hz"

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        from inr.signals.audio import check_format

        if suffix.lower() == ".npy" and to_file:
            return
        check_format(suffix, self.domain, self.rate)
        if self.length * self.domain.channels > Limits().samples:
            raise UsageError(
                f"{self.length:,} samples are too many for one file: choose a lower --rate, or "
                "--start and --end, or write .npy"
            )

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a sound file."""
        from inr.signals.audio import write_audio

        buffer = io.BytesIO()
        write_audio(buffer, self._pieces(), self.domain, suffix, rate=self.rate)
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Render into a file, in the format of its suffix."""
        from inr.files import write_npy
        from inr.signals.audio import DTYPES, write_audio

        if path.suffix.lower() == ".npy":
            shape = (self.length, self.domain.channels)
            write_npy(path, shape, DTYPES[self.domain.depth], self._pieces())
        else:
            write_audio(path, self._pieces(), self.domain, rate=self.rate)

    def _pieces(self) -> Iterator[np.ndarray]:
        from inr.rendering import render_bands

        start, length = self._place
        bands = render_bands(self.field, self.domain, (self.length,), (start,), (length,))
        return (samples for _, samples in bands)
