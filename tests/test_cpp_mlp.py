"""The C++ kernel for MLPs against its plain torch twin in float64: values and all gradients."""

import copy
import ctypes
import itertools
import math
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad as gradient

import fields
from fields.base import Field
from fields.kernels import build, cpp_mlp, reference
from fields.kernels.plan import Layer, Mlp
from tests.test_contract import SMALL

TOLERANCE = 1e-5  # of the largest entry; what the selection of backends promises

OMEGAS = {"sine": 30.0, "finer": 10.0, "finer-official": 10.0, "gauss": 5.0} | {
    f"spder-{damping}": 10.0 for damping in ("sqrt", "arctan", "log")
}


@pytest.fixture(autouse=True, scope="module")
def kernel() -> None:
    try:
        build.library("mlp")
    except build.NoKernel as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(
    name: str,
    sizes: list[int],
    *,
    omega: float | None = None,
    ratio: float = 0.5,
    bias: bool = True,
    networks: int | None = None,
    seed: int = 0,
) -> Mlp:
    """A network of these sizes with one activation, drawn as SIREN's are."""
    generator = torch.Generator().manual_seed(seed)
    omega = OMEGAS.get(name, 1.0) if omega is None else omega
    lead = () if networks is None else (networks,)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*lead, *shape, generator=generator) * 2 - 1

    layers = []
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        bound = math.sqrt(6 / before) / omega if i else 1 / before
        weight, b = (bound * draw(after, before), bound * draw(after))
        layers.append(
            Layer(
                weight.requires_grad_(),
                b.requires_grad_() if bias else None,
                "linear" if last else name,  # type: ignore[arg-type]
                1.0 if last else omega,
                ratio,
            )
        )
    return Mlp(tuple(layers))


def double(plan: Mlp) -> Mlp:
    return plan.holding([x.detach().double().requires_grad_() for x in plan.tensors()])


def points_of(plan: Mlp, count: int, common: bool = True) -> Tensor:
    lead = () if plan.networks is None or common else (plan.networks,)
    generator = torch.Generator().manual_seed(count)
    return torch.rand(*lead, count, plan.in_features, generator=generator) * 2 - 1


