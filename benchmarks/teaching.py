"""Nonparametric teaching (INT): time to the same PSNR, with and without, on pictures and a sound.

SIREN with the authors' depth and omegas, narrower; pictures of Kodak averaged to a quarter of their
sides, and the first 2 s of a sound at the authors' 16 kHz. All contenders of a signal have one
initialisation and take turns of a quarter of a second, so that they share the machine's moods. PSNR
is float, range 2, on all samples with the weights as they are; what taking it costs is not counted.
Beside the seconds stands the cost that does not depend on a machine: a forward pass of all samples
is a third, a step on all of them one.

Signals are read from $INR_SHARED, ../shared if unset.

    python benchmarks/teaching.py [--steps 600] [--width 64] [--only kodim03] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from common import ROOT, machine, table
from fit_image import shrink

from fields.base import Field
from inr.fitting.fit import build_field
from inr.fitting.module import Budget, FitModule
from inr.fitting.sampling import interval, ratio
from inr.presets import Preset, Recipe
from inr.signals import open_signal
from inr.signals.audio import Audio
from inr.signals.base import GridSignal
from inr.signals.image import Image

SIGNALS = ("kodim03", "kodim05", "gt_bach")
TURN = 0.25
MARKS = (-6.0, -4.0, -2.0, -1.0, -0.5, 0.0)
"""dB, from what the fit on all samples ends with."""

CONTENDERS = {
    "all samples": ({}, 1.0),
    "published: step 0.2, incremental": ({"teach": "step"}, 1.0),
    "linear 0.2, incremental": ({"teach": "linear"}, 1.0),
    "cosine 0.2, incremental": ({"teach": "cosine"}, 1.0),
    "constant 0.2, incremental": ({"teach": "constant"}, 1.0),
    "constant 0.5, incremental": ({"teach": "constant", "teach_ratio": 0.5}, 1.0),
    "step 0.5, incremental": ({"teach": "step", "teach_ratio": 0.5}, 1.0),
    "step 0.2, sparse": ({"teach": "step", "teach_interval": "sparse"}, 1.0),
    "drawn: constant 0.2, sparse": (
        {"teach": "constant", "teach_pick": "drawn", "teach_interval": "sparse"},
        2.5,
    ),
    "hardest half of random 0.4, dense": (
        {"batch": 0.4, "teach": "constant", "teach_ratio": 0.5, "teach_interval": "dense"},
        2.0,
    ),
    "random 0.2": ({"batch": 0.2}, 2.5),
}
"""What differs in the recipe (`batch` as a part of all samples), and steps for one of the first."""


@dataclass
class Run:
    """One contender's fit.

    Args:
        module: The fit.
        curve: (seconds, cost, PSNR) after each turn.
    """

    module: FitModule
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    def turn(self) -> None:
        """Fit for a while, then measure."""
        module = self.module
        module.on_fit_start()
        until = module.seconds + TURN
        while module.seconds < until and module.finished is None:
            module.training_step(None, 0)
        quality = module.signal.metrics(module.field)["psnr_float"]
        self.curve.append((module.seconds, cost(module), quality))

    def first(self, goal: float, which: int) -> float | None:
        """Seconds (0) or cost (1) at which a PSNR is reached."""
        return next((entry[which] for entry in self.curve if entry[2] >= goal), None)


def cost(module: FitModule) -> float:
    """What the steps so far cost, one on all samples being 1."""
    recipe, total = module.recipe, module.budget.steps
    assert total is not None
    pool = min(1.0, recipe.batch / module.signal.count)
    if recipe.teach == "off":
        return module.fit_step * pool
    steps = [step / total for step in range(module.fit_step)]
    seen = sum(ratio(recipe.teach, recipe.teach_ratio, p) for p in steps)
    looks = sum(t % interval(recipe.teach_interval, p) == 0 for t, p in enumerate(steps))
    return pool * (seen + looks / 3)


def compete(signal: GridSignal, preset: Preset, names: list[str]) -> dict[str, Run]:
    """Fit all contenders, in turns, from one initialisation."""
    _, start = build_field(signal, preset, 0)
    runs = {name: Run(module_of(signal, start, preset.recipe, *CONTENDERS[name])) for name in names}
    while any(run.module.finished is None for run in runs.values()):
        for run in runs.values():
            if run.module.finished is None:
                run.turn()
    return runs


def module_of(
    signal: GridSignal, start: Field, recipe: Recipe, changes: dict, factor: float
) -> FitModule:
    """A contender's fit, ready to go."""
    if "batch" in changes:
        changes = changes | {"batch": round(changes["batch"] * signal.count)}
    module = FitModule(
        copy.deepcopy(start),
        signal,
        replace(recipe, **changes),
        Budget(round(factor * recipe.steps)),
    )
    module.generator.manual_seed(0)
    module.configure_optimizers()
    return module


def load(name: str, steps: int, width: int) -> tuple[GridSignal, Preset]:
    """A signal and how it is fitted."""
    root = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data"
    sizes = {"hidden_features": width, "hidden_layers": 4}
    if name.startswith("kodim"):
        picture = open_signal(root / "kodak" / f"{name}.png")
        assert isinstance(picture, Image)
        recipe = Recipe(lr=1e-3, schedule="cosine", final_lr=1e-3, steps=steps)
        return Image.from_array(shrink(picture.samples, 4)), Preset("siren", sizes, recipe)
    from scipy.signal import resample_poly

    sound = open_signal(root / "audio" / f"{name}.wav")
    assert isinstance(sound, Audio)
    rate = sound.domain.rate
    divisor = math.gcd(rate, 16_000)
    samples = resample_poly(sound.samples[: 2 * rate], 16_000 // divisor, rate // divisor)
    # the authors' coordinates reach from -5 to 5: five times the first omega
    recipe = Recipe(lr=5e-4, schedule="cosine", final_lr=1e-3, steps=steps)
    preset = Preset("siren", sizes | {"first_omega": 150.0}, recipe)
    return Audio.from_array(samples.astype(np.float32), 16_000), preset


def report(runs: dict[str, Run]) -> None:
    """Two tables: seconds, and cost, as parts of those of the first."""
    base = runs["all samples"]
    end = base.curve[-1][2]
    goals = [end + mark for mark in MARKS]
    for which, unit in ((0, "seconds"), (1, "cost")):
        rows = []
        for name, run in runs.items():
            found = [run.first(goal, which) for goal in goals]
            cells = [f"{t:.1f}" if t is not None else "-" for t in found]
            if run is not base:
                pairs = zip(found, (base.first(goal, which) for goal in goals), strict=True)
                cells = [f"{100 * (t / b - 1):+.0f} %" if t and b else "-" for t, b in pairs]
            last = run.curve[-1]
            rows.append([name, str(run.module.fit_step), f"{last[which]:.1f}", *cells])
            rows[-1].append(f"{last[2]:.2f}")
        print(f"\n{unit} to a PSNR; below the first row, the difference to it\n")
        heads = ["", "steps", unit, *(f"{goal:.1f} dB" for goal in goals), "end, dB"]
        print(table(heads, rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="of the fit on all samples")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=list(SIGNALS), help="signals")
    parser.add_argument("--runs", nargs="+", type=int, help="contenders, by their numbers")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine())
    names = list(CONTENDERS)
    chosen = names if args.runs is None else [names[i] for i in sorted({0, *args.runs})]
    for name in args.only:
        signal, preset = load(name, args.steps, args.width)
        size = " x ".join(map(str, signal.domain.shape))
        print(f"\n## {name}, {size}; SIREN {args.width} x 5")
        report(compete(signal, preset, chosen))


if __name__ == "__main__":
    main()
