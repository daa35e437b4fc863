"""A picture while it is fitted: original, fit and error, and their spectra."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import SPECTRUM_SIDE, Cut, Lattice, Truth, View, spots
from apps.studio.live.observed import PROFILE_BYTES, on_picture
from apps.view.image import picture
from apps.view.page import Section
from apps.view.pieces import error_map, spectra

if TYPE_CHECKING:
    from apps.view.pieces import Sampled
    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.image import ImageDomain
    from inr.signals.observed import Observed


class ImageView(View):
    """A picture.

    Args:
        domain: Its domain.
        original: What is fitted, or the truth, where it is known.
        of: What was observed of the picture: it is shown, too.
    """

    def __init__(
        self, domain: ImageDomain, original: GridSignal | None, of: Observed | None = None
    ) -> None:
        super().__init__()
        self.domain = domain
        self.lattice = Lattice(domain.shape)
        self.truth = Truth(original)
        self._pane: tuple[list[Cut], dict[str, Any]] | None = None
        self._notes: list[str] = []
        self._colours = domain
        if len(domain.icc) > PROFILE_BYTES:
            self._colours = dataclasses.replace(domain, icc=b"")
            self._notes.append("Colours are shown without the picture's own profile.")
        if domain.depth > 8:
            self._notes.append(
                f"Values from {domain.low:g} to {domain.high:g}, shown in 256 steps."
            )
        self._seen: dict[str, Any] | None = None
        if of is not None:
            self._seen = on_picture(of)

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        cuts = self.lattice.cuts(points)
        found = spots(self.samples(field, self.domain, cuts), self.truth.at(cuts), cuts)
        notes = [*found.notes, *self._notes]
        shown = Section("Picture", "panes", self._panes(found, cuts), notes)
        return [shown, *spectra(found, SPECTRUM_SIDE)]

    def _panes(self, found: Sampled, cuts: list[Cut]) -> dict[str, Any]:
        shown = picture("fit", found.decoded, self._colours)
        panes = [shown] if self._seen is None else [self._seen, shown]
        if found.original is not None:
            if self._pane is None or self._pane[0] != cuts:
                self._pane = (cuts, picture("original", found.original, self._colours))
            before = 0 if self._seen is None else 2
            panes.insert(before, self._pane[1])
            unit = "" if self.domain.depth == 32 else f"of {self.domain.high:.0f}"
            panes.append(error_map(found.error[None], unit))
        height, width = self.domain.shape
        data: dict[str, Any] = {
            # the source's size, whatever the pictures' is: zoom and divider stay where they are
            "size": [width, height],
            "panes": panes,
            "clear": self.domain.channels in (2, 4) or self._seen is not None,
        }
        if len(panes) > 1:
            data["compare"] = [0, 1]
        return data


def grey(samples: np.ndarray, window: tuple[float, float]) -> str:
    """A plane of shape (height, width) as a grey picture, the window's ends black and white."""
    from apps.view.pieces import eight_bits, png

    return png(eight_bits(samples[..., None].astype(np.float64), *window))
