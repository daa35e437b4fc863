"""Compare: several fields, or fields and other codecs, on one signal under one budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.studio import components, forms
from apps.studio.asked import blank
from apps.studio.buttons import LIVE, Buttons, pressable, row
from apps.studio.contest import (
    BUDGETS,
    CODEC,
    NOBODY,
    SLOTS,
    commands,
    contestants_for,
    spec_of,
    usual,
)
from apps.studio.picker import Picker, picker
from apps.studio.scores import curves, downloads, found_of, state
from apps.studio.service import Job
from apps.studio.spec import preset_of
from apps.studio.visitors import (
    Studio,
    asked_of,
    followed,
    frames_of,
    latest,
    told,
    visitor,
)
from apps.studio.words import said

if TYPE_CHECKING:
    import gradio as gr

HINT = (
    "Contestants run one after the other, each with the whole machine, and each for the same "
    "seconds or steps. Other codecs make the largest file that is not above the first field's."
)


@dataclass
class Slot:
    """The controls of one contestant."""

    what: gr.Dropdown
    preset: gr.Dropdown
    hyperparameters: gr.HTML
    recipe: gr.HTML
    settings: gr.Accordion

    @property
    def inputs(self) -> list[Any]:
        """What says who takes part."""
        return [self.what, self.preset, self.hyperparameters, self.recipe]

    @property
    def details(self) -> list[Any]:
        """What follows from `what`."""
        return [self.preset, self.hyperparameters, self.recipe, self.settings]


@dataclass
class Shown:
    """What shows a comparison, and what acts on it."""

    status: gr.HTML
    stage: gr.HTML
    chart: gr.HTML
    downloads: list[gr.DownloadButton]
    start: gr.Button
    pause: gr.Button
    resume: gr.Button
    stop: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """What news change."""
        return [
            self.status, self.stage, self.chart, *self.downloads,
            self.pause, self.resume, self.stop,
        ]  # fmt: skip


def build(studio: Studio) -> None:
    """Build the tab here."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            source = picker(studio, prefix="compare")
            gr.Markdown(HINT)
            with gr.Row():
                budget = gr.Radio(
                    list(BUDGETS), value="seconds each", label="Budget", elem_id="compare-budget"
                )
                amount = gr.Number(
                    BUDGETS["seconds each"], label="How much of it", minimum=0, precision=None,
                    elem_id="compare-amount",
                )  # fmt: skip
            slots = [_slot(i) for i in range(SLOTS)]
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="compare-seed")
        with gr.Column(scale=2, min_width=420):
            shown = _shown(studio)
            with gr.Accordion("The same from the command line", open=False):
                command = gr.Code(label="command line", language="shell", elem_id="compare-command")
    _wire_slots(source, slots, shown.start)
    budget.input(
        lambda name: BUDGETS[name], budget, amount,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    _wire_jobs(studio, source, slots, shown, (budget, amount, seed, command))


def _slot(i: int) -> Slot:
    import gradio as gr

    number = i + 1
    with gr.Group():
        what = gr.Dropdown(
            [("nobody", NOBODY)], value=NOBODY, label=f"Contestant {number}",
            elem_id=f"compare-what-{number}",
        )  # fmt: skip
        preset = gr.Dropdown(
            [], label=f"Preset of contestant {number}", elem_id=f"compare-preset-{number}",
            visible=False,
        )  # fmt: skip
        settings = gr.Accordion(
            f"Settings of contestant {number}", open=False, visible=False,
            elem_id=f"compare-settings-{number}",
        )  # fmt: skip
        with settings:
            hyperparameters = components.form(
                f"compare-hyperparameters-{number}", f"Hyperparameters of contestant {number}"
            )
            recipe = components.form(f"compare-recipe-{number}", f"Training of contestant {number}")
    return Slot(what, preset, hyperparameters, recipe, settings)


def _shown(studio: Studio) -> Shown:
    import gradio as gr

    start, pause, resume, stop = row("compare")
    status = gr.HTML(said("Choose a signal, then press Start."), elem_id="compare-status")
    chart = components.chart("compare-chart", "Quality of all contestants")
    stage = components.stage(
        "compare-stage", "Contestants beside each other", frames_of(studio.service)
    )
    with gr.Row():
        downloads = [
            gr.DownloadButton(
                f"Download {i + 1}", elem_id=f"compare-download-{i + 1}", interactive=False,
                visible=i == 0,
            )
            for i in range(SLOTS)
        ]  # fmt: skip
    return Shown(status, stage, chart, downloads, start, pause, resume, stop)


# --------------------------------------------------------------------------- contestants


def _wire_slots(source: Picker, slots: Sequence[Slot], start: gr.Button) -> None:
    """What follows from the choice of a signal, a contestant or a preset."""
    import gradio as gr

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def for_signal(chosen: dict[str, Any]) -> Any:
        if not chosen:
            return [gr.skip()] * (1 + 5 * SLOTS)
        kind = chosen["look"]["kind"]
        choices = contestants_for(kind)
        updates: list[Any] = []
        for what, preset in usual(kind, chosen["look"]["preset"]):
            rest = _about(kind, what, preset)
            updates += [gr.update(choices=choices, value=what), *rest]
        return [gr.update(interactive=True), *updates]

    def for_what(chosen: dict[str, Any], what: str) -> Any:
        return _about(_kind(chosen), what, None)

    def for_preset(chosen: dict[str, Any], what: str, preset: str | None) -> Any:
        return _about(_kind(chosen), what, preset)[1:3]

    every = [part for slot in slots for part in (slot.what, *slot.details)]
    source.chosen.change(for_signal, source.chosen, [start, *every], **quiet)
    for slot in slots:
        entries = [slot.hyperparameters, slot.recipe]
        slot.what.input(for_what, [source.chosen, slot.what], slot.details, **quiet)
        slot.preset.input(for_preset, [source.chosen, slot.what, slot.preset], entries, **quiet)


def _kind(chosen: Mapping[str, Any]) -> str:
    return str(chosen["look"]["kind"]) if chosen else "image"


def _about(kind: str, what: str, preset: str | None) -> list[Any]:
    """What the other controls of a slot show."""
    import gradio as gr

    if what == NOBODY or what.startswith(CODEC):
        hidden = gr.update(visible=False)
        return [gr.update(visible=False, choices=[], value=None), blank([]), blank([]), hidden]
    found = forms.presets_for(kind, what)
    chosen = preset if preset in found else next(iter(found), None)
    with told():
        base = preset_of({"field": what, "preset": chosen}, kind)
        return [
            gr.update(visible=bool(found), choices=found, value=chosen),
            blank(forms.field_entries(kind, base)),
            blank(forms.recipe_entries(base)),
            gr.update(visible=True),
        ]


# ---------------------------------------------------------------------------------- jobs


def _wire_jobs(
    studio: Studio, source: Picker, slots: Sequence[Slot], shown: Shown, more: Sequence[Any]
) -> None:
    """Connect the buttons."""
    budget, amount, seed, command = more
    outputs = [*shown.outputs, command]
    contests = Buttons(studio, "compare", _followed, len(outputs))
    each = len(slots[0].inputs)

    async def begin(
        owner: str, chosen: dict[str, Any], budget: str, amount: float, seed: int, *given: Any
    ) -> AsyncIterator[list[Any]]:
        with told():
            token = visitor(owner)
            parts = [given[k : k + each] for k in range(0, len(given), each)]
            spec = await asyncio.to_thread(spec_of, chosen, budget, amount, seed, parts)
            commands(spec)  # what cannot be told is not begun
        async for news in contests.begin(token, spec):
            yield news

    every = [part for slot in slots for part in slot.inputs]
    inputs = [studio.owner, source.chosen, budget, amount, seed, *every]
    shown.start.click(begin, inputs, outputs, **LIVE)
    shown.resume.click(contests.go_on, studio.owner, outputs, **LIVE)
    shown.stop.click(contests.end, studio.owner, outputs, **LIVE)
    shown.pause.click(contests.rest, studio.owner, None, **LIVE)
    studio.owner.change(contests.found_again, studio.owner, outputs, **LIVE)


async def _followed(studio: Studio, job: Job) -> AsyncIterator[list[Any]]:
    """What a job's news do to the page, while it is the visitor's latest."""
    import gradio as gr

    frame: Any = None
    progress: Any = None
    lines: Any = commands(job.spec)
    async for news in followed(studio.service, job):
        if latest(studio.service, job.owner, "compare") is not job:
            return
        changed: list[Any] = [gr.skip()] * (2 + SLOTS)
        if news.frame is not frame:
            frame = news.frame
            changed[0] = asked_of(news)
        so_far = found_of(news)
        if so_far is not progress:
            progress = so_far
            changed[1] = components.charted(curves(so_far))
            changed[2:] = [gr.update(**one) for one in downloads(so_far, str(news.folder), SLOTS)]
        yield [
            said(state(news), news.state),
            *changed,
            *pressable(news),
            lines,
        ]
        lines = gr.skip()
