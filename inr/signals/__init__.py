"""Signals by kind. To add one: write one file with a Domain and a Signal, and one entry here.

Keyword-only arguments of an opener say how a file is read. `inr.open(path, fps=25)` hands them on,
and `inr fit` has an option for each, such as `--video.fps`, with its type and its line of the
docstring; None, the default of all, leaves the choice to the opener.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits

if TYPE_CHECKING:
    from inr.signals.base import Domain, Signal


class Kind(NamedTuple):
    """Where a kind of signal lives, and how its files are known.

    Args:
        module: Full name of the module.
        domain: Name of the domain's class in it.
        opener: Name of the function in it that reads a file.
        magic: Pattern of a file's first bytes.
        suffixes: Names of files that hold it, where the bytes do not tell.
    """

    module: str
    domain: str
    opener: str
    magic: bytes
    suffixes: tuple[str, ...] = ()


KINDS = {
    "array": Kind("inr.signals.array", "ArrayDomain", "open_array", rb"PK\x03\x04", (".npz",)),
    "audio": Kind(
        "inr.signals.audio",
        "AudioDomain",
        "open_audio",
        # WAV, AIFF, FLAC, Ogg, CAF, AU, W64, then MP3 with a tag and without (0xFFD8 is a JPEG)
        rb"(RIFF|RF64)....WAVE|FORM....AIF[FC]|fLaC|OggS|caff|\.snd|riff\x2e\x91\xcf\x11|"
        rb"ID3|\xff[\xe2\xe3\xf2-\xf7\xfa-\xfd]",
        (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf"),
    ),
    "image": Kind(
        "inr.signals.image",
        "ImageDomain",
        "open_image",
        rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II[*+]\0|MM\0[*+]|RIFF....WEBP|\x93NUMPY",
    ),
    "shape": Kind(
        "inr.signals.shape",
        "ShapeDomain",
        "open_shape",
        rb"ply\s|glTF|(ST)?C?N?OFF\s|solid\s",
        (".obj", ".ply", ".stl", ".off", ".glb", ".gltf", ".xyz"),
    ),
    "video": Kind(
        "inr.signals.video",
        "VideoDomain",
        "open_video",
        # MP4 and MOV (the other brands are pictures and sound), Matroska and WebM, AVI, FLV, ASF,
        # MPEG; `peek` knows the others
        rb"....ftyp(?!avi[fs]|he[iv]|mif1|msf1|jp2|jpx|M4[AB])|....(moov|mdat|wide|free)|"
        rb"\x1aE\xdf\xa3|RIFF....AVI |FLV\x01|0&\xb2u\x8ef\xcf\x11|\0\0\x01\xba",
        (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".ts"),
    ),
    "volume": Kind(
        "inr.signals.volume",
        "VolumeDomain",
        "open_volume",
        # NIfTI-1 and NIfTI-2; `peek` knows the others
        rb"\x5c\x01\0\0|\0\0\x01\x5c|\x1c\x02\0\0n\+2",
        (".nii", ".gz", ".dcm"),
    ),
}
"""By permanent name in files. What is none of the others' is an image, until it fails as one."""

HEAD_BYTES = 16


def domain_from_header(kind: Any, items: Any) -> Domain:
    """Rebuild a domain from what a file header carries.

    Raises:
        CorruptFile: the kind is unknown or its items are malformed.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise CorruptFile(f"holds a signal of unknown kind {str(kind)[:40]!r}")
    entry = KINDS[kind]
    return getattr(importlib.import_module(entry.module), entry.domain).from_header(items)


def kind_of(source: str | Path | bytes) -> str:
    """Which kind of signal a file, a folder or the bytes of a file hold, judged by what is in it.

    Where that tells nothing, or the file cannot be read, its suffix decides.
    """
    from inr.signals import peek

    found = peek.kind(source)
    if found in KINDS:
        return found
    head = source[:HEAD_BYTES] if isinstance(source, bytes) else _head(source)
    suffix = "" if isinstance(source, bytes) else Path(source).suffix.lower()
    for kind, entry in KINDS.items():
        if re.match(entry.magic, head, re.DOTALL):
            return kind
    return next((kind for kind, entry in KINDS.items() if suffix in entry.suffixes), "image")


def open_signal(
    source: str | Path | bytes,
    limits: Limits = Limits(),  # noqa: B008
    kind: str | None = None,
    **options: Any,
) -> Signal:
    """Open a file (or the bytes of one) as the signal that it holds.

    Args:
        source: Path, or bytes.
        limits: What it may ask for.
        kind: Kind of the signal, one of `KINDS`; if not given, what the file says.
        options: How to read it, as the kind's opener takes it (see `reading_options`).

    Raises:
        InputError: the file cannot be read as any kind of signal.
        UsageError: there is no such kind, or no such option.
    """
    head = source[:4] if isinstance(source, bytes) else _head(source)[:4]
    if head == b"\x89INR":
        raise InputError(f"{_name(source)}: is an .inr file already; `inr decode` renders it")
    kind = kind_of(source) if kind is None else kind
    if kind not in KINDS:
        raise UsageError(f"kind is {kind!r}: choose from {', '.join(KINDS)}")
    if kind == "image" and not isinstance(source, bytes) and Path(source).is_dir():
        raise InputError(f"{source}: is a folder of neither pictures nor DICOM files: give a file")
    known = reading_options(kind)
    for name in options:
        if name not in known:
            raise UsageError(f"{name}: no option of {kind}; it has {', '.join(known) or 'none'}")
    return _opener(kind)(source, limits, **options)


def reading_options(kind: str) -> dict[str, Any]:
    """The keywords by which a file of that kind is read, each with its type."""
    opener = _opener(kind)
    hints = typing.get_type_hints(opener)
    parameters = inspect.signature(opener).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def reading_help(kind: str) -> dict[str, str]:
    """What each of `reading_options` means, from the opener's docstring."""
    import docstring_parser

    told = docstring_parser.parse(_opener(kind).__doc__ or "").params
    return {p.arg_name: " ".join((p.description or "").split()) for p in told}


def _opener(kind: str) -> Callable[..., Signal]:
    entry = KINDS[kind]
    return getattr(importlib.import_module(entry.module), entry.opener)


def _head(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""  # the opener says what is wrong


def _name(source: str | Path | bytes) -> str:
    return "standard input" if isinstance(source, bytes) else str(source)
