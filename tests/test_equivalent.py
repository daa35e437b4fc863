"""What people copy from the page does what the page did, to the byte."""

import ast
import contextlib
import gzip
import io
import json
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import inr
from apps.cli.main import main
from apps.studio import equivalent
from apps.studio.spec import open_source, preset_of
from inr.codec.encode import encode
from inr.errors import UsageError

GOLDEN = Path(__file__).parent / "golden"
SIREN = {"hidden_features": 8, "hidden_layers": 1}


@pytest.fixture
def here(tmp_path, monkeypatch, coffee) -> Path:
    """A folder with a few real and small signals, in which the equivalents run."""
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(coffee[170:194, 240:272]).save("a b's.png")
    PIL.Image.fromarray(coffee[170:194, 240:272]).save("-x.png")
    PIL.Image.fromarray(coffee[170:194, 240:264, 1]).save("grey.png")
    mask = np.full((24, 32), 255, np.uint8)
    mask[4:12, 6:20] = 0
    PIL.Image.fromarray(mask).save("a b's-mask.png")
    np.save("clip.npy", coffee[170:182, 240:256][None].repeat(3, 0))
    return tmp_path


def run_line(spec, task, found) -> None:
    line = equivalent.command(spec, task, found)
    words = shlex.split(line, comments=True)
    assert words[:2] == ["inr", task]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words[1:]) == 0


def run_python(spec, task, found) -> None:
    exec(compile(equivalent.python(spec, task, found), "snippet", "exec"), {})


FITS = {
    "default": {"steps": 20},
    "named default": {"field": "grid", "preset": "image/grid", "steps": 3, "seed": 7},
    "forced kind": {
        "name": "clip.npy",
        "kind": "array",
        "found": "video",
        "field": "siren",
        "hyperparameters": SIREN,
        "steps": 5,
    },
    "preset": {"preset": "image/grid-fast", "field": "grid", "steps": 5},
    "field": {"field": "siren", "hyperparameters": SIREN, "steps": 20, "seed": 2**40},
    "settings": {
        "preset": "image/siren",
        "field": "siren",
        "hyperparameters": {**SIREN, "hidden_omega": [20.0, 1e-05][:1], "init": "winner"},
        "recipe": {"lr": 0.002, "eps": 1e-05, "schedule": "constant", "batch": 256},
        "steps": 20,
    },
    "settings of a preset": {
        "preset": "image/siren-small",
        "hyperparameters": SIREN | {"bias_init": "clean"},
        "recipe": {"quantize_db": 0.5},
        "steps": 20,
        "reading": {"keep": "none"},
    },
    "settings of the default": {
        "hyperparameters": {"levels": 3},
        "recipe": {"lr": 0.02, "steps": 5},
    },
    "parts": {
        "field": "multistage",
        "hyperparameters": {"base": "tanh", "base_options": {"hidden_features": 6}},
        "recipe": {"steps": 5},
    },
    "another field than the preset's": {
        "preset": "image/grid",
        "field": "tanh",
        "hyperparameters": {"hidden_features": 7},
        "steps": 20,
    },
    "quality": {"field": "siren", "hyperparameters": SIREN, "steps": 50, "psnr": 5.0},
    "layers": {"steps": 5, "progressive": True},
    "denoise": {
        "operator": {"name": "denoise", "options": {"photons": 20.0}, "simulate": True},
        "hyperparameters": SIREN,
        "steps": 5,
    },
    "mask": {
        "operator": {"name": "inpaint", "options": {"tv": 0.01}, "mask": "a b's-mask.png"},
        "hyperparameters": SIREN,
        "steps": 5,
    },
    "enlarge": {
        "operator": {"name": "superresolve", "options": {"factor": 2, "tv": 1e-05}},
        "hyperparameters": SIREN,
        "steps": 10,
    },
    "tomography": {
        "name": "grey.png",
        "operator": {
            "name": "ct",
            "options": {"angles": 12, "start": -9.0, "endpoint": True},
            "simulate": True,
        },
        "steps": 5,
    },
    "derivatives": {
        "name": "grey.png",
        "operator": {"name": "laplacian", "options": {"levels": 2}, "simulate": True},
        "field": "siren",
        "preset": "image/laplacian-official",
        "hyperparameters": SIREN,
        "steps": 5,
    },
    "film": {
        "name": "clip.npy",
        "found": "video",
        "reading": {"fps": 12.5},
        "field": "siren",
        "hyperparameters": SIREN,
        "steps": 5,
    },
    "dash": {"name": "-x.png", "steps": 3},
}


