"""What the verbs share: parsers that fail in one line, events, output names."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from inr.errors import InrError, UsageError


def new_parser(verb: str, description: str) -> ArgumentParser:
    """A parser for one verb, with the options that all of them have."""
    parser = ArgumentParser(
        prog=f"inr {verb}", description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per event")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse, or raise UsageError in one line that names the option."""
    try:
        return parser.parse_args(list(argv))
    except argparse.ArgumentError as error:
        text = " ".join(str(error).split())
        text = text.replace("Parser key ", "").replace("Expected a <class", "expected <class")
        verb = parser.prog.removeprefix("inr ")
        raise UsageError(f"{verb}: {text} (see `{parser.prog} --help`)") from None


def add_output_options(parser: ArgumentParser) -> None:
    """-o, -f and --skip-existing."""
    parser.add_argument("-o", "--output", type=str, help="file to write; - for standard output")
    parser.add_argument("-f", "--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave existing outputs alone, quietly"
    )


class Voice:
    """Tells a person or a program what happens.

    Args:
        as_json: One JSON line per event instead of text.
        quiet: No text.
        to_stderr: Because standard output carries the result itself.
    """

    def __init__(self, as_json: bool, quiet: bool = False, to_stderr: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._stream = sys.stderr if to_stderr else sys.stdout

    def event(self, event: dict[str, Any], text: str | None = None) -> None:
        """Say one thing: the event as JSON, or its text if it has one."""
        if self.as_json:
            line = json.dumps(event, default=str, allow_nan=False)
        elif text is not None and not self.quiet:
            line = printable(text)
        else:
            return
        print(line, file=self._stream, flush=True)

    def failure(self, name: str, error: InrError) -> None:
        """Say that one of several inputs failed."""
        message = " ".join(str(error).split())
        if self.as_json:
            self.event({"event": "error", "input": name, "error": message})
        print(printable(f"inr: {message}"), file=sys.stderr)


def printable(text: str) -> str:
    """Text for a terminal: whatever a file says must not move the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def number(value: float) -> float | None:
    """A float for JSON: None where it is infinite."""
    return round(value, 4) if abs(value) < 1e300 else None


def check_output(path: str, force: bool, skip: bool) -> bool:
    """Whether to go on and write `path`; raises where it exists and may not be replaced."""
    if path == "-":
        if sys.stdout.isatty():
            raise UsageError("a binary file does not go to a terminal: use -o FILE, or a pipe")
        return True
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{path}: is a folder; give a file name, or use --out-dir")
    if not target.exists() or force:
        return True
    if skip:
        return False
    from inr.errors import OutputError

    raise OutputError(f"{path}: exists already; give another name, or -f to replace it")


def exit_code(codes: Sequence[int]) -> int:
    """One input: its own code. Several: 1 if some failed, or the code that they all share."""
    failed = [code for code in codes if code]
    if not failed:
        return 0
    return failed[0] if len(codes) == 1 else 1
