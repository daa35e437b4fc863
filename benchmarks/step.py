"""Cost of one step: our tiled SIREN step against the plain eager loop, and Lightning's share.

Contenders alternate within each round and medians are compared, so that a busy machine shifts both.

    python benchmarks/step.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import lightning.pytorch as pl
import numpy as np
import torch
from common import machine, table

import fields
from inr.fitting.fit import fit
from inr.fitting.module import Budget, FitModule
from inr.presets import Preset, Recipe
from inr.signals.image import Image


def plain_step(field: fields.Field, image: Image) -> Callable[[], float]:
    """The textbook loop: whole batch, mse_loss, Adam as it comes."""
    coords = torch.stack(torch.meshgrid(*image.axes(), indexing="ij"), -1).reshape(-1, 2)
    target = image.values.reshape(-1, image.channels)
    adam = torch.optim.Adam(field.parameters(), lr=1e-4)

    def step() -> float:
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(field(coords), target)
        loss.backward()
        adam.step()
        return loss.item()

    return step


class TextbookSiren(torch.nn.Module):
    """SIREN as its authors write it: sin(omega * linear(x)), omega applied to activations."""

    def __init__(self, like: fields.Siren) -> None:
        super().__init__()
        self.linears = torch.nn.ModuleList([layer.linear for layer in like.sines])
        self.out = like.out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.linears:
            x = torch.sin(30 * linear(x))
        return self.out(x)


def our_step(field: fields.Field, image: Image) -> Callable[[], float]:
    module = FitModule(field, image, Recipe(lr=1e-4), Budget(10**9))
    module.configure_optimizers()

    def step() -> float:
        module.step()
        return module.loss

    return step


def siren_step(rounds: int) -> None:
    noise = np.random.default_rng(0).random((256, 256))
    image = Image.from_array(np.rint(noise * 255).astype(np.uint8))
    torch.manual_seed(0)
    mine = fields.Siren(2, 1)
    theirs = fields.Siren(2, 1)
    theirs.load_state_dict(mine.state_dict())
    steps = {"plain": plain_step(TextbookSiren(theirs), image), "ours": our_step(mine, image)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            losses[name].append(step())
            if round_:
                times[name].append(time.perf_counter() - begin)
    ratio = [a / b for a, b in zip(times["plain"], times["ours"], strict=True)]
    apart = max(abs(a - b) / b for a, b in zip(losses["ours"], losses["plain"], strict=True))
    rows = [[name, f"{1e3 * statistics.median(t):.0f} ms"] for name, t in times.items()]
    print("\nSIREN 256x3, 65,536 points, one training step\n")
    print(table(["", "median"], rows))
    print(
        f"\nratio {statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f}), "
        f"losses at most {apart:.1e} apart"
    )


def lightning_share(rounds: int, steps: int = 250) -> None:
    noise = np.random.default_rng(0).random((32, 32, 3))
    image = Image.from_array(np.rint(noise * 255).astype(np.uint8))
    preset = Preset("siren", {"hidden_features": 64}, Recipe(lr=1e-4))
    bare, whole = [], []
    for _ in range(rounds):
        torch.manual_seed(0)
        step = our_step(fields.Siren(2, 3, hidden_features=64), image)
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        bare.append(time.perf_counter() - begin)
        clock = Clock()
        fit(image, preset, steps=steps, callbacks=[clock])
        whole.append(clock.seconds)
    shares = [1 - a / b for a, b in zip(bare, whole, strict=True)]
    print(
        f"\nSIREN 64x3, 1,024 points: {1e3 * min(bare) / steps:.2f} ms a step bare, "
        f"{1e3 * min(whole) / steps:.2f} ms through Lightning (best of {rounds}); its share "
        f"{100 * (1 - min(bare) / min(whole)):.1f} % of the best, "
        f"{100 * statistics.median(shares):.1f} % in the median round"
    )


class Clock(pl.Callback):
    """From the first burst to the last: start-up is paid once, not per step."""

    seconds = 0.0

    def on_train_start(self, *_: object) -> None:
        self._begin = time.perf_counter()

    def on_train_end(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(machine())
    siren_step(args.rounds)
    lightning_share(3 * args.rounds)


if __name__ == "__main__":
    main()
