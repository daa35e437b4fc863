"""A volume while it is fitted: a slice across each of its axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import LEAST, Cut, Lattice, Truth, View, clipped, spots
from apps.studio.live.image import grey
from apps.view.page import Section
from apps.view.pieces import error_map
from apps.view.volume import PLANES, upright
from inr.errors import UsageError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.volume import VolumeDomain

WINDOW_SAMPLES = 1 << 16
"""Voxels by which black and white are chosen, about."""


class VolumeView(View):
    """A volume; `look["slices"]` has an index for each axis of its array.

    Where its place in space is known, slices are seen as people stand.
    """

    least = 3 * LEAST

    def __init__(self, domain: VolumeDomain, original: GridSignal | None) -> None:
        super().__init__()
        self.domain = domain
        # how the array's axes are ordered and turned to be looked at
        self.axes, flipped = ([0, 1, 2], []) if domain.affine is None else upright(domain)
        self.flipped = tuple(flipped)
        self.titles = (
            [f"Across axis {axis}" for axis in self.axes]
            if domain.affine is None
            else [f"{name.capitalize()} slice" for name in PLANES]
        )
        self.truths = [Truth(original) for _ in range(3)]
        self.lattices = [
            Lattice([n for axis, n in enumerate(domain.shape) if axis != across])
            for across in self.axes
        ]
        self.window = (float(domain.low), float(domain.high))
        if original is not None:
            step = max(1, round((original.count / WINDOW_SAMPLES) ** (1 / 3)))
            some = original.samples[::step, ::step, ::step]
            low, high = np.quantile(some, [0.001, 0.999]).tolist()
            if low < high:
                self.window = (low, high)
        self._kept: list[tuple[list[Cut], str] | None] = [None] * 3
        self.controls = {
            f"slices[{axis}]": (0.0, n - 1.0, float(n // 2)) for axis, n in enumerate(domain.shape)
        }

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        chosen = look.get("slices")
        chosen = [None] * 3 if chosen is None else chosen
        if not isinstance(chosen, (list, tuple)) or len(chosen) != 3:
            raise UsageError("slices: give an index for each of the three axes")
        limits = self.controls.items()
        at = [
            round(clipped(value, *control)) for value, control in zip(chosen, limits, strict=True)
        ]
        return [self._slice(field, points // 3, i, at) for i in range(3)]

    def _slice(self, field: Field, points: int, i: int, at: list[int]) -> Section:
        """The slice across the i-th axis of those that are looked at."""
        across = self.axes[i]
        cuts = self.lattices[i].cuts(points)
        cuts.insert(across, Cut(at[across], 1, 1))
        found = spots(self.samples(field, self.domain, cuts), self.truths[i].at(cuts), cuts)
        fit = grey(self._seen(found.decoded, i), self.window)
        panes: list[dict[str, Any]] = [{"name": "fit", "label": "fit", "frames": [fit]}]
        if found.original is not None:
            kept = self._kept[i]
            if kept is None or kept[0] != cuts:
                kept = (cuts, grey(self._seen(found.original, i), self.window))
                self._kept[i] = kept
            panes.insert(0, {"name": "original", "label": "original", "frames": [kept[1]]})
            panes.append(error_map(self._seen(found.error, i)[None, ..., None], ""))
        down, right = (axis for axis in self.axes if axis != across)
        spacing = self.domain.spacing or (1.0, 1.0, 1.0)
        data: dict[str, Any] = {
            "size": [self.domain.shape[right], self.domain.shape[down]],
            "aspect": spacing[down] / spacing[right],
            "panes": panes,
        }
        if found.original is not None:
            data["compare"] = [0, 1]
        notes = [f"Index {at[across]} of 0 to {self.domain.shape[across] - 1} along axis {across}."]
        thin = max(cut.step for cut in cuts)
        if thin > 1:
            notes.append(f"Shown at reduced size: one voxel in {thin} x {thin}.")
        return Section(self.titles[i], "panes", data, notes)

    def _seen(self, samples: np.ndarray, i: int) -> np.ndarray:
        """A slice of the array as a picture of shape (down, right)."""
        turned = samples[..., 0].transpose(self.axes)
        turned = np.flip(turned, self.flipped)
        return turned.squeeze(i)
