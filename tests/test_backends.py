"""Which backend computes a field, why, and that it makes no difference which."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import fields
import inr
from apps.cli.main import main
from fields.kernels import build, engine, reference, select
from fields.kernels.build import NoKernel
from fields.kernels.plan import GridPlan
from fields.kernels.select import Choice, Machine
from inr.errors import UsageError
from inr.presets import Preset, Recipe
from inr.signals.audio import Audio
from inr.signals.image import Image
from tests.test_contract import SMALL

HERE = Machine("AVX2", "/usr/bin/c++: g++ 12", True, None, None, False, False)
GPU = dataclasses.replace(HERE, gpu="H200", capability=(9, 0), triton=True, tinycudann=True)

needs_compiler = pytest.mark.skipif(build.compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _auto():
    yield
    select.prefer("auto")


# ------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("machine", "device", "options", "backend", "told"),
    [
        (HERE, "cpu", {}, "cpp", "AVX2"),
        (GPU, "cuda:1", {}, "triton", "H200"),
        (GPU, "cpu", {}, "cpp", "AVX2"),
        (dataclasses.replace(GPU, triton=False), "cuda", {}, "eager", "triton is not installed"),
        (dataclasses.replace(GPU, capability=(7, 5)), "cuda", {}, "eager", "older than"),
        (dataclasses.replace(HERE, compiler=None), "cpu", {}, "eager", ""),
        (dataclasses.replace(HERE, built=False), "cpu", {}, "cpp", "AVX2"),
        (dataclasses.replace(HERE, built=False), "cpu", {"may_build": False}, "eager", "not built"),
        (HERE, "cpu", {"precision": "float64"}, "eager", "float64"),
        (HERE, "cpu", {"wanted": "eager"}, "eager", "as asked"),
        (HERE, "cpu", {"wanted": "compile"}, "compile", "as asked"),
        (GPU, "cuda", {"wanted": "tinycudann"}, "tinycudann", "H200"),
    ],
)
def test_auto_takes_the_fused_kernels_wherever_they_apply(machine, device, options, backend, told):
    choice = select.choose(None, device, machine, **options)
    assert choice.backend == backend
    assert told in choice.reason


def test_a_field_that_kernels_do_not_know_goes_to_plain_torch_and_says_why():
    choice = select.choose("doh is special", "cpu", HERE)
    assert choice == Choice("eager", "doh is special")


@pytest.mark.parametrize(
    ("wanted", "device", "told"),
    [
        ("cpp", "cuda", "computes on the CPU"),
        ("triton", "cpu", "needs an NVIDIA GPU"),
        ("tinycudann", "cpu", "needs an NVIDIA GPU"),
        ("cuda", "cpu", "no backend 'cuda'"),
    ],
)
def test_what_was_asked_for_by_name_is_never_replaced(wanted, device, told):
    with pytest.raises(NoKernel, match=told):
        select.choose(None, device, GPU, wanted=wanted)
    with pytest.raises(NoKernel, match="too wide"):
        select.choose("too wide", "cpu", GPU, wanted="cpp")


@pytest.mark.parametrize("name", fields.names())
def test_what_is_said_of_a_field_without_torch_is_what_it_says_itself(name):
    for hyperparameters in (SMALL[name], *([{"kind": "2d"}] if name == "wire" else [])):
        field = fields.create(name, 2, 3, **hyperparameters)
        refused = select.refusal(name, list(field.hyperparameters.values()))
        try:
            field.chain().plan()
        except fields.FieldError:
            assert refused
        else:
            assert refused is None or name in refused or isinstance(field.chain().plan(), GridPlan)


@pytest.mark.parametrize("name", [*select.CHAINS])
def test_a_plan_is_the_field(name):
    torch.manual_seed(0)
    field = fields.create(name, 2, 3, **SMALL[name]).double()
    coords = (torch.rand(50, 2) * 2 - 1).double()
    plan = field.plan()
    if isinstance(plan, GridPlan):
        values = reference.grid(plan, coords)
    else:
        values = field.finish(reference.mlp(plan, field.encode(coords)))
    torch.testing.assert_close(values, field(coords), rtol=1e-10, atol=1e-10)
    same = plan.holding(plan.tensors())
    for ours, theirs in zip(same.tensors(), plan.tensors(), strict=True):
        assert ours is theirs


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("siren", {}),
        ("finer", {}),
        ("gauss", {"scale": 3.0}),
        ("wire", {}),
        ("spder", {}),
        ("spder", {"damping": "arctan"}),
        ("spder", {"damping": "log"}),
    ],
)
def test_the_twin_has_the_derivatives_that_autograd_checks(name, options):
    torch.manual_seed(0)
    sizes = {"hidden_features": 6, "hidden_layers": 1}
    plan = fields.create(name, 2, 2, **sizes, **options).double().plan()
    tensors = [t.detach().requires_grad_() for t in plan.tensors()]
    points = (torch.rand(5, 2).double() * 0.2 + 0.3).requires_grad_()

    def values(points, *tensors):
        return reference.mlp(plan.holding(tensors), points)

    assert torch.autograd.gradcheck(values, (points, *tensors))


def test_the_twin_of_a_grid_has_the_derivatives_that_autograd_checks():
    torch.manual_seed(0)
    field = fields.Grid(2, 2, resolution=5, levels=2, log2_table=4, hidden_features=3).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.uniform_(-1, 1)
    plan = field.plan()
    assert not plan.dense
    tensors = [t.detach().requires_grad_() for t in plan.tensors()]
    points = (torch.rand(4, 2).double() * 0.8 - 0.4).requires_grad_()
    axes = [torch.linspace(-0.9, 0.8, 3).double(), torch.linspace(-0.7, 0.9, 4).double()]

    def at(points, *tensors):
        return reference.grid(plan.holding(tensors), points)

    def on_lattice(*tensors):
        return reference.grid_on_lattice(plan.holding(tensors), axes)

    assert torch.autograd.gradcheck(at, (points, *tensors))
    assert torch.autograd.gradcheck(on_lattice, tensors)


# ------------------------------------------------------------------ engines


@needs_compiler
@pytest.mark.parametrize("name", [*select.CHAINS])
def test_an_engine_computes_what_the_field_does(name, coffee):
    torch.manual_seed(0)
    image = Image.from_array(coffee[200:230, 300:340])
    field = fields.create(name, 2, 3, **SMALL[name])
    if name == "grid":  # one that starts as the signal has no error to compare
        field.rescale(0.5)
    batch = image.full_batch()
    points = batch.pick(torch.arange(0, image.count, 7))
    plain = [field.on_grid(batch.axes), field(points.coords)]
    losses = [batch.squared_error(field), points.squared_error(field)]
    slopes = [torch.autograd.grad(x, list(field.parameters())) for x in losses]
    choice = engine.attach(field)
    assert choice.backend == "cpp"
    assert field.engine is not None
    for ours, theirs in zip([field.on_grid(batch.axes), field(points.coords)], plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    for k, part in enumerate((batch, points)):
        loss = part.squared_error(field)
        torch.testing.assert_close(loss, losses[k], rtol=1e-4, atol=1e-6)
        ours = torch.autograd.grad(loss, list(field.parameters()))
        for mine, other in zip(ours, slopes[k], strict=True):
            largest = float(other.abs().max())
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-4 * largest + 1e-12)


@needs_compiler
def test_derivatives_by_coordinates_go_through_plain_torch():
    torch.manual_seed(0)
    field = fields.Siren(2, 1, hidden_features=16, hidden_layers=1)
    engine.attach(field)
    coords = (torch.rand(9, 2) - 0.5).requires_grad_()
    first = torch.autograd.grad(field(coords).sum(), coords, create_graph=True)[0]
    laplacian = torch.autograd.grad(first.sum(), coords)[0]
    field.engine = None
    first = torch.autograd.grad(field(coords).sum(), coords, create_graph=True)[0]
    assert torch.equal(laplacian, torch.autograd.grad(first.sum(), coords)[0])


@needs_compiler
def test_other_precisions_go_through_plain_torch():
    field = fields.Siren(1, 1, hidden_features=8, hidden_layers=1)
    engine.attach(field)
    field.double()
    values = field(torch.zeros(3, 1, dtype=torch.float64))
    assert values.dtype == torch.float64
    assert engine.attach(field).backend == "eager"


@needs_compiler
@pytest.mark.parametrize("base", ["siren", "wire", "gauss"])
def test_networks_side_by_side_are_one_call(base):
    torch.manual_seed(0)
    options = {"hidden_features": 12, "hidden_layers": 1}
    field = fields.Windows(1, 2, count=5, base=base, base_options=options)
    coords = torch.linspace(-1, 1, 203)[:, None]
    sparse = torch.tensor([[-0.9], [-0.85], [0.99]])  # not every window has points
    plain = [field(coords), field(sparse)]
    wanted = torch.randn_like(plain[0])
    slopes = torch.autograd.grad((plain[0] * wanted).sum(), list(field.parameters()))
    assert engine.attach(field).backend == "cpp"
    assert field.engine is None
    assert field.network.engine is not None
    for ours, theirs in zip([field(coords), field(sparse)], plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    ours = torch.autograd.grad((field(coords) * wanted).sum(), list(field.parameters()))
    for mine, other in zip(ours, slopes, strict=True):
        atol = 1e-4 * float(other.abs().max()) + 1e-12
        torch.testing.assert_close(mine, other, rtol=0, atol=atol)


def test_compiling_is_refused_where_it_would_not_help():
    with pytest.raises(NoKernel, match="point by point"):
        engine.attach(fields.Grid(2, 1), "compile")
    with pytest.raises(NoKernel, match="many networks"):
        engine.attach(fields.Windows(1, 1), "compile")


COMPILED = """
import torch, fields, fields.base
from fields.kernels import engine
fields.base.TILE_BYTES = 1 << 16
torch.manual_seed(0)
field = fields.Siren(2, 3, hidden_features=32, hidden_layers=1)
axes = [torch.linspace(-1, 1, 37), torch.linspace(-1, 1, 41)]
target = torch.rand(37, 41, 3)
plain = field.squared_error(axes, target)
slopes = torch.autograd.grad(plain, list(field.parameters()))
print(engine.attach(field, "compile").backend, 37 * 41 % fields.base.points_per_tile(field))
loss = field.squared_error(axes, target)
torch.testing.assert_close(loss, plain)
for ours, theirs in zip(torch.autograd.grad(loss, list(field.parameters())), slopes, strict=True):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
"""


@needs_compiler
@pytest.mark.slow
def test_torch_compile_in_chunks_computes_what_the_field_does():
    # a process of its own: annotations that are checked at run time cannot be compiled
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    backend, rest = run.stdout.split()
    assert backend == "compile"
    assert int(rest) > 0  # the last chunk was not a whole one


# ------------------------------------------------------------------ fits and files


@needs_compiler
@pytest.mark.parametrize("name", ["siren", "grid"])
def test_a_fit_by_kernels_is_the_fit_by_plain_torch(name, coffee):
    image = Image.from_array(coffee[180:228, 280:328])
    small = {} if name == "grid" else {"hidden_features": 32, "hidden_layers": 2}
    # a weighed rate moves a grid away from the signal that it starts as
    weight = 0.003 if name == "grid" else 0.0
    preset = Preset(name, small, Recipe(lr=1e-3, schedule="constant", rate_weight=weight))
    fits = [inr.fit(image, preset, steps=60, backend=backend) for backend in ("cpp", "eager")]
    assert [fit.backend.backend for fit in fits] == ["cpp", "eager"]
    assert abs(fits[0].metrics["psnr_float"] - fits[1].metrics["psnr_float"]) < 0.05
    assert all(fit.field.engine is None for fit in fits)
    data = inr.encode(fits[0].field, image)
    shown = []
    for backend in ("cpp", "eager"):
        select.prefer(backend)
        shown.append(inr.render(inr.decode(data), scale=2).astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1
    assert (shown[0] != shown[1]).mean() < 1e-3


@needs_compiler
def test_a_sound_is_fitted_by_kernels(tmp_path):
    t = np.arange(2048) / 8000
    wave = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[:, None]
    sound = Audio.from_array(wave, 8000)
    found = [inr.fit(sound, "windows", steps=30, backend=b) for b in ("auto", "eager")]
    assert found[0].backend.backend == "cpp"
    assert abs(found[0].metrics["psnr"] - found[1].metrics["psnr"]) < 0.5


def test_a_field_that_has_no_kernels_tells_so():
    image = Image.from_array(np.full((8, 8), 7, np.uint8))
    fit = inr.fit(image, Preset("doh", {"latents": 8, "target_options": {"hidden_features": 8}}),
                  steps=1)  # fmt: skip
    assert fit.backend.backend == "eager"
    assert "more than a chain" in fit.backend.reason
    with pytest.raises(UsageError, match="backend cpp: Doh is more than"):
        inr.fit(image, "doh", steps=1, backend="cpp")


# ------------------------------------------------------------------ the command line


@needs_compiler
def test_the_command_line_takes_and_tells_the_backend(tmp_path, monkeypatch, capsys, coffee):
    monkeypatch.chdir(tmp_path)
    import imageio.v3

    imageio.v3.imwrite("a.png", coffee[:24, :24])
    small = ("--field.hidden_features", "8", "--field.hidden_layers", "1", "--steps", "2")
    assert main(["fit", "a.png", "--field", "siren", *small]) == 0
    assert "backend cpp (fused CPU kernel" in capsys.readouterr().out
    assert main(["fit", "a.png", "-f", "--field", "siren", *small, "--backend", "eager"]) == 0
    assert "backend eager (as asked)" in capsys.readouterr().out
    assert main(["fit", "a.png", "-f", "--json", "--field", "siren", *small]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert done["backend"] == "cpp"
    assert main(["info", "a.inr"]) == 0
    out = capsys.readouterr().out
    assert "backend         cpp" in out
    pictures = []
    for backend in ("cpp", "eager"):
        assert main(["decode", "a.inr", "-f", "-o", "b.png", "--backend", backend]) == 0
        pictures.append(imageio.v3.imread("b.png").astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    capsys.readouterr()
    assert main(["fit", "a.png", "-f", "--backend", "triton", "--steps", "1"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
    assert main(["decode", "a.inr", "-f", "-o", "b.png", "--backend", "cuda"]) == 2
    assert "choose from auto, triton" in capsys.readouterr().err


@needs_compiler
def test_doctor_tells_what_is_here_and_who_gets_what(capsys):
    assert main(["doctor", "--build"]) == 0
    out = capsys.readouterr().out
    assert build.instruction_set() in out
    assert "cpp        finer, gauss, grid, relu-pe, rff, siren, spder, windows, wire" in out
    assert "is more than a chain" in out
    assert main(["doctor", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["compiler"] == build.compiler()
    named = {e["name"]: e for e in events if e["event"] == "field"}
    assert set(named) == set(fields.names())
    assert named["siren"]["backend"] == "cpp"
    assert named["doh"]["backend"] == "eager"


# ------------------------------------------------------------------ building

FIT = """
import numpy as np, inr, sys
from inr.presets import Preset
from inr.signals.image import Image
image = Image.from_array(np.arange(64, dtype=np.uint8).reshape(8, 8))
fit = inr.fit(image, Preset("siren", {"hidden_features": 8, "hidden_layers": 1}), steps=2)
print(fit.backend.backend, "|", fit.backend.reason)
"""


def fitted_with(**environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_without_a_compiler_a_fit_goes_on_in_plain_torch_and_says_so(tmp_path):
    told = fitted_with(CXX="no-such-compiler", INR_KERNELS=str(tmp_path))
    assert told.startswith("eager | there is no C++ compiler (no-such-compiler): install g++")


def test_a_compiler_that_fails_is_told(tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text(
        '#!/bin/sh\ncase "$*" in *--version*|*-v*|*dump*) exec c++ "$@";; esac\n'
        'echo "x.cpp:1: error: out of memory" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    told = fitted_with(CXX=str(broken), INR_KERNELS=str(tmp_path / "kernels"))
    assert told.startswith("eager | the compiler failed:"), told
    assert not list((tmp_path / "kernels").glob("*.so"))


@needs_compiler
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told = fitted_with(INR_KERNELS=str(tmp_path / "file" / "kernels"))
    assert told.startswith("eager |"), told
    assert "cannot be written" in told


@needs_compiler
@pytest.mark.slow
def test_a_damaged_library_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("INR_KERNELS", str(tmp_path))
    path = build.place("mlp")
    path.write_bytes(b"no library")
    build.library.cache_clear()
    build.library("mlp")
    assert path.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    build.library.cache_clear()
