"""Symbols on a lattice, coded from coarse to fine, each under what its neighbours lead to expect.

Features of a grid are large where the signal has detail, and so are those beside them. A row that
lies on lines of some length is coded in passes, as an interlaced picture is sent: a coarse lattice
first, then the points between, again and again at half the distance. Of a point between, four
neighbours are known; the sum of their magnitudes chooses its table. All symbols of a pass under one
table are coded together, so that a pass takes few calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

COARSEST = 4
"""Points along the longer axis that the first pass has at least, of a lattice large enough."""

MOST_CLASSES = 12
"""Classes of sums: the last begins at 2,048."""


@dataclass(frozen=True)
class Pass:
    """Points of a lattice that are coded together: all of some rows and columns, row by row.

    Args:
        rows: Their rows.
        columns: Their columns.
        distance: To the neighbours that are known; 0 in the first pass, which has none.
        diagonal: Whether these are the diagonal ones.
    """

    rows: np.ndarray
    columns: np.ndarray
    distance: int = 0
    diagonal: bool = False

    def places(self, width: int) -> np.ndarray:
        """Flat indices of the points."""
        return (self.rows[:, None] * width + self.columns).ravel()

    def classes(self, magnitudes: np.ndarray, count: int) -> np.ndarray:
        """Class of each point, flat, of `count`: 0 where its neighbours are 0, then octaves."""
        up, down = _around(self.rows, self.distance, magnitudes.shape[0])
        left, right = _around(self.columns, self.distance, magnitudes.shape[1])
        if self.diagonal:
            pairs = [(up, left), (up, right), (down, left), (down, right)]
        else:
            pairs = []
            if magnitudes.shape[0] > self.distance:  # else there is nothing above nor below
                pairs += [(up, self.columns), (down, self.columns)]
            if magnitudes.shape[1] > self.distance:
                pairs += [(self.rows, left), (self.rows, right)]
        total = np.zeros((len(self.rows), len(self.columns)), np.int32)
        for y, x in pairs:
            total += magnitudes[np.ix_(y, x)]
        return np.searchsorted(_EDGES[1:count], total.ravel(), side="right")


_EDGES = np.array([0, 1, *(1 << k for k in range(2, MOST_CLASSES))])
"""First sum of each class."""


def passes(height: int, width: int) -> Iterator[Pass]:
    """How a lattice is gone through, coarse to fine."""
    step = 1
    while 2 * step * COARSEST <= max(height, width):
        step *= 2
    rows, columns = np.arange(height), np.arange(width)
    yield Pass(rows[::step], columns[::step])
    while step > 1:
        half = step // 2
        for y, x in ((half, half), (half, 0), (0, half)):
            found = Pass(rows[y::step], columns[x::step], half, y == x)
            if len(found.rows) and len(found.columns):
                yield found
        step = half


def _around(at: np.ndarray, distance: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places before and after; in place of one that is outside, the other."""
    before, after = at - distance, at + distance
    return np.where(before >= 0, before, after), np.where(after < size, after, before)


def tilted(levels: Sequence[int], up: int, tilt: int) -> list[int]:
    """Levels of a class of neighbours, from those of the whole row.

    A level is in eighths of an octave; 0 stands for an empty bucket, and stays. The first bucket is
    the symbol 0. `up` and `tilt` are bytes, of which 128 changes nothing.
    """
    first, *others = levels
    return [
        first,
        *(
            min(255, max(1, level + up - 128 + ((tilt - 128) * i >> 3))) if level else 0
            for i, level in enumerate(others, 1)
        ),
    ]


# ------------------------------------------------------------------------------ choosing

LIKENESS = 0.1
"""Correlation of magnitudes below which neighbours tell too little."""


