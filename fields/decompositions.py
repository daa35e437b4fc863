"""HOSVD and TT-SVD of a signal that is looked at part by part, and the ranks that it needs.

L. De Lathauwer, B. De Moor, J. Vandewalle, "A Multilinear Singular Value Decomposition", SIAM J.
Matrix Anal. Appl. 21(4), 2000. I. Oseledets, "Tensor-Train Decomposition", SIAM J. Sci. Comput.
33(5), 2011.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fields.base import SignalStatistics

PART_NUMBERS = 1 << 22
"""Numbers of a signal that are looked at at a time."""

GRAM_NUMBERS = 1 << 24
"""A Gram matrix sees no more; of a larger signal it sees every so many-th row."""


RankOf = Callable[[int, list[float]], int]
"""The rank between axes i and i + 1, from i and the squared singular values there, descending."""


class Factor:
    """The directions along one axis, strongest first, within what a basis spans.

    Args:
        basis: Orthonormal columns, shape (n, size).
        gram: The Gram matrix of all lines along the axis in this basis, shape (size, size).
    """

    def __init__(self, basis: Float[Tensor, "n size"], gram: Float[Tensor, "size size"]) -> None:
        values, vectors = torch.linalg.eigh(gram)
        self.basis = basis
        self.energies: list[float] = values.flip(0).clamp(min=0).tolist()
        self.directions = vectors.flip(1)

    def __len__(self) -> int:
        return len(self.energies)

    def columns(self, rank: int) -> Float[Tensor, "n rank"]:
        """The leading directions on the axis, as many as there are, orthonormal."""
        return self.basis @ self.directions[:, :rank].to(self.basis)

    def heads(self, rank: int) -> Float[Tensor, "size rank"]:
        """The same in the basis; beyond its size random, so that the rest may grow from 0."""
        known = self.directions[:, :rank].to(self.basis)
        missing = rank - known.shape[1]
        extra = torch.randn(len(known), max(0, missing)).to(known) / math.sqrt(len(known))
        return torch.cat([known, extra], dim=1)


def factor(
    statistics: SignalStatistics, bases: Sequence[Tensor], axis: int, channels: slice
) -> Factor:
    """The directions along an axis of a signal.

    Args:
        statistics: The signal.
        bases: Orthonormal columns along each axis, within which directions are looked for.
        axis: Its number.
        channels: Which of the signal's channels are meant.
    """
    # bands of an axis that is not looked along
    across = 0 if axis or len(bases) == 1 else 1
    n = statistics.shape[across]
    step = min(max(1, math.ceil(math.prod(statistics.size) / GRAM_NUMBERS)), n)
    step = 1 if across == axis else step
    wide = bases[axis].double()
    gram = wide.new_zeros(wide.shape[1], wide.shape[1])
    seen = 0
    for place, part in _parts(statistics, across, step, whole=across == axis):
        lines = part[..., channels].movedim(axis, 0).flatten(1).to(wide)
        small = wide.T @ lines
        gram += small @ small.T
        seen += len(range(*place.indices(n)))
    return Factor(bases[axis], gram * (n / seen))


def core(
    statistics: SignalStatistics, columns: Sequence[Float[Tensor, "_ _"]], channels: slice
) -> Float[Tensor, "*ranks c"]:
    """The signal in orthonormal columns along each axis."""
    first, *others = columns
    count = len(range(*channels.indices(statistics.channels)))
    total = first.new_zeros(first.shape[1], math.prod(c.shape[1] for c in others) * count)
    for place, part in _parts(statistics, 0, 1):
        values = part[..., channels].to(first)
        for axis, column in enumerate(others, 1):
            values = torch.tensordot(values, column, dims=([axis], [0])).movedim(-1, axis)
        total.addmm_(first[place].T, values.flatten(1))
    return total.view(*(column.shape[1] for column in columns), count)


def tensor_train(
    statistics: SignalStatistics, bases: Sequence[Tensor], rank_of: RankOf, channels: slice
) -> list[Tensor]:
    """Cores of the TT-SVD, in the bases: shapes (size_i, R_{i-1}, R_i), last (size_d, R_{d-1}, c).

    Neighbours are scaled so that each rank index has the same norm on both of its sides.
    """
    if len(bases) == 1:
        return [core(statistics, bases, channels)[:, None]]
    along = factor(statistics, bases, 0, channels)
    rank = rank_of(0, along.energies)
    cores = [along.heads(rank)[None]]
    rest = core(statistics, [along.columns(rank), *bases[1:]], channels)
    missing = rest.new_zeros(rank - len(rest), *rest.shape[1:])
    rest = torch.cat([rest, missing]) if len(missing) else rest
    for i in range(1, len(bases) - 1):
        before, n = rest.shape[:2]
        left, right = _leading(rest.flatten(2).flatten(0, 1), functools.partial(rank_of, i))
        cores.append(left.view(before, n, -1))
        rest = right.view(len(right), *rest.shape[2:])
    cores.append(rest)
    for _ in range(4):
        for i in range(len(bases) - 1):
            norms = cores[i].norm(dim=(0, 1)), cores[i + 1].flatten(1).norm(dim=1)
            ratio = (norms[1] / norms[0].clamp(min=1e-12)).sqrt()
            ratio = ratio.where(ratio > 0, torch.ones_like(ratio))
            cores[i] = cores[i] * ratio
            cores[i + 1] = cores[i + 1] / ratio[:, None, None]
    return [one.movedim(1, 0) for one in cores]


def _leading(
    matrix: Float[Tensor, "m n"], rank_of: Callable[[list[float]], int]
) -> tuple[Tensor, Tensor]:
    """Factors of a matrix's best approximation of a rank, shapes (m, rank) and (rank, n).

    Beyond the matrix's own rank the left factor is random, so that the rest may grow from 0.
    """
    by_rows = len(matrix) <= matrix.shape[1]
    short = matrix if by_rows else matrix.T
    gram = torch.zeros(len(short), len(short), dtype=torch.float64, device=matrix.device)
    for part in short.split(max(1, PART_NUMBERS // len(short)), dim=1):
        wide = part.double()
        gram += wide @ wide.T
    values, all_vectors = torch.linalg.eigh(gram)
    rank = rank_of(values.flip(0).clamp(min=0).tolist())
    vectors = all_vectors.flip(1)[:, :rank].to(matrix)
    other = vectors.T @ short
    left, right = (vectors, other) if by_rows else (other.T, vectors.T)
    missing = rank - vectors.shape[1]
    if missing:
        size = left.square().mean().sqrt()
        left = torch.cat([left, size * torch.randn(len(left), missing).to(left)], dim=1)
        right = torch.cat([right, right.new_zeros(missing, right.shape[1])])
    return left, right


def rank_within(energies: Sequence[float], allowed: float, most: int) -> int:
    """The smallest rank that cuts off no more energy than is allowed, yet `most` at most."""
    lost = 0.0
    rank = len(energies)
    while rank > 1 and lost + energies[rank - 1] <= allowed:
        rank -= 1
        lost += energies[rank]
    return min(rank, most)


def fewest_ranks(energies: Sequence[Sequence[float]], allowed: float, most: int) -> list[int]:
    """Ranks for a core as small as may be, while what is cut off stays within what is allowed.

    The error of a truncated HOSVD is at most the sum of the energies cut off (De Lathauwer et al.,
    property 10). Cut is always where it costs the least per part of the core that it saves.

    Args:
        energies: Squared singular values along each axis, descending.
        allowed: Sum of those that may be cut off.
        most: Product of the ranks at most, whatever it costs.
    """
    ranks = [len(own) for own in energies]
    lost = 0.0
    while max(ranks) > 1:
        cuts = [
            own[rank - 1] * rank if rank > 1 else math.inf
            for own, rank in zip(energies, ranks, strict=True)
        ]
        axis = cuts.index(min(cuts))
        lost += energies[axis][ranks[axis] - 1]
        if lost > allowed and math.prod(ranks) <= most:
            break
        ranks[axis] -= 1
    return ranks


def _parts(
    statistics: SignalStatistics, axis: int, step: int, *, whole: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Bands of every `step`-th row of an axis, all other axes whole, each with its rows."""
    n = statistics.shape[axis]
    row = math.prod(statistics.size) // n
    rows = n if whole else max(1, PART_NUMBERS // row) * step
    for start in range(0, n, rows):
        band = slice(start, min(start + rows, n), step)
        place = [slice(None)] * len(statistics.shape)
        place[axis] = band
        yield band, statistics.part(tuple(place))
