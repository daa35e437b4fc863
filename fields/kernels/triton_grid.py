"""Fused Triton kernels for feature grids: interpolation, linear map and MLP of a tile at once.

The methods are those of instant-ngp (T. Mueller, A. Evans, C. Schied, A. Keller, ACM TOG 41(4),
2022, arXiv:2201.05989); what is computed is defined by `fields.kernels.reference`.

A program takes a tile of points. It holds their features as a matrix (features, points), so that
the 32 threads of a warp stand on 32 neighbouring points: on a lattice they read neighbouring
nodes. All levels are gathered at once, one row per feature, and what tells the rows apart (start
of the table, nodes per axis, size of a hashed table) is read from a small table of numbers. The
matrices then multiply that tile without its leaving the chip.

Training takes two passes. The first computes features, values, residual and the gradients of
the maps and features; the second adds the gradients of the features to the nodes they came
from. Between them the gradients of the features lie in memory, at 4 bytes each, because the
second pass needs to know how large the largest is:

**Determinism.** Sums over points in floating point depend on their order, and additions by
thousands of threads have none. So the second pass adds whole numbers: gradient times a power of
two, rounded, in 64 bits. Whole numbers sum to the same in any order. With P points and the
largest gradient below 2^e the factor is 2^(62 - ceil(log2 P) - e), so that no sum can overflow,
and a million points leave 42 bits below the largest gradient (float32 has 24). The gradients of
the maps are kept by tile and then summed in a fixed order. So the same inputs give the same bits on
the same machine.

**Precision.** Everything is float32. Matrix products are made of three TF32 products each
("tf32x3"), which keeps float32's accuracy on tensor cores: features are not bounded as sines are,
and the matrices are too small for half precision to be worth a scale of the gradients.

Nothing here has been timed on a GPU; registers and spills are checked by compiling (see
`tests/test_triton_grid.py`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from fields.kernels import reference
from fields.kernels.plan import GridPlan, Layer, Plan, twice_differentiable

MAX_AXES = 4
"""Coordinates per point."""

MAX_FEATURES = 64
"""Features of all levels together: a tile of them stays in registers."""

MAX_HIDDEN = 64
"""Width of the MLP."""

MAX_DEPTH = 2
"""Hidden layers of the MLP."""

MAX_OUT = 16
"""Values per point."""

PARTS = 1 << 24
"""Numbers (4 bytes each) of the maps' gradients by tile that are kept at once, before they are
summed; a launch has as many tiles as that allows."""

SWEEP = {"TILE": 32, "num_warps": 8}
"""Points per tile and warps of the kernels that go over points and features without matrices."""

PRIMES = tl.constexpr(reference.PRIMES[:MAX_AXES])

VALUES = tl.constexpr(0)
ERROR = tl.constexpr(1)
GRADIENT = tl.constexpr(2)


def refusal(plan: Plan) -> str | None:
    """Why these kernels cannot compute a plan, in half a sentence; None if they can."""
    if not isinstance(plan, GridPlan):
        return "it has no feature grid"
    layers = plan.mlp.layers if plan.mlp else ()
    hidden = {layer.out_features for layer in layers[:-1]}
    hashed = [
        table.shape[1]
        for table, nodes in zip(plan.tables, plan.resolutions, strict=True)
        if table.ndim != 1 + len(nodes)
    ]
    reasons = {
        f"it has {plan.in_features} axes, not 1 to {MAX_AXES}": plan.in_features > MAX_AXES,
        f"it has {plan.linear.in_features} features, not 1 to {MAX_FEATURES}": (
            plan.linear.in_features > MAX_FEATURES
        ),
        f"it has {plan.out_features} values per point, not 1 to {MAX_OUT}": (
            plan.out_features > MAX_OUT
        ),
        f"its MLP has {len(layers) - 1} hidden layers, not 0 to {MAX_DEPTH}": bool(layers)
        and not 1 <= len(layers) - 1 <= MAX_DEPTH,
        "its MLP's hidden layers differ in width": len(hidden) > 1,
        f"its MLP is {max(hidden, default=0)} wide, not 1 to {MAX_HIDDEN}": any(
            width > MAX_HIDDEN for width in hidden
        ),
        "its MLP is not one of ReLU": not _rectified(layers),
        "its linear map is not linear": plan.linear.activation != "linear"
        or plan.linear.omega != 1,
        "a hashed table's size is no power of two": any(n & (n - 1) for n in hashed),
        "its tables hold 2^31 numbers or more": sum(t.numel() for t in plan.tables) >= 2**31,
        "it is not float32": any(t.dtype != torch.float32 for t in plan.tensors()),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _rectified(layers: Sequence[Layer]) -> bool:
    names = [layer.activation for layer in layers]
    wanted = ["relu"] * (len(layers) - 1) + ["linear"] * bool(layers)
    return names == wanted and all(layer.omega == 1 for layer in layers)


def grid(plan: GridPlan, coords: Tensor) -> Tensor:
    """Values at scattered coordinates, differentiable in the plan's tensors and the coordinates.

    Args:
        plan: The field; see `refusal` for what is taken.
        coords: Shape (points, axes), float32, on the plan's device.

    Returns:
        Shape (points, out).

    Raises:
        ValueError: the plan is refused, or tensors are on the CPU (and Triton does not interpret).
    """
    where = _Points(None, coords.shape[0])
    _check(plan, [coords], where, coords.shape[-1])
    return _Values.apply(plan, where, *plan.tensors(), coords)


def grid_on_lattice(plan: GridPlan, axes: Sequence[Tensor]) -> Tensor:
    """Values on the product of one vector of coordinates per axis, as `grid`.

    Coordinates are found by index; the lattice's own are never stored.

    Args:
        plan: The field.
        axes: One float32 vector per axis.

    Returns:
        Shape (*lengths of axes, out).

    Raises:
        ValueError: as `grid`.
    """
    where = _lattice(axes)
    _check(plan, axes, where, len(axes))
    out = _Values.apply(plan, where, *plan.tensors(), *axes)
    return out.reshape(*map(len, axes), plan.out_features)


def grid_error(plan: GridPlan, coords: Tensor, targets: Tensor) -> Tensor:
    """Sum of squared errors at scattered coordinates, differentiable in the plan's tensors.

    Their gradients are computed at once and kept until they are asked for.

    Args:
        plan: The field.
        coords: Shape (points, axes).
        targets: Shape (points, out).

    Returns:
        A scalar.

    Raises:
        ValueError: as `grid`, or targets have another shape.
    """
    where = _Points(None, coords.shape[0])
    _check(plan, [coords, targets], where, coords.shape[-1])
    return _error(plan, where, [coords], targets)


def grid_error_on_lattice(plan: GridPlan, axes: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Sum of squared errors on a lattice, as `grid_error`.

    Args:
        plan: The field.
        axes: One float32 vector per axis.
        targets: Shape (*lengths of axes, out).

    Returns:
        A scalar.

    Raises:
        ValueError: as `grid_error`.
    """
    where = _lattice(axes)
    _check(plan, [*axes, targets], where, len(axes))
    if targets.shape[:-1] != where.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}: give {where.shape} and out")
    return _error(plan, where, axes, targets.flatten(0, -2))


