"""From a signal to a fitted field: the whole road in one screen.

signal --statistics--> field.adapt --> FitModule in Lightning's Trainer, in bursts --> Fit
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
import torch

from fields import registry
from fields.base import Field, FieldError
from fields.kernels.select import PLAIN, Choice
from fields.multistage import MultiStage
from inr import presets
from inr.backend import computing
from inr.errors import FitError, UsageError
from inr.fitting.callbacks import NanGuard
from inr.fitting.module import Budget, Bursts, FitModule
from inr.fitting.quantaware import round_stored
from inr.fitting.stages import Stage, StagedModule
from inr.presets import Preset, Recipe
from inr.signals.base import GridSignal, Signal

FILE_MARGIN = 0.1


@dataclass
class Fit:
    """A fitted field and how it came about.

    Args:
        field: The field; `field.domain` is the signal's.
        signal: What it was fitted to.
        metrics: Quality with the weights as they are, last iterate.
        history: (step, seconds, mean squared error) after each burst.
        steps: Optimiser steps done.
        seconds: Seconds of fitting.
        ended: Which budget ended it: "steps", "seconds", "psnr", or "stopped" by hand; for a fit in
            stages also "stages", when all are done, or "stalled", at one that lowered nothing.
        target: The PSNR that was asked for, if any.
        rounding: Index of each stored row's quantisation step, where the fit ended on rounded
            parameters (see `Recipe.quantize_db`): a file takes these steps.
        stages: What became of the stages of a multi-stage field.
        backend: What computed it while it was fitted, and why.
    """

    field: Field
    signal: Signal
    metrics: dict[str, float]
    history: list[tuple[int, float, float]]
    steps: int
    seconds: float
    ended: str
    target: float | None = None
    rounding: list[int] | None = None
    stages: list[Stage] = dataclasses.field(default_factory=list)
    backend: Choice = PLAIN


def fit(  # noqa: PLR0913 (what a fit may be bound by)
    signal: Signal,
    field: Field | Preset | str | None = None,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    psnr: float | None = None,
    seed: int = 0,
    device: str = "auto",
    backend: str | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Fit:
    """Fit a field to a signal until the first of the given budgets is reached.

    Args:
        signal: From `inr.open` or, say, `inr.signals.image.Image.from_array`.
        field: A field, the name of one, a preset (`inr.presets.load("image/grid-fast")`), or None
            for the default of the signal's kind.
        steps: Optimiser steps; the preset's number where neither this nor `seconds` is given.
        seconds: Seconds of fitting.
        psnr: Quality in dB to reach; a fit stops a tenth of a dB above it, so that its file, which
            may lose as much, still has it.
        seed: Seed of the initialisation and of batches; does not matter for a field passed in.
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: What computes the field: "auto" for fused kernels wherever they apply, "triton",
            "cpp", "tinycudann", "compile" or "eager" (see `fields.kernels.select`); None for that
            of the process (see `inr.backend.prefer`).
        callbacks: Lightning callbacks, run between bursts (see `inr.fitting.callbacks`).

    Raises:
        FitError: field and signal do not belong together, or the fit diverged.
        UsageError: a budget or the device is wrong, or the backend cannot do it.
    """
    check_budget(steps, seconds, psnr)
    choose_device(device)
    try:
        preset, built = build_field(signal, field, seed)
    except FieldError as error:
        raise FitError(str(error)) from None
    if steps is None and seconds is None:
        steps = preset.recipe.steps
    budget = Budget(steps, seconds, None if psnr is None else psnr + FILE_MARGIN)
    found = train(
        built,
        signal,
        preset.recipe,
        budget,
        seed=seed,
        device=device,
        backend=backend,
        callbacks=callbacks,
    )
    return dataclasses.replace(found, target=psnr)


def train(  # noqa: PLR0913 (what a fit may be bound by)
    built: Field,
    signal: Signal,
    recipe: Recipe,
    budget: Budget,
    *,
    rounding: list[int] | None = None,
    seed: int = 0,
    device: str = "auto",
    backend: str | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Fit:
    """Train a field, as it is, on a signal, as a recipe says.

    Args:
        built: The field; it is trained in place.
        signal: What it is fitted to.
        recipe: How it is trained.
        budget: When that ends.
        rounding: Index of each stored row's quantisation step, to train with from the first step
            on; if not given, the recipe says when they are chosen, if at all.
        seed: Seed of batches.
        device: As `fit` takes it.
        backend: As `fit` takes it.
        callbacks: As `fit` takes them.

    Raises:
        FitError: the fit diverged, or the field cannot be what the signal needs.
        UsageError: the device is wrong, or the backend cannot do it.
    """
    place = choose_device(device)
    try:
        built.to(place, signal.dtype)
    except FieldError as error:
        raise FitError(str(error)) from None
    with computing(built, backend, device=place, may_build=True) as choice:
        module = _module(built, signal.to(place), recipe, budget)
        module.backend = choice
        module.rounding = rounding
        module.generator.manual_seed(seed)
        _run(module, place, callbacks)

    built.domain = signal.domain
    built.to("cpu")
    if module.rounding is not None:
        round_stored(built, module.rounding)
    with computing(built, backend if place == "cpu" else None):
        metrics = signal.metrics(built)
    return Fit(
        field=built,
        signal=signal,
        metrics=metrics,
        history=module.history,
        steps=module.fit_step,
        seconds=module.seconds,
        ended=module.finished or "stopped",
        rounding=module.rounding,
        stages=module.stages if isinstance(module, StagedModule) else [],
        backend=choice,
    )


def _run(module: FitModule, place: str, callbacks: Sequence[pl.Callback]) -> None:
    """Lightning's part."""
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if place.startswith("cuda") else "cpu",
            devices=[int(place[5:] or 0)] if place.startswith("cuda") else 1,
            max_epochs=1,
            barebones=True,
            callbacks=[*([] if isinstance(module, StagedModule) else [NanGuard()]), *callbacks],
        )
        loader = torch.utils.data.DataLoader(Bursts(module), batch_size=None)
        try:
            trainer.fit(module, loader)
        except SystemExit:  # what Lightning makes of a Ctrl-C; a caller's session must survive it
            raise KeyboardInterrupt from None


