"""tinycudann as a backend, held to the reference through a double of it.

The real package needs a GPU and was not run: these tests hold what we do to its documented formats.
"""

import builtins
import importlib
import importlib.util
import sys

import pytest
import torch
from torch import nn

import inr
from fields import Grid, ReluPe, Siren
from fields.base import Field
from fields.grid import centres
from fields.kernels import reference, tcnn
from fields.kernels.build import NoKernel
from fields.kernels.plan import GridPlan, Layer, Mlp
from inr.codec.encode import encode
from inr.signals.image import Image
from tests import fake_tinycudann

CACHES = (tcnn._network, tcnn._encoding, tcnn._positions)


@pytest.fixture
def fake(monkeypatch):
    """The double in place of the package, on the CPU."""
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann)
    monkeypatch.setattr(tcnn, "DEVICES", ("cpu",))
    for cache in CACHES:
        cache.cache_clear()
    yield fake_tinycudann
    for cache in CACHES:
        cache.cache_clear()


GRIDS = {
    "1d": (1, {"resolution": 50}),
    "1d, tiny": (1, {"resolution": 3}),
    "2d": (2, {"resolution": [13, 8]}),
    "2d, one row": (2, {"resolution": [1, 9]}),
    "2d, square": (2, {"resolution": 16, "features": 4}),
    "2d, one node": (2, {"resolution": 1}),
    "2d, hashed": (2, {"resolution": [31, 45], "log2_table": 6, "features": 2}),
    "2d, hashed row": (2, {"resolution": [1, 45], "log2_table": 4, "features": 2}),
    "3d": (3, {"resolution": [9, 14, 5], "features": 5}),
    "3d, hashed": (3, {"resolution": [19, 30, 7], "log2_table": 7, "features": 1}),
    "3d, very fine": (3, {"resolution": 2000, "levels": 2, "log2_table": 10}),  # indices overflow
    "4d, hashed": (4, {"resolution": [5, 4, 3, 6], "log2_table": 6}),
    "without MLP": (2, {"resolution": 7, "hidden_layers": 0}),
}


def make_grid(name: str) -> Grid:
    axes, more = GRIDS[name]
    torch.manual_seed(3)
    field = Grid(axes, 3, **{"levels": 4, **more})
    with torch.no_grad():
        for table in field.tables:
            table.uniform_(-1, 1)
    return field


def relative(mine: torch.Tensor, right: torch.Tensor) -> float:
    """Root mean square error, as a share."""
    return float((mine - right).detach().norm() / right.detach().norm().clamp_min(1e-12))


# what the double is


def test_the_double_has_tinycudanns_formats():
    # position x (n - 1) + 1/2, first coordinate fastest, features together
    dense = {"otype": "DenseGrid", "n_levels": 1, "n_features_per_level": 2, "base_resolution": 3}
    encoding = fake_tinycudann.Encoding(2, {**dense, "per_level_scale": 1.0}, dtype=torch.float32)
    assert encoding.params.shape == (16 * 2,)  # 9 nodes, rounded up to 8
    with torch.no_grad():
        encoding.params.copy_(torch.arange(32.0))
    node_2_1 = torch.tensor([[(2 - 0.5) / 2, (1 - 0.5) / 2]])
    assert encoding(node_2_1).tolist() == [[10.0, 11.0]]  # entry 2 + 3 * 1
    # without a scale per level it divides by zero, as the original does
    with pytest.raises((ValueError, OverflowError)):
        fake_tinycudann.Encoding(2, dense, dtype=torch.float32)

    network = fake_tinycudann.Network(
        2,
        1,
        {
            "otype": "FullyFusedMLP",
            "activation": "ReLU",
            "output_activation": "None",
            "n_neurons": 16,
            "n_hidden_layers": 1,
        },
    )
    assert network.params.shape == (16 * 16 + 16 * 16,)
    with torch.no_grad():
        network.params.zero_()
        network.params[1] = 2.0  # first unit, second input
        network.params[256] = 3.0  # first output, first unit
    values = network(torch.tensor([[9.0, 0.5], [9.0, -0.5]]))
    assert values.dtype == torch.float16
    assert values.tolist() == [[3.0], [0.0]]


