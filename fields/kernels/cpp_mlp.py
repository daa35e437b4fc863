"""MLPs on the CPU by a fused C++ kernel: values, errors and their gradients.

A tile of points goes through all layers and back while it is in a core's cache
(`fields/kernels/cpp/mlp.cpp`), so that the time goes into products of matrices, not into reading
and writing activations. float32 only. The functions are those of `fields.kernels.reference`, which
says what is right; values and gradients are within about 1e-5 of it, relative to the largest.

As many threads work as torch has (`torch.set_num_threads`), or fewer where the work is not worth
them. Each has points of its own, whose gradients are added in a fixed order: the same number of
threads gives the same bits, another number other roundings.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

import torch
from torch import Tensor

from fields.kernels import build, reference
from fields.kernels.plan import Activation, Mlp, twice_differentiable

NAMES = {name: i for i, name in enumerate(get_args(Activation))}
"""Numbers of the activations in `mlp.cpp`."""


def mlp(plan: Mlp, points: Tensor) -> Tensor:
    """Values of a network, or of many, differentiable by its tensors and by the points.

    The gradient goes through the layers again, tile by tile, instead of keeping them. Second
    derivatives go through `reference.mlp`.

    Args:
        plan: The network, float32, on the CPU.
        points: Shape (*any, in); for many networks (points, in), the same for all, or (networks,
            points, in).

    Returns:
        Shape (*any, out), or (networks, points, out).

    Raises:
        ValueError: the kernel does not take such a network or such points.
        NoKernel: there is no kernel on this machine.
    """
    _check(plan, points)
    if plan.networks is not None:
        return _values(plan, points)
    return _values(plan, points.reshape(-1, plan.in_features)).reshape(
        *points.shape[:-1], plan.out_features
    )


def mlp_error(plan: Mlp, points: Tensor, targets: Tensor) -> Tensor:
    """Sum of squared errors, of all networks if there are many, with its gradient in one pass.

    Args:
        plan: The network, float32, on the CPU.
        points: As in `mlp`.
        targets: Of the shape of `mlp`'s values.

    Returns:
        Shape (), differentiable by the plan's tensors; not by points or targets.

    Raises:
        ValueError: the kernel does not take such a network, points or targets, or points or targets
            want a gradient.
        NoKernel: there is no kernel on this machine.
    """
    _check(plan, points)
    lead = points.shape[:-1] if plan.networks is None else (plan.networks, points.shape[-2])
    if targets.shape != (*lead, plan.out_features):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, values {(*lead, plan.out_features)}"
        )
    _check_numbers("targets", targets)
    if torch.is_grad_enabled() and (points.requires_grad or targets.requires_grad):
        raise ValueError("mlp_error has no gradients by points or targets: take mlp")
    if plan.networks is None:
        points = points.reshape(-1, plan.in_features)
        targets = targets.reshape(-1, plan.out_features)
    return cast(Tensor, _Error.apply(plan, points, targets, *plan.tensors()))


def _check_numbers(what: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise ValueError(
            f"{what}: {tensor.dtype} on {tensor.device}; the C++ kernel takes float32 on the CPU"
        )


def _check(plan: Mlp, points: Tensor) -> None:
    networks = plan.networks
    before = plan.in_features
    for i, layer in enumerate(plan.layers):
        shape = layer.weight.shape
        lead = () if networks is None else (networks,)
        bias = layer.bias
        _check_numbers(f"weight {i}", layer.weight)
        if bias is not None:
            _check_numbers(f"bias {i}", bias)
        if shape != (*lead, shape[-2], before) or (
            bias is not None and bias.shape != (*lead, shape[-2])
        ):
            told = None if bias is None else tuple(bias.shape)
            raise ValueError(f"layer {i}: weight {tuple(shape)} and bias {told} do not fit")
        if layer.activation == "wire" and shape[-2] % 2:
            raise ValueError(f"layer {i}: wire takes pairs, not {shape[-2]} units")
        before = shape[-2]
    if plan.layers[-1].activation != "linear":
        raise ValueError(f"the last layer is not linear but {plan.layers[-1].activation}")
    _check_numbers("points", points)
    fits = points.ndim >= 1 and points.shape[-1] == plan.in_features
    if networks is not None:
        fits = fits and (points.ndim == 2 or (points.ndim == 3 and len(points) == networks))
    if not fits:
        raise ValueError(
            f"points have shape {tuple(points.shape)}, the network takes {plan.in_features}"
            + ("" if networks is None else f" and there are {networks}")
        )


@functools.cache
def _function() -> Callable[..., int]:
    """The kernel.

    Raises:
        NoKernel: there is none on this machine.
    """
    function: Any = build.library("mlp").inr_mlp
    function.argtypes = [
        ctypes.c_int64,
        ctypes.POINTER(ctypes.c_int64),
        ctypes.POINTER(ctypes.c_float),
    ]
    function.restype = ctypes.c_int
    return cast(Callable[..., int], function)


def _call(
    plan: Mlp,
    points: Tensor,
    tensors: Sequence[Tensor],
    *,
    targets: Tensor | None = None,
    upstream: Tensor | None = None,
    values: Tensor | None = None,
    loss: Tensor | None = None,
    points_grad: Tensor | None = None,
    flat: Tensor | None = None,
    wanted: Sequence[bool] = (),
) -> None:
    """Run the kernel: points, targets and upstream are read, all after them written.

    All but the plan's layers is contiguous; `tensors` are theirs, made contiguous, and `flat` has
    room for the gradients of those that are wanted, one after the other.
    """
    networks = plan.networks
    numbers = [1 if networks is None else networks, points.shape[-2], torch.get_num_threads()]
    numbers.append(int(networks is not None and points.ndim == 2))
    for tensor in (points, targets, upstream, values, points_grad, loss):
        numbers.append(0 if tensor is None else tensor.data_ptr())
    factors: list[float] = []
    addresses = iter(_addresses(tensors, flat, wanted))
    for layer in plan.layers:
        weight, weight_grad = next(addresses)
        bias, bias_grad = (0, 0) if layer.bias is None else next(addresses)
        *_, rows, columns = layer.weight.shape
        numbers += (columns, rows, NAMES[layer.activation], weight, bias, weight_grad, bias_grad)
        factors += (layer.omega, layer.ratio)
    status = _function()(
        len(plan.layers),
        (ctypes.c_int64 * len(numbers))(*numbers),
        (ctypes.c_float * len(factors))(*factors),
    )
    if status == 1:
        raise MemoryError("the C++ kernel needs more memory than there is")
    if status:
        raise RuntimeError(f"the C++ kernel failed with status {status}")


def _room(tensors: Sequence[Tensor], wanted: Sequence[bool], empty: bool) -> Tensor:
    """One tensor for the gradients of all that want one; zeros if nothing will be written."""
    size = sum(x.numel() for x, want in zip(tensors, wanted, strict=True) if want)
    return torch.zeros(size) if empty else torch.empty(size)


def _addresses(
    tensors: Sequence[Tensor], flat: Tensor | None, wanted: Sequence[bool]
) -> list[tuple[int, int]]:
    """Where each tensor lies, and its part of the gradient; 0 if there is none."""
    if flat is None:
        return [(x.data_ptr(), 0) for x in tensors]
    at = flat.data_ptr()
    pairs = []
    for x, want in zip(tensors, wanted, strict=True):
        pairs.append((x.data_ptr(), at if want else 0))
        at += 4 * x.numel() if want else 0
    return pairs


def _split(flat: Tensor, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Views of a gradient in the shapes of the tensors that want one."""
    sizes = [x.numel() for x, want in zip(tensors, wanted, strict=True) if want]
    parts = iter(flat.split(sizes))
    return [
        next(parts).view(x.shape) if want else None for x, want in zip(tensors, wanted, strict=True)
    ]


