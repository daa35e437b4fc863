"""The Triton MLP kernels in Triton's interpreter; run by `test_triton_mlp.py`, in a process of its
own, for whether kernels are interpreted is settled when their module is imported.

Memory that is not written reads as NaN, so that a kernel that looks where it should not is seen.
Operands of bfloat16 are left out: the interpreter multiplies their bits.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, no_type_check

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fields.kernels import reference, triton_mlp
from fields.kernels import triton_activations as activations
from fields.kernels.plan import Layer, Mlp

NAMES = (
    *("sine", "relu", "gelu", "finer", "finer-official", "gauss", "wire"),
    *("spder-sqrt", "spder-arctan", "spder-log"),
)

BARS = {"fp32": 1e-5, "fp16": 3e-3, "tf32": 3e-4}
"""Relative errors by precision; the interpreter multiplies tf32's operands as float32, and what is
left is the rounding of the stored phases."""


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    real, like = torch.Tensor.new_empty, torch.empty_like

    def poisoned(x: Tensor) -> Tensor:
        return x.fill_(math.nan if x.is_floating_point() else 12_345)

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: poisoned(real(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poisoned(like(*a, **k)))


def network(
    name: str,
    width: int,
    layers: int,
    *,
    ins: int = 2,
    outs: int = 3,
    nets: int | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Mlp:
    """A network with weights of the size that such networks have."""
    g = torch.Generator().manual_seed(seed)
    lead = () if nets is None else (nets,)

    def uniform(bound: float, *shape: int) -> Tensor:
        return ((torch.rand(*lead, *shape, generator=g) * 2 - 1) * bound).requires_grad_()

    omega = {"relu": 1.0, "gelu": 1.0, "gauss": 3.0, "wire": 10.0}.get(name, 15.0)
    made = []
    for i, (a, b) in enumerate(itertools.pairwise([ins, *[width] * layers])):
        bound = math.sqrt(6 / a) / omega if i or name in ("relu", "gelu") else 1 / a
        shift = uniform(0.3 / math.sqrt(a), b) if bias else None
        made.append(Layer(uniform(bound, b, a), shift, name, omega * (1 + i / 8), 0.8 - i / 8))
    last = uniform(0.1, outs) if bias else None
    return Mlp((*made, Layer(uniform(0.5, outs, width), last)))


def error(found: Tensor | None, right: Tensor) -> float:
    assert found is not None
    assert found.shape == right.shape
    assert found.dtype == torch.float32
    size = right.detach().norm()
    return float((found.detach().double() - right.detach()).norm() / (size + 1e-30))


def compare(plan: Mlp, points: Tensor, precision: str, bar: float, size: float = 1.0) -> None:
    """Values and gradients of both functions against the reference in float64."""
    g = torch.Generator().manual_seed(7)
    exact = plan.holding([x.detach().double().requires_grad_() for x in plan.tensors()])
    x = points.clone().requires_grad_()
    x64 = points.double().requires_grad_()
    values, right = triton_mlp.mlp(plan, x, precision), reference.mlp(exact, x64)
    assert error(values, right) < bar
    grad = torch.randn(right.shape, generator=g).to(points.device) * size
    found = torch.autograd.grad(values, [x, *plan.tensors()], grad)
    wanted = torch.autograd.grad(right, [x64, *exact.tensors()], grad.double())
    assert max(map(error, found, wanted)) < bar

    targets = torch.rand(right.shape, generator=g).to(points.device)
    loss = triton_mlp.mlp_error(plan, points, targets, precision)
    loss64 = reference.mlp_error(exact, points.double(), targets.double())
    assert error(loss, loss64) < bar
    found = torch.autograd.grad(0.37 * loss, plan.tensors())
    wanted = torch.autograd.grad(0.37 * loss64, exact.tensors())
    assert max(map(error, found, wanted)) < bar


def uniform(*shape: int, seed: int = 3) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "fp32") for name in NAMES), *((name, "fp16") for name in ("sine", "relu", "wire"))],
)
def test_values_and_gradients_are_the_references(name: str, precision: str) -> None:
    # ReLU's derivative jumps where the rounding of operands may have moved a unit to
    bar = 2e-2 if name == "relu" and precision == "fp16" else BARS[precision]
    # with three layers, the weights' gradients look up each layer's own omega and ratio
    layers = 3 if name in ("finer", "wire") else 2
    compare(network(name, 20, layers), uniform(200, 2), precision, bar)


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["sine", "gauss", "wire"]))
    width = 2 * data.draw(st.integers(1, 18))
    layers, ins = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    nets = data.draw(st.sampled_from([None, None, 1, 3]))
    points = data.draw(st.integers(1, 150))
    bias = data.draw(st.booleans())
    plan = network(
        name, width, layers, ins=ins, outs=data.draw(st.integers(1, 16)), nets=nets, bias=bias
    )
    lead = () if nets is None or data.draw(st.booleans()) else (nets,)
    compare(plan, uniform(*lead, points, ins), "fp32", BARS["fp32"])


@pytest.mark.parametrize(
    ("name", "precision", "nets"),
    [("sine", "fp16", None), ("sine", "tf32", 2), ("wire", "fp32", None)],
)
def test_layer_by_layer_and_in_chunks(
    name: str, precision: str, nets: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_mlp, "whole", lambda *_: False)  # as width 256 is
    monkeypatch.setattr(triton_mlp, "CHUNK_BYTES", 1)  # 128 points, the least
    lead = () if nets is None else (nets,)
    plan = network(name, 20, 3, nets=nets)
    compare(plan, uniform(*lead, 300, 2), precision, BARS[precision])


def test_gradients_by_points_alone() -> None:
    plan, x = network("sine", 16, 2), uniform(50, 2).requires_grad_()
    fixed = plan.holding([p.detach() for p in plan.tensors()])
    (found,) = torch.autograd.grad(triton_mlp.mlp(fixed, x, "fp32").sum(), x)
    (right,) = torch.autograd.grad(reference.mlp(fixed, x).sum(), x)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_encodings_of_many_numbers() -> None:
    plan = network("relu", 16, 2, ins=40, outs=16)
    compare(plan, uniform(140, 40), "fp32", BARS["fp32"])


def test_several_tiles_of_a_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    real = triton_mlp.config
    small = triton_mlp.Config(64, 4, 1, 16)

    def config(*told: Any) -> triton_mlp.Config:
        return small if "weights" in told else real(*told)

    monkeypatch.setattr(triton_mlp, "config", config)
    compare(network("sine", 28, 3), uniform(130, 2), "fp32", BARS["fp32"])


def test_gradients_of_any_size_keep_their_digits() -> None:
    plan, points = network("sine", 16, 2), uniform(100, 2)
    for size in (1e-20, 1e20):
        compare(plan, points, "fp16", BARS["fp16"], size)


def test_too_large_a_gradient_is_held_and_an_infinite_one_is_seen() -> None:
    plan, points = network("sine", 16, 2, outs=1), uniform(100, 2)
    targets = torch.zeros(100, 1)
    *rest, weight, bias = plan.tensors()
    huge = plan.holding([*rest, (weight.detach() * 6e4).requires_grad_(), bias])
    grads = torch.autograd.grad(triton_mlp.mlp_error(huge, points, targets), huge.tensors())
    assert all(x.isfinite().all() for x in grads)
    assert all(x.abs().max() > 0 for x in grads)
    for bad in (math.inf, math.nan):
        targets[50] = bad
        loss = triton_mlp.mlp_error(plan, points, targets)
        assert not loss.isfinite()
        grads = torch.autograd.grad(loss, plan.tensors())
        assert not any(x.isfinite().any() for x in grads)


def test_networks_have_scales_of_their_own() -> None:
    plan = network("sine", 16, 2, nets=3)
    targets = torch.zeros(3, 100, 3)
    targets[1] = math.nan
    targets[2] = 1e9
    grads = torch.autograd.grad(
        triton_mlp.mlp_error(plan, uniform(100, 2), targets), plan.tensors()
    )
    exact = plan.holding([x.detach().double().requires_grad_() for x in plan.tensors()])
    wanted = torch.autograd.grad(
        reference.mlp_error(exact, uniform(100, 2).double(), targets.double()), exact.tensors()
    )
    for x, right in zip(grads, wanted, strict=True):
        assert x[1].isnan().all()
        assert error(x[0], right[0]) < BARS["fp16"]
        assert error(x[2], right[2]) < BARS["fp16"]


def test_second_derivatives() -> None:
    plan, points = network("sine", 16, 2), uniform(30, 2).requires_grad_()

    def of(function: Any) -> list[Tensor]:
        value = function(plan, points).sum()
        (slope,) = torch.autograd.grad(value, points, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [points, *plan.tensors()][:-1]))

    for x, right in zip(of(lambda *a: triton_mlp.mlp(*a, "fp32")), of(reference.mlp), strict=True):
        torch.testing.assert_close(x, right, rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_the_error() -> None:
    plan, points, targets = network("sine", 16, 1), uniform(30, 2), torch.ones(30, 3)

    def of(function: Any) -> Tensor:
        grads = torch.autograd.grad(
            function(plan, points, targets), plan.tensors(), create_graph=True
        )
        total = sum(x.square().sum() for x in grads)
        return torch.autograd.grad(total, plan.tensors()[0])[0]

    torch.testing.assert_close(of(triton_mlp.mlp_error), of(reference.mlp_error))


def test_views_and_batches() -> None:
    plan = network("sine", 16, 2)
    first, *rest = plan.tensors()
    wide = torch.cat([first.detach(), first.detach()], dim=1).requires_grad_()
    view = plan.holding([wide[:, ::2], rest[0][:1].expand(16), *rest[1:]])
    points = uniform(2, 70, 3)[..., ::2].transpose(0, 1)
    values = triton_mlp.mlp(view, points, "fp32")
    assert values.shape == (70, 2, 3)
    torch.testing.assert_close(values, reference.mlp(view, points), rtol=1e-4, atol=1e-5)
    (found,) = torch.autograd.grad(values.square().sum(), wide)
    (right,) = torch.autograd.grad(reference.mlp(view, points).square().sum(), wide)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_nothing_in_nothing_out() -> None:
    plan = network("sine", 16, 2)
    assert triton_mlp.mlp(plan, uniform(0, 2)).shape == (0, 3)
    loss = triton_mlp.mlp_error(plan, uniform(0, 2), torch.zeros(0, 3))
    assert loss == 0
    assert all((x == 0).all() for x in torch.autograd.grad(loss, plan.tensors()))


def test_an_error_without_gradients() -> None:
    plan = network("sine", 16, 2)
    targets = torch.ones(50, 3)
    with torch.no_grad():
        loss = triton_mlp.mlp_error(plan, uniform(50, 2), targets, "fp32")
        torch.testing.assert_close(loss, reference.mlp_error(plan, uniform(50, 2), targets))


@triton.jit
@no_type_check
def _activation(z, grad, h, u, omega, ratio, KEPT: tl.constexpr, NAME: tl.constexpr):
    at = tl.arange(0, 64)[:, None] * 32 + tl.arange(0, 32)[None, :]
    out, kept = activations.activated(tl.load(z + at), omega, ratio, NAME, KEPT)
    tl.store(h + at, out)
    tl.store(u + at, activations.pulled(kept, tl.load(grad + at), omega, ratio, NAME))


@pytest.mark.parametrize("name", NAMES)
def test_activations_up_to_large_arguments(name: str) -> None:
    z = torch.cat([torch.linspace(-2, 2, 2047), torch.zeros(1)]).reshape(64, 32)
    if name == "wire":  # pairs that reach from -2 to 2, but not beyond exp(40)
        z = torch.stack([z[:, :16], uniform(64, 16)], dim=-1).reshape(64, 32)
    omega, ratio = (30.0, 0.7)
    grad = uniform(64, 32)
    h, found = torch.empty(2, 64, 32)
    kept = tl.float32
    _activation[(1,)](z, grad, h, found, omega, ratio, KEPT=kept, NAME=name)
    u = (omega * z.double()).requires_grad_()
    layer = Layer(torch.zeros(1, 1), None, name, omega, ratio)
    if name == "wire":
        apart = u.unflatten(1, (16, 2)).transpose(1, 2).flatten(1)
        right = reference.activate(apart, layer)
        right = right.unflatten(1, (2, 16)).transpose(1, 2).flatten(1)
    else:
        right = reference.activate(u, layer)
    (wanted,) = torch.autograd.grad(right, u, grad.double())
    # u in float32 is off by up to 2^-19, FINER's phase by six times that
    assert ((h - right).abs() < 1e-4 * (1 + right.abs())).all()
    assert ((found - wanted).abs() < 3e-4 * (1 + wanted.abs())).all()


def test_phases_in_two_bytes() -> None:
    z, grad = uniform(64, 32) * 2, torch.ones(64, 32)
    z[0, :3] = torch.tensor([math.pi / 30, -math.pi / 30, math.nan])
    h, found = torch.empty(2, 64, 32)
    _activation[(1,)](z, grad, h, found, 30.0, 1.0, KEPT=tl.int16, NAME="sine")
    assert h[0, 2].isnan()
    u = 30 * z.double().flatten()
    good = u.isfinite()
    off = found.flatten().double()[good] - u[good].cos()
    assert off.abs().max() < 6.3 / 65536
    assert off.square().mean().sqrt() < 3e-5


def test_refusals() -> None:
    for width, layers, said in ((362, 2, "362"), (16, 10, "1 to 9")):
        why = triton_mlp.refusal(network("sine", width, layers))
        assert why is not None
        assert said in why
    assert "65 inputs" in str(triton_mlp.refusal(network("relu", 16, 1, ins=65)))
    assert "17 outputs" in str(triton_mlp.refusal(network("relu", 16, 1, outs=17)))
    assert triton_mlp.refusal(network("wire", 256, 9, ins=64, outs=16)) is None
    plan = network("relu", 16, 1, ins=65)
    with pytest.raises(ValueError, match="cannot take this network: 65 inputs"):
        triton_mlp.mlp(plan, uniform(3, 65))
    plan = network("sine", 16, 1)
    with pytest.raises(ValueError, match=r"points have shape \(3, 4\)"):
        triton_mlp.mlp(plan, uniform(3, 4))
    with pytest.raises(ValueError, match="float64, not float32"):
        triton_mlp.mlp(plan, uniform(3, 2).double())
    with pytest.raises(ValueError, match="targets have shape"):
        triton_mlp.mlp_error(plan, uniform(3, 2), uniform(3, 1))
    with pytest.raises(ValueError, match="none of fp16"):
        triton_mlp._check(plan, uniform(3, 2), "fp8")
