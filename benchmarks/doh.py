"""D'OH and PRANC against plain quantised SIREN at equal bytes, on photographs of 384 x 256.

Pictures are halved by box averaging. All fits have the same steps and the same random batches of
the same size. D'OH and PRANC count whole `.inr` files; their fits end on rounded parameters. The
baseline is COIN's way (E. Dupont et al., arXiv:2103.03123): SIREN of 3, 5 or 10 sine layers, omega
30, fitted in float, its parameters then stored as fp16, or with 8 bits, uniform between the largest
magnitudes of each tensor; of it the parameters alone count, at 2 bytes or 1, without header or
scales, and the better of two learning rates. The same SIREN fits are also coded as `.inr`.

    python benchmarks/doh.py FOLDER OUT [--pictures kodim03 kodim05] [--steps 2000] [--rates 0 1 2]

appends to OUT/curve.csv what it does not hold yet, draws OUT/curve.png and prints the tables.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import torch
from common import machine, read_sheet, table, write_sheet
from matplotlib.figure import Figure

import fields.doh
import inr
from fields.base import Field
from inr.codec.decode import inspect
from inr.codec.encode import encode
from inr.fitting.fit import Fit
from inr.presets import Preset, Recipe
from inr.signals.image import Image

BATCH = 8192
FIT_CACHE = 4 << 30
"""So that the bases of the two highest rates are not drawn anew at each step."""

TARGET = {"first_omega": 20.0, "hidden_omega": 15.0}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
COLUMNS = ("picture", "method", "network", "numbers", "bytes", "psnr", "lr", "seconds")
NUMBERS = {"numbers": int, "bytes": int, "psnr": float}
Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A field of one rate: the target's sine layers and their width, the code's length."""

    layers: int
    width: int
    latents: int


DOH = (
    Point(4, 24, 850),
    Point(4, 32, 2450),
    Point(5, 38, 4950),
    Point(5, 54, 10750),
    Point(5, 76, 21800),
)
"""About 0.073, 0.159, 0.304, 0.61 and 1.21 bits per pixel, the rates of COIN's five networks."""

PRANC = (Point(4, 20, 1030), Point(4, 32, 2700), Point(5, 38, 5300))
SIRENS = (
    ((5, 8), (5, 9), (5, 10), (3, 13)),
    ((5, 15), (3, 20)),
    ((5, 20), (5, 21)),
    ((5, 30), (10, 20)),
    ((5, 42), (10, 28)),
)
"""Sine layers and widths by rate; COIN's own have four times their parameters, for pictures of four
times the pixels."""


def halved(path: Path) -> Image:
    """A picture at half its size, each pixel the mean of four, rounded to 8 bits."""
    samples = np.asarray(imageio.v3.imread(path), np.float64)
    high, wide = (n // 2 for n in samples.shape[:2])
    means = samples[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2, -1).mean((1, 3))
    return Image.from_array(np.rint(means).astype(np.uint8))


def fit(image: Image, name: str, hyperparameters: dict[str, Any], steps: int, **recipe: Any) -> Fit:
    """A fit on random batches, its rate falling along half a cosine to a hundredth."""
    given = {"schedule": "cosine", "final_lr": 0.01, "batch": BATCH, "steps": steps} | recipe
    return inr.fit(image, Preset(name, hyperparameters, Recipe(**given)))


def generated(image: Image, name: str, point: Point, lr: float, steps: int) -> Iterator[Row]:
    """D'OH with free first and last layers, or PRANC, in a file."""
    begin = time.perf_counter()
    sizes = {"hidden_features": point.width, "hidden_layers": point.layers - 1}
    given: dict[str, Any] = {
        "target_options": TARGET | sizes,
        "latents": point.latents,
    }
    if name == "doh":
        given["free_up_to"] = image.channels * point.width
    usual, fields.doh.CACHE_BYTES = fields.doh.CACHE_BYTES, FIT_CACHE
    done = fit(image, name, given, steps, lr=lr, quantize_db=0.7, quantize_share=0.5)
    fields.doh.CACHE_BYTES = usual
    data = encode(done.field, image, rounding=done.rounding)
    yield row(
        name,
        f"{point.layers}x{point.width}",
        done.field,
        len(data),
        done.metrics["psnr"],
        lr,
        begin,
    )


def plain(image: Image, layers: int, width: int, steps: int) -> Iterator[Row]:
    """SIREN at the better of two rates: as fp16, as 8 bits, and as a file."""
    begin = time.perf_counter()
    given = {"hidden_features": width, "hidden_layers": layers - 1}
    runs = {lr: fit(image, "siren", given, steps, lr=lr) for lr in (1e-3, 3e-3)}
    lr, best = max(runs.items(), key=lambda item: item[1].metrics["psnr"])
    name = f"{layers}x{width}"
    data = encode(best.field, image)
    quality = inspect(data).psnr or math.nan
    yield row("siren, .inr", name, best.field, len(data), quality, lr, begin)
    weights = {k: v.clone() for k, v in best.field.state_dict().items()}
    ways: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
        "siren, fp16": (lambda w: w.half().float(), 2),
        "siren, 8 bits": (_eight_bits, 1),
    }
    for method, (rounded, each) in ways.items():
        best.field.load_state_dict({k: rounded(v) for k, v in weights.items()})
        count = sum(w.numel() for w in weights.values())
        quality = image.metrics(best.field)["psnr"]
        yield row(method, name, best.field, each * count, quality, lr, begin)


