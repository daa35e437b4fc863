"""The schedule of a multi-stage field: one stage after the other, each on what is left.

Y. Wang, C.-Y. Lai, "Multi-stage Neural Networks: Function Approximator of Machine Precision",
Journal of Computational Physics 504 (2024), arXiv:2307.08934.

residue r = f - u --> eps = RMS(r), kappa from r's spectrum --> Adam, then second order, on r / eps
--> keep the stage if the residue is smaller --> next stage
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fields.multistage import MultiStage
from inr.errors import UsageError
from inr.fitting.callbacks import NanGuard
from inr.fitting.module import Budget, FitModule
from inr.fitting.optim import LevenbergMarquardt
from inr.presets import Recipe
from inr.rendering import bands
from inr.signals.base import GridSignal

LEAST_STEPS = 100
"""Steps that a stage has at least, where the budget has as many: fewer teach it nothing."""

SIGNAL = 0.25
"""Share of a spectrum's power above the noise, below which the two are not told apart."""


@dataclass(frozen=True)
class Stage:
    """What became of a stage.

    Args:
        scale: eps, the root mean square of what it was to refine, in normalised values.
        kappa: Its frequency, one number per coordinate.
        rms: Root mean square of what is left.
        largest: Largest magnitude of it.
        steps: Optimiser steps.
        seconds: Seconds of fitting.
        kept: Whether it lowered the root mean square; if not, it is undone.
    """

    scale: float
    kappa: list[float]
    rms: float
    largest: float
    steps: int
    seconds: float
    kept: bool


