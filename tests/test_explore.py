"""Looking at `.inr` files in the studio: what is rendered, where, and for whom."""

import asyncio
import base64
import copy
import dataclasses
import io
import json
import math
import secrets
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

import fields
import inr
from apps.cli.main import main
from apps.studio import gradients, planes
from apps.studio.decoded import Decoded, decoded
from apps.studio.service import Service
from apps.studio.shelf import Shelf, zoom
from apps.studio.tasks import decode, explore, render
from apps.studio.visitors import Studio
from inr import presets
from inr.codec.decode import decode as decode_bytes
from inr.errors import InputError, InrError, UsageError
from inr.rendering import render as rendered
from inr.signals.image import Image, ImageDomain
from inr.signals.video import VideoDomain
from inr.signals.volumeout import picture_of
from tests.conftest import ASSETS
from tests.test_contract import SMALL

GOLDEN = Path(__file__).parent / "golden"
PICTURES = [path for path in sorted(GOLDEN.glob("*.inr")) if path.stem.endswith("8")]

CASES = [
    ("v1-array", {}, ".npy"),
    ("v1-array", {"shape": "5,6,20"}, ".npy"),
    ("v1-audio", {}, ".wav"),
    ("v1-audio", {"rate": 5000, "start": 0.05, "depth": "24"}, ".flac"),
    ("v1-grid-icc-rgb8", {}, ".png"),
    ("v1-grid-rgba16", {"size": "70x33"}, ".png"),
    ("v1-grid-float", {"scale": 0.5}, ".tif"),
    ("v1-siren-rgb8", {"crop": "3,4.5,20,10", "scale": 3.0}, ".webp"),
    ("v1.1-grid-layered-grey8", {}, ".png"),
    ("v1-shape", {"resolution": 24}, ".ply"),
    ("v1-shape", {"resolution": 20, "level": 0.01, "normals": False}, ".glb"),
    ("v1-video", {}, ".npz"),
    ("v1-video", {"fps": 10.0, "size": "20x16"}, ".npy"),
    ("v1-volume", {}, ".nii.gz"),
    ("v1-volume", {"slice": "1=50%"}, ".png"),
    ("v1-volume", {"scale": 1.5}, ".npz"),
]


def desk(folder):
    """What a task sees of its job, whose events are kept."""
    told = []
    return SimpleNamespace(
        folder=folder, device="cpu", asked=None, look={}, emit=told.append, told=told
    )


def golden(name):
    return Decoded((GOLDEN / f"{name}.inr").read_bytes())


def standing(field, speed=1e7):
    """A file of which only the field is known."""
    double = copy.deepcopy(field).double()
    double.domain = field.domain
    return SimpleNamespace(
        field=field, drawn=field, fine=double, double=double, domain=field.domain, speed=speed
    )


