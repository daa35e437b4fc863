"""TT-SVD and HOSVD of signals that are looked at part by part; cosine series."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import Cosines, decompositions, finr
from fields.base import FieldError, SignalStatistics
from fields.finr import Finr
from fields.grid import centres
from inr.metrics import psnr

ALL = slice(None)


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """A random array whose spectrum falls, within [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    array = torch.randn(shape, generator=generator, dtype=torch.float64)
    for axis in range(len(shape) - 1):
        array = array.cumsum(axis) - array.cumsum(axis).mean(axis, keepdim=True)
    return (array / array.abs().max()).float()


def build(shape: tuple[int, ...], **given) -> Finr:
    torch.manual_seed(0)
    common = {"init": "svd", "base": "cosines", "channel_factors": "shared"} | given
    d = len(shape) - 1
    return Finr(d, shape[-1], **Finr.complete(shape[:-1], common))


def error(field: Finr, array: torch.Tensor) -> float:
    axes = [centres(n).float() for n in array.shape[:-1]]
    with torch.no_grad():
        return float((field.on_grid(axes) - array).double().square().mean())


def test_cosines_are_the_basis_of_a_transform():
    n = 12
    field = Cosines(1, n, terms=n)
    with torch.no_grad():
        field.out.weight.zero_()
        field.out.bias.zero_()
        field.out.weight[torch.arange(1, n), torch.arange(n - 1)] = 1
        field.out.bias[0] = 1
        basis = field(centres(n).float()[:, None])
    k, j = torch.arange(n), torch.arange(n)[:, None]
    expected = (math.pi * k * (2 * j + 1) / (2 * n)).cos()
    torch.testing.assert_close(basis, expected)
    gram = basis.T @ basis
    torch.testing.assert_close(gram, torch.diag(torch.tensor([n] + [n / 2] * (n - 1))), atol=1e-5,
                               rtol=0)  # fmt: skip
    assert Cosines.suggest([5, 9]) == {"terms": 9}
    assert Cosines.suggest([1]) == {"terms": 2}
    assert Cosines.suggest([5000]) == {"terms": 1024}


@pytest.mark.parametrize("kind", ["tt", "tucker"])
@pytest.mark.parametrize("shape", [(9, 2), (7, 8, 1), (6, 9, 11, 3), (4, 5, 3, 4, 2)])
def test_full_ranks_in_full_cosines_are_the_signal(kind, shape):
    array = smooth(*shape)
    d = len(shape) - 1
    ranks = list(shape[:-1])
    if kind == "tt":
        ranks = [min(math.prod(shape[:i]), math.prod(shape[i:])) for i in range(1, d)] or 1
    field = build(shape, decomposition=kind, rank=ranks)
    field.adapt(SignalStatistics(array))
    assert error(field, array) < 1e-10


@pytest.mark.parametrize("kind", ["tt", "tucker"])
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(15, 60))
def test_ranks_are_chosen_for_a_quality(kind, seed, target):
    array = smooth(12, 14, 10, 3, seed=seed)
    field = build(array.shape, decomposition=kind, start_psnr=target)
    assert field.ranks == ((1, 1) if kind == "tt" else (1, 1, 1))
    field.adapt(SignalStatistics(array))
    reached = psnr(error(field, array), 2.0)
    assert reached >= target - 0.01
    assert field.hyperparameters["rank"] == [*field.ranks]
    # as a file would have it
    again = Finr(3, 3, **field.hyperparameters)
    assert [p.shape for p in again.parameters()] == [p.shape for p in field.parameters()]
    if min(field.ranks) > 1:  # a rank less everywhere is too little
        less = build(array.shape, decomposition=kind, rank=[r - 1 for r in field.ranks])
        less.adapt(SignalStatistics(array))
        # the bound adds up what each axis cuts off
        assert psnr(error(less, array), 2.0) < target + 10 * math.log10(3)


