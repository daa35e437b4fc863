"""Live views: frames that say what the field is, cost what they may, and change nothing."""

import base64
import dataclasses
import io
import json
import wave

import numpy as np
import PIL.Image
import pytest
import torch

import inr
from apps.studio import live
from apps.studio.examples import ASSETS, EXAMPLES, path_of
from apps.studio.live.base import LEAST, ROOM, Lattice
from apps.view.page import WIDGETS
from apps.view.volume import _upright
from fields.base import Field
from inr.errors import InputError, UsageError
from inr.meshes import Cloud
from inr.operators import create
from inr.signals.array import ArraySignal
from inr.signals.image import Image
from inr.signals.observed import Observed
from inr.signals.oriented import OrientedPoints
from inr.signals.shape import Shape
from tests import make_examples
from tests.test_view import numbers, samples_of

OWN = {"audio": "bell", "shape": "knot", "volume": "phantom", "video": "ball", "array": "waves"}
KINDS = {"image": "camera", **OWN}


class Ripples(Field):
    """Waves along all axes, and how many points were asked of them."""

    smoothness = 9

    def __init__(self, in_features: int, out_features: int, *, waves: float = 3.0) -> None:
        super().__init__(in_features, out_features)
        self.scale = torch.nn.Parameter(torch.linspace(0.4, 0.9, out_features))
        self.waves = waves
        self.asked = 0

    @property
    def widest(self) -> int:
        return 64

    def forward(self, coords: torch.Tensor) -> torch.Tensor:
        self.asked += coords[..., 0].numel()
        phases = coords * torch.arange(1, self.in_features + 1).to(coords) * self.waves
        return self.scale.to(coords) * torch.sin(phases.sum(-1, keepdim=True) + 0.3)


class Ball(Field):
    """The distance to a ball about 0, over some truncation, cut off."""

    def __init__(self, *, radius: float = 0.5, gain: float = 4.0) -> None:
        super().__init__(3, 1)
        self.size = torch.nn.Parameter(torch.tensor(radius))
        self.gain = gain
        self.asked = 0

    @property
    def widest(self) -> int:
        return 8

    def forward(self, coords: torch.Tensor) -> torch.Tensor:
        self.asked += coords[..., 0].numel()
        return (self.gain * (coords.norm(dim=-1, keepdim=True) - self.size)).clamp(-1, 1)


@pytest.fixture(scope="module")
def signals():
    return {kind: inr.open(path_of(name)) for kind, name in KINDS.items()}


def rippled(signal) -> Ripples:
    return Ripples(len(signal.domain.shape), signal.channels).eval()


def at(field, domain, *indices) -> np.ndarray:
    """A field's samples at sample indices per axis, computed from their definition."""
    axes = [(2 * np.asarray(i) + 1) / n - 1 for i, n in zip(indices, domain.shape, strict=True)]
    coords = torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij"), -1)).float()
    with torch.no_grad():
        return domain.to_samples(field(coords).numpy())


def json_of(sections) -> str:
    assert all(part.widget in WIDGETS for part in sections)
    return json.dumps([dataclasses.asdict(part) for part in sections], allow_nan=False)


def pane(section, name: str) -> dict:
    return next(one for one in section.data["panes"] if one["name"] == name)


def pictures(section, name: str) -> np.ndarray:
    return np.stack([samples_of(uri) for uri in pane(section, name)["frames"]])


