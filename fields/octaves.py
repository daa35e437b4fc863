"""Powers of 2^(1/8), the same on every machine: scales that one whole number names."""

from __future__ import annotations

import math

MANTISSAS = (8388608, 9147842, 9975792, 10878679, 11863283, 12937002, 14107901, 15384775)
"""2^(23 + j/8), rounded: written out, so that no power is computed where a file is decoded."""


def eighth(index: int) -> float:
    """2^(index / 8) to 24 bits, which float32 holds exactly."""
    octave, part = divmod(index, 8)
    return math.ldexp(MANTISSAS[part], octave - 23)
