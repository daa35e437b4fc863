"""Time to 25, 30 and 35 dB on a photograph: SIREN by its official recipe, ours with SIREN, ours.

One run, interleaved by design: each contender gets the same seconds, one after the other, on the
same picture. PSNR is float, range 2, on all pixels with the weights as they are; what evaluating it
costs is not counted as fitting time.

    python benchmarks/fit_image.py [--seconds 60] [--size 256] [IMAGE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from common import ROOT, machine, table

import fields
from inr import presets
from inr.codec.encode import encode
from inr.fitting.fit import build_field, fit
from inr.fitting.module import Budget, FitModule
from inr.metrics import psnr
from inr.signals import open_signal
from inr.signals.image import Image

TARGETS = (25.0, 30.0, 35.0)


def official(image: Image, seconds: float) -> Iterator[tuple[float, float]]:
    """The authors' loop: the whole picture per step, Adam at 1e-4, end points included."""
    height, width = image.domain.shape
    axes = [torch.linspace(-1, 1, n) for n in (height, width)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    target = image.values.reshape(-1, image.channels)
    torch.manual_seed(0)
    field = fields.Siren(2, image.channels)
    adam = torch.optim.Adam(field.parameters(), lr=1e-4)
    spent = 0.0
    while spent < seconds:
        begin = time.perf_counter()
        loss = ((field(coords) - target) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        spent += time.perf_counter() - begin
        yield spent, psnr(loss.item(), 2.0)  # of the weights before this step


def ours(image: Image, preset_name: str, seconds: float) -> Iterator[tuple[float, float]]:
    """The project's own steps under a preset, its schedule laid over the given seconds."""
    preset, field = build_field(image, presets.load(preset_name), 0)
    begin = time.perf_counter()
    field.adapt(image.statistics())
    module = FitModule(field, image, preset.recipe, Budget(seconds=seconds))
    module.configure_optimizers()
    spent = time.perf_counter() - begin
    yield spent, quality(field, image)
    checked = 0.0
    while spent < seconds:
        begin = time.perf_counter()
        module.seconds = spent  # decides the learning rate
        module._started = begin - spent
        module.step()
        spent += time.perf_counter() - begin
        if spent - checked > 0.25:
            checked = spent
            yield spent, quality(field, image)
    yield spent, quality(field, image)


def quality(field: fields.Field, image: Image) -> float:
    return image.metrics(field)["psnr_float"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", default=str(ROOT / "assets" / "camera.png"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=256, help="longest side for the comparison")
    args = parser.parse_args()
    print(machine())

    full = open_signal(args.image)
    assert isinstance(full, Image)
    factor = max(1, max(full.domain.shape) // args.size)
    small = Image.from_array(shrink(full.samples, factor))
    contenders = {
        "SIREN, official recipe": official(small, args.seconds),
        "ours with SIREN": ours(small, "image/siren", args.seconds),
        "ours": ours(small, "image/grid", args.seconds),
    }
    rows, times = [], {}
    for name, run in contenders.items():
        curve = list(run)
        times[name] = [next((t for t, q in curve if q >= goal), None) for goal in TARGETS]
        rows.append(
            [
                name,
                *(f"{t:.2f} s" if t is not None else "-" for t in times[name]),
                f"{curve[-1][1]:.2f} dB",
            ]
        )
    print(f"\n{args.image} at {small.domain.height} x {small.domain.width}\n")
    print(table(["", *(f"to {g:.0f} dB" for g in TARGETS), f"after {args.seconds:.0f} s"], rows))
    print()
    base = times["SIREN, official recipe"]
    for name, found in times.items():
        for goal, mine, theirs in zip(TARGETS, found, base, strict=True):
            if name == "SIREN, official recipe" or mine is None:
                continue
            limit, sign = (theirs, "") if theirs is not None else (args.seconds, "more than ")
            print(f"{name}: {goal:.0f} dB {sign}{limit / max(mine, 1e-3):.1f} times as fast")

    print("\nwhat `inr fit` does with no option:")
    rows = []
    for path in ("camera.png", "astronaut.png"):
        image = open_signal(ROOT / "assets" / path)
        result = fit(image)
        begin = time.perf_counter()
        data = encode(result.field, image)
        coded = time.perf_counter() - begin
        from inr.codec.decode import decode

        found = image.metrics(decode(data))["psnr"]
        source = (ROOT / "assets" / path).stat().st_size
        rows.append([path, f"{found:.2f} dB", f"{len(data):,}", f"{source:,}"])
        rows[-1] += [result.steps, f"{result.seconds:.1f} s", f"{coded:.1f} s"]
    print(table(["", "PSNR of the file", "bytes", "PNG", "steps", "fitting", "coding"], rows))


def shrink(samples: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of factor x factor pixels."""
    height, width = (n // factor * factor for n in samples.shape[:2])
    blocks = samples[:height, :width].reshape(height // factor, factor, width // factor, factor, -1)
    return np.rint(blocks.mean(axis=(1, 3))).astype(samples.dtype)


if __name__ == "__main__":
    main()