def off(found: Tensor, true: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    assert found.shape == true.shape
    assert found.dtype == torch.float32
    if true.numel() == 0:
        return 0.0
    true = true.detach()
    largest = max(float(true.abs().max()), 1e-30)
    return float((found.detach().double() - true).abs().max()) / largest


def largest_error(plan: Mlp, points: Tensor) -> float:
    """Of the values, the loss, and the gradients by everything, in both functions."""
    twin, exact = double(plan), points.double().requires_grad_()
    points = points.clone().requires_grad_()
    values, true = cpp_mlp.mlp(plan, points), reference.mlp(twin, exact)
    up = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    found = gradient(values, [points, *plan.tensors()], up)
    right = gradient(true, [exact, *twin.tensors()], up.double())
    loss = cpp_mlp.mlp_error(plan, points.detach(), up)
    true_loss = reference.mlp_error(twin, exact.detach(), up.double())
    with torch.no_grad():
        alone = cpp_mlp.mlp(plan, points)
    return max(
        off(values, true),
        off(alone, true),
        off(loss, true_loss),
        *map(off, found, right),
        # scaled as by a mean, which the saved gradient must be as well
        *map(
            off,
            gradient(loss / 7, plan.tensors()),
            gradient(true_loss / 7, twin.tensors()),
        ),
    )


# ---- values and gradients ----


@pytest.mark.parametrize("name", cpp_mlp.NAMES)
def test_every_activation_is_that_of_the_twin(name: str) -> None:
    # widths that are no whole vectors, and for wire an odd number of pairs
    for sizes, bias in (([2, 44, 38, 3], True), ([17, 34, 70, 5], False)):
        plan = network(name, sizes, bias=bias)
        assert largest_error(plan, points_of(plan, 300)) < TOLERANCE


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(cpp_mlp.NAMES)),
    inputs=st.sampled_from([1, 2, 3, 4, 5, 16, 33, 130]),
    pairs=st.lists(st.integers(1, 50), max_size=4),
    outputs=st.sampled_from([1, 2, 3, 4, 5, 16, 40]),
    bias=st.booleans(),
    count=st.sampled_from([0, 1, 2, 11, 12, 13, 95, 96, 97, 131, 132, 133, 600]),
    networks=st.sampled_from([None, None, 1, 2, 5]),
    common=st.booleans(),
    threads=st.integers(1, 5),
)
def test_any_shape_is_right(
    name: str,
    inputs: int,
    pairs: list[int],
    outputs: int,
    bias: bool,
    count: int,
    networks: int | None,
    common: bool,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    sizes = [inputs, *(2 * n for n in pairs), outputs]
    plan = network(name, sizes, bias=bias, networks=networks, omega=3.0)
    assert largest_error(plan, points_of(plan, count, common)) < TOLERANCE


def test_a_siren_of_many_points_has_a_gradient_as_good_as_float32_allows() -> None:
    plan = network("sine", [2, 64, 64, 64, 3])
    assert largest_error(plan, points_of(plan, 65536)) < TOLERANCE


@pytest.mark.slow
def test_a_wide_and_deep_siren_of_many_points_as_well() -> None:
    plan = network("sine", [2, 256, 256, 256, 256, 3])
    assert largest_error(plan, points_of(plan, 65536)) < TOLERANCE


def test_a_fitted_network_has_as_good_a_gradient_as_plain_torch_has() -> None:
    # residuals cancel where a fit has converged: what is left is smaller than its parts
    plan = network("sine", [2, 32, 32, 1])
    points = points_of(plan, 4096)
    targets = torch.sin(9 * points[:, :1]) * points[:, 1:]
    adam = torch.optim.Adam(plan.tensors(), lr=2e-3)
    for _ in range(400):
        adam.zero_grad()
        (cpp_mlp.mlp_error(plan, points, targets) / 4096).backward()
        adam.step()
    error = cpp_mlp.mlp_error(plan, points, targets)
    assert error.item() / 4096 < 1e-4  # it has learned from these gradients
    twin = double(plan)
    right = gradient(reference.mlp_error(twin, points.double(), targets.double()), twin.tensors())
    plain = gradient(reference.mlp_error(plan, points, targets), plan.tensors())
    found = gradient(error, plan.tensors())
    worst = max(map(off, plain, right))
    assert max(map(off, found, right)) < max(2 * worst, TOLERANCE)


@pytest.mark.parametrize("name", [n for n in SMALL if n in ("relu-pe", "rff", "gauss", "siren")])
def test_a_field_computed_by_its_plan_is_the_field(name: str) -> None:
    check_field(name, {})


@pytest.mark.parametrize("damping", ["sqrt", "arctan", "log"])
def test_spder_computed_by_its_plan_is_the_field(damping: str) -> None:
    check_field("spder", {"damping": damping})


@pytest.mark.parametrize("variant", ["clean", "official"])
def test_finer_computed_by_its_plan_is_the_field(variant: str) -> None:
    check_field("finer", {"variant": variant})


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_wire_computed_by_its_plan_is_the_field(hidden_layers: int) -> None:
    check_field("wire", {"hidden_layers": hidden_layers})


def check_field(name: str, more: dict) -> None:
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, **{**SMALL[name], **more})
    coords = torch.rand(200, 2) * 2 - 1
    plan = field.plan()
    assert isinstance(plan, Mlp)
    exact = copy.deepcopy(field).double()
    up = torch.randn(200, 3)
    found = with_gradients(field, field.finish(cpp_mlp.mlp(plan, field.encode(coords))), up)
    plain = with_gradients(field, field(coords), up)
    true = with_gradients(exact, exact(coords.double()), up.double())
    for a, b, c in zip(found, true, plain, strict=True):
        # a phase of some hundred radians has but four digits after the point, in torch as here
        assert off(a, b) < max(TOLERANCE, 3 * off(c, b))


def with_gradients(field: Field, values: Tensor, up: Tensor) -> list[Tensor]:
    """Values, and a gradient for each parameter."""
    return [values, *gradient(values, list(field.parameters()), up)]


