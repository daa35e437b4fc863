"""SIREN's formula, initialisation and invariants (arXiv:2006.09661 and the authors' code)."""

import math

import pytest
import torch

from fields import Siren
from fields.siren import PhaseLayer


def parameters_of(field: torch.nn.Module) -> int:
    return sum(p.numel() for p in field.parameters())


def test_parameter_counts():
    assert parameters_of(Siren(2, 3)) == 198_915
    assert parameters_of(Siren(1, 1)) == 198_145
    assert parameters_of(Siren(3, 1)) == 198_657
    # 4 sine layers of 222 units: the setting of the audio experiments
    assert parameters_of(Siren(1, 1, hidden_features=222)) == 149_185


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("bias_init", ["official", "clean"])
def test_weight_bounds(d, bias_init):
    torch.manual_seed(0)
    field = Siren(d, 3, bias_init=bias_init)
    bound = math.sqrt(6 / 256) / 30
    assert bound == pytest.approx(0.005103, abs=1e-6)
    first, *hidden = [layer.linear for layer in field.sines]
    assert 0.99 / d < first.weight.abs().max() <= 1 / d
    for linear in [*hidden, field.out]:
        assert 0.98 * bound < linear.weight.abs().max() <= bound
    for linear in hidden:
        limit = bound if bias_init == "clean" else 1 / 16
        assert 0.9 * limit < linear.bias.abs().max() <= limit
    limit = 1 / d if bias_init == "clean" else 1 / math.sqrt(d)
    assert 0.9 * limit < first.bias.abs().max() <= limit


@torch.no_grad()
def preactivations(field: Siren, x: torch.Tensor, with_bias: bool) -> list[torch.Tensor]:
    """omega (W x + b) of each sine layer, (points, units)."""
    found = []
    for layer in field.sines:
        bias = layer.linear.bias if with_bias else None
        z = layer.omega * torch.nn.functional.linear(x, layer.linear.weight, bias)
        found.append(z)
        x = torch.sin(z)
    return found


def test_variance_without_bias_follows_the_fixed_point():
    # v <- 1 - exp(-2 v), because a unit sees 2 E[sin^2] and E[sin^2(z)] = (1 - exp(-2 v)) / 2;
    # from a wide first layer it comes down 1, 0.8647, ... to 0.7968
    torch.manual_seed(0)
    x = torch.rand(8192, 2) * 2 - 1
    variances = []
    for seed in range(4):
        torch.manual_seed(seed)
        found = preactivations(Siren(2, 1, hidden_layers=5), x, with_bias=False)
        variances.append([float(z.var()) for z in found[1:]])
        for z in found[1:]:
            assert abs(float(torch.sin(z).mean())) < 0.05
            assert 0.36 < float(torch.sin(z).var()) < 0.47
    mean = torch.tensor(variances).mean(0)
    expected = [1.0]
    for _ in range(4):
        expected.append(1 - math.exp(-2 * expected[-1]))
    assert torch.allclose(mean, torch.tensor(expected), atol=0.06)


def test_official_biases_flatten_the_signal_with_depth_and_clean_ones_do_not():
    torch.manual_seed(0)
    x = torch.rand(4096, 2) * 2 - 1
    last = {}
    for mode in ("official", "clean"):
        torch.manual_seed(1)
        found = preactivations(Siren(2, 1, bias_init=mode), x, with_bias=True)
        last[mode] = float(found[-1].var(dim=0).mean())  # of one unit over the coordinates
    assert 0.2 < last["official"] < 0.5
    assert 0.7 < last["clean"] < 1.05


def test_derivative_of_a_layer_is_a_shifted_layer():
    torch.manual_seed(0)
    layer = PhaseLayer(3, 16, 30.0, 1 / 3).double()
    x = torch.rand(5, 3, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: torch.sin(layer(x))))(x)
    shifted = torch.sin(30.0 * layer.linear(x) + math.pi / 2)
    expected = 30.0 * shifted[..., None] * layer.linear.weight
    torch.testing.assert_close(jacobian, expected)


def test_scaled_coordinates_are_a_larger_first_omega_but_for_the_bias():
    torch.manual_seed(0)
    narrow = PhaseLayer(1, 32, 30.0, 1.0).double()
    wide = PhaseLayer(1, 32, 3000.0, 1.0).double()
    with torch.no_grad():
        wide.linear.weight.copy_(narrow.linear.weight)
        wide.linear.bias.copy_(narrow.linear.bias / 100)
    x = torch.rand(64, 1, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(torch.sin(wide(x)), torch.sin(narrow(100 * x)))


def test_forward_is_the_formula():
    torch.manual_seed(0)
    field = Siren(2, 3, hidden_features=16, hidden_layers=2, first_omega=20.0, hidden_omega=25.0)
    x = torch.rand(10, 2) * 2 - 1
    h = x
    for layer, omega in zip(field.sines, (20, 25, 25), strict=True):
        h = torch.sin(omega * (h @ layer.linear.weight.T + layer.linear.bias))
    expected = h @ field.out.weight.T + field.out.bias
    torch.testing.assert_close(field(x), expected, atol=2e-6, rtol=1e-5)


def test_first_output_is_small():
    # without the 1/omega bound on the last layer it would be 30 times larger
    torch.manual_seed(0)
    values = Siren(2, 1, bias_init="clean")(torch.rand(4096, 2) * 2 - 1).detach()
    assert float(values.std()) < 0.2
