"""A shape while it is fitted: the surface in the field so far, beside the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import LEAST, RESERVE, ROOM, View, number
from apps.view.page import Section
from apps.view.shape import BYTES_PER_FACE, meshed

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Signal
    from inr.signals.shape import ShapeDomain
    from inr.surface import Surface

RESOLUTIONS = (6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)
"""Cells per axis: a frame has no room for the triangles of more."""

PASSES = 2
"""How often `inr.surface.extract` looks at each node of such a lattice, at most."""

FACES = ROOM // (3 * BYTES_PER_FACE)
"""Triangles of each of the two meshes at most."""

PROBES = 256
"""Vertices whose distance to the original is told."""


class ShapeView(View):
    """A shape; `look["level"]` is a distance in its units, or an occupancy.

    `look["resolution"]` is how many cells per axis are wanted; there are fewer where points do not
    suffice.
    """

    def __init__(self, signal: Signal) -> None:
        from inr.signals.oriented import OrientedPoints
        from inr.signals.shape import Shape

        super().__init__()
        domain: Any = signal.domain
        self.domain: ShapeDomain = domain
        centre = np.array(domain.centre)
        self.box = (centre - domain.half, centre + domain.half)
        self.solid = None
        self.focus = self.box
        self._notes: list[str] = []
        if isinstance(signal, Shape):
            self.solid = signal.solid
            self.focus = (self.solid.low, self.solid.high)
            mesh = (self.solid.vertices, self.solid.faces)
            self.original, count = meshed("original", mesh, self.box, FACES)
            if count < len(self.solid.faces):
                self._notes.append(
                    f"The original is shown with {count:,} of {len(self.solid.faces):,} triangles."
                )
        elif isinstance(signal, OrientedPoints):
            self.focus = signal.cloud.bounds
            self._notes.append("The original is points, of which nothing is drawn.")
        low, high = (0.0, 1.0) if domain.target == "occupancy" else (-1.0, 1.0)
        if domain.target != "occupancy":
            low, high = low * domain.truncation, high * domain.truncation
        edge = 1e-3 * (high - low)  # no value stands for the ends themselves
        usual = (low + high) / 2
        self.controls = {
            "level": (low + edge, high - edge, usual),
            "resolution": (RESOLUTIONS[0], RESOLUTIONS[-1], RESOLUTIONS[-1]),
        }
        self._last = 0

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        from inr.surface import extract

        level = number(look, "level", self.controls["level"])
        wanted = number(look, "resolution", self.controls["resolution"])
        resolution = self._resolution(points, wanted)
        found = extract(
            field,
            resolution,
            level=self.domain.level(level),
            thickness=self.domain.thickness,
        )
        found = found.oriented(self.domain.outward)
        own, count = self._mesh(found)
        notes = [f"The fit is drawn with {resolution} cells per axis: {count:,} triangles."]
        if not count:
            notes = [f"The field has no surface at level {level:.4g} yet: nothing is drawn."]
        elif self.solid is not None:
            notes.append(self._distance(found))
        data = {
            "low": self.box[0].tolist(),
            "high": self.box[1].tolist(),
            "focus": [np.asarray(side, np.float64).tolist() for side in self.focus],
            "meshes": [own] if self.solid is None else [self.original, own],
        }
        return [Section("Surface", "mesh", data, [*notes, *self._notes])]

    def _resolution(self, points: int, wanted: float) -> int:
        """Cells per axis: no more than are wanted, nor than points suffice for."""

        def finest(allowed: float) -> int:
            # blocks of the lattice share nodes, which are counted once more
            good = [n for n in RESOLUTIONS if PASSES * (n + 2) ** 3 <= max(allowed, LEAST)]
            return good[-1] if good else RESOLUTIONS[0]

        cells = finest(points)
        if self._last and cells > self._last:
            cells = max(finest(points / RESERVE), self._last)
        self._last = cells
        return min(cells, round(wanted))

    def _mesh(self, found: Surface) -> tuple[dict[str, Any], int]:
        vertices = self.domain.to_units(found.vertices)
        return meshed("fit", (vertices, found.faces), self.box, FACES)

    def _distance(self, found: Surface) -> str:
        """How far vertices of the fit are from the original, those between included."""
        assert self.solid is not None
        step = max(1, len(found.vertices) // PROBES)
        some = self.domain.to_units(found.vertices[::step])
        median = float(np.median(self.solid.distance(some))) / self.solid.diagonal
        return (
            f"Half of the fit's vertices lie within {100 * median:.2g} % of the diagonal of the "
            "original's surface."
        )
