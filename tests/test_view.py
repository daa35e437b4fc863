"""`inr view`: pages that are whole in themselves, hold what they say, and work in a browser."""

import base64
import io
import json
import shutil
import wave
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import PIL.Image
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

import fields
import inr
from apps.cli.main import main
from apps.cli.view import KINDS, render_page
from apps.view import pieces
from apps.view.page import Section, page
from inr.presets import Preset, Recipe
from inr.signals import KINDS as SIGNALS
from inr.signals import open_signal
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.image import Image
from inr.signals.shape import Shape
from inr.signals.video import Video
from inr.signals.volume import Volume

ALL = sorted(KINDS)
NAMES = {
    "array": "numbers.npy",
    "audio": "tone.wav",
    "image": "patch.png",
    "shape": "ball.ply",
    "video": "clip.npz",
    "volume": "scan.npz",
}


SMALL = Preset(
    "siren",
    {"hidden_features": 16, "hidden_layers": 1, "first_omega": 5.0},
    Recipe(lr=3e-3, steps=60, batch=4096),
)


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and the data of its widgets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.widgets: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._widget = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._widget = dict(attrs).get("data-widget", self._widget if tag == "script" else "")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("script", {"type": "application/json"}) and self._widget:
            self.widgets.append((self._widget, json.loads(data)))
            self._widget = ""
        self.texts.append(data)

    def widget(self, name: str) -> dict:
        return next(data for kind, data in self.widgets if kind == name)


def numbers(stored: dict) -> np.ndarray:
    """What the page's script makes of stored numbers."""
    raw = zlib.decompress(base64.b64decode(stored["data"]))
    if stored["type"] != "d2":
        return np.frombuffer(raw, f"<{stored['type']}")
    low, high = np.frombuffer(raw, np.uint8).reshape(2, -1).astype(np.uint16)
    return np.cumsum(low + (high << 8), dtype=np.uint16)