@dataclass(frozen=True)
class _Points:
    """Where values are computed: at scattered points, or on a lattice of this shape."""

    shape: tuple[int, ...] | None
    count: int

    def buffer(self, coords: Sequence[Tensor]) -> Tensor:
        """Coordinates as the kernels read them: point by point, or axis after axis."""
        return coords[0].contiguous() if self.shape is None else torch.cat(list(coords))

    def lengths(self) -> tuple[int, ...]:
        """Points per axis of a lattice, as many as the kernels have arguments for."""
        shape = self.shape or ()
        return (*shape, *[1] * (MAX_AXES - len(shape)))


def _lattice(axes: Sequence[Tensor]) -> _Points:
    shape = tuple(len(axis) for axis in axes)
    return _Points(shape, math.prod(shape))


def interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on the CPU."""
    return not isinstance(_tile, triton.runtime.JITFunction)


def _check(plan: GridPlan, tensors: Sequence[Tensor], where: _Points, axes: int) -> None:
    reason = refusal(plan)
    if reason:
        raise ValueError(f"the Triton kernels do not take this grid: {reason}")
    if axes != plan.in_features:
        raise ValueError(f"coordinates have {axes} axes: give {plan.in_features}")
    if where.count >= 2**30:
        raise ValueError(f"{where.count} points at once are too many: give fewer than 2^30")
    device = plan.tables[0].device
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device != device:
            told = f"{tensor.dtype} on {tensor.device}"
            raise ValueError(f"coordinates or targets are {told}: give float32 on {device}")
    if device.type != "cuda" and not interpreted():
        raise ValueError(f"the Triton kernels need a CUDA device; the grid is on {device}")


def _error(plan: GridPlan, where: _Points, coords: Sequence[Tensor], targets: Tensor) -> Tensor:
    if targets.shape != (where.count, plan.out_features):
        shape = (where.count, plan.out_features)
        raise ValueError(f"targets have shape {tuple(targets.shape)}: give {shape}")
    coords = [x.detach() for x in coords]
    tensors = plan.tensors()
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Error.apply(plan, where, coords, targets.detach(), *tensors)
    out = _values(_Launch(plan, where), tensors, where.buffer(coords))
    return (out - targets).square().sum()


class _Values(torch.autograd.Function):
    """Values; backward recomputes the features."""

    @staticmethod
    def forward(ctx: Any, plan: GridPlan, where: _Points, *inputs: Tensor) -> Tensor:
        ctx.plan, ctx.where = plan, where
        ctx.save_for_backward(*inputs)
        count = len(plan.tensors())
        return _values(_Launch(plan, where), inputs[:count], where.buffer(inputs[count:]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, where = ctx.plan, ctx.where
        inputs = ctx.saved_tensors
        count = len(plan.tensors())
        if torch.is_grad_enabled():
            again = twice_differentiable(
                lambda *xs: _twin(plan.holding(xs[:count]), where, xs[count:]), inputs, grads[0]
            )
            return None, None, *again
        tensors, coords = inputs[:count], inputs[count:]
        wanted = ctx.needs_input_grad[2:]
        launch = _Launch(plan, where)
        buffer = where.buffer(coords)
        pull, maps, _ = _first_pass(launch, tensors, buffer, grads[0].contiguous(), GRADIENT)
        held = _second_pass(launch, pull, maps, buffer)
        slopes: list[Tensor | None] = [None] * len(coords)
        if any(wanted[count:]):
            slopes = _coordinate_gradients(launch, tensors, buffer, pull, coords)
        found = [g if want else None for g, want in zip([*held, *slopes], wanted, strict=True)]
        return None, None, *found


class _Error(torch.autograd.Function):
    """Sum of squared errors, with the gradients of the plan's tensors found in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: GridPlan,
        where: _Points,
        coords: Sequence[Tensor],
        targets: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        launch = _Launch(plan, where)
        buffer = where.buffer(coords)
        pull, maps, losses = _first_pass(launch, tensors, buffer, targets.contiguous(), ERROR)
        ctx.found = _second_pass(launch, pull, maps, buffer)
        ctx.plan, ctx.where, ctx.coords, ctx.targets = plan, where, coords, targets
        ctx.save_for_backward(*tensors)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, where, coords = ctx.plan, ctx.where, ctx.coords
        if torch.is_grad_enabled():
            found = twice_differentiable(
                lambda *xs: (_twin(plan.holding(xs), where, coords) - ctx.targets).square().sum(),
                ctx.saved_tensors,
                grads[0],
            )
        else:
            wanted = ctx.needs_input_grad[4:]
            found = tuple(
                g * grads[0] if want else None for g, want in zip(ctx.found, wanted, strict=True)
            )
        return None, None, None, None, *found


