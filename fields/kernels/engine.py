"""What stands in for a field's `forward`: a fused kernel, or torch.compile.

`attach` gives a field the engine that `fields.kernels.select` chooses; whoever fits or draws does
so for as long as that lasts. A field by itself is plain torch, which can be differentiated,
transformed and pickled as one likes.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fields.kernels import build, reference, select
from fields.kernels.build import NoKernel
from fields.kernels.plan import GridPlan, Mlp, Plan
from fields.kernels.select import Choice

if TYPE_CHECKING:
    from fields.base import Field

HOMES = {
    ("cpp", Mlp): "fields.kernels.cpp_mlp",
    ("cpp", GridPlan): "fields.kernels.cpp_grid",
    ("triton", Mlp): "fields.kernels.triton_mlp",
    ("triton", GridPlan): "fields.kernels.triton_grid",
    ("tinycudann", Mlp): "fields.kernels.tcnn",
    ("tinycudann", GridPlan): "fields.kernels.tcnn",
}

LARGEST_INPUT = 1 << 24
"""Numbers that go into a network at a time: an encoding makes many of a coordinate."""

log = logging.getLogger(__name__)


class Engine(ABC):
    """Computes a field's values.

    Attributes:
        choice: Its backend, and why.
    """

    choice: Choice

    @abstractmethod
    def at(self, field: Field, coords: Tensor) -> Tensor:
        """Values at coordinates, as `forward` has them."""

    def points(self, field: Field) -> int | None:
        """How many points it takes at a time; None for a field's own tiles."""
        return None

    def on_grid(self, field: Field, axes: Sequence[Tensor]) -> Tensor:
        """Values on a lattice, as `Field.on_grid` has them."""
        return field.in_tiles(lambda tile: self.at(field, tile), axes)

    def networks(self, field: Field, which: Tensor | None, points: Tensor) -> Tensor:
        """Values of many networks at once, each at its own points.

        Args:
            field: Its parameters have a first axis for the networks.
            which: Indices of the networks; None for all.
            points: Shape (networks, points, in).

        Raises:
            NoKernel: it cannot.
        """
        raise NoKernel(f"backend {self.choice.backend}: it computes one network at a time")

    def squared_error(self, field: Field, axes: Sequence[Tensor], values: Tensor) -> Tensor:
        """Sum of squared errors on a lattice."""
        return (self.on_grid(field, axes) - values).square().sum()

    def squared_error_at(self, field: Field, coords: Tensor, values: Tensor) -> Tensor:
        """Sum of squared errors at scattered coordinates."""
        return (self.at(field, coords) - values).square().sum()


