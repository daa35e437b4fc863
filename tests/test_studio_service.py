"""The studio's jobs: queued, run beside the page, paused, resumed, and nobody else's."""

import asyncio
import base64
import contextlib
import io
import os
import secrets
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import psutil
import pytest

import inr
from apps.studio import asked, picker, visitors, words
from apps.studio.service import Bounds, Service
from apps.studio.spec import open_source
from apps.studio.tabs import fit as tab_fit
from inr.errors import InputError, InrError, UsageError
from tests.conftest import ASSETS

CAMERA = {"source": "", "name": "camera.png"}
"""A small piece of it, which `picture` makes."""

SMALL = {"field": "siren", "preset": "image/siren", "hyperparameters": {"hidden_features": 32}}


def long():
    return CAMERA | SMALL | {"seconds": 600.0}


@pytest.fixture(scope="module", autouse=True)
def picture(tmp_path_factory, camera):
    path = tmp_path_factory.mktemp("picture") / "camera.png"
    PIL.Image.fromarray(camera[80:144, 200:264]).save(path)
    CAMERA["source"] = str(path)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One with short patience, whose workers are shared by the tests of this file."""
    bounds = Bounds(grace=1.0, keep=30.0, patience=3.0)
    made = Service(tmp_path_factory.mktemp("studio") / "jobs", bounds=bounds)
    yield made
    made.close()


@pytest.fixture
def owner(service):
    token = secrets.token_urlsafe(18)
    yield token
    for job in service.jobs(token):
        service.forget(job)


def wait(job, *states, seconds=60.0, until=None):
    end = time.monotonic() + seconds
    while job.state not in states or (until is not None and not until(job)):
        assert time.monotonic() < end, (job.state, job.phase, job.error)
        time.sleep(0.02)
    return job


def stepped(job):
    return job.progress.get("step", 0) > 0


def test_a_fit_becomes_the_file_that_the_command_line_makes(service, owner, tmp_path):
    spec = CAMERA | SMALL | {"steps": 12, "seed": 3}
    with service.present(owner):
        job = wait(service.submit(owner, "fit", spec), "done")
    assert job.result["ended"] == "steps"
    assert job.history[-1][0] == 12
    made = (job.folder / "camera.inr").read_bytes()
    target = tmp_path / "x.inr"
    options = ["--field", "siren", "--field.hidden_features", "32", "--steps", "12", "--seed", "3"]
    command = [sys.executable, "-m", "apps.cli.main", "fit", CAMERA["source"], *options]
    subprocess.run([*command, "-q", "-o", str(target)], check=True)
    assert target.read_bytes() == made
    assert [part["widget"] for part in job.frame][:1] == ["panes"]
    assert job.result["psnr"] == pytest.approx(
        inr.open(CAMERA["source"]).metrics(inr.decode(made))["psnr"], abs=1e-3
    )


def test_a_paused_fit_goes_on_as_if_nothing_had_been(service, owner):
    spec = CAMERA | SMALL | {"steps": 400}
    with service.present(owner):
        whole = wait(service.submit(owner, "fit", spec), "done")
        job = service.submit(owner, "fit", spec)
        wait(job, "running", until=stepped)
        service.pause(job)
        wait(job, "paused", seconds=3)
        assert 0 < job.progress["step"] < 400
        assert service.busy() == 0
        service.resume(job)
        wait(job, "done")
    assert (job.folder / "camera.inr").read_bytes() == (whole.folder / "camera.inr").read_bytes()


def test_a_stopped_fit_is_a_file_and_can_go_on(service, owner):
    with service.present(owner):
        job = service.submit(owner, "fit", CAMERA | SMALL | {"steps": 10_000})
        wait(job, "running", until=stepped)
        asked = time.monotonic()
        service.stop(job)
        wait(job, "running", "done", until=lambda j: j.phase == "coding" or j.state == "done")
        assert time.monotonic() - asked < 1.0
        wait(job, "done")
        first = job.result["steps"]
        assert job.result["ended"] == "stopped"
        inr.decode((job.folder / "camera.inr").read_bytes())
        assert job.resumable
        service.resume(job)
        wait(job, "running", until=lambda j: j.progress["step"] > first + 5)
        service.pause(job)
        wait(job, "paused")
        service.stop(job)  # a file of what rests
        wait(job, "done")
        assert job.result["steps"] > first


def test_a_killed_worker_takes_nothing_with_it(service, owner):
    with service.present(owner):
        job = service.submit(owner, "fit", long())
        wait(job, "running", until=stepped)
        victim = service.processes()[0]
        os.kill(victim, signal.SIGKILL)
        wait(job, "failed", seconds=3)
        assert "signal 9" in job.error
        again = wait(service.submit(owner, "fit", CAMERA | SMALL | {"steps": 3}), "done")
    assert again.result["steps"] == 3
    assert victim not in service.processes()


def test_an_allocation_that_fails_is_a_line(service, owner):
    huge = {"hyperparameters": {"hidden_features": 200_000}}
    with service.present(owner):
        job = service.submit(owner, "fit", CAMERA | SMALL | huge | {"steps": 3})
        wait(job, "failed", seconds=60)
        assert "\n" not in job.error
        again = wait(service.submit(owner, "fit", CAMERA | SMALL | {"steps": 2}), "done")
    assert again.result["steps"] == 2


def test_jobs_wait_and_are_told_their_place(service, owner):
    other = secrets.token_urlsafe(18)
    with service.present(owner), service.present(other):
        first = service.submit(owner, "fit", long())
        wait(first, "running")
        second = service.submit(other, "fit", CAMERA | SMALL | {"steps": 2})
        third = service.submit(owner, "fit", CAMERA | SMALL | {"steps": 2})
        assert (second.state, second.position) == ("queued", 0)
        assert (third.state, third.position) == ("queued", 1)
        service.stop(third)
        assert third.state == "failed"
        service.pause(first)
        wait(second, "done")
        for _ in range(4):
            service.submit(owner, "fit", long())
        with contextlib.suppress(UsageError):  # the first may run already
            service.submit(owner, "fit", long())
        with pytest.raises(UsageError, match="jobs of yours are waiting"):
            service.submit(owner, "fit", long())


def test_a_job_is_nobody_elses(service, owner):
    job = service.submit(owner, "info", CAMERA, lane="side")
    with pytest.raises(UsageError, match="no such job"):
        service.find(secrets.token_urlsafe(18), job.id)
    assert service.find(owner, job.id) is job
    assert service.folder(owner) != service.folder(owner + "x")
    assert job.folder.parent == service.folder(owner)
    assert job.folder.stat().st_mode & 0o077 == 0


def test_when_its_page_goes_a_job_rests(service, owner):
    with service.present(owner):
        job = service.submit(owner, "fit", long())
        wait(job, "running", until=stepped)
        time.sleep(1.5)  # longer than the grace
        assert job.state == "running"
    gone = time.monotonic()
    wait(job, "paused", seconds=4)
    assert time.monotonic() - gone > 0.9  # a reload takes less
    assert service.busy() == 0
    assert job.resumable


def test_calls(service, owner):
    async def call(task, spec, seconds=30.0):
        return await service.call(owner, task, spec, seconds)

    found = asyncio.run(call("look", CAMERA))
    assert (found["kind"], found["shape"]) == ("image", [64, 64])
    text = {"source": str(ASSETS.parent / "README.md"), "name": "<b>photo.png"}
    with pytest.raises(InputError, match="^<b>photo.png: is no picture") as caught:
        asyncio.run(call("look", text))
    assert str(ASSETS.parent) not in str(caught.value)
    with pytest.raises(InrError, match=r"took longer than 0\.001 s"):
        asyncio.run(call("look", CAMERA, 0.001))
    assert asyncio.run(call("look", CAMERA))["channels"] == 1  # another process took its place
    assert not [job for job in service.jobs(owner) if job.lane == "side"]


def test_a_visitors_files_are_deleted(tmp_path):
    service = Service(tmp_path / "jobs", devices=(), bounds=Bounds(grace=0.1, keep=0.3))
    try:
        with service.present("a" * 24):
            job = service.submit("a" * 24, "fit", long())
            folder = service.folder("a" * 24)
            time.sleep(0.8)
            assert job.folder.is_dir()
        end = time.monotonic() + 5
        while folder.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert service.jobs("a" * 24) == []
    finally:
        service.close()
    assert not (tmp_path / "jobs").exists()


# ------------------------------------------------------------- what the controls of a fit ask


def chosen():
    look = {"kind": "image", "shape": [64, 64], "channels": 1, "preset": None}
    return CAMERA | {"look": look}


def controls(**changed):
    form = {"entries": [], "given": {}, "errors": {}}
    panel = dict.fromkeys(("hyperparameters", "recipe", "reading", "observed"), form)
    panel |= {"field": "siren", "preset": "image/siren", "budget": "steps", "amount": 8}
    panel |= {"seed": 1, "effort": 2, "operator": asked.AS_IS, "simulate": False, "mask": None}
    return panel | changed


def painted(mask):
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask).save(buffer, "PNG", bits=1)
    return {"mask": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"}


def test_a_painted_mask_says_what_is_unknown(service, owner, tmp_path):
    studio = visitors.Studio(service, tmp_path, None)
    mask = np.ones((64, 64), bool)
    mask[20:30, 10:50] = False
    values = controls(operator="inpaint", mask=painted(mask))
    spec = asked.spec_of(studio, owner, chosen(), values)
    assert spec == asked.spec_of(studio, owner, chosen(), values)  # the same mask is the same file
    with service.present(owner):
        job = wait(service.submit(owner, "fit", spec), "done")
    seen = open_source(spec)
    assert int(seen.known.sum()) == mask.sum()
    assert job.result["psnr"] == pytest.approx(
        seen.metrics(inr.load(job.folder / "camera.inr"))["psnr"], abs=0.01
    )
    assert f"{job.result['psnr']:.2f} dB" in words.outcome(job.result)
    assert tab_fit.mask_file(spec)["value"].endswith("/camera-mask.png")


WRONG = [
    ({"amount": float("nan")}, "above 0"),
    ({"amount": "9"}, "above 0"),
    ({"amount": 1.5}, "whole number"),
    ({"budget": "seconds", "amount": 1e9}, "too many"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": float("inf")}, "seed is inf"),
    ({"effort": 10}, "from 1 to 9"),
    ({"preset": "../../etc/passwd"}, "none of this name"),
    ({"field": "os"}, "field"),
    ({"operator": "inpaint"}, "nothing is painted"),
    ({"operator": "inpaint", "mask": {"mask": "data:image/png;base64,@@"}}, "damaged"),
    ({"operator": "inpaint", "mask": {"mask": "/etc/passwd"}}, "nothing is painted"),
    ({"operator": "rm"}, "operator"),
    ({"hyperparameters": {"given": {"hidden_features": "many"}}}, "[Hh]idden"),
    ({"hyperparameters": {"given": {"hidden_features": -3}}}, "[Hh]idden"),
    ({"hyperparameters": {"given": {}, "errors": {"hidden_features": "no number"}}}, "no number"),
    ({"recipe": {"given": {"steps": 10**30}}}, "[Ss]teps"),
    ({"recipe": {"given": {"__class__": 1}}}, "."),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_what_a_page_may_not_ask_for(service, owner, tmp_path, changed, message):
    studio = visitors.Studio(service, tmp_path, None)
    with pytest.raises(UsageError, match=message) as caught:
        asked.spec_of(studio, owner, chosen(), controls(**changed))
    assert "\n" not in str(caught.value)


def test_nothing_is_fitted_before_something_is_chosen(service, owner, tmp_path):
    studio = visitors.Studio(service, tmp_path, None)
    with pytest.raises(UsageError, match="nothing is chosen"):
        asked.spec_of(studio, owner, {}, controls())


@pytest.mark.parametrize("token", [None, 5, "", "short", "x" * 65, "../" * 10, "a b" * 10])
def test_tokens(token):
    with pytest.raises(UsageError, match="reload"):
        visitors.visitor(token)


def test_names_and_texts_of_strangers_are_texts():
    nasty = "<img src=x onerror=alert(1)>_*[a](b)`\\n\u202e.png"
    name = visitors.display_name(f"/etc/{nasty}")
    assert name.isprintable()
    assert "/" not in name
    shown = picker.plain(nasty)
    assert "<" not in shown
    assert "\\*" in shown
    assert "\\[a\\]\\(b\\)" in shown
    assert "<script" not in words.said("<script>", '"><script>')
    assert len(visitors.display_name("x" * 500)) == visitors.NAME_LENGTH


def test_slices_are_one_list():
    assert tab_fit.look_of({}, "level", 0.5) == {"level": 0.5}
    assert tab_fit.look_of({"slices": [1, None, 3]}, "slices[1]", 2) == {"slices": [1, 2, 3]}


def test_dropped_files_have_bounds(service, owner, tmp_path, monkeypatch):
    studio = visitors.Studio(service, tmp_path, None)
    monkeypatch.setattr(visitors, "OWN_ROOM", 2500)

    def drop(name):
        (tmp_path / name).write_bytes(bytes(1000))
        return visitors.adopt(studio, owner, tmp_path / name)[0]

    first, second = drop("a.png"), drop("b.png")
    os.utime(first, (1, 1))
    job = service.submit(owner, "fit", long() | {"source": str(second)})
    third = drop("c.png")
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    fourth = drop("d.png")  # a job needs the second
    assert [path.exists() for path in (second, third, fourth)] == [True, False, True]
    service.forget(job)
    monkeypatch.setattr(visitors, "ROOM", 2500)
    with pytest.raises(UsageError, match="no room"):
        drop("e.png")
    with pytest.raises(InputError, match="drop it again"):
        visitors.adopt(studio, owner, __file__)  # no upload


def test_an_open_page_keeps_its_files(tmp_path):
    service = Service(tmp_path / "jobs", devices=(), bounds=Bounds(grace=0.1, keep=0.6))
    try:
        service.submit("a" * 24, "fit", long())
        for _ in range(6):
            time.sleep(0.3)
            service.touch("a" * 24)
        assert service.jobs("a" * 24)
        service.touch("b" * 24)  # of whom nothing is kept
    finally:
        service.close()


def test_workers_go_with_the_service(tmp_path):
    service = Service(tmp_path / "jobs")
    processes = [psutil.Process(pid) for pid in service.processes()]
    service.close()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_fits_leak_nothing(service, owner):
    def memory():
        return sum(psutil.Process(pid).memory_info().rss for pid in service.processes())

    def cycle():
        job = service.submit(owner, "fit", CAMERA | SMALL | {"seconds": 60.0})
        wait(job, "running", until=lambda j: j.frame is not None and stepped(j))
        service.stop(job)
        wait(job, "done")
        service.forget(job)

    with service.present(owner):
        for _ in range(10):  # allocators and caches fill at first
            cycle()
        before, processes = memory(), service.processes()
        for _ in range(50):
            cycle()
    assert service.processes() == processes
    assert memory() - before <= 20 << 20