def _twin(plan: GridPlan, where: _Points, coords: Sequence[Tensor]) -> Tensor:
    """The values of the reference, shape (points, out)."""
    if where.shape is None:
        return reference.grid(plan, coords[0])
    return reference.grid_on_lattice(plan, coords).flatten(0, -2)


class _Launch:
    """What every launch for a plan needs to be told.

    Args:
        plan: The field; only shapes and the device of it are used.
        where: The points.
    """

    def __init__(self, plan: GridPlan, where: _Points) -> None:
        self.plan = plan
        self.where = where
        self.device = plan.tables[0].device
        self.rows = _rows(_shapes(plan), plan.resolutions, self.device)
        hashed = [t.ndim != 1 + plan.in_features for t in plan.tables]
        hidden = plan.mlp.layers[0].out_features if plan.mlp else 1
        features = plan.linear.in_features
        tile, warps = config(features, hidden, plan.in_features, capability(self.device))
        self.tiles = triton.cdiv(where.count, tile)
        self.sweeps = triton.cdiv(where.count, SWEEP["TILE"])
        self.points: dict[str, Any] = {
            "AXES": plan.in_features,
            "LATTICE": where.shape is not None,
            "SOME_HASHED": any(hashed),
            "SOME_DENSE": not all(hashed),
            "Z": features,
            "ZP": padded(features),
            "num_stages": 1,  # there is no loop to overlap; more only takes registers
            "enable_fp_fusion": True,
        }
        self.maps: dict[str, Any] = {
            "DEPTH": len(plan.mlp.layers) - 1 if plan.mlp else 0,
            "H": hidden,
            "HP": padded(hidden),
            "C": plan.out_features,
            "CP": padded(plan.out_features),
            "TILE": tile,
            "num_warps": warps,
        }

    def empty(self, *shape: int) -> Tensor:
        """Float32 memory on the plan's device."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def run(self, kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
        """Launch a kernel on the plan's device, whichever is the current one."""
        cuda = self.device.type == "cuda"
        with torch.cuda.device(self.device) if cuda else contextlib.nullcontext():
            kernel[(programs,)](*arguments, **constants)


