"""SPDER's activation, its smoothness and its kinship with SIREN (arXiv:2306.15242)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import Siren, Spder
from fields.spder import DAMPINGS

every_damping = pytest.mark.parametrize("damping", sorted(DAMPINGS))
phases = st.floats(-1e3, 1e3, allow_subnormal=False)


def activation(damping: str):
    field = Spder(2, 1, hidden_features=4, hidden_layers=0, damping=damping)
    return lambda u: field.activation(u, 1.0)


def test_parameter_count():
    # 2 -> 256, five of 256 -> 256, -> 1
    assert sum(p.numel() for p in Spder(2, 1).parameters()) == 329_985


@every_damping
def test_without_damping_it_is_siren(damping):
    sizes = {"hidden_features": 16, "hidden_layers": 2}
    torch.manual_seed(0)
    siren = Siren(2, 3, **sizes)
    torch.manual_seed(0)
    spder = Spder(2, 3, damping=damping, **sizes)
    assert all(a.equal(b) for a, b in zip(siren.parameters(), spder.parameters(), strict=True))
    x = torch.rand(50, 2) * 2 - 1
    assert not torch.allclose(siren(x), spder(x), atol=1e-3)
    spder.damp = torch.ones_like
    assert spder(x).equal(siren(x))


@settings(deadline=None, max_examples=50)
@given(st.lists(phases, min_size=1, max_size=20))
def test_formulas(values):
    u = torch.tensor(values, dtype=torch.float64)
    expected = {
        "sqrt": torch.sin(u) * u.abs().sqrt(),
        "log": torch.sin(u) * (1 + u.abs()).log(),
        "arctan": torch.sin(u) * torch.arctan(u),
    }
    for damping, value in expected.items():
        # the floor of 1e-20 under the root changes what is below 1e-30; 1 + |u| rounds
        torch.testing.assert_close(activation(damping)(u), value, atol=1e-15, rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(phases, min_size=1, max_size=20))
def test_parity_and_envelope(values):
    for dtype in (torch.float64, torch.float32):
        u = torch.tensor(values, dtype=dtype)
        for damping, sign in {"sqrt": -1, "log": -1, "arctan": 1}.items():
            g = activation(damping)
            assert g(-u).equal(sign * g(u))
        small = 1e-10  # the root's floor
        assert (activation("sqrt")(u).abs() <= u.abs().sqrt().clamp_min(small)).all()


@every_damping
def test_zeros_are_those_of_the_sine(damping):
    k = torch.arange(-50, 51, dtype=torch.float64)
    values = activation(damping)(math.pi * k)
    # pi and its multiple round by 2^-53 of 50 pi each at most; delta(50 pi) is at most 12.6
    assert values.abs().max() < 2 * 50 * math.pi * 2**-53 * 12.6
    assert values[50] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_damping
def test_first_and_second_derivatives_are_finite_everywhere(damping, dtype):
    tiny = torch.finfo(dtype).tiny
    u = torch.tensor([0, -0.0, tiny, 1e-45, 1e-30, 1e-20, 1.1e-20, 1e-12, 1, 300], dtype=dtype)
    u = torch.cat([u, -u]).requires_grad_()
    (first,) = torch.autograd.grad(activation(damping)(u).sum(), u, create_graph=True)
    (second,) = torch.autograd.grad((1e3 * first).sum(), u)
    assert first[0].abs() <= 1e-10  # 0 but for the root's floor
    assert first.isfinite().all()
    assert second.isfinite().all()
    vmapped = torch.func.vmap(torch.func.grad(activation(damping)))(u.detach())
    torch.testing.assert_close(vmapped, first.detach(), rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-12, 50), st.booleans())
def test_gradients_are_exact(size, negative):
    u = torch.tensor(-size if negative else size, dtype=torch.float64)
    a = u.abs()
    exact = {
        "sqrt": u.cos() * a.sqrt() + u.sin() * u.sign() / (2 * a.sqrt()),
        "log": u.cos() * a.log1p() + u.sin() * u.sign() / (1 + a),
        "arctan": u.cos() * u.atan() + u.sin() / (1 + u**2),
    }
    for damping, value in exact.items():
        found = torch.func.grad(activation(damping))(u)
        torch.testing.assert_close(found, value, atol=1e-13, rtol=1e-12)


def test_smoothness_is_what_it_says():
    declared = {d: Spder(2, 1, hidden_features=4, damping=d).smoothness for d in DAMPINGS}
    assert declared == {"sqrt": 1, "log": 1, "arctan": math.inf}
    assert Spder.smoothness == declared["sqrt"]  # the class has that of its defaults
    second = {d: torch.func.grad(torch.func.grad(activation(d))) for d in DAMPINGS}
    left, right = (torch.tensor(s * 1e-8, dtype=torch.float64) for s in (-1, 1))
    assert second["arctan"](left) == pytest.approx(2, abs=1e-6)
    assert second["arctan"](right) == pytest.approx(2, abs=1e-6)
    assert second["log"](right) - second["log"](left) == pytest.approx(4, abs=1e-6)
    assert second["sqrt"](right) - second["sqrt"](left) > 1e3
    for d in DAMPINGS:  # the first derivative is continuous at 0
        first = torch.func.grad(activation(d))
        assert abs(first(right) - first(left)) < 1e-3


def test_the_envelope_carries_the_coordinate_and_the_mean_vanishes():
    torch.manual_seed(0)
    u = 3 * torch.randn(20_000, dtype=torch.float64)
    envelope = DAMPINGS["sqrt"][0](u)
    assert torch.corrcoef(torch.stack([envelope, u.abs()]))[0, 1] > 0.95
    assert activation("sqrt")(u).mean().abs() < 0.03


@torch.no_grad()
def test_variance_of_phases_settles():
    # of all units and points, with the default biases, as measured with an independent code
    torch.manual_seed(0)
    field = Spder(2, 1)
    x = torch.rand(2048, 2) * 2 - 1
    found = []
    for layer in field.sines:
        phase = layer(x)
        found.append(float(phase.var()))
        x = field.activation(phase, layer.omega)
    for variance, expected in zip(found[1:], (13.5, 4.2, 2.9, 2.7, 2.7), strict=True):
        assert variance == pytest.approx(expected, rel=0.25)
