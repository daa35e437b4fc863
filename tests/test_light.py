"""Grids are decoded without torch, to what torch makes of them."""

import random
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given

import fields
import inr
from fields.kernels.grid import NAMES, NumpyGrid
from inr.codec.decode import inspect
from inr.codec.light import build_light
from inr.errors import InrError
from inr.signals.image import Image
from tests.mutate import outcome, resealed


def stored_in(field: fields.Field) -> tuple[list[np.ndarray], list[bool]]:
    stored = field.stored_parameters()
    return [s.tensor.detach().numpy() for s in stored], [s.per_row for s in stored]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 999),
)
def test_it_computes_what_the_grid_computes(nodes, levels, features, depth, channels, seed):
    torch.manual_seed(seed)
    options = {"resolution": nodes, "levels": levels, "features": features}
    options |= {"hidden_features": 5, "hidden_layers": depth}
    grid = fields.Grid(len(nodes), channels, **options)
    for parameter in grid.parameters():
        torch.nn.init.normal_(parameter)
    tensors, rows = stored_in(grid)
    shapes = NumpyGrid.shapes(len(nodes), channels, {n: grid.hyperparameters[n] for n in NAMES})
    assert shapes == [(t.shape, per_row) for t, per_row in zip(tensors, rows, strict=True)]
    axes = [torch.rand(4 + i) * 2.2 - 1.1 for i in range(len(nodes))]  # also beyond the cells
    with torch.no_grad():
        expected = grid.on_grid(axes).numpy()
    values = NumpyGrid.of(tensors, levels).on_grid([axis.numpy() for axis in axes])
    assert values.dtype == np.float32
    assert np.abs(values - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_other_grids_are_left_to_torch():
    good = {"resolution": [9, 7], "levels": 2, "features": 0, "log2_table": 24}
    good |= {"hidden_features": 4, "hidden_layers": 1}
    assert NumpyGrid.shapes(2, 3, good)
    for name, value in [
        ("resolution", [9, 7, 5]),
        ("resolution", [9, True]),
        ("resolution", 9.0),
        ("resolution", 0),
        ("levels", 25),
        ("levels", None),
        ("features", -1),
        ("log2_table", 5),  # hashed
        ("hidden_features", 1 << 20),
        ("hidden_layers", "1"),
    ]:
        assert NumpyGrid.shapes(2, 3, good | {name: value}) is None, name
    del good["levels"]
    assert NumpyGrid.shapes(2, 3, good) is None


@pytest.fixture(scope="module")
def picture(coffee) -> bytes:
    image = Image.from_array(coffee[100:164, 200:290])
    return inr.encode(inr.fit(image, steps=5).field, image)


def test_pictures_of_any_size_are_the_same(picture):
    light, field = build_light(inspect(picture)), inr.decode(picture)
    for how in ({}, {"scale": 2.3}, {"scale": 0.4}, {"crop": (3.5, 10, 20, 30), "size": (50, 7)}):
        one, two = inr.render(light, **how), inr.render(field, **how)
        assert one.dtype == two.dtype
        assert np.abs(one.astype(int) - two).max() <= 1
        assert (one != two).mean() < 1e-3  # a value on the edge between two samples


def test_other_fields_are_left_to_torch(coffee):
    image = Image.from_array(coffee[:20, :20])
    siren = inr.fit(image, fields.Siren(2, 3, hidden_features=8), steps=1)
    assert build_light(inspect(inr.encode(siren.field, image))) is None


def test_lies_are_told_as_ever(picture):
    rng = random.Random(0)
    found = {
        outcome(lambda d: build_light(inspect(d)), resealed(picture, rng), InrError)
        for _ in range(1500)
    }
    assert found >= {"value", "CorruptFile"}


def test_a_picture_is_decoded_without_torch(picture, tmp_path):
    (tmp_path / "p.inr").write_bytes(picture)
    code = (
        "import sys; from apps.cli.main import main\n"
        "assert main(['decode', 'p.inr', '-q']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    shown = np.asarray(PIL.Image.open(tmp_path / "p.png")).astype(int)
    assert np.abs(shown - inr.render(inr.decode(picture))).max() <= 1
