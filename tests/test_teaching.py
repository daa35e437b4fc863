"""Nonparametric teaching: its schedules, what it selects, and that a fit's rules still hold."""

import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

import fields
import inr
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.errors import UsageError
from inr.fitting.callbacks import BetweenBursts
from inr.fitting.fit import build_field
from inr.fitting.module import Budget, FitModule
from inr.fitting.sampling import Teacher, interval, ratio
from inr.fitting.snapshot import Snapshot
from inr.meshes import make_cloud, make_mesh
from inr.metrics import psnr
from inr.operators import create
from inr.presets import INTERVALS, TEACHING, Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.base import Signal
from inr.signals.image import Image
from inr.signals.observed import Observed
from inr.signals.oriented import OrientedPoints
from inr.signals.shape import Shape
from tests.test_fitting import Stop

SCHEDULES = [name for name in TEACHING if name != "off"]


@pytest.fixture
def image(patch) -> Image:
    return Image.from_array(patch)


def taught(field: str = "siren", **recipe) -> Preset:
    settings = {"lr": 1e-3, "schedule": "cosine", "teach": "step", "steps": 40} | recipe
    sizes = {"hidden_features": 24, "hidden_layers": 1} if field == "siren" else {}
    return Preset(field, sizes, Recipe(**settings))


def module_of(signal: Signal, preset: Preset, steps: int | None = None) -> FitModule:
    _, field = build_field(signal, preset, 0)
    module = FitModule(field, signal, preset.recipe, Budget(steps or preset.recipe.steps))
    module.configure_optimizers()
    return module


def weights(field: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in field.parameters()])


def gaps(module: FitModule) -> torch.Tensor:
    values = module.signal.full_batch().values
    with torch.no_grad():
        found = module.field.on_grid(module.signal.axes())
    return (found - values).flatten(0, -2)


# ---------------------------------------------------------------------------- schedules


def selections(steps: int, strategy: str = "incremental") -> list[int]:
    return [t for t in range(steps) if t % interval(strategy, t / steps) == 0]


@pytest.mark.parametrize(("steps", "number"), [(500, 141), (5000, 1422), (10_000, 2843)])
def test_selections_are_as_many_as_the_authors(steps, number):
    assert len(selections(steps)) == number


def test_the_published_schedule_costs_two_thirds():
    """A forward pass of all samples is 1, a step on all of them 3."""
    steps, seen = 5000, sum(ratio("step", 0.2, t / 5000) for t in range(5000))
    cost = (3 * seen + len(selections(steps))) / (3 * steps)
    assert cost == pytest.approx(0.655, abs=5e-4)


def test_intervals():
    assert len(selections(1000, "dense")) == 1000
    assert len(selections(1000, "dense2")) == 500
    assert len(selections(1000, "sparse")) == 100
    marks = [0.0, 0.2499, 0.25, 0.4, 0.55, 0.7, 0.85, 0.999, 1.5]
    assert [interval("incremental", p) for p in marks] == [1, 1, 10, 20, 30, 40, 50, 50, 50]
    marks = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.999]
    assert [interval("reverse-incremental", p) for p in marks] == [50, 40, 30, 20, 10, 1, 1]


@given(st.sampled_from(SCHEDULES), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_ratios(schedule, start, one, other):
    low, high = sorted((one, other))
    assert ratio(schedule, start, 0.0) == pytest.approx(start)
    before, after = ratio(schedule, start, low), ratio(schedule, start, high)
    assert 0 < min(before, after) <= max(before, after) <= 1 + 1e-12
    if schedule != "reverse-cosine":
        assert before <= after + 1e-12


def test_what_ratios_end_at():
    assert ratio("step", 0.2, 4999 / 5000) == pytest.approx(0.92)
    assert [ratio("step", 0.2, t / 10) for t in range(10)] == pytest.approx(
        [0.2 + 0.08 * t for t in range(10)]
    )
    assert ratio("linear", 0.2, 1.0) == ratio("cosine", 0.2, 1.0) == pytest.approx(1)
    assert ratio("reverse-cosine", 0.6, 1.0) == pytest.approx(0.2)
    assert ratio("reverse-cosine", 0.2, 0.4) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "bad", [{"teach": "top"}, {"teach_ratio": 0}, {"teach_pick": "x"}, {"teach_interval": "void"}]
)
def test_settings_are_checked_by_name(bad):
    with pytest.raises(UsageError, match=f"recipe.{next(iter(bad))} is"):
        Recipe(**bad)


# ------------------------------------------------------------------------ what is selected


