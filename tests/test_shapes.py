"""Shapes: files in and out, what is inside, distances, surfaces, and the command line."""

import base64
import io
import json
import math
import struct
import sys

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr
from apps.cli.decode_shape import Model
from apps.cli.main import main
from fields.base import Field
from inr import presets, surface
from inr.codec.decode import inspect
from inr.codec.encode import encode
from inr.errors import CorruptFile, FitError, InputError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.meshes import WRITABLE, Cloud, Mesh, make_cloud, make_mesh, read_mesh, write_mesh
from inr.presets import Preset
from inr.signals import domain_from_header, kind_of
from inr.signals.oriented import EIKONAL, NORMAL, OFF, OFFSET, ON, SHARPNESS, OrientedPoints
from inr.signals.shape import TARGETS, Shape, ShapeDomain, open_shape
from inr.solid import Solid, sample_surface
from inr.surface import extract, normals

SMALL = {"samples": 4000, "detail": 24}
TINY = (
    *("--field.hidden_features", "16", "--field.hidden_layers", "1", "--field.first_omega", "10"),
    *("--recipe.batch", "500", "--recipe.lr", "0.01"),
)


class Known(Field):
    """A function of space that is known, such as the distance to a sphere."""

    widest = 4

    def __init__(self, function) -> None:
        super().__init__(3, 1)
        self.function = function
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.points = 0

    def forward(self, coords):
        self.points += coords[..., 0].numel()
        return self.function(coords)[..., None]


def ball(radius: float = 0.6, slope: float = 4.0) -> Known:
    return Known(lambda x: slope * (x.norm(dim=-1) - radius))


def torus(slope: float = 5.0) -> Known:
    def distance(x):
        ring = x[..., :2].norm(dim=-1) - 0.55
        return slope * ((ring.square() + x[..., 2].square()).sqrt() - 0.21)

    return Known(distance)


def mesh_of(made: trimesh.Trimesh) -> Mesh:
    return make_mesh(made.vertices, made.faces)


def sphere(radius: float = 2.0, centre=(10.0, -3.0, 1.0), fineness: int = 3) -> Mesh:
    made = trimesh.creation.icosphere(subdivisions=fineness, radius=radius)
    return make_mesh(made.vertices + np.array(centre), made.faces)


def glb(made: trimesh.Trimesh | trimesh.Scene) -> bytes:
    return made.export(file_type="glb")


def rewritten(data: bytes, change) -> bytes:
    """A GLB with another JSON part."""
    size = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + size])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    head = data[:8] + struct.pack("<I", 20 + len(text) + len(rest))
    return head + struct.pack("<I", len(text)) + data[16:20] + text + rest


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", WRITABLE)
def test_every_format_goes_round(tmp_path, suffix):
    mesh = sphere(fineness=2)
    path = tmp_path / f"x{suffix}"
    write_mesh(path, mesh.vertices, mesh.faces, None)
    assert kind_of(path) == "shape"
    again = read_mesh(path)
    assert (len(again.vertices), len(again.faces)) == (162, 320)
    assert np.allclose(again.bounds, mesh.bounds, atol=1e-5)
    assert Solid(again).sign == "pseudonormal"
    buffer = io.BytesIO()
    write_mesh(buffer, mesh.vertices, mesh.faces, suffix=suffix)
    assert len(read_mesh(buffer.getvalue()).faces) == 320


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_normals_are_written(tmp_path, suffix):
    mesh = sphere(fineness=1)
    outwards = mesh.vertices - np.array([10.0, -3.0, 1.0])
    path = tmp_path / f"x{suffix}"
    write_mesh(path, mesh.vertices, mesh.faces, outwards / 2, suffix)
    loaded = trimesh.load_mesh(path, process=False)
    assert np.allclose(loaded.vertex_normals * 2, loaded.vertices - [10, -3, 1], atol=1e-4)


