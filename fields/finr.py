"""F-INR: one network per axis, multiplied as a tensor decomposition.

S. Vemuri, T. Buechner, J. Denzler, "F-INR: Functional Tensor Decomposition for Implicit Neural
Representations", WACV 2026, arXiv:2503.21507; with the authors' image demo (CP) and their earlier
code for TT and Tucker, "Functional Tensor Decompositions for Physics-Informed Neural Networks",
ICPR 2024.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import base as contract
from fields.base import (
    Field,
    FieldError,
    SignalStatistics,
    StoredTensor,
    check_axes,
    one_each,
    one_of,
    points_per_tile,
    positive,
    probes,
    whole,
)
from fields.compose import NO_OPTIONS, build, options_each, record, stored_in
from fields.grid import Grid, centres

MAX_AXES = 5
MAX_RANK = 1 << 16
MAX_HEADS = 1 << 20
MAX_CORE = 1 << 24
"""Numbers in Tucker's core: the product of its ranks and of the channels."""

SMALLEST = 1e-3
"""Directions of a network's hidden layers weaker than this, relative to the strongest, count as
none: to use them would take huge weights."""

DECOMPOSITIONS = ("cp", "tt", "tucker")


class Finr(Field):
    """Networks phi_i of one coordinate each, for i = 1..d, multiplied and summed over ranks.

    - CP: y(x) = sum over r of phi_1(x_1)_r ... phi_d(x_d)_r, r = 1..R.
    - TT: y(x) = G_1(x_1) G_2(x_2) ... G_d(x_d), a product of matrices that the networks give:
      1 x R_1, R_1 x R_2, ..., R_{d-1} x 1.
    - Tucker: y(x) = sum over k of C_{k_1..k_d} phi_1(x_1)_{k_1} ... phi_d(x_d)_{k_d} with a
      trained core C of R_1 x ... x R_d.

    On a lattice of n_1 x ... x n_d points the networks see n_1 + ... + n_d coordinates; what is
    left is a matrix product. Ranks, not networks, bound what can be said: in two axes no rendering
    has a channel of matrix rank above R. Values start at one root mean square over the domain,
    whatever the ranks, the number of axes and the networks.

    Args:
        in_features: Coordinates per point, d, 1 to 5.
        out_features: Values per point, c.
        decomposition: "cp", "tt" or "tucker".
        rank: R. For "tt" one number, or a list of d - 1; for "tucker" one number, or a list of d.
        base: Registered name of the networks, one for all axes or a list of one per axis. Their
            last layer must be linear. Each axis has a network of its own either way.
        base_options: Hyperparameters of the networks, or a list of one set per axis.
        channel_factors: "separate": every channel has factors of its own (the authors' heads of
            R c values). "shared": channels share them and differ in one factor more: in CP a
            trained c x R matrix; in TT G_d of R_{d-1} x c; in Tucker a core of c x R_1 x ... x R_d.
        encoding: "none", or "pe": networks see sin(2^k x) and cos(2^k x), k = lowest..highest, in
            place of x. The authors' PE100 has 99 octaves, of which most are constant over the
            domain or, in float32, pseudo-random from sample to sample.
        lowest: First octave of the encoding.
        highest: Its last octave.
        init: "balanced", or for "tt" and "tucker" "svd", ours: where a signal is known, the
            networks' last layers start so that the values are the signal's truncated TT-SVD
            (I. Oseledets, SIAM J. Sci. Comput. 33(5), 2011) or HOSVD (L. De Lathauwer et al.,
            SIAM J. Matrix Anal. Appl. 21(4), 2000), among all that the networks' hidden layers can
            give as they start. Needs networks whose last layer is one linear map.
        level: Root mean square of the values at the balanced start. Fits that begin lower end
            better: on the photograph camera at 256 x 256, CP of rank 64, 150 steps at a rate of
            1e-3, level 0.1 against 1 gives 27.2 against 23.6 dB with one sine layer per axis,
            24.8 against 21.1 dB with three, 19.8 against 17.0 dB with ReLU behind 10 octaves.

    Raises:
        FieldError: a hyperparameter is out of range, also one of a network's own.
    """

    smoothness = math.inf

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        decomposition: Literal["cp", "tt", "tucker"] = "cp",
        rank: int | list[int] = 128,
        base: str | list[str] = "siren",
        base_options: dict[str, Any] | list[Any] = NO_OPTIONS,
        channel_factors: Literal["separate", "shared"] = "separate",
        encoding: Literal["none", "pe"] = "none",
        lowest: int = -49,
        highest: int = 49,
        init: Literal["balanced", "svd"] = "balanced",
        level: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features)
        d = whole("in_features", in_features, 1, MAX_AXES)
        self.decomposition = one_of("decomposition", decomposition, DECOMPOSITIONS)
        self.ranks = _ranks(decomposition, rank, d)
        shared = one_of("channel_factors", channel_factors, ("separate", "shared")) == "shared"
        self._groups = 1 if shared else out_features
        self._channels = out_features // self._groups
        lowest = whole("lowest", lowest, -100, 100)
        highest = whole("highest", highest, lowest, 100)
        encoded = one_of("encoding", encoding, ("none", "pe")) == "pe"
        self._octaves = range(lowest, highest + 1) if encoded else range(0)

        self.init = one_of("init", init, ("balanced", "svd"))
        if init == "svd" and decomposition == "cp":
            raise FieldError("init is 'svd': a CP has none; give decomposition tt or tucker")

        self.level = positive("level", level, 1e6)

        names = one_each("base", base, d)
        options = options_each("base_options", base_options, d)
        self._shapes = self._factor_shapes()
        heads = [self._groups * math.prod(shape) for shape in self._shapes]
        if max(heads) > MAX_HEADS:
            raise FieldError(
                f"rank is {rank!r}: a network would have {max(heads):,} outputs, more than "
                f"{MAX_HEADS:,}: give a smaller one"
            )
        features = 2 * len(self._octaves) or 1
        self.axes = nn.ModuleList(
            build(self, "base", name, features, n, given)
            for name, n, given in zip(names, heads, options, strict=True)
        )
        record(self, "base", self.networks)
        for name, network in zip(names, self.networks, strict=True):
            try:
                network.output_parameters()
                if init == "svd":
                    _last_map(network)
            except FieldError as error:
                raise FieldError(f"base {name}: {error}") from None
        if decomposition == "tucker":
            core = (out_features, *self.ranks)
            if math.prod(core) > MAX_CORE:
                raise FieldError(
                    f"rank is {rank!r}: the core of {out_features} channels would hold "
                    f"{math.prod(core):,} numbers, more than {MAX_CORE:,}: give smaller ones"
                )
            self.core = nn.Parameter(torch.empty(core))
            for channel in self.core.detach():
                nn.init.orthogonal_(channel.view(len(channel), -1))
                channel.mul_(1 / math.sqrt(min(len(channel), channel.numel() // len(channel))))
        self.register_parameter("mixing", None)
        if decomposition == "cp" and shared:
            self.mixing = nn.Parameter(torch.randn(out_features, *self.ranks))
        self.smoothness = min(network.smoothness for network in self.networks)
        self.extends = all(network.extends for network in self.networks)
        self._kept: dict[int, tuple[Tensor, Tensor]] | None = None
        self._balance()

    @property
    def networks(self) -> list[Field]:
        """The networks phi_1 ... phi_d."""
        return [cast(Field, network) for network in self.axes]

    @property
    def widest(self) -> int:
        # a lattice's other intermediates are bounded by `on_grid` itself
        return self.out_features

    @property
    def drawn(self) -> int:
        return sum(network.drawn for network in self.networks)

    def _factor_shapes(self) -> list[tuple[int, ...]]:
        """Shape of what each network gives for one coordinate and group of channels."""
        if self.decomposition == "tt":
            ranks = (1, *self.ranks, self._channels)
            return list(itertools.pairwise(ranks))
        if self.decomposition == "tucker":
            return [(rank,) for rank in self.ranks]
        return [self.ranks] * self.in_features

    @torch.no_grad()
    def _balance(self) -> None:
        """Scale each network so that values have the mean square level^2.

        Heads are independent with mean 0 over the draw of weights, so that the mean square of a
        sum of products is the number of terms times the product of the factors' mean squares:
        R in CP, where those of the channel matrix are 1; R_1 ... R_{d-1} in TT; in Tucker the sum
        of the core's squares, which is 1 for each channel. The networks share it alike.
        """
        terms = 1 if self.decomposition == "tucker" else math.prod(self.ranks)
        rms = (self.level / math.sqrt(terms)) ** (1 / self.in_features)
        for axis, network in enumerate(self.networks):
            network.rescale(rms)
            parameters = network.output_parameters()
            if self._octaves and not parameters[0].is_meta:  # where its inputs really lie
                values = self._heads(axis, probes(1)[:, 0].to(parameters[0]))
                factor = rms / values.double().square().mean().sqrt().clamp(min=1e-12)
                for parameter in parameters:
                    parameter.mul_(factor)

    def _heads(self, axis: int, x: Float[Tensor, " n"]) -> Float[Tensor, "n heads"]:
        """Outputs of one network, in tiles of bounded memory."""
        network = self.networks[axis]
        if not self._octaves:
            return network.on_grid([x])
        # powers of two: products with them are exact
        octaves = torch.tensor([2.0**k for k in self._octaves], dtype=x.dtype, device=x.device)
        tiles = []
        for tile in x.split(points_per_tile(network)):
            phase = tile[:, None] * octaves
            tiles.append(network(torch.cat([phase.sin(), phase.cos()], dim=-1)))
        return torch.cat(tiles)

    def _factor(self, axis: int, x: Float[Tensor, " n"]) -> Float[Tensor, "g n *shape"]:
        """What one network contributes at its coordinates, for each group of channels."""
        kept = self._kept
        if torch.is_grad_enabled():
            kept = None  # every backward pass needs a graph of its own
        if kept is not None and axis in kept and kept[axis][0] is x:
            return kept[axis][1]
        heads = self._heads(axis, x).unflatten(-1, (self._groups, *self._shapes[axis]))
        factor = heads.movedim(1, 0)
        if self.decomposition == "cp" and axis == self.in_features - 1:
            # the sum over ranks is a product with a matrix of R x (channels of the group)
            factor = factor[..., None]
            factor = factor if self.mixing is None else factor * self.mixing.T
        if kept is not None:
            kept[axis] = (x, factor)
        return factor

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Without gradients, factors of an axis that comes again are not evaluated again."""
        with contextlib.ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(network.one_step())
            outermost = self._kept is None
            if outermost:
                self._kept = {}
            try:
                yield
            finally:
                if outermost:
                    self._kept = None

    def _start(self, like: Tensor) -> Float[Tensor, "g 1 state"]:
        """What the factors are multiplied to, axis by axis: the state of no axis at all."""
        if self.decomposition == "tucker":
            # (channels, R_1, ...) -> (groups, 1, R_1 ... R_d channels): each axis takes the first
            core = self.core.unflatten(0, (self._groups, self._channels))
            return core.movedim(1, -1).flatten(1)[:, None]
        size = self.ranks[0] if self.decomposition == "cp" else 1
        return like.new_ones(self._groups, 1, size)

    def _join(self, state: Tensor, factor: Tensor, axis: int, *, lattice: bool) -> Tensor:
        """Multiply a factor to the state of the axes before it.

        Args:
            state: Shape (groups, p, size).
            factor: Shape (groups, n, *its shape).
            axis: Number of the factor's axis.
            lattice: Whether all pairs of the p and n points are meant, or n = p points.

        Returns:
            Shape (groups, p n, size), or (groups, p, size) for points.
        """
        if self.decomposition == "tucker":
            state = state.unflatten(-1, (self.ranks[axis], -1))
            rule = "gpab,gna->gpnb" if lattice else "gpab,gpa->gpb"
        elif self.decomposition == "cp" and axis < self.in_features - 1:
            rule = "gpa,gna->gpna" if lattice else "gpa,gpa->gpa"
        else:
            rule = "gpa,gnab->gpnb" if lattice else "gpa,gpab->gpb"
        joined = torch.einsum(rule, state, factor)
        return joined.flatten(1, 2) if lattice else joined

    def _room(self, axis: int) -> int:
        """Points whose states after an axis fill a tile."""
        if self.decomposition == "tucker":
            size = math.prod(self.ranks[axis + 1 :]) * self._channels
        else:
            size = self.ranks[0] if self.decomposition == "cp" else self._shapes[axis][1]
        return max(1, contract.TILE_BYTES // (4 * self._groups * size))

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        points = coords.reshape(-1, self.in_features)
        tiles = []
        heads = max(network.out_features for network in self.networks) * self._channels
        room = min(self._room(axis) for axis in range(self.in_features))
        for tile in points.split(max(1, min(room, contract.TILE_BYTES // (4 * heads)))):
            state = self._start(tile)
            for i, x in enumerate(tile.unbind(-1)):
                # all points have the state of no axis in common
                state = self._join(state, self._factor(i, x), i, lattice=i == 0)
            tiles.append(state.movedim(0, 1).flatten(1))
        return torch.cat(tiles).reshape(*coords.shape[:-1], self.out_features)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """Each network on its own axis, then products axis by axis, in tiles of bounded memory.

        The last axis is the one of a matrix product with all others, so no state of all axes is
        ever there, only its product.
        """
        check_axes(self, axes)
        factors = [self._factor(i, axis) for i, axis in enumerate(axes)]
        shape = [len(axis) for axis in axes]
        tiles = [
            self._join(state, factors[-1], len(axes) - 1, lattice=True)
            for state in self._states(self._start(factors[0]), factors[:-1], 0)
        ]
        values = tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=1)
        return values.movedim(0, 1).reshape(*shape, self.out_features)

    def _states(self, state: Tensor, factors: list[Tensor], axis: int) -> Iterator[Tensor]:
        """States of the product of all factors, tile by tile in row-major order."""
        if not factors:
            yield state
            return
        first, *others = factors
        lengths = [max(1, factor.shape[1]) for factor in others]
        room = min(
            max(1, self._room(axis + i) // math.prod(lengths[:i])) for i in range(len(factors))
        )
        rows = max(1, room // max(1, first.shape[1]))
        for part in state.split(rows, dim=1):
            for piece in first.split(room, dim=1):
                joined = self._join(part, piece, axis, lattice=True)
                yield from self._states(joined, others, axis + 1)

    @torch.no_grad()
    def adapt(self, statistics: SignalStatistics) -> None:
        """Let each network see its axis: a line whose spectrum is that of all lines along it.

        The line has the signal's channels, and for spectrum the mean magnitudes. A grid keeps its
        random features: there is no signal that a factor could start from. Networks behind an
        encoding do not live on the axis and see nothing.

        Raises:
            FieldError: the signal is not of this field's axes and channels.
        """
        samples = statistics.samples
        if (samples.ndim - 1, samples.shape[-1]) != (self.in_features, self.out_features):
            raise FieldError(
                f"the signal has shape {tuple(samples.shape)}: expected {self.in_features} axes "
                f"and {self.out_features} channels"
            )
        for axis, network in enumerate(self.networks):
            if self._octaves or isinstance(network, Grid):
                continue
            n, channels = samples.shape[axis], samples.shape[-1]
            lines = samples.movedim(axis, -2).reshape(-1, n, channels)
            spectrum = torch.fft.rfft(lines.double(), dim=1).abs().mean(0)
            line = torch.fft.irfft(spectrum, n=n, dim=0)
            network.adapt(SignalStatistics(line.to(samples)))
        record(self, "base", self.networks)
        self._balance()
        if self.init == "svd":
            self._decompose(samples)

    def _decompose(self, samples: Float[Tensor, "*shape c"]) -> None:
        """Set the last layers, and Tucker's core, to the signal's truncated decomposition.

        The signal is projected on what the hidden layers span along each axis, and the small
        array of its coefficients is decomposed.
        """
        bases = [_Span(self, axis, n) for axis, n in enumerate(samples.shape[:-1])]
        small = samples.to(next(self.parameters()))
        for axis, span in enumerate(bases):
            small = torch.tensordot(small, span.basis, dims=([axis], [0])).movedim(-1, axis)
        # (..., channels) -> for each group of channels an array whose last axis is its channels
        groups = small.unflatten(-1, (self._groups, self._channels)).movedim(-2, 0)
        parts = [
            _tt_svd(group, self.ranks) if self.decomposition == "tt" else _hosvd(group, self.ranks)
            for group in groups
        ]
        for axis, span in enumerate(bases):
            # coefficients in the orthonormal basis: (span, groups x heads)
            heads = torch.stack([factors[axis] for factors in parts], 1).flatten(1)
            span.set(
                heads * math.sqrt(len(span.basis)) if self.decomposition == "tucker" else heads
            )
        if self.decomposition == "tucker":
            # heads of mean square 1, as a fit without a signal starts
            size = math.prod(samples.shape[:-1]) ** 0.5
            cores = torch.stack([factors[-1].movedim(-1, 0) for factors in parts])
            self.core.copy_(cores.flatten(0, 1) / size)

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """No rank above that which any array of the shape has."""
        return {"rank": min(128, math.prod(shape) // max(shape))}

    def output_parameters(self) -> list[nn.Parameter]:
        return self.networks[-1].output_parameters()

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The networks' own; Tucker's core moves as slowly as its many entries are small."""
        own = [p for _, p in self.named_parameters(recurse=False)]
        scale = math.prod(self.ranks) ** -0.5 if self.decomposition == "tucker" else 1.0
        return [(own, scale), *(g for network in self.networks for g in network.learning_rates())]

    def stored_parameters(self) -> list[StoredTensor]:
        """The core or the matrix of channels, then the networks, axis by axis."""
        own = [StoredTensor(n, p) for n, p in self.named_parameters(recurse=False)]
        return own + stored_in("axes", self.networks)

    def regenerate(self) -> None:
        for network in self.networks:
            network.regenerate()


class _Span:
    """What the hidden layers of one network span along an axis of n samples.

    Attributes:
        basis: Orthonormal columns, shape (n, size).
    """

    def __init__(self, field: Finr, axis: int, n: int) -> None:
        self.out = _last_map(field.networks[axis])
        inputs: list[Tensor] = []
        hook = self.out.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        field._heads(axis, centres(n).to(self.out.weight))
        hook.remove()
        hidden = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])
        features = torch.cat([hidden, hidden.new_ones(n, 1)], dim=1).double()
        u, s, v = torch.linalg.svd(features, full_matrices=False)
        known = int((s > SMALLEST * s[0]).sum())
        self.basis = u[:, :known].to(hidden)
        self._solve = v[:known].T / s[:known]

    def set(self, coefficients: Float[Tensor, "size heads"]) -> None:
        """Set the last layer so that its outputs are the basis times these coefficients."""
        weight = self._solve @ coefficients.double()
        self.out.weight.copy_(weight[:-1].T)
        self.out.bias.copy_(weight[-1])


def _last_map(network: Field) -> nn.Linear:
    """The linear map with bias that a network ends in.

    Raises:
        FieldError: it ends in something else.
    """
    outer = {id(parameter) for parameter in network.output_parameters()}
    for module in network.modules():
        inner = {id(parameter) for parameter in module.parameters()}
        if isinstance(module, nn.Linear) and module.bias is not None and inner == outer:
            return module
    raise FieldError("its last layer is not one linear map, which init 'svd' needs")


def _leading(matrix: Float[Tensor, "m n"], rank: int) -> tuple[Tensor, Tensor]:
    """Factors of a matrix's best approximation of a rank, shapes (m, rank) and (rank, n).

    Beyond the matrix's own rank the left factor is random, so that the rest may grow from 0.
    """
    wide = matrix.double()
    by_rows = len(matrix) <= matrix.shape[1]
    gram = wide @ wide.T if by_rows else wide.T @ wide
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]
    left, right = (vectors, vectors.T @ wide) if by_rows else (wide @ vectors, vectors.T)
    missing = rank - vectors.shape[1]
    if missing:
        size = left.square().mean().sqrt()
        left = torch.cat([left, size * torch.randn(len(left), missing).to(left)], dim=1)
        right = torch.cat([right, right.new_zeros(missing, right.shape[1])])
    return left.to(matrix), right.to(matrix)


