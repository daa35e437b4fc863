"""`.inr` files: made for a size, or made already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import inr
from apps.compare.codec import Codec
from apps.compare.shapes import Decoded
from inr.errors import InputError
from inr.signals.base import Signal
from inr.signals.shape import RESOLUTION, Shape
from inr.signals.video import Video

if TYPE_CHECKING:
    from fields.base import Field

UNITS = {"image": "bpp", "audio": "kbps", "video": "bpp", "shape": "kB"}
"""By kind of signal, what a file's size is told in."""


def size(signal: Signal, data_bytes: int) -> float:
    """A file's size in the unit of its kind."""
    unit = UNITS[signal.domain.kind]
    return data_bytes / 1000 if unit == "kB" else signal.domain.density(data_bytes)[unit]


class FieldCodec(Codec):
    """What decoding has in common, whoever made the file."""

    def decode(self, data: bytes, signal: Signal) -> Any:
        field = inr.decode(data)
        if isinstance(signal, Shape):
            return _surface(field, signal)
        if isinstance(signal, Video):
            return _frames(field)
        return inr.render(field)


@dataclass(frozen=True)
class Compressed(FieldCodec):
    """Fitted and coded now, in at most so many bytes; settings are sizes in the unit of the kind.

    Args:
        kind: Kind of the signals.
        field: Name of the field or preset; None for the kind's own.
        effort: How much is tried, 1 to 9.
        seed: Of the fits.
        device: "auto", "cpu" or "cuda:N".
    """

    kind: str
    field: str | None = None
    effort: int = 4
    seed: int = 0
    device: str = "auto"

    def about(self) -> str:
        told = f"field {self.field or 'by default'}, effort {self.effort}, seed {self.seed}"
        return f"inr {inr.__version__}, {told}"

    def label(self, setting: float) -> str:
        return f"{setting:g} {UNITS[self.kind]}"

    def encode(self, signal: Signal, setting: float) -> bytes:
        most = int(setting / size(signal, 1))
        made = inr.compress(
            signal,
            self.field,
            bytes=most,
            effort=self.effort,
            seed=self.seed,
            device=self.device,
        )
        return made.data


@dataclass(frozen=True)
class Stored(FieldCodec):
    """`.inr` files that are there; a setting is the place of one in `paths`.

    Args:
        paths: The files.
    """

    paths: tuple[str, ...] = ()

    def about(self) -> str:
        return "files as given"

    def label(self, setting: float) -> str:
        return Path(self.paths[int(setting)]).name

    def encode(self, signal: Signal, setting: float) -> bytes:
        from inr.files import read_bytes
        from inr.limits import Limits

        return read_bytes(self.paths[int(setting)], Limits().file_bytes)


def original_of(stored: str, sources: dict[str, Signal]) -> str:
    """Which of several signals a stored file was made of.

    Args:
        stored: Path of the file.
        sources: Signals by their paths.

    Returns:
        The path of the one of the file's kind, size and type; of several such, of the one whose
        name the file's begins with.

    Raises:
        InputError: there is none, or not one alone.
    """
    domain = inr.load(stored).domain
    alike = [path for path, signal in sources.items() if _alike(domain, signal.domain)]
    if len(alike) > 1:
        stem = Path(stored).stem
        alike = [path for path in alike if stem.startswith(Path(path).stem)]
        longest = max((len(Path(path).stem) for path in alike), default=0)
        alike = [path for path in alike if len(Path(path).stem) == longest]
    if len(alike) != 1:
        told = "several" if alike else "none"
        raise InputError(
            f"{stored}: is of {told} of the files to compare: give its original, of the same size"
        )
    return alike[0]


def _alike(stored: Any, given: Any) -> bool:
    """Whether two domains hold samples of the same number and meaning."""
    if stored.kind != given.kind:
        return False
    if stored.kind == "shape":
        return stored.centre == given.centre and stored.half == given.half
    depths = [getattr(domain, "depth", None) for domain in (stored, given)]
    same = stored.shape == given.shape and stored.channels == given.channels
    return same and depths[0] == depths[1]


def _surface(field: Field, signal: Shape) -> Decoded:
    """The surface at the usual resolution, in the original's units."""
    from inr.surface import extract

    domain: Any = field.domain
    surface = extract(field, RESOLUTION, thickness=domain.thickness).oriented(domain.outward)
    return Decoded(domain.to_units(surface.vertices), surface.faces, signal.insider(field))


def _frames(field: Field) -> np.ndarray:
    from inr.limits import Limits
    from inr.signals.clips import collect
    from inr.signals.video import frames_of

    domain: Any = field.domain
    size = (domain.height, domain.width)
    return collect(frames_of(field, size, domain.window(), (0, 0, *size)), Limits())
