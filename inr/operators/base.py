"""What an operator is, and what all of them share."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inr.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fields.base import Field
    from inr.signals.base import Domain, GridSignal


@dataclass(frozen=True, kw_only=True)
class Operator(ABC):
    """An operator, and what is assumed of the signal besides what was observed.

    Args:
        seed: Seed of what is drawn: which samples are kept, a simulated noise.
        tv: Weight of the total variation beside the mean squared error of the observations, which
            are normalised to [-1, 1]: the mean over the samples of the norm of the differences to
            the next samples, along all axes.
        curvature: Weight of the same with the second differences, the Hessian's Frobenius norm.
            Sitzmann et al. 2020 use either, with derivatives, for inpainting.

    Raises:
        UsageError: an option is out of range.
    """

    name: ClassVar[str]
    pointwise: ClassVar[bool] = False
    """Whether each observation is the value of one sample."""

    seed: int = 0
    tv: float | None = 0.0
    curvature: float = 0.0

    def __post_init__(self) -> None:
        """Refuse options that cannot work, by name."""
        self.check("seed", 0 <= self.seed < 1 << 63, "a whole number from 0 to 2^63 - 1")
        self.check("tv", self.tv is None or 0 <= self.tv < math.inf, "a number from 0 up")
        self.check("curvature", 0 <= self.curvature < math.inf, "a number from 0 up")

    @property
    def stretch(self) -> int:
        """Samples per observation along each axis."""
        return 1

    @property
    def windowed(self) -> bool:
        """Whether part of the samples, a block, has observations of its own."""
        return True

    @property
    def exact(self) -> bool:
        """Whether it looks at the field's derivatives and not at its samples."""
        return False

    def bound(self, source: GridSignal) -> Operator:
        """The operator with what the observations' own shape tells of it."""
        return self

    @abstractmethod
    def domain(self, source: GridSignal) -> Domain:
        """The domain of the signal that observations belong to.

        Raises:
            InputError: they are no such observations.
            UsageError: an option is missing, or does not suit them.
        """

    def observe(self, values: Tensor) -> Tensor:
        """Observations of samples, shape (*lattice, channels), or of a window of them."""
        return values

    def constant(self, domain: Domain) -> Tensor | float:
        """What is observed of a signal that is 1 everywhere."""
        return 1.0

    def look(
        self, field: Field, axes: Sequence[Tensor], shape: Sequence[int]
    ) -> list[tuple[Tensor, Tensor]]:
        """(observations, samples) of each output of a field that is trained.

        Args:
            field: The field.
            axes: Coordinates of a window of the lattice, a multiple of `stretch` long each.
            shape: Samples per axis of the whole lattice.
        """
        return [(self.observe(values), values) for values in supervised(field, axes)]

    def error(self, difference: Tensor) -> Tensor:
        """What the loss makes of the difference between observations, a mean square."""
        return difference.square().mean()

    def known(self, domain: Domain) -> np.ndarray | None:
        """Which samples were observed, booleans of the lattice's shape; None: all.

        Raises:
            InputError: none was, or the options tell it of another lattice.
            UsageError: they do not tell it.
        """
        return None

    def centre(self, domain: Domain) -> list[float] | None:
        """The normalised mean of each channel, where the observations leave it open."""
        return None

    @abstractmethod
    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        """A crude reconstruction in [-1, 1], for fields that look at the signal before a fit."""

    @abstractmethod
    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Operator]:
        """Observations of a signal that is known, and the operator with what they tell of it.

        Raises:
            InputError: the signal cannot be seen so.
        """

    def check(self, option: str, good: bool, allowed: str) -> None:
        """Raise a UsageError that names the option unless its value is good."""
        if not good:
            raise UsageError(f"operator.{option} is {getattr(self, option)!r}: give {allowed}")


def physical(signal: GridSignal) -> Tensor:
    """A signal's values in its own units and range, shape (*shape, channels)."""
    middle, half = middle_and_half(signal.domain)
    return signal.values * half + middle


def middle_and_half(domain: Domain) -> tuple[float, float]:
    """What the normalised values 0 and 1 stand for: the range's middle, and half of its width.

    Raises:
        InputError: the kind of signal has no such range.
    """
    low, high = getattr(domain, "low", None), getattr(domain, "high", None)
    if low is None or high is None:
        raise InputError(f"a signal of kind {domain.kind!r} cannot be seen so: give a picture")
    return low / 2 + high / 2, (high / 2 - low / 2) or 1.0


def observations(values: Tensor) -> GridSignal:
    """Simulated observations, shape (*lattice, channels), as a signal of floats."""
    from inr.signals.array import ArraySignal

    return ArraySignal.from_array(values.detach().cpu().numpy(), channels_last=True)


def resized(domain: Domain, shape: Sequence[int]) -> Domain:
    """The domain of the same extent with another number of samples per axis.

    Raises:
        InputError: the kind of signal does not come in other resolutions.
    """
    if domain.kind == "image":
        height, width = shape
        return dataclasses.replace(domain, height=height, width=width)  # type: ignore[type-var]
    if domain.kind == "array":
        return dataclasses.replace(domain, shape=tuple(shape))  # type: ignore[type-var]
    raise InputError(f"a signal of kind {domain.kind!r} is not resampled: give a picture")


def floating(domain: Domain) -> Domain:
    """The same domain with samples of float32.

    Raises:
        InputError: the kind of signal has no such samples.
    """
    types: dict[str, Any] = {
        "array": {"dtype": "f4"},
        "audio": {"depth": -32},
        "image": {"depth": 32},
    }
    if domain.kind not in types:
        raise InputError(f"noise is not simulated in a signal of kind {domain.kind!r}")
    middle_and_half(domain)
    limits = {"low": float(domain.low), "high": float(domain.high)}  # type: ignore[attr-defined]
    return dataclasses.replace(domain, **types[domain.kind], **limits)  # type: ignore[type-var]


def check_range(operator: Any) -> None:
    """Raise a UsageError unless the options `low` and `high` make a range, where they are given."""
    low, high = operator.low, operator.high
    for option in ("low", "high"):
        value = getattr(operator, option)
        operator.check(option, value is None or abs(value) < 1e30, "a number")
    operator.check("high", None in (low, high) or low < high, "a number above operator.low")


def supervised(field: Field, axes: Sequence[Tensor]) -> list[Tensor]:
    """`Field.supervised` in bands that fit a CPU's cache, each computed anew for its gradient.

    An operator needs all samples at once, but not all that a field computes on the way to them.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    from fields.base import points_per_tile

    rows = max(1, points_per_tile(field) // math.prod(len(axis) for axis in axes[1:]))
    first, *others = axes
    if rows >= len(first):
        return field.supervised(axes)
    bands = [
        checkpoint(field.supervised, [part, *others], use_reentrant=False, preserve_rng_state=False)
        for part in first.split(rows)
    ]
    return [torch.cat(parts) for parts in zip(*bands, strict=True)]
