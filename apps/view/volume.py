"""What a page shows of a volume: slices along its three axes under one window of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.view.page import Section
from apps.view.pieces import NUMBERS_PER_BYTE, Sampled, sampled, slices, spectra

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.volume import VolumeDomain

NAMES = ("z, from the top", "y, from the front", "x, from the left")
"""Axes of a volume whose place in space is known, as pages have them."""

PLANES = ("axial", "coronal", "sagittal")
"""What slices across them are called."""


def sections(field: Field, original: GridSignal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes."""
    domain: VolumeDomain = field.domain
    shown = 1 if original is None else 3
    found = sampled(field, original, room * NUMBERS_PER_BYTE // shown)
    power = spectra(found)
    spacing = domain.spacing or (1.0, 1.0, 1.0)
    names = ("axis 0", "axis 1", "axis 2")
    planes = tuple(f"across {name}" for name in names)
    if domain.affine is not None:
        found, axes = _upright(found, domain)
        spacing, names, planes = tuple(spacing[axis] for axis in axes), NAMES, PLANES
    look = {"spacing": spacing, "names": names, "planes": planes}
    part = slices("Slices", found, look, "grey")
    notes = list(part.notes)
    if domain.scaling:
        slope, intercept = domain.scaling
        notes.append(f"Values as stored: {slope:g} v + {intercept:g} is what they stand for.")
    return [Section(part.title, part.widget, part.data, notes), *power]


def _upright(found: Sampled, domain: VolumeDomain) -> tuple[Sampled, list[int]]:
    """The volume seen as people stand, and its axes; see `upright`."""
    axes, flipped = upright(domain)

    def turned(samples: np.ndarray) -> np.ndarray:
        return np.flip(samples.transpose(*axes, 3), tuple(flipped))

    truth = None if found.original is None else turned(found.original)
    factors = tuple(found.factors[axis] for axis in axes)
    return found._replace(decoded=turned(found.decoded), original=truth, factors=factors), axes


def upright(domain: VolumeDomain) -> tuple[list[int], list[int]]:
    """How a volume is seen as people stand: down is z or y downwards, right is x.

    Returns:
        The array's axes in the order of z, y, x; and which of the three, so ordered, are flipped.
    """
    assert domain.affine is not None
    axes = [domain.axis_along(name) for name in "zyx"]
    if sorted(axes) != [0, 1, 2]:  # two are nearest to one: the affine is skewed
        return [0, 1, 2], []
    growing = [domain.affine[2 - i, axis] > 0 for i, axis in enumerate(axes)]
    return axes, [i for i, grows in enumerate(growing) if grows != (i == 2)]
