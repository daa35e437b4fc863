"""What the compiler makes of the Triton kernels, without a GPU: memory, spills, instructions."""

from __future__ import annotations

import os
import sys

import pytest

pytest.importorskip("triton")
if sys.platform != "linux":
    pytest.skip("Triton's compiler is there for Linux alone", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET is set: there is nothing to compile", allow_module_level=True)

from tests.triton_aot import MATRIX, SHARED, Case, Compiled, compiled, everything, launches

PRODUCTS = ("_network", "_layer", "_chain", "_points", "_edges", "_weights")
SINES = ("_network", "_layer", "_chain", "_edges", "_weights")


def check(x: Compiled) -> None:
    case, name = x.case, x.kernel.split()[0]
    # Triton compiles a kernel that wants more memory than there is without a word
    assert x.shared <= SHARED[case.sm], x
    spills = 0 if case.width <= 64 else 16
    if x.kernel.startswith("_network 0-3 values") and case.width > 128:
        spills = 64  # all layers of width 256 at once: some spills cost less than the way to memory
    assert x.spilled <= spills, x
    assert not x.slow_sine, x
    if case.activation == "sine" and name in SINES and not x.kernel.endswith("none"):
        assert x.sines > 0, x
    if name in PRODUCTS and not x.kernel.endswith("none"):
        assert x.products in (("HGMMA", "HMMA") if case.sm >= 90 else ("HMMA",)), x
    if case.sm >= 90 and case.precision == "fp16" and name == "_weights" and case.width >= 64:
        assert x.products == "HGMMA", x


DEFAULT = [
    (Case("sine", 64), "_network 0-3 error"),
    (Case("sine", 64), "_chain"),
    (Case("sine", 64), "_edges"),
    (Case("sine", 128, sm=80), "_weights"),
    (Case("sine", 256), "_layer"),
    (Case("wire", 64, sm=80), "_chain"),
]


@pytest.mark.parametrize(("case", "kernel"), DEFAULT, ids=str)
def test_a_few(case: Case, kernel: str) -> None:
    check(compiled(case, kernel))


def test_width_256_is_trained_layer_by_layer() -> None:
    assert {"_layer", "_layer_back"} <= set(launches(Case("sine", 256)))
    assert not {"_layer", "_layer_back"} & set(launches(Case("sine", 128)))


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX, ids=str)
def test_the_whole_matrix(case: Case) -> None:
    for x in everything(case):
        check(x)
