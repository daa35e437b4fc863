"""FINER and FINER++: activations of variable period.

Z. Liu, H. Zhu, Q. Zhang, J. Fu, W. Deng, Z. Ma, Y. Guo, X. Cao, "FINER: Flexible Spectral-bias
Tuning in Implicit NEural Representation by Variable-periodic Activation Functions", CVPR 2024,
arXiv:2312.02434; H. Zhu, Z. Liu, Q. Zhang, J. Fu, W. Deng, Z. Ma, Y. Guo, X. Cao, "FINER++:
Building a Family of Variable-periodic Functions for Activating Implicit Neural Representation",
arXiv:2407.19434.

All rest on p(z) = sin(omega (|z| + 1) z), whose frequency grows with |z|; the bias of the first
layer, drawn from U(-k, k), says how far out its units begin.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import Field, one_of, positive, whole, within
from fields.complex import ComplexLinear, RealPart, wave
from fields.kernels.plan import Activation
from fields.siren import SineNetwork


def stretched(phase: Tensor, omega: float, variant: str) -> Tensor:
    """Omega (|z| + 1) z, from the phase omega z.

    "official" takes |z| + 1 for a constant in autograd, as the released code does. That saves time
    and makes normals, Eikonal and PDE residuals wrong: its gradients are not the function's.
    """
    factor = phase.abs() / omega + 1
    return phase * (factor.detach() if variant == "official" else factor)


def spread_bias(first: nn.Linear, first_bias: float) -> None:
    """Draw the first layer's bias from U(-first_bias, first_bias); 0 leaves it as it is."""
    spread = within("first_bias", first_bias, 0.0, 1e4)
    if spread:
        nn.init.uniform_(first.bias, -spread, spread)


class VariablePeriodNetwork(SineNetwork):
    """SIREN's layers and initialisation, a chosen spread of the first bias, activations of p."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        first_bias: float,
        variant: str,
        **layers: Any,
    ) -> None:
        super().__init__(in_features, out_features, **layers)
        self.variant = one_of("variant", variant, ("official", "clean"))
        spread_bias(self.layers[0].linear, first_bias)

    def activation(self, phase: Tensor, omega: float) -> Tensor:
        return torch.sin(stretched(phase, omega, self.variant))


class Finer(VariablePeriodNetwork):
    """Layers sin(omega (|z| + 1) z) with z = W x + b, and a linear output (eq. 4 of FINER).

    Weights are SIREN's. Exact gradients ("clean", the default) are needed wherever derivatives in
    the coordinates count. Fits are alike: 42.2 dB against 41.6 for "official" after 500 steps on a
    photograph of 256 x 256; docs/benchmarks/fields.md has more.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        hidden_features: Width of every hidden layer.
        hidden_layers: Hidden-to-hidden layers after the first one.
        first_omega: Angular frequency of the first layer at z = 0, in radians per half domain.
        hidden_omega: Angular frequency of the other layers: one number, or a list of one for each.
        first_bias: Spread k of the first layer's bias, U(-k, k): larger values favour higher
            frequencies. 0 leaves torch's, as the authors' image script does.
        variant: "clean", or "official" for the released code's gradients, in which |z| + 1 is a
            constant.
        init: "siren", or "winner" for noise on the first two layers (see `fields.winner`).
        winner_form: Which law turns the signal's spectrum into noise scales: the "paper" or the
            released "code".
        first_noise: WINNER's s_0, in radians per half domain. With both scales 0 the signal
            decides.
        second_noise: WINNER's s_1.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 1  # |z| z has a jump in its second derivative
    training_only = (
        "first_bias",
        "variant",
        "init",
        "winner_form",
        "first_noise",
        "second_noise",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        first_omega: float = 30.0,
        hidden_omega: float | list[float] = 30.0,
        first_bias: float = 0.0,
        variant: Literal["official", "clean"] = "clean",
        init: Literal["siren", "winner"] = "siren",
        winner_form: Literal["paper", "code"] = "paper",
        first_noise: float = 0.0,
        second_noise: float = 0.0,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            first_bias=first_bias,
            variant=variant,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            first_omega=first_omega,
            hidden_omega=hidden_omega,
            init=init,
            winner_form=winner_form,
            first_noise=first_noise,
            second_noise=second_noise,
        )

    def known(self) -> Activation:
        return "finer" if self.variant == "clean" else "finer-official"


