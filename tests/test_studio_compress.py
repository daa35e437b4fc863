"""The Compress tab: what it asks for, how a search is told and shown, what it hands out."""

import asyncio
import io
import json
import math
import secrets
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import inr
from apps.studio import searches
from apps.studio.examples import path_of
from apps.studio.service import Bounds, Job, Service
from apps.studio.tabs import compress as tab
from apps.studio.tasks import compress as task
from apps.studio.visitors import Studio, asked_of, frames_of
from inr.codec.decode import decode
from inr.errors import TargetNotReached, UsageError
from inr.rate import control
from inr.rate.targets import settle
from inr.signals.image import Image

EXAMPLES = {
    "array": "waves",
    "audio": "bell",
    "image": "camera",
    "shape": "knot",
    "video": "ball",
    "volume": "phantom",
}


class Recorder:
    """A desk that keeps what it is told, as a page would get it."""

    def __init__(self, folder, ask=None):
        self.folder = folder
        self.device = "cpu"
        self.look = {}
        self.asked = None
        self.events = []
        self._ask = ask

    def emit(self, event):
        self.events.append(json.loads(json.dumps(event, allow_nan=False)))
        if self._ask is not None and self._ask(event):
            self.asked = "stop"

    def named(self, name):
        return [event for event in self.events if event["event"] == name]


@pytest.fixture
def picture(patch, tmp_path):
    """A picture's file, and where its search takes place."""
    path = tmp_path / "patch.png"
    PIL.Image.fromarray(patch).save(path)
    (tmp_path / "job").mkdir()
    return path


def spec_for(path, **more):
    source = {"source": str(path), "name": Path(path).name, "kind": "image"}
    return source | {"effort": 1, "seed": 0, "seconds": 120.0} | more


def searched(path, ask=None, **more):
    desk = Recorder(path.parent / "job", ask)
    return task.run(spec_for(path, **more), desk), desk


# ------------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_kind_is_offered_the_targets_that_it_has(kind):
    signal = inr.open(path_of(EXAMPLES[kind]))
    assert signal.domain.kind == kind
    for name in tab.WORDS:
        if name in tab.TARGETS[kind]:
            assert settle(name, 0.9 if name == "iou" else 1e4, signal).measure in (name, "bytes")
        elif (kind, name) != ("array", "bpp"):
            try:
                found = settle(name, 0.9 if name == "iou" else 1e4, signal)
            except UsageError:
                continue
            # bits per sample are known of a sound, but nobody asks for them
            assert (kind, name, found.measure) == ("audio", "bpp", "bytes")


def test_efforts_are_those_of_the_search():
    assert {e: tuple(spent) for e, spent in control.EFFORTS.items()} == {
        e: told[1:] for e, told in tab.EFFORTS.items()
    }
    assert tab.SHORT_SHARE == control.SHORT_SHARE
    assert "up to 2 of 200 steps" in tab.estimated(4, 200)
    assert "1 of 50 steps" in tab.estimated(1, 200)
    assert "20 times the work" in tab.estimated(9, 200)
    assert "12% of the work" in tab.estimated(1, None)


@pytest.mark.parametrize(
    ("target", "text", "value"),
    [
        ("bytes", "20k", 20000), ("bytes", " 64KiB ", 65536), ("bytes", "2000", 2000),
        ("bpp", "0.5", 0.5), ("kbps", "32", 32), ("psnr", "31.5", 31.5), ("iou", ".98", 0.98),
    ],
)  # fmt: skip
def test_a_target_is_read_as_people_write_it(target, text, value):
    assert tab.amount(target, text) == value


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("bytes", ""), ("bytes", "20 apples"), ("bytes", "-5"), ("bpp", "nan"), ("bpp", "inf"),
        ("psnr", "0"), ("psnr", "1e9"), ("iou", "1.5"), ("kbps", "<b>"), ("psnr", None),
        ("psnr", ["30"]), ("psnr", "9" * 10_000),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused_by_its_name(target, text):
    with pytest.raises(UsageError) as caught:
        tab.amount(target, text)
    message = str(caught.value)
    assert message.startswith(tab.WORDS[target][0])
    assert "\n" not in message
    assert len(message) < 250


