"""Permanent names of fields, resolved lazily: listing them imports no network.

A name here is written into files. It is never reused and never changes its meaning. To add a
field, write one file and one line here.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fields.base import Field

FIELDS: dict[str, tuple[str, str]] = {
    "grid": ("fields.grid:Grid", "multi-resolution feature grid with a small MLP"),
    "siren": ("fields.siren:Siren", "MLP with sine activations (Sitzmann et al. 2020)"),
}


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(FIELDS)


def field_class(name: str) -> type[Field]:
    """The class behind a registered name.

    Raises:
        FieldError: the name is unknown; the message suggests the nearest one.
    """
    from fields.base import FieldError

    if not isinstance(name, str) or name not in FIELDS:
        near = difflib.get_close_matches(str(name), FIELDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names())}"
        raise FieldError(f"no field is named {name!r}: {hint}")
    module, _, attribute = FIELDS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, in_features: int, out_features: int, **hyperparameters: Any) -> Field:
    """Build a field by name; `hyperparameters` are its constructor's keywords."""
    # every registered constructor takes (in_features, out_features, *, ...): the contract suite
    return field_class(name)(in_features, out_features, **hyperparameters)


def name_of(field: Field) -> str:
    """The registered name of a field's class.

    Raises:
        FieldError: the class is not registered, so no file could name it.
    """
    from fields.base import FieldError

    target = f"{type(field).__module__}:{type(field).__name__}"
    for name, (path, _) in FIELDS.items():
        if path == target:
            return name
    raise FieldError(f"{type(field).__name__} is not in fields/registry.py: add its line there")
