"""A fused step does what a plain loop of torch does; a stack of fields is trained as each alone."""

import contextlib
import copy
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fields import Bacon, Finr, Gauss, Grid, Rff, Siren, Wire
from fields.base import Field
from fields.kernels import reference
from fields.kernels.step import FusedStep, Stack

POINTS = 96


def data(out: int = 3, networks: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    coords = torch.rand(POINTS, 2, generator=generator) * 2 - 1
    return coords, torch.randn(*networks, POINTS, out, generator=generator)


def plain(field: Field, coords: Tensor, targets: Tensor, rates: list[float]) -> list[float]:
    """The textbook loop, with the field's own factors on the learning rate."""
    groups = [{"params": p, "scale": scale} for p, scale in field.learning_rates()]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-9)
    losses = []
    for rate in rates:
        for group in adam.param_groups:
            group["lr"] = rate * group["scale"]
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(field(coords), targets)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def close(mine: Field, theirs: Field, bound: float) -> None:
    for (name, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert (a - b).abs().max() <= bound * b.abs().max(), name


def make(kind: str) -> Field:
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "siren": lambda: Siren(2, 3, hidden_features=16, hidden_layers=2),
        "wire": lambda: Wire(2, 3, hidden_features=8, hidden_layers=2),
        "rff": lambda: Rff(2, 3, hidden_features=16),
        "grid": lambda: Grid(2, 3, resolution=16, levels=3),
    }
    return fields[kind]()


@pytest.mark.parametrize("kind", ["siren", "wire", "rff", "grid"])
def test_steps_are_those_of_a_plain_loop(kind: str) -> None:
    mine = make(kind)
    theirs = copy.deepcopy(mine)
    coords, targets = data()
    rates = [1e-3] * 6 + [2e-4] * 6
    step = FusedStep(mine, lr=rates[0], betas=(0.9, 0.99), eps=1e-9)
    losses = []
    for rate in rates:
        step.lr = rate
        losses.append(step(coords, targets).item())
    assert losses == pytest.approx(plain(theirs, coords, targets, rates), rel=1e-5)
    close(mine, theirs, 1e-4)
    assert losses[-1] < losses[0]


def test_a_rate_of_zero_moves_nothing() -> None:
    mine = make("siren")
    before = copy.deepcopy(mine)
    step = FusedStep(mine, lr=0.0)
    step(*data())
    close(mine, before, 0.0)
    step.lr = 1e-3
    step(*data())
    with pytest.raises(AssertionError):
        close(mine, before, 0.0)


