"""Multi-stage fields: the sum, its schedule, its optimiser, and machine precision."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fields
import inr
from fields.base import FieldError
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.errors import FitError, UsageError
from inr.fitting import optim
from inr.fitting.callbacks import BetweenBursts
from inr.fitting.fit import Fit
from inr.fitting.module import FitModule
from inr.fitting.optim import LevenbergMarquardt
from inr.fitting.snapshot import Snapshot
from inr.fitting.stages import StagedModule, zero_crossings
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.image import Image

MARGIN = 1.02
"""The authors fit on [-1.02, 1.02] and compare on [-1, 1]."""


def first_example(t):
    return np.log(t + 2) * np.cos(2 * t + t**3)


def second_example(t):
    return np.sin(2 * t + 1) + 0.2 * np.exp(1.3 * t)


def sampled(function, n: int) -> ArraySignal:
    return ArraySignal.from_array(function(MARGIN * ((2 * np.arange(n) + 1) / n - 1)))


def error_between(fit: Fit, function) -> float:
    """Relative L2 error on 8000 points of [-1, 1], off the lattice."""
    t = np.linspace(-1, 1, 8000)
    with torch.no_grad():
        values = fit.field(torch.from_numpy(t / MARGIN)[:, None])[:, 0].numpy()
    domain = fit.signal.domain
    found = values * (domain.high - domain.low) / 2 + (domain.high + domain.low) / 2
    return float(np.linalg.norm(found - function(t)) / np.linalg.norm(function(t)))


def small(stages: int = 2, width: int = 12, layers: int = 1, **recipe) -> Preset:
    """A preset for functions of one coordinate."""
    sizes = {"hidden_features": width, "hidden_layers": layers}
    options = [sizes] + [sizes | {"first_omega": 1.0, "hidden_omega": 1.0}] * (stages - 1)
    hyperparameters = {
        "stages": stages,
        "base": ["tanh"] + ["siren"] * (stages - 1),
        "base_options": options,
        "crossings": 1.5,
    }
    settings = {"lr": 1e-2, "schedule": "cosine", "steps": 300 * stages, "second_order": 0.1}
    return Preset("multistage", hyperparameters, Recipe(**(settings | recipe)))


def three_stages(d: int = 2, c: int = 3, **more) -> fields.MultiStage:
    torch.manual_seed(0)
    field = fields.MultiStage(d, c, stages=3, base_options={"hidden_features": 10}, **more)
    field.set_stage(1, 0.125, [3.0, 7.0][:d])
    field.set_stage(2, 0.01, [20.0, 31.0][:d])
    return field


class At(BetweenBursts):
    """Calls a function once, at the first burst's end at which it says that it was due."""

    def __init__(self, act) -> None:
        super().__init__()
        self.act = act
        self.done = False

    def between(self, module: FitModule) -> None:
        module._burst = 1
        self.done = self.done or bool(self.act(module))


# -------------------------------------------------------------------------------- the sum


@pytest.mark.parametrize("base", ["tanh", "siren", "gabornet"])
def test_values_are_the_scaled_sum_of_stages(base):
    field = three_stages(base=base).double()
    x = torch.rand(200, 2, dtype=torch.float64) * 2 - 1
    expected = sum(
        field.scales[s] * field.networks[s](field.kappas[s] * x)
        for s in range(3)  # the smallest last, so that the bits agree
    )
    assert field(x).equal(expected)
    assert field(x).dtype == torch.float64


def test_kappa_multiplies_weights_and_not_biases():
    options = {"hidden_features": 10, "bias_init": "normal"}
    torch.manual_seed(0)
    field = fields.MultiStage(1, 1, stages=2, base_options=options).double()
    field.set_stage(0, 0.0, [1.0])
    field.set_stage(1, 1.0, [50.0])
    plain = fields.Tanh(1, 1, first="sin", **options).double()
    plain.load_state_dict(field.networks[1].state_dict())
    with torch.no_grad():
        plain.hidden[0].weight *= 50
    x = torch.linspace(-1, 1, 300, dtype=torch.float64)[:, None]
    torch.testing.assert_close(field(x), plain(x), atol=1e-12, rtol=0)


