"""What the CUDA kernels do on this GPU: one table, one line per bar.

    python benchmarks/gpu.py [--out docs/benchmarks/gpu.md] [--quick] [--only NAME ...]

It takes less than 8 minutes on an H200 (--quick: about one, with few rounds, without torch.compile
and with shorter fits). Without a CUDA device it says so and exits with code 2.

Contenders of a row alternate within each round, in one process, and medians of the rounds are
compared. A round's time is that between two CUDA events around enough steps to fill it, so it has
the gaps in which the GPU waits for Python. A step is forward, backward and Adam. A row that fails
says so in its place, and the others go on; after an error that takes the CUDA context with it, all
later rows will fail too.

A floor is the largest of what tensor cores, sine units and memory need at least, at the rates of an
H200 (790 TFLOP/s half precision and 4.3 TB/s as measured, 4.2e12 sines/s as specified): weights and
phases move once.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import ROOT, table
from torch import Tensor, nn

import fields
from fields.kernels import reference
from fields.kernels.plan import GridPlan
from fields.kernels.step import FusedStep, Stack

FLOPS = 790e12
SINES = 4.2e12
BYTES = 4.3e12

Step = Callable[[], Any]


@dataclass
class Setting:
    """How large and how long.

    Args:
        device: "cuda"; on "cpu" all rows can be rehearsed at small sizes.
        sizes: Points of the training steps; bars are for 2^20.
        small: Points of the captured step.
        networks: How many fields are trained at once, and `points` each has.
        looped: How many of them the loop goes through; its time is scaled up.
        rounds: Rounds of a comparison.
        block: Milliseconds that a contender has in a round.
        seeds: Fits of the comparison of precisions.
        steps: Steps of each.
        side: Side of the picture that they fit.
        compiled: Whether torch.compile takes part.
        kernels: What computes; None for the Triton kernels.
        limit: Seconds after which no further row begins.
    """

    device: str = "cuda"
    sizes: tuple[int, ...] = (1 << 18, 1 << 20, 1 << 21)
    small: int = 1 << 14
    networks: int = 1024
    points: int = 4096
    looped: int = 32
    rounds: int = 7
    block: float = 60.0
    seeds: int = 5
    steps: int = 2000
    side: int = 128
    compiled: bool = True
    kernels: Any = None
    limit: float = 420.0


QUICK = Setting(
    sizes=(1 << 18, 1 << 20),
    rounds=3,
    block=30.0,
    seeds=2,
    steps=500,
    side=64,
    compiled=False,
    limit=50.0,
)


@dataclass
class Row:
    """A line of the table.

    Args:
        what: What was measured.
        figure: With its unit, or what went wrong.
        bar: What it is to reach, in words.
        reached: Whether it does; None where there is no bar or no figure.
        more: Contenders, floors, and who failed.
    """

    what: str
    figure: str
    bar: str = ""
    reached: bool | None = None
    more: str = ""

    def cells(self) -> list[str]:
        told = {True: "reached", False: "NOT reached", None: ""}[self.reached]
        return [self.what, self.figure, self.bar, told, self.more]


@dataclass
class Times:
    """Milliseconds per step by contender and round, and why some did not take part."""

    rounds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """The median of a contender.

        Raises:
            RuntimeError: it failed.
        """
        if name not in self.rounds:
            raise RuntimeError(f"{name}: {self.failed.get(name, 'did not take part')}")
        return statistics.median(self.rounds[name])

    def told(self) -> str:
        """All contenders in one line."""
        times = [f"{name} {self.of(name):.3g} ms" for name in self.rounds]
        return "; ".join([*times, *(f"{name}: {why}" for name, why in self.failed.items())])


def block(step: Step, count: int, device: str) -> float:
    """Milliseconds of `count` steps, one after the other."""
    if device == "cpu":
        begin = time.perf_counter()
        for _ in range(count):
            step()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def interleaved(contenders: dict[str, Callable[[], Step]], setting: Setting) -> Times:
    """Time contenders in turn, round by round; each is made by a call, and warmed up."""
    times = Times()
    ready: dict[str, tuple[Step, int]] = {}
    for name, make in contenders.items():
        try:
            step = make()
            block(step, 3, setting.device)
            each = block(step, 2, setting.device) / 2
            ready[name] = (step, max(2, min(2000, round(setting.block / max(each, 1e-3)))))
        except Exception as error:
            times.failed[name] = told(error)
    for _ in range(setting.rounds):
        for name, (step, count) in ready.items():
            times.rounds.setdefault(name, []).append(block(step, count, setting.device) / count)
    return times


def told(error: BaseException) -> str:
    """An error in one line that does not break a table."""
    first = str(error).strip().split("\n")[0].replace("|", "/")
    return f"{type(error).__name__}: {first}"[:160]


def floor(width: int, layers: int, points: int, axes: int = 2, channels: int = 3) -> float:
    """Milliseconds that a training step of a SIREN cannot fall below on an H200.

    Args:
        width: Units per layer.
        layers: Layers of sines.
        points: Points per step.
        axes: Coordinates per point.
        channels: Values per point.
    """
    units = layers * width
    multiplies = axes * width + (layers - 1) * width**2 + width * channels
    products = 3 * 2 * multiplies * points / FLOPS  # forward, by weights, by inputs
    sines = 3 * units * points / SINES  # forward, then sine and cosine again
    memory = 2 * 2 * units * points / BYTES  # int16 phases, written and read
    return 1e3 * max(products, sines, memory)


class Textbook(nn.Module):
    """A SIREN as its authors write it: sin(omega * linear(x))."""

    def __init__(self, like: fields.Siren) -> None:
        super().__init__()
        self.linears = nn.ModuleList([layer.linear for layer in like.sines])
        self.out = like.out

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.linears:
            x = torch.sin(30 * linear(x))
        return self.out(x)


def batch(setting: Setting, points: int, *networks: int) -> tuple[Tensor, Tensor]:
    """Coordinates and targets, the same in each run."""
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(points, 2, generator=generator) * 2 - 1
    targets = torch.rand(*networks, points, 3, generator=generator) * 2 - 1
    return coords.to(setting.device), targets.to(setting.device)


def siren(setting: Setting, width: int, depth: int, seed: int = 0) -> fields.Siren:
    torch.manual_seed(seed)
    made = fields.Siren(2, 3, hidden_features=width, hidden_layers=depth)
    return made.to(setting.device)


def plain(module: nn.Module, coords: Tensor, targets: Tensor, half: bool = False) -> Step:
    """The textbook loop with torch's fused Adam."""
    adam = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)
    kind = coords.device.type

    def step() -> None:
        adam.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            values = module(coords)
        torch.nn.functional.mse_loss(values.float(), targets).backward()
        adam.step()

    return step


