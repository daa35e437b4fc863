"""The studio's comparisons: contestants under one budget, beside each other."""

import base64
import csv
import io
import json
import os
import subprocess
import sys
import types

import numpy as np
import PIL.Image
import pytest

import inr
from apps.compare import pictures
from apps.studio import rivals
from apps.studio.beside import Decode, beside
from apps.studio.contest import SLOTS, commands, contestants_for, spec_of, usual
from apps.studio.desk import Desk
from apps.studio.examples import path_of
from apps.studio.scores import curves, downloads, found_of, ssim, state
from apps.studio.tasks import compare
from inr import presets
from inr.codec.encode import encode
from inr.errors import InputError, InrError, UsageError
from inr.fitting.fit import build_field
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.image import Image
from tests.conftest import ROOT

SMALL = {"hidden_features": 16, "hidden_layers": 1}
SIREN = {"field": "siren", "hyperparameters": SMALL}
GRID = {"field": "grid"}
JPEG = {"label": "JPEG", "codec": "jpeg"}


class Told(Desk):
    """A desk that keeps what it is told, and asks for something at an event."""

    def __init__(self, folder, ask=None):
        self.folder = folder
        self.device = "cpu"
        self.asked = None
        self.look = {}
        self.events = []
        self.ask = ask or (lambda event: None)

    def emit(self, event):
        self.events.append(json.loads(json.dumps(event, allow_nan=False)))
        self.asked = self.ask(event) or self.asked

    def named(self, name):
        return [event for event in self.events if event["event"] == name]


@pytest.fixture
def picture(tmp_path, coffee):
    """A spec's source: 72 x 96 pixels."""
    path = tmp_path / "cup.png"
    PIL.Image.fromarray(coffee[150:222, 200:296]).save(path)
    return {"source": str(path), "name": "cup.png"}


def run(picture, tmp_path, contestants, ask=None, **more):
    """A comparison in this process; its desk, and what it returns."""
    folder = tmp_path / "job"
    folder.mkdir(exist_ok=True)
    desk = Told(folder, ask)
    spec = {**picture, "contestants": contestants, "seed": 3, **more}
    return desk, compare.run(json.loads(json.dumps(spec)), desk)


def pixels(uri):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


# ------------------------------------------------------------------------------ the task


@pytest.fixture(scope="module")
def compared(tmp_path_factory, coffee):
    """Two fields and two codecs on a picture: the desk, the result, the signal."""
    root = tmp_path_factory.mktemp("compared")
    path = root / "cup.png"
    PIL.Image.fromarray(coffee[150:222, 200:296]).save(path)
    source = {"source": str(path), "name": "cup.png"}
    contestants = [GRID, SIREN, JPEG, {"codec": "webp"}]
    desk, result = run(source, root, contestants, steps=40)
    return desk, result, inr.open(path)


def test_fields_are_what_a_fit_of_their_own_gives(compared):
    desk, result, signal = compared
    base = presets.for_field("image", "siren")
    preset = presets.Preset("siren", {**base.hyperparameters, **SMALL}, base.recipe)
    for row, field in zip(result["contestants"], ("grid", preset), strict=False):
        fit = inr.fit(signal, field, steps=40, seed=3, device="cpu")
        data = encode(fit.field, signal, rounding=fit.rounding)
        assert (desk.folder / row["file"]).read_bytes() == data
        assert row["bytes"] == len(data)
        assert row["psnr"] == pytest.approx(signal.metrics(inr.decode(data))["psnr"], abs=1e-3)
        assert row["steps"] == 40
        assert row["state"] == "done"
        assert row["parameters"] == sum(p.numel() for p in fit.field.parameters())
        assert row["seconds_shown"] <= row["seconds"]


