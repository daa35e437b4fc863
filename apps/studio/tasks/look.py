"""Look at a file that was dropped: what it is, a picture of it, or why it cannot be fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps.studio import live
from apps.studio.desk import Desk
from apps.studio.spec import LIMITS, open_source
from inr.errors import InputError

SIDE = 1024
"""Pixels of the longer side of the picture that a mask is painted on."""


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """What the file of a spec holds.

    Returns:
        {"kind", "shape", "channels", "facts": {name: text}, "notes": [text], "picture": data URI or
        None, "preset": name of the preset that suits it, "controls": {name: [low, high, usual]}}.

    Raises:
        InputError: it cannot be read.
    """
    source = Path(spec["source"])
    size = source.stat().st_size
    name = str(spec.get("name") or source.name)
    if size > LIMITS.source_bytes:
        raise InputError(f"{name}: has {size:,} bytes: the limit is {LIMITS.source_bytes:,}")
    signal = open_source(spec)
    domain = signal.domain
    return {
        "kind": domain.kind,
        "shape": list(domain.shape),
        "channels": domain.channels,
        "facts": {key: str(value) for key, value in domain.describe().items()},
        "notes": list(signal.notes),
        "preset": signal.preset,
        "controls": {name: list(ends) for name, ends in live.view_of(signal).controls.items()},
        "picture": _picture(signal) if domain.kind == "image" else None,
        "bytes": size,
    }


def _picture(signal: Any) -> str:
    """The picture, enough of it to paint on."""
    from apps.view.pieces import block_means, eight_bits, png

    samples = signal.samples if hasattr(signal, "samples") else signal.source.samples
    factor = max(1, -(-max(samples.shape[:2]) // SIDE))
    height, width = (n // factor * factor for n in samples.shape[:2])
    small = block_means(samples[:height, :width], (factor, factor))
    low, high = getattr(signal.domain, "low", 0.0), getattr(signal.domain, "high", 1.0)
    return png(eight_bits(small, low, high))
