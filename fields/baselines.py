"""The networks that others are compared with: ReLU behind two encodings, and Gaussians.

B. Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis",
ECCV 2020, arXiv:2003.08934 (positional encoding); M. Tancik et al., "Fourier Features Let Networks
Learn High Frequency Functions in Low Dimensional Domains", NeurIPS 2020, arXiv:2006.10739;
S. Ramasinghe, S. Lucey, "Beyond Periodicity: Towards a Unifying Framework for Activations in
Coordinate-MLPs", ECCV 2022, arXiv:2111.15135.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import seeded
from fields.additive import AdditiveField
from fields.base import Field, FieldError, one_of, positive, whole
from fields.kernels.plan import Layer, Mlp
from fields.siren import PhaseLayer


class ReluPe(AdditiveField):
    """Positional encoding and a ReLU network.

    gamma(x) = [x, sin(f_0 x), cos(f_0 x), ..., sin(f_{N-1} x), cos(f_{N-1} x)] of each coordinate,
    f_j = 2^j, or 2^j pi as in the paper's eq. 4; h = relu(W gamma(x) + b), then L times
    h = relu(W h + b), output W h + b. Defaults are those of PEMLP in FINER's comparison
    (arXiv:2312.02434 and its code). Weights and biases are torch's: U(+-1/sqrt(fan_in)).

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one, so that there are L + 1
            ReLUs and L + 2 linear maps.
        frequencies: Number N of octaves; the highest frequency is 2^(N-1) radians per half
            domain, times pi with `pi`. 0 leaves the coordinates alone: a plain ReLU network.
        pi: Whether frequencies have the paper's factor pi, which makes the encoding periodic.
        include_input: Whether the coordinates themselves are a part of the encoding.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        frequencies: int = 10,
        pi: bool = False,
        include_input: bool = True,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        octaves = whole("frequencies", frequencies, 0, 32)
        if not octaves and not include_input:
            raise FieldError("frequencies is 0 and include_input false: nothing is left to see")
        unit = math.pi if pi else 1.0
        self.include_input = include_input
        self.frequencies = [unit * 2**j for j in range(octaves)]
        encoded = in_features * (2 * octaves + include_input)
        self.first = nn.Linear(encoded, width)
        self.tail = _relu_tail(width, depth, out_features)

    @property
    def widest(self) -> int:
        return self.first.out_features

    def output_parameters(self) -> list[nn.Parameter]:
        return list(self.tail[-1].parameters())

    def plan(self) -> Mlp:
        return Mlp((Layer(self.first.weight, self.first.bias, "relu"), *_tail_layers(self.tail)))

    def encode(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_first"]:
        """The encoding gamma of each point."""
        basis = [coords] if self.include_input else []
        for frequency in self.frequencies:
            basis += [torch.sin(frequency * coords), torch.cos(frequency * coords)]
        return torch.cat(basis, dim=-1)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """As any field with an engine, and else as additive ones."""
        return Field.on_grid(self, axes) if self.engine is not None else super().on_grid(axes)

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        # without octaves W is one matrix product, however many the coordinates
        return super().forward(coords) if self.frequencies else self.rest(self.first(coords))

    def part(self, axis: int, x: Float[Tensor, " points"]) -> Float[Tensor, "points hidden"]:
        # a column of W meets one coordinate: the encoding is needed once per axis of a lattice
        basis = [x] if self.include_input else []
        for frequency in self.frequencies:
            basis += [torch.sin(frequency * x), torch.cos(frequency * x)]
        weight = self.first.weight[:, axis :: self.in_features]
        bias = None if axis else self.first.bias
        return nn.functional.linear(torch.stack(basis, dim=-1), weight, bias)

    def rest(self, z: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch d_out"]:
        return self.tail(z)


class Rff(Field):
    """Random Fourier features and a ReLU network.

    gamma(v) = [sin(2 pi B v), cos(2 pi B v)] of v = (x + 1) / 2 in [0, 1], as the paper has it;
    B of shape (features, d) is drawn once from N(0, sigma^2) (eq. 8) and stays as it is;
    h = relu(W gamma + b), then L times h = relu(W h + b), output W h + b. Weights are Glorot
    normal and biases N(0, 0.01^2), the defaults of the authors' JAX code.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one; 2 is the authors' network of
            four linear maps.
        features: Number of random frequencies; half the length of the encoding.
        sigma: Standard deviation of the frequencies in cycles per domain.
        variant: "official" ends in the released code's sigmoid, mapped to [-1, 1]; "clean" in
            the linear map. The sigmoid is the better one: 30.8 against 29.2 dB after 400 steps on
            the photograph camera at 256 x 256, each at its better rate of 1e-3 and 3e-3.
        seed: Seed of the frequencies (see `fields.seeded`).

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 0
    sizes = ("features", "hidden_features")
    directions: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 2,
        features: int = 256,
        sigma: float = 10.0,
        variant: Literal["official", "clean"] = "official",
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        features = whole("features", features, 1, 8192)
        self.sigma = positive("sigma", sigma, 1e6)
        self.squash = one_of("variant", variant, ("official", "clean")) == "official"
        self.seed = whole("seed", seed, 0, seeded.MAX_SEED)
        self.register_buffer("directions", torch.empty(features, in_features))
        self.regenerate()
        self.first = nn.Linear(2 * features, width)
        self.tail = _relu_tail(width, depth, out_features)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.normal_(module.bias, std=0.01)

    @torch.no_grad()
    def regenerate(self) -> None:
        """Draw the directions B / sigma, standard normal."""
        shape, device = self.directions.shape, self.directions.device
        self.directions.copy_(seeded.normal(self.seed, 0, shape, device=device))

    @property
    def widest(self) -> int:
        return max(self.first.in_features, self.first.out_features)

    def output_parameters(self) -> list[nn.Parameter]:
        # behind a sigmoid nothing is linear
        return super().output_parameters() if self.squash else list(self.tail[-1].parameters())

    def plan(self) -> Mlp:
        return Mlp((Layer(self.first.weight, self.first.bias, "relu"), *_tail_layers(self.tail)))

    def encode(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_first"]:
        """gamma, of length 2 * features."""
        # 2 pi B v = (pi B) x + pi B 1
        rates = math.pi * self.sigma * self.directions
        phase = nn.functional.linear(coords, rates, rates.sum(-1))
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.finish(self.tail(self.first(self.encode(coords))))

    def finish(self, values: Float[Tensor, "*batch d_out"]) -> Float[Tensor, "*batch d_out"]:
        """2 sigmoid(z) - 1 = tanh(z / 2), with variant "official"."""
        return torch.tanh(values / 2) if self.squash else values


class Gauss(Field):
    """An MLP with Gaussian activations: h = exp(-(s (W h + b))^2), L + 1 times; output W h + b.

    In the paper's form exp(-z^2 / (2 sigma^2)), s = 1 / (sqrt(2) sigma). Weights and biases are
    torch's, U(+-1/sqrt(fan_in)); defaults are those of FINER's comparison (arXiv:2312.02434).

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        hidden_features: Width n of every hidden layer.
        hidden_layers: Hidden-to-hidden layers L after the first one.
        scale: Inverse width s of the Gaussian; a unit is silent where |W h + b| exceeds 3 / s.

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
        scale: float = 30.0,
    ) -> None:
        super().__init__(in_features, out_features)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        scale = positive("scale", scale, 1e6)
        widths = [in_features] + [width] * depth
        self.layers = nn.ModuleList(PhaseLayer(n, width, scale, 1 / math.sqrt(n)) for n in widths)
        self.out = nn.Linear(width, out_features)

    @property
    def widest(self) -> int:
        return self.out.in_features

    def plan(self) -> Mlp:
        layers = [Layer(x.linear.weight, x.linear.bias, "gauss", x.omega) for x in self.phases]
        return Mlp((*layers, Layer(self.out.weight, self.out.bias)))

    @property
    def phases(self) -> list[PhaseLayer]:
        """The layers before the output."""
        return [cast(PhaseLayer, layer) for layer in self.layers]

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        x = coords
        for layer in self.phases:
            x = torch.exp(-layer(x).square())
        return self.out(x)


def _tail_layers(tail: nn.Sequential) -> list[Layer]:
    """The matrices of a ReLU network after its first one."""
    linears = [m for m in tail if isinstance(m, nn.Linear)]
    hidden = [Layer(m.weight, m.bias, "relu") for m in linears[:-1]]
    return [*hidden, Layer(linears[-1].weight, linears[-1].bias)]


def _relu_tail(width: int, depth: int, out_features: int) -> nn.Sequential:
    """What follows a ReLU network's first linear map."""
    hidden = [m for _ in range(depth) for m in (nn.ReLU(), nn.Linear(width, width))]
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(width, out_features))
