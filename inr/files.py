"""Reading files whole, and writing them so that a final name never holds a half-written one."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from inr.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WRITE_ADVICE = {
    errno.ENOSPC: "no space left on the disk; free some and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EFBIG: "larger than files may be here; see `ulimit -f`, or choose another place",
    errno.EACCES: "no permission; choose another place or change its rights",
    errno.EPERM: "no permission; choose another place or change its rights",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "a part of this path is no folder; choose another place",
    errno.EISDIR: "is a folder; give a file name",
    errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
}
READ_ADVICE = {
    errno.EACCES: "no permission to read it; change its rights",
    errno.ENOENT: "no such file or folder; check the name",
    errno.EISDIR: "is a folder; give a file",
}


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes the final name.

    On any exception the temporary file is removed and `path` stays as it was. A process killed
    in between leaves a hidden `.NAME.HOST-PID-XXXXXXXX.part.SUFFIX`, which the next write of that
    name on that host sweeps if its writer is gone. Where `path` is a link, its target is written.

    Args:
        path: The final name.
        overwrite: Whether an existing file may be replaced; where not, one that appears
            meanwhile survives.

    Raises:
        OutputError: the file exists, or the folder cannot be written, or the disk is full.
    """
    real = check_target(path, overwrite=overwrite)
    _sweep(real)
    # the suffix stays last: writers of pictures choose their format by it
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    part = real.with_name(f"{_prefix(real)}{token}.part{suffix_of(real)}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            with contextlib.suppress(OSError):  # what was private stays private
                shutil.copymode(real, part)
            part.replace(real)
        else:
            _link(part, real)
        _sync_folder(real.parent)
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error, WRITE_ADVICE)}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the final name.

    On any exception it is removed with all that is in it.

    Args:
        path: The final name, of nothing or of an empty folder.

    Raises:
        OutputError: as `check_folder` does, or the disk is full.
    """
    real = check_folder(path)
    part = real.with_name(f"{_prefix(real)}{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        yield part
        part.replace(real)
        _sync_folder(real.parent)
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error, WRITE_ADVICE)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def suffix_of(path: str | Path) -> str:
    """The suffix of a file's name, which for `.nii.gz` is the whole of it."""
    name = Path(path).name
    return name[-len(".nii.gz") :] if name.lower().endswith(".nii.gz") else Path(path).suffix


def check_target(path: str | Path, *, overwrite: bool = True) -> Path:
    """Where writing to `path` would put its file, links followed; nothing is touched.

    Raises:
        OutputError: it exists and may not be replaced, or nothing can be written there.
    """
    real = Path(os.path.realpath(path))
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error, WRITE_ADVICE)}") from None
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder; give a file name")
    if mode and not overwrite:
        raise OutputError(f"{path}: exists already; give another name, or -f to replace it")
    if mode and not stat.S_ISREG(mode):  # replacing /dev/null would break the machine
        raise OutputError(f"{path}: is no regular file; use - for standard output")
    if not real.parent.is_dir():
        raise OutputError(f"{path}: {WRITE_ADVICE[errno.ENOENT]}")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: {WRITE_ADVICE[errno.EACCES]}")
    return real


def check_folder(path: str | Path) -> Path:
    """Where a new folder of that name would lie, links followed; nothing is touched.

    Raises:
        OutputError: there is something already, be it but one file in it, or nothing can be
            written there.
    """
    real = Path(os.path.realpath(path))
    try:
        taken = real.exists() and not (real.is_dir() and next(real.iterdir(), None) is None)
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error, WRITE_ADVICE)}") from None
    if taken:
        raise OutputError(f"{path}: exists already; give the name of a new or empty folder")
    return real if real.exists() else check_target(real)


def write_bytes(path: str | Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a whole file atomically."""
    with atomic_path(path, overwrite=overwrite) as part:
        part.write_bytes(data)


def write_npy(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, pieces: Iterable[np.ndarray]
) -> None:
    """Write a `.npy` file from pieces along its first axis as they come."""
    with path.open("wb") as file:  # plain writes: a mapped file on a full disk kills the process
        stream_npy(file, shape, dtype, pieces)


def stream_npy(
    file: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike, pieces: Iterable[np.ndarray]
) -> None:
    """What `write_npy` does, into an open file."""
    import numpy as np

    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for piece in pieces:
        file.write(piece.tobytes())


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """Read a whole file, or raise InputError that names it; `limit` bounds its size in bytes."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise InputError(f"{path}: {_reason(error, READ_ADVICE)}") from error
    if limit is not None and len(data) > limit:
        raise InputError(f"{path}: is larger than {limit:,} bytes")
    return data


def _link(part: Path, path: Path) -> None:
    """Give `part` its final name without ever replacing a file."""
    try:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: claim the name, then fill it
            path.touch(exist_ok=False)
            try:
                part.replace(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise OutputError(f"{path}: appeared while it was being made; not replaced") from None


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prefix(path: Path) -> str:
    """How temporary files of a name begin: short, so that a long name still has room for it.

    The host is in it because a folder may be shared, and a process of another host is not seen.
    """
    return f".{path.stem[:32]}.{zlib.crc32(platform.node().encode()):08x}-"


def _sweep(path: Path) -> None:
    """Remove what killed writers of this name left behind."""
    prefix = _prefix(path)
    with contextlib.suppress(OSError):
        for part in path.parent.iterdir():
            if part.name.startswith(prefix) and part.name.endswith(f".part{suffix_of(path)}"):
                pid = part.name.removeprefix(prefix).partition("-")[0]
                if pid.isdecimal() and not _alive(int(pid)):
                    part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _reason(error: OSError, advice: dict[int, str]) -> str:
    return advice.get(error.errno or 0, (error.strerror or str(error)).lower())
