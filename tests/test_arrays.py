"""Arrays of 1 to 5 axes: read, fitted, stored and decoded in their own type."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fields
import inr
from apps.cli.main import main
from inr.errors import CorruptFile, InputError, LimitExceeded
from inr.limits import Limits
from inr.presets import Preset, Recipe
from inr.signals.array import DTYPES, ArrayDomain, ArraySignal, open_array

SMALL = Preset("siren", {"hidden_features": 32, "hidden_layers": 1}, Recipe(lr=1e-3))


@pytest.fixture
def wave() -> np.ndarray:
    """A chirp, float64."""
    t = np.linspace(-1, 1, 257)
    return 3e5 + 40 * np.sin(9 * (t + 1.2) ** 2)


@given(
    arrays.arrays(
        st.sampled_from([*DTYPES.values(), np.dtype(">f8"), np.bool_, np.int8, np.float16]),
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_values_survive_normalisation_in_their_own_type(samples):
    signal = ArraySignal.from_array(samples, channels_last=False)
    domain = signal.domain
    assert domain.shape == samples.shape
    assert float(signal.values.abs().max()) <= 1
    back = domain.to_samples(signal.values.numpy())
    assert back.dtype == DTYPES[domain.dtype]
    expected = samples.astype(np.float64)[..., None]
    # float32 values tell 2^-24 of the range apart, which an int32's range exceeds
    eps = 2.0**-50 if domain.precision == "float64" else 2.0**-22
    scale = np.abs(expected).max() / 2 + domain.peak / 2
    assert np.abs(back / 2 - expected / 2).max() <= eps * scale + np.finfo(np.float64).tiny
    assert ArrayDomain.from_header(domain.header()) == domain


@pytest.mark.parametrize(
    ("shape", "domain", "channels"),
    [
        ((7,), (7,), 1),
        ((3,), (3,), 1),
        ((7, 3), (7,), 3),
        ((7, 5), (7, 5), 1),
        ((4, 5, 6, 2), (4, 5, 6), 2),
    ],
)
def test_a_short_last_axis_holds_channels(shape, domain, channels):
    signal = ArraySignal.from_array(np.zeros(shape, np.float32))
    assert (signal.domain.shape, signal.channels) == (domain, channels)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(()), np.zeros((0, 3)), np.zeros((5,) * 6), np.zeros(3, complex), np.array(["a"]),
     np.array([1.0, np.nan]), np.full(3, 1 << 40), np.array([None])],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(samples):
    with pytest.raises(InputError, match="\n{0}"):
        ArraySignal.from_array(samples)


def test_float64_stays_float64(wave):
    signal = ArraySignal.from_array(wave)
    assert signal.values.dtype == signal.axes()[0].dtype == torch.float64
    fit = inr.fit(signal, SMALL, steps=3)
    assert next(fit.field.parameters()).dtype == torch.float64
    assert inr.render(fit.field).dtype == np.float64
    # the loss that was reported is not rounded to float32
    assert fit.history[-1][2] != float(np.float32(fit.history[-1][2]))


def test_metrics_are_what_they_say(wave):
    signal = ArraySignal.from_array(wave)
    flat = fields.Siren(1, 1, hidden_features=8, hidden_layers=1).double()
    with torch.no_grad():
        for parameter in flat.out.parameters():
            parameter.zero_()
    flat.domain = signal.domain
    middle = (wave.min() + wave.max()) / 2
    metrics = signal.metrics(flat)
    error = np.square(wave - middle).mean()
    assert metrics["psnr"] == pytest.approx(10 * np.log10(np.ptp(wave) ** 2 / error), abs=1e-6)
    assert metrics["psnr_float"] == pytest.approx(metrics["psnr"], abs=1e-6)
    expected = np.linalg.norm(wave - middle) / np.linalg.norm(wave)
    assert metrics["relative_l2"] == pytest.approx(expected, rel=1e-9)


def test_a_volume_from_file_to_file_and_back(tmp_path, coffee, capfdbinary):
    # a picture that moves: 8 x 12 x 20, smooth along all axes
    volume = np.stack([coffee[100:112, 200 + k : 220 + k, 0] for k in range(8)]).astype(np.int16)
    source, stored = tmp_path / "volume.npz", tmp_path / "volume.inr"
    np.savez(source, volume)
    smooth = ["--field.hidden_features", "48", "--field.first_omega", "8"]
    smooth += ["--kind", "array"]
    assert main(["fit", str(source), "--steps", "300", "--recipe.lr", "3e-3", *smooth]) == 0
    assert inr.load(stored).domain == ArrayDomain((8, 12, 20), 1, "i2", volume.min(), volume.max())
    assert main(["decode", str(stored), "-o", str(tmp_path / "same.npy")]) == 0
    same = np.load(tmp_path / "same.npy")
    assert same.shape == volume.shape
    assert same.dtype == np.int16
    assert np.abs(same - volume).mean() < 0.02 * np.ptp(volume)
    thrice = str(tmp_path / "thrice.npy")
    assert main(["decode", str(stored), "-o", thrice, "--shape", "24,36,60"]) == 0
    # the middle of every three cells lies where the one cell's sample does
    assert np.abs(np.load(thrice)[1::3, 1::3, 1::3] - same).max() <= 1
    capfdbinary.readouterr()
    for words, told in (
        (["--shape", "24,6"], "--shape: size is (24, 6): give 3 whole numbers"),
        (["--shape", "a"], "--shape is 'a': give numbers such as"),
        (["-o", str(tmp_path / "x.png")], "arrays are not written as '.png': write .npy"),
        (["--rate", "8000"], "--rate is for sound"),
    ):
        assert main(["decode", str(stored), "-f", *words]) != 0
        assert told in capfdbinary.readouterr().err.decode()
    assert main(["decode", str(stored), "-o", "-"]) == 0
    assert np.array_equal(np.load(io.BytesIO(capfdbinary.readouterr().out)), same)


def test_the_kind_can_be_said(tmp_path, capsys):
    path = tmp_path / "picture.npy"
    np.save(path, np.arange(48.0).reshape(8, 6))
    assert main(["fit", str(path), "--kind", "array", "--steps", "1"]) == 0
    assert inr.load(tmp_path / "picture.inr").domain.kind == "array"
    assert main(["fit", str(path), "--kind", "song"]) == 2
    assert "--kind is 'song': choose from array, audio, image" in capsys.readouterr().err


def test_files_that_lie_are_refused(tmp_path):
    whole = io.BytesIO()
    np.save(whole, np.arange(1000.0))
    data = whole.getvalue()
    with pytest.raises(InputError, match="cut short"):
        open_array(data[:-1])
    with pytest.raises(LimitExceeded, match="limit"):
        open_array(data, Limits(samples=999))
    with pytest.raises(InputError, match=r"is no \.npy or \.npz"):
        open_array(b"\x93NUMPY nothing")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not supported"):
        open_array(pickled.getvalue())
    two = io.BytesIO()
    np.savez(two, a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(InputError, match=r"holds 2 arrays \(a, b\)"):
        open_array(two.getvalue())
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"x\.npz: is no \.npy"):
        open_array(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "items",
    [None, [[3], 1, "f8", 0.0], [3, 1, "f8", 0.0, 1.0], [[], 1, "f8", 0.0, 1.0],
     [[3] * 6, 1, "f8", 0.0, 1.0], [[0], 1, "f8", 0.0, 1.0], [[3], 0, "f8", 0.0, 1.0],
     [[3], 1, "O", 0.0, 1.0], [[3], 1, ["f8"], 0.0, 1.0], [[3], 1, "f8", 1.0, 0.0],
     [[3], 1, "f8", 0, 1], [[3], 1, "u1", 0, 256], [[3], 1, "f4", 0.0, 1e39],
     [[3], 1, "f8", float("nan"), 1.0], [[True], 1, "u1", 0, 1]],
)  # fmt: skip
def test_malformed_headers_are_refused(items):
    with pytest.raises(CorruptFile):
        ArrayDomain.from_header(items)