def pixels(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


# ------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(("name", "options", "suffix"), CASES)
def test_what_is_rendered_is_what_the_command_writes(name, options, suffix, tmp_path):
    source = GOLDEN / f"{name}.inr"
    target = tmp_path / f"by-command{suffix}"
    words = [word for key, value in options.items() for word in (f"--{key}", str(value).lower())]
    assert main(["decode", str(source), "-o", str(target), "-q", *words]) == 0
    spec = {"source": str(source), "name": f"{name}.inr", "options": options, "suffix": suffix}
    found = decode.run(spec, desk(tmp_path))
    assert found["file"] == f"{name}{suffix}"
    made = (tmp_path / found["file"]).read_bytes()
    assert len(made) == found["bytes"]
    assert made == target.read_bytes()


def test_each_kind_has_a_usual_format(tmp_path):
    for name in ("v1-array", "v1-audio", "v1-video", "v1-volume", "v1-siren-rgb8"):
        source = GOLDEN / f"{name}.inr"
        found = decode.run({"source": str(source), "name": "a/b\\x.inr"}, desk(tmp_path))
        told = explore.run({"source": str(source), "name": name}, desk(tmp_path))
        assert found["file"] == f"x{told['suffix']}"
        assert (tmp_path / found["file"]).stat().st_size == found["bytes"] > 0


@pytest.mark.parametrize(
    ("name", "options", "suffix", "said"),
    [
        ("v1-siren-rgb8", {"size": "100000x100000"}, ".png", "the limit is"),
        ("v1-siren-rgb8", {"scale": math.nan}, ".png", "--scale is"),
        ("v1-siren-rgb8", {"scale": "2"}, ".png", "--scale is '2'"),
        ("v1-siren-rgb8", {"rate": 2}, ".png", "no option of pictures"),
        ("v1-siren-rgb8", {"size": ["9"] * 9}, ".png", "--size is"),
        ("v1-siren-rgb8", {}, ".exe", "not written as"),
        ("v1-siren-rgb8", {}, ".png/../../x", "format is"),
        ("v1-audio", {"rate": 10**12}, ".wav", "rate is"),
        ("v1-audio", {"rate": 2**31 - 1}, ".npy", "the limit is"),
        ("v1-audio", {"rate": math.inf}, ".wav", "--rate is"),
        ("v1-shape", {"resolution": 1024}, ".glb", "--resolution is 1024"),
        ("v1-shape", {"resolution": 400}, ".npy", "the limit is"),
        ("v1-video", {"fps": 1e5, "scale": 50.0}, ".mp4", "the limit is"),
        ("v1-volume", {"shape": "9999,9999,9999"}, ".npy", "the limit is"),
        ("v1-array", {"shape": "9999,9999,9999"}, ".npy", "the limit is"),
    ],
)
def test_what_is_too_large_or_wrong_is_refused_before_it_is_rendered(
    name, options, suffix, said, tmp_path
):
    spec = {"source": str(GOLDEN / f"{name}.inr"), "options": options, "suffix": suffix}
    with pytest.raises((UsageError, InputError), match=said):
        decode.run(spec, desk(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_plan_says_what_a_rendering_takes_and_writes_nothing(tmp_path):
    spec = {"source": str(GOLDEN / "v1-siren-rgb8.inr"), "suffix": ".png", "plan": True}
    small = decode.run(spec, desk(tmp_path))
    large = decode.run(spec | {"options": {"scale": 40.0}}, desk(tmp_path))
    assert large["seconds"] == pytest.approx(1600 * small["seconds"])
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_all_of_a_picture_at_its_size_is_its_decode(path, tmp_path):
    field = decode_bytes(path.read_bytes())
    height, width = field.domain.shape
    crop = {"crop": [0, 0, height, width], "size": [height, width]}
    found = render.run({"source": str(path)} | crop, desk(tmp_path))
    target = tmp_path / "x.png"
    assert main(["decode", str(path), "-o", str(target), "-q"]) == 0
    assert found["pixels"] == [height, width]
    assert np.array_equal(pixels(found["picture"]), np.asarray(PIL.Image.open(target)))


def small(name, shape=(40, 60), channels=3):
    torch.manual_seed(0)
    field = fields.create(name, 2, channels, **SMALL[name])
    field.domain = ImageDomain(*shape, channels, 32, -1.0, 1.0)
    return field


@pytest.mark.parametrize("name", fields.names())
def test_every_field_is_seen_from_near_by(name):
    field = small(name)
    file = standing(field)
    plane = planes.plane_of(field.domain)
    for magnification in (1e3, 1e5, 1e8):
        crop = (13.3, 41.7, 40 / magnification, 60 / magnification)
        found = planes.values(file, plane, crop, (8, 12))
        rows = crop[0] + (np.arange(8) + 0.5) * crop[2] / 8
        columns = crop[1] + (np.arange(12) + 0.5) * crop[3] / 12
        lattice = np.stack(np.meshgrid(2 * rows / 40 - 1, 2 * columns / 60 - 1, indexing="ij"), -1)
        with torch.no_grad():
            wanted = file.double(torch.from_numpy(lattice)).clamp(-1, 1).numpy()
        assert np.abs(found - wanted).max() < 1e-6
    # the same as float32 has it where that suffices
    near = planes.values(file, plane, (0, 0, 40, 60), (40, 60))
    assert np.array_equal(near, rendered(field))


def test_neighbours_differ_at_great_magnification():
    field = small("siren")
    file, plane = standing(field), planes.plane_of(field.domain)
    sharp = planes.values(file, plane, (31, 50, 40 / 1e5, 60 / 1e5), (1, 800))[0, :, 0]
    # nearly a straight line, as every smooth function is from near by; float32 would make stairs
    line = np.polyval(np.polyfit(np.arange(800), sharp.astype(float), 2), np.arange(800))
    assert np.ptp(line) > 2e-6
    assert np.abs(sharp - line).max() < 3e-8


def test_a_grid_in_numpy_is_seen_from_near_by():
    file = golden("v1-grid-grey8")
    assert file.drawn is not file.field
    plane = planes.plane_of(file.domain)
    for zoom_by in (1, 37.5, 1e4, 1e6):
        crop = (20.2, 30.4, 20 / zoom_by, 30 / zoom_by)
        found = planes.values(file, plane, crop, (30, 45)).astype(int)
        wanted = planes.values(standing(file.field), plane, crop, (30, 45)).astype(int)
        assert np.abs(found - wanted).max() <= 1


def test_pixels_larger_than_samples_are_means():
    file = golden("v1.1-grid-layered-grey8")
    height, width = file.domain.shape
    plane = planes.plane_of(file.domain)
    found = planes.values(file, plane, (0, 0, height, width), (height // 4, width // 4))
    assert np.array_equal(found, rendered(file.drawn, (height // 4, width // 4)))


def test_beyond_the_border_it_is_transparent():
    file = golden("v1-grid-grey8")
    height, width = file.domain.shape
    plane = planes.plane_of(file.domain)
    data, shape = planes.picture(
        file, plane, [-height, -8, 3 * height, width + 16], [3 * height, 80]
    )
    seen = np.asarray(PIL.Image.open(io.BytesIO(data)))
    assert seen.shape == (3 * height, 80, 4)
    assert shape == (3 * height, 80)
    inside = seen[height : 2 * height, 8 : 8 + width]
    assert np.array_equal(inside[..., 0], rendered(file.drawn)[..., 0])
    assert np.all(inside[..., 3] == 255)
    assert int((seen[..., 3] > 0).sum()) == height * width
    empty, _ = planes.picture(file, plane, [height + 5, 0, 3, 3], [4, 4])
    assert not np.asarray(PIL.Image.open(io.BytesIO(empty))).any()


def test_a_slow_field_is_drawn_with_fewer_pixels():
    field = small("siren")
    slow = standing(field, speed=3000.0)
    _, shape = planes.picture(slow, planes.plane_of(field.domain), [0, 0, 40, 60], [600, 900])
    assert math.prod(shape) <= planes.SECONDS * 3000
    assert shape[1] / shape[0] == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize(
    ("crop", "size"),
    [
        ([0, 0, 1, math.nan], [9, 9]),
        ([0, 0, 1, 0], [9, 9]),
        ([0, 0, 1], [9, 9]),
        ([0, 0, True, 1], [9, 9]),
        ("abcd", [9, 9]),
        ([0, 0, 1, 1], [2049, 9]),
        ([0, 0, 1, 1], [9, 0]),
        ([0, 0, 1, 1], [9.5, 9]),
        ([0, 0, 1, 1], None),
        ([0, 0, 1e300, 1], [9, 9]),
    ],
)
def test_windows_that_make_no_sense_are_refused(crop, size, tmp_path):
    spec = {"source": str(GOLDEN / "v1-siren-rgb8.inr"), "crop": crop, "size": size}
    with pytest.raises(UsageError):
        render.run(spec, desk(tmp_path))


@pytest.mark.parametrize("spec", [{"axis": 7}, {"axis": "0"}, {"axis": 0, "position": 99}])
def test_slices_that_are_not_there_are_refused(spec, tmp_path):
    spec = {"source": str(GOLDEN / "v1-volume.inr"), "crop": [0, 0, 1, 1], "size": [9, 9]} | spec
    with pytest.raises(UsageError):
        render.run(spec, desk(tmp_path))


AFFINES = [
    None,
    (-2.0, 0, 0, 10, 0, 3.0, 0, -20, 0, 0, 1.5, 5),
    (0, 0, 2.0, 0, 1.5, 0, 0, 0, 0, -3.0, 0, 0),
]


@pytest.mark.parametrize("geometry", AFFINES, ids=["unknown", "straight", "turned"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_volumes_stand_as_the_command_draws_them(geometry, axis):
    file = golden("v1-volume")
    field = file.field
    field.domain = dataclasses.replace(
        field.domain, geometry=geometry or (), space=2 if geometry else 0
    )
    domain = field.domain
    plane = planes.plane_of(domain, axis, 3)
    samples = rendered(field)
    wanted = picture_of(samples[..., 0].take(3, axis), domain, axis)
    shape = wanted.shape[:2]
    found = planes.values(standing(field), plane, (0, 0, *plane.size), shape)
    top = 255 if wanted.dtype == np.uint8 else 65535
    share = (found.astype(float) - domain.low) / domain.peak
    drawn = np.rint(share.clip(0, 1) * top)
    # pages show the left of a volume on the left, `inr decode` as radiologists do
    mirrored = np.flip(wanted, 1)
    assert np.array_equal(drawn, wanted) or np.array_equal(drawn, mirrored)
    if geometry is None:
        assert np.array_equal(drawn, wanted)


def test_a_grid_of_three_axes_is_cut_along_each():
    torch.manual_seed(0)
    field = fields.create("grid", 3, 1, resolution=[9, 10, 11], levels=2, features=2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(0, 0.4)
    field.domain = VideoDomain(9, 10, 11, 1)
    tensors = [stored.tensor.detach().numpy() for stored in field.stored_parameters()]
    light = planes.NumpyGrid.of(tensors, 2)
    light.domain = field.domain
    whole = rendered(field)[..., 0].astype(int)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        made = planes.Plane(
            order[1], order[2], order[0], (4.0,) * 3, (False, True), (1.0, 1.0), (1.0, 1.0)
        )
        shape = (field.domain.shape[order[1]], field.domain.shape[order[2]])
        wanted = np.flip(whole.transpose(order)[4], 1)
        for drawn in (field, light):
            file = SimpleNamespace(drawn=drawn, fine=drawn, domain=field.domain, speed=1e7)
            found = planes.values(file, made, (0, 0, *shape), shape)[..., 0].astype(int)
            assert np.abs(found - wanted).max() <= 1


def test_a_picture_of_a_grid_takes_little_time():
    file = decoded(ASSETS / "camera.inr")
    plane = planes.plane_of(file.domain)
    times = []
    for zoom_by in (1, 10, 1e3, 1e5):
        crop = [100.0, 100.0, 300 / zoom_by, 400 / zoom_by]
        for _ in range(3):
            begin = time.process_time()
            planes.picture(file, plane, crop, [600, 800])
            times.append(time.process_time() - begin)
    assert min(times[:3]) < 0.5  # about 0.1 alone on a core
    assert min(times[9:]) < 0.5


# ------------------------------------------------------------------------------ derivatives


@pytest.mark.parametrize("name", ["siren", "spder", "bacon", "wavelet", "finer", "tanh"])
def test_exact_derivatives_are_those_of_the_field(name):
    field = small(name).double()
    axes = [np.linspace(-0.8, 0.8, 7), np.linspace(-0.7, 0.9, 9)]
    values, slopes = gradients.derivatives(field, axes)
    assert values.shape == (7, 9, 3)
    assert slopes.shape == (7, 9, 2, 3)
    step = 1e-5
    for axis, n in enumerate(field.domain.shape):
        ends = []
        for way in (step, -step):
            moved = [a + way * (i == axis) for i, a in enumerate(axes)]
            lattice = np.stack(np.meshgrid(*moved, indexing="ij"), -1)
            with torch.no_grad():
                ends.append(field(torch.from_numpy(lattice)).numpy())
        wanted = (ends[0] - ends[1]) / (2 * step) * (2 / n)
        assert np.allclose(slopes[:, :, axis], wanted, rtol=1e-4, atol=1e-6)
    assert "Exact derivatives" in gradients.told(field)


def test_a_field_with_kinks_says_so_and_is_differenced():
    file = golden("v1-grid-grey8")
    _, width = file.domain.shape
    axes = [file.domain.cell_centres(i, 0, n, n) for i, n in enumerate(file.domain.shape)]
    _, slopes = gradients.derivatives(file.field, axes)
    moved = file.domain.cell_centres(1, 0.5, width - 0.5, width - 1)
    with torch.no_grad():
        values = file.field.on_grid([torch.from_numpy(axes[0]), torch.from_numpy(moved)])
    assert np.allclose(slopes[:, 1:-1, 1], np.diff(values.numpy(), axis=1), atol=1e-5)
    (section,) = gradients.sections(file)
    assert "not differentiable" in section.notes[0]
    assert [pane["name"] for pane in section.data["panes"]][:1] == ["size of the gradient"]


def test_gradients_of_every_kind_fit_into_a_page():
    for path in sorted(GOLDEN.glob("*.inr")):
        file = Decoded(path.read_bytes())
        shown = gradients.sections(file)
        assert shown
        for part in shown:
            json.dumps(dataclasses.asdict(part), allow_nan=False)
            assert part.notes


def test_a_curve_is_looked_at_as_closely_as_one_likes():
    file = golden("v1-audio")
    (whole,) = gradients.sections(file)
    (near,) = gradients.sections(file, 0.1, 1e-7)
    assert near.data["x"][0] == pytest.approx(0.1)
    assert near.data["x"][1] - near.data["x"][0] == pytest.approx(1e-7, rel=1e-6)
    assert whole.data["x"][1] - whole.data["x"][0] > 0.1
    for start, length in ((-1, None), (9, None), (0.1, 0), (0.1, -1)):
        with pytest.raises(UsageError):
            gradients.sections(file, start, length)


# --------------------------------------------------------------------- what a file is said


def test_a_layered_file_is_shown_by_quality_over_bytes(tmp_path, camera):
    picture = np.ascontiguousarray(camera[100:196, 150:278])
    PIL.Image.fromarray(picture).save(tmp_path / "x.png")
    fit = inr.fit(Image.from_array(picture), "grid", steps=20, device="cpu")
    source = tmp_path / "x.inr"
    inr.save(fit, source, progressive=True)
    spec = {"source": str(source), "name": "x.inr"}
    alone = explore.run(spec, desk(tmp_path))
    assert alone["psnr"] is None
    assert [c["codec"] for c in alone["sections"][0]["data"]["views"][0]["curves"]] == ["as stated"]
    beside = {"original": str(tmp_path / "x.png"), "original_name": "x.png"}
    found = explore.run(spec | beside, desk(tmp_path))
    curve, table = found["sections"][:2]
    assert (curve["widget"], table["title"]) == ("curves", "Layers")
    measured = curve["data"]["views"][0]["curves"][1]
    assert measured["codec"] == "measured"
    data = source.read_bytes()
    for end, (quality,), _ in measured["points"]:
        field = decode_bytes(data[:end], partial=True)
        wanted = Image.from_array(picture).metrics(field)["psnr"]
        assert quality == pytest.approx(wanted)
    qualities = [point[1][0] for point in measured["points"]]
    assert len(qualities) > 2
    assert qualities == sorted(qualities)
    assert found["psnr"] == pytest.approx(qualities[-1])
    # the original stands beside the decode
    assert [p["name"] for p in found["sections"][2]["data"]["panes"]][:2] == ["original", "decoded"]


def tiny(signal):
    """A small field, hardly fitted."""
    preset = presets.for_field(signal.domain.kind, "siren")
    preset.hyperparameters.update(hidden_features=8, hidden_layers=1)
    return inr.fit(signal, preset, steps=1, device="cpu")


@pytest.mark.parametrize("name", ["bell.flac", "ball.npz", "waves.npz", "phantom.nii.gz"])
def test_every_kind_is_shown_beside_its_original(name, tmp_path):
    signal = inr.open(ASSETS / name)
    source = tmp_path / f"{name}.inr"
    inr.save(tiny(signal), source)
    spec = {"source": str(source), "name": source.name, "original": str(ASSETS / name)}
    found = explore.run(spec, desk(tmp_path))
    json.dumps(found, allow_nan=False)
    assert found["psnr"] == pytest.approx(signal.quality(decode_bytes(source.read_bytes())))


def test_another_signal_is_no_original(tmp_path):
    spec = {
        "source": str(ASSETS / "camera.inr"),
        "name": "camera.inr",
        "original": str(ASSETS / "coffee.png"),
        "original_name": "coffee.png",
    }
    with pytest.raises(InputError, match=r"^coffee.png: is 400 x 600 .* holds 512 x 512"):
        explore.run(spec, desk(tmp_path))
    with pytest.raises(InputError, match="waves.npz"):
        explore.run(
            spec | {"original": str(ASSETS / "waves.npz"), "original_name": "waves.npz"},
            desk(tmp_path),
        )


def test_a_shape_is_cut_along_each_axis(tmp_path):
    spec = {"source": str(GOLDEN / "v1-shape.inr"), "name": "shape.inr"}
    found = explore.run(spec, desk(tmp_path))
    assert found["kind"] == "shape"
    assert [one["axis"] for one in found["slices"]] == [0, 1, 2]
    assert pixels(found["picture"]).shape == (768, 768, 3)
    file = golden("v1-shape")
    whole = rendered(file.field, (16,) * 3)[..., 0]
    for axis in range(3):
        plane = planes.plane_of(file.domain, axis, 135.5)  # the middle of the 9th of 16 cells
        seen = planes.values(file, plane, (0, 0, 256, 256), (256, 256))[..., 0]
        means = seen.reshape(16, 16, 16, 16).mean((1, 3))
        # the later axis upwards
        wanted = whole.take(8, axis).T[::-1]
        assert np.corrcoef(means.ravel(), wanted.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_a_shape_is_held_against_its_mesh(tmp_path):
    signal = inr.open(ASSETS / "knot.ply")
    inr.save(tiny(signal), tmp_path / "knot.inr")
    spec = {"source": str(tmp_path / "knot.inr"), "name": "knot.inr"}
    spec |= {"original": str(ASSETS / "knot.ply"), "original_name": "knot.ply"}
    found = explore.run(spec, desk(tmp_path))
    field = decode_bytes((tmp_path / "knot.inr").read_bytes())
    assert found["psnr"] == pytest.approx(signal.quality(field))
    with pytest.raises(InputError, match=r"^coffee.png: "):
        spec |= {"original": str(ASSETS / "coffee.png"), "original_name": "coffee.png"}
        explore.run(spec, desk(tmp_path))


def test_what_a_stranger_wrote_is_text(tmp_path, patch):
    hostile = "<script>alert(1)</script>"
    fit = tiny(Image.from_array(patch))
    inr.save(fit, tmp_path / "x.inr", metadata={"title": hostile, "comment": hostile})
    found = explore.run({"source": str(tmp_path / "x.inr"), "name": hostile}, desk(tmp_path))
    assert found["facts"][0]["title"] == "Metadata"
    assert ["title", hostile] in found["facts"][0]["data"]["rows"]  # scripts show it as text
    assert hostile not in json.dumps({k: v for k, v in found.items() if k != "facts"})


def test_large_files_are_not_kept_together(monkeypatch):
    first, second = (GOLDEN / f"{name}.inr" for name in ("v1-siren-rgb8", "v1-grid-grey8"))
    kept = decoded(first)
    monkeypatch.setattr("apps.studio.decoded.KEPT_NUMBERS", kept.numbers)
    decoded(second)
    assert decoded(first) is not kept


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"", b"INR1" * 9, b"\x89PNG\r\n"])
def test_what_is_no_file_of_ours_is_refused(content, tmp_path):
    (tmp_path / "x.inr").write_bytes(content)
    for task in (explore, render, decode):
        with pytest.raises(InputError, match=r"^photo.inr: "):
            task.run({"source": str(tmp_path / "x.inr"), "name": "photo.inr"}, desk(tmp_path))


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "x.inr"
    shutil.copy(GOLDEN / "v1-siren-rgb8.inr", path)
    first = decoded(path)
    assert decoded(path) is first
    shutil.copy(GOLDEN / "v1-grid-grey8.inr", path)
    assert decoded(path).domain.channels == 1
    path.unlink()
    with pytest.raises(InputError):
        decoded(path)


# ------------------------------------------------------------------------------- for whom


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    root = tmp_path_factory.mktemp("studio")
    (root / "uploads").mkdir()
    service = Service(root / "jobs")
    yield Studio(service, root / "uploads", None)
    service.close()


def upload(studio, source, name="photo.inr"):
    folder = studio.uploads / secrets.token_hex(8)
    folder.mkdir()
    shutil.copy(source, folder / name)
    return str(folder / name)


def test_a_visitor_opens_zooms_renders_and_nobody_else_does(studio):
    owner, other = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    shelf = Shelf(studio)

    async def visit():
        found = await shelf.dropped(owner, upload(studio, ASSETS / "camera.inr"))
        opened = shelf.of(owner)
        value = zoom(opened, found)
        assert pixels(value["picture"]).shape == (768, 768)
        request = {"token": value["token"], "crop": [10.5, 20, 0.25, 0.5], "size": [60, 120]}
        answer = await shelf.window(request)
        assert pixels(answer["picture"]).shape == (60, 120)
        assert await shelf.gradients(owner, None, None)

        # whoever has no token sees nothing, nor does a path help
        for token in (None, "", other, owner, str(opened.path), value["token"][:-1], 5):
            assert "not open" in (await shelf.window(request | {"token": token}))["error"]
        for wrong in ({"crop": [0, 0, math.nan, 1]}, {"size": [9999, 9]}, {"crop": {}}):
            assert (await shelf.window(request | wrong))["error"]
        assert (await shelf.window("nonsense"))["error"]
        with pytest.raises(UsageError):
            shelf.of(other)
        with pytest.raises(InputError):  # another's file is no upload
            await shelf.dropped(other, str(opened.path))

        form = {"entries": [], "given": {"size": "64x48"}, "errors": {}}
        spec = shelf.rendering(owner, form, ".png")
        job = await shelf.render(owner, spec)
        async for _ in studio.service.watch(job):
            pass
        assert job.state == "done", job.error
        with PIL.Image.open(job.folder / job.result["file"]) as made:
            assert (job.result["file"], made.size) == ("photo.png", (64, 48))
        command, python = shelf.commands(owner, form, ".png")
        assert command == "inr decode photo.inr --size 64x48 -o photo.png"
        assert "photo.inr" in python

        with pytest.raises(UsageError, match="format"):
            shelf.rendering(owner, form, ".exe")
        with pytest.raises(UsageError, match="--scale"):
            shelf.rendering(owner, {"given": {"scale": math.inf}}, ".png")
        with pytest.raises(UsageError, match="size: no"):
            shelf.rendering(owner, {"errors": {"size": "no"}}, ".png")

        # an upload that is none of ours leaves nothing, and what was open stays
        before = sorted(opened.path.parent.iterdir())
        (studio.uploads / "bad").mkdir()
        bad = studio.uploads / "bad" / "x.inr"
        bad.write_text("<html>")
        with pytest.raises(InrError, match=r"^x.inr: is not an .inr file"):
            await shelf.dropped(owner, str(bad))
        assert sorted(opened.path.parent.iterdir()) == before
        assert not bad.exists()
        assert shelf.of(owner) is opened

        # the original stands beside it; another picture does not, and what was there stays
        found = await shelf.beside(owner, upload(studio, ASSETS / "camera.png", "camera.png"))
        assert found["psnr"] == pytest.approx(32.43, abs=0.02)
        wrong = upload(studio, ASSETS / "coffee.png", "coffee.png")
        with pytest.raises(InputError, match=r"^coffee.png: is 400 x 600"):
            await shelf.beside(owner, wrong)
        assert not Path(wrong).exists()
        assert opened.original["original_name"] == "camera.png"
        request["token"] = shelf.of(owner).token

        # another file takes its place; the token of the first says nothing any more
        await shelf.taken(owner, ASSETS / "camera.inr")
        assert not opened.path.exists()
        assert "not open" in (await shelf.window(request))["error"]
        current = zoom(shelf.of(owner), found)["token"]
        assert "picture" in await shelf.window(request | {"token": current})

        # what is deleted with its visitor is not rendered again
        shutil.rmtree(studio.service.folder(owner))
        assert "not open" in (await shelf.window(request | {"token": current}))["error"]
        assert not shelf.has(owner)

    asyncio.run(visit())


def test_slices_are_turned_and_the_file_made_last_is_opened(studio):
    owner = secrets.token_urlsafe(18)
    shelf = Shelf(studio)

    async def visit():
        with pytest.raises(UsageError, match="fit something first"):
            await shelf.made(owner)
        found = await shelf.dropped(owner, upload(studio, GOLDEN / "v1-volume.inr"))
        names = [one["name"] for one in found["slices"]]
        first = zoom(shelf.of(owner), found)
        second = await shelf.slice(owner, names[0], 2)
        assert (second["size"], second["token"] == first["token"]) == (first["size"], False)
        assert second["picture"] != first["picture"]
        assert shelf.shows(owner, names[0], 2)
        assert not shelf.shows(owner, names[0], 3)
        assert not shelf.shows(owner, names[1], 2)
        third = await shelf.slice(owner, names[2], 1e9)  # of the axis before: its middle is taken
        assert third["size"] != first["size"]
        for name, position in (("axis 9", 1), (None, 1)):
            with pytest.raises(UsageError):
                await shelf.slice(owner, name, position)

        spec = {"source": str(ASSETS / "camera.png"), "name": "camera.png", "field": "siren"}
        spec |= {"preset": "image/siren", "hyperparameters": {"hidden_features": 16}, "steps": 2}
        job = studio.service.submit(owner, "fit", spec)
        with studio.service.present(owner):
            async for _ in studio.service.watch(job):
                pass
        assert job.state == "done", job.error
        found = await shelf.made(owner)
        assert found["psnr"] == pytest.approx(job.result["psnr"], abs=1e-3)
        studio.service.forget(job)
        assert shelf.has(owner)  # it is a copy

    asyncio.run(visit())


def test_a_large_rendering_does_not_keep_others_from_looking(studio):
    owner = secrets.token_urlsafe(18)
    shelf = Shelf(studio)

    async def visit():
        await shelf.dropped(owner, upload(studio, ASSETS / "camera.inr"))
        spec = shelf.rendering(owner, {"given": {"size": "5000x5000"}}, ".npy")
        quick = shelf.rendering(owner, {"given": {}}, ".npy")
        assert (await shelf.render(owner, quick)).lane == "side"
        called = shelf._call

        async def slow(*args):
            return {**await called(*args), "seconds": 60.0}

        shelf._call = slow
        job = await shelf.render(owner, spec)
        assert job.lane == "fit"
        assert [job] == studio.service.jobs(owner, "decode")  # the one before was given up
        studio.service.forget(job)

    asyncio.run(visit())
