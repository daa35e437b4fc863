"""Compress: a signal is dropped, and becomes a file of a size or a quality that is asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.studio import components, equivalent, forms
from apps.studio.asked import base_spec, blank, field_choices, given_of, whole
from apps.studio.buttons import LIVE, Buttons
from apps.studio.picker import Picker, picker
from apps.studio.searches import curves, outcome, state
from apps.studio.service import ALIVE, Job
from apps.studio.spec import preset_of
from apps.studio.visitors import Studio, asked_of, followed, frames_of, latest, told, visitor
from apps.studio.words import said
from inr import presets
from inr.errors import UsageError

if TYPE_CHECKING:
    import gradio as gr

SECONDS = 120.0
MOST_SECONDS = 3600.0

TARGETS = {
    "array": ("bytes", "bpp", "psnr"),
    "audio": ("kbps", "bytes", "psnr", "snr"),
    "image": ("bpp", "bytes", "psnr"),
    "shape": ("bytes", "psnr", "iou"),
    "video": ("kbps", "bpp", "bytes", "psnr"),
    "volume": ("bpp", "bytes", "psnr"),
}
"""By kind of signal, the targets that it has, the usual one first."""

WORDS = {
    "bytes": ("Size: bytes at most", "2000, 20k, 1.5M or 64Ki; the file never has more."),
    "bpp": ("Size: bits per pixel at most", "Of the whole file, over its pixels or samples."),
    "kbps": ("Size: kilobits per second at most", "Of the whole file, over its duration."),
    "psnr": ("Quality: PSNR at least, in dB", "Of what the file decodes to."),
    "snr": ("Quality: signal-to-noise ratio at least, in dB", "Of what the file decodes to."),
    "iou": ("Quality: intersection over union at least", "Between 0 and 1; of a solid."),
}
"""By target, what it is called, and a word on it."""

OFFERED = {"bpp": "1", "kbps": "32", "psnr": "32", "snr": "20", "iou": "0.98"}
"""What is in the box at first; of bytes it depends on the signal."""

BYTES_PER_SAMPLE = 0.12

EFFORTS = {
    1: ("in a hurry", 0.25, 1, 1, 0.0),
    2: ("quick", 0.5, 1, 1, 0.0),
    3: ("brisk", 0.75, 2, 1, 0.0),
    4: ("usual", 1.0, 2, 2, 0.0),
    5: ("careful", 1.5, 2, 2, 0.2),
    6: ("thorough", 2.0, 2, 2, 0.3),
    7: ("patient", 3.0, 3, 3, 0.3),
    8: ("stubborn", 5.0, 3, 3, 0.3),
    9: ("overnight", 10.0, 3, 4, 0.3),
}
"""By effort its name, and what `inr.rate.control.EFFORTS` has: that would load all of torch."""

SHORT_SHARE = 0.2


@dataclass
class Panel:
    """The controls of a search, in the order in which handlers take them."""

    target: gr.Dropdown
    value: gr.Textbox
    effort: gr.Slider
    seconds: gr.Number
    field: gr.Dropdown
    preset: gr.Dropdown
    hyperparameters: gr.HTML
    recipe: gr.HTML
    reading: gr.HTML
    seed: gr.Number


@dataclass
class Shown:
    """What shows a search, in the order in which news change it."""

    status: gr.HTML
    curve: gr.HTML
    stage: gr.HTML
    result: gr.Markdown
    download: gr.DownloadButton
    stop: gr.Button
    command: gr.Code
    python: gr.Code


def build(studio: Studio) -> None:
    """Build the tab here."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            source = picker(studio, prefix="compress")
            panel, estimate = _panel()
        with gr.Column(scale=2, min_width=420):
            start, shown = _shown(studio)
    _wire_panel(source, panel, estimate, start)
    _wire_jobs(studio, source, panel, start, shown)


def _panel() -> tuple[Panel, gr.Markdown]:
    import gradio as gr

    target = gr.Dropdown([], label="Target", elem_id="compress-target")
    value = gr.Textbox("", label="How much", elem_id="compress-value")
    effort = gr.Slider(1, 9, 4, step=1, label="Effort", elem_id="compress-effort")
    estimate = gr.Markdown(estimated(4, None), elem_id="compress-estimate")
    seconds = gr.Number(
        SECONDS, label="Seconds of fitting at most", minimum=0, elem_id="compress-seconds",
        info="The search ends then with what it has; coding comes on top.",
    )  # fmt: skip
    field = gr.Dropdown([], label="Field", elem_id="compress-field", info="What is fitted.")
    preset = gr.Dropdown(
        [], label="Preset", elem_id="compress-preset",
        info="Where the search begins: it makes the field larger and smaller, or weighs its rate.",
    )  # fmt: skip
    with gr.Accordion("Hyperparameters of the field", open=False):
        hyperparameters = components.form("compress-hyperparameters", "Hyperparameters")
    with gr.Accordion("How it is trained", open=False):
        recipe = components.form("compress-recipe", "Training")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="compress-seed")
    with gr.Accordion("How the file is read", open=False):
        reading = components.form("compress-reading", "Reading")
    panel = Panel(
        target, value, effort, seconds, field, preset, hyperparameters, recipe, reading, seed
    )  # fmt: skip
    return panel, estimate


