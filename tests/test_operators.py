"""Signals seen through operators: geometry, adjoints, limits, fits, and the command line."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import inr
from apps.cli.main import main
from fields import registry
from fields.base import Field
from inr import presets
from inr.codec.decode import inspect
from inr.errors import FitError, InputError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.operators import OPERATORS, create, operator_class
from inr.operators.priors import curvature, denoising_weight, noise_level, total_variation
from inr.operators.tomography import back_project, project, side
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.image import Image, ImageDomain
from inr.signals.observed import Observed, Seen

SMALL = Preset(
    "siren",
    {"hidden_features": 32, "hidden_layers": 2, "first_omega": 10.0, "hidden_omega": 15.0},
    Recipe(lr=4e-3, schedule="cosine", final_lr=0.02),
)
PYRAMID = Preset(
    "grid",
    {"resolution": 32, "levels": 6, "hidden_layers": 0},
    Recipe(lr=0.02, schedule="cosine", final_lr=0.01, eps=1e-15, beta2=0.99, batch=1 << 20),
)
OPTIONS = {"inpaint": {"keep": 0.25}, "ct": {"angles": 24}}
"""What an operator cannot do without, and what makes it quick."""


@pytest.fixture
def grey(camera):
    """A grey picture of 32 x 32 with edges: the cameraman's head, averaged."""
    piece = camera[64:192, 160:288].astype(float).reshape(32, 4, 32, 4).mean((1, 3))
    return Image.from_array(np.rint(piece).astype(np.uint8))


@pytest.fixture
def colour(patch):
    return Image.from_array(patch[:32, :48])


def made(name: str, clean: Image, **options) -> Observed:
    return Observed.simulated(clean, create(name, **(OPTIONS.get(name, {}) | options)))


def phantom(n: int) -> np.ndarray:
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    at = np.arange(n) - n // 2
    inside = at[:, None] ** 2 + at**2 <= (n // 2) ** 2
    return resize(shepp_logan_phantom(), (n, n), anti_aliasing=True) * inside


# ------------------------------------------------------------------------------- projections


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("circle", [True, False])
def test_projections_are_those_of_scikit_image(n, circle):
    from skimage.transform import iradon, radon

    picture = phantom(n)
    angles = np.linspace(0, 180, 12, endpoint=False)
    expected = radon(picture, angles, circle=circle)
    found = project(torch.from_numpy(picture), torch.from_numpy(angles), circle=circle)
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() < 1e-9
    assert side(expected.shape[0], circle=circle) == n

    many = np.linspace(0, 180, 90, endpoint=False)
    sinogram = radon(picture, many, circle=circle)
    turns = torch.from_numpy(many)
    ours = back_project(torch.from_numpy(sinogram), turns, circle=circle).numpy()
    theirs = iradon(sinogram, many, circle=circle)
    inside = theirs != 0  # its circle
    errors = [np.sqrt(np.square(r - picture)[inside].mean()) for r in (ours, theirs)]
    assert errors[0] < 1.2 * errors[1]


def test_a_disc_projects_to_chords():
    n, radius = 129, 40
    at = np.arange(n) - n // 2
    # the share of each pixel that the disc covers
    fine = (np.arange(8 * n) + 0.5) / 8 - 0.5 - n // 2
    inside = (fine[:, None] ** 2 + fine**2 <= radius**2).reshape(n, 8, n, 8).mean((1, 3))
    found = project(torch.from_numpy(inside), torch.tensor([0.0, 30.0, 45.0, 77.0]))
    chords = 2 * np.sqrt(np.clip(radius**2 - at**2, 0, None))
    assert np.abs(found.numpy() - chords[:, None]).max() < 6  # at the disc's very edge
    well_inside = np.abs(at) < radius - 3
    assert np.abs(found.numpy() - chords[:, None])[well_inside].max() < 0.7


def test_every_projection_holds_the_whole_mass():
    picture = torch.from_numpy(phantom(48))
    masses = project(picture, torch.linspace(0, 179, 40)).sum(0)
    assert masses / picture.sum() == pytest.approx(np.ones(40), abs=2e-3)


# --------------------------------------------------------------------------------- operators


def linear(name, values, **options):
    return create(name, **(OPTIONS.get(name, {}) | options)).observe(values)


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("superresolve", {"factor": 2}, 3),
        ("ct", {"angles": 7}, 1),
        ("ct", {"angles": 7, "circle": False}, 1),
        ("gradient", {}, 3),
        ("gradient", {"derivative": "exact"}, 2),
        ("laplacian", {}, 3),
    ],
)
def test_gradients_are_the_adjoint(name, options, channels):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, 12, channels, generator=draw, dtype=torch.float64, requires_grad=True)
    seen = linear(name, x, **options)
    y = torch.randn(seen.shape, generator=draw, dtype=torch.float64)
    (adjoint,) = torch.autograd.grad(seen, x, y)
    x, seen = x.detach(), seen.detach()
    assert float((seen * y).sum()) == pytest.approx(float((x * adjoint).sum()))
    twice = linear(name, 2 * x, **options)
    assert torch.allclose(twice, 2 * seen)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.floats(-1, 1))
