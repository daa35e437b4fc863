"""SPDER: sines multiplied by a slowly growing, damping factor of their phase.

K. Shah, C. Sitawarin, "SPDER: Semiperiodic Damping-Enabled Object Representation", ICLR 2024,
arXiv:2306.15242.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fields.base import one_of
from fields.kernels.plan import Activation
from fields.kernels.reference import FLOOR
from fields.siren import SineNetwork


def root(phase: Tensor) -> Tensor:
    """sqrt|u|."""
    return phase.abs().clamp_min(FLOOR).sqrt()


def logarithm(phase: Tensor) -> Tensor:
    """log(1 + |u|)."""
    return torch.log1p(phase.abs())


DAMPINGS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "sqrt": (root, 1),
    "arctan": (torch.atan, math.inf),
    "log": (logarithm, 1),
}
"""delta(u) by name, each with the smoothness of sin(u) delta(u). Near 0 that is u |u|^(1/2) with
sqrt, whose second derivative diverges, and u |u| with log, whose second derivative jumps."""


KNOWN: dict[str, Activation] = {
    "sqrt": "spder-sqrt",
    "arctan": "spder-arctan",
    "log": "spder-log",
}


class Spder(SineNetwork):
    """Damped sine layers and a linear output: x_{i+1} = sin(u) delta(u), i = 0..L.

    The phase is u = omega_i (W_i x_i + b_i). Layers and initialisation are SIREN's, as in the
    authors' code; with delta = 1 this is SIREN. The activation is odd with `damping` "sqrt" or
    "log", even with "arctan".

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one, so that there are L + 1
            damped sines and L + 2 linear maps.
        first_omega: Angular frequency omega_0 of the first layer, in radians per half domain.
            On sound the authors' grid of [-100, 100] amounts to 3000 here, but for the bias,
            which this also multiplies by 100.
        hidden_omega: Angular frequency of the other layers.
        bias_init: "official" leaves the biases of torch, U(+-1/sqrt(fan_in)), as the authors'
            code does; "clean" draws each bias from the bound of its layer's weights.
        damping: delta(u): "sqrt" for sqrt|u|, the authors' choice for images and video; "arctan"
            for arctan(u), theirs for sound; "log" for log(1 + |u|). Only with "arctan" is the
            field smooth enough for second derivatives.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness: float = 1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 5,
        first_omega: float = 30.0,
        hidden_omega: float = 30.0,
        bias_init: Literal["official", "clean"] = "official",
        damping: Literal["sqrt", "arctan", "log"] = "sqrt",
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            first_omega=first_omega,
            hidden_omega=hidden_omega,
            bias_init=bias_init,
        )
        self.damping = one_of("damping", damping, tuple(DAMPINGS))
        self.damp, self.smoothness = DAMPINGS[damping]

    def activation(self, phase: Tensor, omega: float) -> Tensor:
        return torch.sin(phase) * self.damp(phase)

    def known(self) -> Activation:
        return KNOWN[self.damping]
