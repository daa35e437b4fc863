"""Writing files so that a final name never holds a half-written file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from inr.errors import InputError, OutputError


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes the final name.

    On any exception the temporary file is removed and `path` stays as it was. A process killed
    in between leaves a hidden `.NAME.XXXXXXXX.part`, which the next write of that name sweeps if
    its writer is gone.

    Args:
        path: The final name.
        overwrite: Whether an existing file may be replaced; where not, one that appears
            meanwhile survives.

    Raises:
        OutputError: the file exists, or the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise OutputError(f"{path}: exists already; give another name, or -f to replace it")
    _sweep(path)
    # the suffix stays last: writers of pictures choose their format by it
    part = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            part.replace(path)
        else:
            _link(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a whole file atomically."""
    with atomic_path(path, overwrite=overwrite) as part:
        part.write_bytes(data)


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """Read a whole file, or raise InputError that names it; `limit` bounds its size in bytes."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file")
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}") from error
    if limit is not None and len(data) > limit:
        raise InputError(f"{path}: is larger than {limit:,} bytes")
    return data


def _link(part: Path, path: Path) -> None:
    """Give `part` its final name without ever replacing a file."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise OutputError(f"{path}: appeared while it was being made; not replaced") from None
    except OSError:  # a file system without hard links
        part.rename(path)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed writers of this very name left behind."""
    with contextlib.suppress(OSError):
        for part in path.parent.glob(f".{_escape(path.stem)}.*-*.part{_escape(path.suffix)}"):
            pid = part.name.removeprefix(f".{path.stem}.").partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                part.unlink(missing_ok=True)


def _escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _reason(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "no space left on the disk; free some and run again",
        errno.EDQUOT: "the disk quota is used up; free some space and run again",
        errno.EACCES: "no permission; choose another place or change its rights",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.ENOENT: "no such file or folder",
        errno.EISDIR: "is a folder; give a file name",
        errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
    }
    return advice.get(error.errno or 0, (error.strerror or str(error)).lower())
