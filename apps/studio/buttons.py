"""Start, pause, resume, stop: what the buttons of a tab do with its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from apps.studio.service import ALIVE, Job
from apps.studio.visitors import Studio, latest, told, unchanged, visitor
from inr.errors import UsageError

if TYPE_CHECKING:
    import gradio as gr

LIVE: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
    # by default a click is lost while the stream of the last one has not quite ended
    "trigger_mode": "multiple",
}
"""How events are connected that last as long as a job."""


def row(tab: str) -> tuple[gr.Button, gr.Button, gr.Button, gr.Button]:
    """Start, Pause, Resume and Stop of a tab, none of which can be pressed yet."""
    import gradio as gr

    looks = {"Start": "primary", "Pause": "secondary", "Resume": "secondary", "Stop": "stop"}
    with gr.Row():
        start, pause, resume, stop = (
            gr.Button(name, variant=look, elem_id=f"{tab}-{name.lower()}", interactive=False)  # type: ignore[arg-type]
            for name, look in looks.items()
        )
    return start, pause, resume, stop


def pressable(job: Job) -> list[Any]:
    """What Pause, Resume and Stop become of a job's state."""
    import gradio as gr

    running = job.state in ALIVE
    return [
        gr.update(interactive=running and job.phase != "coding"),
        gr.update(interactive=job.resumable),
        gr.update(interactive=running or job.state == "paused"),
    ]


class Buttons:
    """What the buttons of a tab do; all of it but `rest` is for Gradio's streams.

    Args:
        studio: The studio.
        task: What the tab's jobs do.
        follow: Yields what a job's news change of the tab's outputs, until it rests.
        outputs: How many these are.
    """

    def __init__(
        self,
        studio: Studio,
        task: str,
        follow: Callable[[Studio, Job], AsyncIterator[list[Any]]],
        outputs: int,
    ) -> None:
        self.studio = studio
        self.service = studio.service
        self.task = task
        self.follow = follow
        self.outputs = outputs

    def latest(self, owner: str) -> Job | None:
        """The visitor's job."""
        return latest(self.service, visitor(owner), self.task)

    async def begin(
        self, owner: str, spec: Mapping[str, Any], look: Mapping[str, Any] | None = None
    ) -> AsyncIterator[list[Any]]:
        """Begin a job; one that goes on already rests."""
        # from here on, so that the job is not taken for one whose page has gone
        with self.service.present(owner):
            with told():
                for old in self.service.jobs(owner, self.task):
                    if old.state in ALIVE:
                        self.service.pause(old)
                job = self.service.submit(owner, self.task, spec)
                self.service.look(job, look or {})
            async for news in self.follow(self.studio, job):
                yield news

    async def found_again(self, owner: str) -> AsyncIterator[list[Any]]:
        """After a reload."""
        yield unchanged(self.outputs)
        job = self.latest(owner) if owner else None
        if job is not None:
            async for news in self.follow(self.studio, job):
                yield news

    async def go_on(self, owner: str) -> AsyncIterator[list[Any]]:
        """Resume a job."""
        with told():
            job = self.latest(owner)
            if job is None:
                raise UsageError("nothing is paused: press Start")
            self.service.resume(job)
        async for news in self.follow(self.studio, job):
            yield news

    async def end(self, owner: str) -> AsyncIterator[list[Any]]:
        """Stop a job; what becomes of one that rests nobody else would show."""
        yield unchanged(self.outputs)
        with told():
            job = self.latest(owner)
            rests = job is not None and job.state == "paused"
            if job is not None:
                self.service.stop(job)
        if job is not None and rests:
            async for news in self.follow(self.studio, job):
                yield news

    def rest(self, owner: str) -> None:
        """Pause a job."""
        with told():
            job = self.latest(owner)
            if job is not None:
                self.service.pause(job)