def test_means_of_a_constant_are_that_constant(factor, rows, columns, value):
    values = torch.full((rows * factor, columns * factor, 2), value, dtype=torch.float64)
    seen = linear("superresolve", values, factor=factor)
    assert seen.shape == (rows, columns, 2)
    assert torch.allclose(seen, seen.new_tensor(value))


def test_differences_are_those_of_scipy(grey):
    from scipy import ndimage

    values = grey.values[..., 0].double()
    for axis in (0, 1):
        seen = linear("gradient", values[..., None], derivative="exact")[..., axis]
        assert np.allclose(seen, ndimage.sobel(values.numpy(), axis=axis) / 8)
        seen = linear("gradient", values[..., None])[..., axis]
        assert np.allclose(seen[:-1, :-1], np.diff(values.numpy(), axis=axis)[:31, :31])
        assert not seen.select(axis, -1).any()
    seen = linear("laplacian", values[..., None])[..., 0]
    assert np.allclose(seen, ndimage.laplace(values.numpy()), atol=1e-12)


@pytest.mark.parametrize("name", ["gradient", "laplacian"])
def test_exact_derivatives_are_the_limit_of_differences(name):
    torch.manual_seed(0)
    field = registry.create("siren", 2, 2, hidden_features=16, first_omega=4.0).double()
    operator = create(name, derivative="exact")
    shape = (20, 10)
    at = [torch.tensor([-0.3, 0.4]).double(), torch.tensor([0.1, 0.2, 0.7]).double()]
    [(seen, samples)] = operator.look(field, at, shape)
    assert torch.allclose(samples, field.on_grid(at))
    h = 1e-4

    def moved(axis, by):  # by so many pixels
        axes = list(at)
        axes[axis] = axes[axis] + by * 2 / shape[axis]
        return field.on_grid(axes)

    if name == "gradient":
        expected = torch.cat([(moved(i, h) - moved(i, -h)) / (2 * h) for i in (0, 1)], -1)
    else:
        expected = sum((moved(i, h) + moved(i, -h) - 2 * samples) / h**2 for i in (0, 1))
    assert torch.allclose(seen, expected, atol=1e-5)
    with torch.no_grad():
        [(again, _)] = operator.look(field, at, shape)
    assert again.equal(seen)
    assert not again.requires_grad


class Known(Field):
    """The picture itself, at the nearest pixel; trainable by a factor that is 1."""

    widest = 1

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__(2, values.shape[-1])
        self.values = values
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, coords):
        sizes = torch.tensor(self.values.shape[:2])
        i, j = ((coords + 1) * sizes / 2).long().clamp(max=sizes - 1).unbind(-1)
        return self.factor * self.values[i, j]


@pytest.mark.parametrize("name", OPERATORS)
def test_the_signal_itself_has_no_error(name, grey, colour):
    clean = grey if name == "ct" else colour
    if name == "denoise":  # without noise
        signal = Observed(clean, create(name, tv=0.1))
    else:
        signal = made(name, clean, tv=0.1)
    field = Known(clean.values)
    generator = torch.Generator().manual_seed(0)
    batches = [signal.full_batch(), signal.probe(100)]
    batches += [signal.random_batch(200, generator) for _ in range(8)]
    for batch in batches:
        assert batch.count == batch.values.numel()
        assert torch.allclose(batch.evaluate(field), batch.values, atol=4e-3)
        assert next(batch.tiles(1)).count == batch.count
    assert signal.quality(field) > 50
    assert signal.metrics(field)["psnr_truth"] > 100 if name != "denoise" else True
    assert signal.statistics().samples.shape == clean.values.shape


