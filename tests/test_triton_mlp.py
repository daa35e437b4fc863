"""The Triton MLP kernels, run by Triton's interpreter on the CPU: see `triton_interpreted.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

FOLDER = Path(__file__).parent


def test_in_triton_s_interpreter() -> None:
    """All tests of the other file, in a process where Triton interprets its kernels."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", FOLDER / "triton_interpreted.py", "-q"),
            *("-p", "no:cacheprovider", "-p", "no:xdist"),
        ],
        cwd=FOLDER.parent,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert " passed" in told.stdout
    assert "skipped" not in told.stdout