def fused(
    setting: Setting, what: fields.Field | Stack, coords: Tensor, targets: Tensor, **options: Any
) -> Step:
    """Our step, captured on a GPU."""
    step = FusedStep(what, lr=1e-4, **({"kernels": setting.kernels} | options))
    return lambda: step(coords, targets)


def siren_steps(setting: Setting, width: int, depth: int, bar: float | None) -> Iterator[Row]:
    """Training steps of one SIREN at all sizes, against eager TF32 and compiled bf16."""
    for points in setting.sizes:
        coords, targets = batch(setting, points)
        decisive = points == 1 << 20 and bar is not None
        contenders: dict[str, Callable[[], Step]] = {
            "fused": lambda: fused(setting, siren(setting, width, depth), coords, targets),  # noqa: B023
            "eager TF32": lambda: plain(Textbook(siren(setting, width, depth)), coords, targets),  # noqa: B023
        }
        if decisive and setting.compiled:
            contenders["torch.compile bf16"] = lambda: plain(
                torch.compile(Textbook(siren(setting, width, depth))),
                coords,  # noqa: B023
                targets,  # noqa: B023
                half=True,
            )
        times = interleaved(contenders, setting)
        name = f"SIREN {width}, {depth + 1} sine layers, {points:,} points"
        goal = bar if decisive else None
        row = own(name, times, goal)
        least = floor(width, depth + 1, points)
        if "fused" in times.rounds:
            share = f"{100 * least / times.of('fused'):.0f} % of it reached"
            row.more = f"floor of an H200 {least:.3g} ms, {share}; {row.more}"
        yield row
        yield ratio(f"{name}: against eager TF32", times, "eager TF32", 5 if decisive else None)
        if decisive and setting.compiled:
            yield ratio(f"{name}: against torch.compile bf16", times, "torch.compile bf16", 2)
        release(setting)


def own(name: str, times: Times, bar: float | None = None) -> Row:
    """Milliseconds per step of ours, or that it failed; the bar is in milliseconds too."""
    goal = "" if bar is None else f"{bar:.3g} ms"
    if "fused" not in times.rounds:
        return Row(name, "failed", goal, None, times.told())
    mine = times.of("fused")
    return Row(name, f"{mine:.3g} ms", goal, None if bar is None else mine <= bar, times.told())


def ratio(name: str, times: Times, other: str, bar: float | None, mine: str = "fused") -> Row:
    """How many times as fast as another contender; rounds apart are compared by their medians."""
    goal = "" if bar is None else f"{bar:g}x"
    try:
        faster = times.of(other) / times.of(mine)
    except RuntimeError as error:
        return Row(name, "-", goal, None, told(error))
    each = [a / b for a, b in zip(times.rounds[other], times.rounds[mine], strict=True)]
    spread = f"{min(each):.2f} to {max(each):.2f} by round"
    return Row(name, f"{faster:.2f}x", goal, None if bar is None else faster >= bar, spread)


