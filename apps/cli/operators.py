"""`inr fit --operator NAME`: inputs that are observations of what is to be fitted."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

import inr
from apps.cli.common import Parser
from inr import presets
from inr.errors import UsageError
from inr.operators import OPERATORS, create, operator_class

if TYPE_CHECKING:
    from inr.operators.base import Operator
    from inr.signals.base import Signal

HELP = "what the inputs are observations of: " + "; ".join(
    f"{name}, {what}" for name, (_, what) in OPERATORS.items()
)


def chosen(argv: Sequence[str]) -> str | None:
    """The operator's name: from the command line, else from a configuration."""
    name = None
    for word, following in itertools.pairwise([*argv, ""]):
        key, _, value = word.partition("=")
        if key == "--config":
            section = presets.read(Path(value)).get("operator", {})
            name = section.get("name", name) if isinstance(section, dict) else name
        elif key == "--operator.name":
            name = value or following
    return name


def preset_of(name: str | None, kind: str) -> str | None:
    """The preset that suits an operator on a kind of signal, if one is shipped."""
    preset = f"{kind}/{name}"
    return preset if preset in presets.names() else None


def add_options(p: Parser, name: str | None) -> None:
    """The choice of an operator, and one option for each keyword of the chosen one's class."""
    import docstring_parser

    group = p.add_argument_group("what was observed")
    group.add_argument("--operator.name", type=str | None, help=HELP)
    group.add_argument("--truth", type=str, help="what the result is compared with, at the end")
    p.settings = (*p.settings, "operator.name")
    if name is None:
        return
    cls = operator_class(name)
    texts: dict[str, str | None] = {}
    for base in reversed(cls.__mro__):  # a class tells of its own options only
        told = docstring_parser.parse(base.__doc__ or "").params
        texts |= {x.arg_name: x.description for x in told}
    hints = typing.get_type_hints(cls)
    group = p.add_argument_group(f"options of {name}")
    group.add_argument(
        "--operator.simulate",
        type=bool,
        default=False,
        help="the inputs are not observed but known: make the observations of them, and compare",
    )
    for parameter in inspect.signature(cls).parameters.values():
        option = parameter.name
        group.add_argument(
            f"--operator.{option}",
            type=hints[option],
            default=parameter.default,
            help=" ".join((texts[option] or "").replace("%", "%%").split()),
        )
        p.settings = (*p.settings, f"operator.{option}")


def build(args: Namespace) -> Operator | None:
    """The operator that was asked for.

    Raises:
        UsageError: an option is out of range, or needs others.
    """
    if args.operator.name is None:
        if args.truth is not None:
            raise UsageError("--truth is what observations are compared with: give --operator too")
        return None
    options = {k: v for k, v in vars(args.operator).items() if k not in ("name", "simulate")}
    if args.operator.simulate and args.truth is not None:
        raise UsageError("--truth: with --operator.simulate the input itself is the truth")
    return create(args.operator.name, **options)


def observed(
    opened: Callable[[], Signal], operator: Operator, truth: str | None, *, simulate: bool
) -> Signal:
    """An input seen through an operator.

    Raises:
        InputError: it holds no such observations, or the truth is of another shape.
    """
    from inr.signals.observed import Observed

    source: Any = opened()
    if simulate:
        return Observed.simulated(source, operator)
    # what observations are of may be of another kind than they: a sinogram's is a picture
    kind = Observed(source, operator).domain.kind if truth is not None else None
    known: Any = None if truth is None else inr.open(truth, kind=kind)
    return Observed(source, operator, truth=known)
