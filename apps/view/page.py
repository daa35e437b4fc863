"""A page of HTML that is complete in itself: style, scripts and data lie in it."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"

PAGE_BYTES = 24_000_000
"""What a page may weigh, about, if nothing else is asked."""

SMALLEST_SHARE = 10_000
"""Bytes below which no section is made smaller."""

POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""What a browser may load for the page: nothing but what lies in it."""

HINT = (
    "Drag to move. To zoom: pinch, Ctrl and the wheel (or the wheel alone after a click), the "
    "buttons, or the keys + and -; 0 or a double click shows all."
)

WIDGETS = {
    "panes": ("panes",),
    "plot": ("plot",),
    "sound": ("plot", "sound"),
    "slices": ("slices",),
    "mesh": ("mesh",),
    "curves": ("curves",),
    "table": ("table",),
}
"""By name of a widget, the scripts that it needs beside `core`."""

PALETTE = {
    "grey": ("#000000", "#ffffff"),
    # matplotlib's viridis and inferno (CC0) at equal distances
    "viridis": (
        "#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30",
        "#fde725",
    ),
    "inferno": (
        "#000004", "#1f0c48", "#550f6d", "#88226a", "#ba3655", "#e35933", "#f98e09", "#f9c932",
        "#fcffa4",
    ),
    # ColorBrewer's RdBu
    "signed": (
        "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d",
        "#b2182b",
    ),
}  # fmt: skip
"""Colour maps: stops at equal distances from the lowest value to the highest."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: Its heading.
        widget: What shows it, one of `WIDGETS`.
        data: What the widget is given, JSON-ready.
        notes: Sentences below it.
    """

    title: str
    widget: str
    data: Mapping[str, Any]
    notes: Sequence[str] = field(default=())


def page(
    title: str,
    intro: str,
    highlights: Mapping[str, str],
    sections: Sequence[Section],
    facts: Mapping[str, str],
) -> str:
    """The page as text; whatever stands in its arguments is shown as it is, and never markup.

    Args:
        title: Heading.
        intro: A sentence or two below it.
        highlights: A few figures, by their names.
        sections: What is shown, in order.
        facts: Rows of the table at the end.
    """
    scripts = dict.fromkeys(["core", *(s for part in sections for s in WIDGETS[part.widget])])
    chips = "".join(
        f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in highlights.items()
    )
    rows = "".join(
        f'<tr><th scope="row">{_text(k)}</th><td>{_text(v)}</td></tr>' for k, v in facts.items()
    )
    table = (
        f'<section><h2>Facts</h2><div class="scroll"><table>{rows}</table></div></section>'
        if rows
        else ""
    )
    code = "".join(f"<script>{_web(f'{name}.js')}</script>\n" for name in scripts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title>\n<style>{_web('page.css')}</style></head>\n<body>"
        f"<header><h1>{_text(title)}</h1><p>{_text(intro)}</p></header>\n"
        f'<dl class="highlights">{chips}</dl>\n<main>'
        "<noscript><p>This page draws with JavaScript: allow it to see the signal.</p></noscript>\n"
        f'<p class="hint">{_text(HINT)}</p>'
        f"{''.join(map(_section, sections))}{table}</main>\n"
        "<footer>Made by <code>inr</code>. All that is shown lies in this file.</footer>\n"
        f'<script type="application/json" id="palette">{_json(PALETTE)}</script>\n{code}'
        "</body></html>\n"
    )


def weight(part: Section) -> int:
    """Bytes that a section takes in a page, but for its text."""
    return len(_json(part.data))


def within(room: int, build: Callable[[int], list[Section]]) -> list[Section]:
    """What `build` makes of a number of bytes that lets it find room in so many."""
    share = room
    while True:
        made = build(share)
        total = sum(map(weight, made))
        # what sections hold at least is little
        if total <= room or share < SMALLEST_SHARE:
            return made
        share = int(0.9 * share * room / total)


def _section(part: Section) -> str:
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in part.notes)
    return (
        f"<section><h2>{_text(part.title)}</h2>"
        f'<div data-widget="{part.widget}">'
        f'<script type="application/json">{_json(part.data)}</script></div>{notes}</section>\n'
    )


def _json(data: Any) -> str:
    # inside <script> only "<" can end it
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _web(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")