# ---- differentiation ----


@pytest.mark.parametrize("name", ["sine", "gelu", "wire", "spder-log", "finer-official"])
def test_second_derivatives_are_those_of_the_twin(name: str) -> None:
    plan = network(name, [2, 14, 12, 2], omega=2.0)
    twin = double(plan)
    points = points_of(plan, 40).requires_grad_()
    exact = points.detach().double().requires_grad_()
    found, right = [], []
    for values, by, tensors, to in (
        (cpp_mlp.mlp(plan, points), points, plan.tensors(), found),
        (reference.mlp(twin, exact), exact, twin.tensors(), right),
    ):
        (slope,) = gradient(values.sum(), by, create_graph=True)
        to += gradient(slope.square().sum(), [by, *tensors], allow_unused=True)
    for a, b in zip(found, right, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert off(a, b) < TOLERANCE


def test_the_error_can_be_differentiated_twice() -> None:
    plan = network("sine", [2, 14, 12, 2], omega=2.0)
    twin = double(plan)
    points, targets = points_of(plan, 40), torch.zeros(40, 2)
    found = gradient(cpp_mlp.mlp_error(plan, points, targets), plan.tensors(), create_graph=True)
    right = gradient(
        reference.mlp_error(twin, points.double(), targets.double()),
        twin.tensors(),
        create_graph=True,
    )
    found = gradient(sum(g.square().sum() for g in found), plan.tensors())
    right = gradient(sum(g.square().sum() for g in right), twin.tensors())
    assert max(map(off, found, right)) < TOLERANCE


def test_only_what_wants_a_gradient_gets_one() -> None:
    plan = network("sine", [2, 20, 20, 3])
    twin = double(plan)
    points = points_of(plan, 50)
    for which in ([0], [3], [4, 5], []):
        for x in (*plan.tensors(), *twin.tensors()):
            x.requires_grad_(False)
        some = [plan.tensors()[i].requires_grad_() for i in which]
        same = [twin.tensors()[i].requires_grad_() for i in which]
        if which:
            error = cpp_mlp.mlp_error(plan, points, torch.ones(50, 3))
            exact = reference.mlp_error(twin, points.double(), torch.ones(50, 3).double())
            assert max(map(off, gradient(error, some), gradient(exact, same))) < TOLERANCE
        else:
            assert not cpp_mlp.mlp_error(plan, points, torch.ones(50, 3)).requires_grad
        moving = points.clone().requires_grad_()
        exactly = points.double().requires_grad_()
        found = gradient(cpp_mlp.mlp(plan, moving).sum(), [moving, *some])
        right = gradient(reference.mlp(twin, exactly).sum(), [exactly, *same])
        assert max(map(off, found, right)) < TOLERANCE


def test_views_expanded_tensors_and_any_leading_shape_are_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 20, generator=generator).requires_grad_()
    one = torch.randn(1, generator=generator).requires_grad_()
    last = torch.randn(3, 40, generator=generator).requires_grad_()
    points = torch.rand(5, 7, 2, generator=generator).transpose(0, 1)

    def values(module, dtype: torch.dtype) -> Tensor:
        hidden = Layer(base.to(dtype).T, one.to(dtype).expand(20), "gauss")
        out = Layer(last.to(dtype)[:, ::2], None)
        return module.mlp(Mlp((hidden, out)), points.to(dtype))

    found, true = values(cpp_mlp, torch.float32), values(reference, torch.float64)
    assert found.shape == (7, 5, 3)
    assert off(found, true) < TOLERANCE
    for a, b in zip(
        gradient(found.square().sum(), [base, one, last]),
        gradient(true.square().sum(), [base, one, last]),
        strict=True,
    ):
        assert off(a, b.double()) < TOLERANCE


def test_gradients_can_be_asked_for_again() -> None:
    plan = network("sine", [2, 20, 3])
    error = cpp_mlp.mlp_error(plan, points_of(plan, 30), torch.ones(30, 3))
    once = gradient(error, plan.tensors(), retain_graph=True)
    assert all(map(torch.equal, once, gradient(error, plan.tensors())))


# ---- threads ----