def wide_steps(setting: Setting) -> Iterator[Row]:
    """256 wide."""
    yield from siren_steps(setting, 256, 2, 3.0)
    yield from siren_steps(setting, 256, 3, None)


def narrow_steps(setting: Setting) -> Iterator[Row]:
    """64 wide."""
    yield from siren_steps(setting, 64, 3, 0.6)


def small_step(setting: Setting) -> Iterator[Row]:
    """A step so small that launches decide."""
    coords, targets = batch(setting, setting.small)
    times = interleaved(
        {
            "fused": lambda: fused(setting, siren(setting, 64, 3), coords, targets),
            "eager TF32": lambda: plain(Textbook(siren(setting, 64, 3)), coords, targets),
        },
        setting,
    )
    name = f"SIREN 64, 4 sine layers, {setting.small:,} points, captured"
    yield own(name, times, 0.06)


def grid_steps(setting: Setting) -> Iterator[Row]:
    """A picture under a hash grid: 32 features, two hidden layers of 64."""
    for points in setting.sizes:
        coords, targets = batch(setting, points)

        def ours() -> fields.Grid:
            torch.manual_seed(0)
            made = fields.Grid(
                *(2, 3),
                resolution=1024,
                levels=8,
                features=4,
                log2_table=15,
                hidden_features=64,
                hidden_layers=2,
            )
            return made.to(setting.device)

        times = interleaved(
            {
                "fused": lambda: fused(setting, ours(), coords, targets),  # noqa: B023
                "eager": lambda: plain(ours(), coords, targets),  # noqa: B023
                "tinycudann": lambda: plain(theirs(), (coords + 1) / 2, targets),  # noqa: B023
            },
            setting,
        )
        name = f"hash grid, 32 features, MLP 64x2, {points:,} points"
        yield own(name, times)
        yield ratio(f"{name}: against eager", times, "eager", None)
        yield ratio(f"{name}: against tinycudann", times, "tinycudann", None)
        release(setting)