def test_codecs_have_as_many_bytes_as_the_first_field(compared):
    desk, result, signal = compared
    most = result["contestants"][0]["bytes"]
    for row in result["contestants"][2:]:
        data = (desk.folder / row["file"]).read_bytes()
        assert len(data) == row["bytes"] <= most
        assert PIL.Image.open(io.BytesIO(data)).format == row["codec"].upper()
        decoded = np.asarray(PIL.Image.open(io.BytesIO(data)), np.float64)
        error = np.square(decoded - signal.samples).mean()
        assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    # in the order of the list, though they run as soon as their size is known
    assert [row["label"] for row in result["contestants"]] == ["grid", "siren", "JPEG", "webp"]
    done = [e["name"] for e in desk.named("contestant") if e["state"] == "done"]
    assert done == ["grid", "JPEG", "webp", "siren"]


def test_news_say_who_runs_and_hold_all_curves(compared):
    desk, result, _ = compared
    told = [e for e in desk.named("progress") if "step" in e]
    assert {e["name"] for e in told} == {"siren", "grid"}
    assert all(e["index"] == ["grid", "siren"].index(e["name"]) for e in told)
    by_name = {one["name"]: one["points"] for one in result["series"]}
    assert by_name["siren"][-1][0] == 40
    assert found_of(types.SimpleNamespace(result=None, progress=told[-1]))["series"]
    lines = curves(result)
    assert list(lines)[:2] == ["grid", "siren"]
    level = next(points for name, points in lines.items() if name.startswith("JPEG, quality "))
    assert {point[2] for point in level} == {result["contestants"][2]["psnr"]}
    steps = [p[0] for one in result["series"] for p in one["points"]]
    assert [point[0] for point in level] == [min(steps), max(steps)]


def test_frames_show_all_in_the_same_panes(compared):
    desk, result, signal = compared
    frames = [event["sections"] for event in desk.named("frame")]
    names = [[pane["name"] for pane in frame[0]["data"]["panes"]] for frame in frames]
    others = ["grid", "siren", "JPEG", "webp"]
    assert names == [["original", *others, *(f"error of {n}" for n in others)]] * len(names)
    # the live one stands in its place, with its spectra behind the table
    first = frames[0]
    assert pixels(first[0]["data"]["panes"][1]["frames"][0]).shape == (72, 96, 3)
    assert pixels(first[0]["data"]["panes"][2]["frames"][0]).shape == (1, 1)
    assert [part["title"] for part in first[:2]] == ["Picture", "Contestants"]
    assert all(part["title"].startswith("grid, now: ") for part in first[2:])
    # at the end: what the files hold, and errors on one scale
    last = frames[-1]
    assert [part["widget"] for part in last] == ["panes", "plot", "table"]
    panes = last[0]["data"]["panes"]
    assert last[0]["data"]["compare"] == [1, 2]
    assert len({json.dumps(pane["bar"]) for pane in panes[5:]}) == 1
    field = inr.load(desk.folder / result["contestants"][1]["file"])
    assert np.array_equal(pixels(panes[2]["frames"][0]), inr.render(field))
    jpeg = np.asarray(PIL.Image.open(desk.folder / result["contestants"][2]["file"]))
    assert np.array_equal(pixels(panes[3]["frames"][0]), jpeg)
    assert np.array_equal(pixels(panes[0]["frames"][0]), signal.samples)


def test_the_table_tells_what_the_rows_hold(compared):
    desk, result, _ = compared
    table = desk.named("frame")[-1]["sections"][-1]["data"]
    assert table["columns"][:5] == ["contestant", "state", "PSNR, dB", "SSIM", "bytes"]
    for cells, row in zip(table["rows"], result["contestants"], strict=True):
        assert cells[0] == row["label"]
        assert float(cells[2]) == pytest.approx(row["psnr"], abs=0.006)
        assert cells[4] == f"{row['bytes']:,}"
        assert cells[5] == f"{8 * row['bytes'] / (72 * 96):.3f}"
    assert table["rows"][2][1].startswith("done, quality ")


