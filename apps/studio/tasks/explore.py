"""Open an `.inr` file: what it says of itself, what it shows, and what can be made of it."""

from __future__ import annotations

import dataclasses
import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.decode import KINDS
from apps.cli.info import EXACT, as_text, facts_of
from apps.studio.decoded import Decoded, decoded
from apps.studio.desk import Desk
from apps.studio.planes import overview, picture, plane_of, slices
from apps.studio.spec import LIMITS, open_source
from apps.studio.tasks.decode import job_of
from apps.view.page import Section
from apps.view.pieces import data_uri
from inr.errors import InputError, UsageError

if TYPE_CHECKING:
    from inr.signals.base import Signal

ROOM = 4_000_000
"""Bytes of the sections, about."""

SECONDS = 4.0
"""What showing the field may take, about; of a slower one less is shown."""

MEASURE_SECONDS = 15.0
"""The same of comparing it with the original."""

ENLARGED = 5
"""Evaluations for each pixel of a picture, which is shown at twice its size too."""

SHAPE_CELLS = 64**3 + 16 * 160**2
"""Evaluations that a surface takes, about."""

FORMATS = {
    "array": (".npy",),
    "audio": (".wav", ".flac", ".ogg", ".aiff", ".npy"),
    "image": (".png", ".jpg", ".webp", ".avif", ".tif", ".npy"),
    "shape": (".glb", ".ply", ".obj", ".stl", ".off", ".npy"),
    "video": (".mp4", ".webm", ".mkv", ".gif", ".npz", ".npy"),
    "volume": (".nii.gz", ".nii", ".tif", ".npz", ".npy", ".png"),
}
"""By kind of signal what is offered; those that cannot hold the file's samples are left out."""

ONE_PLANE = ".png"
"""What a volume is written as only where a slice is asked for."""


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Look at the `.inr` file at `source`.

    {"source": path, "name": its name for people, "part": "open" or "gradients", "original": path of
    what was fitted | null, "original_name": text, "reading": how that is read, "start", "length":
    numbers | null, see `apps.studio.gradients`}.

    Returns:
        Of "gradients" {"sections"}; of "open" also {"kind", "noun", "summary": text, "facts":
        sections of tables, "slices" (see `apps.studio.planes`), "size": [height, width] and
        "picture" of the first of them or None, "entries": a form for how it is rendered,
        "suffixes", "suffix", "speed": points per second, "psnr": measured, or None}.

    Raises:
        InputError: it is no such file, or the original is another signal.
        UsageError: the stretch of a curve lies outside.
    """
    file = decoded(Path(spec["source"]), str(spec.get("name") or ""))
    if spec.get("part") == "gradients":
        from apps.studio import gradients

        stretch = (_number(spec, "start"), _number(spec, "length"))
        return {"sections": _plain(gradients.sections(file, *stretch))}
    original = None
    if spec.get("original"):
        original = _original(file, spec)
    told, measured = _curve(file, original)
    return {
        "kind": file.domain.kind,
        "noun": KINDS[file.domain.kind].noun,
        "summary": _summary(file, measured),
        "sections": _plain([*told, *_preview(file, original)]),
        "facts": _plain(_tables(file)),
        "psnr": measured,
        "speed": file.speed,
        **_zoom(file),
        **_rendering(file),
    }


# ------------------------------------------------------------------------- what it says


def _summary(file: Decoded, measured: float | None) -> str:
    """A line for people; nothing of it is a stranger's text."""
    contents = file.contents
    key, cost = next(iter(file.domain.density(len(file.data)).items()))
    size, channels = " x ".join(map(str, file.domain.shape)), file.domain.channels
    parts = [
        f"{file.domain.kind}, {size}, {channels} {'channel' if channels == 1 else 'channels'}",
        f"field {contents.field}",
        f"{len(file.data):,} bytes ({cost:.3f} {key.replace('_', ' ')})",
    ]
    if measured is not None:
        parts.append(f"PSNR {measured:.2f} dB, measured")
    elif contents.psnr is not None:
        exact = contents.psnr > EXACT
        parts.append("exact, as stated" if exact else f"PSNR {contents.psnr:.2f} dB, as stated")
    return "; ".join(parts)