def values_with(**changed):
    blank = {"given": {}}
    return {
        "target": "bpp", "value": "1", "effort": 4, "seconds": 60, "field": "siren",
        "preset": "image/siren", "hyperparameters": blank, "recipe": blank, "reading": blank,
        "seed": 0,
    } | changed  # fmt: skip


CHOSEN = {
    "source": "/nowhere/a b.png",
    "name": "a b.png",
    "look": {"kind": "image", "shape": [64, 64], "channels": 3},
}


def test_controls_make_a_spec_and_what_can_be_copied():
    values = values_with(hyperparameters={"given": {"hidden_features": 48}}, effort=6, seed=3)
    spec = tab.spec_of(CHOSEN, values)
    assert spec["target"] == {"bpp": 1}
    assert spec["hyperparameters"] == {"hidden_features": 48}
    line, snippet = tab.equivalents(spec)
    assert line.startswith("inr compress 'a b.png' --field siren")
    for part in ("--bpp 1", "--effort 6", "--seconds 60", "--seed 3", "hidden_features 48"):
        assert part in line
    assert "/nowhere" not in line + snippet
    compile(snippet, "snippet", "exec")


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "kbps"}, {"target": "__class__"}, {"target": None}, {"value": "a"},
        {"effort": 10}, {"effort": 4.5}, {"effort": math.nan}, {"effort": "4"}, {"effort": None},
        {"seconds": 0}, {"seconds": math.nan}, {"seconds": 1e9}, {"seconds": None},
        {"seed": -1}, {"seed": math.inf}, {"field": "none"}, {"preset": "../../etc/passwd"},
        {"hyperparameters": {"given": {"nothing": 1}}}, {"recipe": {"given": {"lr": "x"}}},
        {"hyperparameters": {"given": {"hidden_features": -1}}},
    ],
)  # fmt: skip
def test_what_a_page_may_not_ask_for_is_refused(wrong):
    with pytest.raises(UsageError):
        tab.spec_of(CHOSEN, values_with(**wrong))


def test_nothing_chosen_is_said():
    with pytest.raises(UsageError, match="nothing is chosen yet"):
        tab.spec_of({}, values_with())


# ---------------------------------------------------------------------------------- the search


def test_the_file_is_that_of_a_search_that_nobody_watches(picture, monkeypatch):
    asked = {"target": {"bytes": 1500}, "recipe": {"steps": 60}}
    result, desk = searched(picture, **asked)
    made = (desk.folder / "patch.inr").read_bytes()
    assert result["bytes"] == len(made) <= 1500
    assert result["reached"]
    assert not result["stopped"]
    metrics = inr.open(picture).metrics(decode(made))
    assert result["psnr"] == pytest.approx(metrics["psnr"], abs=1e-3)
    (target,) = desk.named("target")
    assert (target["measure"], target["value"]) == ("bytes", 1500)
    # what stands beside the page does it with nobody watching
    monkeypatch.chdir(picture.parent)
    exec(tab.equivalents(spec_for(picture, **asked))[1], {})
    assert (picture.parent / "patch.inr").read_bytes() == made


