"""Fields made of other fields: a part is any registered field, by name and hyperparameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from fields import registry
from fields.base import Field, FieldError, StoredTensor, hyperparameter_names, one_each

NO_OPTIONS: dict[str, Any] = {}
"""Default of a hyperparameter that holds a part's own ones."""

_outer: ContextVar[tuple[type[Field], ...]] = ContextVar("_outer", default=())


def build(
    outer: Field,
    role: str,
    name: str,
    in_features: int,
    out_features: int,
    options: Any,
) -> Field:
    """Build a field as a part of another.

    Args:
        outer: What it is to be a part of.
        role: What it is there, which is the name of the hyperparameter that names it.
        name: Its registered name.
        in_features: Its coordinates per point.
        out_features: Its values per point.
        options: Its hyperparameters by name, or a list of them in their order, as files have it.

    Raises:
        FieldError: there is no such field, a hyperparameter of it is wrong, or `outer` would come
            to lie in a field of its own class, at any depth: a file could nest such without end.
    """
    try:
        cls = registry.field_class(name)
    except FieldError as error:
        raise FieldError(f"{role}: {error}") from None
    if isinstance(options, list):
        options = dict(zip(hyperparameter_names(cls), options, strict=False))
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise FieldError(f"{role}_options is {options!r}: give names and values")
    enclosing = (*_outer.get(), type(outer))
    if cls in enclosing:
        raise FieldError(f"{role} is {name!r}: a field cannot be a part of its own kind")
    with _within(enclosing):
        try:
            return cls(in_features, out_features, **options)
        except FieldError as error:
            raise FieldError(f"{role} {name}: {error}") from None


def options_each(name: str, options: Any, count: int) -> list[Any]:
    """The options of each of `count` parts, from those of all or a list of one set per part."""
    sets = isinstance(options, list) and all(isinstance(o, dict | list) for o in options)
    return one_each(name, options if options and sets else [options] * count, count)


def record(outer: Field, role: str, parts: Sequence[Field]) -> None:
    """Settle the hyperparameter ROLE_options at all that the parts have, defaults included.

    Files carry it, and neither a default that changes nor what a part settled itself may change
    what they mean.
    """
    sets = [part.hyperparameters for part in parts]
    alike = all(given == sets[0] for given in sets)
    outer.settle(f"{role}_options", sets[0] if alike else sets)


def scaled_options(names: Any, options: Any, factor: float) -> Any:
    """Hyperparameters of parts that have `factor` times as many units (see `Field.scaled`).

    Args:
        names: The parts' registered name, or a list of them.
        options: What they are given: one set for all, or a list of one set for each.
        factor: Above 0.
    """
    if isinstance(options, list):
        each = names if isinstance(names, list) else [names] * len(options)
        pairs = zip(each, options, strict=True)
        return [scaled_options(name, own, factor) for name, own in pairs]
    if isinstance(names, list):
        return [scaled_options(name, options, factor) for name in names]
    return registry.field_class(names).scaled(options, factor)


def stored_in(prefix: str, parts: Sequence[Field]) -> list[StoredTensor]:
    """What each part stores, part by part, under the names that they have in `prefix`."""
    return [
        StoredTensor(f"{prefix}.{i}.{stored.name}", stored.tensor, stored.per_row)
        for i, part in enumerate(parts)
        for stored in part.stored_parameters()
    ]


@contextlib.contextmanager
def _within(enclosing: tuple[type[Field], ...]) -> Iterator[None]:
    token = _outer.set(enclosing)
    try:
        yield
    finally:
        _outer.reset(token)
