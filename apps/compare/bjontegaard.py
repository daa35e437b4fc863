"""Average differences between rate-distortion curves.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", ITU-T SG16 Q.6
VCEG-M33, 2001: curves of quality over the logarithm of the rate, their difference integrated where
both are known. The curves are not one cubic polynomial, as there, but piecewise cubic and monotone
(PCHIP; F. Fritsch, R. Carlson, SIAM J. Numer. Anal. 17(2), 1980), as in the common test conditions
of HEVC and VVC.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class Curve(NamedTuple):
    """Points by growing rate and growing quality.

    Args:
        rates: Logarithms (natural) of rates.
        qualities: Qualities, larger is better.
    """

    rates: list[float]
    qualities: list[float]


def curve(points: Iterable[tuple[float, float]]) -> Curve:
    """The curve through (rate, quality) points; what another point beats in both is left out.

    So are points without a finite quality, such as those of lossless files.
    """
    rates: list[float] = []
    qualities: list[float] = []
    usable = [(r, q) for r, q in points if r > 0 and math.isfinite(r) and math.isfinite(q)]
    for rate, quality in sorted(usable, key=lambda point: (point[0], -point[1])):
        if not qualities or quality > qualities[-1]:
            rates.append(math.log(rate))
            qualities.append(quality)
    return Curve(rates, qualities)


def bd_rate(reference: Curve, test: Curve) -> float | None:
    """Mean excess of the test's rate at equal quality: 0.1 is 10 % more, -0.1 is 10 % less.

    None where the curves share no quality. A curve of one point counts at that point.
    """
    mean = _mean_difference((reference.qualities, reference.rates), (test.qualities, test.rates))
    return None if mean is None else math.expm1(mean)


def bd_quality(reference: Curve, test: Curve) -> float | None:
    """Mean excess of the test's quality at equal rate (BD-PSNR where quality is PSNR); or None."""
    return _mean_difference((reference.rates, reference.qualities), (test.rates, test.qualities))


def _mean_difference(
    first: tuple[list[float], list[float]], second: tuple[list[float], list[float]]
) -> float | None:
    """Mean of second - first, each (x, y) with growing x, over the x that both have."""
    if not first[0] or not second[0]:
        return None
    low = max(first[0][0], second[0][0])
    high = min(first[0][-1], second[0][-1])
    if low > high:
        return None
    return _mean(*second, low, high) - _mean(*first, low, high)


def _mean(x: list[float], y: list[float], low: float, high: float) -> float:
    if len(x) == 1:
        return y[0]
    line = _pchip()(x, y)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1.0):
        return float(line(low))
    return float(line.integrate(low, high)) / (high - low)


def _pchip() -> Any:
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator
