"""The Lightning system around a field: one `training_step` is a burst of optimiser steps.

The Trainer costs one to two milliseconds a step, as much as a small field's step itself. In bursts
of 20 to 50 ms it is free, and between bursts is the place for preview, progress, snapshot, stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from fields.base import Field, points_per_tile
from fields.kernels.select import PLAIN
from inr.fitting import quantaware
from inr.fitting.sampling import Teacher
from inr.metrics import psnr
from inr.presets import Recipe
from inr.signals.base import Batch, Points, Signal

BURST_SECONDS = 0.04


@dataclass(frozen=True)
class Budget:
    """When a fit ends: at the first that is reached. None leaves that one open.

    Args:
        steps: Optimiser steps.
        seconds: Wall-clock seconds of fitting.
        psnr: Target in dB, on the training loss (values in [-1, 1], R = 2).
    """

    steps: int | None = None
    seconds: float | None = None
    psnr: float | None = None


class FitModule(pl.LightningModule):
    """Fits a field to a signal under a recipe and a budget.

    Attributes:
        fit_step: Optimiser steps done.
        seconds: Seconds of fitting done, over all resumed parts.
        loss: Mean squared error of the last step, before its update; with a teacher, over all that
            the last selection looked at, which is up to 50 steps old.
        teacher: What chooses the samples of a step, if the recipe has it.
        history: (step, seconds, loss) after each burst.
        lr_scale: Factor on the learning rate, halved by each rollback.
        places: The steps of rounding where they are learnt, as indices that may lie between two;
            None where the recipe weighs no rate then, or the field has a rate of its own.
        backend: What computes the field, and why.
        finished: Why the fit ended ("steps", "seconds", "psnr", "stopped"), or None.
        resumable: Whether a snapshot holds all that the fit needs to go on.
    """

    resumable = True

    def __init__(self, field: Field, signal: Signal, recipe: Recipe, budget: Budget) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.field = field
        self.signal = signal
        self.recipe = recipe
        self.budget = budget
        self.generator = torch.Generator()  # on the CPU, so that batches do not depend on device
        self.fit_step = 0
        self.seconds = 0.0
        self.loss = math.inf
        self.history: list[tuple[int, float, float]] = []
        self.lr_scale = 1.0
        self._rounding: list[int] | None = None
        self.places: torch.nn.Parameter | None = None
        if recipe.quantize_db and recipe.rate_weight and field.rate() is None:
            self.places = torch.nn.Parameter(torch.zeros(quantaware.row_count(field)))
        self.finished: str | None = None
        self.backend = PLAIN
        self._full = signal.full_batch() if signal.count <= recipe.batch else None
        self.teacher = None if recipe.teach == "off" else Teacher(signal, recipe, self._full)
        self._tile = points_per_tile(field)
        self._burst = 1
        self._started = 0.0

    @property
    def rounding(self) -> list[int] | None:
        """Index of each stored row's quantisation step, once passes see rounded parameters."""
        return self._rounding

    @rounding.setter
    def rounding(self, indices: list[int] | None) -> None:
        self._rounding = indices
        if self.places is not None and indices is not None:
            with torch.no_grad():
                given = torch.tensor(indices).to(self.places)
                # those that are learnt already keep their places between two
                self.places.copy_(torch.where(self.places.round() == given, self.places, given))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam in its fused form, one group per learning rate of the field."""
        groups = [
            {"params": parameters, "scale": scale}
            for parameters, scale in self.field.learning_rates()
            if parameters
        ]
        recipe = self.recipe
        if self.places is not None:
            groups.append({"params": [self.places], "scale": quantaware.STEP_LR / recipe.lr})
        self.adam = torch.optim.Adam(
            groups, lr=recipe.lr, betas=(0.9, recipe.beta2), eps=recipe.eps, fused=True
        )
        return self.adam

    def on_fit_start(self) -> None:
        """Start the clock; what came before a resume counts."""
        self._started = time.perf_counter() - self.seconds

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one burst."""
        del batch, batch_idx
        begin = time.perf_counter()
        done = 0
        while done < self._burst and not self._check_budget():
            self.step()
            done += 1
        elapsed = time.perf_counter() - begin
        if done:
            # the length of a burst decides when callbacks run, never what is computed
            self._burst = max(1, min(2 * done, round(done * BURST_SECONDS / max(elapsed, 1e-6))))
            self.history.append((self.fit_step, self.seconds, self.loss))

    def step(self) -> None:
        """One optimiser step over the batch, tile by tile."""
        factor = self.recipe.factor(self.progress()) * self.lr_scale
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.lr * group["scale"] * factor
        self.adam.zero_grad(set_to_none=True)
        if self.rounding is None and self._rounding_is_due():
            self.rounding = quantaware.choose(self.field, self.signal, self.recipe.quantize_db)
        with quantaware.rounded(self.field, self.rounding):
            self.loss = float(self._backward(self._next_batch()))
            self._tell_whole_loss()
            self._weigh_own_rate()
        if self.places is not None and self.rounding is not None:
            weight = self.recipe.rate_weight / self.signal.count
            quantaware.weigh_rate(self.field, self.places, weight)
        if math.isfinite(self.loss):
            if self.recipe.clip:
                torch.nn.utils.clip_grad_norm_(self.field.parameters(), self.recipe.clip)
            self.adam.step()
            if self.places is not None and self.rounding is not None:
                self.rounding = quantaware.nearest(self.places)
        self.fit_step += 1
        self.seconds = time.perf_counter() - self._started

    def progress(self) -> float:
        """Fraction of the budget used, by the tighter of steps and seconds."""
        steps, seconds = self.budget.steps, self.budget.seconds
        return max(
            self.fit_step / steps if steps else 0.0,
            self.seconds / seconds if seconds else 0.0,
        )

    def _rounding_is_due(self) -> bool:
        recipe = self.recipe
        return recipe.quantize_db > 0 and self.progress() >= 1 - recipe.quantize_share

    def _weigh_own_rate(self) -> None:
        rate = self.field.rate() if self.recipe.rate_weight else None
        if rate is not None:
            (self.recipe.rate_weight * rate).backward()

    def _backward(self, batch: Batch | Points) -> Tensor:
        """Mean loss over the batch; gradients accumulate tile by tile."""
        total = torch.zeros((), dtype=batch.values.dtype, device=batch.values.device)
        with self.field.one_step():
            for tile in batch.tiles(self._tile):
                loss = self.signal.loss(self.field, tile) / batch.count
                loss.backward()
                total += loss.detach()
        return total

    def _tell_whole_loss(self) -> None:
        """In place of the loss of chosen samples, which the guard still sees if it is no number."""
        if self.teacher is not None and self.teacher.error is not None:
            self.loss = self.teacher.error if math.isfinite(self.loss) else self.loss

    def _next_batch(self) -> Batch | Points:
        if self.teacher is not None:
            progress, tile = self.progress(), self._tile
            return self.teacher.batch(self.field, self.fit_step, progress, self.generator, tile)
        if self._full is not None:
            return self._full
        return self.signal.random_batch(self.recipe.batch, self.generator)

    def _check_budget(self) -> bool:
        budget = self.budget
        if self.finished is None:
            if not math.isfinite(self.loss) and self.fit_step:
                return True  # leave the burst: the guard rolls back
            if budget.psnr is not None and self.fit_step and self._reached(budget.psnr):
                self.finished = "psnr"
            elif budget.steps is not None and self.fit_step >= budget.steps:
                self.finished = "steps"
            elif budget.seconds is not None and self.seconds >= budget.seconds:
                self.finished = "seconds"
        return self.finished is not None

    def _reached(self, target: float) -> bool:
        """Whether the field is at the target; the batch's loss is only the first hint.

        It is none where the loss holds more than errors of samples.
        """
        if self.teacher is not None and not self.teacher.fresh:
            return False
        if self.signal.complete and psnr(self.loss, 2.0) < target:
            return False
        with quantaware.rounded(self.field, self.rounding):
            return self.signal.quality(self.field) >= target


class Bursts(torch.utils.data.IterableDataset[int]):
    """As many bursts as it takes: the fit itself says when it ends."""

    def __init__(self, module: FitModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[int]:
        """Count bursts until the module has finished."""
        count = 0
        while self.module.finished is None:
            yield count
            count += 1
