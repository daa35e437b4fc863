"""What the precision policies of GPU kernels do to a network, in plain torch, on any machine.

A policy says which numbers are rounded on their way into a matrix product, and how gradients are
kept from vanishing there. Training under one of them here shows what it costs in decibels without a
GPU; it is slower than the reference and meant for tests and studies alone.

A layer is u = omega (W x + b), h = g(u); d is the gradient of the loss by u. With Q for rounding to
the policy's type, the policies compute as `fields.kernels.triton_mlp` does:

    u  = omega (Q(W) Q(x) + b)               sums, bias and omega in float32
    dx = omega Q(W)^T Q(s d)                 s a power of two: see `Policy.scaling`
    dW = omega / s  Q(s d) Q(x')^T
    db = omega / s  sum of Q(s d)            but for the output's, of s d itself

The first layer has Q(W) = W and Q(x) = x, and under "tf32-cut" Q(d) = d: its phases are the largest
(30 |W x + b| of a sine network reaches 50, where numbers of bfloat16 are a quarter of a radian
apart). u is never rounded. A sine is taken of its phase in turns, t = u / (2 pi) less its nearest
whole number, with an error of at most 2^-21, as the fast unit of a GPU has it; what is kept for the
backward pass is t in 2^16 parts, from which both cos(u) and x' = sin(u) of the next layer come.
Other activations are exact here and keep what they need in float32, x' = x.

"fp32" is the reference itself. "bf16-everywhere" is no policy of any kernel but the contrast: what
`torch.autocast` does, rounding the result of every operation, both ways, the sine's argument
included. "fp16-count" and "fp16-unscaled" scale gradients in other ways. "tf32-cut" is what Triton
makes of a single product of float32 numbers, "tf32-nearest" what it would be if it rounded them;
the kernels' own "tf32" makes three products of each, which are as good as float32.

What this does not have is the order of sums on a GPU, and the errors of its units in exponentials
and in the sines of activations that hold other things beside.

P. Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740, has the scaling of
gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels import reference
from fields.kernels.plan import Layer, Mlp

PHASES = 1 << 16
"""Parts of a turn in which a kernel keeps the phases of sines: two bytes each."""

SINE_STEP = 2.0**-20
"""Sines are multiples of it: off by up to 2^-21. CUDA's guide allows sinf's fast form 2^-21.4 and
cosf's 2^-21.2 within a half turn."""

LARGEST = 4
"""With scaling "largest", the largest gradient by a value comes into 2^LARGEST times [1, 2)."""

Rounding = Literal["none", "tf32", "tf32-nearest", "fp16", "bf16"]
Scaling = Literal["none", "count", "largest"]


@dataclass(frozen=True)
class Policy:
    """How numbers are rounded.

    Args:
        operands: The type of both operands of the matrix products behind the first layer.
        scaling: The power of two s by which gradients are multiplied before they are rounded:
            "largest" for what brings the largest gradient by a network's values into [16, 32);
            "count" for the one nearest above the number of elements that the loss is a mean of;
            "none" for 1.
        everywhere: Whether the result of every operation is rounded to `operands` instead.
    """

    operands: Rounding
    scaling: Scaling = "largest"
    everywhere: bool = False


POLICIES = {
    "fp32": Policy("none"),
    "tf32-cut": Policy("tf32"),
    "tf32-nearest": Policy("tf32-nearest"),
    "fp16": Policy("fp16"),
    "bf16": Policy("bf16"),
    "fp16-count": Policy("fp16", "count"),
    "fp16-unscaled": Policy("fp16", "none"),
    "bf16-everywhere": Policy("bf16", everywhere=True),
}
"""By name; "fp16" is the default of the CUDA kernels, "bf16" another of theirs."""