def _tables(file: Decoded) -> list[Section]:
    """All that a file says, as text."""
    from fields import registry
    from fields.base import hyperparameter_names

    facts = facts_of(file.data)
    names = hyperparameter_names(registry.field_class(facts["field"]))
    chosen = dict(zip(names, facts.pop("hyperparameters"), strict=False))
    said = facts.pop("metadata", {})
    chunks = facts.pop("chunks")
    facts.pop("layers", None)
    if facts.get("psnr", "") is None:
        facts["psnr"] = "exact"
    rows = [[key.replace("_", " "), as_text(value)] for key, value in facts.items()]
    total = len(file.data)
    parts = [[c["type"], f"{c['bytes']:,}", f"{100 * c['bytes'] / total:.1f} %"] for c in chunks]
    tables = [
        ("Metadata", ["key", "text"], [[key, str(text)] for key, text in said.items()]),
        ("The file", ["fact", "value"], rows),
        ("Hyperparameters", ["name", "value"], [[k, as_text(v)] for k, v in chosen.items()]),
        ("Chunks", ["type", "bytes", "share"], parts),
    ]
    return [
        Section(title, "table", {"columns": columns, "rows": cells})
        for title, columns, cells in tables
        if cells
    ]


def _curve(file: Decoded, original: Signal | None) -> tuple[list[Section], float | None]:
    """Quality against bytes of a file's layers; and the PSNR of all, where it was measured."""
    from inr.codec import format as container

    contents = file.contents
    ends = [len(file.data)]
    stated: list[float | None] = [contents.psnr]
    if contents.boundaries:
        ends = list(container.ends(contents.container, len(file.data)))
        stated = [*contents.boundaries, contents.psnr]
    measured: list[float | None] = [None] * len(ends)
    notes = []
    if original is not None:
        cost = _samples(original)
        if cost * len(ends) <= MEASURE_SECONDS * file.speed:
            measured = [_measured(file, end, original) for end in ends]
        elif cost <= MEASURE_SECONDS * file.speed:
            measured[-1] = _measured(file, ends[-1], original)
        else:
            notes.append("The field is too slow to be measured here: try inr view --original.")
    whole = measured[-1]
    if len(ends) == 1:
        return [], whole
    curves = [
        {
            "codec": name,
            "points": [
                [end, [quality], f"layers 1 to {i}"]
                for i, (end, quality) in enumerate(zip(ends, qualities, strict=True), 1)
                if quality is not None and quality <= EXACT
            ],
        }
        for name, qualities in (("as stated", stated), ("measured", measured))
    ]
    curves = [curve for curve in curves if curve["points"]]
    data = {
        "x": "bytes",
        "measures": ["PSNR in dB"],
        "codecs": [curve["codec"] for curve in curves],
        "views": [{"name": "layers", "curves": curves}],
    }
    rows = [
        [str(i), f"{end:,}", *("-" if q is None else f"{q:.2f}" for q in pair)]
        for i, (end, *pair) in enumerate(zip(ends, stated, measured, strict=True), 1)
    ]
    columns = ["layers", "first bytes", "PSNR as stated", "PSNR measured"]
    notes.append("The first bytes of a layered file make a coarser signal: inr decode --partial.")
    shown = [Section("Quality against bytes", "curves", data, notes)] if curves else []
    return [*shown, Section("Layers", "table", {"columns": columns, "rows": rows})], whole


def _measured(file: Decoded, end: int, original: Signal) -> float | None:
    """PSNR of what the first bytes of a file make; None where it is exact."""
    from inr.codec.decode import decode

    field = file.field
    if end < len(file.data):
        field = decode(file.data[:end], LIMITS, partial=True)
    found = original.quality(field)
    return found if math.isfinite(found) else None


def _samples(signal: Signal) -> int:
    return max(signal.count, math.prod(signal.domain.shape) if signal.domain.kind != "shape" else 0)


