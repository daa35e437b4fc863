"""`inr compare`: other codecs as they are, curves by Bjontegaard, tables and a page that agree."""

import csv
import json
import math
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr
import inr.signals.base
from apps.cli.main import main
from apps.compare import clips, pictures, shapes, sounds
from apps.compare.bjontegaard import bd_quality, bd_rate, curve
from apps.compare.codec import chosen
from apps.compare.kinds import KINDS
from apps.compare.own import size
from apps.compare.runner import Journal
from inr.errors import InputError, UsageError
from inr.metrics import psnr_arrays
from inr.signals.audio import Audio
from inr.signals.image import Image
from inr.signals.shape import Shape
from inr.signals.video import Video
from tests.test_view import Page, Tab


def some_file(signal: inr.signals.base.Signal, seed: int = 0) -> bytes:
    """An `.inr` file of a signal's domain; what it holds is of no matter."""
    torch.manual_seed(seed)
    field = fields.Siren(2, signal.channels, hidden_features=16, hidden_layers=1)
    field.domain = signal.domain
    return inr.encode(field)


# ---------------------------------------------------------------------------- Bjontegaard

steps = st.floats(0.05, 2.0)
curves = st.lists(st.tuples(steps, steps), min_size=2, max_size=8).map(
    lambda pairs: [*zip(*np.cumsum(pairs, 0).T.tolist(), strict=True)]
)


@settings(deadline=None)
@given(curves, st.floats(0.2, 5.0), st.floats(-0.9, 0.9))
def test_a_constant_factor_of_rate_is_the_bd_rate(points, factor, shift):
    reference = curve((math.exp(x), y) for x, y in points)
    dearer = curve((factor * math.exp(x), y) for x, y in points)
    # exact but for rounding: the interpolation moves with its points
    assert bd_rate(reference, dearer) == pytest.approx(factor - 1, rel=1e-6, abs=1e-6)
    assert bd_rate(reference, reference) == 0
    better = curve((math.exp(x), y + shift) for x, y in points)
    assert bd_quality(reference, better) == pytest.approx(shift, rel=1e-6, abs=1e-6)
    there, back = bd_rate(reference, dearer), bd_rate(dearer, reference)
    assert (1 + there) * (1 + back) == pytest.approx(1)


@pytest.mark.parametrize(
    ("reference", "test", "rate", "quality"),
    [
        # the example of FAU's package "bjontegaard" 1.3 (x265 at two presets), and the one that
        # other implementations come with; values are what that package gives by PCHIP, which
        # agrees with the sheet of JVET-T2010
        (
            [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)],
            [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)],
            -4.417485350589045,
            0.11969278542479489,
        ),
        (
            [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)],
            [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)],
            31.379878202397627,
            -1.1834724046224592,
        ),
    ],
)
def test_published_examples(reference, test, rate, quality):
    assert 100 * bd_rate(curve(reference), curve(test)) == pytest.approx(rate, rel=1e-9)
    assert bd_quality(curve(reference), curve(test)) == pytest.approx(quality, rel=1e-9)


def test_curves_that_do_not_meet():
    low, high = curve([(1, 20), (2, 25)]), curve([(4, 30), (8, 35)])
    assert bd_rate(low, high) is None
    assert bd_quality(low, high) is None
    assert bd_rate(low, curve([])) is None
    assert bd_rate(curve([(1, math.nan), (2, math.inf)]), low) is None
    # one point counts where it is: half of what the reference needs for 30 dB
    assert bd_rate(high, curve([(2, 30)])) == pytest.approx(-0.5)
    assert bd_rate(high, curve([(2, 29)])) is None


@settings(deadline=None)
@given(curves, st.randoms(use_true_random=False))
def test_what_is_beaten_changes_nothing(points, random):
    own = [(math.exp(x), y) for x, y in points]
    best = curve(own)
    worse = [(r * (1 + random.random()), q - random.random()) for r, q in own]
    mixed = [*own, *worse, (1.0, math.inf), (0.0, 3.0)]
    random.shuffle(mixed)
    assert curve(mixed) == best


