"""Small SIREN files against COIN at equal bits per pixel, on Kodak's pictures at 384 x 256.

Pictures are halved by box averaging. Ours are whole `.inr` files of the preset image/siren-small,
at a width per rate. COIN (E. Dupont, A. Golinski, M. Alizadeh, Y. W. Teh, A. Doucet, "COIN:
COmpression with Implicit Neural representations", arXiv:2103.03123) is a SIREN of omega 30
everywhere, biases drawn as weights are, its parameters rounded to fp16 and counted at two bytes
each and nothing else: no header, no sizes. Networks are those of its ladder at a quarter of the
parameters, for a quarter of the pixels. Its 50,000 full-batch steps at 2e-4 are out of a CPU's
reach, so both have random batches of the same size and a rate that falls along half a cosine to a
hundredth; steps are as many. COIN has the best of several learning rates on each picture.

    python benchmarks/coin.py FOLDER OUT [--pictures kodim01 ...] [--steps 3000] [--rates 0.3]

appends to OUT/coin.csv what it does not hold yet and prints the tables.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import machine, table
from doh import halved

import inr
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.fitting.fit import Fit
from inr.presets import Preset
from inr.signals.image import Image

PICTURES = tuple(f"kodim{k:02d}" for k in range(1, 9))
COIN_LRS = (1e-3, 3e-3)

COLUMNS = ("picture", "rate", "method", "network", "numbers", "bytes", "psnr", "lr", "seconds")
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rate:
    """Networks of about so many bits per pixel: sine layers and width of COIN's, width of ours."""

    coin: tuple[int, int]
    width: int


RATES = {
    0.15: Rate((5, 14), 24),
    0.3: Rate((5, 20), 35),
    0.6: Rate((5, 29), 51),
}


def ours(image: Image, rate: Rate, steps: int) -> Row:
    """A file by the preset, at the width of a rate."""
    preset = presets.load("image/siren-small")
    net = preset.hyperparameters | {"hidden_features": rate.width}
    begin = time.process_time()
    fit = inr.fit(image, Preset(preset.field, net, preset.recipe), steps=steps, device="cpu")
    data = encode(fit.field, image, rounding=fit.rounding)
    found = row("siren-small", f"5x{rate.width}", fit, len(data), preset.recipe.lr, begin)
    return found | {"psnr": round(image.metrics(decode(data))["psnr"], 3)}


def coin(image: Image, rate: Rate, steps: int) -> list[Row]:
    """COIN's network at each learning rate, as fp16."""
    layers, width = rate.coin
    preset = presets.load("image/coin")
    net = preset.hyperparameters | {"hidden_features": width, "hidden_layers": layers - 1}
    batch = presets.load("image/siren-small").recipe.batch
    rows = []
    for lr in COIN_LRS:
        recipe = dataclasses.replace(
            preset.recipe, lr=lr, schedule="cosine", final_lr=0.01, batch=batch
        )
        begin = time.process_time()
        made = Preset(preset.field, net, recipe)
        fit = inr.fit(image, made, steps=steps, device="cpu")
        with torch.no_grad():
            for parameter in fit.field.parameters():
                parameter.copy_(parameter.half())
        size = 2 * sum(p.numel() for p in fit.field.parameters())
        found = row("coin, fp16", f"{layers}x{width}", fit, size, lr, begin)
        rows.append(found | {"psnr": round(image.metrics(fit.field)["psnr"], 3)})
    return rows


def row(method: str, network: str, fit: Fit, size: int, lr: float, begin: float) -> Row:
    """One line of the sheet, but for the picture, the rate and the PSNR."""
    return {
        "method": method,
        "network": network,
        "numbers": sum(p.numel() for p in fit.field.parameters()),
        "bytes": size,
        "lr": lr,
        "seconds": round(time.process_time() - begin, 1),
    }


def report(rows: list[Row], pixels: int) -> None:
    """A table for each rate: the pictures, then their means."""
    for rate in dict.fromkeys(r["rate"] for r in rows):
        lines = []
        for picture in dict.fromkeys(r["picture"] for r in rows):
            own = [r for r in rows if (r["picture"], r["rate"]) == (picture, rate)]
            files = [r for r in own if r["method"] == "siren-small"]
            others = [r for r in own if r["method"] != "siren-small"]
            if files and others:
                best = max(others, key=lambda r: r["psnr"])
                lines.append((picture, files[0], best))
        if not lines:
            continue
        cells = [
            (8 * a["bytes"] / pixels, a["psnr"], 8 * b["bytes"] / pixels, b["psnr"])
            for _, a, b in lines
        ]
        shown = [
            [name, f"{x:.3f}", f"{p:.2f}", f"{y:.3f}", f"{q:.2f}", f"{p - q:+.2f}"]
            for (name, _, _), (x, p, y, q) in zip(
                [*lines, ("mean", None, None)],
                [*cells, tuple(map(mean, zip(*cells, strict=True)))],
                strict=True,
            )
        ]
        head = ["picture", "siren-small, bpp", "PSNR, dB", "coin, bpp", "PSNR, dB", "gain, dB"]
        print(f"\nabout {rate} bits per pixel\n\n{table(head, shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Kodak's pictures, 768 x 512")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", nargs="+", default=PICTURES)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rates", nargs="+", type=float, choices=RATES, default=[0.3])
    args = parser.parse_args()
    print(machine())
    args.out.mkdir(parents=True, exist_ok=True)
    sheet = args.out / "coin.csv"
    rows = read(sheet)
    for rate in args.rates:
        for picture in args.pictures:
            known = {r["method"] for r in rows if (r["picture"], r["rate"]) == (picture, rate)}
            image = halved(args.folder / f"{picture}.png")
            found = []
            if "siren-small" not in known:
                found.append(ours(image, RATES[rate], args.steps))
            if "coin, fp16" not in known:
                found += coin(image, RATES[rate], args.steps)
            for line in found:
                rows.append({"picture": picture, "rate": rate} | line)
                print(rows[-1], flush=True)
            write(sheet, rows)
    report(rows, halved(args.folder / f"{args.pictures[0]}.png").count)


def read(sheet: Path) -> list[Row]:
    """What an earlier run left."""
    if not sheet.exists():
        return []
    with sheet.open(newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for r in rows:
        r |= {"rate": float(r["rate"]), "bytes": int(r["bytes"]), "psnr": float(r["psnr"])}
    return rows


def write(sheet: Path, rows: list[Row]) -> None:
    """Put all rows into the sheet."""
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
