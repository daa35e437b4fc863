"""Networks that multiply filters of the coordinates instead of composing nonlinearities.

R. Fathony, A. Sahu, D. Willmott, J. Z. Kolter, "Multiplicative Filter Networks", ICLR 2021
(openreview.net/forum?id=OmtmcPkkhT); D. Lindell, D. Van Veen, J. J. Park, G. Wetzstein, "BACON:
Band-limited Coordinate Networks for Multiscale Scene Representation", CVPR 2022, arXiv:2112.04645.

A product of sinusoids is a sum of sinusoids, so that such a network is a finite Fourier (or Gabor)
series whose frequencies are sums of those of its filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import seeded
from fields.base import Field, FieldError, one_of, positive, whole, within

MAX_FREQUENCY = 1 << 20


class FilterNetwork(Field):
    """h_0 = g_0(x); h_i = (W_i h_{i-1} + b_i) * g_i(x), i = 1..L; a linear output of h_L.

    W_i and the output's weights are drawn from U(+-sqrt(gain / n)), biases are torch's
    U(+-1/sqrt(n)).
    Subclasses set `filters`, the g_0, ..., g_L. Of several `heads`, the last is the output of h_L,
    the one before it that of h_{L-1}, and so on.
    """

    filters: nn.ModuleList

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int,
        hidden_layers: int,
        gain: float = 1.0,
        output_sine: bool = False,
        all_heads: bool = False,
    ) -> None:
        super().__init__(in_features, out_features)
        self.width = whole("hidden_features", hidden_features, 1, 8192)
        self.depth = whole("hidden_layers", hidden_layers, 0, 62)
        self.output_sine = output_sine
        heads = max(self.depth, 1) if all_heads else 1
        maps = [nn.Linear(self.width, self.width) for _ in range(self.depth)]
        outputs = [nn.Linear(self.width, out_features) for _ in range(heads)]
        bound = math.sqrt(gain / self.width)
        for linear in maps + outputs:
            nn.init.uniform_(linear.weight, -bound, bound)
        self.maps = nn.ModuleList(maps)
        self.heads = nn.ModuleList(outputs)

    @property
    def widest(self) -> int:
        return self.width

    def output_parameters(self) -> list[nn.Parameter]:
        return super().output_parameters() if self.output_sine else list(self.heads.parameters())

    def trunk(self, coords: Float[Tensor, "*batch d_in"]) -> Iterator[Float[Tensor, "*batch n"]]:
        """h_0, ..., h_L, one after the other."""
        h = self.filters[0](coords)
        yield h
        for linear, g in zip(self.maps, [*self.filters][1:], strict=True):
            h = linear(h) * g(coords)
            yield h

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        for h in self.trunk(coords):
            last = h
        out = self.heads[-1](last)
        return torch.sin(out) if self.output_sine else out


class SineFilter(nn.Module):
    """g(x) = sin(Omega x + phi), Omega ~ scale U(+-1/sqrt(d)), phi ~ U(+-pi)."""

    def __init__(self, in_features: int, width: int, scale: float) -> None:
        super().__init__()
        bound = scale / math.sqrt(in_features)
        self.frequency = nn.Parameter(torch.empty(width, in_features).uniform_(-bound, bound))
        self.phase = _phases(width)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        return torch.sin(nn.functional.linear(x, self.frequency, self.phase))


class GaborFilter(SineFilter):
    """g(x) = sin(Omega x + phi) exp(-gamma/2 |x - mu|^2), elementwise over the units.

    mu ~ U(-1, 1)^d, gamma ~ Gamma(shape, rate); Omega is that of a sine times sqrt(gamma).
    """

    def __init__(
        self, in_features: int, width: int, scale: float, shape: float, rate: float
    ) -> None:
        super().__init__(in_features, width, scale)
        self.centre = nn.Parameter(torch.empty(width, in_features).uniform_(-1, 1))
        self.precision = nn.Parameter(torch.empty(width))
        if self.precision.is_meta:  # an outline without memory needs no draws: they are slow there
            return
        with torch.no_grad():
            self.precision.copy_(torch.distributions.Gamma(shape, rate).sample((width,)))
            self.frequency.mul_(self.precision.sqrt()[:, None])

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        # -gamma/2 |x - mu|^2 = gamma mu . x - gamma/2 |x|^2 - gamma/2 |mu|^2, one matrix product;
        # in float32 it is wrong by a few gamma d 2^-24, little for coordinates within [-1, 1]
        gamma = self.precision[:, None]
        squared = x.square().sum(-1, keepdim=True)
        weight = torch.cat([gamma * self.centre, -gamma / 2], dim=-1)
        bias = -self.precision / 2 * self.centre.square().sum(-1)
        exponent = nn.functional.linear(torch.cat([x, squared], dim=-1), weight, bias)
        return super().forward(x) * torch.exp(exponent)


class QuantisedFilter(nn.Module):
    """g(x) = sin(pi spacing K x + phi), phi ~ U(+-pi); K holds whole numbers and is frozen.

    Args:
        tops: Largest entry of K in absolute value, for each axis.
        width: Number of units.
        spacing: Distance between neighbouring frequencies in cycles per domain.
        seed: Seed of K.
        stream: Stream of K's first column; the others follow.
    """

    multiples: Tensor

    def __init__(self, tops: list[int], width: int, spacing: float, seed: int, stream: int) -> None:
        super().__init__()
        self.tops, self.seed, self.stream = tops, seed, stream
        self.unit = math.pi * spacing  # x in [-1, 1] is the domain: half a cycle per unit of x
        self.phase = _phases(width)
        self.register_buffer("multiples", torch.empty(width, len(tops)))
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Set K."""
        shape, device = self.phase.shape, self.multiples.device
        for axis, top in enumerate(self.tops):
            stream = self.stream + axis
            drawn = seeded.integers(self.seed, stream, shape, 2 * top + 1, device=device)
            self.multiples[:, axis] = drawn - top

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        return torch.sin(nn.functional.linear(x, self.unit * self.multiples, self.phase))