# ------------------------------------------------------------------------------- codecs


def test_settings_are_spread_over_the_ladder():
    assert chosen((1, 2, 3, 4, 5), 3) == (1, 3, 5)
    assert chosen((1, 2, 3), 9) == (1, 2, 3)
    assert chosen((1, 2, 3), 1) == (2,)
    for kind in KINDS.values():
        for codec in kind.codecs:
            assert len(set(map(codec.label, codec.ladder))) == len(codec.ladder)


def ladder(codec, signal, measure, settings) -> list[tuple[int, float]]:
    """(bytes, quality) at several settings; what is decoded is of the signal's own type."""
    found = []
    for setting in settings:
        data = codec.encode(signal, setting)
        decoded = codec.decode(data, signal)
        found.append((len(data), measure(signal, decoded)))
    return found


@pytest.mark.parametrize("codec", pictures.CODECS, ids=lambda c: c.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures(codec, channels, coffee):
    samples = coffee[150:270, 200:331, :channels]
    signal, notes = pictures.prepared(Image.from_array(samples))
    assert not notes
    assert codec.about()
    ends = (codec.ladder[1], codec.ladder[-2])
    (small, poor), (large, good) = ladder(codec, signal, pictures.measure, ends)
    assert small < large
    # the figures of a photograph at the ends of usual qualities
    assert 20 < poor["psnr"] < 36 < good["psnr"] < 60


def test_pictures_that_others_cannot_hold(coffee):
    opaque = np.dstack([coffee, np.full(coffee.shape[:2], 255, np.uint8)])
    signal, notes = pictures.prepared(Image.from_array(opaque))
    assert signal.channels == 3
    assert "alpha" in notes[0]
    opaque[0, 0, 3] = 9
    for samples in (opaque, coffee.astype(np.uint16), coffee / 255):
        with pytest.raises(InputError, match="picture|transparent"):
            pictures.prepared(Image.from_array(samples))
    wide = Image.from_array(np.zeros((2, 20_000, 3), np.uint8))
    webp = next(c for c in pictures.CODECS if c.name == "webp")
    with pytest.raises(InputError, match="cannot be held"):  # sides are 16,383 pixels at most
        webp.encode(wide, 50)


def tone(rate: int, seconds: float, channels: int) -> np.ndarray:
    """A chord that swells, with some noise, float32."""
    t = np.arange(int(rate * seconds))[:, None] / rate
    pitch = 220 * (1 + np.arange(channels) / 2)
    chord = np.sin(2 * np.pi * pitch * t) + 0.5 * np.sin(2 * np.pi * 3.01 * pitch * t)
    noise = np.random.default_rng(0).normal(0, 0.02, chord.shape)
    return (0.3 * (0.2 + t / seconds) * chord + noise).astype(np.float32)


@pytest.mark.parametrize("codec", sounds.CODECS, ids=lambda c: c.name)
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (9_600, 1)])
def test_sounds(codec, rate, channels):
    samples = tone(rate, 1.5, channels)
    signal, _ = sounds.prepared(Audio.from_array(samples, rate))
    (small, poor), (large, good) = ladder(codec, signal, sounds.measure, (16, 64))
    assert small < large
    # a delay of one sample of 24 would cost more than this already
    assert good["snr"] > 15
    assert poor["snr"] < good["snr"]
    assert good["lsd"] < poor["lsd"]
    whole = np.rint(samples * 32767).astype(np.int16)
    coarse, _ = sounds.prepared(Audio.from_array(whole, rate))
    decoded = codec.decode(codec.encode(coarse, 64), coarse)
    assert decoded.dtype == np.int16
    # integers are the same sound: full scale is full scale
    assert sounds.measure(coarse, decoded)["snr"] == pytest.approx(good["snr"], abs=0.5)


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (400, 2), elements=st.floats(-1, 1, width=32)),
    st.integers(-90, 90),
    st.integers(0, 50),
)
def test_a_delay_is_found(ripple, delay, more):
    sound = ripple / 8 + np.random.default_rng(1).normal(0, 1, (400, 2)).astype(np.float32)
    late = np.zeros((400 + 90 + more, 2), np.float32)
    source = sound[max(0, -delay) :]
    late[max(0, delay) :][: len(source)] = source
    found = sounds.aligned(late, sound, 100)
    kept = slice(max(0, -delay), 400)
    np.testing.assert_array_equal(found[kept], sound[kept])
    assert not found[: kept.start].any()