def everything(plan: Mlp, points: Tensor) -> list[Tensor]:
    points = points.clone().requires_grad_()
    values = cpp_mlp.mlp(plan, points)
    error = cpp_mlp.mlp_error(plan, points.detach(), torch.ones_like(values))
    return [
        values.detach(),
        error.detach(),
        *gradient(values.square().sum(), [points, *plan.tensors()]),
        *gradient(error, plan.tensors()),
    ]


@pytest.mark.parametrize("networks", [None, 3])
def test_a_number_of_threads_always_gives_the_same_bits(networks: int | None) -> None:
    plan = network("sine", [2, 48, 48, 3], networks=networks)
    points = points_of(plan, 5000)
    by_count = {}
    for count in (1, 2, 7):
        torch.set_num_threads(count)
        by_count[count] = everything(plan, points)
        assert all(map(torch.equal, by_count[count], everything(plan, points)))
    for count in (2, 7):
        for a, b in zip(by_count[count], by_count[1], strict=True):
            assert off(a, b.double()) < 1e-5
        # they do share the work, which the order of sums tells
        assert not all(map(torch.equal, by_count[count], by_count[1]))


def test_calls_at_the_same_time_do_not_disturb_each_other() -> None:
    plans = [network("sine", [2, 40, 40, 3], seed=i) for i in range(4)]
    points = points_of(plans[0], 3000)
    alone = [everything(plan, points) for plan in plans]
    found: dict[int, list[Tensor]] = {}

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = everything(plans[i], points)

    torch.set_num_threads(1)
    running = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for i in range(4):
        assert all(map(torch.equal, alone[i], found[i]))


# ---- numbers out of the ordinary ----


@pytest.mark.parametrize("name", cpp_mlp.NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_shows_at_its_point_and_nowhere_else(name: str, bad: float) -> None:
    plan = network(name, [2, 20, 20, 3])
    points = points_of(plan, 100)
    clean = cpp_mlp.mlp(plan, points).detach()
    points[37, 0] = bad
    values = cpp_mlp.mlp(plan, points).detach()
    with torch.no_grad():
        true = reference.mlp(plan, points)
    assert torch.equal(values.isnan(), true.isnan())
    others = torch.arange(100) != 37
    assert torch.equal(values[others], clean[others])
    if true[37].isnan().any():
        error = cpp_mlp.mlp_error(plan, points, torch.zeros(100, 3))
        assert error.isnan()
        assert any(g.isnan().any() for g in gradient(error, plan.tensors()))


def test_a_weight_that_is_no_number_shows() -> None:
    plan = network("sine", [2, 20, 20, 3])
    with torch.no_grad():
        plan.layers[1].weight[3, 4] = math.nan
    assert cpp_mlp.mlp(plan, points_of(plan, 10)).isnan().all()


@pytest.mark.parametrize("name", ["sine", "spder-arctan", "spder-log"])
def test_large_phases_are_reduced_exactly(name: str) -> None:
    # one unit whose phase is the point itself, so that no rounding comes before the sine
    phases = torch.tensor([1e3, 12345.678, 1e5, 999999.0, 1.1e6, 1e8, 3e20, -7e4, -1e30])[:, None]
    plan = Mlp((Layer(torch.ones(1, 1), None, name), Layer(torch.ones(1, 1), None)))
    twin = Mlp(
        (Layer(torch.ones(1, 1).double(), None, name), Layer(torch.ones(1, 1).double(), None))
    )
    exact = phases.double().requires_grad_()
    phases.requires_grad_()
    found, true = cpp_mlp.mlp(plan, phases), reference.mlp(twin, exact)
    slopes, right = gradient(found.sum(), phases)[0], gradient(true.sum(), exact)[0]
    scale = 1 if name == "sine" else phases.detach().abs().log1p()
    assert float(((found - true) / scale).detach().abs().max()) < 5e-7
    assert float(((slopes - right) / scale).abs().max()) < 5e-7


def test_a_gaussian_far_out_is_nothing_and_erf_is_exact_at_both_ends() -> None:
    u = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-300.0, 300.0])])[:, None]
    for name in ("gauss", "gelu"):
        plan = Mlp((Layer(torch.ones(1, 1), None, name), Layer(torch.ones(1, 1), None)))
        true = reference.activate(u.double(), plan.layers[0])
        assert float((cpp_mlp.mlp(plan, u) - true).abs().max()) < 1e-6


