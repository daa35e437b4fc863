"""SIREN: an MLP with sine activations.

V. Sitzmann, J. Martel, A. Bergman, D. Lindell, G. Wetzstein, "Implicit Neural Representations
with Periodic Activation Functions", NeurIPS 2020, arXiv:2006.09661.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import Field, one_of, positive, whole


class SineLayer(nn.Module):
    """x -> sin(omega (W x + b)); the bias is inside, so omega multiplies it too.

    Shapes: (..., in_features) -> (..., out_features). The weights are drawn from U(-bound, bound).
    """

    def __init__(self, in_features: int, out_features: int, omega: float, bound: float) -> None:
        super().__init__()
        self.omega = omega
        # nn.Linear's own U(+-1/sqrt(fan_in)) stays on the bias: the official code leaves it
        self.linear = nn.Linear(in_features, out_features)
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        # omega goes into the (small) weights: one pass less over the (large) activations
        w, b = self.linear.weight, self.linear.bias
        return torch.sin(nn.functional.linear(x, self.omega * w, self.omega * b))


class Siren(Field):
    """Sine layers and a linear output: x_{i+1} = sin(omega_i (W_i x_i + b_i)), i = 0..L (eq. 3).

    Weights are drawn as in the authors' code (the paper's first-layer bound carries a square root
    that its authors retracted): U(-1/d, 1/d) in the first layer, U(-sqrt(6/n)/omega,
    sqrt(6/n)/omega) in all others, the linear output included.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one, so that there are L + 1
            sines and L + 2 linear maps.
        first_omega: Angular frequency omega_0 of the first layer, in radians per half domain.
            On sound the authors' grid of [-100, 100] amounts to 3000 here, but for the bias,
            which this also multiplies by 100.
        hidden_omega: Angular frequency of the other layers.
        bias_init: "official" leaves the biases of torch, U(+-1/sqrt(fan_in)), as the authors'
            code does; "clean" draws each bias from the bound of its layer's weights, so that
            depth does not flatten the signal.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        first_omega: float = 30.0,
        hidden_omega: float = 30.0,
        bias_init: Literal["official", "clean"] = "official",
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        first_omega = positive("first_omega", first_omega, 1e6)
        hidden_omega = positive("hidden_omega", hidden_omega, 1e6)
        one_of("bias_init", bias_init, ("official", "clean"))

        bound = math.sqrt(6 / width) / hidden_omega
        first = SineLayer(in_features, width, first_omega, 1 / in_features)
        hidden = [SineLayer(width, width, hidden_omega, bound) for _ in range(depth)]
        self.sines = nn.Sequential(first, *hidden)
        self.out = nn.Linear(width, out_features)
        nn.init.uniform_(self.out.weight, -bound, bound)
        if bias_init == "clean":
            nn.init.uniform_(first.linear.bias, -1 / in_features, 1 / in_features)
            for bias in [layer.linear.bias for layer in hidden] + [self.out.bias]:
                nn.init.uniform_(bias, -bound, bound)

    @property
    def widest(self) -> int:
        return self.out.in_features

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.out(self.sines(coords))
