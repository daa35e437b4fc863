"""The contract that every registered field keeps.

A new field joins by one line in the registry; `SMALL` gives it sizes that make the tests fast.
"""

import inspect
import math

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

import fields
from fields.base import (
    Field,
    FieldError,
    SignalStatistics,
    hyperparameter_names,
    one_of,
    positive,
    whole,
)
from inr.codec import encode as encoder
from inr.codec.decode import decode, join_rows
from inr.signals.image import Image

SMALL = {
    "relu-pe": {"hidden_features": 24, "hidden_layers": 2, "frequencies": 4},
    "rff": {"hidden_features": 24, "features": 20, "sigma": 1.0},
    "gauss": {"hidden_features": 24, "hidden_layers": 2, "scale": 5.0},
    "fouriernet": {"hidden_features": 24, "hidden_layers": 2, "input_scale": 16.0},
    "gabornet": {"hidden_features": 24, "hidden_layers": 2, "input_scale": 16.0},
    "bacon": {"hidden_features": 24, "hidden_layers": 2, "frequency": 16},
    # scales would be measured on the target as torch's seed draws it
    "doh": {
        "target_options": {"hidden_features": 24, "hidden_layers": 2},
        "latents": 40,
        "scales": [-14, -54, -54, -54],
    },
    "pranc": {
        "target_options": {"hidden_features": 24, "hidden_layers": 2},
        "latents": 40,
        "scales": [-14, -10, -54, -24, -54, -24, -54, -24],
    },
    "cosines": {"terms": 12},
    "siren": {"hidden_features": 24, "hidden_layers": 2},
    "finer": {"hidden_features": 24, "hidden_layers": 2},
    "finer-gauss": {"hidden_features": 24, "hidden_layers": 2},
    "finr": {"rank": 4, "base_options": {"hidden_features": 12, "hidden_layers": 1}},
    "finer-wavelet": {"hidden_features": 24, "hidden_layers": 2},
    "grid": {"resolution": 12, "levels": 3, "features": 3, "log2_table": 7},
    "spder": {"hidden_features": 24, "hidden_layers": 2, "damping": "arctan"},
    "fkan": {"fourier_features": 12, "frequencies": 9, "hidden_features": [16, 24], "omega": 5.0},
    "sl2a": {"hidden_features": 24, "hidden_layers": 2, "degree": 20, "rank": 8},
    "chebykan": {"hidden_features": 12, "hidden_layers": 1, "degree": 4},
    "multistage": {"stages": 2, "base_options": {"hidden_features": 16}},
    "progressive": {"stages": 2, "base_options": {"hidden_features": 16, "hidden_layers": 2}},
    "tanh": {"hidden_features": 24},
    "wavelet": {"atoms": 24, "hidden_features": 10, "low_features": 8, "octaves": 3},
    "windows": {"count": 3, "base_options": {"hidden_features": 12, "hidden_layers": 1}},
    "wire": {"hidden_features": 24, "hidden_layers": 1},
}
BAD = {
    "relu-pe": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"frequencies": -1},
        {"frequencies": 0, "include_input": False},
        {"frequencies": 33},
    ],
    "rff": [
        {"hidden_features": 9000},
        {"hidden_layers": 63},
        {"features": 0},
        {"sigma": 0.0},
        {"sigma": float("inf")},
        {"seed": -1},
    ],
    "gauss": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"scale": 0.0},
        {"scale": float("nan")},
    ],
    "fouriernet": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"input_scale": 0.0},
    ],
    "gabornet": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"input_scale": float("inf")},
        {"alpha": 0.0},
        {"beta": -1.0},
    ],
    "bacon": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"frequency": 0},
        {"frequency": [16]},
        {"frequency": [16, -1]},
        {"spacing": 0.0},
        {"seed": 1 << 63},
    ],
    "doh": [
        {"target": "sirene"},
        {"target": "doh"},
        {"target": "siren", "target_options": {"hidden_features": 0}},
        {"target": "siren", "target_options": {"atoms": 3}},
        {"latents": 0},
        {"latents": 1 << 16, "target_options": {"hidden_features": 8}},
        {"seed": -1},
        {"seed": 1 << 63},
        {"scales": [0, 0]},
        {"scales": [0, 0, 0, 0, 513]},
        {"free_up_to": -1},
    ],
    "pranc": [
        {"target": "pranc"},
        {"target": "siren", "target_options": {"hidden_layers": -1}},
        {"latents": 0},
        {"latents": 1 << 16, "target_options": {"hidden_features": 8}},
        {"seed": 1 << 63},
        {"scales": [0]},
    ],
    "cosines": [{"terms": 1}, {"terms": 1 << 14}],
    "siren": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"first_omega": 0.0},
        {"hidden_omega": float("nan")},
        {"hidden_omega": [30.0, 30.0]},
        {"hidden_omega": [30.0, 30.0, 0.0]},
        {"first_noise": -1.0},
        {"second_noise": float("inf")},
        {"hidden_layers": 0, "init": "winner"},
        {"width": 3},
    ],
    "finer": [
        {"hidden_features": 0},
        {"hidden_layers": 63},
        {"first_omega": -1.0},
        {"hidden_omega": []},
        {"first_bias": -1.0},
        {"first_noise": float("nan")},
    ],
    "finer-wavelet": [
        {"hidden_features": 1},
        {"hidden_layers": -1},
        {"omega": 0.0},
        {"wavelet_omega": -4.0},
        {"scale": 0.0},
        {"first_bias": float("nan")},
    ],
    "finer-gauss": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"omega": 0.0},
        {"scale": 0.0},
        {"first_bias": float("inf")},
    ],
    "finr": [
        {"rank": 0},
        {"rank": [4]},
        {"rank": [4, 4], "decomposition": "tt"},
        {"base": "sirne"},
        {"base": "finr"},
        {"base": ["siren"]},
        {"base": "rff"},
        {"base_options": [{}]},
        {"lowest": -101},
        {"highest": -50},
        {"init": "svd"},
        {"level": 0.0},
        {"start_psnr": 30.0},
    ],
    "grid": [
        {"resolution": 0},
        {"resolution": [8, 8, 8, 8, 8]},
        {"levels": 0},
        {"features": -1},
        {"log2_table": 40},
        {"hidden_features": 0},
        {"hidden_layers": 9},
    ],
    "spder": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"first_omega": 0.0},
        {"hidden_omega": float("inf")},
        {"omega": 30.0},
    ],
    "fkan": [
        {"fourier_features": 0},
        {"frequencies": 5000},
        {"hidden_features": []},
        {"hidden_features": [16, 0]},
        {"hidden_features": [8] * 17},
        {"omega": 0.0},
        {"grid": 9},
    ],
    "sl2a": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"degree": 0},
        {"degree": 513},
        {"rank": 0},
        {"order": 3},
    ],
    "chebykan": [
        {"hidden_features": 0},
        {"hidden_layers": 63},
        {"degree": 0},
        {"degree": 65},
        {"rank": 3},
    ],
    "progressive": [
        {"stages": 0},
        {"stages": 17},
        {"base": "progressive"},
        {"base": ["siren"]},
        {"base_options": [{}]},
        {"prefix_weight": -0.1},
        {"prefix_weight": 1.5},
    ],
    "multistage": [
        {"stages": 0},
        {"stages": 17},
        {"base": "multistage"},
        {"base": "grid"},
        {"base": "sirne"},
        {"base": ["tanh"]},
        {"base_options": [{}]},
        {"crossings": 0.0},
    ],
    "tanh": [
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"hidden_layers": 63},
    ],
    "wavelet": [
        {"atoms": 0},
        {"hidden_features": 0},
        {"hidden_layers": -1},
        {"low_features": 0},
        {"frequency": 0.5},
        {"degree": 0},
        {"octaves": 17},
    ],
    "windows": [
        {"count": 0},
        {"count": (1 << 16) + 1},
        {"overlap": 0.0},
        {"overlap": 1.01},
        {"base": "sirne"},
        {"base": "windows"},
        {"base": "doh", "base_options": {"latents": 40}},
        {"base": "siren", "base_options": {"hidden_features": 0}},
    ],
    "wire": [
        {"hidden_features": 1},
        {"hidden_layers": -1},
        {"first_omega": 0.0},
        {"hidden_omega": float("inf")},
        {"scale": float("nan")},
    ],
}