def test_each_fit_is_told_in_its_order_and_what_it_says_holds(picture):
    result, desk = searched(picture, target={"bytes": 1500}, effort=5, recipe={"steps": 30})
    numbers = [event["number"] for event in desk.named("trial")]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(1, result["fits"] + 1))
    last = {event["number"]: event for event in desk.named("trial")}
    assert last[result["fits"]]["purpose"] == "polish"
    spent = 0.0
    for number, event in last.items():
        told = [e["state"] for e in desk.named("trial") if e["number"] == number]
        assert told[0] == "fitting"
        assert told[1] == "coding"
        assert told[-1] == "over"
        assert event["spent"] == pytest.approx(spent, abs=0.01)
        assert 0 <= event["before"] <= event["before"] + event["part"] <= 1.0001
        assert event["steps"] > 0
        assert event["quality"] > 10
        spent += event["seconds"]
        for quality in (event.get("metrics", {}), event.get("least", {})):
            assert quality.get("psnr", 0) <= event["quality"] + 0.5
    assert len(desk.named("frame")) >= 2
    final = desk.named("frame")[-1]["sections"]
    assert final[0]["widget"] == "panes"


def test_what_a_file_is_said_to_be_at_least_it_is(picture):
    """A search's own files, decoded here, against the bound that the page is told."""
    signal = inr.open(picture)
    loss = max(control.LOSS_DB_RATED, inr.presets.load("image/grid").recipe.quantize_db)
    kept = []

    class Watched(control._Search):
        def _natural(self, fit):
            data = super()._natural(fit)
            kept.append((fit.metrics["psnr"] - loss, signal.metrics(decode(data))["psnr"]))
            return data

    search = Watched(signal, None, None, control.EFFORTS[1], settle("bytes", 1500, signal))
    search.how = {"seed": 0, "device": "cpu", "callbacks": []}
    search.run()
    assert kept
    for least, found in kept:
        assert found >= least - 0.02


def test_a_quality_that_is_not_reached_is_said(picture):
    small = {"field": "siren", "hyperparameters": {"hidden_features": 16, "hidden_layers": 1}}
    result, desk = searched(
        picture, **small, recipe={"steps": 30}, target={"psnr": 90.0}, seconds=0.5
    )
    assert not result["reached"]
    assert (desk.folder / "patch.inr").stat().st_size == result["bytes"]
    said = searches.outcome(result)
    assert "target is not reached" in said
    assert "psnr 90 dB" in said.replace("\\", "")


def test_a_stop_keeps_the_best_file_that_meets_the_target(picture):
    result, desk = searched(
        picture, lambda e: e.get("purpose") == "polish", target={"bytes": 1500}, effort=5,
        recipe={"steps": 20},
    )  # fmt: skip
    assert result["stopped"]
    assert result["reached"]
    assert result["ended"] == "stopped"
    assert (desk.folder / "patch.inr").stat().st_size == result["bytes"] <= 1500
    assert "Stopped before its end" in searches.outcome(result)


def test_a_stop_before_any_file_is_said(picture):
    with pytest.raises(TargetNotReached, match="stopped before any file"):
        searched(picture, lambda e: e["event"] == "trial", field="siren", target={"psnr": 70.0})


def test_a_target_that_nothing_can_meet_ends_before_any_fit(picture):
    desk = Recorder(picture.parent / "job")
    with pytest.raises(UsageError, match="even an empty file"):
        task.run(spec_for(picture, target={"bytes": 3}), desk)
    assert not desk.named("trial")


@pytest.mark.parametrize("effort", range(1, 10))
def test_the_plan_of_a_search_as_planned_comes_to_its_end(effort):
    spent = control.EFFORTS[effort]
    purposes = ["short"] * spent.short + ["full"] * spent.full
    purposes += ["polish"] * bool(spent.polish)
    plan, end = task.Plan(effort), 0.0
    for purpose in purposes:
        before, part = plan.next(purpose)
        assert before == pytest.approx(end)
        end = before + part
    assert end == pytest.approx(1)


def test_a_plan_that_does_not_suffice_grows():
    plan = task.Plan(1)
    shares = [plan.next(purpose) for purpose in ("short", "full", "full")]
    assert shares[2][0] < 1
    assert sum(shares[2]) == pytest.approx(1)


