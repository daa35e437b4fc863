"""How large a field is, and how it is made larger or smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fields import registry
from fields.base import FieldError

SMALLEST, LARGEST = 0.005, 16.0
"""Range of factors on the numbers of units."""

HALVINGS = 24


def stored_scalars(
    name: str, in_features: int, out_features: int, hyperparameters: Mapping[str, Any]
) -> int:
    """Scalars that a file of this field holds; the field is built without memory.

    Raises:
        FieldError: there is no such field, or a hyperparameter is out of range.
    """
    with torch.device("meta"):
        built = registry.create(name, in_features, out_features, **hyperparameters)
    return sum(stored.tensor.numel() for stored in built.stored_parameters())


def at_most(
    scalars: int, name: str, shape: Sequence[int], channels: int, given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Hyperparameters of the largest field of at most so many stored scalars.

    Args:
        scalars: The bound.
        name: Registered name of the field.
        shape: The signal's samples per axis.
        channels: Its values per sample.
        given: Hyperparameters of a field of any size, which is scaled (see `Field.scaled`) by
            `SMALLEST` to `LARGEST`.

    Returns:
        None if even the smallest field has more.

    Raises:
        FieldError: there is no such field.
    """
    cls = registry.field_class(name)
    low, high = SMALLEST, LARGEST
    best: dict[str, Any] | None = None
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        scaled = cls.scaled(given, middle)
        try:
            fits = stored_scalars(name, len(shape), channels, scaled) <= scalars
        except FieldError:  # wider or narrower than the field allows
            low, high = (middle, high) if middle < 1 else (low, middle)
            continue
        if fits:
            best, low = scaled, middle
        else:
            high = middle
    return best