def _shown(studio: Studio) -> tuple[gr.Button, Shown]:
    import gradio as gr

    with gr.Row():
        start = gr.Button("Start", variant="primary", elem_id="compress-start", interactive=False)
        stop = gr.Button("Stop", variant="stop", elem_id="compress-stop", interactive=False)
    status = gr.HTML(
        said("Choose a signal and a target, then press Start."), elem_id="compress-status"
    )
    with gr.Row():
        result = gr.Markdown("", elem_id="compress-result")
        download = gr.DownloadButton(
            "Download .inr", elem_id="compress-download", interactive=False
        )
    curve = components.stage("compress-curve", "Quality against bytes")
    stage = components.stage(
        "compress-stage", "The fit that runs, then the file", frames_of(studio.service)
    )
    with gr.Accordion("The same from the command line and from Python", open=False):
        command = gr.Code(label="command line", language="shell", elem_id="compress-command")
        python = gr.Code(label="Python", language="python", elem_id="compress-python")
    return start, Shown(status, curve, stage, result, download, stop, command, python)


# ------------------------------------------------------------------------------- the panel


def _wire_panel(source: Picker, panel: Panel, estimate: gr.Markdown, start: gr.Button) -> None:
    """What follows from the choice of a signal, a target, an effort, a field or a preset."""
    import gradio as gr

    def forms_of(chosen: Mapping[str, Any], field: str, preset: str | None, effort: int) -> Any:
        kind = chosen["look"]["kind"]
        with told():
            base = preset_of({"field": field, "preset": preset}, kind)
            return [
                blank(forms.field_entries(kind, base)),
                blank(forms.recipe_entries(base)),
                estimated(int(effort), base.recipe.steps),
            ]

    def for_signal(chosen: dict[str, Any], effort: int) -> Any:
        if not chosen:
            return [gr.skip()] * 9
        kind = chosen["look"]["kind"]
        suited = chosen["look"]["preset"] or presets.DEFAULTS[kind]
        field = presets.load(suited, kind).field
        first = TARGETS[kind][0]
        return [
            gr.update(choices=[(WORDS[name][0], name) for name in TARGETS[kind]], value=first),
            offered(chosen, first),
            gr.update(choices=field_choices(kind), value=field),
            gr.update(choices=forms.presets_for(kind, field), value=suited),
            blank(forms.reading_entries(kind)),
            gr.update(interactive=True),
            *forms_of(chosen, field, suited, effort),
        ]

    def for_target(chosen: dict[str, Any], target: str) -> Any:
        return offered(chosen, target) if chosen and target in WORDS else gr.skip()

    def for_field(chosen: dict[str, Any], field: str, effort: int) -> Any:
        if not chosen:
            return [gr.skip()] * 4
        found = forms.presets_for(chosen["look"]["kind"], field)
        preset = found[0] if found else None
        return [
            gr.update(choices=found, value=preset),
            *forms_of(chosen, field, preset, effort),
        ]

    def for_preset(chosen: dict[str, Any], field: str, preset: str | None, effort: int) -> Any:
        return forms_of(chosen, field, preset, effort) if chosen else [gr.skip()] * 3

    def for_effort(
        chosen: dict[str, Any], field: str, preset: str | None, recipe: Any, effort: int
    ) -> str:
        if not chosen:
            return estimated(int(effort), None)
        with told():
            base = preset_of({"field": field, "preset": preset}, chosen["look"]["kind"])
            given = given_of(forms.recipe_entries(base), recipe)
        return estimated(int(effort), int(given.get("steps", base.recipe.steps)))

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [panel.hyperparameters, panel.recipe, estimate]
    source.chosen.change(
        for_signal,
        [source.chosen, panel.effort],
        [panel.target, panel.value, panel.field, panel.preset, panel.reading, start, *outputs],
        **quiet,
    )
    panel.target.input(for_target, [source.chosen, panel.target], panel.value, **quiet)
    panel.field.input(
        for_field, [source.chosen, panel.field, panel.effort], [panel.preset, *outputs], **quiet
    )
    panel.preset.input(
        for_preset, [source.chosen, panel.field, panel.preset, panel.effort], outputs, **quiet
    )
    panel.effort.change(
        for_effort,
        [source.chosen, panel.field, panel.preset, panel.recipe, panel.effort],
        estimate,
        **quiet,
    )


def offered(chosen: Mapping[str, Any], target: str) -> Any:
    """What the box for a target's value holds at first."""
    import gradio as gr

    look = chosen["look"]
    value = OFFERED.get(target, "20000")
    if target == "bytes" and look["kind"] != "shape":
        count = BYTES_PER_SAMPLE * math.prod(look["shape"]) * look["channels"]
        value = f"{max(1000.0, float(f'{count:.1e}')):.0f}"
    return gr.update(value=value, info=WORDS[target][1])


