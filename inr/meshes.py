"""Triangle meshes and oriented point clouds: files in and out, and what is wrong with them.

trimesh reads and writes the files. Side files (materials, buffers of a glTF) are never opened.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from inr.errors import InputError, OutputError, UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

READABLE = ("obj", "ply", "stl", "off", "glb", "gltf", "xyz")
"""Formats that are read, named as trimesh and as suffixes have them."""

WRITABLE = (".glb", ".ply", ".obj", ".stl", ".off")
"""Formats that are written, by suffix."""


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Args:
        vertices: Shape (v, 3), float64, finite, in the file's units, no two of them equal.
        faces: Shape (f, 3), int64: indices of three different vertices each, seen
            counter-clockwise from outside.
        removed: Faces of the file that are left out: of two equal corners, or there twice.
    """

    vertices: np.ndarray
    faces: np.ndarray
    removed: int = 0

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates of what the faces use."""
        used = self.vertices[np.unique(self.faces)]
        return used.min(0), used.max(0)


@dataclass(frozen=True)
class Cloud:
    """Points of a surface with its normals.

    Args:
        points: Shape (n, 3), float64, finite.
        normals: Shape (n, 3), float64, of length 1, outwards.
    """

    points: np.ndarray
    normals: np.ndarray

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates."""
        return self.points.min(0), self.points.max(0)


# ------------------------------------------------------------------------------- reading


def read_mesh(source: str | Path | bytes, limits: Limits = Limits()) -> Mesh | Cloud:  # noqa: B008
    """Read a mesh, or points with normals, from a path or from the bytes of a file.

    A scene of several meshes becomes one, each where the scene has it. Vertices of equal positions
    become one.

    Args:
        source: OBJ, PLY, STL, OFF, GLB or glTF with embedded buffers; PLY or OBJ without faces,
            or XYZ with six numbers a line, for points with normals.
        limits: What it may ask for; `samples` bounds vertices and faces.

    Raises:
        InputError: no such file, damaged, or without triangles.
        LimitExceeded: more than `limits` allow.
    """
    name = "standard input" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        data = source
    else:
        from inr.files import read_bytes

        data = read_bytes(source, limits.source_bytes)
    suffix = "" if isinstance(source, bytes) else Path(source).suffix
    try:
        return _read(data, _format_of(data, suffix), limits)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None
    except Exception as error:  # the readers raise whatever they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name}: is damaged or no mesh ({reason})") from None


def _read(data: bytes, form: str, limits: Limits) -> Mesh | Cloud:
    if not data.strip():
        raise InputError("is empty")
    _check_claims(data, form, limits)
    if form == "xyz":
        return _xyz(data, limits)
    if form in ("obj", "off"):  # names and comments may be of any encoding
        data = data.decode("utf-8", "replace").encode()
    trimesh = _trimesh()
    scene = trimesh.load_scene(io.BytesIO(data), file_type=form, process=False, skip_materials=True)
    parts = list(_parts(scene, trimesh, limits))
    if any(len(faces) for _, faces in parts):
        return _joined(parts)
    normals = _normals(data, form, scene)
    points = [points for points, _ in parts]
    if normals is None or sum(map(len, points)) != len(normals):
        raise InputError("holds no triangles, nor points with normals")
    return make_cloud(np.concatenate(points), normals)


