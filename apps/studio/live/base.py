"""What all live views share: parts of a lattice, how many points they take, how much they weigh."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apps.view.page import Section, weight
from apps.view.pieces import Sampled
from inr.errors import UsageError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Domain, GridSignal

ROOM = 400_000
"""Bytes that a frame may weigh."""

LEAST = 1 << 10
"""With fewer points there is nothing to see."""

RESERVE = 1.5
"""A frame becomes finer only if this many times its points are allowed: sizes that change make the
page begin anew with zoom and divider."""

SPECTRUM_SIDE = 128
"""Pixels along the sides of a live spectrum."""


class View(ABC):
    """A field that is being fitted, as the page shows it. What is constant is made once.

    Attributes:
        controls: Names of what a view heeds in `look`, each with its lowest, highest and usual
            value.
        least: A frame takes so many points even if fewer are allowed.
    """

    controls: Mapping[str, tuple[float, float, float]] = MappingProxyType({})
    least = LEAST

    def __init__(self) -> None:
        self._most = math.inf
        self._broken = 0

    def sections(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        """A frame: JSON-ready, of at most about `ROOM` bytes.

        Args:
            field: The field as it is now; it is not changed, nor need it have a domain.
            points: Evaluations of it that the frame may cost, above 0, at most but for `least`.
            look: What the page's controls say; what is out of range is taken as the nearest that is
                not.

        Raises:
            UsageError: there are no points, or a control says what is no number.
        """
        if points < 1:
            raise UsageError(f"points is {points}: give a number from 1 up")
        while True:
            self._broken = 0
            allowed = max(self.least, int(min(points, self._most)))
            made = self.frame(field, allowed, look)
            total = sum(map(weight, made))
            if total <= ROOM or allowed == self.least:
                break
            self._most = 0.9 * allowed * ROOM / total  # it holds for the frames to come, too
        if self._broken and made:
            told = f"At {self._broken:,} places the field has no number: it is shown as 0 there."
            first = made[0]
            made[0] = Section(first.title, first.widget, first.data, [*first.notes, told])
        return made

    @abstractmethod
    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        """A frame for so many points, whatever it weighs."""

    def samples(self, field: Field, domain: Domain, cuts: Sequence[Cut]) -> np.ndarray:
        """A field's samples in the signal's own type, one axis for each cut, then channels."""
        from inr.rendering import sampled

        axes = [cut.centres(domain, axis) for axis, cut in enumerate(cuts)]
        values = np.concatenate(list(sampled(field, axes)))
        broken = ~np.isfinite(values)
        if broken.any():
            self._broken += int(broken.any(-1).sum())
            values = np.where(broken, 0, values)
        return domain.to_samples(values)


class Cut(NamedTuple):
    """Some of the samples along an axis.

    Args:
        first: Index of the first.
        step: From each to the next.
        size: How many there are.
    """

    first: int
    step: int
    size: int

    @property
    def places(self) -> slice:
        """Their indices."""
        return slice(self.first, self.first + (self.size - 1) * self.step + 1, self.step)

    def centres(self, domain: Domain, axis: int) -> np.ndarray:
        """Their coordinates, exactly those that the signal's own samples have."""
        start = self.first + 0.5 - self.step / 2
        return domain.cell_centres(axis, start, start + self.size * self.step, self.size)


def thinned(length: int, factor: int) -> Cut:
    """One sample in `factor` of an axis, the middle of each stretch (or the one before)."""
    factor = min(factor, length)
    return Cut((factor - 1) // 2, factor, length // factor)


class Lattice:
    """A signal's lattice, thinned by a whole factor so that points suffice.

    Args:
        lengths: Samples along the axes that are thinned.
        times: How often such a lattice is evaluated for a frame.
    """

    def __init__(self, lengths: Sequence[int], times: int = 1) -> None:
        self.lengths = tuple(lengths)
        self.times = times
        self.factor: int | None = None

    def cuts(self, points: int) -> list[Cut]:
        """A cut of each axis, of at most so many points in all, or of about `LEAST`."""
        finest = self._finest(points)
        if self.factor is not None and finest < self.factor:
            finest = min(self._finest(points / RESERVE), self.factor)
        self.factor = finest
        return [thinned(n, finest) for n in self.lengths]

    def _finest(self, points: float) -> int:
        """The least factor for which points suffice; not so large that all but few are left out."""
        factor = 1
        while self._cost(factor) > max(points, LEAST):
            factor += 1 + factor // 8
        return factor

    def _cost(self, factor: int) -> int:
        return self.times * math.prod(n // min(factor, n) for n in self.lengths)


class Truth:
    """A signal on parts of its lattice; the last part is kept.

    Args:
        signal: The signal, or None where it is not known.
    """

    def __init__(self, signal: GridSignal | None) -> None:
        self.signal = signal
        self._cuts: list[Cut] | None = None
        self._samples: np.ndarray | None = None

    def at(self, cuts: Sequence[Cut]) -> np.ndarray | None:
        """Its samples there, in its own type."""
        if self.signal is not None and list(cuts) != self._cuts:
            self._cuts = list(cuts)
            self._samples = np.array(self.signal.samples[tuple(cut.places for cut in cuts)])
        return self._samples


def spots(decoded: np.ndarray, original: np.ndarray | None, cuts: Sequence[Cut]) -> Sampled:
    """A field and its original on cuts, as the pages of `inr view` have samples."""
    return Sampled(decoded, original, tuple(cut.step for cut in cuts), "fit", means=False)


def number(look: Mapping[str, Any], name: str, limits: tuple[float, float, float]) -> float:
    """What a control says, within its limits.

    Args:
        look: What all controls say.
        name: The control's.
        limits: Lowest, highest and usual value.

    Raises:
        UsageError: it is no number.
    """
    return clipped(look.get(name), name, limits)


def clipped(value: Any, name: str, limits: tuple[float, float, float]) -> float:
    """A number within its limits, or the usual one for None.

    Raises:
        UsageError: it is no number.
    """
    low, high, usual = limits
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise UsageError(f"{name} is {str(value)[:40]!r}: give a number from {low:g} to {high:g}")
    return min(max(value, low), high)