def _tt_svd(array: Float[Tensor, "*shape k"], ranks: Sequence[int]) -> list[Tensor]:
    """Cores of an array's TT-SVD, each of shape (n, R_{i-1}, R_i), the last one (n, R_{d-1}, k).

    Neighbours are scaled so that each rank index has the same norm on both of its sides.
    """
    cores, rest = [], array[None]
    for rank in ranks:
        before, n = rest.shape[:2]
        left, right = _leading(rest.flatten(2).flatten(0, 1), rank)
        cores.append(left.view(before, n, rank))
        rest = right.view(rank, *rest.shape[2:])
    cores.append(rest)
    for _ in range(4):
        for i in range(len(ranks)):
            norms = cores[i].norm(dim=(0, 1)), cores[i + 1].flatten(1).norm(dim=1)
            ratio = (norms[1] / norms[0].clamp(min=1e-12)).sqrt()
            ratio = ratio.where(ratio > 0, torch.ones_like(ratio))
            cores[i] = cores[i] * ratio
            cores[i + 1] = cores[i + 1] / ratio[:, None, None]
    return [core.movedim(1, 0) for core in cores]


def _hosvd(array: Float[Tensor, "*shape k"], ranks: Sequence[int]) -> list[Tensor]:
    """Factors of an array's HOSVD, shapes (n, R_i), then its core, (R_1, ..., R_d, k)."""
    factors, core = [], array
    for axis, rank in enumerate(ranks):
        lines = array.movedim(axis, 0).flatten(1)
        left, _ = _leading(lines, rank)
        known = min(rank, *lines.shape)
        # orthonormal, also where `_leading` found the rows' side; what is beyond the rank is not
        left = torch.cat([torch.linalg.qr(left[:, :known])[0], left[:, known:]], dim=1)
        factors.append(left)
        part = torch.tensordot(core, left[:, :known], dims=([axis], [0])).movedim(-1, axis)
        missing = part.new_zeros(*part.shape[:axis], rank - known, *part.shape[axis + 1 :])
        core = torch.cat([part, missing], dim=axis)
    return [*factors, core]


def _ranks(decomposition: str, rank: Any, d: int) -> tuple[int, ...]:
    """The ranks of a decomposition of d axes, from one number or a list."""
    count = {"cp": 1, "tt": d - 1, "tucker": d}[decomposition]
    given = rank if isinstance(rank, list) else [rank] * count
    if isinstance(rank, list) and (decomposition == "cp" or len(rank) != count):
        wanted = "one number" if decomposition == "cp" else f"one number, or a list of {count}"
        raise FieldError(f"rank is {rank!r}: give {wanted}")
    whole("rank", given[0] if given else rank, 1, MAX_RANK)
    return tuple(whole("rank", value, 1, MAX_RANK) for value in given)