every_field = pytest.mark.parametrize("name", fields.names())
every_size = pytest.mark.parametrize(("d", "c"), [(1, 1), (2, 3), (3, 2)])


def make(name: str, d: int = 2, c: int = 3, seed: int = 0, **more) -> Field:
    torch.manual_seed(seed)
    field = fields.create(name, d, c, **{**SMALL[name], **more})
    if name == "grid":  # its features start near zero, too flat to test anything on
        with torch.no_grad():
            for table in field.tables:
                table.uniform_(-1, 1)
    return field


def points(field: Field, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(*shape, field.in_features, generator=generator).to(dtype) * 2 - 1


def test_every_field_has_its_small_sizes_and_bad_values():
    assert set(SMALL) == set(BAD) == set(fields.names())


@every_field
def test_signature(name):
    signature = inspect.signature(fields.field_class(name))
    positional = list(signature.parameters)[:2]
    assert positional == ["in_features", "out_features"]
    assert all(
        p.default is not inspect.Parameter.empty and p.annotation is not inspect.Parameter.empty
        for p in list(signature.parameters.values())[2:]
    )
    field = make(name)
    assert list(field.hyperparameters) == hyperparameter_names(type(field))
    again = fields.create(name, 2, 3, **field.hyperparameters)
    assert again.hyperparameters == field.hyperparameters
    assert fields.name_of(field) == name


@every_field
@every_size
def test_shapes_and_leading_dimensions(name, d, c):
    field = make(name, d, c)
    x = points(field, 6, 5)
    values = field(x)
    assert values.shape == (6, 5, c)
    assert field(x[0, 0]).shape == (c,)
    assert field(x[:0]).shape == (0, 5, c)
    torch.testing.assert_close(field(x.flatten(0, 1)), values.flatten(0, 1))
    torch.testing.assert_close(field(x[2:4, 1]), values[2:4, 1])


@every_field
def test_wrong_coordinates_are_refused_in_one_line(name):
    field = make(name, 2)
    for wrong in (torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.int64), torch.tensor(0.0)):
        with pytest.raises(FieldError, match=r"coords are .*: give floats, shape \(\.\.\., 2\)$"):
            field(wrong)
    with pytest.raises(FieldError, match="give"):
        field.on_grid([torch.zeros(3)] * 3)


