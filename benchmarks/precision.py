"""What the precision policies of the CUDA kernels cost a trained field, emulated on the CPU.

A field is fitted to a crop of a photograph under each policy of `fields.kernels.policy`, forward
and backward, and judged under the same policy; parameters and Adam stay float32. Seeds, pictures
and the order of all samples are the same for all policies, so differences are of rounding alone,
and of how far it takes two runs apart. Gradients are as small as those of a mean over `--elements`
values, whatever the crop's size: the loss is divided, and the parameters' gradients are multiplied
again (both by a power of two, which float32 does not round).

    python benchmarks/precision.py [--suite coffee] [--policies fp32,fp16] [--seeds 5]
        [--steps 2000] [--sheet FILE.csv]

With a sheet, runs that are in it already are not done again, so that it can be stopped at any time;
`--report` only prints the tables of a sheet. The bar: "fp16" within 0.1 dB of "fp32", in the mean
over the seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import torch
from common import ROOT, machine, read_sheet, table, write_sheet

import fields
from fields.base import Field
from fields.grid import centres
from fields.kernels import policy
from fields.kernels.plan import Mlp

BAR = 0.1
"""Decibels that the default may be below float32."""

MAIN = {"fp32": 5, "fp16": 5, "bf16": 5, "bf16-everywhere": 5}
OTHERS = {"fp16-unscaled": 1, "fp16-count": 1, "tf32-cut": 1, "tf32-nearest": 1}
FEW = {"fp32": 5, "fp16": 5, "bf16": 2}
ONE = {"fp32": 1, "fp16": 1, "bf16": 1}
"""Policies, and how many seeds each is run with."""

CROPS = {
    "coffee": ("coffee.png", 170, 240),
    "grass": ("camera.png", 448, 352),
    "head": ("camera.png", 96, 208),
}
"""File in `assets`, and the corner in pixels from the top and from the left: a spoon on a saucer,
grass, and a head beside a camera."""

COLUMNS = ("suite", "policy", "seed", "steps", "psnr", "decoded", "seconds")


@dataclass(frozen=True)
class Suite:
    """A field on pictures.

    Args:
        field: Its name.
        options: Its hyperparameters.
        lr: Learning rate, as the field's image preset has it; it falls to a hundredth by a cosine.
        picture: Of `CROPS`.
        policies: Which to compare, and how many seeds each has.
        side: Of the square crop, in samples.
    """

    field: str
    options: dict[str, Any]
    lr: float
    picture: str
    policies: Mapping[str, int]
    side: int = 64


NARROW, SMALL, WIDE = ({"hidden_features": n, "hidden_layers": 2} for n in (32, 64, 256))
SUITES = {
    "coffee": Suite("siren", SMALL, 1e-3, "coffee", MAIN | OTHERS, side=48),
    "head": Suite("siren", NARROW, 1e-3, "head", FEW),
    "grass": Suite("siren", NARROW, 1e-3, "grass", FEW),
    "finer": Suite("finer", SMALL, 1e-3, "coffee", FEW, side=48),
    "wire": Suite("wire", SMALL, 1.5e-3, "coffee", FEW, side=48),
    "gauss": Suite("gauss", SMALL, 5e-3, "coffee", FEW, side=48),
    "wide": Suite("siren", WIDE, 1e-3, "coffee", ONE, side=32),
    "overfitted": Suite("siren", SMALL, 1e-3, "grass", ONE),
}


def crop(picture: str, side: int) -> torch.Tensor:
    """A square of a photograph, in [-1, 1], shape (side * side, channels)."""
    file, top, left = CROPS[picture]
    pixels = np.asarray(imageio.v3.imread(ROOT / "assets" / file))
    part = pixels[top : top + side, left : left + side].astype(np.float32)
    return torch.from_numpy(part).reshape(side * side, -1) / 127.5 - 1


def trained(
    field: Field,
    coords: torch.Tensor,
    target: torch.Tensor,
    name: str,
    steps: int,
    lr: float,
    elements: int,
) -> tuple[float, float]:
    """PSNR in dB (R = 2) after a fit under a policy: under the same, and in float32."""
    smaller = 2.0 ** round(math.log2(max(1, elements / target.numel())))
    count = round(target.numel() * smaller)
    adam = torch.optim.Adam(field.parameters(), lr=lr, fused=True)
    parameters = list(field.parameters())
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (0.505 + 0.495 * math.cos(math.pi * step / steps))
        adam.zero_grad()
        out = policy.mlp(plan_of(field), coords, name, elements=count)
        ((out - target).square().mean() / smaller).backward()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad *= smaller
        adam.step()
    with torch.no_grad():
        outs = [policy.mlp(plan_of(field), coords, judge) for judge in (name, "fp32")]
    errors = [float((out - target).square().mean()) for out in outs]
    same, exact = (10 * math.log10(4 / e) if math.isfinite(e) else -math.inf for e in errors)
    return same, exact


def plan_of(field: Field) -> Mlp:
    plan = field.plan()
    assert isinstance(plan, Mlp)
    return plan


def run(suite: Suite, name: str, seed: int, steps: int, elements: int) -> tuple[float, float]:
    """One fit (see `trained`)."""
    torch.manual_seed(seed)
    target = crop(suite.picture, suite.side)
    field = fields.create(suite.field, 2, target.shape[1], **suite.options)
    axis = centres(suite.side).to(torch.float32)
    coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return trained(field, coords, target, name, steps, suite.lr, elements)


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table for each suite, and whether the bar is reached."""
    for title, suite in SUITES.items():
        for steps in sorted({row["steps"] for row in rows if row["suite"] == title}):
            mine = [row for row in rows if row["suite"] == title and row["steps"] == steps]
            found = {(r["policy"], r["seed"]): (r["psnr"], r["decoded"]) for r in mine}
            size = f"{suite.options['hidden_features']}x{suite.options['hidden_layers'] + 1}"
            print(
                f"\n{suite.field} {size}, {suite.picture}, {suite.side} x {suite.side}, "
                f"{steps:,} steps\n"
            )
            _compare(suite.policies, found)


