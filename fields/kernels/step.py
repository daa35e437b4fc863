"""A training step that a GPU runs without Python: one captured CUDA graph; and many fields at once.

A step of a small field is some ten launches of a few microseconds each; Python and the optimiser
need ten times as long to issue them. A CUDA graph records the launches once and replays them with a
single call. What that asks of the step:

- Kernels read and write the same addresses each time. Inputs are therefore copied into buffers that
  belong to the graph, the loss comes out in one, and gradients lie in the graph's own memory pool.
  Parameters must stay where they are: load new values with `copy_`, not by putting other tensors in
  their place (`FusedStep` notices, and captures again).
- Nothing may wait for the GPU: no `.item()`, no copy from ordinary host memory, no shape that
  depends on data. The learning rate is a number on the device, written between steps.
- What is made lazily (compiled kernels, Adam's moments, cuBLAS's workspace) must be there before.
  Steps on a side stream see to that first; parameters and moments are put back after them.

On a CPU the same calls are made in the same order, without a graph.

The graphs have not been run on a GPU.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fields.base import Field
from fields.kernels import reference
from fields.kernels.plan import GridPlan, Mlp, Plan

WARM_UP = 3
"""Steps before a capture, as torch's documentation has it."""


class FusedStep:
    """One step of Adam on a mean squared error: encoding, loss, gradients, update.

    On a CUDA device the whole is captured when it is first called, and again when the number of
    points changes. Of a `Stack`, the loss is the sum of the mean squared errors of its fields, so
    that each is trained as if it were alone.

    Args:
        field: What is trained; all parameters are float32, on one device, and those of
            `field.learning_rates()` are trained, with its factors.
        lr: Learning rate, 0 or more; set `step.lr` to change it, which needs no new capture.
        betas: Decay of Adam's two moments, each in [0, 1).
        eps: What Adam adds to the root of the second moment, 0 or more.
        kernels: What computes: a module or an object with the functions of
            `fields.kernels.reference` that the plan needs. None takes the Triton kernels on a CUDA
            device and the reference on the CPU.
        precision: Passed to `mlp` and `mlp_error` of kernels that have such an argument, such as
            "fp16" or "tf32"; None leaves it to them. Grids have none.

    Raises:
        ValueError: the field has no plan, is trained on more than its own output, or its parameters
            are not float32 or not on one device, a CPU or a CUDA one; the kernels refuse it; an
            option is out of range.

    Attributes:
        adam: The optimiser.
        captures: How often a graph was captured.
    """

    def __init__(
        self,
        field: Field | Stack,
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        kernels: Any = None,
        precision: str | None = None,
    ) -> None:
        kind = _kind(field)
        if kind.supervised_at is not Field.supervised_at:
            raise ValueError(f"{kind.__name__} is trained on several outputs: train it in torch")
        groups = [(parameters, scale) for parameters, scale in field.learning_rates() if parameters]
        self._parameters = [p for parameters, _ in groups for p in parameters]
        if not self._parameters:
            raise ValueError("the field has no parameter that is trained")
        self.device = _one_device(self._parameters)
        self.field = field
        plan = field.plan()
        if isinstance(plan, GridPlan) and precision is not None:
            raise ValueError(f"precision is {precision!r}: grids have none, leave it out")
        self._kernels = _kernels(plan, self.device) if kernels is None else kernels
        self._options = {} if precision is None else {"precision": precision}
        self._networks = plan.networks if isinstance(plan, Mlp) else None
        self._lattices = isinstance(plan, GridPlan)

        cuda = self.device.type == "cuda"
        # a GPU's Adam reads float32; on a CPU it is computed in Python's floats
        exact = torch.float32 if cuda else torch.float64
        self._scales = [scale for _, scale in groups]
        self._rates = [torch.zeros((), dtype=exact, device=self.device) for _ in groups]
        self.lr = lr
        self.adam = torch.optim.Adam(
            [
                {"params": parameters, "lr": rate}
                for (parameters, _), rate in zip(groups, self._rates, strict=True)
            ],
            betas=betas,
            eps=eps,
            fused=True,
            capturable=cuda,
        )
        self._captures = cuda
        self.captures = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._places: tuple[int, ...] = ()

    @property
    def lr(self) -> float:
        """The learning rate, before the field's factors."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if not value >= 0:
            raise ValueError(f"lr is {value!r}: give a number from 0 on")
        self._lr = float(value)
        for rate, scale in zip(self._rates, self._scales, strict=True):
            rate.fill_(self._lr * scale)

    def __call__(self, coords: Tensor | Sequence[Tensor], targets: Tensor) -> Tensor:
        """Make a step.

        Args:
            coords: Shape (points, in); for a `Stack` also (networks, points, in), else all fields
                share the points. For a grid also one vector per axis, for their product.
            targets: Shape (points, out), (networks, points, out), or (*lengths of axes, out).

        Returns:
            The mean squared error before the update, a scalar on the device. On a CUDA device it is
            the graph's own, which the next step overwrites: clone it to keep it.

        Raises:
            ValueError: shapes, types or devices are others.
        """
        inputs = [*([coords] if isinstance(coords, Tensor) else coords), targets]
        self._check(inputs, isinstance(coords, Tensor))
        if not self._captures:
            return self._compute(inputs)
        with torch.cuda.device(self.device):
            if not self._fits(inputs):
                self._capture(inputs)
            for buffer, given in zip(self._inputs, inputs, strict=True):
                buffer.copy_(given)
            assert self._graph is not None
            self._graph.replay()
        return self._loss

    def _check(self, inputs: Sequence[Tensor], scattered: bool) -> None:
        *coords, targets = inputs
        for name, tensor in [*(("coords", x) for x in coords), ("targets", targets)]:
            if tensor.dtype != torch.float32 or tensor.device != self.device:
                raise ValueError(
                    f"{name} are {tensor.dtype} on {tensor.device}: give float32 on {self.device}"
                )
            if tensor.requires_grad:
                raise ValueError(f"{name} want a gradient, which a captured step does not give")
        if scattered:
            leading = self._leading(coords[0])
        else:
            vectors = all(axis.ndim == 1 for axis in coords)
            if not (self._lattices and vectors and len(coords) == self.field.in_features):
                raise ValueError(f"{len(coords)} axes are given: give points, shape (points, in)")
            leading = tuple(len(axis) for axis in coords)
        if targets.shape != (*leading, self.field.out_features) or not targets.numel():
            shape = (*leading, self.field.out_features)
            raise ValueError(f"targets have shape {tuple(targets.shape)}: give {shape}")

    def _leading(self, coords: Tensor) -> tuple[int, ...]:
        """The targets' shape without its last axis."""
        several = self._networks is not None
        allowed = (2, 3) if several else (2,)
        fits = coords.ndim in allowed and coords.shape[-1] == self.field.in_features
        if fits and coords.ndim == 3:
            fits = len(coords) == self._networks
        if not fits:
            first = f"({self._networks}, points, " if several else "(points, "
            raise ValueError(
                f"coords have shape {tuple(coords.shape)}: give {first}{self.field.in_features})"
            )
        return (self._networks, coords.shape[-2]) if self._networks else (len(coords),)

    def _compute(self, inputs: Sequence[Tensor]) -> Tensor:
        """The step itself; every launch of it is recorded when it is captured."""
        *coords, targets = inputs
        plan = self.field.plan()
        error = self._error(plan, coords, targets)
        loss = error * ((self._networks or 1) / targets.numel())
        # not .backward(): gradients are new tensors, and do not add to what lies in .grad
        for parameter, grad in zip(
            self._parameters, torch.autograd.grad(loss, self._parameters), strict=True
        ):
            parameter.grad = _laid_out(grad, parameter)
        self.adam.step()
        return loss.detach()

    def _error(self, plan: Plan, coords: Sequence[Tensor], targets: Tensor) -> Tensor:
        if isinstance(plan, GridPlan):
            if coords[0].ndim == 2:
                return self._kernels.grid_error(plan, coords[0], targets)
            return self._kernels.grid_error_on_lattice(plan, coords, targets)
        points = self.field.encode(coords[0])
        if _kind(self.field).finish is Field.finish:
            return self._kernels.mlp_error(plan, points, targets, **self._options)
        values = self.field.finish(self._kernels.mlp(plan, points, **self._options))
        return (values - targets).square().sum()

    def _fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether there is a graph for inputs of these shapes and parameters at these places."""
        return (
            self._graph is not None
            and [x.shape for x in inputs] == [x.shape for x in self._inputs]
            and self._places == tuple(p.data_ptr() for p in self._parameters)
        )

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        self._graph = None  # its memory first, before the next takes its own
        self._inputs = [x.clone() for x in inputs]
        held = self._held()
        current = torch.cuda.current_stream(self.device)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._compute(self._inputs)
        current.wait_stream(side)
        self._put_back(held)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._loss = self._compute(self._inputs)
        self._graph = graph
        self._places = tuple(p.data_ptr() for p in self._parameters)
        self.captures += 1

    def _held(self) -> dict[int, tuple[Tensor, dict[str, Tensor]]]:
        """Copies of the parameters and of what Adam remembers of each, by number."""
        return {
            i: (p.detach().clone(), {k: v.clone() for k, v in self.adam.state[p].items()})
            for i, p in enumerate(self._parameters)
        }

    @torch.no_grad()
    def _put_back(self, held: dict[int, tuple[Tensor, dict[str, Tensor]]]) -> None:
        """Return to copies, in place; what Adam did not have then was zero."""
        for i, parameter in enumerate(self._parameters):
            value, state = held[i]
            parameter.copy_(value)
            for name, tensor in self.adam.state[parameter].items():
                if name in state:
                    tensor.copy_(state[name])
                else:
                    tensor.zero_()


class Stack(nn.Module):
    """Many fields of one kind as one: their parameters side by side, for one launch a step.

    The fields keep their own parameters, which `unstack` brings up to date.

    Args:
        fields: At least one; all of the same class, hyperparameters and frozen numbers. A grid has
            no form for many.

    Raises:
        ValueError: there is none, they differ, or are of a kind without a plan for many.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        if not fields:
            raise ValueError("there is no field to stack")
        first = fields[0]
        if not isinstance(first.plan(), Mlp):
            raise ValueError(f"{type(first).__name__} has no form for many: train them one by one")
        for i, field in enumerate(fields):
            if not _alike(first, field):
                raise ValueError(f"field {i} is not of the kind of field 0: {field}")
        self.in_features = first.in_features
        self.out_features = first.out_features
        # not submodules: their parameters are not trained here
        self._fields = tuple(fields)
        self._planned = (_Planned(first),)
        self._names = [name for name, _ in first.named_parameters()]
        columns = [dict(field.named_parameters()) for field in fields]
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([column[name].detach() for column in columns]))
            for name in self._names
        )

    @property
    def networks(self) -> int:
        """How many fields there are."""
        return len(self._fields)

    def plan(self) -> Mlp:
        """The plan of all, whose tensors have the fields as their first axis."""
        planned = self._planned[0]
        by_name = {f"field.{n}": p for n, p in zip(self._names, self.stacked, strict=True)}
        call = functools.partial(_tensors, planned)
        return planned.template().holding(torch.func.vmap(call)(by_name))

    def encode(self, coords: Tensor) -> Tensor:
        """What all networks take in; the fields' frozen numbers are the same."""
        return self._fields[0].encode(coords)

    def finish(self, values: Tensor) -> Tensor:
        """What becomes of the networks' values."""
        return self._fields[0].finish(values)

    def forward(self, coords: Tensor) -> Tensor:
        """Values of all fields, in plain torch.

        Args:
            coords: Shape (points, in), the same for all, or (networks, points, in).

        Returns:
            Shape (networks, points, out).
        """
        return self.finish(reference.mlp(self.plan(), self.encode(coords)))

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The groups of one field, with the parameters of all."""
        first = self._fields[0]
        own = {id(p): i for i, p in enumerate(first.parameters())}
        return [
            ([self.stacked[own[id(p)]] for p in parameters], scale)
            for parameters, scale in first.learning_rates()
        ]

    @torch.no_grad()
    def unstack(self) -> list[Field]:
        """Write the parameters back into the fields, and return these."""
        for i, field in enumerate(self._fields):
            own = dict(field.named_parameters())
            for name, stacked in zip(self._names, self.stacked, strict=True):
                own[name].copy_(stacked[i])
        return list(self._fields)


class _Planned(nn.Module):
    """A field whose `forward` gives the tensors of its plan, for `torch.func.functional_call`."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def template(self) -> Mlp:
        plan = self.field.plan()
        assert isinstance(plan, Mlp)
        return plan

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(self.template().tensors())


