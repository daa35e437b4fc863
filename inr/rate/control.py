"""From a signal to a file that meets a target: short fits, a model of them, a full fit, its coding.

A dial (`dials.py`) makes files larger and smaller. Short fits at a few places of it feed a model
(`model.py`), which says where a full fit belongs; that fit is coded so that the file lands just on
the right side of the target. Where it turns out too large, too small or too poor for it, the model
has learnt from it, and another one follows, from the same parameters if the field has as many.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import lightning.pytorch as pl

from fields.base import Field, FieldError
from inr import presets
from inr.codec import format as container
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.codec.entropy import decode_rows
from inr.errors import FitError, TargetNotReached, UsageError
from inr.fitting.fit import Fit, build_field, choose_device, train
from inr.fitting.module import Budget
from inr.presets import Preset, Recipe
from inr.rate import targets
from inr.rate.dials import Dial, NoDial, WeightDial, has_rate, suited
from inr.rate.model import Point, Prior, place_of
from inr.rate.targets import Target, TargetOptions, decibels
from inr.signals.base import Signal


class Effort(NamedTuple):
    """What is spent on a file.

    Args:
        steps: Factor on the preset's optimiser steps, for each full fit.
        short: Short fits before them, at most.
        full: Full fits, at most, where the first one meets the target but not well.
        polish: Part of the steps in which the chosen field is trained on with its parameters
            rounded as in the file, where the recipe has no such phase of its own.
    """

    steps: float
    short: int
    full: int
    polish: float


EFFORTS = {
    1: Effort(0.25, 1, 1, 0.0),
    2: Effort(0.5, 1, 1, 0.0),
    3: Effort(0.75, 2, 1, 0.0),
    4: Effort(1.0, 2, 2, 0.0),
    5: Effort(1.5, 2, 2, 0.2),
    6: Effort(2.0, 2, 2, 0.3),
    7: Effort(3.0, 3, 3, 0.3),
    8: Effort(5.0, 3, 3, 0.3),
    9: Effort(10.0, 3, 4, 0.3),
}

SHORT_SHARE = 0.2
"""Of a full fit's steps; fits of fewer than `FEW_STEPS` have no short ones before them."""

FEW_STEPS = 40

WARM_SHARE = 0.5
"""Of a full fit's steps, for one that starts where another full one ended."""

RETRIES = 3
"""Full fits beyond an effort's own, while no file meets the target."""

LOSS_DB = 0.5
"""What the steps of a network's file cost at the best balance of its size and theirs."""

LOSS_DB_RATED = 1.0
"""The same of a field that is trained for its rate."""

GOOD = (0.1, 3.0)
"""Factors on that loss within which a file is about as good as any other balance would make it."""

GROSS_DB = 6.0
"""A loss, or an excess of quality, that is worth another fit in any case."""

LEAP = 3.0
"""Octaves beyond what was fitted so far that a fit may lie: further out the model knows nothing."""

QUALITY = {"psnr": (32.0, 8.0), "snr": (15.0, 8.0), "iou": (20.0, 8.0)}
"""Mean and deviation of what presets reach, on the scale of `decibels`."""

USED = 0.95
"""Part of the bytes allowed that a file uses, wherever its field has so much to spend."""

DRIFT = 0.985
"""Part of the bytes that steps are chosen for, where training on with them is still to come."""

EXACT_DB = 150.0
"""A quality that no finer coding is worth anything at."""


@dataclass
class Trial:
    """A fit of the search.

    Args:
        number: Which one, from 1.
        of: How many there will be at most, as far as is known.
        purpose: "short", "full" or "polish".
        label: Where the dial stands, for people.
        steps: Optimiser steps done.
        seconds: Seconds of fitting.
        quality: The field's PSNR in dB, before coding.
        bytes: Size of its file, where one was made.
    """

    number: int
    of: int
    purpose: str
    label: str
    steps: int = 0
    seconds: float = 0.0
    quality: float = -math.inf
    bytes: int | None = None