def samples_of(uri: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.fixture(scope="module")
def stored(tmp_path_factory, coffee) -> Path:
    """A folder of one small signal of each kind, and what was fitted to it for a moment."""
    folder = tmp_path_factory.mktemp("stored")
    patch = coffee[170:206, 240:292]
    PIL.Image.fromarray(patch).save(folder / NAMES["image"])
    x = np.linspace(-1, 1, 20)
    cube = x[:16, None, None] * x[None, :18, None] + np.sin(4 * x[:12])
    np.save(folder / NAMES["array"], cube)
    np.savez(folder / NAMES["volume"], volume=np.rint(500 * cube).astype(np.int16))
    frames = np.stack([np.roll(patch, 2 * k, 1) for k in range(6)])
    np.savez(folder / NAMES["video"], frames=frames, fps=12.5)
    sound = np.rint(9000 * np.sin(0.1 * np.arange(4000)[:, None] * [1, 1.5])).astype("<i2")
    with wave.open(str(folder / NAMES["audio"]), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(sound.tobytes())
    trimesh.creation.icosphere(2, 3.0).export(folder / NAMES["shape"])
    for kind in ALL:
        signal = open_signal(folder / NAMES[kind], kind=kind)
        if kind == "shape":
            signal.samples, signal.detail = 1 << 12, 24
        inr.save(inr.fit(signal, SMALL), folder / f"{kind}.inr")
    return folder


@pytest.fixture
def view(stored, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Run `inr view` in an empty folder; gives its exit code and what it said on stderr."""
    monkeypatch.setattr("apps.view.shape.RESOLUTION", 24)
    quick = {"detail": 24, "samples": 1 << 12}
    monkeypatch.setattr(Shape.from_mesh.__func__, "__kwdefaults__", quick)
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["view", *map(str, argv)])
        return code, capsys.readouterr().err

    return call


def made(path: str | Path) -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------- the page


def test_every_kind_of_signal_has_a_view():
    assert KINDS.keys() == SIGNALS.keys()


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", ALL)
def test_a_page_is_whole_in_itself(view, stored, kind, beside):
    options = ["--original", stored / NAMES[kind]] if beside else []
    assert view(stored / f"{kind}.inr", *options, "-o", "x.html") == (0, "")
    text = Path("x.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    found = Page(text)
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {t for t, _ in found.tags}
    assert not any({"src", "href", "srcset"} & a.keys() for _, a in found.tags)
    assert len(found.widgets) >= 1
    assert found.texts.count("original") == 0  # names lie in the data
    assert ("original" in json.dumps([data for _, data in found.widgets])) == beside
    assert any(f"{kind}.inr" in t for t in found.texts)


NASTY = "<script>alert(1)<!--&quot;'\"</script><img src=x onerror=alert(2)>.inr"


def test_a_name_is_never_markup(view, stored, tmp_path):
    # "/" cannot be in a name
    name = NASTY.replace("/", "\N{FRACTION SLASH}")
    shutil.copy(stored / "image.inr", tmp_path / name)
    assert view(name, "-o", "x.html")[0] == 0
    assert view(stored / "image.inr", "-o", "y.html")[0] == 0
    found, plain = made("x.html"), made("y.html")
    assert [t for t, _ in found.tags] == [t for t, _ in plain.tags]
    assert found.texts.count(name) == 2  # title and heading


@pytest.mark.parametrize("place", ["title", "highlight", "fact", "data", "note"])
def test_nothing_that_is_shown_is_markup(place):
    texts = {p: NASTY if p == place else p for p in ("title", "highlight", "fact", "data", "note")}
    section = Section("t", "panes", {"panes": [{"label": texts["data"]}]}, [texts["note"]])
    text = page(
        texts["title"], "i", {texts["highlight"]: "1"}, [section], {"k": texts["fact"]}
    )  # fmt: skip
    found = Page(text)
    assert sum(t == "script" for t, _ in found.tags) == 4  # data, palette, core and panes
    assert not any(t == "img" for t, _ in found.tags)
    if place == "data":
        assert found.widget("panes")["panes"][0]["label"] == NASTY
    else:
        assert NASTY in found.texts


def test_figures_at_the_top(view, stored):
    assert view(stored / "image.inr", "--original", stored / NAMES["image"])[0] == 0
    found = made(stored / "image.html")
    (stored / "image.html").unlink()
    field = inr.load(stored / "image.inr")
    quality = open_signal(stored / NAMES["image"]).metrics(field)["psnr"]
    place = found.texts.index("PSNR, measured")
    assert found.texts[place + 1] == f"{quality:.2f} dB"
    assert found.texts[found.texts.index("size") + 1].endswith(" bytes")
    assert found.texts[found.texts.index("siren: hidden_features") + 1] == "16"


# ------------------------------------------------------------------- what pages hold


def test_a_picture(view, stored):
    original = np.asarray(PIL.Image.open(stored / NAMES["image"]))
    assert view(stored / "image.inr", "--original", stored / NAMES["image"], "-o", "x.html")[0] == 0
    panes = {p["name"]: p for p in made("x.html").widget("panes")["panes"]}
    field = inr.load(stored / "image.inr")
    decoded = inr.render(field)
    assert np.array_equal(samples_of(panes["original"]["frames"][0]), original)
    assert np.array_equal(samples_of(panes["decoded"]["frames"][0]), decoded)
    twice = samples_of(panes["decoded at twice the size"]["frames"][0])
    assert np.array_equal(twice, inr.render(field, scale=2))
    error = np.abs(decoded.astype(float) - original).mean(-1)
    top = np.quantile(error, pieces.ERRORS_SHOWN)
    assert panes["error"]["bar"]["high"] == f"{top:.4g} of 255"
    shown = samples_of(panes["error"]["frames"][0])  # indices of a palette
    assert np.array_equal(shown, np.rint((255 * error / top).clip(0, 255)))


def test_a_sound(view, stored):
    assert view(stored / "audio.inr", "--original", stored / NAMES["audio"], "-o", "x.html")[0] == 0
    data = made("x.html").widget("sound")
    given, decoded, error = (_wav(track["src"]) for track in data["tracks"])
    original = _wav((stored / NAMES["audio"]).read_bytes())
    assert np.abs(given.astype(int) - original).max() <= 1
    rendered = inr.render(inr.load(stored / "audio.inr"))
    assert np.abs(decoded.astype(int) - rendered).max() <= 1
    assert np.abs(error.astype(int) - (decoded.astype(int) - given)).max() <= 2
    assert [s["label"].split(" (")[0] for s in data["spectrograms"]] == [
        f"spectrogram: {name}" for name in ("original", "decoded", "error")
    ]
    # two tones, of 127 and 191 Hz: the lowest of 257 bands of up to 4 kHz
    tone = samples_of(data["spectrograms"][0]["picture"])
    assert (len(tone) - 1 - tone.mean(1).argmax()) * 4000 / len(tone) < 250


def _wav(source: str | bytes) -> np.ndarray:
    data = source if isinstance(source, bytes) else base64.b64decode(source.partition(",")[2])
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 2)
        return np.frombuffer(file.readframes(-1), "<i2").reshape(-1, 2)


@pytest.mark.parametrize("kind", ["array", "volume"])
def test_slices(view, stored, kind):
    path = stored / NAMES[kind]
    assert view(stored / f"{kind}.inr", "--original", path, "-o", "x.html")[0] == 0
    data = made("x.html").widget("slices")
    original = open_signal(path, kind=kind).samples[..., 0].astype(float)
    decoded = inr.render(inr.load(stored / f"{kind}.inr"))[..., 0].astype(float)
    assert data["shape"] == [16, 18, 12]
    for signal, truth in zip(data["signals"], (original, decoded, decoded - original), strict=True):
        values = numbers(signal["channels"][0]).reshape(data["shape"])
        shown = signal["low"] + values / signal["levels"] * (signal["high"] - signal["low"])
        step = (signal["high"] - signal["low"]) / signal["levels"]
        assert np.abs(shown - truth).max() <= (0.51 * step if kind == "array" else 1e-9)
    window = data["window"]
    assert original.min() <= window[0] < window[1] <= original.max()


def test_a_volume_is_seen_upright(stored, tmp_path, view):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 99, (5, 6, 7)).astype(np.int16)  # to the left, up, to the front
    affine = np.array([[-2, 0, 0, 0], [0, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(samples, affine), tmp_path / "v.nii")
    signal = open_signal(tmp_path / "v.nii")
    fit = inr.fit(signal, fields.Siren(3, 1, hidden_features=4, hidden_layers=1), steps=0)
    inr.save(fit, tmp_path / "v.inr")
    assert view("v.inr", "--original", "v.nii")[0] == 0
    data = made("v.html").widget("slices")
    # z from the top, y from the front, x from the left
    expected = samples.transpose(1, 2, 0)[::-1, ::-1, ::-1]
    signal_data = data["signals"][0]
    shown = numbers(signal_data["channels"][0]).reshape(data["shape"]) + signal_data["low"]
    assert np.array_equal(shown, expected)
    assert data["spacing"] == [3, 1, 2]


def test_a_clip(view, stored):
    path = stored / NAMES["video"]
    assert view(stored / "video.inr", "--original", path, "-o", "x.html")[0] == 0
    data = made("x.html").widget("panes")
    panes = {p["name"]: p["frames"] for p in data["panes"]}
    original = np.load(path)["frames"]
    decoded = inr.render(inr.load(stored / "video.inr"))
    assert np.array_equal([samples_of(f) for f in panes["original"]], original)
    shown = np.stack([samples_of(f) for f in panes["decoded"]]).astype(int)
    assert np.abs(shown - decoded).max() <= 1
    assert data["stack"]["fps"] == 12.5


def test_a_shape(view, stored):
    assert view(stored / "shape.inr", "--original", stored / NAMES["shape"], "-o", "x.html")[0] == 0
    data = made("x.html").widget("mesh")
    given, decoded = data["meshes"]
    low, high = np.array(data["low"]), np.array(data["high"])
    places = low + numbers(given["positions"]).reshape(-1, 3) / 65535 * (high - low)
    assert np.allclose(np.linalg.norm(places, axis=1), 3, atol=0.01)
    triangles = numbers(given["faces"]).reshape(-1, 3)
    assert len(triangles) == 320
    assert len(numbers(decoded["values"])) == len(numbers(decoded["positions"])) / 3
    # seen counter-clockwise from outside
    for mesh in (given, decoded):
        p = numbers(mesh["positions"]).reshape(-1, 3) / 65535.0 * (high - low)
        a, b, c = p[numbers(mesh["faces"]).reshape(-1, 3).T]
        assert (np.cross(a, b) * c).sum() > 0


def test_a_shape_is_seen_as_it_was_fitted(stored):
    from apps.view.shape import as_fitted

    path = stored / NAMES["shape"]
    occupancy = open_signal(path, kind="shape", target="occupancy")
    seen = as_fitted(open_signal(path, kind="shape"), occupancy.domain)
    assert seen.domain == occupancy.domain
    points = np.random.default_rng(0).uniform(-3.2, 3.2, (100, 3))
    assert np.array_equal(seen.values(points), occupancy.values(points))


def test_meshes_are_made_coarse():
    from apps.view.shape import simplified

    ball = trimesh.creation.icosphere(5, 2.0)
    vertices, faces = simplified(np.array(ball.vertices), np.array(ball.faces), 3000)
    assert 500 < len(faces) <= 3000
    assert faces.max() < len(vertices)
    assert np.allclose(np.linalg.norm(vertices, axis=1), 2, atol=0.05)
    kept = simplified(np.array(ball.vertices), np.array(ball.faces), 1 << 20)
    assert kept[1].shape == ball.faces.shape


def test_curves_of_one_axis(tmp_path, view):
    values = np.sin(np.linspace(0, 9, 50)) + 1e-9 * np.arange(50)
    np.save(tmp_path / "a.npy", values)
    signal = open_signal(tmp_path / "a.npy", kind="array")
    inr.save(inr.fit(signal, fields.Siren(1, 1, hidden_features=4), steps=0), tmp_path / "a.inr")
    assert view("a.inr", "--original", "a.npy")[0] == 0
    data = made("a.html").widget("plot")
    assert [s["name"] for s in data["series"]] == ["original", "decoded", "error"]
    assert np.array_equal(numbers(data["series"][0]["values"]), values.astype("f4"))


def test_arrays_of_many_axes_and_channels(tmp_path, view):
    samples = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 7))
    np.save(tmp_path / "a.npy", samples)
    signal = ArraySignal.from_array(samples, channels_last=True)
    inr.save(inr.fit(signal, fields.Siren(4, 7, hidden_features=4), steps=0), tmp_path / "a.inr")
    assert view("a.inr")[0] == 0
    found = made("a.html")
    data = found.widget("slices")
    assert data["shape"] == [3, 4, 5]
    assert len(data["signals"][0]["channels"]) == 6
    assert any("axis 0 at 1" in t for t in found.texts)
    assert any("6 of 7 channels" in t for t in found.texts)


SMALLEST = {
    "array-one": np.zeros(1),
    "array-flat": np.full((9, 10), 7.0),
    "array-long": np.linspace(0, 1, 300)[:, None, None] * np.ones((1, 2, 1)),
    "image-one": np.full((1, 1, 3), 9, np.uint8),
    "image-row": np.arange(40, dtype=np.uint8)[None],
    "image-alpha": np.stack([np.eye(12, dtype=np.uint16) * 60_000] * 2, -1),
    "image-float": np.linspace(-3, 5, 90, dtype=np.float32).reshape(9, 10),
    "audio-one": np.ones((1, 1), np.int16),
    "audio-silent": np.zeros((500, 3), np.int16),
    "audio-loud": 4 * np.sin(np.arange(600, dtype=np.float32))[:, None],
    "volume-one": np.ones((1, 1, 1), np.int16),
    "volume-flat": np.arange(40, dtype=np.float32).reshape(1, 4, 10),
    "video-two": np.zeros((2, 1, 1, 1), np.uint8),
}


def signal_of(name: str):
    kind, samples = name.partition("-")[0], SMALLEST[name]
    made = {
        "array": ArraySignal.from_array,
        "image": Image.from_array,
        "audio": lambda x: Audio.from_array(x, 2000),
        "volume": Volume.from_array,
        "video": Video.from_array,
    }
    return made[kind](samples)


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_signals(name, beside):
    signal = signal_of(name)
    fit = inr.fit(signal, SMALL, steps=0)
    data = inr.encode(fit.field, signal)
    text = render_page(f"{name}.inr", data, inr.decode(data), signal if beside else None, 1 << 20)
    assert "NaN" not in text
    assert Page(text).widgets


# ------------------------------------------------------------------------------- pieces


@given(arrays.arrays(np.uint16, st.integers(0, 40)))
def test_deflated_numbers_come_back(values):
    assert np.array_equal(numbers(pieces.deflated(values)), values)


@given(arrays.arrays(np.float32, st.integers(0, 40)))
def test_deflated_floats_come_back(values):
    assert numbers(pieces.deflated(values)).tobytes() == values.tobytes()


@given(
    arrays.arrays(
        np.int16,
        arrays.array_shapes(min_dims=4, max_dims=4, max_side=5),
        elements=st.integers(-2000, 2000),
    )
)
def test_narrow_integers_are_exact(samples):
    limits = (float(samples.min()), float(samples.max()))
    stored = pieces.lattice("x", samples, limits, "grey")
    channels = [numbers(c).reshape(samples.shape[:3]) for c in stored["channels"]]
    assert np.array_equal(np.stack(channels, -1) + limits[0], samples)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3), st.data())
def test_block_means(sizes, data):
    shape = tuple(n * f for n, f in sizes)
    samples = data.draw(arrays.arrays(np.uint8, (*shape, 2)))
    means = pieces.block_means(samples, [f for _, f in sizes])
    for place in np.ndindex(*(n for n, _ in sizes)):
        block = tuple(slice(i * f, (i + 1) * f) for i, (_, f) in zip(place, sizes, strict=True))
        expected = samples[block].reshape(-1, 2).astype(float).mean(0)
        assert np.abs(means[place] - expected).max() <= 0.5


def test_a_reduced_lattice_registers(stored):
    field = inr.load(stored / "image.inr")
    image = open_signal(stored / NAMES["image"])
    whole = pieces.sampled(field, image, 36 * 52)
    assert (whole.factors, whole.notes) == ((1, 1), [])
    found = pieces.sampled(field, image, 500)
    assert found.factors == (2, 2)
    assert "2 x 2" in found.notes[0]
    means = pieces.block_means(whole.decoded, (2, 2)).astype(int)
    inside = (whole.decoded > 0) & (whole.decoded < 255)  # what is cut off is averaged before
    inside = inside.reshape(18, 2, 26, 2, 3).all((1, 3))
    assert inside.mean() > 0.3
    assert np.abs(found.decoded - means)[inside].max() <= 1
    assert np.array_equal(found.original, pieces.block_means(image.samples, (2, 2)))


def test_spectra_are_where_the_signal_is():
    x = np.cos(np.pi * 0.5 * (np.arange(64) + 0.5))
    wave_ = np.broadcast_to(x[:, None, None], (64, 64, 1))
    power, planes = pieces.spectra(pieces.Sampled(wave_, None, (1, 1)))
    curve = numbers(power.data["series"][0]["values"])
    assert np.nanargmax(curve) == len(curve) // 2
    picture = samples_of(planes.data["panes"][0]["frames"][0])
    assert {tuple(p) for p in np.argwhere(picture == 255)} == {(16, 32), (48, 32)}


def test_spectra_of_the_middle(monkeypatch):
    monkeypatch.setattr("apps.view.pieces.SPECTRUM_NUMBERS", 20 * 64)
    samples = np.random.default_rng(0).normal(size=(50, 64, 1))
    power, planes = pieces.spectra(pieces.Sampled(samples, samples, (1, 1)))
    assert power.notes == ["Of the middle 20 of 50."]
    assert planes.data["size"] == [64, 20]


# ------------------------------------------------------------------------------- limits


def test_a_page_keeps_to_its_size(view, tmp_path):
    rng = np.random.default_rng(0)  # noise: nothing makes it small
    PIL.Image.fromarray(rng.integers(0, 256, (700, 800, 3), np.uint8)).save(tmp_path / "a.png")
    signal = open_signal(tmp_path / "a.png")
    inr.save(inr.fit(signal, fields.Siren(2, 3, hidden_features=4), steps=0), tmp_path / "a.inr")
    assert view("a.inr", "--original", "a.png", "--max-mb", "1")[0] == 0
    assert Path("a.html").stat().st_size < 1.1e6
    assert any("reduced size" in t for t in made("a.html").texts)


def test_a_long_sound_is_cut_and_a_long_clip_thinned(view, stored, monkeypatch):
    monkeypatch.setattr("apps.view.audio.COLUMNS", 50)
    assert view(stored / "audio.inr", "-o", "x.html")[0] == 0
    import apps.view.audio
    import apps.view.video

    field = inr.load(stored / "audio.inr")
    (sound, *_) = apps.view.audio.sections(field, None, 8000)
    assert any("The first 0.2 of 0.5 seconds" in note for note in sound.notes)
    field = inr.load(stored / "video.inr")
    clip = apps.view.video.sections(field, None, 6000)[0]
    assert any("reduced size" in note for note in clip.notes)
    monkeypatch.setattr("apps.view.video.FRAMES", 3)
    clip = apps.view.video.sections(field, None, 12_000)[0]
    assert any("of 6 frames" in note for note in clip.notes)
    assert clip.data["stack"]["fps"] < 12.5


def test_output(view, stored, capsys):
    assert view(stored / "image.inr", "-o", "x.html")[0] == 0
    code, told = view(stored / "image.inr", "-o", "x.html")
    assert (code, "exists already" in told) == (5, True)
    assert view(stored / "image.inr", "-o", "x.html", "-f")[0] == 0
    assert main(["view", str(stored / "image.inr"), "-o", "-"]) == 0
    assert capsys.readouterr().out.endswith("</html>\n")


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (["nix.inr"], 3, "nix.inr"),
        (["patch.png"], 3, "patch.png"),
        (["cut.inr"], 3, "cut.inr"),
        (["image.inr", "--original", "nix.png"], 3, "nix.png"),
        (["image.inr", "--original", "tone.wav"], 3, "tone.wav"),
        (["image.inr", "--original", "small.png"], 3, "small.png: is 8 x 9 of 3 x uint8, but"),
        (["image.inr", "--original", "grey.png"], 3, "grey.png: is 36 x 52 of 1 x uint8, but"),
        (["image.inr", "--original", "image.inr"], 3, "is an .inr file already"),
        (["audio.inr", "--original", "patch.png"], 3, "patch.png"),
        (["shape.inr", "--original", "patch.png"], 3, "patch.png"),
        (["shape.inr", "--original", "other.ply"], 3, "other.ply: is a shape of 42 vertices"),
        (["image.inr", "--original", "patch.png", "--volume.index", "1"], 2, "no input is of"),
        (["volume.inr", "--original", "numbers.npy"], 3, "numbers.npy"),
        (["-"], 2, "-o"),
        (["image.inr", "--max-mb", "0"], 2, "--max-mb is 0"),
        (["image.inr", "--max-mb", "nan"], 2, "max_mb"),
        (["image.inr", "--max-mb", "1e9"], 2, "--max-mb"),
        (["image.inr", "-o", "nowhere/x.html"], 5, "nowhere/x.html"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_written(
    view, stored, tmp_path, coffee, argv, code, told
):
    for path in stored.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "cut.inr").write_bytes((stored / "image.inr").read_bytes()[:-20])
    PIL.Image.fromarray(coffee[:8, :9]).save(tmp_path / "small.png")
    PIL.Image.fromarray(coffee[170:206, 240:292, 0]).save(tmp_path / "grey.png")
    trimesh.creation.icosphere(1, 3.0).export(tmp_path / "other.ply")
    before = sorted(tmp_path.iterdir())
    got, said = view(*argv)
    assert (got, said.count("\n")) == (code, 1), said
    assert said.startswith("inr: ")
    assert told in said
    assert sorted(tmp_path.iterdir()) == before


# ------------------------------------------------------------------------- in a browser

COLOURS = """(canvas) => {
  const flat = document.createElement("canvas");
  flat.width = canvas.width; flat.height = canvas.height;
  flat.getContext("2d").drawImage(canvas, 0, 0);
  const data = flat.getContext("2d").getImageData(0, 0, flat.width, flat.height).data;
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 4).join());
  return seen.size;
}"""


# A browser may draw edges and letters a little differently from one time to the next.
CHANGED = 0.01


def unlike(one: str, other: str) -> float:
    """The share of two looks' pixels that differ by more than a quarter of full scale."""
    a, b = (samples_of(look).astype(int) for look in (one, other))
    return float((np.abs(a - b).max(-1) > 64).mean()) if a.shape == b.shape else 1.0


FRAMES = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


class Tab:
    """A page in the browser, with all that it complained of or asked for."""

    def __init__(self, browser, path: Path, width: int = 1000) -> None:
        from playwright.sync_api import expect

        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", self._asked)
        self.page.goto(path.resolve().as_uri())
        ready = "[data-widget]:not([data-ready])"
        expect(self.page.locator(ready)).to_have_count(0, timeout=30_000)
        self.settle()

    def _asked(self, request) -> None:
        if not request.url.startswith(("data:", "file:", "blob:")):
            self.complaints.append(request.url)

    def settle(self) -> None:
        """Two frames: what was asked for is drawn."""
        self.page.evaluate(FRAMES)

    def until(self, check: Callable[[], bool]) -> None:
        """Wait for what takes longer, such as the decoding of a picture."""
        for _ in range(100):
            if check():
                return
            self.page.wait_for_timeout(100)
        pytest.fail("it does not come about")

    def canvases(self) -> list:
        return [c for c in self.page.locator("canvas").all() if c.is_visible()]

    def look(self) -> list[str]:
        return [c.evaluate("(c) => c.toDataURL()") for c in self.canvases()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_a_page_in_a_browser(view, stored, browser, kind):
    path = stored / NAMES[kind]
    assert view(stored / f"{kind}.inr", "--original", path, "-o", "x.html")[0] == 0
    tab = Tab(browser, Path("x.html"))
    assert tab.complaints == []
    canvases = tab.canvases()
    assert len(canvases) >= 2
    tab.until(lambda: all(canvas.evaluate(COLOURS) > 4 for canvas in canvases))

    canvases[0].focus()
    tab.page.keyboard.press("0")
    tab.settle()
    before = tab.look()
    for key in ("+", "+", "ArrowLeft"):
        tab.page.keyboard.press(key)
    tab.until(lambda: unlike(tab.look()[0], before[0]) > CHANGED)
    tab.page.keyboard.press("0")
    tab.until(lambda: unlike(tab.look()[0], before[0]) < CHANGED)
    sliders = tab.page.locator("input[type=range]")
    if kind in ("array", "video", "volume"):
        sliders.first.focus()
        tab.page.keyboard.press("ArrowRight")
        tab.until(lambda: tab.look()[0] != before[0])
    assert tab.complaints == []
    tab.page.close()


@pytest.mark.slow
def test_before_and_after(view, stored, browser):
    path = stored / NAMES["image"]
    assert view(stored / "image.inr", "--original", path, "-o", "x.html")[0] == 0
    tab = Tab(browser, Path("x.html"))
    tab.page.get_by_role("button", name="Before / after").first.click()
    tab.settle()
    both = tab.page.get_by_label("before and after", exact=True)
    looks = []
    for share in ("0", "0.5", "1"):
        tab.page.get_by_label("divider").first.fill(share)
        tab.settle()
        looks.append(both.evaluate("(c) => c.toDataURL()"))
    assert len(set(looks)) == 3
    # the divider is dragged on the picture, too
    box = both.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=4)
    tab.page.mouse.up()
    tab.settle()
    value = float(tab.page.get_by_label("divider").first.input_value())
    assert value == pytest.approx(0.5, abs=0.02)
    tab.page.close()


@pytest.mark.slow
def test_sound_plays_and_is_sought_in_its_wave(view, stored, browser):
    path = stored / NAMES["audio"]
    assert view(stored / "audio.inr", "--original", path, "-o", "x.html")[0] == 0
    tab = Tab(browser, Path("x.html"))
    audio = tab.page.locator("audio").nth(1)
    assert audio.evaluate("(a) => a.duration") == pytest.approx(0.5, abs=0.01)
    box = tab.canvases()[0].bounding_box()
    tab.page.mouse.click(box["x"] + 0.5 * (box["width"] + 48), box["y"] + 60)
    tab.until(lambda: abs(audio.evaluate("(a) => a.currentTime") - 0.25) < 0.01)
    tab.page.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_a_page_fits_a_phone(view, stored, browser, kind):
    path = stored / NAMES[kind]
    assert view(stored / f"{kind}.inr", "--original", path, "-o", "x.html")[0] == 0
    tab = Tab(browser, Path("x.html"), width=360)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.complaints == []
    tab.page.close()


@pytest.mark.slow
def test_pages_of_the_smallest_signals(browser, tmp_path):
    for name in SMALLEST:
        signal = signal_of(name)
        data = inr.encode(inr.fit(signal, SMALL, steps=0).field, signal)
        path = tmp_path / f"{name}.html"
        path.write_text(render_page(name, data, inr.decode(data), signal, 1 << 20))
        tab = Tab(browser, path)
        assert tab.complaints == [], name
        tab.page.close()
