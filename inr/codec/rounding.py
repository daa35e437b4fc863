"""Rounding by what it does to the signal: symbols are moved by one where that pays.

Rounding each parameter to the nearest step treats their errors as independent. They are not: what
one parameter's rounding spoils another can make good. From the gradient of the distortion at the
rounded parameters, and its curvature, follows what moving each symbol by one would change; the best
moves, distortion and bits together, are made, again and again. It is AdaRound (Nagel et al., ICML
2020, arXiv:2004.10568) by coordinate descent in place of a relaxation, and with rate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from inr.codec.decode import join_rows
from inr.codec.entropy import MAX_MAGNITUDE, Row
from inr.codec.quantize import dequantize, quantize, step_index, step_size
from inr.metrics import largest

if TYPE_CHECKING:
    from torch import Tensor

    from fields.base import Field
    from inr.signals.base import Batch, Points

EFFORTS = {
    1: (0, 0), 2: (0, 0), 3: (1, 6), 4: (3, 6), 5: (4, 8),
    6: (5, 10), 7: (6, 16), 8: (8, 24), 9: (12, 40),
}  # fmt: skip
"""By effort: how many coarser quantisations are tried, and in how many passes each is rounded."""

TWICE = 6
"""From this effort on all that is done twice, with either of the two bounds on thrift."""

SAMPLES_PER_PARAMETER = 4
"""On fewer, parameters would be fitted to the samples that happen to be looked at."""

REACH = 1.5
"""Steps from its unrounded value beyond which no symbol moves: the gradient is of one place."""

FRACTION = 0.3
LEAST_FRACTION = 0.01
"""Of the moves that would pay one by one, the part that is made at once; halved where it fails."""

DRAWS = 4
"""Of random signs, by which the curvature is estimated."""

PER_BIT = 2 * math.log(2) / 12
"""Slope of rate and distortion at high rate: a bit is worth this part of a squared step."""

THRIFT = tuple(4.0**k for k in range(4, -5, -1))
MODERATE, MEAGRE = 1, 3
"""What a bit may be worth, relative to that. A grid does best where bits are saved at any price,
from 256 on; a network, whose symbols cost much alike, where slack is left to larger steps, from 4
on; 64 is between. These are the first indices of what is tried."""

ENOUGH_USED, LEAST_USED = 0.985, 0.96
"""Parts of the allowed bytes that a file is to use: at which to stop, and at least."""

CODED_MAGNITUDE = 2000
"""Rows of larger symbols cost about the same wherever their symbols move."""


class Rounding:
    """Distortion of a field as a function of its rows' symbols.

    Args:
        work: The field; its parameters change with every call.
        batch: Samples on which the distortion is measured.
        rows: Unrounded values of the stored rows.
        shares: Relative steps of the rows (see `step_shares`).
        whole: Whether the batch has all samples there are.
    """

    def __init__(
        self,
        work: Field,
        batch: Batch | Points,
        rows: Sequence[np.ndarray],
        shares: Sequence[float],
        whole: bool,
    ) -> None:
        self.work = work
        self.batch = batch
        self.rows = rows
        self.shares = shares
        self.whole = whole

    @property
    def determined(self) -> bool:
        """Whether there are enough samples to go by."""
        parameters = sum(row.size for row in self.rows)
        return self.whole or self.batch.count >= SAMPLES_PER_PARAMETER * parameters

    def cheaper(
        self,
        quantised: Sequence[Row],
        passes: int,
        around: Sequence[np.ndarray],
        allowed: float,
        thrift: Sequence[float] = THRIFT,
    ) -> list[Row]:
        """Move symbols until the distortion is `allowed`, and then so that they cost fewer bits.

        Args:
            quantised: The rows as rounded so far.
            passes: How often at most, a gradient each.
            around: Values near which symbols stay.
            allowed: The distortion that is aimed at; it may stay above.
            thrift: What a bit may be worth, the most first.
        """

        def better(new: _State, old: _State) -> bool:
            if new.error <= allowed and old.error <= allowed:
                return new.bits < old.bits
            return new.error < old.error

        def choose(state: _State, fraction: float) -> np.ndarray | None:
            return state.moves_towards(fraction, allowed - state.error, thrift)

        return self._moved(quantised, passes, around, choose, better)

    def error(self, quantised: Sequence[Row]) -> float:
        """Mean squared error with these rows."""
        return self._measured(_State(quantised, self.rows, self.curvature)).error

    def _moved(
        self,
        quantised: Sequence[Row],
        passes: int,
        around: Sequence[np.ndarray],
        choose: Callable[[_State, float], np.ndarray | None],
        better: Callable[[_State, _State], bool],
    ) -> list[Row]:
        """Make moves while the state gets better.

        Args:
            quantised: Where it starts.
            passes: How often at most.
            around: Values near which symbols stay.
            choose: Symbols after a part of the moves that pay in a state; None if none does.
            better: Whether the first state is better than the second.
        """
        state = self._measured(_State(quantised, around, self.curvature))
        fraction = FRACTION
        for _ in range(passes):
            symbols = choose(state, fraction)
            if symbols is None:
                break
            moved = self._measured(state.at(symbols))
            if better(moved, state):
                state = moved
                fraction = min(0.5, 1.25 * fraction)
            else:
                fraction /= 2
                if fraction < LEAST_FRACTION:
                    break
        return state.quantised()

    @functools.cached_property
    def curvature(self) -> np.ndarray:
        """Half the second derivative of the distortion in each parameter, all rows joined.

        That of Gauss and Newton, by Hutchinson's estimate: squares of the gradient of the values,
        summed with random signs. Few draws are noisy: each row's mean takes part.
        """
        import torch

        generator = torch.Generator().manual_seed(0)
        total = np.zeros(sum(row.size for row in self.rows))
        for _ in range(DRAWS):

            def signed(values: Tensor) -> Tensor:
                signs = torch.randint(0, 2, values.shape, generator=generator)
                return (values * (2 * signs - 1)).sum()

            total += np.square(self._gradient(self.rows, signed)[1])
        total /= DRAWS * self.batch.count
        ends = np.cumsum([row.size for row in self.rows])
        for part in np.split(total, ends[:-1]):
            part += part.mean()
            part /= 2
        return total

    def _measured(self, state: _State) -> _State:
        """The state with its mean squared error, and how that changes with each parameter."""

        def error(values: Tensor) -> Tensor:
            return (values.clamp(-1, 1) - self.batch.values).double().square().mean()

        values = [dequantize(row) for row in state.quantised()]
        state.error, state.slope = self._gradient(values, error)
        return state

    def _gradient(
        self, rows: Sequence[np.ndarray], function: Callable[[Tensor], Tensor]
    ) -> tuple[float, np.ndarray]:
        """A function of the field's values on the batch, and its slope in each parameter."""
        import torch

        self.work.load_stored(join_rows(self.work, rows))
        tensors = [stored.tensor for stored in self.work.stored_parameters()]
        with torch.enable_grad():
            for tensor in tensors:
                tensor.requires_grad_(True)
            result = function(self.batch.evaluate(self.work))
            slopes = torch.autograd.grad(result, tensors, allow_unused=True, materialize_grads=True)
        return result.item(), np.concatenate([s.double().numpy().ravel() for s in slopes])