def test_parts_of_a_scene_stand_where_it_has_them():
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    move = trimesh.transformations.translation_matrix
    scene.add_geometry(box, transform=move([5, 0, 0]))
    mirror = np.diag([1.0, -1.0, 1.0, 1.0]) @ move([-5, 0, 0])
    scene.add_geometry(box, transform=mirror)
    mesh = read_mesh(glb(scene))
    assert (len(mesh.vertices), len(mesh.faces)) == (16, 24)
    assert np.allclose(mesh.bounds, [[-5.5, -0.5, -0.5], [5.5, 0.5, 0.5]])
    solid = Solid(mesh)
    assert solid.sign == "pseudonormal"
    assert solid.inside(np.array([[5.0, 0, 0], [-5, 0, 0], [0, 0, 0]])).tolist() == [1, 1, 0]


def test_cleaning():
    box = trimesh.creation.box()
    soup = box.vertices[box.faces].reshape(-1, 3)  # every triangle with corners of its own
    faces = np.arange(36).reshape(-1, 3)
    twice = np.concatenate([faces, faces[:, ::-1], [[0, 0, 1]]])
    mesh = make_mesh(soup, twice)
    assert (len(mesh.vertices), len(mesh.faces), mesh.removed) == (8, 12, 13)
    assert Solid(mesh).sign == "pseudonormal"


def test_real_files(shared):
    expected = {
        "3holes.off": (3596, 7200, "pseudonormal"),
        "armadillo.obj": (43243, 86482, "pseudonormal"),
        "camelhead.off": (11381, 22704, "winding"),
        "fandisk.obj": (6475, 12946, "pseudonormal"),
        "spot.obj": (2930, 5856, "pseudonormal"),
        "stanford-bunny.obj": (34834, 69451, "winding"),
        "suzanne.obj": (505, 967, "winding"),
    }
    for name, (vertices, faces, sign) in expected.items():
        mesh = read_mesh(shared / "mesh" / name)
        solid = Solid(mesh)
        assert (len(mesh.vertices), len(mesh.faces), solid.sign) == (vertices, faces, sign), name
        assert kind_of(shared / "mesh" / name) == "shape"
    assert "3 parts, open" in solid.notes[0]