def test_windows_take_every_sample_as_often(colour):
    signal = made("superresolve", colour)
    generator = torch.Generator().manual_seed(0)
    hits = torch.zeros(32, 48)
    for _ in range(3000):
        batch = signal.random_batch(300, generator)
        assert all(w.start % 4 == w.stop % 4 == 0 for w in batch.where)
        hits[batch.where] += 1
    assert hits.std() / hits.mean() < 0.1


@pytest.mark.parametrize("tv", [0.0, 0.1])
def test_what_was_not_observed_has_no_influence(grey, tv):
    operator = create("inpaint", keep=0.3, tv=tv)
    known = operator.known(grey.domain)
    other = grey.samples.copy()
    other[~known] = 255 - other[~known]
    signals = [Observed(grey, operator), Observed(Image.from_array(other), operator)]
    files = [inr.encode(inr.fit(s, SMALL, steps=4, device="cpu").field, s) for s in signals]
    assert files[0] == files[1]
    guesses = [s.statistics().samples for s in signals]
    assert guesses[0].equal(guesses[1])
    assert inspect(files[0]).psnr is None  # there is nothing that the file is as good as


def test_the_truth_is_looked_at_for_nothing_but_itself(grey):
    noisy, operator = create("denoise").simulate(grey)
    wrong = Image.from_array(255 - grey.samples)
    files, found = [], []
    for truth in (None, grey, wrong):
        signal = Observed(noisy, operator, grey.domain, truth)
        fit = inr.fit(signal, SMALL, psnr=15.0, steps=40, device="cpu")
        files.append((inr.encode(fit.field, signal), fit.steps))
        found.append(fit.metrics.get("psnr_truth"))
    assert files[0] == files[1] == files[2]
    assert found[0] is None
    assert found[1] > found[2] + 5


def test_the_known_fraction_is_drawn_from_the_seed(grey):
    def masks(**options):
        return create("inpaint", **options).known(grey.domain)

    first = masks(keep=0.1)
    assert first.sum() == round(0.1 * 32 * 32)
    assert np.array_equal(first, masks(keep=0.1))
    assert not np.array_equal(first, masks(keep=0.1, seed=1))
    assert masks(keep=1.0).all()
    assert not (first & ~masks(keep=0.2)).any()


def test_noise_is_as_strong_as_photons_make_it():
    flat = Image.from_array(np.full((300, 300), 51, np.uint8))
    noisy, operator = create("denoise", photons=40.0, read_noise=3.0).simulate(flat)
    assert noisy.domain == ImageDomain(300, 300, 1, 32, 0.0, 255.0)
    counted = noisy.samples.astype(np.float64) / 255 * 40
    assert counted.mean() == pytest.approx(8, abs=0.06)
    assert counted.var() == pytest.approx(8 + 9, rel=0.03)
    assert noise_level(noisy.values) == pytest.approx(2 / 40 * np.sqrt(17), rel=0.05)
    bound = Observed(noisy, operator, flat.domain).operator
    assert bound.tv == denoising_weight(noisy.values)
    assert bound.tv == pytest.approx(1.4 * noise_level(noisy.values))  # nothing but noise


def test_the_noise_of_a_photograph_is_estimated(camera):
    noisy, _ = create("denoise").simulate(Image.from_array(camera[::2, ::2]))
    actual = float((noisy.values - Image.from_array(camera[::2, ::2]).values).std())
    assert noise_level(noisy.values) == pytest.approx(actual, rel=0.15)
    # what varies more than the noise is smoothed less
    texture = torch.rand(64, 64, 1, generator=torch.Generator().manual_seed(0))
    assert denoising_weight(texture.repeat_interleave(2, 0).repeat_interleave(2, 1)) < 0.1
    assert denoising_weight(torch.zeros(1, 1)) == 0


