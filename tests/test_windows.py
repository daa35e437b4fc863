"""Windows of small networks, their joins, and frequencies drawn from a spectrum."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr
from fields.base import FieldError, SignalStatistics
from fields.spectrum import draw_frequencies
from fields.windows import Windows, _deal
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.presets import Preset, Recipe
from inr.signals.audio import Audio

SMALL = {"hidden_features": 8, "hidden_layers": 1}


def make(count: int = 5, d: int = 1, c: int = 1, **more) -> Windows:
    torch.manual_seed(0)
    return Windows(d, c, count=count, **({"base_options": SMALL} | more))


def part(field: Windows, k: int) -> fields.Siren:
    """Window k's network as a field of its own."""
    options = dict(field.hyperparameters["base_options"])
    one = fields.Siren(field.in_features, field.out_features, **options)
    state = {name: stacked[k] for name, stacked in field.network.state_dict().items()}
    one.load_state_dict(state)
    return one


# -------------------------------------------------------------------------------- the sum


def slow(field: Windows, x: torch.Tensor) -> torch.Tensor:
    """The formula, window by window, point by point."""
    total = field.ground.to(x).repeat(len(x), 1)
    half = field.overlap / 2
    for i, point in enumerate(x):
        place = (float(point[0]) + 1) * field.count / 2
        for k in range(field.count):
            weight = 1.0
            for border, sign in ((k, 1), (k + 1, -1)):
                if 0 < border < field.count:
                    t = min(max((sign * (place - border) + half) / field.overlap, 0), 1)
                    weight *= 6 * t**5 - 15 * t**4 + 10 * t**3
            outside = (k > 0 and place < k - half) or (k < field.count - 1 and place > k + 1 + half)
            if outside:
                weight = 0.0
            local = point.clone()
            local[0] = (place - k - 0.5) * 2 / (1 + field.overlap)
            values = field.means[k] + field.levels[k] * part(field, k).to(x)(local)
            total[i] += weight * values
    return total


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 9),
    st.sampled_from([0.01, 0.125, 0.5, 1.0]),
    st.lists(st.floats(-1.2, 1.2), min_size=1, max_size=8),
)
def test_values_are_the_blend_of_the_formula(count, overlap, places):
    field = make(count, overlap=overlap).double()
    with torch.no_grad():
        field.ground.uniform_(-1, 1)
        field.means.uniform_(-1, 1)
        field.levels.uniform_(0, 2)
    x = torch.tensor(places, dtype=torch.float64)[:, None]
    torch.testing.assert_close(field(x), slow(field, x), atol=1e-9, rtol=1e-9)


@given(st.integers(1, 40), st.floats(0.01, 1.0), st.lists(st.floats(-1, 1), min_size=1))
@settings(deadline=None)
def test_weights_sum_to_one_and_no_point_has_more_than_two(count, overlap, places):
    field = make(count, overlap=overlap)
    x = torch.tensor(places, dtype=torch.float32)
    share = field._shares(x)
    sums = torch.zeros(len(x), dtype=torch.float64).index_add(0, share.point, share.weight)
    assert (sums - 1).abs().max() < 1e-15
    assert ((share.weight >= 0) & (share.weight <= 1)).all()
    assert torch.bincount(share.point).max() <= 2
    local = (share.place - share.window - 0.5) * 2 / (1 + overlap)
    assert local.abs().max() <= 1 + 1e-9