@given(stage=st.integers(0, 2), scale=st.floats(1e-30, 1e3))
def test_a_scale_of_zero_takes_a_stage_out(stage, scale):
    field = three_stages(1, 1).double()
    x = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None]
    kappa = field.kappas[stage].tolist()
    field.set_stage(stage, scale, kappa)
    term = scale * field.networks[stage](field.kappas[stage] * x)
    whole = field(x)
    field.set_stage(stage, 0.0, kappa)
    without = field(x)
    others = [s for s in range(3) if s != stage]
    expected = sum(field.scales[s] * field.networks[s](field.kappas[s] * x) for s in others)
    assert without.equal(expected)
    # the sums may round differently in their last bit
    torch.testing.assert_close(whole, without + term, atol=1e-15, rtol=1e-14)


def test_the_first_network_starts_with_tanh_and_later_ones_with_sines():
    assert [n.sine for n in fields.MultiStage(1, 1).networks] == [False, True, True, True]
    chosen = fields.MultiStage(1, 1, stages=2, base_options={"first": "tanh"})
    assert [n.sine for n in chosen.networks] == [False, False]
    mixed = fields.MultiStage(
        1, 1, stages=2, base=["tanh", "siren"], base_options=[{}, {"hidden_features": 8}]
    )
    assert [type(n) for n in mixed.networks] == [fields.Tanh, fields.Siren]


@pytest.mark.parametrize(
    ("given_wrong", "message"),
    [
        ({"base": "grid"}, "base grid: it means nothing beyond"),
        ({"base": ["siren"]}, r"base is \['siren'\]: give one, or a list of 4"),
        ({"base_options": [{}] * 3}, "base_options is .*: give one, or a list of 4"),
        ({"base": "multistage"}, "cannot be a part of its own kind"),
        ({"base_options": {"hidden_features": 0}}, "base tanh: hidden_features is 0"),
        ({"base_options": {"width": 3}}, "base tanh: .*width"),
    ],
)
def test_parts_that_do_not_fit_are_refused(given_wrong, message):
    with pytest.raises(FieldError, match=message):
        fields.MultiStage(2, 1, **given_wrong)


def test_scales_and_frequencies_are_in_the_state_and_in_the_file(patch):
    field = three_stages()
    x = torch.rand(100, 2) * 2 - 1
    other = fields.MultiStage(2, 3, stages=3, base_options={"hidden_features": 10})
    other.load_state_dict(field.state_dict())
    assert other(x).equal(field(x))
    image = Image.from_array(patch)
    field.domain = image.domain
    again = decode(encode(field))
    # as coarse as 60 dB allow, which a stage of 0.01 feels most
    torch.testing.assert_close(again.scales, field.scales, rtol=0.1, atol=0)
    torch.testing.assert_close(again.kappas, field.kappas, rtol=0.1, atol=0)
    error = (again.on_grid(image.axes()) - field.on_grid(image.axes())).square().mean()
    assert error <= 4e-6 * 1.01  # 60 dB, which an unseen signal is held to


# --------------------------------------------------------------------------- frequencies


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 12), phase=st.floats(0, 6), size=st.floats(0, 9)
)
def test_zero_crossings_of_waves(rows, columns, phase, size):
    y = torch.linspace(-1, 1, 200, dtype=torch.float64)
    x = torch.linspace(-1, 1, 120, dtype=torch.float64)
    wave = torch.sin(math.pi / 2 * (rows * y[:, None] + columns * x) + phase)
    found = zero_crossings(10**-size * wave[..., None])
    # the taper widens a line to two bins, and a slow wave is not told from its mirror image
    for n, expected in zip(found, (rows, columns), strict=True):
        assert n == pytest.approx(expected, abs=1 + 0.05 * expected)