class FinerGauss(VariablePeriodNetwork):
    """Layers exp(-(s p)^2) with p = sin(omega (|z| + 1) z), z = W x + b ("GF" in FINER++).

    Weights are SIREN's for this omega.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        hidden_features: Width of every hidden layer.
        hidden_layers: Hidden-to-hidden layers after the first one.
        omega: Angular frequency of every layer at z = 0.
        scale: Factor s within the Gaussian.
        first_bias: Spread k of the first layer's bias, U(-k, k); 0 leaves torch's.
        variant: "clean", or "official" for the released code's gradients, in which |z| + 1 is a
            constant.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 1
    training_only = (
        "first_bias",
        "variant",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        omega: float = 10.0,
        scale: float = 3.0,
        first_bias: float = 1.0,
        variant: Literal["official", "clean"] = "clean",
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            first_bias=first_bias,
            variant=variant,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            first_omega=positive("omega", omega, 1e6),
            hidden_omega=omega,
        )
        self.scale = positive("scale", scale, 1e4)

    def activation(self, phase: Tensor, omega: float) -> Tensor:
        return torch.exp(-(self.scale * super().activation(phase, omega)).square())


class FinerWavelet(Field):
    """Layers exp(i omega_w p - |s p|^2) with p = sin(omega q), q = (|z| + 1) z ("WF" in FINER++).

    z = W x + b is real in the first layer and complex in all others, where (|z| + 1) z acts on real
    and imaginary parts separately; the output is Re(W x + b). As in WIRE, layers have
    int(hidden_features / sqrt 2) complex units. Weights are drawn from U(-1/d, 1/d) in the first
    layer, real and imaginary parts of all others from U(+-sqrt(6/n) / (omega omega_w)).

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        hidden_features: Width of a real network of about as many numbers.
        hidden_layers: Hidden-to-hidden layers after the first one.
        omega: Angular frequency of the sine in every layer at z = 0.
        wavelet_omega: Frequency omega_w of the wavelet.
        scale: Inverse width s of the wavelet.
        first_bias: Spread k of the first layer's bias, U(-k, k); 0 leaves torch's.
        variant: "clean", or "official" for the released code's gradients, in which |z| + 1 is a
            constant.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 1
    training_only = (
        "first_bias",
        "variant",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        omega: float = 5.0,
        wavelet_omega: float = 4.0,
        scale: float = 2.0,
        first_bias: float = 1.0,
        variant: Literal["official", "clean"] = "clean",
    ) -> None:
        super().__init__(in_features, out_features)
        width = int(whole("hidden_features", hidden_features, 2, 8192) / math.sqrt(2))
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        self.omega = positive("omega", omega, 1e6)
        self.wavelet_omega = positive("wavelet_omega", wavelet_omega, 1e6)
        self.scale = positive("scale", scale, 1e4)
        self.variant = one_of("variant", variant, ("official", "clean"))
        self.first = nn.Linear(in_features, width)
        self.hidden = nn.ModuleList([ComplexLinear(width, width) for _ in range(depth)])
        self.out = RealPart(width, out_features)
        nn.init.uniform_(self.first.weight, -1 / in_features, 1 / in_features)
        spread_bias(self.first, first_bias)
        bound = math.sqrt(6 / width) / (omega * wavelet_omega)
        for layer in (*self.hidden, self.out):
            nn.init.uniform_(layer.real.weight, -bound, bound)
            nn.init.uniform_(layer.imag.weight, -bound, bound)

    @property
    def widest(self) -> int:
        return 2 * self.first.out_features

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        p = torch.sin(self._stretched(self.first(coords)))
        x = wave(-(self.scale * p).square(), self.wavelet_omega * p)
        for layer in self.hidden:
            a, b = self._stretched(layer(x)).chunk(2, dim=-1)
            real, imag = torch.sin(a) * torch.cosh(b), torch.cos(a) * torch.sinh(b)  # sin(a + ib)
            square = real.square() + imag.square()
            exponent = -self.wavelet_omega * imag - self.scale**2 * square
            x = wave(exponent, self.wavelet_omega * real)
        return self.out(x)

    def _stretched(self, z: Tensor) -> Tensor:
        return stretched(self.omega * z, self.omega, self.variant)