def test_download_names_and_the_line(compared):
    _, result, _ = compared
    offered = downloads(result, "/folder", 4)
    assert [one["value"] for one in offered] == [
        "/folder/cup-1-grid.inr",
        "/folder/cup-2-siren.inr",
        "/folder/cup-3-jpeg.jpg",
        "/folder/cup-4-webp.webp",
    ]
    half = {"contestants": [{"state": "fitting", "label": "a"}]}
    assert downloads(half, "/f", 2)[0] == {
        "value": None, "label": "Download a", "interactive": False, "visible": True
    }  # fmt: skip
    assert not downloads(half, "/f", 2)[1]["visible"]
    job = types.SimpleNamespace(
        state="done", result=result, progress={}, error=None, position=0, phase=""
    )
    assert state(job).startswith("Done · 4 of 4 contestants · CPU")


def test_a_stop_keeps_what_there_is(picture, tmp_path):
    def ask(event):
        late = event.get("name") == "grid" and event.get("step", 0) > 0
        return "stop" if late else None

    contestants = [SIREN, GRID, {**SIREN, "label": "again"}]
    desk, result = run(picture, tmp_path, contestants, ask, seconds=0.5)
    rows = result["contestants"]
    assert [row["state"] for row in rows] == ["done", "done", "left out"]
    assert [row.get("ended") for row in rows] == ["seconds", "stopped", None]
    assert result["stopped"]
    cells = desk.named("frame")[-1]["sections"][-1]["data"]["rows"]
    assert [row[1] for row in cells] == ["done", "stopped early", "left out"]
    assert inr.load(desk.folder / rows[1]["file"]).domain.shape == (72, 96)
    assert not (desk.folder / compare.SNAPSHOT).exists()


def test_a_pause_goes_on_where_it_was(picture, tmp_path, compared):
    def ask(event):
        late = event.get("name") == "siren" and event.get("step", 0) > 0
        return "pause" if late else None

    contestants = [GRID, SIREN, JPEG]
    desk, result = run(picture, tmp_path, contestants, ask, steps=40)
    assert result == {"paused": True}
    assert (desk.folder / compare.SNAPSHOT).exists()
    desk, result = run(picture, tmp_path, contestants, steps=40)
    assert {e["name"] for e in desk.named("contestant")} == {"siren"}
    for row, whole in zip(result["contestants"], compared[1]["contestants"], strict=False):
        data = (compared[0].folder / whole["file"]).read_bytes()
        assert (desk.folder / row["file"]).read_bytes() == data
        assert row["psnr"] == whole["psnr"]
    points = result["series"][1]["points"]
    assert [p[0] for p in points] == sorted(p[0] for p in points)
    # stopped while it rests, the one that was interrupted becomes a file as well
    for path in desk.folder.iterdir():
        path.unlink()
    desk, result = run(picture, tmp_path, contestants, ask, steps=40)
    assert result == {"paused": True}
    desk = Told(desk.folder)
    desk.asked = "stop"
    spec = {**picture, "contestants": contestants, "seed": 3, "steps": 40}
    rows = compare.run(spec, desk)["contestants"]
    assert [row["state"] for row in rows] == ["done", "done", "done"]
    assert rows[1]["ended"] == "stopped"


def test_a_pause_lets_a_codec_begin_again(picture, tmp_path):
    def ask(event):
        return "pause" if event.get("name") == "JPEG" else None

    contestants = [GRID, JPEG]
    desk, result = run(picture, tmp_path, contestants, ask, steps=2)
    assert result == {"paused": True}
    desk, result = run(picture, tmp_path, contestants, steps=2)
    assert [row["state"] for row in result["contestants"]] == ["done", "done"]
    assert {event["name"] for event in desk.named("contestant")} == {"JPEG"}


def test_messages_name_no_folder(picture, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / compare.SNAPSHOT).write_bytes(b"nothing")
    desk, result = run(picture, tmp_path, [SIREN, GRID], steps=2)
    assert result["contestants"][0]["error"].startswith("fit.snapshot: is no snapshot")
    assert str(tmp_path) not in json.dumps(desk.events)


