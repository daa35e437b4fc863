"""A signal seen through an operator: fitted by what was observed of it.

field --> samples on the signal's lattice --> operator --> compared with what was observed
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from inr.errors import InputError
from inr.limits import Limits
from inr.metrics import psnr
from inr.operators.priors import curvature, total_variation
from inr.signals.base import Batch, Domain, GridSignal, Points, Signal, sample_axes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fields.base import Field, SignalStatistics
    from inr.operators.base import Operator


class Observed(Signal):
    """A signal of which only observations are known.

    They are normalised to [-1, 1] by their own range, and so is the error: `psnr` is that of the
    field's observations against the given ones, with R = 2. It is no quality of the
    reconstruction. A file carries none (see `complete`).

    Args:
        source: The observations.
        operator: What they are of the signal.
        domain: The signal's domain; if not given, as the operator finds it.
        truth: The signal itself, where it is known: `metrics` then has `psnr_truth`, that of the
            decode in the signal's own type. Nothing else looks at it.
        limits: How large the signal may be.

    Raises:
        InputError: the observations cannot be such, or the truth has another shape.
        LimitExceeded: the signal is larger than `limits` allow.
        UsageError: the operator's options do not suit them.
    """

    shown: ClassVar[tuple[str, ...]] = ("psnr_truth",)
    complete: ClassVar[bool] = False

    def __init__(
        self,
        source: GridSignal,
        operator: Operator,
        domain: Domain | None = None,
        truth: GridSignal | None = None,
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        import torch

        if not isinstance(source, GridSignal):
            raise InputError("its samples lie on no lattice: it cannot be seen through an operator")
        self.source = source
        self.operator = operator.bound(source)
        self.domain = self.operator.domain(source) if domain is None else domain
        limits.check_samples((*self.domain.shape, self.domain.channels))
        self.truth = truth
        if truth is not None:
            wanted, found = (_size(d) for d in (self.domain, truth.domain))
            if wanted != found:
                raise InputError(f"the truth is {found}: what is reconstructed is {wanted}")
        known = self.operator.known(self.domain)
        self.known = None if known is None else torch.from_numpy(known)
        self.centre = self.operator.centre(self.domain)
        self.gain, self.offset = self._scaling()
        self._axes: list[Tensor] = []

    @classmethod
    def simulated(cls, clean: GridSignal, operator: Operator) -> Self:
        """Observations made of a signal that is known, which is then the truth.

        Raises:
            InputError: the signal cannot be seen so.
        """
        source, operator = operator.simulate(clean)
        return cls(source, operator, clean.domain, clean)

    @property
    def count(self) -> int:
        if self._scattered:
            assert self.known is not None
            return int(self.known.sum())
        return math.prod(self.domain.shape)

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.float64 if self.domain.precision == "float64" else torch.float32

    @property
    def preset(self) -> str | None:
        return f"image/{self.operator.name}" if self.domain.kind == "image" else None

    @property
    def notes(self) -> tuple[str, ...]:
        shapes = (self.source.domain.shape, self.domain.shape)
        seen, whole = (" x ".join(map(str, shape)) for shape in shapes)
        if self.known is not None:
            known = int(self.known.sum())
            share = known / math.prod(self.domain.shape)
            return (f"{known:,} samples of {whole} are known, {100 * share:.1f} %",)
        return (f"{self.operator.name}: {whole} from {seen}",)

    def to(self, device: str) -> Self:
        moved = copy.copy(self)
        moved._axes = []
        moved.source = self.source.to(device)
        moved.truth = None if self.truth is None else self.truth.to(device)
        moved.known = None if self.known is None else self.known.to(device)
        moved.offset = self.offset.to(device)
        return moved

    def digest(self) -> str:
        facts = [
            self.source.digest(),
            self.operator.name,
            dataclasses.asdict(self.operator),
            self.domain.header(),
        ]
        found = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        if self.known is not None:
            found.update(self.known.cpu().numpy().tobytes())
        return found.hexdigest()

    def axes(self) -> list[Tensor]:
        """Coordinates of the signal's samples, one vector per axis."""
        if not self._axes:
            self._axes = sample_axes(self.domain, self.source.device)
        return self._axes

    def statistics(self) -> SignalStatistics:
        from fields.base import SignalStatistics

        return SignalStatistics(self.operator.guess(self.source, self.domain).to(self.dtype))

    def full_batch(self) -> Batch | Points:
        if self._scattered:
            return self.source.pick(self._places())
        if self._plain:
            return self.source.full_batch()
        return self._window([slice(0, n) for n in self.domain.shape], self.axes())

    def random_batch(self, points: int, generator: torch.Generator) -> Batch | Points:
        import torch

        if self._scattered:
            places = self._places()
            chosen = torch.randint(len(places), (points,), generator=generator)
            return self.source.pick(places[chosen.to(places.device)])
        if self._plain:
            return self.source.random_batch(points, generator)
        if not self.operator.windowed:
            return self.full_batch()
        return self._random_window(points, generator)

    def probe(self, points: int) -> Batch | Points:
        import torch

        if self.count <= points:
            return self.full_batch()
        return self.random_batch(points, torch.Generator().manual_seed(0))

    def loss(self, field: Field, batch: Any) -> Tensor:
        """Sum of what the operator makes of errors, and of the priors' share of a batch."""
        import torch

        if not isinstance(batch, Seen):
            return super().loss(field, batch)
        losses = [
            self.operator.error(found - batch.values) + batch.penalty(field, samples)
            for found, samples in batch.passes(field)
        ]
        return batch.count * torch.stack(losses).mean()

    def metrics(self, field: Field) -> dict[str, float]:
        """`psnr` of the observations, and of the reconstruction where the truth is known.

        The former is not rounded, so that `psnr_float` is the same.
        """
        found = self.quality(field)
        metrics = {"psnr": found, "psnr_float": found}
        if self.truth is not None:
            errors = GridSignal.measure(self.truth, field)
            metrics["psnr_truth"] = psnr(errors.rounded, self.truth.domain.peak)
        return metrics

    def quality(self, field: Field) -> float:
        import torch

        from inr.rendering import bands

        total = 0.0
        count = 0
        for window in self._windows():
            with torch.no_grad(), field.one_step():
                if self.operator.exact:
                    found = window.evaluate(field)
                else:
                    samples = torch.cat([v for _, v in bands(field, window.axes)])
                    found = self.scaled(self.operator.observe(samples.clamp(-1, 1)), window.where)
                total += float((found - window.values).double().square().sum())
            count += window.count
        return psnr(total / count, 2.0)

    def scaled(self, seen: Tensor, where: tuple[slice, ...]) -> Tensor:
        """The operator's view of a window's normalised values, as the observations are."""
        return self._made(self.gain * seen + self.offset, where)

    @property
    def _plain(self) -> bool:
        """Whether samples are compared one by one, and no prior looks at their neighbours."""
        return self.operator.pointwise and not (self.operator.tv or self.operator.curvature)

    @property
    def _scattered(self) -> bool:
        return self._plain and self.known is not None

    def _places(self) -> Tensor:
        assert self.known is not None
        return self.known.flatten().nonzero()[:, 0]

    def _scaling(self) -> tuple[float, Tensor]:
        """Gain and offset from the operator's view of normalised values to the observations'."""
        import torch

        from inr.operators.base import middle_and_half

        if self.domain is self.source.domain or self.operator.stretch > 1:
            return 1.0, torch.zeros(())
        middle, half = middle_and_half(self.domain)
        seen_middle, seen_half = middle_and_half(self.source.domain)
        constant = torch.as_tensor(self.operator.constant(self.domain))
        return half / seen_half, ((middle * constant - seen_middle) / seen_half).to(self.dtype)

    def _window(self, where: Sequence[slice], spread: list[Tensor]) -> Seen:
        """A window of samples; `spread` as `Seen` has it."""
        where = tuple(where)
        axes = [axis[part] for axis, part in zip(self.axes(), where, strict=True)]
        values = self.source.values
        if self.operator.windowed:
            stretch = self.operator.stretch
            values = values[tuple(slice(w.start // stretch, w.stop // stretch) for w in where)]
        return Seen(axes, self._made(values, where), self, where, spread)

    def _made(self, observations: Tensor, where: tuple[slice, ...]) -> Tensor:
        """Of observations of a window those that were made."""
        return observations if self.known is None else observations[self.known[where]]

    def _random_window(self, points: int, generator: torch.Generator) -> Seen:
        """A block of about so many samples; each is in equally many of those that may be drawn."""
        import torch

        shape, stretch = self.domain.shape, self.operator.stretch
        share = (points / math.prod(shape)) ** (1 / len(shape))
        where = []
        for n in shape:
            cells = n // stretch
            wide = max(1, min(cells, round(cells * share)))
            # blocks may hang over the border, where they are cut off
            at = int(torch.randint(1 - wide, cells, (1,), generator=generator))
            where.append(slice(max(0, at) * stretch, min(cells, at + wide) * stretch))
        spread = [
            axis[torch.randint(len(axis), (32,), generator=generator).to(axis.device)]
            for axis in self.axes()
        ]
        return self._window(where, spread)

    def _windows(self) -> Iterator[Seen]:
        """The whole lattice, in bands of rows where parts can be seen for themselves."""
        from inr.rendering import BAND_POINTS

        n, *others = self.domain.shape
        rows = n
        if self.operator.windowed:
            stretch = self.operator.stretch
            rows = max(1, BAND_POINTS // (math.prod(others) * stretch)) * stretch
        for start in range(0, n, rows):
            first = slice(start, min(start + rows, n))
            yield self._window([first, *(slice(0, k) for k in others)], self.axes())


def _size(domain: Domain) -> str:
    return " x ".join(map(str, (*domain.shape, domain.channels)))


@dataclass
class Seen(Batch):
    """A window of a signal's lattice, and what was observed of it.

    Args:
        axes: Coordinates of the window's samples, one vector per axis.
        values: The observations, normalised.
        signal: The signal.
        where: The window, in samples, a multiple of the operator's stretch.
        spread: Coordinates per axis of samples on which a mean over the whole signal is taken.
    """

    signal: Observed
    where: tuple[slice, ...]
    spread: list[Tensor]

    def tiles(self, points: int) -> Iterator[Seen]:
        """The window itself: operators and priors look at neighbours."""
        yield self

    def passes(self, field: Field) -> list[tuple[Tensor, Tensor]]:
        """(observations, samples) of each output of a field that is trained."""
        looks = self.signal.operator.look(field, self.axes, self.signal.domain.shape)
        return [(self.signal.scaled(seen, self.where), samples) for seen, samples in looks]

    def outputs(self, field: Field) -> list[Tensor]:
        """Observations of all outputs of a field that are trained, its own last."""
        return [seen for seen, _ in self.passes(field)]

    def evaluate(self, field: Field) -> Tensor:
        """A field's observations, of the shape of `values`."""
        return self.outputs(field)[-1]

    def penalty(self, field: Field, samples: Tensor) -> Tensor:
        """What the priors charge, as a mean squared error is charged."""
        operator = self.signal.operator
        charge = samples.new_zeros(())
        if operator.tv:
            charge = charge + operator.tv * total_variation(samples)
        if operator.curvature:
            charge = charge + operator.curvature * curvature(samples)
        if self.signal.centre is not None:
            whole = samples.shape[:-1] == self.signal.domain.shape
            means = (samples if whole else field.on_grid(self.spread)).flatten(0, -2).mean(0)
            charge = charge + (means - means.new_tensor(self.signal.centre)).square().sum()
        return charge