def _empty(plan: Mlp, points: Tensor) -> bool:
    return not points.shape[-2] or plan.networks == 0


def _values(plan: Mlp, points: Tensor) -> Tensor:
    tensors = plan.tensors()
    if torch.is_grad_enabled() and any(x.requires_grad for x in (points, *tensors)):
        return cast(Tensor, _Values.apply(plan, points, *tensors))
    return _forward(plan, points, tensors)


def _forward(plan: Mlp, points: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    lead = () if plan.networks is None else (plan.networks,)
    values = torch.empty(*lead, points.shape[-2], plan.out_features)
    if not _empty(plan, points):
        whole = [x.contiguous() for x in tensors]
        _call(plan, points.contiguous(), whole, values=values)
    return values


class _Values(torch.autograd.Function):
    """`mlp` of points (points, in), or as they are for many networks."""

    @staticmethod
    def forward(ctx: Any, plan: Mlp, points: Tensor, *tensors: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(points, *tensors)
        return _forward(plan, points, tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: Mlp = ctx.plan
        points, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *twice_differentiable(
                lambda points, *tensors: reference.mlp(plan.holding(tensors), points),
                (points, *tensors),
                grad,
            )
        _, by_points, *wanted = ctx.needs_input_grad
        empty = _empty(plan, points)
        points_grad = None
        if by_points:
            many = () if plan.networks is None else (plan.networks,)
            points_grad = torch.empty(*many, *points.shape[-2:])
        flat = _room(tensors, wanted, empty)
        if not empty:
            whole = [x.contiguous() for x in tensors]
            _call(
                plan,
                points.contiguous(),
                whole,
                upstream=grad.contiguous(),
                points_grad=points_grad,
                flat=flat,
                wanted=wanted,
            )
        if points_grad is not None and points_grad.ndim > points.ndim:
            points_grad = points_grad.sum(0)  # of all networks, which share the points
        return None, points_grad, *_split(flat, tensors, wanted)


class _Error(torch.autograd.Function):
    """`mlp_error`; the gradient is there before `backward` is called."""

    @staticmethod
    def forward(ctx: Any, plan: Mlp, points: Tensor, targets: Tensor, *tensors: Tensor) -> Tensor:
        ctx.plan = plan
        wanted = ctx.needs_input_grad[3:]
        empty = _empty(plan, points)
        loss = torch.zeros(())
        flat = _room(tensors, wanted, empty)
        if not empty:
            whole = [x.contiguous() for x in tensors]
            _call(
                plan,
                points.contiguous(),
                whole,
                targets=targets.contiguous(),
                loss=loss,
                flat=flat,
                wanted=wanted,
            )
        ctx.save_for_backward(points, targets, flat, *tensors)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        plan: Mlp = ctx.plan
        points, targets, flat, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (
                None,
                None,
                None,
                *twice_differentiable(
                    lambda *tensors: reference.mlp_error(plan.holding(tensors), points, targets),
                    tensors,
                    grad,
                ),
            )
        return None, None, None, *_split(flat * grad, tensors, ctx.needs_input_grad[3:])
