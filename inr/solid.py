"""Solids bounded by triangle meshes: what is inside, and how far the surface is.

libigl computes the distances. A closed surface has its sign from pseudonormals (J. Baerentzen,
H. Aanaes, "Signed Distance Computation Using the Angle Weighted Pseudonormal", IEEE TVCG 11(3),
2005). An open or self-intersecting one bounds the points that it winds about by more than half a
turn (A. Jacobson, L. Kavan, O. Sorkine-Hornung, "Robust Inside-Outside Segmentation using
Generalized Winding Numbers", ACM TOG 32(4), 2013), computed fast (G. Barill et al., "Fast Winding
Numbers for Soups and Clouds", ACM TOG 37(4), 2018). Across its holes that is a smooth cap.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from inr.errors import InputError
from inr.meshes import Mesh

SIDE = 1e-5
"""How far from a face, in diagonals, its two sides are looked at."""

DISAGREEMENT = 0.002
"""Share of points at which the two signs may differ, by numerical error, on a sound mesh."""

TEST_POINTS = 1 << 12

CAP_BAND = 0.375
"""Winding numbers this close to 1/2 may be near a cap."""

CAP_STEP = 0.01
"""Distance, in diagonals, over which winding numbers are differenced."""

CAP_CANDIDATES = 1 << 17
"""Points of the bounding box among which those near a cap are looked for."""

CAP_ERROR = 0.1
"""Winding numbers differ by at most so much from 1/2 on what is taken for a cap."""

CAP_SLAB = 0.02
"""Half the thickness, in diagonals, of the slab about a cap whose points are moved onto it."""


class Solid:
    """What a mesh bounds.

    Args:
        mesh: The mesh; faces that are oriented the wrong way about are turned.

    Attributes:
        vertices: Shape (v, 3), float64.
        faces: Shape (f, 3), int64: those with one side inside and one outside. What lies within
            overlapping parts is not among them.
        sign: How a point's side is told.
        notes: What inspection found, one line each.

    Raises:
        InputError: the mesh encloses nothing.
    """

    def __init__(self, mesh: Mesh) -> None:
        igl = _igl()
        self.vertices = mesh.vertices
        self._igl = igl
        faces, turned = _oriented(igl, mesh)
        boundary, tangled = _edges(faces, len(mesh.vertices))
        low, high = mesh.bounds
        self.low, self.high = low, high
        self.diagonal = float(np.linalg.norm(high - low))
        self._winding = igl.FastWindingNumberBVH()
        self._winding.init(mesh.vertices, faces)
        self.faces = faces
        parts = int(igl.facet_components(faces)[0])
        closed = not boundary and not tangled
        self.sign: Literal["pseudonormal", "winding"] = "pseudonormal" if closed else "winding"
        crossing = closed and self._disagrees()
        if crossing:
            self.sign = "winding"
        if self.sign == "winding":
            self.faces = self._outer(faces)
        self.boundary = boundary
        self.notes = _notes(
            mesh, parts, (boundary, tangled, crossing), turned, len(faces) - len(self.faces)
        )

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether points of shape (n, 3) lie inside, by winding number."""
        return self.winding(points) > 0.5

    def winding(self, points: np.ndarray) -> np.ndarray:
        """How often the surface winds about each point, shape (n,)."""
        return self._winding.winding_number(np.ascontiguousarray(points, np.float64))

    def truncated(self, points: np.ndarray, reach: float) -> np.ndarray:
        """Signed distance in units of `reach`, within [-1, 1]; negative inside.

        The cap over a hole counts as surface; the distance to it is (winding number - 1/2) over the
        length of its gradient, to first order.

        Args:
            points: Shape (n, 3).
            reach: Distance that 1 stands for; what is farther is 1, too.

        Returns:
            Shape (n,), float64.
        """
        points = np.ascontiguousarray(points, np.float64)
        if self.sign == "pseudonormal":
            # beyond the bounds libigl stops searching and returns NaN
            values = self._pseudonormal(points, reach) / reach
            far = ~np.isfinite(values)
            values[far] = np.where(self.inside(points[far]), -1.0, 1.0)
            return values.clip(-1, 1)
        turns = self.winding(points) - 0.5
        size = np.minimum(self.distance(points) / reach, 1.0)
        if self.boundary:
            near = np.flatnonzero(np.abs(turns) < CAP_BAND)
            caps = np.abs(self._to_cap(points[near], turns[near])[0])
            size[near] = np.minimum(size[near], caps / reach)
        return np.where(turns > 0, -size, size)

    def beyond(self, points: np.ndarray, reach: float, radius: float) -> np.ndarray:
        """Where `truncated` is known to be 1 or -1 throughout a ball; 0 where it may not be.

        Args:
            points: Middles of balls, shape (n, 3).
            reach: As for `truncated`; 0 asks for the side alone.
            radius: Their radius.

        Returns:
            Shape (n,), int8.
        """
        points = np.ascontiguousarray(points, np.float64)
        turns = self.winding(points) - 0.5
        far = self.distance(points) > reach + radius
        if self.boundary:
            far &= np.abs(turns) > CAP_BAND
        return np.where(far, np.sign(-turns), 0).astype(np.int8)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance to the surface, shape (n,), never negative."""
        return np.sqrt(nearest(points, self.vertices, self.faces)[0])

    def sample(
        self, count: int, rng: np.random.Generator, *, caps: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points drawn evenly from the surface.

        Args:
            count: How many.
            rng: Draws them.
            caps: Whether what closes the holes is surface, too.

        Returns:
            Points, shape (n, 3), and the faces that they lie on, shape (n,); -1 for caps.
        """
        points, faces = sample_surface(self.vertices, self.faces, count, rng)
        if caps and self.boundary:
            places, area = self._caps
            whole = float(np.linalg.norm(_cross(self.vertices, self.faces), axis=1).sum()) / 2
            chosen = np.flatnonzero(rng.random(count) < area / (area + whole))
            if len(places):
                points[chosen] = places[rng.integers(len(places), size=len(chosen))]
                faces[chosen] = -1
        return points, faces

    @functools.cached_property
    def _caps(self) -> tuple[np.ndarray, float]:
        """Points spread evenly over what closes the holes, and its area."""
        rng = np.random.default_rng(3)
        points = rng.uniform(self.low, self.high, (CAP_CANDIDATES, 3))
        turns = self.winding(points) - 0.5
        points, turns = (x[np.abs(turns) < CAP_BAND] for x in (points, turns))
        slab = CAP_SLAB * self.diagonal
        way, gradient = self._to_cap(points, turns)
        near = np.abs(way) < slab
        # along the gradient, which is that of distance but for its length
        step = way[near, None] * gradient[near] / np.linalg.norm(gradient[near], axis=1)[:, None]
        places = points[near] - step
        there = np.abs(self.winding(places) - 0.5) < CAP_ERROR
        places = places[there & (self.distance(places) > slab / 2)]
        volume = float(np.prod(self.high - self.low)) * len(places) / CAP_CANDIDATES
        return places, volume / (2 * slab)

    def _to_cap(self, points: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed way to where the winding number is 1/2, to first order, and its gradient."""
        step = CAP_STEP * self.diagonal
        shifts = np.concatenate([step * np.eye(3), -step * np.eye(3)])
        there = self.winding((points + shifts[:, None]).reshape(-1, 3)).reshape(2, 3, -1)
        gradient = ((there[0] - there[1]) / (2 * step)).T
        return turns / np.maximum(np.linalg.norm(gradient, axis=1), 1e-12), gradient

    def face_normals(self) -> np.ndarray:
        """Unit normals of `faces`, shape (f, 3), outwards; 0 for a face without area."""
        cross = _cross(self.vertices, self.faces)
        return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)

    def _pseudonormal(self, points: np.ndarray, reach: float) -> np.ndarray:
        return self._igl.signed_distance(
            points,
            self.vertices,
            self.faces,
            sign_type=self._igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL,
            lower_bound=-reach,
            upper_bound=reach,
        )[0]

    def _disagrees(self) -> bool:
        """Whether the two signs differ somewhere, as they do where a surface meets itself."""
        rng = np.random.default_rng(0)
        points, _ = self.sample(TEST_POINTS, rng)
        points = points + rng.normal(0, 0.01 * self.diagonal, points.shape)
        signed = self._pseudonormal(points, np.inf)
        return bool(((signed < 0) != self.inside(points)).mean() > DISAGREEMENT)

    def _outer(self, faces: np.ndarray) -> np.ndarray:
        """The faces that part inside from outside, at their middle or near a corner."""
        cross = _cross(self.vertices, faces)
        area = np.linalg.norm(cross, axis=1, keepdims=True)
        step = cross / np.maximum(area, 1e-300) * (SIDE * self.diagonal)
        corners = self.vertices[faces]
        middle = corners.mean(1)
        parts = np.zeros(len(faces), bool)
        for place in (middle, *((0.9 * corners + 0.1 * middle[:, None]).transpose(1, 0, 2))):
            left = np.flatnonzero(~parts)  # most are settled at the first place
            a, b = (place[left] + step[left], place[left] - step[left])
            parts[left] = self.inside(a) != self.inside(b)
        if not parts.any():
            raise InputError(
                "encloses nothing: its faces bound no inside; close it, or give points with normals"
            )
        return np.ascontiguousarray(faces[parts])


def nearest(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(squared distance to triangles, index of the nearest, point on it) for points (n, 3)."""
    return _igl().point_mesh_squared_distance(
        np.ascontiguousarray(points, np.float64), vertices, faces
    )


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn evenly from triangles: (points (n, 3), indices of their faces (n,))."""
    area = np.linalg.norm(_cross(vertices, faces), axis=1).cumsum()
    index = np.searchsorted(area, rng.random(count) * area[-1], side="right")
    index = index.clip(max=len(faces) - 1)
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    a, b, c = (vertices[faces[index, k]] for k in range(3))
    return a + u * (b - a) + v * (c - a), index


def _cross(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of triangles, of twice their area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _edges(faces: np.ndarray, count: int) -> tuple[int, int]:
    """(edges of one face, other edges that two faces do not share in opposite directions)."""
    a, b = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    directed = _repetitions(a * count + b)
    uses = _repetitions(np.minimum(a, b) * count + np.maximum(a, b))
    return int((uses == 1).sum()), int((uses > 2).sum() + (directed > 1).sum())


def _repetitions(keys: np.ndarray) -> np.ndarray:
    """How often each different key is there."""
    keys = np.sort(keys)
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return np.diff(np.append(starts, len(keys)))


def _oriented(igl: Any, mesh: Mesh) -> tuple[np.ndarray, bool]:
    """Faces all of which have the outside on the same side, and whether any were turned."""
    faces = mesh.faces
    edges = faces.ravel() * len(mesh.vertices) + faces[:, [1, 2, 0]].ravel()
    turned = False
    if _repetitions(edges).max() > 1:  # two faces run along an edge in one direction
        faces, patches = igl.bfs_orient(faces)
        faces, _ = igl.orient_outward(mesh.vertices, faces, patches[:, None])
        turned = not np.array_equal(faces, mesh.faces)
    corners = mesh.vertices[faces] - np.mean(mesh.bounds, axis=0)
    if np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:
        faces, turned = faces[:, ::-1], True
    return np.ascontiguousarray(faces, np.int64), turned


def _notes(
    mesh: Mesh, parts: int, found: tuple[int, int, bool], turned: bool, hidden: int
) -> tuple[str, ...]:
    """What to tell the user, one line each."""
    boundary, tangled, crossing = found
    several = f"{parts} parts, " if parts > 1 else ""
    if boundary:
        kind = f"{several}open ({boundary:,} edges of one face): winding numbers close it"
    elif tangled or crossing:
        kind = f"{several}closed but meeting itself: inside is what it winds about"
    else:
        kind = f"{several}closed: signed distance by pseudonormals"
    notes = [f"{len(mesh.faces):,} triangles, {kind}"]
    if hidden:
        notes.append(f"{hidden:,} triangles do not part inside from outside and are left out")
    if mesh.removed:
        notes.append(f"{mesh.removed:,} triangles without area or there twice are left out")
    if turned:
        notes.append("triangles that faced the wrong way are turned")
    return tuple(notes)


def _igl() -> Any:
    try:
        import igl
    except ImportError:
        raise InputError("meshes need the package libigl: pip install 'inr-studio[mesh]'") from None
    return igl
