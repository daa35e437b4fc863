"""SIREN: an MLP with sine activations, and the layers that its relatives share.

V. Sitzmann, J. Martel, A. Bergman, D. Lindell, G. Wetzstein, "Implicit Neural Representations
with Periodic Activation Functions", NeurIPS 2020, arXiv:2006.09661.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import spectrum, winner
from fields.base import (
    Field,
    FieldError,
    SignalStatistics,
    one_each,
    one_of,
    positive,
    whole,
    within,
)
from fields.kernels.plan import Activation, Layer, Mlp


class PhaseLayer(nn.Module):
    """x -> omega (W x + b), the phase of a sine; omega multiplies the bias too.

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
        return nn.functional.linear(x, self.omega * w, self.omega * b)


class SineNetwork(Field):
    """x_{i+1} = g(omega_i (W_i x_i + b_i)), i = 0..L, and a linear output; g by subclass.

    Weights are SIREN's: U(-1/d, 1/d) in the first layer, U(-sqrt(6/n)/omega, sqrt(6/n)/omega) in
    all others, the linear output included. `Siren` documents the arguments.

    Attributes:
        inits: What `init` may be.
    """

    inits: ClassVar[tuple[str, ...]] = ("siren", "winner")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int,
        hidden_layers: int,
        first_omega: float,
        hidden_omega: float | list[float],
        bias_init: str = "official",
        init: str = "siren",
        winner_form: str = "paper",
        first_noise: float = 0.0,
        second_noise: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        first_omega = positive("first_omega", first_omega, 1e6)
        # without hidden layers it is the output's bound alone that has an omega
        given = one_each("hidden_omega", hidden_omega, max(depth, 1))
        omegas = [positive("hidden_omega", omega, 1e6) for omega in given]
        one_of("bias_init", bias_init, ("official", "clean"))
        self.init = one_of("init", init, self.inits)
        self.winner_form = one_of("winner_form", winner_form, tuple(winner.LAWS))
        self.noise = (
            within("first_noise", first_noise, 0.0, 1e6),
            within("second_noise", second_noise, 0.0, 1e6),
        )
        if init == "winner" and depth == 0:
            raise FieldError("hidden_layers is 0: init 'winner' needs a second layer")

        # the output's weights have the bound of the layer before it
        bounds = [math.sqrt(6 / width) / omega for omega in omegas]
        first = PhaseLayer(in_features, width, first_omega, 1 / in_features)
        hidden = [PhaseLayer(width, width, omegas[i], bounds[i]) for i in range(depth)]
        self.sines = nn.ModuleList([first, *hidden])
        self.out = nn.Linear(width, out_features)
        nn.init.uniform_(self.out.weight, -bounds[-1], bounds[-1])
        if bias_init == "clean":
            nn.init.uniform_(first.linear.bias, -1 / in_features, 1 / in_features)
            for layer, bound in zip(hidden, bounds[:depth], strict=True):
                nn.init.uniform_(layer.linear.bias, -bound, bound)
            nn.init.uniform_(self.out.bias, -bounds[-1], bounds[-1])
        self._unnoised: list[Tensor] = []

    @abstractmethod
    def activation(self, phase: Tensor, omega: float) -> Tensor:
        """The nonlinearity g, elementwise; the phase is omega (W x + b)."""

    def known(self) -> Activation:
        """The activation's name among those that kernels know.

        Raises:
            FieldError: they do not know it.
        """
        raise FieldError(f"kernels do not know what {type(self).__name__} has for sines")

    def plan(self) -> Mlp:
        name = self.known()
        sines = [Layer(s.linear.weight, s.linear.bias, name, s.omega) for s in self.layers]
        return Mlp((*sines, Layer(self.out.weight, self.out.bias)))

    @property
    def layers(self) -> list[PhaseLayer]:
        """The layers before the output."""
        return [cast(PhaseLayer, layer) for layer in self.sines]

    @property
    def widest(self) -> int:
        return self.out.in_features

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        x = coords
        for layer in self.layers:
            x = self.activation(layer(x), layer.omega)
        return self.out(x)

    def adapt(self, statistics: SignalStatistics) -> None:
        """With init "winner" or "spectrum", start as the signal calls for."""
        if self.init == "winner":
            given = self.noise if any(self.noise) else None
            self.add_noise(*(given or winner.noise_scales(statistics, self.winner_form)))
        elif self.init == "spectrum":
            self._take_frequencies(statistics)

    @torch.no_grad()
    def _take_frequencies(self, statistics: SignalStatistics) -> None:
        """Start the first layer at frequencies of the signal; a constant one leaves it as it is."""
        first = self.layers[0]
        frequencies = spectrum.draw_frequencies(statistics, first.linear.out_features)
        if frequencies is not None:
            first.linear.weight.copy_(frequencies / first.omega)

    @torch.no_grad()
    def add_noise(self, first: float, second: float) -> None:
        """Set W_0 and W_1 to their un-noised values plus noise of std s_0/omega and s_1/omega.

        Args:
            first: s_0, the standard deviation of the first layer's angular frequencies where its
                omega is that of the hidden layers.
            second: s_1.

        The un-noised weights are those at the first call, so that noise never stacks. omega is
        that of the second layer, even where first_omega differs. Draws from torch's CPU generator.
        """
        weights = [layer.linear.weight for layer in self.layers[:2]]
        if not self._unnoised:
            self._unnoised = [weight.clone() for weight in weights]
        omega = self.layers[1].omega
        for weight, base, scale in zip(weights, self._unnoised, (first, second), strict=True):
            noise = torch.randn(base.shape).to(base)
            weight.copy_(base + scale / omega * noise)