class FourierNet(FilterNetwork):
    """A multiplicative network of sines, exactly a finite sum of sinusoids of x (theorem 1).

    h_0 = g_0(x); h_i = (W_i h_{i-1} + b_i) * g_i(x), i = 1..L; output W h_L + b, with
    g_i(x) = sin(Omega_i x + phi_i). No frequency exceeds the sum over i of the largest row of
    Omega_i. Omega ~ U(+-1/sqrt(d)) * input_scale / sqrt(L + 1), phi ~ U(+-pi),
    and all other weights and biases ~ U(+-1/sqrt(n)). All is trained.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Number n of sines in each filter.
        hidden_layers: Number L of products; there are L + 1 filters.
        input_scale: Scale of the frequencies, in radians per half domain; a product of all
            filters reaches about sqrt(L + 1) times as much at most.
        output_sine: Whether the output passes through a sine, as the authors' code can.

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
        input_scale: float = 256.0,
        output_sine: bool = False,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            output_sine=output_sine,
        )
        scale = positive("input_scale", input_scale, 1e6) / math.sqrt(self.depth + 1)
        self.filters = nn.ModuleList(
            SineFilter(in_features, self.width, scale) for _ in range(self.depth + 1)
        )


class GaborNet(FilterNetwork):
    """A multiplicative network of Gabor filters, exactly a finite sum of such (theorem 2).

    As `FourierNet`, with g_i(x) = sin(Omega_i x + phi_i) exp(-gamma_i/2 |x - mu_i|^2) for each
    unit: mu ~ U(-1, 1)^d, gamma ~ Gamma(alpha / (L + 1), rate beta), and Omega is FourierNet's
    times sqrt(gamma). All is trained.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Number n of Gabor functions in each filter.
        hidden_layers: Number L of products; there are L + 1 filters.
        input_scale: Scale of the frequencies, in radians per half domain, where gamma is 1.
        alpha: Shape of the gamma distribution, before it is shared among the filters.
        beta: Its rate; the mean inverse squared width of a filter is alpha / (L + 1) / beta.
        output_sine: Whether the output passes through a sine, as the authors' code can.

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
        input_scale: float = 256.0,
        alpha: float = 6.0,
        beta: float = 1.0,
        output_sine: bool = False,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            output_sine=output_sine,
        )
        scale = positive("input_scale", input_scale, 1e6) / math.sqrt(self.depth + 1)
        shape = positive("alpha", alpha, 1e6) / (self.depth + 1)
        beta = positive("beta", beta, 1e6)
        self.filters = nn.ModuleList(
            GaborFilter(in_features, self.width, scale, shape, beta) for _ in range(self.depth + 1)
        )


