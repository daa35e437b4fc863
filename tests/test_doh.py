"""D'OH and PRANC: what the papers state, and weights that are the same bits everywhere."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
from fields import doh as module
from fields.base import FieldError
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.errors import InputError, LimitExceeded
from inr.fitting.module import Budget, FitModule
from inr.limits import Limits
from inr.presets import Recipe
from inr.signals.image import Image

NET = {"hidden_features": 24, "hidden_layers": 2}
GENERATED = 2 * 24 + 2 * 24 * 24 + 24 * 3
BIASES = 3 * 24 + 3
# exact weights of the two fields that `fixed` builds, as little-endian float32 in order
HASHES = {
    "doh": "e6c4872f2cbd3cefe10faf6e895e4dbcce9016b616fb7832bfcd87a068bc42f5",
    "pranc": "02462f2ec812ef267540b25b1ba7ddf2141b3f5883a7dbc71e79e4003935907b",
}

both = pytest.mark.parametrize("name", ["doh", "pranc"])


def make(name: str, start: int = 0, latents: int = 50, **more):
    torch.manual_seed(start)
    return fields.create(name, 2, 3, **{"target_options": NET, "latents": latents, **more})


def fixed(name: str):
    """A field whose generated weights depend on no generator of torch's."""
    free = {} if name == "pranc" else {"free_up_to": 48}
    scales = list(range(-60, -52 if name == "pranc" else -57))  # one for each tensor
    field = make(name, start=1, latents=200, scales=scales, **free)
    with torch.no_grad():
        field.code.copy_(torch.linspace(-3, 3, 200, dtype=torch.float64).float() ** 3)
    return field


def flat(field) -> torch.Tensor:
    return torch.cat([w.flatten() for w in field.weights().values()])


def exact(field) -> torch.Tensor:
    with torch.no_grad():
        return flat(field)


def points(n: int = 40, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(2)).to(dtype) * 2 - 1


@both
def test_generated_weights_are_the_same_bits_everywhere(name, monkeypatch):
    field = fixed(name)
    weights = exact(field)
    assert hashlib.sha256(weights.numpy().astype("<f4").tobytes()).hexdigest() == HASHES[name]
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 7 * len(weights))
    assert exact(field).equal(weights)  # other chunks, another order of sums
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    drawn = fixed(name)
    assert drawn.basis is None
    assert exact(drawn).equal(weights)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert exact(drawn).equal(weights)
        assert exact(field).equal(weights)
    finally:
        torch.set_num_threads(threads)


