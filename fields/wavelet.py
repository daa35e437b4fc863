"""Networks of complex wavelets: WIRE, and the low-pass and band-pass pair of Roddenberry et al.

V. Saragadam, D. LeJeune, J. Tan, G. Balakrishnan, A. Veeraraghavan, R. Baraniuk, "WIRE: Wavelet
Implicit Neural Representations", CVPR 2023, arXiv:2301.05187; T. M. Roddenberry, V. Saragadam,
M. V. de Hoop, R. G. Baraniuk, "Implicit Neural Representations and the Algebra of Complex
Wavelets", ICLR 2024, arXiv:2310.00545.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import Field, FieldError, SignalStatistics, one_of, positive, whole, within
from fields.complex import (
    ComplexLinear,
    RealPart,
    complex_truncated_exp,
    truncated_exp,
    wave,
)
from fields.kernels.plan import Layer, Mlp
from fields.maxima import modulus_maxima

STEEPEST = 20.0
"""Largest slope of a frequency vector that is drawn or set: 3 degrees off the half space's edge."""

LOW_OCTAVES = 3
"""Octaves of the scaling functions, the coarsest ones."""

FIRST_OUTPUT = 0.1
"""Standard deviation of each part's output before fitting."""


class Wire(Field):
    """Complex Gabor wavelets as activations: exp(i omega z - |s z|^2), z = W x + b.

    W and b are real in the first layer and complex in all others; the output is Re(W x + b).
    Weights and biases are torch's U(+-1/sqrt(fan_in)), real and imaginary parts independently, as
    in the authors' code. That code counts a complex number as one parameter; here it is two.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        hidden_features: Width h of a real network of about as many numbers; layers have
            int(h / sqrt 2) units, or int(h / 2) with kind "2d".
        hidden_layers: Hidden-to-hidden layers after the first one.
        first_omega: Frequency omega of the first layer, in radians per unit of z. The default,
            10 with scale 10, is the authors' for tomography; they advise 20 with 30 for images,
            which reached 28.0 dB against 30.0 on a 256 x 256 photograph in 250 steps of 4096
            points (one seed, learning rate 0.0015).
        hidden_omega: Frequency of the other layers.
        scale: Inverse width s of the Gaussian. Small values beside omega amplify:
            a unit reaches exp(omega^2 / (4 s^2)).
        kind: "1d" is the formula above. "2d" has a second linear map y of the same input and
            exp(i omega z - s^2 (|z|^2 + |y|^2)). "real" has cos(omega z) exp(-(s y)^2) with both
            maps real; at int(h / sqrt 2) units it has as many numbers as "1d".

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
        hidden_layers: int = 2,
        first_omega: float = 10.0,
        hidden_omega: float = 10.0,
        scale: float = 10.0,
        kind: Literal["1d", "2d", "real"] = "1d",
    ) -> None:
        super().__init__(in_features, out_features)
        given = whole("hidden_features", hidden_features, 2, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 62)
        first_omega = positive("first_omega", first_omega, 1e6)
        hidden_omega = positive("hidden_omega", hidden_omega, 1e6)
        self.scale = positive("scale", scale, 1e6)
        self.kind = one_of("kind", kind, ("1d", "2d", "real"))

        width = given // 2 if kind == "2d" else int(given / math.sqrt(2))
        # both maps of a layer are one matrix: the first half of its outputs is z, the second y
        outputs = width if kind == "1d" else 2 * width
        hidden_type: Any = nn.Linear if kind == "real" else ComplexLinear
        out_type: Any = nn.Linear if kind == "real" else RealPart
        self.omegas = [first_omega] + [hidden_omega] * depth
        self.layers = nn.ModuleList(
            [nn.Linear(in_features, outputs)] + [hidden_type(width, outputs) for _ in range(depth)]
        )
        self.out = out_type(width, out_features)
        self._widest = outputs if kind == "real" else 2 * outputs

    @property
    def widest(self) -> int:
        return self._widest

    def plan(self) -> Mlp:
        if self.kind != "1d":
            raise FieldError(f"kernels know wire of kind '1d', not {self.kind!r}")
        layers = []
        for omega, layer in zip(self.omegas, self.layers, strict=True):
            if isinstance(layer, ComplexLinear):
                weight, bias = layer.pairs()
            else:
                assert isinstance(layer, nn.Linear)  # the first one is real: imaginary parts are 0
                weight = torch.cat([layer.weight, torch.zeros_like(layer.weight)], dim=-2)
                bias = torch.cat([layer.bias, torch.zeros_like(layer.bias)], dim=-1)
            layers.append(Layer(weight, bias, "wire", omega, self.scale / omega))
        return Mlp((*layers, Layer(*self.out.pairs())))

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        x = coords
        for i, layer in enumerate(self.layers):
            z = layer(x)
            if self.kind == "real":
                x = real_gabor(z, self.omegas[i], self.scale)
            else:
                maps = 2 if self.kind == "2d" else 1
                x = gabor(z, self.omegas[i], self.scale, maps, paired=i > 0)
        return self.out(x)


def gabor(z: Tensor, omega: float, scale: float, maps: int, paired: bool) -> Tensor:
    """exp(i omega z - s^2 (|z|^2 + |y|^2)) as pairs; y only with two maps.

    Args:
        z: Real z (and y), or pairs of them: (..., Re z, Re y, Im z, Im y).
        omega: Frequency.
        scale: Inverse width s.
        maps: 1 or 2.
        paired: Whether z and y are complex.
    """
    parts = maps * (1 + paired)
    pieces = z.chunk(parts, dim=-1)
    first, *others = z.square().chunk(parts, dim=-1)
    exponent = sum(others, first) * -(scale**2)
    if paired:
        exponent = exponent.sub(pieces[maps], alpha=omega)
    return wave(exponent, omega * pieces[0])


def real_gabor(z: Tensor, omega: float, scale: float) -> Tensor:
    """cos(omega z) exp(-(s y)^2) from (..., z, y)."""
    z, y = z.chunk(2, dim=-1)
    return torch.cos(omega * z) * torch.exp(-(scale**2) * y.square())


class Wavelet(Field):
    """Low-pass network of scaling functions plus real part of a network of analytic wavelets.

    The first layer of each part has atoms psi(W_t (x - c_t)) with a d x d matrix and a centre
    each. Later layers are linear with a polynomial p(z) = z + z^2/2! + ... + z^K/K! after each,
    and the last is linear. So each part is a polynomial of its atoms: a product of atoms lies where
    all of them do, and has the sum of their frequencies.

    Band-pass part: psi(t) = g(t_1) exp(-(t_2^2 + ...) / 2) of frequency k along t_1 and width 1;
    complex linear layers without bias. The first row of W_t has a positive first component by
    construction, so that no sum of the atoms' frequency vectors is 0: what is fine stays fine. In
    one dimension, "cauchy" atoms have no energy at all at negative frequencies, and neither has
    anything made of them. Low-pass part: psi(t) = exp(-|t|^2 / 2), real layers with bias.

    The authors' sizes and learning rates are not published in a form known here; the defaults are
    this project's. All layers start with unit variance but the output, with 0.1; W_t with random
    rotations, spread over octaves; centres uniformly. `adapt` moves the wavelets to the modulus
    maxima of the signal at their scale and turns them along its gradient, as the authors advise.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        atoms: Wavelets in the first layer.
        hidden_features: Complex units of every later layer.
        hidden_layers: Layers with a polynomial after each, between atoms and output.
        low_features: Scaling functions, and units of the low-pass part's layers.
        template: "cauchy" is (1 - i t/k)^(-k^2), whose spectrum is a Gamma density of mean k and
            standard deviation 1; "gabor" is exp(i k t - t^2 / 2), whose spectrum has the same mean
            and deviation and a Gaussian's tail below 0.
        frequency: Centre k of the template's spectrum, in units of its width.
        degree: Degree K of the polynomials; 1 makes the parts linear in their atoms.
        octaves: Octaves of scales: the widths of the atoms (standard deviations of their
            envelopes) are spread from 2^-1 to 2^-(1 + octaves), in coordinates of [-1, 1].

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = math.inf
    training_only = ("octaves",)
    sizes = ("atoms", "hidden_features", "low_features")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        atoms: int = 256,
        hidden_features: int = 128,
        hidden_layers: int = 1,
        low_features: int = 64,
        template: Literal["cauchy", "gabor"] = "cauchy",
        frequency: float = 3.0,
        degree: int = 2,
        octaves: int = 6,
    ) -> None:
        super().__init__(in_features, out_features)
        count = whole("atoms", atoms, 1, 65536)
        width = whole("hidden_features", hidden_features, 1, 8192)
        depth = whole("hidden_layers", hidden_layers, 0, 8)
        low = whole("low_features", low_features, 1, 8192)
        one_of("template", template, ("cauchy", "gabor"))
        # below 1 the Gamma density does not vanish at frequency 0
        frequency = within("frequency", frequency, 1.5, 64.0)
        degree = whole("degree", degree, 1, 8)
        octaves = whole("octaves", octaves, 1, 16)
        self.band_pass = Part(
            Atoms(in_features, count, template, frequency, octaves),
            [width] * depth,
            out_features,
            degree,
        )
        self.low_pass = Part(
            Atoms(in_features, low, "gauss", frequency, min(octaves, LOW_OCTAVES)),
            [low] * depth,
            out_features,
            degree,
        )

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """The finest atoms have a standard deviation of about 2 samples, and harmonics beyond."""
        return {"octaves": min(max(max(shape).bit_length() - 4, 1), 16)}

    @property
    def widest(self) -> int:
        return max(self.band_pass.widest, self.low_pass.widest)

    def output_parameters(self) -> list[nn.Parameter]:
        return [p for part in (self.band_pass, self.low_pass) for p in part.out.parameters()]

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.low_pass(coords) + self.band_pass(coords)

    def adapt(self, statistics: SignalStatistics) -> None:
        self.band_pass.atoms.seek(statistics)


