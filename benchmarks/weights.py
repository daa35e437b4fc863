"""What storing a fitted field takes: bytes, quality and time by effort, size and 8 bits.

    python benchmarks/weights.py --fields grid siren --efforts 1 4 7

Each field is fitted once to half-size camera (256 x 256), then stored with at most 0.1 dB of loss
at each effort, in 60 % of the bytes of the first of them, and, a SIREN of 256 x 3, in 8 bits a
parameter. Prints Markdown. The last column has the bytes of the file that are neither symbols, at
the ideal cost under their entropy models, nor these models.
"""

from __future__ import annotations

import argparse
import time

import imageio.v3
import numpy as np
import torch
from common import ROOT, machine, table

import inr
from fields.base import Field
from inr.codec import entropy
from inr.codec.decode import decode, inspect, symbols
from inr.codec.encode import encode, split_rows
from inr.codec.quantize import step_size
from inr.presets import Preset, Recipe
from inr.signals.image import Image

SIREN = {"hidden_features": 28, "hidden_layers": 4}
FIELDS: dict[str, tuple[str | Preset, int | None]] = {
    "grid": ("grid", None),
    "siren": (Preset("siren", SIREN, Recipe(lr=2e-3)), 600),
    "doh": (Preset("doh", {"target_options": SIREN, "latents": 1500}, Recipe(lr=0.01)), 300),
    "finr": ("finr", 150),
    "wire": (
        Preset("wire", {"hidden_features": 32, "hidden_layers": 2}, Recipe(lr=5e-3)),
        200,
    ),
}


def ideal_bytes(row: entropy.Row, model: bytes) -> float:
    """What a row's symbols cost under its model, and the model itself."""
    if model[0] == entropy.INTERLACED:
        bits = entropy.interlaced_bits(row.symbols, model)
    elif model[0] in entropy.UNCODED:
        bits = 0.0
    else:
        low = model[1] if model[0] == entropy.WIDE else 0
        counts = np.bincount(np.abs(row.symbols.astype(np.int64) >> low))
        bits = entropy.cost_bits(counts, model) + low * len(row.symbols)
    return bits / 8 + len(model)


def facts(field: Field, image: Image, data: bytes, seconds: float) -> list[str]:
    """One line of the table."""
    rows = symbols(inspect(data))
    ideal = sum(ideal_bytes(row, entropy.best_model(row.symbols)) for row in rows)
    lost = image.quality(field) - image.quality(decode(data))
    return [f"{len(data):,}", f"{lost:+.3f}", f"{seconds:.1f} s", f"{len(data) - ideal:.0f}"]


def timed(field: Field, image: Image, **bounds: int) -> list[str]:
    """A file and what it took."""
    begin = time.perf_counter()
    data = encode(field, image, **bounds)  # type: ignore[arg-type]
    return facts(field, image, data, time.perf_counter() - begin)


def eight_bits(steps: int) -> list[str]:
    """A SIREN of 256 x 3, 128 x 128 pixels: matrices in 8 bits, first layer and biases in 16."""
    camera = np.asarray(imageio.v3.imread(ROOT / "assets/camera.png"))
    image = Image.from_array(camera[128:256, 128:256])
    preset = Preset("siren", {"hidden_features": 256, "hidden_layers": 2}, Recipe(lr=5e-4))
    torch.manual_seed(0)
    field = inr.fit(image, preset, steps=steps).field
    peaks = [float(np.abs(row).max()) for row in split_rows(field)]
    most = [32767 if k == 0 or k % 2 else 127 for k in range(len(peaks))]
    indices = [
        next(i for i in range(256) if peak / float(step_size(i)) <= largest)
        for peak, largest in zip(peaks, most, strict=True)
    ]
    begin = time.perf_counter()
    data = encode(field, image, rounding=indices)
    return facts(field, image, data, time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument("--efforts", nargs="+", type=int, default=[1, 4, 7])
    parser.add_argument("--eight-bits", type=int, default=0, metavar="STEPS")
    args = parser.parse_args()
    camera = np.asarray(imageio.v3.imread(ROOT / "assets/camera.png"))
    half = camera.reshape(256, 2, 256, 2).mean((1, 3)).round().astype(np.uint8)
    image = Image.from_array(half)
    print(machine(), "\n")
    lines = []
    for name in args.fields:
        preset, steps = FIELDS[name]
        torch.manual_seed(0)
        field = inr.fit(image, preset, steps=steps).field
        count = sum(stored.tensor.numel() for stored in field.stored_parameters())
        for effort in args.efforts:
            found = timed(field, image, effort=effort)
            lines.append([name, f"{count:,}", "0.1 dB", str(effort), *found])
        part = int(0.6 * int(lines[-len(args.efforts)][4].replace(",", "")))
        for effort in args.efforts:
            found = timed(field, image, effort=effort, max_bytes=part)
            lines.append([name, f"{count:,}", f"{part:,} bytes", str(effort), *found])
    if args.eight_bits:
        lines.append(["siren 256 x 3", "132,609", "8 bits", "-", *eight_bits(args.eight_bits)])
    head = ["field", "parameters", "bound", "effort", "bytes", "loss, dB", "time", "other bytes"]
    print(table(head, lines))


if __name__ == "__main__":
    main()
