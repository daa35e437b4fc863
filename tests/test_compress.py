"""Rate control: every file lands on the right side of its target, or says that it does not."""

import dataclasses
import importlib
import json
import math
import signal
import subprocess
import sys
from fractions import Fraction

import hypothesis
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import strategies as st

import fields
import inr
from apps.cli.compress import size_of
from apps.cli.main import main
from fields import registry
from fields.sizes import at_most, stored_scalars
from inr import presets
from inr.codec.decode import decode
from inr.errors import TargetNotReached, UsageError
from inr.presets import Preset, Recipe
from inr.rate import control
from inr.rate.control import OnTrial, compress
from inr.rate.dials import SizeDial, WeightDial, suited
from inr.rate.model import Line, Point, Prior, place_of
from inr.rate.targets import Target, settle
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.image import Image
from inr.signals.video import Video
from inr.signals.volume import Volume
from tests.conftest import ROOT
from tests.test_contract import SMALL

SIREN = Preset(
    "siren",
    {"hidden_features": 24, "hidden_layers": 1},
    Recipe(lr=2e-3, schedule="cosine", final_lr=0.01, batch=4096, steps=120),
)
GRID = dataclasses.replace(
    presets.load("image/grid"),
    recipe=dataclasses.replace(presets.load("image/grid").recipe, steps=90),
)


@pytest.fixture
def image(patch) -> Image:
    return Image.from_array(patch)


def check(found, target: str, value: float) -> None:
    """The file itself keeps the target, and is what the result says that it is."""
    field = decode(found.data)
    metrics = found.fit.signal.metrics(field)
    assert found.quality == metrics
    assert found.reached
    if target == "bytes":
        assert len(found.data) <= value
    else:
        assert metrics[target] >= value


# ---- what is known without a fit


@pytest.mark.parametrize("name", sorted(registry.FIELDS))
def test_every_field_grows_and_shrinks(name):
    cls = registry.field_class(name)
    axes = 1 if name == "cosines" else 2

    def count(factor: float) -> int:
        return stored_scalars(name, axes, 3, cls.scaled(SMALL[name], factor))

    full = stored_scalars(name, axes, 3, SMALL[name])
    assert count(1.0) == full
    assert count(0.5) < full < count(2.0)
    shape = (12, 12)[:axes]
    given = at_most(2 * full, name, shape, 3, SMALL[name])
    assert given is not None
    # widths are whole numbers: the next size up has more
    assert 1.2 * full <= stored_scalars(name, axes, 3, given) <= 2 * full


def test_no_field_is_smaller_than_the_smallest():
    assert at_most(3, "siren", (12, 12), 3, SMALL["siren"]) is None


def test_a_start_as_the_signals_svd_is_scaled_by_what_chooses_its_ranks():
    cls = registry.field_class("finr")
    video = presets.default("video").hyperparameters
    assert cls.scaled(video, 2.0)["start_psnr"] == pytest.approx(42)
    picture = {"init": "svd", "rank": 40, "base_options": {"hidden_features": 640}}
    scaled = cls.scaled(picture | {"decomposition": "tt"}, 0.5)
    # the networks are to span the axes, whatever the ranks
    assert (scaled["rank"], scaled["base_options"]["hidden_features"]) == (20, 640)


def test_dials_are_marked_in_octaves(image):
    size = suited(SIREN, image, None)
    assert isinstance(size, SizeDial)
    counts = [
        stored_scalars("siren", 2, 3, size.preset(turn).hyperparameters) for turn in (-1, 0, 1, 2)
    ]
    ratios = np.log2(np.array(counts) / counts[1])
    assert ratios == pytest.approx([-1, 0, 1, 2], abs=0.25)  # few units: their number is coarse
    weight = suited(GRID, image, None)
    assert isinstance(weight, WeightDial)
    first, second = (weight.preset(turn).recipe.rate_weight for turn in (0, 1))
    assert first == GRID.recipe.rate_weight > second
    # with the weight given, the field's size is what is left
    assert isinstance(suited(GRID, image, 0.01), SizeDial)