def _original(file: Decoded, spec: dict[str, Any]) -> Signal:
    """What was fitted, held against what the file holds.

    Raises:
        InputError: it cannot be read, or is another signal.
    """
    from apps.view.original import held_against

    name = str(spec.get("original_name") or "the original")
    source = {"source": spec["original"], "name": name, "kind": file.domain.kind}
    return held_against(open_source(source | {"reading": spec.get("reading")}), file.domain, name)


# ------------------------------------------------------------------------ what it shows


def _preview(file: Decoded, original: Signal | None) -> list[Section]:
    """What `inr view` shows of the file; of a slow field less."""
    from apps.studio import live
    from apps.view.page import within

    domain = file.domain
    budget = max(1, int(SECONDS * file.speed))
    cost = SHAPE_CELLS if domain.kind == "shape" else math.prod(domain.shape)
    cost *= ENLARGED if domain.kind == "image" else 1
    if cost <= budget:
        shown: Any = import_module(f"apps.view.{domain.kind}").sections
        try:
            made = within(ROOM, lambda share: shown(file.field, original, share))
        except InputError:  # it has no surface
            return [_remark("The field has no surface where the source has one.")]
        # a picture alone is what zooming begins with
        return made[1:] if domain.kind == "image" and original is None else made
    if domain.kind == "shape" and original is None:
        from apps.studio.gradients import surface

        return surface(file) or [_remark("The field has no surface where the source has one.")]
    module, _, name = live.VIEWS[domain.kind].partition(":")
    make: Any = getattr(import_module(module), name)
    view = make(original) if domain.kind == "shape" else make(domain, original)
    sections: list[Section] = view.sections(file.field, budget, {})
    note = "The field is slow or large: it is shown at fewer places than it has samples."
    first = sections[0]
    head = Section(first.title, first.widget, first.data, [*first.notes, note])
    return [head, *sections[1:]]


def _remark(text: str) -> Section:
    return Section("Surface", "table", {"columns": ["remark"], "rows": [[text]]})


def _zoom(file: Decoded) -> dict[str, Any]:
    """Slices that can be looked at closely, and all of the first one."""
    found = slices(file.domain)
    if not found:
        return {"slices": [], "size": None, "picture": None}
    plane = plane_of(file.domain)
    data, _ = picture(file, plane, [0.0, 0.0, *plane.size], overview(plane.size))
    return {
        "slices": found,
        "size": list(plane.size),
        "picture": data_uri("image/png", data),
    }


# ------------------------------------------------------------------ what can be made of it


def _rendering(file: Decoded) -> dict[str, Any]:
    """A form's entries for how the file is rendered, and formats that hold it."""
    kind = file.domain.kind
    suffixes = []
    usual = ""
    for suffix in FORMATS[kind]:
        if kind == "volume" and suffix == ONE_PLANE:
            suffixes.append(suffix)
            continue
        try:
            job, _ = job_of(file, {}, suffix)
        except UsageError:
            continue
        usual = usual or job.suffix
        suffixes.append(suffix)
    return {
        "entries": entries(kind),
        "suffixes": suffixes,
        "suffix": usual if usual in suffixes else next(iter(suffixes), ""),
    }


def entries(kind: str) -> list[dict[str, Any]]:
    """A form for the options of `inr decode` that a kind of signal takes."""
    named = {int: "int", float: "float", str: "text", bool: "bool"}
    return [
        {
            "name": name,
            "label": name.capitalize(),
            "help": text.replace("%%", "%"),
            "kind": named[hint],
            "default": True if hint is bool else None,
            "placeholder": "as the source has it",
        }
        for name, (hint, text) in KINDS[kind].module.OPTIONS.items()
    ]


def _number(spec: dict[str, Any], name: str) -> float | None:
    """A number of a spec, if it is given.

    Raises:
        UsageError: it is none.
    """
    value = spec.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UsageError(f"{name} is {str(value)[:40]!r}: give a number")
    return float(value)


def _plain(sections: list[Section]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(part) for part in sections]