class OnTrial(pl.Callback):
    """A callback that is told of each fit of a search beforehand."""

    def on_trial(self, trial: Trial) -> bool:
        """Whether to go on; False ends the search with what there is."""
        raise NotImplementedError


@dataclass
class Compressed:
    """A file, and how it came about.

    Args:
        data: The bytes of the file.
        fit: The fit that it holds, its parameters as they were before coding.
        quality: `Signal.metrics` of the decoded file.
        target: What was asked for; None where only the weight of the rate was given.
        reached: Whether the file meets it. One that does not is the best in quality.
        trials: All fits in order.
        seconds: Seconds of it all.
        stopped: Whether a callback ended the search early.
    """

    data: bytes
    fit: Fit
    quality: dict[str, float]
    target: Target | None
    reached: bool
    trials: list[Trial]
    seconds: float
    stopped: bool = False

    @property
    def field(self) -> Field:
        """The field as the file holds it."""
        return decode(self.data)


def compress(  # noqa: PLR0913 (what each call has few of)
    signal: Signal,
    field: Field | Preset | str | None = None,
    *,
    effort: int = 4,
    seconds: float | None = None,
    seed: int = 0,
    device: str = "auto",
    callbacks: Sequence[pl.Callback] = (),
    metadata: Mapping[str, str] | None = None,
    progressive: bool = False,
    **target: Unpack[TargetOptions],
) -> Compressed:
    """Fit and code a signal so that the file meets a target, from the right side.

    Args:
        signal: From `inr.open` or, say, `inr.signals.image.Image.from_array`.
        field: As `inr.fit` takes it. A field that is passed in keeps its size, and stays as it is.
        effort: 1 to 9, see `EFFORTS`: 4 trains for the preset's steps, 1 for a quarter of them, 9
            for ten times as many.
        seconds: Bound on the seconds of all fits together; coding comes on top.
        seed: Seed of initialisations and batches.
        device: "auto", "cpu", "cuda" or "cuda:N".
        callbacks: Lightning callbacks for every fit (see `inr.fitting.callbacks`); an `OnTrial` is
            told of each.
        metadata: What the file says of the signal, as `inr.encode` takes it; it counts as bytes.
        progressive: Whether the first bytes of the file are to make a coarser signal, where the
            field has layers (see `Field.groups`).
        **target: One of `bpp`, `kbps`, `bytes`, `psnr`, `snr` and `iou`, or `weight`, or both (see
            `TargetOptions`).

    Returns:
        A file that meets the target; or, of a quality that was not reached, the best file that was
        found, with `reached` False.

    Raises:
        FitError: field and signal do not belong together, or a fit diverged.
        TargetNotReached: no file is so small, or the search was stopped before any met the target.
        UsageError: there is no target or more than one, it is none for this signal, or an option is
            out of range.
    """
    if effort not in EFFORTS or isinstance(effort, bool):
        raise UsageError(f"effort is {effort!r}: give a whole number from 1 to 9")
    if seconds is not None and not 0 < seconds < 1e12:
        raise UsageError(f"seconds is {seconds!r}: give a number above 0")
    asked, weight = targets.wanted(target)
    if not signal.complete:
        raise UsageError("observations are no signal to be compressed: fit them with `inr fit`")
    choose_device(device)
    settled = None if asked is None else targets.settle(*asked, signal)
    search = _Search(signal, field, weight, EFFORTS[effort], settled)
    search.how = {"seed": seed, "device": device, "callbacks": callbacks}
    search.seconds = seconds
    search.metadata = metadata
    search.progressive = progressive
    search.coding_effort = effort
    return search.run()


class _Stopped(Exception):
    """A callback ended the search."""


class _Landed(NamedTuple):
    """A file that meets the target."""

    data: bytes
    fit: Fit
    quality: float


