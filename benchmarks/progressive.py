"""Progressive files: what each prefix is worth, and what it costs a file to have layers.

Pictures at half their size: the default grid, and networks in layers against one network of as many
bytes.

    python benchmarks/progressive.py PICTURE ... [--steps 2000] [--bytes 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import math
import time
from pathlib import Path

import imageio.v3
import numpy as np
import torch
from common import machine, table

import inr
from fields.base import Field
from fields.grid import Grid
from inr.codec import format as container
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.errors import TargetNotReached
from inr.presets import Preset, Recipe
from inr.rendering import render
from inr.signals.image import Image

SIZES = (24, 35, 47)
OMEGAS = (20.0, 30.0, 60.0)
ONE = 64
"""Widths of the networks in layers, and of the one network of about as many parameters."""

CUTS = 10
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(machine())
    for path in args.pictures:
        image = Image.from_array(halved(np.asarray(imageio.v3.imread(path))))
        print(f"\n## {path.stem}, {image.domain.shape[1]} x {image.domain.shape[0]}")
        layers_of_a_grid(image, args.seed)
        networks(image, args)


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    blocks = picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2].astype(np.float64)
    means = (blocks[::2, ::2] + blocks[1::2, ::2] + blocks[::2, 1::2] + blocks[1::2, 1::2]) / 4
    return np.rint(means).astype(np.uint8)


def layers_of_a_grid(image: Image, seed: int) -> None:
    """The default field, layered, and what that costs it."""
    fit = inr.fit(image, seed=seed, device="cpu")
    plain = encode(fit.field, image, rounding=fit.rounding)
    fit.field.layered = True
    data = encode(fit.field, image, rounding=fit.rounding)
    more = len(data) - len(plain)
    print(f"\ngrid: {len(data):,} bytes, {more:,} ({more / len(plain):.2%}) for its layers\n")
    show(image, data)
    for end in container.ends(inspect(data).container, len(data))[-3:-1]:
        with contextlib.suppress(TargetNotReached):
            coarse = encode(unlayered(fit.field), image, max_bytes=end)
            psnr = image.quality(decode(coarse))
            print(f"all levels under coarser steps in {end:,} bytes: {psnr:.2f} dB", flush=True)


def unlayered(field: Field) -> Field:
    """The field, its file of one layer."""
    work = copy.deepcopy(field)
    work.layered = False
    return work


def networks(image: Image, args: argparse.Namespace) -> None:
    """Networks in layers and one network, at equal bytes."""
    recipe = Recipe(lr=1e-3, schedule="cosine", final_lr=0.01, batch=4096)
    parts = [
        {"hidden_features": n, "first_omega": omega} for n, omega in zip(SIZES, OMEGAS, strict=True)
    ]
    for name, field, given in (
        ("one SIREN", "siren", {"hidden_features": ONE, "first_omega": OMEGAS[-1]}),
        ("progressive", "progressive", {"stages": len(SIZES), "base_options": parts}),
        (
            "progressive, prefix_weight 1",
            "progressive",
            {"stages": len(SIZES), "base_options": parts, "prefix_weight": 1.0},
        ),
    ):
        begin = time.perf_counter()
        preset = Preset(field, given, recipe)
        fit = inr.fit(image, preset, steps=args.steps, seed=args.seed, device="cpu")
        seconds = time.perf_counter() - begin
        data = encode(fit.field, image, max_bytes=args.bytes)
        print(
            f"\n{name}: {scalars(fit.field):,} parameters, {fit.metrics['psnr']:.2f} dB after "
            f"{seconds:.0f} s; {len(data):,} bytes\n"
        )
        show(image, data)


def show(image: Image, data: bytes) -> None:
    """A table of a file's layers, and its quality where it is cut elsewhere."""
    contents = inspect(data)
    ends = container.ends(contents.container, len(data))
    seconds = time_to_picture(data, ends)
    rows = []
    for number, end in enumerate(ends, 1):
        field = decode(data[:end], partial=True)
        cells = [f"{end:,}", f"{end / len(data):.1%}", f"{image.quality(field):.2f}"]
        ratio = f"{seconds[number - 1] / seconds[-1]:.2f}"
        rows.append([str(number), *cells, f"{macs(field, number, len(ends)):,}", ratio])
    heads = ["layer", "bytes", "of the file", "PSNR, dB", "MACs a pixel", "time"]
    print(table(heads, rows))
    if len(ends) > 1:
        cuts = np.linspace(ends[0], len(data), CUTS).round().astype(int)
        found = [image.quality(decode(data[:cut], partial=True)) for cut in cuts]
        fall = max(0.0, *(a - b for a, b in itertools.pairwise(found)))
        print(f"\ncut at {CUTS} sizes: {', '.join(f'{q:.2f}' for q in found)} dB", end="; ")
        print(f"largest fall {fall:.3f} dB", flush=True)


def time_to_picture(data: bytes, ends: list[int]) -> list[float]:
    """Least seconds to decode and render each prefix, taken in turns."""
    best = [math.inf] * len(ends)
    for _ in range(REPEATS):
        for i, end in enumerate(ends):
            begin = time.perf_counter()
            render(decode(data[:end], partial=True))
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


def scalars(field: Field) -> int:
    return sum(stored.tensor.numel() for stored in field.stored_parameters())


def macs(field: Field, layers: int, of: int) -> int:
    """Products that a pixel takes with the layers that are there."""
    if isinstance(field, Grid):
        # later boundaries that joined others leave the last levels for last
        levels = len(field.tables) - (of - layers)
        width = field.linear.in_features // len(field.tables)
        maps = [
            field.linear,
            *([m for m in field.mlp if hasattr(m, "weight")] if field.mlp else []),
        ]
        unused = (len(field.tables) - levels) * width
        products = sum(
            m.out_features * (m.in_features - unused * (m.in_features == field.linear.in_features))
            for m in maps
        )
        return products + levels * width * 2**field.in_features
    work = copy.deepcopy(field)
    groups = work.groups()
    count = sum(groups[: len(groups) - (of - layers)])
    tensors = [stored.tensor for stored in work.stored_parameters()[:count]]
    return sum(t.numel() for t in tensors if t.ndim == 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
