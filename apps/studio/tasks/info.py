"""What `inr info` tells of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps.cli.info import facts_of
from apps.studio.desk import Desk
from apps.studio.spec import LIMITS
from inr.files import read_bytes


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """The facts of the `.inr` file at `source`.

    Raises:
        InputError: it is none, or damaged.
    """
    return facts_of(read_bytes(Path(spec["source"]), LIMITS.file_bytes))