class _State:
    """Symbols of all rows, one after the other, and what moving them costs.

    Args:
        quantised: The rows.
        around: Values near which symbols stay.
        curvature: Half the second derivative of the distortion in each parameter.
    """

    error: float
    slope: np.ndarray

    def __init__(
        self, quantised: Sequence[Row], around: Sequence[np.ndarray], curvature: np.ndarray
    ) -> None:
        self.symbols = np.concatenate([row.symbols for row in quantised])
        self.indices = [row.step for row in quantised]
        sizes = [row.symbols.size for row in quantised]
        self.ends = np.cumsum(sizes)
        self.steps = np.repeat([float(step_size(index)) for index in self.indices], sizes)
        self.around = np.concatenate([row.ravel() for row in around]).astype(np.float64)
        self.curvature = curvature * self.steps**2
        self.worth = PER_BIT * float(self.curvature.mean())
        self._count()

    def _count(self) -> None:
        """What each symbol costs, and one more or less; and all together."""
        self.bits = 0.0
        self.changes = np.zeros((2, self.symbols.size))
        for start, end in zip([0, *self.ends[:-1]], self.ends, strict=True):
            counts, costs = _costs(symbols := self.symbols[start:end])
            self.bits += float((counts * costs).sum())
            if len(costs) > 1:
                magnitude = np.abs(symbols)
                for change, sign in zip(self.changes, (1, -1), strict=True):
                    change[start:end] = costs[np.abs(symbols + sign)] - costs[magnitude]

    def at(self, symbols: np.ndarray) -> _State:
        """The same with other symbols."""
        other = object.__new__(_State)
        other.__dict__.update(self.__dict__, symbols=symbols)
        other._count()
        return other

    def quantised(self) -> list[Row]:
        """The rows."""
        parts = np.split(self.symbols, self.ends[:-1])
        return [Row(i, part.astype(np.int32)) for i, part in zip(self.indices, parts, strict=True)]

    def moves_towards(
        self, fraction: float, error: float, thrift: Sequence[float]
    ) -> np.ndarray | None:
        """Symbols after the thriftiest moves that change the distortion by `error` or less."""
        found = None
        errors = self._errors()
        for worth in thrift:
            way, cost = self._best(errors, worth)
            paying = cost[cost < 0]
            if len(paying):
                chosen = np.flatnonzero(cost <= min(np.quantile(paying, fraction), 0.0))
                found = self._after(chosen, way)
                if errors[way[chosen], chosen].sum() <= error:
                    break
        return found

    def _errors(self) -> np.ndarray:
        """What one more, and one less, of each symbol would change the distortion by."""
        slope = self.slope * self.steps
        errors = np.stack([slope, -slope]) + self.curvature
        for error, sign in zip(errors, (1, -1), strict=True):
            new = self.symbols + sign
            far = np.abs(new * self.steps - self.around) > REACH * self.steps
            error[far | (np.abs(new) > MAX_MAGNITUDE)] = np.inf
        return errors

    def _best(self, errors: np.ndarray, worth: float) -> tuple[np.ndarray, np.ndarray]:
        """The better way to move each symbol, 0 up and 1 down, and what that costs in all."""
        cost = errors + worth * self.worth * self.changes
        return (cost[1] < cost[0]).astype(np.int64), cost.min(0)

    def _after(self, chosen: np.ndarray, way: np.ndarray) -> np.ndarray:
        """The symbols after moving some of them."""
        symbols = self.symbols.copy()
        symbols[chosen] += (1 - 2 * way[chosen]).astype(np.int32)
        return symbols


