"""`inr verify`: checksums, digest and every coded parameter of each file; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse, read_input
from apps.cli.voice import STDIN, Voice, each


def run(argv: Sequence[str]) -> int:
    """Check each file; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args)

    def check(source: str) -> int:
        count, version = verify(source)
        name = STDIN if source == "-" else source
        facts = {"event": "ok", "file": source, "version": version, "parameters": count}
        voice.event(facts, f"{name}: intact, format {version}")
        return 0

    return each(args.inputs, check, voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("verify", "Check that .inr files are intact.")
    p.add_argument("inputs", nargs="+", help=".inr files; - for standard input")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    return p


def verify(source: str) -> tuple[int, str]:
    """Check one file; returns how many parameters it holds, and the version of its format.

    Raises:
        InputError: it is missing, damaged or unsupported.
    """
    from inr.codec.decode import inspect, symbols

    contents = inspect(read_input(source))
    count = sum(len(row.symbols) for row in symbols(contents))
    return count, contents.container.version