@pytest.mark.parametrize("case", FITS)
def test_fits_are_the_same_to_the_byte(here, case):
    spec = {"name": "a b's.png", "hyperparameters": {}, "recipe": {}, "operator": None} | FITS[case]
    found = spec.pop("found", "image")
    spec["source"] = str(here / spec["name"])

    signal = open_source(spec)
    fit = inr.fit(
        signal,
        preset_of(spec, signal.domain.kind, signal.preset),
        **{name: spec.get(name) for name in ("steps", "seconds", "psnr")},
        seed=spec.get("seed", 0),
    )
    fit.field.layered = spec.get("progressive", False)
    wanted = encode(fit.field, signal, target_psnr=spec.get("psnr"), rounding=fit.rounding)

    target = Path(f"{Path(spec['name']).stem}.inr")
    run_line(spec, "fit", found)
    assert target.read_bytes() == wanted
    target.unlink()
    run_python(spec, "fit", found)
    assert target.read_bytes() == wanted


def test_the_effort_of_coding_is_an_option_of_python_alone(here):
    spec = {"name": "grey.png", "source": str(here / "grey.png"), "steps": 5, "effort": 1}
    fit = inr.fit(inr.open("grey.png"), steps=5)
    assert "# `inr fit` codes with effort 4" in equivalent.command(spec, found="image")
    run_python(spec, "fit", "image")
    assert Path("grey.inr").read_bytes() == encode(fit.field, fit.signal, effort=1)
    assert "effort" not in equivalent.command(spec | {"effort": 4}, found="image")


@pytest.mark.parametrize(
    "target",
    [
        {"bytes": 900, "field": "siren", "hyperparameters": SIREN, "recipe": {"steps": 40}},
        {"psnr": 12.0, "recipe": {"steps": 20}, "seed": 3, "progressive": True},
        {"weight": 0.01, "preset": "image/siren-small", "hyperparameters": SIREN, "seconds": 60.0}
        | {"recipe": {"steps": 20}},
    ],
)
def test_files_of_a_size_or_a_quality_are_the_same_to_the_byte(here, target):
    spec = {"name": "grey.png", "source": "grey.png", "effort": 1, **target}
    run_line(spec, "compress", "image")
    data = Path("grey.inr").read_bytes()
    Path("grey.inr").unlink()
    run_python(spec, "compress", "image")
    assert Path("grey.inr").read_bytes() == data
    other = dict.fromkeys(("bpp", "kbps", "snr"), 5.0) | {"iou": 0.5}
    for name, value in other.items():
        line = equivalent.command({"name": "a.wav", "kind": "audio", name: value}, "compress")
        assert line == f"inr compress a.wav --kind audio --{name} {value}"


DECODED = [
    ("v1-siren-rgb8", "image", "b.png", {}),
    ("v1-siren-rgb8", "image", "b.npy", {"size": [9, 13], "crop": [1, 0.5, 4, 6.25]}),
    ("v1-siren-rgb8", "image", "b.tif", {"scale": 1.5}),
    ("v1-audio", "audio", "b.wav", {"rate": 5000, "start": 0.01, "depth": "float"}),
    ("v1-audio", "audio", "b.wav", {"end": 0.02}),
    ("v1-array", "array", "b.npy", {}),
    ("v1-volume", "volume", "b.nii.gz", {"scale": 1.5}),
    ("v1-volume", "volume", "b.npy", {"size": [3, 4, 5], "crop": [0, 1, 0, 4, 4, 4]}),
    ("v1-volume", "volume", "b.png", {"slice": "0=50%"}),
    ("v1-volume", "volume", "b.png", {"slice": "z=2"}),
    ("v1-shape", "shape", "b.ply", {"resolution": 24}),
    ("v1-shape", "shape", "b.ply", {"resolution": 24, "normals": False, "level": 0.0}),
    ("v1-video", "video", "b.npy", {"size": [6, 8], "fps": 10.0, "start": 0.0}),
    ("v1-video", "video", "b.npy", {"scale": 0.5, "crop": [1, 2, 6, 8]}),
]


@pytest.mark.parametrize(("name", "kind", "output", "how"), DECODED)
def test_renderings_are_the_same_to_the_byte(here, name, kind, output, how):
    Path("a.inr").write_bytes((GOLDEN / f"{name}.inr").read_bytes())
    spec = {"source": "/nowhere/a.inr", "name": "a.inr", "kind": kind, "output": output, **how}
    run_line(spec, "decode", None)
    wanted = Path(output).read_bytes()
    Path(output).unlink()
    run_python(spec, "decode", None)
    found = Path(output).read_bytes()
    if output.endswith(".gz"):  # its head holds the time
        found, wanted = gzip.decompress(found), gzip.decompress(wanted)
    assert found == wanted


