"""Fit several fields to one signal under one budget, and code it by other codecs at equal bytes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import inr
from apps.cli.voice import explained
from apps.studio import live, rivals
from apps.studio.beside import BesideView, Decode, beside
from apps.studio.desk import Desk
from apps.studio.scores import ssim, table_of
from apps.studio.spec import open_source, preset_of
from apps.studio.tasks.fit import (
    ROOM,
    SNAPSHOT,
    SNAPSHOT_SECONDS,
    Watcher,
    backend,
    finite,
    show,
    stored,
)
from apps.view.page import Section
from fields.kernels.select import Choice
from inr.errors import InrError, UsageError
from inr.files import read_bytes, write_bytes
from inr.fitting.snapshot import Snapshot

if TYPE_CHECKING:
    from apps.compare.codec import Codec
    from inr.presets import Preset
    from inr.signals.base import Signal

LEAST, MOST = 2, 4
"""Contestants."""

JOURNAL = "compare.json"
"""What is done of a comparison, from which a paused one goes on."""

LIVE_ROOM = 300_000
"""Bytes that the finished ones weigh in a frame, about, while another one runs."""

SHARE = 0.1
"""Part of the time that previews may take: it is the contestants' own."""

POINTS = 400
"""Points of a curve at most."""

LONGEST_LABEL = 40


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Compare what a spec lists: {"source", "name", "contestants": [...], "steps" or "seconds",
    "seed"}, each contestant {"label", "field", "preset", "hyperparameters", "recipe"} or
    {"label", "codec"}.

    Fields run one after the other, each with the whole machine. A codec makes the largest file
    that is not above the first field's.

    Returns:
        {"contestants": rows, "series": curves, ...}; {"paused": True} where that was asked.

    Raises:
        InrError: the spec is wrong, or no contestant came to an end.
    """  # noqa: D205 (the spec is the one argument that matters)
    desk.emit({"event": "phase", "phase": "starting"})
    return Contest(spec, open_source(spec), desk).run()


@dataclass
class Entrant:
    """One of those that are compared.

    Attributes:
        name: What people call it; no two have the same.
        preset: What is fitted, for a field.
        codec: What codes it, for others.
        file: Name of its file.
        row: What is known of it, JSON-ready; "state" is "to come", "fitting", "coding", "done",
            "failed" or "left out".
        points: [step, seconds, psnr, loss] of its fit.
        made: What its file decodes to.
    """

    name: str
    preset: Preset | None
    codec: Codec | None
    file: str
    row: dict[str, Any]
    points: list[list[Any]] = field(default_factory=list)
    made: Any = None


class Contest:
    """A comparison that goes on.

    Args:
        spec: What is compared, see `run`.
        signal: The signal.
        desk: Whom to tell.

    Raises:
        UsageError: the spec is wrong.
    """

    def __init__(self, spec: Mapping[str, Any], signal: Signal, desk: Desk) -> None:
        self.signal = signal
        self.desk = desk
        self.source = str(spec["source"])
        self.name = str(spec.get("name") or "the file")
        self.seed = int(spec.get("seed") or 0)
        self.budget = {name: spec[name] for name in ("steps", "seconds") if spec.get(name)}
        if len(self.budget) != 1:
            raise UsageError("give a budget for each contestant: either seconds or steps")
        self.entrants = _entrants(spec, signal)
        self._snapshot = desk.folder / SNAPSHOT
        self._resume()

    def run(self) -> dict[str, Any]:
        """All contestants that are left."""
        while (entrant := self._next()) is not None:
            if self.desk.asked == "pause":
                return self._paused()
            # one that was paused is made into a file when the whole is stopped
            if self.desk.asked and not (entrant.preset and self._snapshot.exists()):
                self._set(entrant, "left out")
                continue
            try:
                going_on = self._one(entrant)
            except Exception as error:  # it is the contestant's own: the others still count
                if self.desk.asked == "pause" and entrant.codec is not None:
                    entrant.row["state"] = "to come"  # its search gave up for that
                    return self._paused()
                self._set(entrant, "failed", error=self._plain(str(explained(error))))
                self._snapshot.unlink(missing_ok=True)
                continue
            if not going_on:
                return self._paused()
        done = [one for one in self.entrants if one.row["state"] == "done"]
        if not done:
            told = [f"{e.name}: {e.row['error']}" for e in self.entrants if e.row.get("error")]
            raise InrError("; ".join(told) or "stopped before anything was done")
        self.desk.emit({"event": "phase", "phase": "coding"})
        show(self.desk, [*self._beside(ROOM), self._table()])
        return {
            **self._state(),
            "file": done[0].row["file"],
            "budget": self.budget,
            "kind": self.signal.domain.kind,
            "stopped": self.desk.asked == "stop",
            **backend(self.desk.device, self._backends()),
        }

    def _backends(self) -> Choice:
        """What computed the fields."""
        by_name = {e.name: e.row["backend"] for e in self.entrants if e.row.get("backend")}
        told = "; ".join(f"{name}: {used}" for name, used in by_name.items())
        return Choice(", ".join(sorted(set(by_name.values()))) or "none", told or "codecs only")

    def _plain(self, text: str) -> str:
        """A message without the names of our folders, which are nothing to people."""
        return text.replace(f"{self.desk.folder}{os.sep}", "").replace(self.source, self.name)

    def _next(self) -> Entrant | None:
        """Fields in order, but codecs as soon as it is known how large their files may be."""
        waiting = [one for one in self.entrants if one.row["state"] == "to come"]
        fields = [one for one in waiting if one.preset is not None]
        codecs = [one for one in waiting if one.codec is not None]
        if codecs and (self._reference() is not None or not fields):
            return codecs[0]
        return fields[0] if fields else None

    def _reference(self) -> Entrant | None:
        """The field whose file says how large those of codecs may be: the first that has one."""
        fields = [one for one in self.entrants if one.preset is not None]
        return next((one for one in fields if one.row["state"] == "done"), None)

    def _one(self, entrant: Entrant) -> bool:
        """Run a contestant; False where it was paused."""
        if entrant.codec is not None:
            self._code(entrant)
            return True
        self._set(entrant, "fitting")
        snapshot = Snapshot(self._snapshot, every=SNAPSHOT_SECONDS, resume=True)
        booth = Booth(self, entrant)
        table = self._table()
        others = BesideView(
            live.view_of(self.signal), self._beside(LIVE_ROOM), entrant.name, [table]
        )
        watcher = Contender(booth, self.signal, others)
        fit = inr.fit(
            self.signal,
            entrant.preset,
            **self.budget,
            seed=self.seed,
            device=self.desk.device,
            callbacks=[watcher, snapshot],
        )
        if fit.ended == "stopped" and self.desk.asked == "pause" and snapshot.path.exists():
            entrant.row["state"] = "to come"
            return False
        self._set(entrant, "coding")
        result = stored(fit, {"name": entrant.file}, booth)
        entrant.made = inr.decode(read_bytes(self.desk.folder / result["file"], result["bytes"]))
        count = sum(p.numel() for p in entrant.made.parameters())
        seconds_shown = {"seconds_shown": round(watcher.spent, 3)}
        more = {"parameters": count, "backend": fit.backend.backend} | seconds_shown
        self._finish(entrant, result | more)
        snapshot.discard()
        return True

    def _code(self, entrant: Entrant) -> None:
        """Make the largest file of a codec that is not above the reference's."""
        reference = self._reference()
        if reference is None:
            raise UsageError("there is no field's file that its own could be as large as")
        assert entrant.codec is not None
        self._set(entrant, "coding")
        self._show()
        signal, notes = rivals.prepared(self.signal)
        begin = time.perf_counter()
        setting, data = rivals.largest(
            entrant.codec, signal, reference.row["bytes"], lambda: self.desk.asked
        )
        seconds = time.perf_counter() - begin
        if len(data) > reference.row["bytes"]:
            notes = [*notes, f"it makes no file as small as {reference.name}'s"]
        write_bytes(self.desk.folder / entrant.file, data)
        entrant.made, quality = rivals.decoded(entrant.codec, data, signal)
        metrics = {key: finite(value) for key, value in quality.items()}
        self._finish(
            entrant,
            {
                "file": entrant.file,
                "bytes": len(data),
                "psnr": metrics["psnr"],
                "metrics": metrics,
                "density": self.signal.domain.density(len(data)),
                "setting": entrant.codec.label(setting),
                "about": entrant.codec.about(),
                "seconds_encoding": round(seconds, 3),
                "warnings": notes,
            },
        )

    def _finish(self, entrant: Entrant, result: dict[str, Any]) -> None:
        result = dict(result)
        if self.signal.domain.kind == "image":
            samples = entrant.made if entrant.codec else inr.render(entrant.made)
            result["metrics"] = result["metrics"] | {"ssim": ssim(self.signal, samples)}
        self._set(entrant, "done", **result)
        self._keep()
        self._show()

    # ------------------------------------------------------------------ what is told

    def _set(self, entrant: Entrant, state: str, **more: Any) -> None:
        entrant.row |= {"state": state} | more
        if state in ("fitting", "coding"):
            phase = "starting" if state == "fitting" else "coding"
            self.desk.emit({"event": "phase", "phase": phase})
        event = {"event": "contestant", "index": self.entrants.index(entrant)}
        self.desk.emit(event | {"name": entrant.name, "state": state})
        self.progress(entrant, {})

    def progress(self, entrant: Entrant, event: Mapping[str, Any]) -> None:
        """Tell how far it is, with all that a page needs which has just come."""
        # the loss of the first step is that of the start, which may be an exact copy of the signal
        if event.get("psnr") is not None and event["step"] > 1:
            entrant.points.append([event[key] for key in ("step", "seconds", "psnr", "loss")])
            if len(entrant.points) > POINTS:
                entrant.points[1:-1] = entrant.points[1:-1:2]
        index = self.entrants.index(entrant)
        told = {"event": "progress", "index": index, "name": entrant.name}
        self.desk.emit({**event, **told, **self._state()})

    def _state(self) -> dict[str, Any]:
        return {
            "contestants": [one.row for one in self.entrants],
            "series": [
                {"name": one.name, "points": one.points}
                for one in self.entrants
                if one.preset is not None
            ],
        }

    def _show(self) -> None:
        show(self.desk, [*self._beside(LIVE_ROOM), self._table()])

    def _beside(self, room: int) -> list[Section]:
        decodes = [Decode(one.name, _told(one), one.made) for one in self.entrants]
        return beside(self.signal, decodes, room)

    def _table(self) -> Section:
        return table_of([one.row | {"name": one.name} for one in self.entrants])

    # ------------------------------------------------------------------ pauses

    def _paused(self) -> dict[str, Any]:
        self._keep()
        return {"paused": True}

    def _keep(self) -> None:
        """Write down what is done."""
        rows = [
            {"row": one.row if one.row["state"] in ("done", "failed") else None,
             "points": one.points}
            for one in self.entrants
        ]  # fmt: skip
        write_bytes(self.desk.folder / JOURNAL, json.dumps(rows).encode())

    def _resume(self) -> None:
        """Take up what is done already."""
        path = self.desk.folder / JOURNAL
        if not path.exists():
            return
        for one, kept in zip(self.entrants, json.loads(path.read_text()), strict=True):
            one.points = kept["points"]
            if kept["row"] is None:
                continue
            one.row = kept["row"]
            if one.row["state"] != "done":
                continue
            data = read_bytes(self.desk.folder / one.row["file"], one.row["bytes"])
            if one.codec is None:
                one.made = inr.decode(data)
            else:
                one.made, _ = rivals.decoded(one.codec, data, rivals.prepared(self.signal)[0])


