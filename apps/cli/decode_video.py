"""What `inr decode` does with a clip: size, place and frame rate, written as it is rendered."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from apps.cli import decode_image
from inr.errors import UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from fields.base import Field
    from inr.signals.video import VideoDomain

OPTIONS = decode_image.OPTIONS | {
    "fps": (float, "frames per second; the source's if not given"),
    "start": (float, "seconds at which to begin"),
    "end": (float, "seconds before which to end"),
}


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for, as `target_shape` takes it, and as `VideoDomain.window` does.

    Raises:
        UsageError: an option is malformed, or excludes another.
    """
    from inr.signals.video import rational

    try:
        fps = None if args.fps is None else rational(args.fps)
    except UsageError as error:
        raise UsageError(f"--{error}") from None
    return {
        "picture": decode_image.options(args),
        "time": {"fps": fps, "start": args.start, "end": args.end},
    }


class Clip:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.
    """

    suffix = ".mp4"

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        self.field = field
        self.domain: VideoDomain = field.domain
        picture, time = how["picture"], how["time"]
        try:
            self.place = self.domain.window(**time)
        except UsageError as error:
            told = str(error).startswith(tuple(time))
            raise UsageError(f"--{error}" if told else str(error)) from None
        self.size, self.crop = self._within_frame(**picture)
        self.rate = time["fps"] or self.domain.rate
        self.shape = (self.place[0], *self.size)
        height, width = self.size
        self.facts = {
            "frames": self.place[0],
            "width": width,
            "height": height,
            "fps": round(float(self.rate), 3),
        }
        self.text = (
            f"{self.place[0]} frames of {width} x {height} pixels "
            f"at {float(self.rate):.4g} per second"
        )

    def _within_frame(
        self,
        size: tuple[int, int] | None,
        scale: float | None,
        crop: tuple[float, float, float, float] | None,
    ) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
        """Size of a frame, and the part of the source's frame that it shows."""
        from inr.rendering import target_shape, window

        whole = self.domain
        y, x, height, width = crop or (0.0, 0.0, float(whole.height), float(whole.width))
        place = (0.0, y, x, float(whole.frames), height, width)
        try:
            window(whole, place)
        except UsageError:
            raise UsageError(
                f"--crop: give X,Y,WIDTH,HEIGHT within {whole.width} x {whole.height} pixels"
            ) from None
        if size is None:
            _, *sides = target_shape(whole, None, scale, place)
            size = (sides[0], sides[1])
        return size, (y, x, height, width)

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        from inr.signals.clips import check_format

        if not suffix and not to_file:
            raise UsageError("a folder of pictures does not go to standard output")
        check_format(suffix, self.size)
        if math.prod(self.size) > Limits().samples:
            raise UsageError(
                f"{self.text} are too many: choose a smaller --size, --scale or --crop"
            )

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a file."""
        with tempfile.TemporaryDirectory(prefix="inr-") as folder:
            path = Path(folder) / f"clip{suffix}"
            self.write(path)
            return path.read_bytes()

    def write(self, path: Path) -> None:
        """Render into a file, in the format of its suffix, or into a folder."""
        from inr.signals import clips

        clips.write(path, self._frames(), self.domain, self.shape, self.rate)

    def _frames(self) -> Iterator[np.ndarray]:
        from inr.signals.video import frames_of

        return frames_of(self.field, self.size, self.place, self.crop)
