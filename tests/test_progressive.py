"""Progressive files: any prefix with the first layer decodes, and more bytes never look worse."""

import copy
import itertools
import json
import random

import cbor2
import imageio.v3
import numpy as np
import pytest
import torch

import fields
import inr
from apps.cli.main import main
from inr.codec import format as container
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.codec.layers import LAYER_BYTES, LEAST_GAIN_DB, SHARE
from inr.errors import CorruptFile, InrError
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.image import Image
from tests.mutate import mutate, outcome, resealed, seal

SIREN = {"hidden_layers": 2}
STAGES = {
    "stages": 3,
    "base_options": [
        {"hidden_features": 16, "first_omega": 20.0, **SIREN},
        {"hidden_features": 28, "first_omega": 30.0, **SIREN},
        {"hidden_features": 40, "first_omega": 60.0, **SIREN},
    ],
}


@pytest.fixture(scope="module")
def image(coffee):
    return Image.from_array(np.ascontiguousarray(coffee[100:220, 180:360]))


@pytest.fixture(scope="module")
def grid(image):
    return inr.fit(image, "grid", steps=12, device="cpu").field


@pytest.fixture(scope="module")
def stages(image):
    recipe = Recipe(lr=2e-3, schedule="cosine", final_lr=0.01, batch=2048)
    return inr.fit(image, Preset("progressive", STAGES, recipe), steps=100, device="cpu").field


@pytest.fixture(scope="module")
def files(image, grid, stages):
    """Layered files of a real picture, by field."""
    made = {}
    for name, field in (("grid", grid), ("progressive", stages)):
        layered = copy.deepcopy(field)
        layered.layered = True
        made[name] = encode(layered, image, max_loss_db=0.3, effort=1)
    return made


def ends(data: bytes) -> list[int]:
    return container.ends(inspect(data).container, len(data))


def without_later(field, layers):
    """The field with the stored tensors of later layers at zero."""
    work = copy.deepcopy(field)
    with torch.no_grad():
        for stored in work.stored_parameters()[sum(field.groups()[:layers]) :]:
            stored.tensor.zero_()
    return work


@pytest.mark.parametrize("name", ["grid", "progressive"])
def test_quality_does_not_fall_as_bytes_arrive(name, files, image):
    data = files[name]
    first = ends(data)[0]
    sizes = np.linspace(first, len(data), 10).round().astype(int)
    found = [image.quality(decode(data[:size], partial=True)) for size in sizes]
    assert all(after >= before - 0.05 for before, after in itertools.pairwise(found))
    assert found[-1] == image.quality(decode(data))
    assert first < len(data) / 5  # a picture long before the file is there
    assert found[-1] - found[0] > 1.0


@pytest.mark.parametrize("name", ["grid", "progressive"])
def test_a_prefix_has_the_layers_that_have_arrived_and_the_quality_that_the_header_states(
    name, files, image
):
    data = files[name]
    contents = inspect(data)
    places = ends(data)
    assert len(places) == contents.layers == contents.present >= 3
    for number, (end, stated) in enumerate(
        zip(places, [*contents.boundaries, contents.psnr], strict=True), 1
    ):
        for size, present in ((end, number), (end - 1, number - 1)):
            if not present:
                with pytest.raises(CorruptFile, match="before the end of its first layer"):
                    inspect(data[:size], partial=True)
                continue
            part = inspect(data[:size], partial=True)
            assert (part.present, part.layers) == (present, len(places))
        assert inspect(data[:end], partial=True).quality == stated
        found = image.quality(decode(data[:end], partial=True))
        assert stated <= found < stated + 0.011  # rounded down to hundredths


@pytest.mark.parametrize("name", ["grid", "progressive"])
def test_without_being_asked_a_cut_file_is_refused(name, files):
    data = files[name]
    for size in (*ends(data)[:-1], len(data) - 1):
        with pytest.raises(CorruptFile):
            decode(data[:size])