def make_mesh(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    """A mesh from arrays, cleaned: equal vertices become one, and no face is there twice.

    Args:
        vertices: Shape (v, 3).
        faces: Shape (f, 3), indices.

    Raises:
        InputError: a number is not finite, an index is out of range, or no triangle is left.
    """
    vertices = np.array(vertices, np.float64).reshape(-1, 3) + 0.0  # no negative zeros
    faces = np.array(faces, np.int64).reshape(-1, 3)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise InputError("has faces of vertices that it does not hold")
    if not np.isfinite(vertices).all():
        raise InputError("holds NaN or infinite coordinates: replace them first")
    whole = len(faces)
    vertices, index = _distinct(vertices)
    faces = index[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    faces = faces[np.sort(first)]
    if not len(faces):
        raise InputError("holds no triangles")
    mesh = Mesh(vertices, np.ascontiguousarray(faces), whole - len(faces))
    low, high = mesh.bounds
    if not np.isfinite(np.square(high - low).sum()) or (high - low).max() < 1e-150:
        raise InputError("is too large or too small for float64: scale it")
    return mesh


def make_cloud(points: np.ndarray, normals: np.ndarray) -> Cloud:
    """An oriented cloud from arrays; normals are brought to length 1.

    Args:
        points: Shape (n, 3).
        normals: Shape (n, 3), outwards.

    Raises:
        InputError: fewer than 4 points, a number is not finite, or a normal is 0.
    """
    points, normals = (np.array(x, np.float64).reshape(-1, 3) for x in (points, normals))
    if len(points) < 4 or points.shape != normals.shape:
        raise InputError("holds fewer than 4 points with normals")
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    if not (np.isfinite(points).all() and np.isfinite(length).all() and length.all()):
        raise InputError("holds NaN, infinite coordinates or normals of length 0: remove them")
    if (points.max(0) == points.min(0)).all():
        raise InputError("holds one point only, again and again")
    return Cloud(points, normals / length)


def _format_of(data: bytes, suffix: str) -> str:
    """The format, by its first bytes where they tell, else by the file's name."""
    head = data[:256].lstrip()
    for pattern, form in (
        (rb"ply\s", "ply"),
        (rb"glTF", "glb"),
        (rb"(ST)?(C)?(N)?OFF\b", "off"),
        (rb"solid\b", "stl"),
        (rb"\{", "gltf"),
    ):
        if re.match(pattern, head):
            return form
    given = suffix.lower().removeprefix(".")
    if given in READABLE:
        return given
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "stl"
    return "obj"


def _check_claims(data: bytes, form: str, limits: Limits) -> None:
    """Refuse counts in a header that the rest of the file cannot hold, before they are believed."""
    if form == "ply":
        head = data[: data.find(b"end_header")]
        for count in re.findall(rb"element\s+\S+\s+(\d+)", head):
            limits.check("the number of elements", int(count), min(limits.samples, len(data)))
    elif form == "stl":
        count = int.from_bytes(data[80:84], "little")
        if len(data) != 84 + 50 * count and not data.isascii():
            raise InputError(
                f"is damaged or no STL: {len(data):,} bytes, of {84 + 50 * count:,} by its head"
            )
    elif form in ("glb", "gltf"):
        size = int.from_bytes(data[12:16], "little")
        tree = json.loads(data[20 : 20 + size] if form == "glb" else data)
        for accessor in tree.get("accessors", ()):
            limits.check("the number of elements", accessor["count"], limits.samples)
            if "bufferView" not in accessor and accessor["count"] > len(data):
                raise InputError("has an accessor without data")
        for item in (*tree.get("buffers", ()), *tree.get("images", ())):
            uri = item.get("uri")
            if uri is not None and not uri.startswith("data:"):
                raise InputError(f"refers to another file ({uri[:60]}): save it as one .glb")


def _parts(scene: Any, trimesh: Any, limits: Limits) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """(vertices, faces) of each thing in a scene, where it stands."""
    total = 0
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        vertices = np.asarray(geometry.vertices, np.float64)
        faces = getattr(geometry, "faces", np.zeros((0, 3), np.int64))
        # a scene may name one mesh a million times
        total += len(vertices) + len(faces)
        limits.check("the number of vertices and faces", total, limits.samples)
        vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
        mirrored = np.linalg.det(transform[:3, :3]) < 0
        yield vertices, np.asarray(faces)[:, ::-1] if mirrored else np.asarray(faces)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [faces + start for (_, faces), start in zip(parts, starts, strict=False)]
    return make_mesh(np.concatenate([v for v, _ in parts]), np.concatenate(faces))


def _normals(data: bytes, form: str, scene: Any) -> np.ndarray | None:
    """The normals of a file of points, in the order of its points."""
    if form == "obj":
        lines = re.findall(rb"^vn\s+(\S+)\s+(\S+)\s+(\S+)", data, re.MULTILINE)
        return np.array(lines).astype(np.float64) if lines else None
    for geometry in scene.geometry.values():
        columns = geometry.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
        names = getattr(getattr(columns, "dtype", None), "names", None) or [*columns]
        if {"nx", "ny", "nz"} <= {*names}:
            return np.stack([np.ravel(columns[n]) for n in ("nx", "ny", "nz")], -1)
    return None


def _xyz(data: bytes, limits: Limits) -> Cloud:
    limits.check("the number of lines", data.count(b"\n"), limits.samples // 6)
    rows = np.loadtxt(io.BytesIO(data), ndmin=2)
    if rows.shape[1] != 6:
        raise InputError(f"has {rows.shape[1]} numbers a line: give x y z and a normal")
    return make_cloud(rows[:, :3], rows[:, 3:])


def _distinct(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices without repetition, and where each has gone."""
    keys = np.ascontiguousarray(vertices).view(f"V{vertices.shape[1] * 8}").ravel()
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    return vertices[first], index


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise InputError("meshes need trimesh: pip install 'inr-studio[mesh]'") from None
    return trimesh


# ------------------------------------------------------------------------------- writing


def check_format(suffix: str) -> None:
    """Raise UsageError now if `write_mesh` would refuse this suffix."""
    if suffix.lower() not in WRITABLE:
        raise UsageError(f"a surface is not written as {suffix!r}: try .glb or .ply")


def write_mesh(
    target: Path | BinaryIO,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None = None,
    suffix: str = "",
) -> None:
    """Write triangles as the suffix says; normals where the format has them (not STL, not OFF).

    Args:
        target: Where to write; an open file needs a `suffix`.
        vertices: Shape (v, 3).
        faces: Shape (f, 3).
        normals: Shape (v, 3), of length 1.
        suffix: Format; a path's own if not given.

    Raises:
        UsageError: the format is unknown.
        OutputError: the file could not be written.
    """
    if isinstance(target, Path):
        suffix = suffix or target.suffix
    check_format(suffix)
    form = suffix.lower().removeprefix(".")
    mesh = _trimesh().Trimesh(vertices, faces, vertex_normals=normals, process=False)
    options: dict[str, Any] = {}
    if form in ("glb", "obj", "ply"):
        name = {"ply": "vertex_normal", "glb": "include_normals", "obj": "include_normals"}[form]
        options[name] = normals is not None
    if form == "obj":
        options |= {"header": None, "digits": 9}
    data = mesh.export(file_type=form, **options)
    data = data.encode() if isinstance(data, str) else data
    try:
        if isinstance(target, Path):
            target.write_bytes(data)
        else:
            target.write(data)
    except OSError as error:
        raise OutputError(f"{target}: {(error.strerror or str(error)).lower()}") from None
