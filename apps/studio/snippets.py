"""Pieces of Python for people to copy: values, calls, and how each kind of signal is rendered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inr.errors import UsageError


def snippet(imports: set[str], lines: Sequence[str]) -> str:
    """Imports in the order of linters, then the lines."""
    homes = {"pathlib": 0, "numpy": 1, "inr": 2}
    blocks: list[list[str]] = [[], [], []]
    for line in sorted(imports, key=lambda line: (line.startswith("from"), line)):
        blocks[homes[line.split()[1].partition(".")[0]]].append(line)
    return "\n\n".join("\n".join(block) for block in [*blocks, list(lines)] if block) + "\n"


def literal(value: Any) -> str:
    """A value as Python has it, with the quotes of this project."""
    if isinstance(value, str) and value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def call(function: str, *arguments: str, **keywords: Any) -> str:
    """A call, of arguments as they are written and of keywords by their values."""
    words = [*arguments, *(f"{name}={literal(value)}" for name, value in keywords.items())]
    return f"{function}({', '.join(words)})"


def _array(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    imports |= {"import numpy as np"}
    lines = [f"values = {call('inr.render', 'field', **given)}"]
    lines += ["values = values if field.domain.channels > 1 else values[..., 0]"]
    return [*lines, f"np.save({target}, values)"]


def _audio(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    imports |= {"from inr.signals.audio import render_audio, write_audio"}
    depth = given.pop("depth", None)
    domain, lines = "field.domain", []
    if depth is not None:
        imports |= {"from inr.signals.audio import DEPTH_NAMES, render_audio, write_audio"}
        imports -= {"from inr.signals.audio import render_audio, write_audio"}
        lines = [f"field.domain = field.domain.at_depth(DEPTH_NAMES[{literal(depth)}])"]
    lines += [f"samples = {call('render_audio', 'field', **given)}"]
    rate = {"rate": given["rate"]} if "rate" in given else {}
    return [*lines, call("write_audio", target, "samples", domain, **rate)]


def _image(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    imports |= {"from inr.signals.image import write_image"}
    lines = [f"picture = {call('inr.render', 'field', **given)}"]
    return [*lines, f"write_image({target}, picture, field.domain)"]


def _shape(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    imports |= {"from inr.meshes import write_mesh", "from inr.surface import extract"}
    resolution = literal(given["resolution"]) if "resolution" in given else "RESOLUTION"
    if "resolution" not in given:
        imports |= {"from inr.signals.shape import RESOLUTION"}
    level = f"domain.level({literal(given['level'])})" if "level" in given else "domain.level()"
    how = f"level={level}, thickness=domain.thickness"
    lines = [
        "domain = field.domain",
        f"surface = extract(field, {resolution}, {how}).oriented(domain.outward)",
    ]
    parts = ["domain.to_units(surface.vertices)", "surface.faces"]
    if given.get("normals") is not False:
        imports -= {"from inr.surface import extract"}
        imports |= {"from inr.surface import extract, normals"}
        lines += ["directions = normals(field, surface.vertices) * domain.outward"]
        parts += ["directions"]
    return [*lines, call("write_mesh", target, *parts)]


def _video(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    imports |= {"from inr.signals import clips", "from inr.signals.video import frames_of"}
    lines = ["domain = field.domain"]
    rate = "domain.rate"
    if "fps" in given:
        imports -= {"from inr.signals.video import frames_of"}
        imports |= {"from inr.signals.video import frames_of, rational"}
        rate = f"rational({literal(given['fps'])})"
    times = {name: given[name] for name in ("start", "end") if name in given}
    lines += [f"rate = {rate}", f"place = {call('domain.window', 'rate', **times)}"]
    crop = given.get("crop")
    lines += [
        f"crop = {literal(tuple(crop))}" if crop else "crop = (0, 0, domain.height, domain.width)"
    ]
    if "size" in given:
        lines += [f"size = {literal(tuple(given['size']))}"]
    else:
        scale = given.get("scale", 1)
        lines += [f"size = tuple(max(1, round({literal(scale)} * side)) for side in crop[2:])"]
    return [
        *lines,
        "frames = frames_of(field, size, place, crop)",
        f"clips.write({target}, frames, domain, (place[0], *size), rate)",
    ]


def _volume(given: dict[str, Any], target: str, imports: set[str]) -> list[str]:
    cut = given.pop("slice", None)
    if "spacing" in given:
        given["spacing"] = (list(given["spacing"]) * 3)[:3]
    if cut is None:
        imports |= {"from inr.signals.volumeout import write_volume"}
        place = call("field.domain.window", **given)
        return [f"place = {place}", f"write_volume({target}, field, place)"]
    imports |= {"from inr.signals.image import ImageDomain, write_image"}
    imports |= {"from inr.signals.volumeout import picture_of, plane_of"}
    name, _, position = str(cut).partition("=")
    axis = name if name in ("0", "1", "2") else f"field.domain.axis_along({literal(name)})"
    try:
        where = f"{float(position.removesuffix('%'))!r}"
    except ValueError:
        raise UsageError(f"slice is {cut!r}: give an axis and a position, such as 0=128") from None
    if position.endswith("%"):  # from the first voxel to the last
        where = f"{where} / 100 * (field.domain.shape[axis] - 1)"
    arguments = ", ".join(
        [*(f"{k}={literal(v)}" for k, v in given.items()), "cut=(axis, position)"]
    )
    return [
        f"axis = {axis}",
        f"position = {where}",
        f"place = field.domain.window({arguments})",
        "picture = picture_of(plane_of(field, place, axis), field.domain, axis)",
        "height, width, _ = picture.shape",
        "domain = ImageDomain(height, width, 1, 8 * picture.dtype.itemsize)",
        f"write_image({target}, picture, domain)",
    ]


RENDERERS = {
    "array": _array,
    "audio": _audio,
    "image": _image,
    "shape": _shape,
    "video": _video,
    "volume": _volume,
}
"""By kind of signal, the lines that render a field into a file."""