def test_priors_of_known_functions():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    ramp = (0.3 * y + 0.4 * x)[..., None]
    assert float(total_variation(ramp)) == pytest.approx(0.5, abs=1e-3)
    assert float(curvature(ramp)) == pytest.approx(0, abs=1e-3)
    bowl = (1.5 * y**2 + 2 * x * y)[..., None]  # second derivatives 3, 2, 2, 0
    assert float(curvature(bowl)) == pytest.approx(np.sqrt(9 + 4 + 4), rel=1e-3)
    assert float(total_variation(torch.ones(4, 1, 5, 2))) == pytest.approx(0, abs=1e-6)
    assert float(total_variation(torch.ones(1, 1))) == float(curvature(torch.ones(2, 1))) == 0
    line = torch.tensor([0.0, 1, 1, 1, 1])[:, None]
    assert float(total_variation(line)) == pytest.approx(0.25, abs=2e-3)
    assert float(total_variation(line.expand(5, 3))) == pytest.approx(0.25, abs=2e-3)


# -------------------------------------------------------------------------------------- fits


@pytest.mark.parametrize("name", OPERATORS)
def test_a_fit_brings_the_signal_back(name, grey):
    signal = made(name, grey)
    preset = PYRAMID if name in ("ct", "gradient", "laplacian") else SMALL
    fit = inr.fit(signal, preset, steps=150, device="cpu")
    # against the noisy picture, a mean for what is unknown, blocks, and filtered back-projection
    crude = Known(signal.statistics().samples.clamp(-1, 1))
    gain = {"denoise": 4, "inpaint": 4, "superresolve": 1.5, "ct": 2}.get(name, 20)
    assert fit.metrics["psnr_truth"] > signal.metrics(crude)["psnr_truth"] + gain
    assert inr.render(fit.field).shape == grey.samples.shape
    again = inr.fit(made(name, grey), preset, steps=3, device="cpu")
    once = inr.fit(made(name, grey), preset, steps=3, device="cpu")
    assert inr.encode(again.field, signal) == inr.encode(once.field, signal)


def test_the_papers_derivatives_are_fitted_too(grey):
    signal = made("gradient", grey, derivative="exact")
    preset = Preset(SMALL.field, SMALL.hyperparameters | {"first_omega": 20.0}, SMALL.recipe)
    assert inr.fit(signal, preset, steps=200, device="cpu").metrics["psnr_truth"] > 20
    assert signal.random_batch(100, torch.Generator()).count < 400
    with pytest.raises(FitError, match="has 0 derivatives, operator.derivative exact needs 1"):
        inr.fit(signal, PYRAMID, steps=1, device="cpu")


def test_the_mean_is_that_of_the_picture(colour):
    signal = made("laplacian", colour)
    fit = inr.fit(signal, PYRAMID, steps=150, device="cpu")
    means = inr.render(fit.field).mean((0, 1))
    assert means == pytest.approx(colour.samples.mean((0, 1)), abs=1)


def test_signals_other_than_pictures():
    t = np.arange(2000)
    clean = Audio.from_array(0.6 * np.sin(t / 9), 8000)
    signal = made("denoise", clean, tv=0.0, read_noise=6.0)
    assert signal.preset is None
    field = {"hidden_features": 16, "hidden_layers": 1, "first_omega": 300.0}
    fit = inr.fit(signal, Preset("siren", field, SMALL.recipe), steps=150, device="cpu")
    noise = float((signal.source.values - clean.values).square().mean())
    assert fit.metrics["psnr_truth"] > 10 * np.log10(4 / noise) + 5

    y, x, z = np.meshgrid(*(np.linspace(0, 3, 8),) * 3, indexing="ij")
    block = ArraySignal.from_array(np.sin(y + 2 * x - z), channels_last=False)
    for name, options in (("superresolve", {"factor": 2}), ("inpaint", {})):
        signal = made(name, block, **options)
        smooth = Preset("siren", SMALL.hyperparameters | {"first_omega": 3.0}, SMALL.recipe)
        fit = inr.fit(signal, smooth, steps=60, device="cpu")
        assert fit.field.domain == block.domain
        assert fit.metrics["psnr_truth"] > 16


def test_every_operator_has_its_preset(grey):
    for name in OPERATORS:
        signal = made(name, grey)
        assert signal.preset == f"image/{name}"
        assert signal.preset in presets.names()
        assert presets.load(signal.preset)
        assert operator_class(name).name == name
        assert len(signal.notes) == 1


