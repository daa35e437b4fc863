"""`inr info`: what a file holds, without decoding it and without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from apps.cli.common import Voice, exit_code, new_parser, parse
from inr.errors import InputError, InrError
from inr.limits import Limits


def run(argv: Sequence[str]) -> int:
    """Describe each file; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args.json)
    codes = []
    for path in args.inputs:
        try:
            facts = describe(path)
            voice.event(facts, "\n".join(f"{key:<16}{_text(v)}" for key, v in facts.items()))
            codes.append(0)
        except InrError as error:
            if len(args.inputs) == 1:
                raise
            voice.failure(path, error)
            codes.append(error.exit_code)
    return exit_code(codes)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("info", "Show what an .inr file holds.")
    p.add_argument("inputs", nargs="+", help=".inr files; - for standard input")
    return p


def describe(path: str) -> dict[str, Any]:
    """Facts about one file, JSON-ready.

    Raises:
        InputError: the file is missing, damaged or unsupported.
    """
    import math

    from inr.codec import format as container
    from inr.codec.decode import inspect
    from inr.metrics import bits_per_pixel

    data = read(path)
    try:
        contents = inspect(data)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    pixels = math.prod(contents.domain.shape)
    quality = contents.psnr
    facts: dict[str, Any] = {"file": path, "bytes": len(data)}
    facts["bpp"] = round(bits_per_pixel(len(data), pixels), 4)
    if quality is not None:
        facts["psnr"] = "exact" if quality > 600 else quality
    facts |= {"kind": contents.domain.kind} | contents.domain.describe()
    facts |= {"field": contents.field, "hyperparameters": contents.hyperparameters}
    facts["version"] = container.VERSION
    facts["overhead"] = container.overhead(data)
    facts["chunks"] = [
        {"type": kind.decode(), "bytes": len(body)} for kind, body in contents.container.chunks
    ]
    facts["digest"] = data[-container.DIGEST_BYTES :].hex()
    return facts


def read(path: str) -> bytes:
    """Bytes of a file or of standard input, within the limits."""
    from inr.files import read_bytes

    limit = Limits().file_bytes
    return sys.stdin.buffer.read(limit + 1) if path == "-" else read_bytes(path, limit)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, dict):
        return " ".join(f"{v}" for v in value.values())
    return f"{value:,}" if isinstance(value, int) else str(value)
