"""Fused grids against the reference in float64; `test_triton_grid.py` runs it in its own process.

Triton decides at import whether its kernels are interpreted, so that other tests cannot be in the
same process. With TRITON_INTERPRET=1 they run on the CPU, else on the GPU.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fields import Grid
from fields.kernels import reference, triton_grid
from fields.kernels.plan import GridPlan, Layer

DEVICE = "cpu" if triton_grid.interpreted() else "cuda"
# features of tens, sums of hundreds of them: float32 has 6e-8
BOUND = 3e-6

KINDS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "dense": (2, 3, {"resolution": 20, "levels": 3}),
    "hashed": (2, 3, {"resolution": [40, 33], "levels": 4, "log2_table": 8, "hidden_layers": 2}),
    "all hashed": (2, 1, {"resolution": 32, "levels": 2, "features": 2, "log2_table": 4}),
    "linear": (3, 1, {"resolution": 12, "levels": 2, "log2_table": 8, "hidden_layers": 0}),
    "line": (1, 2, {"resolution": 64, "levels": 4, "hidden_features": 20}),
    "four axes": (4, 2, {"resolution": 5, "levels": 2, "log2_table": 8}),
    "one node": (2, 3, {"resolution": [1, 9], "levels": 2}),
    "wide": (2, 16, {"resolution": 8, "levels": 2, "hidden_features": 64, "hidden_layers": 2}),
}


def made(kind: str) -> GridPlan:
    axes, channels, options = KINDS[kind]
    torch.manual_seed(0)
    field = Grid(axes, channels, **options)
    field.rescale(1.0)
    return field.to(DEVICE).plan()


def exact(plan: GridPlan) -> GridPlan:
    return plan.holding([t.detach().double().requires_grad_() for t in plan.tensors()])


def points(plan: GridPlan, count: int = 70) -> Tensor:
    """Some of them outside of [-1, 1]."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, plan.in_features, generator=generator) * 2.2 - 1.1
    return x.to(DEVICE)


def axes_of(plan: GridPlan) -> list[Tensor]:
    lengths = {1: [75], 2: [9, 8], 3: [3, 5, 7], 4: [2, 3, 4, 3]}[plan.in_features]
    return [torch.linspace(-1.05, 0.97, n, device=DEVICE) for n in lengths]


def near(mine: Tensor, wanted: Tensor, bound: float = BOUND) -> None:
    assert mine.shape == wanted.shape
    assert mine.dtype == torch.float32
    assert (mine - wanted).abs().max() <= bound * wanted.abs().max().clamp_min(1e-30)


def same_gradients(
    mine: Tensor, inputs: Sequence[Tensor], wanted: Tensor, exactly: Sequence[Tensor]
) -> None:
    found = torch.autograd.grad(mine, inputs)
    for a, b in zip(found, torch.autograd.grad(wanted, exactly), strict=True):
        near(a, b)


