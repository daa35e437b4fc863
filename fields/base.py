"""The contract of every field: coordinates in, values out.

A field is a plain `torch.nn.Module`. Coordinates live in [-1, 1] along each axis of the signal's
domain, in 'ij' order; values are normalised to [-1, 1]. What the numbers mean (pixels, seconds,
scene units) is the business of the signal, not of the field.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import seeded

if TYPE_CHECKING:
    from fields.kernels.engine import Engine
    from fields.kernels.plan import Plan

TILE_BYTES = 4 << 20
"""Size of the widest activation tensor of one tile: it stays in a CPU's cache, which doubles the
speed of a 256-wide field there (fresh, larger tensors are dominated by page faults)."""


PROBES = 1024
"""Points on which the size of a field's values is measured."""


class FieldError(ValueError):
    """A field cannot be built or used as asked; the message names the hyperparameter."""


class SignalStatistics:
    """What a field may know of a signal before it is fitted.

    Args:
        samples: The signal on its full lattice, shape (*shape, channels), in [-1, 1]; or a function
            that makes the part of it at a slice per axis, for a signal too large to lie about in
            floats, whose `size` is then given.
        size: Shape (*shape, channels).
    """

    def __init__(
        self,
        samples: Tensor | Callable[[tuple[slice, ...]], Tensor],
        size: Sequence[int] | None = None,
    ) -> None:
        self._samples = samples
        self.size = tuple(samples.shape if isinstance(samples, Tensor) else size or ())

    @property
    def samples(self) -> Tensor:
        """All of it at once; of a large signal, a field should rather look at parts."""
        return self.part((slice(None),) * (len(self.size) - 1))

    def part(self, place: tuple[slice, ...]) -> Tensor:
        """The samples at a slice per axis, which may have a step."""
        return self._samples[place] if isinstance(self._samples, Tensor) else self._samples(place)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples per axis."""
        return self.size[:-1]

    @property
    def channels(self) -> int:
        """Values per sample."""
        return int(self.size[-1])


@dataclass(frozen=True)
class StoredTensor:
    """One tensor that a file must carry, with a hint for its quantisation.

    Args:
        name: Dotted name within the field.
        tensor: Its values.
        per_row: Whether every slice along the first axis deserves a quantisation step and an
            entropy model of its own (feature channels of a grid do, rows of a matrix do not).
    """

    name: str
    tensor: Tensor
    per_row: bool = False

    @property
    def rows(self) -> int:
        """How many rows of a file it makes, each with a step and a model."""
        return len(self.tensor) if self.per_row else 1


class Field(nn.Module, ABC):
    """A function from coordinates to values, with trainable parameters.

    The constructor's typed keywords are the one source of a field's hyperparameters: YAML,
    command line and file header read them from its signature, in that order.

    Attributes:
        smoothness: How many derivatives in the coordinates exist and are continuous. The class
            has that of its defaults; an instance whose hyperparameters change it has its own.
        training_only: Hyperparameters, the last of the constructor's, that decide how a field
            starts and is trained, and nothing of what it computes: a file may leave them out.
        extends: Whether coordinates beyond [-1, 1] mean anything to it.
        sizes: Names of the hyperparameters that count units: with them a field grows and shrinks.
        layered: Whether its file is to be made of layers (see `groups`), so that the first bytes of
            it already make a coarser signal. Set it on an instance; a class has it whose very point
            that is.
        hyperparameters: The keyword arguments that built this field, defaults included, and in
            place of some what the field settled itself (see `settle`).
        domain: Where the field lives, set by whoever attaches a signal; None until then.
        engine: What computes values in place of `forward`, such as a fused kernel (see
            `fields.kernels.engine`); None for `forward` itself.
    """

    smoothness: float = math.inf
    extends: bool = True
    training_only: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[tuple[str, ...]] = ("hidden_features",)
    layered: bool = False
    in_features: int
    out_features: int
    hyperparameters: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Record the constructor's keywords on every instance."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, in_features: int, out_features: int) -> None:
        """Check the two sizes that every field has."""
        super().__init__()
        self.in_features = whole("in_features", in_features, 1, 4096)
        self.out_features = whole("out_features", out_features, 1, 1 << 20)
        self.domain: Any = None
        self.engine: Engine | None = None
        self.hyperparameters = {}
        self._settled: dict[str, Any] = {}

    def __call__(self, coords: Tensor) -> Tensor:
        """Values at coordinates (see `forward`).

        Raises:
            FieldError: they are no floats, or not `in_features` to a point.
        """
        if coords.shape[-1:] != (self.in_features,) or not coords.is_floating_point():
            given = f"{coords.dtype} of shape {tuple(coords.shape)}"
            raise FieldError(f"coords are {given}: give floats, shape (..., {self.in_features})")
        return super().__call__(coords) if self.engine is None else self.engine.at(self, coords)

    @abstractmethod
    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Values at coordinates; pure, for any leading shape."""

    def chain(self) -> Field:
        """The field whose engine computes this one: itself, or the networks within it."""
        return self

    def plan(self) -> Plan:
        """What fused kernels need to compute this field: matrices and activations.

        Values are `finish(network(encode(coords)))` with the network of the plan, and `encode` and
        `finish` in plain torch, without parameters.

        Raises:
            FieldError: kernels do not know such a field; the message says why.
        """
        raise FieldError(f"{type(self).__name__} is more than a chain of matrices")

    def encode(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_first"]:
        """What the network of `plan` takes in."""
        return coords

    def finish(self, values: Float[Tensor, "*batch d_out"]) -> Float[Tensor, "*batch d_out"]:
        """What becomes of the values of the network of `plan`."""
        return values

    @property
    @abstractmethod
    def widest(self) -> int:
        """Scalars per point in the widest intermediate tensor; decides the size of a tile."""

    @property
    def drawn(self) -> int:
        """Numbers that are drawn from a seed when the field is rebuilt from a file."""
        return 0

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Within it, parameters stay as they are: what several passes share is computed once.

        A trainer wraps the passes of one optimiser step in it, backward ones included; a renderer
        those of one rendering. It may be entered again within itself.
        """
        yield

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """Values on the product of one coordinate vector per axis, shape (n_0, ..., n_d, out).

        The default runs `forward` in tiles of bounded memory; separable fields override it.
        """
        if self.engine is not None:
            return self.engine.on_grid(self, axes)
        return self.in_tiles(self, axes)

    def supervised(self, axes: Sequence[Float[Tensor, " _"]]) -> list[Tensor]:
        """Every output on a lattice that is trained towards the signal, the field's own last."""
        return [self.on_grid(axes)]

    def supervised_at(self, coords: Float[Tensor, "*batch d_in"]) -> list[Tensor]:
        """Every output at scattered coordinates that is trained, the field's own last."""
        return [self(coords)]

    def squared_error(self, axes: Sequence[Tensor], values: Tensor) -> Tensor:
        """Sum of squared errors on a lattice; of several trained outputs, the mean of theirs."""
        if self.engine is not None:
            return self.engine.squared_error(self, axes, values)
        return mean_error(self.supervised(axes), values)

    def squared_error_at(self, coords: Tensor, values: Tensor) -> Tensor:
        """The same at scattered coordinates."""
        if self.engine is not None:
            return self.engine.squared_error_at(self, coords, values)
        return mean_error(self.supervised_at(coords), values)

    def in_tiles(
        self, function: Callable[[Tensor], Tensor], axes: Sequence[Float[Tensor, " _"]]
    ) -> Tensor:
        """A function of coordinates on a lattice, computed in tiles of bounded memory."""
        shape = [len(axis) for axis in axes]
        coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        values = torch.cat([function(tile) for tile in coords.split(points_per_tile(self))])
        return values.reshape(*shape, *values.shape[1:])

    def adapt(self, statistics: SignalStatistics) -> None:
        """Initialise from what is known of the signal; called once, before fitting."""

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """Hyperparameters that a signal of `shape` samples calls for, where the user gave none."""
        return {}

    @classmethod
    def complete(cls, shape: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, and what the shape of a signal calls for besides."""
        return cls.suggest(shape) | dict(given)

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """Hyperparameters of a field with `factor` times as many units in each of its `sizes`.

        Args:
            given: Hyperparameters, of which those among `sizes` that are missing have their
                defaults.
            factor: Above 0. What a file stores grows with about its square, or for a lattice of
                features with its power of the number of axes.
        """
        parameters = inspect.signature(cls).parameters
        whole_set = {name: parameters[name].default for name in cls.sizes} | dict(given)
        return whole_set | {name: times(whole_set[name], factor) for name in cls.sizes}

    def settle(self, name: str, value: Any) -> None:
        """Record the value of a hyperparameter that the field itself has chosen."""
        self._settled[name] = self.hyperparameters[name] = value

    def output_parameters(self) -> list[nn.Parameter]:
        """Parameters whose common factor is a factor on the values: a linear last layer's.

        Raises:
            FieldError: the last layer is not linear.
        """
        out = getattr(self, "out", None)
        if not isinstance(out, nn.Module):
            raise FieldError("it has no linear last layer, which a part of another field needs")
        return list(out.parameters())

    @torch.no_grad()
    def rescale(self, rms: float) -> None:
        """Scale the initial values to a root mean square over the domain, all outputs together.

        For a field that is a part of another. Without memory (on torch's meta device) it does
        nothing.

        Raises:
            FieldError: the last layer is not linear.
        """
        parameters = self.output_parameters()
        if any(p.is_meta for p in parameters):
            return
        values = self(probes(self.in_features).to(parameters[0]))
        factor = rms / values.double().square().mean().sqrt().clamp(min=1e-12)
        for parameter in parameters:
            parameter.mul_(factor)

    def rate(self) -> Tensor | None:
        """Differentiable stand-in for stored bits per sample, where the field is to be compressed.

        Fitting adds it to the loss, times the recipe's `rate_weight`.
        """
        return None

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of trainable parameters, each with a factor on the recipe's learning rate."""
        return [([p for p in self.parameters() if p.requires_grad], 1.0)]

    def stored_parameters(self) -> list[StoredTensor]:
        """The tensors that a file must carry, in decoding order."""
        return [StoredTensor(name, tensor) for name, tensor in self.named_parameters()]

    def groups(self) -> list[int]:
        """How many stored tensors each layer of a progressive file holds, in decoding order.

        With the tensors of the later layers at zero the field is a coarser one.
        """
        return [len(self.stored_parameters())]

    def leave_out(self, first: int) -> None:
        """Learn that stored tensors from number `first` on are 0, so as not to compute with them.

        It holds until `load_stored` is called.
        """

    @torch.no_grad()
    def load_stored(self, values: Mapping[str, Tensor]) -> None:
        """Set the stored parameters, by name.

        Raises:
            FieldError: a tensor is missing, unknown, or of another shape.
        """
        expected = {stored.name: stored.tensor for stored in self.stored_parameters()}
        if expected.keys() != values.keys():
            raise FieldError(f"stored tensors are {sorted(values)}, expected {sorted(expected)}")
        for name, tensor in expected.items():
            if tensor.shape != values[name].shape:
                given = tuple(values[name].shape)
                raise FieldError(f"{name} has shape {given}, expected {tuple(tensor.shape)}")
            tensor.copy_(values[name])

    def regenerate(self) -> None:
        """Fill what is neither trained nor stored but drawn from a seed, such as frequencies.

        A decoder builds the field without memory, then calls this and `load_stored`.
        """

    def extra_repr(self) -> str:
        """Show the hyperparameters in `repr(field)`."""
        return ", ".join(f"{key}={value!r}" for key, value in self.hyperparameters.items())


def mean_error(outputs: Sequence[Tensor], values: Tensor) -> Tensor:
    """Sum of squared errors, the mean of it over several outputs."""
    return torch.stack([(out - values).square().sum() for out in outputs]).mean()


def probes(in_features: int) -> Float[Tensor, "p d"]:
    """Points of [-1, 1]^d on which values are measured: a lattice on a line, scattered else."""
    if in_features == 1:
        return torch.linspace(-1, 1, PROBES, device="cpu")[:, None]
    return 2 * seeded.uniform(0, 0, (PROBES, in_features), device="cpu") - 1


def check_axes(field: Field, axes: Sequence[Tensor]) -> None:
    """Raise a FieldError unless there is one vector of coordinates for each of the field's axes."""
    if len(axes) != field.in_features:
        raise FieldError(f"{len(axes)} axes are given: give {field.in_features}")


def hyperparameter_names(cls: type[Field]) -> list[str]:
    """Names of a field's hyperparameters in the order of its constructor (and of a file)."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def points_per_tile(field: Field, tile_bytes: int = TILE_BYTES) -> int:
    """Points whose widest float32 activation fills `tile_bytes`; as many as its engine takes."""
    if field.engine is not None and (points := field.engine.points(field)) is not None:
        return points
    return max(256, tile_bytes // (4 * field.widest))


def times(count: Any, factor: float) -> Any:
    """A count of units, or each of a list of them, times a factor; two units stay."""
    if isinstance(count, list):
        return [times(n, factor) for n in count]
    return max(2, round(count * factor))


def whole(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int within [low, high], or raise a FieldError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FieldError(f"{name} is {value!r}: give a whole number from {low} to {high}")
    return value


def positive(name: str, value: Any, high: float) -> float:
    """Return `value` as a float within (0, high], or raise a FieldError that names it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= high:
        raise FieldError(f"{name} is {value!r}: give a number above 0, at most {high:g}")
    return float(value)


def within(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float within [low, high], or raise a FieldError that names it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise FieldError(f"{name} is {value!r}: give a number from {low:g} to {high:g}")
    return float(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`, or raise a FieldError that names them."""
    if value not in choices:
        raise FieldError(f"{name} is {value!r}: choose from {', '.join(choices)}")
    return str(value)


def one_each(name: str, value: Any, count: int) -> list[Any]:
    """`value` for each of `count`, or its items if it is a list of so many, or a FieldError."""
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise FieldError(f"{name} is {value!r}: give one, or a list of {count}")
    return values


def _recording(init: Any) -> Any:
    """Wrap a constructor so that the instance remembers the keywords it was built with."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Field, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise FieldError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        init(self, *args, **kwargs)
        if type(self).__init__ is wrapper:
            names = hyperparameter_names(type(self))
            given = {name: copy.deepcopy(bound.arguments[name]) for name in names}
            self.hyperparameters = given | self._settled

    return wrapper
