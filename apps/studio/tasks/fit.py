"""Fit a field to a signal, showing how it goes, and make a file of it."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

import inr
from apps.studio import live
from apps.studio.decoded import Decoded
from apps.studio.desk import Desk
from apps.studio.spec import LIMITS, open_source, preset_of
from inr.codec.encode import encode
from inr.files import read_bytes, suffix_of, write_bytes
from inr.fitting.callbacks import BetweenBursts
from inr.fitting.fit import Fit
from inr.fitting.module import FitModule
from inr.fitting.snapshot import Snapshot
from inr.metrics import psnr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apps.view.page import Section
    from fields.kernels.select import Choice
    from inr.signals.base import Signal

SNAPSHOT = "fit.snapshot"
SNAPSHOT_SECONDS = 10.0

REPORT_SECONDS = 0.2
FRAME_SECONDS = 0.3
"""Between two previews, where their share of the time allows it."""

SHARE = 0.2
"""Part of the time that previews may take, if the page says nothing else."""

LEAST_POINTS = 1 << 10
MOST_POINTS = 1 << 18
FIRST_POINTS = 1 << 14

ROOM = 6_000_000
"""Bytes of the sections that show a finished file, about."""


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Fit what a spec says (see `apps.studio.spec`), from a snapshot in the folder if there is one.

    Returns:
        What became of it; {"paused": True} where the user asked for a pause.

    Raises:
        InrError: it cannot be done, or diverged.
    """
    desk.emit({"event": "phase", "phase": "starting"})
    signal = open_source(spec)
    preset = preset_of(spec, signal.domain.kind, signal.preset)
    snapshot = Snapshot(desk.folder / SNAPSHOT, every=SNAPSHOT_SECONDS, resume=True)
    watcher = Watcher(desk, signal)
    fit = inr.fit(
        signal,
        preset,
        **{name: spec.get(name) for name in ("steps", "seconds", "psnr")},
        seed=int(spec.get("seed") or 0),
        device=desk.device,
        callbacks=[watcher, snapshot],
    )
    if fit.ended == "stopped" and desk.asked == "pause" and snapshot.path.exists():
        return {"paused": True, "steps": fit.steps, "seconds": fit.seconds}
    if fit.ended != "stopped":
        snapshot.discard()
    desk.emit({"event": "phase", "phase": "coding"})
    result = stored(fit, spec, desk)
    show_file(desk.folder / result["file"], signal, desk)
    return result | backend(desk.device, fit.backend)


def stored(fit: Fit, spec: Mapping[str, Any], desk: Desk) -> dict[str, Any]:
    """Write a fit's file into the job's folder, and say what it decodes to."""
    begin = time.perf_counter()
    data = encode(
        fit.field,
        fit.signal,
        target_psnr=spec.get("psnr"),
        rounding=fit.rounding,
        effort=int(spec.get("effort") or 4),
    )
    seconds = time.perf_counter() - begin
    name = file_name(str(spec.get("name") or "signal"))
    write_bytes(desk.folder / name, data)
    decoded = Decoded(data).field
    metrics = fit.signal.metrics(decoded)
    return {
        "file": name,
        "bytes": len(data),
        "psnr": finite(metrics["psnr"]),
        "truth": finite(metrics["psnr_truth"]) if "psnr_truth" in metrics else None,
        "metrics": {key: finite(value) for key, value in metrics.items()},
        "density": fit.signal.domain.density(len(data)),
        "ended": fit.ended,
        "steps": fit.steps,
        "seconds": round(fit.seconds, 3),
        "seconds_encoding": round(seconds, 3),
        "kind": fit.signal.domain.kind,
        "warnings": fit.signal.verdict(decoded, metrics),
    }


def show_file(path: Path, signal: Signal, desk: Desk) -> None:
    """Show what `inr decode` makes of a file, beside what was fitted."""
    file = Decoded(read_bytes(path, LIMITS.file_bytes))
    # observations are made by torch
    drawn: Any = file.drawn if signal.complete else file.field
    show(desk, live.finished(drawn, signal, ROOM))


