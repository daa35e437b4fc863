"""What a page shows of a shape: its surface in 3-D, coloured by how far the original's is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.view.page import Section
from apps.view.pieces import bar, deflated
from inr.errors import InputError

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Domain, Signal
    from inr.signals.shape import ShapeDomain

RESOLUTION = 160
"""Cells per axis of the surface that is shown."""

BYTES_PER_FACE = 8
"""What a triangle costs in a page, at least about."""

DISTANCES_SHOWN = 0.95
"""Share of distances within the colours; the others have the last colour."""


def sections(field: Field, original: Signal | None, room: int) -> list[Section]:
    """Parts of the page, of at most about `room` bytes.

    Raises:
        InputError: the field has no surface.
    """
    from inr.signals.shape import Shape
    from inr.surface import extract

    domain: ShapeDomain = field.domain
    surface = extract(field, RESOLUTION, thickness=domain.thickness)
    if not len(surface.faces):
        raise InputError("the field has no surface: nothing can be shown")
    faces = surface.faces if domain.outward > 0 else surface.faces[:, ::-1]
    most = max(64, room // (BYTES_PER_FACE * (1 if original is None else 2)))
    own = simplified(domain.to_units(surface.vertices), faces, most)
    given = [("decoded", own)]
    notes = [f"The surface is drawn with {RESOLUTION} cells per axis."]
    if isinstance(original, Shape):
        solid = original.solid
        given.insert(0, ("original", simplified(solid.vertices, solid.faces, most)))
    elif original is not None:
        notes.append("The original is points, of which nothing is drawn.")
    points = np.concatenate([vertices for _, (vertices, _) in given])
    low, high = points.min(0), points.max(0)
    data: dict[str, Any] = {
        "low": low.tolist(),
        "high": high.tolist(),
        "focus": [side.tolist() for side in (given[0][1][0].min(0), given[0][1][0].max(0))],
        "meshes": [packed(name, mesh, (low, high)) for name, mesh in given],
    }
    if isinstance(original, Shape):
        distances = original.solid.distance(own[0])
        top = float(np.quantile(distances, DISTANCES_SHOWN)) or 1.0
        places = np.rint((distances / top).clip(0, 1) * 65535).astype(np.uint16)
        data["meshes"][-1]["values"] = deflated(places)
        share = f"or more ({100 * top / original.solid.diagonal:.2g} % of the diagonal)"
        data["bar"] = bar("viridis", 0, top, share) | {"name": "distance to the original"}
    for name, (_, shown) in given:
        notes.append(f"{name.capitalize()}: {len(shown):,} triangles.")
    return [Section("Surface", "mesh", data, notes)]


def as_fitted(signal: Signal, domain: Domain) -> Signal:
    """The shape of a file, seen as a decoded domain has it: as distances or as occupancy.

    Raises:
        InputError: it is another shape.
    """
    from inr.signals.shape import Shape, ShapeDomain

    given = signal.domain
    assert isinstance(domain, ShapeDomain)
    assert isinstance(given, ShapeDomain)
    counts = (domain.vertices, domain.faces) == (given.vertices, given.faces)
    place = np.abs(np.subtract((*domain.centre, domain.half), (*given.centre, given.half)))
    if not counts or place.max() > 1e-6 * domain.half:
        raise InputError(
            f"is a shape of {given.vertices:,} vertices and {given.faces:,} faces, but the .inr "
            f"file holds one of {domain.vertices:,} and {domain.faces:,}, or one of another place: "
            "give what was fitted"
        )
    if not isinstance(signal, Shape):
        return signal
    return Shape(domain, signal.solid, samples=signal.samples, detail=signal.detail)


def packed(
    name: str, mesh: tuple[np.ndarray, np.ndarray], box: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Vertices and faces as the widget has them, within the lowest and highest place of a box."""
    vertices, faces = mesh
    extent = np.where(box[1] > box[0], box[1] - box[0], 1)
    places = np.rint((vertices - box[0]) / extent * 65535).astype(np.uint16)
    return {"name": name, "positions": deflated(places), "faces": deflated(faces.astype(np.uint32))}


def meshed(
    name: str,
    mesh: tuple[np.ndarray, np.ndarray],
    box: tuple[np.ndarray, np.ndarray],
    most: int,
) -> tuple[dict[str, Any], int]:
    """A mesh of at most `most` triangles as the widget has it (see `packed`); and how many."""
    kept = simplified(*mesh, most) if len(mesh[1]) else (np.zeros((0, 3)), mesh[1])
    return packed(name, kept, box), len(kept[1])


def simplified(vertices: np.ndarray, faces: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of at most `most` triangles: vertices in one cell of a lattice become their mean."""
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    cells = 1024
    low = vertices.min(0)
    side = float((vertices.max(0) - low).max()) or 1.0
    while len(faces) > most and cells > 1:
        places = np.floor((vertices - low) * (cells / side)).astype(np.int64)
        _, joined, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
        joined = joined.ravel()
        means = np.stack([np.bincount(joined, column) for column in vertices.T], -1)
        vertices, faces = means / counts[:, None], joined[faces]
        a, b, c = faces.T
        faces = faces[(a != b) & (b != c) & (c != a)]
        cells = cells * 3 // 4
    return vertices, faces
