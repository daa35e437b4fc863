"""Compile the C++ kernels of this folder for this machine, once, and load them.

`torch.utils.cpp_extension` compiles; the sources need nothing of torch's headers, which takes a
second or two instead of a minute, and one library serves every version of torch. It is kept in
`~/.cache/inr-studio` (or `INR_KERNELS`, or `XDG_CACHE_HOME`), under a name that tells sources,
flags, processor and compiler apart, so that a change in any of them builds anew.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "cpp"

KERNELS = ("mlp", "grid")
"""Names of the kernels: networks and grids."""

FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
"""No -ffast-math: a NaN must stay one, or a diverging fit would not be seen."""


log = logging.getLogger(__name__)


class NoKernel(Exception):
    """A kernel is not to be had here; the message says why, in half a sentence."""


@functools.cache
def compiler() -> str | None:
    """Path and version of the C++ compiler, in one line; None where there is none to be used."""
    name = os.environ.get("CXX", "c++")
    path = shutil.which(name)
    if path is None or platform.system() == "Windows":
        return None
    try:
        told = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{path}: {told.stdout.splitlines()[0] if told.stdout else 'unknown'}"


@functools.cache
def processor() -> str:
    """What the compiler's idea of this processor depends on."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model\t", "model name", "flags", "Features")
    lines = info.read_text().split("\n\n")[0].splitlines()
    return "\n".join([platform.machine(), *(x for x in lines if x.startswith(wanted))])


def instruction_set() -> str:
    """The widest vectors that a kernel may use here."""
    flags = processor().split()
    names = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
    return next((name for flag, name in names.items() if flag in flags), platform.machine())


def folder() -> Path:
    """Where built kernels are kept."""
    given = os.environ.get("INR_KERNELS")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inr-studio"


def place(name: str) -> Path:
    """The library of a kernel, whether it is there yet or not.

    Raises:
        NoKernel: there is no compiler, nor could there be.
    """
    found = compiler()
    if found is None:
        windows = platform.system() == "Windows"
        raise NoKernel(
            "C++ kernels need GCC or Clang, not MSVC"
            if windows
            else f"there is no C++ compiler ({os.environ.get('CXX', 'c++')}): install g++ or clang"
        )
    return folder() / f"{name}-{_digest(name, found)}.so"


@functools.cache
def _digest(name: str, compiler: str) -> str:
    """Hash of all that a kernel is made of and by; each rendering asks for it."""
    files = sorted([SOURCES / f"{name}.cpp", *SOURCES.glob("*.h")])
    told = hashlib.blake2b(digest_size=12)
    for part in (*(f.read_bytes() for f in files), *(f"\0{x}".encode() for x in _flags())):
        told.update(part)
    told.update(f"\0{compiler}\0{processor()}".encode())
    return told.hexdigest()


def built(name: str) -> bool:
    """Whether a kernel is there without building it."""
    try:
        return place(name).exists()
    except NoKernel:
        return False


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The functions of `cpp/NAME.cpp`, built if need be.

    Two processes may build at the same time: each works in a folder of its own and puts the
    finished library in place by renaming it, so that nobody waits for a lock that a killed one has
    left.

    Raises:
        NoKernel: it cannot be built here.
    """
    path = place(name)
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            log.warning("%s does not load and is built anew", path)
    _build(name, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernel(f"{path} does not load ({' '.join(str(error).split())})") from None


def _flags() -> list[str]:
    arm = platform.machine() in ("arm64", "aarch64")
    return [*FLAGS, "-mcpu=native" if arm else "-march=native"]


def _build(name: str, path: Path) -> None:
    from torch.utils import cpp_extension

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as work:
            _with_ninja()
            cpp_extension.load(
                f"inr_{name}",
                [str(SOURCES / f"{name}.cpp")],
                extra_cflags=_flags(),
                build_directory=work,
                is_python_module=False,
            )
            Path(work, f"inr_{name}.so").replace(path)
    except OSError as error:
        raise NoKernel(f"{path.parent}: cannot be written ({error.strerror})") from None
    except (RuntimeError, subprocess.SubprocessError) as error:
        said = [line for line in str(error).splitlines() if "error" in line.lower()]
        raise NoKernel(f"the compiler failed: {(said or [str(error)])[-1].strip()[:200]}") from None


def _with_ninja() -> None:
    """Let torch find ninja where pip has put it, though its folder may not be on the path."""
    try:
        import ninja
    except ModuleNotFoundError:
        return
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if ninja.BIN_DIR not in paths:
        os.environ["PATH"] = os.pathsep.join([*paths, ninja.BIN_DIR])
