"""The fused kernels of the CPU against plain torch and torch.compile, in one run and one table.

    python benchmarks/kernels.py [--rounds 7] [--threads 2] [--only NAME] [--quick] [--out FILE.md]

A training step is forward, squared error, backward and Adam (torch's fused one) over all points.
Contenders start from the same parameters and take turns within every round, each for as many steps
as make a tenth of a second; compared are medians over the rounds, so that a busy machine shifts all
of them. What torch.compile needs to compile comes before and is told apart. Before the first step
each contender's gradients are held against those of the plain twin in float64: of every tensor the
largest error over its largest entry, the worst tensor's.

The floor of a case is the arithmetic of its matrix products at the best rate that `torch.mm`
reached in the same run on 1,024 x 1,024 float32 matrices; activations, interpolation and Adam come
on top of it, so that nothing can reach it quite. The grid has none: its products are the
least of it.

`--quick` is for trying the program: few points, two rounds, no torch.compile; its figures mean
nothing. `--out` keeps what stands in the file above the line `<!-- figures -->`.
"""

from __future__ import annotations

import os

# as the command `inr` has it for all that it runs: torch reads it when it is loaded
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import argparse
import copy
import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import imageio.v3
import numpy as np
import torch
from common import ROOT, machine, table
from torch import Tensor

import fields
from fields.base import points_per_tile
from fields.grid import Grid, centres
from fields.kernels import reference
from fields.kernels.build import NoKernel
from fields.kernels.plan import GridPlan, Layer, Mlp

CHUNK = 4096
"""Points of a chunk: what the presets of networks take in one step."""

TURN = 0.1
"""Seconds that a contender has in each round, or one step if that is longer."""

MARK = "<!-- figures -->"

FUSED = "fused C++"


@dataclass
class Contender:
    """One way to do a case.

    Args:
        name: What the table calls it.
        step: Does it once.
        gradients: Of the start, by parameter; None where nothing is trained.
        note: What else to say of it.
    """

    name: str
    step: Callable[[], object]
    gradients: Callable[[], list[Tensor]] | None = None
    note: str = ""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    error: float | None = None
    turns: int = 1

    @property
    def median(self) -> float:
        return statistics.median(self.wall)


@dataclass(frozen=True)
class Bar:
    """What is promised of the fused contender: so many times as fast as the best of others."""

    times: float
    than: tuple[str, ...]


