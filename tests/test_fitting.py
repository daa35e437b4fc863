"""Fitting: budgets, determinism, exact resumption, rollback, stopping, and what it costs."""

import math
import os
import signal
import threading

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import fields
import inr
from inr import presets
from inr.codec.encode import encode
from inr.errors import FitError, InputError, UsageError
from inr.fitting.callbacks import BetweenBursts, NanGuard, Preview, Report, StopOnSignal
from inr.fitting.fit import build_field
from inr.fitting.module import Budget, FitModule
from inr.fitting.snapshot import Snapshot
from inr.metrics import psnr
from inr.presets import Preset, Recipe
from inr.signals.image import Image


@pytest.fixture
def image(patch) -> Image:
    return Image.from_array(patch)


def small_siren(**recipe) -> Preset:
    settings = {"lr": 1e-3, "schedule": "cosine", "steps": 40} | recipe
    return Preset("siren", {"hidden_features": 32, "hidden_layers": 1}, Recipe(**settings))


def weights(field: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in field.parameters()])


class Stop(BetweenBursts):
    """Stops the fit once `step` is reached, as a Ctrl-C would between bursts."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def between(self, module: FitModule) -> None:
        module._burst = 1
        if module.fit_step >= self.step:
            module.finished = "stopped"


# ------------------------------------------------------------------------------ budgets


def test_a_picture_is_fitted(image):
    fit = inr.fit(image, small_siren(steps=400, lr=2e-3))
    assert fit.ended == "steps"
    assert fit.steps == 400
    assert fit.metrics["psnr"] > 24
    assert fit.metrics["psnr"] > psnr(fit.history[0][2], 2.0) + 8
    assert fit.field.domain == image.domain
    steps = [h[0] for h in fit.history]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400


def test_default_field_is_near_at_once_and_small(camera):
    image = Image.from_array(camera[200:328, 180:308])
    fit = inr.fit(image, steps=60)
    data = encode(fit.field, image)
    assert isinstance(fit.field, fields.Grid)
    assert fit.metrics["psnr"] > 32
    assert len(data) < image.samples.nbytes / 2


def test_steps_seconds_and_psnr_each_end_a_fit(image):
    assert inr.fit(image, small_siren(), steps=7).steps == 7
    assert inr.fit(image, small_siren(), steps=0).steps == 0
    timed = inr.fit(image, small_siren(), seconds=0.3)
    assert timed.ended == "seconds"
    assert timed.seconds == pytest.approx(0.3, abs=0.2)
    reached = inr.fit(image, small_siren(lr=2e-3), psnr=15.0, steps=2000)
    assert reached.ended == "psnr"
    assert reached.metrics["psnr"] >= 15.0
    assert inr.fit(image, small_siren(), steps=5, seconds=100, psnr=99).ended == "steps"


def test_a_file_holds_the_quality_that_was_asked_for(image):
    fit = inr.fit(image, small_siren(lr=2e-3), psnr=17.0, steps=2000)
    from inr.codec.decode import decode

    data = encode(fit.field, image, target_psnr=fit.target)
    assert image.metrics(decode(data))["psnr"] >= 17.0


@pytest.mark.parametrize("budget", [{"steps": -1}, {"seconds": -0.5}, {"psnr": math.nan}])
def test_budgets_without_sense_are_refused(image, budget):
    with pytest.raises(UsageError, match=f"{next(iter(budget))} is"):
        inr.fit(image, small_siren(), **budget)


def test_wrong_devices_and_fields_are_refused(image):
    with pytest.raises(UsageError, match="device is 'tpu'"):
        inr.fit(image, small_siren(), device="tpu")
    with pytest.raises(FitError, match="this signal needs 2 to 3"):
        inr.fit(image, fields.Siren(2, 1))
    with pytest.raises(FitError, match="no field is named 'sirne': did you mean 'siren'"):
        inr.fit(image, "sirne")
    with pytest.raises(FitError, match="hidden_features is 0"):
        inr.fit(image, Preset("siren", {"hidden_features": 0}))


def test_recipes_are_checked_by_name():
    for bad in ({"lr": 0}, {"schedule": "linear"}, {"final_lr": 2}, {"batch": 0}, {"beta2": 1}):
        with pytest.raises(UsageError, match=f"recipe.{next(iter(bad))} is"):
            Recipe(**bad)


def test_schedules():
    for schedule, middle in (("constant", 1.0), ("cosine", 0.55), ("exponential", 10**-0.5)):
        recipe = Recipe(schedule=schedule, final_lr=0.1)
        assert recipe.factor(0) == pytest.approx(1)
        assert recipe.factor(0.5) == pytest.approx(middle)
        assert recipe.factor(1) == pytest.approx(1 if schedule == "constant" else 0.1)
        assert recipe.factor(7) == recipe.factor(1)


# --------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("preset", [small_siren(), small_siren(batch=300), "grid"])
def test_same_seed_same_bytes(image, preset):
    runs = [inr.fit(image, preset, steps=25, seed=seed) for seed in (1, 1, 2)]
    files = [encode(run.field, image) for run in runs]
    assert weights(runs[0].field).equal(weights(runs[1].field))
    assert files[0] == files[1]
    if preset != "grid":
        assert files[0] != files[2]


def test_burst_length_changes_nothing(image, monkeypatch):
    one = inr.fit(image, small_siren(batch=500), steps=30)
    monkeypatch.setattr("inr.fitting.module.BURST_SECONDS", 1e-9)
    assert weights(inr.fit(image, small_siren(batch=500), steps=30).field).equal(weights(one.field))


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_tiles_change_nothing_but_rounding(image, clip):
    """The chunked step against the plain whole-batch loop: same losses to 1e-5."""
    torch.manual_seed(0)
    field = fields.Siren(2, 3, hidden_features=64)
    plain = fields.Siren(2, 3, hidden_features=64)
    plain.load_state_dict(field.state_dict())
    module = FitModule(field, image, Recipe(lr=1e-4, clip=clip), Budget(20))
    module._tile = 300
    module.configure_optimizers()
    adam = torch.optim.Adam(plain.parameters(), lr=1e-4)
    coords = torch.stack(torch.meshgrid(*image.axes(), indexing="ij"), -1).reshape(-1, 2)
    for _ in range(20):
        module.step()
        adam.zero_grad()
        loss = torch.nn.functional.mse_loss(plain(coords), image.values.reshape(-1, 3))
        loss.backward()
        if clip:
            assert torch.nn.utils.clip_grad_norm_(plain.parameters(), clip) > clip
        adam.step()
        assert module.loss == pytest.approx(loss.item(), rel=1e-5)


def test_random_batches_cover_the_signal_evenly(image):
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(image.domain.shape)
    axes = image.axes()
    for _ in range(400):
        batch = image.random_batch(200, generator)
        rows = torch.searchsorted(axes[0], batch.axes[0])
        columns = torch.searchsorted(axes[1], batch.axes[1])
        counts[rows[:, None], columns] += 1
        assert batch.values.equal(image.values[rows[:, None], columns])
        assert 150 <= batch.values[..., 0].numel() <= 260
    mean = counts.mean()
    assert counts.min() > 0.4 * mean
    assert counts.max() < 1.7 * mean


# ----------------------------------------------------------------- stop, resume, rollback


@pytest.mark.parametrize("preset", [small_siren(), small_siren(batch=300), "grid"])
@pytest.mark.parametrize("cut", [1, 7, 24])
def test_a_resumed_fit_gives_the_same_bytes(image, tmp_path, preset, cut):
    whole = inr.fit(image, preset, steps=25, seed=3)
    path = tmp_path / "fit.snapshot"
    part = inr.fit(image, preset, steps=25, seed=3, callbacks=[Snapshot(path), Stop(cut)])
    assert part.ended == "stopped"
    assert part.steps < 25
    resumed = inr.fit(image, preset, steps=25, seed=3, callbacks=[Snapshot(path, resume=True)])
    assert resumed.steps == 25
    assert weights(resumed.field).equal(weights(whole.field))
    assert encode(resumed.field, image) == encode(whole.field, image)
    assert [h[0] for h in resumed.history] == sorted({h[0] for h in resumed.history})


def test_snapshots_of_other_fits_are_refused(image, tmp_path, coffee):
    path = tmp_path / "fit.snapshot"
    inr.fit(image, small_siren(), steps=5, callbacks=[Snapshot(path, every=0)])
    resume = [Snapshot(path, resume=True)]
    other = Image.from_array(coffee[:36, :52])
    for signal_, preset, steps, what in (
        (other, small_siren(), 5, "signal"),
        (image, small_siren(lr=1e-4), 5, "recipe"),
        (image, small_siren(), 6, "budget"),
        (image, Preset("siren", {"hidden_features": 33}, small_siren().recipe), 5, "field"),
    ):
        with pytest.raises(FitError, match=f"another {what}"):
            inr.fit(signal_, preset, steps=steps, callbacks=resume)
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="no snapshot"):
        inr.fit(image, small_siren(), steps=5, callbacks=resume)


def test_snapshots_hold_no_pickle(image, tmp_path):
    path = tmp_path / "fit.snapshot"
    inr.fit(image, small_siren(), steps=5, callbacks=[Snapshot(path, every=0)])
    data = path.read_bytes()
    assert int.from_bytes(data[:8], "little") < len(data)  # safetensors: header length, then JSON
    assert data[8:9] == b"{"
    assert list(tmp_path.iterdir()) == [path]


class Poison(BetweenBursts):
    """Makes the weights NaN at given steps, once each."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = list(steps)

    def between(self, module: FitModule) -> None:
        module._burst = 1
        if self.steps and module.fit_step >= self.steps[0]:
            self.steps.pop(0)
            with torch.no_grad():
                next(module.field.parameters()).fill_(math.nan)