BAD = {
    "empty.obj": (b"", "is empty"),
    "blank.ply": (b"   \n", "is empty"),
    "no faces.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no triangles, nor points with normals"),
    "nan.obj": (b"v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
    "line.off": (b"OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "holds no triangles"),
    "flat.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "encloses nothing"),
    "range.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", ""),
    "junk.stl": (b"\xfe" * 300, "300 bytes, of"),
    "picture.obj": (b"\x89PNX\xff\xfe v", "no triangles"),
    "cut.glb": (b"glTF\x02\0\0\0\xff\0\0\0\xff\0\0\0JSON", ""),
    "json.gltf": (b"{not json", ""),
    "lie.ply": (b"ply\nformat ascii 1.0\nelement vertex 9999999999\nend_header\n", "is 9,999,999"),
    "three.xyz": (b"0 0 0\n1 1 1\n", "3 numbers a line"),
    "words.xyz": (b"one two\n", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, capsys, name):
    data, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_shape(path)
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)
    assert main(["fit", str(path), "--steps", "1"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "report" not in error
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_missing_file_and_standard_input():
    with pytest.raises(InputError, match="no such file"):
        open_shape("nowhere.obj")
    with pytest.raises(InputError, match="standard input: "):
        open_shape(b"solid nothing")


def test_limits():
    data = glb(trimesh.creation.icosphere(subdivisions=3))
    with pytest.raises(LimitExceeded, match=r"elements|vertices"):
        read_mesh(data, Limits(samples=1000))
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    for _ in range(50):
        scene.add_geometry(box, geom_name="same")
    with pytest.raises(LimitExceeded):
        read_mesh(glb(scene), Limits(samples=500))


def test_a_gltf_with_its_buffers_inside(tmp_path):
    files = trimesh.Scene(trimesh.creation.box()).export(file_type="gltf")
    tree = json.loads(files.pop("model.gltf"))
    for buffer in tree["buffers"]:
        data = base64.b64encode(files[buffer["uri"]]).decode()
        buffer["uri"] = f"data:application/octet-stream;base64,{data}"
    path = tmp_path / "box.gltf"
    path.write_text(json.dumps(tree))
    assert kind_of(path) == "shape"
    assert len(read_mesh(path).faces) == 12


def test_side_files_are_not_opened(tmp_path):
    box = trimesh.creation.box().export(file_type="obj")
    secret = tmp_path / "secret.mtl"
    secret.write_text("newmtl x\nmap_Kd secret.mtl\n")
    secret.chmod(0)
    path = tmp_path / "box.obj"
    path.write_text(f"mtllib {secret}\nmtllib secret.mtl\nusemtl x\n{box}")
    assert len(read_mesh(path).faces) == 12


def test_a_gltf_that_refers_to_other_files_or_to_nothing():
    data = glb(trimesh.creation.box())
    for uri in ("other.bin", "http://example.org/x.bin", "/etc/hostname"):
        with pytest.raises(InputError, match="refers to another file"):
            read_mesh(rewritten(data, lambda t, u=uri: t["buffers"].append({"uri": u})))

    def claim(tree):
        del tree["accessors"][0]["bufferView"]
        tree["accessors"][0]["count"] = 10**8

    with pytest.raises(InputError, match="accessor without data"):
        read_mesh(rewritten(data, claim))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_never_gets_through(data):
    made = trimesh.creation.icosphere(subdivisions=1)
    form = data.draw(st.sampled_from(["glb", "ply", "stl", "off", "obj"]))
    whole = made.export(file_type=form)
    whole = bytearray(whole if isinstance(whole, bytes) else whole.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        found = read_mesh(damaged)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(found.bounds).all()


# --------------------------------------------------------------- inside, outside, distance


def test_distances_to_a_box():
    solid = Solid(mesh_of(trimesh.creation.box(extents=(2.0, 4.0, 6.0))))
    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 4, (3000, 3))
    q = np.abs(points) - [1, 2, 3]
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)
    assert np.abs(solid.truncated(points, 20.0) * 20 - exact).max() < 1e-9
    assert np.abs(solid.truncated(points, 0.5) - (exact / 0.5).clip(-1, 1)).max() < 1e-9
    assert ((exact < 0) == solid.inside(points)).all()
    sides = solid.beyond(points, 0.5, 0.25)
    assert (sides[np.abs(exact) > 0.75 + 1e-6] == np.sign(exact)[np.abs(exact) > 0.75 + 1e-6]).all()
    assert not sides[np.abs(exact) < 0.75].any()


def test_open_and_closed_give_the_same_sphere():
    closed = sphere(1.0, (0.0, 0.0, 0.0), 4)
    middle = closed.vertices[closed.faces].mean(1)
    lid = make_mesh(closed.vertices, closed.faces[middle[:, 2] < 0.95])
    solid = Solid(lid)
    assert solid.sign == "winding"
    assert "open" in solid.notes[0]
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (4000, 3))
    radius = np.linalg.norm(points, axis=1)
    away = points[:, 2] < 0.6
    values = solid.truncated(points, 0.1)
    exact = (radius - 1) / 0.1
    assert np.abs(values - exact.clip(-1, 1))[away].max() < 0.05
    # across the hole, values pass through 0 without a jump
    line = np.zeros((400, 3))
    line[:, 2] = np.linspace(0.5, 1.5, 400)
    through = solid.truncated(line, 0.1)
    assert through[0] == -1
    assert through[-1] == 1
    assert np.abs(np.diff(through)).max() < 0.1


