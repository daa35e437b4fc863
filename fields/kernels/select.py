"""Which backend computes a field, and why. It is decided here, in one function, without torch.

"triton": fused CUDA kernels. "cpp": fused CPU kernels. "tinycudann": NVIDIA's, for what it can do.
"compile": torch.compile, in chunks. "eager": plain torch, which defines what is right. "auto" takes
the fused kernels of the device wherever they apply, else plain torch.

Values and gradients of "cpp" and "compile" are those of plain torch to 1e-5 of the largest, or to a
few times plain torch's own error in float32 where that is larger (spder). At its default precision,
half-precision operands (see `fields.kernels.policy`), "triton" has values to 1e-3 and gradients to
1e-2, as networks of "tinycudann" have; its grids are to 1e-4. A backend outside of that is wrong.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fields.kernels import build
from fields.kernels.build import NoKernel

BACKENDS = ("auto", "triton", "cpp", "tinycudann", "compile", "eager")

CHAINS = ("finer", "gauss", "grid", "relu-pe", "rff", "siren", "spder", "wire")
"""Fields that have a plan (see `fields.base.Field.plan`)."""

OLDEST = (8, 0)
"""Compute capability of the oldest GPU that our CUDA kernels are made for."""

_preferred = "auto"


@dataclass(frozen=True)
class Choice:
    """A backend, and why it was taken, in half a sentence."""

    backend: str
    reason: str


PLAIN = Choice("eager", "plain torch")


@dataclass(frozen=True)
class Machine:
    """What backends depend on here.

    Args:
        vectors: The CPU's widest vectors, such as "AVX-512".
        compiler: Path and version of the C++ compiler, or None.
        built: Whether the CPU kernels are built.
        gpu: Name of the GPU, or None.
        capability: Its compute capability.
        triton: Whether Triton is installed.
        tinycudann: Whether tinycudann is installed.
    """

    vectors: str
    compiler: str | None
    built: bool
    gpu: str | None
    capability: tuple[int, int] | None
    triton: bool
    tinycudann: bool


def prefer(backend: str) -> None:
    """Set what "auto" stands for in this process from now on, where nothing else is asked.

    Raises:
        NoKernel: there is no backend of that name.
    """
    global _preferred  # noqa: PLW0603 - like torch.set_num_threads, it is of the process
    _preferred = known(backend)


def preferred() -> str:
    """What `prefer` was given last; "auto" at first."""
    return _preferred


def known(backend: str) -> str:
    """The name of a backend.

    Raises:
        NoKernel: it is none.
    """
    if backend not in BACKENDS:
        raise NoKernel(f"there is no backend {backend!r}: choose from {', '.join(BACKENDS)}")
    return backend


def look() -> Machine:
    """Find out what is here; the GPU without torch, where the driver tells of it."""
    gpu, capability = _gpu()
    return Machine(
        vectors=build.instruction_set(),
        compiler=build.compiler(),
        built=all(map(build.built, build.KERNELS)),
        gpu=gpu,
        capability=capability,
        triton=importlib.util.find_spec("triton") is not None,
        tinycudann=importlib.util.find_spec("tinycudann") is not None,
    )


@functools.cache
def _gpu() -> tuple[str | None, tuple[int, int] | None]:
    import sys

    torch: Any = sys.modules.get("torch")
    if torch is not None:
        if not torch.cuda.is_available():
            return None, None
        return torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    for told in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        for line in told.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip(), None
    return None, None


def refusal(name: str, hyperparameters: Sequence[Any] = ()) -> str | None:
    """Why no kernel takes a field of a registered name; None if some do.

    Args:
        name: Registered name.
        hyperparameters: Their values, as a file has them.
    """
    for kind in ("2d", "real"):
        if name == "wire" and kind in hyperparameters:
            return f"kernels know wire of kind '1d', not {kind!r}"
    if name == "windows":
        base = next((x for x in hyperparameters if isinstance(x, str)), "siren")
        return "grids side by side" if base == "grid" else refusal(base, hyperparameters)
    return None if name in CHAINS else f"{name} is more than a chain of matrices"


def kernel_of(name: str) -> str | None:
    """Which of the CPU kernels a field of a registered name is computed by, if any."""
    if refusal(name) is not None:
        return None
    return "grid" if name == "grid" else "mlp"


def choose(
    refused: str | None,
    device: str,
    machine: Machine,
    *,
    wanted: str = "auto",
    precision: str = "float32",
    may_build: bool = True,
) -> Choice:
    """The backend of a field on a device.

    Args:
        refused: Why no kernel takes the field, as `refusal` has it.
        device: "cpu", "cuda" or "cuda:N".
        machine: What is here.
        wanted: A backend, or "auto".
        precision: Type of values and coordinates.
        may_build: Whether CPU kernels that are not built may be built.

    Raises:
        NoKernel: the backend that is wanted cannot do it.
    """
    if known(wanted) in ("eager", "compile"):
        return Choice(wanted, "as asked")
    on_gpu = device.startswith("cuda")
    best = "triton" if on_gpu else "cpp"
    backend = best if wanted == "auto" else wanted
    missing = (
        refused
        or ("" if precision == "float32" else f"kernels compute in float32, not in {precision}")
        or _missing(backend, device, machine, may_build=may_build or wanted != "auto")
    )
    if missing and wanted != "auto":
        raise NoKernel(f"backend {wanted}: {missing}")
    if missing:
        return Choice("eager", missing)
    if backend == "cpp":
        return Choice("cpp", f"fused CPU kernel, {machine.vectors}")
    if backend == "tinycudann":
        return Choice("tinycudann", f"as asked, on {machine.gpu}")
    return Choice("triton", f"fused CUDA kernels on {machine.gpu}")


def _missing(backend: str, device: str, machine: Machine, *, may_build: bool) -> str | None:
    """What a backend lacks here, if anything."""
    if backend == "cpp":
        if device.startswith("cuda"):
            return f"it computes on the CPU, not on {device}"
        if machine.compiler is None:
            return _no_compiler()
        return (
            None if machine.built or may_build else "the CPU kernels are not built yet: a fit does"
        )
    if not device.startswith("cuda"):
        return f"it needs an NVIDIA GPU, and the device is {device}"
    package = machine.triton if backend == "triton" else machine.tinycudann
    if not package:
        return f"{backend} is not installed: docs/CUDA.md tells how"
    if machine.capability is not None and machine.capability < OLDEST:
        return f"{machine.gpu} is older than compute capability {OLDEST[0]}.{OLDEST[1]}"
    return None


def _no_compiler() -> str:
    try:
        build.place("mlp")
    except NoKernel as error:
        return str(error)
    return "there is no C++ compiler"
