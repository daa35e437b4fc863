"""What tabs share: who is there, files that were dropped, jobs that are followed."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.studio.gate import weight
from apps.studio.service import ALIVE, Job, Service
from inr.errors import InputError, UsageError

if TYPE_CHECKING:
    import gradio as gr

OWNER = re.compile(r"[A-Za-z0-9_-]{22,64}")
"""A visitor's token: 128 random bits at least, which its browser made."""

MAKE_OWNER = """() => {
  let token = sessionStorage.getItem("inr-studio");
  if (!token) {
    const bytes = crypto.getRandomValues(new Uint8Array(18));
    token = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
    sessionStorage.setItem("inr-studio", token);
  }
  return token;
}"""
"""A tab keeps its token over a reload, and no other tab has it."""

NAME_LENGTH = 80

OWN_ROOM = 512 << 20
ROOM = 8 << 30
"""Bytes of the files that one visitor dropped, and of all that is kept for all visitors."""

UPDATE_SECONDS = 0.1
"""A page is told of a job's news at most so often."""


@dataclass
class Studio:
    """What a tab is built with.

    Args:
        service: Where jobs run.
        uploads: The folder below which Gradio keeps what was uploaded.
        owner: Holds the visitor's token; an input of every event.
    """

    service: Service
    uploads: Path
    owner: gr.Textbox


def visitor(token: Any) -> str:
    """A visitor's token, if it is one.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(token, str) or not OWNER.fullmatch(token):
        raise UsageError("this page has no token of its own: reload it")
    return token


def adopt(studio: Studio, owner: str, path: str | Path) -> tuple[Path, str]:
    """Take a file that a visitor dropped into the visitor's own folder.

    Returns:
        Where it lies now, and its name for people.

    Raises:
        InputError: it is not what Gradio took from that page.
        UsageError: there is no room for it.
    """
    given = Path(path)
    real = given.resolve()
    if not real.is_file() or not real.is_relative_to(studio.uploads.resolve()):
        raise InputError("the file is not there any more: drop it again")
    make_room(studio.service, owner, real.stat().st_size)
    name = display_name(given.name)
    kept = studio.service.folder(owner) / f"{secrets.token_hex(8)}{_suffix(name)}"
    # not moved: another visitor may have dropped the same, which Gradio keeps once
    shutil.copyfile(real, kept)
    return kept, name


def make_room(service: Service, owner: str, size: int) -> None:
    """Delete a visitor's oldest dropped files, that no job needs, where it has too many.

    Raises:
        UsageError: all visitors together have no room left.
    """
    if weight(service.root) + size > ROOM:
        raise UsageError("there is no room for more files now: try again in a while")
    mine = [path for path in service.folder(owner).iterdir() if path.is_file()]
    needed = {job.spec.get("source") for job in service.jobs(owner)}
    total = size + sum(path.stat().st_size for path in mine)
    for path in sorted(mine, key=lambda path: path.stat().st_mtime):
        if total > OWN_ROOM and str(path) not in needed:
            total -= path.stat().st_size
            path.unlink()


def display_name(name: str) -> str:
    """A file's name that people can be shown: printable, and of bounded length."""
    clean = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    return clean[-NAME_LENGTH:] or "signal"


async def followed(service: Service, job: Job) -> AsyncIterator[Job]:
    """News of a job while its page is there, at most every `UPDATE_SECONDS`; the last in any case.

    What leaves this early (the page has gone) is noted by the service, which pauses the job later.
    """
    told = 0.0
    with service.present(job.owner):
        async for news in service.watch(job):
            now = time.monotonic()
            if now - told >= UPDATE_SECONDS or news.state not in ALIVE:
                told = now
                yield news


def frames_of(service: Service) -> Callable[[Any], Awaitable[dict[str, Any]]]:
    """What gives a page the frames of its own jobs, see `components.stage`."""

    async def frames(ask: Any) -> dict[str, Any]:
        """The latest frame of the job that `asked_of` names."""
        asked = from_page(ask)
        try:
            job = service.find(visitor(asked.get("owner")), str(asked.get("job")))
        except UsageError as error:
            return {"error": str(error)}
        return {"sections": job.frame or []}

    return frames


def asked_of(job: Job) -> dict[str, Any]:
    """The value of a stage that shows a job's latest frame."""
    ask = {"owner": job.owner, "job": job.id, "frame": job.frames}
    return {"id": job.id, "ask": ask}


def latest(service: Service, owner: str, task: str) -> Job | None:
    """A visitor's last job of a task, if there is one."""
    jobs = service.jobs(owner, task)
    return jobs[-1] if jobs else None


@contextlib.contextmanager
def told() -> Any:
    """Errors that are meant for people become Gradio's messages; others are said to be unexpected.

    Raises:
        gr.Error: with one line, shown as text and never as markup.
    """
    import gradio as gr

    from apps.cli.voice import explained

    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(escape(str(explained(error))), print_exception=False) from None


def unchanged(count: int) -> list[Any]:
    """For as many outputs nothing new. A stream that yields nothing at all would empty them."""
    import gradio as gr

    return [gr.skip()] * count


def escape(text: str) -> str:
    """Text that Gradio's messages show as it is: they would take markup."""
    import html

    return html.escape(text, quote=False)


def from_page(value: Any, default: Callable[[], dict[str, Any]] = dict) -> dict[str, Any]:
    """A component's value as a mapping, whatever the page sent."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return default()
    return dict(value) if isinstance(value, Mapping) else default()


def _suffix(name: str) -> str:
    from inr.files import suffix_of

    found = suffix_of(name)
    return found if re.fullmatch(r"[.A-Za-z0-9]{0,12}", found) else ""
