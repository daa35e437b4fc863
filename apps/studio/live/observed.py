"""What was observed of a signal, beside what is reconstructed of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import View, thinned
from apps.view.image import picture
from apps.view.page import Section
from apps.view.pieces import deflated, eight_bits, png, sampled

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.observed import Observed

PROFILE_BYTES = 1 << 14
"""A longer colour profile is left out of frames, which carry it once for each picture."""

PIXELS = 1 << 15
"""Pixels of observations in a frame at most: they are sent with each."""

CHANNELS = 4
"""Channels of observations that are no picture of the signal, shown one by one."""

CURVE = 1 << 13
"""Numbers of a curve of observations."""


class ObservedView(View):
    """A signal seen through an operator: its own view, and what was observed.

    Args:
        signal: The signal.
        inner: The view of what is reconstructed, beside the truth where it is known.
    """

    def __init__(self, signal: Observed, inner: View) -> None:
        super().__init__()
        self.inner = inner
        self.controls = inner.controls
        self.least = inner.least
        self._extra = [] if on_picture(signal, 1) else observations(signal, PIXELS)
        self._told = "" if signal.truth is None else "What is called original is the truth."

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        made = self.inner.frame(field, points, look)
        self._broken = self.inner._broken
        if self._told:
            first = made[0]
            made[0] = Section(first.title, first.widget, first.data, [*first.notes, self._told])
        return [*made, *self._extra]


def beside(field: Field, signal: Observed, most: int) -> list[Section]:
    """Observations and the decoded reconstruction on one view, with the truth where it is known.

    Where observations are no picture of the signal they are a section of their own.

    Args:
        field: What the file decodes to.
        signal: What was fitted.
        most: Pixels of each picture at most.
    """
    seen = on_picture(signal, most)
    if seen is None:
        return observations(signal, most)
    domain: Any = field.domain
    found = sampled(field, signal.truth, most)
    panes = [seen, picture("decoded", found.decoded, domain)]
    if found.original is not None:
        panes.append(picture("truth", found.original, domain))
    height, width = domain.shape
    data = {"size": [width, height], "panes": panes, "compare": [0, 1], "clear": True}
    return [Section("Reconstruction", "panes", data, found.notes)]


def on_picture(signal: Observed, most: int = PIXELS) -> dict[str, Any] | None:
    """A pane of the observations, where they are a picture of the signal; else None.

    Samples that were not observed are clear.

    Args:
        signal: The signal.
        most: Pixels at most.
    """
    domain: Any = signal.domain
    source: Any = signal.source.domain
    if domain.kind != "image" or source.kind != "image":
        return None
    factor = 1
    while math.prod(n // min(factor, n) for n in source.shape) > most:
        factor += 1
    places = tuple(thinned(n, factor).places for n in source.shape)
    samples = np.asarray(signal.source.samples[places])
    label = "observed"
    icc = source.icc if len(source.icc) <= PROFILE_BYTES else b""
    if signal.known is not None:
        known = signal.known[places].cpu().numpy()
        clear = np.where(known, 255, 0).astype(np.uint8)[..., None]
        shown = eight_bits(samples, source.low, source.high)
        if samples.shape[-1] in (2, 4):
            clear = np.minimum(clear, shown[..., -1:])
            shown = shown[..., :-1]
        frame = png(np.concatenate([shown, clear], -1), icc)
        return {"name": "observed", "label": f"{label} (the rest is unknown)", "frames": [frame]}
    if source.shape != domain.shape:
        label = "observed, {} x {}".format(*source.shape[::-1])
    frame = png(eight_bits(samples, source.low, source.high), icc)
    return {"name": "observed", "label": label, "frames": [frame]}


def observations(signal: Observed, most: int) -> list[Section]:
    """Observations that are no picture of the signal: planes channel by channel, or curves.

    Args:
        signal: The signal.
        most: Pixels at most of all pictures.
    """
    source: Any = signal.source.domain
    axes = len(source.shape)
    count = min(source.channels, CHANNELS)
    if axes > 2:
        return []
    factor = 1
    while count * math.prod(n // min(factor, n) for n in source.shape) > (
        most if axes == 2 else CURVE
    ):
        factor += 1 + factor // 8
    places = tuple(thinned(n, factor).places for n in source.shape)
    samples = np.asarray(signal.source.samples[places])[..., :count].astype(np.float64)
    known = None if signal.known is None else signal.known[places].cpu().numpy()
    names = ["observed"] if count == 1 else [f"observed, channel {c}" for c in range(count)]
    notes = [f"One observation in {factor} is shown along each axis."] if factor > 1 else []
    if count < source.channels:
        notes.append(f"The first {count} of {source.channels} channels are shown.")
    if axes == 1:
        if known is not None:
            samples = np.where(known[..., None], samples, np.nan)
        series = [
            {"name": name, "colour": c, "values": deflated(samples[:, c].astype(np.float32))}
            for c, name in enumerate(names)
        ]
        extent = [0, source.shape[0], "index"]
        data: dict[str, Any] = {"label": "observations", "x": extent, "y": "value"}
        return [Section("Observed", "plot", data | {"series": series}, notes)]
    if known is None:
        known = np.ones(samples.shape[:-1], bool)
    panes = []
    for c, name in enumerate(names):
        low, high = np.quantile(samples[..., c][known], [0.001, 0.999]).tolist()
        grey = eight_bits(samples[..., c : c + 1], low, high)
        clear = np.where(known, 255, 0).astype(np.uint8)[..., None]
        shown = grey if known.all() else np.concatenate([grey, clear], -1)
        label = f"{name}, from {low:.4g} (black) to {high:.4g} (white)"
        panes.append({"name": name, "label": label, "frames": [png(shown)]})
    height, width = source.shape
    data = {"size": [width, height], "panes": panes}
    if max(height, width) > 2 * min(height, width):
        data["aspect"] = width / height  # a sinogram of few angles would be a thread
    return [Section("Observed", "panes", data, notes)]
