"""kodim03 under the settings of two papers' released code.

FKAN's notebook trains 436,000 parameters for 500 epochs on 4,096 random pixels a step and prints
30.67 dB after 10 epochs, 37.74 after 100 and 43.86 at best, on a GPU. SL2A's script compares six
methods, each with its own rate and batch, for 501 epochs. Both let the rate fall to a tenth,
exponentially, by the epoch. Coordinates include the ends of [-1, 1]. PSNR is of frozen weights,
values clipped to [-1, 1], R = 2.

With --reduce N the picture is averaged by N along each axis, batches shrink by as many pixels, and
widths by N, so that the steps and the parameters per pixel stay.

    python benchmarks/kodim03.py KODIM03 --methods fkan --stop 10        # on two cores
    python benchmarks/kodim03.py KODIM03 --reduce 4                       # the order of the methods
    python benchmarks/kodim03.py KODIM03 --device cuda                   # in full
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common import machine, table

import fields
from apps.bench.contestants import BY_NAME
from apps.bench.signals import averaged
from inr.metrics import psnr
from inr.rendering import bands
from inr.signals.image import Image, open_image

METHODS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    # field, hyperparameters, learning rate, pixels a step
    "fkan": ("fkan", {}, 1e-4, 4096),
    "sl2a": ("sl2a", {}, 1e-3, 16384),
    "finer": ("finer", {"first_bias": 20.0, "variant": "official"}, 1e-4, 16384),
    "relu-pe": ("relu-pe", {}, 1e-3, 1024),
    "gauss": ("gauss", {}, 1e-4, 1024),
    "siren": ("siren", {}, 1e-3, 65536),
    "wire": (
        "wire",
        {"hidden_layers": 3, "first_omega": 30.0, "hidden_omega": 30.0, "scale": 30.0},
        1e-3,
        65536,
    ),
}
MARKS = (1, 2, 5, 10, 20, 50, 100, 125, 250, 500)


def fit(image: Image, method: str, epochs: int, stop: int, reduce: int) -> list[object]:
    """Print PSNR on the way; return the last one, the parameters and the seconds."""
    name, hyperparameters, lr, batch = METHODS[method]
    hyperparameters = hyperparameters | BY_NAME[name].dial(1 / reduce, image.domain.shape)
    values = image.values.flatten(0, 1)
    axes = [torch.linspace(-1, 1, n, device=values.device) for n in image.domain.shape]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
    torch.manual_seed(0)
    field = fields.create(name, 2, image.channels, **hyperparameters).to(values.device)
    adam = torch.optim.Adam(field.parameters(), lr=lr, fused=True)
    seconds = 0.0
    for epoch in range(stop):
        begin = time.perf_counter()
        adam.param_groups[0]["lr"] = lr * 0.1 ** (epoch / epochs)
        for pixels in torch.randperm(len(coords), device=values.device).split(batch // reduce**2):
            loss = (field(coords[pixels]) - values[pixels]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        seconds += time.perf_counter() - begin
        if epoch + 1 in MARKS or epoch + 1 == stop:
            parts = [part for _, part in bands(field, axes)]
            error = torch.cat(parts).clamp(-1, 1) - image.values
            quality = psnr(error.double().square().mean().item(), 2.0)
            print(f"{method}, epoch {epoch + 1}: {quality:.2f} dB, {seconds:.0f} s", flush=True)
    parameters = sum(p.numel() for p in field.parameters())
    return [method, f"{parameters:,}", f"{quality:.2f} dB", f"{seconds:.0f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--methods", type=str, default=",".join(METHODS))
    parser.add_argument("--reduce", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--stop", type=int, help="epoch after which to stop")
    parser.add_argument("--device", type=str, default="cpu")
    args = parser.parse_args()
    print(machine())
    image = averaged(open_image(args.image), args.reduce).to(args.device)
    rows: list[list[object]] = []
    for method in args.methods.split(","):
        rows.append(fit(image, method, args.epochs, args.stop or args.epochs, args.reduce))
    print("\n" + table(["", "parameters", "PSNR", "time"], rows))


if __name__ == "__main__":
    main()
