"""What benchmarks share: the machine's name, and printing that can be pasted into docs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from apps.bench.machine import machine as _machine
from apps.bench.results import table

__all__ = ["ROOT", "machine", "read_sheet", "table", "write_sheet"]

ROOT = Path(__file__).parents[1]


def machine() -> str:
    """Processor, threads, load and versions, in one line."""
    return f"{_machine()}, {torch.get_num_threads()} threads of torch"


def read_sheet(path: Path, numbers: Mapping[str, Callable[[str], Any]]) -> list[dict[str, Any]]:
    """Rows that an earlier run left, if any; some columns turned from texts into numbers."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [row | {name: kind(row[name]) for name, kind in numbers.items()} for row in rows]


def write_sheet(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Put all rows into a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