@given(st.lists(st.integers(0, 6), min_size=1, max_size=300))
@settings(deadline=None)
def test_pairs_are_dealt_out_to_rows_of_their_windows(windows):
    window = torch.tensor(windows)
    deal = _deal(window, 7)
    assert len(set(deal.slots.tolist())) == len(windows)
    assert deal.windows[deal.slots // deal.length].equal(window)
    # a window far fuller than the others costs no more than itself
    assert len(deal.windows) * deal.length <= 2 * len(windows) + 7 * 4
    assert deal.all_once == (deal.windows.tolist() == list(range(7)))


def test_joins_are_smooth():
    field = make(4, overlap=0.3).double()
    step = 2e-4
    x = torch.arange(-1, 1, step, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(field(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    # neither the slope nor the second derivative jumps at a join's ends
    assert (slope.diff(dim=0).abs() / step).max() < 2 * bend.abs().max()
    assert bend.diff(dim=0).abs().max() < 0.05 * bend.abs().max()


def test_a_window_alone_is_its_network():
    field = make(1)
    x = torch.linspace(-1, 1, 50)[:, None]
    expected = part(field, 0)(x / 1.125)
    torch.testing.assert_close(field(x), expected)


def test_each_point_costs_one_or_two_windows_whatever_their_number(monkeypatch):
    evaluated = []
    forward = fields.Siren.forward

    def counted(self, coords):
        evaluated.append(coords.shape[-2])
        return forward(self, coords)

    monkeypatch.setattr(fields.Siren, "forward", counted)
    for count in (2, 50, 1000):
        evaluated.clear()
        make(count).on_grid([torch.linspace(-1, 1, 4000)])
        (length,) = evaluated
        assert length * count <= 1.4 * 4000 + 2 * count  # joins, and rows filled up


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("siren", SMALL),
        ("finer", SMALL),
        ("gauss", SMALL),
        ("fouriernet", SMALL),
        ("grid", {"resolution": [8, 8], "levels": 2}),
        ("finr", {"rank": 3, "base_options": SMALL}),
    ],
)
def test_any_field_may_be_the_base(base, options, patch):
    field = make(3, 2, 3, base=base, base_options=options)
    image = inr.signals.image.Image.from_array(patch)
    field.adapt(image.statistics())
    values = field.on_grid(image.axes())
    assert torch.isfinite(values).all()
    values.square().sum().backward()
    assert all(p.grad is not None for p in field.parameters())


def test_bases_that_cannot_be_many_are_refused(monkeypatch):
    with pytest.raises(FieldError, match="base doh: a code cannot be trained for many windows"):
        make(3, base="doh", base_options={"latents": 20, "target_options": SMALL})

    def adapt(self, statistics):
        self.settle("first_omega", float(statistics.samples.abs().max()))

    monkeypatch.setattr(fields.Siren, "adapt", adapt)
    with pytest.raises(FieldError, match="base siren: chooses its first_omega itself"):
        make(2).adapt(SignalStatistics(torch.rand(20, 1)))


def test_a_count_that_no_file_should_claim_is_cheap_to_refuse():
    with torch.device("meta"):
        outline = Windows(1, 1, count=1 << 16, base_options={"hidden_features": 4096})
    assert sum(p.numel() for p in outline.parameters()) > 1 << 40


# ------------------------------------------------------------------------------- adapting


def test_each_window_takes_the_level_of_its_piece():
    n, count = 4000, 4
    t = torch.arange(n)
    sound = torch.where(t < n // 2, 0.1 + 0.4 * torch.sin(t / 3), torch.tensor(-0.25))[:, None]
    field = make(count)
    field.adapt(SignalStatistics(sound))
    assert field.levels[0].item() == pytest.approx(0.4 / math.sqrt(2), rel=0.02)
    assert field.ground == -0.25
    assert field.means[0].item() == pytest.approx(0.35, abs=0.01)
    assert (field.levels[3], field.means[3]) == (0, 0)
    assert all(not stacked[3].any() for stacked in field.network.parameters())
    last = torch.linspace(0.6, 1, 99)[:, None]
    assert (field(last) == -0.25).all()


def test_a_long_signal_is_looked_at_window_by_window():
    samples = torch.sin(torch.arange(8000) / 9)[:, None]
    looked: list[int] = []

    def part(place: tuple[slice, ...]) -> torch.Tensor:
        looked.append(len(samples[place]))
        return samples[place]

    found = []
    for statistics in (SignalStatistics(samples), SignalStatistics(part, (8000, 1))):
        torch.manual_seed(0)
        field = fields.create("windows", 1, 1, count=8, base_options=SMALL)
        field.adapt(statistics)
        found.append(field.levels.clone())
    assert found[0].equal(found[1])
    assert len(looked) == 8
    assert max(looked) < 1200


def test_silent_windows_stay_silent_and_cost_nothing():
    loud = (9000 * np.sin(np.arange(4000) / 9)).astype(np.int16)
    sound = np.concatenate([loud, np.zeros(12000, np.int16)])
    audio = Audio.from_array(sound, 8000)
    options = {"count": 4, "base_options": SMALL | {"init": "spectrum"}}
    preset = Preset("windows", options, Recipe(lr=1e-2, batch=2048))
    fit = inr.fit(audio, preset, steps=60, device="cpu")
    data = encode(fit.field, audio, max_loss_db=1.0)
    decoded = inr.render(decode(data))[:, 0]
    rest = decoded[8300:]  # the windows that hold nothing of the tone
    assert (rest == rest[0]).all()
    error = (decoded - sound)[:3500].std()
    assert abs(rest[0]) < 0.1 * error < 500
    alone = Audio.from_array(loud, 8000)
    preset = dataclasses.replace(preset, hyperparameters=options | {"count": 1})
    one = inr.fit(alone, preset, steps=60, device="cpu")
    assert len(data) < 2 * len(encode(one.field, alone, max_loss_db=1.0)) + 200


def test_all_of_it_silent_is_exact():
    audio = Audio.from_array(np.full(9000, 7, np.int16), 8000)
    fit = inr.fit(audio, steps=3, device="cpu")
    data = encode(fit.field, audio)
    assert (inr.render(decode(data)) == 7).all()
    assert len(data) < 200


def test_fewer_samples_than_windows():
    field = make(6)
    field.adapt(SignalStatistics(torch.tensor([[0.5], [-0.5]])))
    assert torch.isfinite(field(torch.linspace(-1, 1, 9)[:, None])).all()


def test_the_number_of_windows_follows_the_length():
    assert Windows.suggest((1,)) == {"count": 1}
    assert Windows.suggest((4096 * 75, 3)) == {"count": 75}
    assert Windows.suggest((1 << 40,)) == {"count": 1 << 16}


def test_places_in_a_long_signal_are_as_fine_as_its_coordinates():
    field = make(2000)
    x = (torch.arange(4000, 4064) * 2.0**-12 - 1).float()  # exact in float32
    share = field._shares(x)
    expected = (x.double() + 1) * 1000
    assert share.place[: len(x)].equal(expected)


# -------------------------------------------------------------------------------- spectrum


def test_a_tone_gives_its_own_frequency():
    n, bins = 3000, 200
    tone = torch.sin(2 * math.pi * bins * torch.arange(n) / n)[:, None]
    found = draw_frequencies(SignalStatistics(tone), 64)
    assert ((found / math.pi - bins).abs() <= 2.5).float().mean() > 0.95  # Hann's main lobe


def test_frequencies_follow_the_spectrum_and_its_power():
    n = 4096
    t = torch.arange(n) * 2 * math.pi / n
    mix = (torch.sin(100 * t) + 0.25 * torch.sin(900 * t))[:, None]
    for power, share in ((1.0, 0.2), (2.0, 1 / 17)):
        torch.manual_seed(0)
        found = draw_frequencies(SignalStatistics(mix), 4000, power) / math.pi
        assert (found > 500).double().mean().item() == pytest.approx(share, rel=0.15)


def test_frequencies_of_a_picture_have_both_signs():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    wave = torch.sin(2 * math.pi * (-5 * y / 64 + 9 * x / 48))[..., None]
    found = draw_frequencies(SignalStatistics(wave), 200) / math.pi
    near = (found - torch.tensor([-5.0, 9.0])).abs().amax(1) <= 2.5
    assert near.double().mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 3), (5, 4, 2)])