# grids


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_the_references(fake, name):
    field = make_grid(name)
    plan = field.plan()
    # a little beyond the domain too, and the outermost nodes themselves
    points = torch.rand(600, field.in_features) * 2.2 - 1.1
    finest = torch.stack([centres(n)[[0, -1]].float() for n in plan.resolutions[-1]], dim=1)
    points = torch.cat([points, finest, torch.ones_like(finest), -torch.ones_like(finest)])
    points.requires_grad_()
    mine, right = tcnn.grid(plan, points), reference.grid(plan, points)
    # positions are rounded to 2^-24 of the resolution
    bound = 2e-5 + plan.resolutions[-1][0] * 2e-7
    assert relative(mine, right) < bound
    wanted = [points, *plan.tensors()]
    weight = torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    grads = [torch.autograd.grad(values, wanted, weight) for values in (mine, right)]
    for i, (found, expected) in enumerate(zip(*grads, strict=True)):
        assert relative(found, expected) < (3 if i else 20) * bound, i
    assert all(float(g.abs().max()) > 0 for g in grads[0][1:])


@pytest.mark.parametrize("name", ["1d", "2d", "2d, hashed", "3d"])
def test_lattices_and_errors_are_the_references(fake, name):
    field = make_grid(name)
    plan = field.plan()
    axes = [centres(n).float() for n in (9, 6, 5)[: field.in_features]]
    mine, right = tcnn.grid_on_lattice(plan, axes), reference.grid_on_lattice(plan, axes)
    assert mine.shape == right.shape
    assert relative(mine, right) < 2e-5
    targets = torch.linspace(-1, 1, right.numel()).reshape(right.shape)
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    wanted = plan.tensors()
    expected = reference.grid_error_on_lattice(plan, axes, targets)
    grads = torch.autograd.grad(3 * expected, wanted)
    for error in (
        tcnn.grid_error_on_lattice(plan, axes, targets),
        tcnn.grid_error(plan, points, targets.flatten(0, -2)),
    ):
        torch.testing.assert_close(error, expected, rtol=1e-5, atol=0)
        for found, right in zip(torch.autograd.grad(3 * error, wanted), grads, strict=True):
            assert relative(found, right) < 1e-4


def test_a_grid_is_one_call_of_levels_of_their_own(fake, monkeypatch):
    calls = []
    forward = fake.Module.forward

    def spy(self, x):
        calls.append(x.shape)
        return forward(self, x)

    monkeypatch.setattr(fake.Module, "forward", spy)
    field = make_grid("2d")
    points = torch.rand(10, 2)
    tcnn.grid(field.plan(), points)
    calls.clear()  # the first one also held it to the reference
    tcnn.grid(field.plan(), points)
    # 4 levels of 2 coordinates
    assert calls == [(10, 8)]
    assert tcnn._encoding.cache_info().currsize == 1
    encoding = tcnn._encoding(tcnn._Levels.of(field.plan()), torch.device("cpu"))
    assert encoding.params.numel() == 0  # no second copy of the tables


@pytest.mark.parametrize("name", GRIDS)
def test_tables_there_and_back(fake, name):
    field = make_grid(name)
    plan = field.plan()
    flat = tcnn.to_tcnn(plan)
    levels = tcnn._Levels.of(plan)
    theirs = fake.Encoding(levels.inputs, levels.config, dtype=torch.float32)
    assert flat.shape == theirs.params.shape
    back = tcnn.from_tcnn(flat, plan)
    assert len(back) == len(plan.tables)
    assert all(torch.equal(a, b) for a, b in zip(back, plan.tables, strict=True))
    # gradients go through it one to one
    grads = torch.autograd.grad(flat, plan.tables, torch.arange(1.0, len(flat) + 1))
    expected = tcnn.from_tcnn(torch.arange(1.0, len(flat) + 1), plan)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))


