"""Pictures from their derivatives: Poisson reconstruction.

V. Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", NeurIPS
2020, arXiv:2006.09661, section 4.1: a field is fitted to the gradient or the Laplacian of a
picture. The picture follows up to a constant, which the mean sets.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor

from inr.errors import FitError, InputError, UsageError
from inr.operators.base import Operator, check_range, middle_and_half, observations, physical

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Domain, GridSignal


@dataclass(frozen=True, kw_only=True)
class Derivative(Operator):
    """Derivatives of a picture along its rows and columns, in units of value per pixel.

    Args:
        derivative: What is compared with the observations. "lattice": differences of the field's
            samples, exactly those of which the observations are made. "exact": the field's own
            derivatives at the samples, by automatic differentiation, as in the paper.
        levels: Scales on which the loss compares: pixels, then weighted means over patches of 2, 4,
            ... times that size (squared for the Laplacian), which gives back what a wave's
            derivative loses with its length. 1: pixels alone, as in the paper, which takes far more
            steps for what is large in the picture. 0: all scales.
        low: The picture's lowest value, in the observations' units.
        high: Its highest.
        mean: Its mean, one number or one per channel; null: the middle of the range.
    """

    name: ClassVar[str]
    order: ClassVar[int]

    derivative: Literal["lattice", "exact"] = "lattice"
    levels: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | list[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("derivative", self.derivative in ("lattice", "exact"), "lattice or exact")
        self.check("levels", 0 <= self.levels <= 30, "a whole number from 0 to 30")
        check_range(self)
        means = self.mean if isinstance(self.mean, list) else [self.mean or 0.0]
        self.check("mean", all(map(math.isfinite, means)), "finite numbers")

    @property
    def windowed(self) -> bool:
        return self.exact

    @property
    def exact(self) -> bool:
        return self.derivative == "exact"

    def error(self, difference: Tensor) -> Tensor:
        levels = self.levels or max(_size(difference)).bit_length()
        total = difference.square().mean()
        for level in range(1, levels):
            difference = _halved(difference)
            total = total + 4 ** (level * self.order) * difference.square().mean()
        return total

    def constant(self, domain: Domain) -> Tensor | float:
        return 0.0

    def centre(self, domain: Domain) -> list[float] | None:
        middle, half = middle_and_half(domain)
        means = self.mean if isinstance(self.mean, list) else [self.mean] * domain.channels
        if len(means) != domain.channels:
            raise UsageError(
                f"operator.mean has {len(means)} numbers: the picture has {domain.channels} "
                "channels"
            )
        return [0.0 if m is None else (m - middle) / half for m in means]

    def look(
        self, field: Field, axes: Sequence[Tensor], shape: Sequence[int]
    ) -> list[tuple[Tensor, Tensor]]:
        if not self.exact:
            return super().look(field, axes, shape)
        if field.smoothness < self.order:
            raise FitError(
                f"this field has {field.smoothness:g} derivatives, operator.derivative exact needs "
                f"{self.order}: give another field, or lattice"
            )
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
            units = torch.tensor([2 / n for n in shape]).to(coords)
            pixels = (coords / units).requires_grad_()
            values = field(pixels * units)
            found = self.differentiate(values, pixels, keep=keep)
        return [(found if keep else found.detach(), values)]

    @abstractmethod
    def differentiate(self, values: Tensor, pixels: Tensor, *, keep: bool) -> Tensor:
        """Derivatives of values by the coordinates in pixels, laid out as observations are.

        With `keep` they have a gradient.
        """

    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        return torch.zeros(*domain.shape, domain.channels).to(source.values)

    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Self]:
        self._check_picture(clean)
        values = physical(clean)
        means = values.double().mean((0, 1)).tolist()
        return observations(self.observe(values)), dataclasses.replace(self, mean=means)

    def _picture(self, source: GridSignal, channels: int) -> Domain:
        from inr.signals.image import MODES, ImageDomain

        self._check_picture(source)
        if channels not in MODES:
            raise InputError(f"tells of {channels} channels: a picture has 1 to {max(MODES)}")
        if self.low is None or self.high is None:
            raise UsageError(f"{self.name} needs operator.low and operator.high, the picture's")
        height, width = source.domain.shape
        return ImageDomain(height, width, channels, 32, float(self.low), float(self.high))

    def _check_picture(self, source: GridSignal) -> None:
        shape = source.domain.shape
        if len(shape) != 2 or min(shape) < 2:
            size = " x ".join(map(str, shape))
            raise InputError(f"is {size}: derivatives are those of a picture, 2 x 2 at least")


@dataclass(frozen=True, kw_only=True)
class Gradient(Derivative):
    """The gradient of a picture: along the rows' axis for all channels, then along the columns'.

    On the lattice it is the difference to the next pixel, 0 for the last. "exact" takes Sobel's
    operator for the derivative, as the paper does: central differences, smoothed across, over 8.
    """

    name: ClassVar[str] = "gradient"
    order: ClassVar[int] = 1

    def domain(self, source: GridSignal) -> Domain:
        if source.channels % 2:
            raise InputError(f"has {source.channels} channels: a gradient has two for each")
        return self._picture(source, source.channels // 2)

    def observe(self, values: Tensor) -> Tensor:
        if not self.exact:
            down, right = (
                torch.diff(values, dim=axis, append=values.narrow(axis, values.shape[axis] - 1, 1))
                for axis in (0, 1)
            )
            return torch.cat([down, right], dim=-1)
        padded = _padded(values)
        along = [
            padded.narrow(i, 2, n) - padded.narrow(i, 0, n) for i, n in enumerate(_size(values))
        ]
        across = [
            sum(w * part.narrow(i, k, n) for k, w in enumerate((1, 2, 1)))
            for part, i, n in zip(along, (1, 0), reversed(_size(values)), strict=True)
        ]
        return torch.cat(across, dim=-1) / 8  # type: ignore[arg-type]

    def differentiate(self, values: Tensor, pixels: Tensor, *, keep: bool) -> Tensor:
        grads = [_gradient(channel, pixels, keep=keep) for channel in values.unbind(-1)]
        return torch.cat([torch.stack([g[..., i] for g in grads], -1) for i in (0, 1)], dim=-1)


@dataclass(frozen=True, kw_only=True)
class Laplacian(Derivative):
    """The Laplacian of a picture: the sum of the four neighbours less four times the pixel.

    Beyond the border pixels repeat. It is that of `scipy.ndimage.laplace`, the paper's.
    """

    name: ClassVar[str] = "laplacian"
    order: ClassVar[int] = 2

    def domain(self, source: GridSignal) -> Domain:
        return self._picture(source, source.channels)

    def observe(self, values: Tensor) -> Tensor:
        padded = _padded(values)
        height, width = _size(values)
        rows, columns = padded.narrow(1, 1, width), padded.narrow(0, 1, height)
        beside = (rows[:-2] + rows[2:], columns[:, :-2] + columns[:, 2:])
        return beside[0] + beside[1] - 4 * values

    def differentiate(self, values: Tensor, pixels: Tensor, *, keep: bool) -> Tensor:
        found = []
        for channel in values.unbind(-1):
            first = _gradient(channel, pixels, keep=True)
            found.append(
                sum(_gradient(first[..., i], pixels, keep=keep or i == 0)[..., i] for i in (0, 1))
            )
        return torch.stack(found, dim=-1)  # type: ignore[arg-type]


def _gradient(values: Tensor, pixels: Tensor, *, keep: bool) -> Tensor:
    """Derivatives of a value of each point by its coordinates."""
    (found,) = torch.autograd.grad(values.sum(), pixels, create_graph=keep, retain_graph=True)
    return found


def _halved(values: Tensor) -> Tensor:
    """Weighted means (1, 3, 3, 1) / 8 along both axes, at every second place.

    That of a wave shorter than the patch falls with the third power of its length: a plain mean
    would let what is small in a picture weigh most in the Laplacian of what is large.
    """
    values = _padded(values)
    for axis, n in enumerate(values.shape[:2]):
        places = (n - 1) // 2
        last = values.narrow(axis, n - 1, 1)
        longer = torch.cat([values, last, last], dim=axis)
        taps = (
            w * longer.narrow(axis, k, 2 * places).unflatten(axis, (places, 2)).select(axis + 1, 0)
            for k, w in enumerate((1, 3, 3, 1))
        )
        values = torch.stack(list(taps)).sum(0) / 8
    return values


def _padded(values: Tensor) -> Tensor:
    """A picture of shape (height, width, channels) with its border repeated."""
    planes = torch.nn.functional.pad(values.movedim(-1, 0), (1, 1, 1, 1), mode="replicate")
    return planes.movedim(0, -1)


def _size(values: Tensor) -> tuple[int, int]:
    return values.shape[0], values.shape[1]
