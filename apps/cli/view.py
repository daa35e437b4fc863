"""`inr view`: a page of HTML that shows what an `.inr` file holds, beside its original."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli.common import (
    add_output_options,
    add_reading_options,
    check_output,
    new_parser,
    parse,
    read_input,
    reading_of,
    set_computing,
    write_stdout,
)
from apps.cli.info import EXACT, as_text, facts_of
from apps.cli.voice import STDIN, Voice, each, escaped
from apps.view.page import PAGE_BYTES
from inr.errors import UsageError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Domain, Signal

KINDS = {
    "array": ("apps.view.array", "An array"),
    "audio": ("apps.view.audio", "A sound"),
    "image": ("apps.view.image", "A picture"),
    "shape": ("apps.view.shape", "A shape"),
    "video": ("apps.view.video", "A clip"),
    "volume": ("apps.view.volume", "A volume"),
}
"""By kind of signal, the module whose `sections` say what a page shows of it, and its name."""

MOST_MB = 512.0


def run(argv: Sequence[str]) -> int:
    """Write one page; returns the exit code."""
    args = parse(parser(), argv)
    if args.input == "-" and not args.output:
        raise UsageError("standard input has no name: say where to write with -o")
    if not 1 <= args.max_mb <= MOST_MB:
        raise UsageError(f"--max-mb is {args.max_mb:g}: give a number from 1 to {MOST_MB:g}")
    set_computing(args)
    voice = Voice(args, to_stderr=args.output == "-")
    return each([args.input], lambda source: _view(source, args, voice), voice)


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("view", "Write one self-contained HTML page that shows an .inr file.")
    p.add_argument("input", help=".inr file; - for standard input")
    p.add_argument("--original", type=str, help="what was fitted: it is shown beside, with errors")
    p.add_argument("--max-mb", type=float, default=PAGE_BYTES / 1e6, help="size of the page, about")
    add_output_options(p)
    # how a shape was read stands in the file, and what is kept of a picture changes no pixel
    add_reading_options(p, [kind for kind in KINDS if kind not in ("shape", "image")])
    return p


def _view(source: str, args: Namespace, voice: Voice) -> int:
    """Write the page of one file; returns its exit code."""
    from inr.codec.decode import decode
    from inr.files import write_bytes

    begin = time.perf_counter()
    name = STDIN if source == "-" else source
    target = args.output or str(Path(source).with_suffix(".html"))
    data = read_input(source)
    field = decode(data)
    original = None
    if args.original is not None:
        kind = field.domain.kind
        original = _original(args.original, field.domain, reading_of(args, [kind])[kind])
    if not check_output(target, source, force=args.force, skip=args.skip_existing):
        voice.event({"event": "skipped", "input": source, "output": target})
        return 0
    text = render_page(name, data, field, original, int(args.max_mb * 1e6)).encode()
    if target == "-":
        write_stdout(text)
    else:
        write_bytes(target, text, overwrite=args.force)
    seconds = time.perf_counter() - begin
    out = "standard output" if target == "-" else target
    voice.event(
        {
            "event": "done",
            "input": source,
            "output": target,
            "bytes": len(text),
            "seconds": round(seconds, 3),
        },
        f"{name} -> {out}: page of {len(text) / 1e6:.1f} MB in {seconds:.1f} s",
    )
    return 0


def render_page(name: str, data: bytes, field: Field, original: Signal | None, room: int) -> str:
    """The page of a file.

    Args:
        name: What the file is called.
        data: Its bytes.
        field: What it decodes to.
        original: What was fitted, if it is known.
        room: Bytes that the page may have, about.
    """
    from apps.view.page import page, within
    from fields import registry
    from fields.base import hyperparameter_names

    told = facts_of(data)
    module, noun = KINDS[told["kind"]]
    sections = within(room, lambda share: import_module(module).sections(field, original, share))
    names = hyperparameter_names(registry.field_class(told["field"]))
    chosen = dict(zip(names, told.pop("hyperparameters"), strict=False))
    highlights = _highlights(told, field.domain)
    measured = {} if original is None else _measured(field, original)
    for key in ("psnr", *getattr(original, "shown", ())):
        if key in measured:
            highlights[_unit(key)[0]] = _figure(key, measured.pop(key))
    facts = {_unit(key)[0]: _figure(key, value) for key, value in measured.items()}
    said = told.pop("metadata", {})
    facts |= {key.replace("_", " "): escaped(text) for key, text in said.items()}
    facts |= {key: as_text(value) for key, value in told.items() if key not in ("chunks", "psnr")}
    facts |= {f"{told['field']}: {key}": as_text(value) for key, value in chosen.items()}
    facts["chunks"] = ", ".join(f"{c['type']} {c['bytes']:,} bytes" for c in told["chunks"])
    beside = ", beside the original" if original is not None else ""
    intro = f"{noun} as a continuous function, decoded from an .inr file{beside}."
    return page(Path(name).name, intro, highlights, sections, facts)


def _original(path: str, domain: Domain, options: dict[str, Any]) -> Signal:
    """Read the original, and hold it against what was decoded.

    Raises:
        InputError: it cannot be read, or is of another kind, size or type.
    """
    from apps.view.original import held_against
    from inr.signals import open_signal

    return held_against(open_signal(path, kind=domain.kind, **options), domain, path)


def _measured(field: Field, original: Signal) -> dict[str, float]:
    """Quality of what was decoded, by the original's own measures where the domains agree."""
    from inr.metrics import psnr_arrays
    from inr.rendering import render
    from inr.signals.base import GridSignal

    domain: Domain = field.domain
    if not isinstance(original, GridSignal) or original.domain == domain:
        return {k: v for k, v in original.metrics(field).items() if k != "psnr_float"}
    return {"psnr": psnr_arrays(render(field), original.samples, domain.peak)}


UNITS = {
    "psnr": ("PSNR, measured", "dB"),
    "snr": ("SNR", "dB"),
    "lsd": ("log-spectral distance, log10 of power", ""),
    "iou": ("IoU", ""),
    "chamfer": ("Chamfer, in the file's units", ""),
    "chamfer_share": ("Chamfer, of the diagonal", "%"),
    "bpp": ("bits per pixel", ""),
    "kbps": ("kbit/s", ""),
}
"""Names of measures for people, and their units, where their keys do not say so."""


def _unit(key: str) -> tuple[str, str]:
    return UNITS.get(key, (key.replace("_", " "), ""))


def _figure(key: str, value: float) -> str:
    if value == float("inf"):
        return "exact"
    unit = _unit(key)[1]
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{value:.2f} {unit}" if unit else f"{value:.4g}"


def _highlights(told: dict[str, Any], domain: Domain) -> dict[str, str]:
    """The figures at the top of the page, from what `inr info` tells."""
    highlights = {"field": told["field"], "size": f"{told['bytes']:,} bytes"}
    key, cost = next(iter(domain.density(told["bytes"]).items()))
    highlights[_unit(key)[0]] = f"{cost:.3f}"
    if "psnr" in told:
        quality = told["psnr"]
        exact = quality is None or quality > EXACT
        highlights["PSNR, as stated"] = "exact" if exact else f"{quality:.2f} dB"
    return highlights
