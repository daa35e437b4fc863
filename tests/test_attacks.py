"""Files made by hand to do harm: each is refused as it should be, soon, and in little memory."""

import json
import os
import re
import subprocess
import sys

import pytest

from apps.cli.main import main
from inr.codec.decode import decode
from tests.conftest import ROOT
from tests.make_attacks import FOLDER, HARMLESS, VERBS, attacks, readme

ATTACKS = attacks()
EVIL = [name for name, attack in ATTACKS.items() if attack.error]


def test_the_folder_is_what_the_script_makes():
    assert {p.stem for p in FOLDER.glob("*.inr")} == ATTACKS.keys()
    assert all((FOLDER / f"{name}.inr").read_bytes() == a.data for name, a in ATTACKS.items())
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == readme()


def test_there_are_enough_of_them():
    assert len(EVIL) >= 100
    assert sum(len(attack.data) for attack in ATTACKS.values()) < 100_000
    assert {attack.found_by for attack in ATTACKS.values()} == set(VERBS)


@pytest.fixture(scope="module")
def reports() -> dict[str, dict]:
    """What came of each file in a process whose address space cannot grow by 64 MiB."""
    files = [str(FOLDER / f"{name}.inr") for name in ATTACKS]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "confined.py"), *files],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {report["name"]: report for report in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ATTACKS)
def test_each_is_refused_within_its_means(name, reports):
    report, attack = reports[name], ATTACKS[name]
    assert report["error"] == attack.error
    assert attack.says in report["says"]
    assert len(report["says"]) <= 400  # a message does not repeat a long text from a stranger
    assert report["says"].isprintable()
    assert report["ms"] <= 100  # of CPU time
    assert report["mib"] <= 64


@pytest.mark.parametrize("name", ATTACKS)
def test_the_command_line_says_so_in_one_line(name, tmp_path, capsys):
    attack, path = ATTACKS[name], str(FOLDER / f"{name}.inr")
    depth = VERBS.index(attack.found_by)
    for i, verb in enumerate(VERBS):
        target = tmp_path / "out.png"
        more = ["-o", str(target)] if verb == "decode" else []
        code = main([verb, path, *more])
        out, err = capsys.readouterr()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err)  # nothing for a terminal
        if attack.error and i >= depth:
            assert code == 3, verb
            assert err.startswith(f"inr: {path}: ")
            assert err.count("\n") == 1
            assert attack.says.replace("\\", "") in err.replace("\\", "")
            assert out == ""
            assert not target.exists()
        else:
            assert (code, err) == (0, ""), verb


def test_the_harmless_one_decodes():
    field = decode(ATTACKS[HARMLESS].data)
    assert sum(p.numel() for p in field.parameters()) == 37
