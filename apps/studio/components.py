"""The studio's own components: `gr.HTML` filled by scripts that the page carries.

A component's template is fixed and its value is JSON that a script draws, so that no text of a
visitor ever becomes markup. What is drawn of signals is drawn by the widgets of `inr view`.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.view.page import HINT, PALETTE, WIDGETS
from apps.view.page import WEB as VIEW

if TYPE_CHECKING:
    import gradio as gr

WEB = Path(__file__).parent / "web"

Served = Callable[..., Awaitable[dict[str, Any]]]
"""What the page calls past Gradio's events; its JSON is not to be trusted."""

SCRIPTS = ("base", "stage", "form", "png", "paint", "chart", "deep")
"""Of the components, in the order in which they are loaded."""

LOOSE = re.compile(r"^(body|h1|h2|header|footer|\.highlights)\b")
"""Rules of `inr view` for the page around its widgets."""

DARK = re.compile(r"@media \(prefers-color-scheme: dark\)")


def head() -> str:
    """The scripts of all components for the head of the page; they lie in one function.

    Outside it there is only `window.inrStudio`, which holds a function for each component, and the
    event `inr-studio` when it is there.
    """
    names = dict.fromkeys(["core", *(script for needed in WIDGETS.values() for script in needed)])
    sources = [_read(VIEW / f"{name}.js") for name in names]
    sources += [_read(WEB / f"{name}.js") for name in SCRIPTS]
    code = "\n".join(sources)
    if "</script" in code.lower() or "<!--" in code:
        raise ValueError("a script may not hold what ends its element")
    return (
        f'<script>\n(() => {{\n"use strict";\nconst PALETTE = {json.dumps(PALETTE)};\n{code}\n'
        'window.inrStudio = studio;\nwindow.dispatchEvent(new Event("inr-studio"));\n})();\n'
        "</script>\n"
    )


def css() -> str:
    """The styles of the widgets and components, for elements within `.inr` alone.

    Gradio says by the class `dark` what `inr view` asks the browser for.
    """
    rules = [scoped for rule in _rules(_read(VIEW / "page.css")) for scoped in _scoped(rule)]
    return "\n".join(rules) + "\n" + _read(WEB / "studio.css")


def stage(elem_id: str, label: str, frames: Served | None = None) -> gr.HTML:
    """Sections of a signal, changed in place as new ones come; output only.

    Its value: `{"id": str, "sections": [{"title", "widget", "data", "notes"}, ...]}`, or None.
    Gradio compares whole values in the browser at every change, some 50 ms for each MB of a frame.
    Where that is too much, the value is `{"id": str, "ask": {...}}` and the page gets the sections
    from `frames`, past Gradio's values; it asks for the latest alone.

    Args:
        elem_id: The element's name in the page.
        label: What it shows.
        frames: Awaited with `ask` as it comes from the page, so not to be trusted; it may also take
            a `gr.Request`. It returns `{"sections": [...]}` or `{"error": text}`.
    """
    served = [] if frames is None else [_named("inr_frame", frames)]
    return _component("stage", elem_id, label, "Nothing is shown yet.", served)


def form(elem_id: str, label: str) -> gr.HTML:
    """A form; its event `input` says that a person changed it.

    Its value: `{"entries": [entry, ...], "given": {name: value}, "errors": {name: text}}`. In
    `given` is what differs from the default. A text that cannot be read stands in `given` as it
    is, and what is wrong with it in `errors`: whoever takes the value looks at both.
    """
    return _component("form", elem_id, label, "There is nothing to set.")


def paint(elem_id: str, label: str) -> gr.HTML:
    """A brush over a picture; its event `input` says that a stroke ended.

    Its value: `{"id": str, "picture": data URI, "size": [h, w], "mask": data URI or None}`, where
    the mask is a grey PNG of h x w pixels of one bit, white where the picture is known. It is None
    as long as all is known. Another `id` or size starts with the mask that comes with it.
    """
    return _component("paint", elem_id, label, "Choose a picture first.")