def test_orientation_is_repaired_and_told():
    mesh = sphere(fineness=2)
    inside_out = Solid(Mesh(mesh.vertices, mesh.faces[:, ::-1].copy()))
    mixed = mesh.faces.copy()
    mixed[::3] = mixed[::3, ::-1]
    points = np.array([[10.0, -3.0, 1.0], [14.0, -3.0, 1.0]])
    for solid in (inside_out, Solid(Mesh(mesh.vertices, mixed))):
        assert solid.inside(points).tolist() == [True, False]
        assert "turned" in solid.notes[-1]
        assert solid.sign == "pseudonormal"


def test_overlapping_parts_are_one_solid():
    boxes = [trimesh.creation.box(extents=(2.0, 2.0, 2.0)) for _ in range(2)]
    boxes[1].apply_translation([1.0, 0.3, 0.2])
    fine = trimesh.util.concatenate(boxes).subdivide().subdivide().subdivide().subdivide()
    solid = Solid(mesh_of(fine))
    assert solid.sign == "winding"
    assert "2 parts, closed but meeting itself" in solid.notes[0]
    assert any("do not part inside from outside" in note for note in solid.notes)
    # well within both boxes there is no surface, although faces are
    assert solid.truncated(np.array([[1.0, 0.2, 0.1]]), 0.5)[0] == -1


def test_a_shell_has_a_cavity():
    outer = trimesh.creation.icosphere(subdivisions=3, radius=2.0)
    inner = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    inner.invert()
    solid = Solid(mesh_of(trimesh.util.concatenate([outer, inner])))
    points = np.array([[0.0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]])
    assert solid.inside(points).tolist() == [False, True, False]
    assert np.sign(solid.truncated(points, 0.2)).tolist() == [1, -1, 1]


def test_samples_are_even():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0], [0, 3, 0]])
    points, index = sample_surface(
        vertices, np.array([[0, 1, 2], [0, 3, 4]]), 20000, np.random.default_rng(0)
    )
    assert abs((index == 1).mean() - 0.9) < 0.01
    assert points.min() >= 0
    assert points.sum(1).max() <= 3 + 1e-9
    inner = points[index == 1]
    assert np.allclose(inner.mean(0), [1, 1, 0], atol=0.03)


# ------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("target", TARGETS)
def test_values_and_batches(target):
    signal = Shape.from_mesh(sphere(), target, **SMALL)
    domain = signal.domain
    assert domain.centre == pytest.approx((10, -3, 1))
    batch = signal.full_batch()
    assert batch.coords.shape == (4000, 3)
    assert float(batch.coords.abs().max()) <= 1
    radius = np.linalg.norm(domain.to_units(batch.coords.numpy()) - [10, -3, 1], axis=1)
    samples = domain.to_samples(batch.values.numpy())[:, 0]
    clear = np.abs(radius - 2) > 0.03
    if target == "occupancy":
        assert (samples[clear] == (radius < 2)[clear]).all()
    else:
        exact = (radius - 2).clip(-domain.truncation, domain.truncation)
        assert np.abs(samples - exact).max() < 0.03
    assert np.allclose(domain.to_values(samples), batch.values[:, 0].numpy(), atol=1e-6)
    one, two = (signal.random_batch(500, torch.Generator().manual_seed(s)).coords for s in (1, 1))
    assert one.equal(two)
    assert len(one) == 500
    other = signal.random_batch(500, torch.Generator().manual_seed(2))
    assert not other.coords.equal(one)
    far = signal.to("cpu").random_batch(4000, torch.Generator().manual_seed(3))
    radius = np.linalg.norm(domain.to_units(far.coords.numpy()) - [10, -3, 1], axis=1)
    clear = np.abs(radius - 2) > 0.03
    sign = np.sign(far.values[:, 0].numpy()) * domain.outward
    assert (sign[clear] == np.sign(radius - 2)[clear]).all()
    assert signal.statistics().samples.shape == (48, 48, 48, 1)
    assert signal.digest() != Shape.from_mesh(sphere(2.5), target, **SMALL).digest()