@pytest.mark.parametrize("part", [0.003, 0.2, 0.77])
def test_the_hardest_samples_are_selected(image, part):
    module = module_of(image, taught(teach_ratio=part))
    batch = module._next_batch()
    each = gaps(module).abs().sum(-1)
    n = max(1, math.floor(part * each.numel()))
    assert len(batch.coords) == n
    largest, others = each.sort(descending=True).values.split([n, each.numel() - n])
    with torch.no_grad():
        chosen = (module.field(batch.coords) - batch.values).abs().sum(-1)
    assert chosen.sort(descending=True).values == pytest.approx(largest, abs=1e-5)
    assert chosen.min() >= others.max() - 1e-5
    assert len(batch.coords.unique(dim=0)) == n


def test_a_selected_part_of_one_channel_is_at_least_as_far_off(image):
    grey = Image.from_array(image.samples[..., :1])
    module = module_of(grey, taught())
    batch = module._next_batch()
    with torch.no_grad():
        part = (module.field(batch.coords) - batch.values).square().mean()
    assert part >= gaps(module).square().mean()


def test_where_samples_do_not_influence_each_other_the_choice_is_the_best(image):
    """With a kernel c I, no other n samples lower the loss more, to first order."""
    module = module_of(image, taught())
    batch = module._next_batch()
    with torch.no_grad():
        best = (module.field(batch.coords) - batch.values).abs().sum(-1).square().sum()
    each = gaps(module).abs().sum(-1).square()
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        others = torch.randperm(each.numel(), generator=generator)[: len(batch.coords)]
        assert each[others].sum() <= best + 1e-4


def test_samples_stay_until_the_next_selection(image):
    module = module_of(image, taught(teach_interval="sparse"), steps=100)
    seen = []
    for _ in range(21):
        module.step()
        seen.append(module.teacher._points)
    assert all(points is seen[0] for points in seen[:10])
    assert all(points is seen[10] for points in seen[10:20])
    assert len({id(points) for points in seen}) == 3


def test_a_fit_selects_as_often_as_its_schedule_says(image, monkeypatch):
    calls = []
    select = Teacher._select

    def counted(self, *args):
        calls.append(args)
        select(self, *args)

    monkeypatch.setattr(Teacher, "_select", counted)
    small = Image.from_array(image.samples[:8, :8])
    inr.fit(small, taught(), steps=500)
    assert len(calls) == 141


def test_drawn_samples_weigh_what_evens_them_out(image):
    module = module_of(image, taught(teach_pick="drawn", teach_ratio=0.3))
    errors = gaps(module).square().sum(-1)
    means, sizes = [], []
    for _ in range(200):
        batch = module.teacher.batch(module.field, 1, 0.0, module.generator, 512)
        with torch.no_grad():
            means.append(float(module.signal.loss(module.field, batch)) / len(batch.coords))
        sizes.append(len(batch.coords))
    assert set(sizes) == {math.floor(0.3 * errors.numel())}
    assert np.mean(means) == pytest.approx(float(errors.mean()), rel=2e-3)
    assert np.std(means) > 0


def test_drawn_samples_are_even_where_errors_are(image):
    flat = Image.from_array(np.full_like(image.samples[..., :1], 90))
    field = fields.Siren(2, 1, hidden_features=8)
    torch.nn.init.zeros_(field.out.weight)
    torch.nn.init.ones_(field.out.bias)
    recipe = taught(teach_pick="drawn").recipe
    teacher = Teacher(flat, recipe, flat.full_batch())
    batch = teacher.batch(field, 0, 0.0, torch.Generator().manual_seed(0), 512)
    assert batch.root == pytest.approx(torch.ones_like(batch.root), abs=1e-6)


# --------------------------------------------------------------------- what it leaves alone


@pytest.mark.parametrize("batch", [1 << 18, 300])
@pytest.mark.parametrize("pick", ["hardest", "drawn"])
def test_all_samples_are_a_fit_without(image, batch, pick):
    plain = inr.fit(image, taught(teach="off", batch=batch), steps=30)
    all_of_them = taught(teach="constant", teach_ratio=1.0, teach_pick=pick, batch=batch)
    fit = inr.fit(image, all_of_them, steps=30)
    assert weights(fit.field).equal(weights(plain.field))
    assert fit.metrics == plain.metrics


@pytest.mark.parametrize(("schedule", "strategy"), list(zip(SCHEDULES, INTERVALS, strict=True)))
def test_schedules_fit(image, schedule, strategy):
    preset = taught(teach=schedule, teach_interval=strategy, teach_ratio=0.5, lr=2e-3)
    fit = inr.fit(image, preset, steps=80)
    assert fit.metrics["psnr"] > psnr(fit.history[0][2], 2.0) + 3


@pytest.mark.parametrize("pick", ["hardest", "drawn"])
def test_it_tells_the_loss_of_all_samples(image, pick):
    module = module_of(image, taught(teach_pick=pick))
    for _ in range(5):
        whole = float(gaps(module).square().mean())
        module.step()
        assert module.loss == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("pick", ["hardest", "drawn"])