def test_an_offset_counts_for_nothing():
    sound = tone(8000, 1, 1)
    signal = Audio.from_array(sound + 0.3, 8000)
    error = np.random.default_rng(2).normal(0, 0.01, sound.shape)
    found = [sounds.measure(signal, (sound + x + error).astype(np.float32)) for x in (0.3, 0)]
    expected = 10 * math.log10(sound.var() / error.var())
    assert [f["snr"] for f in found] == pytest.approx([expected] * 2, abs=0.01)


@pytest.mark.parametrize("codec", clips.CODECS, ids=lambda c: c.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_clips(codec, channels, coffee):
    # odd sides, which 4:2:0 has none of
    frames = np.stack([coffee[100 + k : 175 + k, 200 + 2 * k : 301 + 2 * k] for k in range(8)])
    signal, _ = clips.prepared(Video.from_array(frames[..., :channels]))
    (small, poor), (large, good) = ladder(codec, signal, clips.measure, (38, 18))
    assert small < large
    assert 20 < poor["psnr"] < 36 < good["psnr"] < 50


def test_a_mesh():
    ball = trimesh.creation.icosphere(3, 3.0)
    mesh = inr.meshes.make_mesh(ball.vertices + 100, ball.faces)
    signal, _ = shapes.prepared(Shape.from_mesh(mesh, samples=1 << 12))
    draco = shapes.CODECS[0]
    (small, poor), (large, good) = ladder(draco, signal, shapes.measure, (6, 11))
    assert small < large
    # a step of b bits is the longest side over 2^b; coordinates are off by a quarter of it in the
    # mean, the distance to the surface by somewhat less
    for bits, found in ((6, poor), (11, good)):
        step = 6.0 / 2**bits
        assert step / 16 < found["chamfer"] < step / 2
        assert found["chamfer_share"] == pytest.approx(found["chamfer"] / signal.solid.diagonal)
    assert 0.9 < poor["iou"] < good["iou"] <= 1


# ------------------------------------------------------------------------------ anchors


@pytest.fixture
def anchors(shared) -> Callable[[str], list[dict[str, str]]]:
    """Rows of what others measured with the same libraries on the shared signals."""
    folder = shared.parent / "rd"
    if not folder.is_dir():
        pytest.skip(f"no anchors at {folder}")

    def rows(name: str) -> list[dict[str, str]]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return rows


@pytest.mark.parametrize(
    ("codec", "named", "settings"),
    [
        ("jpeg", "jpeg 4:2:0", {"quality=10": 10, "quality=80": 80}),
        ("jpeg-444", "jpeg 4:4:4", {"quality=30": 30}),
        ("webp", "webp m6", {"quality=20": 20}),
        ("avif", "avif 4:4:4 speed6", {"quality=40": 40}),
        ("jp2", "jpeg2000 (9/7, mct)", {"rate=1/80": 80, "rate=1/20": 20}),
    ],
)
def test_pictures_are_where_others_measured_them(shared, anchors, codec, named, settings):
    signal, _ = pictures.prepared(inr.open(shared / "kodak" / "kodim01.png"))
    coder = next(c for c in pictures.CODECS if c.name == codec)
    for note, setting in settings.items():
        row = next(
            r
            for r in anchors("kodak_dev8_measured_per_image.csv")
            if (r["codec"], r["image"]) == (named, "kodim01") and r["note"].split(";")[0] == note
        )
        data = coder.encode(signal, setting)
        found = pictures.measure(signal, coder.decode(data, signal))
        # another build of a library may decide a little differently
        assert size(signal, len(data)) == pytest.approx(float(row["bpp"]), rel=0.02)
        assert found["psnr"] == pytest.approx(float(row["psnr_db"]), abs=0.05)


def test_sounds_clips_and_meshes_are_where_others_measured_them(shared, anchors):
    signal, _ = sounds.prepared(inr.open(shared / "audio" / "gt_bach.wav"))
    for codec, name, rate in zip(sounds.CODECS, ("libopus", "libmp3lame"), (6, 96), strict=True):
        row = next(
            r
            for r in anchors("audio_dev_measured.csv")
            if (r["clip"], r["codec"], r["requested_bps"]) == ("gt_bach", name, f"{rate}000")
        )
        data = codec.encode(signal, rate)
        found = sounds.measure(signal, codec.decode(data, signal))
        assert size(signal, len(data)) == pytest.approx(float(row["kbps_file"]), rel=0.02)
        assert found["snr"] == pytest.approx(float(row["snr_db_mean_removed"]), abs=0.1)

    clip, _ = clips.prepared(inr.open(shared / "video" / "carphone_60f_176x144.npz"))
    row = next(
        r
        for r in anchors("video_dev_measured.csv")
        if (r["codec"], r["setting"]) == ("libx265 yuv444p", "crf=33")
        and r["clip"].startswith("carphone")
    )
    data = clips.CODECS[0].encode(clip, 33)
    found = clips.measure(clip, clips.CODECS[0].decode(data, clip))
    # theirs are the packets, without the few bytes between them
    assert int(row["bytes"]) <= len(data) < 1.02 * int(row["bytes"]) + 100
    assert found["psnr"] == pytest.approx(float(row["psnr_db_of_mean_mse"]), abs=0.05)

    mesh, _ = shapes.prepared(inr.open(shared / "mesh" / "spot.obj"))
    row = next(
        r
        for r in anchors("mesh_dev_draco_measured.csv")
        if (r["codec"], r["mesh"]) == ("draco qp=8 cl=10", "spot.obj")
    )
    assert len(shapes.CODECS[0].encode(mesh, 8)) == pytest.approx(int(row["bytes"]), rel=0.01)


# ------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory, coffee) -> Path:
    """Two pictures, one with its `.inr` file, a sound, and what is none of them."""
    made = tmp_path_factory.mktemp("compared")
    for name, rows in (("a<b>.png", slice(100, 196)), ("b.png", slice(200, 296))):
        PIL.Image.fromarray(coffee[rows, 200:328]).save(made / name)
    (made / "b-small.inr").write_bytes(some_file(inr.open(made / "b.png")))
    with wave.open(str(made / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.rint(30_000 * tone(16_000, 1, 1)).astype("<i2").tobytes())
    (made / "broken.png").write_bytes((made / "b.png").read_bytes()[:900])
    np.save(made / "scan.npy", np.zeros((6, 7, 8), np.int16))
    return made


@pytest.fixture
def compare(folder, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, list[dict], str]]:
    """Run `inr compare` in an empty folder; gives its exit code, events and complaints."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object, out: str = "out") -> tuple[int, list[dict], str]:
        capsys.readouterr()
        names = [folder / a if str(a) in found else a for a in argv]
        code = main(["compare", "--json", "--out-dir", out, *map(str, names)])
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines()], said.err

    found = {path.name for path in folder.iterdir()}
    return call


def table(path: str = "out/points.csv") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_page_say_what_was_measured(compare, folder):
    code, events, err = compare(
        "a<b>.png", "b.png", "b-small.inr", "tone.wav", "--codecs", "jpeg,webp,mp3", "--points", 3
    )
    assert (code, err) == (0, "")
    points = [e for e in events if e["event"] == "point"]
    assert [e["done"] for e in points] == list(range(1, 17))
    assert {e["expected"] for e in points} == {16}

    rows = table()
    assert len(rows) == 16
    for row in rows:
        signal = inr.open(row["file"])
        unit = {"image": "bpp", "audio": "kbps"}[row["kind"]]
        assert float(row[unit]) == pytest.approx(size(signal, int(row["bytes"])), rel=1e-3)
    (stored,) = [row for row in rows if row["codec"] == "stored"]
    data = (folder / "b-small.inr").read_bytes()
    picture = inr.render(inr.decode(data))
    truth = inr.open(folder / "b.png").samples
    assert Path(stored["file"]).name == "b.png"
    assert int(stored["bytes"]) == len(data)
    assert float(stored["psnr"]) == pytest.approx(psnr_arrays(picture, truth, 255), abs=1e-3)
    assert stored["encode_seconds"] == ""
    jpeg = next(r for r in rows if r["codec"] == "jpeg" and r["file"].endswith("b.png"))
    signal = inr.open(jpeg["file"])
    quality = int(jpeg["setting"].removeprefix("quality "))
    assert int(jpeg["bytes"]) == len(pictures.CODECS[0].encode(signal, quality))

    means = [r for r in table("out/bd.csv") if r["file"] == "mean"]
    webp = next(r for r in means if r["codec"] == "webp")
    own = [r for r in table("out/bd.csv") if r["codec"] == "webp" and r["file"] != "mean"]
    assert len(own) == int(webp["files"]) == 2
    shares = [float(r["bd_rate_percent"]) for r in own]
    assert float(webp["bd_rate_percent"]) == pytest.approx(np.mean(shares), abs=0.01)
    assert {r["reference"] for r in means} == {"jpeg"}

    page = Page(Path("out/index.html").read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag in ("b", "img", "link", "iframe")]
    drawn, heard = (data for widget, data in page.widgets if widget == "curves")
    assert [view["name"] for view in drawn["views"]] == ["mean of 2 files", "a<b>.png", "b.png"]
    mean = drawn["views"][0]["curves"]
    assert {c["codec"] for c in mean} == {"jpeg", "webp"}  # one file alone has a stored one
    lowest = mean[0]["points"][0]
    first = [r for r in rows if (r["codec"], r["setting"]) == (mean[0]["codec"], lowest[2])]
    x = np.mean([float(r["bpp"]) for r in first])
    y = np.mean([float(r["psnr"]) for r in first])
    assert lowest[:2] == [pytest.approx(x, rel=1e-3), [pytest.approx(y, abs=1e-3)]]
    assert len(heard["measures"]) == 2


def test_what_is_done_is_not_done_again(compare, monkeypatch):
    argv = ("b.png", "--codecs", "jpeg,webp", "--points", 3)
    calls = []
    encode = pictures.PictureCodec.encode

    def counted(codec, signal, setting):
        calls.append((codec.name, setting))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(codec, signal, setting)

    monkeypatch.setattr(pictures.PictureCodec, "encode", counted)
    code, _, err = compare(*argv)
    assert code == 130
    assert "--resume" in err
    assert len(table()) == 2  # what was there when it was stopped
    assert Path("out/index.html").exists()

    code, _, err = compare(*argv)
    assert code == 2
    assert "--resume" in err

    with Path("out/points.jsonl").open("a") as file:
        file.write('{"file": "b.png", "cut sh')
    code, events, err = compare(*argv, "--resume")
    assert (code, err) == (0, "")
    points = [e for e in events if e["event"] == "point"]
    assert [e["new"] for e in points] == [False, False, True, True, True, True]
    assert len(calls) == 3 + 4
    assert [r["setting"] for r in table()] == [e["setting"] for e in points]
    assert len(Journal.opened(Path("out/points.jsonl")).points) == 6


def test_the_journal_does_not_speak_of_another_picture(compare, folder, tmp_path, monkeypatch):
    # the same name with other pixels must not be taken for what was measured
    argv = (tmp_path / "x.png", "--codecs", "jpeg", "--points", 1)
    shutil.copy(folder / "a<b>.png", tmp_path / "x.png")
    assert compare(*argv)[0] == 0
    shutil.copy(folder / "b.png", tmp_path / "x.png")
    _, events, _ = compare(*argv, "--resume")
    assert [e["new"] for e in events if e["event"] == "point"] == [True]
    monkeypatch.setattr("apps.compare.runner.REVISION", 99)
    _, events, _ = compare(*argv, "--resume")
    assert [e["new"] for e in events if e["event"] == "point"] == [True]
    Path("out/points.jsonl").write_text("what?\n")
    code, _, err = compare(*argv, "--resume")
    assert code == 3
    assert "journal" in err


def test_what_fails_is_told_and_the_rest_goes_on(compare, monkeypatch):
    argv = ("broken.png", "scan.npy", "b.png", "--codecs", "jpeg,webp", "--points", 2)
    encode = pictures.PictureCodec.encode

    def sometimes(codec, signal, setting):
        if codec.name == "webp":
            raise InputError("cannot be held")
        return encode(codec, signal, setting)

    monkeypatch.setattr(pictures.PictureCodec, "encode", sometimes)
    code, events, err = compare(*argv)
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 4
    assert "scan.npy" in lines[0]
    assert "broken.png" in lines[1]
    assert all("b.png, webp, quality" in line for line in lines[2:])
    assert len(table()) == 2
    assert events[-1] | {"seconds": 0, "report": ""} == {
        "event": "done", "report": "", "points": 2, "failed": 4, "seconds": 0,
    }  # fmt: skip


def test_a_missing_package_is_told_once(compare, monkeypatch):
    def missing(package, needed):
        raise UsageError(f"{needed} the package {package}: pip install 'inr-studio[compare]'")

    monkeypatch.setattr(sounds, "version", missing)
    code, _, err = compare("b.png", "tone.wav", "--codecs", "jpeg,mp3", "--points", 1)
    assert code == 1  # it was asked for
    assert err.count("\n") == 1
    assert "pip install 'inr-studio[compare]'" in err
    assert len(table()) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = compare("b.png", out="other")
    assert code == 2
    assert "scipy" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("b.png", "--codecs", "jpg"), "no codec 'jpg'"),
        (("b.png", "--reference", "flac"), "no codec 'flac'"),
        (("b.png", "--points", "0"), "--points is 0"),
        (("b.png", "--effort", "10"), "--effort is 10"),
        (("b.png", "--inr-targets", "1,x"), "'x' is no size"),
        (("b.png", "--inr-targets", "nan"), "'nan' is no size"),
        (("b.png", "b.png"), "given twice"),
        (("b.png", "--codecs", "opus"), "no codec is left"),
    ],
)
def test_wrong_usage(compare, argv, said):
    code, _, err = compare(*argv)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_a_stored_file_finds_its_original(compare, folder, tmp_path):
    # by its name, where sizes agree
    _, events, _ = compare("a<b>.png", "b.png", "b-small.inr", "--codecs", "jpeg", "--points", 1)
    (own,) = [e for e in events if e.get("codec") == "stored"]
    assert own["input"].endswith("b.png")
    shutil.copy(folder / "b-small.inr", tmp_path / "other.inr")
    code, _, err = compare(
        "a<b>.png", "b.png", tmp_path / "other.inr", "--codecs", "jpeg", "--points", 1, out="o2"
    )
    assert code == 1
    assert "other.inr: is of none of the files" in err
    # the only one there is needs no name
    code, events, _ = compare("b.png", tmp_path / "other.inr", "--points", 1, out="o3")
    assert code == 0
    assert {e["codec"] for e in events if "codec" in e} == {"jpeg", "webp", "avif", "jp2", "stored"}


def test_inr_files_are_made_for_the_sizes(compare, folder, monkeypatch):
    asked = []

    def compress(signal, chosen, *, bytes, effort, seed, device):
        asked.append((bytes, chosen, effort, seed))
        return type("Made", (), {"data": some_file(signal, bytes)})

    # asking `inr` for the real one, to put it back, would load lightning
    monkeypatch.setitem(vars(inr), "compress", compress)
    code, events, err = compare(
        "b.png", "--codecs", "jpeg,inr", "--points", 2, "--inr-targets", "1.5,0.5",
        "--field", "grid", "--effort", 2, "--seed", 5,
    )  # fmt: skip
    assert (code, err) == (0, "")
    pixels = 96 * 128
    assert asked == [(pixels * 0.5 // 8, "grid", 2, 5), (pixels * 1.5 // 8, "grid", 2, 5)]
    own = [e for e in events if e.get("codec") == "inr"]
    assert [e["setting"] for e in own] == ["0.5 bpp", "1.5 bpp"]
    signal = inr.open(folder / "b.png")
    for event, (most, *_) in zip(own, asked, strict=True):
        data = some_file(signal, most)
        held = psnr_arrays(inr.render(inr.decode(data)), signal.samples, 255)
        assert (event["bytes"], event["psnr"]) == (len(data), pytest.approx(held, abs=1e-3))


@pytest.mark.slow
def test_real_inr_files_keep_their_sizes(compare):
    code, events, err = compare(
        "b.png", "--codecs", "jpeg,inr", "--points", 2, "--inr-targets", "1,2", "--effort", 1
    )
    assert (code, err) == (0, "")
    own = [e for e in events if e.get("codec") == "inr"]
    for event, most in zip(own, (1, 2), strict=True):
        assert event["bpp"] <= most
    assert own[0]["psnr"] < own[1]["psnr"]


# -------------------------------------------------------------------------- in a browser


SWEEP = """(canvas) => {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const output = canvas.closest("[data-widget]").querySelector(":scope > output");
  const told = new Set();
  for (let x = 0; x < width; x += 6) {
    for (let y = 0; y < height; y += 6) {
      output.textContent = "";
      const at = { clientX: left + x, clientY: top + y };
      canvas.dispatchEvent(new PointerEvent("pointermove", at));
      if (output.textContent) told.add(output.textContent);
    }
  }
  return [...told];
}"""
"""What is told while a pointer goes over a canvas."""


@pytest.mark.slow
def test_the_page_in_a_browser(compare, browser):
    compare("a<b>.png", "b.png", "tone.wav", "--codecs", "jpeg,webp,opus,mp3", "--points", 3)
    tab = Tab(browser, Path("out/index.html"))
    page = tab.page
    pictured, heard = page.locator("[data-widget=curves]").all()
    assert pictured.locator("canvas[role=img]").count() == 1
    assert heard.locator("canvas[role=img]").count() == 2

    def look() -> str:
        tab.settle()
        return pictured.locator("canvas[role=img]").evaluate("(c) => c.toDataURL()")

    before = look()
    pictured.get_by_label("webp").uncheck()
    without = look()
    assert without != before
    pictured.get_by_role("button", name="linear").click()
    assert look() != without
    pictured.locator("select").select_option(label="b.png")
    assert not pictured.get_by_label("webp").is_checked()  # it stays hidden
    pictured.get_by_role("button", name="zoom in").click()
    look()

    told = heard.locator("canvas[role=img]").first.evaluate(SWEEP)
    assert {text.partition(",")[0] for text in told} >= {"opus", "mp3"}
    assert all("kbit/s a channel" in text and "SNR" in text for text in told)

    figures = page.locator("table.figures").first
    cells = figures.locator("tbody tr th")
    assert cells.all_inner_texts() == ["webp"]
    points = page.locator("table.figures").nth(1)
    points.get_by_role("button", name="bytes").click()
    sizes = [
        int(t.replace(",", "")) for t in points.locator("tbody td:nth-child(4)").all_inner_texts()
    ]
    assert sizes == sorted(sizes)
    assert tab.complaints == []
