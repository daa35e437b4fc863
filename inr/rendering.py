"""Evaluate a field at any resolution, in bands of bounded memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fields.kernels.grid import NumpyGrid
from inr.backend import computing
from inr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from fields.base import Field
    from inr.signals.base import Domain

BAND_POINTS = 1 << 18
"""Points evaluated at a time."""

LARGEST_SCALE = 1e6


def bands(field: Field, axes: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of the first axis, values on them), covering the product of the axes.

    Values have shape (rows, *lengths of the other axes, channels); no gradient is kept. A band
    holds at least one row, evaluated in parts where even that is too much at a time.
    """
    import torch

    with computing(field), field.one_step():
        for band in _bands_of(axes):
            with torch.no_grad():  # not across the yield: the caller keeps its own mode
                values = _on_grid(field, [axes[0][band], *axes[1:]])
            yield band, values


def _bands_of(axes: Sequence[Tensor] | Sequence[np.ndarray]) -> Iterator[slice]:
    """Stretches of the first axis with at most BAND_POINTS points each, or of a single row."""
    inner = math.prod(len(axis) for axis in axes[1:])
    rows = max(1, BAND_POINTS // max(inner, 1))
    for start in range(0, len(axes[0]), rows):
        yield slice(start, min(start + rows, len(axes[0])))


def _on_grid(field: Field, axes: Sequence[Tensor]) -> Tensor:
    """`field.on_grid` in parts along the second axis, BAND_POINTS at a time."""
    import torch

    points = math.prod(len(axis) for axis in axes)
    if len(axes) == 1 or points <= BAND_POINTS:
        return field.on_grid(axes)
    step = max(1, BAND_POINTS * len(axes[1]) // points)
    parts = [field.on_grid([axes[0], part, *axes[2:]]) for part in axes[1].split(step)]
    return torch.cat(parts, dim=1)


def sampled(field: Field | NumpyGrid, axes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The values of `bands` as arrays, for coordinates that are arrays."""
    if isinstance(field, NumpyGrid):
        for band in _bands_of(axes):
            yield field.on_grid([axes[0][band], *axes[1:]])
        return
    import torch

    like = next(field.parameters())
    for _, values in bands(field, [torch.from_numpy(axis).to(like) for axis in axes]):
        yield values.cpu().numpy()


def render(
    field: Field | NumpyGrid,
    size: Sequence[int] | None = None,
    *,
    scale: float | None = None,
    crop: Sequence[float] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Sample a field that has a domain, at any size, in the signal's own type.

    Samples lie at the centres of equal cells of the domain (or of the crop), so that the result
    registers with other tools' resizes; those of a sound lie at equal distances from its first
    one, so that it registers in time (`inr.signals.audio.render_audio` takes a rate). Where it is
    coarser than the source, each sample is the mean over its cell, so that nothing aliases.

    Args:
        field: A fitted or loaded field, or one of `inr.codec.light`; `field.domain` says where it
            lives.
        size: Samples per axis, (height, width) for an image. Default: the source's, or that of
            the crop, times `scale`.
        scale: Factor on the default size, instead of `size`.
        crop: Start per axis, then length per axis, in source samples: (y, x, height, width) for
            an image. They may be fractional.
        out: Array to fill, for example a memory-mapped file; shape (*size, channels).

    Returns:
        Array of shape (*size, channels).

    Raises:
        UsageError: an argument does not fit the domain.
    """
    domain = field.domain
    if domain is None:
        raise UsageError("this field has no domain: fit it to a signal, or load it from a file")
    return render_window(field, target_shape(domain, size, scale, crop), *window(domain, crop), out)


def render_window(
    field: Field | NumpyGrid,
    shape: Sequence[int],
    starts: Sequence[float],
    lengths: Sequence[float],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """All of `render_bands` in one array, `out` if given."""
    domain: Domain = field.domain
    full = (*shape, domain.channels)
    dtype = domain.to_samples(np.zeros((0, domain.channels), np.float32)).dtype
    if out is None:
        try:
            out = np.empty(full, dtype)
        except (MemoryError, ValueError):
            raise UsageError(
                f"a rendering of {_text(shape)} does not fit in memory: "
                "give a smaller size or scale, or a crop"
            ) from None
    elif out.shape != full or not np.can_cast(dtype, out.dtype):
        raise UsageError(f"out is {out.dtype} of {_text(out.shape)}: give {dtype} of {_text(full)}")
    for rows, samples in render_bands(field, domain, shape, starts, lengths):
        out[rows] = samples
    return out


def render_bands(
    field: Field | NumpyGrid,
    domain: Domain,
    shape: Sequence[int],
    starts: Sequence[float],
    lengths: Sequence[float],
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, samples) of a rendering from top to bottom, for streaming to a file."""
    over = [max(1, math.ceil(n / s - 1e-9)) for n, s in zip(lengths, shape, strict=True)]
    edges = [domain.first_edge(a, x / n) for a, x, n in zip(starts, lengths, shape, strict=True)]
    first, *others = (
        domain.cell_centres(i, edges[i], edges[i] + lengths[i], n * k)
        for i, (n, k) in enumerate(zip(shape, over, strict=True))
    )
    inner = math.prod(len(axis) for axis in others) * over[0]
    step = max(1, BAND_POINTS // inner)
    with computing(field), field.one_step():
        for start in range(0, shape[0], step):
            rows = slice(start, min(start + step, shape[0]))
            local = [first[rows.start * over[0] : rows.stop * over[0]], *others]
            # more than one part only where the parts make up a single row
            parts = (_cell_sums(part, over, rows) for part in sampled(field, local))
            yield rows, domain.to_samples(functools.reduce(np.add, parts) / np.float32(over[0]))


def _cell_sums(values: np.ndarray, over: Sequence[int], rows: slice) -> np.ndarray:
    """Means over the sub-samples of each cell, but sums along the first axis."""
    for axis, k in enumerate(over[1:], 1):
        if k > 1:
            shape = values.shape
            values = values.reshape(*shape[:axis], -1, k, *shape[axis + 1 :]).mean(axis + 1)
    return values.reshape(rows.stop - rows.start, -1, *values.shape[1:]).sum(1)


def target_shape(
    domain: Domain,
    size: Sequence[int] | None,
    scale: float | None,
    crop: Sequence[float] | None,
) -> tuple[int, ...]:
    """Samples per axis of a rendering; see `render`."""
    _, lengths = window(domain, crop)
    if size is not None and scale is not None:
        raise UsageError("give size or scale, not both")
    if size is None:
        factor = 1.0 if scale is None else scale
        if not 0 < factor <= LARGEST_SCALE:
            raise UsageError(f"scale is {scale}: give a number above 0, at most {LARGEST_SCALE:g}")
        return tuple(max(1, round(n * factor)) for n in lengths)
    whole = tuple(int(n) for n in size if 1 <= n < math.inf and n == int(n))
    if not len(size) == len(whole) == len(domain.shape):
        dims = len(domain.shape)
        raise UsageError(f"size is {_text(size)}: give {dims} whole numbers from 1 up")
    return whole


def window(
    domain: Domain, crop: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Starts and lengths of a crop, checked against the domain."""
    dims = len(domain.shape)
    if crop is None:
        return (0.0,) * dims, tuple(float(n) for n in domain.shape)
    if len(crop) != 2 * dims:
        raise UsageError(f"crop is {_text(crop)}: give {2 * dims} numbers, starts then lengths")
    starts, lengths = tuple(crop[:dims]), tuple(crop[dims:])
    for start, length, n in zip(starts, lengths, domain.shape, strict=True):
        if not (start >= 0 and length > 0 and start + length <= n * (1 + 1e-9)):
            raise UsageError(
                f"crop is {_text(crop)}: give starts then lengths within {_text(domain.shape)}"
            )
    return starts, lengths


def _text(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{n:g}" if n % 1 else str(int(n)) for n in numbers) + ")"
