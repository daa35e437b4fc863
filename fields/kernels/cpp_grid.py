"""Grid fields on the CPU: `cpp/grid.cpp`, as functions that autograd knows.

They compute what `fields.kernels.reference` does, in float32, and come with the same names. Results
are the same bit for bit from call to call as long as `torch.get_num_threads()` is; between numbers
of threads, sums are made in another order. Positions between nodes are taken in double precision,
so that weights are more accurate than the twin's in float32.

A gradient by the coordinates of scattered points is the kernel's own; one by the axes of a lattice,
which nothing here trains, and second derivatives are the twin's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels import build, reference
from fields.kernels.plan import GridPlan, is_dense, twice_differentiable

MAX_NODES = 1 << 31
"""Places in a table are 32-bit numbers."""


def grid(plan: GridPlan, coords: Float[Tensor, "p d"]) -> Float[Tensor, "p c"]:
    """Values at scattered coordinates; differentiable by them and by the plan's tensors.

    Args:
        plan: The field.
        coords: Shape (points, axes), any numbers; beyond [-1, 1] nothing changes.

    Raises:
        ValueError: what this kernel does not compute (see `check`).
        NoKernel: the kernel cannot be built here.
    """
    check(plan, [coords])
    return _Values.apply(plan, 1, coords, *plan.tensors())


def grid_on_lattice(
    plan: GridPlan, axes: Sequence[Float[Tensor, " _"]]
) -> Float[Tensor, "*shape c"]:
    """Values on the product of one coordinate vector per axis, shape (*lengths of axes, out).

    Raises:
        ValueError: what this kernel does not compute (see `check`).
        NoKernel: the kernel cannot be built here.
    """
    check(plan, axes, lattice=True)
    return _Values.apply(plan, len(axes), *axes, *plan.tensors())


def grid_error(plan: GridPlan, coords: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    """Sum of squared errors at scattered coordinates, differentiable by the plan's tensors.

    Their gradients are computed along with the loss, so that `backward` only scales them.

    Args:
        plan: The field.
        coords: Shape (points, axes).
        targets: Shape (points, out).

    Raises:
        ValueError: what this kernel does not compute (see `check`).
        NoKernel: the kernel cannot be built here.
    """
    check(plan, [coords], targets)
    return _Error.apply(plan, (coords,), False, targets, *plan.tensors())


def grid_error_on_lattice(
    plan: GridPlan, axes: Sequence[Tensor], targets: Tensor
) -> Float[Tensor, ""]:
    """Sum of squared errors on a lattice; targets have shape (*lengths of axes, out).

    Raises:
        ValueError: what this kernel does not compute (see `check`).
        NoKernel: the kernel cannot be built here.
    """
    check(plan, axes, targets, lattice=True)
    return _Error.apply(plan, tuple(axes), True, targets, *plan.tensors())


def check(
    plan: GridPlan, coords: Sequence[Tensor], targets: Tensor | None = None, lattice: bool = False
) -> None:
    """Refuse what the kernel does not compute.

    Raises:
        ValueError: other numbers than float32, other devices than the CPU, other activations than
            ReLU, an omega, shapes that do not fit, tables of more than 2^31 nodes.
    """
    given = [*plan.tensors(), *coords, *([] if targets is None else [targets])]
    for tensor in given:
        if tensor.dtype != torch.float32 or not tensor.is_cpu:
            raise ValueError(
                f"the C++ kernel takes float32 on the CPU, not {tensor.dtype} on {tensor.device}"
            )
    if plan.in_features > len(reference.PRIMES):
        raise ValueError(f"the C++ kernel takes at most 8 axes, not {plan.in_features}")
    layers = plan.mlp.layers if plan.mlp else ()
    names = [layer.activation for layer in (*layers, plan.linear)]
    scaled = any(layer.omega != 1 for layer in (*layers, plan.linear))
    if names[:-2] != ["relu"] * (len(layers) - 1) or set(names[-2:]) != {"linear"} or scaled:
        raise ValueError(f"the C++ kernel of a grid has ReLUs inside, and no omega: {names}")
    for table, nodes in zip(plan.tables, plan.resolutions, strict=True):
        if not is_dense(table, nodes) and table.ndim != 2:
            raise ValueError(
                f"a table of shape {tuple(table.shape)} has no place for {nodes} nodes"
            )
    if any(table[0].numel() >= MAX_NODES for table in plan.tables):
        raise ValueError("the C++ kernel takes levels of less than 2^31 nodes")
    d, c = plan.in_features, plan.out_features
    if lattice:
        shape = [len(axis) if axis.ndim == 1 else -1 for axis in coords]
        if len(shape) != d or -1 in shape:
            raise ValueError(f"the grid has {d} axes: give a vector of coordinates for each")
    else:
        shape = [len(coords[0])]
        if coords[0].ndim != 2 or coords[0].shape[1] != d:
            raise ValueError(
                f"coordinates have shape {tuple(coords[0].shape)}: expected (any, {d})"
            )
    if targets is not None and list(targets.shape) != [*shape, c]:
        raise ValueError(f"targets have shape {tuple(targets.shape)}: expected {(*shape, c)}")


class _Values(torch.autograd.Function):
    """Values; `backward` computes them again, tile by tile, on its way to the gradients."""

    @staticmethod
    def forward(ctx: Any, plan: GridPlan, axes: int, *tensors: Tensor) -> Tensor:
        # a lattice has vectors, scattered points one matrix
        coords, lattice = tensors[:axes], tensors[0].ndim == 1
        shape = [len(axis) for axis in coords]
        values = coords[0].new_empty([*shape, plan.out_features])
        run(plan, coords, lattice, values=values)
        ctx.plan, ctx.axes, ctx.lattice = plan, axes, lattice
        ctx.save_for_backward(*tensors)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        tensors = ctx.saved_tensors
        coords, held = tensors[: ctx.axes], tensors[ctx.axes :]
        again = torch.is_grad_enabled()
        if again or (ctx.lattice and any(ctx.needs_input_grad[2 : 2 + ctx.axes])):

            def twin(*inputs: Tensor) -> Tensor:
                plan = ctx.plan.holding(inputs[ctx.axes :])
                if ctx.lattice:
                    return reference.grid_on_lattice(plan, inputs[: ctx.axes])
                return reference.grid(plan, inputs[0])

            found = twice_differentiable(twin, tensors, upstream[0])
            if not again:
                found = tuple(None if x is None else x.detach() for x in found)
            return None, None, *found
        plan = ctx.plan.holding(held)
        by_coords = torch.empty_like(coords[0]) if ctx.needs_input_grad[2] else None
        flat = gradients(plan)
        run(plan, coords, ctx.lattice, upstream=upstream[0], flat=flat, grad_coords=by_coords)
        moved = [by_coords, *[None] * (ctx.axes - 1)]
        return None, None, *moved, *apart(flat, plan)


class _Error(torch.autograd.Function):
    """The loss, with its gradients already made; `backward` scales and hands them over."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: GridPlan,
        coords: tuple[Tensor, ...],
        lattice: bool,
        targets: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.flat = gradients(plan) if any(ctx.needs_input_grad[4:]) else None
        loss = run(plan, coords, lattice, targets=targets, flat=ctx.flat)
        ctx.plan, ctx.coords, ctx.lattice = plan, coords, lattice
        ctx.save_for_backward(targets, *tensors)
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        targets, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():

            def twin(*held: Tensor) -> Tensor:
                plan = ctx.plan.holding(held)
                if ctx.lattice:
                    return reference.grid_error_on_lattice(plan, ctx.coords, targets)
                return reference.grid_error(plan, ctx.coords[0], targets)

            return None, None, None, None, *twice_differentiable(twin, tensors, upstream[0])
        # scaled in place and given away; whoever comes again, under retain_graph, waits for others
        flat, ctx.flat = ctx.flat, None
        plan = ctx.plan.holding(tensors)
        if flat is None:
            flat = gradients(plan)
            run(plan, ctx.coords, ctx.lattice, targets=targets, flat=flat)
        return None, None, None, None, *apart(flat.mul_(upstream[0]), plan)


