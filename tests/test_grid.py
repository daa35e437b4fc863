"""The feature grid: interpolation, hashing and the pyramid that it starts as."""

import numpy as np
import pytest
import torch

import inr
from fields import Grid
from fields.base import FieldError, SignalStatistics
from fields.grid import centres
from fields.kernels.reference import PRIMES
from inr import presets
from inr.codec.encode import encode
from inr.signals.image import Image


def lattice(*shape: int) -> list[torch.Tensor]:
    return [centres(n).float() for n in shape]


def test_resolutions_halve_per_axis():
    field = Grid(2, 1, resolution=[13, 8], levels=4)
    assert field.resolutions == [(2, 1), (4, 2), (7, 4), (13, 8)]
    assert [tuple(t.shape) for t in field.tables] == [(1, 2, 1), (1, 4, 2), (1, 7, 4), (1, 13, 8)]


def test_constant_tables_give_a_constant_field():
    # partition of unity: interpolation weights sum to one, dense or hashed, in and out of cells
    torch.manual_seed(0)
    field = Grid(3, 2, resolution=9, levels=3, features=2, log2_table=6)
    with torch.no_grad():
        for table in field.tables:
            table.fill_(0.7)
    values = field(torch.rand(500, 3) * 2 - 1)
    torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-5, rtol=1e-5)


def test_nodes_are_cell_centres_and_interpolation_is_linear_between_them():
    field = Grid(1, 1, resolution=4, levels=1, hidden_layers=0)
    with torch.no_grad():
        field.tables[0].copy_(torch.tensor([[1.0, 3.0, -2.0, 5.0]]))
        field.linear.weight.fill_(1.0)
        field.linear.bias.zero_()
    x = torch.tensor([[-0.75], [-0.25], [-0.5], [0.0], [0.75], [1.0], [-1.0]])
    expected = torch.tensor([[1.0], [3.0], [2.0], [0.5], [5.0], [5.0], [1.0]])
    torch.testing.assert_close(field(x), expected)


