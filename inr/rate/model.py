"""What size and quality a fit will have, from what earlier ones had.

Near the target log2 of the size and the quality in dB are about straight lines against the dial. A
few fits do not make a line, so each line is a mean of what is known of such files beforehand and of
what was measured: linear regression with Gaussian priors. Short fits share the slopes of long ones
and have an offset of their own. Fits far from the target count less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEAR = 0.05
"""Standard deviation of a size's log2, and a tenth of that of a quality, at the target itself."""

FAR = 0.25
"""What is added to it for each octave of distance."""


class Prior(NamedTuple):
    """What is known beforehand: means and standard deviations.

    Args:
        at: Value at 0 of the dial.
        slope: Change for each octave of the dial.
        short: By how much a short fit differs.
    """

    at: tuple[float, float]
    slope: tuple[float, float]
    short: tuple[float, float]


class Point(NamedTuple):
    """What a fit gave.

    Args:
        turn: Where the dial was.
        short: Whether its budget was a part of what the last fit gets.
        value: log2 of the size, or the quality in dB.
    """

    turn: float
    short: bool
    value: float


class Line:
    """The expected value of a long fit at each place of the dial.

    Args:
        prior: What is known beforehand.
        points: What was measured.
        around: The place about which the line is to hold.
        noise: Factor on the standard deviations of points.
    """

    def __init__(
        self, prior: Prior, points: Sequence[Point], around: float, noise: float = 1.0
    ) -> None:
        means = np.array([prior.at[0], prior.slope[0], prior.short[0]])
        precision = np.diag([prior.at[1] ** -2, prior.slope[1] ** -2, prior.short[1] ** -2])
        vector = precision @ means
        for point in points:
            row = np.array([1.0, point.turn, float(point.short)])
            weight = (noise * (NEAR + FAR * abs(point.turn - around))) ** -2
            precision = precision + weight * np.outer(row, row)
            vector = vector + weight * point.value * row
        self._at, self._slope, _ = np.linalg.solve(precision, vector)

    def value(self, turn: float) -> float:
        """What is expected."""
        return float(self._at + self._slope * turn)

    def place(self, value: float) -> float:
        """Where it is expected."""
        return float((value - self._at) / max(self._slope, 1e-3))


def place_of(
    value: float, prior: Prior, points: Sequence[Point], bounds: tuple[float, float], noise: float
) -> float:
    """Where on the dial a long fit has a value, within bounds."""
    turn = points[-1].turn if points else 0.0
    for _ in range(3):  # the line about the place that it points to
        turn = min(max(Line(prior, points, turn, noise).place(value), bounds[0]), bounds[1])
    return turn