def test_a_fit_is_resumed_on_the_same_observations_only(grey):
    signals = [
        made("inpaint", grey),
        made("inpaint", grey, seed=1),
        made("inpaint", grey, tv=0.5),
        made("superresolve", grey),
        made("superresolve", grey, factor=2),
    ]
    assert len({signal.digest() for signal in signals}) == len(signals)
    assert signals[0].digest() == made("inpaint", grey).digest()
    assert isinstance(signals[0].full_batch(), Seen)


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("denoize", {}, "no operator is named 'denoize': did you mean denoise"),
        ("x", {}, "choose from denoise, inpaint"),
        ("denoise", {"nix": 1}, "nix"),
        ("denoise", {"photons": 0.0}, "operator.photons is 0.0: give a number above 0"),
        ("denoise", {"tv": -1.0}, "operator.tv is -1.0"),
        ("denoise", {"tv": float("nan")}, "operator.tv is nan"),
        ("inpaint", {}, "needs operator.mask, a file, or operator.keep"),
        ("inpaint", {"mask": "a", "keep": 0.1}, "needs operator.mask, a file, or operator.keep"),
        ("inpaint", {"keep": 0.0}, "operator.keep is 0.0"),
        ("inpaint", {"keep": 0.1, "seed": -1}, "operator.seed is -1"),
        ("superresolve", {"factor": 1}, "operator.factor is 1: give a whole number from 2"),
        ("ct", {"angles": 0}, "operator.angles is 0"),
        ("ct", {"low": 1.0, "high": 1.0}, "operator.high is 1.0: give a number above"),
        ("gradient", {"mean": [0.0, float("inf")]}, "operator.mean"),
        ("laplacian", {"derivative": "fast"}, "operator.derivative is 'fast'"),
        ("laplacian", {"levels": -1}, "operator.levels is -1"),
    ],
)
def test_options_that_cannot_work(name, options, told):
    with pytest.raises(UsageError) as caught:
        create(name, **options)
    assert told in str(caught.value)


def test_observations_that_are_none(grey, colour):
    for name, source, told in (
        ("ct", colour, "a sinogram has detectors x angles, and one channel"),
        ("gradient", grey, "a gradient has two for each"),
        ("laplacian", ArraySignal.from_array(np.arange(9.0)), "those of a picture"),
    ):
        with pytest.raises(InputError, match=told):
            Observed(source, create(name, low=0.0, high=1.0))
    with pytest.raises(UsageError, match=r"needs operator\.low and operator\.high"):
        Observed(grey, create("laplacian"))
    with pytest.raises(UsageError, match="operator.mean has 2 numbers: the picture has 1"):
        Observed(grey, create("laplacian", low=0.0, high=1.0, mean=[1.0, 2.0]))
    with pytest.raises(InputError, match="32 x 32 is no multiple of operator.factor 5"):
        made("superresolve", grey, factor=5)
    with pytest.raises(InputError, match="a square grey picture"):
        made("ct", colour)
    with pytest.raises(InputError, match="keeps no sample"):
        made("inpaint", grey, keep=1e-6)
    with pytest.raises(InputError, match="the truth is 32 x 48 x 3: what is reconstructed is 32"):
        Observed(grey, create("denoise"), truth=colour)
    with pytest.raises(LimitExceeded, match="the size 40000x40000 is"):
        Observed(ArraySignal.from_array(np.ones((40000, 1)), channels_last=False), create("ct"))
    with pytest.raises(LimitExceeded, match="the size 1600x1600x3 is"):
        Observed(
            Image.from_array(np.zeros((50, 50, 3), np.uint8)),
            create("superresolve", factor=32),
            limits=Limits(samples=1 << 20),
        )
    with pytest.raises(InputError, match="not resampled"):
        Observed(Audio.from_array(np.arange(9) / 9, 8000), create("superresolve"))


# ------------------------------------------------------------------------------- command line