def test_a_constant_calls_for_no_frequency(shape):
    assert draw_frequencies(SignalStatistics(torch.full(shape, 0.3)), 9) is None
    torch.manual_seed(0)
    field = fields.Siren(len(shape) - 1, shape[-1], init="spectrum", hidden_features=8)
    before = [p.clone() for p in field.parameters()]
    field.adapt(SignalStatistics(torch.full(shape, 0.3)))
    assert all(a.equal(b) for a, b in zip(before, field.parameters(), strict=True))


def test_only_the_first_weights_change():
    torch.manual_seed(0)
    field = fields.Siren(1, 1, init="spectrum", hidden_features=8, first_omega=7.0)
    before = {name: p.clone() for name, p in field.named_parameters()}
    field.adapt(SignalStatistics(torch.randn(100, 1)))
    changed = {name for name, p in field.named_parameters() if not p.equal(before[name])}
    assert changed == {"sines.0.linear.weight"}
    # omega times the weights: within Nyquist's frequency and half a bin
    assert (7.0 * field.layers[0].linear.weight).abs().max() <= math.pi * 50.5 + 1e-3


def test_finer_has_no_such_start():
    assert "spectrum" in fields.Siren.inits
    assert "spectrum" not in fields.Finer.inits  # its units sound at multiples of their frequency


# ------------------------------------------------------------------------------ real sound


def test_windows_win_on_a_real_sound(shared):
    audio = inr.open(shared / "audio" / "hungarian_dance_8s_mono.wav")
    piece = Audio.from_array(audio.samples[:20000], audio.domain.rate)
    windows = presets.default("audio")
    one = inr.fit(piece, "siren", steps=30, device="cpu")  # of ten times the work a step
    many = inr.fit(piece, windows, steps=150, device="cpu")
    assert many.metrics["psnr"] > one.metrics["psnr"] + 10
    assert many.metrics["lsd"] < one.metrics["lsd"]
    data = encode(many.field, piece)
    assert piece.metrics(decode(data))["psnr"] > many.metrics["psnr"] - 0.11
