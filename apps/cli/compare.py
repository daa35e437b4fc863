"""`inr compare`: rate and distortion of `.inr` files beside other codecs, on one's own files."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

import inr
from apps.cli.common import (
    add_backend_option,
    add_reading_options,
    make_folder,
    new_parser,
    parse,
    reading_of,
    set_computing,
)
from apps.cli.voice import Voice, complain, number
from inr.errors import InputError, InrError, UsageError
from inr.signals import kind_of
from inr.signals.peek import head

if TYPE_CHECKING:
    from apps.compare.codec import Codec
    from apps.compare.runner import Plan, Point
    from inr.signals.base import Signal

READ = ("shape", "video")
"""Kinds whose files may be read in several ways; of pictures only the pixels are compared."""

EPILOGUE = (
    "Codecs: jpeg, jpeg-444, webp, avif, avif-420, jp2 for pictures; opus, mp3 for sounds; x265, "
    "x265-420, x264 for clips; draco for shapes; inr for all. An .inr file among FILES is measured "
    "against its original (codec `stored`), and none are fitted unless --codecs says inr. "
    "Writes points.csv, bd.csv and index.html into --out-dir."
)


def run(argv: Sequence[str]) -> int:
    """Compare codecs on each file; returns the exit code."""
    args = parse(parser(), argv)
    if importlib.util.find_spec("scipy") is None:
        raise UsageError("curves need the package scipy: pip install 'inr-studio[compare]'")
    _check(args)
    set_computing(args)
    return _Comparison(args).run()


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("compare", f"Compare .inr files with other codecs. {EPILOGUE}")
    p.add_argument("files", nargs="+", help="pictures, sounds, clips, meshes; .inr files of them")
    p.add_argument(
        "--codecs", type=str, help="names, separated by commas; default: the usual ones, and inr"
    )
    p.add_argument("--reference", type=str, help="codec to compare with; jpeg, mp3, x265 or draco")
    p.add_argument("--points", type=int, default=6, help="settings of each codec, at most")
    p.add_argument(
        "--inr-targets",
        type=str,
        help="sizes of .inr files, separated by commas: bits per pixel, kbit/s, or kB for shapes",
    )
    p.add_argument("--field", type=str, help="field or preset of .inr files; default: the kind's")
    p.add_argument("--effort", type=int, default=4, help="how much is tried for them, 1 to 9")
    p.add_argument("--seed", type=int, default=0, help="seed of their fits")
    p.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--out-dir", type=str, default="compare", help="folder for the results")
    p.add_argument("--resume", action="store_true", help="go on with what --out-dir holds")
    p.add_argument("--threads", type=int, help="CPU threads")
    add_backend_option(p)
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    add_reading_options(p, READ)
    return p


class _Comparison:
    """One call of the command: what was asked for, and how it went.

    Args:
        args: Parsed arguments.
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.voice = Voice(args)
        self.failed = 0

    def run(self) -> int:
        """Do all of it; returns the exit code."""
        from apps.compare.report import NAMES
        from apps.compare.runner import Journal, Told, run

        args = self.args
        plans = self.plans()
        make_folder(args.out_dir)
        folder = Path(args.out_dir)
        path = folder / "points.jsonl"
        if path.exists() and not args.resume:
            raise UsageError(f"{path} exists: give --resume to go on, or another --out-dir")
        journal = Journal.opened(path)
        begin = time.perf_counter()
        points: list[Point] = []
        code = 0
        try:
            told = Told(self.point, self.begun, self.note, self.fail)
            run(plans, self.open, journal, told, points)
        except KeyboardInterrupt:
            code = 130
        finally:
            summary = self.write(folder, points)
        if not points:
            return code or 1
        seconds = time.perf_counter() - begin
        page = folder / NAMES["page"]
        event = {"event": "done", "report": str(page), "points": len(points)}
        self.voice.event(
            event | {"failed": self.failed, "seconds": round(seconds, 2)},
            "",
            *summary.splitlines(),
            "",
            f"{len(points)} points in {seconds:.0f} s; tables and curves: {page}",
        )
        if code:
            complain("stopped; the same command with --resume goes on")
            return code
        return int(self.failed > 0)

    def plans(self) -> list[Plan]:
        """What is to be done with each file; what cannot be done at all is told here."""
        from apps.compare.kinds import KINDS
        from apps.compare.own import Stored
        from apps.compare.runner import Plan

        args = self.args
        stored = [file for file in args.files if head(Path(file))[:4] == b"\x89INR"]
        files = [file for file in args.files if file not in stored]
        if len(set(files)) < len(files):
            raise UsageError("a file is given twice: leave one out")
        kinds = {}
        for file in files:
            kind = kind_of(file)
            if kind in KINDS:
                kinds[file] = kind
            else:
                self.fail(file, "", InputError("holds no picture, sound, clip or mesh: no codec"))
        self.reading = reading_of(args, set(kinds.values()))
        codecs = {kind: self.codecs(kind, bool(stored)) for kind in dict.fromkeys(kinds.values())}
        given = self.originals(stored, kinds) if stored else {}
        plans = []
        for file, kind in kinds.items():
            own = list(codecs[kind])
            if file in given:
                paths = tuple(given[file])
                made = Stored("stored", tuple(range(len(paths))), paths)
                own.append((made, made.about()))
            plans.append(Plan(file, kind, tuple(own), args.points))
        if kinds and not any(plan.codecs for plan in plans):
            raise UsageError("no codec is left for these files: see `inr compare --help`")
        return plans

    def originals(self, stored: Sequence[str], kinds: Mapping[str, str]) -> dict[str, list[str]]:
        """By path of an original, the .inr files that were made of it."""
        from apps.compare.kinds import KINDS
        from apps.compare.own import original_of

        signals = {}
        for file, kind in kinds.items():
            with contextlib.suppress(InputError):  # which is told when its turn comes
                signals[file] = KINDS[kind].prepared(self.open(file, kind))[0]
        found: dict[str, list[str]] = {}
        for path in stored:
            try:
                found.setdefault(original_of(path, signals), []).append(path)
            except InputError as error:
                self.fail(path, "", error)
        return found

    def codecs(self, kind: str, stored: bool) -> list[tuple[Codec, str]]:
        """The codecs that a kind of signal is coded by, each with what it says of itself.

        One that lacks a package is told, and left out.
        """
        from apps.compare.kinds import KINDS
        from apps.compare.own import Compressed

        args = self.args
        about = KINDS[kind]
        names = args.codecs.split(",") if args.codecs else [*about.usual, *["inr"] * (not stored)]
        targets = about.targets
        if args.inr_targets:
            targets = tuple(sorted(float(x) for x in args.inr_targets.split(",")))
        own = Compressed("inr", targets, kind, args.field, args.effort, args.seed, args.device)
        found: list[tuple[Codec, str]] = []
        for codec in (*about.codecs, own):
            if codec.name not in names:
                continue
            try:
                found.append((codec, codec.about()))
            except UsageError as error:
                complain(f"{error}; it is left out")
                self.failed += bool(args.codecs)
        return found

    def open(self, file: str, kind: str) -> Signal:
        """Open a file as the options say."""
        return inr.open(file, kind=kind, **self.reading[kind])

    def write(self, folder: Path, points: Sequence[Point]) -> str:
        """Write tables and the page of what is done; returns the summary."""
        from apps.bench.machine import machine
        from apps.compare.report import write

        if not points:
            return ""
        facts = {"size": "the whole file, its container included", "machine": machine()}
        return write(folder, points, self.args.reference, facts)

    def point(self, done: int, total: int, found: Point, new: bool) -> None:
        """Say that a point is there."""
        from apps.compare.kinds import KINDS

        about = KINDS[found.kind]
        measures = {key: number(value) for key, value in found.measures.items()}
        event: dict[str, Any] = {"event": "point", "done": done, "expected": total}
        event |= {"input": found.file, "codec": found.codec, "setting": found.label, "new": new}
        event |= {"bytes": found.bytes, about.unit: round(found.size, 5), **measures}
        event |= {"seconds_encoding": found.encode_seconds, "seconds": found.decode_seconds}
        first = about.measures[0]
        quality = f"{first.quality(found.measures[first.key]):.2f} {first.unit}"
        seconds = "" if found.encode_seconds is None else f"  {found.encode_seconds:.1f} s"
        self.voice.event(
            event,
            f"{done}/{total}  {Path(found.file).name}  {found.codec:<9}{found.label:<22}"
            f"{found.size:>9.4g} {about.unit}  {quality:>9}{seconds}{'' if new else '  (kept)'}",
        )

    def begun(self, file: str, label: str) -> None:
        """Say what is being made."""
        event = {"event": "begin", "input": file, "setting": label}
        self.voice.event(event, f"{file}: an .inr file of {label} is being made")

    def note(self, file: str, text: str) -> None:
        """Say what was found in a file."""
        self.voice.event({"event": "note", "input": file, "note": text}, f"{file}: {text}")

    def fail(self, file: str, what: str, error: Exception) -> None:
        """Say what failed."""
        self.failed += 1
        place = f"{file}, {what}" if what else file
        if isinstance(error, InrError) and not str(error).startswith(place):
            error = type(error)(f"{place}: {error}")
        self.voice.failure(place, error)


def _check(args: Namespace) -> None:
    """Refuse what no comparison could use."""
    from apps.compare.kinds import KINDS, OWN

    known = [codec.name for kind in KINDS.values() for codec in kind.codecs] + [OWN[0]]
    named = args.codecs.split(",") if args.codecs else []
    for option, names, there in (
        ("codecs", named, known),
        ("reference", [args.reference] if args.reference else [], [*known, OWN[1]]),
    ):
        for name in names:
            if name not in there:
                raise UsageError(f"--{option}: no codec {name!r}; choose from {', '.join(there)}")
    for option, value, most in (("points", args.points, 100), ("effort", args.effort, 9)):
        if not 1 <= value <= most:
            raise UsageError(f"--{option} is {value}: give a number from 1 to {most}")
    if not 0 <= args.seed < 1 << 63:
        raise UsageError(f"--seed is {args.seed}: give a whole number from 0 to 2^63 - 1")
    for text in (args.inr_targets or "1").split(","):
        try:
            fine = 0 < float(text) < 1e9
        except ValueError:
            fine = False
        if not fine:
            raise UsageError(f"--inr-targets: {text!r} is no size; give numbers such as 0.25,0.5,1")
