"""The kinds of signals that are compared, each with its codecs and its measures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apps.compare import clips, pictures, shapes, sounds
from apps.compare.codec import Codec
from apps.compare.own import UNITS
from inr.signals.base import Signal


@dataclass(frozen=True)
class Measure:
    """A measure of quality.

    Args:
        key: Its name in tables.
        name: Its name for people, with its unit.
        quality: What curves are drawn of and compared by: larger is better.
        unit: Of `quality`.
        told: What it is, for people.
        digits: Behind the point, in tables.
    """

    key: str
    name: str
    quality: Callable[[float], float]
    unit: str
    told: str
    digits: int = 2

    @property
    def short(self) -> str:
        """Its name without the unit."""
        return self.name.partition(" (")[0]


@dataclass(frozen=True)
class Kind:
    """A kind of signal.

    Args:
        noun: What people call it.
        codecs: All that it may be coded by; `.inr` apart.
        usual: Names of those that are taken if nothing else is said.
        targets: Sizes of `.inr` files, in `unit`.
        unit: Of sizes.
        axis: What it means.
        measures: The first is what codecs are ranked by.
        prepared: Makes a signal what all codecs get.
        measure: Measures what was decoded.
    """

    noun: str
    codecs: tuple[Codec, ...]
    usual: tuple[str, ...]
    targets: tuple[float, ...]
    unit: str
    axis: str
    measures: tuple[Measure, ...]
    prepared: Callable[[Signal], tuple[Signal, list[str]]]
    measure: Callable[[Signal, Any], dict[str, float]]


def _decibels(share: float) -> float:
    """A small share as decibels below 1."""
    return -20 * math.log10(share) if share > 0 else math.inf


def _as_is(value: float) -> float:
    return value


def _missing(iou: float) -> float:
    return _decibels(1 - iou)


def _negated(value: float) -> float:
    return -value


PSNR = Measure(
    "psnr", "PSNR (dB)", _as_is, "dB", "10 log10(255^2 / MSE) over all samples of the 8-bit decode"
)

KINDS = {
    "image": Kind(
        "pictures",
        pictures.CODECS,
        ("jpeg", "webp", "avif", "jp2"),
        (0.15, 0.3, 0.6, 1.0, 1.5),
        UNITS["image"],
        "bits per pixel",
        (PSNR,),
        pictures.prepared,
        pictures.measure,
    ),
    "audio": Kind(
        "sounds",
        sounds.CODECS,
        ("mp3", "opus"),
        (16, 32, 64, 128),
        UNITS["audio"],
        "kbit/s",
        (
            Measure(
                "snr",
                "SNR (dB)",
                _as_is,
                "dB",
                "power of the sound over that of the error, both about their means, the decode "
                "shifted to where it fits best; codecs that aim at hearing do not aim at it",
            ),
            Measure(
                "lsd",
                "LSD, negated (log10 of power)",
                _negated,
                "",
                "log-spectral distance: mean over frames of 2,048 samples of the root mean square "
                "difference of log10 power over frequencies; 0 is best",
                3,
            ),
        ),
        sounds.prepared,
        sounds.measure,
    ),
    "video": Kind(
        "clips",
        clips.CODECS,
        ("x265", "x264"),
        (0.05, 0.1, 0.2, 0.4),
        UNITS["video"],
        "bits per pixel",
        (PSNR,),
        clips.prepared,
        clips.measure,
    ),
    "shape": Kind(
        "shapes",
        shapes.CODECS,
        ("draco",),
        (5, 10, 20, 40),
        UNITS["shape"],
        "kB",
        (
            Measure(
                "chamfer_share",
                "Chamfer distance (dB below the diagonal)",
                _decibels,
                "dB",
                "half the sum of the mean distances from either surface to the other, as a share "
                "of the bounding box's diagonal; in curves -20 log10 of it",
                6,
            ),
            Measure(
                "iou",
                "IoU (dB that 1 - IoU is below 1)",
                _missing,
                "dB",
                "points inside both solids over those inside any; in curves -20 log10(1 - IoU)",
                4,
            ),
        ),
        shapes.prepared,
        shapes.measure,
    ),
}
"""By the kind's permanent name. The first of `usual` is the reference of a comparison."""

OWN = ("inr", "stored")
"""Names of `.inr` files among the codecs: those made now, and those given."""
