"""What is to be fitted, as the page says it in JSON, made into a signal and a preset.

{"source": path, "name": text, "kind": text | null, "reading": {...}, "field": text | null,
"preset": text | null, "hyperparameters": {...}, "recipe": {...}, "steps": int | null,
"seconds": float | null, "psnr": float | null, "seed": int, "operator": null |
{"name": text, "options": {...}, "simulate": bool, "mask": path | null}}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inr import presets
from inr.errors import InputError, InrError, UsageError
from inr.limits import Limits
from inr.operators import create
from inr.presets import Preset

if TYPE_CHECKING:
    from inr.operators.base import Operator
    from inr.signals.base import Signal

LIMITS = Limits(
    file_bytes=64 << 20,
    source_bytes=64 << 20,
    symbols=1 << 24,
    drawn=1 << 28,
    samples=1 << 25,
    values=1 << 27,
)
"""What a file that somebody drops may ask for: 33 million pixels, 16 million parameters."""


def open_source(spec: Mapping[str, Any]) -> Signal:
    """The signal that a spec's file holds, seen through its operator if it has one.

    Raises:
        InputError: the file cannot be read, or there is nothing to fit in it.
        UsageError: an option is wrong.
    """
    import inr
    from inr.signals.observed import Observed

    name = str(spec.get("name") or Path(spec["source"]).name)
    try:
        signal: Any = inr.open(
            spec["source"], LIMITS, spec.get("kind"), **(spec.get("reading") or {})
        )
    except InrError as error:
        raise type(error)(str(error).replace(str(spec["source"]), name)) from None
    if signal.objection is not None:
        raise InputError(f"{name}: {signal.objection}")
    given = spec.get("operator")
    if given is None:
        return signal
    operator = operator_of(given)
    if given.get("simulate"):
        return Observed.simulated(signal, operator)
    return Observed(signal, operator, limits=LIMITS)


def operator_of(given: Mapping[str, Any]) -> Operator:
    """The operator that a spec names.

    Raises:
        UsageError: there is no such operator, or an option is wrong.
    """
    options = dict(given.get("options") or {})
    if given.get("mask"):
        options["mask"] = given["mask"]
    return create(given["name"], **options)


def preset_of(spec: Mapping[str, Any], kind: str, suited: str | None = None) -> Preset:
    """What a spec fits to a signal.

    Args:
        spec: The spec.
        kind: Kind of the signal.
        suited: Name of the preset that suits the signal, if it is not the kind's default.

    Raises:
        UsageError: there is no such preset, or an option of the recipe is wrong.
    """
    if spec.get("preset"):
        if spec["preset"] not in presets.names():
            raise UsageError(f"preset is {spec['preset']!r}: there is none of this name")
        base = presets.load(spec["preset"], kind)
    elif spec.get("field"):
        base = presets.for_field(kind, spec["field"])
    else:
        base = presets.load(suited or presets.DEFAULTS[kind], kind)
    given = spec.get("hyperparameters") or {}
    if spec.get("field") and spec["field"] != base.field:
        base = presets.for_field(kind, spec["field"])
    try:
        recipe = dataclasses.replace(base.recipe, **(spec.get("recipe") or {}))
    except TypeError:
        raise UsageError("recipe: there is a setting that it does not have") from None
    return Preset(base.field, {**base.hyperparameters, **given}, recipe)
