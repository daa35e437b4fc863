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
        count = verify(source)
        name = STDIN if source == "-" else source
        voice.event({"event": "ok", "file": source, "parameters": count}, f"{name}: intact")
        return 0

    return each(args.inputs, check, voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("verify", "Check that .inr files are intact.")
    p.add_argument("inputs", nargs="+", help=".inr files; - for standard input")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    return p


def verify(source: str) -> int:
    """Check one file; returns how many parameters it holds.

    Raises:
        InputError: it is missing, damaged or unsupported.
    """
    from inr.codec.decode import inspect, symbols

    return sum(len(row.symbols) for row in symbols(inspect(read_input(source))))
