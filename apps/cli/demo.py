"""`inr demo`: a photograph is fitted, stored, decoded at four times its size, and shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from apps.cli.common import build_kernels, make_folder, new_parser, parse
from apps.cli.voice import Voice, number, printable

SAMPLE = Path(__file__).parents[2] / "assets" / "coffee.png"


def run(argv: Sequence[str]) -> int:
    """Run the demonstration; returns the exit code."""
    args = parse(parser(), argv)
    voice = Voice(args)
    make_folder(args.out_dir)
    voice.event({"event": "start"}, "loading torch and lightning (a few seconds)")

    import numpy as np
    import PIL.Image

    import inr
    from apps.view.image import sections
    from apps.view.page import PAGE_BYTES, Section, page
    from apps.view.pieces import eight_bits, png
    from fields import name_of
    from inr.files import atomic_path, write_bytes
    from inr.fitting.callbacks import ProgressBar
    from inr.metrics import bits_per_pixel
    from inr.signals.image import Image, write_image

    source = Path(args.image) if args.image else SAMPLE
    image = inr.open(source)
    assert isinstance(image, Image)
    build_kernels(["grid"], "auto")
    begin = time.perf_counter()
    fit = inr.fit(image, callbacks=[] if args.json else [ProgressBar(printable(source.name))])
    folder = Path(args.out_dir)
    stored = folder / f"{source.stem}.inr"
    size = inr.save(fit, stored)
    coded = time.perf_counter()
    field = inr.load(stored)
    large = inr.render(field, scale=4)
    decoded = time.perf_counter()

    domain = image.domain
    small = inr.render(field)
    quality = image.metrics(field)["psnr"]
    bpp = bits_per_pixel(size, domain.height * domain.width)
    suffix = ".png" if domain.depth < 32 else ".tif"
    for name, samples in (("decoded", small), ("decoded-x4", large)):
        with atomic_path(folder / f"{source.stem}-{name}{suffix}") as part:
            write_image(part, samples, domain)

    parameters = sum(p.numel() for p in field.parameters())
    facts = {
        "source": f"{source.name}, {domain.width} x {domain.height}, "
        f"{source.stat().st_size:,} bytes",
        "field": f"{name_of(field)} of {parameters:,} parameters, {fit.steps} steps",
        "PSNR": f"{quality:.2f} dB",
        "size": f"{size:,} bytes, {bpp:.3f} bits per pixel",
        "time": f"{fit.seconds:.1f} s fitting, {coded - begin - fit.seconds:.1f} s coding, "
        f"{decoded - coded:.1f} s decoding at 4x",
    }
    side = min(96, domain.height, domain.width)
    top, left = (domain.height - side) // 2, (domain.width - side) // 2
    patch = eight_bits(image.samples[top : top + side, left : left + side], domain.low, domain.high)
    field_patch = large[4 * top : 4 * (top + side), 4 * left : 4 * (left + side)]
    bicubic = np.asarray(
        PIL.Image.fromarray(patch.squeeze()).resize(
            (4 * side, 4 * side), PIL.Image.Resampling.BICUBIC
        )
    ).reshape(4 * side, 4 * side, -1)
    shown = {
        "original": patch,
        "enlarged 4 times, bicubic": bicubic,
        "enlarged 4 times, from the field": eight_bits(field_patch, domain.low, domain.high),
    }
    detail = {
        "size": [side, side],
        "panes": [{"name": k, "label": k, "frames": [png(v)]} for k, v in shown.items()],
        "compare": [1, 2],
        "clear": domain.channels in (2, 4),
    }
    report = page(
        f"{source.name} as a field",
        "A photograph was fitted by a continuous function, stored as an .inr file, read back, and "
        "sampled at four times its resolution.",
        {"PSNR": f"{quality:.2f} dB", "size": f"{size:,} bytes", "bits per pixel": f"{bpp:.3f}"},
        [Section("The middle", "panes", detail), *sections(field, image, PAGE_BYTES)],
        facts,
    )
    write_bytes(folder / "index.html", report.encode())
    voice.event(
        {
            "event": "done",
            "psnr": number(quality),
            "bytes": size,
            "bpp": round(bpp, 4),
            "seconds": round(fit.seconds, 3),
            "page": str(folder / "index.html"),
        },
        *(f"{key:<8}{value}" for key, value in facts.items()),
        "",
        f"pictures and page: {folder / 'index.html'}",
    )
    return 0


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("demo", "Fit, store, decode and enlarge a photograph; write a page about it.")
    p.add_argument("image", nargs="?", help="a photograph; default: the coffee cup in assets/")
    p.add_argument("--out-dir", type=str, default="demo", help="folder for the results")
    return p
