"""The GPU's benchmark without a GPU: it says so, its arithmetic holds, its rows run through."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fields.kernels import reference

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import gpu

        yield gpu


def small(gpu: ModuleType, **more: Any) -> Any:
    given = {
        "device": "cpu",
        "sizes": (64,),
        "small": 32,
        "networks": 4,
        "points": 16,
        "looped": 2,
        "rounds": 2,
        "block": 1.0,
        "seeds": 1,
        "steps": 3,
        "side": 8,
        "compiled": False,
        "kernels": reference,
    }
    return gpu.Setting(**(given | more))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "benchmarks/gpu.py: there is no CUDA device here\n"
    assert not out.exists()


def test_floors(gpu: ModuleType) -> None:
    """Worked out by hand for the notes on the kernels, at 2^20 points."""
    million = 1 << 20
    # 3 layers of 256: 132,352 multiplications forward, 3 x 2 of each for a step, 790 TFLOP/s
    assert gpu.floor(256, 3, million) == pytest.approx(6e3 * 132_352 * million / 790e12)
    # 4 layers of 64: memory decides, 2 x 2 bytes for 256 phases at 4.3 TB/s
    assert gpu.floor(64, 4, million) == pytest.approx(1e3 * 4 * 256 * million / 4.3e12)
    # one thin layer with many channels
    assert gpu.floor(16, 1, 1000) == pytest.approx(1e3 * 4 * 16 * 1000 / 4.3e12)


@pytest.mark.slow
def test_every_row_runs_through(gpu: ModuleType) -> None:
    """On the CPU, with the reference for kernels: what is left for a GPU are the kernels."""
    setting = small(gpu)
    names = []
    for name, rows in gpu.ROWS.items():
        found = gpu.shielded(name, rows, setting, time.perf_counter())
        assert found
        assert all(row.figure != "failed" for row in found), [row.more for row in found]
        names += [row.what for row in found]
        if name == "gradients":
            assert [row.reached for row in found] == [True, True, True]
        if name == "precision":
            # the same kernels on both sides
            assert found[0].figure == "+0.000 dB"
            assert found[0].reached
        if name == "grid":
            assert "tinycudann: RuntimeError: not installed" in found[0].more
            assert found[2].figure == "-"
    assert len(set(names)) == len(names)


def test_a_row_that_fails_leaves_the_rest(gpu: ModuleType) -> None:
    def broken(setting: Any) -> Iterator[Any]:
        yield gpu.Row("first", "1 ms", "2 ms", True)
        raise RuntimeError("no | such kernel\nand more")

    found = gpu.shielded("broken", broken, small(gpu), time.perf_counter())
    assert [row.figure for row in found] == ["1 ms", "failed"]
    assert found[1].more == "RuntimeError: no / such kernel"
    late = gpu.shielded("broken", broken, small(gpu, limit=-1.0), time.perf_counter())
    assert [row.figure for row in late] == ["left out: out of time"]


def test_a_contender_that_fails_leaves_the_others(gpu: ModuleType) -> None:
    made = []

    def bad() -> Any:
        raise ValueError("not here")

    def good() -> Any:
        made.append(1)
        return lambda: time.sleep(0.001)

    times = gpu.interleaved({"bad": bad, "fused": good}, small(gpu, rounds=3))
    assert made == [1]
    assert len(times.rounds["fused"]) == 3
    assert 1 <= times.of("fused") < 50
    assert "bad: ValueError: not here" in times.told()
    row = gpu.ratio("x", times, "bad", 5)
    assert (row.figure, row.reached) == ("-", None)
    without = gpu.interleaved({"fused": bad, "other": good}, small(gpu))
    row = gpu.own("x", without, 3.0)
    assert (row.figure, row.bar, row.reached) == ("failed", "3 ms", None)
    assert "fused: ValueError: not here" in row.more
    assert gpu.own("x", times, 1e-3).reached is False
    assert gpu.own("x", times, 1e3).reached is True


def test_ratios_and_the_document(gpu: ModuleType) -> None:
    times = gpu.Times({"fused": [1.0, 2.0, 1.0], "other": [5.0, 5.0, 4.0]})
    row = gpu.ratio("x", times, "other", 5)
    assert (row.figure, row.reached, row.more) == ("5.00x", True, "2.50 to 5.00 by round")
    assert not gpu.ratio("x", times, "other", 6).reached
    text = gpu.document([row, gpu.Row("y", "4 ms", "3 ms", False), gpu.Row("z", "1")], "a GPU", 9.0)
    lines = text.splitlines()
    assert "| x | 5.00x | 5x | reached | 2.50 to 5.00 by round |" in lines
    assert "| y | 4 ms | 3 ms | NOT reached |  |" in lines
    assert "| z | 1 |  |  |  |" in lines
    assert "1 of 2 bars reached; 9 s." in text
