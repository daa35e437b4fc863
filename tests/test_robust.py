"""Promises that need processes of their own: kills, threads, golden files."""

import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import inr
from inr.codec.decode import inspect, symbols
from inr.signals import KINDS
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"
INR = [sys.executable, "-m", "apps.cli.main"]


def run(*arguments: str, threads: int = 2, **more) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, **more
    )


# -------------------------------------------------------------------------- golden files


def golden_facts(path: Path) -> dict:
    """What a file must decode to, for good: hashes of its symbols and its pixels at 1x and 2x."""
    data = path.read_bytes()
    rows = symbols(inspect(data))
    ints = b"".join(bytes([r.step]) + r.symbols.astype("<i4").tobytes() for r in rows)
    return {"symbols": hashlib.sha256(ints).hexdigest(), "rows": len(rows)}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.inr")), ids=lambda p: p.stem)
def test_golden_files_open_forever(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    assert golden_facts(path) == expected
    stored = np.load(path.with_suffix(".npz"))
    field = inr.load(path)
    for name, wanted in stored.items():
        found = inr.render(field, scale=float(name.removeprefix("x")))
        assert found.dtype == wanted.dtype
        if wanted.dtype == np.uint8:
            assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
        else:
            span = float(field.domain.peak)
            assert np.abs(found.astype(float) - wanted.astype(float)).max() <= span / 255


def test_there_are_golden_files_of_every_field_and_depth():
    names = {path.stem for path in GOLDEN.glob("*.inr")}
    assert {"v1-siren-rgb8", "v1-grid-grey8", "v1-grid-rgba16", "v1-grid-float"} <= names
    assert {f"v1-{kind}" for kind in KINDS if kind != "image"} <= names


# --------------------------------------------------------------------------- determinism


DECODE = """
import sys, hashlib, numpy as np, torch
torch.set_num_threads(int(sys.argv[2]))
import inr
from inr.codec.decode import inspect, symbols
data = open(sys.argv[1], "rb").read()
ints = b"".join(r.symbols.tobytes() for r in symbols(inspect(data)))
print(hashlib.sha256(ints).hexdigest())
np.save(sys.argv[3], inr.render(inr.load(sys.argv[1]), scale=1.5))
"""


def test_symbols_and_pixels_do_not_depend_on_threads_or_process(tmp_path, coffee):
    from inr.codec.encode import encode
    from inr.signals.image import Image

    image = Image.from_array(coffee[100:228, 200:360])
    path = tmp_path / "a.inr"
    path.write_bytes(encode(inr.fit(image, steps=20).field, image))
    hashes, pictures = set(), []
    for i, threads in enumerate(("1", "2", "1", "2")):
        out = tmp_path / f"{i}.npy"
        done = run(sys.executable, "-c", DECODE, str(path), threads, str(out), threads=int(threads))
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.strip())
        pictures.append(np.load(out).astype(int))
    assert len(hashes) == 1
    assert all(np.abs(p - pictures[0]).max() <= 1 for p in pictures)


# ---------------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("verb", ["fit", "decode"])
def test_kill_at_any_moment_leaves_no_half_file(verb, tmp_path, coffee):
    """SIGKILL at 100 random moments; what is under a final name is whole, or is not there."""
    import PIL.Image

    source = tmp_path / "a.png"
    PIL.Image.fromarray(coffee[:96, :128]).save(source)
    stored = tmp_path / "stored.inr"
    assert run(*INR, "fit", str(source), "-o", str(stored), "--steps", "5").returncode == 0

    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / ("a.inr" if verb == "fit" else "a.tif")
    command = [*INR, "fit", str(source), "-f", "-o", str(target), "--steps", "20", "-q"]
    if verb == "decode":
        command = [*INR, "decode", str(stored), "-f", "-o", str(target), "--scale", "20", "-q"]
    whole = math.inf  # the least of three: moments are to fall into a run, not behind it
    for _ in range(3):
        begin = time.monotonic()
        assert subprocess.run(command, cwd=ROOT).returncode == 0
        whole = min(whole, time.monotonic() - begin)
    first = target.read_bytes()

    rng = random.Random(0)
    killed = 0
    for i in range(100):
        if i % 2:
            target.unlink(missing_ok=True)
        process = subprocess.Popen(command, cwd=ROOT)
        # half of the moments fall anywhere, half into the last tenth, where the file is written
        share = rng.random() if i % 4 < 2 else 0.85 + 0.2 * rng.random()
        try:
            process.wait(timeout=whole * share)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        if target.exists():
            assert target.read_bytes() == first  # same seed, same machine: the same bytes
    assert killed >= 50
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert target.read_bytes() == first
    left = [p.name for p in folder.iterdir() if p.suffix != ".snapshot" and p != target]
    assert left == []  # leftovers of the killed were swept
