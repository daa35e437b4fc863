"""Quantisation-aware fine-tuning: rounded passes, unrounded steps, and files of just that field."""

import copy
import math

import numpy as np
import pytest
import torch

import fields
import inr
from fields.base import Field
from inr.codec.decode import decode, symbols
from inr.codec.decode import inspect as inspect_file
from inr.codec.encode import encode
from inr.codec.entropy import best_model, cost_bits
from inr.errors import UsageError
from inr.fitting import quantaware
from inr.fitting.callbacks import NanGuard
from inr.fitting.module import Budget, FitModule
from inr.fitting.snapshot import Snapshot, load, save
from inr.presets import Preset, Recipe
from inr.signals.image import Image
from tests.test_contract import SMALL

NET = {"hidden_features": 20, "hidden_layers": 2, "first_omega": 15.0}
RECIPE = {"lr": 3e-3, "schedule": "cosine", "final_lr": 0.05, "steps": 400}


def preset(name: str = "siren", net: dict = NET, **recipe) -> Preset:
    return Preset(name, net, Recipe(**{**RECIPE, **recipe}))


def module_for(image: Image, steps: int, **recipe) -> FitModule:
    torch.manual_seed(0)
    field = fields.Siren(2, 3, **NET)
    module = FitModule(field, image, Recipe(lr=1e-3, batch=900, **recipe), Budget(steps=steps))
    module.configure_optimizers()
    return module


def values(field: Field) -> torch.Tensor:
    return torch.cat([s.tensor.detach().flatten() for s in field.stored_parameters()])


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("siren", NET),
        ("grid", {"resolution": 12, "levels": 3}),
        ("doh", {"target_options": NET, "latents": 300}),
    ],
)
def test_rounding_is_what_a_file_gives_back(name, net, patch):
    image = Image.from_array(patch)
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, **net)
    field.adapt(image.statistics())
    field.domain = image.domain
    before = values(field)
    indices = quantaware.choose(field, image, 3.0)
    assert values(field).equal(before)
    decoded = decode(encode(field, image, rounding=indices))
    with quantaware.rounded(field, indices):
        assert values(field).equal(values(decoded))
        assert not values(field).equal(before)
        with torch.no_grad():
            axes = image.axes()
            assert field.on_grid(axes).equal(decoded.on_grid(axes))
    assert values(field).equal(before)


def test_steps_cost_what_was_asked(patch):
    image = Image.from_array(patch)
    field = inr.fit(image, preset(), steps=200).field
    exact = image.metrics(field)["psnr_float"]
    for db in (0.5, 3.0):
        indices = quantaware.choose(field, image, db)
        with quantaware.rounded(field, indices):
            lost = exact - image.metrics(field)["psnr_float"]
        # steps are eighths of an octave, 0.75 dB of rounding error apart, and all of them move
        assert 0.4 * db < lost <= db + 0.01


def test_at_equal_bytes_it_is_better_than_rounding_afterwards(patch):
    image = Image.from_array(patch)
    gains = []
    for seed in (0, 1):
        tuned = inr.fit(image, preset(quantize_db=4.0, quantize_share=0.5), seed=seed)
        data = encode(tuned.field, image, rounding=tuned.rounding)
        plain = inr.fit(image, preset(), seed=seed)
        losses = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
        afterwards = [encode(plain.field, image, max_loss_db=db) for db in losses]
        curve = sorted({(math.log(len(d)), quality(d)) for d in afterwards})
        size = math.log(len(data))
        assert curve[0][0] < size < curve[-1][0]  # the curve spans the tuned file
        gains.append(quality(data) - np.interp(size, *zip(*curve, strict=True)))
    assert np.mean(gains) > 0.5


def quality(data: bytes) -> float:
    found = inspect_file(data).psnr
    assert found is not None
    return found


def test_a_file_takes_the_fits_own_steps(patch, tmp_path):
    image = Image.from_array(patch)
    fit = inr.fit(image, preset(quantize_db=3.0, steps=60))
    assert fit.rounding is not None
    path = tmp_path / "a.inr"
    inr.save(fit, path)
    data = path.read_bytes()
    assert [row.step for row in symbols(inspect_file(data))] == fit.rounding
    again = inr.load(path)
    assert values(again).equal(values(fit.field))  # nothing is lost between fit and file
    assert quality(data) == pytest.approx(fit.metrics["psnr"], abs=0.01)
    with pytest.raises(UsageError, match="rounding has 2 steps: this field has 8 rows"):
        encode(fit.field, image, rounding=[1, 2])


def test_it_begins_with_the_last_part_of_the_budget(patch):
    module = module_for(Image.from_array(patch), 10, quantize_db=2.0, quantize_share=0.3)
    states = []
    for _ in range(10):
        module.step()
        states.append(module.rounding is not None)
    assert states == [False] * 7 + [True] * 3
    off = module_for(Image.from_array(patch), 4)
    for _ in range(4):
        off.step()
    assert off.rounding is None