class Siren(SineNetwork):
    """Sine layers and a linear output: x_{i+1} = sin(omega_i (W_i x_i + b_i)), i = 0..L (eq. 3).

    Weights are drawn as in the authors' code (the paper's first-layer bound carries a square root
    that its authors retracted): U(-1/d, 1/d) in the first layer, U(-sqrt(6/n)/omega,
    sqrt(6/n)/omega) in all others, the linear output included. `init` "winner" then adds noise to
    the first two layers, as the signal's spectrum calls for (see `fields.winner`); "spectrum",
    ours, draws the first layer's frequencies from that spectrum (see `fields.spectrum`).

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one, so that there are L + 1
            sines and L + 2 linear maps.
        first_omega: Angular frequency omega_0 of the first layer, in radians per half domain.
            On sound the authors' grid of [-100, 100] amounts to 3000 here, but for the bias,
            which this also multiplies by 100.
        hidden_omega: Angular frequency of the other layers: one number, or a list of one for each.
        bias_init: "official" leaves the biases of torch, U(+-1/sqrt(fan_in)), as the authors'
            code does; "clean" draws each bias from the bound of its layer's weights, so that
            depth does not flatten the signal. With four sines fits are alike: 35.8 and 35.9 dB
            after 500 steps on a photograph of 256 x 256, mean of two seeds.
        init: "siren"; "winner" for noise on the first two layers; "spectrum" for a first layer of
            the signal's own frequencies, whatever first_omega is.
        winner_form: Which law turns the signal's spectrum into noise scales: the "paper" or the
            released "code".
        first_noise: WINNER's s_0, instead of what the signal calls for, in radians per half
            domain. With both scales 0 the signal decides.
        second_noise: WINNER's s_1.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf
    training_only = (
        "bias_init",
        "init",
        "winner_form",
        "first_noise",
        "second_noise",
    )
    inits = ("siren", "winner", "spectrum")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        first_omega: float = 30.0,
        hidden_omega: float | list[float] = 30.0,
        bias_init: Literal["official", "clean"] = "official",
        init: Literal["siren", "winner", "spectrum"] = "siren",
        winner_form: Literal["paper", "code"] = "paper",
        first_noise: float = 0.0,
        second_noise: float = 0.0,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            first_omega=first_omega,
            hidden_omega=hidden_omega,
            bias_init=bias_init,
            init=init,
            winner_form=winner_form,
            first_noise=first_noise,
            second_noise=second_noise,
        )

    def activation(self, phase: Tensor, omega: float) -> Tensor:
        return torch.sin(phase)

    def known(self) -> Activation:
        return "sine"
