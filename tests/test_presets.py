"""Presets: every shipped one works, and a wrong one is told in one line."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import inr
from apps.cli.main import main
from inr import presets
from inr.errors import UsageError
from inr.fitting.fit import build_field
from inr.meshes import Mesh, make_mesh
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.image import Image
from inr.signals.shape import Shape
from inr.signals.video import Video
from inr.signals.volume import Volume


@pytest.fixture
def image(coffee):
    return Image.from_array(coffee[170:186, 240:264])


def test_the_shipped_presets():
    assert {"image/grid", "image/grid-fast", "image/grid-fine", "image/siren"} <= {*presets.names()}
    assert presets.default("image") == presets.load("image/grid")
    for kind, name in presets.DEFAULTS.items():
        assert presets.default(kind) == presets.for_field(kind, presets.load(name).field)


def ball() -> Mesh:
    import trimesh

    made = trimesh.creation.icosphere(subdivisions=1)
    return make_mesh(made.vertices, made.faces)


@pytest.fixture
def signals(image):
    """A small signal of each kind."""
    wave = np.sin(np.arange(400) / 9)
    made = {
        "array": ArraySignal.from_array(
            image.samples.transpose(2, 0, 1)[:, :12], channels_last=False
        ),
        "audio": Audio.from_array(wave, 8000),
        "image": image,
        "shape": Shape.from_mesh(ball(), samples=2000, detail=16),
        "video": Video.from_array(np.stack([image.samples[k : k + 8] for k in range(6)])),
        "volume": Volume.from_array(image.samples.transpose(2, 0, 1)),
    }
    assert made.keys() == presets.DEFAULTS.keys()
    return made


def _is_part(given, whole) -> bool:
    """Whether a field has the hyperparameters that a preset gives, those of parts included."""
    if isinstance(given, dict):
        return all(name in whole and _is_part(given[name], whole[name]) for name in given)
    if isinstance(given, list) and isinstance(whole, list) and len(given) == len(whole):
        return all(map(_is_part, given, whole))
    return given == whole


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_fits(name, signals):
    preset = presets.load(name)
    assert preset == presets.load(str(presets.path_of(name)))
    signal = signals[name.partition("/")[0]]
    _, field = build_field(signal, preset, seed=0)
    assert _is_part(preset.hyperparameters, field.hyperparameters)
    fit = inr.fit(signal, preset, steps=2, device="cpu")
    assert fit.steps == 2
    assert fit.metrics["psnr"] > 5


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_says_what_it_is_for(name):
    assert presets.path_of(name).read_text().startswith("# ")


@pytest.mark.parametrize("name", presets.names())
def test_the_command_line_reads_presets_as_the_library_does(name, signals, tmp_path, capsys):
    assert main(["fit", "--config", name, "--print_config"]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    kind = name.partition("/")[0]
    printed, loaded = presets.load(str(path), kind), presets.load(name)
    assert printed.recipe == loaded.recipe
    fields = [build_field(signals[kind], preset, seed=0)[1] for preset in (printed, loaded)]
    assert fields[0].hyperparameters == fields[1].hyperparameters
    assert type(fields[0]) is type(fields[1])


def load(tmp_path: Path, text: str) -> Preset:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return presets.load(str(path))


def test_what_a_file_leaves_out_is_the_preset_of_its_field(tmp_path):
    siren = presets.load("image/siren")
    mine = load(tmp_path, "field:\n  name: siren\n  hidden_features: 16\nrecipe:\n  steps: 7\n")
    assert mine.field == "siren"
    assert mine.hyperparameters == siren.hyperparameters | {"hidden_features": 16}
    assert mine.recipe == dataclasses.replace(siren.recipe, steps=7)
    assert load(tmp_path, "recipe: {}\n") == presets.default("image")


def test_null_leaves_a_hyperparameter_to_the_field(tmp_path):
    mine = load(tmp_path, "field: {name: grid, levels: null, features: 2}")
    assert mine.hyperparameters == {"features": 2}


def test_fields_without_a_preset_have_general_defaults():
    assert presets.for_field("image", "unheard-of") == Preset("unheard-of", {}, Recipe())


def test_numbers_may_be_written_with_an_exponent(tmp_path):
    text = "field: {name: siren, first_omega: 1e2, hidden_omega: -3E+1}\nrecipe: {lr: 2e-4}"
    mine = load(tmp_path, text)
    assert mine.recipe.lr == 2e-4
    assert mine.hyperparameters["first_omega"] == 100.0
    assert mine.hyperparameters["hidden_omega"] == -30.0


def test_an_encoding_other_than_ascii(tmp_path):
    assert load(tmp_path, "# für Fotos 写真\nfield: {name: siren}\n").field == "siren"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no settings"),
        ("- a\n- b\n", "holds no settings"),
        ("just words", "holds no settings"),
        ("field: [1", "cannot be read"),
        ("a: 2020-99-99", "cannot be read"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("[" * 3000, "cannot be read"),
        ("field: siren", "`field` is 'siren'"),
        ("field:", "`field` is None"),
        ("recipe: 3", "`recipe` is 3"),
        ("field: {name: 3}", "field.name is 3"),
        ("fields: {name: grid}\nrecipes: {}", "fields, recipes: not a part"),
        ("1: 2\na: 3", "1, a: not a part"),
        ("recipe: {learning_rate: 1}", "recipe.learning_rate: no such setting"),
        ("recipe: {1: 1}", "recipe.1: no such setting"),
        ("recipe: {lr: fast}", "recipe.lr is 'fast': give a number above 0"),
        ("recipe: {lr: 0}", "recipe.lr is 0"),
        ("recipe: {lr: .nan}", "recipe.lr is nan"),
        ("recipe: {lr: .inf}", "recipe.lr is inf"),
        ("recipe: {lr: true}", "recipe.lr is True"),
        ("recipe: {schedule: linear}", "recipe.schedule is 'linear': give one of constant"),
        ("recipe: {schedule: [cosine]}", "recipe.schedule is"),
        ("recipe: {final_lr: 0}", "recipe.final_lr is 0"),
        ("recipe: {final_lr: 1.5}", "recipe.final_lr is 1.5"),
        ("recipe: {beta2: 1}", "recipe.beta2 is 1"),
        ("recipe: {rate_weight: -1}", "recipe.rate_weight is -1"),
        ("recipe: {batch: 0}", "recipe.batch is 0"),
        ("recipe: {batch: 1.5}", "recipe.batch is 1.5"),
        ("recipe: {steps: -1}", "recipe.steps is -1"),
        ("recipe: {steps: null}", "recipe.steps is None"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text, told):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00field")
    with pytest.raises(UsageError, match=r"mine\.yaml: cannot be read"):
        presets.load(str(path))


@pytest.mark.parametrize(
    ("name", "told"),
    [("image/gird", "did you mean image/grid"), ("nix", "choose from array/"), ("", "choose")],
)
def test_unknown_names(name, told):
    with pytest.raises(UsageError, match=told):
        presets.load(name)


def test_unknown_hyperparameters_and_fields(image):
    with pytest.raises(inr.InrError, match="nix"):
        inr.fit(image, Preset("siren", {"nix": 3}), steps=1)
    with pytest.raises(inr.InrError, match="did you mean 'siren'"):
        inr.fit(image, Preset("sirne"), steps=1)