def test_whatever_tinycudann_has_learnt_comes_back(fake):
    # nothing is filled up here, so any vector of theirs is one of ours
    field = make_grid("2d, square")
    plan = GridPlan(
        tuple(field.tables)[1:],
        tuple(field.resolutions[1:]),
        Layer(nn.Parameter(torch.ones(3, 12)), None),
        None,
    )
    flat = torch.rand(tcnn.to_tcnn(plan).shape)
    tables = tcnn.from_tcnn(flat, plan)
    assert torch.equal(tcnn.to_tcnn(plan.holding([*tables, plan.linear.weight])), flat)


def test_no_points(fake):
    field = make_grid("2d")
    assert tcnn.grid(field.plan(), torch.zeros(0, 2)).shape == (0, 3)
    plan = make_network((8,))
    assert tcnn.mlp(plan, torch.zeros(0, 3)).shape == (0, 2)


# networks


def make_network(widths, inputs=3, outputs=2, biases=True, seed=0) -> Mlp:
    generator = torch.Generator().manual_seed(seed)
    sizes = [inputs, *widths, outputs]
    layers = []
    for i in range(len(sizes) - 1):
        bound = (6 / sizes[i]) ** 0.5
        weight = (torch.rand(sizes[i + 1], sizes[i], generator=generator) * 2 - 1) * bound
        has = biases if isinstance(biases, bool) else i in biases
        bias = torch.rand(sizes[i + 1], generator=generator) - 0.5 if has else None
        for tensor in (weight, bias):
            if tensor is not None:
                tensor.requires_grad_()
        layers.append(Layer(weight, bias, "relu" if i < len(widths) else "linear"))
    return Mlp(tuple(layers))