def test_one_that_fails_does_not_end_the_others(picture, tmp_path):
    wild = {**SIREN, "label": "wild", "recipe": {"lr": 1e30}}
    desk, result = run(picture, tmp_path, [wild, SIREN, JPEG], steps=20)
    rows = result["contestants"]
    assert [row["state"] for row in rows] == ["failed", "done", "done"]
    assert "diverged" in rows[0]["error"]
    notes = desk.named("frame")[-1]["sections"][-1]["notes"]
    # some hundred bytes are less than JPEG's tables
    assert rows[1]["bytes"] < rows[2]["bytes"]
    assert any("no file as small as siren's" in note for note in notes)
    assert any(note.startswith("wild: ") and "diverged" in note for note in notes)
    with pytest.raises(InrError, match=r"wild: .*diverged.*JPEG: there is no field's file"):
        run(picture, tmp_path / "..", [wild, JPEG], steps=20)


@pytest.mark.parametrize(
    ("contestants", "budget", "message"),
    [
        ([SIREN], {"steps": 5}, "give 2 to 4"),
        ([SIREN] * 5, {"steps": 5}, "give 2 to 4"),
        ([SIREN, GRID], {}, "either seconds or steps"),
        ([SIREN, GRID], {"steps": 5, "seconds": 1}, "either seconds or steps"),
        ([JPEG, JPEG], {"steps": 5}, "one field at least"),
        ([SIREN, {"codec": "opus"}], {"steps": 5}, "none for this signal"),
        ([SIREN, {"preset": "image/none"}], {"steps": 5}, "none of this name"),
    ],
)
def test_what_cannot_be_compared(picture, tmp_path, contestants, budget, message):
    with pytest.raises(UsageError, match=message):
        run(picture, tmp_path, contestants, **budget)


def test_names_are_told_apart(picture, tmp_path):
    contestants = [SIREN, SIREN, {**SIREN, "label": "original"}]
    _, result = run(picture, tmp_path, contestants, steps=2)
    assert [row["label"] for row in result["contestants"]] == ["siren", "siren 2", "original 2"]
    assert len({row["file"] for row in result["contestants"]}) == 3


# -------------------------------------------------------------------------------- codecs