def gradients(plan: GridPlan) -> Tensor:
    """Room for the gradients of all tensors of a plan, of undefined values."""
    return torch.empty(sum(_padded(tensor) for tensor in plan.tensors()))


def apart(flat: Tensor, plan: GridPlan) -> list[Tensor]:
    """The gradient of each tensor of a plan, as views of what `run` has filled."""
    tensors = plan.tensors()
    sizes = [size for t in tensors for size in (t.numel(), _padded(t) - t.numel())]
    parts = flat.split(sizes)[::2]
    return [x.view(t.shape) for x, t in zip(parts, tensors, strict=True)]


def _padded(tensor: Tensor) -> int:
    return -(-tensor.numel() // 32) * 32  # cache lines of its own


def run(
    plan: GridPlan,
    coords: Sequence[Tensor],
    lattice: bool,
    *,
    targets: Tensor | None = None,
    upstream: Tensor | None = None,
    values: Tensor | None = None,
    flat: Tensor | None = None,
    grad_coords: Tensor | None = None,
) -> float:
    """One pass of the kernel.

    Args:
        plan: The field, which `check` has seen.
        coords: Coordinates along each axis of a lattice, or (points, axes) as the only one.
        lattice: Which of both.
        targets: For a squared error, what the values ought to be.
        upstream: Instead of an error's gradient by values, this one.
        values: Filled, if given.
        flat: Filled with gradients, if given (see `gradients`).
        grad_coords: Filled, if given with `flat`, for scattered points.

    Returns:
        The sum of squared errors; 0 without targets.

    Raises:
        NoKernel: it cannot be built here.
        MemoryError: there is not enough of it.
    """
    function = build.library("grid").inr_grid
    layers = plan.mlp.layers if plan.mlp else ()
    levels = list(zip(plan.tables, plan.resolutions, strict=True))
    numbers = [
        *(plan.in_features, plan.out_features, len(levels), max(0, len(layers) - 1)),
        *(torch.get_num_threads(), lattice, flat is not None),
        *(layer.out_features for layer in layers[:-1]),
    ]
    for table, nodes in levels:
        dense = is_dense(table, nodes)
        numbers += [len(table), 0 if dense else table.shape[1], *nodes]
    numbers += [len(axis) for axis in coords]

    maps: list[Tensor | None] = []
    for layer in (plan.linear, *layers):
        maps += [layer.weight, layer.bias]
    given = [*plan.tables, *maps, *coords, targets, upstream]
    held = [None if x is None else x.contiguous() for x in given]  # alive until the call is over
    given = [*held, values, grad_coords]
    pointers = [None if x is None else x.data_ptr() for x in given]
    if flat is not None:
        start = flat.data_ptr()
        for tensor in (*plan.tables, *maps):
            pointers.append(None if tensor is None else start)
            start += 0 if tensor is None else _padded(tensor) * flat.element_size()
    loss = ctypes.c_double()
    status = function(
        (ctypes.c_int64 * len(numbers))(*numbers),
        (ctypes.c_void_p * len(pointers))(*pointers),
        ctypes.byref(loss),
    )
    if status == 1:
        raise MemoryError("the C++ kernel of a grid: not enough memory")
    if status:
        raise RuntimeError(f"the C++ kernel of a grid failed with status {status}")
    return loss.value
