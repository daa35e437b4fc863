"""Why WINNER's runs dip, and a schedule under which they do not.

Full-batch fits of the start of a sound by SIREN (first omega 3000) and by SIREN with WINNER's
noise. After each eighth step, the largest eigenvalue of the loss's Hessian, preconditioned by
Adam's denominator as in J. Cohen et al., "Adaptive Gradient Methods at the Edge of Stability"
(arXiv:2207.14484), is estimated by power iteration: Adam with beta_1 = 0.9 oscillates where it
exceeds 38 / learning rate. The table has its ratio to that edge.

    python benchmarks/winner.py SOUND [--samples 20000] [--width 81] [--steps 600]
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import accumulate

import torch
from common import machine, table

import fields
from fields.base import SignalStatistics
from inr.metrics import psnr
from inr.presets import Recipe
from inr.signals.audio import Audio, open_audio

RECIPES = {
    "constant 1e-4 (about the authors')": Recipe(lr=1e-4),
    "constant 3e-4": Recipe(lr=3e-4),
    "cosine to 1 %, 1e-3": Recipe(lr=1e-3, schedule="cosine", final_lr=0.01),
    "cosine to 1 %, 1e-3, beta_2 0.95": Recipe(
        lr=1e-3, schedule="cosine", final_lr=0.01, beta2=0.95
    ),
    "exponential to 3 %, 5e-4, beta_2 0.95": Recipe(
        lr=5e-4, schedule="exponential", final_lr=0.03, beta2=0.95
    ),
}
INITS = {"SIREN 3000": {"first_omega": 3000.0}, "WINNER": {"init": "winner"}}


def fit(sound: Audio, width: int, steps: int, recipe: Recipe, seed: int, **init: object) -> tuple:
    """Return the PSNR of each step, and the preconditioned sharpness times the rate over 38."""
    (x,) = sound.axes()
    torch.manual_seed(seed)
    field = fields.Siren(1, sound.channels, hidden_features=width, **init)
    field.adapt(SignalStatistics(sound.values))
    weights = list(field.parameters())
    adam = torch.optim.Adam(weights, lr=recipe.lr, betas=(0.9, recipe.beta2), eps=recipe.eps)
    curve, edge = [], []
    vector = [torch.randn_like(w) for w in weights]
    for step in range(steps):
        rate = recipe.lr * recipe.factor(step / steps)
        adam.param_groups[0]["lr"] = rate
        loss = (field(x[:, None]) - sound.values).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        curve.append(psnr(loss.item(), 2.0))
        if step % 8 == 7 and step > steps // 5:
            correction = 1 - recipe.beta2 ** (step + 1)
            roots = [
                ((adam.state[w]["exp_avg_sq"] / correction).sqrt() + recipe.eps).sqrt()
                for w in weights
            ]
            part = slice(None, None, 4)
            for _ in range(3):
                error = (field(x[part, None]) - sound.values[part]).square().mean()
                slopes = torch.autograd.grad(error, weights, create_graph=True)
                along = sum(
                    (s * v / r).sum() for s, v, r in zip(slopes, vector, roots, strict=True)
                )
                curved = torch.autograd.grad(along, weights)
                vector = [c / r for c, r in zip(curved, roots, strict=True)]
                length = math.sqrt(sum(v.square().sum().item() for v in vector))
                vector = [v / length for v in vector]
            edge.append(length * rate / 38)
    return curve, edge


def drops(curve: list[float]) -> list[float]:
    """How far each point of a curve lies below its best so far."""
    return [best - now for best, now in zip(accumulate(curve, max), curve, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sound")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=81)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    print(machine())
    clip = open_audio(args.sound)
    sound = Audio.from_array(clip.samples[: args.samples], clip.domain.rate)
    rows = []
    for name, recipe in RECIPES.items():
        for init, more in INITS.items():
            for seed in range(args.seeds):
                begin = time.perf_counter()
                curve, edge = fit(sound, args.width, args.steps, recipe, seed, **more)
                lost = drops(curve)
                cells = [curve[-1], max(curve), max(lost), max(lost[3 * len(lost) // 4 :])]
                seconds = f"{time.perf_counter() - begin:.0f} s"
                row = [name, init, *(f"{c:.1f}" for c in cells), f"{max(edge):.2f}", seconds]
                rows.append(row)
                print("  ".join(row), flush=True)
    head = ["recipe", "init", "last, dB", "best, dB", "deepest dip, dB"]
    print("\n" + table([*head, "in the last quarter, dB", "edge, at most", "time"], rows))


if __name__ == "__main__":
    main()
