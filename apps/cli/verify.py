"""`inr verify`: checksums, digest and every coded parameter of each file; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from apps.cli.common import Voice, exit_code, new_parser, parse
from apps.cli.info import read
from inr.errors import InputError, InrError


def run(argv: Sequence[str]) -> int:
    """Check each file; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args.json)
    codes = []
    for path in args.inputs:
        try:
            count = verify(path)
            voice.event({"event": "ok", "file": path, "parameters": count}, f"{path}: intact")
            codes.append(0)
        except InrError as error:
            if len(args.inputs) == 1:
                raise
            voice.failure(path, error)
            codes.append(error.exit_code)
    return exit_code(codes)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("verify", "Check that .inr files are intact.")
    p.add_argument("inputs", nargs="+", help=".inr files; - for standard input")
    return p


def verify(path: str) -> int:
    """Check one file; returns how many parameters it holds.

    Raises:
        InputError: it is missing, damaged or unsupported.
    """
    from inr.codec.decode import inspect, symbols

    data = read(path)
    try:
        return sum(len(row.symbols) for row in symbols(inspect(data)))
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
