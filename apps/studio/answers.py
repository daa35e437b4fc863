"""Answers to a form, from anybody: checked against its entries before anything looks at them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = dict[str, Any]

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

NUMBER_LENGTH = 40
NUMBERS_COUNT = 64
TEXT_LENGTH = 4096
NESTING = 8


def read(
    entries: Sequence[Entry], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a page says that is not the default, and what is wrong with it, by name.

    Where another part is chosen, its options are its own: they begin with none.

    Args:
        entries: What was asked (see `apps.studio.forms`).
        values: What came back, from anybody, by name; None and "" stand for the default.
    """
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    by_name = {entry["name"]: entry for entry in entries}
    for name, value in values.items():
        if name not in by_name:
            errors[name] = f"{str(name)[:40]!r}: there is no such setting"
            continue
        entry = by_name[name]
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            read = READERS["json" if entry.get("json") else entry["kind"]](entry, value)
        except _Wrong as wrong:
            errors[name] = f"{entry['label']} is {_shown(value)}: {wrong}"
            continue
        if not _same(read, entry):
            found[name] = read
    for name in list(found):
        options = by_name[name].get("options")
        if options is None or options in found | errors or values.get(options):
            continue
        if json.loads(by_name[options]["default"]):
            found[options] = {}  # the default's are another part's
    return found, errors


class _Wrong(ValueError):
    """An answer is none that its entry allows; the message says what is."""


def _same(value: Any, entry: Entry) -> bool:
    """Whether a value is the entry's default."""
    default = json.loads(entry["default"]) if entry.get("json") else entry["default"]
    return bool(value == default) and isinstance(value, list) == isinstance(default, list)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _number(entry: Entry, value: Any, *, whole: bool) -> int | float:
    """A number, or the text of one, within the entry's range."""
    kind = "a whole number" if whole else "a number"
    allowed = f"give {entry['allowed'] or _range(entry, kind)}"
    if isinstance(value, str):
        text = value.strip()
        if len(text) > NUMBER_LENGTH or not re.fullmatch(NUMBER, text, re.ASCII):
            raise _Wrong(allowed)
        value = int(text) if re.fullmatch(r"[-+]?\d+", text, re.ASCII) else float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(allowed)
    # so large a whole number is none in a float
    if not -(1 << 64) < value < 1 << 64 if isinstance(value, int) else not math.isfinite(value):
        raise _Wrong(allowed)
    if whole and value != int(value):
        raise _Wrong(allowed)
    low, high = entry["min"], entry["max"]
    if low is not None and (value < low or (value == low and entry["above"])):
        raise _Wrong(allowed)
    if high is not None and (value > high or (value == high and entry["below"])):
        raise _Wrong(allowed)
    return int(value) if whole else float(value)


def _range(entry: Entry, kind: str) -> str:
    """A range in words."""
    low, high = entry["min"], entry["max"]
    if low is None or high is None:
        return kind if low is None else f"{kind} {'above' if entry['above'] else 'from'} {low:g}"
    return f"{kind} {'above' if entry['above'] else 'from'} {low:g} to {high:g}"


def _numbers(entry: Entry, value: Any) -> Any:
    """One number, or a list of them: [1, 2], or a text such as 1, 2.

    Where one number may stand for all, a list of one is that.
    """
    if isinstance(value, str):
        if len(value) > TEXT_LENGTH:
            raise _Wrong(f"give {NUMBERS_COUNT} numbers at most")
        value = value.strip()
        inner = value.removeprefix("[").removesuffix("]")
        value = [word for word in inner.split(",") if inner.strip()]
    items = value if isinstance(value, list) else [value]
    if len(items) > NUMBERS_COUNT:
        raise _Wrong(f"give {NUMBERS_COUNT} numbers at most")
    read = [_number(entry, item, whole=entry["whole"]) for item in items]
    return read[0] if entry["one"] and len(read) == 1 else read


def _bool(entry: Entry, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _Wrong("give true or false")


def _choice(entry: Entry, value: Any) -> str:
    if not isinstance(value, str) or value not in entry["choices"]:
        raise _Wrong(f"choose from {', '.join(entry['choices'])}")
    return value


def _text(entry: Entry, value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LENGTH or not value.isprintable():
        raise _Wrong(f"give a text of {TEXT_LENGTH:,} printable characters at most")
    return value


def _json(entry: Entry, value: Any) -> Any:
    """Options by name, or a list of such, as JSON, which the command line reads too."""
    what = 'give names and values, such as {"hidden_features": 32}'
    if isinstance(value, str):
        if len(value) > TEXT_LENGTH:
            raise _Wrong(f"give {TEXT_LENGTH:,} characters at most")
        try:
            value = json.loads(value, parse_constant=_constant)
        except (ValueError, RecursionError):
            raise _Wrong(what) from None
    if not isinstance(value, dict | list if entry["many"] else dict):
        raise _Wrong(what)
    _check_nested(value, what)
    return value


def _constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _check_nested(value: Any, what: str, depth: int = 1) -> None:
    """Refuse what is no JSON of plain numbers and texts, or too deep or long."""
    if depth > NESTING:
        raise _Wrong(f"give {NESTING} levels at most")
    if isinstance(value, dict | list):
        inside = [*value.values()] if isinstance(value, dict) else value
        if len(inside) > TEXT_LENGTH:
            raise _Wrong(what)
        for item in inside:
            _check_nested(item, what, depth + 1)
        for key in value if isinstance(value, dict) else ():
            _text({}, key)
    elif isinstance(value, str):
        _text({}, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _Wrong(what)


READERS: dict[str, Callable[[Entry, Any], Any]] = {
    "int": lambda entry, value: _number(entry, value, whole=True),
    "float": lambda entry, value: _number(entry, value, whole=False),
    "numbers": _numbers,
    "bool": _bool,
    "choice": _choice,
    "text": _text,
    "json": _json,
}
"""By kind of entry, and "json", what makes a value of an answer."""
