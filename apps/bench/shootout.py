"""The shoot-out: every field on the same signals under one protocol.

Equal numbers of stored scalars; the whole signal in each step; Adam with its rate falling to a
tenth, exponentially; the rate from a sweep around the authors', run with the first seed and going
on while its best is at its end; then the other seeds at the best rate. What counts is the last
iterate with its weights frozen: PSNR of values clipped to [-1, 1], R = 2. The best along the way is
listed beside it. Runs are appended to a journal: a stopped shoot-out goes on where it was.
"""

from __future__ import annotations

import concurrent.futures as cf
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apps.bench.contestants import BY_NAME, Contestant
from apps.bench.signals import Source
from inr.errors import InputError, UsageError

SWEEP = (1 / 3, 1.0, 3.0)
"""Factors on the authors' learning rate."""

WIDEST_SWEEP = 7
"""Learning rates tried at most, where the best keeps lying at the end of the sweep."""

BINS = 24
POINTS = 200


@dataclass(frozen=True)
class Settings:
    """One shoot-out.

    Args:
        sources: The signals.
        contestants: Names of the contestants.
        scalars: Stored scalars of each field, at most.
        steps: Optimiser steps of each run.
        seeds: Runs at the best learning rate, the sweep's one included.
        device: "cpu", "cuda:0", "auto".
    """

    sources: tuple[Source, ...]
    contestants: tuple[str, ...]
    scalars: int
    steps: int
    seeds: int = 3
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """One run: a contestant on a signal with a learning rate and a seed."""

    contestant: str
    source: Source
    lr: float
    seed: int

    @property
    def key(self) -> str:
        """What names the run in the journal."""
        return _key(self.contestant, self.source.name, self.lr, self.seed)


@dataclass
class Run:
    """What came of a job.

    Args:
        contestant: Its name.
        source: The signal's name.
        lr: Learning rate.
        seed: Seed of initialisation.
        scalars: Stored scalars.
        psnr: Last iterate, in dB; None where the fit diverged.
        best: The best step's, by training loss.
        iou: Of shapes, at the level 0.
        seconds: Seconds of fitting.
        steps: Steps of the curve's points.
        times: Seconds of the curve's points.
        curve: PSNR of the training loss at them.
        spectrum: Mean power of the error in bands of frequency, from 0 to Nyquist's.
        hyperparameters: What the field was built with, but for its defaults.
    """

    contestant: str
    source: str
    lr: float
    seed: int
    scalars: int
    psnr: float | None
    best: float | None
    iou: float | None
    seconds: float
    steps: list[int]
    times: list[float]
    curve: list[float]
    spectrum: list[float]
    hyperparameters: dict[str, Any]

    @property
    def key(self) -> str:
        """See `Job.key`."""
        return _key(self.contestant, self.source, self.lr, self.seed)