def test_rounding_noise_does_not_count_as_crossings():
    x = torch.linspace(-1, 1, 3000, dtype=torch.float64)
    wave = torch.sin(20 * math.pi / 2 * x + 1)
    noise = torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counted = int(((wave + 0.2 * noise).sign().diff() != 0).sum())
    (found,) = zero_crossings((wave + 0.2 * noise)[:, None])
    assert counted > 100
    assert found < 30  # 20 are real


def test_frequencies_stay_within_what_samples_tell():
    noise = torch.randn(500, 40, 1, generator=torch.Generator().manual_seed(0))
    assert zero_crossings(noise) == pytest.approx([500 / math.pi, 40 / math.pi])
    assert zero_crossings(torch.zeros(50, 1)) == [1.0]
    assert zero_crossings(torch.ones(1, 2, 3)) == [1.0, 1.0]


# ------------------------------------------------------------------- Levenberg-Marquardt


def test_second_order_steps_find_the_least_squares_solution():
    """A field that is linear in its parameters: damped steps tend to the exact solution."""
    torch.manual_seed(0)
    field = fields.Siren(2, 2, hidden_features=6, hidden_layers=0).double()
    field.sines.requires_grad_(False)
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in (17, 13)]
    target = torch.rand(17, 13, 2, dtype=torch.float64)
    optimiser = LevenbergMarquardt(field, axes, target)
    for _ in range(60):
        optimiser.step()
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    features = torch.cat([field.sines[0](points).sin(), torch.ones(221, 1).double()], dim=1)
    best = features @ torch.linalg.lstsq(features, target.reshape(-1, 2)).solution
    # normal equations square the condition of the features, here about 1e4
    torch.testing.assert_close(field(points), best, atol=1e-8, rtol=0)


def test_every_step_lowers_the_error_and_parts_change_nothing(monkeypatch):
    def run() -> list[float]:
        torch.manual_seed(0)
        field = fields.Tanh(1, 1, hidden_features=8).double()
        x = torch.linspace(-1, 1, 90, dtype=torch.float64)
        optimiser = LevenbergMarquardt(field, [x], torch.sin(5 * x)[:, None])
        losses = [optimiser.loss]
        while len(losses) < 30 and optimiser.step():
            losses.append(optimiser.loss)
            exact = (field(x[:, None])[:, 0] - torch.sin(5 * x)).square().mean()
            assert optimiser.loss == pytest.approx(exact.item(), rel=1e-12)
        return losses

    whole = run()
    assert all(b < a for a, b in itertools.pairwise(whole))
    assert whole[-1] < 1e-3 * whole[0]
    monkeypatch.setattr(optim, "JACOBIAN_BYTES", 8 * 97 * 13)
    # the normal equations are summed in another order; damped steps carry that on
    assert run() == pytest.approx(whole, rel=1e-4)


def test_a_minimum_is_left_as_it_is():
    field = fields.Tanh(1, 1, hidden_features=4).double()
    x = torch.linspace(-1, 1, 30, dtype=torch.float64)
    optimiser = LevenbergMarquardt(field, [x], field(x[:, None]).detach())
    before = [p.clone() for p in field.parameters()]
    assert not optimiser.step()
    assert all(p.equal(b) for p, b in zip(field.parameters(), before, strict=True))


def test_second_order_is_refused_where_it_cannot_be(patch):
    with pytest.raises(FitError, match=r"second_order is for networks of at most 8192"):
        LevenbergMarquardt(fields.Siren(1, 1), [torch.zeros(3)], torch.zeros(3, 1))
    image = Image.from_array(patch)
    with pytest.raises(UsageError, match=r"recipe.second_order is 0.5: only the stages"):
        inr.fit(image, Preset("siren", {}, Recipe(second_order=0.5)), steps=1)
    with pytest.raises(UsageError, match=r"recipe.second_order is 1"):
        Recipe(second_order=1.0)


# --------------------------------------------------------------------------- the schedule


@pytest.fixture(scope="module")
def two_stages() -> Fit:
    return inr.fit(sampled(first_example, 301), small(width=18, layers=2, steps=440), device="cpu")