@hypothesis.given(
    at=st.floats(-20, 20), slope=st.floats(0.7, 1.3), short=st.floats(-1, 1), goal=st.floats(-4, 4)
)
def test_a_line_is_found_from_three_fits(at, slope, short, goal):
    prior = Prior((0.0, 100.0), (1.0, 100.0), (0.0, 100.0))
    points = [
        Point(-1.0, True, at - slope + short),
        Point(2.0, True, at + 2 * slope + short),
        Point(0.5, False, at + 0.5 * slope),
    ]
    wanted_value = at + slope * goal
    assert place_of(wanted_value, prior, points, (-8, 8), 1.0) == pytest.approx(goal, abs=0.05)


def test_without_fits_the_prior_decides_and_bounds_hold():
    prior = Prior((10.0, 1.0), (2.0, 0.1), (0.0, 1.0))
    assert place_of(13.0, prior, [], (-5, 5), 1.0) == pytest.approx(1.5)
    assert place_of(40.0, prior, [], (-5, 5), 1.0) == 5
    # one long fit shifts the line, and hardly turns it
    line = Line(prior, [Point(0.0, False, 12.0)], 0.0)
    assert line.value(0.0) == pytest.approx(12, abs=0.02)
    assert line.value(1.0) == pytest.approx(14, abs=0.05)


def test_targets_in_units_of_each_kind(patch, image):
    pixels = patch.shape[0] * patch.shape[1]
    assert settle("bpp", 2.0, image) == Target("bytes", pixels * 2 // 8)
    tone = (np.sin(np.arange(8000) / 9) * 3e4).astype(np.int16)
    sound = Audio.from_array(tone, 8000)
    assert settle("kbps", 16, sound) == Target("bytes", 2000)
    assert settle("bpp", 2.0, sound) == Target("bytes", 2000)  # bits per sample
    assert settle("snr", 20, sound) == Target("snr", 20)
    clip = Video.from_array(np.stack([patch] * 5), rate=Fraction(25))
    assert settle("kbps", 80, clip) == Target("bytes", 2000)
    volume = Volume.from_array(patch.transpose(2, 0, 1).copy())
    assert settle("bpp", 2.0, volume) == Target("bytes", 3 * pixels * 2 // 8)
    assert str(Target("bytes", 20000)) == "20,000 bytes"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "no target is given"),
        ({"psnr": 30, "bytes": 2000}, "psnr and bytes are given"),
        ({"psnr": math.nan}, "psnr is nan"),
        ({"psnr": 0}, "psnr is 0"),
        ({"psnr": math.inf}, "psnr is inf"),
        ({"bytes": 3}, "even an empty file has"),
        ({"bytes": -1}, "bytes is -1"),
        ({"bpp": 1e-4}, "even an empty file has"),
        ({"iou": 2}, "iou is 2"),
        ({"iou": 0.9}, "no measure of this image"),
        ({"snr": 20}, "no measure of this image"),
        ({"kbps": 20}, "no unit of image"),
        ({"ssim": 1}, "no such target"),
        ({"psnr": True}, "psnr is True"),
        ({"psnr": 30, "effort": 0}, "effort is 0"),
        ({"psnr": 30, "effort": 10}, "effort is 10"),
        ({"psnr": 30, "seconds": 0}, "seconds is 0"),
        ({"weight": -1.0}, "weight is -1"),
        ({"weight": 0.1, "field": SIREN}, "means nothing to siren"),
    ],
)
def test_what_is_no_target_is_refused(image, given, told):
    with pytest.raises(UsageError, match=told) as refused:
        compress(image, **given)
    assert "\n" not in str(refused.value)


def test_observations_are_no_signal(image):
    from inr.operators import create
    from inr.signals.observed import Observed

    seen = Observed.simulated(image, create("denoise"))
    with pytest.raises(UsageError, match="observations"):
        compress(seen, psnr=30)


# ---- files


@pytest.mark.parametrize("allowed", [300, 1500])
@pytest.mark.parametrize("preset", [GRID, SIREN], ids=lambda p: p.field)
def test_a_size_is_kept_and_used(image, preset, allowed):
    found = compress(image, preset, bytes=allowed, effort=2)
    check(found, "bytes", allowed)
    assert len(found.data) >= control.USED * allowed
    # neither of the two is a network far too large or far too small for its bytes
    lost = found.fit.metrics["psnr"] - found.quality["psnr"]
    assert lost <= control.GROSS_DB
    assert [t.purpose for t in found.trials][:2] == ["short", "full"]


