"""The command line and the Python that do what a spec says, for people to copy.

Only what differs from the defaults is written. Names are those of the user's files, beside which a
painted mask is expected as NAME-mask.png (see `mask_name`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from apps.studio.snippets import RENDERERS, call, literal, snippet
from inr import presets
from inr.errors import UsageError
from inr.files import suffix_of
from inr.presets import Preset
from inr.rate.targets import TARGETS

Spec = Mapping[str, Any]

EFFORT = 4
"""Of coding, and of compressing, where nothing else is asked."""

SETTLED = ("array", "image", "video", "volume")
"""Kinds of which no signal has a preset that suits it better than its kind's default."""

COMMON = ("source", "name", "kind", "field", "preset", "hyperparameters", "recipe", "reading")
RUN = ("seed", "device", "progressive", "effort", "output")
BUDGET = ("steps", "seconds", "psnr")

KNOWN = {
    "fit": {*COMMON, *RUN, *BUDGET, "operator"},
    "compress": {*COMMON, *RUN, "seconds", "weight", *TARGETS},
    "decode": {"source", "name", "kind", "output", "partial"},
}
"""By task, what a spec may hold. What is None, "" or {} is not given."""

RENDERING = {
    "array": ("size",),
    "audio": ("rate", "start", "end", "depth"),
    "image": ("size", "scale", "crop"),
    "shape": ("resolution", "level", "normals"),
    "video": ("size", "scale", "crop", "fps", "start", "end"),
    "volume": ("size", "scale", "spacing", "crop", "slice"),
}
"""By kind of signal, how a file is rendered, as `inr.render` and the like take it: sizes and crops
begin with the first axis, which is the vertical one of a picture."""


def command(spec: Spec, task: str = "fit", found: str | None = None) -> str:
    """A line for the shell.

    What `inr fit` has no option for, the effort of coding, is told in a comment above it.

    Args:
        spec: What is done, as `apps.studio.spec` has it; for "compress" also one of the targets
            `bytes`, `bpp`, `kbps`, `psnr`, `snr` and `iou`, or `weight`; for "decode" the kind and
            what `RENDERING` has of it.
        task: "fit", "compress" or "decode".
        found: The kind of signal that the file itself says it holds: where it is the spec's, the
            spec need not say it.

    Raises:
        UsageError: the spec holds something that is not known here, or lacks the kind.
    """
    spec = _cleaned(spec, task)
    words = ["inr", task, _path(spec)]
    if task == "decode":
        return shlex.join([*words, *_decoding_options(spec)])
    kind = _kind(spec, found)
    if kind != found:
        words += ["--kind", kind]
    words += _field_options(spec, kind)
    for name, value in spec.get("reading", {}).items():
        words += _option(f"{kind}.{name}", value)
    words += _operator_options(spec)
    words += _run_options(spec, task)
    line = shlex.join(words)
    if task == "fit" and spec.get("effort", EFFORT) != EFFORT:
        said = f"`inr fit` codes with effort {EFFORT}: for {spec['effort']} see the Python"
        return f"# {said}\n{line}"
    return line


def python(spec: Spec, task: str = "fit", found: str | None = None) -> str:
    """A snippet that does the same; it takes what `command` takes.

    Raises:
        UsageError: as for `command`; or a decoded file has no name, `output`.
    """
    spec = _cleaned(spec, task)
    if task == "decode":
        return _decoding(spec)
    kind = _kind(spec, found)
    imports = {"import inr"}
    lines = _opening(spec, kind, found, imports)
    field, made = _preset(spec, kind, imports)
    lines += made
    arguments = ["signal", *([field] if field else [])]
    names = BUDGET if task == "fit" else (*TARGETS, "weight", "effort", "seconds", "progressive")
    for name in (*names, "seed", "device"):
        if name in spec and not (name == "effort" and spec[name] == EFFORT):
            arguments.append(f"{name}={literal(spec[name])}")
    lines.append(f"{'fit' if task == 'fit' else 'found'} = inr.{task}({', '.join(arguments)})")
    target = literal(_target(spec))
    if task == "fit" and spec.get("effort", EFFORT) == EFFORT:
        progressive = {"progressive": True} if spec.get("progressive") else {}
        lines.append(call("inr.save", "fit", target, **progressive))
        return snippet(imports, lines)
    imports.add("from pathlib import Path")
    if task == "compress":
        return snippet(imports, [*lines, f"Path({target}).write_bytes(found.data)"])
    if spec.get("progressive"):
        lines.append("fit.field.layered = True")
    how = f"target_psnr=fit.target, rounding=fit.rounding, effort={spec['effort']}"
    lines.append(f"data = inr.encode(fit.field, signal, {how})")
    return snippet(imports, [*lines, f"Path({target}).write_bytes(data)"])


