"""Multiplicative filter networks: sums of sinusoids, bands, heads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import Bacon, FourierNet, GaborNet
from fields.mfn import GaborFilter, QuantisedFilter
from inr.signals.image import Image


def parameters_of(field: torch.nn.Module) -> int:
    return sum(p.numel() for p in field.parameters())


def points(n: int, d: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=generator, dtype=torch.float64) * 2 - 1


def period(n: int) -> torch.Tensor:
    """n samples of [-1, 1), one period of whole frequencies in cycles per domain."""
    return torch.arange(n, dtype=torch.float64) * (2 / n) - 1


def test_parameter_counts():
    assert parameters_of(FourierNet(2, 1)) == 200_705
    assert parameters_of(GaborNet(2, 1)) == 203_777
    # frequencies are frozen: five phases of 256, four maps, one output or one for each map
    assert parameters_of(Bacon(2, 1)) == 5 * 256 + 4 * 65_792 + 257
    assert parameters_of(Bacon(2, 1, heads="all")) == 5 * 256 + 4 * 65_792 + 4 * 257


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("cls", [FourierNet, GaborNet])
def test_initialisation(cls, d):
    torch.manual_seed(0)
    field = cls(d, 3)
    for linear in [*field.maps, *field.heads]:
        assert 0.97 / 16 < linear.weight.abs().max() <= 1 / 16  # U(+-sqrt(1 / 256))
        assert linear.bias.abs().max() <= 1 / 16
    bound = 256 / math.sqrt(4) / math.sqrt(d)
    for g in field.filters:
        assert 0.95 * math.pi < g.phase.abs().max() <= math.pi
        frequency = g.frequency
        if cls is GaborNet:
            frequency = frequency / g.precision.sqrt()[:, None]
            assert 0.98 < g.centre.abs().max() <= 1
            # mean and variance of Gamma(6/4, rate 1) are 1.5: five standard deviations
            assert abs(float(g.precision.detach().mean()) - 1.5) < 5 * math.sqrt(1.5 / 256)
        # one float32 rounding up and down where the root of gamma went in and out again
        assert 0.97 * bound < frequency.abs().max() <= bound * (1 + 1e-6)


def test_gamma_has_a_rate():
    torch.manual_seed(0)
    field = GaborNet(2, 1, alpha=10.0, beta=5.0, hidden_features=4096, hidden_layers=0)
    precision = field.filters[0].precision.detach()
    assert float(precision.mean()) == pytest.approx(2, rel=0.05)
    assert float(precision.var()) == pytest.approx(0.4, rel=0.15)


@pytest.mark.parametrize("cls", [FourierNet, GaborNet])
@pytest.mark.parametrize("output_sine", [False, True])
def test_forward_is_the_formula(cls, output_sine):
    torch.manual_seed(0)
    field = cls(
        2, 3, hidden_features=8, hidden_layers=2, input_scale=9.0, output_sine=output_sine
    ).double()
    x = points(20)

    def filtered(g):
        wave = torch.sin(x @ g.frequency.T + g.phase)
        if cls is FourierNet:
            return wave
        distance = (x[:, None] - g.centre).square().sum(-1)
        return wave * torch.exp(-g.precision / 2 * distance)

    h = filtered(field.filters[0])
    for linear, g in zip(field.maps, [*field.filters][1:], strict=True):
        h = (h @ linear.weight.T + linear.bias) * filtered(g)
    expected = h @ field.heads[0].weight.T + field.heads[0].bias
    torch.testing.assert_close(field(x), torch.sin(expected) if output_sine else expected)


@pytest.mark.parametrize("cls", [FourierNet, GaborNet, Bacon])
def test_products_of_filters(cls):
    torch.manual_seed(0)
    field = cls(2, 1, hidden_features=8).double()
    x = points(20)
    filters = torch.stack([g(x) for g in field.filters])
    with torch.no_grad():
        for linear in field.maps:
            linear.weight.copy_(torch.eye(8))
            linear.bias.zero_()
        torch.testing.assert_close(field(x), field.heads[0](filters.prod(0)))
        for linear in field.maps:
            linear.weight.zero_()
            linear.bias.fill_(1)
        torch.testing.assert_close(field(x), field.heads[0](filters[-1]))


@pytest.mark.parametrize("cls", [FourierNet, GaborNet, Bacon])
def test_affine_in_each_weight(cls):
    torch.manual_seed(0)
    field = cls(2, 1, hidden_features=8).double()
    x = points(20)
    for linear in field.maps:
        weight = linear.weight.detach().clone()
        other = torch.randn_like(weight)
        values = []
        for t in (0.0, 0.3, 1.0):
            with torch.no_grad():
                linear.weight.copy_(weight + t * other)
            values.append(field(x))
        start, middle, end = values
        torch.testing.assert_close(middle, 0.7 * start + 0.3 * end)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3), st.integers(0, 2**31 - 1))
def test_fouriernet_has_no_frequency_above_the_sum_of_those_of_its_filters(depth, seed):
    torch.manual_seed(seed)
    field = FourierNet(1, 1, hidden_features=6, hidden_layers=depth, input_scale=20.0).double()
    band = 0
    for g in field.filters:  # whole numbers of cycles per domain, so that one period is exact
        with torch.no_grad():
            g.frequency.div_(math.pi).round_().mul_(math.pi)
        band += round(float(g.frequency.detach().abs().max()) / math.pi)
    spectrum = torch.fft.rfft(field(period(256)[:, None])[:, 0], norm="forward").abs()
    assert band < 100
    assert spectrum[band + 1 :].max() < 1e-13
    assert spectrum[: band + 1].max() > 1e-3


def test_gabor_exponent_in_float32():
    torch.manual_seed(0)
    g = GaborFilter(2, 4096, 1.0, 1.5, 1.0)
    with torch.no_grad():
        g.frequency.zero_()
        g.phase.fill_(math.pi / 2)  # leaves the Gaussian alone
    x = points(64)
    distance = (x[:, None] - g.centre.double()).square().sum(-1)
    exact = torch.exp(-g.precision.double() / 2 * distance)
    # terms of up to gamma d = 20 where gamma is 10, each rounded to 2^-24 of itself: 1e-6 each, and
    # a few of them add up
    error = (g(x.float()).double() - exact).abs().max()
    assert error < 4e-6
    assert (g.double()(x) - exact).abs().max() < 1e-14


def test_bacon_frequencies():
    # the paper's: 26 cycles a filter for 256 pixels and four products, 28 for 512 and eight
    assert Bacon(2, 1).multiples == [26, 26]
    assert Bacon(2, 1, frequency=512, hidden_layers=8).multiples == [28, 28]
    assert Bacon(2, 1, frequency=[256, 512]).multiples == [26, 51]
    assert Bacon(2, 1, spacing=0.5).multiples == [51, 51]
    field = Bacon(2, 1, frequency=60, hidden_features=1024)
    drawn = torch.stack([g.multiples for g in field.filters])
    assert drawn.shape == (5, 1024, 2)
    assert drawn.unique().tolist() == list(range(-6, 7))
    counts = (drawn + 6).long().flatten().bincount() / drawn.numel()
    # uniform over 13 values: five standard deviations
    assert (counts - 1 / 13).abs().max() < 5 * math.sqrt(1 / 13 / drawn.numel())
    assert not drawn[0].equal(drawn[1])
    assert not drawn[..., 0].equal(drawn[..., 1])


def test_bacon_frequencies_come_from_the_seed_alone():
    def drawn(field):
        return [g.multiples for g in field.filters]

    torch.manual_seed(0)
    one = Bacon(2, 1, seed=5, hidden_features=8)
    torch.manual_seed(1)
    with torch.device("meta"):
        outline = Bacon(2, 1, seed=5, hidden_features=8)
    filled = outline.to_empty(device="cpu")
    filled.regenerate()
    assert all(a.equal(b) for a, b in zip(drawn(one), drawn(filled), strict=True))
    other = Bacon(2, 1, seed=6, hidden_features=8)
    assert not drawn(one)[0].equal(drawn(other)[0])
    assert not any("multiples" in s.name for s in one.stored_parameters())


def test_bacon_initialisation():
    torch.manual_seed(0)
    field = Bacon(2, 3, heads="all")
    bound = math.sqrt(6 / 256)
    for linear in [*field.maps, *field.heads]:
        assert 0.98 * bound < linear.weight.abs().max() <= bound
        assert linear.bias.abs().max() <= 1 / 16


@pytest.mark.parametrize(("dtype", "floor"), [
    (torch.float64, 1e-13),
    # phases of up to 8 pi carry errors of 2^-21, which four filters hand on
    (torch.float32, 1e-5),
])  # fmt: skip
def test_bacon_head_i_ends_at_its_band(dtype, floor):
    torch.manual_seed(0)
    field = Bacon(1, 1, hidden_features=32, hidden_layers=3, frequency=64, heads="all").to(dtype)
    assert field.multiples == [8]
    values = field.outputs(period(256)[:, None].to(dtype))[..., 0]
    spectrum = torch.fft.rfft(values.double(), dim=0, norm="forward").abs().T
    for i, head in enumerate(spectrum, start=1):
        band = (i + 1) * 8
        assert head[band + 1 :].max() < floor
        assert head[band - 7 : band + 1].max() > 1e-3  # and no earlier


def test_bacon_bands_along_each_axis():
    torch.manual_seed(0)
    field = Bacon(2, 1, hidden_features=16, hidden_layers=1, frequency=[16, 40], heads="all")
    values = field.double().on_grid([period(64), period(64)])[..., 0]
    spectrum = torch.fft.fft2(values, norm="forward").abs()
    far = torch.fft.fftfreq(64, 1 / 64).abs()
    assert spectrum[far > 8].max() < 1e-13
    assert spectrum[:, far > 20].max() < 1e-13
    assert spectrum[far == 7].max() > 1e-3


@pytest.mark.parametrize("spacing", [1.0, 0.5, 2.0])
def test_bacon_has_the_period_of_its_spacing(spacing):
    torch.manual_seed(0)
    field = Bacon(2, 1, hidden_features=16, frequency=64, spacing=spacing).double()
    x = points(30)
    shift = torch.tensor([2 / spacing, 0.0], dtype=torch.float64)  # a domain is 2 wide
    torch.testing.assert_close(field(x + shift), field(x))
    assert (field(x + shift / 2) - field(x)).abs().max() > 1e-2


def test_bacon_trains_every_head_and_no_other():
    torch.manual_seed(0)
    axes = [torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 7)]
    for heads, count in (("last", 1), ("all", 4)):
        field = Bacon(2, 3, hidden_features=16, frequency=16, heads=heads)
        outputs = field.supervised(axes)
        assert len(outputs) == count
        torch.testing.assert_close(outputs[-1], field.on_grid(axes))
        sum(values.square().mean() for values in outputs).backward()
        assert all(p.grad.abs().max() > 0 for p in field.parameters())


def test_bacon_heads_in_tiles(monkeypatch):
    torch.manual_seed(0)
    field = Bacon(2, 3, hidden_features=16, frequency=16, heads="all")
    axes = [torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 30)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    monkeypatch.setattr("fields.base.points_per_tile", lambda field: 64)
    tiled = torch.stack(field.supervised(axes), dim=-2)
    # sums in another order in float32, through five products
    torch.testing.assert_close(tiled, field.outputs(coords), atol=2e-5, rtol=1e-4)


def test_the_loss_is_the_mean_over_heads():
    torch.manual_seed(0)
    image = Image.from_array(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    field = Bacon(2, 3, hidden_features=16, heads="all")
    batch = image.full_batch()
    errors = [(out - batch.values).square().sum() for out in field.supervised(batch.axes)]
    torch.testing.assert_close(image.loss(field, batch), sum(errors) / 4)
    assert errors[0] != errors[-1]


def test_bacon_takes_its_band_from_the_image():
    assert Bacon.suggest((300, 500)) == {"frequency": [300, 500]}


def test_depth_zero():
    x = points(5)
    for cls in (FourierNet, GaborNet):
        field = cls(2, 1, hidden_features=8, hidden_layers=0).double()
        torch.testing.assert_close(field(x), field.heads[0](field.filters[0](x)))
    field = Bacon(2, 1, hidden_features=8, hidden_layers=0, heads="all").double()
    torch.testing.assert_close(field.outputs(x)[:, 0], field(x))


def test_a_filter_needs_no_memory_for_its_outline():
    with torch.device("meta"):
        g = QuantisedFilter([5, 5], 16, 1.0, 0, 0)
    assert g.multiples.is_meta
