"""Small SIREN files against COIN at equal bits per pixel, on Kodak's pictures at 384 x 256.

Pictures are halved by box averaging. Ours are whole `.inr` files: the network of the preset
image/siren-small trained without any rounding, then coded in no more bytes than COIN has ("to
size"); and that preset as it is, which learns its steps and takes the bytes it takes. COIN (E.
Dupont, A. Golinski, M. Alizadeh, Y. W. Teh, A. Doucet, "COIN: COmpression with Implicit Neural
representations", arXiv:2103.03123) is a SIREN of omega 30 everywhere, biases drawn as weights are,
its parameters rounded to fp16 and counted at two bytes each and nothing else: no header, no sizes.
Networks are those of its ladder at a quarter of the parameters, for a quarter of the pixels. Its
50,000 full-batch steps at 2e-4 are out of a CPU's reach, so both have random batches of the same
size and a rate that falls along half a cosine to a hundredth; steps are as many. COIN has the best
of three learning rates on each picture, and so has what is coded to its size.

    python benchmarks/coin.py FOLDER OUT [--pictures kodim01 ...] [--steps 10000] [--rates 0.3]

appends to OUT/coin.csv what it does not hold yet and prints the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import machine, read_sheet, table, write_sheet
from doh import halved

import inr
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.fitting.fit import Fit
from inr.presets import Preset
from inr.signals.image import Image

PICTURES = tuple(f"kodim{k:02d}" for k in range(1, 9))
COIN_LRS = (1e-3, 2e-3, 3e-3)
CODED_LRS = (1e-3, 1.5e-3, 2e-3)

CODED, LEARNT, COIN = "siren, to size", "siren-small", "coin, fp16"

COLUMNS = ("picture", "rate", "method", "network", "numbers", "bytes", "psnr", "lr", "seconds")
NUMBERS = {"rate": float, "bytes": int, "psnr": float}
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rate:
    """Networks of about so many bits per pixel.

    Args:
        coin: Sine layers and width of COIN's.
        coded: Width of ours that is coded to COIN's size.
        learnt: Width of ours that learns its steps.
    """

    coin: tuple[int, int]
    coded: int
    learnt: int

    @property
    def bytes(self) -> int:
        """COIN's: two for each parameter."""
        layers, n = self.coin
        return 2 * (3 * n + (layers - 1) * (n * n + n) + 3 * n + 3)


RATES = {
    0.15: Rate((5, 14), 24, 24),
    0.3: Rate((5, 20), 34, 33),
    0.6: Rate((5, 29), 49, 48),
}


def coded(image: Image, rate: Rate, steps: int) -> list[Row]:
    """The preset's network at each rate, trained without rounding, in no more bytes than COIN's."""
    preset = presets.load("image/siren-small")
    net = preset.hyperparameters | {"hidden_features": rate.coded}
    rows = []
    for lr in CODED_LRS:
        recipe = dataclasses.replace(preset.recipe, lr=lr, quantize_db=0.0, rate_weight=0.0)
        begin = time.process_time()
        fit = inr.fit(image, Preset(preset.field, net, recipe), steps=steps, device="cpu")
        data = encode(fit.field, image, max_bytes=rate.bytes)
        found = row(CODED, f"5x{rate.coded}", fit, len(data), lr, begin)
        rows.append(found | {"psnr": round(image.metrics(decode(data))["psnr"], 3)})
    return rows


def learnt(image: Image, rate: Rate, steps: int) -> list[Row]:
    """A file by the preset as it is."""
    preset = presets.load("image/siren-small")
    net = preset.hyperparameters | {"hidden_features": rate.learnt}
    begin = time.process_time()
    fit = inr.fit(image, Preset(preset.field, net, preset.recipe), steps=steps, device="cpu")
    data = encode(fit.field, image, rounding=fit.rounding)
    found = row(LEARNT, f"5x{rate.learnt}", fit, len(data), preset.recipe.lr, begin)
    return [found | {"psnr": round(image.metrics(decode(data))["psnr"], 3)}]


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
        found = row(COIN, f"{layers}x{width}", fit, size, lr, begin)
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
            by = {
                method: max((r for r in own if r["method"] == method), key=lambda r: r["psnr"])
                for method in (COIN, CODED, LEARNT)
            }
            (x, p), (y, q), (z, s) = ((8 * r["bytes"] / pixels, r["psnr"]) for r in by.values())
            lines.append((picture, x, p, y, q, q - p, z, s, s - p))
        lines.append(("mean", *(mean(column) for column in list(zip(*lines, strict=True))[1:])))
        forms = ("", ".3f", ".2f", ".3f", ".2f", "+.2f", ".3f", ".2f", "+.2f")
        shown = [
            [format(cell, form) for cell, form in zip(line, forms, strict=True)] for line in lines
        ]
        head = ["picture", "coin, bpp", "PSNR, dB", "siren to size, bpp", "PSNR, dB", "gain, dB"]
        head += ["siren-small, bpp", "PSNR, dB", "gain, dB"]
        print(f"\nabout {rate} bits per pixel\n\n{table(head, shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Kodak's pictures, 768 x 512")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", nargs="+", default=PICTURES)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rates", nargs="+", type=float, choices=RATES, default=[0.3])
    args = parser.parse_args()
    print(machine())
    args.out.mkdir(parents=True, exist_ok=True)
    sheet = args.out / "coin.csv"
    rows = read_sheet(sheet, NUMBERS)
    for rate in args.rates:
        for picture in args.pictures:
            known = {r["method"] for r in rows if (r["picture"], r["rate"]) == (picture, rate)}
            image = halved(args.folder / f"{picture}.png")
            for method, made in ((CODED, coded), (LEARNT, learnt), (COIN, coin)):
                for line in made(image, RATES[rate], args.steps) if method not in known else ():
                    rows.append({"picture": picture, "rate": rate} | line)
                    print(rows[-1], flush=True)
            write_sheet(sheet, COLUMNS, rows)
    report(rows, halved(args.folder / f"{args.pictures[0]}.png").count)


if __name__ == "__main__":
    main()
