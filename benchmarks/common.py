"""What benchmarks share: the machine's name, and printing that can be pasted into docs."""

from __future__ import annotations

from pathlib import Path

import torch

from apps.bench.machine import machine as _machine
from apps.bench.results import table

__all__ = ["ROOT", "machine", "table"]

ROOT = Path(__file__).parents[1]


def machine() -> str:
    """Processor, threads, load and versions, in one line."""
    return f"{_machine()}, {torch.get_num_threads()} threads of torch"
