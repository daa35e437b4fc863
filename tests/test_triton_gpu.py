"""The Triton MLP kernels on a GPU, at real sizes; skipped where there is none."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() or torch.version.hip is not None:
    pytest.skip("there is no CUDA GPU here", allow_module_level=True)
if torch.cuda.get_device_capability() < (8, 0):
    pytest.skip("the GPU is older than compute capability 8.0", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET is set", allow_module_level=True)

from fields.kernels import reference, triton_mlp
from fields.kernels.plan import Mlp
from tests.triton_interpreted import NAMES, compare, error, network

pytestmark = pytest.mark.gpu

# float32's own sums of 2^16 points, the fast sine's 5e-7 and its phases; of tf32's and bf16's
# operands 11 and 8 bits
BARS = {"fp32": 3e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 4e-2}


def on_gpu(plan: Mlp) -> Mlp:
    return plan.holding([x.detach().cuda().requires_grad_() for x in plan.tensors()])


def points(*shape: int) -> torch.Tensor:
    g = torch.Generator("cuda").manual_seed(3)
    return torch.rand(*shape, generator=g, device="cuda") * 2 - 1


@pytest.mark.parametrize("precision", list(BARS))
@pytest.mark.parametrize("width", [16, 28, 64, 128, 256])
@pytest.mark.parametrize("name", ["sine", "wire"])
def test_widths(name: str, width: int, precision: str) -> None:
    compare(on_gpu(network(name, width, 3)), points(5_003, 2), precision, BARS[precision])


@pytest.mark.parametrize("precision", list(BARS))
@pytest.mark.parametrize("name", NAMES)
def test_activations(name: str, precision: str) -> None:
    # ReLU's derivative jumps where the rounding of operands may have moved a unit to
    bar = 5 * BARS[precision] if name == "relu" else BARS[precision]
    compare(on_gpu(network(name, 64, 4)), points(5_003, 2), precision, bar)


@pytest.mark.parametrize("ins", [1, 3, 8, 9, 40, 64])
def test_inputs_and_outputs(ins: int) -> None:
    plan = on_gpu(network("gelu", 64, 8, ins=ins, outs=16))
    compare(plan, points(1_001, ins), "fp16", 1e-2)


@pytest.mark.parametrize("width", [64, 256])
def test_a_million_points(width: int) -> None:
    plan, x = on_gpu(network("sine", width, 4)), points(1 << 20, 2)
    targets = points(1 << 20, 3)
    found = torch.autograd.grad(triton_mlp.mlp_error(plan, x, targets), plan.tensors())
    exact = plan.holding([p.detach().double().requires_grad_() for p in plan.tensors()])
    total = [torch.zeros_like(p) for p in exact.tensors()]
    for a, b in zip(x.double().split(1 << 16), targets.double().split(1 << 16), strict=True):
        loss = reference.mlp_error(exact, a, b)
        for t, grad in zip(total, torch.autograd.grad(loss, exact.tensors()), strict=True):
            t += grad
    assert max(map(error, found, total)) < BARS["fp16"]


def test_the_same_bits_each_time() -> None:
    plan, x, targets = on_gpu(network("sine", 64, 4)), points(100_003, 2), points(100_003, 3)

    def all_of_it() -> list[torch.Tensor]:
        loss = triton_mlp.mlp_error(plan, x, targets)
        return [loss, *torch.autograd.grad(loss, plan.tensors())]

    first = all_of_it()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, all_of_it(), strict=True))


@pytest.mark.parametrize("width", [64, 256])
def test_in_a_cuda_graph(width: int) -> None:
    plan, x, targets = on_gpu(network("sine", width, 3)), points(4_001, 2), points(4_001, 3)

    def step() -> list[torch.Tensor]:
        loss = triton_mlp.mlp_error(plan, x, targets)
        return [loss, *torch.autograd.grad(loss, plan.tensors())]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # kernels are compiled here
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for p in plan.tensors():
            p.mul_(0.9)
        targets.mul_(100)  # another scale of the gradients, found inside of the graph
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))


def test_a_thousand_networks() -> None:
    plan = on_gpu(network("sine", 32, 3, nets=1_024))
    compare(plan, points(1_024, 300, 2), "fp16", BARS["fp16"])
    compare(plan, points(300, 2), "fp16", BARS["fp16"])


def test_tensors_elsewhere() -> None:
    with pytest.raises(ValueError, match="parameters are on cpu"):
        triton_mlp.mlp(network("sine", 16, 1), points(3, 2))
    with pytest.raises(ValueError, match="need a CUDA GPU"):
        triton_mlp.mlp(network("sine", 16, 1), points(3, 2).cpu())
