"""Where a signal comes from: a file that is dropped, or an example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.studio.examples import EXAMPLES
from apps.studio.gate import discard
from apps.studio.visitors import Studio, adopt, escape, told, visitor

if TYPE_CHECKING:
    import gradio as gr

LOOK_SECONDS = 60.0


@dataclass
class Picker:
    """The components.

    Attributes:
        file: Where files are dropped.
        example: The choice of an example.
        card: What was found in the file.
        chosen: State: {"source", "name", "look": what `tasks/look.py` found} or {}.
    """

    file: gr.File
    example: gr.Dropdown
    card: gr.Markdown
    chosen: gr.State


def picker(studio: Studio, *, prefix: str, examples: list[str] | None = None) -> Picker:
    """Build it here. `chosen.change` follows each choice.

    Args:
        studio: The studio.
        prefix: Of the ids of its elements.
        examples: Names of the examples that are offered; all signals if not given.
    """
    import gradio as gr

    names = examples or [name for name, one in EXAMPLES.items() if not one[0].endswith(".inr")]
    file = gr.File(
        label="Drop a picture, sound, clip, volume or shape", elem_id=f"{prefix}-file", height=150
    )
    example = gr.Dropdown(
        names, value=None, label="or take an example", elem_id=f"{prefix}-example"
    )
    card = gr.Markdown("Nothing is chosen yet.", elem_id=f"{prefix}-card")
    chosen = gr.State({}, time_to_live=3600)

    async def dropped(owner: str, path: str | None) -> Any:
        if path is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        with told():
            source, name = adopt(studio, visitor(owner), path)
            try:
                found = await looked(studio, owner, {"source": str(source), "name": name})
            except Exception:
                source.unlink(missing_ok=True)  # what cannot be read is not kept
                discard(studio.uploads, Path(path))
                raise
        return None, None, described(found), found

    async def taken(owner: str, name: str | None) -> Any:
        if name is None:
            return gr.skip(), gr.skip()
        with told():
            found = await looked(studio, visitor(owner), example_source(name))
        return described(found), found

    file.upload(
        dropped, [studio.owner, file], [file, example, card, chosen],
        api_visibility="private", concurrency_limit=None, show_progress_on=card,
    ).failure(lambda: None, None, file, api_visibility="private")  # fmt: skip
    example.input(
        taken, [studio.owner, example], [card, chosen],
        api_visibility="private", concurrency_limit=None, show_progress_on=card,
    )  # fmt: skip
    return Picker(file, example, card, chosen)


def example_source(name: str) -> dict[str, Any]:
    """Where an example lies, as a spec has it.

    Raises:
        UsageError: there is none of this name.
    """
    from apps.studio.examples import path_of

    path = path_of(name)
    return {"source": str(path), "name": path.name}


async def looked(studio: Studio, owner: str, source: dict[str, Any]) -> dict[str, Any]:
    """A source with what `tasks/look.py` found in it."""
    look = await studio.service.call(owner, "look", source, LOOK_SECONDS)
    return source | {"look": look}


def described(found: dict[str, Any]) -> str:
    """A line or two of Markdown."""
    look = found["look"]
    facts = ", ".join(f"{key} {value}" for key, value in look["facts"].items())
    notes = "".join(f"\n\n{plain(note)}" for note in look["notes"])
    size = f"{look['bytes']:,} bytes"
    return f"**{plain(found['name'])}**: {plain(look['kind'])}, {plain(facts)}, {size}{notes}"


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    marked = "".join(f"\\{c}" if c in r"\`*_{}[]()#+-.!|~$" else c for c in escape(text))
    return marked.replace("\n", " ")
