"""Cost of a training step of every field against the plain torch operations that it consists of.

The floor of a field is the time of its matrix products behind the first layer (forward, gradients
of weights and inputs) and of its activations (forward and backward through autograd), each run
alone on tensors of the same tile. The step is that of the trainer's inner loop: field on the
lattice, squared error, backward, tile by tile. Both alternate; medians of ratios over rounds.

    python benchmarks/fields_step.py [--rounds 5] [--side 128] [--fields siren,wire]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from common import machine, table
from torch import Tensor

import fields
from fields.base import points_per_tile
from fields.chebyshev import chebyshev
from fields.complex import wave

Activation = Callable[[Tensor], Tensor]


def damped(u: Tensor) -> Tensor:
    return torch.sin(u) * u.abs().clamp(min=1e-30).sqrt()


def wire(z: Tensor) -> Tensor:
    x, y = z.chunk(2, -1)
    return wave(-(30.0**2) * (x.square() + y.square()) - 20 * y, 20 * x)


def wavelet_of_sine(z: Tensor) -> Tensor:
    a, b = (z * (z.abs() / 5 + 1)).chunk(2, -1)
    real, imag = torch.sin(a) * torch.cosh(b), torch.cos(a) * torch.sinh(b)
    return wave(-4 * imag - 4 * (real.square() + imag.square()), 4 * real)


def gated(u: Tensor) -> Tensor:
    return (u + torch.tanh(30 * u)) * torch.sigmoid(u)


def finer(p: Tensor) -> Tensor:
    return torch.sin(p * (p.abs() / 30 + 1))


def finer_gauss(p: Tensor) -> Tensor:
    return torch.exp(-(3 * torch.sin(p * (p.abs() / 10 + 1))).square())


def gauss(z: Tensor) -> Tensor:
    return torch.exp(-(30 * z).square())


def kan(h: Tensor) -> Tensor:
    return chebyshev(torch.tanh(h), 8)


def filtered(z: Tensor) -> Tensor:
    phase, h = z.unbind()
    return torch.sin(phase) * h


def gabor_filtered(z: Tensor) -> Tensor:
    phase, exponent, h = z.unbind()
    return torch.sin(phase) * torch.exp(exponent) * h


def fused(z: Tensor) -> Tensor:
    y, gate = z.unbind()
    return torch.relu(y) * gate


WIRE = 2 * int(256 / math.sqrt(2))
WIDE = [(256, 256)] * 3
INPUTS = {filtered: 2, gabor_filtered: 3, fused: 2}
"""Activations of several tensors: filters and gates multiply what came before."""

SPECS: dict[str, tuple[list[tuple[int, int]], Activation, list[int]]] = {
    # products after the first layer, activation, the width of each of its inputs
    "siren": ([*WIDE, (256, 1)], torch.sin, [256] * 4),
    "finer": ([*WIDE, (256, 1)], finer, [256] * 4),
    "finer-gauss": ([*WIDE, (256, 1)], finer_gauss, [256] * 4),
    "finer-wavelet": ([(WIRE, WIRE)] * 3 + [(WIRE, 1)], wavelet_of_sine, [WIRE] * 4),
    "gauss": ([*WIDE, (256, 1)], gauss, [256] * 4),
    "spder": ([(256, 256)] * 5 + [(256, 1)], damped, [256] * 6),
    "relu-pe": ([*WIDE, (256, 1)], torch.relu, [256] * 4),
    "rff": ([(512, 256)] + [(256, 256)] * 2 + [(256, 1)], torch.relu, [256] * 3),
    "wire": ([(WIRE, WIRE)] * 2 + [(WIRE, 1)], wire, [WIRE] * 3),
    "fkan": ([(128, 256), (256, 256), (256, 256), (256, 512), (512, 1)], gated, [256] * 3 + [512]),
    "sl2a": ([(256, 128), (128, 256)] * 3 + [(256, 1)], fused, [256] * 3),
    "chebykan": ([(64 * 9, 64)] * 3 + [(64 * 9, 1)], kan, [64] * 4),
    "fouriernet": ([*WIDE, (256, 1)], filtered, [256] * 4),
    "gabornet": ([*WIDE, (256, 1)], gabor_filtered, [256] * 4),
    "bacon": ([(256, 256)] * 4 + [(256, 1)], filtered, [256] * 5),
}


def step(field: fields.Field, axes: list[Tensor], rows: int, target: Tensor) -> None:
    for start in range(0, len(axes[0]), rows):
        part = slice(start, start + rows)
        (field.on_grid([axes[0][part], axes[1]]) - target[part]).square().sum().backward()
    field.zero_grad(set_to_none=True)


def floor(name: str, points: int, tiles: int) -> Callable[[], float]:
    """Seconds of the products and activations of one step, each timed alone."""
    products, activation, widths = SPECS[name]
    tensors = [
        (torch.randn(points, k), torch.randn(k, n), torch.randn(points, n)) for k, n in products
    ]
    parts = [INPUTS[activation]] if activation in INPUTS else []
    inputs = [torch.randn(*parts, points, n, requires_grad=True) for n in widths]
    gradients = [torch.ones_like(activation(z.detach())) for z in inputs]

    def once() -> None:
        for x, w, g in tensors:
            x @ w
            g @ w.T
            x.T @ g
        for z, g in zip(inputs, gradients, strict=True):
            activation(z).backward(g)
            z.grad = None

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(tiles):
            once()
        return time.perf_counter() - begin

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--fields", type=str, default=",".join(SPECS))
    args = parser.parse_args()
    print(machine())
    axes = [torch.linspace(-1, 1, args.side)] * 2
    target = torch.zeros(args.side, args.side, 1)
    rows = []
    for name in args.fields.split(","):
        torch.manual_seed(0)
        field = fields.create(name, 2, 1)
        height = max(1, points_per_tile(field) // args.side)
        tiles = math.ceil(args.side / height)
        least = floor(name, min(height, args.side) * args.side, tiles)
        times: list[tuple[float, float]] = []
        for _ in range(args.rounds + 1):
            begin = time.perf_counter()
            step(field, axes, height, target)
            ours = time.perf_counter() - begin
            times.append((ours, least()))
        ratios = [a / b for a, b in times[1:]]
        ours, theirs = (1e3 * statistics.median(t) for t in zip(*times[1:], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, f"{ours:.0f} ms", f"{theirs:.0f} ms", spread])
    print(f"\nOne step on {args.side} x {args.side} points, default sizes, one channel\n")
    print(table(["field", "step", "its operations alone", "ratio"], rows))


if __name__ == "__main__":
    main()