class Atoms(nn.Module):
    """Templates under affine maps: psi(W_t (x - c_t)), t = 1..count.

    W_t = e^a [w; B] with w = (1, b) / |(1, b)|, where `matrix` holds a and b in its first row and B
    in the others: the first row of W_t has length e^a and a positive first component.

    Shapes: (..., d) -> (..., count) for "gauss", else (..., 2 count), complex numbers as pairs.
    """

    def __init__(
        self, in_features: int, count: int, template: str, frequency: float, octaves: int
    ) -> None:
        super().__init__()
        self.template = template
        self.frequency = frequency
        # equally many per octave, evenly in the logarithm
        self.octave = [i * octaves // count for i in range(count)]
        self.matrix = nn.Parameter(torch.empty(count, in_features, in_features))
        self.centre = nn.Parameter(torch.rand(count, in_features) * 2 - 1)
        with torch.no_grad():
            exponents = 1 + torch.arange(count) * (octaves / count)
            self.matrix[:, 0, 0] = exponents * math.log(2)
        self.turn(slice(None), torch.randn(count, in_features))

    @property
    def complex(self) -> bool:
        """Whether the values are complex."""
        return self.template != "gauss"

    @torch.no_grad()
    def turn(self, which: Any, directions: Tensor) -> None:
        """Make W of some atoms a rotation (up to its scale), the first row along a direction."""
        unit = nn.functional.normalize(directions, dim=-1)
        unit = unit * torch.where(unit[:, :1] < 0, -1.0, 1.0)
        slopes = unit[:, 1:] / unit[:, :1].clamp(min=1 / STEEPEST)
        unit = nn.functional.normalize(
            torch.cat([torch.ones_like(unit[:, :1]), slopes], -1), dim=-1
        )
        # a reflection whose first row is the direction; its other rows are orthonormal to it
        axis = unit + torch.eye(unit.shape[-1])[0]
        frame = axis[:, :, None] * axis[:, None] / axis[:, :1, None] - torch.eye(unit.shape[-1])
        self.matrix[which, 0, 1:] = slopes.to(self.matrix)
        self.matrix[which, 1:] = frame[:, 1:].to(self.matrix)

    @torch.no_grad()
    def seek(self, statistics: SignalStatistics) -> None:
        """Move the atoms to the signal's modulus maxima at their scale, octave by octave.

        Draws from torch's CPU generator. An octave at which there are no maxima stays as it is.
        """
        for octave in sorted(set(self.octave)):
            which = torch.tensor([i for i, own in enumerate(self.octave) if own == octave])
            width = 1 / float(self.matrix[which, 0, 0].exp().mean())
            maxima = modulus_maxima(statistics, width)
            if len(maxima.modulus):
                drawn = maxima.draw(len(which))
                # two atoms at one maximum are not to be the same
                centres = maxima.centres[drawn]
                centres = centres + width / 2 * torch.randn(centres.shape)
                self.centre[which] = centres.to(self.centre)
                self.turn(which, maxima.directions[drawn])

    def energies(self) -> Tensor:
        """Mean square of each atom over the domain, about: what a Gaussian has if well inside."""
        share = math.sqrt(math.pi) / 2 * torch.exp(-self.matrix[:, 0, 0])
        return share.clamp(max=1.0) ** self.centre.shape[1]

    def maps(self) -> Tensor:
        """The matrices W_t, shape (count, d, d)."""
        slopes = self.matrix[:, 0, 1:]
        first = torch.cat([torch.ones_like(slopes.sum(-1, keepdim=True)), slopes], dim=-1)
        first = first / first.square().sum(-1, keepdim=True).sqrt()
        rows = torch.cat([first[:, None], self.matrix[:, 1:]], dim=1)
        return torch.exp(self.matrix[:, :1, :1]) * rows

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        maps = self.maps()
        shifts = (maps @ self.centre[..., None])[..., 0]
        # (t_1 of all atoms, then t_2 of all, ...) in one matrix product
        t = nn.functional.linear(x, maps.transpose(0, 1).flatten(0, 1), -shifts.T.flatten())
        first, *others = t.chunk(self.centre.shape[1], dim=-1)
        if self.template == "cauchy":
            k = self.frequency
            exponent = torch.log1p((first / k).square()) * (-k * k / 2)
            phase = k * k * torch.atan(first / k)
        else:
            exponent = first.square() * -0.5
            phase = self.frequency * first
        for other in others:
            exponent = torch.sub(exponent, other.square(), alpha=0.5)
        return wave(exponent, phase) if self.complex else torch.exp(exponent)


class Part(nn.Module):
    """A polynomial of atoms: z_0 = atoms(x), z_i = p(A_i z_{i-1}), values = Re(B z).

    Complex without biases if the atoms are complex, else real with biases.
    """

    def __init__(self, atoms: Atoms, widths: list[int], out_features: int, degree: int) -> None:
        super().__init__()
        self.atoms = atoms
        self.degree = degree
        self.sizes = sizes = [len(atoms.octave), *widths]
        linear: Any = ComplexLinear if atoms.complex else nn.Linear
        out: Any = RealPart if atoms.complex else nn.Linear
        biased = not atoms.complex
        self.layers = nn.ModuleList(
            [linear(sizes[i], sizes[i + 1], bias=biased) for i in range(len(widths))]
        )
        self.out = out(sizes[-1], out_features, bias=biased)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Draw weights that give each layer's sums unit variance, and no bias."""
        energy = self.atoms.energies().sum()
        for layer, size in zip(self.layers, self.sizes[1:], strict=True):
            # a complex weight has half of its variance in each part
            _draw(layer, (energy * (2 if self.atoms.complex else 1)) ** -0.5)
            energy = energy.new_tensor(size * polynomial_variance(self.degree, self.atoms.complex))
        _draw(self.out, FIRST_OUTPUT * energy**-0.5)

    @property
    def widest(self) -> int:
        axes = self.atoms.centre.shape[1]
        return max(axes * self.sizes[0], (1 + self.atoms.complex) * max(self.sizes))

    def features(self, x: Tensor) -> Tensor:
        """What the output is linear in: atoms, and polynomials of them."""
        p = complex_truncated_exp if self.atoms.complex else truncated_exp
        z = self.atoms(x)
        for layer in self.layers:
            z = p(layer(z), self.degree)
        return z

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.out(self.features(x))


def _draw(layer: nn.Module, deviation: Tensor) -> None:
    for name, parameter in layer.named_parameters():
        start = torch.randn(parameter.shape) * deviation
        parameter.copy_(torch.zeros_like(start) if name.endswith("bias") else start)


def polynomial_variance(degree: int, is_complex: bool) -> float:
    """Mean square of z + ... + z^K/K! for normal z of unit variance, circular if complex."""
    powers = range(1, degree + 1)
    if is_complex:  # different powers are uncorrelated, and E|z|^2k = k!
        return sum(1 / math.factorial(k) for k in powers)
    even = [(j, k) for j in powers for k in powers if (j + k) % 2 == 0]
    return sum(
        math.prod(range(1, j + k, 2)) / (math.factorial(j) * math.factorial(k)) for j, k in even
    )