def test_no_points_have_no_values_no_error_and_gradients_of_zero() -> None:
    plan = network("sine", [2, 20, 3])
    assert cpp_mlp.mlp(plan, torch.empty(0, 2)).shape == (0, 3)
    error = cpp_mlp.mlp_error(plan, torch.empty(0, 2), torch.empty(0, 3))
    assert error == 0
    assert all(not g.any() for g in gradient(error, plan.tensors()))


# ---- refusals ----


def test_what_it_cannot_do_it_says() -> None:
    plan = network("sine", [2, 20, 3])
    points = points_of(plan, 10)
    with pytest.raises(ValueError, match=r"weight 0: torch.float64"):
        cpp_mlp.mlp(double(plan), points.double())
    with pytest.raises(ValueError, match=r"points: torch.float64"):
        cpp_mlp.mlp(plan, points.double())
    with pytest.raises(ValueError, match=r"shape \(10, 3\), the network takes 2"):
        cpp_mlp.mlp(plan, torch.rand(10, 3))
    with pytest.raises(ValueError, match=r"targets have shape \(9, 3\)"):
        cpp_mlp.mlp_error(plan, points, torch.rand(9, 3))
    with pytest.raises(ValueError, match="no gradients by points"):
        cpp_mlp.mlp_error(plan, points.requires_grad_(), torch.rand(10, 3))
    with pytest.raises(ValueError, match="not linear but sine"):
        cpp_mlp.mlp(Mlp(plan.layers[:1]), points)
    with pytest.raises(ValueError, match=r"layer 1: weight \(3, 20\) and bias \(2,\)"):
        last = Layer(plan.layers[1].weight, torch.zeros(2))
        cpp_mlp.mlp(Mlp((plan.layers[0], last)), points)
    with pytest.raises(ValueError, match="wire takes pairs, not 3 units"):
        odd = Layer(torch.zeros(3, 2), None, "wire")
        cpp_mlp.mlp(Mlp((odd, Layer(torch.zeros(1, 3), None))), points)
    many = network("sine", [2, 20, 3], networks=4)
    with pytest.raises(ValueError, match="there are 4"):
        cpp_mlp.mlp(many, torch.rand(3, 10, 2))


# ---- other instruction sets ----


def built_for(instructions: str, folder: Path):
    """The kernel for another processor than this one, or a skip where this one cannot run it."""
    if instructions == "x86-64-v3" and "AVX" not in build.instruction_set():
        pytest.skip(f"AVX2 does not run on {build.instruction_set()}")
    if build.platform.machine() != "x86_64":
        pytest.skip("for x86-64")
    made = folder / f"{instructions}.so"
    source = str(build.SOURCES / "mlp.cpp")
    told = (build.compiler() or "").split(": ")[0]
    command = [told, *build.FLAGS, "-O1", f"-march={instructions}", "-shared", "-fPIC"]
    subprocess.run([*command, source, "-o", str(made)], check=True)
    function = ctypes.CDLL(str(made)).inr_mlp
    function.argtypes = cpp_mlp._function().argtypes
    function.restype = ctypes.c_int
    return function


@pytest.mark.parametrize(
    "instructions", ["x86-64-v3", pytest.param("x86-64", marks=pytest.mark.slow)]
)
def test_narrower_vectors_give_the_same(
    instructions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = built_for(instructions, tmp_path)
    monkeypatch.setattr(cpp_mlp, "_function", lambda: function)
    torch.set_num_threads(2)
    for name in cpp_mlp.NAMES:
        for sizes in ([2, 44, 38, 3], [17, 34, 8, 5]):
            plan = network(name, sizes)
            assert largest_error(plan, points_of(plan, 150)) < TOLERANCE
    plan = network("sine", [2, 16, 16, 1], networks=3)
    assert largest_error(plan, points_of(plan, 150, common=False)) < TOLERANCE