def test_two_stages(two_stages):
    fit = two_stages
    assert fit.ended in ("steps", "stages")
    assert all(t.dtype == torch.float64 for t in fit.field.state_dict().values())
    first, second = fit.stages
    assert first.kept
    assert second.kept
    assert first.kappa == [1.0]
    assert second.scale == first.rms
    assert second.rms < 0.1 * second.scale
    assert first.rms < 0.1 * first.scale
    assert fit.metrics["relative_l2"] < 1e-4
    assert error_between(fit, first_example) < 1e-4
    residue = fit.signal.values[:, 0] - fit.field(fit.signal.axes()[0][:, None])[:, 0]
    assert residue.square().mean().sqrt().item() == pytest.approx(second.rms, rel=1e-6)


def test_history_tells_of_the_whole_field(two_stages):
    steps = [step for step, _, _ in two_stages.history]
    assert steps == sorted(set(steps))
    assert steps[-1] == two_stages.steps == sum(stage.steps for stage in two_stages.stages)
    assert two_stages.history[-1][2] == pytest.approx(two_stages.stages[-1].rms ** 2, rel=1e-6)


def test_a_file_holds_what_was_fitted(two_stages):
    fit = two_stages
    again = decode(encode(fit.field, fit.signal))
    assert fit.signal.metrics(again)["psnr"] >= fit.metrics["psnr"] - 0.1


def test_a_smaller_signal_has_smaller_scales_and_the_same_networks():
    runs = []
    for factor in (1.0, 0.25):
        signal = sampled(first_example, 101)
        signal.values = signal.values * factor
        runs.append(inr.fit(signal, small(steps=240), device="cpu").field)
    one, quarter = runs
    assert (0.25 * one.scales).equal(quarter.scales)
    assert one.scales.min() > 0
    assert one.kappas.equal(quarter.kappas)
    assert all(a.equal(b) for a, b in zip(one.parameters(), quarter.parameters(), strict=True))


def test_same_seed_same_field():
    signal = sampled(second_example, 101)
    runs = [inr.fit(signal, small(steps=210), seed=seed).field for seed in (1, 1, 2)]
    states = [[*run.state_dict().values()] for run in runs]
    assert all(a.equal(b) for a, b in zip(states[0], states[1], strict=True))
    assert not all(a.equal(b) for a, b in zip(states[0], states[2], strict=True))


def test_budgets():
    signal = sampled(first_example, 201)
    assert inr.fit(signal, small(), steps=0).steps == 0
    few = inr.fit(signal, small(), steps=30)
    assert (few.steps, few.ended, len(few.stages)) == (30, "steps", 1)
    timed = inr.fit(signal, small(), seconds=0.6)
    assert timed.ended in ("seconds", "stages")
    assert len(timed.stages) == 2
    assert timed.seconds == pytest.approx(0.6, abs=0.4)
    reached = inr.fit(signal, small(), psnr=40.0)
    assert reached.ended == "psnr"
    assert reached.metrics["psnr"] >= 40


def test_nothing_is_left_to_fit_of_a_constant():
    signal = ArraySignal.from_array(np.full(50, 3.5))
    fit = inr.fit(signal, small())
    assert (fit.ended, fit.steps) == ("stages", 0)
    assert fit.metrics["relative_l2"] == 0


def test_what_is_done_is_kept_on_a_stop():
    def stop(module) -> bool:
        if module.fit_step > 205:
            module.finished = "stopped"
        return module.fit_step > 205

    signal = sampled(first_example, 201)
    fit = inr.fit(signal, small(steps=400), callbacks=[At(stop)])
    assert fit.ended == "stopped"
    assert fit.stages[0].kept
    assert len(fit.stages) == 2
    left = signal.values[:, 0] - fit.field(signal.axes()[0][:, None])[:, 0]
    assert left.square().mean().sqrt() <= fit.stages[0].rms * (1 + 1e-9)