NETWORKS = {
    "without biases": {"widths": (16, 16), "biases": False},
    "one layer": {"widths": (64,)},
    "of a width that it has": {"widths": (32, 32)},
    "first bias only": {"widths": (20, 20), "biases": [0]},
    "last bias only": {"widths": (15, 15), "biases": [2]},
    "widths that differ": {"widths": (5, 40, 12)},
    "wide": {"widths": (128, 128)},
    "16 inputs": {"widths": (30,), "inputs": 16},
    "40 outputs": {"widths": (30,), "outputs": 40},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_references(fake, name):
    plan = make_network(**NETWORKS[name])
    points = torch.rand(7, 43, plan.in_features, generator=torch.Generator().manual_seed(1)) * 2 - 1
    points.requires_grad_()
    mine, right = tcnn.mlp(plan, points), reference.mlp(plan, points)
    assert mine.shape == right.shape
    assert mine.dtype == torch.float32
    # half precision, and nothing worse; were it exact, it would not have gone through the double
    assert 1e-6 < relative(mine, right) < 2e-3
    wanted = [points, *plan.tensors()]
    grads = [torch.autograd.grad(values, wanted, right.detach()) for values in (mine, right)]
    for i, (found, expected) in enumerate(zip(*grads, strict=True)):
        # a unit that rounding switches matters to a point more than to a sum over points
        assert relative(found, expected) < (0.02 if i else 0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_matrices_there_and_back(fake, name):
    plan = make_network(**NETWORKS[name])
    flat = tcnn.to_tcnn(plan)
    shape = tcnn._NetworkShape.of(plan)
    assert flat.shape == fake.Network(shape.inputs, shape.outputs, shape.config).params.shape
    back = tcnn.from_tcnn(flat, plan)
    assert all(torch.equal(a, b) for a, b in zip(back, plan.tensors(), strict=True))


@pytest.mark.parametrize(
    ("width", "biases", "built"),
    [
        (16, False, ("FullyFusedMLP", 16)),
        (16, True, ("FullyFusedMLP", 32)),
        (127, True, ("FullyFusedMLP", 128)),
        (128, True, ("CutlassMLP", 144)),
        (256, False, ("CutlassMLP", 256)),
        (100, False, ("FullyFusedMLP", 128)),
    ],
)
def test_which_network_is_built(fake, width, biases, built):
    config = tcnn._NetworkShape.of(make_network((width,), biases=biases)).config
    assert (config["otype"], config["n_neurons"]) == built


@pytest.mark.parametrize("factor", [1e-9, 3e-7, 1.0, 1e5])
def test_gradients_neither_vanish_nor_overflow_in_half_precision(fake, factor):
    # a mean over 3,000,000 values makes gradients of 3e-7, a sum over a batch of 1e5
    plan = make_network((16, 16))
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    targets = torch.zeros(2000, 2)
    grads = [
        torch.autograd.grad(factor * error(plan, points, targets), plan.tensors())
        for error in (tcnn.mlp_error, reference.mlp_error)
    ]
    for found, expected in zip(*grads, strict=True):
        assert relative(found, expected) < 0.01


def test_a_network_that_is_right_has_gradients_of_zero(fake):
    plan = make_network((16,), biases=False)
    points = torch.rand(50, 3)
    targets = tcnn.mlp(plan, points).detach()
    grads = torch.autograd.grad(tcnn.mlp_error(plan, points, targets), plan.tensors())
    assert all(float(g.abs().max()) == 0 for g in grads)


# both


def test_second_derivatives_are_the_references(fake):
    # the package leaves them out without a word where parameters are concerned
    grid = make_grid("2d").plan()
    network = make_network((16,))
    for plan, mine, right, size in (
        (grid, tcnn.grid, reference.grid, 2),
        (network, tcnn.mlp, reference.mlp, 3),
    ):
        points = torch.rand(40, size).requires_grad_()
        found = []
        for function in (mine, right):
            values = function(plan, points)
            (slope,) = torch.autograd.grad(values.square().sum(), points, create_graph=True)
            found.append(torch.autograd.grad(slope.square().sum(), plan.tensors()))
        for a, b in zip(*found, strict=True):
            assert relative(a, b) < 0.01
            assert float(b.abs().max()) > 0


def test_backward_twice_through_one_graph(fake):
    plan = make_grid("2d").plan()
    points = torch.rand(20, 2).requires_grad_()
    values = tcnn.grid(plan, points).sum()
    first = torch.autograd.grad(values, [points, *plan.tables], retain_graph=True)
    second = torch.autograd.grad(values, [points, *plan.tables])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_what_is_asked_for_gets_a_gradient(fake):
    field = make_grid("2d")
    field.tables[1].requires_grad_(False)
    plan = field.plan()
    tcnn.grid(plan, torch.rand(20, 2)).sum().backward()
    assert field.tables[1].grad is None
    assert float(field.tables[2].grad.abs().sum()) > 0
    with torch.no_grad():
        assert not tcnn.grid(plan, torch.rand(20, 2)).requires_grad


def test_drawing_first_and_fitting_then(fake):
    # what is built in inference mode would be of no use to a fit
    field, points = make_grid("2d"), torch.rand(20, 2)
    network = make_network((16,))
    with torch.inference_mode():
        tcnn.grid(field.plan(), points)
        tcnn.mlp(network, torch.rand(20, 3))
    tcnn.grid(field.plan(), points).sum().backward()
    tcnn.mlp(network, torch.rand(20, 3)).sum().backward()
    assert float(field.tables[0].grad.abs().sum()) > 0


def test_torchs_random_numbers_stay_as_they_are(fake):
    field = make_grid("2d")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tcnn.prepare(field.plan(), "cpu")
    tcnn.prepare(make_network((16,)), "cpu")
    assert torch.equal(torch.rand(3), expected)


# refusals


def sine() -> Mlp:
    return Siren(2, 1, hidden_features=16).plan()


def of_grid(axes: int, **more) -> GridPlan:
    return Grid(axes, 1, **more).plan()


def changed(**more) -> Mlp:
    plan = make_network((16,))
    first = Layer(plan.layers[0].weight, None, **more)
    return Mlp((first, plan.layers[1]))


REFUSED = {
    "layer 0 has activation sine": sine,
    "layer 0 has activation gelu": lambda: changed(activation="gelu"),
    "layer 0 has omega 2": lambda: changed(activation="relu", omega=2.0),
    "no hidden layer": lambda: Mlp(make_network((16,)).layers[1:]),
    "5 networks at once": lambda: Mlp(
        tuple(
            Layer(torch.zeros(5, 4, 4), None, name)
            for name in ("relu", "linear")  #
        )
    ),
    "parameters are float64": lambda: ReluPe(2, 1, hidden_features=16).double().plan(),
    "5 coordinates": lambda: of_grid(5, resolution=3, levels=1),
    "9 features": lambda: of_grid(2, resolution=3, levels=1, features=9),
    "resolution 1 x 3000 x 4: tinycudann's dense levels end at 1625": lambda: of_grid(
        3, resolution=[1, 3000, 4], levels=1
    ),
    "resolution 4 x 4 x 200: tinycudann has one resolution for all axes": lambda: of_grid(
        3, resolution=[4, 4, 200], levels=1
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_by_name(fake, reason):
    plan = REFUSED[reason]()
    told = tcnn.refusal(plan)
    assert told is not None
    assert told.startswith(reason) or reason in told
    assert "\n" not in told
    function = tcnn.grid if isinstance(plan, GridPlan) else tcnn.mlp
    with pytest.raises(NoKernel, match=reason.partition(":")[0]):
        function(plan, torch.zeros(4, plan.in_features))
    with pytest.raises(NoKernel):
        tcnn.to_tcnn(plan)
    with pytest.raises(NoKernel):
        tcnn.prepare(plan, "cpu")


def test_no_refusal_of_what_it_can(fake):
    assert tcnn.refusal(ReluPe(2, 3).plan()) is None
    assert tcnn.refusal(make_network((16,))) is None
    for name in GRIDS:
        assert tcnn.refusal(make_grid(name).plan()) is None, name
    # a photograph is filled up, by a third
    assert tcnn.refusal(Grid(2, 3, resolution=[384, 512]).plan()) is None


def test_points_elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann)
    with pytest.raises(NoKernel, match="points are on cpu: tinycudann computes on CUDA"):
        tcnn.grid(make_grid("2d").plan(), torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("no", name="tinycudann"), "not installed: see docs/CUDA.md"),
        (ModuleNotFoundError("no", name="commentjson"), "needs commentjson"),
        (ImportError("_90_C.so: undefined symbol: _ZN3c10"), "another torch.*undefined symbol"),
        (OSError("Unknown compute capability."), "torch sees no CUDA device"),
    ],
)
def test_where_it_is_not_to_be_had(monkeypatch, error, told):
    original = importlib.import_module

    def fail(name, *more):
        if name == "tinycudann":
            raise error
        return original(name, *more)

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tcnn, "DEVICES", ("cpu",))
    for cache in CACHES:
        cache.cache_clear()
    plan = make_grid("2d").plan()
    with pytest.raises(NoKernel, match=told) as refused:
        tcnn.version()
    assert tcnn.refusal(plan) == str(refused.value)
    with pytest.raises(NoKernel, match=told):
        tcnn.grid(plan, torch.zeros(4, 2))


