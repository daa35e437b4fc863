"""FINER and FINER++ (arXiv:2312.02434, arXiv:2407.19434 and the authors' code)."""

import math

import pytest
import torch

from fields import Finer, FinerGauss, FinerWavelet, Siren


def made(cls, *sizes, seed=0, **hyperparameters):
    torch.manual_seed(seed)
    return cls(*sizes, **hyperparameters).double()


def points(n: int = 64, d: int = 2) -> torch.Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def test_forward_is_the_formula():
    field = made(Finer, 2, 3, hidden_features=16, hidden_layers=2, hidden_omega=[20.0, 10.0])
    h = points()
    for layer, omega in zip(field.layers, (30, 20, 10), strict=True):
        z = layer.linear(h)
        h = torch.sin(omega * (z.abs() + 1) * z)
    torch.testing.assert_close(field(points()), field.out(h))


def test_gauss_variant_is_the_formula():
    field = made(FinerGauss, 2, 1, hidden_features=16, hidden_layers=2, omega=10.0, scale=3.0)
    h = points()
    for layer in field.layers:
        z = layer.linear(h)
        h = torch.exp(-((3 * torch.sin(10 * (z.abs() + 1) * z)) ** 2))
    torch.testing.assert_close(field(points()), field.out(h))


def test_wavelet_variant_is_the_formula():
    field = made(FinerWavelet, 2, 3, hidden_features=16, hidden_layers=2, omega=5.0)

    def activated(z: torch.Tensor) -> torch.Tensor:
        stretch = torch.complex((z.real.abs() + 1) * z.real, (z.imag.abs() + 1) * z.imag)
        p = torch.sin(5 * stretch)
        return torch.exp(4j * p - (2 * p).abs() ** 2)

    h = activated(field.first(points()).to(torch.complex128))
    for layer in field.hidden:
        weight = torch.complex(layer.real.weight, layer.imag.weight)
        h = activated(h @ weight.T + torch.complex(layer.real.bias, layer.imag.bias))
    weight = torch.complex(field.out.real.weight, field.out.imag.weight)
    torch.testing.assert_close(field(points()), (h @ weight.T).real + field.out.real.bias)


def test_wavelet_variant_has_the_released_bounds():
    field = FinerWavelet(2, 3)
    width = int(256 / math.sqrt(2))
    bound = math.sqrt(6 / width) / 20
    for layer in (*field.hidden, field.out):
        for weight in (layer.real.weight, layer.imag.weight):
            assert 0.98 * bound < weight.abs().max() <= bound
    assert 0.49 < field.first.weight.abs().max() <= 0.5
    assert 0.95 < field.first.bias.abs().max() <= 1


def test_small_phases_are_sirens():
    field = made(Finer, 2, 1, hidden_layers=0)
    siren = made(Siren, 2, 1, hidden_layers=0)
    siren.load_state_dict(field.state_dict())
    with torch.no_grad():
        for network in (field, siren):
            network.layers[0].linear.weight.mul_(1e-7)
            network.layers[0].linear.bias.mul_(1e-7)
    # |z| below 1e-6: the factor |z| + 1 differs from 1 by that much
    torch.testing.assert_close(field(points()), siren(points()), rtol=2e-6, atol=1e-12)


def test_without_bias_it_is_odd():
    field = made(Finer, 2, 3, hidden_features=32)
    with torch.no_grad():
        for layer in field.layers:
            layer.linear.bias.zero_()
        field.out.bias.zero_()
    torch.testing.assert_close(field(-points()), -field(points()))


def test_local_frequency_of_the_clean_and_the_official_gradient():
    # d/dz of omega (|z| + 1) z is omega (2 |z| + 1); with |z| + 1 held constant, omega (|z| + 1)
    slopes = {}
    for variant in ("clean", "official"):
        field = Finer(1, 1, hidden_features=1, hidden_layers=0, variant=variant).double()
        phase = torch.tensor([30 * 0.7], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(field.activation(phase, 30.0), phase)
        slopes[variant] = 30 * slope.item() / math.cos(30 * 1.7 * 0.7)
    assert slopes["clean"] == pytest.approx(72)
    assert slopes["official"] == pytest.approx(51)


@pytest.mark.parametrize("cls", [Finer, FinerGauss, FinerWavelet])
def test_official_gradients_are_not_those_of_the_function(cls):
    x = points(32).requires_grad_()
    step = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    errors = {}
    for variant in ("clean", "official"):
        field = made(cls, 2, 1, hidden_features=32, variant=variant, first_bias=1.0)
        values = field(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        with torch.no_grad():
            difference = (field(x + step) - field(x - step)).squeeze(-1) / 2e-6
        scale = difference.square().mean().sqrt()
        errors[variant] = ((gradient[:, 0] - difference).square().mean().sqrt() / scale).item()
    assert errors["clean"] < 1e-6
    assert errors["official"] > 0.05


def test_first_bias_spreads_the_first_layer_only():
    torch.manual_seed(0)
    plain = Finer(2, 3)
    torch.manual_seed(0)
    spread = Finer(2, 3, first_bias=5.0)
    first, *others = spread.layers
    assert 4.8 < first.linear.bias.abs().max() <= 5
    assert plain.layers[0].linear.bias.abs().max() <= 1 / math.sqrt(2)
    for a, b in zip(plain.layers[1:], others, strict=True):
        assert a.linear.bias.equal(b.linear.bias)


def test_initial_weights_are_sirens():
    assert sum(p.numel() for p in Finer(2, 3).parameters()) == 198_915
    field = FinerGauss(2, 3)
    bound = math.sqrt(6 / 256) / 10
    for layer in field.layers[1:]:
        assert 0.98 * bound < layer.linear.weight.abs().max() <= bound
    assert 0.98 * bound < field.out.weight.abs().max() <= bound
    assert 0.9 < field.layers[0].linear.bias.abs().max() <= 1


def test_zero_stays_finite():
    field = made(Finer, 2, 1, hidden_features=8)
    with torch.no_grad():
        field.layers[0].linear.bias.zero_()
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(field(x).sum(), x)
    assert torch.isfinite(gradient).all()
