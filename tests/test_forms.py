"""Forms made of signatures, and what becomes of answers that anybody may send."""

import json
import math
import shlex
import time

import pytest

from apps.cli import choosing
from apps.cli.fit import parser
from apps.studio import equivalent, forms
from apps.studio.answers import NESTING, TEXT_LENGTH
from fields import registry
from inr import presets
from inr.errors import UsageError
from inr.operators import OPERATORS, create
from inr.presets import Preset, Recipe
from inr.signals import KINDS
from tests.test_contract import BAD


def typed(value) -> object:
    """An answer as a page sends what somebody typed."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def other(entry: forms.Entry) -> object:
    """An answer that is allowed, and not the default."""
    default = entry["default"]
    if entry["kind"] == "bool":
        return not default
    if entry["kind"] == "choice":
        return next(choice for choice in entry["choices"] if choice != default)
    if entry.get("json"):
        return '{"hidden_features": 5, "hidden_omega": [1e-05, 2.5], "pi": true, "init": "siren"}'
    if entry["kind"] == "numbers":
        return "3, 4" if default != [3, 4] else "5"
    low = entry["min"] if entry["min"] is not None else 0
    if default is None:
        return str(low + 2)
    nearer = default + 1 if entry["kind"] == "int" else default * 0.75 or low + 0.25
    return str(default - 1 if entry["max"] is not None and nearer > entry["max"] else nearer)


# ---------------------------------------------------------------------- entries


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_form_that_the_command_line_reads_too(kind):
    for name, _ in forms.fields_for(kind):
        base = presets.for_field(kind, name)
        entries, recipe = forms.field_entries(kind, base), forms.recipe_entries(base)
        assert json.loads(json.dumps(entries, allow_nan=False)) == entries
        given = forms.given(entries, {entry["name"]: other(entry) for entry in entries})
        assert [*given] == [entry["name"] for entry in entries], name
        trained = forms.given(recipe, {entry["name"]: other(entry) for entry in recipe})
        assert trained.keys() == vars(base.recipe).keys()

        if kind != "image" and f"{kind}/{name}" not in presets.names():
            continue  # the command line's options are those of any kind
        spec = {"name": "a", "field": name, "hyperparameters": given, "recipe": trained}
        line = equivalent.command(spec, found=kind)
        argv = choosing.rewritten(shlex.split(line)[2:], "fit")
        args = choosing.with_field(parser, argv, kind, None)
        assert vars(args.field) == {"name": name, **given}
        assert Recipe(**vars(args.recipe)) == Recipe(**trained)


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_typed_out_are_no_changes(kind):
    for name, _ in forms.fields_for(kind):
        base = presets.for_field(kind, name)
        for entries in (forms.field_entries(kind, base), forms.recipe_entries(base)):
            answers = {entry["name"]: typed(entry["default"]) for entry in entries}
            answers = {k: "" if v == "None" else v for k, v in answers.items()}
            assert forms.given(entries, answers) == {}, name
            assert forms.given(entries, dict.fromkeys(answers)) == {}
        own = {e["name"]: e["default"] for e in forms.field_entries(kind, base)}
        for key, value in base.hyperparameters.items():
            assert own[key] in (value, json.dumps(value))


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_a_class_refuses_is_refused_by_the_name_of_the_entry(name):
    base = presets.for_field("image", name)
    for bad in BAD[name]:
        found = forms.check("image", Preset(name, bad))
        if not found:  # `BAD` is of fields of 2 coordinates and 1 value, without a preset
            assert not forms.check("image", Preset(name, bad), (64, 64), 1), bad
            continue
        ((entry, message),) = found.items()
        assert "\n" not in message
        if entry and len(bad) == 1 and "width" not in bad and "atoms" not in str(bad):
            assert entry in (*bad, *(f"{key}_options" for key in bad)), (bad, message)
    assert forms.check("image", base) == {}


@pytest.mark.parametrize("name", registry.names())
def test_ranges_are_those_of_the_class(name):
    base = presets.for_field("image", name)

    def told_of(entry, value) -> str:
        value = [value] if entry["kind"] == "numbers" and not entry["one"] else value
        given = base.hyperparameters | {entry["name"]: value}
        return forms.check("image", Preset(name, given)).get(entry["name"], "")

    for entry in forms.field_entries("image", base):
        numeric = entry["kind"] in ("int", "float", "numbers")
        told = numeric and entry["name"] != "scales"  # of which there is one for each tensor
        assert (entry["min"] is not None) == told, entry["name"]
        if not told or not entry["allowed"] or entry["name"] == "start_psnr":
            continue
        whole = entry["kind"] == "int" or entry.get("whole")
        step = 1 if whole else 1e-3 * abs(entry["max"])
        low, high = entry["min"], entry["max"]
        as_type = int if whole else float
        assert told_of(entry, as_type(low - step)), entry["name"]
        assert bool(told_of(entry, as_type(low))) == entry["above"]
        if high < forms.JS_LARGEST:
            assert told_of(entry, as_type(high + step)), entry["name"]
        for value in (as_type(low + step), as_type(high)):
            assert ": give a" not in told_of(entry, value), entry["name"]


def test_a_range_that_depends_on_another_setting_is_the_widest():
    base = presets.for_field("image", "finr")
    entries = {e["name"]: e for e in forms.field_entries("image", base)}
    assert (entries["highest"]["min"], entries["lowest"]["min"]) == (-100, -100)
    low = {"lowest": -90, "highest": -60}
    assert forms.check("image", Preset("finr", low)) == {}
    assert [*forms.check("image", Preset("finr", {"highest": -60}))] == ["highest"]


def test_ranges_of_recipes_and_operators():
    settings = {e["name"]: e for e in forms.recipe_entries(Preset("siren"))}
    assert settings.keys() == vars(Recipe()).keys()
    for entry in settings.values():
        if entry["kind"] in ("bool", "choice"):
            continue
        assert entry["min"] == 0 or entry["name"] == "batch"
        with pytest.raises(UsageError, match=f"recipe.{entry['name']} "):
            Recipe(**{entry["name"]: entry["min"] - 1})
        if entry["max"] is not None:
            with pytest.raises(UsageError, match=f"recipe.{entry['name']} "):
                Recipe(**{entry["name"]: entry["max"] * 1.01})
    edges = {n: (e["above"], e["below"]) for n, e in settings.items()}
    assert edges["beta2"] == (True, True)
    assert edges["second_order"] == (False, True)
    assert edges["final_lr"] == (True, False)
    assert settings["quantize_db"]["unit"] == "dB"

    needed = {"inpaint": {"keep": 0.5}, "gradient": {}}
    for name in OPERATORS:
        entries = forms.operator_entries(name)
        assert "mask" not in [entry["name"] for entry in entries]
        for entry in entries:
            assert entry["help"]
            if entry["min"] is not None:
                with pytest.raises(UsageError, match=f"operator.{entry['name']} "):
                    create(name, **(needed.get(name, {}) | {entry["name"]: entry["min"] - 1}))
    ct = {e["name"]: e for e in forms.operator_entries("ct")}
    assert (ct["start"]["unit"], ct["angles"]["max"]) == ("degrees", 1 << 16)


def test_reading(tmp_path, coffee):
    import PIL.Image

    import inr

    PIL.Image.fromarray(coffee[:8, :8]).save(tmp_path / "a.png")
    (keep,) = forms.reading_entries("image")
    for choice in keep["choices"]:
        inr.open(tmp_path / "a.png", keep=choice)
    target = forms.reading_entries("shape")[0]
    assert target["choices"] == ["tsdf", "sdf", "occupancy"]
    (spacing, _) = forms.reading_entries("volume")
    assert (spacing["unit"], spacing["kind"]) == ("mm", "numbers")
    assert forms.given([spacing], {"spacing": "1, 1, 2.5"}) == {"spacing": [1.0, 1.0, 2.5]}
    assert forms.reading_entries("audio") == []


def test_fields_and_presets_of_a_kind():
    names = dict(forms.fields_for("image"))
    assert "sine activations" in names["siren"]
    assert "multistage" in names
    assert "multistage" not in dict(forms.fields_for("shape"))
    listed = [name for kind in KINDS for name in forms.presets_for(kind)]
    assert sorted(listed) == presets.names()
    assert all(forms.summary_of(name) for name in listed)
    assert forms.presets_for("image")[0] == "image/grid"
    assert forms.presets_for("image", "siren")[0] == "image/siren"
    assert "image/grid-fast" in forms.presets_for("image", "grid")
    assert forms.presets_for("video", "wire") == []


def test_a_part_is_chosen_among_the_fields_that_can_be_one():
    base = presets.for_field("audio", "windows")
    entries = forms.field_entries("audio", base)
    choice = next(entry for entry in entries if entry["name"] == "base")
    assert {"siren", "grid"} <= {*choice["choices"]}
    assert not {"windows", "doh", "pranc"} & {*choice["choices"]}
    # the default's options would mean nothing to another part
    given = forms.given(entries, {"base": "tanh"})
    assert given == {"base": "tanh", "base_options": {}}
    preset = Preset("windows", base.hyperparameters | given)
    assert forms.check("audio", preset) == {}
    stale = Preset("windows", base.hyperparameters | {"base": "tanh"})
    assert [*forms.check("audio", stale)] == ["base_options"]
    both = {"base": "tanh", "base_options": '{"hidden_features": 8}'}
    assert forms.given(entries, both)["base_options"] == {"hidden_features": 8}


def test_a_signal_of_other_axes():
    preset = Preset("grid", {"resolution": [8, 8, 8]})
    assert [*forms.check("array", preset, (8, 8), 1)] == ["resolution"]
    assert forms.check("array", preset, (8, 8, 8), 1) == {}
    assert forms.check("array", preset) == {}
    assert "lattice" in forms.check("shape", presets.for_field("shape", "multistage"))[""]


# ---------------------------------------------------------------------- answers of strangers

DEEP = "[" * (NESTING + 1) + "]" * (NESTING + 1)

HOSTILE = [
    ("hidden_features", value)
    for value in (
        *(True, [], {}, [3], {"a": 1}, "1e9", "1_0", "٣", "0x10", "3.5", 3.5, "nan", "-1"),
        *(0, 1 << 70, -(1 << 70), math.nan, math.inf, "9" * 10_000, "; rm -rf /", "1\n2"),
    )
]
HOSTILE += [("first_omega", v) for v in ("inf", "1e999", math.inf, "0", -1, [1.0], "1e7", "1__")]
HOSTILE += [("hidden_omega", v) for v in ("1, x", "1;2", ["a"], [[1.0]], [math.nan], [1.0] * 65)]
HOSTILE += [("hidden_omega", "1," * TEXT_LENGTH)]
HOSTILE += [("init", v) for v in ("other", 1, ["siren"], "siren\x1b[31m", "x" * 100_000)]
HOSTILE += [(name, 1) for name in ("__class__", "in_features", "self", "x" * 1000, "name")]
PART = [("base_options", v) for v in ("{", "1", "null", '"a"', "{1: 2}", "NaN", '{"a": NaN}')]
PART += [("base_options", v) for v in ("[" * 4000, "{}" + " " * TEXT_LENGTH, f'{{"a": {DEEP}}}')]
PART += [("base_options", v) for v in (1, True, {"a": math.inf}, {"a": "\x1b]0;x"}, {"\n": 1})]
PART += [("base_options", {"a": "x" * (TEXT_LENGTH + 1)}), ("base_options", '{"a": 1e999}')]
PART += [("base", v) for v in ("doh", "", "../siren", ["siren"])[:1]]
PART += [("crossings", "-1"), ("stages", "17")]


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [("siren", *case) for case in HOSTILE] + [("finr", *case) for case in PART[:-2]],
    ids=lambda value: repr(value)[:30],
)
def test_hostile_answers_are_refused(field, name, value):
    entries = forms.field_entries("image", presets.for_field("image", field))
    with pytest.raises(UsageError) as error:
        forms.given(entries, {name: value})
    text = str(error.value)
    assert len(text) < 900
    assert text.isprintable()
    assert [*forms.problems(entries, {name: value})] == [name]
    label = next((entry["label"] for entry in entries if entry["name"] == name), None)
    assert text.startswith(f"{label} is ") if label else "no such setting" in text


def test_what_a_page_sends_for_numbers():
    """It knows of no difference between one number and a list of one."""
    entries = {e["name"]: e for e in forms.field_entries("image", presets.default("image"))}
    size = entries["resolution"]
    for value in (64, "64", [64], "[64]", "64.0", 64.0):
        assert forms.given([size], {"resolution": value}) == {"resolution": 64}
    assert forms.given([size], {"resolution": "64, 32"}) == {"resolution": [64, 32]}
    assert (size["default"], size["placeholder"]) == (None, "chosen from the signal")
    assert entries["hidden_features"]["placeholder"] is None  # its default is shown


def test_all_that_is_wrong_is_told_at_once():
    entries = forms.field_entries("image", presets.for_field("image", "siren"))
    answers = {"hidden_features": "0", "first_omega": "x", "hidden_layers": "2"}
    found = forms.problems(entries, answers)
    assert found == {
        "hidden_features": "Hidden features is '0': give a whole number from 1 to 8192",
        "first_omega": "First omega is 'x': give a number above 0, at most 1e+06",
    }


def test_no_form_makes_the_page_wait():
    """Fields of fields of fields multiply: such as no file holds are not built to the end."""
    inner = {"stages": 16, "base": "siren", "base_options": {"hidden_layers": 62}}
    options = {"stages": 16, "base": "progressive", "base_options": inner}
    begin = time.process_time()
    found = forms.check("image", Preset("multistage", options))
    assert "4,096 tensors" in next(iter(found.values()))
    assert time.process_time() - begin < 8  # under beartype; without, about one