def mask_name(name: str) -> str:
    """What the mask of a file is called, in the equivalents and where it is offered."""
    return f"{_stem(_plain(name))}-mask.png"


# ---------------------------------------------------------------------- what a spec holds


def _cleaned(spec: Spec, task: str) -> dict[str, Any]:
    """What is given of a spec.

    Raises:
        UsageError: something of it is not known here, so that the equivalent would not be one.
    """
    if task not in KNOWN:
        raise UsageError(f"task is {task!r}: choose from {', '.join(KNOWN)}")
    given = {
        key: value
        for key, value in spec.items()
        if value is not None and value != "" and value != {} and (key, value) != ("seed", 0)
    }
    known = KNOWN[task]
    if task == "decode":
        if given.get("kind") not in RENDERING:
            raise UsageError("kind: say what the file holds")
        known = known | {*RENDERING[given["kind"]]}
    for key in given:
        if key not in known:
            raise UsageError(f"{key}: no part of the spec of a {task}")
    for part in ("hyperparameters", "recipe", "reading"):
        for name, value in given.get(part, {}).items():
            if value is None:
                raise UsageError(f"{part}: {name} is null: leave it out")
    return given


def _kind(spec: Spec, found: str | None) -> str:
    kind = spec.get("kind") or found
    if kind is None:
        raise UsageError("kind: say what the file holds")
    return str(kind)


def _plain(name: str) -> str:
    """A file's name without folders; characters that a terminal might obey become "_"."""
    last = PurePath(name.replace("\\", "/")).name or "signal"
    return "".join(c if c.isprintable() else "_" for c in last)


def _path(spec: Spec) -> str:
    name = _plain(str(spec.get("name") or spec["source"]))
    return f"./{name}" if name.startswith("-") else name


def _stem(name: str) -> str:
    return name.removesuffix(suffix_of(name)) or "signal"


def _target(spec: Spec) -> str:
    """The file that is written."""
    if "output" in spec:
        name = _plain(str(spec["output"]))
        return f"./{name}" if name.startswith("-") else name
    return f"{_stem(_path(spec))}.inr"


def _suited(spec: Spec, kind: str) -> str | None:
    """The preset that is used where a spec names none, or None if the signal itself may tell."""
    operator = spec.get("operator")
    if operator is not None:
        name = f"image/{operator['name']}"
        return name if kind == "image" and name in presets.names() else None
    return presets.DEFAULTS[kind] if kind in SETTLED else None


def _base(spec: Spec, kind: str) -> tuple[str | None, str | None, Preset | None]:
    """(preset, field) that must be named, and what the given settings are relative to, if known.

    A preset of another field than the given one does not count (see `apps.studio.spec`).
    """
    suited = _suited(spec, kind)
    usual = None if suited is None else presets.load(suited, kind)
    preset, field = spec.get("preset"), spec.get("field")
    if preset is not None:
        if preset not in presets.names():
            raise UsageError(f"preset is {preset!r}: there is none of this name")
        base = presets.load(preset, kind)
        if field in (None, base.field):
            own = base == presets.for_field(kind, base.field)
            if base == usual:
                return None, None, base
            return (None, base.field, base) if own else (preset, None, base)
    if field is not None:
        base = presets.for_field(kind, field)
        return None, None if base == usual else field, base
    return None, None, usual