@pytest.mark.parametrize("preset", [GRID, SIREN], ids=lambda p: p.field)
def test_a_quality_is_kept_at_few_bytes(image, preset):
    low = compress(image, preset, psnr=24, effort=2)
    high = compress(image, preset, psnr=29, effort=2)
    check(low, "psnr", 24)
    check(high, "psnr", 29)
    assert low.quality["psnr"] < 25.5  # just on the right side
    assert len(low.data) < len(high.data)


def test_the_same_seed_makes_the_same_file(image):
    first, second = (compress(image, SIREN, bytes=400, effort=1, seed=3) for _ in range(2))
    assert first.data == second.data


def test_a_field_that_is_given_keeps_its_size_and_itself(image):
    torch.manual_seed(0)
    field = fields.Siren(2, 3, hidden_features=10, hidden_layers=1)
    before = {name: p.clone() for name, p in field.named_parameters()}
    found = compress(image, field, bytes=250, effort=1, seconds=0.5)
    check(found, "bytes", 250)
    assert found.field.hyperparameters == field.hyperparameters
    assert all(p.equal(before[name]) for name, p in field.named_parameters())


def test_a_quality_out_of_reach_gives_the_best_file_and_says_so(image):
    torch.manual_seed(0)
    field = fields.Siren(2, 3, hidden_features=6, hidden_layers=1)
    found = compress(image, field, psnr=70, effort=1, seconds=0.5)
    assert not found.reached
    assert found.quality == image.metrics(decode(found.data))
    assert found.quality["psnr"] >= found.fit.metrics["psnr"] - 0.1


def test_a_size_that_no_file_has_is_refused(image):
    torch.manual_seed(0)
    field = fields.Siren(2, 3, hidden_features=24, hidden_layers=3)
    with pytest.raises(TargetNotReached, match="the smallest has"):
        compress(image, field, bytes=50, effort=1, seconds=0.5)


def test_a_weight_alone_needs_no_target(image):
    small, large = (compress(image, GRID, weight=w, effort=1) for w in (0.1, 0.002))
    assert small.target is None
    assert small.reached
    assert small.fit.metrics["psnr"] < large.fit.metrics["psnr"]
    assert len(small.data) < len(large.data)
    both = compress(image, GRID, weight=0.02, bytes=600, effort=1)
    check(both, "bytes", 600)


def test_rounded_training_lands_on_the_target(image):
    # D'OH trains half of its steps with rounded parameters: here with the steps of the target
    code = Preset(
        "doh",
        {"target_options": {"hidden_features": 16, "hidden_layers": 2}, "latents": 300},
        Recipe(lr=1e-2, schedule="cosine", quantize_db=0.7, quantize_share=0.5, steps=200),
    )
    found = compress(image, code, bytes=500, effort=1)
    check(found, "bytes", 500)
    assert len(found.data) >= control.USED * 500
    assert [t.purpose for t in found.trials][-1] == "polish"


def test_steps_that_are_learnt_land_on_the_target(image):
    recipe = dataclasses.replace(SIREN.recipe, quantize_db=1.0, rate_weight=1e-3)
    learnt = dataclasses.replace(SIREN, recipe=recipe)
    found = compress(image, learnt, bytes=600, effort=2)
    check(found, "bytes", 600)
    assert len(found.data) >= control.USED * 600


def test_training_on_with_the_steps_of_the_file_helps(image, monkeypatch):
    plain = compress(image, SIREN, bytes=500, effort=2)
    polished = control.EFFORTS[2]._replace(polish=0.5)
    monkeypatch.setitem(control.EFFORTS, 2, polished)
    found = compress(image, SIREN, bytes=500, effort=2)
    check(found, "bytes", 500)
    assert found.quality["psnr"] >= plain.quality["psnr"]


def test_clips(patch):
    frames = np.stack([np.roll(patch, i, 1)[:24, :32] for i in range(6)])
    clip = Video.from_array(frames, rate=Fraction(25))
    found = compress(clip, bytes=1500, effort=1)
    check(found, "bytes", 1500)
    assert len(found.data) >= control.USED * 1500