@every_field
def test_dtype_and_device(name):
    field = make(name).double()
    values = field(points(field, 7, dtype=torch.float64))
    assert values.dtype == torch.float64
    meta = make(name).to("meta")
    assert meta(torch.zeros(7, 2, device="meta")).device.type == "meta"


@every_field
@every_size
def test_finite_and_moderate_at_init(name, d, c):
    values = make(name, d, c)(points(make(name, d, c), 4096))
    assert torch.isfinite(values).all()
    assert values.abs().max() < 30
    assert values.std() > 1e-4


@every_field
@every_size
def test_gradient_in_coordinates_is_that_of_finite_differences(name, d, c):
    field = make(name, d, c).double()
    x = points(field, 64, dtype=torch.float64).requires_grad_()
    weights = torch.linspace(1, 2, c, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((field(x) * weights).sum(), x)
    assert gradient.abs().max() > 1e-6
    step = 1e-6
    wrong = 0
    for axis in range(d):
        e = torch.zeros(d, dtype=torch.float64)
        e[axis] = step
        with torch.no_grad():
            difference = ((field(x + e) - field(x - e)) * weights).sum(-1) / (2 * step)
        error = (difference - gradient[:, axis]).abs()
        wrong = max(wrong, int((error > 1e-4 * (1 + difference.abs())).sum()))
    # a field that is only continuous has kinks; a step of 1e-6 straddles one now and then
    assert wrong <= (0 if field.smoothness >= 1 else 1)


@every_field
def test_second_derivative_as_far_as_the_field_is_smooth(name):
    field = make(name, 2, 1).double()
    if field.smoothness < 2:
        pytest.skip(f"{name} declares {field.smoothness} continuous derivatives")
    x = points(field, 8, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(field, (x.requires_grad_(),), atol=1e-3, rtol=1e-3)


@every_field
@every_size
def test_on_grid_equals_forward(name, d, c):
    field = make(name, d, c)
    axes = [torch.linspace(-1, 1, n) * 0.97 for n in (9, 6, 5)[:d]]
    expected = field(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))
    torch.testing.assert_close(field.on_grid(axes), expected, atol=2e-5, rtol=1e-4)


@every_field
def test_on_grid_is_tiled_and_differentiable(name, monkeypatch):
    field = make(name)
    axes = [torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 30)]
    whole = field.on_grid(axes)
    monkeypatch.setattr("fields.base.points_per_tile", lambda field: 64)
    torch.testing.assert_close(field.on_grid(axes), whole, atol=2e-5, rtol=1e-4)
    whole.square().mean().backward()
    assert all(p.grad is not None for p in field.parameters() if p.requires_grad)


