"""What a file is to be: of at most a size, or of at least a quality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from inr.codec.format import Container, pack
from inr.errors import UsageError

if TYPE_CHECKING:
    from inr.signals.base import Domain, Signal

SIZE = "bytes"

UNITS = {"bpp": ("bpp", "bits_per_sample"), "kbps": ("kbps",)}
"""Densities that may be asked for, and what `Domain.density` calls them."""

RANGES = {
    "weight": (0.0, 1e6, "a number above 0"),
    "bpp": (0.0, 1e4, "a number above 0"),
    "kbps": (0.0, 1e9, "a number above 0"),
    "bytes": (0.0, 2.0**40, "a number of bytes above 0"),
    "psnr": (0.0, 400.0, "dB above 0"),
    "snr": (0.0, 400.0, "dB above 0"),
    "iou": (0.0, 1.0, "a number between 0 and 1"),
}
"""By target, the open interval in which it lies, in words too."""


TARGETS = tuple(name for name in RANGES if name != "weight")

NO_NAMES: Mapping[str, str] = {}


class TargetOptions(TypedDict, total=False):
    """The targets by name, of which one is given, or the weight of the rate, or both.

    Attributes:
        weight: Weight of the rate (`recipe.rate_weight`), which is then not searched. With it no
            target is needed: the file is then what this weight makes of it.
        bpp: Bits per pixel, voxel or other sample, at most.
        kbps: Kilobits per second of a sound or a film, at most.
        bytes: Size of the file, at most.
        psnr: Quality of the decoded file in dB, at least; as the signal's `metrics` has it.
        snr: For a sound, its power over that of the error, in dB, at least.
        iou: For a solid, intersection over union, at least.
    """

    weight: float | None
    bpp: float | None
    kbps: float | None
    bytes: float | None
    psnr: float | None
    snr: float | None
    iou: float | None


@dataclass(frozen=True)
class Target:
    """A bound that a file keeps.

    Args:
        measure: "bytes", or the name of a measure of `Signal.metrics` of which more is better.
        value: Largest number of bytes, a whole number, or least value of the measure.
    """

    measure: str
    value: float

    @property
    def is_size(self) -> bool:
        """Whether it bounds the size."""
        return self.measure == SIZE

    @property
    def max_bytes(self) -> int:
        """The largest size."""
        return int(self.value)

    def __str__(self) -> str:
        if self.is_size:
            return f"{self.max_bytes:,} bytes"
        unit = " dB" if self.measure in ("psnr", "snr") else ""
        return f"{self.measure} {self.value:g}{unit}"


class Wanted(NamedTuple):
    """What was asked for.

    Args:
        target: Name and value of the target, if there is one.
        weight: Weight of the rate, if it is given.
    """

    target: tuple[str, float] | None
    weight: float | None


def wanted(options: TargetOptions, names: Mapping[str, str] = NO_NAMES) -> Wanted:
    """The one target that is given, and the weight of the rate.

    Args:
        options: What is given, by name; None stands for nothing.
        names: What messages call some of them.

    Raises:
        UsageError: there is no target, or two, or a value is out of range.
    """
    given: dict[str, Any] = {name: v for name, v in options.items() if v is not None}
    for name, value in given.items():
        if name not in RANGES:
            raise UsageError(f"{name}: no such target; choose from {', '.join(TARGETS)}")
        low, high, allowed = RANGES[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low < value < high:
            raise UsageError(f"{names.get(name, name)} is {value!r}: give {allowed}")
    weight = given.pop("weight", None)
    called = [names.get(name, name) for name in given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(called)} are given: a file has one target; give one")
    if not given and weight is None:
        known = ", ".join(names.get(name, name) for name in TARGETS)
        raise UsageError(f"no target is given: give one of {known}")
    found = next(((name, float(value)) for name, value in given.items()), None)
    return Wanted(found, weight)


def settle(name: str, value: float, signal: Signal) -> Target:
    """What a target means for a signal.

    Raises:
        UsageError: it is none for such a signal, or no file can be so small.
    """
    domain = signal.domain
    if name in UNITS or name == SIZE:
        size = math.floor(value if name == SIZE else _bytes_of(name, value, domain))
        least = len(pack(Container([domain.kind, domain.header(), "", []], [])))
        if size < least:
            raise UsageError(
                f"{name} is {value:g}, {size:,} bytes of {domain.kind}: even an empty file has "
                f"{least:,}; give more"
            )
        return Target(SIZE, size)
    if name != "psnr" and name not in signal.shown:
        measures = [m for m in ("psnr", "snr", "iou") if m == "psnr" or m in signal.shown]
        raise UsageError(f"{name}: no measure of this {domain.kind}; it has {', '.join(measures)}")
    return Target(name, value)


def _bytes_of(name: str, value: float, domain: Domain) -> float:
    """The bytes that a density comes to."""
    densities = domain.density(1)
    for unit in UNITS[name]:
        if unit in densities:
            return value / densities[unit] * (1 + 1e-12)  # 0.5 bpp of 512 x 512 are 16,384 bytes
    known = [n for n, units in UNITS.items() if any(unit in densities for unit in units)]
    raise UsageError(
        f"{name}: no unit of {domain.kind}; give {', '.join([*known, SIZE])} or a quality"
    )


def decibels(measure: str, value: float) -> float:
    """A measure on a scale that is about straight against the logarithm of the size."""
    if measure == "iou":
        return -10 * math.log10(max(1 - value, 1e-9))
    return min(value, 400.0)