def _changed(spec: Spec, base: Preset | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters and the recipe's settings that differ from those of the preset."""
    hyperparameters = dict(spec.get("hyperparameters", {}))
    recipe = dict(spec.get("recipe", {}))
    if base is not None:
        own, settings = base.hyperparameters, vars(base.recipe)
        hyperparameters = {k: v for k, v in hyperparameters.items() if own.get(k) != v}
        recipe = {k: v for k, v in recipe.items() if settings.get(k) != v}
    return hyperparameters, recipe


# ---------------------------------------------------------------------- the command line


def _option(name: str, value: Any) -> list[str]:
    """An option of the command line, whose values are YAML."""
    text = value if isinstance(value, str) else json.dumps(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _field_options(spec: Spec, kind: str) -> list[str]:
    preset, field, base = _base(spec, kind)
    words = ["--config", preset] if preset else []
    words += ["--field", field] if field else []
    hyperparameters, recipe = _changed(spec, base)
    for name, value in hyperparameters.items():
        words += _option(f"field.{name}", value)
    for name, value in recipe.items():
        words += _option(f"recipe.{name}", value)
    return words


def _operator_options(spec: Spec) -> list[str]:
    operator = spec.get("operator")
    if operator is None:
        return []
    words = ["--operator", operator["name"]]
    if operator.get("simulate"):
        words += ["--operator.simulate", "true"]
    for name, value in operator.get("options", {}).items():
        words += _option(f"operator.{name}", value)
    if operator.get("mask"):
        words += ["--operator.mask", mask_name(_path(spec))]
    return words


def _run_options(spec: Spec, task: str) -> list[str]:
    """Budgets or targets, and what else is said of a run."""
    words: list[str] = []
    effort = spec.get("effort", EFFORT)
    if task == "fit":
        given = {name: spec[name] for name in BUDGET if name in spec}
    else:
        given = {name: spec[name] for name in (*TARGETS, "seconds") if name in spec}
        given |= {"lambda": spec["weight"]} if "weight" in spec else {}
        given |= {"effort": effort} if effort != EFFORT else {}
    given |= {name: spec[name] for name in ("seed", "device") if name in spec}
    for name, value in given.items():
        words += _option(name, value)
    words += ["--progressive"] if spec.get("progressive") else []
    return [*words, "-o", _target(spec)] if "output" in spec else words


def _joined(values: Sequence[float], separator: str = ",") -> str:
    return separator.join(json.dumps(value) for value in values)


def _decoding_options(spec: Spec) -> list[str]:
    """How a file is rendered, as `inr decode` has it: for pictures the horizontal axis first."""
    kind = spec["kind"]
    flat = kind in ("image", "video")
    words: list[str] = ["--partial"] if spec.get("partial") else []
    for name in RENDERING[kind]:
        if name not in spec:
            continue
        value = spec[name]
        if name == "size":
            words += ["--size", _joined(value[::-1], "x")] if flat else ["--shape", _joined(value)]
        elif name == "crop":
            sides = [value[i] for i in (1, 0, 3, 2)] if flat else value
            words += ["--crop", _joined(sides)]
        elif name == "spacing":
            words += ["--spacing", _joined(value)]
        else:
            words += _option(name, value)
    return [*words, "-o", _target(spec)] if "output" in spec else words


# ---------------------------------------------------------------------- Python


def _opening(spec: Spec, kind: str, found: str | None, imports: set[str]) -> list[str]:
    """The lines that open the file, and see it through its operator."""
    forced = {} if kind == found else {"kind": kind}
    opened = call("inr.open", literal(_path(spec)), **forced, **spec.get("reading", {}))
    operator = spec.get("operator")
    if operator is None:
        return [f"signal = {opened}"]
    imports |= {"from inr.operators import create", "from inr.signals.observed import Observed"}
    options = dict(operator.get("options", {}))
    if operator.get("mask"):
        options["mask"] = mask_name(_path(spec))
    made = call("create", literal(operator["name"]), **options)
    seen = "Observed.simulated" if operator.get("simulate") else "Observed"
    return [f"source = {opened}", f"signal = {seen}(source, {made})"]


def _preset(spec: Spec, kind: str, imports: set[str]) -> tuple[str | None, list[str]]:
    """What `inr.fit` is given as the field, if anything, and the lines that make it."""
    preset, field, base = _base(spec, kind)
    hyperparameters, recipe = _changed(spec, base)
    if not hyperparameters and not recipe:
        if preset is None:
            return (literal(field) if field else None), []
        imports.add("from inr import presets")
        return f"presets.load({literal(preset)}, {literal(kind)})", []
    imports.add("from inr import presets")
    if field is not None:
        settings = {"field": {"name": field} | hyperparameters} | (
            {"recipe": recipe} if recipe else {}
        )
        return f"presets.from_dict(settings, {literal(kind)})", [f"settings = {literal(settings)}"]
    suited = preset or _suited(spec, kind)
    name = literal(suited) if suited else f"signal.preset or {literal(presets.DEFAULTS[kind])}"
    lines = [f"settings = presets.read(presets.path_of({name}))"]
    if hyperparameters:
        lines.append(f'settings["field"] |= {literal(hyperparameters)}')
    if recipe:
        lines.append(f'settings["recipe"] |= {literal(recipe)}')
    return f"presets.from_dict(settings, {literal(kind)})", lines


def _decoding(spec: Spec) -> str:
    """A snippet that renders a file."""
    if "output" not in spec:
        raise UsageError("output: give the name of the file that is to be written")
    kind = spec["kind"]
    imports = {"import inr", "from pathlib import Path"}
    if spec.get("partial"):
        data = f"Path({literal(_path(spec))}).read_bytes()"
        lines = [f"field = inr.decode({data}, partial=True)"]
    else:
        lines = [f"field = inr.load({literal(_path(spec))})"]
    given = {name: spec[name] for name in RENDERING[kind] if name in spec}
    target = f"Path({literal(_target(spec))})"
    lines += RENDERERS[kind](given, target, imports)
    return snippet(imports, lines)
