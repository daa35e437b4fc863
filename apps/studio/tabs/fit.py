"""Fit: a signal is dropped, a field is fitted to it while one watches, its file is taken away."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.studio import components, equivalent, forms
from apps.studio.asked import AS_IS, blank, field_choices, spec_of
from apps.studio.buttons import LIVE, Buttons, pressable, row
from apps.studio.picker import Picker, picker
from apps.studio.service import Job
from apps.studio.spec import preset_of
from apps.studio.visitors import (
    Studio,
    asked_of,
    followed,
    frames_of,
    latest,
    told,
    unchanged,
    visitor,
)
from apps.studio.words import curve, outcome, said, state
from inr import presets
from inr.errors import UsageError
from inr.operators import OPERATORS

if TYPE_CHECKING:
    import gradio as gr

SECONDS = 15.0
"""Budget of a fit, if nothing else is asked."""

DECODE_SECONDS = 300.0

SPINNING = {"show_progress": "full"}
LATEST = {"trigger_mode": "always_last"}

BUDGETS = {"seconds": SECONDS, "steps": 1000, "PSNR in dB": 35}
"""What a budget is counted in, and how much of it is offered."""

SEEN = ("array", "image", "volume")
"""Kinds of signals that operators may have been at."""

LOOKS = {
    "start": "Where the stretch begins, in seconds",
    "frame": "Frame",
    "level": "Level of the surface",
    "resolution": "Cells per axis of the surface",
    "slices[0]": "Slice across the first axis",
    "slices[1]": "Slice across the second axis",
    "slices[2]": "Slice across the third axis",
}
"""Live controls of all kinds of signals, and what they are called."""

FORMATS = {
    "array": (".npz", ".npy"),
    "audio": (".wav", ".flac"),
    "image": (".png", ".tif"),
    "shape": (".glb", ".ply", ".obj", ".stl"),
    "video": (".mp4", ".gif", ".npz"),
    "volume": (".nii.gz", ".tif"),
}
"""What a finished file is decoded to, the usual one first."""


@dataclass
class Panel:
    """The controls that say what is fitted, in the order in which handlers take them."""

    field: gr.Dropdown
    preset: gr.Dropdown
    budget: gr.Radio
    amount: gr.Number
    operator: gr.Dropdown
    simulate: gr.Checkbox
    observed: gr.HTML
    mask: gr.HTML
    hyperparameters: gr.HTML
    recipe: gr.HTML
    reading: gr.HTML
    seed: gr.Number
    effort: gr.Slider


@dataclass
class Stage:
    """What shows a job, and what acts on it."""

    status: gr.HTML
    stage: gr.HTML
    chart: gr.HTML
    result: gr.Markdown
    download: gr.DownloadButton
    suffix: gr.Dropdown
    convert: gr.Button
    converted: gr.DownloadButton
    start: gr.Button
    pause: gr.Button
    resume: gr.Button
    stop: gr.Button
    share: gr.Slider
    looks: dict[str, gr.Slider]

    @property
    def outputs(self) -> list[Any]:
        """What news change."""
        return [
            self.status, self.stage, self.chart, self.result, self.download, self.suffix,
            self.convert, self.pause, self.resume, self.stop,
        ]  # fmt: skip


def build(studio: Studio) -> None:
    """Build the tab here."""
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            source = picker(studio, prefix="fit")
            panel = _panel()
        with gr.Column(scale=2, min_width=420):
            shown = _stage(studio)
            with gr.Accordion("The same from the command line and from Python", open=False):
                command = gr.Code(label="command line", language="shell", elem_id="fit-command")
                python = gr.Code(label="Python", language="python", elem_id="fit-python")
                mask = gr.DownloadButton("Download the mask", visible=False, elem_id="fit-painted")
    _wire_panel(source, panel, shown.start, shown.looks)
    _wire_jobs(studio, source, panel, shown, (command, python, mask))


def _panel() -> Panel:
    import gradio as gr

    field = gr.Dropdown([], label="Field", elem_id="fit-field", info="What is fitted.")
    preset = gr.Dropdown([], label="Preset", elem_id="fit-preset", info="How large, how trained.")
    with gr.Row():
        budget = gr.Radio(list(BUDGETS), value="seconds", label="Until", elem_id="fit-budget")
        amount = gr.Number(
            SECONDS, label="How much of it", minimum=0, elem_id="fit-amount", precision=None
        )
    with gr.Accordion("What the file is an observation of", open=False):
        operator = gr.Dropdown(
            [AS_IS], value=AS_IS, label="Operator", elem_id="fit-operator",
            info="Denoising, inpainting, super-resolution, tomography and more: the fit sees the "
            "signal through it.",
        )  # fmt: skip
        simulate = gr.Checkbox(
            False, label="Make the observations of the file itself", elem_id="fit-simulate",
            info="For trying out: the truth is then known, and the result is compared with it.",
        )  # fmt: skip
        mask = components.paint("fit-mask", "What is unknown")
        observed = components.form("fit-observed", "Options of the operator")
    with gr.Accordion("Hyperparameters of the field", open=False):
        hyperparameters = components.form("fit-hyperparameters", "Hyperparameters")
    with gr.Accordion("How it is trained", open=False):
        recipe = components.form("fit-recipe", "Training")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="fit-seed")
    with gr.Accordion("How the file is read and written", open=False):
        reading = components.form("fit-reading", "Reading")
        effort = gr.Slider(
            1, 9, 4, step=1, label="Effort of coding", elem_id="fit-effort",
            info="Higher takes longer and makes smaller files.",
        )  # fmt: skip
    return Panel(
        field, preset, budget, amount, operator, simulate, observed, mask, hyperparameters,
        recipe, reading, seed, effort,
    )  # fmt: skip


def _stage(studio: Studio) -> Stage:
    import gradio as gr

    start, pause, resume, stop = row("fit")
    status = gr.HTML(said("Choose a signal, then press Start."), elem_id="fit-status")
    stage = components.stage("fit-stage", "The field, as it is now", frames_of(studio.service))
    chart = components.chart("fit-chart", "Quality over time")
    with gr.Row():
        result = gr.Markdown("", elem_id="fit-result")
        download = gr.DownloadButton("Download .inr", elem_id="fit-download", interactive=False)
    with gr.Row():
        suffix = gr.Dropdown([], label="Decoded, as", elem_id="fit-suffix", interactive=True)
        convert = gr.Button("Decode", elem_id="fit-convert", interactive=False)
        converted = gr.DownloadButton("Download", elem_id="fit-converted", interactive=False)
    share = gr.Slider(
        0.02, 0.8, 0.2, step=0.02, label="Part of the time for the preview", elem_id="fit-share",
        info="More of it: larger pictures, more often; the fit takes longer.",
    )  # fmt: skip
    looks = _looks()
    return Stage(
        status, stage, chart, result, download, suffix, convert, converted, start, pause, resume,
        stop, share, looks,
    )  # fmt: skip


def _looks() -> dict[str, gr.Slider]:
    import gradio as gr

    with gr.Row():
        return {
            name: gr.Slider(0, 1, 0, label=label, visible=False, elem_id=f"fit-look-{i}")
            for i, (name, label) in enumerate(LOOKS.items())
        }


# ------------------------------------------------------------------------------- the panel


def _wire_panel(
    source: Picker, panel: Panel, start: gr.Button, looks: Mapping[str, gr.Slider]
) -> None:
    """What follows from the choice of a signal, a field, a preset or an operator."""
    import gradio as gr

    def kind_of(chosen: Mapping[str, Any]) -> str:
        return str(chosen["look"]["kind"]) if chosen else "image"

    def forms_of(kind: str, field: str, preset: str | None) -> list[dict[str, Any]]:
        with told():
            base = preset_of({"field": field, "preset": preset}, kind)
            return [blank(forms.field_entries(kind, base)), blank(forms.recipe_entries(base))]

    def for_signal(chosen: dict[str, Any]) -> Any:
        if not chosen:
            return [gr.skip()] * (8 + len(looks))
        kind = kind_of(chosen)
        suited = chosen["look"]["preset"] or presets.DEFAULTS[kind]
        name = presets.load(suited, kind).field
        operators = [AS_IS, *OPERATORS] if kind in SEEN else [AS_IS]
        return [
            gr.update(choices=field_choices(kind), value=name),
            gr.update(choices=forms.presets_for(kind, name), value=suited),
            gr.update(choices=operators, value=AS_IS),
            blank(forms.reading_entries(kind)),
            gr.update(interactive=True),
            canvas(chosen),
            *forms_of(kind, name, suited),
            *(control(name, chosen["look"]["controls"]) for name in looks),
        ]

    def for_field(chosen: dict[str, Any], name: str) -> Any:
        found = forms.presets_for(kind_of(chosen), name)
        preset = found[0] if found else None
        return [gr.update(choices=found, value=preset), *forms_of(kind_of(chosen), name, preset)]

    def for_operator(chosen: dict[str, Any], name: str) -> Any:
        kind = kind_of(chosen)
        suited = f"{kind}/{name}"
        if suited not in presets.names():
            suited = (chosen["look"]["preset"] if chosen else None) or presets.DEFAULTS[kind]
        field = presets.load(suited, kind).field
        return [
            blank([] if name == AS_IS else forms.operator_entries(name)),
            gr.update(visible=name == "inpaint"),
            gr.update(visible=name != AS_IS),
            gr.update(value=field),
            gr.update(choices=forms.presets_for(kind, field), value=suited),
            *forms_of(kind, field, suited),
        ]

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    entries = [panel.hyperparameters, panel.recipe]
    source.chosen.change(
        for_signal,
        source.chosen,
        [
            *(panel.field, panel.preset, panel.operator, panel.reading, start, panel.mask),
            *entries,
            *looks.values(),
        ],
        **quiet,
    )
    panel.field.input(for_field, [source.chosen, panel.field], [panel.preset, *entries], **quiet)
    panel.preset.input(
        lambda chosen, field, preset: forms_of(kind_of(chosen), field, preset),
        [source.chosen, panel.field, panel.preset],
        entries,
        **quiet,
    )
    panel.operator.input(
        for_operator,
        [source.chosen, panel.operator],
        [panel.observed, panel.mask, panel.simulate, panel.field, panel.preset, *entries],
        **quiet,
    )
    panel.budget.input(lambda name: BUDGETS[name], panel.budget, panel.amount, **quiet)


def control(name: str, known: Mapping[str, list[float]]) -> dict[str, Any]:
    """A live control as a signal's view has it, which may be not at all."""
    import gradio as gr

    if name not in known:
        return gr.update(visible=False)
    # of few digits: they are written beside it
    low, high, usual = (float(f"{value:.4g}") for value in known[name])
    whole = all(value == int(value) for value in (low, high, usual))
    step = 1 if whole else (high - low) / 200
    return gr.update(visible=True, minimum=low, maximum=high, value=usual, step=step)