# ------------------------------------------------------------------------ what stands beside it


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_other_codecs_stand_where_their_files_are(patch, mode):
    made = PIL.Image.fromarray(patch).convert(mode)
    samples = np.atleast_3d(np.asarray(made))
    found = task.references(Image.from_array(samples))
    names = [series["name"] for series in found["series"]]
    assert names == ["JPEG", "WebP"]
    assert bool(found["notes"]) == (mode == "RGBA")
    flat = made.convert("RGB") if mode == "RGBA" else made
    size, quality, label = found["series"][0]["points"][3]
    file = io.BytesIO()
    flat.save(file, "JPEG", quality=int(label.split()[1]), optimize=True, subsampling="4:2:0")
    assert size == len(file.getvalue())
    decoded = np.asarray(PIL.Image.open(file), float)
    error = np.mean((decoded - np.asarray(flat, float)) ** 2)
    assert quality == pytest.approx(10 * math.log10(255**2 / error), abs=1e-3)


def test_pictures_that_they_cannot_hold_have_none_beside_them(patch):
    found = task.references(Image.from_array(patch.astype(np.uint16) * 257))
    assert found["series"] == []
    assert "16-bit" in found["notes"][0]


def test_large_pictures_do_not_wait_for_other_codecs(camera):
    large = Image.from_array(np.tile(camera, (4, 5))[..., None])
    begin = time.perf_counter()
    found = task.references(large)
    assert time.perf_counter() - begin < 5
    assert [series["name"] for series in found["series"]] == ["JPEG"]
    assert "too large" in found["notes"][0]


# ------------------------------------------------------------------------ what the page shows


def job_with(*events, kind="image", **more):
    job = Job("owner", "compress", {"kind": kind, "seconds": 60.0}, Path(), "fit")
    job.state = "running"
    job.events.extend(events)
    for name, value in more.items():
        setattr(job, name, value)
    return job


def trial(number, **more):
    base = {"event": "trial", "number": number, "of": 2, "purpose": "full", "label": "9 numbers"}
    return base | {"state": "fitting", "before": 0.5, "part": 0.5, "spent": 4.0} | more


OVER = {"state": "over", "steps": 7, "seconds": 3.0, "quality": 31.0}


def test_the_curve_grows_and_has_the_target_as_a_line():
    other = {"name": "JPEG", "points": [[800, 28.0, "quality 10"], [3000, 36.0, "quality 50"]]}
    events = [
        {"event": "target", "measure": "bytes", "value": 2000},
        {"event": "reference", "series": [other], "notes": ["A note."]},
    ]
    job = job_with(*events)
    (section,) = searches.curves(job)
    assert section["data"]["codecs"] == ["fits tried", "the file", "the target", "JPEG"]
    job.events.append(trial(1, **OVER, bytes=2500, metrics={"psnr": 30.5}))
    job.events.append(trial(2, **OVER, bytes=1200, least={"psnr": 27.0}))
    section, table = searches.curves(job)
    curves = {one["codec"]: one["points"] for one in section["data"]["views"][0]["curves"]}
    assert [point[:2] for point in curves["fits tried"]] == [[1200, [27.0]], [2500, [30.5]]]
    assert curves["fits tried"][0][2].endswith("at least")
    assert [point[:2] for point in curves["the target"]] == [[2000, [27.0]], [2000, [36.0]]]
    assert [row[-2:] for row in table["data"]["rows"]] == [
        ["2,500", "30.50"], ["1,200", "27.00, at least"],
    ]  # fmt: skip
    assert "A note." in section["notes"]
    json.dumps([section, table], allow_nan=False)


def test_qualities_of_other_kinds_have_curves_of_their_own():
    target = {"event": "target", "measure": "snr", "value": 20}
    point = trial(1, **OVER, bytes=900, metrics={"psnr": None, "snr": 21.0})
    section, _ = searches.curves(job_with(target, point, kind="audio"))
    assert section["data"]["measures"] == ["PSNR, dB", "SNR, dB"]
    line = section["data"]["views"][0]["curves"][2]["points"]
    assert line == [[900, [None, 20], "SNR, dB: 20 at least"]] * 2


