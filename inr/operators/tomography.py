"""Computed tomography: parallel-beam projections, differentiable, and filtered back-projection.

The geometry is that of `skimage.transform.radon`: the picture turns about pixel n // 2, is sampled
bilinearly on the turned lattice, with zeros around it, and is summed along columns.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from inr.errors import InputError
from inr.limits import Limits
from inr.operators.base import Operator, check_range, observations, physical

if TYPE_CHECKING:
    from inr.signals.base import Domain, GridSignal

BLOCK_NUMBERS = 1 << 22
"""Samples of turned pictures that are held at a time; with a gradient they are computed anew."""


def project(picture: Tensor, angles: Tensor, *, circle: bool = True) -> Tensor:
    """Line integrals of a picture in each direction, in units of value times pixel.

    Args:
        picture: Shape (n, n); zero outside of its inscribed circle, if `circle`.
        angles: Degrees, shape (k,).
        circle: Whether the detectors span the picture's side, n of them; else its diagonal.

    Returns:
        Shape (detectors, k).
    """
    if not circle:
        picture = _padded(picture)
    step = max(1, BLOCK_NUMBERS // picture.numel())
    parts = [checkpoint(_turned, picture, some, use_reentrant=False) for some in angles.split(step)]
    return torch.cat(parts).T


def back_project(sinogram: Tensor, angles: Tensor, *, circle: bool = True) -> Tensor:
    """Filtered back-projection with the ramp filter; shape (n, n), n by `side`.

    Args:
        sinogram: Shape (detectors, k).
        angles: Degrees, shape (k,), evenly over half a turn.
        circle: As in `project`.
    """
    detectors, count = sinogram.shape
    padded = max(64, 1 << math.ceil(math.log2(2 * detectors)))
    # the transform of the band-limited ramp's samples: that of |f| itself would lower the mean
    places = torch.arange(padded, device=sinogram.device)
    places = torch.minimum(places, padded - places)
    ramp = torch.where(places % 2 == 1, -1 / (math.pi * places.clamp(min=1)) ** 2, 0.0)
    ramp[0] = 0.25
    spectrum = torch.fft.rfft(sinogram, n=padded, dim=0) * 2 * torch.fft.rfft(ramp).real[:, None]
    filtered = torch.fft.irfft(spectrum, n=padded, dim=0)[:detectors]
    n = side(detectors, circle=circle)
    picture = torch.zeros(n, n, dtype=sinogram.dtype, device=sinogram.device, requires_grad=True)
    with torch.enable_grad():
        projected = project(picture, angles, circle=circle)
        (adjoint,) = torch.autograd.grad(projected, picture, filtered)
    return adjoint * (math.pi / (2 * count))


@dataclass(frozen=True, kw_only=True)
class Ct(Operator):
    """A sinogram: line integrals of a square grey picture by parallel beams, angle by angle.

    A sinogram has a row for each detector and a column for each angle, as
    `skimage.transform.radon` gives it, in units of value times pixel.

    Args:
        angles: Number of angles, when simulated; else the sinogram has them.
        start: First angle in degrees.
        stop: Where the angles end.
        endpoint: Whether the last angle is `stop` itself, as in the code of WIRE, or a step before
            it, so that half a turn holds no direction twice.
        circle: Whether the detectors span the picture's side, or else its diagonal.
        low: The picture's lowest value.
        high: Its highest value. null: that of the filtered back-projection.
    """

    name: ClassVar[str] = "ct"

    tv: float | None = 0.001
    angles: int = 100
    start: float = 0.0
    stop: float = 180.0
    endpoint: bool = False
    circle: bool = True
    low: float = 0.0
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("angles", 1 <= self.angles <= 1 << 16, "a whole number from 1 to 65,536")
        self.check("start", abs(self.start) < 1e6, "degrees")
        self.check("stop", abs(self.stop) < 1e6, "degrees")
        check_range(self)

    @property
    def windowed(self) -> bool:
        return False

    def domain(self, source: GridSignal) -> Domain:
        from inr.signals.image import ImageDomain

        shape, channels = source.domain.shape, source.channels
        if len(shape) != 2 or channels != 1:
            size = " x ".join(map(str, (*shape, channels)))
            raise InputError(f"is {size}: a sinogram has detectors x angles, and one channel")
        n = side(shape[0], circle=self.circle)
        if n < 2:
            raise InputError(f"has {shape[0]} detectors: a sinogram has a row for each")
        Limits().check_samples((n, n))
        high = self.high
        if high is None:
            found = float(self._reconstruction(source).max())
            high = found if found > self.low else self.low + 1
        return ImageDomain(n, n, 1, 32, float(self.low), float(high))

    def observe(self, values: Tensor) -> Tensor:
        return project(values[..., 0], self.degrees(self.angles), circle=self.circle)[..., None]

    def constant(self, domain: Domain) -> Tensor | float:
        return self.observe(torch.ones(*domain.shape, 1))

    def bound(self, source: GridSignal) -> Operator:
        return dataclasses.replace(self, angles=source.domain.shape[1])

    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        values = domain.to_values(self._reconstruction(source).numpy())
        return torch.from_numpy(values)[..., None].clamp(-1, 1).to(source.values)

    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Operator]:
        shape = clean.domain.shape
        if len(shape) != 2 or shape[0] != shape[1] or clean.channels != 1:
            size = " x ".join(map(str, (*shape, clean.channels)))
            raise InputError(f"is {size}: what is projected is a square grey picture")
        return observations(self.observe(physical(clean))), self

    def _reconstruction(self, source: GridSignal) -> Tensor:
        sinogram = physical(source)[..., 0]
        return back_project(sinogram, self.degrees(sinogram.shape[1]), circle=self.circle)

    def degrees(self, count: int) -> Tensor:
        """So many angles as the options lay them, in degrees."""
        steps = max(count - 1, 1) if self.endpoint else count
        return self.start + (self.stop - self.start) / steps * torch.arange(count)


def side(detectors: int, *, circle: bool) -> int:
    """Side of the picture that so many detectors see."""
    return detectors if circle else math.isqrt(detectors * detectors // 2)


def _padded(picture: Tensor) -> Tensor:
    """The picture in a square as wide as its diagonal, its centre in the square's."""
    n = len(picture)
    wide = math.ceil(math.sqrt(2) * n)
    before = wide // 2 - n // 2
    return torch.nn.functional.pad(picture, (before, wide - n - before) * 2)


def _turned(picture: Tensor, angles: Tensor) -> Tensor:
    """Column sums of the picture, turned by each angle; shape (k, n)."""
    n = len(picture)
    centre = n // 2
    offsets = torch.arange(n, dtype=picture.dtype, device=picture.device) - centre
    turn = torch.deg2rad(angles.to(picture))[:, None, None]
    y, x = offsets[:, None], offsets[None, :]
    columns = turn.cos() * x + turn.sin() * y + centre
    rows = turn.cos() * y - turn.sin() * x + centre
    lattice = torch.stack([columns, rows], dim=-1) * (2 / max(n - 1, 1)) - 1
    copies = picture.expand(len(angles), 1, n, n)
    return torch.nn.functional.grid_sample(copies, lattice, align_corners=True).sum((1, 2))