@pytest.mark.parametrize("kind", ["tt", "tucker"])
@pytest.mark.parametrize("channels", ["shared", "separate"])
def test_parts_make_the_whole(kind, channels, monkeypatch):
    array = smooth(11, 9, 10, 2)
    rank = [4, 5] if kind == "tt" else [4, 5, 3]
    given = {"decomposition": kind, "rank": rank, "channel_factors": channels}
    whole = build(array.shape, **given)
    whole.adapt(SignalStatistics(array))
    seen = []

    def part(place):
        seen.append(array[place].numel())
        return array[place]

    monkeypatch.setattr(decompositions, "PART_NUMBERS", 2 * 9 * 10 * 2)
    pieces = build(array.shape, **given)
    pieces.adapt(SignalStatistics(part, array.shape))
    assert max(seen) <= 2 * 11 * 10 * 2
    assert error(pieces, array) == pytest.approx(error(whole, array), rel=1e-3)
    # of a signal beyond a bound, directions are looked for in some of it
    monkeypatch.setattr(decompositions, "GRAM_NUMBERS", array.numel() // 2)
    some = build(array.shape, **given)
    some.adapt(SignalStatistics(part, array.shape))
    assert error(some, array) < 2 * error(whole, array)


def test_bounds_hold_over_the_quality(monkeypatch):
    array = smooth(12, 14, 10, 3)
    free = build(array.shape, decomposition="tt", start_psnr=60.0)
    free.adapt(SignalStatistics(array))
    monkeypatch.setattr(finr, "LARGEST_MIDDLE", 14 * 25)
    bound = build(array.shape, decomposition="tt", start_psnr=60.0)
    bound.adapt(SignalStatistics(array))
    assert math.prod(bound.ranks) <= 25 < math.prod(free.ranks)
    monkeypatch.setattr(finr, "LARGEST_REST", 3 * 14 * 10 * 3)
    bound.adapt(SignalStatistics(array))
    assert bound.ranks[0] <= 3
    monkeypatch.setattr(finr, "LARGEST_CORE", 300)
    bound = build(array.shape, decomposition="tucker", start_psnr=60.0)
    bound.adapt(SignalStatistics(array))
    assert bound.core.numel() <= 300
    assert error(bound, array) < float(array.square().mean()) / 4


@given(
    st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=8), min_size=1, max_size=4),
    st.floats(0, 30),
    st.integers(1, 500),
)
def test_fewest_ranks_keep_their_bounds(energies, allowed, most):
    energies = [sorted(own, reverse=True) for own in energies]
    ranks = decompositions.fewest_ranks(energies, allowed, most)
    assert all(1 <= r <= len(own) for r, own in zip(ranks, energies, strict=True))
    assert math.prod(ranks) <= most
    lost = sum(sum(own[r:]) for r, own in zip(ranks, energies, strict=True))
    full = math.prod(map(len, energies)) <= most
    assert lost <= allowed + 1e-9 or not full
    rank = decompositions.rank_within(energies[0], allowed, 3)
    assert 1 <= rank <= 3
    assert sum(energies[0][rank:]) <= allowed + 1e-9 or rank == 3


def test_a_quality_needs_a_start_from_the_signal():
    for wrong in ({"init": "balanced"}, {"channel_factors": "separate"}):
        with pytest.raises(FieldError, match="start_psnr is 30"):
            build((4, 4, 2), **{"decomposition": "tt", "start_psnr": 30.0} | wrong)
    with pytest.raises(FieldError, match="start_psnr is -3"):
        build((4, 4, 2), decomposition="tt", start_psnr=-3.0)


def test_a_constant_signal():
    for kind in ("tt", "tucker"):
        field = build((5, 6, 7, 3), decomposition=kind, start_psnr=40.0)
        field.adapt(SignalStatistics(torch.full((5, 6, 7, 3), -1.0)))
        assert set(field.ranks) == {1}
        assert error(field, torch.full((5, 6, 7, 3), -1.0)) < 1e-9