def _compare(policies: Iterable[str], found: Mapping[tuple[str, int], tuple[float, float]]) -> None:
    """One table: PSNR by policy and seed, and the differences to float32 seed by seed."""
    lines, bar = [], "bar: fp16 has not run"
    for name in policies:
        seeds = [s for p, s in found if p == name and ("fp32", s) in found]
        if not seeds:
            continue
        values = [found[name, s][0] for s in seeds]
        apart = [found[name, s][0] - found["fp32", s][0] for s in seeds]
        decoded = [found[name, s][1] - found["fp32", s][1] for s in seeds]
        mean = statistics.fmean(apart)
        cells = [f"{mean:+.2f}", f"{min(apart):+.2f}", f"{statistics.fmean(decoded):+.2f}"]
        if name == "fp32":
            cells = ["", "", ""]
        lines.append([name, f"{statistics.fmean(values):.2f}", *cells, len(seeds)])
        if name == "fp16":
            verdict = "reached" if mean >= -BAR else "NOT reached"
            bar = (
                f"bar (fp16 at most {BAR} dB below fp32 in the mean): {verdict}, {mean:+.3f} dB, "
                f"worst seed {min(apart):+.3f} dB"
            )
    head = ["policy", "PSNR, dB", "against fp32", "worst seed", "decoded in fp32", "seeds"]
    print(table(head, lines))
    print(f"\n{bar}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=str, default=",".join(SUITES))
    parser.add_argument("--policies", type=str, default=",".join(policy.POLICIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--elements", type=int, default=3 << 20)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    print(machine())
    kinds = {"seed": int, "steps": int, "psnr": float, "decoded": float, "seconds": float}
    rows = read_sheet(args.sheet, kinds) if args.sheet else []
    done = {tuple(row[name] for name in COLUMNS[:4]) for row in rows}
    for title in args.suite.split(",") if not args.report else ():
        suite = SUITES[title]
        todo = [(seed, name) for name, count in suite.policies.items() for seed in range(count)]
        for seed, name in sorted(todo):
            key = (title, name, seed, args.steps)
            if key not in done and seed < args.seeds and name in args.policies.split(","):
                begin = time.perf_counter()
                psnr, decoded = run(suite, name, seed, args.steps, args.elements)
                seconds = round(time.perf_counter() - begin, 1)
                rows.append(dict(zip(COLUMNS, (*key, psnr, decoded, seconds), strict=True)))
                print(*key, f"{psnr:.3f} dB, {decoded:.3f} in fp32, {seconds} s", flush=True)
                if args.sheet:
                    write_sheet(args.sheet, COLUMNS, rows)
    report(rows)


if __name__ == "__main__":
    main()
