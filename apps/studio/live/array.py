"""An array while it is fitted: a curve, a map of colours, or slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apps.studio.live.base import Cut, Lattice, Truth, View, spots
from apps.view.array import shown_of

if TYPE_CHECKING:
    from apps.view.page import Section
    from fields.base import Field
    from inr.signals.array import ArrayDomain
    from inr.signals.base import GridSignal

AXES = 3
"""So many of the last axes are shown, in the middle of the others."""


class ArrayView(View):
    """An array of numbers."""

    def __init__(self, domain: ArrayDomain, original: GridSignal | None) -> None:
        super().__init__()
        self.domain = domain
        self.truth = Truth(original)
        shape = domain.shape
        self.others = [Cut(n // 2, 1, 1) for n in shape[:-AXES]]
        self.lattice = Lattice(shape[-AXES:])

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        cuts = [*self.others, *self.lattice.cuts(points)]
        found = spots(self.samples(field, self.domain, cuts), self.truth.at(cuts), cuts)
        return shown_of(found, self.domain)
