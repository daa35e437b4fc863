"""FKAN's Fourier layer, gates and initialisation (arXiv:2409.09323 and the authors' notebook)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import Fkan

SMALL = {"fourier_features": 6, "frequencies": 9, "hidden_features": [8, 8]}


def series(field: Fkan, x: torch.Tensor) -> torch.Tensor:
    """The Fourier layer before LayerNorm."""
    return sum(field.part(axis, x[:, axis]) for axis in range(field.in_features))


def small(d: int = 2, seed: int = 0, **more) -> Fkan:
    torch.manual_seed(seed)
    return Fkan(d, 3, **{**SMALL, **more}).double()


def coords(n: int, d: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=generator, dtype=torch.float64) * 2 - 1


def test_parameter_count():
    # the authors' 436,367 count three scalars per dense layer that nothing uses
    assert sum(p.numel() for p in Fkan(2, 3).parameters()) == 436_367 - 4 * 3
    assert Fkan(2, 3).coefficients.numel() == 138_240


def test_forward_is_the_formula():
    field = small()
    x = coords(7)
    cosines, sines = field.coefficients.unflatten(-1, (2, 9)).unbind(-2)  # (d, j, k)
    k = torch.arange(1, 10)
    phase = x[:, :, None, None] * k
    with torch.no_grad():
        field.bias.uniform_(-1, 1)
        field.norm.gain.uniform_(-0.5, 0.5)
        field.norm.bias.uniform_(-0.5, 0.5)
        y = (phase.cos() * cosines + phase.sin() * sines).sum((1, 3)) + field.bias
        spread = (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        h = (y - y.mean(-1, keepdim=True)) / spread * (1 + field.norm.gain) + field.norm.bias
        for layer in field.dense:
            u = h @ layer.weight.T + layer.bias
            h = (u + torch.tanh(30 * u)) / (1 + torch.exp(-u))
        expected = h @ field.out.weight.T + field.out.bias
        torch.testing.assert_close(field(x), expected)
        # float32: phases up to 9 and sums of 36 terms, then tanh's slope of 30 on small numbers
        torch.testing.assert_close(field.float()(x.float()), expected.float(), atol=1e-4, rtol=0)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 5))
def test_one_frequency_is_a_sine_layer_with_learnt_amplitudes(k, seed):
    field = small(seed=seed)
    with torch.no_grad():
        kept = torch.zeros(18, dtype=torch.float64)
        kept[9 + k - 1] = 1  # B, the second half
        field.coefficients *= kept
        field.bias.uniform_(-1, 1)
    x = coords(20)
    amplitudes = field.coefficients[..., 9 + k - 1]  # (d, j)
    torch.testing.assert_close(series(field, x), field.bias + (k * x).sin() @ amplitudes)


@settings(deadline=None)
@given(st.integers(-3, 3), st.integers(0, 1))
def test_series_is_periodic_in_each_coordinate(turns, axis):
    field = small()
    x = coords(20)
    moved = x.clone()
    moved[:, axis] += 2 * math.pi * turns
    # phases up to 9 (6 pi + 1) round by 2^-53 of themselves
    torch.testing.assert_close(series(field, moved), series(field, x), atol=1e-12, rtol=0)


def test_series_is_separable_and_the_network_is_not():
    field = small()
    x, y = coords(20), coords(20).flip(0)
    corners = [x, y, torch.stack([x[:, 0], y[:, 1]], -1), torch.stack([y[:, 0], x[:, 1]], -1)]
    for function, mixes in ((lambda p: series(field, p), False), (field, True)):
        a, b, c, d = map(function, corners)
        mixed = (a + b - c - d).abs().max()
        assert (mixed > 1e-3) if mixes else (mixed < 1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("frequencies", [16, 270])
def test_variance_of_the_series_is_one_whatever_its_size(d, frequencies):
    torch.manual_seed(0)
    field = Fkan(d, 1, fourier_features=128, frequencies=frequencies, hidden_features=[8])
    x = (torch.rand(512, d) * 2 - 1) * math.pi
    with torch.no_grad():
        assert series(field, x).square().mean() == pytest.approx(1, abs=0.06)


def test_smooth_series_have_a_slope_that_does_not_grow_with_their_frequencies():
    slopes = {}
    for smooth in (False, True):
        for frequencies in (16, 256):
            torch.manual_seed(0)
            field = Fkan(1, 1, frequencies=frequencies, hidden_features=[8], smooth=smooth)
            x = torch.linspace(-1, 1, 4000)[:, None]
            with torch.no_grad():
                slopes[smooth, frequencies] = float(series(field, x).diff(dim=0).std() * 2000)
    assert slopes[True, 256] < 1.3 * slopes[True, 16]
    assert slopes[False, 256] > 8 * slopes[False, 16]


@torch.no_grad()
@pytest.mark.parametrize(("variant", "fan_in"), [("official", 128), ("clean", 512)])
def test_initialisation(variant, fan_in):
    torch.manual_seed(0)
    field = Fkan(2, 64, variant=variant)
    assert field.coefficients.std() == pytest.approx(1 / math.sqrt(2 * 270), rel=0.01)
    assert field.bias.eq(0).all()
    for layer in field.dense:
        bound = math.sqrt(6 / layer.in_features) / 30
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.9 * bound < layer.bias.abs().max() <= bound
    bound = math.sqrt(6 / fan_in) / 30
    assert 0.99 * bound < field.out.weight.abs().max() <= bound


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_gate_approaches_shifted_silu(values):
    u = torch.tensor(values, dtype=torch.float64)
    g = small().activation(u)
    torch.testing.assert_close(g, (u + torch.tanh(30 * u)) * torch.sigmoid(u))
    far = u > 1  # where tanh(30 u) is 1 to the last bit
    torch.testing.assert_close(g[far], (u[far] + 1) * torch.sigmoid(u[far]))


def test_gradients_reach_every_parameter():
    field = small()
    field(coords(20)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in field.parameters())