class Booth(Desk):
    """A desk as the fit of one contestant sees it: what it tells becomes news of the contest.

    Args:
        contest: The contest.
        entrant: The contestant.
    """

    def __init__(self, contest: Contest, entrant: Entrant) -> None:
        self._contest = contest
        self._entrant = entrant
        self._desk = contest.desk
        self.folder = contest.desk.folder
        self.device = contest.desk.device

    @property
    def asked(self) -> str | None:
        """What the user asked of the whole."""
        return self._desk.asked

    @asked.setter
    def asked(self, value: str | None) -> None:
        self._desk.asked = value

    @property
    def look(self) -> dict[str, Any]:
        """The page's live controls, with a smaller share for previews if nothing is said."""
        return {"share": SHARE} | self._desk.look

    @look.setter
    def look(self, value: dict[str, Any]) -> None:
        self._desk.look = value

    def emit(self, event: dict[str, Any]) -> None:
        """Pass on what concerns it; a finished file is shown by the contest, beside the others."""
        if event["event"] == "progress":
            self._contest.progress(self._entrant, event)
        elif event["event"] != "frame" or self._entrant.row["state"] == "fitting":
            self._desk.emit(event)


class Contender(Watcher):
    """Watches the fit of one contestant, and shows it beside the others.

    Attributes:
        spent: Seconds that previews took of its budget.
    """

    def __init__(self, booth: Booth, signal: Signal, view: BesideView) -> None:
        super().__init__(booth, signal)
        self.view = view
        self.spent = 0.0

    def _frame(self, module: Any) -> None:
        begin = time.perf_counter()
        super()._frame(module)
        self.spent += time.perf_counter() - begin