def test_the_first_layers_of_a_file(here):
    data = (GOLDEN / "v1.1-progressive-rgb8.inr").read_bytes()
    Path("a.inr").write_bytes(data[: len(data) // 2])
    spec = {"name": "a.inr", "kind": "image", "output": "b.png", "partial": True}
    run_line(spec, "decode", None)
    wanted = Path("b.png").read_bytes()
    Path("b.png").unlink()
    run_python(spec, "decode", None)
    assert Path("b.png").read_bytes() == wanted


def test_only_what_differs_is_written():
    spec = {
        "source": "/tmp/x/0123",
        "name": "photo.png",
        "kind": "image",
        "field": "grid",
        "preset": "image/grid",
        "hyperparameters": {},
        "recipe": {"lr": 0.01},  # as the preset has it
        "steps": None,
        "operator": None,
        "seed": 0,
        "effort": 4,
        "reading": {},
    }
    assert equivalent.command(spec, found="image") == "inr fit photo.png"
    assert equivalent.command(spec) == "inr fit photo.png --kind image"
    assert equivalent.python(spec, found="image") == (
        'import inr\n\nsignal = inr.open("photo.png")\nfit = inr.fit(signal)\n'
        'inr.save(fit, "photo.inr")\n'
    )
    denoised = spec | {"preset": "image/denoise", "field": "siren", "recipe": {}}
    denoised["operator"] = {"name": "denoise", "options": {}, "simulate": False, "mask": None}
    assert equivalent.command(denoised, found="image") == "inr fit photo.png --operator denoise"
    # which preset suits a sound depends on its length, so its name is said
    sound = {"name": "a.wav", "preset": "audio/windows", "field": "windows"}
    assert equivalent.command(sound, found="audio") == "inr fit a.wav --field windows"


NAMES = (
    *(
        "a b.png",
        "$(reboot).png",
        "`id`.png",
        "';id;'.png",
        '";id;".png',
        "a\nb.png",
        "\x1b[2J.png",
    ),
    *(
        "../../etc/passwd",
        "/etc/shadow.png",
        "C:\\x\\y.png",
        "-rf",
        "--seed=1",
        "~",
        "*",
        "!!",
        "#",
    ),
    *("a\u202egnp.exe", "\ud800.png", "ä 漢.png", "a'''b\"\"\".png", "\\", "x\\", "{a}.png", ""),
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_of_a_file_is_more_than_a_name(name):
    spec = {"name": name, "source": "/tmp/s3cret/up.png", "steps": 1, "effort": 5}
    spec["operator"] = {"name": "inpaint", "options": {}, "mask": "/tmp/s3cret/mask.png"}
    line, text = equivalent.command(spec, found="image"), equivalent.python(spec, found="image")
    words = shlex.split(line, comments=True)
    assert words[:2] == ["inr", "fit"]
    assert words[3:5] == ["--operator", "inpaint"]
    assert line.count("\n") == 1  # the comment's
    assert line.replace("\n", "").isprintable()
    assert text.replace("\n", "").isprintable()
    assert "s3cret" not in line + text
    tree = ast.parse(text)
    first = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and len(n.args) == 1)
    assert isinstance(first.args[0], ast.Constant)
    assert first.args[0].value == words[2]
    assert "/" not in words[2].removeprefix("./")
    assert not words[2].startswith("-")


@pytest.mark.parametrize(
    ("spec", "task", "told"),
    [
        ({"name": "a", "speed": 3}, "fit", "speed: no part of the spec of a fit"),
        ({"name": "a"}, "fit", "kind: say what the file holds"),
        ({"name": "a", "kind": "image", "bytes": 3}, "fit", "bytes: no part"),
        ({"name": "a", "kind": "image", "operator": {"name": "ct"}}, "compress", "operator: no"),
        ({"name": "a", "kind": "image", "preset": "../x"}, "fit", "preset is '../x'"),
        ({"name": "a", "kind": "image", "recipe": {"lr": None}}, "fit", "recipe: lr is null"),
        ({"name": "a.inr"}, "decode", "kind: say"),
        ({"name": "a.inr", "kind": "image", "rate": 8000}, "decode", "rate: no part"),
        ({"name": "a"}, "train", "task is 'train'"),
    ],
)
def test_what_has_no_equivalent_is_refused(spec, task, told):
    with pytest.raises(UsageError, match=told):
        equivalent.command(spec, task)
    with pytest.raises(UsageError, match=told):
        equivalent.python(spec, task)


def test_python_of_a_rendering_needs_a_name():
    spec = {"name": "a.inr", "kind": "image"}
    assert equivalent.command(spec, "decode") == "inr decode a.inr"
    with pytest.raises(UsageError, match="output: give"):
        equivalent.python(spec, "decode")
    assert json.loads(json.dumps(spec)) == spec
