"""What a page shows of an array: a curve, a map of colours, or slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.view.page import Section
from apps.view.pieces import NUMBERS_PER_BYTE, Sampled, deflated, sampled, slices, spectra

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.array import ArrayDomain
    from inr.signals.base import GridSignal

MAX_CHANNELS = 6
MAX_CURVE = 1 << 18


def sections(field: Field, original: GridSignal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes."""
    domain: ArrayDomain = field.domain
    channels = min(domain.channels, MAX_CHANNELS)
    shown = channels * (1 if original is None else 3)
    most = max(1, room * NUMBERS_PER_BYTE // shown)
    found = sampled(field, original, min(most, MAX_CURVE) if len(domain.shape) == 1 else most)
    return shown_of(found, domain)


def shown_of(found: Sampled, domain: ArrayDomain) -> list[Section]:
    """What is shown of samples of an array, all of its axes or the last ones."""
    found, told = _leading(found)
    power = spectra(found)
    if len(domain.shape) == 1:
        return [_curves(found, told, domain.shape[0]), *power]
    axes = len(found.factors)
    names = [f"axis {i}" for i in range(len(domain.shape))][-axes:]
    planes = [f"across {name}" for name in names]
    look = {"spacing": [1.0] * axes, "names": names, "planes": planes}
    part = slices("Values", found, look, "viridis")
    return [Section(part.title, part.widget, part.data, [*part.notes, *told]), *power]


def _leading(found: Sampled) -> tuple[Sampled, list[str]]:
    """The first channels of the last three axes, in the middle of the others; and a word on it."""
    *shape, channels = found.decoded.shape
    others = len(shape) - 3
    notes = []
    place: tuple[int, ...] = ()
    if others > 0:
        place = tuple(n // 2 for n in shape[:others])
        where = ", ".join(f"axis {i} at {k * found.factors[i]}" for i, k in enumerate(place))
        notes.append(f"The last three of {len(shape)} axes are shown, with {where}.")
    if channels > MAX_CHANNELS:
        notes.append(f"The first {MAX_CHANNELS} of {channels} channels are shown.")

    def part(samples: np.ndarray) -> np.ndarray:
        return samples[place][..., :MAX_CHANNELS]

    truth = None if found.original is None else part(found.original)
    factors = found.factors[max(others, 0) :]
    return found._replace(decoded=part(found.decoded), original=truth, factors=factors), notes


def _curves(found: Sampled, told: list[str], length: int) -> Section:
    """One pane of values and one of errors over the index."""
    shown = [("original", found.original, 0), (found.name, found.decoded, 1)]
    given = [(name, samples, i) for name, samples, i in shown if samples is not None]
    if found.original is not None:
        given.append(("error", found.error, 2))
    series = [
        {
            "name": name if found.decoded.shape[-1] == 1 else f"{name}, channel {c}",
            "colour": i + 3 * c,
            "group": int(name == "error"),
            "values": deflated(samples[:, c].astype(np.float32)),
        }
        for name, samples, i in given
        for c in range(samples.shape[-1])
    ]
    data = {"label": "values", "x": [0, length, "index"], "y": "value", "series": series}
    return Section("Values", "plot", data, [*found.notes, *told])