@pytest.mark.parametrize("codec", pictures.CODECS, ids=lambda c: c.name)
def test_the_largest_file_is_found(codec, coffee):
    signal = Image.from_array(coffee[150:222, 200:296])
    settings = rivals.settings_of(codec)
    sizes = [len(codec.encode(signal, s)) for s in settings[:: max(1, len(settings) // 40)]]
    assert sizes[0] < sizes[-1]
    for most in (sizes[len(sizes) // 3], sizes[-1] + 1):
        setting, data = rivals.largest(codec, signal, most, lambda: None)
        assert len(data) <= most
        assert data == codec.encode(signal, setting)
        # no other setting that was looked at is nearer, but where sizes fall as qualities rise
        below = max(size for size in sizes if size <= most)
        assert len(data) >= 0.97 * below
    setting, data = rivals.largest(codec, signal, 10, lambda: None)
    assert setting == settings[0]
    assert len(data) > 10
    with pytest.raises(UsageError, match="stopped"):
        rivals.largest(codec, signal, sizes[-1], lambda: "stop")


def test_a_sound_s_codec():
    codec = next(c for c in rivals.codecs_for("audio") if c.name == "opus")
    signal = inr.open(path_of("bell"))
    setting, data = rivals.largest(codec, signal, 16_000, lambda: None)
    assert 14_000 < len(data) <= 16_000
    samples, metrics = rivals.decoded(codec, data, signal)
    assert samples.shape == signal.samples.shape
    error = samples.astype(np.float64) - signal.samples
    values = signal.samples.astype(np.float64)
    assert metrics["snr"] == pytest.approx(
        10 * np.log10(values.var(0).mean() / error.var(0).mean()), abs=1e-6
    )
    assert metrics["psnr"] == pytest.approx(
        20 * np.log10(signal.domain.peak) - 10 * np.log10(np.square(error).mean()), abs=1e-6
    )
    assert 6 <= setting <= 160
    with pytest.raises(InputError, match="pictures and sounds"):
        rivals.prepared(inr.open(path_of("waves")))


def test_ssim_is_what_others_measure(coffee):
    from skimage.metrics import structural_similarity

    noise = np.random.default_rng(0).normal(0, 12, coffee.shape)
    bad = (coffee + noise).clip(0, 255).astype(np.uint8)
    known = structural_similarity(
        coffee, bad, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255, channel_axis=-1,
    )  # fmt: skip
    assert ssim(Image.from_array(coffee), bad) == pytest.approx(known, abs=2e-3)
    assert ssim(Image.from_array(coffee), coffee) == 1
    assert ssim(Image.from_array(coffee[:10]), coffee[:10]) is None


# ------------------------------------------------------------------------ other signals


def made(signal, seed):
    """A field as it is before a fit."""
    _, field = build_field(signal, presets.Preset("siren", SMALL), seed)
    field.domain = signal.domain
    return field.to(dtype=signal.dtype)


@pytest.mark.parametrize("name", ["bell", "knot", "phantom", "ball", "waves"])
def test_all_kinds_are_shown_beside_each_other(name):
    signal = inr.open(path_of(name))
    fields = [made(signal, seed) for seed in (0, 1)]
    decodes = [Decode(f"field {i}", "well", field) for i, field in enumerate(fields)]
    assert beside(signal, [Decode("a", "to come", None)], 10**5) == []
    room = 400_000
    sections = beside(signal, [*decodes, Decode("late", "to come", None)], room)
    weight = len(json.dumps([part.data for part in sections], allow_nan=False))
    assert weight <= 1.1 * room
    data = sections[0].data
    assert sections[0].widget == {
        "bell": "sound", "knot": "mesh", "phantom": "slices", "ball": "panes", "waves": "slices"
    }[name]  # fmt: skip
    key = {"sound": "tracks", "mesh": "meshes", "slices": "signals", "panes": "panes"}
    names = [one["name"] for one in data[key[sections[0].widget]]]
    errors = ["error of field 0", "error of field 1"]
    if name == "bell":
        assert names == ["original", "field 0", "field 1"]
        assert [one["name"] for one in sections[1].data["series"]] == ["original", *errors]
    elif name == "knot":  # three steps may leave no surface
        assert names[0] == "original"
        assert len(names) + sum("has no surface" in note for note in sections[0].notes) == 3
    else:
        channels = {n.partition(", ")[0] for n in names}
        assert channels == {"original", "field 0", "field 1", *errors}
        scales = [one.get("shown") or one["bar"] for one in data[key[sections[0].widget]]
                  if one["name"].startswith("error")]  # fmt: skip
        assert all(scale == scales[0] for scale in scales)


def test_curves_and_opaque_pictures(coffee):
    line = ArraySignal.from_array(np.sin(np.arange(300) / 9))
    fields = [made(line, seed) for seed in (0, 1)]
    decodes = [Decode(f"field {i}", "well", field) for i, field in enumerate(fields)]
    (part,) = beside(line, decodes, 10**5)
    names = [one["name"] for one in part.data["series"]]
    assert names == ["original", "field 0", "field 1", "error of field 0", "error of field 1"]
    opaque = np.dstack([coffee[:40, :50], np.full((40, 50), 255, np.uint8)])
    signal = Image.from_array(opaque)
    parts = beside(
        signal, [Decode("a", "", made(signal, 0)), Decode("b", "", opaque[..., :3])], 10**6
    )
    shapes = [pixels(pane["frames"][0]).shape for pane in parts[0].data["panes"]]
    assert shapes == [(40, 50, 4), (40, 50, 4), (40, 50, 3), (40, 50), (40, 50)]
    assert not pixels(parts[0].data["panes"][4]["frames"][0]).any()


def test_a_sound_is_compared(tmp_path):
    t = np.arange(8000) / 8000
    sound = Audio.from_array((0.5 * np.sin(880 * t)[:, None]).astype(np.float32), 8000)
    path = tmp_path / "tone.wav"
    import soundfile

    soundfile.write(path, sound.samples, 8000, subtype="FLOAT")
    spec = {"source": str(path), "name": "tone.wav"}
    desk, result = run(spec, tmp_path, [SIREN, {"codec": "opus"}], steps=10)
    rows = result["contestants"]
    assert [row["state"] for row in rows] == ["done", "done"]
    assert rows[1]["file"] == "tone-2-opus.opus"
    last = desk.named("frame")[-1]["sections"]
    assert [track["name"] for track in last[0]["data"]["tracks"]] == ["original", "siren", "opus"]
    assert {"SNR, dB", "log-spectral distance"} <= set(last[-1]["data"]["columns"])


# --------------------------------------------------------------------------- the tab


gr = pytest.importorskip("gradio")


def blank():
    return {"entries": [], "given": {}, "errors": {}}


def slot(what, preset=None, **given):
    return [what, preset, {"given": given}, blank()]


APP = """
import sys, signal
from pathlib import Path
import gradio as gr
from apps.studio import page
from apps.studio.service import Service
from apps.studio.tabs import compare
from apps.studio.visitors import MAKE_OWNER, Studio

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
service = Service(Path(sys.argv[1]))
with gr.Blocks(analytics_enabled=False, fill_width=True) as blocks:
    studio = Studio(service, Path(sys.argv[2]), gr.Textbox(visible=False, elem_id="owner"))
    compare.build(studio)
    blocks.load(None, None, studio.owner, js=MAKE_OWNER)
blocks.queue(max_size=64, default_concurrency_limit=8)
_, url, _ = blocks.launch(**page.options(), server_name="127.0.0.1", prevent_thread_lock=True)
print(url, flush=True)
blocks.block_thread()
"""


LOOK = {"kind": "image", "preset": None, "shape": [72, 96], "channels": 3}
CHOSEN = {"source": "/kept/1.png", "name": "it's.png", "look": LOOK}


def test_the_controls_make_a_spec():
    slots = [
        slot("grid", "image/grid"),
        slot("siren", None, hidden_features=32),
        slot("codec:jpeg"),
        slot(""),
    ]
    spec = spec_of(CHOSEN, "steps each", 20, 1, slots)
    json.dumps(spec)
    assert spec["steps"] == 20
    assert [one["label"] for one in spec["contestants"]] == ["grid", "siren", "JPEG"]
    assert spec["contestants"][1]["hyperparameters"] == {"hidden_features": 32}
    lines = commands(spec).splitlines()
    assert lines[0].startswith("inr fit 'it'\"'\"'s.png' ")
    assert "--field.hidden_features 32" in lines[1]
    assert lines[2].startswith("inr compare --codecs jpeg ")
    assert "its-1" not in lines[2]
    assert lines[2].count(".inr") == 2

    def refused(message, budget="seconds each", amount=5, seed=0, slots=slots, chosen=CHOSEN):
        with pytest.raises(UsageError, match=message):
            spec_of(chosen, budget, amount, seed, slots)

    refused("nothing is chosen", chosen={})
    refused("two contestants", slots=[slots[0], slot("")])
    refused("one field or more", slots=[slots[2], slot("codec:webp")])
    unread = ["siren", None, {"given": {"hidden_features": "1o"}, "errors": {"x": "not a number"}}]
    refused("contestant 2: not a number", slots=[slots[0], [*unread, blank()]])
    refused("contestant 2: choose one", slots=[slots[0], slot("codec:../x")])
    refused("contestant 1: Hidden features", slots=[slot("siren", None, hidden_features=-4)] * 2)
    refused("give a number above 0", amount=0)
    refused("too many", amount=1e9)
    refused("whole number", budget="steps each", amount=1.5)
    refused("seed", seed=-1)


@pytest.mark.parametrize("kind", sorted(presets.DEFAULTS))
def test_contestants_are_offered(kind):
    from apps.studio.tabs import compare as tab

    offered = usual(kind, None)
    there = {value for _, value in contestants_for(kind)}
    names = [what for what, _ in offered]
    assert len(names) == SLOTS
    assert set(names) <= there
    assert names[0] != names[1]
    assert "" not in names[:2]
    assert (names[2] != "") == (kind in ("image", "audio"))
    for what, preset in offered:
        assert len(tab._about(kind, what, preset)) == 4


@pytest.mark.slow
def test_the_commands_make_the_same_files(tmp_path, coffee):
    path = tmp_path / "it's.png"
    PIL.Image.fromarray(coffee[150:222, 200:296]).save(path)
    slots = [slot("grid", "image/grid-fast"), slot("siren", hidden_features=16), slot("codec:webp")]
    spec = spec_of(CHOSEN, "steps each", 20, 5, slots) | {"source": str(path)}
    folder = tmp_path / "job"
    folder.mkdir()
    rows = compare.run(json.loads(json.dumps(spec)), Told(folder))["contestants"]
    inr_itself = f"{sys.executable} -m apps.cli.main"
    for line in commands(spec).splitlines():
        found = subprocess.run(
            ["bash", "-c", line.replace("inr ", f"{inr_itself} ", 1)],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, (line, found.stderr)
    for row in rows[:2]:
        assert (tmp_path / row["file"]).read_bytes() == (folder / row["file"]).read_bytes()
    with (tmp_path / "compare" / "points.csv").open() as file:
        points = list(csv.DictReader(file))
    stored = [point for point in points if point["codec"] == "stored"]
    assert {(int(p["bytes"]), round(float(p["psnr"]), 2)) for p in stored} == {
        (row["bytes"], round(row["psnr"], 2)) for row in rows[:2]
    }
    assert any(point["codec"] == "webp" for point in points)


@pytest.mark.slow
def test_in_a_browser(tmp_path, browser, coffee):
    app = tmp_path / "app.py"
    app.write_text(APP)
    (tmp_path / "up").mkdir()
    environment = {"GRADIO_TEMP_DIR": str(tmp_path / "up"), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, app, tmp_path / "jobs", tmp_path / "up"]
    environment |= os.environ | {"PYTHONPATH": str(ROOT)}
    page = browser.new_page()
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(120_000)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            url = process.stdout.readline().strip()
            page.goto(url)
            cup = tmp_path / "cup.png"
            PIL.Image.fromarray(coffee[150:222, 200:296]).save(cup)
            page.set_input_files("#compare-file input[type=file]", cup)
            page.wait_for_function("() => !document.querySelector('#compare-start').disabled")
            assert page.inner_text("#compare-stop").strip() == "Stop"
            page.click("#compare-budget >> text=steps each")
            page.fill("#compare-amount input", "2")
            page.keyboard.press("Tab")
            page.click("#compare-start")
            page.wait_for_selector("#compare-status [data-state=done]", timeout=280_000)
            page.wait_for_selector("#compare-stage table")
            cells = page.locator("#compare-stage tbody tr th").all_inner_texts()
            assert cells == ["grid", "siren", "JPEG"]
            for number in (1, 2, 3):
                with page.expect_download() as found:
                    page.click(f"#compare-download-{number}")
                found.value.save_as(tmp_path / found.value.suggested_filename)
            names = ["cup-1-grid.inr", "cup-2-siren.inr", "cup-3-jpeg.jpg"]
            assert all((tmp_path / name).stat().st_size > 100 for name in names)
            assert inr.load(tmp_path / names[0]).domain.shape == (72, 96)
            # two contestants under one divider
            page.click("#compare-stage >> text=Before / after")
            sides = page.locator("#compare-stage .inr-widget select")
            chosen = [sides.nth(k).input_value() for k in range(2)]
            assert chosen == ["1", "2"]
            sides.nth(1).select_option("3")
            page.reload()
            page.wait_for_selector("#compare-stage table")
            assert "3 of 3 contestants" in page.inner_text("#compare-status")
            assert not said
        finally:
            page.close()
            process.terminate()