def _costs(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each magnitude occurs, and about how many bits one such symbol costs.

    Of symbols that are too large for that, only the number of them, and what they cost on average.
    """
    magnitude = np.abs(symbols)
    most = int(magnitude.max(initial=0))
    if most > CODED_MAGNITUDE:
        spread = 1 + float(magnitude.mean(dtype=np.float64))
        return np.full(1, float(len(symbols))), np.full(1, math.log2(2 * math.e * spread))
    counts = np.bincount(magnitude, minlength=most + 2).astype(np.float64)
    # what is rare costs as if it were somewhat less so: it will be more frequent if it is moved to
    smooth = counts + 0.25
    return counts, np.log2(smooth.sum() / smooth) + (np.arange(len(counts)) > 0)


def nearest(rows: Sequence[np.ndarray], indices: Sequence[int]) -> list[Row]:
    """Rows rounded each by itself."""
    return [quantize(row, index) for row, index in zip(rows, indices, strict=True)]


def entropy_bits(quantised: Sequence[Row]) -> float:
    """About what coding takes: the entropy of each row's magnitudes, and their signs."""
    return sum(float((n * costs).sum()) for n, costs in (_costs(row.symbols) for row in quantised))


def coarser(
    rounding: Rounding,
    quantised: Sequence[Row],
    accept: Callable[[Sequence[Row]], bool],
    effort: int,
    allowed: float,
) -> list[Row]:
    """Rows of fewer bits that are still accepted, thanks to larger steps and their rounding.

    Args:
        rounding: Of the field.
        quantised: Rows that are accepted.
        accept: Whether rows will do.
        effort: 1 to 9 (see `EFFORTS`).
        allowed: The distortion that is aimed at.
    """
    if not EFFORTS[effort][0] or not rounding.determined:
        return list(quantised)
    starts = [MODERATE] if effort < TWICE else [0, MEAGRE]
    found = [_coarser(rounding, quantised, accept, effort, allowed, THRIFT[i:]) for i in starts]
    return min(found, key=entropy_bits)


def _coarser(
    rounding: Rounding,
    quantised: Sequence[Row],
    accept: Callable[[Sequence[Row]], bool],
    effort: int,
    allowed: float,
    thrift: Sequence[float],
) -> list[Row]:
    best, bits = list(quantised), entropy_bits(quantised)
    trials, passes = EFFORTS[effort]
    shift, stride, rows = 0, FIRST_STRIDE, list(rounding.rows)
    for _ in range(trials):
        tried = [
            quantize(row, min(255, old.step + shift + stride))
            for row, old in zip(rows, quantised, strict=True)
        ]
        found = rounding.cheaper(tried, passes, rows, allowed, thrift)
        if (cost := entropy_bits(found)) < bits and accept(found):
            best, bits, shift = found, cost, shift + stride
            # the next begins from there: these are better values than the first
            rows = [dequantize(row) for row in found]
        elif stride == 1:
            break
        else:
            stride //= 2
    return best


FIRST_STRIDE = 4
"""Indices, eighths of an octave, by which steps are made larger first."""


def finest(rounding: Rounding, max_bytes: int, size: Callable[[Sequence[Row]], int]) -> list[Row]:
    """The finest rows, in proportion to the shares, of a file of at most `max_bytes`.

    What the file takes is told by the entropy of its symbols, then by making it, in turn: to make
    it takes longer. If even the coarsest is larger, that is what comes back.
    """

    def at(factor: float) -> list[Row]:
        return nearest(rounding.rows, [step_index(share / factor) for share in rounding.shares])

    best: list[Row] | None = None
    ratio = 1.0
    for _ in range(5):
        bound = 8 * max_bytes / ratio
        factor = largest(lambda f: entropy_bits(at(f)) <= bound, 1e-4, 1e6, 24)  # noqa: B023
        found = at(factor)
        taken, expected = size(found), entropy_bits(found) / 8
        if taken <= max_bytes:
            best = found
            if taken >= ENOUGH_USED * max_bytes:
                break
        if expected == 0:
            break
        # a little less than expected is better than a little more
        ratio = 1.002 * taken / expected
    return best or at(largest(lambda f: size(at(f)) <= max_bytes, 1e-4, 1e6, 24))


def spend(
    rounding: Rounding, max_bytes: int, size: Callable[[Sequence[Row]], int], effort: int
) -> list[Row]:
    """The best rows of a file of at most `max_bytes`; larger ones, if even the coarsest are.

    What rounding saves at an equal distortion is spent on finer steps.
    """
    best = _filled(rounding.rows, finest(rounding, max_bytes, size), max_bytes, size)
    if size(best) > max_bytes or not EFFORTS[effort][0] or not rounding.determined:
        return best
    error, start, aim = rounding.error(best), best, float(max_bytes)
    for _ in range(ROUNDS):
        allowed = rounding.error(start)

        def accept(rows: Sequence[Row]) -> bool:
            return rounding.error(rows) <= SLACK * allowed  # noqa: B023

        found = coarser(rounding, start, accept, effort, allowed)
        taken = size(found)
        if LEAST_USED * max_bytes <= taken <= max_bytes:
            if (new := rounding.error(found)) < error:
                best, error = found, new
            break
        aim *= 0.985 * max_bytes / max(taken, 1)
        start = finest(rounding, int(aim), size)
    return best


ROUNDS = 3
"""How often finer steps are tried."""

SLACK = 1.002
"""Growth of the distortion that counts as none."""


def _filled(
    rows: Sequence[np.ndarray],
    found: Sequence[Row],
    max_bytes: int,
    size: Callable[[Sequence[Row]], int],
) -> list[Row]:
    """Single rows made finer, the largest first, until enough of the bytes are used."""
    best = list(found)
    room = max_bytes - size(best)
    for t in sorted(range(len(best)), key=lambda t: -best[t].symbols.size):
        while room > (1 - ENOUGH_USED) * max_bytes and best[t].step > 0:
            tried = [*best]
            tried[t] = quantize(rows[t], best[t].step - 1)
            left = max_bytes - size(tried)
            if left < 0 or tried[t].step == best[t].step or not tried[t].symbols.any():
                break
            best, room = tried, left
    return best
