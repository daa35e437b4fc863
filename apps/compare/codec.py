"""What a codec is to a comparison: it makes a file of a signal, and of the file the signal."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from inr.errors import UsageError
from inr.signals.base import Signal


@dataclass(frozen=True)
class Codec(ABC):
    """One way of coding signals of a kind, at several settings.

    Args:
        name: What it is called on the command line and in tables.
        ladder: Its settings, from those of small files to those of large ones.
    """

    name: str
    ladder: tuple[float, ...]

    @abstractmethod
    def about(self) -> str:
        """Library, version and what else shapes its files, in one line.

        Raises:
            UsageError: what it needs is not installed; the line says what to install.
        """

    @abstractmethod
    def label(self, setting: float) -> str:
        """A setting as tables show it."""

    @abstractmethod
    def encode(self, signal: Signal, setting: float) -> bytes:
        """The whole file, as it would lie on a disk."""

    @abstractmethod
    def decode(self, data: bytes, signal: Signal) -> Any:
        """What a file holds, as `measure` of its kind takes it.

        Args:
            data: What `encode` returned.
            signal: The original, of which shape and type are known to whoever compares.
        """


def version(package: str, needed: str) -> str:
    """The version of an optional package.

    Args:
        package: Its name on PyPI.
        needed: For what it is needed, as a subject: "Opus needs".

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            f"{needed} the package {package}: pip install 'inr-studio[compare]'"
        ) from None


def chosen(ladder: tuple[float, ...], points: int) -> tuple[float, ...]:
    """So many settings of a ladder, at equal distances from its first to its last."""
    if points >= len(ladder):
        return ladder
    if points == 1:
        return (ladder[len(ladder) // 2],)
    return tuple(ladder[round(i * (len(ladder) - 1) / (points - 1))] for i in range(points))