class _Search:
    """The state of a search.

    Args:
        signal: What is compressed.
        field: As `inr.fit` takes it.
        weight: Weight of the rate, if it is fixed.
        effort: What to spend.
        target: What the file is to be, if anything.
    """

    def __init__(
        self,
        signal: Signal,
        field: Field | Preset | str | None,
        weight: float | None,
        effort: Effort,
        target: Target | None,
    ) -> None:
        self.signal = signal
        self.effort = effort
        self.target = target
        self.given = field if isinstance(field, Field) else None
        self.how: dict[str, Any] = {}
        self.seconds: float | None = None
        self.metadata: Mapping[str, str] | None = None
        self.progressive = False
        self.coding_effort = 4
        self.trials: list[Trial] = []
        self.points: list[Point] = []
        self.best: _Landed | None = None
        self.last: Fit | None = None
        self._last_preset: Preset | None = None
        self._unreached: Fit | None = None
        preset = _resolved(field, signal)
        if weight is not None:
            recipe = dataclasses.replace(preset.recipe, rate_weight=weight)
            preset = dataclasses.replace(preset, recipe=recipe)
        try:
            self.own_rate = has_rate(preset, signal)
        except FieldError as error:
            raise FitError(str(error)) from None
        if weight is not None and not self.own_rate and not preset.recipe.quantize_db:
            raise UsageError(
                f"a weight of the rate means nothing to {preset.field}, which is not trained "
                "for it: give recipe.quantize_db too, or another field"
            )
        recipe = preset.recipe
        # parameters are rounded at the end: with steps for the target, unless these are learnt
        self.learnt = bool(recipe.quantize_db and recipe.rate_weight and not self.own_rate)
        self.polish = effort.polish
        if recipe.quantize_db and not self.learnt:
            self.polish = recipe.quantize_share
        self.steps = max(1, round(recipe.steps * effort.steps))
        self.loss_db = recipe.quantize_db or (LOSS_DB_RATED if self.own_rate else LOSS_DB)
        self.dial = self._dial(preset, weight)
        self.noise = 1.0 if target is None or target.is_size else 10.0

    def _dial(self, preset: Preset, weight: float | None) -> Dial:
        if self.given is None:
            return suited(preset, self.signal, weight)
        if weight is None and self.own_rate:
            return WeightDial(preset, self.signal.count * self.signal.channels)
        return NoDial(preset, self.given)

    def run(self) -> Compressed:
        """Search, and hand over what was found."""
        self._begin = time.perf_counter()
        stopped = False
        try:
            if self.target is None:
                fit = self._fit(0.0, "full")
                data = self._natural(fit)
                self.best = _Landed(data, fit, self.signal.quality(decode(data)))
            elif self.target.is_size:
                self._seek_size(self.target)
            else:
                self._seek_quality(self.target)
            self._polish()
        except _Stopped:
            stopped = True
            if self.best is None and self.last is not None:
                self._land(self.last)
        return self._result(stopped)

    def _result(self, stopped: bool) -> Compressed:
        target = self.target
        if self.best is not None:
            data, fit = self.best.data, self.best.fit
        elif stopped:
            raise TargetNotReached("stopped before any file met the target: nothing is written")
        else:
            assert self._unreached is not None
            fit = self._unreached
            data = self._encoded(fit, max_loss_db=0.1, rounding=fit.rounding)
        quality = self.signal.metrics(decode(data))
        reached = target is None or self._meets(target, data, quality)
        if self.best is not None and not reached:
            raise FitError(f"a file does not keep the {target} it was made for: please report this")
        elapsed = time.perf_counter() - self._begin
        return Compressed(data, fit, quality, target, reached, self.trials, elapsed, stopped)

    def _meets(self, target: Target, data: bytes, quality: dict[str, float]) -> bool:
        if target.is_size:
            return len(data) <= target.max_bytes
        return quality[target.measure] >= target.value

    # ---- the two searches

    def _seek_size(self, target: Target) -> None:
        """Find the fit whose best coding in so many bytes loses little and wastes little."""
        allowed = target.max_bytes
        wanted = math.log2(allowed)
        for _ in range(self._shorts()):
            turn = self._place(wanted)
            if self.points and abs(turn - self.points[-1].turn) < 0.3:
                break
            self._observe_size(turn, self._fit(turn, "short"), short=True)
        smallest = math.inf
        turn = self._place(wanted)
        for attempt in range(self.effort.full + RETRIES):
            fit = self._fit(turn, "full")
            landed = self._land(fit)
            unspent = False
            if landed is not None:
                loss = self.signal.quality(fit.field) - landed.quality
                unspent = len(landed.data) < USED * allowed and landed.quality < EXACT_DB
                good = GOOD[0] * self.loss_db <= loss <= GOOD[1] * self.loss_db and not unspent
                enough = attempt + 1 >= self.effort.full and not unspent and loss <= GROSS_DB
                if good or enough or self._late():
                    return
            before = turn
            smallest = min(smallest, len(self._observe_size(turn, fit)))
            turn = self._place(wanted)
            if landed is None:
                turn = min(turn, before - 1.0)
            elif unspent:
                turn = max(turn, before + 1.0)
            turn = min(max(turn, self.dial.low), self.dial.high)
            if abs(turn - before) < 0.1:
                break
        if self.best is None:
            raise TargetNotReached(
                f"no file of {target} was found, the smallest has {smallest:,}: allow more, or "
                "take a field that can be smaller"
            )

    def _seek_quality(self, target: Target) -> None:
        """Find the smallest fit that has the quality with a little to spend on its coding."""
        least = decibels(target.measure, target.value)
        wanted = least + (self.loss_db if target.measure != "iou" else 0.3)
        for _ in range(self._shorts()):
            turn = self._place(wanted)
            if self.points and abs(turn - self.points[-1].turn) < 0.3:
                break
            self._observe_quality(turn, self._fit(turn, "short"), short=True)
        turn = self._place(wanted)
        missed, met = -math.inf, math.inf  # the highest place that misses, the lowest that meets it
        for attempt in range(self.effort.full + RETRIES):
            fit = self._fit(turn, "full")
            reached = self._observe_quality(turn, fit)
            landed = self._land(fit) if reached >= least else None
            before = turn
            turn = self._place(wanted)
            if landed is not None:
                met = min(met, before)
                excess = reached - least
                enough = attempt + 1 >= self.effort.full and excess <= GROSS_DB
                if excess <= GOOD[1] * self.loss_db or enough:
                    return
            else:
                missed = max(missed, before)
                if met == math.inf:
                    turn = max(turn, before + 2.0**attempt / 2)
            if missed > -math.inf and met < math.inf:
                turn = min(max(turn, missed + (met - missed) / 4), met - (met - missed) / 4)
            turn = min(max(turn, self.dial.low), self.dial.high)
            if self._late() or (abs(turn - before) < 0.05 and not self._learns()):
                return

    # ---- what a search is made of

    def _shorts(self) -> int:
        return 0 if self.steps < FEW_STEPS or self.dial.low == self.dial.high else self.effort.short

    def _learns(self) -> bool:
        """Whether another fit at the same place goes on where the last one ended."""
        return isinstance(self.dial, WeightDial | NoDial)

    def _place(self, wanted: float) -> float:
        """Where the next fit belongs."""
        turns = [point.turn for point in self.points] or [0.0]
        low = max(self.dial.low, min(turns) - LEAP)
        high = max(low, min(self.dial.high, max(turns) + LEAP))
        return place_of(wanted, self._prior(), self.points, (low, high), self.noise)

    def _prior(self) -> Prior:
        if self.target is None or self.target.is_size:
            short = (0.7, 0.4) if self.own_rate else (-0.7, 0.6)
            return Prior((self.dial.expected, 1.0), (1.0, 0.3), short)
        at = QUALITY[self.target.measure]
        if self.own_rate:
            return Prior(at, (4.5, 1.5), (0.5, 0.7))
        return Prior(at, (3.0, 1.5), (-4.0, 4.0))

    def _observe_size(self, turn: float, fit: Fit, *, short: bool = False) -> bytes:
        """Tell the model how large the file of a fit is at the best balance."""
        data = self._natural(fit)
        self.trials[-1].bytes = len(data)
        self.points.append(Point(turn, short, math.log2(len(data))))
        return data

    def _observe_quality(self, turn: float, fit: Fit, *, short: bool = False) -> float:
        """Tell the model how good a fit is; returns it, on the scale of `decibels`."""
        assert self.target is not None
        measure = self.target.measure
        value = fit.metrics[measure]
        reached = decibels(measure, value)
        self.points.append(Point(turn, short, reached))
        if not short and (self._unreached is None or value > self._unreached.metrics[measure]):
            self._unreached = fit
        return reached

    def _encoded(self, fit: Fit, **how: Any) -> bytes:
        spent = self.coding_effort
        fit.field.layered = fit.field.layered or self.progressive
        return encode(fit.field, self.signal, metadata=self.metadata, effort=spent, **how)

    def _natural(self, fit: Fit) -> bytes:
        """The file of a fit whose steps cost what they should, or are those it was trained with."""
        return self._encoded(fit, max_loss_db=self.loss_db, rounding=fit.rounding)

    def _land(self, fit: Fit) -> _Landed | None:
        """Code a fit so that the file just meets the target, if it can; keep the best such file."""
        found = [self._coded(fit)]
        if fit.rounding is not None:
            data = self._encoded(fit, rounding=fit.rounding)
            found.append(self._checked(data, fit))
        landed = self._better(*found)
        if landed is not None:
            self.trials[-1].bytes = len(landed.data)
            self.best = self._better(self.best, landed)
        return landed

    def _coded(self, fit: Fit) -> _Landed | None:
        """The file of a fit with the steps that just meet the target, if there are such."""
        assert self.target is not None
        target = self.target
        try:
            if target.is_size:
                data = self._encoded(fit, max_bytes=target.max_bytes)
            else:
                data = self._encoded(fit, least=(target.measure, target.value))
        except TargetNotReached:
            return None
        return self._checked(data, fit)

    def _checked(self, data: bytes, fit: Fit) -> _Landed | None:
        """A file with its quality, read from its bytes, if it meets the target."""
        field = decode(data)
        if self.target is not None and not self.target.is_size:
            metrics = self.signal.metrics(field)
            if not self._meets(self.target, data, metrics):
                return None
            return _Landed(data, fit, metrics["psnr"])
        if self.target is not None and not self._meets(self.target, data, {}):
            return None
        return _Landed(data, fit, self.signal.quality(field))

    def _better(self, *found: _Landed | None) -> _Landed | None:
        """The best in quality of files of a size, or the smallest of those of a quality."""
        files = [landed for landed in found if landed is not None]
        if not files:
            return None
        if self.target is not None and self.target.is_size:
            return max(files, key=lambda landed: landed.quality)
        return min(files, key=lambda landed: len(landed.data))

    def _fit(self, turn: float, purpose: str) -> Fit:
        """Fit at a place of the dial, from where the last fit ended if it has as many numbers."""
        preset = self.dial.preset(turn)
        recipe = preset.recipe
        steps = self.steps
        if recipe.quantize_db and not self.learnt:  # that comes once the steps are chosen
            recipe = dataclasses.replace(recipe, quantize_db=0.0)
            steps = round(steps * (1 - self.polish))
        field = self._built(preset)
        last, before = self.last, self._last_preset
        warm = before is not None and before.hyperparameters == preset.hyperparameters
        if warm and last is not None:
            field.load_state_dict(last.field.state_dict())
            if purpose == "full" and self.trials[-1].purpose == "full":
                steps = round(steps * WARM_SHARE)
        if purpose == "short":
            steps = max(1, round(steps * SHORT_SHARE))
        number = len(self.trials) + 1
        of = max(number, self._shorts() + self.effort.full + bool(self.polish))
        fit = self._trained(
            field, recipe, steps, Trial(number, of, purpose, self.dial.label(preset))
        )
        self.last, self._last_preset = fit, preset
        if fit.ended == "stopped":
            raise _Stopped
        return fit

    def _built(self, preset: Preset) -> Field:
        if self.given is not None:
            return copy.deepcopy(self.given)
        try:
            return build_field(self.signal, preset, self.how["seed"])[1]
        except FieldError as error:
            raise FitError(str(error)) from None

    def _trained(
        self,
        field: Field,
        recipe: Recipe,
        steps: int,
        trial: Trial,
        rounding: list[int] | None = None,
    ) -> Fit:
        self.trials.append(trial)
        for callback in self.how["callbacks"]:
            if isinstance(callback, OnTrial) and not callback.on_trial(trial):
                self.trials.pop()
                raise _Stopped
        left = None
        if self.seconds is not None:
            spent = sum(past.seconds for past in self.trials)
            left = max(self.seconds - spent, 0.0)
            left *= SHORT_SHARE if trial.purpose == "short" else 1.0
        fit = train(field, self.signal, recipe, Budget(steps, left), rounding=rounding, **self.how)
        trial.steps, trial.seconds = fit.steps, fit.seconds
        trial.quality = fit.metrics["psnr"]
        return fit

    def _late(self) -> bool:
        """Whether the seconds are spent."""
        spent = sum(trial.seconds for trial in self.trials)
        return self.seconds is not None and spent >= self.seconds

    def _polish(self) -> None:
        """Train the chosen field on with its parameters rounded as in the file, code it again."""
        if not self.polish or self.best is None or self.best.fit.rounding is not None:
            return
        fit, target = self.best.fit, self.target
        preset = self._last_preset
        assert preset is not None
        if self._late():
            return
        data = self.best.data
        if target is not None and target.is_size:
            try:
                data = self._encoded(fit, max_bytes=int(DRIFT * target.max_bytes))
            except TargetNotReached:
                return
        recipe = preset.recipe
        # as the end of one long fit has it
        start = recipe.factor(1 - self.polish)
        recipe = dataclasses.replace(
            recipe,
            lr=recipe.lr * start,
            final_lr=min(1.0, recipe.final_lr / start),
            quantize_db=0.0,
        )
        steps = max(1, round(self.steps * self.polish))
        number = len(self.trials) + 1
        trial = Trial(number, number, "polish", "with parameters rounded")
        rounding = steps_of(data)
        polished = self._trained(copy.deepcopy(fit.field), recipe, steps, trial, rounding)
        self.last = polished
        if polished.ended == "stopped":
            raise _Stopped
        if target is None:
            data = self._encoded(polished, rounding=polished.rounding)
            self.best = _Landed(data, polished, self.signal.quality(decode(data)))
        else:
            self._land(polished)


def _resolved(field: Field | Preset | str | None, signal: Signal) -> Preset:
    """The preset of what the user gave."""
    from fields import registry

    kind = signal.domain.kind
    try:
        if isinstance(field, Field):
            preset = presets.for_field(kind, registry.name_of(field))
            return dataclasses.replace(preset, hyperparameters=field.hyperparameters)
        if isinstance(field, str):
            registry.field_class(field)
            return presets.for_field(kind, field)
    except FieldError as error:
        raise FitError(str(error)) from None
    if field is None:
        return presets.load(signal.preset or presets.DEFAULTS[kind], kind)
    return field


def steps_of(data: bytes) -> list[int]:
    """Index of each stored row's quantisation step in a file."""
    bodies = container.unpack(data).bodies(container.PARAMETERS)
    return [row.step for body in bodies for row in decode_rows(body)]
