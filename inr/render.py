"""Evaluate a field at any resolution, in bands of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from inr.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fields.base import Field
    from inr.signals.base import Domain

BAND_POINTS = 1 << 18
"""Points evaluated at a time; a band holds at least one row."""


def bands(field: Field, axes: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of the first axis, values on them), covering the product of the axes.

    Values have shape (rows, *lengths of the other axes, channels); no gradient is kept.
    """
    import torch

    inner = math.prod(len(axis) for axis in axes[1:])
    rows = max(1, BAND_POINTS // max(inner, 1))
    with torch.no_grad():
        for start in range(0, len(axes[0]), rows):
            band = slice(start, min(start + rows, len(axes[0])))
            yield band, field.on_grid([axes[0][band], *axes[1:]])


def render(
    field: Field,
    size: Sequence[int] | None = None,
    *,
    scale: float | None = None,
    crop: Sequence[float] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Sample a field that has a domain, at any size, in the signal's own type.

    Samples lie at the centres of equal cells of the domain (or of the crop), so that the result
    registers with other tools' resizes. Where it is coarser than the source, each sample is the
    mean over its cell, so that nothing aliases.

    Args:
        field: A fitted or loaded field; `field.domain` says where it lives.
        size: Samples per axis, (height, width) for an image. Default: the source's, or that of
            the crop, times `scale`.
        scale: Factor on the default size, instead of `size`.
        crop: Start and length per axis in source samples, interleaved: (y, x, height, width) for
            an image. It may be fractional.
        out: Array to fill, for example a memory-mapped file; shape (*size, channels).

    Returns:
        Array of shape (*size, channels).

    Raises:
        UsageError: an argument does not fit the domain.
    """
    import numpy as np

    domain = field.domain
    if domain is None:
        raise UsageError("this field has no domain: fit it to a signal, or load it from a file")
    starts, lengths = _window(domain, crop)
    shape = target_shape(domain, size, scale, crop)
    if out is None:
        probe = domain.to_samples(np.zeros((0, domain.channels), np.float32))
        out = np.empty((*shape, domain.channels), probe.dtype)
    elif out.shape != (*shape, domain.channels):
        raise UsageError(f"out has shape {out.shape}: expected {(*shape, domain.channels)}")
    for rows, samples in render_bands(field, domain, shape, starts, lengths):
        out[rows] = samples
    return out


def render_bands(
    field: Field,
    domain: Domain,
    shape: Sequence[int],
    starts: Sequence[float],
    lengths: Sequence[float],
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, samples) of a rendering from top to bottom, for streaming to a file."""
    import torch

    device = next(field.parameters()).device
    over = [max(1, math.ceil(n / s - 1e-9)) for n, s in zip(lengths, shape, strict=True)]
    axes = [
        torch.from_numpy(domain.cell_centres(i, starts[i], starts[i] + lengths[i], n * k))
        for i, (n, k) in enumerate(zip(shape, over, strict=True))
    ]
    inner = math.prod(len(axis) for axis in axes[1:]) * over[0]
    step = max(1, BAND_POINTS // inner)
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        first = axes[0][rows.start * over[0] : rows.stop * over[0]]
        local = [axis.to(device) for axis in (first, *axes[1:])]
        values = torch.cat([band for _, band in bands(field, local)])
        for axis, k in enumerate(over):
            if k > 1:
                values = values.unflatten(axis, (-1, k)).mean(axis + 1)
        yield rows, domain.to_samples(values.cpu().numpy())


def target_shape(
    domain: Domain,
    size: Sequence[int] | None,
    scale: float | None,
    crop: Sequence[float] | None,
) -> tuple[int, ...]:
    """Samples per axis of a rendering; see `render`."""
    _, lengths = _window(domain, crop)
    if size is not None and scale is not None:
        raise UsageError("give size or scale, not both")
    if size is None:
        factor = 1.0 if scale is None else scale
        if not 0 < factor <= 1e6:
            raise UsageError(f"scale is {scale}: give a number above 0")
        return tuple(max(1, round(n * factor)) for n in lengths)
    if len(size) != len(domain.shape) or any(n < 1 for n in size):
        raise UsageError(f"size is {tuple(size)}: give {len(domain.shape)} numbers from 1 up")
    return tuple(int(n) for n in size)


def _window(
    domain: Domain, crop: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Starts and lengths of a crop, checked against the domain."""
    dims = len(domain.shape)
    if crop is None:
        return (0.0,) * dims, tuple(float(n) for n in domain.shape)
    if len(crop) != 2 * dims:
        raise UsageError(f"crop is {tuple(crop)}: give {2 * dims} numbers, starts then lengths")
    starts, lengths = tuple(crop[:dims]), tuple(crop[dims:])
    for start, length, n in zip(starts, lengths, domain.shape, strict=True):
        if not (start >= 0 and length > 0 and start + length <= n):
            raise UsageError(f"crop {tuple(crop)} leaves the domain of {tuple(domain.shape)}")
    return starts, lengths
