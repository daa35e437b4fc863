"""Signals by kind. To add one: write one file with a Domain and a Signal, and one line here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inr.errors import CorruptFile, InputError
from inr.limits import Limits

if TYPE_CHECKING:
    from inr.signals.base import Domain, GridSignal

KINDS: dict[str, tuple[str, str, str]] = {
    "image": ("inr.signals.image", "ImageDomain", "open_image"),
}
"""Permanent name in files -> (module, domain class, opener)."""


def domain_from_header(kind: Any, items: Any) -> Domain:
    """Rebuild a domain from what a file header carries.

    Raises:
        CorruptFile: the kind is unknown or its items are malformed.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise CorruptFile(f"holds a signal of unknown kind {kind!r}")
    module, domain, _ = KINDS[kind]
    return getattr(importlib.import_module(module), domain).from_header(items)


def open_signal(source: str | Path | bytes, limits: Limits = Limits()) -> GridSignal:  # noqa: B008
    """Open a file (or the bytes of one) as the signal that it holds.

    Raises:
        InputError: the file cannot be read as any kind of signal.
    """
    head = source[:4] if isinstance(source, bytes) else _head(source)
    if head == b"\x89INR":
        raise InputError(f"{_name(source)}: is an .inr file already; `inr decode` renders it")
    module, _, opener = KINDS["image"]
    return getattr(importlib.import_module(module), opener)(source, limits)


def _head(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(4)
    except OSError:
        return b""  # the opener says what is wrong


def _name(source: str | Path | bytes) -> str:
    return "standard input" if isinstance(source, bytes) else str(source)