QUICK = ["hashed", "all hashed", "line", "one node"]
SLOW = [pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in QUICK]


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_values_and_gradients(kind: str) -> None:
    plan = made(kind)
    twin = exact(plan)
    x = points(plan).requires_grad_()
    x64 = x.detach().double().requires_grad_()
    values, wanted = triton_grid.grid(plan, x), reference.grid(twin, x64)
    near(values, wanted)
    pull = torch.randn(values.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    inputs = [*plan.tensors(), x]
    same_gradients((values * pull).sum(), inputs, (wanted * pull).sum(), [*twin.tensors(), x64])


@pytest.mark.parametrize("kind", ["hashed", "one node", *SLOW])
def test_values_and_gradients_on_a_lattice(kind: str) -> None:
    plan = made(kind)
    twin = exact(plan)
    axes = [axis.requires_grad_() for axis in axes_of(plan)]
    axes64 = [axis.detach().double().requires_grad_() for axis in axes]
    values, wanted = (
        triton_grid.grid_on_lattice(plan, axes),
        reference.grid_on_lattice(twin, axes64),
    )
    near(values, wanted)
    pull = torch.randn(values.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    inputs = [*plan.tensors(), *axes]
    same_gradients((values * pull).sum(), inputs, (wanted * pull).sum(), [*twin.tensors(), *axes64])


@pytest.mark.parametrize(
    "kind",
    ["hashed", *(pytest.param(k, marks=pytest.mark.slow) for k in ("dense", "linear", "wide"))],
)
def test_errors_and_their_gradients(kind: str) -> None:
    plan = made(kind)
    twin = exact(plan)
    x, axes = points(plan), axes_of(plan)
    lengths = [len(axis) for axis in axes]
    scattered = torch.randn(len(x), plan.out_features).to(DEVICE)
    lattice = torch.randn(*lengths, plan.out_features).to(DEVICE)
    for mine, wanted in (
        (
            triton_grid.grid_error(plan, x, scattered),
            reference.grid_error(twin, x.double(), scattered.double()),
        ),
        (
            triton_grid.grid_error_on_lattice(plan, axes, lattice),
            reference.grid_error_on_lattice(twin, [a.double() for a in axes], lattice.double()),
        ),
    ):
        near(mine, wanted)
        # what comes in from above is a factor
        same_gradients(0.25 * mine, plan.tensors(), 0.25 * wanted, twin.tensors())
    with torch.no_grad():
        near(triton_grid.grid_error(plan, x, scattered), reference.grid_error(twin, x, scattered))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    axes=st.integers(1, 3),
    out=st.integers(1, 4),
    features=st.integers(1, 4),
    levels=st.integers(1, 4),
    log2_table=st.integers(4, 8),
    hidden=st.integers(1, 20),
    depth=st.integers(0, 2),
    count=st.integers(1, 70),
    data=st.data(),
)
def test_any_shape(
    axes: int,
    out: int,
    features: int,
    levels: int,
    log2_table: int,
    hidden: int,
    depth: int,
    count: int,
    data: Any,
) -> None:
    resolution = [data.draw(st.integers(1, 20)) for _ in range(axes)]
    torch.manual_seed(0)
    field = Grid(
        axes,
        out,
        resolution=resolution,
        levels=levels,
        features=features,
        log2_table=log2_table,
        hidden_features=hidden,
        hidden_layers=depth,
    )
    for table in field.tables:
        torch.nn.init.uniform_(table, -1, 1)
    plan = field.to(DEVICE).plan()
    twin = exact(plan)
    x = points(plan, count)
    targets = torch.randn(count, out).to(DEVICE)
    mine = triton_grid.grid_error(plan, x, targets)
    wanted = reference.grid_error(twin, x.double(), targets.double())
    near(mine, wanted)
    same_gradients(mine, plan.tensors(), wanted, twin.tensors())


def test_the_order_of_points_does_not_matter() -> None:
    """Features' gradients are summed as whole numbers; with floats the last bits would differ."""
    plan = made("line")
    x = points(plan, 150)
    targets = torch.randn(150, 2).to(DEVICE)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    first = torch.autograd.grad(triton_grid.grid_error(plan, x, targets), plan.tables)
    again = triton_grid.grid_error(plan, x[order], targets[order])
    for a, b in zip(first, torch.autograd.grad(again, plan.tables), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("factor", [1e-25, 1e20])
def test_gradients_of_any_size(factor: float) -> None:
    """The factor to whole numbers follows the gradients."""
    plan = made("line")
    x = points(plan)
    plain, scaled = (
        torch.autograd.grad(f * triton_grid.grid(plan, x).sum(), plan.tensors())
        for f in (1.0, factor)
    )
    for a, b in zip(plain, scaled, strict=True):
        near(b, factor * a.double())


def test_a_gradient_of_zero() -> None:
    plan = made("dense")
    x = points(plan)
    with torch.no_grad():
        targets = triton_grid.grid(plan, x)
    error = triton_grid.grid_error(plan, x, targets)
    assert error == 0
    assert all(not g.any() for g in torch.autograd.grad(error, plan.tensors()))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what is no number
@pytest.mark.parametrize("where", ["target", "coordinate", "weight", "infinite target"])
def test_what_is_no_number_stays_none(where: str) -> None:
    plan = made("dense")
    x = points(plan)
    targets = torch.randn(len(x), 3).to(DEVICE)
    with torch.no_grad():
        if where == "coordinate":
            x[7, 1] = math.nan
        elif where == "weight":
            assert plan.mlp is not None
            plan.mlp.layers[0].weight[0, 0] = math.nan
        else:
            targets[7, 1] = math.inf if where.startswith("inf") else math.nan
    error = triton_grid.grid_error(plan, x, targets)
    assert not torch.isfinite(error)
    for gradient in torch.autograd.grad(error, plan.tables):
        assert gradient.isnan().all()
    if where == "coordinate":
        values = triton_grid.grid(plan, x)
        assert values[7].isnan().all()
        assert values[:7].isfinite().all()
        assert values[8:].isfinite().all()


def test_second_derivatives_go_through_the_reference() -> None:
    plan = made("dense")
    twin = exact(plan)
    x = points(plan).requires_grad_()
    x64 = x.detach().double().requires_grad_()

    def penalty(function: Callable[..., Tensor], held: GridPlan, at: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(function(held, at).sum(), at, create_graph=True)
        return slope.square().sum()

    mine, wanted = penalty(triton_grid.grid, plan, x), penalty(reference.grid, twin, x64)
    # in float32, so within its rounding of positions
    near(mine, wanted, 1e-5)
    found = torch.autograd.grad(mine, plan.tables)
    for a, b in zip(found, torch.autograd.grad(wanted, twin.tables), strict=True):
        near(a, b, 1e-4)
    error = triton_grid.grid_error(plan, x.detach(), torch.zeros(len(x), 3, device=DEVICE))
    (slope,) = torch.autograd.grad(error, plan.linear.weight, create_graph=True)
    assert slope.requires_grad


def test_tensors_that_lie_otherwise() -> None:
    """Tables seen through transposed memory, coordinates through strides, and no biases."""
    plan = made("dense")
    tables = tuple(t.detach().mT.contiguous().mT.requires_grad_() for t in plan.tables)
    assert plan.mlp is not None
    layers = [Layer(layer.weight, None, layer.activation) for layer in plan.mlp.layers]
    bare = GridPlan(
        tables, plan.resolutions, Layer(plan.linear.weight, None), type(plan.mlp)(tuple(layers))
    )
    twin = exact(bare)
    x = points(plan, 150)[::2]
    near(triton_grid.grid(bare, x), reference.grid(twin, x.double()))
    mine, wanted = triton_grid.grid(bare, x).sum(), reference.grid(twin, x.double()).sum()
    same_gradients(mine, bare.tensors(), wanted, twin.tensors())


def test_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps' gradients by tile are kept for so many tiles at a time."""
    plan = made("line")
    x = points(plan, 200)
    targets = torch.randn(200, 2).to(DEVICE)
    one = torch.autograd.grad(triton_grid.grid_error(plan, x, targets), plan.tensors())
    monkeypatch.setattr(triton_grid, "PARTS", 700)
    several = torch.autograd.grad(triton_grid.grid_error(plan, x, targets), plan.tensors())
    for a, b in zip(several, one, strict=True):
        near(a, b.double(), 1e-6)


def test_no_points() -> None:
    plan = made("dense")
    x = points(plan, 0)
    assert triton_grid.grid(plan, x).shape == (0, 3)
    error = triton_grid.grid_error(plan, x, torch.zeros(0, 3, device=DEVICE))
    assert error == 0
    assert all(not g.any() for g in torch.autograd.grad(error, plan.tensors()))
