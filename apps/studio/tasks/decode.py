"""Render an `.inr` file at a size and in a format that are asked for, as `inr decode` does."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from apps.cli.decode import KINDS, Kind
from apps.studio.decoded import Decoded, decoded
from apps.studio.desk import Desk
from apps.studio.spec import LIMITS
from inr.errors import UsageError
from inr.files import atomic_path

TEXT_LENGTH = 200

MESH_CELLS = 512
"""Cells per axis of a surface at most."""


def run(spec: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Decode the `.inr` file at `source`.

    {"source": path, "name": its name for people, "options": {option of `inr decode`: value},
    "suffix": ".png" or null for the usual one, "folder": where to write, null for the job's own,
    "plan": whether only what it would take is told}.

    Returns:
        Of a plan {"seconds": about, "text"}; else {"file": name in that folder, "bytes", "text":
        what it is, for people, "facts": {...}, "kind", "noun", "seconds"}.

    Raises:
        InputError: it is no such file, or the result would be larger than the studio allows.
        UsageError: an option is wrong.
    """
    file = decoded(Path(spec["source"]), str(spec.get("name") or ""))
    kind = KINDS[file.domain.kind]
    begin = time.perf_counter()
    job, suffix = job_of(file, spec.get("options") or {}, spec.get("suffix"))
    if spec.get("plan"):
        return {"seconds": points_of(job, file, suffix) / file.speed, "text": job.text}
    job.progress = lambda share: desk.emit({"event": "progress", "progress": round(share, 4)})
    name = f"{_stem(str(spec.get('name') or 'signal'))}{suffix.lower()}"
    target = Path(spec.get("folder") or desk.folder) / name
    with atomic_path(target) as part:
        job.write(part)
    return {
        "file": name,
        "bytes": target.stat().st_size,
        "text": job.text,
        "facts": job.facts,
        "kind": file.domain.kind,
        "noun": kind.noun,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def job_of(file: Decoded, given: Mapping[str, Any], suffix: Any = None) -> tuple[Any, str]:
    """What `inr decode` renders a file by, held to the studio's limits, and the format's suffix.

    Args:
        file: The file.
        given: Options of its kind; names as `inr decode` has them, values untrusted.
        suffix: The format, such as ".png"; the usual one if not given.

    Raises:
        UsageError: an option is wrong, or the format does not hold this.
        LimitExceeded: the result would be too large.
    """
    kind = KINDS[file.domain.kind]
    job = kind.job(file.drawn, kind.module.options(options_of(kind, given)))
    suffix = str(suffix or job.suffix).lower()
    if not suffix.startswith(".") or not suffix[1:].replace(".", "").isalnum():
        raise UsageError(f"format is {suffix[:40]!r}: give one such as {job.suffix}")
    if file.domain.kind == "shape" and job.resolution > MESH_CELLS:
        raise UsageError(f"--resolution is {job.resolution}: give 2 to {MESH_CELLS}")
    LIMITS.check_samples(samples_of(job, file, suffix), file.domain.channels)
    job.check(suffix, to_file=True)
    return job, suffix


def options_of(kind: Kind, given: Mapping[str, Any]) -> Namespace:
    """The options of a kind as its parser would have them; those that are not given are None.

    Raises:
        UsageError: there is no such option, or it has another type.
    """
    known = kind.module.OPTIONS
    values: dict[str, Any] = dict.fromkeys(known)
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{str(name)[:40]!r} is no option of {kind.noun}")
        if value is None or value == "":
            continue
        values[name] = _typed(name, value, known[name][0])
    return Namespace(**{name.replace("-", "_"): value for name, value in values.items()})


def samples_of(job: Any, file: Decoded, suffix: str) -> tuple[int, ...]:
    """The lattice that a rendering writes; of a surface about the cells that it goes through."""
    kind = file.domain.kind
    if kind == "shape":
        return (job.resolution,) * (3 if suffix == ".npy" else 2)
    if kind == "audio":
        return (job.length,)
    return tuple(job.place.shape if kind == "volume" else job.shape)


def points_of(job: Any, file: Decoded, suffix: str) -> int:
    """Evaluations of the field that a rendering takes, about."""
    shape = samples_of(job, file, suffix)
    if len(shape) < len(file.domain.shape):
        # a coarse look, then some cells on each side of the surface
        return 64**3 + 16 * math.prod(shape)
    return max(math.prod(shape), math.prod(file.domain.shape) if _coarser(shape, file) else 0)


def _coarser(shape: tuple[int, ...], file: Decoded) -> bool:
    """Whether samples may be means over cells of the source."""
    return any(n < m for n, m in zip(shape, file.domain.shape, strict=True))


def _typed(name: str, value: Any, wanted: type) -> Any:
    """An option's value in its type.

    Raises:
        UsageError: it has another.
    """
    number = type(value) in (int, float) and math.isfinite(value)
    good = {
        str: isinstance(value, str) and len(value) <= TEXT_LENGTH,
        bool: isinstance(value, bool),
        int: number and value == int(value) and abs(value) < 1 << 53,
        float: number and abs(value) < 1 << 53,
    }
    if not good[wanted]:
        raise UsageError(f"--{name} is {str(value)[:40]!r}: give {_NAMES[wanted]}")
    return wanted(value)


_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _stem(name: str) -> str:
    """A file's name without what says that it is an `.inr` file, for a file beside it."""
    stem = Path(name.replace("\\", "/")).name
    return stem.removesuffix(".inr") or "signal"
