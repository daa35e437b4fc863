"""The fused C++ kernel of grid fields, held to the twin in float64."""

from __future__ import annotations

import ctypes
import math
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fields.grid import Grid, centres
from fields.kernels import build, cpp_grid, reference
from fields.kernels.plan import GridPlan, Layer, Mlp

ACCURACY = 1e-5
"""Of a gradient, relative to its norm; of values, relative to the largest."""

CANCELLED = 2e-8
"""What more a sum over points may be off, of the terms' magnitude: they may cancel to nearly 0."""


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    try:
        build.library("grid")
    except build.NoKernel as error:
        pytest.skip(str(error))


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def make(
    d: int = 2,
    c: int = 3,
    seed: int = 0,
    *,
    resolution: int | list[int] = 11,
    levels: int = 3,
    features: int = 0,
    log2_table: int = 24,
    hidden_features: int = 16,
    hidden_layers: int = 1,
) -> GridPlan:
    """A grid whose features are large enough for the ReLUs to matter."""
    torch.manual_seed(seed)
    field = Grid(
        d,
        c,
        resolution=resolution,
        levels=levels,
        features=features,
        log2_table=log2_table,
        hidden_features=hidden_features,
        hidden_layers=hidden_layers,
    )
    plan = field.plan()
    count = len(plan.tables)
    tensors = [t.detach().uniform_(-1, 1) for t in plan.tensors()[:count]]
    return wanting(plan.holding([*tensors, *(t.detach() for t in plan.tensors()[count:])]))


def wanting(plan: GridPlan, dtype: torch.dtype = torch.float32) -> GridPlan:
    """A copy whose tensors want gradients."""
    return plan.holding([t.detach().to(dtype).clone().requires_grad_() for t in plan.tensors()])


def gradients(function: Callable[..., Tensor], plan: GridPlan, *given: object) -> list[Tensor]:
    value = function(plan, *given)
    return [value.detach(), *torch.autograd.grad(value, plan.tensors())]