def _tensors(planned: _Planned, parameters: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.func.functional_call(planned, parameters, ())


def _alike(first: Field, other: Field) -> bool:
    """Whether two fields differ in nothing but their parameters' values."""
    if type(first) is not type(other) or first.hyperparameters != other.hyperparameters:
        return False
    sizes = (first.in_features, first.out_features) == (other.in_features, other.out_features)
    trained = [p.requires_grad for p in first.parameters()]
    frozen = zip(first.buffers(), other.buffers(), strict=True)
    return (
        sizes
        and trained == [p.requires_grad for p in other.parameters()]
        and all(torch.equal(mine, theirs) for mine, theirs in frozen)
    )


def _kind(field: Field | Stack) -> type[Field]:
    return type(field._fields[0] if isinstance(field, Stack) else field)


def _laid_out(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient in its parameter's layout: fused Adam walks through both as they lie in memory."""
    if grad.stride() == like.stride():
        return grad
    return torch.empty_like(like).copy_(grad)


def _one_device(parameters: Sequence[nn.Parameter]) -> torch.device:
    devices = {p.device for p in parameters}
    if len(devices) > 1:
        raise ValueError(f"parameters lie on {len(devices)} devices: move the field to one")
    (device,) = devices
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"the field is on {device}: move it to a CPU or a CUDA device")
    kinds = {p.dtype for p in parameters}
    if kinds != {torch.float32}:
        raise ValueError(f"parameters are {', '.join(sorted(map(str, kinds)))}: give float32")
    return device


def _kernels(plan: Plan, device: torch.device) -> Any:
    """The kernels of a device.

    Raises:
        ValueError: those of CUDA refuse the plan, or there is no Triton.
    """
    if device.type == "cpu":
        return reference
    name = "triton_grid" if isinstance(plan, GridPlan) else "triton_mlp"
    try:
        kernels = importlib.import_module(f"fields.kernels.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no {error.name} here: install it, or give kernels=") from None
    reason = kernels.refusal(plan)
    if reason:
        raise ValueError(f"the CUDA kernels do not take this field: {reason}; give kernels=")
    return kernels