def test_arrays_of_float64(patch):
    values = patch[:24, :24, 0].astype(np.float64) / 7
    found = compress(ArraySignal.from_array(values), SIREN, bytes=500, effort=1)
    check(found, "bytes", 500)


@pytest.fixture
def study(monkeypatch):
    """The benchmark of forty pairs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("targets")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field", "target"),
    [
        ("camera 96 x 96", "grid", {"bpp": 0.25}),
        ("astronaut 64 x 64", "siren", {"psnr": 22}),
        ("astronaut 64 x 64", "finr", {"psnr": 24}),
        ("speech 1 s", "windows", {"kbps": 8}),
        ("speech 1 s", "windows", {"snr": 4}),
        ("clip 8 x 48 x 64", "finr", {"psnr": 36}),
        ("CT 32 x 32 x 32", "finr", {"bpp": 0.5}),
        ("solid", "siren", {"iou": 0.9}),
    ],
)
def test_targets_of_every_kind(shared, study, name, field, target):
    row = study.run(study.Pair(name, field, target), shared)
    assert row.kept
    assert row.used is None or row.used >= control.USED


def test_a_sound(shared, study):
    row = study.run(study.Pair("music 0.5 s", "windows", {"kbps": 40}), shared)
    assert row.kept
    assert row.used >= control.USED


class Watch(OnTrial):
    """Notes the fits, and ends the search before one of them."""

    def __init__(self, last: int = 99) -> None:
        self.last = last
        self.seen: list[str] = []

    def on_trial(self, trial: control.Trial) -> bool:
        self.seen.append(trial.purpose)
        return trial.number <= self.last


def test_a_search_that_is_stopped_gives_what_there_is(image):
    watch = Watch(last=1)
    found = compress(image, SIREN, bytes=600, callbacks=[watch])
    assert watch.seen == ["short", "short"] or watch.seen == ["short", "full"]
    assert found.stopped
    check(found, "bytes", 600)
    with pytest.raises(TargetNotReached, match="stopped before any file"):
        compress(image, SIREN, psnr=60, callbacks=[Watch(last=1)])
    with pytest.raises(TargetNotReached, match="stopped before any file"):
        compress(image, SIREN, bytes=600, callbacks=[Watch(last=0)])


def test_seconds_bound_the_fits(image):
    slow = dataclasses.replace(SIREN, recipe=dataclasses.replace(SIREN.recipe, steps=10**6))
    found = compress(image, slow, bytes=600, seconds=0.6)
    check(found, "bytes", 600)
    # a fit ends with the burst that its time ends in
    assert sum(trial.seconds for trial in found.trials) < 0.6 + len(found.trials) * 1.0
    assert len(found.trials) <= 3


# ---- the command


@pytest.fixture
def here(tmp_path, monkeypatch, coffee):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a.png", "b.png")):
        PIL.Image.fromarray(coffee[170:194, 240 + 8 * i : 272 + 8 * i]).save(tmp_path / name)
    return tmp_path


QUICK = ("--field", "siren", "--field.hidden_features", "16", "--field.hidden_layers", "1")
QUICK = (*QUICK, "--recipe.steps", "160", "--effort", "2")


def call(capsys, *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["compress", *map(str, argv)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "size"),
    [("2000", 2000), ("20k", 20_000), ("1.5M", 1_500_000), ("64Ki", 65536), ("2KiB", 2048)],
)
def test_sizes_as_people_write_them(text, size):
    assert size_of(text) == size


def test_several_files(here, capsys):
    code, out, err = call(capsys, "a.png", "b.png", "--bytes", "0.5k", *QUICK, "--out-dir", "o")
    assert (code, err) == (0, "")
    for name in ("a", "b"):
        path = here / "o" / f"{name}.inr"
        assert 475 <= path.stat().st_size <= 500
        assert f"{name}.png -> o/{name}.inr: " in out
    assert "bytes of 500" in out
    # it is there now
    code, _, err = call(capsys, "a.png", "--bytes", "500", *QUICK, "-o", "o/a.inr")
    assert code == 5
    code, out, _ = call(capsys, "a.png", "--bytes", "1", *QUICK, "-o", "o/a.inr", "--skip-existing")
    assert (code, out) == (0, "")


def test_what_programs_are_told(here, capsys):
    code, out, _ = call(capsys, "a.png", "--psnr", 22, *QUICK, "--json", "--title", "A cup")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    trials = [event for event in events if event["event"] == "trial"]
    assert [trial["number"] for trial in trials] == list(range(1, len(trials) + 1))
    done = events[-1]
    assert done["event"] == "done"
    assert done["target"] == {"psnr": 22}
    assert done["reached"]
    assert done["psnr"] >= 22
    assert done["bytes"] == (here / "a.inr").stat().st_size
    assert len(done["fits"]) == len(trials)


def test_a_quality_not_reached_is_exit_4_and_the_best_file(here, capsys):
    code, _, err = call(capsys, "a.png", "--psnr", 99, *QUICK, "--recipe.steps", 5, "--effort", 1)
    assert code == 4
    assert err.count("\n") == 1
    assert "a.png: reached psnr" in err
    assert "of psnr 99 dB, which a.inr holds" in err
    assert inr.load("a.inr").out_features == 3


def test_a_size_not_reached_is_exit_4_and_no_file(here, capsys):
    code, _, err = call(capsys, "a.png", "--bytes", 45, *QUICK)
    assert (code, err.count("\n")) == (4, 1)
    assert "a.png: no file of 45 bytes" in err
    assert not (here / "a.inr").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((), "no target is given: give one of --bpp"),
        (("--psnr", "30", "--bytes", "2k"), "--bytes and --psnr are given"),
        (("--psnr", "nan"), '"psnr": expected float, got nan'),
        (("--psnr", "much"), "psnr"),
        (("--bytes", "3"), "even an empty file has"),
        (("--bytes", "3x"), "--bytes is '3x'"),
        (("--iou", "2"), "--iou is 2"),
        (("--snr", "30"), "snr: no measure of this image"),
        (("--kbps", "30"), "kbps: no unit of image"),
        (("--lambda", "-1"), "--lambda is -1"),
        (("--psnr", "30", "--effort", "11"), "--effort is 11"),
        (("--psnr", "30", "--seconds", "-3"), "--seconds is -3"),
        (("--psnr", "30", "--field", "sirene"), "sirene"),
        (("--psnr", "30", "--steps", "5"), "--steps"),
    ],
)
def test_refusals_are_one_line(here, capsys, argv, told):
    code, out, err = call(capsys, "a.png", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert told in err
    assert not (here / "a.inr").exists()


def test_an_inr_file_is_refused(here, capsys):
    code, _, _ = call(capsys, "a.png", "--bytes", "400", *QUICK)
    assert code == 0
    code, _, err = call(capsys, "a.inr", "--bytes", "400", "-o", "b.inr")
    assert code == 3
    assert "is an .inr file already" in err
    code, _, err = call(capsys, "missing.png", "--bytes", "400")
    assert code == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_a_file_that_meets_the_target_or_none(
    here, capsys, monkeypatch, number, code
):
    before = signal.getsignal(number)
    made = control._Search._fit

    def interrupted(self, turn, purpose):
        fit = made(self, turn, purpose)
        signal.raise_signal(number)  # as the fit is coded
        return fit

    monkeypatch.setattr(control._Search, "_fit", interrupted)
    exited, out, err = call(capsys, "a.png", "--bytes", "500", *QUICK)
    assert exited == code
    assert (here / "a.inr").stat().st_size <= 500
    assert "ends when what is being coded is coded" in err
    assert "stopped before its end" in out
    exited, _, err = call(capsys, "b.png", "--psnr", "60", *QUICK)
    assert exited == code
    assert "stopped before any file met the target" in err
    assert [path.name for path in here.glob("b*")] == ["b.png"]
    assert signal.getsignal(number) == before


def test_its_help_loads_no_torch():
    code = (
        "import sys; from apps.cli.main import main; main(['compress', '--help']);"
        "print(*({'torch', 'lightning'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--effort" in done.stdout
    assert done.stderr == "\n"
