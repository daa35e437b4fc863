"""Shapes: Draco, whose files hold triangles.

What is compared is the surface: mean distance, both ways, and what the two solids share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from apps.compare.codec import Codec, version
from inr.errors import InputError
from inr.signals.base import Signal
from inr.signals.shape import Shape

LEVEL = 10
"""Draco's effort, its highest."""


class Decoded(NamedTuple):
    """A solid that came out of a file.

    Args:
        vertices: Shape (v, 3), in the original's units.
        faces: Shape (f, 3).
        inside: Whether points of shape (n, 3) lie within.
    """

    vertices: np.ndarray
    faces: np.ndarray
    inside: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Draco(Codec):
    """Draco at a number of bits for each coordinate."""

    def about(self) -> str:
        return f"DracoPy {version('DracoPy', 'draco needs')}, level {LEVEL}, without normals"

    def label(self, setting: float) -> str:
        return f"{setting:g} bits"

    def encode(self, signal: Signal, setting: float) -> bytes:
        import DracoPy

        assert isinstance(signal, Shape)
        solid = signal.solid
        used, faces = np.unique(solid.faces, return_inverse=True)
        return DracoPy.encode(
            solid.vertices[used].astype(np.float32),
            faces.reshape(-1, 3).astype(np.uint32),
            quantization_bits=int(setting),
            compression_level=LEVEL,
        )

    def decode(self, data: bytes, signal: Signal) -> Decoded:
        import DracoPy

        from inr.meshes import make_mesh
        from inr.solid import Solid

        found = DracoPy.decode(data)
        mesh = make_mesh(np.asarray(found.points), np.asarray(found.faces))
        return Decoded(mesh.vertices, mesh.faces, Solid(mesh).inside)


CODECS = (Draco("draco", (6, 7, 8, 9, 10, 11, 12, 14)),)


def prepared(signal: Signal) -> tuple[Shape, list[str]]:
    """The shape, and what inspection found.

    Raises:
        InputError: it is no mesh.
    """
    if not isinstance(signal, Shape):
        raise InputError("holds points without triangles: meshes are compared")
    return signal, list(signal.notes)


def measure(signal: Signal, decoded: Decoded) -> dict[str, float]:
    """`iou`, `chamfer` and `chamfer_share`, as `inr.signals.shape.Shape.metrics` defines them."""
    assert isinstance(signal, Shape)
    found = {"iou": signal.overlap(decoded.inside)}
    if not len(decoded.faces):
        return found | {"chamfer": math.inf, "chamfer_share": math.inf}
    chamfer = signal.distances(decoded.vertices, decoded.faces).chamfer
    return found | {"chamfer": chamfer, "chamfer_share": chamfer / signal.solid.diagonal}
