"""Fields made of other fields: a part is any registered field, by name and hyperparameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from fields import registry
from fields.base import Field, FieldError

NO_OPTIONS: dict[str, Any] = {}
"""Default of a hyperparameter that holds a part's own ones."""

_outer: ContextVar[tuple[type[Field], ...]] = ContextVar("_outer", default=())


def build(
    outer: Field,
    role: str,
    name: str,
    in_features: int,
    out_features: int,
    options: Mapping[str, Any],
) -> Field:
    """Build a field as a part of another.

    Args:
        outer: What it is to be a part of.
        role: What it is there, which is the name of the hyperparameter that names it.
        name: Its registered name.
        in_features: Its coordinates per point.
        out_features: Its values per point.
        options: Its hyperparameters.

    Raises:
        FieldError: there is no such field, a hyperparameter of it is wrong, or `outer` would come
            to lie in a field of its own class, at any depth: a file could nest such without end.
    """
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise FieldError(f"{role}_options is {options!r}: give names and values")
    try:
        cls = registry.field_class(name)
    except FieldError as error:
        raise FieldError(f"{role}: {error}") from None
    enclosing = (*_outer.get(), type(outer))
    if cls in enclosing:
        raise FieldError(f"{role} is {name!r}: a field cannot be a part of its own kind")
    with _within(enclosing):
        try:
            return cls(in_features, out_features, **options)
        except FieldError as error:
            raise FieldError(f"{role} {name}: {error}") from None


@contextlib.contextmanager
def _within(enclosing: tuple[type[Field], ...]) -> Iterator[None]:
    token = _outer.set(enclosing)
    try:
        yield
    finally:
        _outer.reset(token)