def double(given: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return given.double() if isinstance(given, Tensor) else [x.double() for x in given]


def hold(name: str, plan: GridPlan, given: Tensor | list[Tensor], targets: Tensor) -> None:
    """An error and its gradients, against float64."""
    found = gradients(getattr(cpp_grid, name), plan, given, targets)
    wide = wanting(plan, torch.float64)
    right = gradients(getattr(reference, name), wide, double(given), targets.double())
    assert len(found) == len(right)
    terms = 2 * math.sqrt(
        targets.numel() * float(right[0])
    )  # at least the sum of |gradients by values|
    for got, wanted in zip(found, right, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == torch.float32
        assert (got - wanted).norm() <= ACCURACY * wanted.norm() + CANCELLED * terms


def hold_values(name: str, plan: GridPlan, given: Tensor | list[Tensor]) -> None:
    """Values and, through them, gradients of any function of them."""
    wide = wanting(plan, torch.float64)
    got = getattr(cpp_grid, name)(plan, given)
    wanted = getattr(reference, name)(wide, double(given))
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    if not got.numel():
        return
    assert (got - wanted).abs().max() <= ACCURACY * wanted.abs().max()
    torch.manual_seed(1)
    upstream = torch.randn(got.shape)
    found = torch.autograd.grad(got, plan.tensors(), upstream)
    right = torch.autograd.grad(wanted, wide.tensors(), upstream.double())
    for a, b in zip(found, right, strict=True):
        assert (a - b).norm() <= ACCURACY * b.norm() + CANCELLED * upstream.abs().sum()


def lattice(*sizes: int, seed: int = 0, beyond: float = 1.2) -> list[Tensor]:
    """Coordinates in no order, some of them outside [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, generator=generator) * 2 - 1) * beyond for n in sizes]


def ordered(*sizes: int) -> list[Tensor]:
    return [centres(n).float() for n in sizes]


SHAPES = {
    "picture": ({"resolution": [40, 56], "levels": 5}, (40, 56), 1),
    "colours": ({"resolution": [40, 56], "levels": 5}, (40, 56), 3),
    "twice as fine": ({"resolution": [19, 23]}, (38, 46), 3),
    "linear alone": ({"hidden_layers": 0}, (17, 33), 3),
    "deep": ({"hidden_layers": 3, "hidden_features": 21}, (9, 20), 2),
    "wide": ({"hidden_layers": 2, "hidden_features": 200}, (9, 40), 2),
    "many features": ({"features": 20, "levels": 4}, (9, 40), 5),
    "one node": ({"resolution": [1, 1], "levels": 2}, (9, 20), 1),
    "one node by nine": ({"resolution": [1, 9], "levels": 4}, (9, 20), 1),
    "nine nodes by one": ({"resolution": [9, 1], "levels": 4}, (9, 20), 1),
    "one row": ({"resolution": [5, 300]}, (1, 700), 1),
    "one column": ({"resolution": [300, 5]}, (700, 1), 1),
    "sound": ({"resolution": 900, "levels": 7}, (5000,), 1),
    "hashed sound": ({"resolution": 90, "levels": 3, "log2_table": 5}, (200,), 1),
    "volume": ({"resolution": [6, 9, 14], "levels": 3}, (6, 9, 14), 2),
    "four axes": ({"resolution": [3, 4, 5, 6], "levels": 2}, (4, 3, 5, 7), 1),
    "eight axes": ({"resolution": [2, 1, 2, 3, 1, 2, 2, 3], "levels": 2}, (2,) * 8, 1),
    "hashed": ({"resolution": [40, 56], "levels": 3, "log2_table": 7}, (40, 56), 2),
    "all hashed": ({"resolution": [20, 30], "levels": 1, "log2_table": 4}, (20, 30), 1),
    "hashed, eight axes": (
        {"resolution": [2, 3, 2, 3, 3, 3, 3, 3], "levels": 1, "log2_table": 7},
        (2, 2, 1, 2, 2, 2, 2, 3),
        1,
    ),
    "hashed volume": ({"resolution": 12, "levels": 2, "log2_table": 8}, (7, 9, 10), 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_the_twins_on_a_lattice(name: str) -> None:
    options, sizes, channels = SHAPES[name]
    plan = make(len(sizes), channels, **options)
    for axes in (ordered(*sizes), lattice(*sizes)):
        torch.manual_seed(2)
        hold("grid_error_on_lattice", plan, axes, torch.randn(*sizes, channels))
        hold_values("grid_on_lattice", plan, axes)


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_the_twins_at_points(name: str) -> None:
    options, sizes, channels = SHAPES[name]
    plan = make(len(sizes), channels, **options)
    points = torch.stack(lattice(*[601] * len(sizes)), dim=1)
    torch.manual_seed(2)
    hold("grid_error", plan, points, torch.randn(601, channels))
    hold_values("grid", plan, points)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_grid_is_the_twins(data: st.DataObject) -> None:
    d = data.draw(st.sampled_from([1, 1, 2, 2, 2, 3, 3, 4]))
    most = [0, 300, 40, 12, 6][d]
    resolution = data.draw(st.lists(st.integers(1, most), min_size=d, max_size=d))
    sizes = data.draw(st.lists(st.integers(0, most), min_size=d, max_size=d))
    channels = data.draw(st.integers(1, 4))
    plan = make(
        d,
        channels,
        data.draw(st.integers(0, 9)),
        resolution=resolution,
        levels=data.draw(st.integers(1, 5)),
        features=data.draw(st.integers(0, 9)),
        log2_table=data.draw(st.sampled_from([4, 6, 24])),
        hidden_features=data.draw(st.integers(1, 40)),
        hidden_layers=data.draw(st.integers(0, 3)),
    )
    sort = data.draw(st.booleans())
    axes = [x.sort().values if sort else x for x in lattice(*sizes)]
    threads = data.draw(st.sampled_from([1, 2, 5]))
    points = torch.stack(lattice(*[math.prod(sizes)] * d, seed=3), dim=1)
    torch.manual_seed(4)
    targets = torch.randn(*sizes, channels)
    torch.set_num_threads(threads)
    try:
        hold("grid_error_on_lattice", plan, axes, targets)
        hold_values("grid_on_lattice", plan, axes)
        hold("grid_error", plan, points, targets.flatten(0, -2))
    finally:
        torch.set_num_threads(1)


def test_more_points_than_are_kept_at_a_time() -> None:
    """Gradients of gathered levels are made in slabs of 2^18 points."""
    plan = make(2, 1, resolution=[30, 40], levels=2, log2_table=8)
    targets = torch.randn(700, 400, 1)
    hold("grid_error_on_lattice", plan, lattice(700, 400), targets)
    hold("grid_error_on_lattice", plan, lattice(1, 280000), targets.view(1, -1, 1))
    hold("grid_error", plan, torch.stack(lattice(280000, 280000), 1), targets.view(-1, 1))


def test_gradient_by_coordinates_is_the_twins() -> None:
    for d, options in ((1, {}), (2, {"log2_table": 5}), (3, {"resolution": [1, 4, 7]})):
        plan = make(d, 2, **options)
        # within the cells of the coarsest level, and beyond the outermost nodes
        points = torch.stack(lattice(*[300] * d), dim=1)
        upstream = torch.randn(300, 2, generator=torch.Generator().manual_seed(5))
        found, right = [], []
        for function, dtype, into in (
            (cpp_grid.grid, torch.float32, found),
            (reference.grid, torch.float64, right),
        ):
            x = points.to(dtype).requires_grad_()
            values = function(wanting(plan, dtype), x)
            into.append(torch.autograd.grad(values, x, upstream.to(dtype))[0])
        assert right[0].abs().max() > 1
        assert (right[0] == 0).any()  # where coordinates are held at the border
        assert (found[0] - right[0]).norm() <= ACCURACY * right[0].norm()


def test_gradient_by_axes_is_the_twins() -> None:
    plan = make()
    found = []
    for module in (cpp_grid, reference):
        axes = [axis.requires_grad_() for axis in lattice(7, 9)]
        values = module.grid_on_lattice(plan, axes)
        found.append(torch.autograd.grad(values.square().sum(), [*axes, *plan.tensors()]))
    for a, b in zip(*found, strict=True):
        assert not a.requires_grad
        assert (a - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("name", ["grid", "grid_error", "grid_on_lattice", "grid_error_on_lattice"])
def test_second_derivatives_are_the_twins(name: str) -> None:
    found = []
    for module in (cpp_grid, reference):
        plan = make(resolution=6)
        axes = lattice(7, 9)
        given = axes if name.endswith("lattice") else torch.cartesian_prod(*axes)
        targets = torch.ones(7, 9, 3) if name.endswith("lattice") else torch.ones(63, 3)
        value = getattr(module, name)(plan, given, *([targets] if "error" in name else []))
        value = value.square().sum()
        first = torch.autograd.grad(value, plan.tensors(), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), plan.tensors()))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


def test_backward_twice_gives_the_same_twice() -> None:
    plan, axes = make(), ordered(20, 30)
    loss = cpp_grid.grid_error_on_lattice(plan, axes, torch.zeros(20, 30, 3))
    first = torch.autograd.grad(loss, plan.tensors(), torch.tensor(3.0), retain_graph=True)
    kept = [g.clone() for g in first]
    second = torch.autograd.grad(loss, plan.tensors(), torch.tensor(0.5))
    for a, b, c in zip(first, kept, second, strict=True):
        assert torch.equal(a, b)  # not scaled once more behind the back of who has it
        torch.testing.assert_close(c * 6, b, rtol=1e-6, atol=0)
        assert b.any()


def test_parameters_changed_before_backward_are_noticed() -> None:
    plan, axes = make(), ordered(20, 30)
    loss = cpp_grid.grid_error_on_lattice(plan, axes, torch.zeros(20, 30, 3))
    with torch.no_grad():
        plan.tables[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_only_what_wants_gradients_gets_them() -> None:
    plan, axes, targets = make(), ordered(20, 30), torch.zeros(20, 30, 3)
    held = plan.holding([t.detach() for t in plan.tensors()])
    assert not cpp_grid.grid_error_on_lattice(held, axes, targets).requires_grad
    held.linear.weight.requires_grad_()
    cpp_grid.grid_error_on_lattice(held, axes, targets).backward()
    wanted = torch.autograd.grad(
        reference.grid_error_on_lattice(plan, axes, targets), plan.linear.weight
    )[0]
    assert held.linear.weight.grad is not None
    assert held.tables[0].grad is None
    torch.testing.assert_close(held.linear.weight.grad, wanted, rtol=1e-5, atol=1e-4)


def test_views_and_strides_are_taken_as_they_are() -> None:
    plan = make(c=2)
    tensors = [t.detach() for t in plan.tensors()]
    strided = [torch.stack([t, t + 1], dim=-1)[..., 0].requires_grad_() for t in tensors]
    assert not any(t.is_contiguous() for t in strided)
    axes = [torch.stack([x, x], 1)[:, 0] for x in lattice(20, 30)]
    targets = torch.randn(2, 30, 20).permute(2, 1, 0)
    hold("grid_error_on_lattice", plan.holding(strided), axes, targets)
    found = []
    for module in (cpp_grid, reference):
        values = module.grid_on_lattice(plan.holding(strided), axes)
        found.append(torch.autograd.grad(values, strided, targets))
    for ours, right in zip(*found, strict=True):
        assert (ours - right).norm() <= 1e-5 * right.norm()


def test_no_bias_is_a_bias_of_zero() -> None:
    plan = make(c=2, hidden_layers=2)
    assert plan.mlp is not None
    bare = [Layer(layer.weight, None, layer.activation) for layer in plan.mlp.layers]
    linear = Layer(plan.linear.weight, None)
    without = GridPlan(plan.tables, plan.resolutions, linear, Mlp(tuple(bare)))
    hold("grid_error_on_lattice", without, ordered(20, 30), torch.randn(20, 30, 2))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("options", [{}, {"log2_table": 6}])
def test_the_same_bits_from_call_to_call(options: dict[str, int]) -> None:
    plan = make(resolution=[120, 150], levels=5, **options)
    axes, targets = ordered(240, 300), torch.randn(240, 300, 3)
    points = torch.rand(70000, 2) * 2 - 1
    for _ in range(2):
        first = gradients(cpp_grid.grid_error_on_lattice, plan, axes, targets)
        again = gradients(cpp_grid.grid_error_on_lattice, plan, axes, targets)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    first = gradients(cpp_grid.grid_error, plan, points, targets.flatten(0, 1)[:70000])
    again = gradients(cpp_grid.grid_error, plan, points, targets.flatten(0, 1)[:70000])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("sizes", [(240, 300), (3, 30000), (60000,), (30, 40, 50)])
def test_threads_change_no_more_than_rounding(sizes: tuple[int, ...]) -> None:
    plan = make(len(sizes), 2, resolution=[-(-n // 2) for n in sizes], levels=4)
    axes, targets = ordered(*sizes), torch.randn(*sizes, 2)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(cpp_grid.grid_error_on_lattice, plan, axes, targets))
            found[-1].append(cpp_grid.grid_on_lattice(plan, axes).detach())
    finally:
        torch.set_num_threads(1)
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            assert (a - b).norm() <= 2e-6 * a.norm()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen(bad: float) -> None:
    axes, targets = ordered(20, 30), torch.zeros(20, 30, 3)
    for i in range(len(make().tensors())):
        plan = make()
        with torch.no_grad():
            plan.tensors()[i].view(-1)[-1] = bad
        for function, coords, wanted in (
            (cpp_grid.grid_error_on_lattice, axes, targets),
            (cpp_grid.grid_error, torch.cartesian_prod(*axes), targets.flatten(0, 1)),
        ):
            # a ReLU may hide -inf, but nothing hides NaN
            assert not math.isfinite(float(function(plan, coords, wanted).detach()))
    targets[3, 4, 0] = bad
    loss = cpp_grid.grid_error_on_lattice(make(), axes, targets)
    assert not math.isfinite(float(loss.detach()))


def test_the_derivative_of_relu_at_zero_is_zero() -> None:
    plan = make(c=1)
    assert plan.mlp is not None
    with torch.no_grad():
        for table in plan.tables:
            table.zero_()
        plan.mlp.layers[0].bias.zero_()  # type: ignore[union-attr]
    found = gradients(cpp_grid.grid_error_on_lattice, plan, ordered(20, 30), torch.ones(20, 30, 1))[
        1:
    ]
    bias = len(plan.tables) + 3
    assert plan.tensors()[bias] is plan.mlp.layers[0].bias
    assert not found[bias].any()
    assert found[0].any()  # by the linear map


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("float64", lambda: cpp_grid.grid(wanting(make(), torch.float64), torch.zeros(3, 2))),
    ("float64", lambda: cpp_grid.grid(make(), torch.zeros(3, 2).double())),
    ("meta", lambda: cpp_grid.grid(make(), torch.zeros(3, 2, device="meta"))),
    ("expected \\(any, 2\\)", lambda: cpp_grid.grid(make(), torch.zeros(3, 3))),
    ("2 axes", lambda: cpp_grid.grid_on_lattice(make(), ordered(4, 5, 6))),
    (
        "expected \\(4, 5, 3\\)",
        lambda: cpp_grid.grid_error_on_lattice(make(), ordered(4, 5), torch.zeros(5, 4, 3)),
    ),
    (
        "expected \\(7, 3\\)",
        lambda: cpp_grid.grid_error(make(), torch.ones(7, 2), torch.ones(7, 1)),
    ),
    ("no place", lambda: cpp_grid.grid(_with_another_table(), torch.zeros(3, 2))),
    ("ReLUs inside", lambda: cpp_grid.grid(_with_sines(), torch.zeros(3, 2))),
]


def _with_another_table() -> GridPlan:
    plan = make()
    wrong = torch.zeros(3, 5, 6)
    return GridPlan((wrong, *plan.tables[1:]), plan.resolutions, plan.linear, plan.mlp)


def _with_sines() -> GridPlan:
    plan = make()
    assert plan.mlp is not None
    first, last = plan.mlp.layers
    sines = Layer(first.weight, first.bias, "sine", 30.0)
    return GridPlan(plan.tables, plan.resolutions, plan.linear, Mlp((sines, last)))


@pytest.mark.parametrize(("says", "call"), REFUSED)
def test_what_it_does_not_compute_is_refused(says: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def steps(
    error: Callable[[GridPlan, Sequence[Tensor], Tensor], Tensor], values: Tensor, count: int
) -> list[float]:
    torch.manual_seed(0)
    shape = list(values.shape[:-1])
    field = Grid(2, values.shape[-1], resolution=shape, levels=5)
    adam = torch.optim.Adam(field.parameters(), lr=0.01, fused=True)
    axes = ordered(*shape)
    losses = []
    for _ in range(count):
        adam.zero_grad()
        loss = error(field.plan(), axes, values) / values.numel()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_photograph_is_learnt_as_with_plain_torch(camera: np.ndarray, patch: np.ndarray) -> None:
    for picture in (camera[::4, ::4, None], patch):
        values = torch.from_numpy(picture / 127.5 - 1).float()
        ours = steps(cpp_grid.grid_error_on_lattice, values, 30)
        plain = steps(reference.grid_error_on_lattice, values, 30)
        assert ours[-1] < 0.2 * ours[0]
        np.testing.assert_allclose(ours, plain, rtol=1e-4)


@pytest.mark.slow
def test_a_whole_photograph_is_learnt_as_with_plain_torch(camera: np.ndarray) -> None:
    values = torch.from_numpy(camera[..., None] / 127.5 - 1).float()
    ours = steps(cpp_grid.grid_error_on_lattice, values, 30)
    plain = steps(reference.grid_error_on_lattice, values, 30)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)
    hold("grid_error_on_lattice", make(2, 1, resolution=512, levels=7), ordered(512, 512), values)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_narrower_vectors_give_the_same(
    processor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() != "x86_64" or (
        processor[-2:] == "v3" and "avx2" not in build.processor()
    ):
        pytest.skip("another processor")
    compiler = build.compiler()
    assert compiler is not None
    target = tmp_path / "grid.so"
    command = [compiler.split(":")[0], *build.FLAGS, f"-march={processor}", "-shared", "-fPIC"]
    subprocess.run([*command, str(build.SOURCES / "grid.cpp"), "-o", str(target)], check=True)
    narrow = ctypes.CDLL(str(target))
    monkeypatch.setattr(build, "library", lambda _: narrow)
    for options, sizes, channels in SHAPES.values():
        plan = make(len(sizes), channels, **options)
        hold("grid_error_on_lattice", plan, lattice(*sizes), torch.randn(*sizes, channels))
        points = torch.stack(lattice(*[201] * len(sizes)), dim=1)
        hold("grid_error", plan, points, torch.randn(201, channels))