def shoot(
    settings: Settings, journal: Path, jobs: int, tell: Callable[[int, int, Run], None]
) -> list[Run]:
    """Run all that the journal does not hold yet.

    Args:
        settings: What is compared, and how.
        journal: JSON lines: the settings, then one run each.
        jobs: Processes at a time.
        tell: Called after each run with the number done, the number expected and the run.

    Raises:
        UsageError: the journal is of other settings.
        InputError: a signal cannot be read.
    """
    for source in settings.sources:
        source.open()  # errors belong before hours of work
    runs = {run.key: run for run in _read(journal, settings)}
    cells = [
        Cell(BY_NAME[name], source, settings.seeds)
        for source in settings.sources
        for name in settings.contestants
    ]
    context = multiprocessing.get_context("spawn")
    expected = sum(cell.expected for cell in cells)
    with (
        journal.open("a", encoding="utf-8") as log,
        cf.ProcessPoolExecutor(jobs, context, initializer=_worker, initargs=(jobs,)) as pool,
    ):
        if not journal.stat().st_size:
            _append(log, {"settings": asdict(settings)})
        waiting: dict[cf.Future[Run], Job] = {}
        try:
            while True:
                busy = {job.key for job in waiting.values()}
                for cell in cells:
                    for job in cell.next(runs):
                        if job.key not in runs and job.key not in busy:
                            waiting[pool.submit(run, job, settings)] = job
                if not waiting:
                    break
                done, _ = cf.wait(waiting, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    finished = future.result()
                    del waiting[future]
                    runs[finished.key] = finished
                    _append(log, asdict(finished))
                    tell(len(runs), max(expected, len(runs) + len(waiting)), finished)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return list(runs.values())


@dataclass(frozen=True)
class Cell:
    """A contestant on a signal: first the sweep, then the seeds."""

    contestant: Contestant
    source: Source
    seeds: int

    @property
    def expected(self) -> int:
        """Runs, if the sweep's best is not at its end."""
        return len(SWEEP) + self.seeds - 1

    def next(self, runs: dict[str, Run]) -> Iterator[Job]:
        """The jobs that the runs so far call for; some of them may be done."""
        base = self.contestant.lr_for(self.source.kind)
        rates = [base * factor for factor in SWEEP]
        while True:
            sweep = [Job(self.contestant.name, self.source, lr, 0) for lr in rates]
            yield from sweep
            if any(job.key not in runs for job in sweep):
                return
            best = rates[max(range(len(rates)), key=lambda i: quality(runs[sweep[i].key]))]
            if best not in (rates[0], rates[-1]) or len(rates) >= WIDEST_SWEEP:
                break
            rates = [*rates, best * 3] if best == rates[-1] else [best / 3, *rates]
        for seed in range(1, self.seeds):
            yield Job(self.contestant.name, self.source, best, seed)


def quality(run: Run) -> float:
    """PSNR of the last iterate; diverged runs come last."""
    return -math.inf if run.psnr is None else run.psnr


def run(job: Job, settings: Settings) -> Run:
    """Fit once."""
    import torch

    import inr
    from inr.errors import FitError
    from inr.metrics import psnr
    from inr.presets import Preset, Recipe

    signal = job.source.open()
    contestant = BY_NAME[job.contestant]
    hyperparameters = contestant.sized(job.source.kind, signal, settings.scalars)
    recipe = Recipe(
        lr=job.lr, schedule="exponential", final_lr=0.1, batch=1 << 40, steps=settings.steps
    )
    preset = Preset(contestant.field, hyperparameters, recipe)
    about: dict[str, Any] = {"contestant": job.contestant, "source": job.source.name, "lr": job.lr}
    try:
        fit = inr.fit(signal, preset, steps=settings.steps, seed=job.seed, device=settings.device)
    except FitError:
        return Run(
            **about, seed=job.seed, scalars=0, psnr=None, best=None, iou=None, seconds=0.0,
            steps=[], times=[], curve=[], spectrum=[], hyperparameters=hyperparameters,
        )  # fmt: skip
    with torch.no_grad():
        error = fit.field.on_grid(signal.axes()).clamp(-1, 1) - signal.values
    points = _thinned(fit.history)
    last = error.double().square().mean().item()
    return Run(
        **about,
        seed=job.seed,
        scalars=sum(s.tensor.numel() for s in fit.field.stored_parameters()),
        psnr=_finite(psnr(last, 2.0)),
        best=_finite(psnr(min(last, *(loss for _, _, loss in fit.history)), 2.0)),
        iou=fit.metrics.get("iou"),
        seconds=round(fit.seconds, 3),
        steps=[step for step, _, _ in points],
        times=[round(seconds, 3) for _, seconds, _ in points],
        curve=[round(min(psnr(loss, 2.0), 999.0), 3) for _, _, loss in points],
        spectrum=radial_power(error),
        hyperparameters=hyperparameters,
    )


def radial_power(values: Any, bins: int = BINS) -> list[float]:
    """Mean power of a lattice of values in bands of frequency from 0 to Nyquist's.

    Args:
        values: Tensor of shape (*shape, channels).
        bins: Number of bands; the frequency of a coefficient is the largest of its axes', in parts
            of Nyquist's.
    """
    import numpy as np

    array = values.double().cpu().numpy()
    axes = tuple(range(array.ndim - 1))
    power = np.square(np.abs(np.fft.fftn(array, axes=axes, norm="ortho"))).mean(-1)
    frequencies = np.meshgrid(*(2 * np.abs(np.fft.fftfreq(n)) for n in power.shape), indexing="ij")
    band = np.minimum((np.max(frequencies, axis=0) * bins).astype(int), bins - 1).ravel()
    total = np.bincount(band, power.ravel(), bins)
    return [float(p) for p in total / np.maximum(np.bincount(band, minlength=bins), 1)]


def _key(contestant: str, source: str, lr: float, seed: int) -> str:
    return f"{contestant}|{source}|{lr:.6g}|{seed}"


def _thinned(history: Sequence[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """At most POINTS of a history, the last one among them."""
    stride = max(1, math.ceil(len(history) / POINTS))
    return list(history[::-1][::stride][::-1])


def _finite(value: float) -> float | None:
    return round(min(value, 999.0), 3) if value == value and value > -math.inf else None


def _worker(jobs: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _append(log: Any, record: dict[str, Any]) -> None:
    log.write(json.dumps(record) + "\n")
    log.flush()
    os.fsync(log.fileno())


def _read(journal: Path, settings: Settings) -> list[Run]:
    """Runs of an earlier part; a last line that was cut short is dropped from the file."""
    if not journal.exists():
        return []
    text = journal.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        journal.write_text(whole, encoding="utf-8")
    try:
        first, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
        if first is None:
            return []
        same = first["settings"] == json.loads(json.dumps(asdict(settings)))
        runs = [Run(**line) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{journal}: is no journal of a shoot-out; choose another folder"
        ) from None
    if not same:
        raise UsageError(f"{journal}: is of other settings; choose another --out-dir")
    return runs