def test_a_target_ends_a_fit(image, pick):
    fit = inr.fit(image, taught(teach_pick=pick, lr=2e-3), psnr=16.0, steps=2000)
    assert fit.ended == "psnr"
    assert fit.metrics["psnr"] >= 16.0
    assert fit.metrics["psnr"] < 18.0
    assert fit.steps < 2000


def test_a_budget_of_seconds_ends_a_fit(image):
    fit = inr.fit(image, taught(), seconds=0.3)
    assert fit.ended == "seconds"
    assert fit.seconds == pytest.approx(0.3, abs=0.3)


@pytest.mark.parametrize("batch", [1 << 18, 300])
@pytest.mark.parametrize("pick", ["hardest", "drawn"])
@pytest.mark.parametrize("cut", [1, 17])
def test_a_resumed_fit_gives_the_same_bytes(image, tmp_path, batch, pick, cut):
    preset = taught(teach_pick=pick, batch=batch)
    whole = inr.fit(image, preset, steps=40, seed=3)
    path = tmp_path / "fit.snapshot"
    part = inr.fit(image, preset, steps=40, seed=3, callbacks=[Snapshot(path), Stop(cut)])
    assert part.steps == cut
    resumed = inr.fit(image, preset, steps=40, seed=3, callbacks=[Snapshot(path, resume=True)])
    assert weights(resumed.field).equal(weights(whole.field))
    assert encode(resumed.field, image) == encode(whole.field, image)
    assert resumed.history[-1][2] == whole.history[-1][2]


def test_a_fit_that_was_rolled_back_selects_anew(image):
    class Poison(BetweenBursts):
        left = 1

        def between(self, module: FitModule) -> None:
            module._burst = 1
            if self.left and module.fit_step >= 15:
                self.left = 0
                with torch.no_grad():
                    next(module.field.parameters()).fill_(math.nan)

    fit = inr.fit(image, taught(lr=2e-3), steps=120, callbacks=[Poison()])
    assert fit.steps == 120
    assert torch.isfinite(weights(fit.field)).all()
    assert fit.metrics["psnr"] > 12


# ------------------------------------------------------------------ any signal and any field


@pytest.mark.parametrize("name", ["grid", "finr", "bacon", "fkan", "multistage"])
def test_fields_are_taught(image, name):
    preset = Preset(name, {}, Recipe(teach="step", lr=1e-3))
    fit = inr.fit(image, preset, steps=12)
    assert fit.steps >= 12
    assert fit.metrics["psnr"] > 5  # a grid starts as the picture: inf


@pytest.mark.parametrize("pick", ["hardest", "drawn"])
def test_rounded_parameters_and_rates_are_taught(image, pick):
    recipe = Recipe(teach="step", teach_pick=pick, quantize_db=0.5, rate_weight=1e-4, lr=1e-3)
    fit = inr.fit(image, Preset("grid", {}, recipe), steps=20)
    data = encode(fit.field, image, rounding=fit.rounding)
    assert image.metrics(decode(data))["psnr"] == pytest.approx(fit.metrics["psnr"], abs=0.01)


def test_sound_and_arrays_are_taught():
    t = np.arange(800) / 8000
    sound = Audio.from_array(np.sin(2000 * t).astype(np.float32)[:, None], 8000)
    fit = inr.fit(sound, taught(lr=2e-3), steps=200)
    assert fit.metrics["psnr"] > psnr(fit.history[0][2], 2.0) + 6
    precise = ArraySignal.from_array(np.sin(20 * t))
    fit = inr.fit(precise, taught(teach_pick="drawn"), steps=20)
    assert weights(fit.field).dtype == torch.float64


def test_what_is_known_of_a_picture_is_taught(image):
    known = Observed.simulated(image, create("inpaint", keep=0.3, tv=0.0))
    fit = inr.fit(known, taught(lr=2e-3), steps=60)
    assert fit.metrics["psnr"] > psnr(fit.history[0][2], 2.0) + 3


def test_shapes_are_taught():
    box = trimesh.creation.box()
    shape = Shape.from_mesh(make_mesh(box.vertices, box.faces), samples=4000, detail=16)
    fit = inr.fit(shape, taught(lr=2e-3, batch=1000), steps=60)
    assert fit.metrics["iou"] > 0.5
    with pytest.raises(UsageError, match="recipe.teach_pick is 'drawn': this signal's loss"):
        inr.fit(shape, taught(teach_pick="drawn"), steps=2)


def test_what_is_not_compared_sample_by_sample_is_refused(image):
    box = trimesh.creation.box()
    cloud = OrientedPoints(make_cloud(*trimesh.sample.sample_surface(box, 200, seed=0)[:1] * 2))
    signals = [Observed.simulated(image, create("superresolve", factor=2)), cloud]
    for signal in signals:
        with pytest.raises(UsageError, match="recipe.teach is 'step': .* set it to off"):
            inr.fit(signal, taught(), steps=2)
