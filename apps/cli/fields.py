"""`inr fields`: the fields that there are, and each one's hyperparameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse
from apps.cli.voice import Voice
from inr.errors import UsageError


def run(argv: Sequence[str]) -> int:
    """List all fields, or describe one; returns the exit code."""
    args = parse(parser(), argv)
    from fields import registry

    voice = Voice(args)
    if args.name is None:
        for name in registry.names():
            summary = registry.FIELDS[name][1]
            voice.event({"name": name, "summary": summary}, f"{name:<15}{summary}")
        return 0

    from fields.base import FieldError, hyperparameter_names

    try:
        cls = registry.field_class(args.name)
    except FieldError as error:
        raise UsageError(str(error)) from None
    parameters = inspect.signature(cls).parameters
    defaults = {name: parameters[name].default for name in hyperparameter_names(cls)}
    voice.event(
        {
            "name": args.name,
            "smoothness": None if cls.smoothness > 1e9 else cls.smoothness,
            "hyperparameters": defaults,
        },
        *f"{args.name}: {inspect.cleandoc(cls.__doc__ or '')}".splitlines(),
        "",
        "defaults:",
        *(f"  --field.{name} {default}" for name, default in defaults.items()),
    )
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("fields", "List the fields, or describe one.")
    p.add_argument("name", nargs="?", help="a field's name")
    return p
