"""What a page shows of a picture: zoom, before and after, the error, spectra."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from apps.view.page import Section
from apps.view.pieces import eight_bits, error_map, png, sampled, spectra

if TYPE_CHECKING:
    import numpy as np

    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.image import ImageDomain

BYTES_PER_PIXEL = 5
"""What original, decode and error cost in a page, at least about."""

ENLARGED_PIXELS = 1 << 19
"""Pictures of at most so many pixels are shown at twice their size, too."""


def sections(field: Field, original: GridSignal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes."""
    from inr.rendering import render

    domain: ImageDomain = field.domain
    found = sampled(field, original, room // BYTES_PER_PIXEL)
    panes = []
    if found.original is not None:
        panes.append(picture("original", found.original, domain))
    panes.append(picture("decoded", found.decoded, domain))
    if math.prod(domain.shape) <= min(ENLARGED_PIXELS, room // (4 * BYTES_PER_PIXEL)):
        twice = picture("decoded at twice the size", render(field, scale=2), domain)
        panes.append(twice | {"smooth": True})
    if found.original is not None:
        unit = "" if domain.depth == 32 else f"of {domain.high:.0f}"
        panes.append(error_map(found.error[None], unit))
    height, width = found.decoded.shape[:2]
    data: dict[str, Any] = {
        "size": [width, height],
        "panes": panes,
        "clear": domain.channels in (2, 4),
    }
    if len(panes) > 1:
        data["compare"] = [0, 1]
    notes = list(found.notes)
    if domain.depth > 8:
        notes.append(f"Values from {domain.low:g} to {domain.high:g}, shown in 256 steps.")
    return [Section("Picture", "panes", data, notes), *spectra(found)]


def picture(name: str, samples: np.ndarray, domain: ImageDomain) -> dict[str, Any]:
    """A pane of a picture in the domain's range and colours."""
    frame = png(eight_bits(samples, domain.low, domain.high), domain.icc)
    return {"name": name, "label": name, "frames": [frame]}