@pytest.mark.parametrize("at", [(1,), (5, 9), (3, 6, 20)])
def test_nan_rolls_back_and_goes_on_at_a_lower_rate(image, at):
    fit = inr.fit(image, small_siren(lr=2e-3), steps=120, callbacks=[Poison(*at)])
    assert torch.isfinite(weights(fit.field)).all()
    assert fit.steps == 120
    assert fit.metrics["psnr"] > 12


def test_too_many_nans_fail_loudly(image):
    with pytest.raises(FitError, match=r"diverged at step \d+: lower recipe.lr \(now 0.000125\)"):
        inr.fit(image, small_siren(), steps=50, callbacks=[Poison(*range(1, 40))])


def test_a_diverging_fit_is_caught(image):
    fit = None
    try:
        fit = inr.fit(image, small_siren(lr=1e30, schedule="constant"), steps=30)
    except FitError as error:
        assert "diverged" in str(error)
    assert fit is None or torch.isfinite(weights(fit.field)).all()


def test_sigint_keeps_what_is_done(image):
    stop = StopOnSignal()

    class Press(BetweenBursts):
        def between(self, module: FitModule) -> None:
            if module.fit_step >= 10 and not stop.received:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    fit = inr.fit(image, small_siren(), steps=100_000, callbacks=[stop, Press()])
    assert stop.received == signal.SIGINT
    assert fit.ended == "stopped"
    assert 10 <= fit.steps < 100_000
    assert torch.isfinite(weights(fit.field)).all()
    assert signal.getsignal(signal.SIGINT) is before


