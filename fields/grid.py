"""Multi-resolution feature grid under a small MLP.

After T. Mueller, A. Evans, C. Schied, A. Keller, "Instant Neural Graphics Primitives with a
Multiresolution Hash Encoding", ACM TOG 41(4), 2022, arXiv:2201.05989: levels of features, dense
where a level fits its table and hashed (eq. 4) where it does not, interpolated linearly along
each axis and fed to an MLP. Three things differ, on purpose. Nodes sit at cell centres, so that
the finest level of an image lies on its pixels. Resolutions halve from the finest level down, per
axis. A linear map runs beside the MLP and starts as the synthesis of a Laplacian pyramid (P. Burt,
E. Adelson, 1983), so that a fit starts near the signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import Field, FieldError, SignalStatistics, StoredTensor, check_axes, whole
from fields.kernels import reference
from fields.kernels.plan import GridPlan, Layer, Mlp, is_dense

RATE_SCALE = 0.02
"""Features well below this (in units of a signal in [-1, 1]) cost nearly nothing to store."""


GAIN_POINTS = 512


class Grid(Field):
    """Sum of a linear map and a small ReLU MLP over interpolated multi-resolution features.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point, c.
        resolution: Nodes of the finest level, one number for all axes or one per axis; level k
            from the top has ceil(resolution / 2^k).
        levels: Number of levels L.
        features: Features per node and level, F; 0 means as many as values per point.
        log2_table: A level with more than 2^log2_table nodes is hashed into a table of that size.
        hidden_features: Width of the MLP.
        hidden_layers: Hidden layers of the MLP; 0 leaves the linear map alone.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    smoothness = 0  # linear interpolation: continuous, with kinks at the cell faces
    extends = False
    sizes = ("resolution",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        resolution: int | list[int] = 256,
        levels: int = 7,
        features: int = 0,
        log2_table: int = 24,
        hidden_features: int = 16,
        hidden_layers: int = 1,
    ) -> None:
        super().__init__(in_features, out_features)
        whole("in_features", in_features, 1, len(reference.PRIMES))
        finest = [resolution] * in_features if isinstance(resolution, int) else list(resolution)
        if len(finest) != in_features:
            raise FieldError(f"resolution is {resolution!r}: give {in_features} numbers, or one")
        finest = [whole("resolution", n, 1, 1 << 20) for n in finest]
        levels = whole("levels", levels, 1, 24)
        width = whole("features", features, 0, 64) or out_features
        capacity = 1 << whole("log2_table", log2_table, 4, 27)
        hidden = whole("hidden_features", hidden_features, 1, 1024)
        depth = whole("hidden_layers", hidden_layers, 0, 8)

        self.resolutions = [
            tuple(-(-n // 2**k) for n in finest) for k in reversed(range(levels))
        ]  # coarse first
        self.tables = nn.ParameterList()
        for nodes in self.resolutions:
            shape = nodes if math.prod(nodes) <= capacity else (capacity,)
            self.tables.append(nn.Parameter(torch.empty(width, *shape).uniform_(-1e-4, 1e-4)))
        self.linear = nn.Linear(levels * width, out_features)
        self._hidden = hidden if depth else 0
        maps: list[nn.Module] = []
        for i in range(depth):
            maps += [nn.Linear(hidden if i else levels * width, hidden), nn.ReLU()]
        self.mlp = nn.Sequential(*maps, nn.Linear(hidden, out_features)) if depth else None

    @property
    def widest(self) -> int:
        width = self.linear.in_features
        return max(width, self._hidden)

    def plan(self) -> GridPlan:
        linear = Layer(self.linear.weight, self.linear.bias)
        maps = [m for m in self.mlp or () if isinstance(m, nn.Linear)]
        layers = [Layer(m.weight, m.bias, "relu") for m in maps[:-1]]
        layers += [Layer(m.weight, m.bias) for m in maps[-1:]]
        mlp = Mlp(tuple(layers)) if layers else None
        return GridPlan(tuple(self.tables), tuple(self.resolutions), linear, mlp)

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        points = coords.reshape(-1, self.in_features)
        return reference.grid(self.plan(), points).reshape(*coords.shape[:-1], self.out_features)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """Dense levels are interpolated one axis at a time, at the cost of a resize."""
        check_axes(self, axes)
        if self.engine is not None:
            return self.engine.on_grid(self, axes)
        return reference.grid_on_lattice(self.plan(), axes)

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """One node per sample; coarser levels down to about 8 nodes along the longest axis."""
        levels = max(1, math.ceil(math.log2(max(shape) / 8)) + 1)
        return {"resolution": list(shape), "levels": min(levels, 16)}

    @torch.no_grad()
    def adapt(self, statistics: SignalStatistics) -> None:
        """Start as the signal's Laplacian pyramid, in the basis of its principal colours.

        Every level holds what the coarser ones have left over, averaged to its nodes; the linear
        map sums them and turns them back into channels; the MLP starts at zero output. Hashed
        levels start empty. Where there are fewer features than channels, the leading principal
        components are kept.
        """
        samples = statistics.samples.to(self.linear.weight)
        if samples.ndim != 1 + self.in_features or samples.shape[-1] != self.out_features:
            raise FieldError(
                f"the signal has shape {tuple(samples.shape)}: expected {self.in_features} axes "
                f"and {self.out_features} channels"
            )
        flat = samples.flatten(0, -2)
        mean = flat.mean(0)
        basis = _principal_axes(flat - mean)
        width = self.linear.in_features // len(self.tables)
        used = min(width, self.out_features)

        residue = ((samples - mean) @ basis).movedim(-1, 0)
        axes = [centres(n).to(residue) for n in residue.shape[1:]]
        for table, nodes in zip(self.tables, self.resolutions, strict=True):
            table.zero_()
            if not is_dense(table, nodes):
                continue
            coarse = residue
            for i, n in enumerate(nodes):
                coarse = _average(coarse, 1 + i, n)
            table[:used] = coarse[:used]
            for i, axis in enumerate(axes):
                coarse = reference.lerp(coarse, 1 + i, axis)
            residue = residue - coarse

        self.linear.weight.zero_()
        self.linear.bias.copy_(mean)
        for level in range(len(self.tables)):
            self.linear.weight[:, level * width : level * width + used] = basis[:, :used]
        if self.mlp is not None:
            for parameter in self.mlp[-1].parameters():
                parameter.zero_()

    def rate(self) -> Tensor:
        """Sum of log2(1 + gain |feature| / RATE_SCALE) over all nodes, per finest node.

        Its pull weakens as a feature grows, so it empties the small ones and spares the large. The
        gain is how strongly the output follows a feature: without it, the maps would grow and the
        features shrink, at no cost, until the rate meant nothing.
        """
        gains = self._gains().split([len(table) for table in self.tables])
        costs = [
            torch.log1p(table.flatten(1).abs() * (gain[:, None] / RATE_SCALE)).sum()
            for table, gain in zip(self.tables, gains, strict=True)
        ]
        return torch.stack(costs).sum() / (math.log(2) * math.prod(self.resolutions[-1]))

    def _gains(self) -> Float[Tensor, " z"]:
        """Root mean square derivative of the output by each feature, over GAIN_POINTS points."""
        if self.mlp is None:
            return self.linear.weight.norm(dim=0)
        weight = self.linear.weight
        points = torch.rand(
            GAIN_POINTS, self.in_features, generator=torch.Generator().manual_seed(0)
        )
        points = points.to(weight) * 2 - 1
        plan = self.plan()
        levels = zip(plan.tables, plan.resolutions, strict=True)
        z = torch.cat([reference.gather(table, nodes, points) for table, nodes in levels])
        z = z.T.detach().requires_grad_()
        out = reference.head(plan, z)
        squares = [
            torch.autograd.grad(out[:, c].sum(), z, create_graph=True)[0].square().mean(0)
            for c in range(self.out_features)
        ]
        return torch.stack(squares).sum(0).sqrt()

    def output_parameters(self) -> list[nn.Parameter]:
        last = [] if self.mlp is None else [*self.mlp[-1].parameters()]
        return [*self.linear.parameters(), *last]

    @torch.no_grad()
    def rescale(self, rms: float) -> None:
        """Features of [-1, 1] instead of none at all, then the maps to the size that is asked."""
        for table in self.tables:
            table.uniform_(-1, 1)
        super().rescale(rms)

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Features move five times as fast as the maps that all points share."""
        shared = [*self.linear.parameters(), *(self.mlp.parameters() if self.mlp else [])]
        return [(list(self.tables), 1.0), (shared, 0.2)]

    def stored_parameters(self) -> list[StoredTensor]:
        """The maps first, then coarse to fine, so that a prefix holds a coarser signal."""
        stored = super().stored_parameters()
        maps = [s for s in stored if not s.name.startswith("tables.")]
        tables = [s for s in stored if s.name.startswith("tables.")]
        return maps + [StoredTensor(s.name, s.tensor, per_row=True) for s in tables]

    def groups(self) -> list[int]:
        """The maps with the coarsest level, then level by level."""
        later = len(self.tables) - 1
        return [len(self.stored_parameters()) - later, *[1] * later]


def centres(n: int) -> Float[Tensor, " n"]:
    """Coordinates of the centres of n equal cells of [-1, 1]."""
    return (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1


def _average(values: Tensor, dim: int, n: int) -> Tensor:
    """Mean over the share of each of n cells, along one axis (box filter, any ratio)."""
    size = values.shape[dim]
    if n == size:
        return values
    edges = torch.arange(n + 1, dtype=torch.float64) * (size / n)
    summed = values.to(torch.float64).cumsum(dim)
    summed = torch.cat([torch.zeros_like(summed.narrow(dim, 0, 1)), summed], dim)
    below = edges.floor().clamp(max=size - 1).long()
    weight = (edges - below).reshape([-1 if i == dim else 1 for i in range(values.ndim)])
    at = torch.lerp(summed.index_select(dim, below), summed.index_select(dim, below + 1), weight)
    return (at.diff(dim=dim) * (n / size)).to(values)


def _principal_axes(values: Float[Tensor, "p c"]) -> Float[Tensor, "c c"]:
    """Orthonormal columns, the direction of largest variance first, signs fixed."""
    wide = values.to(torch.float64)
    basis = torch.linalg.eigh(wide.T @ wide).eigenvectors.flip(1)
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return (basis * largest.sign()).to(values)
