"""Nonparametric teaching: a step sees only the samples that teach it most.

C. Zhang, S. T. S. Luo, J. C. L. Li, Y.-C. Wu, N. Wong, "Nonparametric Teaching of Implicit Neural
Representations", ICML 2024, arXiv:2405.10531; schedules as in the authors' code.

Every few steps, without gradients: gaps |y - f| over all samples --> the largest n of them, on
which the field is trained until the next selection; n / N rises over the fit.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fields.base import mean_error
from inr.errors import UsageError
from inr.signals.base import Batch, Points, Signal

if TYPE_CHECKING:
    from fields.base import Field
    from inr.presets import Recipe

STAGES = 10
"""Steps of the ratio called "step": the last is short of all samples."""

REST = 0.25
"""Part of a fit in which the interval called "incremental" selects at every step."""

LONGER = (10, 20, 30, 40, 50)
"""Its intervals in equal parts of the rest."""

FLOOR = 0.2
"""Where the ratio called "reverse-cosine" ends; of drawn samples, the part drawn evenly."""

SLACK = 1e-9
"""So that a product like 0.3 * 10 is not just below the whole number that it stands for."""


def ratio(schedule: str, start: float, progress: float) -> float:
    """Part of the samples that a step is to see.

    Args:
        schedule: "constant", "linear", "step", "cosine" or "reverse-cosine".
        start: What all of them have at the beginning, in (0, 1].
        progress: Fraction of the fit's budget used, in [0, 1].
    """
    left = 1 - start
    if schedule == "linear":
        return start + progress * left
    if schedule == "step":
        return start + math.floor(progress * STAGES + SLACK) * left / STAGES
    if schedule == "cosine":
        return 1 - left * (1 + math.cos(math.pi * progress)) / 2
    if schedule == "reverse-cosine":
        return start - (start - FLOOR) * (1 - math.cos(math.pi * progress)) / 2
    return start


def interval(strategy: str, progress: float) -> int:
    """Optimiser steps between selections: one is due where it divides the number of steps done.

    Args:
        strategy: "dense" (1), "dense2" (2), "sparse" (10; ours), "incremental" (1 for a quarter of
            the fit, then 10 to 50 in five equal parts), or "reverse-incremental" (the same from
            end to beginning).
        progress: Fraction of the fit's budget used, in [0, 1].
    """
    fixed = {"dense": 1, "dense2": 2, "sparse": 10}
    if strategy in fixed:
        return fixed[strategy]
    part = (1 - REST) / len(LONGER)
    if strategy == "reverse-incremental":
        number = math.floor(progress / part + SLACK)
        return LONGER[-1 - number] if number < len(LONGER) else 1
    number = math.floor((progress - REST) / part + SLACK)
    return 1 if number < 0 else LONGER[min(number, len(LONGER) - 1)]


class Teacher:
    """Chooses the samples of each step.

    The pool is the whole signal where that is no more than a step's batch. Of a larger one, or of
    one that is drawn point by point, it is a random batch, drawn anew at each selection: a look at
    all of it would cost more than the step.

    Chosen samples are scattered. A field that is fast on lattices (`finr`, `grid`, first layers
    that are sums over coordinates) loses that on them, and may take longer than without.

    Args:
        signal: What is fitted.
        recipe: Its settings that begin with `teach`.
        full: All samples, where a step may take them.

    Attributes:
        error: Mean squared error over the pool at the last selection, before the step that followed
            it; None where a step takes all samples.
        fresh: Whether the last step selected, or took all samples.

    Raises:
        UsageError: the signal cannot be taught so.
    """

    def __init__(self, signal: Signal, recipe: Recipe, full: Batch | Points | None) -> None:
        self.error: float | None = None
        self.fresh = True
        self._signal = signal
        self._recipe = recipe
        self._drawn = recipe.teach_pick == "drawn"
        self._full = full
        self._pool: Batch | Points | None = full
        self._seen_by: Tensor | None = None  # the generator, before it drew the pool
        self._step = -1  # of the last selection
        self._kept: Tensor | None = None  # chosen places or, to draw them by, summed chances
        self._points: Points | None = None
        if full is not None:
            self._check(full)

    def batch(
        self, field: Field, step: int, progress: float, generator: torch.Generator, tile: int
    ) -> Batch | Points:
        """The samples of a step, after a selection where one is due.

        Args:
            field: The field as it is.
            step: Optimiser steps done.
            progress: Fraction of the budget used.
            generator: Of random batches and of what is drawn.
            tile: Points that are evaluated at once.

        Raises:
            UsageError: the signal cannot be taught so.
        """
        recipe = self._recipe
        part = min(ratio(recipe.teach, recipe.teach_ratio, progress), 1.0)
        # a fit that was rolled back to before the last selection selects anew
        lost = self._kept is None or step <= self._step
        self.fresh = lost or step % interval(recipe.teach_interval, progress) == 0
        if part == 1.0:
            self.fresh, self.error, self._kept = True, None, None
            return self._draw_pool(generator)
        if self.fresh:
            self._step = step
            self._select(field, self._draw_pool(generator), part, tile)
        if self._drawn:
            return self._draw(part, generator)
        assert self._points is not None
        return self._points

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a snapshot keeps of it: tensors, and JSON-ready facts."""
        if self._kept is None:
            return {}, {}
        facts: dict[str, Any] = {"step": self._step, "error": self.error}
        if self._full is None and self._seen_by is not None:
            facts["generator"] = base64.b64encode(self._seen_by.numpy().tobytes()).decode()
        return {"kept": self._kept}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Inverse of `state`."""
        if not facts:
            return
        if "generator" in facts:
            generator = torch.Generator()
            raw = bytearray(base64.b64decode(facts["generator"]))
            generator.set_state(torch.frombuffer(raw, dtype=torch.uint8))
            self._draw_pool(generator)
        assert self._pool is not None
        self._step, self.error = facts["step"], facts["error"]
        self._kept = tensors["kept"].to(self._pool.values.device)
        if not self._drawn:
            self._points = self._pool.pick(self._kept)

    def _draw_pool(self, generator: torch.Generator) -> Batch | Points:
        """The pool: all samples, or a random batch."""
        if self._full is None:
            self._seen_by = generator.get_state()
            self._pool = self._signal.random_batch(self._recipe.batch, generator)
            self._check(self._pool)
        assert self._pool is not None
        return self._pool

    @torch.no_grad()
    def _select(self, field: Field, pool: Batch | Points, part: float, tile: int) -> None:
        """Look at the whole pool, and keep where the gaps are largest."""
        gaps = []
        squares = torch.zeros((), dtype=pool.values.dtype, device=pool.values.device)
        with field.one_step():
            for piece in pool.tiles(tile):
                difference = self._signal.differences(field, piece)
                squares += difference.square().sum()
                gaps.append(difference.abs().sum(-1).flatten())
        self.error = float(squares / pool.count)
        found = torch.cat(gaps)
        if self._drawn:
            found = found.double()
            chances = FLOOR / len(found) + (1 - FLOOR) * found / found.sum().clamp(min=1e-300)
            self._kept = chances.cumsum(0)
            return
        largest = found.topk(_count(part, len(found)), sorted=False).indices
        self._kept = largest.sort().values  # in the order in which they lie in memory
        self._points = pool.pick(self._kept)

    def _draw(self, part: float, generator: torch.Generator) -> Points:
        """Draw samples by their chances, one from each of n equal stretches of these."""
        assert self._pool is not None
        assert self._kept is not None
        total, size = self._kept, len(self._kept)
        n = _count(part, size)
        offsets = torch.rand(n, generator=generator, dtype=torch.float64)
        marks = ((torch.arange(n) + offsets) / n).to(total.device) * total[-1]
        places = torch.searchsorted(total, marks).clamp(max=size - 1)
        before = torch.where(places > 0, total[places - 1], 0.0)
        weights = (1 / (size * (total[places] - before))).to(self._pool.values.dtype)
        points = self._pool.pick(places)
        root = weights.sqrt()[:, None]
        return Weighted(points.coords, root * points.values, root)

    def _check(self, batch: Batch | Points) -> None:
        one_by_one = type(batch) in (Batch, Points)
        if not one_by_one or batch.values.shape[-1] != self._signal.channels:
            raise UsageError(
                f"recipe.teach is {self._recipe.teach!r}: this signal's samples are not compared "
                "with a field's values one by one; set it to off"
            )
        if self._drawn and type(self._signal).loss is not Signal.loss:
            raise UsageError(
                "recipe.teach_pick is 'drawn': this signal's loss has no weights; set it to hardest"
            )


@dataclass
class Weighted(Points):
    """Scattered samples whose squared errors count with weights.

    Args:
        coords: Shape (n, axes).
        values: Values times the weights' roots, shape (n, channels).
        root: The weights' roots, shape (n, 1).
    """

    root: Tensor

    def tiles(self, points: int) -> Any:
        """Parts of at most `points` points each."""
        parts = (t.split(points) for t in (self.coords, self.values, self.root))
        for coords, values, root in zip(*parts, strict=True):
            yield Weighted(coords, values, root)

    def evaluate(self, field: Field) -> Tensor:
        """A field's values times the weights' roots."""
        return self.root * super().evaluate(field)

    def outputs(self, field: Field) -> list[Tensor]:
        """All outputs of a field that are trained, times the weights' roots."""
        return [self.root * out for out in super().outputs(field)]

    def squared_error(self, field: Field) -> Tensor:
        """A field's weighted sum of squared errors."""
        return mean_error(self.outputs(field), self.values)


def _count(part: float, size: int) -> int:
    """So many samples of `size`, at least one."""
    return max(1, math.floor(part * size + SLACK))