def estimated(effort: int, steps: int | None) -> str:
    """What an effort comes to, in words.

    Args:
        effort: 1 to 9.
        steps: Of the preset, if it is known.
    """
    name, factor, short, full, polish = EFFORTS[effort]
    share = _work(effort) / _work(4)
    whole = f"{max(1, round(factor * steps)):,}" if steps else f"{factor:g} times the preset's"
    parts = [
        f"{short} short fit{'s' * (short > 1)} to find the place",
        f"{'up to ' * (full > 1)}{full} of {whole} steps",
    ]
    if polish:
        parts.append(f"{100 * polish:.0f} % of these again with the parameters rounded")
    much = "" if effort == 4 else f" About {_times(share)} the work of effort 4."
    return (
        f"**{name}**: {', then '.join(parts)}; more where these miss the target.{much} How long "
        "that takes is told once the first fit runs."
    )


def _work(effort: int) -> float:
    _, factor, short, full, polish = EFFORTS[effort]
    return factor * (SHORT_SHARE * short + full + polish)


def _times(share: float) -> str:
    return f"{share:.0%} of" if share < 1 else f"{share:.2g} times"


def spec_of(chosen: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a search from what the panel's controls hold, by their names in `Panel`.

    Raises:
        UsageError: something is missing, or wrong.
    """
    spec, _ = base_spec(chosen, values)
    kind = spec["kind"]
    target = values["target"]
    if target not in TARGETS[kind]:
        raise UsageError(f"the target is {target!r}: choose from {', '.join(TARGETS[kind])}")
    spec["target"] = {target: amount(target, values["value"])}
    spec["effort"] = whole("effort", values["effort"], 1, 9)
    spec["seed"] = whole("seed", values["seed"], 0, 2**63 - 1)
    seconds = values["seconds"]
    if not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise UsageError(f"seconds is {seconds!r}: give a number above 0, up to {MOST_SECONDS:g}")
    spec["seconds"] = float(seconds)
    return spec


def amount(target: str, text: Any) -> float:
    """The value of a target as somebody typed it.

    Raises:
        UsageError: it is none.
    """
    from apps.cli.compress import size_of
    from inr.rate.targets import RANGES

    said = str(text).strip()[:40]
    low, high, allowed = RANGES[target]
    try:
        value = size_of(said) if target == "bytes" else float(said)
    except (UsageError, ValueError):
        value = math.nan
    if not low < value < high:
        example = " such as 2000, 20k or 64Ki" if target == "bytes" else ""
        raise UsageError(f"{WORDS[target][0]}: {said!r} is none: give {allowed}{example}")
    return int(value) if value == int(value) else value


# ---------------------------------------------------------------------------------- the job


def _wire_jobs(
    studio: Studio, source: Picker, panel: Panel, start: gr.Button, shown: Shown
) -> None:
    """Connect the buttons."""
    names = list(vars(panel))
    outputs = list(vars(shown).values())
    searches = Buttons(studio, "compress", _followed, len(outputs))

    async def begin(owner: str, chosen: dict[str, Any], *given: Any) -> AsyncIterator[list[Any]]:
        with told():
            token = visitor(owner)
            values = dict(zip(names, given, strict=True))
            spec = await asyncio.to_thread(spec_of, chosen, values)
            equivalents(spec)  # what cannot be told is not begun
        async for news in searches.begin(token, spec):
            yield news

    start.click(begin, [studio.owner, source.chosen, *vars(panel).values()], outputs, **LIVE)
    shown.stop.click(searches.end, studio.owner, outputs, **LIVE)
    studio.owner.change(searches.found_again, studio.owner, outputs, **LIVE)


def equivalents(spec: Mapping[str, Any]) -> list[str]:
    """The command line and the Python that do the same."""
    kind = spec["kind"]
    flat = {key: value for key, value in spec.items() if key != "target"} | spec["target"]
    return [make(flat, "compress", kind) for make in (equivalent.command, equivalent.python)]


async def _followed(studio: Studio, job: Job) -> AsyncIterator[list[Any]]:
    """What a job's news do to the page, while it is the visitor's latest."""
    import gradio as gr

    frame: Any = None
    drawn: Any = None
    code: list[Any] = equivalents(job.spec)
    async for news in followed(studio.service, job):
        if latest(studio.service, job.owner, "compress") is not job:
            return
        curve = stage = gr.skip()
        event = news.events[-1] if news.events else None
        if (event, news.result) != drawn:
            drawn = event, news.result
            curve = {"id": news.id, "sections": curves(news)}
        if news.frame is not frame:
            frame = news.frame
            stage = asked_of(news)
        result, download = "", gr.update(interactive=False)
        if news.state == "done" and news.result is not None:
            result = outcome(news.result)
            path = str(news.folder / news.result["file"])
            download = gr.update(value=path, interactive=True)
        running = gr.update(interactive=news.state in ALIVE)
        yield [said(state(news), news.state), curve, stage, result, download, running, *code]
        code = [gr.skip(), gr.skip()]
