"""What a signal and its domain are: the lattice, the units, and what a decoder must know.

A `Domain` is small, immutable and torch-free: it goes into the file, and all that decoding needs
is in it. A `Signal` is a domain with values, and exists only where something is fitted or compared.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from inr.metrics import psnr

if TYPE_CHECKING:
    import numpy as np
    import torch
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
    def to_values(self, samples: np.ndarray) -> np.ndarray:
        """Normalise samples of the signal's own type to [-1, 1], in `precision`."""

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

    @property
    def count(self) -> int:
        """Numbers over which a loss is a mean."""
        return self.values.numel()

    def tiles(self, points: int) -> Iterator[Batch]:
        """Bands of whole rows (then parts of a row) with at most about `points` points each."""
        inner = math.prod(len(axis) for axis in self.axes[1:])
        bands = max(1, points // max(inner, 1))
        starts = range(0, len(self.axes[0]), bands)
        for start in starts:
            rows = slice(start, start + bands)
            yield Batch([self.axes[0][rows], *self.axes[1:]], self.values[rows])

    def pick(self, indices: Tensor) -> Points:
        """Scattered samples by their places in the flattened lattice, shape (n,)."""
        import torch

        places = torch.unravel_index(indices, self.values.shape[:-1])
        coords = [axis[i.to(axis.device)] for axis, i in zip(self.axes, places, strict=True)]
        flat = self.values.flatten(0, -2)
        return Points(torch.stack(coords, dim=-1), flat.index_select(0, indices.to(flat.device)))

    def evaluate(self, field: Field) -> Tensor:
        """A field's values on the lattice, of the shape of `values`."""
        return field.on_grid(self.axes)

    def outputs(self, field: Field) -> list[Tensor]:
        """All outputs of a field that are trained (see `Field.supervised`), its own last."""
        return field.supervised(self.axes)

    def squared_error(self, field: Field) -> Tensor:
        """A field's sum of squared errors (see `Field.squared_error`)."""
        return field.squared_error(self.axes, self.values)


@dataclass
class Points:
    """Scattered coordinates and the values at them.

    Args:
        coords: Shape (n, axes).
        values: Shape (n, channels), in [-1, 1].
    """

    coords: Tensor
    values: Tensor

    @property
    def count(self) -> int:
        """Numbers over which a loss is a mean."""
        return self.values.numel()

    def tiles(self, points: int) -> Iterator[Points]:
        """Parts of at most `points` points each."""
        parts = zip(self.coords.split(points), self.values.split(points), strict=True)
        yield from itertools.starmap(Points, parts)

    def pick(self, indices: Tensor) -> Points:
        """Some of the samples, by their places, shape (n,)."""
        return Points(self.coords[indices], self.values[indices])

    def evaluate(self, field: Field) -> Tensor:
        """A field's values at the points, of the shape of `values`."""
        return field(self.coords)

    def outputs(self, field: Field) -> list[Tensor]:
        """All outputs of a field that are trained (see `Field.supervised_at`), its own last."""
        return field.supervised_at(self.coords)

    def squared_error(self, field: Field) -> Tensor:
        """A field's sum of squared errors (see `Field.squared_error_at`)."""
        return field.squared_error_at(self.coords, self.values)


class Measured(NamedTuple):
    """Mean squares over all samples.

    Args:
        exact: Squared error of clipped values in [-1, 1], before they become samples.
        rounded: Squared error in the signal's own type and units.
        power: The signal's own square, in these units.
    """

    exact: float
    rounded: float
    power: float


class Signal(ABC):
    """What a field is fitted to: it hands out batches, says how far off a field is, and how good.

    Attributes:
        shown: Names of the metrics that are told beside the PSNR.
        complete: Whether it is the signal itself, which a file can be compared with, and not only
            what was observed of it.
    """

    shown: ClassVar[tuple[str, ...]] = ()
    complete: ClassVar[bool] = True
    domain: Domain

    @property
    def channels(self) -> int:
        """Values per sample."""
        return self.domain.channels

    @property
    @abstractmethod
    def count(self) -> int:
        """Samples; where there are no more than a recipe's batch, a step takes all of them."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Floating-point type of values and coordinates."""

    @property
    def preset(self) -> str | None:
        """The preset that suits this very signal, where it is not the default of its kind."""
        return None

    @property
    def objection(self) -> str | None:
        """Why `inr fit` should refuse it, though it can be read; mostly None."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and chosen when the signal was read, a line each, for people."""
        return ()

    @abstractmethod
    def to(self, device: str) -> Self:
        """The same signal with its values on another device."""

    @abstractmethod
    def digest(self) -> str:
        """Hash of what is fitted: a fit is resumed on the same signal only."""

    @abstractmethod
    def statistics(self) -> SignalStatistics:
        """What `Field.adapt` may look at."""

    @abstractmethod
    def full_batch(self) -> Batch | Points:
        """All samples."""

    @abstractmethod
    def random_batch(self, points: int, generator: torch.Generator) -> Batch | Points:
        """About `points` samples, drawn anew; every sample is equally likely."""

    @abstractmethod
    def probe(self, points: int) -> Batch | Points:
        """At most about `points` samples, the same at each call, to compare fields by."""

    def differences(self, field: Field, batch: Batch | Points) -> Tensor:
        """How far a field is off at a batch's samples, of the shape of its values.

        Teaching goes by it; a loss that is no sum of its squares has it otherwise.
        """
        return batch.evaluate(field) - batch.values

    def loss(self, field: Field, batch: Any) -> Tensor:
        """Sum of squared errors over a batch; the trainer divides by its `count`.

        For a field of several trained outputs it is the mean of their sums.
        """
        return batch.squared_error(field)

    @abstractmethod
    def metrics(self, field: Field) -> dict[str, float]:
        """Quality of a field on this signal, weights frozen; `psnr` and `psnr_float` among it."""

    def metric(self, name: str, field: Field) -> float:
        """One of the metrics; by itself it may cost less than all of them."""
        return self.metrics(field)[name]

    def quality(self, field: Field) -> float:
        """PSNR in dB, by which budgets end fits and files are held to what was asked."""
        return self.metrics(field)["psnr"]

    def verdict(self, field: Field, metrics: dict[str, float]) -> list[str]:
        """What is wrong with a fitted field, a line each, for people; mostly nothing."""
        return []


def sample_axes(domain: Domain, device: str) -> list[Tensor]:
    """Coordinates of a domain's samples, one vector per axis."""
    import torch

    return [
        torch.from_numpy(domain.cell_centres(i, 0, n, n)).to(device)
        for i, n in enumerate(domain.shape)
    ]


KEPT_VALUES = 1 << 26
"""Signals of at most so many numbers keep them as floats too; larger ones make what is asked for,
each time."""

DIGEST_BYTES = 1 << 24


class GridSignal(Signal):
    """A signal whose values are known on a full lattice.

    Args:
        domain: Its domain.
        samples: Shape (*domain.shape, channels), in the signal's own type; it may lie in a file.
        values: The same in [-1, 1], in the domain's precision; made from `samples` if not given.
    """

    def __init__(self, domain: Domain, samples: np.ndarray, values: Tensor | None = None) -> None:
        self.domain = domain
        self.samples = samples
        self.device = "cpu" if values is None else str(values.device)
        self._values = values
        self._axes: list[Tensor] = []

    @property
    def count(self) -> int:
        return math.prod(self.domain.shape)

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.float64 if self.domain.precision == "float64" else torch.float32

    @property
    def values(self) -> Tensor:
        """All values in [-1, 1], shape (*domain.shape, channels); see `rows` for large signals."""
        if self._values is None:
            values = self._converted(self.samples)
            if self.samples.size > KEPT_VALUES:
                return values
            self._values = values
        return self._values

    @values.setter
    def values(self, values: Tensor) -> None:
        self._values = values

    def rows(self, rows: slice) -> Tensor:
        """Values on some rows of the first axis."""
        if self._values is None and self.samples.size > KEPT_VALUES:
            return self._converted(self.samples[rows])
        return self.values[rows]

    def pick(self, indices: Tensor) -> Points:
        """Scattered samples by their places in the flattened lattice, shape (n,)."""
        import torch

        if self._values is not None or self.samples.size <= KEPT_VALUES:
            return self.full_batch().pick(indices)
        places = torch.unravel_index(indices, self.domain.shape)
        axes = zip(self.axes(), places, strict=True)
        coords = torch.stack([axis[i.to(axis.device)] for axis, i in axes], dim=-1)
        return Points(coords, self._converted(self.samples[tuple(i.cpu().numpy() for i in places)]))

    def axes(self) -> list[Tensor]:
        """Coordinates of the samples, one vector per axis."""
        if not self._axes:  # a long sound's are no trifle at every step
            self._axes = sample_axes(self.domain, self.device)
        return self._axes

    def to(self, device: str) -> Self:
        moved = copy.copy(self)
        moved.device = device
        moved._axes = []
        if self._values is not None:
            moved._values = self._values.to(device)
        return moved

    def digest(self) -> str:
        found = hashlib.blake2b(digest_size=16)
        rows = max(1, DIGEST_BYTES * len(self.samples) // self.samples.nbytes)
        for start in range(0, len(self.samples), rows):
            found.update(self.samples[start : start + rows].tobytes())
        return found.hexdigest()

    def statistics(self) -> SignalStatistics:
        from fields.base import SignalStatistics

        if self._values is None and self.samples.size > KEPT_VALUES:
            return SignalStatistics(
                lambda place: self._converted(self.samples[place]), self.samples.shape
            )
        return SignalStatistics(self.values)

    def full_batch(self) -> Batch:
        return Batch(self.axes(), self.values)

    def random_batch(self, points: int, generator: torch.Generator) -> Batch:
        """A random sub-lattice of about `points` samples, stratified along each axis.

        Each axis is cut into equal stretches and one sample is drawn from each, so that every
        sample is equally likely and the batch stays a product that separable fields like.
        """
        import numpy as np
        import torch

        shape = self.domain.shape
        keep = (points / math.prod(shape)) ** (1 / len(shape))
        chosen: list[Tensor] = []
        for n in shape:
            m = max(1, min(n, round(n * keep)))
            offsets = torch.rand(m, generator=generator)
            chosen.append(((torch.arange(m) + offsets) * (n / m)).long().clamp(max=n - 1))
        axes = [a[i.to(a.device)] for a, i in zip(self.axes(), chosen, strict=True)]
        if self._values is None and self.samples.size > KEPT_VALUES:
            gathered = self.samples[np.ix_(*(i.numpy() for i in chosen))]
            return Batch(axes, self._converted(gathered))
        values = self.values
        for axis, index in enumerate(chosen):
            values = values.index_select(axis, index.to(values.device))
        return Batch(axes, values)

    def probe(self, points: int) -> Batch:
        import torch

        if self.count <= points:
            return self.full_batch()
        return self.random_batch(points, torch.Generator().manual_seed(0))

    def measure(
        self, field: Field, watch: Callable[[np.ndarray, np.ndarray], None] | None = None
    ) -> Measured:
        """Errors of a field on all samples, band by band.

        Args:
            field: The field.
            watch: Called for each band with the samples and their decode, both as float64.
        """
        import numpy as np

        from inr.rendering import bands

        exact = rounded = power = 0.0
        for rows, values in bands(field, self.axes()):
            clipped = values.clamp(-1, 1)
            exact += float((clipped - self.rows(rows)).double().square().sum())
            decoded = self.domain.to_samples(values.cpu().numpy()).astype(np.float64)
            original = self.samples[rows].astype(np.float64)
            rounded += float(np.square(decoded - original).sum())
            power += float(np.square(original).sum())
            if watch is not None:
                watch(original, decoded)
        n = self.samples.size
        return Measured(exact / n, rounded / n, power / n)

    def metrics(self, field: Field) -> dict[str, float]:
        """`psnr` of the decode in the signal's own type, `psnr_float` before rounding.

        Both clip to the range; R is `domain.peak`, and 2 before rounding.
        """
        errors = self.measure(field)
        return {
            "psnr": psnr(errors.rounded, self.domain.peak),
            "psnr_float": psnr(errors.exact, 2.0),
        }

    def _converted(self, samples: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(self.domain.to_values(samples)).to(self.device)