class StagedModule(FitModule):
    """Fits a multi-stage field, stage by stage, under one budget.

    Each stage gets an equal share of what the earlier ones have left of the budget, and is trained
    as a field of its own: on the residue divided by its root mean square, with loss and gradient
    near 1 however small the residue is. The first stage has the signal as it is and kappa = 1.
    Then the last part of the share (`Recipe.second_order`) goes to Levenberg-Marquardt steps, and
    a stage that these cannot improve ends early. A stage that did not lower the residue is undone,
    and ends the fit.

    The paper ends stages with L-BFGS, which on a residue is far slower
    (docs/benchmarks/multistage.md).

    Attributes:
        stages: What became of the stages so far.

    Raises:
        UsageError: the recipe rounds parameters while it fits.
    """

    resumable = False
    field: MultiStage
    signal: GridSignal

    def __init__(
        self, field: MultiStage, signal: GridSignal, recipe: Recipe, budget: Budget
    ) -> None:
        super().__init__(field, signal, recipe, budget)
        if recipe.quantize_db:
            raise UsageError(
                f"recipe.quantize_db is {recipe.quantize_db:g}: a multistage field is rounded when "
                "its file is written; set it to 0"
            )
        self.stages: list[Stage] = []
        self._run: _Run | None = None
        self._over: str | None = None

    def configure_optimizers(self) -> Any:
        """None here: each stage has its own."""
        return []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one burst, and roll the stage back if it diverged."""
        super().training_step(batch, batch_idx)
        if self._run is not None:
            self._run.roll_back_if_lost()
            self.loss = self._run.loss

    def step(self) -> None:
        """One optimiser step of the stage that is being fitted; the first one begins it."""
        if self._run is None:
            self._run = self._begin()
        if self._run is not None:
            self._run.step()
            self.loss = self._run.loss
            self.fit_step += 1
        self.seconds = time.perf_counter() - self._started
        if self._run is not None and self._run.done():
            self._end(self._run)

    def on_train_end(self) -> None:
        """Keep or undo the stage that the end of the budget has cut short."""
        if self._run is not None:
            self._end(self._run)

    def _check_budget(self) -> bool:
        leave = super()._check_budget()
        if not leave and self._over:
            self.finished = self._over
        return leave or self.finished is not None

    def _begin(self) -> _Run | None:
        """Set up the next stage, unless there is nothing left to fit."""
        number = len(self.stages)
        for later in range(number, len(self.field.networks)):
            self.field.set_stage(later, 0.0, [1.0] * self.field.in_features)
        residue = self._residue()
        scale = float(residue.double().square().mean().sqrt())
        kappa = [1.0] * self.field.in_features
        if number:
            kappa = [self.field.crossings * n for n in zero_crossings(residue)]
        self.field.set_stage(number, scale, kappa)
        if scale == 0:
            self._over = "stages"
            return None
        left = len(self.field.networks) - number
        steps, seconds = self.budget.steps, self.budget.seconds
        share = Budget(
            None if steps is None else max(LEAST_STEPS, math.ceil((steps - self.fit_step) / left)),
            None if seconds is None else (seconds - self.seconds) / left,
        )
        return _Run(self, residue / scale, scale, share)

    def _end(self, run: _Run) -> None:
        """Keep the stage that was fitted, or undo it."""
        run.roll_back_if_lost()
        self._run = None
        residue = self._residue()
        rms = float(residue.double().square().mean().sqrt())
        number, kept = len(self.stages), rms < run.scale
        self.stages.append(
            Stage(
                scale=run.scale,
                kappa=self.field.kappas[number].tolist(),
                rms=rms,
                largest=float(residue.abs().max()),
                steps=self.fit_step - run.first_step,
                seconds=time.perf_counter() - run.started,
                kept=kept,
            )
        )
        if not kept:
            self.field.set_stage(number, 0.0, [1.0] * self.field.in_features)
            self._over = "stalled"
        elif len(self.stages) == len(self.field.networks):
            self._over = "stages"

    def _residue(self) -> Tensor:
        """What the stages so far leave of the signal, on its lattice."""
        parts = bands(self.field, self.signal.axes())
        return torch.cat([self.signal.values[rows] - values for rows, values in parts])


class _Run:
    """The fit of one stage.

    Attributes:
        scale: eps.
        loss: Mean squared error of the whole field.
        first_step: Steps of the fit before this stage.
        started: When it began.
    """

    def __init__(self, whole: StagedModule, target: Tensor, scale: float, share: Budget) -> None:
        number = len(whole.stages)
        self.scale = scale
        self.first_step = whole.fit_step
        self.started = time.perf_counter()
        self._whole = whole
        self._share = share
        # the residue on the stage's own coordinates, seen as a signal of the same kind
        self._signal = copy.copy(whole.signal)
        self._signal.values = target
        kappa = whole.field.kappas[number]
        axes = whole.signal.axes()
        self._signal._axes = [k * axis for k, axis in zip(kappa, axes, strict=True)]
        first = 1 - whole.recipe.second_order
        self._adam = FitModule(
            whole.field.networks[number],
            self._signal,
            whole.recipe,
            Budget(
                None if share.steps is None else round(share.steps * first),
                None if share.seconds is None else share.seconds * first,
            ),
        )
        self._adam.generator = whole.generator
        self._adam.configure_optimizers()
        self._adam.on_fit_start()
        self._guard = NanGuard()
        self._guard.on_fit_start(whole.trainer, self._adam)
        self._second: LevenbergMarquardt | None = None
        self._stuck = False
        self.loss = scale**2

    def step(self) -> None:
        """One step of Adam or, where its part of the share is used, of second order."""
        if self._second is None and self._whole.recipe.second_order and self._adam_is_done():
            self.roll_back_if_lost()
            signal = self._signal
            self._second = LevenbergMarquardt(self._adam.field, signal.axes(), signal.values)
        if self._second is None:
            self._adam.step()
            self.loss = self._adam.loss * self.scale**2
        else:
            self._stuck = not self._second.step()
            self.loss = self._second.loss * self.scale**2

    def done(self) -> bool:
        """Whether the share is used, or second order finds nothing to improve."""
        steps, seconds = self._share.steps, self._share.seconds
        used = steps is not None and self._whole.fit_step - self.first_step >= steps
        late = seconds is not None and time.perf_counter() - self.started >= seconds
        return used or late or self._stuck

    def roll_back_if_lost(self) -> None:
        """Where Adam's loss or weights are no numbers, return to the last good ones."""
        if self._second is None:
            self._guard.between(self._adam)
            if not math.isfinite(self.loss):
                self.loss = self.scale**2

    def _adam_is_done(self) -> bool:
        steps, seconds = self._adam.budget.steps, self._adam.budget.seconds
        used = steps is not None and self._adam.fit_step >= steps
        return used or (seconds is not None and self._adam.seconds >= seconds)


def zero_crossings(residue: Tensor) -> list[float]:
    """How often a residue crosses zero along each axis, by its spectrum.

    A wave that crosses zero n times has n / 2 periods, so this is twice the centroid of the power
    spectrum, in periods per axis, averaged over the other axes and channels. Counting, as the
    authors do, counts what rounding noise adds too. Here the ends are tapered (Hann), and the mean
    of the upper quarter of the spectrum, which noise leaves there, is taken off all of it, unless
    less than `SIGNAL` is left: then the residue is noise, or as broad. Between 1 and n / pi of n
    samples, beyond which samples do not tell a network's frequencies apart.

    Args:
        residue: Shape (*lengths of axes, channels).
    """
    found = []
    for axis in range(residue.ndim - 1):
        n = residue.shape[axis]
        lines = residue.double().movedim(axis, -1)
        taper = torch.hann_window(n + 2, periodic=False).to(lines)[1:-1]
        power = torch.fft.rfft(lines * taper).abs().square().flatten(0, -2).mean(0)
        above = power - power[3 * len(power) // 4 :].mean()
        power = above if above.sum() > SIGNAL * power.sum() else power
        periods = torch.arange(len(power)).to(power)
        crossings = 2 * float((power * periods).sum() / power.sum().clamp(min=1e-300))
        found.append(min(max(crossings, 1.0), max(n / math.pi, 1.0)))
    return found