@dataclass
class Case:
    """Something to compute, and who does it.

    Args:
        title: For the table.
        flop: Arithmetic of all matrix products; 0 where they are not what it is about.
        exact: The gradients in float64, in the order of the contenders'.
        bars: What is promised.
        missing: Contenders that are not to be had here, and why.
    """

    title: str
    flop: float
    exact: Callable[[], list[Tensor]] | None
    contenders: list[Contender]
    bars: tuple[Bar, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


class Textbook(torch.nn.Module):
    """SIREN as its authors write it: sin(omega * linear(x)), omega applied to activations."""

    def __init__(self, like: fields.Siren) -> None:
        super().__init__()
        self.linears = torch.nn.ModuleList([copy.deepcopy(x.linear) for x in like.layers])
        self.out = copy.deepcopy(like.out)

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.linears:
            x = torch.sin(30 * linear(x))
        return self.out(x)


def trained(
    name: str,
    parameters: Sequence[Tensor],
    backward: Callable[[], object],
    groups: Sequence[Sequence[Tensor]] | None = None,
    note: str = "",
) -> Contender:
    """A contender of a training step: `backward` leaves gradients with the parameters.

    Args:
        name: What the table calls it.
        parameters: In the order in which gradients are compared.
        backward: Squared error over all points, and its gradients.
        groups: Parameters by optimiser; one for all if None.
        note: What else to say of it.
    """
    adams = [torch.optim.Adam(list(g), lr=1e-4, fused=True) for g in groups or [parameters]]

    def step() -> None:
        for adam in adams:
            adam.zero_grad(set_to_none=True)
        backward()
        for adam in adams:
            adam.step()

    def gradients() -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = None
        backward()
        return [gradient(p).clone() for p in parameters]

    return Contender(name, step, gradients, note)


def gradient(parameter: Tensor) -> Tensor:
    """What a backward pass has left."""
    assert parameter.grad is not None
    return parameter.grad


def backend(name: str) -> ModuleType:
    """A module of `fields.kernels`, its library built.

    Raises:
        NoKernel: it is not to be had here.
    """
    try:
        return importlib.import_module(f"fields.kernels.{name}")
    except ModuleNotFoundError as error:
        raise NoKernel(f"there is no {error.name}") from None


def mlp_plan(field: fields.Field) -> Mlp:
    plan = field.plan()
    assert isinstance(plan, Mlp)
    return plan


def grid_plan(field: fields.Field) -> GridPlan:
    plan = field.plan()
    assert isinstance(plan, GridPlan)
    return plan


# ---- a SIREN's training step ---------------------------------------------------------------------


def siren(width: int, hidden: int, quick: bool) -> Case:
    """65,536 points of a photograph, three channels."""
    side = 64 if quick else 256
    points, target = photograph(side)
    count = target.numel()
    torch.manual_seed(0)
    start = fields.Siren(2, 3, hidden_features=width, hidden_layers=hidden)

    def whole(model: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def backward() -> None:
            ((model(points) - target).square().sum() / count).backward()

        return backward

    def chunked(model: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def backward() -> None:
            for x, y in zip(points.split(CHUNK), target.split(CHUNK), strict=True):
                ((model(x) - y).square().sum() / count).backward()

        return backward

    contenders = []
    for ways, how in ((whole, "whole"), (chunked, f"{CHUNK:,}")):
        for make, what in ((Textbook, "textbook"), (copy.deepcopy, "omega in weights")):
            model = make(start)
            name = f"eager, {how}, {what}"
            contenders.append(trained(name, list(model.parameters()), ways(model)))
    case = Case(
        f"SIREN 2->{width}x{hidden + 1}->3, {len(points):,} points, training step",
        _training_flop(mlp_plan(start), len(points)),
        lambda: _exact(start, points, target),
        contenders,
        _siren_bars(width),
    )
    if not quick:
        for ways, how in ((_compiled_whole, "whole"), (_compiled_chunks, f"{CHUNK:,}")):
            case.contenders.append(ways(f"torch.compile, {how}", Textbook(start), points, target))
    else:
        for how in ("whole", f"{CHUNK:,}"):
            case.missing[f"torch.compile, {how}"] = "left out by --quick"

    def fused() -> Contender:
        kernel = backend("cpp_mlp")
        own = copy.deepcopy(start)

        def backward() -> None:
            (kernel.mlp_error(mlp_plan(own), points, target) / count).backward()

        return trained(FUSED, list(own.parameters()), backward)

    _add(case, FUSED, fused)
    return case


def _siren_bars(width: int) -> tuple[Bar, ...]:
    compiled = ("torch.compile, whole", f"torch.compile, {CHUNK:,}")
    if width == 64:
        return Bar(3.5, ("eager, whole",)), Bar(2.0, compiled)
    return (Bar(1.4, (f"eager, {CHUNK:,}", f"torch.compile, {CHUNK:,}")),)


def _compiled_whole(name: str, model: torch.nn.Module, points: Tensor, target: Tensor) -> Contender:
    error = torch.compile(lambda x, y: (model(x) - y).square().mean(), dynamic=False)
    return _compiled(name, model, lambda: error(points, target).backward())


def _compiled_chunks(
    name: str, model: torch.nn.Module, points: Tensor, target: Tensor
) -> Contender:
    count = target.numel()
    error = torch.compile(lambda x, y: (model(x) - y).square().sum() / count, dynamic=False)

    def backward() -> None:
        for x, y in zip(points.split(CHUNK), target.split(CHUNK), strict=True):
            error(x, y).backward()

    return _compiled(name, model, backward)


def _compiled(name: str, model: torch.nn.Module, backward: Callable[[], object]) -> Contender:
    begin = time.perf_counter()
    backward()
    seconds = time.perf_counter() - begin
    return trained(name, list(model.parameters()), backward, note=f"{seconds:.0f} s to compile")


def photograph(side: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Pixel centres, shape (side^2, 2), and values in [-1, 1], shape (side^2, channels)."""
    name = "astronaut" if channels == 3 else "camera"
    pixels = np.asarray(imageio.v3.imread(ROOT / "assets" / f"{name}.png"))[:side, :side]
    axis = centres(side).to(torch.float32)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    values = torch.from_numpy(pixels.astype(np.float32)) / 127.5 - 1
    return points, values.reshape(side * side, channels)


def _exact(start: fields.Field, points: Tensor, target: Tensor) -> list[Tensor]:
    own = copy.deepcopy(start).double()
    for x, y in zip(points.split(CHUNK), target.split(CHUNK), strict=True):
        error = reference.mlp_error(mlp_plan(own), x.double(), y.double()) / target.numel()
        error.backward()
    return [gradient(p) for p in own.parameters()]


def _training_flop(plan: Mlp, points: int) -> float:
    """Two operations per weight and point forward, two each for both gradients.

    Coordinates have no gradient.
    """
    sizes = [layer.weight.numel() for layer in plan.layers]
    return float(points * (6 * sum(sizes) - 2 * sizes[0]))


# ---- the grid's training step --------------------------------------------------------------------


def grid(channels: int, quick: bool) -> Case:
    """The default field on a photograph of 512 x 512."""
    side = 64 if quick else 512
    _, values = photograph(side, channels)
    target = values.reshape(side, side, channels)
    axes = [centres(side).to(torch.float32)] * 2
    torch.manual_seed(0)
    start = Grid(2, channels, **Grid.suggest([side, side]))

    def eager(own: Grid, rows: int) -> Callable[[], object]:
        def backward() -> None:
            for i in range(0, side, rows):
                part = slice(i, i + rows)
                plan = grid_plan(own)
                error = reference.grid_error_on_lattice(
                    plan, [axes[0][part], axes[1]], target[part]
                )
                (error / target.numel()).backward()

        return backward

    def exact() -> list[Tensor]:
        own = copy.deepcopy(start).double()
        plan = grid_plan(own)
        wide = [axis.double() for axis in axes]
        error = reference.grid_error_on_lattice(plan, wide, target.double()) / target.numel()
        error.backward()
        return [gradient(p) for p in own.parameters()]

    # as the trainer does it: bands whose widest activation fills a cache
    rows = max(1, points_per_tile(start) // side)
    ways = {"eager, whole": side, f"eager, bands of {rows}": rows}
    contenders = []
    for name, height in ways.items() if rows < side else [("eager, whole", side)]:
        own = copy.deepcopy(start)
        contenders.append(trained(name, list(own.parameters()), eager(own, height)))
    case = Case(
        f"grid, {channels} channel{'s'[: channels - 1]}, {side} x {side}, training step",
        0.0,
        exact,
        contenders,
        (Bar(6.0, ("eager",)),),
    )

    def fused() -> Contender:
        kernel = backend("cpp_grid")
        own = copy.deepcopy(start)

        def backward() -> None:
            (kernel.grid_error_on_lattice(grid_plan(own), axes, target) / target.numel()).backward()

        return trained(FUSED, list(own.parameters()), backward)

    _add(case, FUSED, fused)
    return case


# ---- many networks at once -----------------------------------------------------------------------


def many(quick: bool) -> Case:
    """32 small SIRENs, each with a target of its own, one step of all."""
    networks, side = (4, 16) if quick else (32, 64)
    points, _ = photograph(side)
    targets = torch.rand(networks, len(points), 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    starts = [fields.Siren(2, 3, hidden_features=32, hidden_layers=2) for _ in range(networks)]
    count = targets[0].numel()

    singles = [Textbook(x) for x in starts]

    def loop() -> None:
        for model, target in zip(singles, targets, strict=True):
            ((model(points) - target).square().sum() / count).backward()

    # compared with the others' stacked gradients, so in the same order: all networks by parameter
    by_name = [list(group) for group in zip(*(m.parameters() for m in singles), strict=True)]
    contenders = [
        trained(
            "eager, a loop",
            [p for group in by_name for p in group],
            loop,
            [list(m.parameters()) for m in singles],
        )
    ]

    def stacked() -> tuple[dict[str, Tensor], list[Tensor]]:
        found, _ = torch.func.stack_module_state([Textbook(x) for x in starts])
        leaves = {n: p.detach().clone().requires_grad_() for n, p in found.items()}
        return leaves, list(leaves.values())

    base = Textbook(starts[0])
    by_vmap, leaves = stacked()

    def one(parameters: dict[str, Tensor], target: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(base, parameters, (points,))
        return (out - target).square().sum()

    def vmapped() -> None:
        (torch.func.vmap(one)(by_vmap, targets).sum() / count).backward()

    contenders.append(trained("eager, vmap", leaves, vmapped))

    def plan(parameters: Sequence[Tensor]) -> Mlp:
        pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
        layers = [Layer(w, b, "sine", 30.0) for w, b in pairs[:-1]]
        return Mlp((*layers, Layer(*pairs[-1])))

    batched = stacked()[1]

    def by_product() -> None:
        (reference.mlp_error(plan(batched), points, targets) / count).backward()

    contenders.append(trained("eager, batched products", batched, by_product))

    def exact() -> list[Tensor]:
        own = [p.detach().double().requires_grad_() for p in stacked()[1]]
        for i, target in enumerate(targets):
            alone = plan([p[i] for p in own])
            (reference.mlp_error(alone, points.double(), target.double()) / count).backward()
        return [gradient(p) for p in own]

    case = Case(
        f"{networks} SIRENs 2->32x3->3, {len(points):,} points, one step of all",
        networks * _training_flop(mlp_plan(starts[0]), len(points)),
        exact,
        contenders,
    )

    def fused() -> Contender:
        kernel = backend("cpp_mlp")
        own = stacked()[1]

        def backward() -> None:
            (kernel.mlp_error(plan(own), points, targets) / count).backward()

        return trained(FUSED, own, backward)

    _add(case, FUSED, fused)
    return case


# ---- drawing -------------------------------------------------------------------------------------


def drawing(quick: bool) -> Case:
    """A picture of 512 x 512 from a SIREN, forward alone."""
    side = 64 if quick else 512
    torch.manual_seed(0)
    start = fields.Siren(2, 3, hidden_features=256, hidden_layers=2)
    axes = [centres(side).to(torch.float32)] * 2
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)

    def quiet(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(function)

    case = Case(
        f"SIREN 2->256x3->3, {side} x {side}, values alone",
        2.0 * len(points) * sum(x.weight.numel() for x in mlp_plan(start).layers),
        None,
        [
            Contender("eager, whole", quiet(lambda: start(points))),
            Contender("eager, tiles of 4 MiB", quiet(lambda: start.on_grid(axes))),
        ],
    )

    def fused() -> Contender:
        kernel = backend("cpp_mlp")
        step = quiet(lambda: kernel.mlp(mlp_plan(start), points))
        with torch.no_grad():
            wide = reference.mlp(mlp_plan(copy.deepcopy(start).double()), points.double())
        error = float((step() - wide).abs().max() / wide.abs().max())
        return Contender(FUSED, step, note=f"values {error:.0e} from float64")

    _add(case, FUSED, fused)
    return case


# ---- the run -------------------------------------------------------------------------------------

CASES: Mapping[str, Callable[[bool], Case]] = {
    "siren64x3": lambda quick: siren(64, 2, quick),
    "siren64x4": lambda quick: siren(64, 3, quick),
    "siren256x3": lambda quick: siren(256, 2, quick),
    "siren256x4": lambda quick: siren(256, 3, quick),
    "grid": lambda quick: grid(1, quick),
    "grid-rgb": lambda quick: grid(3, quick),
    "many": many,
    "drawing": drawing,
}

ACCURACY = 1e-5
"""Bar on the relative error of the fused contender's gradients."""


def _add(case: Case, name: str, make: Callable[[], Contender]) -> None:
    try:
        contender = make()
        contender.step()  # builds the library, if it is to be had
        contender = make()  # and starts from the same parameters as all
    except NoKernel as error:
        case.missing[name] = str(error)
    else:
        case.contenders.append(contender)


class Products:
    """The rate of matrix products in this run."""

    def __init__(self, size: int = 1024) -> None:
        self.a, self.b = torch.randn(2, size, size).unbind()
        self.flop = 2.0 * size**3
        self.best = 0.0

    def measure(self) -> None:
        for _ in range(4):
            begin = time.perf_counter()
            torch.mm(self.a, self.b)
            self.best = max(self.best, self.flop / (time.perf_counter() - begin))


def measure(case: Case, rounds: int, products: Products) -> None:
    """Gradients first, then the rounds; the first of them only warms up."""
    exact = case.exact() if case.exact else None
    for contender in case.contenders:
        if contender.gradients is not None and exact is not None:
            contender.error = worst(contender.gradients(), exact)
        begin = time.perf_counter()
        contender.step()
        contender.turns = max(1, round(TURN / (time.perf_counter() - begin)))
    for number in range(rounds + 1):
        products.measure()
        # to and fro, so that nobody always follows the same neighbour
        for contender in case.contenders[:: -1 if number % 2 else 1]:
            begin, busy = time.perf_counter(), time.process_time()
            for _ in range(contender.turns):
                contender.step()
            if number:
                contender.wall.append((time.perf_counter() - begin) / contender.turns)
                contender.cpu.append((time.process_time() - busy) / contender.turns)


def worst(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest error of a tensor over its largest entry, of the worst tensor.

    The parameters of networks one by one are stacked as those that are exact.
    """
    if len(found) != len(exact):
        each = len(found) // len(exact)
        found = [torch.stack(list(found[i : i + each])) for i in range(0, len(found), each)]
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
    return math.nan if any(math.isnan(x) for x in errors) else max(errors)


def lines(case: Case, rate: float) -> Iterator[list[str]]:
    """Rows of the table."""
    floor = case.flop / rate or math.nan
    fused = next((c for c in case.contenders if c.name == FUSED), None)
    for contender in case.contenders:
        yield [
            contender.name,
            f"{1e3 * contender.median:.1f}",
            f"{1e3 * min(contender.wall):.1f}",
            f"{1e3 * statistics.median(contender.cpu):.1f}",
            f"{contender.median / fused.median:.2f}" if fused else "",
            f"{contender.median / floor:.1f}" if case.flop else "",
            "" if contender.error is None else f"{contender.error:.0e}",
            contender.note,
        ]
    for name, why in case.missing.items():
        yield [name, "", "", "", "", "", "", why]


def verdicts(case: Case) -> Iterator[str]:
    """Whether each bar is reached."""
    fused = next((c for c in case.contenders if c.name == FUSED), None)
    for bar in case.bars:
        others = [c for c in case.contenders if c.name.startswith(bar.than)]
        what = f"{case.title}: {bar.times:g} x the best of {' and '.join(bar.than)}"
        absent = [x for x in bar.than if not any(c.name.startswith(x) for c in others)]
        if fused is None or absent:
            yield f"not measured: {what}"
            continue
        best = min(others, key=lambda c: c.median)
        ratio = best.median / fused.median
        verdict = "reached" if ratio >= bar.times else "NOT REACHED"
        yield f"{verdict}: {what}: {ratio:.2f} x ({best.name})"
    if fused is not None and fused.error is not None:
        verdict = "reached" if fused.error <= ACCURACY else "NOT REACHED"
        what = f"gradients within {ACCURACY:.0e} of float64"
        yield f"{verdict}: {case.title}: {what}: {fused.error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(CASES), action="append")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rounds = 2 if args.quick else args.rounds
    text = [f"{machine()}; medians of {rounds} interleaved rounds"]
    if args.quick:
        text.append("\n**A trial run (`--quick`): the figures mean nothing.**")
    print("\n".join(text), flush=True)
    told = len(text)
    products = Products()
    cases = []
    for name in args.only or CASES:
        torch._dynamo.reset()
        case = CASES[name](args.quick)
        measure(case, rounds, products)
        cases.append(case)
        found = ", ".join(f"{c.name} {1e3 * c.median:.1f}" for c in case.contenders)
        print(f"{name}: {found} ms; load {os.getloadavg()[0]:.1f}", flush=True)
    text.append(
        f"\nBest rate of `torch.mm`: {products.best / 1e9:.0f} GFLOP/s; load "
        f"{os.getloadavg()[0]:.1f} at the end."
    )
    head = ["", "ms", "least", "CPU ms", "x fused", "x floor", "gradients", ""]
    for case in cases:
        text += [f"\n### {case.title}\n", table(head, list(lines(case, products.best)))]
    text += ["\n### The bars\n", *(f"- {line}" for case in cases for line in verdicts(case))]
    print("\n".join(text[told:]))
    if args.out:
        before = args.out.read_text().partition(MARK)[0] if args.out.exists() else ""
        args.out.write_text(before + "\n".join([MARK, "", *text]) + "\n")


if __name__ == "__main__":
    main()
