"""Draw a window of a file's field: what a person who zooms sees next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps.studio.decoded import decoded
from apps.studio.desk import Desk
from apps.studio.planes import overview, picture, plane_of
from apps.view.pieces import data_uri
from inr.errors import UsageError


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """A window of a plane through the signal of the `.inr` file at `source`.

    {"source": path, "axis": int, "position": float | null, "crop": [y, x, height, width] | null,
    "size": [rows, columns]}; see `apps.studio.planes` for what they mean. Without a crop all of the
    plane is drawn, at the size of an overview.

    Returns:
        {"picture": data URI, "pixels": [rows, columns], "size": [height, width] of the plane}.

    Raises:
        InputError: it is no such file.
        UsageError: axis, position, crop or size are not what they should be.
    """
    file = decoded(Path(spec["source"]), str(spec.get("name") or ""))
    axis, position = spec.get("axis", -1), spec.get("position")
    if type(axis) is not int or not (position is None or type(position) in (int, float)):
        raise UsageError("axis and position are not what they should be: give numbers")
    plane = plane_of(file.domain, axis, position)
    if spec.get("crop") is None:
        crop, size = [0.0, 0.0, *plane.size], overview(plane.size)
    else:
        crop, size = spec["crop"], spec["size"]
    data, shape = picture(file, plane, crop, size)
    return {
        "picture": data_uri("image/png", data),
        "pixels": list(shape),
        "size": list(plane.size),
    }
