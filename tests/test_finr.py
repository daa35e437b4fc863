"""F-INR's decompositions (arXiv:2503.21507): ranks, counts, equalities, cost and start."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, stack_module_state, vmap

import fields
import inr
from fields import FieldError, Finr
from fields import base as contract
from fields.base import SignalStatistics
from fields.winner import spectral_centroid
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.fitting.module import Budget, FitModule
from inr.presets import Preset, Recipe
from inr.rendering import bands
from inr.signals.image import Image

KINDS = ("cp", "tt", "tucker")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_channels = pytest.mark.parametrize("channels", ["separate", "shared"])
TINY = {"hidden_features": 12, "hidden_layers": 1, "first_omega": 6.0}


def small(d: int, c: int = 2, kind: str = "cp", seed: int = 0, **more) -> Finr:
    torch.manual_seed(seed)
    return Finr(d, c, **{"decomposition": kind, "rank": 4, "base_options": TINY, **more})


def lattice(d: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(n, generator=generator, dtype=dtype) * 2 - 1 for n in (7, 5, 4, 3, 2)[:d]]


def meshed(axes: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def test_the_formulas_by_hand():
    (x, y, z), ranks = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64), (2, 3, 4)
    point = torch.stack([x, y, z])

    def heads(field: Finr) -> list[torch.Tensor]:
        return [phi(v[None]) for phi, v in zip(field.networks, (x, y, z), strict=True)]

    cp = small(3, 1, "cp", rank=3).double()
    torch.testing.assert_close(cp(point)[0], torch.stack(heads(cp)).prod(0).sum())
    shared = small(3, 5, "cp", rank=3, channel_factors="shared").double()
    torch.testing.assert_close(shared(point), shared.mixing @ torch.stack(heads(shared)).prod(0))

    tt = small(3, 5, "tt", rank=[2, 3], channel_factors="shared").double()
    a, b, c = heads(tt)
    torch.testing.assert_close(tt(point), a @ b.view(2, 3) @ c.view(3, 5))
    separate = small(3, 5, "tt", rank=[2, 3]).double()
    a, b, c = (h.unflatten(0, (5, -1)) for h in heads(separate))
    by_channel = torch.einsum("ga,gab,gb->g", a, b.unflatten(1, (2, 3)), c)
    torch.testing.assert_close(separate(point), by_channel)

    tucker = small(3, 5, "tucker", rank=list(ranks), channel_factors="shared").double()
    expected = torch.einsum("kabc,a,b,c->k", tucker.core, *heads(tucker))
    torch.testing.assert_close(tucker(point), expected)
    separate = small(3, 5, "tucker", rank=list(ranks)).double()
    factors = [h.unflatten(0, (5, -1)) for h in heads(separate)]
    by_channel = torch.einsum("gabc,ga,gb,gc->g", separate.core, *factors)
    torch.testing.assert_close(separate(point), by_channel)


@settings(deadline=None, max_examples=15)
@given(
    d=st.integers(1, 5),
    c=st.integers(1, 3),
    rank=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    channels=st.sampled_from(["separate", "shared"]),
    tile=st.sampled_from([200, 2000, 4 << 20]),
)
def test_lattice_equals_points_whatever_the_tiles(d, c, rank, kind, channels, tile):
    field = small(d, c, kind, rank=rank, channel_factors=channels).double()
    axes = lattice(d)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(contract, "TILE_BYTES", tile)
        torch.testing.assert_close(field.on_grid(axes), field(meshed(axes)))


BASES = {
    "siren": TINY,
    "wire": {"hidden_features": 12, "hidden_layers": 1},
    "relu-pe": {"hidden_features": 12, "hidden_layers": 1, "frequencies": 4},
    "finer": {"hidden_features": 12, "hidden_layers": 1},
    "grid": {"resolution": 6, "levels": 2, "features": 3},
    "fkan": {"fourier_features": 6, "frequencies": 5, "hidden_features": [8]},
    "bacon": {"hidden_features": 12, "hidden_layers": 1, "frequency": 16},
    "wavelet": {"atoms": 12, "hidden_features": 8, "low_features": 4, "octaves": 2},
}


@pytest.mark.parametrize("base", BASES)
@every_kind
def test_any_network_serves_an_axis(base, kind, patch):
    field = small(2, 3, kind, base=base, base_options=BASES[base])
    axes = lattice(2, torch.float32)
    values = field.on_grid(axes)
    # float32: sums of 16 products of factors that are up to about 3
    torch.testing.assert_close(values, field(meshed(axes)), atol=1e-4, rtol=1e-4)
    image = Image.from_array(patch)
    field.adapt(image.statistics())
    before = field(meshed(axes))
    assert inr.fit(image, field, steps=1).steps == 1
    assert not field(meshed(axes)).equal(before)


@every_kind
@every_channels
def test_file_round_trip_of_a_network_per_axis(kind, channels, patch):
    image = Image.from_array(patch)
    field = small(
        2, 3, kind, base=["siren", "grid"], base_options=[TINY, BASES["grid"]],
        channel_factors=channels,
    )  # fmt: skip
    field.domain = image.domain
    again = decode(encode(field))
    assert again.hyperparameters == field.hyperparameters
    values, decoded = (f.on_grid(image.axes()).clamp(-1, 1) for f in (field, again))
    # the encoder holds what it makes within 60 dB of the field on these very samples
    assert (decoded - values).square().mean() <= 4e-6 * 1.01


def test_a_network_for_each_axis_and_a_network_within_a_limit_of_smoothness():
    field = small(2, 3, base=["siren", "grid"], base_options=[TINY, {"resolution": 6, "levels": 2}])
    assert [type(network).__name__ for network in field.networks] == ["Siren", "Grid"]
    assert (field.smoothness, field.extends) == (0, False)
    assert (small(2).smoothness, small(2).extends) == (math.inf, True)
    hints = {s.name: s.per_row for s in field.stored_parameters()}
    assert hints["axes.1.tables.0"]
    assert not hints["axes.0.out.weight"]
    scales = [scale for _, scale in field.learning_rates()]
    assert {0.2, 1.0} <= set(scales)  # a grid's maps move slower than its features


def test_numbers_drawn_are_those_of_all_networks(monkeypatch):
    monkeypatch.setattr(fields.Siren, "drawn", property(lambda self: 7))
    assert small(3).drawn == 21


# parameters, methods and their counts


def count(field: fields.Field) -> int:
    return sum(stored.tensor.numel() for stored in field.stored_parameters())


def test_parameter_counts():
    # the authors' image demo: 198 -> 256 -> 256 -> 256 -> 128 x 3, for each of two axes
    demo = {"hidden_features": 256, "hidden_layers": 2, "frequencies": 0}
    field = Finr(2, 3, base="relu-pe", base_options=demo, encoding="pe")
    assert count(field) == 562_432
    h, hidden = 12, 2 * 12 + 12 * 13  # width, and parameters before the last layer
    for d, c, rank in ((2, 1, 5), (3, 3, 4), (4, 2, 3)):
        networks = d * hidden
        cp = small(d, c, "cp", rank=rank)
        assert count(cp) == networks + d * (h + 1) * rank * c
        shared = small(d, c, "cp", rank=rank, channel_factors="shared")
        assert count(shared) == networks + d * (h + 1) * rank + rank * c
        tt = small(d, c, "tt", rank=rank)
        heads = 2 * rank + (d - 2) * rank**2
        assert count(tt) == networks + (h + 1) * heads * c
        tt = small(d, c, "tt", rank=rank, channel_factors="shared")
        assert count(tt) == networks + (h + 1) * (heads + (c - 1) * rank)
        tucker = small(d, c, "tucker", rank=rank)
        assert count(tucker) == networks + d * (h + 1) * rank * c + c * rank**d
        tucker = small(d, c, "tucker", rank=rank, channel_factors="shared")
        assert count(tucker) == networks + d * (h + 1) * rank + c * rank**d


@every_kind
def test_a_step_evaluates_each_network_on_its_own_axis_alone(kind, coffee):
    image = Image.from_array(coffee[:40, :60])
    field = small(2, 3, kind)
    seen = []
    for network in field.networks:
        network.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[0]))
    recipe = Recipe(batch=40 * 60)
    module = FitModule(field, image, recipe, Budget(1))
    module.configure_optimizers()
    module.step()
    assert sum(seen) == 40 + 60
    seen.clear()
    small_batch = Recipe(batch=600)  # a random sub-lattice of 20 x 30
    module = FitModule(field, image, small_batch, Budget(1))
    module.configure_optimizers()
    module.step()
    assert sum(seen) == 20 + 30


@every_kind
@every_channels
def test_no_state_exceeds_a_tile(kind, channels, monkeypatch):
    field = small(3, 2, kind, rank=6, channel_factors=channels)
    monkeypatch.setattr(contract, "TILE_BYTES", 4096)
    states, factors, join = [], [], Finr._join

    def watched(self, state, factor, axis, *, lattice):
        states.append(state)
        factors.append(factor)
        return join(self, state, factor, axis, lattice=lattice)

    monkeypatch.setattr(Finr, "_join", watched)
    axes = [torch.linspace(-1, 1, n) for n in (31, 40, 9)]
    field.on_grid(axes)
    grown = [s for s in states if s.shape[1] > 1]
    assert max(s.numel() for s in grown) <= 1024
    assert max(s.numel() for s in grown) > 512  # and the room is used
    assert sum(s.shape[1] for s in states if s.shape[1] > 1) >= 31 * 40
    states.clear()
    factors.clear()
    field(meshed(axes).flatten(0, -2)[:500])
    assert max(f.numel() for f in factors) <= 1024
    grown = [s for s in states if s.stride(1)]
    assert max(s.numel() for s in grown) <= 1024


@every_kind
def test_bands_of_a_rendering_share_the_factors_of_the_other_axes(kind, monkeypatch):
    field = small(3, 2, kind)
    axes = [torch.linspace(-1, 1, n) for n in (12, 10, 8)]
    with torch.no_grad():
        whole = field.on_grid(axes)
    monkeypatch.setattr("inr.rendering.BAND_POINTS", 3 * 80)
    seen = []
    for network in field.networks:
        network.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].shape[0]))
    parts = [values for _, values in bands(field, axes)]
    assert len(parts) == 4
    torch.testing.assert_close(torch.cat(parts), whole)
    assert sum(seen) == 12 + 10 + 8
    # nothing is kept beyond: other parameters, other values
    with torch.no_grad():
        for parameter in field.output_parameters():
            parameter.mul_(2)
        torch.testing.assert_close(field.on_grid(axes), 2 * whole)
    # with gradients every pass has a graph of its own
    with field.one_step():
        for _ in range(2):
            field.on_grid(axes).sum().backward()


# equalities


@settings(deadline=None, max_examples=20)
@given(d=st.integers(2, 5), c=st.integers(1, 3), rank=st.integers(1, 4), seed=st.integers(0, 99))
def test_cp_is_tt_with_diagonal_cores_and_tucker_with_a_superdiagonal_one(d, c, rank, seed):
    cp = small(d, c, "cp", seed, rank=rank).double()
    tt = small(d, c, "tt", seed, rank=rank).double()
    tucker = small(d, c, "tucker", seed, rank=rank).double()
    x = torch.rand(20, d, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        for i, (source, chain, factor) in enumerate(
            zip(cp.networks, tt.networks, tucker.networks, strict=True)
        ):
            factor.load_state_dict(source.state_dict())
            for mine, theirs in zip(chain.layers, source.layers, strict=True):
                mine.load_state_dict(theirs.state_dict())
            for mine, theirs in zip(
                chain.output_parameters(), source.output_parameters(), strict=True
            ):
                heads = theirs.unflatten(0, (c, rank))
                if 0 < i < d - 1:
                    mine.zero_()
                    for r in range(rank):
                        mine.unflatten(0, (c, rank, rank))[:, r, r] = heads[:, r]
                else:
                    mine.copy_(heads.flatten(0, 1))
        tucker.core.zero_()
        for r in range(rank):
            tucker.core[(slice(None), *[r] * d)] = 1
        torch.testing.assert_close(tt(x), cp(x))
        torch.testing.assert_close(tucker(x), cp(x))
        if rank == 1:
            products = [phi(x[:, i : i + 1]) for i, phi in enumerate(cp.networks)]
            torch.testing.assert_close(cp(x), torch.stack(products).prod(0))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), kind=st.sampled_from(KINDS))
def test_the_order_of_rank_indices_means_nothing(seed, kind):
    rank = 4
    field = small(3, 2, kind, seed, rank=rank).double()
    x = torch.rand(20, 3, dtype=torch.float64) * 2 - 1
    before = field(x)
    turn = torch.randperm(rank, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        shapes = {"cp": [(rank,)] * 3, "tt": [(rank,), (rank, rank), (rank,)]}
        for network, shape in zip(field.networks, shapes.get(kind, [(rank,)] * 3), strict=True):
            for parameter in network.output_parameters():
                heads = parameter.unflatten(0, (2, *shape))
                for dim in range(1, 1 + len(shape)):
                    heads = heads.index_select(dim, turn)
                parameter.copy_(heads.flatten(0, len(shape)))
        if kind == "tucker":
            for dim in (1, 2, 3):
                field.core.copy_(field.core.index_select(dim, turn))
    torch.testing.assert_close(field(x), before)


@every_kind
@every_channels
def test_a_derivative_along_an_axis_differentiates_its_network_alone(kind, channels):
    """dy/dx_i has phi_i' in place of phi_i: finite differences of that network's heads."""
    field = small(3, 2, kind, channel_factors=channels).double()
    x = (torch.rand(9, 3, dtype=torch.float64) * 2 - 1).requires_grad_()
    for axis in range(3):
        for channel in range(2):
            (gradient,) = torch.autograd.grad(field(x)[:, channel].sum(), x)
            step = 1e-5
            factors = [field._factor(i, x.detach()[:, i]) for i in range(3)]
            up, down = (field._factor(axis, x.detach()[:, axis] + s) for s in (step, -step))
            factors[axis] = (up - down) / (2 * step)
            state = field._start(x)
            for i, factor in enumerate(factors):
                state = field._join(state, factor, i, lattice=i == 0)
            slope = state.movedim(0, 1).flatten(1)[:, channel]
            # central differences: third derivatives of a network of omega 30 times 1e-10 / 6
            torch.testing.assert_close(gradient[:, axis], slope, atol=1e-5, rtol=1e-5)


# ranks and quality


def best_psnr(picture: torch.Tensor, rank: int) -> float:
    """What Eckart and Young leave to any matrix of a rank, per channel, R = 2."""
    lost = sum(
        float(torch.linalg.svdvals(picture[..., c].double())[rank:].square().sum())
        for c in range(picture.shape[-1])
    )
    return 10 * math.log10(4 * picture.numel() / lost)


@every_kind
def test_a_picture_has_the_rank_and_no_more_than_the_svd_has(kind, camera):
    means = camera.reshape(32, 16, 32, 16).mean((1, 3)).round().astype(np.uint8)
    image, rank = Image.from_array(means), 6
    hyperparameters = {
        "decomposition": kind,
        "rank": rank,
        "base_options": {"hidden_features": 48, "hidden_layers": 0, "first_omega": 60.0},
    }
    bound = best_psnr(image.values, rank)
    qualities = []
    for steps in (40, 300):
        recipe = Recipe(lr=1e-2, schedule="cosine", final_lr=0.01)
        field = inr.fit(image, Preset("finr", hyperparameters, recipe), steps=steps).field
        with torch.no_grad():
            values = field.double().on_grid([a.double() for a in image.axes()])
        spectrum = torch.linalg.svdvals(values[..., 0])
        assert spectrum[rank] < 1e-6 * spectrum[0]
        assert spectrum[rank - 1] > 1e-3 * spectrum[0]
        error = float((values - image.values.double()).square().mean())
        qualities.append(10 * math.log10(4 / error))
    assert qualities[0] < qualities[1] <= bound
    assert qualities[1] > bound - 0.5  # the optimum is in reach, not only bounded


# where a fit starts

WHOLE = {"hidden_features": 160, "hidden_layers": 0, "first_omega": 150.0}
"""A layer that spans all 60 samples of an axis and less."""


@pytest.mark.parametrize("kind", ["tt", "tucker"])
@every_channels
def test_svd_starts_a_picture_at_eckart_and_young(kind, channels, camera):
    means = camera.reshape(32, 16, 32, 16).mean((1, 3)).round().astype(np.uint8)
    image = Image.from_array(means)
    more = {"base_options": WHOLE, "rank": 6, "init": "svd", "channel_factors": channels}
    field = small(2, 1, kind, **more)
    field.adapt(image.statistics())
    with torch.no_grad():
        error = (field.on_grid(image.axes()) - image.values).square().mean().item()
    # float32 weights of a badly conditioned layer
    assert 10 * math.log10(4 / error) == pytest.approx(best_psnr(image.values, 6), abs=0.01)
    recipe = Recipe(lr=1e-5, schedule="cosine", final_lr=0.1)
    options = {"decomposition": kind, **more}
    after = inr.fit(image, Preset("finr", options, recipe), steps=20)
    with torch.no_grad():
        later = (after.field.on_grid(image.axes()) - image.values).square().mean().item()
    assert later < 1.02 * error  # and the first steps of Adam do not destroy it


@pytest.mark.parametrize("kind", ["tt", "tucker"])
@every_channels
def test_svd_of_three_axes_is_within_the_sum_of_the_discarded_parts(kind, channels, coffee):
    """Oseledets 2011, theorem 2.2; De Lathauwer et al. 2000, property 10."""
    samples = torch.from_numpy(coffee[:40, :60]).double() / 127.5 - 1
    samples = torch.stack([samples, samples.flip(0) / 2], dim=-1)  # axes 40 x 60 x 3, 2 channels
    ranks = [8, 3] if kind == "tt" else [8, 12, 2]
    options = {"base_options": WHOLE, "rank": ranks, "init": "svd", "channel_factors": channels}
    field = small(3, 2, kind, **options).double()
    field.adapt(SignalStatistics(samples))
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (40, 60, 3)]
    with torch.no_grad():
        lost = (field.on_grid(axes) - samples).square()
    parts = [samples] if channels == "shared" else [samples[..., :1], samples[..., 1:]]
    for i, part in enumerate(parts):
        if kind == "tt":
            unfoldings = [part.flatten(1), part.flatten(0, 1).flatten(1)]
        else:
            unfoldings = [part.movedim(axis, 0).flatten(1) for axis in range(3)]
        tails = [
            torch.linalg.svdvals(u)[rank:].square().sum()
            for u, rank in zip(unfoldings, ranks, strict=True)
        ]
        error = lost.sum() if channels == "shared" else lost[..., i].sum()
        # the layers leave out directions that are 1e-3 as strong as others
        assert max(tails) * 0.999 <= error <= sum(tails) * 1.01


@pytest.mark.parametrize("kind", ["tt", "tucker"])
def test_svd_of_one_axis_is_the_line_itself(kind, camera):
    line = torch.from_numpy(camera[100, :60, None]).double() / 127.5 - 1
    field = small(1, 1, kind, rank=1, base_options=WHOLE, init="svd").double()
    field.adapt(SignalStatistics(line))
    x = (2 * torch.arange(60, dtype=torch.float64) + 1) / 60 - 1
    with torch.no_grad():
        # the layer leaves out directions that are 1e-3 as strong as others
        torch.testing.assert_close(field.on_grid([x]), line, atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", ["tt", "tucker"])
def test_ranks_beyond_the_signal_s_own_are_free_to_grow(kind):
    flat = torch.full((8, 9, 10, 2), 0.5)
    options = {**TINY, "hidden_features": 3}  # spans at most 4 directions
    field = small(3, 2, kind, rank=6, init="svd", base_options=options)
    field.adapt(SignalStatistics(flat))
    axes = [torch.linspace(-0.8, 0.8, n) for n in (8, 9, 10)]
    values = field.on_grid(axes)
    # a constant is in the span; single precision, and a span of sines that are almost lines
    torch.testing.assert_close(values, flat, atol=1e-2, rtol=0)
    (values - torch.rand(8, 9, 10, 2)).square().sum().backward()
    for network in field.networks:
        weight, _ = network.output_parameters()
        assert torch.isfinite(weight.grad).all()
    moved = [p for p in field.parameters() if p.grad.abs().max() > 0]
    assert len(moved) == len(list(field.parameters()))


@every_kind
@pytest.mark.parametrize(("d", "rank"), [(d, r) for d in (2, 3, 4, 5) for r in (1, 8, 64)])
def test_values_start_at_unit_mean_square(kind, d, rank):
    channels = ("separate", "shared")[(d + rank) % 2]
    if rank == 64:
        rank = {"cp": 64, "tt": 32 if d < 4 else 10, "tucker": 24 if d < 4 else 6}[kind]  # quick
    squares = []
    for seed in range(20):
        field = small(
            d, 2, kind, seed, rank=rank, channel_factors=channels,
            base_options={"hidden_features": 24, "hidden_layers": 0},
        )  # fmt: skip
        axes = [torch.linspace(-0.9, 0.9, 7)] * d
        with torch.no_grad():
            squares.append(float(field.on_grid(axes).square().mean()))
    # 1 in the mean over draws, which varies: products of up to five means of seven squares
    assert 0.5 < sum(squares) / len(squares) < 2


@every_kind
def test_level_is_a_factor_on_the_start(kind):
    one, low = (small(3, 2, kind, level=level) for level in (1.0, 0.01))
    axes = lattice(3, torch.float32)
    torch.testing.assert_close(low.on_grid(axes), 0.01 * one.on_grid(axes))


@pytest.mark.parametrize("base", BASES)
def test_unit_mean_square_behind_an_encoding_and_for_other_networks(base):
    # each of these sees one coordinate, or a few numbers, at a time, not 198
    encodings = ("none",) if base in ("grid", "wavelet", "bacon", "fkan") else ("none", "pe")
    for encoding in encodings:
        squares = []
        for seed in range(6):
            field = small(
                2, 3, "cp", seed, rank=16, base=base, base_options=BASES[base], encoding=encoding
            )
            axes = [torch.linspace(-1, 1, 41)] * 2
            with torch.no_grad():
                squares.append(float(field.on_grid(axes).square().mean()))
        assert 0.5 < sum(squares) / len(squares) < 2


def test_adapt_shows_each_network_its_axis_and_balances_again(coffee, monkeypatch):
    image = Image.from_array(coffee[:64, :96])
    field = small(2, 3, base_options={**TINY, "init": "winner"})
    seen = []
    adapt = fields.Siren.adapt
    monkeypatch.setattr(
        fields.Siren, "adapt", lambda self, s: seen.append(s.samples) or adapt(self, s)
    )
    before = [network.sines[0].linear.weight.clone() for network in field.networks]
    field.adapt(image.statistics())
    assert [tuple(s.shape) for s in seen] == [(64, 3), (96, 3)]
    for axis, line in enumerate(seen):
        # pooled over the picture's lines along the axis, as WINNER's centroid of one axis is
        lines = image.values.movedim(axis, 0).flatten(1, 1).double()
        magnitudes = torch.fft.rfft(lines, dim=0).abs().sum(1)
        f = torch.fft.rfftfreq(len(line), dtype=torch.float64)[:, None]
        expected = float(2 * ((f * magnitudes).sum(0) / magnitudes.sum(0)).mean())
        # the line is float32
        assert spectral_centroid(line) == pytest.approx(expected, rel=1e-4)
    for network, weight in zip(field.networks, before, strict=True):
        assert not network.sines[0].linear.weight.equal(weight)
        heads = network(contract.probes(1))
        assert heads.square().mean().item() == pytest.approx(4**-0.5, rel=1e-3)
    with pytest.raises(FieldError, match=r"the signal has shape \(5, 4, 1\)"):
        field.adapt(SignalStatistics(torch.zeros(5, 4, 1)))


# elsewhere


@every_kind
def test_many_at_once_on_a_lattice(kind):
    many = [small(2, 2, kind, seed) for seed in range(3)]
    parameters, buffers = stack_module_state(many)
    axes = lattice(2, torch.float32)

    class OnGrid(torch.nn.Module):
        def __init__(self, field: Finr) -> None:
            super().__init__()
            self.field = field

        def forward(self, axes: list[torch.Tensor]) -> torch.Tensor:
            return self.field.on_grid(axes)

    model = OnGrid(many[0])

    def call(p: dict, b: dict) -> torch.Tensor:
        named = {f"field.{name}": value for name, value in (p | b).items()}
        return functional_call(model, named, (axes,))

    stacked = vmap(call)(parameters, buffers)
    for i, field in enumerate(many):
        # float32 under another order of summation
        torch.testing.assert_close(stacked[i], field.on_grid(axes), atol=1e-5, rtol=1e-5)


def test_meta_and_the_encoding_of_the_demo():
    with torch.device("meta"):
        for kind in KINDS:
            small(3, 2, kind, channel_factors="shared")
        demo = Finr(2, 3, base="relu-pe", base_options={"frequencies": 0}, encoding="pe")
    assert demo.networks[0].in_features == 198
    field = small(1, 1, rank=3, encoding="pe", lowest=-1, highest=2).double()
    x = torch.tensor([[0.37]], dtype=torch.float64)
    phase = x * torch.tensor([0.5, 1, 2, 4], dtype=torch.float64)
    encoded = torch.cat([phase.sin(), phase.cos()], dim=-1)
    torch.testing.assert_close(field(x), field.networks[0](encoded).sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rank": 0}, "rank is 0: give a whole number"),
        ({"rank": [4]}, r"rank is \[4\]: give one number$"),
        ({"rank": [4, 4, 4], "decomposition": "tt"}, "give one number, or a list of 2"),
        ({"rank": [4, 0], "decomposition": "tt"}, "rank is 0"),
        ({"rank": [4, 4], "decomposition": "tucker"}, "give one number, or a list of 3"),
        ({"rank": 300, "decomposition": "tucker"}, "core of 2 channels would hold 54,000,000"),
        ({"rank": 2000, "decomposition": "tt"}, "would have 8,000,000 outputs"),
        ({"base": ["siren"]}, r"base is \['siren'\]: give one, or a list of 3"),
        ({"base": "sirne"}, "base: no field is named 'sirne': did you mean 'siren'"),
        ({"base": "finr"}, "a field cannot be a part of its own kind"),
        ({"base": "rff"}, "base rff: it has no linear last layer"),
        ({"base_options": [TINY]}, "base_options is .*: give one, or a list of 3"),
        ({"base_options": {"hidden_features": 0}}, "base siren: hidden_features is 0"),
        ({"base": "grid", "encoding": "pe"}, "base grid: in_features is 198"),
        ({"highest": -50}, "highest is -50"),
        ({"lowest": -101}, "lowest is -101"),
        ({"level": 0.0}, "level is 0.0: give a number above 0"),
        ({"init": "svd"}, "init is 'svd': a CP has none"),
        (
            {"init": "svd", "decomposition": "tt", "base": "wire"},
            "base wire: its last layer is not one linear map",
        ),
    ],
)
def test_bad_hyperparameters(bad, message):
    options = {"base_options": TINY} if bad.get("base", "siren") == "siren" else {}
    with pytest.raises(FieldError, match=message) as error:
        fields.create("finr", 3, 2, **{**options, **bad})
    assert "\n" not in str(error.value)


def test_more_than_five_axes_are_refused():
    with pytest.raises(FieldError, match="in_features is 6: give a whole number from 1 to 5"):
        Finr(6, 1)


def test_suggested_ranks_are_what_an_array_of_the_shape_can_have():
    assert Finr.suggest((3, 500)) == {"rank": 3}
    assert Finr.suggest((500, 300)) == {"rank": 128}
    assert Finr.suggest((1, 1)) == {"rank": 1}
    assert Finr.suggest((40, 5, 4)) == {"rank": 20}
