"""What the controls of a fit ask for, made into a spec; nothing of a page is trusted."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apps.studio import forms
from apps.studio.spec import preset_of
from apps.studio.visitors import Studio, from_page
from inr.errors import UsageError
from inr.files import write_bytes

if TYPE_CHECKING:
    from inr.presets import Preset

AS_IS = "the signal itself"
"""In place of an operator."""

MOST_SECONDS = 3600.0

MASK_BYTES = 4 << 20


def field_choices(kind: str) -> list[tuple[str, str]]:
    """The fields that can be fitted to a kind of signal, as a dropdown has them."""
    return [(f"{name}: {summary}", name) for name, summary in forms.fields_for(kind)]


def blank(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The value of a form in which nothing was changed."""
    return {"entries": entries, "given": {}, "errors": {}}


def base_spec(
    chosen: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], Preset]:
    """What a tab's controls say of the signal and of the field, and the preset that comes of it.

    Args:
        chosen: The state of a `Picker`.
        values: Of the controls `field`, `preset`, `hyperparameters`, `recipe` and `reading`.

    Raises:
        UsageError: something is missing, or wrong.
    """
    if not chosen:
        raise UsageError("nothing is chosen yet: drop a file, or take an example")
    look = chosen["look"]
    kind = look["kind"]
    spec: dict[str, Any] = {key: chosen[key] for key in ("source", "name")}
    spec |= {"kind": kind, "field": values["field"], "preset": values["preset"]}
    base = preset_of(spec, kind)
    spec["hyperparameters"] = given_of(forms.field_entries(kind, base), values["hyperparameters"])
    spec["recipe"] = given_of(forms.recipe_entries(base), values["recipe"])
    spec["reading"] = given_of(forms.reading_entries(kind), values["reading"])
    preset = preset_of(spec, kind)
    wrong = forms.check(kind, preset, tuple(look["shape"]), look["channels"])
    for name, text in wrong.items():
        raise UsageError(f"{name}: {text}" if name else text)
    return spec, preset


def spec_of(
    studio: Studio, owner: str, chosen: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The spec of a fit from what the panel's controls hold, by their names in `Panel`.

    Raises:
        UsageError: something is missing, or wrong.
    """
    spec, preset = base_spec(chosen, values)
    spec |= _budget(values["budget"], values["amount"], preset)
    spec["seed"] = whole("seed", values["seed"], 0, 2**63 - 1)
    spec["effort"] = whole("effort of coding", values["effort"], 1, 9)
    name = values["operator"]
    if name and name != AS_IS:
        entries = forms.operator_entries(name)
        spec["operator"] = {
            "name": name,
            "options": given_of(entries, values["observed"]),
            "simulate": bool(values["simulate"]),
            "mask": _mask(studio, owner, values["mask"]) if name == "inpaint" else None,
        }
    return spec


def given_of(entries: list[dict[str, Any]], value: Any) -> dict[str, Any]:
    """What a form's value says that differs from its entries' defaults.

    Raises:
        UsageError: something in it cannot be read, or is none of what is allowed.
    """
    answer = from_page(value)
    for text in from_page(answer.get("errors")).values():
        raise UsageError(str(text)[:200])
    given = answer.get("given")
    return forms.given(entries, given if isinstance(given, Mapping) else {})


def _budget(name: Any, amount: Any, preset: Preset) -> dict[str, Any]:
    """Steps, seconds and PSNR of a budget; one of quality ends with the preset's steps, too."""
    if not isinstance(amount, int | float) or not amount > 0:
        raise UsageError(f"how much of it is {amount!r}: give a number above 0")
    if name == "steps":
        return {"steps": whole("steps", amount, 1, 10**9), "seconds": None, "psnr": None}
    if name == "seconds":
        if amount > MOST_SECONDS:
            raise UsageError(
                f"{amount:g} seconds are too many: up to {MOST_SECONDS:g} may be given"
            )
        return {"steps": None, "seconds": float(amount), "psnr": None}
    return {"steps": preset.recipe.steps, "seconds": None, "psnr": float(amount)}


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number of a page.

    Raises:
        UsageError: it is none, or out of range.
    """
    # in this order: a NaN is in no range, and has no whole number
    good = isinstance(value, int | float) and low <= value <= high and value == int(value)
    if not good:
        raise UsageError(f"{name} is {value!r}: give a whole number from {low} to {high}")
    return int(value)


def _mask(studio: Studio, owner: str, value: Any) -> str:
    """Write what was painted into the visitor's folder.

    Raises:
        UsageError: nothing was painted, or it is no picture.
    """
    given = from_page(value).get("mask")
    if not isinstance(given, str) or not given.startswith("data:image/png;base64,"):
        raise UsageError("nothing is painted yet: paint what is unknown on the picture")
    try:
        data = base64.b64decode(given.partition(",")[2], validate=True)
    except binascii.Error:
        raise UsageError("the mask is damaged: paint it again") from None
    if len(data) > MASK_BYTES:
        raise UsageError(f"the mask has more than {MASK_BYTES:,} bytes: paint with a larger brush")
    # its own name says which it is: a fit that goes on must find the one that it began with
    path = studio.service.folder(owner) / f"mask-{hashlib.sha256(data).hexdigest()[:16]}.png"
    write_bytes(path, data)
    return str(path)
