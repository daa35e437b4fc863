"""A clip while it is fitted: a few frames beside the original's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import Cut, Lattice, Truth, View, number, spots
from apps.view.page import Section
from apps.view.pieces import eight_bits, error_map, png

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.video import VideoDomain

FRAMES = 3


class VideoView(View):
    """A clip; `look["frame"]` chooses the frame in the middle of those that are shown."""

    def __init__(self, domain: VideoDomain, original: GridSignal | None) -> None:
        super().__init__()
        self.domain = domain
        self.truth = Truth(original)
        self.count = min(FRAMES, domain.frames)
        self.lattice = Lattice((domain.height, domain.width), self.count)
        self.controls = {"frame": (0, domain.frames - 1, domain.frames // 2)}
        self._kept: tuple[list[Cut], list[str]] | None = None

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        domain = self.domain
        wanted = round(number(look, "frame", self.controls["frame"]))
        first = min(max(wanted - self.count // 2, 0), domain.frames - self.count)
        cuts = [Cut(first, 1, self.count), *self.lattice.cuts(points)]
        found = spots(self.samples(field, domain, cuts), self.truth.at(cuts), cuts)
        panes: list[dict[str, Any]] = []
        if found.original is not None:
            if self._kept is None or self._kept[0] != cuts:
                self._kept = (cuts, self._pictures(found.original))
            panes.append({"name": "original", "label": "original", "frames": self._kept[1]})
        fit = self._pictures(found.decoded)
        panes.append({"name": "fit", "label": "fit", "frames": fit})
        if found.original is not None:
            panes.append(error_map(found.error, f"of {domain.peak:.0f}"))
        data: dict[str, Any] = {"size": [domain.width, domain.height], "panes": panes}
        if self.count > 1:
            data["stack"] = {
                "label": "frame",
                "names": [
                    f"{k}, {k / float(domain.rate):.2f} s" for k in range(first, first + self.count)
                ],
                "at": wanted - first,
            }
        if found.original is not None:
            data["compare"] = [0, 1]
        last = first + self.count - 1
        notes = [f"Frames {first} to {last} of 0 to {domain.frames - 1} are shown.", *found.notes]
        return [Section("Clip", "panes", data, notes)]

    def _pictures(self, samples: np.ndarray) -> list[str]:
        return [png(eight_bits(one, 0, self.domain.peak)) for one in samples]
