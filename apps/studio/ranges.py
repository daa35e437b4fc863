"""What a form's numbers may be, learnt from the checks of fields, recipes and operators themselves.

Each is given values that nobody can mean, and its message says what it allows. So no range is
written down twice. Fields are tried on torch's meta device: their checks, without their memory.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import math
import re
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apps.studio.answers import NUMBER
from inr.errors import UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    from fields.base import Field

LOTS: dict[type, list[Any]] = {
    int: [-(1 << 70), 1 << 70],
    float: [math.nan, -math.inf],
    str: ["?"],
}
"""By type, what no setting may be."""

FORMS = (
    rf"from (?P<min>{NUMBER}) to (?P<max>{NUMBER})",
    rf"from (?P<min>{NUMBER}) up",
    rf"(?P<above>above) (?P<min>{NUMBER}), at most (?P<max>{NUMBER})",
    rf"(?P<above>between) (?P<min>{NUMBER}) and (?P<max>{NUMBER})(?P<below>)",
    rf"in (?P<open>[(\[])(?P<min>{NUMBER}), (?P<max>{NUMBER})(?P<close>[)\]])",
    rf"(?P<above>above) (?P<min>{NUMBER})$",
    rf"^(?P<min>{NUMBER}) or more",
)
"""How a message tells of a range."""


@functools.lru_cache(maxsize=256)
def ranges_of(field: str, frozen: str, shape: tuple[int, ...], channels: int) -> str:
    """What each hyperparameter of a field may be, as JSON: bounds and words, or choices, by name.

    Where the range of one depends on others, it is what they allow at their own ends, too.
    """
    cls = field_class(field)
    hyperparameters = json.loads(frozen)

    def build(**values: Any) -> None:
        message = refusal(cls, hyperparameters | values, shape, channels)
        if message is not None:
            raise UsageError(message)

    hints = {name: hint for name, _, hint, _ in told(cls)}
    found = {name: probed(name, hint, build) for name, hint in hints.items()}
    for end in ("min", "max"):
        ends = {
            name: float(r[end]) if float in members(hints[name])[0] else r[end]
            for name, r in found.items()
            if r.get(end) is not None and {int, float} & {*members(hints[name])[0]}
        }
        for name in ends:
            others = {other: value for other, value in ends.items() if other != name}
            _widen(found[name], probed(name, hints[name], functools.partial(build, **others)))
    for name, hint in hints.items():
        if str in members(hint)[0] and "names a field" in found[name]:
            found[name] = {"choices": _parts_of(cls, name, hyperparameters, shape, channels)}
    return json.dumps(found)


def probed(name: str, hint: Any, build: Callable[..., object]) -> dict[str, Any]:
    """What messages say of a keyword when it is given values that nobody can mean."""
    parts, _ = members(hint)
    values = [value for part in parts for value in LOTS.get(part, [])]
    for part in parts:  # of a list, its items are checked like one number
        if typing.get_origin(part) is list and not values:
            values = [[v] for item in typing.get_args(part) for v in LOTS.get(item, [])]
    for value in values:
        try:
            build(**{name: value})
        except UsageError as error:
            text = str(error).removeprefix("recipe.").removeprefix("operator.")
        else:
            continue
        if text.startswith(f"{name}: no field is named"):
            return {"names a field": True}
        if re.match(rf"{name} is .*: give ", text):
            return _range_of(text.partition(": give ")[2])
    return {}


def _range_of(allowed: str) -> dict[str, Any]:
    """The bounds that words such as "a number above 0, at most 9" tell, if they tell any."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", allowed)
    text = text.replace("2^63 - 1", str((1 << 63) - 1))
    unit = re.match(r"(dB|degrees)", text)
    found: dict[str, Any] = {"allowed": allowed, "min": None, "max": None}
    found |= {"above": False, "below": False, "unit": unit[1] if unit else ""}
    for form in FORMS:
        if match := re.search(form, text):
            parts = match.groupdict()
            found |= {end: _number(parts[end]) for end in ("min", "max") if parts.get(end)}
            found["above"] = parts.get("above") is not None or parts.get("open") == "("
            found["below"] = parts.get("below") is not None or parts.get("close") == ")"
            break
    return found


def _number(text: str) -> int | float:
    """A number as it is written; 1e+06, as messages have it, is whole."""
    value = float(text)
    return int(text) if re.fullmatch(r"-?\d+", text) else int(value) if value % 1 == 0 else value


