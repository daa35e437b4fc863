"""Networks of Chebyshev polynomials: SL2A and the Chebyshev Kolmogorov-Arnold network.

M. Heidari, R. Rezaeian, R. Azad, D. Merhof, H. Soltanian-Zadeh, I. Hacihaliloglu, "SL2A-INR:
Single-Layer Learnable Activation for Implicit Neural Representation", ICCV 2025,
arXiv:2409.10836.

Sidharth SS, Keerthana AR, Gokul R, Anas KP, "Chebyshev Polynomial-Based
Kolmogorov-Arnold Networks: An Efficient Architecture for Nonlinear Function Approximation", 2024,
arXiv:2405.07200.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.additive import AdditiveField
from fields.base import Field, whole
from fields.norm import LayerNorm

BLOCK = 32
"""Degrees that the three-term recurrence makes one by one; further ones come a block at a time."""


def chebyshev(t: Float[Tensor, "*batch d"], degree: int) -> Float[Tensor, "*batch degree d"]:
    """T_1(t) ... T_degree(t) of t in [-1, 1], for degree >= 1.

    By T_{k+1} = 2 t T_k - T_{k-1} up to m = BLOCK, then T_{m+k} = 2 T_m T_k - T_{m-k} for m terms
    at once: few operations on large tensors, differentiable at any order up to and at the ends,
    as cos(k arccos t) is not. Largest error in float32: 2.4e-5 up to degree 256 and 8.3e-5 up to
    512 where |t| <= tanh(1) (cos(k arccos t): 7.5e-5 and 1.5e-4); it grows towards the ends, where
    it is 1.9e-5 up to degree 64 and 1.3e-4 up to 256.
    """
    terms = [torch.ones_like(t), t]
    twice = 2 * t
    while len(terms) <= min(degree, BLOCK):
        terms.append(twice * terms[-1] - terms[-2])
    block = torch.stack(terms[1:], dim=-2)
    if degree <= BLOCK:
        return block
    before = torch.stack(terms[-2::-1], dim=-2)  # T_{m-1} ... T_0
    twice = 2 * terms[-1].unsqueeze(-2)
    blocks = [block]
    while len(blocks) * BLOCK < degree:
        before, block = block, twice * block - before
        blocks.append(block)
    return torch.cat(blocks, dim=-2)[..., :degree, :]


def chebyshev_series(
    x: Float[Tensor, "*batch d_in"], coefficients: Float[Tensor, "d_in d_out terms"]
) -> Float[Tensor, "*batch d_out"]:
    """y_o = sum over i and k of a_{iok} T_k(tanh x_i), k = 0 ... terms - 1, as one product."""
    basis = chebyshev(torch.tanh(x), coefficients.shape[-1] - 1).flatten(-2)
    weight = coefficients[..., 1:].permute(1, 2, 0).flatten(1)
    return nn.functional.linear(basis, weight, coefficients[..., 0].sum(0))  # T_0 = 1


class FusionLayer(nn.Module):
    """x -> ReLU(x L R + b), a dense layer whose weight is the product of two thin matrices."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(width, rank))
        self.right = nn.Parameter(torch.empty(rank, width))
        self.bias = nn.Parameter(torch.empty(width))
        # U(+-1/sqrt(columns)), as torch's kaiming_uniform_ with a = sqrt(5) makes of these shapes
        nn.init.kaiming_uniform_(self.left, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.right, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -1 / math.sqrt(rank), 1 / math.sqrt(rank))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return torch.relu(nn.functional.linear(x @ self.left, self.right.T, self.bias))


class Sl2a(AdditiveField):
    """One layer of learnable activations, fused into every layer of a low-rank ReLU network.

    z_1 = LayerNorm(sum over i and k = 0..K of a_{iok} T_k(tanh x_i)), then y_0 = z_1 and
    y_l = ReLU((y_{l-1} * z_1) L_l R_l + b_l) for l = 1..L with elementwise *, and the output is
    W (y_L * z_1) + b.

    Coefficients start from torch's xavier_uniform_ on a tensor of shape (d, n, K + 1). LayerNorm is
    in the authors' code and not in the paper's formula; without it 240 steps on a photograph of
    128 x 128 end at 19.5 dB at best over three learning rates, with it at 27.3 dB.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every layer.
        hidden_layers: Low-rank layers L.
        degree: Highest degree K of the polynomials.
        rank: Inner size r of the low-rank layers.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 0
    sizes = ("degree", "rank", "hidden_features")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        degree: int = 256,
        rank: int = 128,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        self.degree = whole("degree", degree, 1, 512)
        rank = whole("rank", rank, 1, 8192)
        self.coefficients = nn.Parameter(torch.empty(in_features, width, self.degree + 1))
        nn.init.xavier_uniform_(self.coefficients)
        self.norm = LayerNorm(width)
        self.fusion = nn.ModuleList(FusionLayer(width, rank) for _ in range(depth))
        self.out = nn.Linear(width, out_features)

    @property
    def widest(self) -> int:
        return max(self.degree, self.out.in_features)

    def part(self, axis: int, x: Float[Tensor, " points"]) -> Float[Tensor, "points hidden"]:
        return chebyshev_series(x[:, None], self.coefficients[axis : axis + 1])

    def rest(self, z: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch d_out"]:
        gate = self.norm(z)
        y = gate
        for layer in self.fusion:
            y = layer(y * gate)
        return self.out(y * gate)


class ChebyKan(Field):
    """Layers y_o = sum over i and k = 0..K of a_{iok} T_k(tanh x_i), with LayerNorm in between.

    Coefficients of a layer with n inputs start as N(0, s^2) with s = 1 / (n (K + 1)), as in the
    public implementation (github.com/SynodicMonth/ChebyKAN), which also normalises between
    layers, because without that tanh lets gradients vanish. The default sizes are not from the
    paper: of six tried in short fits to a photograph, they did best.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n between layers.
        hidden_layers: Layers L from n to n units, beside the first and the last.
        degree: Highest degree K of the polynomials.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 64,
        hidden_layers: int = 1,
        degree: int = 16,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 4096)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        self.degree = whole("degree", degree, 1, 64)
        sizes = [in_features, *[width] * (depth + 1), out_features]
        self.coefficients = nn.ParameterList(
            torch.randn(n, m, degree + 1) / (n * (degree + 1)) for n, m in pairwise(sizes)
        )
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(depth + 1))

    @property
    def widest(self) -> int:
        return self.degree * max(len(a) for a in self.coefficients)

    def output_parameters(self) -> list[nn.Parameter]:
        return [self.coefficients[-1]]

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        x = chebyshev_series(coords, self.coefficients[0])
        for norm, a in zip(self.norms, self.coefficients[1:], strict=True):
            x = chebyshev_series(norm(x), a)
        return x