def test_a_layered_file_holds_the_same_field_for_at_most_one_percent_more(image, grid, files):
    plain = encode(grid, image, max_loss_db=0.3, effort=1)
    assert len(inspect(plain).container.bodies(b"P")) == 1
    assert inspect(plain).boundaries == []
    again = dict(decode(files["grid"]).named_parameters())
    assert all(again[name].equal(p) for name, p in decode(plain).named_parameters())
    assert len(files["grid"]) < len(plain) * (1 + SHARE)


def test_files_that_state_layers_are_of_version_1_1():
    header = ["image", [1, 1, 1, 8], "grid", []]
    for facts, version in (({}, 0x01), ({"q": 1}, 0x01), ({"l": [1], "q": 2}, 0x11)):
        assert container.pack(container.Container([*header, facts]))[4] == version


def test_small_files_have_few_layers(image):
    field = fields.create("grid", 2, 3, resolution=[12, 18], levels=4, hidden_layers=0)
    field.adapt(image.statistics())
    field.domain = image.domain
    field.layered = True
    data = encode(field, image, max_loss_db=1.0, effort=1)
    assert (inspect(data).layers - 1) * LAYER_BYTES <= SHARE * len(data)
    assert inspect(data).layers < 4


def test_layers_that_gain_nothing_join_the_next(image, grid, files):
    field = copy.deepcopy(grid)
    field.layered = True
    with torch.no_grad():
        field.tables[3].zero_()
    data = encode(field, image, max_loss_db=0.3, effort=1)
    contents = inspect(data)
    assert contents.layers < inspect(files["grid"]).layers
    stated = [*contents.boundaries, contents.psnr]
    assert all(b >= a + LEAST_GAIN_DB - 0.01 for a, b in itertools.pairwise(stated))


def test_a_bound_on_bytes_holds_for_layered_files(image, stages):
    assert stages.layered
    data = encode(stages, image, max_bytes=4000, effort=1)
    assert 3800 < len(data) <= 4000
    assert inspect(data).layers >= 2


@pytest.mark.parametrize("name", ["grid", "multistage", "progressive"])
def test_layers_of_every_field_that_has_them(name, patch):
    image = Image.from_array(patch)
    given = {
        "grid": {"resolution": [36, 52], "levels": 3},
        "multistage": {"stages": 3, "base": "siren", "base_options": {"hidden_features": 40}},
        "progressive": {"stages": 3, "base_options": {"hidden_features": 40}},
    }[name]
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, **given)
    if name == "multistage":
        for stage in range(3):
            field.set_stage(stage, 0.5**stage, [1.0 + stage, 1.0])
    else:
        field.adapt(image.statistics())
    field.domain = image.domain
    field.layered = True
    assert sum(field.groups()) == len(field.stored_parameters())
    data = encode(field, effort=1)  # no signal: no quality, and layers as the field has them
    contents = inspect(data)
    assert contents.boundaries == [None] * (contents.layers - 1)
    whole = decode(data)
    for layers, end in enumerate(ends(data), 1):
        found = dict(decode(data[:end], partial=True).named_parameters())
        if contents.layers == len(field.groups()):
            expected = without_later(whole, layers)
            assert all(found[n].equal(p) for n, p in expected.named_parameters())
    assert contents.layers >= 2


def test_stages_without_the_later_ones_are_the_sum_of_the_first():
    torch.manual_seed(0)
    field = fields.create("multistage", 2, 1, stages=3, base_options={"hidden_features": 12})
    for stage in range(3):
        field.set_stage(stage, 0.5**stage, [1.0 + stage, 2.0])
    coords = torch.rand(50, 2) * 2 - 1
    first = field.scales[0] * field.networks[0](field.kappas[0] * coords)
    torch.testing.assert_close(without_later(field, 1)(coords), first)


