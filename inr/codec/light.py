"""Decoding without torch, for the field that pictures are stored as by default."""

from __future__ import annotations

import math

import numpy as np

from fields.kernels.grid import NAMES, NumpyGrid
from inr.codec.decode import Contents, claimed_sizes, symbols
from inr.codec.quantize import dequantize
from inr.limits import Limits


def build_light(contents: Contents, limits: Limits = Limits()) -> NumpyGrid | None:  # noqa: B008
    """Rebuild the field of a whole file that was inspected, if that needs no torch.

    Returns:
        A field for `inr.rendering.render`; None for all that `build` should have a look at, other
        fields and files that are not as they should be among it.

    Raises:
        InputError: the file is damaged, unsupported or beyond `limits`.
    """
    domain, shapes = contents.domain, _shapes(contents)
    if shapes is None or sum(math.prod(shape) for shape, _ in shapes) > limits.symbols:
        return None
    sizes = [
        math.prod(shape) // rows
        for shape, per_row in shapes
        for rows in [shape[0] if per_row else 1]
        for _ in range(rows)
    ]
    if claimed_sizes(contents, limits) != sizes:
        return None
    rows = symbols(contents, limits)
    numbers = np.concatenate([dequantize(row).astype(np.float32) for row in rows])
    ends = np.cumsum([math.prod(shape) for shape, _ in shapes])
    parts = np.split(numbers, ends[:-1])
    tensors = [part.reshape(shape) for part, (shape, _) in zip(parts, shapes, strict=True)]
    field = NumpyGrid.of(tensors, contents.hyperparameters[NAMES.index("levels")])
    field.domain = domain
    return field


def is_light(contents: Contents) -> bool:
    """Whether the field of a file that was inspected is one that needs no torch."""
    return _shapes(contents) is not None


def _shapes(contents: Contents) -> list[tuple[tuple[int, ...], bool]] | None:
    """What `NumpyGrid.shapes` says of a file."""
    domain, given = contents.domain, contents.hyperparameters
    if contents.field != "grid" or domain.precision != "float32" or len(given) != len(NAMES):
        return None
    arguments = dict(zip(NAMES, given, strict=True))
    return NumpyGrid.shapes(len(domain.shape), domain.channels, arguments)
