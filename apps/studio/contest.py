"""What the controls of a comparison ask for, made into a spec; nothing of a page is trusted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from apps.studio import equivalent, forms, rivals
from apps.studio.asked import given_of, whole
from apps.studio.spec import preset_of
from inr import presets
from inr.errors import UsageError

SLOTS = 4
"""Contestants at most."""

BUDGETS = {"seconds each": 10, "steps each": 300}
"""What a budget is counted in, and how much of it is offered."""

MOST_SECONDS = 1800.0
MOST_STEPS = 10**9

NOBODY = ""
CODEC = "codec:"

SECOND = ("siren", "finer", "grid", "finr")
"""Fields that are offered beside the usual one, the first that can be."""

THIRD = {"image": "jpeg", "audio": "opus"}
"""Codecs that are offered beside them."""

NAMES = {
    "jpeg": "JPEG",
    "jpeg-444": "JPEG 4:4:4",
    "webp": "WebP",
    "avif": "AVIF",
    "avif-420": "AVIF 4:2:0",
    "jp2": "JPEG 2000",
    "opus": "Opus",
    "mp3": "MP3",
}
"""What people call codecs."""

COMPARABLE = ("image", "audio", "video", "shape")
"""Kinds of signals that `inr compare` takes."""


def contestants_for(kind: str) -> list[tuple[str, str]]:
    """Who may take part for a kind of signal, as a dropdown has it."""
    codecs = [
        (f"{NAMES[codec.name]}: as many bytes", CODEC + codec.name)
        for codec in rivals.codecs_for(kind)
    ]
    fields = [(f"{name}: {summary}", name) for name, summary in forms.fields_for(kind)]
    return [("nobody", NOBODY), *fields, *codecs]


def usual(kind: str, suited: str | None) -> list[tuple[str, str | None]]:
    """Contestants that are offered, each with its preset.

    Args:
        kind: Kind of the signal.
        suited: The preset that suits the signal, if it is not the kind's default.
    """
    there = {value for _, value in contestants_for(kind)}
    preset = suited or presets.DEFAULTS[kind]
    first = presets.load(preset, kind).field
    second = next((name for name in SECOND if name in there and name != first), first)
    third = CODEC + THIRD.get(kind, "")
    found: list[tuple[str, str | None]] = [(first, preset), (second, None)]
    found.append((third if third in there else NOBODY, None))
    return found + [(NOBODY, None)] * (SLOTS - len(found))


def spec_of(
    chosen: Mapping[str, Any], budget: Any, amount: Any, seed: Any, slots: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """The spec of a comparison from what the controls hold.

    Args:
        chosen: The source, as a picker has it.
        budget: One of `BUDGETS`.
        amount: How much of it.
        seed: Of all fits.
        slots: The values of each `Slot`.

    Raises:
        UsageError: something is missing, or wrong.
    """
    if not chosen:
        raise UsageError("nothing is chosen yet: drop a file, or take an example")
    kind = chosen["look"]["kind"]
    contestants = []
    for number, values in enumerate(slots, 1):
        if values[0] in (None, NOBODY):
            continue
        try:
            contestants.append(_contestant(chosen["look"], *values))
        except UsageError as error:
            raise UsageError(f"contestant {number}: {error}") from None
    if len(contestants) < 2:
        raise UsageError("choose two contestants or more")
    if all("codec" in one for one in contestants):
        raise UsageError("choose one field or more: codecs are given as many bytes as it takes")
    if not isinstance(amount, int | float) or isinstance(amount, bool) or not amount > 0:
        raise UsageError(f"the budget is {amount!r}: give a number above 0")
    spec = {key: chosen[key] for key in ("source", "name")}
    spec |= {"kind": kind, "contestants": contestants, "seed": whole("seed", seed, 0, 2**63 - 1)}
    if budget == "steps each":
        return spec | {"steps": whole("steps", amount, 1, MOST_STEPS)}
    if amount > MOST_SECONDS:
        raise UsageError(f"{amount:g} seconds are too many: up to {MOST_SECONDS:g} may be given")
    return spec | {"seconds": float(amount)}


def _contestant(
    look: Mapping[str, Any], what: Any, preset: Any, hyperparameters: Any, recipe: Any
) -> dict[str, Any]:
    kind = look["kind"]
    if what not in {value for _, value in contestants_for(kind)}:
        raise UsageError("choose one that can take part")
    if what.startswith(CODEC):
        name = what.removeprefix(CODEC)
        return {"label": NAMES[name], "codec": name}
    one: dict[str, Any] = {"field": what, "preset": preset}
    base = preset_of(one, kind)
    one["hyperparameters"] = given_of(forms.field_entries(kind, base), hyperparameters)
    one["recipe"] = given_of(forms.recipe_entries(base), recipe)
    wrong = forms.check(kind, preset_of(one, kind), tuple(look["shape"]), look["channels"])
    for name, text in wrong.items():
        raise UsageError(f"{name}: {text}" if name else text)
    own = f"{kind}/{what}"
    label = what if preset in (None, own) else str(preset).partition("/")[2]
    return one | {"label": label}


def commands(spec: Mapping[str, Any]) -> str:
    """The command lines that do the same: a fit for each field, and what measures the files."""
    kind, name = spec["kind"], str(spec["name"])
    lines, files, codecs = [], [], []
    for i, one in enumerate(spec["contestants"]):
        if "codec" in one:
            codecs.append(one["codec"])
            continue
        file = rivals.file_of(name, i, one["field"])
        fit = {key: one[key] for key in ("field", "preset", "hyperparameters", "recipe")}
        budget = {key: spec[key] for key in ("steps", "seconds", "seed") if key in spec}
        common = {"source": name, "name": name, "kind": kind, "output": file}
        lines.append(equivalent.command(common | fit | budget, found=kind))
        files.append(file)
    if kind in COMPARABLE:
        words = ["inr", "compare", *(["--codecs", ",".join(codecs)] if codecs else [])]
        words += [f"./{file}" if file.startswith("-") else file for file in (name, *files)]
        lines.append(shlex.join(words))
    return "\n".join(lines)