def mlp(
    plan: Mlp,
    points: Float[Tensor, "*batch d_in"],
    policy: str = "fp16",
    elements: int | None = None,
) -> Float[Tensor, "*nets d_out"]:
    """Values of a network, or of many, as a kernel under a policy computes them.

    Differentiable in the plan's tensors and in points; first derivatives under the policy, second
    ones of the products and sines as they are without rounding.

    Args:
        plan: The network, in float32.
        points: As `fields.kernels.reference.mlp` has them, in float32.
        policy: A name of `POLICIES`.
        elements: Of how many elements the loss is a mean, from 1; None for as many as there are
            values. It matters to "count" scaling only.

    Returns:
        Shape (*any, out), or (networks, points, out).

    Raises:
        ValueError: an unknown policy, fewer elements than 1, or numbers other than float32.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}: give one of {', '.join(POLICIES)}")
    if elements is not None and elements < 1:
        raise ValueError(f"elements is {elements}: give at least 1")
    types = {x.dtype for x in (points, *plan.tensors())}
    if types != {torch.float32}:
        raise ValueError(f"policies round float32, not {', '.join(sorted(map(str, types)))}")
    chosen = POLICIES[policy]
    if chosen.operands == "none":
        return reference.mlp(plan, points)
    if chosen.everywhere:
        return _everywhere(plan, points, chosen.operands)
    if elements is None:
        networks = plan.networks or 1
        elements = points[..., 0].numel() * plan.out_features
        elements *= networks if points.ndim == 2 else 1
    pass_ = _Pass(chosen, max(elements, 1), plan)
    x, kept = points, points
    for i, layer in enumerate(plan.layers):
        u: Tensor = _Layer.apply(x, kept, layer.weight, layer.bias, pass_, i)
        x, kept = _activate(u, layer)
    out: Tensor = _Entry.apply(x, pass_)
    return out


def rounded(x: Tensor, to: Rounding) -> Tensor:
    """Float32 numbers as near as a shorter type has them.

    "tf32" cuts off the last 13 bits, as matrix units do that ignore them: Triton 3.9 hands float32
    to them as it is. "tf32-nearest" rounds, which errs half as much. Numbers too large for "fp16"
    become its largest, 65,504; NaN stays.
    """
    if to == "none":
        return x
    if to in ("tf32", "tf32-nearest"):
        bits = x.contiguous().view(torch.int32)
        if to == "tf32-nearest":
            # half a step away from zero; infinite numbers and NaN have no steps
            bits = torch.where(x.isfinite(), bits + 0x1000, bits)
        return (bits & ~0x1FFF).view(torch.float32)
    if to == "fp16":
        return x.clamp(-65504.0, 65504.0).half().float()
    return x.bfloat16().float()


def scale(grad: Float[Tensor, "*nets p d_out"], policy: Policy, elements: int) -> Tensor:
    """The power of two s for the gradients by a network's values (see `Policy.scaling`).

    Returns:
        Shape (), or (networks, 1, 1) if there are three axes. NaN for a largest gradient that is
        infinite or no number, so that a fit that diverges is seen to.
    """
    one = grad.new_ones((*grad.shape[:-2], 1, 1) if grad.ndim == 3 else ())
    if policy.scaling == "none" or not grad.numel():
        return one
    if policy.scaling == "count":
        return one * 2.0 ** math.ceil(math.log2(elements))
    largest = grad.abs().amax((-2, -1), keepdim=True) if grad.ndim == 3 else grad.abs().max()
    exponent = (torch.frexp(largest).exponent - 1).clamp(-100, 100)
    exponent = torch.where(
        largest > 0, exponent, -100
    )  # all are 0, whatever they are multiplied by
    return torch.where(largest.isfinite(), torch.ldexp(one, LARGEST - exponent), math.nan)


class _Pass:
    """What the layers of one pass have in common."""

    def __init__(self, policy: Policy, elements: int, plan: Mlp) -> None:
        self.policy, self.elements, self.plan = policy, elements, plan
        self.scale = torch.ones(())


class _Entry(torch.autograd.Function):
    """Where gradients enter: they are multiplied by s, and stay so until the points."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, pass_: _Pass) -> Tensor:
        ctx.common = pass_
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        common: _Pass = ctx.common
        if torch.is_grad_enabled():
            common.scale = torch.ones(())
            return grad, None
        by_network = grad if common.plan.networks else grad.reshape(-1, grad.shape[-1])
        common.scale = scale(by_network, common.policy, common.elements)
        return common.scale * grad, None


