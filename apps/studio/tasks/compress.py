"""Search for a file of a size or a quality, and tell of every fit on the way."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

import inr
from apps.studio.desk import Desk
from apps.studio.spec import open_source, preset_of
from apps.studio.tasks.fit import Watcher, backend, file_name, finite, show_file
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.errors import InputError, UsageError
from inr.files import write_bytes
from inr.fitting.module import FitModule
from inr.rate.control import EFFORTS, LOSS_DB_RATED, SHORT_SHARE, OnTrial, Trial
from inr.rate.targets import settle, wanted

if TYPE_CHECKING:
    from inr.rate.control import Compressed
    from inr.rate.targets import Target
    from inr.signals.base import Signal

POINT_DB = 0.5
"""What the coding of a fit's point on the curve may cost."""

POINTS_SHARE = 0.25
"""Part of the search's time that such points may take."""

EVALUATIONS = 60
"""Of the field on the signal in the time that such a point takes, about; the next ones know."""

REFERENCES = {"jpeg": ("JPEG", 1 << 23), "webp": ("WebP", 1 << 20)}
"""By codec, its name on the curve, and pixels up to which it is fast enough to be there."""

SETTINGS = 7
"""Of each of these codecs."""

REFERENCE_SECONDS = 1.0


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Compress what a spec says (see `apps.studio.spec`) with `effort`, within `seconds`.

    Its `target` is {name: value}, with a name of `inr.rate.targets.TARGETS`. A pause ends the
    search as a stop does: there is nothing to go on from.

    Returns:
        The file and its figures; where `reached` is False it is the best that was found.

    Raises:
        InrError: it cannot be done, or no file met the target.
    """
    desk.emit({"event": "phase", "phase": "starting"})
    signal = open_source(spec)
    preset = preset_of(spec, signal.domain.kind, signal.preset)
    effort, seconds = spec.get("effort", 4), spec.get("seconds")
    if effort not in EFFORTS:
        raise UsageError(f"effort is {effort!r}: give a whole number from 1 to 9")
    if not signal.complete:
        raise UsageError("this is known at points only, which cannot be compressed: fit it instead")
    asked = wanted(spec["target"]).target
    if asked is None:
        raise UsageError("no target is given: give a size or a quality")
    target = settle(*asked, signal)
    desk.emit({"event": "target", "measure": target.measure, "value": target.value})
    if signal.domain.kind == "image":
        desk.emit({"event": "reference"} | references(signal))
    loss_db = max(LOSS_DB_RATED, preset.recipe.quantize_db)
    watcher = SearchWatcher(desk, signal, effort, target, loss_db)
    found = inr.compress(
        signal,
        preset,
        effort=effort,
        seconds=seconds,
        seed=int(spec.get("seed") or 0),
        device=desk.device,
        callbacks=[watcher],
        **spec["target"],
    )
    watcher.settle()
    return stored(found, spec, desk) | backend(desk.device, found.fit.backend)


def stored(found: Compressed, spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Write the file into the job's folder, and show what it decodes to."""
    signal = found.fit.signal
    name = file_name(str(spec.get("name") or "signal"))
    write_bytes(desk.folder / name, found.data)
    show_file(desk.folder / name, signal, desk)
    target = found.target
    return {
        "file": name,
        "bytes": len(found.data),
        "psnr": finite(found.quality["psnr"]),
        "metrics": {key: finite(value) for key, value in found.quality.items()},
        "density": signal.domain.density(len(found.data)),
        "target": None if target is None else {"measure": target.measure, "value": target.value},
        "asked": "" if target is None else str(target),
        "reached": found.reached,
        "stopped": found.stopped,
        "ended": "stopped" if found.stopped else "searched",
        "fits": len(found.trials),
        "seconds": round(found.seconds, 3),
        "kind": signal.domain.kind,
        "warnings": signal.verdict(found.field, found.quality),
    }


def references(signal: Signal) -> dict[str, Any]:
    """What JPEG and WebP make of the same picture, within about `REFERENCE_SECONDS`.

    Returns:
        {"series": [{"name", "points": [[bytes, PSNR or None, label]]}], "notes": [text]}
    """
    from apps.compare.codec import chosen
    from apps.compare.pictures import CODECS, measure, prepared

    try:
        picture, notes = prepared(signal)
    except InputError as error:
        return {"series": [], "notes": [f"No JPEG or WebP beside it: the picture {error}."]}
    notes = [f"JPEG and WebP: {note}." for note in notes]
    end = time.perf_counter() + REFERENCE_SECONDS
    series = []
    for codec in CODECS:
        name, pixels = REFERENCES.get(codec.name, ("", 0))
        if not name:
            continue
        if picture.count > pixels:
            notes.append(f"No {name} beside it: the picture is too large to try it in a second.")
            continue
        points = []
        for setting in chosen(codec.ladder, SETTINGS):
            if time.perf_counter() > end:
                break
            data = codec.encode(picture, setting)
            quality = measure(picture, codec.decode(data, picture))["psnr"]
            points.append([len(data), finite(quality), codec.label(setting)])
        if points:
            series.append({"name": name, "points": points})
    return {"series": series, "notes": notes}