def test_bilinear_like_torch():
    torch.manual_seed(0)
    field = Grid(2, 1, resolution=[5, 7], levels=1, hidden_layers=0)
    with torch.no_grad():
        field.tables[0].uniform_(-1, 1)
        field.linear.weight.fill_(1.0)
        field.linear.bias.zero_()
    expected = torch.nn.functional.interpolate(
        field.tables[0][None], size=(20, 21), mode="bilinear", align_corners=False
    )[0, 0]
    found = field.on_grid(lattice(20, 21))[..., 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_hash_is_the_papers():
    field = Grid(3, 1, resolution=50, levels=1, log2_table=10, hidden_layers=0)
    assert field.tables[0].shape == (1, 1024)  # 125,000 nodes do not fit
    node = np.array([3, 41, 17], np.uint64)
    mixed = np.uint64(0)
    for i in range(3):
        mixed ^= (node[i] * np.uint64(PRIMES[i])) & np.uint64(0xFFFFFFFF)
    with torch.no_grad():
        field.tables[0].zero_()
        field.tables[0][0, int(mixed) % 1024] = 1.0
        field.linear.weight.fill_(1.0)
        field.linear.bias.zero_()
    at = torch.tensor([[(2 * int(n) + 1) / 50 - 1 for n in node]])
    torch.testing.assert_close(field(at), torch.ones(1, 1), atol=1e-4, rtol=0)


def test_dense_where_a_level_fits():
    field = Grid(2, 1, resolution=64, levels=4, log2_table=8)
    assert [t.ndim for t in field.tables] == [3, 3, 2, 2]  # 8^2, 16^2 fit 256; 32^2, 64^2 do not


def test_untouched_cells_do_not_matter():
    torch.manual_seed(0)
    field = Grid(2, 1, resolution=16, levels=1, hidden_layers=0)
    x = torch.tensor([[-0.9, -0.9]])
    before = field(x).clone()
    with torch.no_grad():
        field.tables[0][:, 8:, 8:] += 5.0
    assert field(x).equal(before)


@pytest.mark.parametrize("shape", [(36, 52), (37, 51), (1, 40), (5, 1), (1, 1)])
def test_starts_as_the_signal_where_it_has_a_node_per_sample(coffee, shape):
    patch = np.ascontiguousarray(coffee[170 : 170 + shape[0], 240 : 240 + shape[1]])
    image = Image.from_array(patch)
    field = Grid(2, 3, **Grid.suggest(shape))
    field.adapt(image.statistics())
    torch.testing.assert_close(field.on_grid(image.axes()), image.values, atol=2e-5, rtol=0)


def test_starts_near_the_signal_where_it_has_fewer_nodes(camera):
    image = Image.from_array(camera[100:228, 100:260])
    field = Grid(2, 1, resolution=[64, 80], levels=5)
    field.adapt(image.statistics())
    error = (field.on_grid(image.axes()) - image.values).square().mean()
    spread = image.values.var()
    assert error < 0.05 * spread
    small = Grid(2, 1, resolution=[64, 80], levels=5, log2_table=10)  # finest levels hashed: empty
    small.adapt(image.statistics())
    assert error < (small.on_grid(image.axes()) - image.values).square().mean() < spread


def test_fewer_features_than_channels_keep_the_principal_colours(patch):
    image = Image.from_array(patch)
    field = Grid(2, 3, resolution=list(patch.shape[:2]), levels=3, features=2)
    field.adapt(image.statistics())
    flat = image.values.reshape(-1, 3).double()
    left_over = float(torch.linalg.eigvalsh(flat.T.cov())[0]) / 3
    error = (field.on_grid(image.axes()).detach() - image.values).double().square().mean()
    assert float(error) == pytest.approx(left_over, rel=0.02)


def test_pyramid_holds_detail_in_its_fine_levels(patch):
    image = Image.from_array(patch)
    field = Grid(2, 3, **Grid.suggest(patch.shape[:2]))
    field.adapt(image.statistics())
    # leading colour first: the basis concentrates the energy, so that the rest costs few bits
    energy = torch.stack([t.square().sum(dim=(1, 2)) for t in field.tables]).sum(0)
    assert energy[0] > 4 * energy[1] > 4 * energy[2]


def test_adapt_refuses_a_signal_of_another_shape():
    with pytest.raises(FieldError, match="expected 2 axes and 3 channels"):
        Grid(2, 3, resolution=8, levels=2).adapt(SignalStatistics(torch.zeros(8, 8, 1)))


def test_rate_counts_features_not_zeros():
    field = Grid(2, 1, resolution=8, levels=1, hidden_layers=0)
    with torch.no_grad():
        field.tables[0].zero_()
        field.linear.weight.fill_(1.0)
    assert field.rate().item() == 0
    with torch.no_grad():
        field.tables[0][0, 0, 0] = 0.02  # as large as the scale: one bit, over 64 nodes
    assert field.rate().item() == pytest.approx(1 / 64)


def test_rate_cannot_be_lowered_by_moving_scale_into_the_maps():
    torch.manual_seed(0)
    field = Grid(2, 3, resolution=12, levels=3, features=4)
    with torch.no_grad():
        for table in field.tables:
            table.uniform_(-1, 1)
    rate = field.rate().item()
    points = torch.rand(50, 2) * 2 - 1
    values = field(points)
    with torch.no_grad():
        for table in field.tables:
            table /= 10
        field.linear.weight *= 10
        field.mlp[0].weight *= 10
    torch.testing.assert_close(field(points), values, atol=1e-5, rtol=1e-4)
    assert field.rate().item() == pytest.approx(rate, rel=1e-4)


def test_a_long_fit_does_not_outgrow_its_rate(camera):
    # the reason for the gain: without it, 300 steps more cost bytes and end near no error at all
    image = Image.from_array(camera[400:464, 300:380])  # grass
    preset = presets.load("image/grid")
    fits = [inr.fit(image, preset, steps=steps) for steps in (100, 600)]
    # at equal quality: processors round differently, and a fit ends a tenth of a dB better or worse
    quality = min(fit.metrics["psnr"] for fit in fits) - 0.1
    # each number to its nearest step: what the fits left to do is not the coder's to make up for
    sizes = [len(encode(fit.field, image, target_psnr=quality, effort=1)) for fit in fits]
    assert sizes[1] < 1.05 * sizes[0]
    assert fits[1].metrics["psnr"] < fits[0].metrics["psnr"] + 3


def test_hashed_levels_of_one_axis_are_hashed_on_a_lattice_too():
    field = Grid(1, 2, resolution=300, levels=3, log2_table=6)
    x = torch.linspace(-1, 1, 101)
    torch.testing.assert_close(field.on_grid([x]), field(x[:, None]))
    assert field.plan().dense is False
