"""What the command line says, to a person or to a program, and how it takes failures."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from inr.errors import FitError, InputError, InrError, OutputError, UsageError

STDIN = "standard input"


class Voice:
    """Tells what happens: one JSON line per event, or text; failures go to stderr in any case.

    Args:
        args: Parsed arguments, of which `json`, `debug` and `quiet` matter.
        to_stderr: Because standard output carries the result itself.
    """

    def __init__(self, args: argparse.Namespace, *, to_stderr: bool = False) -> None:
        self.as_json = bool(args.json)
        self.quiet = bool(getattr(args, "quiet", False))
        self.debug = bool(args.debug)
        self._to_stderr = to_stderr

    def event(self, event: dict[str, Any], *lines: str) -> None:
        """Say one thing: the event as JSON, or the lines that say it to a person."""
        stream = sys.stderr if self._to_stderr else sys.stdout
        if self.as_json:
            print(json.dumps(event, default=str, allow_nan=False), file=stream, flush=True)
        elif lines and not self.quiet:
            print("\n".join(map(printable, lines)), file=stream, flush=True)

    @contextlib.contextmanager
    def bar(self, label: str) -> Iterator[Callable[[float], None]]:
        """A bar on stderr for work that may take long; yields what is told the share that is done.

        There is none where stderr is no terminal, nor for programs, nor with -q.
        """
        if self.as_json or self.quiet or not sys.stderr.isatty():
            yield lambda share: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(escape(printable(label))), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("", total=1.0)
            yield lambda share: shown.update(task, completed=share)

    def failure(self, source: str, error: Exception) -> int:
        """Say in one line why an input failed; returns the exit code that it deserves."""
        if self.debug:
            traceback.print_exception(error)
        known = explained(error, source)
        message = " ".join(str(known).split())
        if self.as_json:
            self.event({"event": "error", "input": source, "error": message})
        complain(message)
        return known.exit_code


def each(inputs: Sequence[str], work: Callable[[str], int], voice: Voice) -> int:
    """Work on one input after another; the others still run where one of them fails.

    Returns:
        The only input's own exit code; for several, 1 if any failed. A code of 128 or more says
        that a signal stopped the work, and ends it.

    Raises:
        UsageError: the options are wrong, for all inputs alike.
    """
    codes = []
    for source in inputs:
        try:
            codes.append(work(source))
        except (UsageError, BrokenPipeError):
            raise
        except Exception as error:
            codes.append(voice.failure(source, error))
        if codes[-1] >= 128:
            return codes[-1]
    return codes[0] if len(codes) == 1 else int(any(codes))


def explained(error: Exception, source: str = "") -> InrError:
    """The error as one that reaches a user: it names its input, and what was not foreseen is said.

    Args:
        error: What was raised.
        source: The input that was worked on, if any.
    """
    name = STDIN if source == "-" else source
    if isinstance(error, InrError):
        about_input = isinstance(error, FitError | InputError)
        if not about_input or str(error).startswith(name):
            return error
        return type(error)(f"{name}: {error}")
    prefix = f"{name}: " if name else ""
    if isinstance(error, OSError):
        place = error.filename or name or "standard output"
        return OutputError(f"{place}: {(error.strerror or str(error)).lower()}")
    # torch says so in a RuntimeError
    if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):
        return InrError(f"{prefix}out of memory; try a smaller input or a smaller field")
    return InrError(
        f"{prefix}unexpected {type(error).__name__}: {error}; "
        "please report this, with what --debug shows"
    )


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"inr: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """One line for a terminal: what a file's name holds must neither move the cursor nor fail."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return clean.encode(encoding, "backslashreplace").decode(encoding)


def escaped(text: str) -> str:
    """A text of a stranger in one line: what could move a cursor or turn the writing is spelt out.

    That is all but printable characters and spaces: controls, breaks, directions, surrogates.
    """
    return "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in text)


def number(value: float) -> float | None:
    """A float for JSON: None where it is infinite."""
    return round(value, 4) if abs(value) < 1e300 else None
