"""What workers do, one task a file: `run(spec, desk)` takes JSON and returns JSON."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from apps.studio.desk import Desk

TASKS = {
    "compare": "apps.studio.tasks.compare",
    "compress": "apps.studio.tasks.compress",
    "decode": "apps.studio.tasks.decode",
    "explore": "apps.studio.tasks.explore",
    "fit": "apps.studio.tasks.fit",
    "info": "apps.studio.tasks.info",
    "look": "apps.studio.tasks.look",
    "render": "apps.studio.tasks.render",
}

SHORT = ("decode", "explore", "info", "look", "render")
"""Tasks that also run beside the fits."""


def task(name: str) -> Callable[[dict[str, Any], Desk], dict[str, Any]]:
    """The function of a task, imported now."""
    run: Callable[[dict[str, Any], Desk], dict[str, Any]] = importlib.import_module(TASKS[name]).run
    return run