def padded(n: int) -> int:
    """The power of two that a matrix's side is padded to; tensor cores take 16 or more."""
    return max(16, triton.next_power_of_2(n))


def config(features: int, hidden: int, axes: int, sm: int) -> tuple[int, int]:
    """Points per tile and warps per program of the first pass, chosen by what hardly spills.

    Registers decide: a tile's features and hidden units are all in them, and so are the addresses
    of the nodes around each point, of which there are 2^axes.

    Args:
        features: Features of all levels.
        hidden: Width of the MLP, 1 without one.
        axes: Coordinates per point.
        sm: Compute capability, such as 90.

    Returns:
        (points, warps).
    """
    if max(padded(features), padded(hidden)) > 32:
        return (32, 4) if sm >= 90 else (16, 4)
    return (64, 4) if axes <= 2 else (32, 4)


def capability(device: torch.device) -> int:
    """Compute capability of a device, such as 90; 90 where kernels are interpreted."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _shapes(plan: GridPlan) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(table.shape) for table in plan.tables)


@functools.cache
def _rows(
    shapes: tuple[tuple[int, ...], ...],
    resolutions: tuple[tuple[int, ...], ...],
    device: torch.device,
) -> Tensor:
    """What tells features apart, shape (2 + axes, padded features), int32.

    Row 0 is where the feature starts among the numbers of all tables, row 1 the mask of a hashed
    table's indices (-1 for a dense one), and the rest nodes per axis. It is kept for good (a few
    kilobytes), since captured CUDA graphs hold its address.
    """
    columns = []
    start = 0
    for shape, nodes in zip(shapes, resolutions, strict=True):
        size = math.prod(shape[1:])
        mask = -1 if len(shape) == 1 + len(nodes) else size - 1
        for _ in range(shape[0]):
            columns.append((start, mask, *nodes))
            start += size
    empty = (0, -1, *[1] * len(resolutions[0]))
    columns += [empty] * (padded(len(columns)) - len(columns))
    return torch.tensor(columns, dtype=torch.int32).T.contiguous().to(device)


def _flat(plan: GridPlan, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All numbers of the tables, and all of the maps with zeros for a bias that is not there."""
    held = plan.holding([t.detach() for t in tensors])
    parts = []
    for layer in (held.linear, *(held.mlp.layers if held.mlp else ())):
        bias = layer.bias
        parts += [
            layer.weight,
            layer.weight.new_zeros(layer.out_features) if bias is None else bias,
        ]
    tables = torch.cat([table.reshape(-1) for table in held.tables])
    return tables, torch.cat([part.reshape(-1) for part in parts])


def _values(launch: _Launch, tensors: Sequence[Tensor], buffer: Tensor) -> Tensor:
    tables, maps = _flat(launch.plan, tensors)
    out = launch.empty(launch.where.count, launch.plan.out_features)
    if launch.tiles:
        launch.run(
            _tile,
            launch.tiles,
            *(buffer, tables, launch.rows, maps, out, out, out, out, out),
            *(launch.where.count, 0, 0, *launch.where.lengths()),
            MODE=VALUES.value,
            **launch.points,
            **launch.maps,
        )
    return out