def test_what_lies_beyond_the_truncation_costs_nothing():
    signal = Shape.from_mesh(sphere(), **SMALL)
    batch = signal.full_batch()
    truth = Known(lambda x: (x.norm(dim=-1) * signal.domain.half - 2) / signal.domain.truncation)
    assert signal.loss(truth, batch).item() / batch.count < 3e-3
    outside = Known(lambda x: torch.full_like(x[..., 0], 3.0))
    wrong = signal.loss(outside, batch).item() / batch.count
    assert wrong > 1
    assert signal.differences(outside, batch).square().sum().item() == pytest.approx(
        signal.loss(outside, batch).item(), 1e-5
    )


def test_the_fit_may_be_taught():
    signal = Shape.from_mesh(sphere(fineness=1), **SMALL)
    hyperparameters = {"hidden_features": 8, "hidden_layers": 1}
    for batch in (500, 4000):
        recipe = presets.Recipe(lr=1e-3, batch=batch, teach="step")
        assert inr.fit(signal, Preset("siren", hyperparameters, recipe), steps=3).steps == 3
    with pytest.raises(UsageError, match="one by one"):
        recipe = presets.Recipe(batch=500, teach="step")
        inr.fit(OrientedPoints(cloud()), Preset("siren", hyperparameters, recipe), steps=3)


def test_metrics_of_the_true_distance_and_of_none():
    signal = Shape.from_mesh(sphere(fineness=4), **SMALL)
    truth = Known(lambda x: (x.norm(dim=-1) * signal.domain.half - 2) / signal.domain.truncation)
    found = signal.metrics(truth)
    assert found["iou"] > 0.995
    assert found["chamfer"] < 0.02
    assert found["chamfer_share"] == pytest.approx(found["chamfer"] / signal.solid.diagonal)
    assert found["normal_consistency"] > 0.995
    assert found["psnr"] > 30
    assert signal.quality(truth) == found["psnr"]
    assert signal.verdict(truth, found) == []
    # moved outwards by a twentieth
    off = signal.metrics(
        Known(lambda x: (x.norm(dim=-1) * signal.domain.half - 2.1) / signal.domain.truncation)
    )
    assert off["iou"] == pytest.approx((2 / 2.1) ** 3, abs=0.01)
    assert off["chamfer"] == pytest.approx(0.1, abs=0.01)
    nothing = Known(lambda x: torch.ones_like(x[..., 0]))
    found = signal.metrics(nothing)
    assert (found["iou"], found["chamfer"]) == (0, math.inf)
    assert "no surface" in signal.verdict(nothing, found)[0]


def test_a_fit_and_its_file():
    signal = Shape.from_mesh(sphere(), samples=20000, detail=32)
    hyperparameters = {"hidden_features": 24, "hidden_layers": 1, "first_omega": 10.0}
    preset = Preset("siren", hyperparameters, presets.Recipe(lr=5e-3, schedule="cosine", batch=500))
    fit = inr.fit(signal, preset, steps=150)
    assert fit.metrics["iou"] > 0.9
    again = inr.decode(encode(fit.field, signal))
    assert again.domain == signal.domain
    assert signal.quality(again) >= signal.quality(fit.field) - 0.2
    found = extract(again, 64, thickness=again.domain.thickness)
    points = again.domain.to_units(found.vertices)
    radius = np.linalg.norm(points - [10, -3, 1], axis=1)
    near = np.abs(radius - 2) < 0.1
    assert near.mean() > 0.98