def test_the_share_of_a_search_is_that_of_its_nearer_bound():
    job = job_with(trial(2), progress={"step": 4, "progress": 0.5, "seconds": 2.0})
    assert searches.share(job) == pytest.approx(0.75)
    job.spec["seconds"] = 6.5
    assert searches.share(job) == pytest.approx(6 / 6.5)
    job.spec["seconds"] = 60.0
    line = searches.state(job)
    assert line.startswith("Fit 2 of up to 2 (full, 9 numbers) · step 4")
    assert "75% of the search" in line
    assert "about 2 s of fitting left at this pace" in line
    assert searches.state(job_with(state="queued", position=2)) == "Waiting: 2 before you"
    assert searches.state(job_with(state="failed", error="no file")) == "Failed: no file"
    assert searches.state(job_with()) == "Looking at the signal"


def test_names_of_files_are_no_markup():
    result = {
        "file": "<b>[x](javascript:1)</b>.inr", "bytes": 9, "psnr": None, "metrics": {"psnr": None},
        "density": {"bits_per_sample": 1.0}, "target": {"measure": "psnr", "value": 30.0},
        "asked": "psnr 30 dB", "reached": True, "stopped": False, "fits": 1, "seconds": 1.0,
        "warnings": ["<script>"],
    }  # fmt: skip
    said = searches.outcome(result)
    assert "<b>" not in said
    assert "<script>" not in said
    assert "](" not in said
    assert "exact" in said


# ------------------------------------------------------------------------ through the service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("studio") / "jobs", bounds=Bounds(grace=60.0))
    yield made
    made.close()


def test_a_search_is_followed_to_its_download(service, patch, tmp_path):
    pytest.importorskip("gradio")
    path = tmp_path / "patch.png"
    PIL.Image.fromarray(patch).save(path)
    owner = secrets.token_urlsafe(18)
    studio = Studio(service, tmp_path, None)
    spec = spec_for(path, target={"psnr": 28.0})
    with service.present(owner):
        job = service.submit(owner, "compress", spec)

        async def follow():
            return [news async for news in tab._followed(studio, job)]

        news = asyncio.run(asyncio.wait_for(follow(), 120))
    assert job.state == "done", job.error
    assert news[0][-2].startswith("inr compress patch.png")
    status, curve, _, result, download, stop = news[-1][:6]
    assert 'data-state="done"' in status
    assert curve["sections"][0]["data"]["views"][0]["curves"][1]["points"]
    stages = [changed[2] for changed in news if "ask" in changed[2]]
    assert stages[-1] == asked_of(job)
    shown = asyncio.run(frames_of(service)(stages[-1]["ask"]))
    assert shown == {"sections": job.frame}
    stranger = stages[-1]["ask"] | {"owner": secrets.token_urlsafe(18)}
    assert "no such job" in asyncio.run(frames_of(service)(stranger))["error"]
    assert "patch" in result
    assert not stop["interactive"]
    data = Path(download["value"]).read_bytes()
    assert len(data) == job.result["bytes"]
    assert inr.open(path).metrics(decode(data))["psnr"] >= 28.0


def test_the_tab_has_its_controls_and_nothing_public(service, tmp_path):
    gr = pytest.importorskip("gradio")

    async def built():  # where a loop runs Gradio makes none that nobody closes
        with gr.Blocks(analytics_enabled=False) as page:
            tab.build(Studio(service, tmp_path, gr.Textbox(visible=False)))
        return page

    page = asyncio.run(built())
    ids = {block.elem_id for block in page.blocks.values()}
    wanted = ("start", "stop", "status", "stage", "curve", "download", "command", "python")
    assert {f"compress-{name}" for name in (*wanted, "target", "value", "effort")} <= ids
    assert len(page.fns) > 5
    assert all(fn.api_visibility == "private" for fn in page.fns.values())
