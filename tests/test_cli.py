"""The command line: what it does, what it says, and what its exit codes promise."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import inr
from apps.cli.main import VERBS, main
from fields import registry
from inr import presets
from inr.fitting.module import FitModule
from inr.metrics import psnr_arrays

SIREN = ("--field", "siren", "--field.hidden_features", "8", "--field.hidden_layers", "1")
ENTRY = "import sys; from apps.cli.main import main; sys.exit(main())"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Pictures of 32 x 24 are no work for two, and threads that wait are dear on a busy machine."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


class Result:
    """What a run in this process gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]

    def failed(self, code: int, *told: str) -> None:
        """It failed with this code and one line that says all of `told`."""
        assert (self.code, self.err.count("\n")) == (code, 1), self.err
        assert self.err.startswith("inr: ")
        assert "Traceback" not in self.err
        for text in told:
            assert text in self.err


@pytest.fixture
def run(capsys) -> Callable[..., Result]:
    def call(*argv: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return Result(code, *capsys.readouterr())

    return call


def save(path: Path, samples: np.ndarray) -> Path:
    PIL.Image.fromarray(samples).save(path, "PNG")
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, coffee) -> Path:
    """An empty folder to work in, but for three small pictures."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a.png", "b.png", "c.png")):
        save(tmp_path / name, coffee[170:194, 240 + 8 * i : 272 + 8 * i])
    return tmp_path


@pytest.fixture(scope="module")
def stored(tmp_path_factory, coffee) -> Path:
    """A fitted 32 x 24 picture, beside its source."""
    folder = tmp_path_factory.mktemp("stored")
    source = save(folder / "a.png", coffee[170:194, 240:272])
    assert main(["fit", str(source), "--steps", "5", "-q"]) == 0
    return folder / "a.inr"


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


# ---------------------------------------------------------------------- help and listing


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(run, argv):
    result = run(*argv)
    assert result.code == 0
    assert all(f"  {verb} " in result.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(run, verb):
    result = run(verb, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: inr {verb}")
    assert "--debug" in result.out


def test_version(run):
    assert run("--version").out == f"inr {inr.__version__}\n"
    facts = json.loads(run("--version", "--json").out)
    assert facts["inr"] == inr.__version__
    assert facts["torch"]


def test_help_of_fit_says_how_to_see_hyperparameters(run):
    text = " ".join(run("fit", "--help").out.split())
    assert "--field NAME" in text
    assert "--field.name" not in text
    assert "inr fit --field NAME --help" in text
    assert "--field.hidden" not in text


@pytest.mark.parametrize(
    "argv", [("--field", "siren"), ("--field=siren",), ("--config", "image/siren")]
)
def test_help_with_a_field_lists_its_hyperparameters(run, argv):
    text = " ".join(run("fit", *argv, "--help").out.split())
    assert "--field.hidden_features HIDDEN_FEATURES Width n of every hidden layer. (type:" in text
    assert "--field.bias_init {official,clean}" in text
    assert "hyperparameters of siren" in text


def test_help_tells_what_follows_the_signal(run):
    text = " ".join(run("fit", "--field", "grid", "--help").out.split())
    assert "Number of levels L. null: what suits the signal. (type: int, default: null)" in text


def test_fields(run):
    assert [e["name"] for e in run("fields", "--json").events] == registry.names()
    assert "siren" in run("fields").out
    assert "Width n of every hidden layer" in run("fields", "siren").out
    assert "--field.hidden_features 256" in run("fields", "siren").out
    (event,) = run("fields", "siren", "--json").events
    assert event["hyperparameters"]["first_omega"] == 30.0
    run("fields", "sirne").failed(2, "did you mean 'siren'")


# --------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["fti"], "did you mean `inr fit`"),
        (["xyz"], "inr --help"),
        (["fit"], "inputs"),
        (["fit", "a.png", "--nix"], "--nix"),
        (["fit", "a.png", "--step", "3"], "--step"),
        (["fit", "a.png", "--steps", "many"], '"steps": expected int, got many'),
        (["fit", "a.png", "--steps", "-1"], "steps is -1"),
        (["fit", "a.png", "--seconds", "nan"], "seconds"),
        (["fit", "a.png", "--seconds", "-1"], "seconds is -1"),
        (["fit", "a.png", "--seed", "-1"], "--seed is -1"),
        (["fit", "a.png", "--seed", "9" * 30], "--seed is 9"),
        (["fit", "a.png", "--max-loss-db", "-1"], "--max-loss-db"),
        (["fit", "a.png", "--threads", "0"], "--threads is 0"),
        (["fit", "a.png", "--device", "tpu"], "device is 'tpu'"),
        (["fit", "a.png", "--device", "cuda:99"], "cuda:99"),
        (["fit", "a.png", "--field", "sirne"], "did you mean 'siren'"),
        (["fit", "a.png", "--field"], "field"),
        (["fit", "a.png", "--field.nix", "3"], "--field.nix"),
        (["fit", "a.png", "--field.levels", "x"], '"field.levels": expected int, got x'),
        (["fit", "a.png", *SIREN, "--field.hidden_layers", "-1"], "hidden_layers is -1"),
        (["fit", "a.png", *SIREN, "--field.bias_init", "x"], "'official', 'clean'"),
        (["fit", "a.png", "--recipe.lr", "0"], "recipe.lr is 0"),
        (["fit", "a.png", "--recipe.schedule", "x"], "recipe.schedule"),
        (["fit", "a.png", "--config", "image/gird"], "did you mean image/grid"),
        (["fit", "a.png", "--config"], "--config"),
        (["fit", "a.png", "b.png", "-o", "x.inr"], "--out-dir"),
        (["fit", "a.png", "-o", "x.inr", "--out-dir", "x"], "--out-dir"),
        (["fit", "a.png", "./a.png"], "a.inr"),
        (["fit", "-"], "-o"),
        (["decode", "a.inr", "--size", "64"], "--size is '64': give WIDTHxHEIGHT"),
        (["decode", "a.inr", "--size", "0x4"], "--size"),
        (["decode", "a.inr", "--size", "1.5x4"], "--size"),
        (["decode", "a.inr", "--crop", "1,2,3"], "--crop"),
        (["decode", "a.inr", "--crop", "nan,0,1,1"], "--crop"),
        (["decode", "a.inr", "--crop", "30,0,8,8"], "crop"),
        (["decode", "a.inr", "--scale", "-1"], "--scale"),
        (["decode", "a.inr", "--scale", "inf"], "scale"),
        (["decode", "a.inr", "--scale", "2", "--size", "4x4"], "exclude each other"),
        (["decode", "a.inr", "--size", "99999x99999"], "too many for one picture"),
        (["decode", "a.inr", "--size", "99999999x1", "-o", "x.npy"], "too many"),
        (["decode", "a.inr", "-o", "x.nix"], "'.nix'"),
        (["decode", "-"], "-o"),
        (["info"], "inputs"),
        (["verify"], "inputs"),
        (["completion", "cmd"], "bash"),
    ],
)
def test_wrong_usage_is_told_in_one_line(run, here, stored, argv, told):
    if argv[0] != "fit":
        (here / "a.inr").write_bytes(stored.read_bytes())
    before = sorted(here.iterdir())
    run(*argv).failed(2, told)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("field: [1", "cannot be read"),
        ("field: siren", "`field` is 'siren'"),
        ("- a", "holds no settings"),
        ("nix: 3", "nix"),
        ("field: {nix: 3}", "field.nix"),
        ("recipe: {nix: 3}", "recipe.nix"),
        ("recipe: {lr: -1}", "recipe.lr"),
        ("field: {name: sirne}", "did you mean 'siren'"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line(run, here, text, told):
    (here / "my.yaml").write_text(text)
    run("fit", "a.png", "--config", "my.yaml").failed(2, told)


# ----------------------------------------------------------------------------- the road


def test_a_picture_goes_through_the_command_line(run, here):
    result = run("fit", "a.png", "--steps", "20", "--json")
    assert result.code == 0
    done = result.events[-1]
    assert done["event"] == "done"
    assert (done["input"], done["output"], done["steps"]) == ("a.png", "a.inr", 20)
    assert done["bytes"] == (here / "a.inr").stat().st_size
    assert done["bpp"] == pytest.approx(8 * done["bytes"] / (32 * 24), abs=1e-3)

    (facts,) = run("info", "a.inr", "--json").events
    assert (facts["width"], facts["height"], facts["mode"]) == (32, 24, "RGB")
    assert (facts["field"], facts["psnr"]) == ("grid", done["psnr"])
    assert run("verify", "a.inr").out.startswith("a.inr: intact, format 1.")

    assert run("decode", "a.inr", "-o", "back.png").code == 0
    original, back = (np.asarray(PIL.Image.open(name)) for name in ("a.png", "back.png"))
    assert psnr_arrays(original, back, 255) == pytest.approx(done["psnr"], abs=0.02)
    assert sorted(p.name for p in here.iterdir()) == sorted(
        ["a.png", "b.png", "c.png", "a.inr", "back.png"]
    )


def test_what_a_person_is_told(run, here):
    result = run("fit", "a.png", "--steps", "2")
    assert re.fullmatch(
        r"a\.png -> a\.inr: [\d.]+ dB, [\d,]+ bytes, [\d.]+ bpp, 2 steps in .*\n", result.out
    )
    assert result.err == ""
    info = run("info", "a.inr").out
    assert re.search(r"^psnr +[\d.]+ dB$", info, re.MULTILINE)
    assert re.search(r"^mode +RGB$", info, re.MULTILINE)
    assert run("decode", "a.inr", "-o", "b.tif").out.startswith("a.inr -> b.tif: 32 x 24 pixels")
    assert run("fit", "b.png", "--steps", "1", "-q").out == ""
    assert run("verify", "b.inr", "-q").out == ""


def test_an_exact_file_is_called_exact(run, here):
    save(here / "flat.png", np.full((8, 8), 7, np.uint8))
    result = run("fit", "flat.png", "--steps", "0", "--json")
    assert result.events[-1]["psnr"] is None
    assert "exact" in run("info", "flat.inr").out
    assert run("info", "flat.inr", "--json").events[0]["psnr"] is None
    # nothing is better than exact: the target is reached
    assert run("fit", "flat.png", "--steps", "0", "--psnr", "60", "-f").code == 0


def test_hyperparameters_presets_and_recipe_reach_the_fit(run, here):
    assert run("fit", "a.png", *SIREN, "--steps", "2").code == 0
    (facts,) = run("info", "a.inr", "--json").events
    assert (facts["field"], facts["hyperparameters"][:2]) == ("siren", [8, 1])
    result = run("fit", "b.png", "--config", "image/siren", "--recipe.steps", "3", "--json")
    assert result.events[-1]["steps"] == 3
    assert run("info", "b.inr", "--json").events[0]["field"] == "siren"


def test_a_printed_configuration_gives_the_same_file(run, here):
    options = [*SIREN, "--steps", "4", "--seed", "5", "--recipe.lr", "3e-3"]
    printed = run("fit", "a.png", "-o", "x.inr", *options, "--print_config")
    assert printed.code == 0
    (here / "my.yaml").write_text(printed.out)
    assert run("fit", "a.png", "-o", "one.inr", *options).code == 0
    assert run("fit", "a.png", "-o", "two.inr", "--config", "my.yaml").code == 0
    assert (here / "one.inr").read_bytes() == (here / "two.inr").read_bytes()


def test_a_printed_configuration_is_a_preset(run, here):
    printed = run("fit", "--field", "siren", "--field.hidden_features", "8", "--print_config")
    (here / "my.yaml").write_text(printed.out)
    mine = presets.load("my.yaml")
    assert mine.recipe == presets.load("image/siren").recipe
    assert mine.hyperparameters["hidden_features"] == 8
    for flag in ("skip_default", "skip_unset"):
        assert run("fit", "--field", "siren", f"--print_config={flag}").code == 0


@pytest.mark.parametrize("first", [True, False])
def test_an_option_wins_over_a_configuration_wherever_it_stands(run, here, first):
    (here / "my.yaml").write_text("field: {name: siren, hidden_layers: 2}\nsteps: 9\n")
    options, config = ["--field.hidden_layers", "1", "--steps", "1"], ["--config=my.yaml"]
    order = [*options, *config] if first else [*config, *options]
    result = run("fit", "a.png", *order, "--json")
    assert result.events[-1]["steps"] == 1
    assert run("info", "a.inr", "--json").events[0]["hyperparameters"][1] == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_named_field_wins_over_that_of_a_configuration(run, here, first):
    words = [["--field", "grid"], ["--config", "image/siren"]]
    order = words if first else words[::-1]
    # the preset's hyperparameters, where it has some, are not of this field
    (here / "my.yaml").write_text("field: {name: siren}\nrecipe: {steps: 2}\n")
    order = [[w.replace("image/siren", "my.yaml") for w in pair] for pair in order]
    result = run("fit", "a.png", *order[0], *order[1], "--json")
    assert result.events[-1]["steps"] == 2
    assert run("info", "a.inr", "--json").events[0]["field"] == "grid"


def test_names_that_look_like_options(run, here, coffee):
    save(here / "--field", coffee[170:194, 240:272])
    assert run("fit", "--steps", "1", "--", "--field").code == 0
    assert (here / "--field.inr").exists()


def test_progress_events(run, here, monkeypatch):
    monkeypatch.setattr("inr.fitting.callbacks.BetweenBursts.__init__", _impatient)
    result = run("fit", "a.png", "--steps", "5", "--json")
    progress = [e for e in result.events if e["event"] == "progress"]
    assert progress
    assert {"step", "seconds", "psnr", "progress"} <= progress[0].keys()


def _impatient(self) -> None:
    self._last = -1e9


def test_demo(run, here):
    result = run("demo", "a.png", "--out-dir", "out/demo", "--json")
    assert result.code == 0
    page = Path(result.events[-1]["page"])
    assert page.read_text().count('<div data-widget="') == 4
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "a-decoded-x4.png",
        "a-decoded.png",
        "a.inr",
        "index.html",
    ]
    run("demo", "nix.png", "--out-dir", "out").failed(3, "nix.png")
    run("demo", "a.png", "--out-dir", "a.png/x").failed(5, "a.png/x")


# -------------------------------------------------------------------------------- decode


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], (32, 24)),
        (["--scale", "2"], (64, 48)),
        (["--scale", "0.5"], (16, 12)),
        (["--size", "7x5"], (7, 5)),
        (["--crop", "8,4,16,10"], (16, 10)),
        (["--crop", "8,4,16,10", "--scale", "1.5"], (24, 15)),
        (["--crop", "0.5,0.25,4,4", "--size", "9x3"], (9, 3)),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_sizes_and_crops(run, here, stored, options, size, suffix):
    result = run("decode", stored, "-o", f"x{suffix}", *options, "--json")
    (event,) = result.events
    assert (event["width"], event["height"]) == size
    import imageio.v3

    read = np.load if suffix == ".npy" else imageio.v3.imread
    samples = read(here / f"x{suffix}")
    assert samples.shape == (*size[::-1], 3)
    assert samples.dtype == np.uint8


def test_formats_agree(run, here, stored, monkeypatch):
    options = ["--crop", "3,2,20,15", "--scale", "3"]
    for name in ("x.png", "x.npy", "x.tif"):
        assert run("decode", stored, "-o", name, *options).code == 0
    monkeypatch.setattr("apps.cli.decode_image.STREAM_BYTES", 0)
    assert run("decode", stored, "-o", "streamed.tif", *options).code == 0
    import tifffile

    expected = np.asarray(PIL.Image.open("x.png"))
    assert np.array_equal(np.load("x.npy"), expected)
    assert np.array_equal(tifffile.imread("x.tif"), expected)
    assert np.array_equal(tifffile.imread("streamed.tif"), expected)


def test_a_crop_is_that_part_of_the_whole(run, here, stored):
    run("decode", stored, "-o", "whole.npy", "--scale", "2")
    run("decode", stored, "-o", "part.npy", "--scale", "2", "--crop", "8,4,16,10")
    assert np.array_equal(np.load("part.npy"), np.load("whole.npy")[8:28, 16:48])


def test_default_name_of_a_picture(run, here, stored):
    (here / "my.v2.inr").write_bytes(stored.read_bytes())
    assert run("decode", "my.v2.inr").code == 0
    assert (here / "my.v2.png").exists()
    run("decode", "my.v2.inr").failed(5, "my.v2.png: exists already")


# ------------------------------------------------------------------- outputs that exist


def test_outputs_are_replaced_only_on_request(run, here):
    target = here / "a.inr"
    target.write_bytes(b"mine")
    run("fit", "a.png", "--steps", "1").failed(5, "a.inr: exists already", "-f")
    skipped = run("fit", "a.png", "--steps", "1", "--skip-existing")
    assert (skipped.code, skipped.out, skipped.err) == (0, "", "")
    assert run("fit", "a.png", "--steps", "1", "--skip-existing", "-f").code == 0
    assert target.read_bytes() == b"mine"
    assert run("fit", "a.png", "--steps", "1", "-f").code == 0
    assert target.read_bytes()[:4] == b"\x89INR"

    (here / "a.npy").write_bytes(b"mine")
    run("decode", "a.inr", "-o", "a.npy").failed(5, "a.npy: exists already")
    assert run("decode", "a.inr", "-o", "a.npy", "--skip-existing").code == 0
    assert (here / "a.npy").read_bytes() == b"mine"
    assert run("decode", "a.inr", "-o", "a.npy", "-f").code == 0


def test_some_of_several_exist(run, here):
    (here / "b.inr").write_bytes(b"mine")
    result = run("fit", "a.png", "b.png", "c.png", "--steps", "1", "--skip-existing", "--json")
    assert result.code == 0
    assert [e["event"] for e in result.events] == ["done", "skipped", "done"]


@pytest.mark.parametrize("target", ["a.png", "./a.png", "link.png"])
def test_the_input_is_never_replaced(run, here, target):
    (here / "link.png").symlink_to(here / "a.png")
    before = (here / "a.png").read_bytes()
    run("fit", "a.png", "-o", target, "-f", "--steps", "1").failed(5, "is the input itself")
    assert (here / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "nix/a.inr"], "nix/a.inr: its folder does not exist"),
        (["-o", "."], ".: is a folder"),
        (["-o", "x" * 300], "too long"),
        (["-o", "/dev/null", "-f"], "/dev/null"),
        (["-o", "/proc/nix.inr"], "/proc/nix.inr"),
        (["--out-dir", "a.png"], "a.png"),
        (["--out-dir", "a.png/x"], "a.png/x"),
    ],
)
def test_impossible_outputs(run, here, options, told):
    run("fit", "a.png", "--steps", "1", *options).failed(5, told)
    assert sorted(p.name for p in here.iterdir()) == ["a.png", "b.png", "c.png"]


def test_impossible_outputs_are_told_before_the_fit(run, here, monkeypatch):
    monkeypatch.setattr(FitModule, "step", lambda self: pytest.fail("it began"))
    (here / "a.inr").write_bytes(b"")
    run("fit", "a.png").failed(5, "exists")
    run("fit", "a.png", "-o", "nix/a.inr").failed(5, "nix")


def test_out_dir_is_made(run, here):
    assert run("fit", "a.png", "b.png", "--steps", "1", "--out-dir", "x/y").code == 0
    assert sorted(p.name for p in (here / "x/y").iterdir()) == ["a.inr", "b.inr"]


def test_a_full_disk(run, here, monkeypatch):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    run("fit", "a.png", "--steps", "1").failed(5, "a.inr: no space left")
    assert not (here / "a.inr").exists()
    assert leftovers(here) == []


# --------------------------------------------------------- bad inputs, among good ones


@pytest.fixture
def damaged(here, stored) -> Path:
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    (here / "damaged.inr").write_bytes(data)
    (here / "good.inr").write_bytes(stored.read_bytes())
    (here / "cut.inr").write_bytes(stored.read_bytes()[:-5])
    (here / "empty.inr").write_bytes(b"")
    (here / "folder").mkdir()
    return here


@pytest.mark.parametrize("verb", ["info", "verify", "decode"])
@pytest.mark.parametrize(
    "name", ["damaged.inr", "cut.inr", "empty.inr", "folder", "nix.inr", "a.png"]
)
def test_what_cannot_be_read(run, damaged, verb, name):
    before = sorted(damaged.iterdir())
    run(verb, name).failed(3, f"inr: {name}: ")
    run(verb, name, "--json").failed(3, name)
    assert sorted(damaged.iterdir()) == before


def test_errors_as_events(run, damaged):
    for argv in (["verify", "cut.inr"], ["fit", "nix.png"], ["decode", "cut.inr"]):
        (event,) = run(*argv, "--json").events
        assert (event["event"], event["input"]) == ("error", argv[1])
        assert event["error"].startswith(f"{argv[1]}: ")


def test_what_cannot_be_fitted(run, damaged):
    (damaged / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    (damaged / "text.txt").write_text("no picture")
    for name in ("noise.png", "text.txt", "empty.inr", "good.inr", "folder", "nix.png"):
        run("fit", name, "--steps", "1", "-o", "x.inr").failed(3, f"inr: {name}: ")
    assert not (damaged / "x.inr").exists()


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_the_good_ones_are_read_all_the_same(run, damaged, verb):
    result = run(verb, "cut.inr", "good.inr", "folder", "nix.inr", "damaged.inr")
    assert result.code == 1
    lines = result.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "cut.inr",
        "folder",
        "nix.inr",
        "damaged.inr",
    ]
    assert "good.inr" in result.out


def test_the_good_ones_are_fitted_all_the_same(run, damaged):
    (damaged / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    bad = ["noise.png", "folder", "nix.png"]
    argv = ["a.png", "noise.png", "b.png", "folder", "nix.png", "c.png"]
    result = run("fit", *argv, "--steps", "1", "--out-dir", "out")
    assert result.code == 1
    assert [line.split(":")[1].strip() for line in result.err.splitlines()] == bad
    assert sorted(p.name for p in (damaged / "out").iterdir()) == ["a.inr", "b.inr", "c.inr"]
    assert run("verify", *sorted((damaged / "out").iterdir())).code == 0


def test_an_unforeseen_error_is_one_line_and_one_input(run, here, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("by\nzero")

    argv = ["fit", "a.png", "b.png", "--steps", "1", "-f"]
    with monkeypatch.context() as patch:
        patch.setattr("inr.codec.encode.choose_steps", fail)
        run("fit", "a.png", "--steps", "1").failed(1, "a.png", "ZeroDivisionError", "--debug")
        result = run(*argv)
        assert (result.code, result.err.count("\n")) == (1, 2)
        shown = run(*argv, "--debug").err
        assert shown.count("Traceback") == 2
        assert run("--debug", *argv).err.count("Traceback") == 2
    with monkeypatch.context() as patch:
        patch.setattr("apps.cli.info.parse", fail)
        run("info", "a.inr").failed(1, "ZeroDivisionError")
        with pytest.raises(ZeroDivisionError):
            main(["info", "a.inr", "--debug"])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_out_of_memory(run, here, monkeypatch, handlers, error):
    def fail(*args, **kwargs):
        raise error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(FitModule, "step", fail)
    run("fit", "a.png", "--steps", "1").failed(1, "a.png: out of memory", "smaller")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_target_out_of_reach(run, here):
    result = run("fit", "a.png", *SIREN, "--steps", "2", "--psnr", "60")
    result.failed(4, "a.png", "of 60", "--steps")
    assert run("verify", "a.inr").code == 0
    assert not (here / "a.inr.snapshot").exists()
    assert run("fit", "b.png", "--psnr", "20").code == 0
    assert run("fit", "a.png", "c.png", *SIREN, "--steps", "2", "--psnr", "60", "-f").code == 1


# ------------------------------------------------------------- names and other strangers


@pytest.mark.parametrize(
    "name",
    ["a\nb\x1b[31mred\x07.png", "\u202egnp.png", "\x9b2J.png", os.fsdecode(b"\xff\xfe.png")],
)
def test_control_characters_in_names_do_not_reach_the_terminal(run, here, coffee, name):
    save(here / name, coffee[170:194, 240:272])
    stored = Path(name).stem + ".inr"
    results = [
        run("fit", name, "--steps", "1"),
        run("fit", name, "--steps", "1"),
        run("info", stored, "nix" + name),
        run("verify", stored, name),
        run("decode", stored, "-o", "x" + name),
        run("decode", stored, "-o", "x" + name + "y"),
        run("fit", "--nix" + name),
        run("fit", "--config", name, "a.png"),
        run("fit", "a.png", "--field", name),
        run("fit", name, "--steps", "1", "-f", "--json"),
        run(name),
    ]
    assert [r.code for r in results] == [0, 5, 1, 1, 0, 2, 2, 2, 2, 0, 2]
    for result in results:
        for stream in (result.out, result.err):
            assert all(c == "\n" or c.isprintable() for c in stream), stream
    assert all(r.err.count("\n") <= 1 for r in results)


def test_a_terminal_of_few_characters(run, here, coffee, monkeypatch):
    save(here / "zwölf.png", coffee[170:194, 240:272])
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert main(["fit", "zwölf.png", "--steps", "1"]) == 0
    narrow.flush()
    assert narrow.buffer.getvalue().startswith(b"zw\\xf6lf.png -> zw\\xf6lf.inr: ")


# --------------------------------------------------------------- standard input, output


def feed(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_and_output(here, monkeypatch, capsysbinary):
    feed(monkeypatch, (here / "a.png").read_bytes())
    assert main(["fit", "-", "-o", "-", "--steps", "3"]) == 0
    out, err = capsysbinary.readouterr()
    assert out[:4] == b"\x89INR"
    assert err.startswith(b"standard input -> standard output: ")
    assert main(["fit", "a.png", "--steps", "3", "-q"]) == 0
    assert out == (here / "a.inr").read_bytes()
    assert not list(here.glob("*.snapshot"))

    for argv in (["info", "-"], ["verify", "-"]):
        feed(monkeypatch, out)
        assert main(argv) == 0
        assert b"standard input" in capsysbinary.readouterr().out

    feed(monkeypatch, out)
    assert main(["decode", "-", "-o", "-", "--json"]) == 0
    picture, err = capsysbinary.readouterr()
    assert json.loads(err)["width"] == 32
    assert PIL.Image.open(io.BytesIO(picture)).size == (32, 24)


@pytest.mark.parametrize("verb", ["info", "verify", "decode", "fit"])
def test_rubbish_on_standard_input(run, here, monkeypatch, verb):
    feed(monkeypatch, b"rubbish")
    run(verb, "-", *(["-o", "x.png"] if verb in ("decode", "fit") else [])).failed(
        3, "standard input: "
    )


def test_binary_does_not_go_to_a_terminal(run, here, stored, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run("fit", "a.png", "-o", "-").failed(2, "terminal", "-o FILE")
    run("decode", stored, "-o", "-").failed(2, "terminal")


# ------------------------------------------------------------------------------- signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Whatever a run does to the handlers of signals, the next test has the usual ones."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = [signal.getsignal(n) for n in numbers]
    yield
    for n, handler in zip(numbers, old, strict=True):
        signal.signal(n, handler)


def raise_at(monkeypatch, step: int, *numbers: int) -> None:
    """Send this process signals once a fit has done `step` steps."""
    original = FitModule.step
    pending = list(numbers)

    def wrapper(self: FitModule) -> None:
        original(self)
        if self.fit_step == step:
            while pending:
                signal.raise_signal(pending.pop(0))

    monkeypatch.setattr(FitModule, "step", wrapper)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_fitted_and_resume_goes_on(
    run, here, monkeypatch, handlers, number, code
):
    argv = ["fit", "a.png", *SIREN, "--steps", "30"]
    assert run(*argv, "-o", "whole.inr").code == 0
    with monkeypatch.context() as patch:
        raise_at(patch, 11, number)
        result = run(*argv)
    assert result.code == code
    assert "--resume" in result.out
    assert result.err == ""
    assert run("verify", "a.inr").code == 0
    assert (here / "a.inr.snapshot").exists()
    assert signal.getsignal(number) == (
        signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    )

    run(*argv).failed(5, "exists already")
    result = run(*argv, "--resume", "--json")
    assert result.code == 0
    assert result.events[-1]["steps"] == 30
    assert (here / "a.inr").read_bytes() == (here / "whole.inr").read_bytes()
    assert not (here / "a.inr.snapshot").exists()
    run(*argv, "--resume").failed(5, "exists already")


def test_a_signal_ends_the_work_on_several(run, here, monkeypatch, handlers):
    argv = ["fit", "a.png", "b.png", "c.png", *SIREN, "--steps", "30", "--json"]
    seen = []
    original = FitModule.step

    def wrapper(self: FitModule) -> None:
        original(self)
        seen.append(self.fit_step)
        if len(seen) == 41:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(FitModule, "step", wrapper)
        result = run(*argv)
    assert result.code == 130
    assert [e["ended"] for e in result.events] == ["steps", "stopped"]
    assert [p.name for p in sorted(here.glob("*.inr*"))] == ["a.inr", "b.inr", "b.inr.snapshot"]
    result = run(*argv, "--resume", "--skip-existing")
    assert result.code == 0
    assert [(e["event"], e.get("steps")) for e in result.events] == [
        ("skipped", None),
        ("done", 30),
        ("done", 30),
    ]
    assert not list(here.glob("*.snapshot"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_aborts(run, here, monkeypatch, handlers, number, code):
    raise_at(monkeypatch, 5, number, number)
    result = run("fit", "a.png", *SIREN, "--steps", "30")
    assert result.code == code
    assert "Traceback" not in result.err
    assert sorted(p.name for p in here.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_signal_while_a_file_is_made_waits_for_it(run, here, monkeypatch, handlers):
    import inr.codec.encode as module

    original = module.choose_steps

    def wrapper(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    argv = ["fit", "a.png", "b.png", *SIREN, "--steps", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "choose_steps", wrapper)
        run(*argv).failed(130, "a.inr: is being written")
    assert [p.name for p in sorted(here.glob("*.inr*"))] == ["a.inr"]
    assert run("verify", "a.inr").code == 0
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_an_interrupt_elsewhere_is_one_line(run, here, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("inr.codec.decode.inspect", stop)
    (here / "a.inr").write_bytes(b"")
    run("info", "a.inr").failed(130, "interrupted")


# ----------------------------------------------------------------------- whole processes


def start(*argv: object, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = str(Path(inr.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, argv)],
        env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options,
    )


HEAVY = ("torch", "lightning", "gradio", "scipy", "pandas")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--version", "--json"],
        ["fit", "--help"],
        ["decode", "--help"],
        ["info", "STORED"],
        ["info", "STORED", "--json"],
        ["verify", "STORED"],
        ["fields"],
        ["completion", "bash"],
    ],
)
def test_light_commands_load_nothing_heavy(stored, argv):
    code = (
        "import sys; from apps.cli.main import main; main(sys.argv[1:]);"
        f"print(*({{*{HEAVY}}} & {{*sys.modules}}), file=sys.stderr)"
    )
    words = [str(stored) if word == "STORED" else word for word in argv]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_a_process_that_waits(here, stored, number, code):
    with start("verify", stored, "-", stdin=subprocess.PIPE) as process:
        assert process.stdout.readline().endswith("a.inr: intact, format 1.1\n")
        process.send_signal(number)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_a_process_that_fits(run, here, number, code):
    with start("fit", "a.png", "--seconds", "120", "--json", *SIREN) as process:
        first = json.loads(process.stdout.readline())
        assert first["event"] == "progress"
        begin = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        waited = time.monotonic() - begin
    assert (process.returncode, err) == (code, "")
    assert json.loads(out.splitlines()[-1])["ended"] == "stopped"
    assert waited < 60
    assert run("verify", "a.inr").code == 0
    assert (here / "a.inr.snapshot").exists()
    assert leftovers(here) == []


def test_a_size_limit_of_the_system(here):
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    with start("fit", "a.png", "b.png", "--steps", "1", preexec_fn=limit) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    assert [line.split(": ")[1] for line in err.splitlines()] == ["a.inr", "b.inr"]
    assert "larger than files may be" in err
    assert sorted(p.name for p in here.iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("argv", [["info", "STORED"], ["--help"], ["fields"]])
def test_a_standard_output_that_takes_nothing(stored, argv):
    words = [str(stored) if word == "STORED" else word for word in argv]
    with Path("/dev/full").open("w") as full, start(*words, stdout=full) as process:
        err = process.stderr.read()
    assert process.returncode == 5
    assert err.count("\n") == 1
    assert "no space left" in err


@pytest.mark.parametrize("argv", [["info", "STORED"], ["--help"], ["fields"]])
def test_a_reader_that_has_gone(stored, argv):
    words = [str(stored) if word == "STORED" else word for word in argv]
    reading, writing = os.pipe()
    os.close(reading)
    with start(*words, stdout=writing) as process:
        os.close(writing)
        assert process.stderr.read() == ""
    assert process.returncode == 1


# ---------------------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts(run, shell):
    result = run("completion", shell)
    assert result.code == 0
    assert all(verb in result.out for verb in VERBS)


COMPLETIONS = [
    (["inr", "ve"], "verify"),
    (["inr", "fit", "--fi"], "--field"),
    (["inr", "fit", "--out"], "--output --out-dir"),
    (["inr", "fit", "--field", "si"], "siren"),
    (["inr", "fit", "--config", "image/grid-fa"], "image/grid-fast"),
    (["inr", "fields", "gr"], "grid"),
    (["inr", "completion", "b"], "bash"),
    (["inr", "fit", "a.p"], "a.png"),
]


def test_completion_in_bash(run, here):
    (here / "inr.bash").write_text(run("completion", "bash").out)
    # with its own name for the function, whatever that is
    script = ["source ./inr.bash", 'f=$(complete -p inr | sed "s/.*-F //; s/ inr$//")']
    for words, _ in COMPLETIONS:
        script.append(f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1} COMPREPLY=()")
        script.append('$f; echo "${COMPREPLY[*]}"')
    try:
        subprocess.run(["bash", "-n", "inr.bash"], check=True)
        command = ["bash", "-c", "\n".join(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("there is no bash here")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [expected for _, expected in COMPLETIONS]