# ------------------------------------------------------------------------- contestants


def _entrants(spec: Mapping[str, Any], signal: Signal) -> list[Entrant]:
    given = spec.get("contestants") or []
    if not LEAST <= len(given) <= MOST:
        raise UsageError(f"there are {len(given)} contestants: give {LEAST} to {MOST}")
    kind = signal.domain.kind
    found: list[Entrant] = []
    for i, one in enumerate(given):
        preset = codec = None
        if one.get("codec"):
            codec = next((c for c in rivals.CODECS.get(kind, ()) if c.name == one["codec"]), None)
            if codec is None:
                raise UsageError(f"codec is {one['codec']!r}: there is none for this signal")
            codec.about()
        else:
            preset = preset_of(one, kind, signal.preset)
        own = codec.name if codec else preset.field if preset else ""
        name = _unique(one.get("label") or own, [e.name for e in found])
        file = rivals.file_of(
            str(spec.get("name") or "signal"), i, own, rivals.SUFFIXES.get(own, ".inr")
        )
        row = {"label": name, "state": "to come", "codec": codec.name if codec else None}
        found.append(Entrant(name, preset, codec, file, row))
    if all(one.preset is None for one in found):
        raise UsageError("all contestants are codecs: one field at least is needed")
    return found


def _unique(label: str, taken: Sequence[str]) -> str:
    label = " ".join(str(label).split())[:LONGEST_LABEL]
    taken = [*taken, "original"]
    number = 2
    name = label
    while name in taken:
        name, number = f"{label} {number}", number + 1
    return name


def _told(one: Entrant) -> str:
    if one.made is None:
        return str(one.row.get("error") or one.row["state"])
    quality = one.row["psnr"]
    reached = "no error" if quality is None else f"{quality:.2f} dB"
    return f"{reached}, {one.row['bytes']:,} bytes"