def chart(elem_id: str, label: str) -> gr.HTML:
    """Quality over seconds or steps; output only.

    Its value: `{"series": [{"name", "points": [[step, seconds, psnr, loss], ...]}], "marks":
    [{"step", "seconds", "label"}]}`. `charted` makes one that costs the browser less.
    """
    return _component("chart", elem_id, label, "")


def charted(
    series: Mapping[str, Sequence[Sequence[float | None]]],
    marks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The value of a `chart`; Gradio compares values entry by entry, so points go as one text.

    Args:
        series: By name, points [step, seconds, psnr, loss]; None where one is not known. They are
            kept as float32.
        marks: Upright lines, each `{"step", "seconds", "label"}`.
    """
    packed = []
    for name, points in series.items():
        table = np.array(points, np.float32).reshape(-1, 4)  # None becomes NaN
        text = base64.b64encode(table.astype("<f4").tobytes()).decode()
        packed.append({"name": name, "packed": text})
    return {"series": packed, "marks": [dict(mark) for mark in marks]}


def deep(elem_id: str, label: str, render: Served) -> gr.HTML:
    """A picture that is rendered anew wherever it is looked at.

    Its value: `{"id": str, "token": str, "size": [h, w] in samples, "picture": data URI of all,
    "fit": bool}`; `fit` shows all again where a change of the rest would not. The place looked at
    is put into it as `crop`, [y, x, h, w] in samples.

    Args:
        elem_id: The element's name in the page.
        label: What it shows.
        render: Awaited with `{"token": str, "crop": [y, x, h, w], "size": [H, W]}` from the page,
            so not to be trusted; it may also take a `gr.Request`. It returns `{"picture": data
            URI}` or `{"error": text}`.
    """
    served = [_named("inr_pixels", render)]
    return _component("deep", elem_id, label, "Open a file first.", served)


def _named(name: str, act: Served) -> Served:
    # Gradio makes it an attribute of the component, which must be none that `gr.HTML` has
    @functools.wraps(act)
    async def served(*args: Any) -> dict[str, Any]:
        return await act(*args)

    served.__name__ = name
    return served


def _component(
    name: str, elem_id: str, label: str, empty: str, served: Sequence[Served] = ()
) -> gr.HTML:
    import gradio as gr

    return gr.HTML(
        elem_id=elem_id,
        label=label,
        html_template=(
            f'<div class="inr inr-{name}" role="group" aria-label="{_literal(label)}" '
            f'data-label="{_literal(label)}" data-empty="{_literal(empty)}" '
            f'data-hint="{_literal(HINT)}"></div>'
        ),
        js_on_load=(
            f"const start = () => window.inrStudio.{name}("
            "{ element, props, watch, trigger, server });\n"
            "if (window.inrStudio) start();\n"
            'else window.addEventListener("inr-studio", start, { once: true });'
        ),
        apply_default_css=False,
        server_functions=list(served),
    )


def _literal(text: str) -> str:
    # Gradio reads a template as Handlebars and as a template of JavaScript
    return re.sub(r"[`${}\\]", lambda found: f"&#{ord(found[0])};", html.escape(text, quote=True))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _rules(sheet: str) -> list[str]:
    """The outermost rules of a style sheet, in order."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(sheet):
        depth += (letter == "{") - (letter == "}")
        if letter == "}" and depth == 0:
            found.append(sheet[start : place + 1].strip())
            start = place + 1
    return found


def _scoped(rule: str, scope: str = ".inr") -> list[str]:
    selectors, _, body = rule.partition("{")
    if selectors.startswith("@"):
        within = _rules(body[: body.rindex("}")])
        if DARK.match(selectors):
            return [r for inner in within for r in _scoped(inner, ".dark .inr")]
        inside = " ".join(r for inner in within for r in _scoped(inner, scope))
        return [f"{selectors.strip()} {{ {inside} }}"]
    kept = [s.strip() for s in selectors.split(",") if not LOOSE.match(s.strip())]
    if not kept:
        return []
    named = ", ".join(scope if s == ":root" else f"{scope} {s}" for s in kept)
    return [f"{named} {{{body}"]
