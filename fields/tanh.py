"""The hyperbolic-tangent MLP of multi-stage and of physics-informed networks.

Y. Wang, C.-Y. Lai, "Multi-stage Neural Networks: Function Approximator of Machine Precision",
Journal of Computational Physics 504 (2024), arXiv:2307.08934, with the authors' regression code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import Field, one_of, whole


class Tanh(Field):
    """h = a(W x + b), then L times h = tanh(W h + b), output W h + b.

    Weights are drawn from a normal distribution of standard deviation sqrt(2 / (fan_in + fan_out))
    (X. Glorot, Y. Bengio, 2010), truncated at twice that, as in the authors' code.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one; 2 is the authors' network
            [1, 20, 20, 20, 1] of 901 parameters.
        first: Activation a of the first layer: "tanh" for a signal itself, "sin" for the residue
            that an earlier network has left, which oscillates.
        bias_init: "zero", as the authors have it for regression, or "normal", drawn as the weights
            of the same layer, as they have it for differential equations.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf
    training_only = ("bias_init",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 20,
        hidden_layers: int = 2,
        first: Literal["tanh", "sin"] = "tanh",
        bias_init: Literal["zero", "normal"] = "zero",
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        self.sine = one_of("first", first, ("tanh", "sin")) == "sin"
        drawn = one_of("bias_init", bias_init, ("zero", "normal")) == "normal"
        widths = [in_features] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(n, width) for n in widths)
        self.out = nn.Linear(width, out_features)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                std = math.sqrt(2 / (layer.in_features + layer.out_features))
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
                if drawn:
                    nn.init.trunc_normal_(layer.bias, std=std, a=-2 * std, b=2 * std)
                else:
                    nn.init.zeros_(layer.bias)

    @property
    def widest(self) -> int:
        return self.out.in_features

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        x = coords
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            x = torch.sin(x) if self.sine and i == 0 else torch.tanh(x)
        return self.out(x)
