"""ReLU with two encodings and Gaussians: formulas, initialisation, invariants."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import Gauss, ReluPe, Rff


def parameters_of(field: torch.nn.Module) -> int:
    return sum(p.numel() for p in field.parameters())


def points(n: int, d: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=generator, dtype=torch.float64) * 2 - 1


def linears(field: torch.nn.Module) -> list[torch.nn.Linear]:
    return [m for m in field.modules() if isinstance(m, torch.nn.Linear)]


def test_parameter_counts():
    assert parameters_of(Gauss(2, 3)) == 198_915
    assert parameters_of(ReluPe(2, 3)) == 43 * 256 + 3 * 257 * 256 + 257 * 3
    assert parameters_of(ReluPe(3, 1, include_input=False)) == 61 * 256 + 3 * 257 * 256 + 257
    assert parameters_of(Rff(2, 3)) == 513 * 256 + 2 * 257 * 256 + 257 * 3


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("pi", [False, True])
@pytest.mark.parametrize("include_input", [False, True])
def test_relu_pe_is_the_formula(d, pi, include_input):
    torch.manual_seed(0)
    field = ReluPe(
        d, 2, hidden_features=16, hidden_layers=2, frequencies=3, pi=pi, include_input=include_input
    ).double()
    x = points(20, d)
    unit = math.pi if pi else 1.0
    parts = [x] if include_input else []
    for j in range(3):
        parts += [torch.sin(2**j * unit * x), torch.cos(2**j * unit * x)]
    h = torch.cat(parts, dim=-1)
    *hidden, out = linears(field)
    assert len(hidden) == 3
    for linear in hidden:
        h = torch.relu(h @ linear.weight.T + linear.bias)
    torch.testing.assert_close(field(x), h @ out.weight.T + out.bias)


def test_relu_pe_with_pi_and_without_the_input_is_periodic_and_otherwise_not():
    torch.manual_seed(0)
    x = points(30)
    periodic = ReluPe(2, 1, hidden_features=32, pi=True, include_input=False).double()
    torch.testing.assert_close(periodic(x + 2), periodic(x))
    for more in ({"pi": True}, {"include_input": False}):
        field = ReluPe(2, 1, hidden_features=32, **more).double()
        assert (field(x + 2) - field(x)).abs().max() > 1e-3


@pytest.mark.parametrize("cls", [ReluPe, Gauss])
def test_weights_and_biases_are_those_of_torch(cls):
    torch.manual_seed(0)
    for linear in linears(cls(2, 3)):
        bound = 1 / math.sqrt(linear.in_features)
        for tensor in (linear.weight, linear.bias):
            assert tensor.abs().max() <= bound
        assert linear.weight.abs().max() > 0.98 * bound


@pytest.mark.parametrize("features", [1, 7, 256])
def test_rff_encoding_has_the_length_of_its_features(features):
    gamma = Rff(2, 1, features=features).double().encode(points(50))
    expected = torch.full((50,), float(features), dtype=torch.float64)
    torch.testing.assert_close(gamma.square().sum(-1), expected)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.2, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_rff_kernel_is_gaussian(sigma, a, b):
    field = Rff(2, 1, hidden_features=1, hidden_layers=0, features=8192, sigma=sigma).double()
    x = torch.tensor([[0.0, 0.0], [a, b]], dtype=torch.float64)
    one, two = field.encode(x)
    distance = math.hypot(a, b) / 2  # between v = (x + 1) / 2
    expected = math.exp(-2 * (math.pi * sigma * distance) ** 2)
    # mean of 8192 cosines, each of variance at most 1/2: five standard deviations
    assert abs(float(one @ two) / 8192 - expected) < 5 * math.sqrt(0.5 / 8192)


@pytest.mark.parametrize("variant", ["official", "clean"])
def test_rff_is_the_formula_in_the_unit_square(variant):
    torch.manual_seed(0)
    field = Rff(2, 3, hidden_features=16, features=8, sigma=4.0, variant=variant).double()
    x = points(20)
    phase = 2 * math.pi * (x + 1) / 2 @ (4.0 * field.directions).T
    h = torch.cat([phase.sin(), phase.cos()], dim=-1)
    *hidden, out = linears(field)
    assert len(hidden) == 3
    for linear in hidden:
        h = torch.relu(h @ linear.weight.T + linear.bias)
    z = h @ out.weight.T + out.bias
    expected = z if variant == "clean" else 2 * torch.sigmoid(z) - 1
    torch.testing.assert_close(field(x), expected)


def test_rff_initialisation():
    torch.manual_seed(0)
    field = Rff(2, 3, features=4096)
    assert float(field.directions.std()) == pytest.approx(1, rel=0.03)
    for linear in linears(field.requires_grad_(False))[:-1]:
        glorot = math.sqrt(2 / (linear.in_features + linear.out_features))
        assert float(linear.weight.std()) == pytest.approx(glorot, rel=0.02)
        assert float(linear.bias.std()) == pytest.approx(0.01, rel=0.2)


def test_rff_directions_come_from_the_seed_alone():
    torch.manual_seed(0)
    one = Rff(2, 1, seed=5, hidden_features=8)
    torch.manual_seed(1)
    assert Rff(2, 1, seed=5, hidden_features=8).directions.equal(one.directions)
    assert not Rff(2, 1, seed=6, hidden_features=8).directions.equal(one.directions)
    assert "directions" not in {s.name for s in one.stored_parameters()}
    with torch.device("meta"):
        outline = Rff(2, 1, seed=5, hidden_features=8)
    filled = outline.to_empty(device="cpu")
    filled.regenerate()
    assert filled.directions.equal(one.directions)


def test_gauss_is_the_formula():
    torch.manual_seed(0)
    field = Gauss(2, 3, hidden_features=16, hidden_layers=2, scale=6.0).double()
    x = h = points(20)
    *hidden, out = linears(field)
    sigma = 1 / (math.sqrt(2) * 6.0)
    for linear in hidden:
        z = h @ linear.weight.T + linear.bias
        h = torch.exp(-z.square() / (2 * sigma**2))  # the paper's form
        assert h.min() >= 0
        assert h.max() <= 1
    torch.testing.assert_close(field(x), h @ out.weight.T + out.bias)


def test_gauss_is_even_in_its_first_map():
    torch.manual_seed(0)
    field = Gauss(2, 1, hidden_features=16).double()
    x = points(20)
    before = field(x)
    with torch.no_grad():
        for parameter in linears(field)[0].parameters():
            parameter.neg_()
    torch.testing.assert_close(field(x), before)