def test_arrays_of_float64_come_in_layers_too():
    t = np.linspace(-1, 1, 400)
    signal = ArraySignal.from_array(np.sin(9 * t) * np.exp(t))
    options = {"hidden_features": 24, "hidden_layers": 1}
    preset = Preset("progressive", {"base": "tanh", "base_options": options}, Recipe(lr=1e-2))
    fit = inr.fit(signal, preset, steps=400, device="cpu")
    data = encode(fit.field, signal, max_loss_db=0.0, effort=1)
    assert inspect(data).layers == 2
    part, whole = decode(data[: ends(data)[0]], partial=True), decode(data)
    assert next(part.parameters()).dtype == torch.float64
    assert signal.quality(part) < signal.quality(whole)


# ------------------------------------------------------------------------------ the field


def test_every_sum_is_trained_with_its_weight():
    torch.manual_seed(0)
    field = fields.create("progressive", 1, 1, stages=2, prefix_weight=0.25)
    axis = torch.linspace(-1, 1, 20)
    first, last = field.supervised([axis])
    with torch.no_grad():
        torch.testing.assert_close(first, field.networks[0].on_grid([axis]))
        torch.testing.assert_close(last, field.on_grid([axis]))
        points = field.supervised_at(axis[:, None])
    torch.testing.assert_close(torch.stack(points), torch.stack([first, last]).detach())
    parameter = field.networks[0].out.bias
    gradients = [
        torch.autograd.grad(out.sum(), parameter, retain_graph=True)[0] for out in (first, last)
    ]
    torch.testing.assert_close(gradients[0], 0.25 * gradients[1])


def test_networks_that_have_not_arrived_are_not_evaluated(files):
    data = files["progressive"]
    part = decode(data[: ends(data)[1]], partial=True)
    calls = []
    for number, network in enumerate(part.networks):
        network.register_forward_hook(lambda *_, number=number: calls.append(number))
    coords = torch.rand(30, 2) * 2 - 1
    found = part(coords)
    assert calls == [0, 1]
    part.load_stored({s.name: s.tensor.clone() for s in part.stored_parameters()})
    torch.testing.assert_close(part(coords), found)
    assert calls == [0, 1, 0, 1, 2]


# ------------------------------------------------------------------------- files that are cut


def test_a_damaged_layer_and_all_behind_it_are_left_out(files, image):
    data = files["grid"]
    places = ends(data)
    damaged = bytearray(data)
    damaged[places[2] - 3] ^= 4
    with pytest.raises(CorruptFile, match="damaged"):
        decode(bytes(damaged))
    part = inspect(bytes(damaged), partial=True)
    assert part.present == 2
    found = image.quality(decode(bytes(damaged), partial=True))
    assert found == image.quality(decode(data[: places[1]], partial=True))


def test_a_header_that_is_cut_or_damaged_is_refused(files):
    data = files["grid"]
    damaged = bytearray(data)
    damaged[20] ^= 1
    for broken in (b"", data[:3], data[:30], bytes(damaged)):
        with pytest.raises(CorruptFile):
            decode(broken, partial=True)


def test_split_files_that_state_no_layers_are_taken_in_part_too(files):
    parsed = inspect(files["grid"]).container
    header = cbor2.dumps(parsed.header[:4], canonical=True)
    data = seal(header, parsed.chunks)
    assert inspect(data).layers == len(parsed.chunks)
    part = inspect(data[: ends(data)[1]], partial=True)
    assert (part.present, part.quality) == (2, None)
    same = decode(files["grid"][: ends(files["grid"])[1]], partial=True)
    again = dict(decode(data[: ends(data)[1]], partial=True).named_parameters())
    assert all(again[n].equal(p) for n, p in same.named_parameters())


@pytest.mark.parametrize(
    "stated", [7, "x", [1.5], [True], [-1], [1 << 16], [[1]], [1000], [1000] * 40]
)
def test_headers_that_lie_about_layers_are_refused(stated, files):
    parsed = inspect(files["grid"]).container
    facts = parsed.header[4] | {"l": stated}
    header = cbor2.dumps([*parsed.header[:4], facts], canonical=True)
    data = seal(header, parsed.chunks)
    with pytest.raises(CorruptFile, match="layers"):
        inspect(data)


