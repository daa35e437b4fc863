"""The decoder written from docs/FORMAT.md alone shares nothing with ours, and agrees with it."""

import ast
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

import inr
from inr.codec import format as container
from inr.codec.decode import inspect, symbols
from inr.codec.entropy import Row, _read_plan, encode_rows
from inr.limits import Limits
from tests import plain_decoder
from tests.conftest import ROOT
from tests.test_house import imports

PATH = ROOT / "tests" / "plain_decoder.py"
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.inr"))
RENDERED = [p for p in GOLDEN if "-siren" in p.name or "-grid" in p.name]


def test_it_shares_nothing_with_ours():
    tops = {name.partition(".")[0] for name in imports(PATH)}
    assert tops - set(sys.stdlib_module_names) == {"numpy"}
    text = PATH.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    called = {ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)}
    assert not called & {"eval", "exec", "__import__", "compile"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_it_reads_the_same_integers(path):
    data = path.read_bytes()
    ours = symbols(inspect(data))
    theirs = plain_decoder.integers(data)
    assert [step for step, _ in theirs] == [row.step for row in ours]
    for (_, found), row in zip(theirs, ours, strict=True):
        assert found.dtype == row.symbols.dtype
        assert np.array_equal(found, row.symbols)


@pytest.mark.parametrize("path", RENDERED, ids=lambda p: p.stem)
def test_it_renders_the_same_samples(path):
    """At the signal's own size and at twice it, within 1/255 of the range of what was stored."""
    data = path.read_bytes()
    stored = np.load(path.with_suffix(".npz"))
    assert set(stored.files) == {"x1", "x2"}
    for name, wanted in stored.items():
        found = plain_decoder.render(data, float(name.removeprefix("x")))
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        peak = float(inr.load(path).domain.peak)
        error = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
        assert error <= peak / 255


def test_it_covers_the_golden_files_that_it_should():
    assert {p.stem.removeprefix("v1-") for p in RENDERED} >= {
        "siren-rgb8", "grid-grey8", "grid-hashed-grey8", "grid-icc-rgb8", "grid-rgba16",
        "grid-float",
    }  # fmt: skip


def test_it_is_a_program_that_needs_nothing_else(tmp_path):
    source = ROOT / "tests" / "golden" / "v1-siren-rgb8.inr"
    target = tmp_path / "out.npy"
    # isolated: no folder of ours on the path, no variable of the environment read
    command = [sys.executable, "-I", str(PATH), str(source), str(target), "2"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(target).astype(int) - inr.render(inr.load(source), scale=2)).max() <= 1


def test_its_checks_are_checks():
    """It refuses damage, a later major version and an unknown critical chunk; it skips others."""
    data = (ROOT / "tests" / "golden" / "v1-grid-grey8.inr").read_bytes()
    for i in range(0, len(data), 7):
        with pytest.raises(plain_decoder.Refused):
            plain_decoder.integers(data[:i] + bytes([data[i] ^ 16]) + data[i + 1 :])
    whole = plain_decoder.integers(data)
    for kind in (b"x", b"X"):
        chunk = kind + container.varint(3) + zlib.crc32(kind + b"new").to_bytes(4, "big") + b"new"
        longer = data[:-9] + chunk + b"Z"
        longer += container._digest(longer)
        if kind.isupper():
            with pytest.raises(plain_decoder.Refused, match="critical chunk"):
                plain_decoder.integers(longer)
        else:
            again = plain_decoder.integers(longer)
            assert all(
                s == t and np.array_equal(a, b) for (s, a), (t, b) in zip(again, whole, strict=True)
            )


def test_it_knows_every_entropy_model():
    """Rows for which the encoder takes each kind of model, among them rows on a lattice."""
    rng = np.random.default_rng(0)
    kinds = set()
    for seed in range(12):
        height, width = rng.integers(4, 33, 2)
        swell = np.add.outer(np.sin(np.arange(height) / 5), np.cos(np.arange(width) / 7))
        lattice = rng.laplace(0, (1, 30, 3000)[seed % 3], (height, width)) * np.exp(2 * swell)
        tails = rng.standard_t(2, rng.integers(1, 200))
        bits = np.where(rng.random(60) < 0.5, 9, rng.random(60) < 0.5)  # no smooth law at all
        rows = [np.rint(x).clip(-(2**23), 2**23).astype(np.int32).ravel() for x in
                (lattice, tails, 1e5 * tails, 0 * tails, bits)]  # fmt: skip
        body = encode_rows([Row(seed, row) for row in rows] + [Row(0, tails)])
        kinds |= {min(model[0], 16) for _, _, model in _read_plan(body, Limits())[0]}
        theirs = plain_decoder.rows_of(body)
        for (step, found), wanted in zip(theirs, [*rows, tails], strict=True):
            assert step in (seed, 0)
            assert np.array_equal(found, wanted)
    assert kinds >= {0, 2, 3, 4, 5, 16}
