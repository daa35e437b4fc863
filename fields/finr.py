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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields import base as contract
from fields import decompositions as svd
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
from fields.compose import (
    NO_OPTIONS,
    build,
    options_each,
    record,
    scaled_options,
    stored_in,
)
from fields.cosines import Cosines
from fields.grid import Grid, centres

MAX_AXES = 5
MAX_RANK = 1 << 16
MAX_HEADS = 1 << 20
MAX_CORE = 1 << 24
"""Numbers in Tucker's core: the product of its ranks and of the channels."""

CORE_SHARE = 0.2
"""Numbers in a Tucker's core per sample of a signal, where no ranks are given."""

LARGEST_CORE = 1 << 22

LARGEST_MIDDLE = 1 << 23
"""Numbers of a TT's network between its first and its last, where a PSNR chooses the ranks."""

LARGEST_REST = 1 << 26
"""Numbers of the array that a TT-SVD leaves of a signal behind its first axis."""

MIN_UNITS = 8

START_DB = 6.0
"""By how much a PSNR to start from rises where units are doubled: a field of twice as many holds
about four times the numbers, and films and volumes need twice the bytes for 3 dB."""

LINE_NUMBERS = 1 << 23
"""A spectrum is the mean of lines with no more numbers than so many."""

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
        start_psnr: Above 0, for init "svd" with shared channels: PSNR in dB (values in [-1, 1])
            that the start has. Ranks are then chosen for it, as far as the networks span the signal
            and a Tucker's core keeps within 2^22 numbers, a TT's networks within 2^23; `rank`
            stands until the signal is known.

    Raises:
        FieldError: a hyperparameter is out of range, also one of a network's own.
    """

    smoothness = math.inf
    training_only = (
        "init",
        "level",
        "start_psnr",
    )
    sizes = ("rank",)

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
        start_psnr: float = 0.0,
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
        self.start_psnr = 0.0 if start_psnr == 0 else positive("start_psnr", start_psnr, 300.0)
        if self.start_psnr and (init, channel_factors) != ("svd", "shared"):
            raise FieldError(
                f"start_psnr is {start_psnr!r}: it is for init svd with shared channel_factors"
            )

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
        axes, channels = len(statistics.shape), statistics.channels
        if (axes, channels) != (self.in_features, self.out_features):
            raise FieldError(
                f"the signal has shape {statistics.size}: expected {self.in_features} axes "
                f"and {self.out_features} channels"
            )
        for axis, network in enumerate(self.networks):
            if self._octaves or isinstance(network, Cosines | Grid):
                continue
            n = statistics.shape[axis]
            lines = _some_lines(statistics, axis)
            spectrum = torch.fft.rfft(lines.double(), dim=1).abs().mean(0)
            line = torch.fft.irfft(spectrum, n=n, dim=0)
            network.adapt(SignalStatistics(line.to(lines)))
        record(self, "base", self.networks)
        self._balance()
        if self.init == "svd":
            spans = [_Span(self, axis, n) for axis, n in enumerate(statistics.shape)]
            if self.decomposition == "tt":
                self._start_tt(statistics, spans)
            else:
                self._start_tucker(statistics, spans)

    def _start_tt(self, statistics: SignalStatistics, spans: list[_Span]) -> None:
        """Set the last layers to the signal's truncated TT-SVD, within what the hidden layers span.

        The signal is looked at part by part, down to an array with a rank in place of its first
        axis.
        """
        bases = [span.basis for span in spans]
        sizes = [basis.shape[1] for basis in bases]
        allowed = self._allowed(statistics) / max(1, len(sizes) - 1)
        # neither that array nor a network in the middle above its bound
        rest = LARGEST_REST // (math.prod(sizes[1:]) * self._channels)
        first = min(rest, math.isqrt(LARGEST_MIDDLE // max([1, *sizes[1:-1]])))
        found = list(self.ranks)

        def rank_of(i: int, energies: list[float]) -> int:
            if self.start_psnr:
                most = first if i == 0 else LARGEST_MIDDLE // (sizes[i] * found[i - 1])
                found[i] = svd.rank_within(energies, allowed, max(1, most))
            return found[i]

        parts = [svd.tensor_train(statistics, bases, rank_of, group) for group in self._slices()]
        if self.start_psnr:
            self._take_ranks(found)
        for axis, span in enumerate(spans):
            # coefficients in the orthonormal basis: (span, groups x heads)
            span.set(torch.stack([cores[axis] for cores in parts], 1).flatten(1))

    def _start_tucker(self, statistics: SignalStatistics, spans: list[_Span]) -> None:
        """Set the last layers and the core to the signal's truncated HOSVD, part by part.

        Directions are those within what the hidden layers span along each axis.
        """
        bases = [span.basis for span in spans]
        parts = [
            [svd.factor(statistics, bases, axis, group) for axis in range(len(bases))]
            for group in self._slices()
        ]
        if self.start_psnr:
            energies = [factor.energies for factor in parts[0]]
            most = LARGEST_CORE // self.out_features
            found = svd.fewest_ranks(energies, self._allowed(statistics), most)
            self._take_ranks(found)
        for axis, span in enumerate(spans):
            heads = torch.stack([own[axis].heads(self.ranks[axis]) for own in parts], 1)
            # of mean square 1, as a fit without a signal starts
            span.set(heads.flatten(1) * math.sqrt(len(span.basis)))
        cores = []
        for group, own in zip(self._slices(), parts, strict=True):
            columns = [f.columns(r) for f, r in zip(own, self.ranks, strict=True)]
            small = svd.core(statistics, columns, group).movedim(-1, 0)
            # what is beyond the rank of a span is 0
            lengths = zip(reversed(self.ranks), reversed(small.shape[1:]), strict=True)
            cores.append(nn.functional.pad(small, [n for r, k in lengths for n in (0, r - k)]))
        self.core.copy_(torch.cat(cores) / math.prod(statistics.shape) ** 0.5)

    def _slices(self) -> list[slice]:
        """The channels of each group."""
        k = self._channels
        return [slice(i * k, (i + 1) * k) for i in range(self._groups)]

    def _allowed(self, statistics: SignalStatistics) -> float:
        """The squared error of all samples at `start_psnr`."""
        return math.prod(statistics.size) * 4 * 10 ** (-self.start_psnr / 10)

    def _take_ranks(self, ranks: list[int]) -> None:
        """Take other ranks: last layers and a core of other sizes, yet to be filled."""
        self.ranks = tuple(ranks)
        self._shapes = self._factor_shapes()
        for network, shape in zip(self.networks, self._shapes, strict=True):
            out = _last_map(network)
            network.out_features = out.out_features = math.prod(shape)
            out.weight = nn.Parameter(out.weight.new_zeros(out.out_features, out.in_features))
            out.bias = nn.Parameter(out.bias.new_zeros(out.out_features))
        if self.decomposition == "tucker":
            self.core = nn.Parameter(self.core.new_zeros(self.out_features, *ranks))
        self.settle("rank", ranks)

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """No rank above that which any array of the shape has."""
        return {"rank": min(128, math.prod(shape) // max(shape))}

    @classmethod
    def complete(cls, shape: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
        """For a start as the signal's SVD, also networks and ranks for its shape.

        One sine layer per axis of n samples has 3/2 n units and an omega of 3/2 n, which is 0.95 of
        Nyquist's (pi/2 per sample): on a CT and an MR volume at ranks of 96 this is within 0.2 dB
        of what any networks could give, and half the units or less omega cost 1 to 10 dB. A
        Tucker's core gets `CORE_SHARE` of the number of samples, up to `LARGEST_CORE`. Cosines have
        as many terms as an axis has samples, 1,024 at most.
        """
        whole_set = super().complete(shape, given)
        options = given.get("base_options", NO_OPTIONS)
        base = given.get("base", "siren")
        if given.get("init") != "svd" or base not in ("cosines", "siren"):
            return whole_set
        if isinstance(options, dict):
            suited = _suited_cosines if base == "cosines" else _suited_sines
            whole_set["base_options"] = [suited(n) | options for n in shape]
        if "rank" not in given and given.get("start_psnr"):
            whole_set["rank"] = 1  # until the signal is known
        elif "rank" not in given and given.get("decomposition") == "tucker":
            whole_set["rank"] = _tucker_ranks(shape)
        return whole_set

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """Ranks, and units of the networks where they do not start as the signal's SVD.

        For such a start the networks are to span each axis, whatever the ranks; a PSNR that chooses
        the ranks changes in place of them.
        """
        if given.get("start_psnr"):
            start = max(1.0, given["start_psnr"] + START_DB * math.log2(factor))
            return dict(given) | {"start_psnr": start}
        whole_set = super().scaled(given, factor)
        if given.get("init") == "svd":
            return whole_set
        parts = given.get("base", "siren"), given.get("base_options", NO_OPTIONS)
        return whole_set | {"base_options": scaled_options(*parts, factor)}

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


def _some_lines(statistics: SignalStatistics, axis: int) -> Float[Tensor, "lines n c"]:
    """Lines along an axis: all of them, or of a large signal some, evenly spread."""
    others = len(statistics.shape) - 1
    excess = math.prod(statistics.size) / LINE_NUMBERS
    step = max(1, math.ceil(excess ** (1 / max(1, others))))
    place = [slice(None, None, step)] * (others + 1)
    place[axis] = slice(None)
    lines = statistics.part(tuple(place)).movedim(axis, -2)
    return lines.reshape(-1, *lines.shape[-2:])


def _suited_sines(n: int) -> dict[str, Any]:
    """Hyperparameters of a sine layer for an axis of n samples."""
    units = max(MIN_UNITS, round(1.5 * n))
    return {"hidden_features": units, "hidden_layers": 0, "first_omega": float(units)}


def _suited_cosines(n: int) -> dict[str, Any]:
    """Those of a cosine series."""
    return Cosines.suggest([n])


def _tucker_ranks(shape: Sequence[int]) -> list[int]:
    """Equal ranks, as far as the axes have them, for a core of a share of the samples."""
    room = min(LARGEST_CORE, CORE_SHARE * math.prod(shape))
    ranks = list(shape)
    for left, axis in zip(
        range(len(shape), 0, -1), sorted(range(len(shape)), key=shape.__getitem__), strict=True
    ):
        ranks[axis] = max(1, min(shape[axis], round(room ** (1 / left))))
        room = max(1.0, room / ranks[axis])
    return ranks


def _ranks(decomposition: str, rank: Any, d: int) -> tuple[int, ...]:
    """The ranks of a decomposition of d axes, from one number or a list."""
    count = {"cp": 1, "tt": d - 1, "tucker": d}[decomposition]
    given = rank if isinstance(rank, list) else [rank] * count
    if isinstance(rank, list) and (decomposition == "cp" or len(rank) != count):
        wanted = "one number" if decomposition == "cp" else f"one number, or a list of {count}"
        raise FieldError(f"rank is {rank!r}: give {wanted}")
    whole("rank", given[0] if given else rank, 1, MAX_RANK)
    return tuple(whole("rank", value, 1, MAX_RANK) for value in given)