def test_layers_that_do_not_fit_the_field_are_refused(files):
    grid = inspect(files["grid"]).container
    other = inspect(files["progressive"]).container
    header = cbor2.dumps(grid.header, canonical=True)
    data = seal(header, other.chunks)
    for end in ends(files["progressive"])[:2]:
        moved = len(data) - len(files["progressive"])
        with pytest.raises(CorruptFile, match="do not make a grid"):
            decode(data[: end + moved], partial=True)


@pytest.mark.parametrize("name", ["grid", "progressive"])
def test_any_bytes_taken_in_part_give_a_field_or_one_line(name, files):
    rng = random.Random(0)
    other = files["grid" if name == "progressive" else "progressive"]
    kinds = set()

    def attempt(data: bytes) -> None:
        values = decode(data, partial=True)(torch.zeros(2, 2))
        assert values.shape == (2, 3)

    for number in range(120):
        data = files[name]
        data = resealed(data, rng) if number % 2 else mutate(data, other, rng)
        cut = data[: rng.randrange(len(data))] if rng.random() < 0.5 else data
        kinds.add(outcome(attempt, cut, InrError))
    assert {"value", "CorruptFile"} <= kinds


# ---------------------------------------------------------------------------- command line


def test_the_command_line_makes_shows_and_takes_layers(tmp_path, monkeypatch, coffee, capsys):
    monkeypatch.chdir(tmp_path)
    imageio.v3.imwrite("photo.png", coffee[100:200, 200:320])
    assert main(["fit", "photo.png", "--steps", "10", "--progressive", "-q"]) == 0
    capsys.readouterr()
    assert main(["info", "photo.inr", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert len(layers) >= 2
    assert main(["info", "photo.inr"]) == 0
    text = capsys.readouterr().out
    assert f"{layers[0]['bytes']:,} {layers[0]['psnr']:8.2f} dB" in text

    data = (tmp_path / "photo.inr").read_bytes()
    (tmp_path / "cut.inr").write_bytes(data[: layers[1]["bytes"] - 1])
    assert main(["decode", "cut.inr"]) == 3
    assert not (tmp_path / "cut.png").exists()
    capsys.readouterr()
    assert main(["decode", "cut.inr", "--partial"]) == 0
    said = capsys.readouterr().out
    assert f"made of layers 1 to 1 of {len(layers)}, which have {layers[0]['psnr']:.2f} dB" in said
    assert imageio.v3.imread("cut.png").shape == (100, 120, 3)

    assert main(["decode", "photo.inr", "--partial", "-f", "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["layers"] == event["layers_of_file"] == len(layers)


def test_layers_count_as_bytes_of_a_target(tmp_path, monkeypatch, coffee, capsys):
    monkeypatch.chdir(tmp_path)
    imageio.v3.imwrite("photo.png", coffee[100:200, 200:320])
    quick = ["--effort", "1", "--recipe.steps", "40", "--progressive", "-q"]
    assert main(["compress", "photo.png", "--bytes", "4000", *quick]) == 0
    data = (tmp_path / "photo.inr").read_bytes()
    assert 0.95 * 4000 <= len(data) <= 4000
    assert inspect(data).layers >= 2


def test_a_file_of_one_layer_says_so(tmp_path, monkeypatch, capsys, patch):
    monkeypatch.chdir(tmp_path)
    image = Image.from_array(patch)
    field = fields.create("siren", 2, 3, hidden_features=12, hidden_layers=1)
    field.domain = image.domain
    data = encode(field, image)
    (tmp_path / "one.inr").write_bytes(data)
    (tmp_path / "cut.inr").write_bytes(data[:-20])
    assert main(["decode", "one.inr", "--partial"]) == 0
    assert "one layer only" in capsys.readouterr().out
    assert main(["decode", "cut.inr", "--partial"]) == 3
    assert "before the end of its first layer" in capsys.readouterr().err

    imageio.v3.imwrite("photo.png", patch)
    small = ["--field", "siren", "--field.hidden_features", "8", "--steps", "1"]
    assert main(["fit", "photo.png", *small, "--progressive"]) == 0
    assert "its file has one layer" in capsys.readouterr().out