def test_built_for_another_gpu(monkeypatch):
    def fail(name):
        raise OSError("Could not find compatible tinycudann extension for compute capability 90.")

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(NoKernel, match="set TCNN_CUDA_ARCHITECTURES .*capability 90"):
        tcnn.module()


def test_here_it_is_not_installed():
    # nothing imports it by itself
    if importlib.util.find_spec("tinycudann") is not None:
        pytest.skip("tinycudann is installed here")
    assert "tinycudann" not in sys.modules
    assert tcnn.refusal(make_grid("2d").plan()) == "tinycudann is not installed: see docs/CUDA.md"


def test_a_package_that_computes_something_else_is_refused(fake, monkeypatch):
    # were its formats ever to change: another order of nodes, of matrices, another count
    index = fake.Grid.index
    monkeypatch.setattr(fake.Grid, "index", lambda self, corner, k: index(self, corner[::-1], k))
    with pytest.raises(NoKernel, match="computes something else: values differ by"):
        tcnn.grid(make_grid("2d").plan(), torch.zeros(4, 2))
    monkeypatch.setattr(fake.Grid, "index", index)

    compute = fake.Network.compute
    monkeypatch.setattr(
        fake.Network, "compute", lambda self, x, params: compute(self, x, params.flip(0))
    )
    with pytest.raises(NoKernel, match="computes something else"):
        tcnn.mlp(make_network((16,)), torch.zeros(4, 3))
    monkeypatch.setattr(fake.Network, "compute", compute)

    monkeypatch.setattr(fake, "up", lambda number, step: number)
    with pytest.raises(NoKernel, match=r"wants \d+ parameters where \d+ were expected"):
        tcnn.grid(make_grid("2d").plan(), torch.zeros(4, 2))