@pytest.mark.parametrize(
    "change",
    [
        {0: "volume"}, {0: 3}, {1: 0.0}, {1: -1.0}, {1: 1}, {1: math.inf}, {2: [0.0, 0.0]},
        {2: "abc"}, {2: [0.0, 0.0, math.nan]}, {3: 0.0}, {3: None}, {4: -1}, {4: 1.5},
        {5: 1 << 41}, {5: True},
    ],
)  # fmt: skip
def test_malformed_headers(change):
    header = ShapeDomain("tsdf", 0.1, (1.0, 2.0, 3.0), 4.0, 10, 20).header()
    assert domain_from_header("shape", header).header() == header
    for place, value in change.items():
        header[place] = value
    with pytest.raises(CorruptFile):
        domain_from_header("shape", header)
    with pytest.raises(CorruptFile):
        domain_from_header("shape", header[:-1])


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(TARGETS),
    st.floats(1e-6, 1e6),
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    st.floats(1e-3, 1e6),
)
def test_units_go_round(target, truncation, centre, half):
    domain = ShapeDomain(target, truncation, tuple(centre), half, 8, 12)
    assert domain_from_header("shape", domain.header()) == domain
    coords = np.linspace(-1, 1, 30).reshape(10, 3)
    size = half + np.abs(centre).max()
    assert np.abs(domain.to_coords(domain.to_units(coords)) - coords).max() < 1e-9 * size / half
    values = np.linspace(-1, 1, 9, dtype=np.float32)
    assert np.allclose(domain.to_values(domain.to_samples(values)), values, atol=1e-6)


# -------------------------------------------------------------------------------- surface


def closed(found: surface.Surface) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    return mesh


@pytest.mark.parametrize("resolution", [20, 63, 130, 200])
def test_a_torus_in_blocks(resolution):
    field = torus()
    mesh = closed(extract(field, resolution))
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.55 * 0.21**2, rel=1.5 / resolution)
    assert field(torch.from_numpy(mesh.vertices).float()).abs().max() / 5 < 4 / resolution**2


def test_blocks_give_what_one_piece_gives(monkeypatch):
    """Vertices and faces, whatever the blocks, and most of space is never looked at."""
    field = torus()
    monkeypatch.setattr(surface, "COARSE", 32)
    found = extract(field, 128)
    assert found.visited < 0.25
    in_blocks = field.points
    monkeypatch.setattr(surface, "CHUNK", 512)
    monkeypatch.setattr(surface, "COARSE", 128)
    whole = extract(field, 128)
    assert in_blocks < 0.3 * (field.points - in_blocks)
    order = [np.lexsort(s.vertices.T.round(7)) for s in (found, whole)]
    assert np.abs(found.vertices[order[0]] - whole.vertices[order[1]]).max() < 1e-6
    assert len(found.faces) == len(whole.faces)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(8, 90),
    st.floats(0.1, 0.9),
    st.tuples(*[st.floats(-0.05, 0.05)] * 3),
    st.floats(0.5, 30.0),
)
def test_a_ball_is_closed_at_any_resolution(resolution, radius, shift, slope):
    centre = torch.tensor(shift)
    field = Known(lambda x: slope * ((x - centre).norm(dim=-1) - radius))
    found = extract(field, resolution, thickness=1 / slope)
    mesh = closed(found)
    assert mesh.euler_number == 2
    assert np.abs(np.linalg.norm(found.vertices - shift, axis=1) - radius).max() < 3 / resolution


def test_values_that_lie_on_the_level():
    """A plane through nodes, and a cube's sides: no triangle without area, no hole."""
    cube = Known(lambda x: 4 * (x.abs().amax(-1) - 0.5))
    mesh = closed(extract(cube, 64))
    assert mesh.volume == pytest.approx(1.0, rel=0.01)
    assert mesh.area_faces.min() > 0
    assert mesh.euler_number == 2


def test_thin_things_are_found_where_values_tell_of_them():
    thin = Known(lambda x: ((x[..., 2] - 0.003).abs() - 0.004) * 20)
    assert len(extract(thin, 256, thickness=0.05).faces) > 100_000