def _eight_bits(weights: torch.Tensor) -> torch.Tensor:
    step = weights.abs().max() / 127
    return torch.round(weights / step) * step


def row(
    method: str, network: str, field: Field, size: int, psnr: float, lr: float, begin: float
) -> Row:
    """One line of the sheet."""
    numbers = sum(s.tensor.numel() for s in field.stored_parameters())
    seconds = round(time.perf_counter() - begin, 1)
    values = (method, network, numbers, size, round(psnr, 3), lr, seconds)
    return dict(zip(COLUMNS[1:], values, strict=True))


def envelope(rows: list[Row], size: float) -> float | None:
    """Best PSNR of a method at so many bytes, linear in log bytes between its undominated nets."""
    best: list[tuple[float, float]] = []
    for r in sorted(rows, key=lambda r: (r["bytes"], -r["psnr"])):
        if not best or r["psnr"] > best[-1][1]:
            best.append((math.log(r["bytes"]), r["psnr"]))
    x = math.log(size)
    if not best or not best[0][0] <= x <= best[-1][0]:
        return None
    return float(np.interp(x, *zip(*best, strict=True)))


def report(rows: list[Row], out: Path) -> None:
    """Tables on stdout, and the curves."""
    pictures = list(dict.fromkeys(r["picture"] for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    figure = Figure(figsize=(6 * len(pictures), 5), layout="constrained")
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    for picture, panel in zip(pictures, panels, strict=True):
        own = {m: [r for r in rows if (r["picture"], r["method"]) == (picture, m)] for m in methods}
        others = [m for m in methods if m.startswith("siren")]
        lines = []
        for method in ("doh", "pranc"):
            for r in sorted(own.get(method, []), key=lambda r: r["bytes"]):
                rate = f"{8 * r['bytes'] / (384 * 256):.3f}"
                found = [envelope(own[m], r["bytes"]) for m in others]
                cells = ["-" if q is None else f"{q:.2f}" for q in found]
                lines.append(
                    [
                        method,
                        r["network"],
                        r["numbers"],
                        r["bytes"],
                        rate,
                        f"{r['psnr']:.2f}",
                        *cells,
                    ]
                )
        head = ["method", "target", "numbers", "bytes", "bits per pixel", "PSNR, dB", *others]
        print(f"\n{picture}\n\n{table(head, lines)}")
        for method in methods:
            curve = sorted(own[method], key=lambda r: r["bytes"])
            if curve:
                style = "-o" if method in ("doh", "pranc") else "--x"
                sizes = [8 * r["bytes"] / (384 * 256) for r in curve]
                panel.plot(sizes, [r["psnr"] for r in curve], style, label=method, lw=1.3)
        panel.set(xlabel="bits per pixel", ylabel="PSNR, dB", title=picture, xscale="log")
        panel.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], minor=False)
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(out / "curve.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Kodak's pictures, 768 x 512")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", nargs="+", default=["kodim03", "kodim05"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rates", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    print(machine())
    args.out.mkdir(parents=True, exist_ok=True)
    sheet = args.out / "curve.csv"
    rows = read_sheet(sheet, NUMBERS)
    jobs: list[tuple[str, str, Callable[[Image], Iterator[Row]]]] = []
    for rate in args.rates:
        point, lr = DOH[rate], 0.01 if rate else 0.02
        job = _with(generated, "doh", point, lr, args.steps)
        jobs.append(("doh", f"{point.layers}x{point.width}", job))
    for layers, width in (net for rate in args.rates for net in SIRENS[rate]):
        job = _with(plain, layers, width, args.steps)
        jobs.append(("siren, fp16", f"{layers}x{width}", job))
    for point in (PRANC[rate] for rate in args.rates if rate < len(PRANC)):
        job = _with(generated, "pranc", point, 0.005, args.steps)
        jobs.append(("pranc", f"{point.layers}x{point.width}", job))
    for method, network, job in jobs:
        for picture in args.pictures:
            if (picture, method, network) in {
                (r["picture"], r["method"], r["network"]) for r in rows
            }:
                continue
            for found in job(halved(args.folder / f"{picture}.png")):
                rows.append({"picture": picture} | found)
                print(rows[-1], flush=True)
            write_sheet(sheet, COLUMNS, rows)
    report(rows, args.out)


def _with(function: Callable[..., Iterator[Row]], *arguments: Any) -> Callable[..., Iterator[Row]]:
    return lambda image: function(image, *arguments)


if __name__ == "__main__":
    main()