def period(symbols: np.ndarray) -> int | None:
    """Length of the lines on which symbols of like magnitude lie one below the other, if any."""
    n = len(symbols)
    magnitude = np.abs(symbols)
    magnitude = np.minimum(magnitude, np.quantile(magnitude, 0.99)).astype(np.float64)
    magnitude -= magnitude.mean()
    size = 1 << (2 * n - 1).bit_length()
    likeness = np.fft.irfft(np.abs(np.fft.rfft(magnitude, size)) ** 2)
    lags = np.array([lag for lag in range(4, n // 4 + 1) if n % lag == 0])
    if not len(lags) or likeness[0] <= 0:
        return None
    likeness = likeness / likeness[0]
    best = int(lags[likeness[lags].argmax()])
    if likeness[best] >= LIKENESS:
        # every second line is as like as the next where the symbols vary slowly
        while best % 2 == 0 and best >= 8 and likeness[best // 2] >= 0.97 * likeness[best]:
            best //= 2
        return best
    return n if likeness[1] >= LIKENESS else None


def fit(
    symbols: np.ndarray, width: int, levels: Sequence[int], edges: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """What the classes add to a row's levels so that its symbols cost least.

    Args:
        symbols: A row on lines of `width`.
        width: The lines' length.
        levels: Those of the whole row.
        edges: First magnitude of each bucket, and the end of the last.

    Returns:
        `up` and `tilt` of each class of points between diagonal neighbours; then between straight
        ones.
    """
    lattice = np.abs(symbols.reshape(-1, width)).astype(np.int32)
    buckets = len(levels)
    bucket = np.searchsorted(edges, lattice.ravel(), side="right") - 1
    counts = np.zeros((2, MOST_CLASSES, buckets))
    for part in passes(*lattice.shape):
        if part.distance:
            kinds = part.classes(lattice, MOST_CLASSES)
            both = kinds * buckets + bucket[part.places(width)]
            found = np.bincount(both, minlength=MOST_CLASSES * buckets)
            counts[0 if part.diagonal else 1] += found.reshape(MOST_CLASSES, buckets)
    return [_fit_classes(each, np.array(list(levels), np.float64)) for each in counts]


def _fit_classes(counts: np.ndarray, levels: np.ndarray) -> list[tuple[int, int]]:
    """The changes of one kind of neighbours, classes merged from the top where that is cheaper."""
    used = int(np.flatnonzero(counts.any(1)).max(initial=0)) + 1
    best: tuple[float, list[tuple[int, int]]] | None = None
    single = [_change(counts[i], levels) for i in range(used)]
    for kept in range(used, 0, -1):
        top = _change(counts[kept - 1 : used].sum(0), levels)
        parts = [*single[: kept - 1], top]
        bits = sum(b for b, _, _ in parts) + 16 * kept
        if best is None or bits < best[0]:
            best = (bits, [(up, tilt) for _, up, tilt in parts])
    assert best is not None
    return best[1]


def _change(counts: np.ndarray, levels: np.ndarray) -> tuple[float, int, int]:
    """Bits, but for a constant, `up` and `tilt` that suit a class best."""
    if not counts.any():
        return 0.0, 128, 128
    best = (float("inf"), 128, 128)
    for reach, stride in ((112, 16), (14, 7), (6, 3), (2, 1)):
        ups = np.clip(best[1] + np.arange(-reach, reach + 1, stride), 0, 255)
        tilts = np.clip(best[2] + np.arange(-reach, reach + 1, stride), 0, 255)
        index = np.arange(len(levels))
        more = (ups[:, None, None] - 128) + ((tilts[None, :, None] - 128) * index >> 3)
        new = np.where(index > 0, np.clip(levels + more, 1, 255), levels) / 8
        new = np.where(levels > 0, new, -np.inf)
        total = np.log2(np.exp2(new).sum(-1))
        seen = counts > 0
        bits = counts.sum() * total - (new[..., seen] * counts[seen]).sum(-1)
        i, j = np.unravel_index(int(bits.argmin()), bits.shape)
        best = (float(bits[i, j]), int(ups[i]), int(tilts[j]))
    return best
