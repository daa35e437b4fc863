"""Runs every (file, codec, setting); what is done lies in a journal, and is not done again.

The journal, `points.jsonl`, has a line for each point, synced when it is there. A point is known by
the hash of its signal, the codec with its version, the setting, and how it was measured: where one
of these has changed, it is made anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.compare import own
from apps.compare.codec import Codec, chosen
from apps.compare.kinds import KINDS
from inr.errors import InputError, UsageError
from inr.files import write_bytes
from inr.signals.base import Signal

REVISION = 1
"""How points are made and measured: raised with every change of it."""


@dataclass(frozen=True)
class Point:
    """One file of one codec, measured.

    Args:
        file: Path of the original.
        kind: Its kind of signal.
        digest: Hash of its samples.
        codec: Name of the codec.
        about: Its versions and what else is fixed.
        setting: As a number.
        label: As tables show it.
        bytes: Size of the whole file.
        size: The same in the unit of the kind.
        measures: Quality, by name.
        encode_seconds: Of making the file; None for one that was given.
        decode_seconds: Of decoding it, once.
        revision: The `REVISION` that it was measured by.
    """

    file: str
    kind: str
    digest: str
    codec: str
    about: str
    setting: float
    label: str
    bytes: int
    size: float
    measures: dict[str, float]
    encode_seconds: float | None
    decode_seconds: float
    revision: int = REVISION

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is known by."""
        return (self.digest, self.codec, self.about, self.label, self.revision)


@dataclass(frozen=True)
class Plan:
    """What is to be done with a file.

    Args:
        file: Its path.
        kind: Its kind.
        codecs: Codecs with what each says of itself.
        points: Settings of each, at most.
    """

    file: str
    kind: str
    codecs: tuple[tuple[Codec, str], ...]
    points: int

    def jobs(self) -> Iterator[tuple[Codec, str, float]]:
        """Codecs with their settings."""
        for codec, about in self.codecs:
            ladder = codec.ladder
            if not isinstance(codec, own.Stored):
                ladder = chosen(ladder, self.points)
            for setting in ladder:
                yield codec, about, setting


@dataclass
class Told:
    """Who is told what happens.

    Args:
        point: After each point, with the number done, the number of all, and whether it is new.
        begun: Before what may take minutes: the path, and what for.
        note: What was found in a file: its path and a line.
        failed: What went wrong: the path, the codec and setting or "", and the error.
    """

    point: Callable[[int, int, Point, bool], None]
    begun: Callable[[str, str], None]
    note: Callable[[str, str], None]
    failed: Callable[[str, str, Exception], None]


@dataclass
class Journal:
    """Points that are done.

    Args:
        path: JSON lines.
        points: What they hold, by `Point.key`.
    """

    path: Path
    points: dict[tuple[Any, ...], Point] = field(default_factory=dict)

    @classmethod
    def opened(cls, path: Path) -> Journal:
        """Read a journal, or begin one; a last line that was cut short is dropped.

        Raises:
            InputError: it is none.
        """
        journal = cls(path)
        if not path.exists():
            return journal
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if whole != lines:
            write_bytes(path, "".join(whole).encode())
        try:
            for line in whole:
                point = Point(**json.loads(line))
                journal.points[point.key] = point
        except (ValueError, TypeError):
            raise InputError(
                f"{path}: is no journal of a comparison; choose another --out-dir"
            ) from None
        return journal

    def add(self, point: Point) -> None:
        """Keep a point, for good."""
        self.points[point.key] = point
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(point)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def run(
    plans: Sequence[Plan],
    opened: Callable[[str, str], Signal],
    journal: Journal,
    told: Told,
    points: list[Point],
) -> None:
    """Do what is planned, file by file; what fails is told, and the rest goes on.

    Args:
        plans: What to do.
        opened: Opens a file, given its path and kind.
        journal: What is done already, and where to keep what will be.
        told: Who is told.
        points: Takes all points of the plans, as they come: who is interrupted has those.

    Raises:
        UsageError: an option is wrong, for all files alike.
    """
    total = sum(len(list(plan.jobs())) for plan in plans)
    done = 0
    for plan in plans:
        jobs = list(plan.jobs())
        try:
            signal, notes = KINDS[plan.kind].prepared(opened(plan.file, plan.kind))
        except (UsageError, BrokenPipeError):
            raise
        except Exception as error:
            told.failed(plan.file, "", error)
            done += len(jobs)
            continue
        for note in notes:
            told.note(plan.file, note)
        digest = signal.digest()
        for codec, about, setting in jobs:
            done += 1
            label = codec.label(setting)
            found = None
            if not isinstance(codec, own.Stored):  # which may be another file of the same name
                found = journal.points.get((digest, codec.name, about, label, REVISION))
            new = found is None
            try:
                if found is None:
                    if isinstance(codec, own.Compressed):
                        told.begun(plan.file, label)
                    found = _point((plan.file, digest, about), signal, codec, setting)
                    journal.add(found)
                else:
                    found = dataclasses.replace(found, file=plan.file)
            except (UsageError, BrokenPipeError):
                raise
            except Exception as error:
                told.failed(plan.file, f"{codec.name}, {label}", error)
                continue
            points.append(found)
            told.point(done, total, found, new)


def _point(names: tuple[str, str, str], signal: Signal, codec: Codec, setting: float) -> Point:
    """Make one file, and measure it.

    Args:
        names: Path and digest of the original, and what the codec says of itself.
        signal: The original.
        codec: The codec.
        setting: Its setting.
    """
    file, digest, about = names
    kind = signal.domain.kind
    begin = time.perf_counter()
    data = codec.encode(signal, setting)
    middle = time.perf_counter()
    decoded = codec.decode(data, signal)
    end = time.perf_counter()
    return Point(
        file=file,
        kind=kind,
        digest=digest,
        codec=codec.name,
        about=about,
        setting=setting,
        label=codec.label(setting),
        bytes=len(data),
        size=own.size(signal, len(data)),
        measures=KINDS[kind].measure(signal, decoded),
        encode_seconds=None if isinstance(codec, own.Stored) else round(middle - begin, 4),
        decode_seconds=round(end - middle, 4),
    )