def _first_pass(
    launch: _Launch, tensors: Sequence[Tensor], buffer: Tensor, given: Tensor, mode: tl.constexpr
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Gradients of features and maps, for targets or gradients of the values.

    Returns:
        (all tables' numbers, gradients of the features (features, points), and the largest of their
        absolute values by tile), gradients of the maps, sum of squared errors by tile.
    """
    plan, where = launch.plan, launch.where
    tables, maps = _flat(plan, tensors)
    pull = launch.empty(plan.linear.in_features, where.count)
    losses = torch.zeros(max(launch.tiles, 1), device=launch.device)
    peaks = torch.zeros_like(losses)
    total = torch.zeros_like(maps)
    at_once = max(1, PARTS // len(maps))
    for before in range(0, launch.tiles, at_once):
        programs = min(at_once, launch.tiles - before)
        parts = launch.empty(programs, len(maps))
        launch.run(
            _tile,
            programs,
            *(buffer, tables, launch.rows, maps, given, pull, parts, losses, peaks),
            *(where.count, before, len(maps), *where.lengths()),
            MODE=mode.value,
            **launch.points,
            **launch.maps,
        )
        total += parts.sum(0)
    return (tables, pull, peaks), total, losses


def _second_pass(
    launch: _Launch, pull: tuple[Tensor, Tensor, Tensor], maps: Tensor, buffer: Tensor
) -> list[Tensor]:
    """Gradients of the plan's tensors, in their order."""
    plan, where = launch.plan, launch.where
    tables, slopes, peaks = pull
    scales = launch.empty(2)
    sums = torch.zeros(len(tables), dtype=torch.int64, device=launch.device)
    headroom = 62 - max(where.count - 1, 0).bit_length()
    launch.run(_choose_scale, 1, peaks.amax(), scales, headroom)
    if launch.sweeps:
        launch.run(
            _scatter,
            launch.sweeps,
            *(buffer, slopes, launch.rows, scales, sums, where.count, *where.lengths()),
            **launch.points,
            **SWEEP,
        )
    # a product with a power of two, or with NaN where a gradient was no number
    tables_grad = sums * scales[1]
    found = list(tables_grad.split([t.numel() for t in plan.tables]))
    found = [g.view(t.shape) for g, t in zip(found, plan.tables, strict=True)]
    start = 0
    for layer in (plan.linear, *(plan.mlp.layers if plan.mlp else ())):
        for tensor, size in (
            (layer.weight, layer.weight.numel()),
            (layer.bias, layer.out_features),
        ):
            if tensor is not None:
                found.append(maps[start : start + size].view(tensor.shape))
            start += size
    return found


def _coordinate_gradients(
    launch: _Launch,
    tensors: Sequence[Tensor],
    buffer: Tensor,
    pull: tuple[Tensor, Tensor, Tensor],
    coords: Sequence[Tensor],
) -> list[Tensor | None]:
    """Gradients by the points, or by the vector of each axis."""
    where = launch.where
    tables, slopes, _ = pull
    found = launch.empty(launch.plan.in_features, where.count)
    if launch.sweeps:
        launch.run(
            _slope,
            launch.sweeps,
            *(buffer, tables, slopes, launch.rows, found, where.count, *where.lengths()),
            **launch.points,
            **SWEEP,
        )
    if where.shape is None:
        return [found.T]
    shape = where.shape
    others = [[j for j in range(len(shape)) if j != i] for i in range(len(shape))]
    whole = [found[i].view(shape) for i in range(len(shape))]
    return [x.sum(dims) if dims else x for x, dims in zip(whole, others, strict=True)]


# What follows runs on the GPU. Triton compiles these functions for each set of `constexpr`
# arguments; a tile's rows are features (padded to ZP) and its columns points. They carry
# `no_type_check` so that a run-time type checker, as the tests install one, leaves them alone.


@triton.jit
@no_type_check
def _coordinates(points, place, inside, s0, s1, s2, s3, AXES: tl.constexpr, LATTICE: tl.constexpr):
    """Coordinates of the points of a tile, a tuple of (TILE,) by axis."""
    lengths = (s0, s1, s2, s3)
    xs = ()
    for i in tl.static_range(AXES):
        if LATTICE:
            inner = 1
            before = 0
            for j in tl.static_range(AXES):
                if j > i:
                    inner = inner * lengths[j]
                if j < i:
                    before = before + lengths[j]
            at = before + (place // inner) % lengths[i]
        else:
            at = place.to(tl.int64) * AXES + i
        xs = xs + (tl.load(points + at, mask=inside, other=0.0),)  # noqa: RUF005 - Triton's tuples
    return xs


@triton.jit
@no_type_check
def _cell(x, n):
    """The node below each coordinate, and the weight of the one above; see `reference.cell`.

    A coordinate that is no number has weights that are none, and a node that is there.
    """
    raw = (x[None, :] + 1) * (n.to(tl.float32) * 0.5) - 0.5
    kept = tl.minimum(tl.maximum(raw, 0.0), (n - 1).to(tl.float32))
    below = tl.minimum(tl.floor(kept), tl.maximum(n - 2, 0).to(tl.float32))
    return below.to(tl.int32), tl.where(raw == raw, kept - below, raw)


@triton.jit
@no_type_check
def _corner(
    xs,
    rows,
    row,
    CORNER: tl.constexpr,
    WITHOUT: tl.constexpr,
    AXES: tl.constexpr,
    SOME_HASHED: tl.constexpr,
    SOME_DENSE: tl.constexpr,
    ZP: tl.constexpr,
):
    """Index and weight of one of the 2^AXES nodes around each point, both (ZP, TILE).

    The weight leaves out axis WITHOUT, for the derivative along it.
    """
    start = tl.load(rows + row)[:, None]
    mask = tl.load(rows + ZP + row)[:, None]
    dense = tl.zeros_like(start)
    hashed = tl.zeros_like(start).to(tl.uint32)
    weight = 1.0
    for i in tl.static_range(AXES):
        n = tl.load(rows + (2 + i) * ZP + row)[:, None]
        below, above = _cell(xs[i], n)
        up = (CORNER >> (AXES - 1 - i)) & 1
        node = tl.minimum(below + up, n - 1)
        if SOME_DENSE:
            dense = dense * n + node
        if SOME_HASHED:
            hashed = hashed ^ (node.to(tl.uint32) * PRIMES[i]).to(tl.uint32)
        if i != WITHOUT:
            weight = weight * (above if up else 1 - above)
    if SOME_HASHED:
        folded = hashed.to(tl.int32, bitcast=True) & mask
        index = tl.where(mask < 0, dense, folded) if SOME_DENSE else folded
    else:
        index = dense
    return start + index, weight


@triton.jit
@no_type_check
def _matrix(maps, START: tl.constexpr, M: tl.constexpr, N: tl.constexpr, i, j):
    """A matrix of shape (M, N) that starts at START, with zeros around it; i rows, j columns."""
    return tl.load(maps + START + i * N + j, mask=(i < M) & (j < N), other=0.0)


@triton.jit
@no_type_check
def _vector(maps, START: tl.constexpr, M: tl.constexpr, i):
    """A vector of length M that starts at START, as a column with zeros below."""
    return tl.load(maps + START + i, mask=i < M, other=0.0)[:, None]


@triton.jit
@no_type_check
def _product(a, b):
    """Matrix product in float32's accuracy."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit(do_not_specialize=["before"])
@no_type_check
def _tile(
    points,
    tables,
    rows,
    maps,
    given,
    pull,
    parts,
    losses,
    peaks,
    count,
    before,
    size,
    s0,
    s1,
    s2,
    s3,
    MODE: tl.constexpr,
    AXES: tl.constexpr,
    LATTICE: tl.constexpr,
    SOME_HASHED: tl.constexpr,
    SOME_DENSE: tl.constexpr,
    Z: tl.constexpr,
    ZP: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
    H: tl.constexpr,
    HP: tl.constexpr,
    C: tl.constexpr,
    CP: tl.constexpr,
):
    """Values of a tile of points, or the gradients of features and maps.

    MODE is VALUES (`given` receives the values), ERROR (`given` holds targets) or GRADIENT (`given`
    holds gradients of the values). `before` tiles were launched earlier. `pull` (Z, count) receives
    gradients of the features; `parts` (programs, size) those of the maps, `losses` and `peaks` this
    tile's squared errors and largest gradient.
    """
    # where each matrix starts among the numbers of the maps; a bias follows its matrix
    FIRST: tl.constexpr = C * Z + C
    SECOND: tl.constexpr = FIRST + H * Z + H
    LAST: tl.constexpr = SECOND + (H * H + H if DEPTH == 2 else 0)
    program = tl.program_id(0)
    z = tl.arange(0, ZP)
    h = tl.arange(0, HP)
    c = tl.arange(0, CP)
    place = (before + program) * TILE + tl.arange(0, TILE)
    inside = place < count
    xs = _coordinates(points, place, inside, s0, s1, s2, s3, AXES, LATTICE)
    there = (z < Z)[:, None] & inside[None, :]
    features = tl.zeros((ZP, TILE), tl.float32)
    for corner in tl.static_range(2**AXES):
        index, weight = _corner(xs, rows, z, corner, -1, AXES, SOME_HASHED, SOME_DENSE, ZP)
        features += weight * tl.load(tables + index, mask=there, other=0.0)
    # padding stays 0 even where a coordinate, and so a weight, is no number
    features = tl.where(there, features, 0.0)

    linear = _matrix(maps, 0, C, Z, c[:, None], z[None, :])
    value = _product(linear, features) + _vector(maps, C * Z, C, c)
    if DEPTH > 0:
        first = _matrix(maps, FIRST, H, Z, h[:, None], z[None, :])
        unit = _relu(_product(first, features) + _vector(maps, FIRST + H * Z, H, h))
        top = unit
        if DEPTH > 1:
            second = _matrix(maps, SECOND, H, H, h[:, None], h[None, :])
            top = _relu(_product(second, unit) + _vector(maps, SECOND + H * H, H, h))
        last = _matrix(maps, LAST, C, H, c[:, None], h[None, :])
        value += _product(last, top) + _vector(maps, LAST + C * H, C, c)

    at = given + place.to(tl.int64)[None, :] * C + c[:, None]
    wanted = (c < C)[:, None] & inside[None, :]
    if MODE == VALUES:
        tl.store(at, value, mask=wanted)
    else:
        g = tl.load(at, mask=wanted, other=0.0)
        if MODE == ERROR:
            residual = tl.where(wanted, value - g, 0.0)
            tl.store(losses + before + program, tl.sum(residual * residual))
            g = 2 * residual
        # each gradient is stored as soon as it is there, so that registers are free again
        own = parts + program.to(tl.int64) * size
        _store_matrix(own, 0, C, Z, _product(g, tl.trans(features)), c[:, None], z[None, :])
        d_value = tl.sum(g, axis=1)
        tl.store(own + C * Z + c, d_value, mask=c < C)
        back = _product(_matrix(maps, 0, C, Z, c[None, :], z[:, None]), g)
        if DEPTH > 0:
            _store_matrix(own, LAST, C, H, _product(g, tl.trans(top)), c[:, None], h[None, :])
            tl.store(own + LAST + C * H + c, d_value, mask=c < C)
            across = _matrix(maps, LAST, C, H, c[None, :], h[:, None])
            push = tl.where(top > 0, _product(across, g), 0.0)
            if DEPTH > 1:
                d_second = _product(push, tl.trans(unit))
                _store_matrix(own, SECOND, H, H, d_second, h[:, None], h[None, :])
                tl.store(own + SECOND + H * H + h, tl.sum(push, axis=1), mask=h < H)
                across = _matrix(maps, SECOND, H, H, h[None, :], h[:, None])
                push = tl.where(unit > 0, _product(across, push), 0.0)
            d_first = _product(push, tl.trans(features))
            _store_matrix(own, FIRST, H, Z, d_first, h[:, None], z[None, :])
            tl.store(own + FIRST + H * Z + h, tl.sum(push, axis=1), mask=h < H)
            back += _product(_matrix(maps, FIRST, H, Z, h[None, :], z[:, None]), push)
        back = tl.where(there, back, 0.0)
        to = pull + z.to(tl.int64)[:, None] * count + place[None, :]
        tl.store(to, back, mask=there)
        # of what is no number the peak is infinite, and all gradients become none
        peak = tl.max(tl.where(back == back, tl.abs(back), float("inf")))
        tl.store(peaks + before + program, peak)


@triton.jit
@no_type_check
def _relu(x):
    """max(x, 0) that keeps what is no number, as torch's does."""
    return tl.where(x > 0, x, tl.where(x == x, 0.0, x))


@triton.jit
@no_type_check
def _store_matrix(to, START: tl.constexpr, M: tl.constexpr, N: tl.constexpr, x, i, j):
    """Store what `_matrix` would load."""
    tl.store(to + START + i * N + j, x, mask=(i < M) & (j < N))


@triton.jit
@no_type_check
def _choose_scale(largest, scales, headroom):
    """scales[0] turns gradients into whole numbers, scales[1] turns sums of them back.

    Both are powers of two, made of an exponent's bits; scales[1] is NaN if a gradient is infinite
    or no number.
    """
    peak = tl.load(largest)
    exponent = ((peak.to(tl.int32, bitcast=True) >> 23) & 255) - 126  # peak < 2^exponent
    # 2^120 is more than ever needed and its inverse is still a normal number
    shift = tl.minimum(headroom - exponent, 120)
    up = ((shift + 127) << 23).to(tl.float32, bitcast=True)
    down = ((127 - shift) << 23).to(tl.float32, bitcast=True)
    tl.store(scales, up)
    tl.store(scales + 1, tl.where(peak < float("inf"), down, float("nan")))


@triton.jit
@no_type_check
def _scatter(
    points,
    pull,
    rows,
    scales,
    sums,
    count,
    s0,
    s1,
    s2,
    s3,
    AXES: tl.constexpr,
    LATTICE: tl.constexpr,
    SOME_HASHED: tl.constexpr,
    SOME_DENSE: tl.constexpr,
    Z: tl.constexpr,
    ZP: tl.constexpr,
    TILE: tl.constexpr,
):
    """Add the gradients of a tile's features to those of their nodes, as whole numbers."""
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = place < count
    z = tl.arange(0, ZP)
    there = (z < Z)[:, None] & inside[None, :]
    xs = _coordinates(points, place, inside, s0, s1, s2, s3, AXES, LATTICE)
    g = tl.load(pull + z.to(tl.int64)[:, None] * count + place[None, :], mask=there, other=0.0)
    g = g * tl.load(scales)
    for corner in tl.static_range(2**AXES):
        index, weight = _corner(xs, rows, z, corner, -1, AXES, SOME_HASHED, SOME_DENSE, ZP)
        amount = tl.floor(g * weight + 0.5).to(tl.int64)
        # nothing to add for padding, nor for a weight of zero: at the borders those are many
        tl.atomic_add(sums + index, amount, mask=there & (amount != 0), sem="relaxed")


@triton.jit
@no_type_check
def _slope(
    points,
    tables,
    pull,
    rows,
    found,
    count,
    s0,
    s1,
    s2,
    s3,
    AXES: tl.constexpr,
    LATTICE: tl.constexpr,
    SOME_HASHED: tl.constexpr,
    SOME_DENSE: tl.constexpr,
    Z: tl.constexpr,
    ZP: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients by the coordinates of a tile, to `found` (AXES, count)."""
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = place < count
    z = tl.arange(0, ZP)
    there = (z < Z)[:, None] & inside[None, :]
    xs = _coordinates(points, place, inside, s0, s1, s2, s3, AXES, LATTICE)
    g = tl.load(pull + z.to(tl.int64)[:, None] * count + place[None, :], mask=there, other=0.0)
    for axis in tl.static_range(AXES):
        n = tl.load(rows + (2 + axis) * ZP + z)[:, None]
        slope = tl.zeros((ZP, TILE), tl.float32)
        for corner in tl.static_range(2**AXES):
            index, weight = _corner(xs, rows, z, corner, axis, AXES, SOME_HASHED, SOME_DENSE, ZP)
            share = weight * tl.load(tables + index, mask=there, other=0.0)
            slope += share if (corner >> (AXES - 1 - axis)) & 1 else -share
        # beyond the outer nodes, where a position is clamped, nothing changes
        raw = (xs[axis][None, :] + 1) * (n.to(tl.float32) * 0.5) - 0.5
        free = there & (raw >= 0) & (raw <= (n - 1).to(tl.float32))
        slope = tl.where(free, slope * g * (n.to(tl.float32) * 0.5), 0.0)
        to = found + place + tl.full((), axis, tl.int64) * count
        tl.store(to, tl.sum(slope, axis=0), mask=inside)