def test_levels_progress_and_refusals():
    field = ball(0.5)
    told = []
    wide = extract(field, 40, level=0.4, progress=told.append)
    assert np.linalg.norm(wide.vertices, axis=1) == pytest.approx(0.6, abs=0.01)
    assert told[-1] == 1
    assert not len(extract(Known(lambda x: x[..., 0] + 3), 16).faces)
    for arguments in ({"resolution": 1}, {"resolution": 1 << 12}, {"resolution": 8, "level": 1.0}):
        with pytest.raises(UsageError):
            extract(field, **arguments)


@pytest.mark.parametrize("smoothness", [math.inf, 0])
def test_normals_are_gradients(smoothness):
    field = ball(0.5)
    field.smoothness = smoothness
    points = extract(field, 24).vertices
    exact = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert (normals(field, points) * exact).sum(1).min() > 0.9999
    flat = Known(lambda x: x[..., 0] * 0)
    assert not normals(flat, points).any()


# ---------------------------------------------------------------------- points with normals


def cloud(n: int = 2000) -> Cloud:
    rng = np.random.default_rng(0)
    outwards = rng.normal(size=(n, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    return make_cloud(5 * outwards + [1, 2, 3], 7 * outwards)


def test_clouds_are_read(tmp_path):
    given_cloud = cloud(50)
    rows = np.concatenate([given_cloud.points, given_cloud.normals], 1)
    (tmp_path / "x.xyz").write_text("\n".join(" ".join(map(repr, map(float, r))) for r in rows))
    head = "ply\nformat ascii 1.0\nelement vertex 50\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")
    )
    body = "\n".join(" ".join(f"{x:.9g}" for x in row) for row in rows)
    (tmp_path / "x.ply").write_text(f"{head}end_header\n{body}\n")
    lines = [
        f"v {' '.join(map(str, p))}\nvn {' '.join(map(str, n))}" for p, n in zip(
            given_cloud.points, given_cloud.normals, strict=True)
    ]  # fmt: skip
    (tmp_path / "x.obj").write_text("\n".join(lines))
    for suffix in ("xyz", "ply", "obj"):
        signal = inr.open(tmp_path / f"x.{suffix}")
        assert isinstance(signal, OrientedPoints), suffix
        assert np.allclose(signal.cloud.points, given_cloud.points, atol=1e-5)
        assert np.allclose(signal.cloud.normals, given_cloud.normals, atol=1e-5)
        assert signal.preset in presets.names()
    with pytest.raises(UsageError, match="leave out"):
        open_shape(tmp_path / "x.xyz", target="occupancy")


def test_the_eikonal_loss_of_a_linear_field():
    """By hand: f = 2 x, whose gradient is (2, 0, 0) everywhere."""
    signal = OrientedPoints(cloud(10))
    field = Known(lambda x: 2 * x[..., 0])
    batch = signal.full_batch()
    assert batch.coords.shape == (20, 3)
    on, off = (2 * part[:, 0].abs() for part in batch.coords.split(10))
    cosines = signal.normals[:, 0]
    expected = (
        ON * on.sum() + OFF * torch.exp(-SHARPNESS * off).sum() + NORMAL * (1 - cosines).sum()
    ) / 20 + EIKONAL
    assert signal.loss(field, batch).item() / batch.count == pytest.approx(float(expected), 1e-5)


def test_a_cloud_knows_its_sphere():
    signal = OrientedPoints(cloud(), detail=32)
    middle = torch.from_numpy(signal.domain.to_coords(np.array([1.0, 2, 3]))).float()
    truth = Known(lambda x: (x - middle).norm(dim=-1) - 5 / signal.domain.half)
    found = signal.metrics(truth)
    assert found["psnr"] > 100
    assert found["chamfer"] < 0.01
    assert found["normal_consistency"] > 0.999
    assert signal.verdict(truth, found) == []
    inverse = Known(lambda x: -truth.function(x))
    assert signal.quality(inverse) == pytest.approx(20 * math.log10(2 / (2 * OFFSET)) + 1.76, abs=1)
    batch = signal.random_batch(400, torch.Generator().manual_seed(0))
    first, worse = (signal.loss(f, batch).item() / batch.count for f in (truth, inverse))
    assert worse > first + NORMAL / 2


