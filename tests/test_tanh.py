"""The tanh network: its size, its formula, its initial weights."""

import math

import pytest
import torch

import fields


@pytest.mark.parametrize(("width", "count"), [(20, 901), (30, 1951)])
def test_the_authors_networks(width, count):
    field = fields.Tanh(1, 1, hidden_features=width)
    assert sum(p.numel() for p in field.parameters()) == count


@pytest.mark.parametrize(("first", "activation"), [("tanh", torch.tanh), ("sin", torch.sin)])
def test_formula(first, activation):
    torch.manual_seed(0)
    field = fields.Tanh(2, 3, hidden_features=8, first=first, bias_init="normal").double()
    x = torch.rand(50, 2, dtype=torch.float64) * 40 - 20
    maps = [(layer.weight, layer.bias) for layer in (*field.hidden, field.out)]
    assert len(maps) == 4
    h = activation(x @ maps[0][0].T + maps[0][1])
    for weight, bias in maps[1:-1]:
        h = torch.tanh(h @ weight.T + bias)
    expected = h @ maps[-1][0].T + maps[-1][1]
    torch.testing.assert_close(field(x), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bias_init", ["zero", "normal"])
def test_initial_weights_are_truncated_at_twice_glorots_deviation(bias_init):
    torch.manual_seed(0)
    field = fields.Tanh(1, 1, hidden_features=400, hidden_layers=1, bias_init=bias_init)
    std = math.sqrt(2 / 800)
    weight = field.hidden[1].weight
    assert weight.abs().max() <= 2 * std
    assert weight.abs().max() > 1.99 * std
    # a normal variable cut off at twice its deviation has 0.8796 of it; 160,000 draws: 0.2 %
    assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.01)
    spread = field.hidden[1].bias.std().item()
    # 400 draws: 3.5 %, three times over
    assert spread == (0 if bias_init == "zero" else pytest.approx(0.8796 * std, rel=0.1))