def canvas(chosen: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a mask is painted on."""
    look = chosen["look"]
    if look["picture"] is None:
        return None
    return {
        "id": chosen["source"][-24:],
        "picture": look["picture"],
        "size": look["shape"][:2],
        "mask": None,
    }


# ---------------------------------------------------------------------------------- the job


class _Fits(Buttons):
    """The buttons of this tab: they also show a fit otherwise, and decode its file."""

    async def convert(self, owner: str, suffix: str) -> Any:
        """Decode the finished file into another format."""
        import gradio as gr

        with told():
            job = self.latest(owner)
            if job is None or job.state != "done" or job.result is None:
                raise UsageError("there is no finished file: fit one first")
            if suffix not in FORMATS[job.result["kind"]]:
                raise UsageError("this is no format of it: choose one")
            name = job.result["file"]
            spec = {"source": str(job.folder / name), "name": name, "suffix": suffix}
            spec["folder"] = str(job.folder)
            made = await self.service.call(job.owner, "decode", spec, DECODE_SECONDS)
        return gr.update(
            value=str(job.folder / made["file"]), label=f"Download {suffix}", interactive=True
        )

    def looked(self, name: str) -> Callable[[str, float], None]:
        """What a live control does."""

        def tell(owner: str, value: float) -> None:
            with told():
                job = self.latest(owner)
                if job is not None:
                    self.service.look(job, look_of(job.look, name, value))

        return tell


def equivalents(spec: Mapping[str, Any]) -> list[Any]:
    """The command line and the Python that do the same, and the mask that they name."""
    kind = spec["kind"]
    lines = [make(spec, found=kind) for make in (equivalent.command, equivalent.python)]
    return [*lines, mask_file(spec)]


def mask_file(spec: Mapping[str, Any]) -> Any:
    """The mask of a spec under the name that the command has, to download."""
    import gradio as gr

    given = (spec.get("operator") or {}).get("mask")
    if given is None:
        return gr.update(visible=False)
    named = Path(given).with_suffix("") / equivalent.mask_name(spec["name"])
    named.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(given, named)
    return gr.update(visible=True, value=str(named))


def look_of(look: Mapping[str, Any], name: str, value: float) -> dict[str, Any]:
    """What a control changes of what a job is looked at by; slices are one list there."""
    found = re.fullmatch(r"slices\[(\d)\]", name)
    if found is None:
        return {name: value}
    slices = list(look.get("slices") or [None] * 3)
    slices[int(found[1])] = value
    return {"slices": slices}


def _wire_jobs(
    studio: Studio, source: Picker, panel: Panel, shown: Stage, code: Sequence[Any]
) -> None:
    """Connect the buttons."""
    names = list(vars(panel))
    outputs = [*shown.outputs, *code]
    fits = _Fits(studio, "fit", _shown, len(outputs))

    async def begin(
        owner: str, chosen: dict[str, Any], share: float, *given: Any
    ) -> AsyncIterator[list[Any]]:
        with told():
            token = visitor(owner)
            values = dict(zip(names, given, strict=True))
            spec = await asyncio.to_thread(spec_of, studio, token, chosen, values)
            equivalents(spec)  # what cannot be told is not begun
        async for news in fits.begin(token, spec, {"share": share}):
            yield news

    inputs = [studio.owner, source.chosen, shown.share, *vars(panel).values()]
    shown.start.click(begin, inputs, outputs, **LIVE)
    shown.resume.click(fits.go_on, studio.owner, outputs, **LIVE)
    shown.stop.click(fits.end, studio.owner, outputs, **LIVE)
    shown.pause.click(fits.rest, studio.owner, None, **LIVE)
    studio.owner.change(fits.found_again, studio.owner, outputs, **LIVE)
    shown.convert.click(
        fits.convert, [studio.owner, shown.suffix], shown.converted, **LIVE | SPINNING
    )
    for name, control in {"share": shown.share, **shown.looks}.items():
        control.input(fits.looked(name), [studio.owner, control], None, **LIVE | LATEST)


async def _shown(studio: Studio, job: Job) -> AsyncIterator[list[Any]]:
    """What a job's news do to the page, while it is the visitor's latest."""
    import gradio as gr

    frame: Any = None
    points = -1
    code = equivalents(job.spec)
    async for news in followed(studio.service, job):
        if latest(studio.service, job.owner, "fit") is not job:
            return
        off = gr.update(interactive=False)
        changed = [gr.skip(), gr.skip(), gr.skip(), off, gr.skip(), off]
        if news.frame is not frame:
            frame = news.frame
            changed[0] = asked_of(news)
        if len(news.history) != points:
            points = len(news.history)
            changed[1] = curve(news)
        if news.state == "done" and news.result is not None:
            changed[2] = outcome(news.result)
            path = str(news.folder / news.result["file"])
            changed[3] = gr.update(value=path, interactive=True)
            formats = FORMATS[news.result["kind"]]
            changed[4] = gr.update(choices=list(formats), value=formats[0])
            changed[5] = gr.update(interactive=True)
        yield [
            said(state(news), news.state),
            *changed,
            *pressable(news),
            *code,
        ]
        code = unchanged(len(code))
