"""Chebyshev polynomials, SL2A (arXiv:2409.10836) and the Chebyshev KAN (arXiv:2405.07200)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import ChebyKan, Sl2a
from fields.chebyshev import BLOCK, FusionLayer, chebyshev, chebyshev_series

DEGREES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 5, 256]
SMALL = {"hidden_features": 8, "hidden_layers": 2, "degree": 20, "rank": 3}


def basis(t: torch.Tensor, degree: int) -> torch.Tensor:
    """T_1 ... T_degree of each number, (numbers, degree)."""
    return chebyshev(t[:, None], degree)[..., 0]


def exact(t: torch.Tensor, degree: int) -> torch.Tensor:
    return torch.cos(torch.arccos(t.double())[:, None] * torch.arange(1, degree + 1))


def small(d: int = 2, seed: int = 0) -> Sl2a:
    torch.manual_seed(seed)
    return Sl2a(d, 3, **SMALL).double()


def first_layer(field: Sl2a, x: torch.Tensor) -> torch.Tensor:
    """The sum before LayerNorm."""
    return sum(field.part(axis, x[:, axis]) for axis in range(field.in_features))


def coords(n: int, d: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("degree", DEGREES)
def test_values_and_bounds(degree):
    t = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    found = basis(t, degree)
    assert found.shape == (4001, degree)
    # a recurrence loses about degree^2 roundings at the ends; arccos itself loses 1e-14 here
    torch.testing.assert_close(found, exact(t, degree), atol=1e-14 * degree**1.5, rtol=0)
    assert found.abs().max() <= 1 + 1e-14 * degree**1.5


def test_values_at_the_ends_and_the_middle_are_exact():
    k = torch.arange(1, 513)
    for dtype in (torch.float32, torch.float64):
        found = basis(torch.tensor([1, -1, 0], dtype=dtype), 512)
        assert found[0].eq(1).all()
        assert found[1].equal((-1.0) ** k.to(dtype))
        assert found[2].equal(torch.tensor([0, -1, 0, 1], dtype=dtype).repeat(128))


@pytest.mark.parametrize(
    ("degree", "limit", "measured"),
    [(64, 1, 1.9e-5), (256, 1, 1.3e-4), (256, 0.7616, 2.4e-5), (512, 0.7616, 8.3e-5)],
)
def test_float32_error(degree, limit, measured):
    # tanh keeps coordinates in [-1, 1] within 0.7616; half as much again for other points
    t = torch.linspace(-limit, limit, 5001)
    error = float((basis(t, degree).double() - exact(t, degree)).abs().max())
    assert measured / 4 < error < 1.5 * measured


@settings(deadline=None, max_examples=50)
@given(st.floats(-1, 1), st.integers(1, 60), st.integers(1, 60))
def test_product_rule(t, m, n):
    # 2 T_m T_n = T_{m+n} + T_{|m-n|}
    polynomials = [1.0, *basis(torch.tensor([t], dtype=torch.float64), m + n)[0].tolist()]
    product = 2 * polynomials[m] * polynomials[n]
    assert product == pytest.approx(polynomials[m + n] + polynomials[abs(m - n)], abs=1e-9)


@pytest.mark.parametrize("degree", [3, BLOCK + 3])
def test_derivatives_to_the_second_even_at_the_ends(degree):
    t = torch.tensor([-1, -0.3, 0, 0.9, 1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: basis(t, degree), t, atol=1e-3)
    assert torch.autograd.gradgradcheck(lambda t: basis(t, 5), t, atol=1e-3)
    top = basis(t, degree)[:, -1].sum()
    (slope,) = torch.autograd.grad(top, t)
    # T_k' = k U_{k-1}, which is k^2 at 1 and (-1)^{k+1} k^2 at -1
    assert slope[-1] == pytest.approx(degree**2)
    assert slope[0] == pytest.approx((-1) ** (degree + 1) * degree**2)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 3))
def test_series_is_the_sum(degree, d_in, d_out):
    torch.manual_seed(degree)
    x = torch.randn(5, d_in, dtype=torch.float64)
    a = torch.randn(d_in, d_out, degree + 1, dtype=torch.float64)
    k = torch.arange(degree + 1)
    terms = torch.cos(torch.arccos(torch.tanh(x))[..., None] * k)
    expected = torch.einsum("bik,iok->bo", terms, a)
    torch.testing.assert_close(chebyshev_series(x, a), expected, atol=1e-9, rtol=1e-9)


def test_gradient_of_a_coefficient_is_its_polynomial():
    field = small()
    x = coords(1)
    first_layer(field, x)[0, 3].backward()
    gradient = field.coefficients.grad
    others = [o for o in range(8) if o != 3]
    assert gradient[:, others].eq(0).all()
    expected = basis(torch.tanh(x[0]), 20)
    torch.testing.assert_close(gradient[:, 3, 1:], expected)
    assert gradient[:, 3, 0].eq(1).all()


# --- SL2A -----------------------------------------------------------------------------------------


def test_sl2a_parameter_count():
    assert sum(p.numel() for p in Sl2a(2, 3).parameters()) == 330_243


@torch.no_grad()
def test_sl2a_initialisation():
    torch.manual_seed(0)
    field = Sl2a(2, 3)
    # torch takes the last axis of a 3-D tensor for a receptive field: fans 256 * 257 and 2 * 257
    bound = math.sqrt(6 / (256 * 257 + 2 * 257))
    assert bound == pytest.approx(0.00951, abs=1e-5)
    torch.manual_seed(0)
    reference = torch.nn.init.xavier_uniform_(torch.empty(2, 256, 257))
    assert field.coefficients.equal(reference)
    assert 0.999 * bound < field.coefficients.abs().max() <= bound
    for layer in field.fusion:
        for tensor, columns in ((layer.left, 128), (layer.right, 256), (layer.bias, 128)):
            bound = 1 / math.sqrt(columns)
            assert 0.9 * bound < tensor.abs().max() <= bound
    assert 0.9 / 16 < field.out.weight.abs().max() <= 1 / 16


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_sl2a_forward_is_the_formula(dtype):
    field = small()
    field.norm.gain.uniform_(-0.5, 0.5)
    field.norm.bias.uniform_(-0.5, 0.5)
    x = coords(9)
    terms = torch.cos(torch.arccos(torch.tanh(x))[..., None] * torch.arange(21))
    z = torch.einsum("bik,iok->bo", terms, field.coefficients)
    spread = (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    z = (z - z.mean(-1, keepdim=True)) / spread * (1 + field.norm.gain) + field.norm.bias
    y = z
    for layer in field.fusion:
        y = ((y * z) @ (layer.left @ layer.right) + layer.bias).clamp_min(0)
    expected = (y * z) @ field.out.weight.T + field.out.bias
    # float32: T_20 is good to 1e-5, and LayerNorm and three products with z enlarge that
    atol = 1e-10 if dtype == torch.float64 else 3e-4
    found = field.to(dtype)(x.to(dtype))
    torch.testing.assert_close(found, expected.to(dtype), atol=atol, rtol=0)


@torch.no_grad()
def test_low_rank_layer_with_full_rank_is_dense():
    torch.manual_seed(0)
    layer = FusionLayer(8, 8).double()
    layer.left.copy_(torch.eye(8))
    x = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.relu(x @ layer.right + layer.bias))
    assert torch.linalg.matrix_rank(FusionLayer(8, 3).left @ FusionLayer(8, 3).right) == 3


@torch.no_grad()
def test_first_degrees_make_linear_features_of_tanh_and_constants():
    field = small()
    a = field.coefficients.clone()
    x = coords(20)
    field.coefficients[..., 2:] = 0
    expected = torch.tanh(x) @ a[..., 1] + a[..., 0].sum(0)
    torch.testing.assert_close(first_layer(field, x), expected)
    field.coefficients[..., 1:] = 0
    torch.testing.assert_close(field(x), field(x[:1]).expand(20, 3))


@torch.no_grad()
def test_coordinates_mix_only_after_the_first_layer():
    field = small()
    x, y = coords(20), coords(20).flip(0)
    corners = [x, y, torch.stack([x[:, 0], y[:, 1]], -1), torch.stack([y[:, 0], x[:, 1]], -1)]
    for function, mixes in (
        (lambda p: first_layer(field, p), False),
        (lambda p: field.norm(first_layer(field, p)), True),
    ):
        a, b, c, d = map(function, corners)
        mixed = (a + b - c - d).abs().max()
        assert (mixed > 1e-2) if mixes else (mixed < 1e-12)


# --- Chebyshev KAN --------------------------------------------------------------------------------


@torch.no_grad()
def test_chebykan_forward_is_the_formula():
    torch.manual_seed(0)
    field = ChebyKan(2, 3, hidden_features=5, hidden_layers=1, degree=6).double()
    x = coords(9)
    h = x
    for i, a in enumerate(field.coefficients):
        if i:
            spread = (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            h = (h - h.mean(-1, keepdim=True)) / spread
        terms = torch.cos(torch.arccos(torch.tanh(h))[..., None] * torch.arange(7))
        h = torch.einsum("bik,iok->bo", terms, a)
    torch.testing.assert_close(field(x), h, atol=1e-10, rtol=1e-8)
    assert len(field.coefficients) == 3


@torch.no_grad()
def test_chebykan_size_and_initialisation():
    torch.manual_seed(0)
    field = ChebyKan(2, 3, hidden_features=32, hidden_layers=2, degree=4)
    sizes = [(2, 32), (32, 32), (32, 32), (32, 3)]
    count = sum(n * m * 5 for n, m in sizes) + 3 * 2 * 32
    assert sum(p.numel() for p in field.parameters()) == count
    for (n, m), a in zip(sizes, field.coefficients, strict=True):
        assert a.shape == (n, m, 5)
        # the deviation of a sample of 320 scatters by 4 %
        assert a.std() == pytest.approx(1 / (n * 5), rel=0.16)