def build_field(
    signal: Signal, field: Field | Preset | str | None, seed: int
) -> tuple[Preset, Field]:
    """Resolve what the user gave into a preset and a field that is adapted to the signal.

    A field that was passed in stays as it is: its maker calls `adapt`.
    """
    domain = signal.domain
    if isinstance(field, Field):
        if (field.in_features, field.out_features) != (len(domain.shape), domain.channels):
            raise FieldError(
                f"the field maps {field.in_features} coordinates to {field.out_features} values: "
                f"this signal needs {len(domain.shape)} to {domain.channels}"
            )
        return presets.for_field(domain.kind, registry.name_of(field)), field
    if field is None:
        preset = presets.load(signal.preset or presets.DEFAULTS[domain.kind], domain.kind)
    elif isinstance(field, str):
        preset = presets.for_field(domain.kind, field)
    else:
        preset = field
    chosen = registry.field_class(preset.field)
    hyperparameters = chosen.complete(domain.shape, preset.hyperparameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = registry.create(preset.field, len(domain.shape), domain.channels, **hyperparameters)
        built.adapt(signal.statistics())
    return preset, built


def _module(field: Field, signal: Signal, recipe: Recipe, budget: Budget) -> FitModule:
    """What fits the field: stage by stage, where it is made of stages."""
    if isinstance(field, MultiStage):
        if not isinstance(signal, GridSignal):
            raise UsageError("a multistage field is fitted to signals on a lattice only")
        return StagedModule(field, signal, recipe, budget)
    if recipe.second_order:
        raise UsageError(
            f"recipe.second_order is {recipe.second_order:g}: only the stages of a multistage "
            "field take such steps; set it to 0"
        )
    return FitModule(field, signal, recipe, budget)


def check_budget(steps: int | None, seconds: float | None, psnr: float | None) -> None:
    """Refuse budgets that make no sense, by name."""
    for name, value in (("steps", steps), ("seconds", seconds), ("psnr", psnr)):
        if value is not None and not 0 <= value < 1e12:
            raise UsageError(f"{name} is {value}: give a number from 0 up")


def choose_device(device: str) -> str:
    """The name of a device as torch has it.

    Raises:
        UsageError: there is no such device.
    """
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device == "cuda" or (device.startswith("cuda:") and device[5:].isdigit()):
        index = int(device[5:] or 0)
        if torch.cuda.device_count() <= index:
            raise UsageError(f"device is {device!r}: torch sees {torch.cuda.device_count()} GPUs")
        return f"cuda:{index}"
    raise UsageError(f"device is {device!r}: give auto, cpu, cuda or cuda:N")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice is for other kinds of training; its log lines would break the bar."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        logger.setLevel(level)