@pytest.fixture
def folder(tmp_path, grey, monkeypatch):
    """Files of a clean picture and of what is observed of it."""
    from inr.signals.image import write_image

    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "clean.png", grey.samples, grey.domain)
    write_image(tmp_path / "low.png", grey.samples[::2, ::2], grey.domain)
    known = np.where(create("inpaint", keep=0.4).known(grey.domain), 255, 0).astype(np.uint8)
    for name, mask in (("mask", known), ("none", 0 * known), ("small", known[:-1])):
        picture = Image.from_array(mask)
        write_image(tmp_path / f"{name}.png", picture.samples, picture.domain)
    seen, _ = create("ct", angles=20).simulate(grey)
    np.save("sinogram.npy", seen.samples)
    np.save("nan.npy", np.where(seen.samples == seen.samples.max(), np.nan, seen.samples))
    np.save("gradient.npy", create("gradient").simulate(grey)[0].samples)
    return tmp_path


NARROW = ("--field", "siren", "--field.hidden_features", "16", "--steps", "3")
RANGE = ("--operator.low", "0", "--operator.high", "255")


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("clean.png", ("denoise",)),
        ("clean.png", ("inpaint", "--operator.mask", "mask.png")),
        ("clean.png", ("inpaint", "--operator.keep", "0.1", "--operator.simulate", "true")),
        ("low.png", ("superresolve", "--operator.factor", "2", "--truth", "clean.png")),
        ("sinogram.npy", ("ct", "--truth", "clean.png")),
        ("gradient.npy", ("gradient", "--operator.mean=99", *RANGE)),
        ("clean.png", ("laplacian", "--operator.simulate=true")),
    ],
)
def test_the_command_line(folder, capsys, source, options):
    assert main(["fit", source, "-o", "x.inr", "--json", "--operator", *options, *NARROW]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any(event["event"] == "note" for event in told)
    truth = "--truth" in options or any("simulate" in o for o in options)
    assert ("psnr_truth_fit" in told[-1]) == truth
    assert main(["info", "x.inr", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["height"], facts["width"], facts["mode"]) == (32, 32, "grey")
    assert "psnr" not in facts
    assert main(["decode", "x.inr", "-o", "x.tif"]) == 0
    assert inr.open("x.tif").domain.shape == (32, 32)


def test_the_operator_chooses_the_preset(folder, capsys):
    assert main(["fit", "--operator", "superresolve", "--print_config"]) == 0
    told = capsys.readouterr().out
    assert "first_omega: 20.0" in told
    assert "name: superresolve" in told
    (folder / "mine.yaml").write_text(told)
    assert main(["fit", "low.png", "--config", "mine.yaml", "--steps", "1"]) == 0
    assert inr.load("low.inr").domain.shape == (64, 64)
    assert main(["fit", "--operator", "inpaint", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--operator NAME" in told
    assert "the fraction of samples that are looked at" in told


@pytest.mark.parametrize(
    ("source", "options", "code", "told"),
    [
        ("clean.png", ("denoize",), 2, "did you mean denoise"),
        ("clean.png", ("inpaint",), 2, "needs operator.mask"),
        ("clean.png", ("inpaint", "--operator.mask", "small.png"), 3, "the mask is 31 x 32"),
        ("clean.png", ("inpaint", "--operator.mask", "none.png"), 3, "no sample is known"),
        ("clean.png", ("inpaint", "--operator.mask", "nix.png"), 3, "nix.png: no such file"),
        ("clean.png", ("superresolve", "--operator.factor", "1.5"), 2, "operator.factor"),
        ("clean.png", ("denoise", "--operator.keep", "1"), 2, "operator.keep"),
        ("clean.png", ("denoise", "--truth", "low.png"), 3, "the truth is 16 x 16 x 1"),
        ("clean.png", ("denoise", "--truth", "nix.png"), 3, "nix.png"),
        (
            "clean.png",
            ("denoise", "--truth", "low.png", "--operator.simulate", "true"),
            2,
            "the input itself is the truth",
        ),
        ("gradient.npy", ("ct",), 3, "a sinogram has detectors x angles"),
        ("nan.npy", ("ct",), 3, "NaN"),
        ("gradient.npy", ("gradient",), 2, "operator.low and operator.high"),
    ],
)
def test_errors_are_one_line_and_write_nothing(folder, capsys, source, options, code, told):
    before = sorted(folder.iterdir())
    assert main(["fit", source, "-o", "x.inr", "--operator", *options, *NARROW]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_a_truth_needs_an_operator(folder, capsys):
    assert main(["fit", "clean.png", "--truth", "clean.png", *NARROW]) == 2
    assert "give --operator too" in capsys.readouterr().err
