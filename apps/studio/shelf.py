"""`.inr` files that visitors have opened: one each, known to its page by a token."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.decode import KINDS
from apps.studio import equivalent
from apps.studio.gate import discard
from apps.studio.planes import checked
from apps.studio.tasks.decode import options_of
from apps.studio.visitors import Studio, adopt, from_page
from inr.errors import InputError, InrError, UsageError

if TYPE_CHECKING:
    from apps.studio.service import Job

OPEN_SECONDS = 120.0
RENDER_SECONDS = 30.0

SHORT_SECONDS = 8.0
"""What is said to take longer is done where fits are: it does not keep others from looking."""

MAKERS = ("fit", "compress")
"""Tasks whose results are `.inr` files."""

GONE = "the file is not open any more: open it again"


@dataclass
class Opened:
    """A file that a visitor looks at.

    Args:
        owner: The visitor.
        path: The file; it lies in the visitor's own folder, and is deleted with it.
        name: Its name for people.
        facts: Some of what `tasks/explore.py` found.
        original: What was fitted, where it is known: `original`, `original_name`, `reading`.
        axis: The axis that is cut across, see `apps.studio.planes`.
        position: Where along it; None for the middle.
        token: What the page names it by.
    """

    owner: str
    path: Path
    name: str
    facts: dict[str, Any]
    original: dict[str, Any]
    axis: int = -1
    position: float | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def source(self) -> dict[str, Any]:
        """The file as specs have it."""
        return {"source": str(self.path), "name": self.name}


class Shelf:
    """Opens files for visitors, one at a time for each.

    Args:
        studio: The studio.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.service = studio.service
        self._opened: dict[str, Opened] = {}

    # --------------------------------------------------------------------------- opening

    async def dropped(self, owner: str, upload: str) -> dict[str, Any]:
        """Open a file that was dropped; see `again` for what is returned.

        Raises:
            InrError: it is no `.inr` file, or a damaged one; nothing of it is kept.
        """
        path, name = adopt(self.studio, owner, upload)
        try:
            return await self._open(owner, path, name, {})
        except InrError:
            discard(self.studio.uploads, Path(upload))
            raise

    async def taken(self, owner: str, path: Path) -> dict[str, Any]:
        """Open a file that comes with the studio.

        Raises:
            InrError: it cannot be opened.
        """
        return await self._open(owner, self._copied(owner, path), path.name, {})

    async def made(self, owner: str) -> dict[str, Any]:
        """Open the file that the visitor's last fit or compression made, beside what was fitted.

        Raises:
            InrError: there is none.
        """
        done = [
            job
            for job in self.service.jobs(owner)
            if job.task in MAKERS and job.state == "done" and (job.result or {}).get("file")
        ]
        if not done:
            raise UsageError("there is no file of yours yet: fit something first")
        job = done[-1]
        assert job.result is not None
        path = job.folder / str(job.result["file"])
        original: dict[str, Any] = {}
        if not job.spec.get("operator") and Path(job.spec["source"]).is_file():
            original = {
                "original": job.spec["source"],
                "original_name": job.spec["name"],
                "reading": job.spec.get("reading") or {},
            }
        return await self._open(owner, self._copied(owner, path), path.name, original)

    async def beside(self, owner: str, upload: str) -> dict[str, Any]:
        """Show the open file beside its original, which was dropped.

        Raises:
            InrError: no file is open, or it was made of another signal.
        """
        opened = self.of(owner)
        path, name = adopt(self.studio, owner, upload)
        before = opened.original
        opened.original = {"original": str(path), "original_name": name}
        try:
            return await self.again(owner)
        except InrError:
            opened.original = before
            path.unlink(missing_ok=True)
            discard(self.studio.uploads, Path(upload))
            raise

    async def again(self, owner: str) -> dict[str, Any]:
        """What `tasks/explore.py` finds in the file that the visitor has open.

        Raises:
            InrError: none is open.
        """
        opened = self.of(owner)
        spec = opened.source | opened.original
        found = await self._call(owner, "explore", spec, OPEN_SECONDS)
        opened.axis = found["slices"][0]["axis"] if found["slices"] else -1
        opened.position = None
        opened.token = secrets.token_urlsafe(24)
        opened.facts = {name: found[name] for name in ("kind", "slices", "suffixes", "suffix")}
        return found

    def of(self, owner: str) -> Opened:
        """The file that a visitor has open.

        Raises:
            UsageError: there is none, or it was deleted.
        """
        opened = self._opened.get(owner)
        if opened is None or not opened.path.is_file():
            raise UsageError("no file is open: drop one, or take an example")
        return opened

    def has(self, owner: str) -> bool:
        """Whether a visitor has a file open."""
        opened = self._opened.get(owner)
        return opened is not None and opened.path.is_file()

    # --------------------------------------------------------------------------- looking

    async def window(self, request: Any) -> dict[str, Any]:
        """What a page that zooms asks for: {"token", "crop", "size"}, none of it to be trusted.

        Returns:
            {"picture": data URI}, or {"error": text}.
        """
        from apps.cli.voice import explained

        try:
            given = from_page(request)
            opened = self._named(given.get("token"))
            crop, size = given.get("crop"), given.get("size")
            checked(crop, size)
            spec = opened.source | {"axis": opened.axis, "position": opened.position}
            spec |= {"crop": crop, "size": size}
            found = await self._call(opened.owner, "render", spec, RENDER_SECONDS)
        except Exception as error:
            return {"error": str(explained(error))}
        return {"picture": found["picture"]}

    async def slice(self, owner: str, name: Any, position: Any) -> dict[str, Any]:
        """Turn to another slice; see `zoom` for what is returned.

        Raises:
            InrError: no file is open, or it has no such slice.
        """
        opened = self.of(owner)
        known = {one["name"]: one for one in opened.facts["slices"]}
        if not isinstance(name, str) or name not in known:
            raise UsageError(f"slice is {str(name)[:40]!r}: choose from {', '.join(known)}")
        one = known[name]
        moved = opened.axis != one["axis"]
        good = type(position) in (int, float) and one["low"] <= position <= one["high"]
        opened.axis = one["axis"]
        opened.position = float(position) if good and not moved else float(one["value"])
        opened.token = secrets.token_urlsafe(24)
        spec = opened.source | {"axis": opened.axis, "position": opened.position}
        found = await self._call(owner, "render", spec, RENDER_SECONDS)
        return zoom(opened, found)

    def shows(self, owner: str, name: Any, position: Any) -> bool:
        """Whether a slice is the one that is looked at; what has none shows all it has."""
        opened = self.of(owner)
        known = {one["axis"]: one for one in opened.facts["slices"]}
        if not known:
            return True
        one = known[opened.axis]
        at = one["value"] if opened.position is None else opened.position
        return bool(name == one["name"] and position == at)

    async def gradients(self, owner: str, start: Any, length: Any) -> list[dict[str, Any]]:
        """Sections that show derivatives.

        Raises:
            InrError: no file is open, or the stretch of a curve lies outside.
        """
        stretch = {"start": _number("begin", start), "length": _number("length", length)}
        spec = self.of(owner).source | {"part": "gradients"} | stretch
        found = await self._call(owner, "explore", spec, OPEN_SECONDS)
        return list(found["sections"])

    # -------------------------------------------------------------------------- rendering

    def rendering(self, owner: str, form: Any, suffix: Any) -> dict[str, Any]:
        """The spec of `tasks/decode.py` for what the page asks.

        Raises:
            UsageError: no file is open, or an option is wrong.
        """
        opened = self.of(owner)
        asked = from_page(form)
        errors = asked.get("errors")
        for name, text in (errors if isinstance(errors, Mapping) else {}).items():
            raise UsageError(f"{name}: {text}")
        given = asked.get("given")
        options = dict(given) if isinstance(given, Mapping) else {}
        options_of(KINDS[opened.facts["kind"]], options)
        if suffix not in opened.facts["suffixes"]:
            raise UsageError(f"format is {str(suffix)[:40]!r}: choose one of the list")
        return opened.source | {"options": options, "suffix": suffix}

    async def render(self, owner: str, spec: dict[str, Any]) -> Job:
        """Begin to render the open file; a rendering of before is given up.

        Raises:
            InrError: it cannot be done, or would be too large.
        """
        plan = await self._call(owner, "decode", spec | {"plan": True}, RENDER_SECONDS)
        for old in self.service.jobs(owner, "decode"):
            self.service.forget(old)
        lane = "side" if plan["seconds"] <= SHORT_SECONDS else "fit"
        return self.service.submit(owner, "decode", spec, lane=lane)

    def commands(self, owner: str, form: Any, suffix: Any) -> tuple[str, str]:
        """The command line, and the Python, that render the same.

        Raises:
            UsageError: an option is wrong.
        """
        spec = self.rendering(owner, form, suffix)
        kind = self.of(owner).facts["kind"]
        how = KINDS[kind].module.options(options_of(KINDS[kind], spec["options"]))
        if kind == "video":
            how = {**how["picture"], **how["time"]}
            how["fps"] = None if how["fps"] is None else float(how["fps"])
        stem = spec["name"].removesuffix(".inr")
        said = {"name": spec["name"], "kind": kind, "output": f"{stem}{suffix}", **how}
        if kind == "shape" and how["normals"]:
            said["normals"] = None  # it is what is done anyhow
        return equivalent.command(said, "decode"), equivalent.python(said, "decode")

    # -------------------------------------------------------------------------- within

    async def _open(
        self, owner: str, path: Path, name: str, original: dict[str, Any]
    ) -> dict[str, Any]:
        before = self._opened.get(owner)
        self._opened[owner] = Opened(owner, path, name, {}, original)
        try:
            found = await self.again(owner)
        except BaseException:
            path.unlink(missing_ok=True)
            self._opened.pop(owner)
            if before is not None:
                self._opened[owner] = before
            raise
        if before is not None:
            before.path.unlink(missing_ok=True)
        for gone in [key for key, one in self._opened.items() if not one.path.is_file()]:
            del self._opened[gone]
        return found

    def _copied(self, owner: str, path: Path) -> Path:
        """A copy among the visitor's own files: what it was made of may go."""
        kept = self.service.folder(owner) / f"{secrets.token_hex(8)}.inr"
        try:
            shutil.copyfile(path, kept)
        except OSError:
            raise InputError(GONE) from None
        return kept

    def _named(self, token: Any) -> Opened:
        """The file that a page means.

        Raises:
            UsageError: there is none of that token, or its visitor's files were deleted.
        """
        for opened in self._opened.values():
            if isinstance(token, str) and secrets.compare_digest(
                opened.token.encode(), token.encode()
            ):
                if not opened.path.is_file():
                    break
                return opened
        raise UsageError(GONE)

    async def _call(
        self, owner: str, task: str, spec: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        with self.service.present(owner):
            return await self.service.call(owner, task, spec, seconds)


def zoom(opened: Opened, found: dict[str, Any]) -> dict[str, Any]:
    """The value of the component that zooms.

    Args:
        opened: The file.
        found: What a task found: `size` of the plane, and `picture` of it.
    """
    return {
        "id": opened.token,
        "token": opened.token,
        "size": found["size"],
        "picture": found["picture"],
        "fit": False,
    }


def _number(name: str, value: Any) -> float | None:
    """A number that a page may give.

    Raises:
        UsageError: it is none.
    """
    if value is None or value == "":
        return None
    if type(value) not in (int, float) or not abs(value) < 1e15:
        raise UsageError(f"{name} is {str(value)[:40]!r}: give a number")
    return float(value)
