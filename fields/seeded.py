"""Numbers drawn from a seed, the same on every machine: what a file needs not carry.

Philox4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel Random Numbers: As Easy as
1, 2, 3", SC 2011: a bijection of 128-bit counters under a 64-bit key. Number n of a stream depends
on (seed, stream, n) alone, so that any part of a large array can be drawn without the rest, in any
order, on any device. torch's own generators promise none of this. docs/FORMAT.md has the layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

MAX_SEED = (1 << 63) - 1

WORD = 0xFFFFFFFF
FACTORS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
CHUNK = 1 << 16
"""Counters that are worked on at once: their words stay in a CPU's cache."""


def philox(counters: Sequence[Int64[Tensor, "*n"]], key: int) -> Int64[Tensor, "*n 4"]:
    """Four 32-bit words for each counter of four 32-bit words, least significant first.

    Args:
        counters: Its four words, each a tensor of one shape.
        key: 64 bits.
    """
    a, b, c, d = counters
    low, high = key & WORD, key >> 32
    for _ in range(ROUNDS):
        # products wrap at 64 bits, and after the mask nothing is left of the sign
        left, right = a * FACTORS[0], c * FACTORS[1]
        a, c = (right >> 32 & WORD) ^ b ^ low, (left >> 32 & WORD) ^ d ^ high
        b, d = right & WORD, left & WORD
        low, high = low + KEY_STEPS[0] & WORD, high + KEY_STEPS[1] & WORD
    return torch.stack([a, b, c, d], dim=-1)


def uniform(
    seed: int, stream: int, shape: Sequence[int], *, offset: int = 0, device: Any = None
) -> Float32[Tensor, ...]:
    """Numbers of [0, 1): multiples of 2^-24, which float32 holds exactly.

    Args:
        seed: 0 to 2^63 - 1.
        stream: 0 to 2^32 - 1; streams of one seed are independent.
        shape: Shape of the result, filled in row-major order.
        offset: Number of the stream to begin with.
        device: Where to draw; torch's default device if None.
    """
    out = torch.empty(math.prod(shape), dtype=torch.float32, device=device)
    _fill(out, seed, stream, offset, lambda words: (words >> 8) * 2.0**-24)
    return out.reshape(*shape)


def integers(
    seed: int,
    stream: int,
    shape: Sequence[int],
    below: int,
    *,
    offset: int = 0,
    device: Any = None,
) -> Int64[Tensor, ...]:
    """Whole numbers of [0, below), below at most 2^31: (word x below) >> 32.

    The other arguments are those of `uniform`. No two values differ in probability by more than
    2^-32.
    """
    out = torch.empty(math.prod(shape), dtype=torch.int64, device=device)
    _fill(out, seed, stream, offset, lambda words: words * below >> 32)
    return out.reshape(*shape)


def digits(
    seed: int,
    stream: int,
    shape: Sequence[int],
    bits: int,
    *,
    offset: int = 0,
    device: Any = None,
) -> UInt8[Tensor, ...]:
    """Whole numbers of `bits` bits (1, 2, 4 or 8): words cut into pieces, the lowest bits first.

    The other arguments are those of `uniform`; `offset` counts pieces.
    """
    out = torch.empty(math.prod(shape), dtype=torch.uint8, device=device)
    shifts = torch.arange(0, 32, bits, device=out.device)

    def cut(words: Tensor) -> Tensor:
        return (words[..., None] >> shifts & (1 << bits) - 1).to(torch.uint8)

    _fill(out, seed, stream, offset, cut, pieces=32 // bits)
    return out.reshape(*shape)


def normal(
    seed: int, stream: int, shape: Sequence[int], *, offset: int = 0, device: Any = None
) -> Float32[Tensor, ...]:
    """Standard normal numbers: Box and Muller's map of words 2m and 2m + 1, in float64.

    The arguments are those of `uniform`. Machines whose logarithm or cosine differ in the last
    bit of float64 agree in all but about one in 2^28 numbers, and there to float32's last bit.
    """
    out = torch.empty(math.prod(shape), dtype=torch.float32, device=device)
    _fill(out, seed, stream, offset, _box_muller)
    return out.reshape(*shape)


def _box_muller(words: Int64[Tensor, "n 4"]) -> Tensor:
    u, v = words.double().unflatten(-1, (2, 2)).unbind(-1)
    radius = torch.sqrt(-2 * torch.log((u + 1) * 2.0**-32))  # u + 1: no logarithm of 0
    angle = v * (2 * math.pi * 2.0**-32)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)


def _fill(
    out: Tensor,
    seed: int,
    stream: int,
    offset: int,
    convert: Callable[[Tensor], Tensor],
    pieces: int = 1,
) -> None:
    """Set `out` to the numbers offset, offset + 1, ... of a stream, `pieces` of them to a word."""
    if out.is_meta:
        return
    per = 4 * pieces
    last = -(-(offset + len(out)) // per)
    step = CHUNK // pieces
    for start in range(offset // per, last, step):
        index = torch.arange(start, min(start + step, last), device=out.device)
        counters = [index & WORD, index >> 32, torch.full_like(index, stream), index * 0]
        at = per * start - offset  # below 0 where the first counter holds numbers before the offset
        numbers = convert(philox(counters, seed)).flatten()[max(-at, 0) : len(out) - at]
        out[max(at, 0) :][: len(numbers)] = numbers