@both
def test_weights_are_those_of_whole_numbers(name):
    """Against Python's own arithmetic, entry by entry, as FORMAT.md has it."""
    field = fixed(name)
    with torch.no_grad():
        weights = field.weights()
    code = [round(z * 65536) for z in field.code.tolist()]
    for tensor, (key, weight) in enumerate(weights.items()):
        size = weight.numel()
        index = field.hyperparameters["scales"][tensor]
        for at in (0, size // 2, size - 1):
            entries = [entry(field, tensor, row * size + at) for row in range(200)]
            total = sum(z * e for z, e in zip(code, entries, strict=True))
            variance = 200 if name == "doh" else 21845
            scale = 2 ** (index // 8) * MANTISSAS[index % 8] / 2**23 / np.sqrt(variance)
            assert weight.flatten()[at].item() == np.float32(total / 65536 * scale), key


MANTISSAS = (8388608, 9147842, 9975792, 10878679, 11863283, 12937002, 14107901, 15384775)


def entry(field, tensor: int, number: int) -> int:
    from tests.test_seeded import reference

    bits = field.bits
    per = 32 // bits
    word = reference(field.seed, 2**31 + tensor, number // per)
    digit = word >> bits * (number % per) & (1 << bits) - 1
    return 2 * digit - ((1 << bits) - 1)


@both
def test_training_and_exact_weights_agree(name):
    field = make(name, start=3)
    with torch.no_grad():
        field.code.normal_()
    # float32 sums of 50 terms, and a code rounded to 2^-16: 1e-5 of weights of 0.3 at most
    torch.testing.assert_close(flat(field).detach(), exact(field), rtol=0, atol=3e-5)
    assert not flat(field).equal(exact(field))  # these are two paths


@both
def test_above_the_stated_size_nothing_is_kept_and_nothing_changes(name, monkeypatch):
    kept = make(name, start=5)
    monkeypatch.setattr(module, "CACHE_BYTES", 4 * 50 * sum(kept._sizes) - 1)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 8 * sum(kept._sizes))
    drawn = make(name, start=5)
    assert kept.basis is not None
    assert drawn.basis is None
    sizes = []
    draw = type(drawn)._draw

    def watched(self, rows):
        out = draw(self, rows)
        sizes.append(out.numel() * 4)
        return out

    monkeypatch.setattr(type(drawn), "_draw", watched)
    x = points()
    for field in (kept, drawn):
        field(x).square().mean().backward()
    assert sizes
    assert max(sizes) <= module.CHUNK_BYTES
    assert len(sizes) == 2 * 7  # 50 rows, 8 at a time, forward and back
    # the same products, summed in another order in float32
    torch.testing.assert_close(drawn(x), kept(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn.code.grad, kept.code.grad, rtol=1e-4, atol=1e-6)
    parameters = dict(drawn.named_parameters())
    torch.testing.assert_close(
        torch.func.functional_call(drawn, parameters, (x,)), kept(x), rtol=1e-4, atol=1e-5
    )


@both
def test_the_gradient_is_the_basis_times_that_of_the_weights(name):
    field = make(name, start=7).double()
    with torch.no_grad():
        field.code.normal_()
    x = points(dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (field(x) * torch.linspace(1, 2, 3, dtype=torch.float64)).square().mean()

    loss().backward()
    weights = flat(field)
    matrix = torch.autograd.functional.jacobian(
        lambda z: torch.cat([field.code.new_zeros(0), *_from(field, z)]), field.code.detach()
    )
    leaves = {k: w.detach().requires_grad_() for k, w in field.weights().items()}
    out = torch.func.functional_call(field.target, leaves, ("__call__", x))
    (out * torch.linspace(1, 2, 3, dtype=torch.float64)).square().mean().backward()
    gradient = torch.cat([leaf.grad.flatten() for leaf in leaves.values()])
    torch.testing.assert_close(matrix @ field.code.detach(), weights.detach())
    torch.testing.assert_close(field.code.grad, matrix.T @ gradient)
    step = 1e-6
    for i in (0, 17, 49):
        differences = []
        for sign in (1, -1):
            with torch.no_grad():
                field.code[i] += sign * step
                differences.append(sign * loss() / (2 * step))
                field.code[i] -= sign * step
        # central differences in float64: an error of step^2 and of rounding over step
        torch.testing.assert_close(sum(differences), field.code.grad[i], rtol=1e-5, atol=1e-7)


def _from(field, code: torch.Tensor) -> list[torch.Tensor]:
    out = torch.func.functional_call(_Weights(field), {"field.code": code}, ())
    return [w.flatten() for w in out.values()]


class _Weights(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self):
        return self.field.weights()


@both
def test_one_step_gives_the_plain_gradient(name, patch):
    """Several tiles in one step, against each tile on its own; and rendering amid training."""
    image = Image.from_array(patch)
    plain, shared = make(name, start=2), make(name, start=2)
    calls = []
    generate = type(shared)._generate

    def counted(self, learning):
        calls.append(learning)
        return generate(self, learning)

    type(shared)._generate = counted
    try:
        batch = image.full_batch()
        for tile in batch.tiles(300):
            image.loss(plain, tile).backward()
        tiles = len(calls)
        calls.clear()
        with shared.one_step():
            for tile in batch.tiles(300):
                with shared.one_step():  # entered again: the outer one holds
                    image.loss(shared, tile).backward()
            with torch.no_grad():
                inside = shared(points())
        assert calls == [True, False]
        assert tiles > 3
    finally:
        type(shared)._generate = generate
    # float32 gradients, summed in another order
    for a, b in zip(shared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        assert inside.equal(shared(points()))


@both
def test_linear_and_of_the_codes_rank(name):
    field = make(name, start=0, latents=20)
    stacked = []
    for seed in range(30):
        with torch.no_grad():
            field.code.copy_(
                torch.randint(-999, 999, (20,), generator=torch.Generator().manual_seed(seed)) / 256
            )
        stacked.append(exact(field).double())
    sums = [stacked[0] + stacked[1], stacked[0] * 2]
    assert torch.linalg.matrix_rank(torch.stack(stacked), rtol=1e-6) == 20
    with torch.no_grad():
        one, two = (
            torch.randint(-999, 999, (20,), generator=torch.Generator().manual_seed(seed)) / 256
            for seed in (0, 1)
        )
        field.code.copy_(one + two)
        # each weight is rounded to float32 once
        torch.testing.assert_close(exact(field).double(), sums[0], rtol=1e-5, atol=1e-7)
        field.code.copy_(2 * one)
        assert exact(field).double().equal(sums[1])
        field.code.zero_()
        assert not exact(field).any()


@both
def test_a_code_as_long_as_the_target_reproduces_any_target(name):
    net = {"hidden_features": 6, "hidden_layers": 1}
    torch.manual_seed(0)
    wanted = fields.create("siren", 2, 3, **net)
    count = 2 * 6 + 36 + 18 + (0 if name == "doh" else 15)
    field = make(name, target_options=net, latents=count).double()
    aim = {f"field.{k}": v.detach().double() for k, v in wanted.named_parameters()}
    columns = torch.eye(count, dtype=torch.float64)
    with torch.no_grad():
        matrix = []
        for column in columns:
            field.code.copy_(column)
            matrix.append(flat(field))
        target = torch.cat([aim[k].flatten() for k in field.weights()])
        field.code.copy_(torch.linalg.solve(torch.stack(matrix, dim=1), target))
        for key, parameter in field.target.named_parameters():
            parameter.copy_(aim[key])
        x = points(dtype=torch.float64)
        torch.testing.assert_close(field(x), wanted.double()(x), rtol=1e-6, atol=1e-8)


@both
def test_a_longer_code_costs_just_that_many_numbers(name):
    counts = {}
    for latents in (50, 51, 77):
        field = make(name, latents=latents)
        counts[latents] = sum(s.tensor.numel() for s in field.stored_parameters())
        biases = BIASES if name == "doh" else 0
        assert counts[latents] == latents + biases  # n + sum of m_l, or n
        assert field.drawn == latents * (GENERATED + (BIASES if name == "pranc" else 0))
    assert next(iter(make(name).stored_parameters())).name == "code"


def test_doh_keeps_the_biases_and_what_is_small():
    field = make("doh", free_up_to=72)
    assert [n for n, _ in field.named_parameters()] == [
        "code",
        "target.field.sines.0.linear.weight",
        "target.field.sines.0.linear.bias",
        "target.field.sines.1.linear.bias",
        "target.field.sines.2.linear.bias",
        "target.field.out.weight",
        "target.field.out.bias",
    ]
    assert list(field.weights()) == [f"field.sines.{i}.linear.weight" for i in (1, 2)]


@both
@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("siren", {"hidden_features": 40}),
        ("relu-pe", {"hidden_features": 40}),
        ("grid", {"resolution": 24, "levels": 3}),
        ("gabornet", {"hidden_features": 20}),
    ],
)
def test_generated_tensors_have_the_targets_size(name, target, options):
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, target=target, target_options=options, latents=400)
    # the size over many codes is eighth(scale), within 2^(1/16) of the target's
    for (key, weight), scale in zip(
        field.weights().items(), field.hyperparameters["scales"], strict=True
    ):
        own = field.target.get_buffer(key).square().mean().sqrt()
        if own:  # PRANC's of a tensor that starts at zero has another rule
            assert abs(8 * np.log2(float(own)) - scale) <= 0.5 + 1e-6
        if weight.numel() > 500:
            size = weight.detach().square().mean().sqrt()
            # 500 draws of one code of 400: a few percent, three times over
            assert float(size) == pytest.approx(2 ** (scale / 8), rel=0.2)


def test_doh_starts_with_the_targets_biases():
    torch.manual_seed(4)
    plain = fields.create("siren", 2, 3, **NET)
    field = make("doh", start=4)
    biases = [p for p in plain.parameters() if p.ndim == 1]
    free = [p for n, p in field.named_parameters() if n != "code"]
    assert all(a.equal(b) for a, b in zip(free, biases, strict=True))


def test_pranc_reproduces_its_networks():
    """alpha = e_i is network i, whatever the length of alpha; it starts at network 0."""
    short, long = make("pranc", latents=3, scales=[-40] * 8), make("pranc", scales=[-40] * 8)
    assert short.code.tolist() == [1, 0, 0]
    with torch.no_grad():
        for i, field in itertools.product(range(3), (short, long)):
            field.code.zero_()
            field.code[i] = 1
        networks = []
        for i in range(3):
            found = []
            for field in (short, long):
                field.code.zero_()
                field.code[i] = 1
                found.append(flat(field))
            assert found[0].equal(found[1])
            networks.append(found[0])
        short.code.copy_(torch.tensor([0.5, -1, 2]))
        mixed = 0.5 * networks[0] - networks[1] + 2 * networks[2]
        torch.testing.assert_close(flat(short), mixed)
    correlation = torch.corrcoef(torch.stack(networks))
    assert (correlation - torch.eye(3)).abs().max() < 0.1  # of 1347 numbers: 1 / sqrt(1347) = 0.03


@pytest.mark.parametrize("target", ["finer", "wire", "relu-pe", "rff", "bacon", "sl2a", "grid"])
@both
def test_any_target(name, target, patch):
    """A file of each: the target's own frozen numbers are drawn again, too."""
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, target=target, latents=30, target_options=SIZES[target])
    image = Image.from_array(patch)
    field.adapt(image.statistics())
    field.domain = image.domain
    again = decode(encode(field))
    assert again.hyperparameters == field.hyperparameters
    axes = image.axes()
    with torch.no_grad():
        error = (again.on_grid(axes).clamp(-1, 1) - field.on_grid(axes).clamp(-1, 1)).square()
    assert error.mean() <= 4e-6 * 1.01  # 60 dB below the range of 2


SIZES = {
    "finer": NET,
    "wire": NET,
    "relu-pe": NET,
    "rff": {"hidden_features": 24, "features": 20},
    "bacon": NET,
    "sl2a": {"hidden_features": 24, "hidden_layers": 2, "degree": 8, "rank": 8},
    "grid": {"resolution": 12, "levels": 2},
}


def test_winner_works_through_it(patch):
    """The target adapts to the signal, and what it does to its weights reaches the scales."""
    image = Image.from_array(patch)
    plain = make("doh", start=1)
    winner = make("doh", start=1, target_options={**NET, "init": "winner"})
    winner.adapt(image.statistics())
    pairs = zip(winner.hyperparameters["scales"], plain.hyperparameters["scales"], strict=True)
    differences = [a - b for a, b in pairs]
    assert differences[0] >= 4  # noise beyond the weights
    assert differences[2:] == [0, 0]  # it is added to the first two layers
    chosen = make("doh", scales=[-8, -40, -40, -40], target_options={**NET, "init": "winner"})
    chosen.adapt(image.statistics())
    assert chosen.hyperparameters["scales"] == [-8, -40, -40, -40]


@both
def test_it_learns_a_photograph(name, patch):
    image = Image.from_array(patch)
    field = make(name, latents=800, target_options={**NET, "first_omega": 15.0})
    before = image.metrics(field)["psnr_float"]
    recipe = Recipe(lr=1e-2, schedule="cosine", final_lr=0.01)
    fitting = FitModule(field, image, recipe, Budget(steps=200))
    fitting.configure_optimizers()
    for _ in range(200):
        fitting.step()
    after = image.metrics(field)["psnr_float"]
    assert after > before + 10
    assert after > 22  # a plain colour: 14.4 dB


@both
def test_what_cannot_be_is_refused_by_name(name):
    total = GENERATED + (BIASES if name == "pranc" else 0)
    wrong = {
        f"latents is {total + 1}: the target has only {total} numbers": {"latents": total + 1},
        "latents is 0: give a whole number from 1": {"latents": 0},
        "seed is -1: give a whole number from 0": {"seed": -1},
        f"seed is {2**63}": {"seed": 2**63},
        "scales has 2 numbers: give one for each of the": {"scales": [1, 2]},
        "target: no field is named 'sirene': did you mean 'siren'": {"target": "sirene"},
        f"target is '{name}': a field cannot be a part of its own kind": {"target": name},
        "target siren: hidden_features is 0": {"target_options": {"hidden_features": 0}},
    }
    for message, given_ in wrong.items():
        with pytest.raises(FieldError) as error:
            make(name, **given_)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert make(name, latents=total).code.numel() == total


def test_a_file_without_scales_is_refused(patch):
    field = make("doh")
    field.domain = Image.from_array(patch).domain
    data = encode(field)
    assert inspect(data).hyperparameters[4] == field.hyperparameters["scales"]
    field.hyperparameters["scales"] = []
    with pytest.raises((InputError, ValueError), match="scales is"):
        encode(field)


@both
def test_a_reader_bounds_what_is_drawn(name, patch):
    field = make(name)
    field.domain = Image.from_array(patch).domain
    data = encode(field)
    decode(data, Limits(drawn=field.drawn))
    with pytest.raises(LimitExceeded, match="numbers drawn from a seed"):
        decode(data, Limits(drawn=field.drawn - 1))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-3000, 3000, width=32), min_size=8, max_size=8))
def test_exact_weights_for_any_code(values):
    """Order does not matter, and beyond 2048 the code counts as 2048."""
    torch.manual_seed(0)
    field = fields.create(
        "doh", 1, 1, target_options={"hidden_features": 4, "hidden_layers": 1}, latents=8
    )
    with torch.no_grad():
        field.code.copy_(torch.tensor(values))
        sums = field._exact_sums()
        limit = (2**27 - 1) / 65536
        whole = torch.tensor([round(max(-limit, min(limit, v)) * 65536) for v in values])
        entries = field.basis.long()
        assert (sums * 65536).long().equal((whole[:, None] * entries).sum(0))
