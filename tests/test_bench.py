"""The shoot-out: equal sizes, its sweep, its journal, and what it writes."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch

from apps.bench.contestants import BY_NAME, CONTESTANTS, FACTORS
from apps.bench.results import rows
from apps.bench.shootout import BINS, SWEEP, WIDEST_SWEEP, Cell, Run, radial_power
from apps.bench.signals import Occupancy, Source, knot, lattice, pluck
from apps.cli.main import main
from fields import registry
from fields.sizes import stored_scalars
from inr.errors import InputError
from inr.fitting.fit import build_field
from inr.presets import Preset
from inr.signals.image import Image

CAMERA = Source("image", "camera", 32)


def made(name: str, lr: float, seed: int, psnr: float | None) -> Run:
    blank = {"scalars": 1, "best": psnr, "iou": None, "seconds": 1.0, "hyperparameters": {}}
    lists = {"steps": [1], "times": [1.0], "curve": [1.0], "spectrum": [1.0] * BINS}
    return Run(contestant=name, source="camera", lr=lr, seed=seed, psnr=psnr, **blank, **lists)


def test_every_field_takes_part_and_every_contestant_is_one():
    assert {c.field for c in CONTESTANTS} == set(registry.FIELDS) - set(FACTORS)
    assert len(BY_NAME) == len(CONTESTANTS)


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda c: c.name)
@pytest.mark.parametrize("kind", ["image", "sound", "shape"])
def test_sizes_are_equal(contestant, kind):
    signal = {
        "image": Image.from_array(np.zeros((96, 96), np.uint8)),
        "sound": Source("sound", "pluck", 4096).open(),
        "shape": Occupancy.from_array(np.zeros((20, 20, 20), bool)),
    }[kind]
    given = contestant.sized(kind, signal, 7000)
    axes = len(signal.domain.shape)
    scalars = stored_scalars(contestant.field, axes, signal.domain.channels, given)
    # widths are whole numbers: the next size up has more than 7,000
    assert 0.85 * 7000 < scalars <= 7000
    _, built = build_field(signal, Preset(contestant.field, given), seed=0)  # as a run does
    assert scalars == sum(s.tensor.numel() for s in built.stored_parameters())


def play(quality, seeds: int = 3) -> tuple[list[float], list[Run]]:
    """Run a cell to its end with a made-up quality of (rate, seed); returns (sweep, all runs)."""
    cell = Cell(BY_NAME["siren"], CAMERA, seeds)
    runs: dict[str, Run] = {}
    while missing := [job for job in cell.next(runs) if job.key not in runs]:
        for job in missing:
            runs[job.key] = made("siren", job.lr, job.seed, quality(job.lr, job.seed))
    return sorted(r.lr for r in runs.values() if r.seed == 0), list(runs.values())


def test_sweep_stays_where_its_best_lies_inside():
    sweep, runs = play(lambda lr, seed: -abs(math.log(lr / 5e-4)))
    assert sweep == pytest.approx([5e-4 * f for f in SWEEP])
    assert sorted((r.lr, r.seed) for r in runs if r.seed) == [(5e-4, 1), (5e-4, 2)]


@pytest.mark.parametrize("best", [4e-3, 2e-5])
def test_sweep_follows_its_best(best):
    sweep, runs = play(lambda lr, seed: -abs(math.log(lr / best)))
    nearest = min(sweep, key=lambda lr: abs(math.log(lr / best)))
    assert sweep[0] < nearest < sweep[-1]
    assert {r.lr for r in runs if r.seed} == {nearest}
    ratios = [b / a for a, b in itertools.pairwise(sweep)]
    assert ratios == pytest.approx([3] * len(ratios))


def test_sweep_ends_and_diverged_runs_come_last():
    sweep, _ = play(lambda lr, seed: lr)
    assert len(sweep) == WIDEST_SWEEP
    sweep, _ = play(lambda lr, seed: None if lr > 3e-4 else 30.0)
    assert all(lr < 2e-3 for lr in sweep)


def test_rows_are_of_the_best_rate():
    runs = [
        made("siren", 1e-3, 0, 20.0),
        made("siren", 3e-3, 0, 30.0),
        made("siren", 3e-3, 1, 32.0),
    ]
    runs += [made("gauss", 1e-3, 0, None)]
    first, second = rows(runs, "camera", ["gauss", "siren", "wire"])
    assert (first.name, first.lr, first.mean) == ("siren", 3e-3, 31.0)
    assert second.text(2, 1e-3)[2] == "diverged"


def test_radial_power_is_where_the_signal_is():
    n = 48
    i = torch.arange(n)
    wave = torch.cos(2 * math.pi * 7.5 * i / n * 2)[:, None].expand(n, n)[..., None]
    power = radial_power(wave)
    # 15 cycles over 48 samples are 0.625 of Nyquist's frequency: band 15 of 0 to 23
    assert int(np.argmax(power)) == 15
    assert sum(power) == pytest.approx(power[15], rel=1e-6)
    noise = torch.randn(64, 64, 2, generator=torch.Generator().manual_seed(0))
    assert np.allclose(radial_power(noise)[8:], 1, atol=0.2)  # Parseval: white stays white


def test_built_in_signals_are_what_they_are_called():
    sound = pluck(8192)
    assert np.abs(sound).max() == pytest.approx(1)
    spectrum = np.abs(np.fft.rfft(sound[:3600])) ** 2
    peak = np.argmax(spectrum) * 16_000 / 3600
    assert any(abs(peak - k * 196) < 10 for k in range(1, 5))
    inside = knot(lattice(40)).reshape(40, 40, 40)
    assert 0.02 < inside.mean() < 0.3
    assert not inside[0].any()
    assert not inside[:, :, -1].any()
    assert inside[::-1, ::-1, ::-1].sum() == inside.sum()


def test_a_mesh_becomes_an_occupancy(shared):
    signal = Source("shape", str(shared / "mesh" / "spot.obj"), 24).open()
    filled = float((signal.values > 0).float().mean())
    assert 0.02 < filled < 0.5
    assert (signal.values[0] < 0).all()  # a margin about the body


def test_iou_of_a_shape():
    inside = knot(lattice(16)).reshape(16, 16, 16)
    signal = Occupancy.from_array(inside)
    field = registry.create("grid", 3, 1, resolution=16, levels=1, features=1)
    field.adapt(signal.statistics())
    assert signal.metrics(field)["iou"] == pytest.approx(1)


TINY = ["--fields", "siren,fkan", "--sound", "--shape", "--image-size", "16", "--scalars", "400"]


def test_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "out"
    command = ["bench", "fields", *TINY, "--steps", "5", "--seeds", "2", "-j", "1"]
    assert main([*command, "--out-dir", str(out), "--json"]) == 0
    *events, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert done["event"] == "done"
    assert done["runs"] == len(events)
    with (out / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(events)
    assert {row["contestant"] for row in table} == {"siren", "fkan"}
    assert all(int(row["scalars"]) <= 400 for row in table)
    report = (out / "report.md").read_text()
    for row in ("| 1 |", "| 2 |", "siren", "fkan", "5 full-batch steps"):
        assert row in report
    for picture in ("curves-camera.png", "spectra-camera.png"):
        assert (out / picture).read_bytes()[:4] == b"\x89PNG"

    # a journal cut short by a crash: the run that it lost is made again, with the same result
    journal = out / "runs.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert main([*command, "--out-dir", str(out), "--resume", "--json"]) == 0
    *events, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(events) == 1
    again = journal.read_text().splitlines()
    assert json.loads(again[-1])["psnr"] == json.loads(lines[-1])["psnr"]

    assert main([*command, "--out-dir", str(out)]) == 2
    assert "give --resume" in capsys.readouterr().err
    assert main([*command, "--steps", "6", "--out-dir", str(out), "--resume"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--fields", "sirne"], "no contestant 'sirne'"),
        (["--scalars", "0"], "--scalars is 0"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--image-size", "1"], "--image-size is 1"),
        (["--image", "--sound", "--shape"], "at least one signal"),
        (["--jobs", "-1"], "--jobs is -1"),
        (["--scalars", "3"], "more than 3 scalars"),
        (["--image", "no.png"], "no.png"),
        (["--shape", "no.obj"], "no.obj"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, options, complaint):
    command = ["bench", "fields", *options, "--out-dir", str(tmp_path / "x")]
    assert main([*command, "--steps", "1", "--sound" if "--sound" not in options else "-q"]) in (
        2,
        3,
    )
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_journal_is_refused(tmp_path, capsys):
    (tmp_path / "runs.jsonl").write_text('{"something": 1}\n')
    assert main(["bench", "fields", *TINY, "--out-dir", str(tmp_path), "--resume"]) == 3
    assert "no journal" in capsys.readouterr().err


def test_meshes_without_triangles_are_refused(tmp_path):
    path = tmp_path / "empty.obj"
    path.write_text("v 0 0 0\n")
    with pytest.raises(InputError, match=r"empty\.obj"):
        Source("shape", str(path), 8).open()
