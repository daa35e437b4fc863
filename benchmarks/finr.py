"""F-INR against one SIREN of as many scalars, on a video clip and on a CT volume.

All go through the same trainer. SIREN trains for `--seconds` on random sub-lattices under a rate
that falls along half a cosine. F-INR has one sine layer per axis. It starts as the signal's
truncated TT (or Tucker) decomposition in what these layers span, and its time counts that start;
or, for comparison, it starts at random and is trained by Adam alone, as its authors do. Each budget
is a run of its own. PSNR is over all samples, R = 2, weights as a run leaves them.

    python benchmarks/finr.py [--only video] [--seconds 600] [--width 512] [--rates 3e-4]

Signals are read from $INR_SHARED, ../shared if unset. Each part writes its curves to
`OUT/PART-WIDTH.csv`; SIREN's points between start and end are those of its batches.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, machine, table

import inr
from fields.base import Field
from inr.fitting.fit import Fit, build_field
from inr.metrics import psnr
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal

SIREN = Recipe(schedule="cosine", final_lr=0.01, batch=4096)
STARTED = Recipe(lr=1e-5, schedule="cosine", final_lr=0.1, batch=1 << 18)
TRAINED = Recipe(lr=3e-3, schedule="cosine", final_lr=0.01, batch=1 << 18)


@dataclass(frozen=True)
class Part:
    """A signal and the F-INR for it.

    Args:
        file: Its array within the shared data.
        key: Name of the array in the file.
        widths: Units of the sine layer of each axis.
        omegas: Their angular frequencies, below Nyquist's, which is pi/2 per sample of the axis.
        low: Angular frequencies for a start at random, from which Adam does not reach high ones.
        ranks: By decomposition, then by the width of the SIREN that they make it as large as.
    """

    file: str
    key: str
    widths: tuple[int, ...]
    omegas: tuple[float, ...]
    low: tuple[float, ...]
    ranks: dict[str, dict[int, list[int]]]

    def open(self) -> ArraySignal:
        """Read the signal."""
        root = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data"
        return ArraySignal.from_array(np.load(root / self.file)[self.key])

    def finr(self, decomposition: str, width: int, *, started: bool) -> dict[str, Any]:
        """Hyperparameters of the F-INR that is as large as a SIREN of a width."""
        start = {"init": "svd"} if started else {"init": "balanced", "level": 0.1}
        omegas = self.omegas if started else self.low
        return {
            "decomposition": decomposition,
            "rank": self.ranks[decomposition][width],
            "base": "siren",
            "base_options": [
                {"hidden_features": n, "hidden_layers": 0, "first_omega": omega}
                for n, omega in zip(self.widths, omegas, strict=True)
            ],
            "channel_factors": "shared",
            **start,
        }


PARTS = {
    "video": Part(
        "video/bikes_32f_320x136.npz",
        "frames",
        (51, 117, 374),
        (48.0, 150.0, 480.0),
        (30.0, 60.0, 120.0),
        {
            "tt": {256: [14, 71], 512: [22, 213]},
            "tucker": {256: [16, 46, 74], 512: [20, 84, 144]},
        },
    ),
    "volume": Part(
        "volume/stent_ct.npz",
        "arr_0",
        (244, 116, 189),
        (209.0, 163.0, 192.0),
        (100.0, 60.0, 60.0),
        {
            "tt": {256: [28, 55], 512: [82, 79]},
            "tucker": {256: [59, 53, 53], 512: [102, 85, 85]},
        },
    ),
}


@dataclass(frozen=True)
class Run:
    """One F-INR: how it is made, and for how long it is trained after its start."""

    label: str
    decomposition: str
    started: bool
    seconds: float


RUNS = (
    Run("TT, from its SVD", "tt", True, 0),
    Run("TT, from its SVD", "tt", True, 30),
    Run("Tucker, from its HOSVD", "tucker", True, 0),
    Run("TT, from random weights", "tt", False, 30),
    Run("TT, from random weights", "tt", False, 120),
)


def scalars(field: Field) -> int:
    """Scalars that a file of this field holds."""
    return sum(stored.tensor.numel() for stored in field.stored_parameters())


def fit(
    signal: ArraySignal, name: str, given: dict[str, Any], recipe: Recipe, seconds: float
) -> tuple[Fit, float]:
    """Build, adapt and fit a field; the seconds are those of all three."""
    begin = time.perf_counter()
    preset = Preset(name, given, recipe)
    build_field(signal, preset, 0)
    start = time.perf_counter() - begin
    # the same again: a fit's own clock starts behind it
    done = inr.fit(signal, preset, seconds=seconds, device="cpu")
    return done, start + done.seconds


def run(name: str, part: Part, width: int, seconds: float, rates: list[float], out: Path) -> None:
    """One signal: all runs, their table, and their curves in a file."""
    signal = part.open()
    signal.axes()
    points: list[tuple[str, float, float]] = []
    rows: list[list[str]] = []

    def finished(label: str, done: Fit, taken: float) -> float:
        quality = done.metrics["psnr_float"]
        points.append((label, taken, quality))
        cells = [f"{scalars(done.field):,}", f"{taken:.2f} s", str(done.steps), f"{quality:.2f} dB"]
        rows.append([label, *cells])
        print("  ".join(rows[-1]), flush=True)
        return quality

    best = 0.0
    for rate in rates:
        recipe = dataclasses.replace(SIREN, lr=rate)
        done, taken = fit(signal, "siren", {"hidden_features": width}, recipe, seconds)
        label = f"SIREN {width}x3, rate {rate:g}"
        step = max(1, len(done.history) // 200)
        points += [(label, at, psnr(loss, 2.0)) for _, at, loss in done.history[::step]]
        best = max(best, finished(label, done, taken))
        size = scalars(done.field)
    verdicts = []
    for one in RUNS:
        given = part.finr(one.decomposition, width, started=one.started)
        recipe = STARTED if one.started else TRAINED
        done, taken = fit(signal, "finr", given, recipe, one.seconds)
        if not 0.99 < scalars(done.field) / size < 1.01:
            raise SystemExit(f"{scalars(done.field)} scalars are not {size}: change the ranks")
        ahead = finished(one.label, done, taken) - best
        verdicts.append(
            f"{one.label}, {taken:.2f} s: {ahead:+.2f} dB against SIREN after {seconds:.0f} s, "
            f"{seconds / taken:.0f} times the time"
        )
    print("\n" + table([f"{name}", "scalars", "time", "steps", "PSNR"], rows) + "\n")
    print("\n".join(f"{name}: {verdict}" for verdict in verdicts) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{name}-{width}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["contender", "seconds", "psnr_db"])
        writer.writerows((label, f"{at:.3f}", f"{quality:.3f}") for label, at, quality in points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--width", type=int, choices=(256, 512), default=512)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "finr")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine(), flush=True)
    for name, part in PARTS.items():
        if args.only in (None, name):
            run(name, part, args.width, args.seconds, args.rates, args.out)


if __name__ == "__main__":
    main()
