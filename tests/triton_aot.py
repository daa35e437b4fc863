"""What the compiler makes of the Triton kernels for a GPU that need not be there.

    python tests/triton_aot.py [--jobs 2] [--case sine:64:fp16:90 ...]

prints a table. The launches are those that the library makes for a network, recorded with their
constants, number of warps and the like, and compiled for a compute capability by Triton and the
ptxas that comes with it; cuobjdump tells what came out.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fields.kernels import triton_mlp
from fields.kernels.plan import Layer, Mlp

SHARED = {80: 166_912, 90: 232_448}
"""Bytes of shared memory that a program may have."""

PROCESSORS = {80: 108, 90: 132}


@dataclass(frozen=True)
class Case:
    """A network whose kernels are compiled."""

    activation: str
    width: int
    layers: int = 3
    precision: str = "fp16"
    sm: int = 90
    inputs: int = 2
    outputs: int = 3
    points: int = 1 << 20


@dataclass(frozen=True)
class Compiled:
    """A kernel as the compiler has left it; sizes in bytes, the rest in instructions."""

    case: Case
    kernel: str
    shared: int
    registers: int
    stack: int
    spilled: int  # stores of registers to local memory
    products: str  # what the tensor cores are told: HGMMA (by four warps) or HMMA
    sines: int  # of the fast unit
    slow_sine: bool  # whether there is the library's table for large arguments
    instructions: int
    warps: int


def plan(case: Case) -> Mlp:
    sizes = [case.inputs, *[case.width] * case.layers, case.outputs]
    layers = [
        Layer(torch.zeros(b, a), torch.zeros(b), case.activation, 30.0)
        for a, b in itertools.pairwise(sizes[:-1])
    ]
    return Mlp((*layers, Layer(torch.zeros(sizes[-1], sizes[-2]), torch.zeros(sizes[-1]))))


def launches(case: Case) -> dict[str, tuple[Any, tuple, dict, dict]]:
    """Kernel, arguments, constants and options of all different launches for a network."""
    found: dict[str, tuple[Any, tuple, dict, dict]] = {}

    class Recorder(triton_mlp._Launch):
        def __call__(self, *arguments: Any, **constants: Any) -> None:
            name = self.kernel.fn.__name__
            if name == "_network":
                name += f" {constants['FROM']}-{constants['TO']} {constants['END']}"
            found.setdefault(name, (self.kernel, arguments, constants, self.options))

    kept, triton_mlp._Launch = triton_mlp._Launch, Recorder
    try:
        flat = triton_mlp._gathered(plan(case))
        low = flat.to(triton_mlp.TORCH[case.precision])
        network = triton_mlp._Network(
            plan(case), case.precision, flat, low, case.sm, PROCESSORS[case.sm]
        )
        points = torch.empty(case.points, case.inputs)
        given = torch.empty(1, case.points, case.outputs)
        triton_mlp._values(network, points)
        triton_mlp._gradients(network, points, given, "error", by_points=True)
    finally:
        triton_mlp._Launch = kept
    return found


def source(kernel: Any, arguments: tuple, constants: dict) -> ASTSource:
    """What Triton compiles for these arguments when it launches a kernel."""
    names = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
    names[torch.int16] = "*i16"
    signature: dict[str, Any] = {}
    fixed = dict(constants)
    attributes = {}
    for i, (name, x) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(x, torch.Tensor):
            signature[name] = names[x.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif isinstance(x, tuple):
            signature[name] = ("fp32",) * len(x)
        elif isinstance(x, float):
            signature[name] = "fp32"
        elif x == 1 and i not in kernel.do_not_specialize and name not in kernel.do_not_specialize:
            signature[name] = "constexpr"
            fixed[name] = 1
        else:
            signature[name] = "i32"
            if x % 16 == 0 and name not in kernel.do_not_specialize:
                attributes[(i,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(constants, "constexpr")
    return ASTSource(kernel, {n: signature[n] for n in kernel.arg_names}, fixed, attributes)


def compiled(case: Case, name: str) -> Compiled:
    """One kernel of a network's, compiled."""
    kernel, arguments, constants, options = launches(case)[name]
    target = GPUTarget("cuda", case.sm, 32)
    binary = triton.compile(source(kernel, arguments, constants), target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, code = (_cuobjdump(flag, file.name) for flag in ("-res-usage", "-sass"))
    used = {key: int(n) for key, n in re.findall(r"\b(REG|STACK):(\d+)", usage)}

    def count(pattern: str) -> int:
        return len(re.findall(pattern, code))

    return Compiled(
        case,
        name,
        binary.metadata.shared,
        used["REG"],
        used["STACK"],
        count(r"\bSTL\b"),
        next((x for x in ("HGMMA", "HMMA") if count(rf"\b{x}\b")), ""),
        count(r"\bMUFU\.(SIN|COS)\b"),
        "i2opi" in binary.asm["ptx"],
        count(r"(?m)^\s+/\*[0-9a-f]{4,}\*/\s"),
        options["num_warps"],
    )


def _cuobjdump(flag: str, path: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, flag, path], capture_output=True, text=True, check=True).stdout


def everything(case: Case) -> list[Compiled]:
    """All kernels of a network."""
    return [compiled(case, name) for name in launches(case)]


MATRIX = [
    *(Case("sine", width, sm=sm) for sm in (90, 80) for width in (16, 28, 64, 128, 256)),
    *(Case("sine", width, precision="tf32") for width in (64, 256)),
    Case("sine", 128, precision="bf16"),
    Case("relu", 64, inputs=42),
    *(Case(name, 128) for name in ("relu", "gelu", "finer", "gauss", "wire")),
    *(Case(name, 128) for name in ("spder-sqrt", "spder-arctan", "spder-log")),
    Case("wire", 256),
    Case("gelu", 256, sm=80),
    # numbers that are 1 are compiled into the kernel
    Case("sine", 16, inputs=1, outputs=1, points=1),
]
"""Each width, activation, precision and compute capability, though not each with each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="*", help="activation:width:precision:sm")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    cases = MATRIX
    if given.case:
        split = [x.split(":") for x in given.case]
        cases = [Case(a, int(w), precision=p, sm=int(s)) for a, w, p, s in split]
    names = [
        "network",
        "kernel",
        "warps",
        "shared",
        "registers",
        "stack",
        "spills",
        "products",
        "sines",
        "code",
    ]
    print(f"| {' | '.join(names)} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(given.jobs) as pool:
        for rows in pool.map(everything, cases):
            for x in rows:
                c = x.case
                print(
                    f"| {c.activation} {c.width}x{c.layers} {c.precision} sm_{c.sm} | {x.kernel} "
                    f"| {x.warps} | {x.shared:,} | {x.registers} | {x.stack} | {x.spilled} "
                    f"| {x.products} | {x.sines} | {x.instructions:,} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