def test_passes_see_rounded_parameters_and_adam_moves_unrounded_ones(patch):
    image = Image.from_array(patch)
    module = module_for(image, 4, quantize_db=6.0, quantize_share=1.0)
    seen = []
    backward = module._backward

    def watched(batch):
        seen.append(values(module.field).clone())
        return backward(batch)

    module._backward = watched
    for _ in range(4):
        before = values(module.field).clone()
        module.step()
        assert not seen[-1].equal(before)
        # one step of Adam moves a parameter by about its rate, far less than rounding does
        assert (values(module.field) - before).abs().max() < 1.5e-3
        steps = [float(np.float32(2) ** ((i - 192) / 8)) for i in module.rounding]
        assert (seen[-1] - before).abs().max() <= max(steps) * 0.51


def test_a_target_is_met_by_the_rounded_field(patch):
    """The budget's PSNR is that of what goes into the file."""
    module = module_for(Image.from_array(patch), 100)
    for _ in range(60):
        module.step()
    exact = module.signal.metrics(module.field)["psnr"]
    assert module._reached(exact - 1)
    module.rounding = quantaware.choose(module.field, module.signal, 3.0)
    assert not module._reached(exact - 1)
    assert module._reached(exact - 4)


@pytest.mark.parametrize("rate_weight", [0.0, 0.01], ids=["given steps", "learnt steps"])
def test_resumed_fit_gives_the_same_bytes(rate_weight, patch, tmp_path):
    image = Image.from_array(patch)
    recipe = {"quantize_db": 3.0, "quantize_share": 0.5, "rate_weight": rate_weight}
    for at in (5, 14):  # before the rounding begins, and within it
        whole, part, rest = (module_for(image, 20, **recipe) for _ in range(3))
        for module in (whole, part, rest):
            module.generator.manual_seed(0)
        for _ in range(20):
            whole.step()
        for _ in range(at):
            part.step()
        path = tmp_path / f"{at}.snapshot"
        save(part, path)
        load(rest, path)
        assert rest.rounding == part.rounding
        for _ in range(20 - at):
            rest.step()
        assert rest.rounding == whole.rounding
        assert values(rest.field).equal(values(whole.field))


def test_a_stopped_fit_resumes_unrounded(patch, tmp_path):
    """A file of a stopped fit is rounded; its snapshot is not."""
    from inr.fitting.callbacks import BetweenBursts

    class Stop(BetweenBursts):
        def between(self, module):
            if module.rounding is not None and module.finished is None:
                module.finished = "stopped"

    image = Image.from_array(patch)
    how = preset(quantize_db=3.0, quantize_share=0.9, steps=300)
    path = tmp_path / "a.snapshot"
    stopped = inr.fit(image, how, callbacks=[Stop(), Snapshot(path, every=1e9)])
    assert stopped.ended == "stopped"
    assert stopped.rounding is not None
    resumed = inr.fit(image, how, callbacks=[Snapshot(path, resume=True, every=1e9)])
    straight = inr.fit(image, how)
    files = [encode(f.field, image, rounding=f.rounding) for f in (resumed, straight)]
    assert files[0] == files[1]


@pytest.mark.parametrize("rate_weight", [0.0, 0.01], ids=["given steps", "learnt steps"])
def test_a_rollback_forgets_rounding_that_had_not_begun(rate_weight, patch):
    recipe = {"quantize_db": 2.0, "quantize_share": 0.5, "rate_weight": rate_weight}
    module = module_for(Image.from_array(patch), 10, **recipe)
    guard = NanGuard(every=0.0)
    guard.on_fit_start(None, module)
    for _ in range(4):
        module.step()
    guard.between(module)
    for _ in range(3):
        module.step()
    assert module.rounding is not None
    with torch.no_grad():
        next(iter(module.field.parameters())).fill_(float("nan"))
    guard.between(module)
    assert module.fit_step == 4
    assert module.rounding is None
    for _ in range(6):
        module.step()
    assert module.rounding is not None
    assert torch.isfinite(values(module.field)).all()


def test_the_estimate_is_near_what_is_coded(coffee):
    """Within 3 % of the symbols' bits under the models that the file has for them.

    A logistic law has no parameter for the form of a row; the file's models have.
    """
    image = Image.from_array(coffee[100:200, 200:350])
    net = {"hidden_features": 40, "hidden_layers": 3}
    field = inr.fit(image, preset(net=net, steps=100, batch=4096)).field
    for db in (0.1, 1.0, 8.0):  # about 8, 6 and 4 bits a symbol
        indices = quantaware.choose(field, image, db)
        rows = symbols(inspect_file(encode(field, image, rounding=indices)))
        coded = sum(cost_bits(np.bincount(abs(r.symbols)), best_model(r.symbols)) for r in rows)
        places = torch.tensor(indices, dtype=torch.float32)
        assert quantaware.stored_bits(field, places).item() == pytest.approx(coded, rel=0.03)


