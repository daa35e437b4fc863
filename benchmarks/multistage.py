"""Multi-stage networks' claim: machine precision on two functions of one variable.

The authors' examples: f = ln(t + 2) cos(2 t + t^3) and sin(2 t + 1) + 0.2 exp(1.3 t), sampled on
[-1.02, 1.02] and compared on 8000 points of [-1, 1]. Samples here lie at cell centres, and all
stages see all of them, where the authors have 1501 for two stages and 4801 for two more.

    python benchmarks/multistage.py [--samples 3001] [--seed 0] [--preset array/multistage-precise]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import machine, table

import inr
from fields.multistage import MultiStage
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.signals.array import ArraySignal

MARGIN = 1.02
POINTS = np.linspace(-1, 1, 8000)
EXAMPLES = {
    "ln(t + 2) cos(2 t + t^3)": lambda t: np.log(t + 2) * np.cos(2 * t + t**3),
    "sin(2 t + 1) + 0.2 exp(1.3 t)": lambda t: np.sin(2 * t + 1) + 0.2 * np.exp(1.3 * t),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=3001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="array/multistage-precise")
    args = parser.parse_args()
    print(machine())
    for name, function in EXAMPLES.items():
        lattice = (2 * np.arange(args.samples) + 1) / args.samples - 1
        signal = ArraySignal.from_array(function(MARGIN * lattice))
        preset = presets.load(args.preset, "array")
        fit = inr.fit(signal, preset, seed=args.seed, device="cpu")
        rows = []
        for number, stage in enumerate(fit.stages):
            on_lattice = relative(fit.field, number + 1, lattice, signal, function)
            between = relative(fit.field, number + 1, POINTS / MARGIN, signal, function)
            cells = (on_lattice[0], between[0], between[1])
            head = [str(number + 1), f"{stage.kappa[0]:.1f}", f"{stage.scale:.1e}"]
            rows.append([*head, *(f"{x:.1e}" for x in cells), f"{stage.seconds:.0f}"])
        print(
            f"\n{name}, seed {args.seed}: {fit.steps} steps in {fit.seconds:.0f} s, {fit.ended}\n"
        )
        heads = ["stage", "kappa", "eps", "rel. L2, samples", "rel. L2, [-1, 1]", "max, [-1, 1]"]
        print(table([*heads, "seconds"], rows))
        data = encode(fit.field, signal)
        again = signal.metrics(decode(data))["relative_l2"]
        print(f"\nthe file: {len(data):,} bytes, relative L2 error {again:.1e}", flush=True)


def relative(
    field: MultiStage, stages: int, coords: np.ndarray, signal: ArraySignal, function
) -> tuple[float, float]:
    """Relative L2 error and largest error of the first stages alone, in units of the function."""
    axes = [torch.from_numpy(coords)]
    with torch.no_grad():
        values = torch.zeros(len(coords), 1, dtype=torch.float64)
        for scale, kappa, network in zip(
            field.scales[:stages], field.kappas, field.networks, strict=False
        ):
            values += scale * network.on_grid([kappa[0] * axes[0]])
    domain = signal.domain
    found = values[:, 0].numpy() * (domain.high - domain.low) / 2 + (domain.high + domain.low) / 2
    truth = function(MARGIN * coords)
    error = found - truth
    return float(np.linalg.norm(error) / np.linalg.norm(truth)), float(np.abs(error).max())


if __name__ == "__main__":
    main()
