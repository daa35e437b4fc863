"""A small HTML page, complete in itself: a table of facts and pictures with captions."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np

_STYLE = """
:root { color-scheme: light dark; --line: #8885 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { border-bottom: 1px solid var(--line); padding: .2rem 1rem .2rem 0; text-align: left }
td { font-variant-numeric: tabular-nums }
.row { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; flex: 1 1 20rem }
img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line) }
figcaption { font-size: .9rem; opacity: .8 }
"""


def page(
    title: str,
    intro: str,
    facts: Mapping[str, str],
    pictures: Sequence[tuple[str, np.ndarray]],
) -> str:
    """The page as text.

    Args:
        title: Heading.
        intro: A sentence or two below it.
        facts: Rows of the table.
        pictures: (caption, array of shape (height, width, channels), uint8), embedded as PNG.
    """
    rows = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())
    figures = "".join(
        f'<figure><img src="{_png(array)}" alt="{_text(caption)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for caption, array in pictures
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
        f"<h1>{_text(title)}</h1><p>{_text(intro)}</p><table>{rows}</table>"
        f'<div class="row">{figures}</div></html>\n'
    )


def error_map(a: np.ndarray, b: np.ndarray, gain: float = 8.0) -> np.ndarray:
    """Mean absolute difference over channels, times `gain`, as a grey picture."""
    difference = np.abs(a.astype(np.float32) - b.astype(np.float32)).mean(-1, keepdims=True)
    return np.clip(difference * gain, 0, 255).astype(np.uint8)


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _png(array: np.ndarray) -> str:
    import PIL.Image

    buffer = io.BytesIO()
    picture = array[..., 0] if array.shape[-1] == 1 else array
    PIL.Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
