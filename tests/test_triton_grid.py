"""Fused grids: right in Triton's interpreter, and what the compiler makes of them for a GPU."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from fields import Grid, Siren  # noqa: E402
from fields.kernels import triton_grid  # noqa: E402
from fields.kernels.plan import GridPlan, Layer, Mlp  # noqa: E402

ROOT = Path(__file__).parents[1]
SHARED = {80: 166_912, 90: 232_448}
FLOATS = ("points", "tables", "maps", "given", "pull", "parts", "losses", "peaks", "scales")
ADDRESSES = {"rows": "*i32", "sums": "*i64"} | dict.fromkeys((*FLOATS, "found", "largest"), "*fp32")


@pytest.mark.parametrize(
    ("where", "which"),
    [
        ("interpreter", "not slow"),
        pytest.param("interpreter", "slow", marks=pytest.mark.slow),
        ("gpu", "slow or not slow"),
    ],
)
def test_against_the_reference(where: str, which: str) -> None:
    if where == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    environment = os.environ | {
        "TRITON_INTERPRET": "1" if where == "interpreter" else "0",
        "OMP_NUM_THREADS": "1",
    }
    checks = ROOT / "tests" / "triton_grid_checks.py"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--noconftest", "-q"),
            *("-p", "no:cacheprovider", "-m", which, checks),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b\d+ passed", done.stdout), done.stdout


def compiled(kernel: str, sm: int, constants: dict[str, Any]) -> tuple[int, int, int, str]:
    """Shared memory, registers, spilled stores and machine code of a kernel."""
    function = getattr(triton_grid, kernel)
    options = {k: constants[k] for k in ("num_warps", "num_stages", "enable_fp_fusion")}
    values = {(i,): constants[a] for i, a in enumerate(function.arg_names) if a in constants}
    kinds = {
        name: "constexpr" if name in constants else ADDRESSES.get(name, "i32")
        for name in function.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(function.arg_names)
        if name in ADDRESSES
    }
    source = ASTSource(function, kinds, constexprs=values, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([tool, what, file.name], capture_output=True, text=True, check=True)
            for what in ("--dump-resource-usage", "-sass")
        )
    registers = re.search(r"REG:(\d+)", usage.stdout)
    assert registers is not None
    return (
        built.metadata.shared,
        int(registers[1]),
        len(re.findall(r"\bSTL\b", code.stdout)),
        code.stdout,
    )


def launch(
    axes: int, features: int, hidden: int, depth: int, *, hashed: bool, lattice: bool, sm: int = 90
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the library tells Triton of a grid of two levels: for the first pass, for the others."""
    per_level = features // 2
    options: dict[str, Any] = {"hidden_features": hidden, "hidden_layers": depth}
    table = {"log2_table": 4} if hashed else {}
    field = Grid(axes, 3, resolution=4, levels=2, features=per_level, **table, **options)
    where = triton_grid._Points((4,) * axes if lattice else None, 1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_grid, "capability", lambda device: sm)
        made = triton_grid._Launch(field.plan(), where)
    return made.points | made.maps, made.points | triton_grid.SWEEP


def check(kernel: str, sm: int, constants: dict[str, Any], spills: int) -> str:
    shared, registers, stores, code = compiled(kernel, sm, constants)
    assert shared <= SHARED[sm]
    assert registers <= 255
    assert stores <= spills, f"{stores} spilled stores"
    return code


def test_the_usual_image_compiles_without_spills() -> None:
    """512 x 512 with 7 levels of 3 features and 16 hidden units: 21 features, here 22."""
    first, others = launch(2, 22, 16, 1, hashed=False, lattice=True)
    code = check("_tile", 90, first | {"MODE": 1}, spills=0)
    assert "MMA" in code  # tensor cores
    code = check("_scatter", 90, others, spills=0)
    # whole numbers of 64 bits are added, in any order; no float is
    assert re.search(r"(RED|ATOM)\S*\.64", code)
    assert not re.search(r"(RED|ATOM)\S*\.F(32|16|64)", code)


@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize(
    ("axes", "features", "hidden", "depth", "spills"),
    [
        (1, 16, 16, 1, 0),
        (2, 22, 16, 1, 0),
        (2, 32, 32, 2, 8),
        (3, 32, 16, 0, 0),
        (3, 36, 16, 1, 0),
        (4, 16, 16, 1, 0),
        (2, 32, 64, 2, 8),
        (3, 48, 64, 2, 32),
    ],
)
def test_all_kernels_fit(
    sm: int, axes: int, features: int, hidden: int, depth: int, spills: int
) -> None:
    lattice = axes != 3  # one kind of points each; the other differs in a few instructions
    first, others = launch(axes, features, hidden, depth, hashed=True, lattice=lattice, sm=sm)
    for mode in (0, 1):
        check("_tile", sm, first | {"MODE": mode}, 0 if mode == 0 else spills)
    check("_scatter", sm, others, 0)
    check("_slope", sm, others, 0)


def test_arguments_of_one_compile_too() -> None:
    """Triton makes constants of arguments that are 1: a single point, a lattice's missing axes."""
    ones = dict.fromkeys(("count", "before", "size", "s0", "s1", "s2", "s3"), 1)
    first, others = launch(2, 2, 1, 0, hashed=False, lattice=True, sm=80)
    check("_tile", 80, first | ones | {"MODE": 2}, 0)
    check("_scatter", 80, others | ones, 0)
    check("_slope", 80, others | ones, 0)
    rest = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
    assert compiled("_choose_scale", 80, rest)[2] == 0


def test_what_is_refused() -> None:
    def plan(axes: int = 2, out: int = 3, **options: Any) -> GridPlan:
        return Grid(axes, out, **({"resolution": 4, "levels": 2} | options)).plan()

    assert triton_grid.refusal(plan()) is None
    assert triton_grid.refusal(plan(4, 16, features=32, hidden_features=64)) is None
    for given, reason in [
        (plan(5), "5 axes"),
        (plan(features=33), "66 features"),
        (plan(2, 17), "17 values"),
        (plan(hidden_layers=3), "3 hidden layers"),
        (plan(hidden_features=65), "65 wide"),
        (Siren(2, 3).plan(), "no feature grid"),
    ]:
        assert reason in (triton_grid.refusal(given) or "")
    good = plan()
    assert good.mlp is not None
    sine = [Layer(x.weight, x.bias, "sine") for x in good.mlp.layers]
    odd = GridPlan(good.tables, good.resolutions, good.linear, Mlp(tuple(sine)))
    assert "not one of ReLU" in (triton_grid.refusal(odd) or "")
    tables = (*good.tables[:-1], torch.zeros(3, 12))
    odd = GridPlan(tables, good.resolutions, good.linear, good.mlp)
    assert "no power of two" in (triton_grid.refusal(odd) or "")
    double = good.holding([t.double() for t in good.tensors()])
    assert "not float32" in (triton_grid.refusal(double) or "")
    coords = torch.zeros(5, 2)
    for call, message in [
        (lambda: triton_grid.grid(good, coords), "need a CUDA device"),
        (lambda: triton_grid.grid(double, coords), "do not take this grid: it is not float32"),
        (lambda: triton_grid.grid(good, coords[:, :1]), "1 axes"),
        (lambda: triton_grid.grid(good, coords.double()), "torch.float64"),
        (lambda: triton_grid.grid_error(good, coords, torch.zeros(5, 2)), "need a CUDA device"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
