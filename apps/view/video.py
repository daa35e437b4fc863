"""What a page shows of a clip: its frames under a slider, beside the original's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.view.page import Section
from apps.view.pieces import Sampled, block_means, eight_bits, error_map, png, spectra

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import GridSignal
    from inr.signals.video import VideoDomain

BYTES_PER_PIXEL = {False: 2, True: 5}
"""What a pixel costs in a page, at least about, without an original and with one."""

FRAMES = 60
"""Frames are made smaller where fewer of them would find room."""


def sections(field: Field, original: GridSignal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes."""
    from inr.signals.video import frames_of

    domain: VideoDomain = field.domain
    pixels = room // BYTES_PER_PIXEL[original is not None]
    wanted = min(FRAMES, domain.frames)
    factor = 1
    while wanted * (domain.height // factor) * (domain.width // factor) > pixels:
        factor += 1
    height, width = max(1, domain.height // factor), max(1, domain.width // factor)
    whole = (
        0.0,
        0.0,
        float(min(height * factor, domain.height)),
        float(min(width * factor, domain.width)),
    )
    step = math.ceil(domain.frames / max(1, pixels // (height * width)))
    chosen = range(0, domain.frames, step)
    size = (height, width)
    decoded = np.stack(
        [next(iter(frames_of(field, size, (1, float(k), 1.0), whole))) for k in chosen]
    )
    truth = None
    if original is not None:
        rows, columns = int(whole[2]), int(whole[3])
        factors = (1, rows // height, columns // width)
        truth = np.concatenate(
            [block_means(original.samples[k : k + 1, :rows, :columns], factors) for k in chosen]
        )
    found = Sampled(decoded, truth, (1, factor, factor))

    panes: list[dict[str, Any]] = []
    for name, samples in (("original", truth), ("decoded", decoded)):
        if samples is not None:
            frames = [png(eight_bits(frame, 0, domain.peak)) for frame in samples]
            panes.append({"name": name, "label": name, "frames": frames})
    if truth is not None:
        panes.append(error_map(found.error, f"of {domain.peak:.0f}"))
    rate = float(domain.rate)
    data: dict[str, Any] = {
        "size": [width, height],
        "panes": panes,
        "stack": {
            "label": "frame",
            "fps": rate / step,
            "names": [f"{k}, {k / rate:.2f} s" for k in chosen],
        },
    }
    if truth is not None:
        data["compare"] = [0, 1]
    notes = []
    if step > 1:
        notes.append(
            f"{len(chosen)} of {domain.frames} frames are here, one in {step}: "
            "--max-mb gives a page more room."
        )
    if factor > 1:
        notes.append(f"Shown at reduced size: each pixel is the mean over {factor} x {factor}.")
    middle = len(decoded) // 2
    one = Sampled(decoded[middle], None if truth is None else truth[middle], (1, 1))
    power = [
        Section(f"{part.title} of frame {chosen[middle]}", part.widget, part.data)
        for part in spectra(one)
    ]
    return [Section("Clip", "panes", data, notes), *power]
