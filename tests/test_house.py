"""The house: imports run only downwards, nothing heavy loads early."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLOORS = ("fields", "inr", "apps")
SOURCES = sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))

# inside `inr`, who may not import whom
WALLS = {
    "inr.signals": ("inr.fitting", "inr.codec", "inr.pde"),
    "inr.codec": ("inr.fitting",),
    "inr.pde": ("inr.fitting", "inr.codec"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Absolute names of all that a file imports, at any depth, type-checking blocks aside."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            if node not in typing_only:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_run_downwards(path):
    name = module_name(path)
    floor = FLOORS.index(name.partition(".")[0])
    for imported in imports(path):
        top = imported.partition(".")[0]
        if top in FLOORS:
            assert FLOORS.index(top) <= floor, f"{name} imports {imported}, which is above it"
        assert top not in ("tests", "benchmarks"), f"{name} imports {imported}"
        for room, closed in WALLS.items():
            if within(name, room):
                assert not any(within(imported, wall) for wall in closed), f"{name} -> {imported}"


def test_fields_stand_on_torch_alone():
    allowed = set(sys.stdlib_module_names) | {"torch", "jaxtyping", "fields"}
    for path in (ROOT / "fields").rglob("*.py"):
        # a kernel computes the same by other means
        kernels = {"numpy", "ninja", "triton", "tinycudann"}
        more = kernels if path.parent.name == "kernels" else set()
        for imported in imports(path):
            assert imported.partition(".")[0] in allowed | more, f"{path.name} imports {imported}"


def test_no_cycles():
    names = {module_name(path): path for path in SOURCES}
    arrows = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        eager = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        found = set()
        for node in eager:
            if isinstance(node, ast.ImportFrom):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                found |= {alias.name for alias in node.names}
        arrows[name] = found & names.keys()

    done, path_now = set(), []

    def visit(name: str) -> None:
        assert name not in path_now, " -> ".join([*path_now, name])
        if name in done:
            return
        path_now.append(name)
        for other in arrows[name]:
            visit(other)
        path_now.pop()
        done.add(name)

    for name in names:
        visit(name)


def test_the_wall_test_can_fail():
    # a file that imports upwards, as text: the reader above must see it
    bad = ROOT / "tests" / "mutate.py"
    assert "inr.codec.format" in imports(bad)


@pytest.mark.parametrize("package", FLOORS)
def test_packages_load_nothing_heavy(package):
    code = f"import {package}, sys; print([m for m in sys.modules if m in {HEAVY}])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


HEAVY = ("torch", "lightning", "gradio", "scipy", "PIL", "imagecodecs", "tifffile")


def test_every_module_says_what_it_is():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} has no docstring"


def test_the_project_is_declared_as_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "inr-studio"
    assert project["scripts"]["inr"] == "apps.cli.main:main"
    extras = {"studio", "audio", "video", "mesh", "cuda", "cluster", "dev"}
    assert extras <= project["optional-dependencies"].keys()
    import inr

    assert project["version"] == inr.__version__
    pins = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in pins
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins.splitlines()}
    for requirement in project["dependencies"]:
        name = requirement.split(">")[0].split("[")[0].split("!")[0].lower().replace("_", "-")
        assert name in pinned, f"{name} has no exact version in constraints.txt"
    for name in ("inr", "fields", "apps"):
        assert (ROOT / name / "py.typed").exists()
