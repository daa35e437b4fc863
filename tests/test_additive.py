"""Networks whose first layer is a sum over coordinates; a lattice needs each axis once."""

import itertools

import pytest
import torch
from torch import nn

from fields.additive import AdditiveField


class Toy(AdditiveField):
    """Three cubics per axis, then a tanh and a linear map; counts what it evaluates."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.scales = nn.Parameter(torch.randn(in_features, 3))
        self.out = nn.Linear(3, out_features)
        self.parts = 0
        self.largest = 0

    @property
    def widest(self) -> int:
        return 3

    def part(self, axis, x):
        self.parts += len(x)
        return x[:, None] ** 3 * self.scales[axis]

    def rest(self, z):
        self.largest = max(self.largest, len(z))
        return self.out(torch.tanh(z))


@pytest.fixture
def tiles_of_12(monkeypatch):
    monkeypatch.setattr("fields.base.points_per_tile", lambda field: 12)


SHAPES = [(1,), (40,), (3, 4), (4, 3), (5, 7), (1, 30), (30, 1), (2, 3, 2), (3, 13, 2), (2, 2, 40)]


@pytest.mark.parametrize("shape", [*SHAPES, (0,), (0, 5), (5, 0), (0, 30), (3, 0, 20)])
def test_lattice_is_the_sum_point_by_point(shape, tiles_of_12):
    torch.manual_seed(0)
    field = Toy(len(shape), 2).double()
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape]
    found = field.on_grid(axes)
    assert field.parts == sum(shape)  # and not the product
    assert field.largest <= 12
    assert found.shape == (*shape, 2)
    for index in itertools.product(*map(range, shape)):
        x = torch.stack([axis[i] for axis, i in zip(axes, index, strict=True)])
        torch.testing.assert_close(found[index], field(x))


def test_gradients_on_a_lattice_are_those_of_its_points(tiles_of_12):
    torch.manual_seed(0)
    field = Toy(2, 1).double()
    axes = [torch.rand(n, dtype=torch.float64, requires_grad=True) for n in (5, 7)]
    inputs = [*axes, *field.parameters()]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    expected = torch.autograd.grad(field(points).square().sum(), inputs)
    found = torch.autograd.grad(field.on_grid(axes).square().sum(), inputs)
    torch.testing.assert_close(found, expected)