def test_a_stage_that_lowers_nothing_is_undone():
    def spoil(module) -> bool:
        if len(module.stages) == 1:
            wild = {"lr": 1e6, "schedule": "constant", "second_order": 0.0}
            module.recipe = dataclasses.replace(module.recipe, **wild)
        return len(module.stages) == 1

    signal = sampled(first_example, 201)
    fit = inr.fit(signal, small(3, steps=600), callbacks=[At(spoil)])
    assert fit.ended == "stalled"
    assert [stage.kept for stage in fit.stages] == [True, False]
    assert fit.field.scales[0] > 0
    assert not fit.field.scales[1:].any()
    left = signal.values[:, 0] - fit.field(signal.axes()[0][:, None])[:, 0]
    assert left.square().mean().sqrt().item() == pytest.approx(fit.stages[0].rms, rel=1e-9)


def test_a_stage_that_diverges_is_rolled_back():
    at = []

    def poison(module) -> None:
        if not at and module.fit_step > 220:
            at.append(module.fit_step)
            with torch.no_grad():
                next(module.field.networks[1].parameters()).fill_(math.nan)

    fit = inr.fit(sampled(first_example, 201), small(steps=400), callbacks=[At(poison)])
    assert at
    assert len(fit.stages) == 2
    assert all(torch.isfinite(t).all() for t in fit.field.state_dict().values())
    assert fit.stages[1].rms < fit.stages[1].scale


def test_what_stages_cannot_do_is_refused(tmp_path, patch):
    image = Image.from_array(patch)
    preset = Preset("multistage", {}, Recipe(quantize_db=0.5))
    with pytest.raises(UsageError, match=r"recipe.quantize_db is 0.5: a multistage"):
        inr.fit(image, preset, steps=1)
    path = tmp_path / "fit.snapshot"
    signal = sampled(first_example, 101)
    inr.fit(signal, small(steps=5), callbacks=[Snapshot(path, every=0.0, resume=True)])
    assert not path.exists()
    path.touch()
    with pytest.raises(FitError, match=r"fit\.snapshot: a fit in stages cannot be resumed"):
        inr.fit(signal, small(steps=5), callbacks=[Snapshot(path, resume=True)])


def test_stages_of_a_picture(patch):
    image = Image.from_array(patch)
    options = {"hidden_features": 24, "hidden_layers": 1}
    hyperparameters = {"stages": 2, "base": "siren", "base_options": options, "crossings": 0.05}
    preset = Preset("multistage", hyperparameters, Recipe(lr=3e-3, schedule="cosine", steps=400))
    fit = inr.fit(image, preset, device="cpu")
    assert [stage.kept for stage in fit.stages] == [True, True]
    assert fit.field.scales.dtype == torch.float32
    kappa = fit.stages[1].kappa
    assert len(kappa) == 2
    assert kappa[0] != kappa[1]
    assert fit.metrics["psnr"] > 22
    again = decode(encode(fit.field, image))
    assert image.metrics(again)["psnr"] >= fit.metrics["psnr"] - 0.1


def test_a_residue_is_trained_in_batches_too(patch):
    preset = dataclasses.replace(small(steps=220), hyperparameters={"stages": 2})
    preset = dataclasses.replace(
        preset, recipe=dataclasses.replace(preset.recipe, batch=300, second_order=0.0)
    )
    image = Image.from_array(patch)
    module = StagedModule(fields.MultiStage(2, 3, stages=2), image, preset.recipe, None)
    assert module._full is None
    runs = [inr.fit(image, preset, seed=4).field for _ in range(2)]
    assert all(a.equal(b) for a, b in zip(*(run.parameters() for run in runs), strict=True))


# ----------------------------------------------------------------- the authors' examples


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("function", [first_example, second_example])
def test_machine_precision_after_four_stages(function):
    fit = inr.fit(sampled(function, 3001), presets.load("array/multistage-precise"), device="cpu")
    assert len(fit.stages) == 4
    assert all(stage.kept and stage.rms < stage.scale for stage in fit.stages)
    assert all(t.dtype == torch.float64 for t in fit.field.state_dict().values())
    assert fit.metrics["relative_l2"] <= 1e-12
    assert error_between(fit, function) <= 1e-12
    assert fit.signal.metrics(decode(encode(fit.field, fit.signal)))["relative_l2"] <= 1e-12
