"""What a form asks, made of signatures and docstrings, and what a page may answer.

An entry is JSON: {"name", "label", "help", "kind", "default", "placeholder", "choices", "min",
"max", "above", "below", "step", "unit", "group", "allowed", "one", "whole", "json", "options"}.
`kind` is one of int, float, bool, choice, text and numbers (with commas); `json` says that a text
is JSON, `above` and `below` that `min` and `max` themselves are not allowed, `allowed` all of it in
words. Where numbers have `one`, one number stands for all. `options` names the entry that holds the
options of the field that is chosen here.

Ranges come from the checks of fields, recipes and operators themselves: each is given values that
nobody can mean, and its message says what it allows.
"""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from apps.cli import choosing
from apps.studio import answers
from apps.studio.answers import Entry
from apps.studio.ranges import (
    culprit,
    field_class,
    lattices_only,
    members,
    on_lattice,
    probed,
    ranges_of,
    refusal,
    told,
)
from inr import presets
from inr.errors import UsageError
from inr.presets import Preset, Recipe

EXAMPLES: dict[str, tuple[tuple[int, ...], int]] = {**choosing.EXAMPLES, "array": ((64, 64), 1)}
"""By kind of signal, a shape and channels on which fields are tried, where no signal is known."""

LABELS = {"lr": "Learning rate", "final_lr": "Final learning rate", "tv": "Total variation"}
"""Names that say little to people; other labels are the names themselves."""

UNITS = r"\bin (dB|degrees|mm|photons|pixels|seconds)\b"
"""How a docstring tells a unit."""

GROUPS = {"quantize": "Size of the file", "rate": "Size of the file", "teach": "Teaching"}
"""Of a recipe's settings, by the first word of their names."""

NETWORK = ("hidden_features", "hidden_layers")

ADAPTIVE = "chosen from the signal"
OMITTED = "not given"
AS_READ = "as the file says"

JS_LARGEST = (1 << 53) - 1
"""The largest whole number that a page has exactly."""


@functools.lru_cache
def fields_for(kind: str) -> tuple[tuple[str, str], ...]:
    """(name, summary) of each field that can be fitted to a kind of signal, by name."""
    from fields.registry import FIELDS

    return tuple(
        (name, FIELDS[name][1])
        for name in sorted(FIELDS)
        if not check(kind, presets.for_field(kind, name))
    )


def presets_for(kind: str, field: str | None = None) -> list[str]:
    """Names of the presets for a kind of signal, the default first; `summary_of` tells of each.

    Args:
        kind: Kind of the signal.
        field: Only those of this field, its own first.
    """
    first = presets.DEFAULTS[kind] if field is None else f"{kind}/{field}"
    of_kind = [name for name in presets.names() if name.startswith(f"{kind}/")]
    wanted = [n for n in of_kind if field is None or presets.load(n).field == field]
    return sorted(wanted, key=lambda name: (name != first, name))


def summary_of(preset: str) -> str:
    """What the comment at the head of a shipped preset says.

    Raises:
        UsageError: there is none of this name.
    """
    if preset not in presets.names():
        raise UsageError(f"preset is {preset!r}: there is none of this name")
    said = []
    for line in presets.path_of(preset).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# "))
    return " ".join(said)


def field_entries(
    kind: str, preset: Preset, shape: Sequence[int] | None = None, channels: int | None = None
) -> list[Entry]:
    """The hyperparameters of a preset's field.

    Args:
        kind: Kind of the signal.
        preset: Its hyperparameters are the defaults.
        shape: Samples per axis of the signal, where it is known.
        channels: Its values per sample.

    Raises:
        UsageError: there is no such field.
    """
    cls = field_class(preset.field)
    size, values = EXAMPLES[kind] if shape is None else (shape, EXAMPLES[kind][1])
    frozen = json.dumps(preset.hyperparameters, sort_keys=True)
    ranges = json.loads(ranges_of(preset.field, frozen, tuple(size), channels or values))
    adaptive = cls.suggest((64, 64))
    entries = []
    for name, parameter, hint, text in told(cls):
        default = None if name in adaptive else parameter.default
        entry = _entry(name, hint, preset.hyperparameters.get(name, default), text)
        if entry["default"] is None:
            entry["placeholder"] = ADAPTIVE
        entry["group"] = "Size" if name in (*cls.sizes, *adaptive, *NETWORK) else "Form"
        if name in cls.training_only:
            entry["group"] = "Start and training"
        _limit(entry, ranges.get(name, {}))
        entries.append(entry)
    names = {entry["name"] for entry in entries}
    for entry in entries:
        options = f"{entry['name']}_options"
        if entry["kind"] == "choice" and options in names:
            entry["options"] = options
    return entries


def recipe_entries(preset: Preset) -> list[Entry]:
    """The settings of a preset's recipe."""
    entries = []
    for name, _, hint, text in told(Recipe):
        entry = _entry(name, hint, getattr(preset.recipe, name), text)
        entry["group"] = GROUPS.get(name.partition("_")[0], "Training")
        _limit(entry, probed(name, hint, Recipe))
        entries.append(entry)
    return entries