class Bacon(FilterNetwork):
    """A multiplicative network of sines whose band is limited by construction.

    FourierNet's formula with g_i(x) = sin(pi spacing K_i x + phi_i). Along each axis the entries of
    K are drawn from the whole numbers of [-B, B] and stay as they are; B = round(frequency /
    (2 (L + 1) spacing)), at least 1. Hence h_i holds no frequency above (i + 1) B spacing cycles
    per domain, and the field has the period 1 / spacing domains. phi ~ U(+-pi) is trained (the
    authors' code freezes K alone); W and the heads' weights ~ U(+-sqrt(6/n)), their biases are
    torch's U(+-1/sqrt(n)). The paper's coordinates of [-1/2, 1/2] are x / 2.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Number n of sines in each filter.
        hidden_layers: Number L of products; there are L + 1 filters.
        frequency: Samples per domain that the band is made for, one number for all axes or one
            per axis; the last output reaches half as many cycles, up to rounding. Images get
            their numbers of pixels.
        spacing: Distance between neighbouring frequencies in cycles per domain; the authors' 1
            makes the field periodic over the domain.
        heads: "last" has one output, that of h_L; "all" one for each of h_1, ..., h_L, coarse to
            fine, which are trained together (see `outputs`).
        seed: Seed of the frequencies K (see `fields.seeded`).

    Attributes:
        multiples: B, one number per axis.

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
        hidden_layers: int = 4,
        frequency: int | list[int] = 256,
        spacing: float = 1.0,
        heads: Literal["last", "all"] = "last",
        seed: int = 0,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features=hidden_features,
            hidden_layers=hidden_layers,
            gain=6.0,
            all_heads=one_of("heads", heads, ("last", "all")) == "all",
        )
        given = frequency if isinstance(frequency, list) else [frequency] * in_features
        if len(given) != in_features:
            raise FieldError(f"frequency is {frequency!r}: give {in_features} numbers, or one")
        # with at least 1/16, every multiple below is one that float32 holds exactly
        spacing = within("spacing", spacing, 1 / 16, 1e3)
        step = 2 * (self.depth + 1) * spacing
        self.multiples = [
            max(1, round(whole("frequency", n, 1, MAX_FREQUENCY) / step)) for n in given
        ]
        seed = whole("seed", seed, 0, seeded.MAX_SEED)
        self.filters = nn.ModuleList(
            QuantisedFilter(self.multiples, self.width, spacing, seed, i * in_features)
            for i in range(self.depth + 1)
        )

    def regenerate(self) -> None:
        """Draw the frequencies."""
        for module in self.modules():
            if isinstance(module, QuantisedFilter):
                module.draw()

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """The band of a signal of so many samples."""
        return {"frequency": [min(n, MAX_FREQUENCY) for n in shape]}

    def outputs(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch heads d_out"]:
        """The values of every head, coarse to fine; the last are those of `forward`."""
        hidden = list(self.trunk(coords))[-len(self.heads) :]
        values = [head(h) for head, h in zip(self.heads, hidden, strict=True)]
        return torch.stack(values, dim=-2)

    def supervised(self, axes: Sequence[Float[Tensor, " _"]]) -> list[Tensor]:
        """All heads on a lattice, from one evaluation of the filters."""
        return list(self.in_tiles(self.outputs, axes).unbind(-2))

    def supervised_at(self, coords: Float[Tensor, "*batch d_in"]) -> list[Tensor]:
        """All heads at scattered coordinates."""
        return list(self.outputs(coords).unbind(-2))


def _phases(width: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(width).uniform_(-math.pi, math.pi))
