"""What `inr decode` does with a shape: its surface as a mesh, or its values on a lattice."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from inr.errors import UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from fields.base import Field
    from inr.signals.shape import ShapeDomain

OPTIONS = {
    "resolution": (int, "cells per axis of the cube that is searched for the surface; 256"),
    "level": (
        float,
        "the surface's distance from that of the source, in its units, outside above 0; of an "
        "occupancy, a number from 0 to 1; 0, or 0.5",
    ),
    "normals": (bool, "whether to write the field's gradient as normals, where a format can; true"),
}


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for."""
    return {name: getattr(args, name) for name in OPTIONS}


class Model:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.

    Attributes:
        progress: Told the share of the surface that is found, if set.
    """

    suffix = ".glb"
    progress: Callable[[float], None] | None = None

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        from inr.signals.shape import RESOLUTION
        from inr.surface import FINEST

        self.field = field
        self.domain: ShapeDomain = field.domain
        self.resolution = RESOLUTION if how["resolution"] is None else how["resolution"]
        if not 2 <= self.resolution <= FINEST:
            raise UsageError(f"--resolution is {self.resolution}: give 2 to {FINEST:,}")
        try:
            self.level = self.domain.level(how["level"])
        except UsageError as error:
            raise UsageError(f"--{error}") from None
        self.normals = how["normals"] is not False
        self.facts: dict[str, Any] = {"resolution": self.resolution}
        self.text = " x ".join([str(self.resolution)] * 3) + " values"

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        from inr.meshes import check_format

        if suffix.lower() != ".npy":
            check_format(suffix)
        elif self.resolution**3 > Limits().samples and not to_file:
            raise UsageError(f"{self.text} are too many: choose a lower --resolution, or a file")

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a file."""
        import numpy as np

        buffer = io.BytesIO()
        if suffix.lower() == ".npy":
            np.save(buffer, np.concatenate([*self._values()]))
        else:
            self._write_mesh(buffer, suffix)
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Render into a file, in the format of its suffix."""
        import numpy as np

        if path.suffix.lower() == ".npy":
            from inr.files import write_npy

            write_npy(path, (self.resolution,) * 3, np.float32, self._values())
        else:
            self._write_mesh(path, path.suffix)

    def _write_mesh(self, target: Any, suffix: str) -> None:
        from inr.meshes import write_mesh
        from inr.surface import extract, normals

        domain = self.domain
        found = extract(
            self.field,
            self.resolution,
            level=self.level,
            thickness=domain.thickness,
            progress=self.progress,
        ).oriented(domain.outward)
        if not len(found.faces):
            raise UsageError(
                "the field has no surface at this level: choose another --level, or a finer "
                "--resolution"
            )
        outwards = normals(self.field, found.vertices) * domain.outward if self.normals else None
        write_mesh(target, domain.to_units(found.vertices), found.faces, outwards, suffix)
        self.facts |= {"vertices": len(found.vertices), "faces": len(found.faces)}
        self.text = f"{len(found.vertices):,} vertices, {len(found.faces):,} triangles"

    def _values(self) -> Iterator[np.ndarray]:
        from inr.rendering import render_bands

        shape = (self.resolution,) * 3
        lengths = [float(n) for n in self.domain.shape]
        for _, samples in render_bands(self.field, self.domain, shape, [0.0] * 3, lengths):
            yield samples[..., 0]
