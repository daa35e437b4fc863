"""What programs may call: fit, compress, decode and info, by `gradio_client`, curl or MCP.

Everything else on the page is private. A call is a visitor of its own, whose files are deleted when
its answer has been given.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.voice import explained
from apps.studio.gate import FILE, discard
from apps.studio.service import Job
from apps.studio.visitors import Studio, adopt, followed, told
from inr.errors import InputError, InrError, TargetNotReached, UsageError

if TYPE_CHECKING:
    import gradio as gr

MOST_SECONDS = 600.0
"""Of a fit, and of all fits of a search."""

MOST_STEPS = 1_000_000
SHORT_SECONDS = 60.0
"""What reading a file's facts or rendering it may take."""

TEXT_LENGTH = 200
ELSEWHERE = "nothing is fetched from elsewhere: upload the file"

NAMES = ("fit", "compress", "decode", "info")

KEPT = (
    *("bytes", "psnr", "metrics", "density", "target", "reached", "ended", "steps", "seconds"),
    *("fits", "kind", "device", "backend", "why", "warnings"),
)
"""What a caller is told of a job's result."""


class Guest:
    """Whoever makes one call.

    Args:
        studio: The studio.
        owner: The call's own token.
    """

    def __init__(self, studio: Studio, owner: str) -> None:
        self.studio = studio
        self.owner = owner
        self._name = ""
        self._uploaded = Path()

    def take(self, given: Any) -> dict[str, Any]:
        """The file of a call, as a spec has it.

        Args:
            given: What Gradio makes of an uploaded file: {"path": text, ...}.

        Raises:
            InputError: it was not uploaded here.
        """
        path = given.get("path") if isinstance(given, Mapping) else None
        if not isinstance(path, str) or not path or len(path) > 4096:
            raise InputError("no file was given: upload one, say with gradio_client.handle_file")
        source, name = adopt(self.studio, self.owner, path)
        self._name, self._uploaded = name, Path(path)
        return {"source": str(source), "name": name}

    async def short(self, task: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Run a short task; a file that it cannot read is not kept.

        Raises:
            InrError: as the task.
        """
        try:
            return await self.studio.service.call(self.owner, task, spec, SHORT_SECONDS)
        except InputError as error:
            discard(self.studio.uploads, self._uploaded)
            raise explained(error, self._name) from None

    async def long(self, task: str, spec: Mapping[str, Any]) -> AsyncIterator[Job]:
        """Run a task that fits, and tell how it goes; the last news is its end.

        Raises:
            InrError: as the task.
        """
        service = self.studio.service
        await self.short("look", {key: spec[key] for key in ("source", "name")})
        job = service.submit(self.owner, task, spec)
        async for news in followed(service, job):
            yield news
        if job.result is None or job.state != "done":
            kinds = {kind.__name__: kind for kind in (UsageError, InputError, TargetNotReached)}
            raise kinds.get(job.error_kind, InrError)(job.error or "it was ended")


@contextlib.contextmanager
def guest(studio: Studio) -> Iterator[Guest]:
    """A visitor for one call, who leaves nothing behind."""
    owner = secrets.token_urlsafe(24)
    service = studio.service
    with service.present(owner):
        try:
            yield Guest(studio, owner)
        finally:
            for job in service.jobs(owner):
                service.forget(job)
            shutil.rmtree(service.folder(owner), ignore_errors=True)


def build(studio: Studio) -> None:
    """Add the four functions to the page, with components that nobody sees."""
    import gradio as gr

    functions = [_fit(studio), _compress(studio), _decode(studio), _info(studio)]
    for name, (function, inputs, outputs) in zip(NAMES, functions, strict=True):
        trigger = gr.Button(name, visible=False)
        trigger.click(
            function,
            inputs,
            outputs,
            api_name=name,
            api_visibility="public",
            preprocess=False,  # it checks less than is checked here
            concurrency_limit=None,
            show_progress="hidden",
        )


def _fit(studio: Studio) -> tuple[Any, list[gr.Component], list[gr.Component]]:
    import gradio as gr

    async def fit(
        file: dict[str, Any],
        field: str = "",
        seconds: float = 10.0,
        steps: int = 0,
        psnr: float = 0.0,
        seed: int = 0,
    ) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """Fit an implicit neural field to a picture, sound, clip, volume or shape, and store it.

        The fit ends at the first of its bounds. While it lasts its facts are its progress.

        Args:
            file: The signal: PNG, JPEG, WAV, FLAC, MP4, NIfTI, OBJ, PLY, GLB, NPY and others.
            field: Name of the field, such as "siren" or "grid"; empty for what suits the signal.
            seconds: Seconds of fitting at most, up to 600.
            steps: Optimiser steps at most; 0 for no such bound.
            psnr: Quality in dB at which to stop; 0 for no such bound.
            seed: Seed of the initialisation and of batches.

        Returns:
            The .inr file, and facts: bytes, psnr of the decoded file in dB (null where it is
            exact), steps, seconds, what ended it, device.
        """
        with told(), guest(studio) as caller:
            spec = {
                "field": text_of("field", field),
                "seconds": number_of("seconds", seconds, 0.01, MOST_SECONDS) or MOST_SECONDS,
                "steps": whole_of("steps", steps, 1, MOST_STEPS),
                "psnr": number_of("psnr", psnr, 0.0, 200.0),
                "seed": whole_of("seed", seed, 0, (1 << 31) - 1) or 0,
            }
            async for answer in answers(caller, "fit", caller.take(file) | spec):
                yield answer

    inputs: list[gr.Component] = [
        _source("the signal"),
        gr.Textbox("", visible=False, label="name of the field; empty for what suits"),
        gr.Number(10.0, visible=False, label="seconds of fitting at most"),
        gr.Number(0, precision=0, visible=False, label="optimiser steps at most; 0: no bound"),
        gr.Number(0.0, visible=False, label="quality in dB at which to stop; 0: no bound"),
        gr.Number(0, precision=0, visible=False, label="seed"),
    ]
    return fit, inputs, _stored()


def _compress(studio: Studio) -> tuple[Any, list[gr.Component], list[gr.Component]]:
    import gradio as gr

    async def compress(
        file: dict[str, Any],
        bytes: int = 0,
        bpp: float = 0.0,
        psnr: float = 0.0,
        effort: int = 4,
    ) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """Make an .inr file of a size that it never exceeds, or of a quality at least.

        Give one target. Where it cannot be reached the file is the best that was found, and the
        facts say so.

        Args:
            file: The signal: PNG, JPEG, WAV, FLAC, MP4, NIfTI, OBJ, PLY, GLB, NPY and others.
            bytes: Size of the file at most.
            bpp: Bits per pixel, voxel or other sample at most.
            psnr: PSNR of the decoded file at least, in dB.
            effort: 1 to 9: how long to search and train; 10 minutes in any case.

        Returns:
            The .inr file, and facts: bytes, psnr of the decoded file in dB, target, reached.
        """
        with told(), guest(studio) as caller:
            given = {
                "bytes": number_of("bytes", bytes, 1, 1 << 30),
                "bpp": number_of("bpp", bpp, 0.0, 1e4),
                "psnr": number_of("psnr", psnr, 0.0, 200.0),
            }
            target: dict[str, Any] = {k: value for k, value in given.items() if value is not None}
            if len(target) != 1:
                raise UsageError(f"{len(target)} targets: give one of bytes, bpp and psnr")
            search = {
                "target": target,
                "effort": whole_of("effort", effort, 1, 9) or 4,
                "seconds": MOST_SECONDS,
            }
            async for answer in answers(caller, "compress", caller.take(file) | search):
                yield answer

    inputs: list[gr.Component] = [
        _source("the signal"),
        gr.Number(0, precision=0, visible=False, label="size of the file at most, in bytes"),
        gr.Number(0.0, visible=False, label="bits per sample at most"),
        gr.Number(0.0, visible=False, label="PSNR at least, in dB"),
        gr.Number(4, precision=0, visible=False, label="effort, 1 to 9"),
    ]
    return compress, inputs, _stored()


def _decode(studio: Studio) -> tuple[Any, list[gr.Component], list[gr.Component]]:
    import gradio as gr

    async def decode(
        file: dict[str, Any],
        scale: float = 0.0,
        size: str = "",
        crop: str = "",
        rate: int = 0,
        fps: float = 0.0,
        resolution: int = 0,
        suffix: str = "",
    ) -> AsyncIterator[str]:
        """Render an .inr file, at the size of its source or any other.

        Args:
            file: The .inr file.
            scale: Of pictures and others on a lattice: factor on the source's size; 0: its own.
            size: Of pictures and clips: WIDTHxHEIGHT in pixels, instead of a scale.
            crop: Of pictures: X,Y,WIDTH,HEIGHT in pixels of the source.
            rate: Of sound: samples per second; 0: the source's own.
            fps: Of clips: frames per second; 0: the source's own.
            resolution: Of shapes: cells along the longest side; 0: what suits.
            suffix: The format, such as ".png", ".wav" or ".glb"; empty for what suits.

        Returns:
            The rendered file.
        """
        with told(), guest(studio) as caller:
            options = {
                "scale": number_of("scale", scale, 0.0, 1e6),
                "size": text_of("size", size),
                "crop": text_of("crop", crop),
                "rate": whole_of("rate", rate, 1, 1 << 24),
                "fps": number_of("fps", fps, 0.0, 1e4),
                "resolution": whole_of("resolution", resolution, 2, 4096),
            }
            spec = caller.take(file) | {
                "options": {name: value for name, value in options.items() if value is not None},
                "suffix": text_of("suffix", suffix),
            }
            yield str(await rendered(caller, spec))  # which is deleted after it was taken

    inputs: list[gr.Component] = [
        _source("the .inr file"),
        gr.Number(0.0, visible=False, label="factor on the size of the source; 0: its own size"),
        gr.Textbox("", visible=False, label="WIDTHxHEIGHT in pixels"),
        gr.Textbox("", visible=False, label="X,Y,WIDTH,HEIGHT in pixels of the source"),
        gr.Number(0, precision=0, visible=False, label="samples of sound per second"),
        gr.Number(0.0, visible=False, label="frames per second"),
        gr.Number(0, precision=0, visible=False, label="cells of a shape"),
        gr.Textbox("", visible=False, label="the format, such as .png; empty for what suits"),
    ]
    return decode, inputs, [gr.File(visible=False, label="the rendered file")]


def _info(studio: Studio) -> tuple[Any, list[gr.Component], list[gr.Component]]:
    import gradio as gr

    async def info(file: dict[str, Any]) -> dict[str, Any]:
        """Tell what an .inr file holds, without rendering it.

        Args:
            file: The .inr file.

        Returns:
            Facts: bytes, kind, size, field, hyperparameters, stated psnr in dB, chunks, metadata.
        """
        with told(), guest(studio) as caller:
            return await caller.short("info", caller.take(file))

    inputs: list[gr.Component] = [_source("the .inr file")]
    return info, inputs, [gr.JSON(visible=False, label="facts")]


def _source(label: str) -> gr.File:
    """A file of a call: one that was uploaded, or that another call answered with.

    Gradio would fetch it from any URL.
    """
    import gradio as gr

    source = gr.File(visible=False, label=label)

    async def own(path: str) -> str:
        found = path
        if "://" in path:
            _, marked, found = path.partition(FILE)
            found = urllib.parse.unquote(found)
            if not marked or not path.startswith(("http://", "https://")):
                raise gr.Error(ELSEWHERE, print_exception=False)
        return found

    # `adopt` checks where it lies
    source.async_move_resource_to_block_cache = own  # type: ignore[method-assign,assignment]
    return source


def _stored() -> list[gr.Component]:
    import gradio as gr

    return [
        gr.File(visible=False, label="the .inr file"),
        gr.JSON(visible=False, label="facts"),
    ]


async def answers(
    caller: Guest, task: str, spec: Mapping[str, Any]
) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
    """What a fit or a search answers: its progress, then its file and the facts of it."""
    job = None
    async for job in caller.long(task, spec):
        if job.state != "done":
            yield None, {"state": job.state, "position": job.position} | job.progress
    assert job is not None
    assert job.result is not None
    facts = {key: job.result[key] for key in KEPT if key in job.result}
    yield str(job.folder / job.result["file"]), {"state": "done"} | facts


async def rendered(caller: Guest, spec: Mapping[str, Any]) -> Path:
    """A file's rendering; it lies in the caller's folder."""
    folder = caller.studio.service.folder(caller.owner)
    result = await caller.short("decode", {**spec, "folder": str(folder)})
    return folder / str(result["file"])


# ---------------------------------------------------------------------- what was sent


def number_of(name: str, value: Any, low: float, high: float) -> float | None:
    """A number that a caller gave; None where it is 0 or not given.

    Raises:
        UsageError: it is none, or beyond its bounds.
    """
    if value is None or value == "":
        return None
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or (value != 0 and not low <= value <= high):
        shown = str(value)[:40]
        raise UsageError(f"{name} is {shown!r}: give a number from {low:g} to {high:g}, or 0")
    return float(value) or None


def whole_of(name: str, value: Any, low: int, high: int) -> int | None:
    """The same of whole numbers.

    Raises:
        UsageError: as `number_of`, or it has a fraction.
    """
    number = number_of(name, value, low, high)
    if number is not None and number != int(number):
        raise UsageError(f"{name} is {number:g}: give a whole number")
    return None if number is None else int(number)


def text_of(name: str, value: Any) -> str | None:
    """A short text that a caller gave; None where it is empty.

    Raises:
        UsageError: it is none, or too long.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > TEXT_LENGTH or not value.isprintable():
        raise UsageError(f"{name}: give a text of at most {TEXT_LENGTH} printable characters")
    return value.strip() or None