def file_name(source: str) -> str:
    """The name of the file that is made of a source's."""
    name = Path(source).name
    return f"{name.removesuffix(suffix_of(name)) or 'signal'}.inr"


def backend(device: str, choice: Choice) -> dict[str, str]:
    """Where a field is evaluated and by what, and why."""
    import torch

    threads = torch.get_num_threads()
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {threads} threads"
    return {"device": name, "backend": choice.backend, "why": choice.reason}


def show(desk: Desk, sections: list[Section]) -> None:
    """Send a frame to the page."""
    desk.emit({"event": "frame", "sections": [dataclasses.asdict(part) for part in sections]})


def finite(value: float) -> float | None:
    """A figure for JSON: None stands for an infinite one, or none."""
    return round(float(value), 4) if math.isfinite(value) else None


class Watcher(BetweenBursts):
    """Tells of a fit, shows it, and ends it when that is asked.

    Args:
        desk: Whom to tell.
        signal: What is fitted.
        most: Points that a preview may evaluate at most.
    """

    def __init__(self, desk: Desk, signal: Signal, most: int = MOST_POINTS) -> None:
        super().__init__()
        self.desk = desk
        self.signal = signal
        self.most = most
        self.view = live.view_of(signal)
        self._reported = 0.0
        self._framed = -math.inf
        self._cost: float | None = None
        self._per_point = 0.0
        self._rate: tuple[float, int] | None = None
        self._speed = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say that it goes on; where it is to stop before a step was done, it does."""
        assert isinstance(pl_module, FitModule)
        self.desk.emit({"event": "phase", "phase": "fitting"})
        self.desk.emit({"event": "backend"} | backend(self.desk.device, pl_module.backend))
        self._rate = (time.monotonic(), pl_module.fit_step)
        if self.desk.asked:
            pl_module.finished = "stopped"

    def between(self, module: FitModule) -> None:
        """After each burst."""
        now = time.monotonic()
        if module.finished is not None or now - self._reported >= REPORT_SECONDS:
            self._report(module, now)
        if module.finished is None and self.desk.asked:
            module.finished = "stopped"
        if module.finished is None and now >= self._next_frame():
            self._frame(module)

    def _report(self, module: FitModule, now: float) -> None:
        assert self._rate is not None
        since, steps = self._rate
        if now - since > 0.5:
            rate = (module.fit_step - steps) / (now - since)
            self._speed = rate if not self._speed else 0.6 * self._speed + 0.4 * rate
            self._rate = (now, module.fit_step)
        self._reported = now
        good = 0 < module.loss < math.inf
        share = min(module.progress(), 1.0)
        batch = min(module.signal.count, module.recipe.batch)
        left = module.seconds * (1 - share) / share if share > 0 else None
        self.desk.emit(
            {
                "event": "progress",
                "step": module.fit_step,
                "seconds": round(module.seconds, 3),
                "psnr": round(psnr(module.loss, 2.0), 3) if good else None,
                "loss": module.loss if good else None,
                "progress": round(share, 4),
                "steps_per_second": round(self._speed, 2),
                "points_per_second": round(self._speed * batch),
                "seconds_left": None if left is None else round(left, 1),
            }
        )

    def _share(self) -> float:
        share = self.desk.look.get("share", SHARE)
        return min(max(float(share), 0.01), 0.9)

    def _next_frame(self) -> float:
        if self._cost is None:
            return 0.0
        return self._framed + max(FRAME_SECONDS, self._cost / self._share())

    def _frame(self, module: FitModule) -> None:
        """Show the field, with as many points as its share of the time allows."""
        import torch

        allowed = self._share() * FRAME_SECONDS
        points = FIRST_POINTS
        if self._per_point:
            points = int(min(max(allowed / self._per_point, LEAST_POINTS), self.most))
        begin = time.monotonic()
        with torch.no_grad():
            sections = self.view.sections(module.field, points, self.desk.look)
        show(self.desk, sections)
        self._framed = time.monotonic()
        self._cost = self._framed - begin
        # the first one pays for what is made once
        known = self._cost / points
        self._per_point = known if not self._per_point else 0.7 * self._per_point + 0.3 * known
