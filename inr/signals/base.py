"""What a signal and its domain are: the lattice, the units, and what a decoder must know.

A `Domain` is small, immutable and torch-free: it goes into the file, and all that decoding needs
is in it. A `Signal` is a domain with values, and exists only where something is fitted or compared.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fields.base import Field, SignalStatistics


class Domain(ABC):
    """Where samples lie and what their values mean.

    Attributes:
        kind: Permanent name of the signal's kind, as files carry it.
        shape: Samples per axis, 'ij' order.
        channels: Values per sample.
    """

    kind: ClassVar[str]
    shape: tuple[int, ...]
    channels: int

    @abstractmethod
    def header(self) -> list[Any]:
        """What the file header carries: a short list of numbers and short texts."""

    @classmethod
    @abstractmethod
    def from_header(cls, items: Any) -> Self:
        """Inverse of `header`; raises CorruptFile on anything else."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Facts for `inr info`, JSON-ready."""

    @abstractmethod
    def to_samples(self, values: np.ndarray) -> np.ndarray:
        """Turn normalised values in [-1, 1] (clipped) into the signal's own type and range."""

    @property
    @abstractmethod
    def peak(self) -> float:
        """The range R of PSNR, in units of `to_samples`."""

    @property
    @abstractmethod
    def grain(self) -> float:
        """The smallest difference that the samples can tell, in normalised values."""

    @property
    def precision(self) -> str:
        """Floating-point type of normalised values and coordinates, "float32" or "float64"."""
        return "float32"

    def density(self, file_bytes: int) -> dict[str, float]:
        """What a file of that many bytes costs per unit of the signal, the usual figure first."""
        return {"bits_per_sample": 8 * file_bytes / (math.prod(self.shape) * self.channels)}

    def first_edge(self, start: float, width: float) -> float:
        """Where the cells of a rendering that starts at `start` begin, each `width` samples wide.

        A sample of the rendering lies at the centre of its cell.
        """
        return start

    def cell_centres(self, axis: int, start: float, stop: float, n: int) -> np.ndarray:
        """Coordinates of the centres of n equal cells of [start, stop], given in samples."""
        import numpy as np

        samples = start + (np.arange(n) + 0.5) * ((stop - start) / n)
        return (2 * samples / self.shape[axis] - 1).astype(self.precision)


@dataclass
class Batch:
    """A product lattice of coordinates and the values on it.

    Args:
        axes: One coordinate vector per axis.
        values: Shape (*lengths of axes, channels), in [-1, 1].
    """

    axes: list[Tensor]
    values: Tensor

    def tiles(self, points: int) -> Iterator[Batch]:
        """Bands of whole rows (then parts of a row) with at most about `points` points each."""
        inner = math.prod(len(axis) for axis in self.axes[1:])
        bands = max(1, points // max(inner, 1))
        starts = range(0, len(self.axes[0]), bands)
        for start in starts:
            rows = slice(start, start + bands)
            yield Batch([self.axes[0][rows], *self.axes[1:]], self.values[rows])


class GridSignal(ABC):
    """A signal whose values are known on a full lattice.

    Args:
        domain: Its domain.
        values: Shape (*domain.shape, channels), in [-1, 1], in the domain's precision.
        samples: The same in the signal's own type, for metrics on rounded values.
    """

    def __init__(self, domain: Domain, samples: np.ndarray, values: Tensor) -> None:
        self.domain = domain
        self.samples = samples
        self.values = values
        self._axes: list[Tensor] = []

    @property
    def channels(self) -> int:
        """Values per sample."""
        return self.domain.channels

    def axes(self) -> list[Tensor]:
        """Coordinates of the samples, one vector per axis."""
        import torch

        if not self._axes:  # a long sound's are no trifle at every step
            domain = self.domain
            self._axes = [
                torch.from_numpy(domain.cell_centres(i, 0, n, n)).to(self.values.device)
                for i, n in enumerate(domain.shape)
            ]
        return self._axes

    def to(self, device: str) -> Self:
        """The same signal with its values on another device."""
        return type(self)(self.domain, self.samples, self.values.to(device))

    def statistics(self) -> SignalStatistics:
        """What `Field.adapt` may look at."""
        from fields.base import SignalStatistics

        return SignalStatistics(self.values)

    def full_batch(self) -> Batch:
        """All samples."""
        return Batch(self.axes(), self.values)

    def random_batch(self, points: int, generator: Any) -> Batch:
        """A random sub-lattice of about `points` samples, stratified along each axis.

        Each axis is cut into equal stretches and one sample is drawn from each, so that every
        sample is equally likely and the batch stays a product that separable fields like.
        """
        import torch

        shape = self.domain.shape
        keep = (points / math.prod(shape)) ** (1 / len(shape))
        chosen: list[Tensor] = []
        for n in shape:
            m = max(1, min(n, round(n * keep)))
            offsets = torch.rand(m, generator=generator)
            chosen.append(((torch.arange(m) + offsets) * (n / m)).long().clamp(max=n - 1))
        values = self.values
        for axis, index in enumerate(chosen):
            values = values.index_select(axis, index.to(values.device))
        axes = [a[i.to(a.device)] for a, i in zip(self.axes(), chosen, strict=True)]
        return Batch(axes, values)

    def loss(self, field: Field, batch: Batch) -> Tensor:
        """Sum of squared errors over a batch; the trainer divides by the number of values.

        For a field of several trained outputs it is the mean of their sums.
        """
        import torch

        outputs = field.supervised(batch.axes)
        return torch.stack([(out - batch.values).square().sum() for out in outputs]).mean()

    @abstractmethod
    def metrics(self, field: Field) -> dict[str, float]:
        """Quality of a field on this signal, weights frozen."""