def test_a_step_twice_as_large_saves_a_bit_of_each_symbol(patch):
    """At fine steps; so does the estimate's gradient, an eighth for each index."""
    field = inr.fit(Image.from_array(patch), preset(), steps=5).field
    count = sum(s.tensor.numel() for s in field.stored_parameters())
    places = torch.full((8,), 60.0, dtype=torch.float64, requires_grad=True)
    bits = quantaware.stored_bits(field, places)
    bits.backward()
    saved = bits - quantaware.stored_bits(field, places + 8)
    assert saved.item() == pytest.approx(count, rel=1e-3)
    assert places.grad.sum().item() == pytest.approx(-count / 8, rel=1e-3)


def test_empty_and_coarse_rows_have_a_finite_rate(patch):
    field = inr.fit(Image.from_array(patch), preset(), steps=1).field
    with torch.no_grad():
        next(iter(field.parameters())).zero_()
    count = sum(s.tensor.numel() for s in field.stored_parameters())
    places = torch.full((8,), 255.0, requires_grad=True)  # all symbols are 0
    bits = quantaware.stored_bits(field, places)
    bits.backward()
    # the coder's ceiling, 1/178 bit a symbol
    assert 0 < bits.item() < count / 170
    assert all(torch.isfinite(p.grad).all() for p in (places, *field.parameters()))


def test_a_steps_gradient_is_that_of_the_error_by_what_rounding_moves(patch):
    """For an error linear in the parameters, whose gradient is the same everywhere."""
    image = Image.from_array(patch)
    field = inr.fit(image, preset(), steps=5).field
    slopes = [torch.randn_like(p) for p in field.parameters()]
    for parameter, slope in zip(field.parameters(), slopes, strict=True):
        parameter.grad = slope.clone()
    places = torch.full((8,), 150.0, requires_grad=True)
    quantaware.weigh_rate(field, places, 0.0)
    before = values(field)
    with quantaware.rounded(field, [150] * 8):
        moved = (values(field) - before).split([p.numel() for p in field.parameters()])
    # rounding errors grow in proportion to the step: by ln 2 / 8 of themselves for an index
    expected = [
        float(m @ s.flatten()) * math.log(2) / 8 for m, s in zip(moved, slopes, strict=True)
    ]
    assert places.grad.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert all(p.grad.equal(s) for p, s in zip(field.parameters(), slopes, strict=True))


def test_learnt_steps_and_a_weighed_rate_save_bytes_at_equal_quality(patch):
    """From one fitted field, as many steps each: a smaller file than with steps chosen once."""
    image = Image.from_array(patch)
    fitted = inr.fit(image, preset(steps=300)).field

    def tuned(**recipe) -> bytes:
        how = Recipe(lr=1e-3, schedule="cosine", final_lr=0.05, quantize_share=1.0, **recipe)
        module = FitModule(copy.deepcopy(fitted), image, how, Budget(steps=200))
        module.configure_optimizers()
        for _ in range(200):
            module.step()
        quantaware.round_stored(module.field, module.rounding)
        return encode(module.field, image, rounding=module.rounding)

    data = tuned(quantize_db=3.0, rate_weight=0.002)
    curve = sorted((quality(d), math.log(len(d))) for d in (tuned(quantize_db=q) for q in (2.0, 5)))
    assert curve[0][0] < quality(data) < curve[1][0]  # the curve spans the file
    gain = np.interp(quality(data), *zip(*curve, strict=True)) - math.log(len(data))
    assert gain > 0  # of whole files, header included; 0.02 to 0.11 were seen over seeds


@pytest.mark.parametrize("name", [n for n in fields.names() if n != "multistage"])
def test_every_field_is_trained_with_rounding_and_a_rate(name, patch):
    """A few steps: what the file gives back is what the last of them left."""
    image = Image.from_array(patch[:12, :16])
    recipe = {"steps": 6, "quantize_db": 3.0, "quantize_share": 0.7, "rate_weight": 0.01}
    fit = inr.fit(image, preset(name, SMALL[name], **recipe))
    assert fit.rounding is not None
    decoded = decode(encode(fit.field, image, rounding=fit.rounding))
    assert values(decoded).equal(values(fit.field))
    assert all(math.isfinite(loss) for _, _, loss in fit.history)


def test_wrong_settings_are_named():
    for name, value in (("quantize_db", -1.0), ("quantize_db", 61.0), ("quantize_share", 0.0)):
        with pytest.raises(UsageError, match=f"recipe.{name} is {value}"):
            Recipe(**{name: value})