class Fused(Engine):
    """Kernels that compute what a field's plan says.

    Where coordinates want a gradient it is plain torch that computes: whoever asks for derivatives
    by coordinates mostly differentiates them again.

    Args:
        choice: The backend, and why.
        device: Type of the device that its kernels are for, "cpu" or "cuda".
        plan: A plan of the field.
    """

    def __init__(self, choice: Choice, device: str, plan: Plan) -> None:
        self.choice = choice
        self.device = device
        self._home = HOMES[choice.backend, type(plan)]

    @property
    def kernels(self) -> Any:
        """The module that has them (a field with an engine can be copied, a module cannot)."""
        return importlib.import_module(self._home)

    def takes(self, coords: Tensor) -> bool:
        """Whether the kernels are for such coordinates."""
        wants_gradient = coords.requires_grad and torch.is_grad_enabled()
        mine = coords.device.type == self.device and coords.dtype == torch.float32
        return mine and not wants_gradient

    def points(self, field: Field) -> int | None:
        plan = field.plan()
        return max(4096, LARGEST_INPUT // plan.in_features)

    def at(self, field: Field, coords: Tensor) -> Tensor:
        if not self.takes(coords):
            return nn.Module.__call__(field, coords)
        plan = field.plan()
        if isinstance(plan, GridPlan):
            flat = coords.reshape(-1, coords.shape[-1])
            return self.kernels.grid(plan, flat).reshape(*coords.shape[:-1], plan.out_features)
        return field.finish(self.kernels.mlp(plan, field.encode(coords)))

    def networks(self, field: Field, which: Tensor | None, points: Tensor) -> Tensor:
        plan = field.plan()
        if isinstance(plan, GridPlan):
            return super().networks(field, which, points)
        if which is not None:
            plan = plan.holding([t.index_select(0, which) for t in plan.tensors()])
        kernels = self.kernels if self.takes(points) else reference
        return field.finish(kernels.mlp(plan, field.encode(points)))

    def on_grid(self, field: Field, axes: Sequence[Tensor]) -> Tensor:
        plan = field.plan()
        if isinstance(plan, GridPlan) and all(self.takes(axis) for axis in axes):
            return self.kernels.grid_on_lattice(plan, axes)
        return super().on_grid(field, axes)

    def squared_error(self, field: Field, axes: Sequence[Tensor], values: Tensor) -> Tensor:
        if not all(self.takes(axis) for axis in axes):
            return super().squared_error(field, axes, values)
        plan = field.plan()
        if isinstance(plan, GridPlan):
            return self.kernels.grid_error_on_lattice(plan, axes, values)
        coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        return self.squared_error_at(field, coords.flatten(0, -2), values.flatten(0, -2))

    def squared_error_at(self, field: Field, coords: Tensor, values: Tensor) -> Tensor:
        plan = field.plan()
        if not self.takes(coords) or finishes(field):
            return super().squared_error_at(field, coords, values)
        if isinstance(plan, GridPlan):
            return self.kernels.grid_error(plan, coords, values)
        return self.kernels.mlp_error(plan, field.encode(coords), values)


class Compiled(Engine):
    """torch.compile on chunks of one size, so that it compiles once.

    Compiling takes 15 to 70 s on a CPU, at the first call with and at the first without gradients.

    Raises:
        NoKernel: the field computes lattices by other means than point by point.
    """

    def __init__(self, choice: Choice, field: Field) -> None:
        from fields.base import Field

        if type(field).on_grid is not Field.on_grid:
            name = type(field).__name__
            raise NoKernel(f"backend compile: {name} does not compute lattices point by point")
        self.choice = choice
        self._forward = torch.compile(type(field).forward)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return self

    def at(self, field: Field, coords: Tensor) -> Tensor:
        from fields.base import points_per_tile

        flat = coords.reshape(-1, coords.shape[-1])
        size = min(points_per_tile(field), max(len(flat), 1))
        chunks = [self._padded(field, chunk, size) for chunk in flat.split(size)]
        return torch.cat(chunks).reshape(*coords.shape[:-1], field.out_features)

    def _padded(self, field: Field, chunk: Tensor, size: int) -> Tensor:
        rest = size - len(chunk)
        full = chunk if not rest else torch.cat([chunk, chunk.new_zeros(rest, chunk.shape[1])])
        return self._forward(field, full)[: len(chunk)]


def finishes(field: Field) -> bool:
    """Whether something follows the network of a field's plan."""
    from fields.base import Field

    return type(field).finish is not Field.finish


def attach(
    field: Field, backend: str | None = None, *, device: str = "cpu", may_build: bool = True
) -> Choice:
    """Give a field, or the networks within it, the engine of a backend; none for plain torch.

    Args:
        field: Its parameters say in which precision it computes.
        backend: One of `select.BACKENDS`; None for what `select.prefer` was given.
        device: Where it is going to compute.
        may_build: Whether kernels that are not built may be built, which takes some seconds.

    Returns:
        What was chosen, and why.

    Raises:
        NoKernel: the backend that was asked for by name cannot do it.
    """
    wanted = select.preferred() if backend is None else backend
    chain = field.chain()
    chain.engine = None
    plan, refused = _plan_of(chain)
    if chain is not field and isinstance(plan, GridPlan):
        refused = "grids side by side"
    if chain is not field and wanted == "compile":
        raise NoKernel(f"backend compile: not for the many networks of {type(field).__name__}")
    precision = str(next(field.parameters()).dtype).removeprefix("torch.")
    choice = select.choose(
        refused,
        device,
        select.look(),
        wanted=wanted,
        precision=precision,
        may_build=may_build,
    )
    try:
        chain.engine = _engine(choice, chain, plan, device)
    except NoKernel as error:
        if wanted != "auto":
            raise
        choice = Choice("eager", str(error))
    log.info("%s: %s (%s)", type(field).__name__, choice.backend, choice.reason)
    return choice


def _plan_of(field: Field) -> tuple[Plan | None, str | None]:
    from fields.base import FieldError

    try:
        return field.plan(), None
    except FieldError as error:
        return None, str(error)


def _engine(choice: Choice, field: Field, plan: Plan | None, device: str) -> Engine | None:
    if choice.backend == "eager":
        return None
    if choice.backend == "compile":
        return Compiled(choice, field)
    assert plan is not None  # or it would have been refused
    engine = Fused(choice, device.partition(":")[0], plan)
    if choice.backend == "cpp":
        build.library("grid" if isinstance(plan, GridPlan) else "mlp")
    else:
        refused = engine.kernels.refusal(plan)
        if refused is not None:
            raise NoKernel(f"backend {choice.backend}: {refused}")
    if choice.backend == "tinycudann":
        engine.kernels.prepare(plan, device)
    return engine