def theirs() -> nn.Module:
    """tiny-cuda-nn's picture model with as many features and units; coordinates in [0, 1].

    Its 16 levels of 2 features grow by 1.5 from 16 nodes; ours are 8 of 4 that double.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        import tinycudann
    except ModuleNotFoundError:
        raise RuntimeError("not installed") from None
    grid = {
        "otype": "HashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 15,
        "base_resolution": 16,
        "per_level_scale": 1.5,
    }
    network = {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": 64,
        "n_hidden_layers": 2,
    }
    return tinycudann.NetworkWithInputEncoding(2, 3, grid, network)


def many(setting: Setting) -> Iterator[Row]:
    """Many small fields in one step, against a loop over some of them."""
    count, looped = setting.networks, min(setting.looped, setting.networks)
    coords, targets = batch(setting, setting.points, count)

    def together() -> Step:
        return fused(
            setting, Stack([siren(setting, 32, 2, i) for i in range(count)]), coords, targets
        )

    def one_by_one() -> Step:
        pairs = zip(range(looped), targets, strict=False)
        steps = [plain(Textbook(siren(setting, 32, 2, i)), coords, t) for i, t in pairs]
        return lambda: [step() for step in steps]

    times = interleaved({"fused": together, "loop": one_by_one}, setting)
    if "loop" in times.rounds:
        times.rounds["loop"] = [t * count / looped for t in times.rounds["loop"]]
    name = f"{count:,} SIRENs 32, 3 sine layers, {setting.points:,} points each"
    yield own(name, times)
    row = ratio(f"{name}: against a loop", times, "loop", 30)
    yield dataclasses.replace(row, more=f"loop over {looped}, scaled up; {row.more}")


def gradients(setting: Setting) -> Iterator[Row]:
    """Gradients of the default precision against float64: whether what was timed is right."""
    made = {
        "SIREN 256": siren(setting, 256, 2),
        "SIREN 64": siren(setting, 64, 3),
        "hash grid": fields.Grid(2, 3, resolution=256, levels=6, log2_table=12),
    }
    coords, targets = batch(setting, min(1 << 14, setting.sizes[0]))
    for name, module in made.items():
        module = module.to(setting.device)
        plan = module.plan()
        exact = plan.holding([t.detach().double().requires_grad_() for t in plan.tensors()])
        kind = "grid_error" if isinstance(plan, GridPlan) else "mlp_error"
        kernels = FusedStep(module, kernels=setting.kernels)._kernels
        mine = torch.autograd.grad(getattr(kernels, kind)(plan, coords, targets), plan.tensors())
        error = getattr(reference, kind)(exact, coords.double(), targets.double())
        apart = [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(mine, torch.autograd.grad(error, exact.tensors()), strict=True)
        ]
        bar = 1e-5 if isinstance(plan, GridPlan) else 1e-3
        words = f"{bar:g} of the largest"
        yield Row(f"gradients, {name}", f"{max(apart):.1e}", words, max(apart) <= bar)


def precision(setting: Setting) -> Iterator[Row]:
    """Trained PSNR of the default precision against float32, on a piece of a photograph."""
    import imageio.v3

    whole = torch.from_numpy(imageio.v3.imread(ROOT / "assets" / "coffee.png"))
    side = setting.side
    picture = whole[100 : 100 + side, 200 : 200 + side].to(setting.device).float() / 127.5 - 1
    centres = (2 * torch.arange(side, device=setting.device) + 1) / side - 1
    coords = torch.cartesian_prod(centres, centres)
    targets = picture.reshape(-1, 3).contiguous()

    def trained(kernels: Any, seed: int) -> float:
        module = siren(setting, 256, 2, seed)
        step = FusedStep(module, lr=1e-4, kernels=kernels)
        for _ in range(setting.steps):
            step(coords, targets)
        error = step._kernels.mlp_error(module.plan(), coords, targets) / targets.numel()
        return float(10 * torch.log10(4 / error.detach()))

    torch.set_float32_matmul_precision("highest")
    try:
        pairs = [
            (trained(setting.kernels, seed), trained(reference, seed))
            for seed in range(setting.seeds)
        ]
    finally:
        torch.set_float32_matmul_precision("high")
    mine, exact = (statistics.mean(column) for column in zip(*pairs, strict=True))
    worst = max(b - a for a, b in pairs)
    yield Row(
        f"PSNR after {setting.steps:,} steps, SIREN 256, {side} x {side}, {setting.seeds} seeds",
        f"{mine - exact:+.3f} dB",
        "-0.1 dB",
        mine - exact >= -0.1,
        f"{mine:.2f} dB, float32 {exact:.2f} dB; worst seed {-worst:+.3f} dB",
    )


ROWS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "gradients": gradients,
    "narrow": narrow_steps,
    "small": small_step,
    "many": many,
    "precision": precision,
    "grid": grid_steps,
    "wide": wide_steps,
}


def release(setting: Setting) -> None:
    """Give memory back that the next contenders may need."""
    if setting.device == "cuda":
        torch.cuda.empty_cache()


def shielded(
    name: str, rows: Callable[[Setting], Iterator[Row]], setting: Setting, begun: float
) -> list[Row]:
    """The rows of one kind; what fails stands in its place, and the rest goes on."""
    if time.perf_counter() - begun > setting.limit:
        return [Row(name, "left out: out of time")]
    found: list[Row] = []
    try:
        for row in rows(setting):
            found.append(row)
            print(" | ".join(row.cells()), flush=True)
    except Exception as error:
        found.append(Row(name, "failed", more=told(error)))
    try:
        release(setting)
    except Exception as error:
        found.append(Row(name, "failed", more=told(error)))
    return found


def gpu() -> str:
    """The GPU, its driver and clocks as far as they are known, and our versions."""
    parts = [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
    query = "driver_version,clocks.sm,clocks.max.sm,clocks.max.mem,power.limit"
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        names = ("driver", "clock", "at most", "memory", "power limit")
        values = asked.stdout.strip().split("\n")[0].split(", ")
        parts += [f"{name} {value}" for name, value in zip(names, values, strict=False)]
    except (OSError, subprocess.SubprocessError):
        parts.append("driver and clocks unknown")
    parts.append(f"torch {torch.__version__}")
    try:
        import triton

        parts.append(f"triton {triton.__version__}")
    except ModuleNotFoundError:
        parts.append("no triton")
    return ", ".join(parts)


def document(rows: list[Row], machine: str, seconds: float) -> str:
    """The Markdown that --out receives."""
    head = ["", "measured", "bar", "", "details"]
    bars = [row.reached for row in rows if row.reached is not None]
    return (
        f"# CUDA kernels\n\n{machine}\n\n{table(head, [row.cells() for row in rows])}\n\n"
        f"{sum(bars)} of {len(bars)} bars reached; {seconds:.0f} s. Medians of interleaved "
        "rounds; `python benchmarks/gpu.py` says how.\n"
    )


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    args = parser.parse_args(given)
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py: there is no CUDA device here", file=sys.stderr)
        return 2
    setting = QUICK if args.quick else Setting()
    torch.set_float32_matmul_precision("high")  # what "eager TF32" is
    machine = gpu()
    print(machine, flush=True)
    begun = time.perf_counter()
    rows = [row for name in args.only for row in shielded(name, ROWS[name], setting, begun)]
    text = document(rows, machine, time.perf_counter() - begun)
    print("\n" + text)
    if args.out is not None:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