def test_a_cloud_is_fitted():
    signal = OrientedPoints(cloud(), detail=24)
    field = fields.Siren(3, 1, hidden_features=32, hidden_layers=1, first_omega=10.0)
    recipe = presets.Recipe(lr=1e-3, batch=400)
    start = signal.metrics(field)["normal_consistency"]
    fit = inr.fit(signal, Preset("siren", dict(field.hyperparameters), recipe), steps=120)
    assert fit.metrics["normal_consistency"] > max(0.9, start)
    assert fit.metrics["chamfer_share"] < 0.02
    assert inr.decode(encode(fit.field, signal)).domain == signal.domain
    with pytest.raises(FitError, match="has derivatives"):
        inr.fit(signal, Preset("grid", {"resolution": 8, "levels": 1}), steps=1)


# --------------------------------------------------------------------------- command line


def test_the_whole_road(tmp_path, capsys):
    path = tmp_path / "ball.stl"
    path.write_bytes(trimesh.creation.icosphere(subdivisions=2, radius=3.0).export(file_type="stl"))
    assert main(["fit", str(path), "--steps", "40", *TINY]) == 0
    told = capsys.readouterr()
    assert "320 triangles, closed" in told.out
    assert "bytes_per_face" in told.out
    packed = tmp_path / "ball.inr"
    assert inspect(packed.read_bytes()).domain.faces == 320
    for out in ("a.glb", "b.ply", "c.obj", "d.stl", "e.off", "f.npy"):
        target = str(tmp_path / out)
        assert main(["decode", str(packed), "-o", target, "--resolution", "16"]) == 0, out
    values = np.load(tmp_path / "f.npy")
    assert values.shape == (16, 16, 16)
    assert np.abs(values).max() <= inspect(packed.read_bytes()).domain.truncation * (1 + 1e-6)
    assert main(["decode", str(packed), "-o", str(tmp_path / "g.png")]) == 2
    assert "not written as '.png'" in capsys.readouterr().err
    for option, value in (("--resolution", "1"), ("--level", "9"), ("--rate", "3")):
        assert main(["decode", str(packed), "-f", option, value]) == 2
        assert option in capsys.readouterr().err


def test_a_long_search_shows_how_far_it_is(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    field = fields.Siren(3, 1, hidden_features=8, hidden_layers=1, first_omega=4.0)
    field.domain = ShapeDomain("sdf", 1.0, (0.0, 0.0, 0.0), 1.0, 0, 0)
    packed = tmp_path / "ball.inr"
    packed.write_bytes(encode(field))
    shares: list[float] = []
    job = Model(inr.load(packed), {"resolution": 80, "level": None, "normals": False})
    job.progress = shares.append
    job.write(tmp_path / "a.stl")
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for quiet in ([], ["-q"]):
        target = str(tmp_path / f"b{len(quiet)}.stl")
        assert main(["decode", str(packed), "-o", target, "--resolution", "80", *quiet]) == 0
        # rich shortens what does not fit
        assert (str(tmp_path)[:12] in capsys.readouterr().err) == (not quiet)


def test_reading_options(tmp_path, capsys):
    path = tmp_path / "ball.off"
    path.write_text(trimesh.creation.icosphere(subdivisions=1).export(file_type="off"))
    assert inr.open(path, target="occupancy").domain.target == "occupancy"
    wide = inr.open(path, truncation=0.1)
    assert wide.domain.truncation == pytest.approx(0.1 * wide.solid.diagonal)
    for options, reason in (
        (("--shape.target", "colour"), "choose from tsdf"),
        (("--shape.truncation", "7"), "give a share"),
        (("--shape.target", "sdf", "--shape.truncation", "0.1"), "leave it out with sdf"),
    ):
        assert main(["fit", str(path), "--steps", "1", *options]) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "ball.inr").exists()