class Plan:
    """How much of a search is done, as far as it is known beforehand.

    Fits are counted in full ones. How many there will be shows on the way: the plan holds as many
    as there are at most, and grows where none of them met the target.

    Args:
        effort: 1 to 9.
    """

    def __init__(self, effort: int) -> None:
        self._effort = EFFORTS[effort]
        self._done = 0.0
        self._weight = 0.0
        self._count = {"short": 0, "full": 0, "polish": 0}

    def next(self, purpose: str) -> tuple[float, float]:
        """A fit begins: the share of the search before it, and its own share."""
        effort = self._effort
        self._done += self._weight
        self._count[purpose] += 1
        self._weight = {"short": SHORT_SHARE, "full": 1.0, "polish": effort.polish}[purpose]
        after = 0.0
        if purpose == "short":
            after += SHORT_SHARE * max(effort.short - self._count["short"], 0)
        if purpose != "polish":
            after += max(effort.full - self._count["full"], 0) + effort.polish
        whole = self._done + self._weight + after
        return self._done / whole, self._weight / whole


class SearchWatcher(Watcher, OnTrial):
    """Tells of a search: of each fit as `Watcher` does, and what file it would make.

    Args:
        desk: Whom to tell.
        signal: What is compressed.
        effort: 1 to 9.
        target: What the file is to be.
        loss_db: What the coding by which a search for a size measures its fits costs at most.
    """

    def __init__(
        self, desk: Desk, signal: Signal, effort: int, target: Target, loss_db: float
    ) -> None:
        super().__init__(desk, signal)
        self._plan = Plan(effort)
        self._target = target
        self._loss_db = loss_db
        self._begin = time.monotonic()
        self._measuring = 0.0
        self._evaluations = float(EVALUATIONS)
        self._trial: Trial | None = None
        self._told: dict[str, Any] = {}
        self._spent = 0.0

    def on_trial(self, trial: Trial) -> bool:
        """The next fit begins, if the user does not want the search to end."""
        self.settle(trial.purpose)
        if self.desk.asked:
            return False
        before, part = self._plan.next(trial.purpose)
        self._trial = trial
        self._told = {
            "event": "trial",
            "number": trial.number,
            "of": trial.of,
            "purpose": trial.purpose,
            "label": trial.label,
            "state": "fitting",
            "before": round(before, 4),
            "part": round(part, 4),
            "spent": round(self._spent, 3),
        }
        self.desk.emit(self._told)
        # what was told last is of the fit before
        self.desk.emit({"event": "progress", "step": 0, "seconds": 0.0, "progress": 0.0})
        return True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A fit is over: what comes now is its coding."""
        assert isinstance(pl_module, FitModule)
        steps, seconds = pl_module.fit_step, round(pl_module.seconds, 3)
        self._told |= {"state": "coding", "steps": steps, "seconds": seconds}
        self.desk.emit({"event": "phase", "phase": "coding"})
        self.desk.emit(self._told)
        if pl_module.finished != "stopped":
            self._measure(pl_module)

    def settle(self, following: str | None = None) -> None:
        """Tell of the last fit what the search knows now.

        Args:
            following: Purpose of the fit that comes next, if one does.
        """
        trial, self._trial = self._trial, None
        if trial is None:
            return
        self._spent += trial.seconds
        figures = {"steps": trial.steps, "seconds": round(trial.seconds, 3)}
        self._told |= {"state": "over", "quality": finite(trial.quality)} | figures
        if "metrics" not in self._told and trial.bytes is not None:
            self._told |= {"bytes": trial.bytes, "least": self._least(trial, following)}
        self.desk.emit(self._told)

    def _least(self, trial: Trial, following: str | None) -> dict[str, float | None]:
        """What the quality of the file of which a trial has the bytes is at least, by measure."""
        target = self._target
        if not target.is_size:
            return {target.measure: target.value}  # there are bytes of files that meet it only
        # of the file that met the target, which has fewer, nothing is promised
        observed = trial.purpose == "short" or (trial.purpose, following) == ("full", "full")
        return {"psnr": finite(trial.quality - self._loss_db)} if observed else {}

    def _measure(self, module: FitModule) -> None:
        """Tell size and quality of a quick file of the field as it is, where that is cheap."""
        begin = time.monotonic()
        field = copy.deepcopy(module.field).cpu()
        field.domain = self.signal.domain
        self.signal.quality(field)
        once = time.monotonic() - begin
        allowed = POINTS_SHARE * (begin - self._begin)
        if self._measuring + self._evaluations * once <= allowed:
            data = encode(
                field, self.signal, max_loss_db=POINT_DB, rounding=module.rounding, effort=1
            )
            metrics = self.signal.metrics(decode(data))
            values = {name: finite(value) for name, value in metrics.items()}
            self._told |= {"bytes": len(data), "metrics": values}
            self.desk.emit(self._told)
            self._evaluations = (time.monotonic() - begin) / once
        self._measuring += time.monotonic() - begin