@every_field
def test_same_seed_same_field(name):
    one, two = make(name, seed=3), make(name, seed=3)
    # PRANC starts at the first network of its own seed, whatever torch's
    other = make(name, seed=4) if name != "pranc" else fields.Pranc(2, 3, **SMALL[name], seed=1)
    assert all(a.equal(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    x = points(one, 20)
    assert two(x).equal(one(x))
    assert not other(x).equal(one(x))


@every_field
def test_forward_is_pure(name):
    field = make(name)
    before = {k: v.clone() for k, v in field.state_dict().items()}
    x = points(field, 33)
    first = field(x)
    assert field(x).equal(first)
    assert all(v.equal(before[k]) for k, v in field.state_dict().items())


@every_field
def test_state_dict_and_stored_parameters_carry_everything(name):
    field, other = make(name, seed=0), make(name, seed=1)
    x = points(field, 50)
    other.load_state_dict(field.state_dict())
    assert other(x).equal(field(x))

    fresh = make(name, seed=2)
    rows = encoder.split_rows(field)
    fresh.load_stored(join_rows(fresh, rows))
    assert fresh(x).equal(field(x))
    with pytest.raises(FieldError, match="stored tensors"):
        fresh.load_stored({})
    stored = {s.name: s.tensor for s in field.stored_parameters()}
    first = next(iter(stored))
    with pytest.raises(FieldError, match="shape"):
        fresh.load_stored({**stored, first: torch.zeros(1, 2, 3, 4, 5)})


@every_field
def test_many_fields_at_once_by_vmap(name):
    many = [make(name, seed=i) for i in range(3)]
    parameters, buffers = stack_module_state(many)
    x = points(many[0], 20)

    def call(p, b):
        return functional_call(many[0], (p, b), (x,))

    stacked = vmap(call)(parameters, buffers)
    for i, field in enumerate(many):
        torch.testing.assert_close(stacked[i], field(x), atol=1e-5, rtol=1e-4)


@every_field
def test_bad_hyperparameters_are_named(name):
    for bad in BAD[name]:
        with pytest.raises(FieldError) as error:
            fields.create(name, 2, 3, **bad)
        assert next(iter(bad)) in str(error.value)
        assert "\n" not in str(error.value)
    for sizes in ((0, 3), (2, 0)):
        with pytest.raises(FieldError, match="features"):
            fields.create(name, *sizes)


def test_wrong_types_are_named():
    # called directly: in tests, beartype would refuse them before the constructors do
    for value in (1.5, True, "3", None, 0, 9):
        with pytest.raises(FieldError, match="layers is .*: give a whole number from 1 to 8"):
            whole("layers", value, 1, 8)
    for value in (0, -1.0, float("nan"), float("inf"), "3", True):
        with pytest.raises(FieldError, match="omega is .*: give a number above 0"):
            positive("omega", value, 1e6)
    with pytest.raises(FieldError, match="bias_init is 'dirty': choose from official, clean"):
        one_of("bias_init", "dirty", ("official", "clean"))


@every_field
def test_unknown_names_suggest_the_nearest(name):
    with pytest.raises(FieldError, match=f"did you mean '{name}'"):
        fields.create(name + "x", 2, 3)


@every_field
def test_adapt_takes_any_signal_of_its_shape(name, patch):
    image = Image.from_array(patch)
    field = make(name)
    field.adapt(image.statistics())
    assert torch.isfinite(field(points(field, 100))).all()
    flat = SignalStatistics(torch.zeros(5, 4, 3))
    field.adapt(flat)
    assert torch.isfinite(field(points(field, 100))).all()


@every_field
def test_learning_rates_cover_each_trainable_parameter_once(name):
    field = make(name)
    listed = [id(p) for group, scale in field.learning_rates() for p in group]
    assert sorted(listed) == sorted(id(p) for p in field.parameters() if p.requires_grad)
    assert all(0 < scale <= 10 for _, scale in field.learning_rates())


@every_field
@pytest.mark.parametrize("d", [1, 2])
@torch.no_grad()
def test_rescaled_values_have_the_size_that_was_asked(name, d):
    field = make(name, d, 3)
    if name in ("doh", "pranc"):  # the last layer is generated
        with pytest.raises(FieldError, match="no linear last layer"):
            field.rescale(0.3)
        return
    if name == "rff":  # a sigmoid is the last of it
        with pytest.raises(FieldError, match="no linear last layer"):
            field.rescale(0.3)
        field = make(name, d, 3, variant="clean")
    field.rescale(0.3)
    x = points(field, 4096)
    # other points than those it was measured on
    assert field(x).square().mean().sqrt().item() == pytest.approx(0.3, rel=0.1)
    before = field(x[:100])
    for parameter in field.output_parameters():
        parameter.detach().mul_(2)
    torch.testing.assert_close(field(x[:100]), 2 * before, rtol=1e-4, atol=1e-5)
    field.to("meta").rescale(0.3)  # as where a file is checked: there is nothing to measure


@every_field
def test_rate_is_a_differentiable_scalar_or_none(name):
    field = make(name)
    rate = field.rate()
    if rate is not None:
        assert rate.ndim == 0
        assert rate > 0
        rate.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in field.parameters())


@every_field
def test_file_round_trip(name, patch):
    image = Image.from_array(patch)
    field = make(name)
    field.domain = image.domain
    data = encoder.encode(field)
    again = decode(data)
    assert type(again) is type(field)
    assert again.hyperparameters == field.hyperparameters
    assert again.domain == image.domain
    axes = image.axes()
    error = (again.on_grid(axes).clamp(-1, 1) - field.on_grid(axes).clamp(-1, 1)).square().mean()
    assert error <= 4 * 10 ** (-encoder.UNSEEN_PSNR / 10) * 1.01  # the search sees all points
    assert encoder.encode(field) == data  # the same field, the same bytes


@every_field
def test_suggested_hyperparameters_build(name):
    cls = fields.field_class(name)
    for shape in ((1, 1), (2, 3), (512, 768)):
        field = cls(2, 3, **cls.suggest(shape))
        assert sum(p.numel() for p in field.parameters()) < 20 * math.prod(shape) + 500_000


@pytest.mark.parametrize("name", fields.names())
def test_what_concerns_training_alone_changes_nothing_that_is_computed(name):
    cls = fields.field_class(name)
    names = hyperparameter_names(cls)
    count = len(cls.training_only)
    assert tuple(names[len(names) - count :]) == cls.training_only
    defaults = inspect.signature(cls).parameters
    assert all(defaults[n].default is not inspect.Parameter.empty for n in cls.training_only)
    if not count:
        return
    others = {
        "bias_init": "normal" if name == "tanh" else "clean",
        "init": "balanced" if name == "finr" else "winner",
        "winner_form": "code",
        "first_noise": 2.0,
        "second_noise": 3.0,
        "first_bias": 0.5,
        "variant": "official" if name != "fkan" else "clean",
        "smooth": True,
        "level": 0.5,
        "start_psnr": 0.0,
        "octaves": 3,
        "crossings": 1.0,
        "prefix_weight": 0.3,
    }
    one = make(name)
    given = one.hyperparameters | {n: others[n] for n in cls.training_only}
    two = fields.create(name, one.in_features, one.out_features, **given)
    two.load_stored({s.name: s.tensor for s in one.stored_parameters()})
    coords = 2 * torch.rand(50, one.in_features) - 1
    with torch.no_grad():
        assert torch.equal(one(coords), two(coords))