class _Layer(torch.autograd.Function):
    """u = omega (W x + b) with rounded operands; all gradients but the points' come in scaled."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: Tensor, weight: Tensor, bias: Tensor | None, pass_: _Pass, i: int
    ) -> Tensor:
        ctx.save_for_backward(x, kept, weight)
        ctx.common, ctx.index = pass_, i
        to: Rounding = pass_.policy.operands if i else "none"
        u = rounded(x, to) @ rounded(weight, to).mT
        if bias is not None:
            u += _rows(bias, pass_.plan)
        return u.mul_(pass_.plan.layers[i].omega)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, weight = ctx.saved_tensors
        common: _Pass = ctx.common
        omega = common.plan.layers[ctx.index].omega
        d = grad
        if torch.is_grad_enabled():  # under create_graph: as it is without rounding
            kept = x
        else:
            operands = common.policy.operands
            to: Rounding = operands if ctx.index else "none"
            # gradients are kept in the operands' type; a matrix unit cuts float32 ones itself, and
            # the first layer's are taken apart into several products for it
            d = rounded(grad, to if operands.startswith("tf32") else operands)
            kept, weight = rounded(kept, to), rounded(weight, to)
        back = omega / common.scale
        by_x = by_bias = None
        if ctx.needs_input_grad[0]:
            # common points of many networks have the sum of theirs
            by_x = ((d @ weight) * (omega if ctx.index else back)).sum_to_size(x.shape)
        last = ctx.index + 1 == len(common.plan.layers)
        if common.plan.networks is None:
            d, kept, grad = (t.reshape(-1, t.shape[-1]) for t in (d, kept, grad))
        by_weight = (d.mT @ kept) * back
        if ctx.needs_input_grad[3]:
            by_bias = ((grad if last else d).sum(-2, keepdim=True) * back).squeeze(-2)
        return by_x, None, by_weight, by_bias, None, None


class _FastSine(torch.autograd.Function):
    """sin(u), and what the kept phase makes of it, which has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        turns = u * (1 / math.tau)
        turns -= turns.round()
        phase = (turns * PHASES).round_().mul_(math.tau / PHASES)
        kept = torch.sin(phase)
        ctx.save_for_backward(u, phase)
        ctx.mark_non_differentiable(kept)
        return _on_steps(turns.mul_(math.tau).sin_()), kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        u, phase = ctx.saved_tensors
        if torch.is_grad_enabled():
            return grad * torch.cos(u)
        return grad * _on_steps(torch.cos(phase))


class _Rounded(torch.autograd.Function):
    """Rounds values on their way forward and gradients on their way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Rounding) -> Tensor:
        ctx.to = to
        return rounded(x, to)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad if torch.is_grad_enabled() else rounded(grad, ctx.to)), None


def _on_steps(x: Tensor) -> Tensor:
    """Sines as the fast unit has them, in place."""
    return x.mul_(1 / SINE_STEP).round_().mul_(SINE_STEP)


def _activate(u: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """The activation of u, and what is kept of it for the next layer's weight gradient."""
    if layer.activation == "sine":
        out, kept = _FastSine.apply(u)
        return out, kept
    x = reference.activate(u, layer)
    return x, x


def _everywhere(plan: Mlp, points: Tensor, to: Rounding) -> Tensor:
    def short(x: Tensor) -> Tensor:
        out: Tensor = _Rounded.apply(x, to)
        return out

    x = short(points)
    for layer in plan.layers:
        a = x @ short(layer.weight).mT
        if layer.bias is not None:
            a = a + _rows(short(layer.bias), plan)
        a = short(a)
        if layer.omega != 1:
            a = short(layer.omega * a)
        x = short(reference.activate(a, layer))
    return x


def _rows(bias: Tensor, plan: Mlp) -> Tensor:
    """A bias against points."""
    return bias if plan.networks is None else bias[:, None]