def operator_entries(name: str) -> list[Entry]:
    """The options of an operator but for `mask`, a file.

    Raises:
        UsageError: there is no such operator.
    """
    from inr.operators import operator_class

    cls = operator_class(name)
    entries = []
    for option, parameter, hint, text in told(cls):
        if option == "mask":
            continue
        entry = _entry(option, hint, parameter.default, text)
        _limit(entry, probed(option, hint, cls))
        entries.append(entry)
    return entries


def reading_entries(kind: str) -> list[Entry]:
    """How files of a kind are read."""
    from inr.signals import reading_help, reading_options

    choices: dict[tuple[str, str], Sequence[str]] = {
        ("image", "keep"): ("icc", "exif", "icc,exif", "none")
    }
    if kind == "shape":
        from inr.signals.shape import TARGETS

        choices["shape", "target"] = TARGETS
    entries = []
    texts = reading_help(kind)
    for name, hint in reading_options(kind).items():
        entry = _entry(name, hint, None, texts[name])
        entry["placeholder"] = "as the file says"
        if (kind, name) in choices:
            entry |= {"kind": "choice", "choices": list(choices[kind, name])}
        entries.append(entry)
    return entries


def given(entries: Sequence[Entry], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a page says, checked: the values that are not the defaults, by name.

    Args:
        entries: What was asked.
        values: What came back, from anybody; None and "" stand for the default.

    Raises:
        UsageError: a name is unknown or a value is none that the entry allows; the message begins
            with its label.
    """
    found, errors = answers.read(entries, values)
    for message in errors.values():
        raise UsageError(message)
    return found


def problems(entries: Sequence[Entry], values: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with what a page says, by name of the entry."""
    return answers.read(entries, values)[1]


def check(
    kind: str, preset: Preset, shape: Sequence[int] | None = None, channels: int | None = None
) -> dict[str, str]:
    """What a field's class refuses of a preset: a message by entry, "" where it names none.

    Args:
        kind: Kind of the signal.
        preset: What is to be fitted.
        shape: Samples per axis of the signal, where it is known.
        channels: Its values per sample.

    Raises:
        UsageError: there is no such field.
    """
    cls = field_class(preset.field)
    example, values = EXAMPLES[kind]
    message = refusal(cls, preset.hyperparameters, shape or example, channels or values)
    known = shape is not None or kind != "array"  # whose number of axes is its own
    if known and message is not None:
        return {culprit(cls, message): message}
    if not lattices_only(cls) or on_lattice(kind):
        return {}
    return {"": f"{preset.field} is fitted to signals on a lattice only: choose another field"}


# ---------------------------------------------------------------------- entries from signatures


def _entry(name: str, hint: Any, default: Any, text: str) -> Entry:
    """An entry without its range."""
    parts, optional = members(hint)
    entry: Entry = {
        "name": name,
        "label": LABELS.get(name, name.replace("_", " ").capitalize()),
        "help": text,
        "kind": "text",
        "default": default,
        # where there is none, a page shows the default
        "placeholder": OMITTED if optional and default is None else None,
        "group": "",
        "optional": optional,
        "choices": None,
        "min": None,
        "max": None,
        "above": False,
        "below": False,
        "step": None,
        "unit": unit[1] if (unit := re.search(UNITS, text)) else "",
        "allowed": "",
    }
    lists = [p for p in parts if typing.get_origin(p) is list]
    items = {item for p in lists for item in typing.get_args(p)}
    if any(typing.get_origin(p) is dict for p in parts):
        entry |= {"json": True, "many": bool(lists), "default": json.dumps(default)}
    elif items & {int, float}:
        one = any(p in (int, float) for p in parts)
        entry |= {"kind": "numbers", "one": one, "whole": items == {int}}
    elif typing.get_origin(parts[0]) is Literal:
        entry |= {"kind": "choice", "choices": list(typing.get_args(parts[0]))}
    elif parts[0] in (bool, int, float):
        entry |= {"kind": parts[0].__name__, "step": 1 if parts[0] is int else None}
    return entry


def _limit(entry: Entry, found: Mapping[str, Any]) -> None:
    """Give an entry its range, which holds its default."""
    if "choices" in found:
        entry |= {"kind": "choice", "choices": found["choices"]}
        return
    entry["unit"] = found.get("unit") or entry["unit"]
    entry |= {k: found[k] for k in ("min", "max", "above", "below", "allowed") if k in found}
    default = entry["default"]
    if isinstance(default, int | float):
        # some checks let one value pass that is outside of their range, such as 0 for "none"
        if entry["min"] is not None and default <= entry["min"]:
            entry |= {"min": default, "above": False}
        if entry["max"] is not None and default >= entry["max"]:
            entry |= {"max": default, "below": False}
    if entry["max"] is not None:
        entry["max"] = min(entry["max"], JS_LARGEST)
