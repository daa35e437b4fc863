"""`inr info`: what a file holds, without decoding it and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from apps.cli.common import new_parser, parse, read_input
from apps.cli.voice import STDIN, Voice, each, escaped

if TYPE_CHECKING:
    from inr.codec.decode import Contents


def run(argv: Sequence[str]) -> int:
    """Describe each file; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args)

    def show(source: str) -> int:
        facts = describe(source)
        lines = {"file": STDIN if source == "-" else source}
        told = {key: value for key, value in facts.items() if key not in UNLIKE}
        lines |= {key: as_text(value) for key, value in told.items()}
        lines |= {key: escaped(text) for key, text in facts.get("metadata", {}).items()}
        for number, layer in enumerate(facts.get("layers", []), 1):
            lines[f"layer {number}"] = _layer(layer)
        lines["chunks"] = ", ".join(f"{c['type']} {c['bytes']:,}" for c in facts["chunks"])
        if "psnr" in facts:
            lines["psnr"] = "exact" if facts["psnr"] is None else f"{facts['psnr']:.2f} dB"
        voice.event(facts, *(f"{key:<16}{value}" for key, value in lines.items()))
        return 0

    return each(args.inputs, show, voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("info", "Show what an .inr file holds.")
    p.add_argument("inputs", nargs="+", help=".inr files; - for standard input")
    return p


def describe(source: str) -> dict[str, Any]:
    """Facts about one file, JSON-ready; a `psnr` of None stands for an exact file.

    Raises:
        InputError: the file is missing, damaged or unsupported.
    """
    return {"file": source} | facts_of(read_input(source))


def facts_of(data: bytes) -> dict[str, Any]:
    """Facts about the bytes of a file; see `describe`."""
    from inr.codec import format as container
    from inr.codec.decode import inspect

    contents = inspect(data)
    quality = contents.psnr
    facts: dict[str, Any] = {"bytes": len(data)}
    facts |= {name: round(x, 4) for name, x in contents.domain.density(len(data)).items()}
    if quality is not None:
        facts["psnr"] = None if quality > EXACT else quality
    facts |= {"kind": contents.domain.kind} | contents.domain.describe()
    facts |= {"field": contents.field, "hyperparameters": contents.hyperparameters}
    if contents.metadata:
        facts["metadata"] = contents.metadata
    facts |= _backend(contents)
    facts["version"] = contents.container.version
    facts["overhead"] = container.overhead(data)
    if contents.boundaries:
        ends = container.ends(contents.container, len(data))
        qualities = [*contents.boundaries, quality]
        facts["layers"] = [
            {"bytes": end} | ({} if q is None else {"psnr": None if q > EXACT else q})
            for end, q in zip(ends, qualities, strict=True)
        ]
    facts["chunks"] = [
        {"type": kind.decode(), "bytes": len(body)} for kind, body in contents.container.chunks
    ]
    facts["digest"] = data[-container.DIGEST_BYTES :].hex()
    return facts


def _backend(contents: Contents) -> dict[str, str]:
    """What would compute the field here, and why; a decoder computes on the CPU."""
    from fields.kernels import select
    from inr.codec.light import is_light

    if is_light(contents):
        return {"backend": "numpy", "backend_reason": "a dense grid is drawn without torch"}
    choice = select.choose(
        select.refusal(contents.field, contents.hyperparameters),
        "cpu",
        select.look(),
        precision=contents.domain.precision,
        may_build=False,
    )
    return {"backend": choice.backend, "backend_reason": choice.reason}


EXACT = 600.0
"""A file that states more dB than this decodes to the very samples that were fitted."""


UNLIKE = ("file", "metadata", "layers")
"""Facts that people are told in other words."""


def _layer(layer: dict[str, Any]) -> str:
    """What the first bytes of a file, to the end of a layer, are worth."""
    text = f"to byte {layer['bytes']:>10,}"
    if "psnr" not in layer:
        return text
    return f"{text} {layer['psnr']:8.2f} dB" if layer["psnr"] is not None else f"{text}    exact"


def as_text(value: Any) -> str:
    """A fact for people."""
    if isinstance(value, list):
        return ", ".join(f"[{as_text(v)}]" if isinstance(v, list) else as_text(v) for v in value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {as_text(v)}" for k, v in value.items()) + "}"
    return f"{value:,}" if isinstance(value, int) else str(value)
