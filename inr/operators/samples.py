"""Operators on samples: noisy ones, some of them, means over blocks of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from inr.errors import InputError, UsageError
from inr.operators.base import Operator, floating, resized

if TYPE_CHECKING:
    from torch import Tensor

    from inr.signals.base import Domain, GridSignal


@dataclass(frozen=True, kw_only=True)
class Denoise(Operator):
    """A signal with noise: the observations are its samples.

    What is simulated is a camera's noise as by Saragadam et al. 2023 (WIRE): Poisson noise of
    photons, then Gaussian noise of reading them.

    Args:
        tv: As for any operator; null: what the noise and the signal call for, as the observations
            themselves tell (`inr.operators.priors.denoising_weight`).
        photons: Mean number of photons at the brightest value, when simulated.
        read_noise: Standard deviation of reading, in photons, when simulated.
    """

    name: ClassVar[str] = "denoise"
    pointwise: ClassVar[bool] = True

    tv: float | None = None
    photons: float = 30.0
    read_noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("photons", 0 < self.photons < 1e9, "a number above 0")
        self.check("read_noise", 0 <= self.read_noise < 1e9, "a number from 0 up")

    def bound(self, source: GridSignal) -> Operator:
        if self.tv is not None:
            return self
        from inr.operators.priors import denoising_weight

        return dataclasses.replace(self, tv=denoising_weight(source.values))

    def domain(self, source: GridSignal) -> Domain:
        return source.domain

    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        return source.values

    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Operator]:
        domain: Any = floating(clean.domain)
        draw = np.random.default_rng(self.seed)
        light = (clean.values.cpu().numpy().astype(np.float64) + 1) / 2
        counted = draw.poisson(light.clip(0) * self.photons)
        read = counted + self.read_noise * draw.standard_normal(light.shape)
        noisy = domain.low + read / self.photons * (domain.high - domain.low)
        return type(clean)(domain, noisy.astype(domain.to_samples(light[:0]).dtype)), self


@dataclass(frozen=True, kw_only=True)
class Inpaint(Operator):
    """Some of the samples.

    Args:
        mask: File that says which: a picture (or array) of the signal's shape, bright where a
            sample is known.
        keep: Instead of it, the fraction of samples that are looked at, drawn at random.
    """

    name: ClassVar[str] = "inpaint"
    pointwise: ClassVar[bool] = True

    tv: float | None = 0.03
    mask: str | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mask is None) == (self.keep is None):
            raise UsageError("inpaint needs operator.mask, a file, or operator.keep, a fraction")
        self.check("keep", self.keep is None or 0 < self.keep <= 1, "a number in (0, 1]")

    def domain(self, source: GridSignal) -> Domain:
        return source.domain

    def known(self, domain: Domain) -> np.ndarray | None:
        shape = domain.shape
        if self.mask is not None:
            known = _read_mask(self.mask, shape)
        else:
            import torch

            from fields import seeded

            assert self.keep is not None
            lots = seeded.uniform(self.seed, 0, (math.prod(shape),), device="cpu")
            drawn = torch.zeros(len(lots), dtype=torch.bool)
            drawn[lots.argsort(stable=True)[: round(self.keep * len(lots))]] = True
            known = drawn.reshape(shape).numpy()
        if not known.any():
            told = f"{self.mask}: no sample is known; white is what is known"
            raise InputError(told if self.mask else f"operator.keep {self.keep:g} keeps no sample")
        return known

    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        import torch

        known = torch.from_numpy(self.known(domain)).to(source.values.device)
        mean = source.values[known].mean(0)
        return torch.where(known[..., None], source.values, mean)

    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Operator]:
        return clean, self


@dataclass(frozen=True, kw_only=True)
class SuperResolve(Operator):
    """Means over blocks of samples: a signal of lower resolution.

    Args:
        factor: Samples per block along each axis.
    """

    name: ClassVar[str] = "superresolve"

    tv: float | None = 0.01
    factor: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("factor", 2 <= self.factor <= 64, "a whole number from 2 to 64")

    @property
    def stretch(self) -> int:
        return self.factor

    def domain(self, source: GridSignal) -> Domain:
        return resized(source.domain, [n * self.factor for n in source.domain.shape])

    def observe(self, values: Tensor) -> Tensor:
        for axis in range(values.ndim - 1):
            values = values.unflatten(axis, (-1, self.factor)).mean(axis + 1)
        return values

    def guess(self, source: GridSignal, domain: Domain) -> Tensor:
        values = source.values
        for axis in range(values.ndim - 1):
            values = values.repeat_interleave(self.factor, axis)
        return values

    def simulate(self, clean: GridSignal) -> tuple[GridSignal, Operator]:
        shape = clean.domain.shape
        if any(n % self.factor for n in shape):
            size = " x ".join(map(str, shape))
            raise InputError(f"{size} is no multiple of operator.factor {self.factor}: crop it")
        small = resized(clean.domain, [n // self.factor for n in shape])
        samples = small.to_samples(self.observe(clean.values).cpu().numpy())
        return type(clean)(small, samples), self


def _read_mask(path: str, shape: Sequence[int]) -> np.ndarray:
    """Where a picture (or, of other than two axes, an array) is brighter than half its range.

    Raises:
        InputError: it cannot be read, or has another shape.
    """
    from inr.signals import open_signal

    mask: Any = open_signal(path, kind="image" if len(shape) == 2 else "array")
    found = mask.domain.shape
    if found != tuple(shape):
        sizes = [" x ".join(map(str, s)) for s in (found, shape)]
        raise InputError(f"{path}: the mask is {sizes[0]}, what it is for {sizes[1]}")
    colours = max(1, mask.channels - 1) if mask.channels in (2, 4) else mask.channels
    return np.asarray(mask.values[..., :colours].mean(-1) > 0)
