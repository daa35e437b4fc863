"""Explore: an `.inr` file is opened, looked at from as near as one likes, and rendered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.studio import components
from apps.studio.examples import EXAMPLES, path_of
from apps.studio.picker import plain
from apps.studio.service import ALIVE, Job
from apps.studio.shelf import Shelf, zoom
from apps.studio.visitors import Studio, followed, latest, told, visitor
from inr.errors import InrError

if TYPE_CHECKING:
    import gradio as gr

SUFFIX = ".inr"


@dataclass
class Panel:
    """What a file is opened with, and what is said of it."""

    file: gr.File
    example: gr.Dropdown
    mine: gr.Button
    original: gr.File
    card: gr.Markdown
    facts: gr.HTML


@dataclass
class Views:
    """What shows an open file, in the order in which handlers fill it."""

    card: gr.Markdown
    facts: gr.HTML
    stage: gr.HTML
    deep: gr.HTML
    axis: gr.Dropdown
    position: gr.Slider
    begin: gr.Number
    length: gr.Number
    slopes: gr.HTML
    form: gr.HTML
    suffix: gr.Dropdown
    show: gr.Button
    start: gr.Button
    status: gr.Markdown
    download: gr.DownloadButton
    command: gr.Code
    python: gr.Code

    @property
    def outputs(self) -> list[Any]:
        """All of them."""
        return list(vars(self).values())


def build(studio: Studio) -> None:
    """Build the tab here."""
    import gradio as gr

    shelf = Shelf(studio)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            panel = _panel()
        with gr.Column(scale=2, min_width=420):
            views, stop = _views(panel, shelf)
    reloaded = _wire_opening(studio, shelf, panel, views)
    _wire_looking(studio, shelf, views)
    _wire_rendering(studio, shelf, views, stop, reloaded)


def _panel() -> Panel:
    import gradio as gr

    file = gr.File(label="Drop an .inr file", elem_id="explore-file", height=120)
    names = [name for name, one in EXAMPLES.items() if one[0].endswith(SUFFIX)]
    example = gr.Dropdown(names, value=None, label="or take an example", elem_id="explore-example")
    mine = gr.Button("Open the file that was made last", elem_id="explore-mine")
    original = gr.File(
        label="The original, to compare with",
        elem_id="explore-original", height=120,
    )  # fmt: skip
    card = gr.Markdown("No file is open yet.", elem_id="explore-card")
    facts = components.stage("explore-facts", "What the file says")
    return Panel(file, example, mine, original, card, facts)


def _views(panel: Panel, shelf: Shelf) -> tuple[Views, gr.Button]:
    import gradio as gr

    async def window(request: dict[str, Any]) -> dict[str, Any]:
        return await shelf.window(request)

    deep = components.deep("explore-zoom", "Zoom without end: the field where you look", window)
    with gr.Row():
        axis = gr.Dropdown([], label="Slice across", visible=False, elem_id="explore-axis")
        position = gr.Slider(
            0, 1, 0, step=1, label="Slice", visible=False, elem_id="explore-position"
        )
    with gr.Accordion("Gradients and normals of the field", open=True):
        with gr.Row():
            begin = gr.Number(
                None,
                label="Begin (seconds, or samples)",
                visible=False,
                elem_id="explore-begin",
            )
            length = gr.Number(
                None, label="Length: as short as you like", visible=False, elem_id="explore-length"
            )
        show = gr.Button("Show gradients", interactive=False, elem_id="explore-gradients")
        slopes = components.stage("explore-slopes", "Gradients and normals")
    with gr.Accordion("Render at any size, and download", open=True):
        form = components.form("explore-form", "How it is rendered")
        with gr.Row():
            suffix = gr.Dropdown([], label="Format", elem_id="explore-suffix")
            start = gr.Button(
                "Render", variant="primary", interactive=False, elem_id="explore-start"
            )
            stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="explore-stop")
        status = gr.Markdown("", elem_id="explore-status")
        download = gr.DownloadButton("Download", elem_id="explore-download", interactive=False)
    with gr.Accordion("The same from the command line and from Python", open=True):
        command = gr.Code(label="command line", language="shell", elem_id="explore-command")
        python = gr.Code(label="Python", language="python", elem_id="explore-python")
    stage = components.stage("explore-stage", "What the file holds")
    views = Views(
        panel.card, panel.facts, stage, deep, axis, position, begin, length, slopes, form, suffix,
        show, start, status, download, command, python,
    )  # fmt: skip
    return views, stop


def _wire_opening(studio: Studio, shelf: Shelf, panel: Panel, views: Views) -> Any:
    """Four ways to open a file, and a reload, whose event is returned."""
    import gradio as gr

    slow: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_limit": None,
        "show_progress_on": views.card,
    }

    async def dropped(owner: str, path: str | None) -> list[Any]:
        with told():
            found = await shelf.dropped(visitor(owner), path or "")
            return [None, None, None, *_opened(shelf, owner, found)]

    async def taken(owner: str, name: str | None) -> list[Any]:
        with told():
            found = await shelf.taken(visitor(owner), path_of(name or ""))
            return [None, *_opened(shelf, owner, found)]

    async def made(owner: str) -> list[Any]:
        with told():
            found = await shelf.made(visitor(owner))
            return [None, None, *_opened(shelf, owner, found)]

    async def beside(owner: str, path: str | None) -> list[Any]:
        with told():
            found = await shelf.beside(visitor(owner), path or "")
            return [None, *_opened(shelf, owner, found)]

    async def again(owner: str) -> list[Any]:
        # a new page has a token too, and nothing open
        if not shelf.has(owner):
            return [gr.skip() for _ in views.outputs]
        with told():
            return _opened(shelf, owner, await shelf.again(visitor(owner)))

    both = [panel.example, panel.original]
    panel.file.upload(
        dropped, [studio.owner, panel.file], [panel.file, *both, *views.outputs], **slow
    ).failure(lambda: None, None, panel.file, api_visibility="private")
    panel.example.input(
        taken, [studio.owner, panel.example], [panel.original, *views.outputs], **slow
    )
    panel.mine.click(made, studio.owner, [*both, *views.outputs], **slow)
    panel.original.upload(
        beside, [studio.owner, panel.original], [panel.original, *views.outputs], **slow
    ).failure(lambda: None, None, panel.original, api_visibility="private")
    return studio.owner.change(again, studio.owner, views.outputs, **slow)


def _opened(shelf: Shelf, owner: str, found: dict[str, Any]) -> list[Any]:
    """What `Views` shows of a file that was opened."""
    import gradio as gr

    opened = shelf.of(owner)
    slices = found["slices"]
    none: dict[str, Any] = {"name": None, "low": 0, "high": 0, "value": 0}
    first = slices[0] if slices else none
    curve = not slices
    beside = f"\n\nBeside {plain(opened.original['original_name'])}." if opened.original else ""
    form = {"entries": found["entries"], "given": {}, "errors": {}}
    commands = shelf.commands(owner, form, found["suffix"]) if found["suffix"] else ("", "")
    many = first["high"] > first["low"]
    return [
        f"**{plain(opened.name)}**: {plain(found['summary'])}{beside}",
        {"id": f"{opened.token}-facts", "sections": found["facts"]},
        {"id": opened.token, "sections": found["sections"]},
        gr.update(value=None if curve else zoom(opened, found), visible=not curve),
        gr.update(
            choices=[one["name"] for one in slices], value=first["name"], visible=len(slices) > 1
        ),
        gr.update(
            minimum=first["low"], maximum=max(first["high"], first["low"] + 1),
            value=first["value"], visible=many, label=_label(first["name"]),
        ),
        gr.update(value=None, visible=curve),
        gr.update(value=None, visible=curve),
        None,
        form,
        gr.update(choices=found["suffixes"], value=found["suffix"]),
        gr.update(interactive=True),
        gr.update(interactive=bool(found["suffixes"])),
        "",
        gr.update(value=None, interactive=False),
        *commands,
    ]  # fmt: skip


def _label(name: str | None) -> str:
    return f"Slice: {name}" if name else "Slice"


def _wire_looking(studio: Studio, shelf: Shelf, views: Views) -> None:
    """Slices and gradients."""
    import gradio as gr

    quiet: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_limit": None,
        "show_progress": "hidden",
    }

    async def turned(owner: str, name: str, position: float) -> list[Any]:
        with told():
            value = await shelf.slice(visitor(owner), name, position)
        opened = shelf.of(owner)
        one = next(one for one in opened.facts["slices"] if one["name"] == name)
        slider = gr.update(
            minimum=one["low"], maximum=max(one["high"], one["low"] + 1),
            value=opened.position, visible=one["high"] > one["low"], label=_label(name),
        )  # fmt: skip
        return [value, slider]

    async def moved(owner: str, name: str | None, position: float) -> Any:
        # the page tells of what it was told itself, too
        if not shelf.has(owner) or shelf.shows(owner, name, position):
            return gr.skip()
        with told():
            return await shelf.slice(visitor(owner), name, position)

    async def sloped(owner: str, begin: float | None, length: float | None) -> dict[str, Any]:
        with told():
            sections = await shelf.gradients(visitor(owner), begin, length)
            return {"id": f"{shelf.of(owner).token}-slopes", "sections": sections}

    given = [studio.owner, views.axis, views.position]
    views.axis.input(turned, given, [views.deep, views.position], **quiet)
    # not at its release alone, of which the keyboard knows nothing
    views.position.change(moved, given, views.deep, trigger_mode="always_last", **quiet)
    gr.on(
        [views.show.click, views.begin.submit, views.length.submit],
        sloped, [studio.owner, views.begin, views.length], views.slopes,
        api_visibility="private", concurrency_limit=None, show_progress_on=views.slopes,
    )  # fmt: skip


def _wire_rendering(
    studio: Studio, shelf: Shelf, views: Views, stop: gr.Button, reloaded: Any
) -> None:
    """Render, stop, download, and the commands that do the same."""
    import gradio as gr

    quiet: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_limit": None,
        "show_progress": "hidden",
    }

    async def start(owner: str, form: Any, suffix: str) -> AsyncIterator[list[Any]]:
        with told():
            token = visitor(owner)
            spec = shelf.rendering(token, form, suffix)
            yield ["Rendering …", gr.update(value=None, interactive=False), gr.skip()]
            job = await shelf.render(token, spec)
        async for update in _shown(studio, job):
            yield update

    async def again(owner: str) -> AsyncIterator[list[Any]]:
        job = latest(studio.service, owner, "decode")
        if job is None:
            yield [gr.skip(), gr.skip(), gr.skip()]
            return
        async for update in _shown(studio, job):
            yield update

    def stopped(owner: str) -> None:
        with told():
            for job in studio.service.jobs(visitor(owner), "decode"):
                if job.state in ALIVE:
                    studio.service.forget(job)

    def told_again(owner: str, form: Any, suffix: str | None) -> Any:
        if not suffix or not shelf.has(owner):
            return gr.skip(), gr.skip()
        try:
            return shelf.commands(visitor(owner), form, suffix)
        except InrError as error:
            return f"# {error}", f"# {error}"

    asked = [studio.owner, views.form, views.suffix]
    shown = [views.status, views.download, stop]
    views.start.click(start, asked, shown, **quiet).failure(
        lambda: "", None, views.status, api_visibility="private", show_progress="hidden"
    )
    stop.click(stopped, studio.owner, None, **quiet)
    reloaded.then(again, studio.owner, shown, **quiet)
    gr.on(
        [views.form.input, views.suffix.input],
        told_again, asked, [views.command, views.python], **quiet,
    )  # fmt: skip


async def _shown(studio: Studio, job: Job) -> AsyncIterator[list[Any]]:
    """News of a rendering, as status, download and the button Stop show it."""
    import gradio as gr

    no_file = gr.update(value=None, interactive=False)
    alive, over = gr.update(interactive=True), gr.update(interactive=False)
    before = ""
    async for news in followed(studio.service, job):
        status = said(news)
        if news.state == "done" and news.result is not None:
            path = news.folder / str(news.result["file"])
            yield [status, gr.update(value=str(path), interactive=True), over]
        elif status != before:
            yield [status, no_file, alive if news.state in ALIVE else over]
        before = status


def said(job: Job) -> str:
    """A line of Markdown on a rendering."""
    if job.state == "queued":
        return f"Waiting: {job.position} before it." if job.position > 0 else "Waiting: next."
    if job.state == "running":
        share = job.progress.get("progress")
        return "Rendering …" if share is None else f"Rendering … {100 * share:.0f} %"
    if job.state == "done" and job.result is not None:
        found = job.result
        return (
            f"**{plain(str(found['file']))}**: {plain(str(found['text']))}, "
            f"{found['bytes']:,} bytes, in {found['seconds']:.2f} s."
        )
    return f"Not rendered: {plain(job.error or 'it was stopped')}"