def stride(n: int, factor: int) -> np.ndarray:
    return np.arange(n // factor) * factor + (factor - 1) // 2


# ------------------------------------------------------------------------------ what it shows


@pytest.mark.parametrize(("points", "factor"), [(1, 16), (16384, 4), (30_000, 3), (70_000, 2)])
def test_a_picture_is_the_fields_at_its_pixels(signals, points, factor):
    signal = signals["image"]
    field = rippled(signal)
    made = live.view_of(signal).sections(field, points, {})
    assert [part.widget for part in made] == ["panes", "plot", "panes"]
    rows = stride(512, factor)
    wanted = at(field, signal.domain, rows, rows)
    shown = pictures(made[0], "fit")[0]
    assert np.abs(shown.astype(int) - wanted[..., 0]).max() <= 1  # sums in another order
    original = pictures(made[0], "original")[0]
    np.testing.assert_array_equal(original, signal.samples[np.ix_(rows, rows)][..., 0])
    assert made[0].data["size"] == [512, 512]
    assert made[0].data["compare"] == [0, 1]
    # the error's colours rise with the error of what is shown
    error = np.abs(shown.astype(float) - original)
    top = np.quantile(error, 0.999)
    assert pane(made[0], "error")["bar"]["high"] == f"{top:.4g} of 255"
    coloured = PIL.Image.open(
        io.BytesIO(base64.b64decode(pane(made[0], "error")["frames"][0].partition(",")[2]))
    )
    steps = np.asarray(coloured).astype(int)
    assert np.abs(steps - np.rint((error * 255 / top).clip(0, 255))).max() <= 1


def test_the_spectra_are_of_what_is_shown(signals):
    signal = signals["image"]
    field = rippled(signal)
    made = live.view_of(signal).sections(field, 16384, {})
    curves = {one["name"]: numbers(one["values"]) for one in made[1].data["series"]}
    assert list(curves) == ["original", "fit", "error"]
    assert all(np.isfinite(values).all() for values in curves.values())
    rows = stride(512, 4)
    power = np.abs(np.fft.fft2(signal.samples[np.ix_(rows, rows)][..., 0] / 1.0, norm="ortho")) ** 2
    frequency = np.abs(np.fft.fftfreq(128)) * 2
    band = (np.maximum(frequency[:, None], frequency) * 48).astype(int).clip(max=47)
    for k in (1, 10, 47):
        assert curves["original"][k] == pytest.approx(10 * np.log10(power[band == k].mean()), 1e-4)
    assert np.abs(samples_of(pane(made[2], "fit")["frames"][0])).shape == (128, 128)


def test_a_sound_is_a_stretch_of_it(signals):
    signal = signals["audio"]
    field = rippled(signal)
    view = live.view_of(signal)
    (part,) = view.sections(field, 12_000, {"start": 1.25})
    first = round(1.25 * 22050)
    length = 88200 >> 3
    assert part.data["start"] == first / 22050
    assert f"Seconds 1.25 to {(first + length) / 22050:.2f} of 4.00" in part.notes[0]
    heard = {}
    for track in part.data["tracks"]:
        with wave.open(io.BytesIO(base64.b64decode(track["src"].partition(",")[2]))) as file:
            heard[track["name"]] = np.frombuffer(file.readframes(1 << 20), "<i2").astype(int)
            assert file.getframerate() == 22050
    wanted = at(field, signal.domain, np.arange(first, first + length))[:, 0]
    assert len(heard["fit"]) == length
    assert np.abs(heard["fit"] - wanted).max() <= 2  # 32767 is full scale in a player
    assert np.abs(heard["original"] - signal.samples[first : first + length, 0]).max() <= 2
    assert len(part.data["spectrograms"]) == 3
    # nothing said: where it is loudest, which is the last stroke
    (part,) = view.sections(field, 12_000, {})
    assert 2.4 < part.data["start"] < 2.6


def test_a_clip_shows_frames_about_the_one_that_is_chosen(signals):
    signal = signals["video"]
    field = rippled(signal)
    view = live.view_of(signal)
    (part,) = view.sections(field, 5000, {"frame": 7})
    rows, columns = stride(64, 2), stride(96, 2)
    wanted = at(field, signal.domain, [6, 7, 8], rows, columns)
    assert np.abs(pictures(part, "fit").astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(
        pictures(part, "original"), signal.samples[np.ix_([6, 7, 8], rows, columns)]
    )
    assert part.data["stack"]["names"][1] == "7, 0.44 s"
    (part,) = view.sections(field, 5000, {"frame": 1e9})
    assert part.data["stack"]["names"][-1].startswith("31,")
    assert part.data["stack"]["at"] == 2


def test_a_volume_is_sliced_where_it_is_said(signals):
    signal = signals["volume"]
    domain = signal.domain
    field = rippled(signal)
    chosen = [30, 41, 20]
    made = live.view_of(signal).sections(field, 3 * 6400, {"slices": chosen})
    assert [part.title for part in made] == ["Axial slice", "Coronal slice", "Sagittal slice"]
    whole = at(field, domain, *map(np.arange, domain.shape))
    from apps.view.pieces import Sampled

    turned, axes = _upright(Sampled(whole, signal.samples, (1, 1, 1)), domain)
    low, high = np.quantile(signal.samples[::2, ::2, ::2], [0.001, 0.999])
    for i, part in enumerate(made):
        n = domain.shape[axes[i]]
        # the axes are flipped or not; a slice is that of the array's own index
        wanted = [
            np.rint(((np.take(one, k, i)[..., 0] - low) * 255.0 / (high - low)).clip(0, 255))
            for one in (turned.decoded, turned.original)
            for k in (chosen[axes[i]], n - 1 - chosen[axes[i]])
        ]
        shown = [pictures(part, name)[0].astype(int) for name in ("fit", "original")]
        off = [np.abs(shown[k // 2] - wanted[k]).max() for k in range(4)]
        assert min(off[0], off[1]) <= 2
        assert min(off[2], off[3]) <= 1
        assert part.data["size"] == [*reversed(np.take(turned.decoded, 0, i).shape[:2])]


@pytest.mark.parametrize("shape", [(900,), (90, 80), (20, 30, 24), (5, 12, 14, 16)])
def test_an_array_is_shown_as_inr_view_does(shape):
    draw = np.random.default_rng(1)
    signal = ArraySignal.from_array(draw.normal(size=(*shape, 2)), channels_last=True)
    field = rippled(signal)
    part = live.view_of(signal).sections(field, 1 << 16, {})[0]
    middle = [[n // 2] for n in shape[:-3]]
    wanted = at(field, signal.domain, *middle, *(np.arange(n) for n in shape[-3:]))
    wanted = wanted.reshape(*shape[-3:], 2)
    if len(shape) == 1:
        shown = {one["name"]: numbers(one["values"]) for one in part.data["series"]}
        np.testing.assert_allclose(shown["fit, channel 1"], wanted[:, 1], atol=1e-5)
        np.testing.assert_allclose(shown["original, channel 0"], signal.samples[:, 0], atol=1e-5)
        return
    one = next(one for one in part.data["signals"] if one["name"] == "fit")
    stored = np.stack([numbers(c) for c in one["channels"]], -1).reshape(wanted.shape)
    step = (one["high"] - one["low"]) / one["levels"]
    np.testing.assert_allclose(one["low"] + stored * step, wanted, atol=step)


@pytest.mark.parametrize("level", [None, 0.05, -0.1])
def test_a_surface_lies_where_the_field_has_the_level(signals, level):
    domain = signals["shape"].domain
    field = Ball(gain=domain.half / domain.truncation)
    look = {} if level is None else {"level": level}
    (part,) = live.view_of(signals["shape"]).sections(field, 200_000, look)
    names = [mesh["name"] for mesh in part.data["meshes"]]
    assert names == ["original", "fit"]
    low, high = (np.array(part.data[side]) for side in ("low", "high"))
    places = numbers(part.data["meshes"][1]["positions"]).reshape(-1, 3)
    vertices = low + places / 65535 * (high - low)
    radius = np.linalg.norm(vertices - domain.centre, axis=1)
    wanted = 0.5 * domain.half + (level or 0.0)
    # distances are cut off within a cell: where the level is near that, edges are cut unevenly
    assert np.median(radius) == pytest.approx(wanted, abs=0.01 * domain.half)
    assert radius == pytest.approx(wanted, abs=0.05 * domain.half)
    faces = numbers(part.data["meshes"][1]["faces"]).reshape(-1, 3)
    a, b, c = (vertices[faces[:, k]] - domain.centre for k in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6  # above 0: faces look outwards
    assert volume == pytest.approx(4 / 3 * np.pi * radius.mean() ** 3, rel=0.02)
    assert "within" in part.notes[1]


def test_a_field_without_a_surface_says_so(signals):
    field = Ball(radius=9.0)
    (part,) = live.view_of(signals["shape"]).sections(field, 20_000, {})
    assert "no surface" in part.notes[0]
    assert numbers(part.data["meshes"][1]["faces"]).size == 0
    json_of([part])
    (again,) = live.finished(_with_domain(field, signals["shape"]), signals["shape"], 1 << 20)
    assert "no surface" in again.notes[0]


def test_points_with_normals_have_a_view():
    ball = np.random.default_rng(0).normal(size=(500, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    signal = OrientedPoints(Cloud(ball, ball))
    (part,) = live.view_of(signal).sections(Ball(gain=1.0), 40_000, {"resolution": 12})
    assert [mesh["name"] for mesh in part.data["meshes"]] == ["fit"]
    assert part.notes[0].startswith("The fit is drawn with 12 cells per axis")


def test_occupancy_has_its_own_levels(shared):
    signal = inr.open(shared / "mesh" / "suzanne.obj", target="occupancy")
    view = live.view_of(signal)
    assert view.controls["level"] == pytest.approx((0.001, 0.999, 0.5))
    inside = Ball(gain=-4.0)
    (part,) = view.sections(inside, 40_000, {"level": 7})  # as near to 1 as can be
    assert "triangles" in part.notes[0]
    assert len(numbers(part.data["meshes"][1]["faces"])) > 100


# -------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_costs_the_points_that_it_may(signals, kind):
    signal = signals[kind]
    view = live.view_of(signal)
    for points in (1, 5000, 20_000, 100_000):
        field = Ball() if kind == "shape" else rippled(signal)
        made = view.sections(field, points, {})
        assert 0 < field.asked <= max(points, view.least)
        assert len(json_of(made)) <= ROOM + 2000
        if points > 5000 and kind != "volume":  # of which three planes are all that is seen
            assert field.asked > points / 12


def test_no_frame_is_too_heavy_even_of_noise():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    view = live.view_of(Image.from_array(noise))
    field = Ripples(2, 3, waves=5000.0)
    for _ in range(2):
        made = view.sections(field, 1 << 18, {})
        assert len(json_of(made)) <= ROOM + 2000
    asked = field.asked
    view.sections(field, 1 << 18, {})
    assert field.asked - asked < 1 << 17  # it knows by now


def test_sizes_do_not_flutter():
    lattice = Lattice((512, 512))
    assert [cut.step for cut in lattice.cuts(70_000)] == [2, 2]
    assert lattice.cuts(60_000)[0].step == 3
    assert lattice.cuts(70_000)[0].step == 3  # a little more does not make it finer
    assert lattice.cuts(100_000)[0].step == 2
    assert lattice.cuts(1)[0].size ** 2 <= LEAST


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_field_changes(signals, kind):
    signal = signals[kind]
    field = inr_field(signal)
    field.train()
    before = {name: value.clone() for name, value in field.state_dict().items()}
    live.view_of(signal).sections(field, 3000, {})
    assert field.training
    assert field.domain is None
    assert all(p.grad is None and p.requires_grad for p in field.parameters())
    assert torch.is_grad_enabled()
    after = field.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def inr_field(signal) -> Field:
    from fields.siren import Siren

    return Siren(len(signal.domain.shape), signal.channels, hidden_features=16, hidden_layers=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_diverged_is_shown_all_the_same(signals, kind):
    field = Ball() if kind == "shape" else rippled(signals[kind])
    with torch.no_grad():
        next(field.parameters()).fill_(torch.nan)
    made = live.view_of(signals[kind]).sections(field, 3000, {})
    json_of(made)
    assert any("no surface" in n or "no number" in n for n in made[0].notes)


@pytest.mark.parametrize(
    ("kind", "look"),
    [
        ("audio", {"start": "1"}),
        ("video", {"frame": True}),
        ("volume", {"slices": 3}),
        ("volume", {"slices": [1, 2, {}]}),
        ("shape", {"level": float("nan")}),
    ],
)
def test_controls_that_say_no_number_are_refused(signals, kind, look):
    field = Ball() if kind == "shape" else rippled(signals[kind])
    with pytest.raises(UsageError, match=next(iter(look))):
        live.view_of(signals[kind]).sections(field, 3000, look)


def test_no_points_are_refused(signals):
    with pytest.raises(UsageError, match="points"):
        live.view_of(signals["image"]).sections(rippled(signals["image"]), 0, {})


# --------------------------------------------------------------------------- what was observed


def seen(name: str, **options) -> Observed:
    patch = inr.open(path_of("camera")).samples[100:164, 200:264]
    return Observed.simulated(Image.from_array(patch), create(name, **options))


def test_what_is_unknown_is_clear():
    signal = seen("inpaint", keep=0.3)
    part = live.view_of(signal).sections(rippled(signal), 1 << 16, {})[0]
    names = [one["name"] for one in part.data["panes"]]
    assert names == ["observed", "fit", "original", "error"]
    shown = pictures(part, "observed")[0]
    known = signal.known.numpy()
    np.testing.assert_array_equal(shown[..., 1] == 255, known)
    np.testing.assert_array_equal(shown[..., 0][known], signal.source.samples[..., 0][known])
    assert "truth" in part.notes[-1]


def test_observations_of_other_sizes():
    small = seen("superresolve", factor=4)
    part = live.view_of(small).sections(rippled(small), 1 << 16, {})[0]
    np.testing.assert_array_equal(pictures(part, "observed")[0], small.source.samples[..., 0])
    sinogram = seen("ct", angles=30)
    *_, last = live.view_of(sinogram).sections(rippled(sinogram), 1 << 16, {})
    assert last.title == "Observed"
    assert pictures(last, "observed")[0].shape == (64, 30)
    assert last.data["aspect"] == 30 / 64  # drawn as a square
    slopes = seen("gradient", low=0.0, high=255.0)
    *_, last = live.view_of(slopes).sections(rippled(slopes), 1 << 16, {})
    assert [one["name"] for one in last.data["panes"]] == [
        "observed, channel 0", "observed, channel 1"
    ]  # fmt: skip


def test_nothing_is_said_of_a_truth_that_is_not_known():
    known = seen("denoise")
    signal = Observed(known.source, create("denoise"))
    part = live.view_of(signal).sections(rippled(signal), 1 << 16, {})[0]
    assert [one["name"] for one in part.data["panes"]] == ["observed", "fit"]
    assert not any("truth" in note for note in part.notes)


def test_a_curve_that_was_observed_in_part():
    clean = ArraySignal.from_array(np.sin(np.linspace(0, 9, 400)), channels_last=False)
    signal = Observed.simulated(clean, create("inpaint", keep=0.5))
    made = live.view_of(signal).sections(rippled(signal), 4000, {})
    values = numbers(made[-1].data["series"][0]["values"])
    np.testing.assert_array_equal(np.isfinite(values), signal.known.numpy())
    json_of(made)


# ------------------------------------------------------------------------------- what is made


def _with_domain(field: Field, signal) -> Field:
    field.domain = signal.domain
    return field


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_file_is_shown_as_inr_view_does(signals, kind, monkeypatch):
    monkeypatch.setattr("apps.view.shape.RESOLUTION", 24)
    signal = signals[kind]
    field = Ball() if kind == "shape" else rippled(signal)
    made = live.finished(_with_domain(field, signal), signal, 300_000)
    text = json_of(made)
    assert '"decoded"' in text
    assert len(text) <= 310_000


@pytest.mark.parametrize("name", ["inpaint", "ct"])
def test_a_finished_reconstruction_lies_beside_what_was_observed(name):
    signal = seen(name, **({"keep": 0.4} if name == "inpaint" else {"angles": 20}))
    field = _with_domain(rippled(signal), signal)
    made = live.finished(field, signal, 300_000)
    assert len(json_of(made)) <= 310_000
    if name == "ct":
        assert made[0].title == "Observed"
        assert "error" in json_of(made)
        return
    assert [one["name"] for one in made[0].data["panes"]] == ["observed", "decoded", "truth"]
    shown = pictures(made[0], "decoded")[0].astype(int)
    wanted = at(field, signal.domain, np.arange(64), np.arange(64))[..., 0]
    assert np.abs(shown - wanted).max() <= 1


# --------------------------------------------------------------------------------- examples


def test_examples_lie_with_the_studio_and_are_read():
    found = set()
    for name, (file, line) in EXAMPLES.items():
        path = path_of(name)
        assert path.parent == ASSETS
        assert line.endswith(".")
        if file.endswith(".inr"):
            assert inr.load(path).domain.shape == (512, 512)
        else:
            signal = inr.open(path)
            assert signal.objection is None
            found.add(signal.domain.kind)
    assert found == set(KINDS)
    for file in [*make_examples.MADE, "camera.inr"]:
        assert (ASSETS / file).stat().st_size <= 150_000


@pytest.mark.parametrize("file", make_examples.MADE)
def test_our_own_examples_are_what_the_script_makes(file, tmp_path):
    path = tmp_path / file
    path.write_bytes(make_examples.MADE[file]())
    made, kept = inr.open(path), inr.open(ASSETS / file)
    if isinstance(made, Shape):
        assert kept.solid.sign == "pseudonormal"  # it is closed
        assert not any("wrong way" in note for note in kept.notes)
        np.testing.assert_allclose(made.solid.vertices, kept.solid.vertices, atol=1e-5)
        return
    assert made.domain.shape == kept.domain.shape
    off = np.abs(made.samples.astype(float) - kept.samples.astype(float)).max()
    assert off <= (1e-4 if file == "waves.npz" else 1)  # sines differ by machine


def test_the_stored_camera_is_one():
    field = inr.load(path_of("camera.inr"))
    assert inr.open(path_of("camera")).metrics(field)["psnr"] > 32


def test_unknown_and_missing_examples_are_told(monkeypatch):
    with pytest.raises(UsageError, match="choose from camera"):
        path_of("../camera.png")
    monkeypatch.setitem(EXAMPLES, "lost", ("lost.png", "Lost."))
    with pytest.raises(InputError, match=r"lost\.png"):
        path_of("lost")