def test_a_lattice_is_its_points() -> None:
    axes = [torch.linspace(-1, 1, 7), torch.linspace(-0.9, 0.9, 5)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    targets = torch.randn(7, 5, 3)
    mine, theirs = make("grid"), make("grid")
    on_lattice, scattered = FusedStep(mine, lr=1e-2), FusedStep(theirs, lr=1e-2)
    for _ in range(4):
        a = on_lattice(axes, targets)
        b = scattered(coords, targets.reshape(-1, 3))
        assert a.item() == pytest.approx(b.item(), rel=1e-5)
    close(mine, theirs, 1e-3)


def test_it_computes_by_the_kernels_it_is_given() -> None:
    asked: list[Any] = []

    def mlp_error(plan: Any, points: Tensor, targets: Tensor, precision: str = "fp16") -> Tensor:
        asked.append(precision)
        return 4 * reference.mlp_error(plan, points, targets)

    kernels = SimpleNamespace(mlp_error=mlp_error)
    coords, targets = data()
    with_it = FusedStep(make("siren"), kernels=kernels, precision="tf32")(coords, targets)
    without = FusedStep(make("siren"))(coords, targets)
    assert asked == ["tf32"]
    assert with_it.item() == pytest.approx(4 * without.item(), rel=1e-6)


def test_values_that_are_finished_in_torch() -> None:
    class Doubled(Siren):
        def finish(self, values: Tensor) -> Tensor:
            return 2 * values

    torch.manual_seed(0)
    field = Doubled(2, 3, hidden_features=16, hidden_layers=1)
    coords, targets = data()
    wanted = (2 * field(coords) - targets).square().mean().item()
    assert FusedStep(field)(coords, targets).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kind", ["siren", "gauss", "wire"])
def test_a_stack_is_trained_as_each_alone(kind: str) -> None:
    torch.manual_seed(0)
    classes = {"siren": Siren, "gauss": Gauss, "wire": Wire}
    fields = [classes[kind](2, 3, hidden_features=8, hidden_layers=2) for _ in range(4)]
    alone = copy.deepcopy(fields)
    coords, targets = data(networks=(4,))
    stack = Stack(fields)
    assert stack.networks == 4
    step = FusedStep(stack, lr=1e-3, betas=(0.9, 0.99), eps=1e-9)
    losses = [step(coords, targets).item() for _ in range(8)]
    theirs = [plain(f, coords, t, [1e-3] * 8) for f, t in zip(alone, targets, strict=True)]
    assert losses == pytest.approx([sum(x) for x in zip(*theirs, strict=True)], rel=1e-5)
    values = stack(coords)
    trained = stack.unstack()
    for i, (field, other) in enumerate(zip(trained, alone, strict=True)):
        close(field, other, 1e-3)
        assert torch.allclose(values[i], field(coords), atol=1e-5)


def test_a_stack_takes_points_of_their_own() -> None:
    torch.manual_seed(0)
    fields = [Siren(2, 1, hidden_features=8, hidden_layers=1) for _ in range(3)]
    coords = torch.rand(3, POINTS, 2) * 2 - 1
    targets = torch.randn(3, POINTS, 1)
    wanted = sum(
        (f(x) - t).square().mean().item() for f, x, t in zip(fields, coords, targets, strict=True)
    )
    assert FusedStep(Stack(fields))(coords, targets).item() == pytest.approx(wanted, rel=1e-5)


def test_a_stack_comes_back_as_it_was() -> None:
    torch.manual_seed(0)
    fields = [Siren(2, 3, hidden_features=8, hidden_layers=1) for _ in range(3)]
    before = copy.deepcopy(fields)
    stack = Stack(fields)
    with torch.no_grad():
        for field in fields:
            for parameter in field.parameters():
                parameter.zero_()
    for mine, theirs in zip(stack.unstack(), before, strict=True):
        close(mine, theirs, 0.0)


def test_what_is_refused() -> None:
    coords, targets = data()
    step = FusedStep(make("siren"))
    for bad, message in [
        ((coords[:, :1], targets), "coords have shape"),
        ((coords[None], targets), "coords have shape"),
        ((coords, targets[:5]), "targets have shape"),
        ((coords.double(), targets), "coords are torch.float64"),
        ((coords, targets.clone().requires_grad_()), "targets want a gradient"),
        (((coords[:, 0], coords[:, 1]), targets), "axes are given"),
        ((coords[:0], targets[:0]), "targets have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            step(*bad)
    with pytest.raises(ValueError, match="lr is -1"):
        step.lr = -1.0
    with pytest.raises(ValueError, match="lr is nan"):
        FusedStep(make("siren"), lr=float("nan"))
    with pytest.raises(ValueError, match="give float32"):
        FusedStep(make("siren").double())
    with pytest.raises(ValueError, match="more than a chain of matrices"):
        FusedStep(Finr(2, 3))
    with pytest.raises(ValueError, match="several outputs"):
        FusedStep(Bacon(2, 3))
    with pytest.raises(ValueError, match="grids have none"):
        FusedStep(make("grid"), precision="tf32")
    frozen = make("siren")
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        FusedStep(frozen)


def test_what_a_stack_refuses() -> None:
    with pytest.raises(ValueError, match="no field"):
        Stack([])
    with pytest.raises(ValueError, match="field 1 is not of the kind"):
        Stack([make("siren"), Siren(2, 3, hidden_features=17, hidden_layers=2)])
    with pytest.raises(ValueError, match="field 1 is not of the kind"):
        Stack([make("siren"), make("wire")])
    with pytest.raises(ValueError, match="no form for many"):
        Stack([make("grid"), make("grid")])
    other = make("rff")
    with torch.no_grad():
        next(other.buffers()).add_(1)
    with pytest.raises(ValueError, match="field 1 is not of the kind"):
        Stack([make("rff"), other])
    stack = Stack([make("siren"), make("siren")])
    coords, targets = data(networks=(2,))
    with pytest.raises(ValueError, match="coords have shape"):
        FusedStep(stack)(coords.expand(3, -1, -1), targets)


def test_warm_up_steps_are_undone() -> None:
    mine = make("siren")
    step = FusedStep(mine, lr=1e-3)
    inputs = data()
    fresh, before = step._held(), copy.deepcopy(mine)
    step._compute(inputs)
    step._compute(inputs)
    step._put_back(fresh)
    close(mine, before, 0.0)
    for parameter in mine.parameters():
        assert all(not tensor.any() for tensor in step.adam.state[parameter].values())
    # the second time the moments are not zero, and return to what they were
    step(*inputs)
    held, after_one = step._held(), copy.deepcopy(mine)
    step(*inputs)
    step._put_back(held)
    close(mine, after_one, 0.0)
    for i, parameter in enumerate(mine.parameters()):
        for name, tensor in step.adam.state[parameter].items():
            assert tensor.any(), name
            assert torch.equal(tensor, held[i][1][name]), name


class Graph:
    """Stands in for a CUDA graph: what is captured changes nothing, and a replay does it again.

    Like the real one it reads the buffers that were there when it was captured.
    """

    replays = 0

    def __init__(self, step: FusedStep) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.held = self.step._held()

    def __exit__(self, *_: object) -> None:
        self.step._put_back(self.held)
        self.inputs = self.step._inputs

    def replay(self) -> None:
        Graph.replays += 1
        self.step._loss.copy_(self.step._compute(self.inputs))


def test_the_captured_path(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = make("siren"), make("siren")
    captured, plain_step = FusedStep(mine, lr=1e-3), FusedStep(theirs, lr=1e-3)
    streams = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(captured))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph)
    captured._captures = True
    coords, targets = data()
    for points, captures in ((POINTS, 1), (POINTS, 1), (50, 2), (50, 2), (POINTS, 3)):
        # other tensors each time, so that a graph that read them directly would be found out
        x, y = coords[:points].roll(points, 0).clone(), targets[:points].clone()
        captured.lr = plain_step.lr = 1e-5 * points
        assert captured(x, y).item() == plain_step(x, y).item()
        assert captured.captures == captures
    assert Graph.replays == 5
    close(mine, theirs, 0.0)
    # a parameter that lies elsewhere now is seen
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.data = parameter.detach().clone()
    captured(coords, targets)
    assert captured.captures == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_captured_steps_are_those_of_the_cpu() -> None:
    coords, targets = data()
    mine, theirs = make("siren").cuda(), make("siren")
    captured = FusedStep(mine, lr=1e-3, kernels=reference)
    plain_step = FusedStep(theirs, lr=1e-3)
    for points in (POINTS, POINTS, 50, 50, POINTS):
        if points == 50:
            captured.lr = plain_step.lr = 3e-4
        a = captured(coords[:points].cuda(), targets[:points].cuda()).item()
        assert a == pytest.approx(plain_step(coords[:points], targets[:points]).item(), rel=1e-3)
    assert captured.captures == 3
    close(mine.cpu(), theirs, 1e-2)


def test_cuda_kernels_are_found_by_name() -> None:
    """On a CUDA device the modules are imported by name: the names must be there."""
    pytest.importorskip("triton")
    for name, functions in {
        "triton_mlp": ("mlp", "mlp_error", "refusal"),
        "triton_grid": ("grid_error", "grid_error_on_lattice", "refusal"),
    }.items():
        module = importlib.import_module(f"fields.kernels.{name}")
        assert all(callable(getattr(module, function)) for function in functions)