def test_fits_run_outside_the_main_thread(image):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            inr.fit(image, small_siren(), steps=5, callbacks=[StopOnSignal()])
        )
    )
    thread.start()
    thread.join()
    assert results[0].steps == 5


# ------------------------------------------------------------------------------ callbacks


def test_events_and_previews(image):
    events, shown = [], []
    inr.fit(
        image,
        small_siren(),
        steps=40,
        callbacks=[
            Report(events.append, every=0),
            Preview(lambda field: shown.append(inr.render(_with(field, image))), every=0),
        ],
    )
    assert [e["step"] for e in events] == sorted(e["step"] for e in events)
    assert events[-1]["step"] == 40
    assert events[-1]["progress"] == 1
    assert all(e["event"] == "progress" and e["psnr"] > 0 for e in events)
    assert shown[0].shape == image.samples.shape
    assert not np.array_equal(shown[0], shown[-1])


def _with(field, image):
    field.domain = image.domain
    return field


def test_lightning_callbacks_of_others_work(image):
    class Count(pl.Callback):
        bursts = 0

        def on_train_batch_end(self, *args, **kwargs):
            self.bursts += 1

    count = Count()
    inr.fit(image, small_siren(), steps=200, callbacks=[count])
    assert 1 <= count.bursts < 200


def test_guard_keeps_the_first_state(image):
    preset, field = build_field(image, small_siren(), 0)
    module = FitModule(field, image, preset.recipe, Budget(5))
    module.configure_optimizers()
    guard = NanGuard()
    guard.on_fit_start(None, module)
    first = weights(field).clone()
    module.step()
    module.loss = math.nan
    guard.between(module)
    assert weights(field).equal(first)
    assert module.fit_step == 0
    assert module.lr_scale == 0.5


def test_presets_of_the_python_road(image):
    preset = presets.load("image/grid-fast")
    fit = inr.fit(image, preset, steps=3)
    assert isinstance(fit.field, fields.Grid)
    fit = inr.fit(image, "siren", steps=1)
    assert fit.field.hyperparameters["hidden_features"] == 256