def test_gradients_that_are_wrong_are_seen_too(fake, monkeypatch):
    backward = fake.Native.backward

    def wrong(ctx, doutput):
        nothing, dx, dparams, nor = backward(ctx, doutput)
        return nothing, dx, None if dparams is None else dparams / 128, nor

    monkeypatch.setattr(fake.Native, "backward", staticmethod(wrong))
    with pytest.raises(NoKernel, match="gradients differ by 99"):
        tcnn.grid(make_grid("2d").plan(), torch.zeros(4, 2))


def test_what_it_will_not_build_is_told(fake, monkeypatch):
    def refuse(*args, **more):
        raise RuntimeError("Cannot create `Network`\nbecause")

    monkeypatch.setattr(fake, "Network", refuse)
    with pytest.raises(NoKernel, match="tinycudann refuses: Cannot create `Network`$"):
        tcnn.mlp(make_network((16,)), torch.zeros(4, 3))


# files


def fitted(field: Field, image: Image, error) -> float:
    """Some steps of Adam, then the mean squared error by plain torch."""
    axes = [centres(n).float() for n in image.domain.shape]
    values = image.statistics().samples
    optimiser = torch.optim.Adam(field.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        (error(field.plan(), axes, values) / values.numel()).backward()
        optimiser.step()
    with torch.no_grad():
        return float((field.on_grid(axes) - values).square().mean())


def test_a_file_fitted_through_it_decodes_without_it(fake, patch, monkeypatch):
    image = Image.from_array(patch)
    losses = {}
    for name, kernels in (("tinycudann", tcnn), ("eager", reference)):
        torch.manual_seed(0)
        field = Grid(2, 3, resolution=list(image.domain.shape), levels=4)
        losses[name] = fitted(field, image, kernels.grid_error_on_lattice)
        if name == "tinycudann":
            field.domain = image.domain
            field.engine = None
            drawn = field.on_grid([centres(n).float() for n in image.domain.shape]).detach()
            content = encode(field)
    assert losses["tinycudann"] == pytest.approx(losses["eager"], rel=0.02)
    assert losses["tinycudann"] < 0.02  # it has learnt something

    # from here on there is no such package
    monkeypatch.delitem(sys.modules, "tinycudann")
    original = builtins.__import__

    def without(name, *more):
        assert not name.startswith("tinycudann")
        return original(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    decoded = inr.decode(content)
    shown = decoded.on_grid([centres(n).float() for n in image.domain.shape]).detach()
    assert float((shown - drawn).square().mean()) < 1e-4  # the file's own quantisation