def _widen(found: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Take in the bounds that a keyword has with another value of another keyword."""
    for end, widest in (("min", min), ("max", max)):
        if found.get(end) is not None and other.get(end) is not None:
            if found[end] != other[end]:
                found["allowed"] = ""  # its words are those of one case
            found[end] = widest(found[end], other[end])


def _parts_of(
    cls: type[Field],
    role: str,
    hyperparameters: Mapping[str, Any],
    shape: Sequence[int],
    channels: int,
) -> list[str]:
    """The fields that another one takes as a part, with the given hyperparameters or none."""
    from fields import registry

    rest = {k: v for k, v in hyperparameters.items() if k not in (role, f"{role}_options")}
    taken = []
    for name in registry.names():
        for others in (rest, {}):
            message = refusal(cls, {**others, role: name}, shape, channels)
            if message is None or culprit(cls, message) not in (role, f"{role}_options"):
                taken.append(name)
                break
    return taken


def field_class(name: str) -> type[Field]:
    """The class of a field.

    Raises:
        UsageError: there is none of this name.
    """
    from fields import registry
    from fields.base import FieldError

    try:
        return registry.field_class(name)
    except FieldError as error:
        raise UsageError(f"field: {error}") from None


def refusal(
    cls: type[Field], hyperparameters: Mapping[str, Any], shape: Sequence[int], channels: int
) -> str | None:
    """What a field says against its hyperparameters; None where it can be built."""
    import torch

    from fields.base import FieldError

    try:
        with torch.device("meta"), _few_tensors():  # its checks, without its memory
            cls(len(shape), channels, **cls.complete(shape, hyperparameters))
    except FieldError as error:
        return str(error)
    return None


@contextlib.contextmanager
def _few_tensors() -> Iterator[None]:
    """Within it, a field of more tensors than a file has rows is refused before all of it is built.

    Fields of fields of fields multiply: seconds would pass on what no file can hold.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    from fields.base import FieldError

    most = Limits().rows
    here = threading.get_ident()
    count = 0

    def counted(module: object, name: str, parameter: object) -> None:
        nonlocal count
        count += parameter is not None and threading.get_ident() == here
        if count > most:
            raise FieldError(
                f"has more than {most:,} tensors, which no file holds: make it smaller"
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def culprit(cls: type[Field], message: str) -> str:
    """The hyperparameter that a message of a class names, or "".

    What a part of a field says against its own ones is about the hyperparameter ROLE_options.
    """
    from fields.base import hyperparameter_names

    names = hyperparameter_names(cls)
    word = re.match(r"\w+", message)
    name = word[0] if word and word[0] in names else ""
    within = re.match(r"\w+ [\w-]+: (\w+ (is|has) |\w+: got an unexpected)", message)
    return f"{name}_options" if within and f"{name}_options" in names else name


def lattices_only(cls: type[Field]) -> bool:
    """Whether `inr.fit` takes a field for signals on a full lattice only."""
    from fields.multistage import MultiStage

    return issubclass(cls, MultiStage)


def on_lattice(kind: str) -> bool:
    """Whether the signals of a kind have a full lattice, as their opener's type says."""
    from inr.signals import KINDS
    from inr.signals.base import GridSignal

    opener = getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].opener)
    return issubclass(typing.get_type_hints(opener)["return"], GridSignal)


def told(cls: Any) -> list[tuple[str, inspect.Parameter, Any, str]]:
    """(name, parameter, type, help) of each keyword of a constructor."""
    import docstring_parser

    hints = {
        **typing.get_type_hints(cls.__init__),
        **(typing.get_type_hints(cls) if hasattr(cls, "__dataclass_fields__") else {}),
    }
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):  # a class tells of its own keywords only
        params = docstring_parser.parse(base.__doc__ or "").params
        texts |= {x.arg_name: " ".join((x.description or "").split()) for x in params}
    parameters = inspect.signature(cls).parameters.values()
    return [
        (p.name, p, hints[p.name], texts.get(p.name, ""))
        for p in parameters
        if p.default is not p.empty
    ]


def members(hint: Any) -> tuple[list[Any], bool]:
    """The members of a union but for None, and whether None is one."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = list(typing.get_args(hint)) if union else [hint]
    return [part for part in parts if part is not type(None)], type(None) in parts
