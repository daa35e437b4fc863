"""Numbers from a seed: Philox's published answers, and what FORMAT.md says of the layout."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fields import seeded

# Random123's kat_vectors, philox4x32 of 10 rounds: counter, key, result
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip

SEEDS = st.integers(0, seeded.MAX_SEED)
STREAMS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_answers(counter, key, expected):
    words = [torch.tensor([int(word, 16)]) for word in counter.split()]
    low, high = (int(word, 16) for word in key.split())
    found = seeded.philox(words, low | high << 32)
    assert [f"{word:08x}" for word in found[0].tolist()] == expected.split()


def reference(seed: int, stream: int, n: int) -> int:
    """Word n of a stream, with Python's own whole numbers."""
    a, b, c, d = (n // 4) % 2**32, n // 4 >> 32, stream, 0
    low, high = seed % 2**32, seed >> 32
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 ^ b ^ low, right % 2**32, left >> 32 ^ d ^ high, left % 2**32
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return (a, b, c, d)[n % 4]


@settings(deadline=None)
@given(SEEDS, STREAMS, st.integers(0, 2**60), st.integers(1, 7))
def test_the_layout_of_counters_and_the_maps(seed, stream, offset, count):
    words = [reference(seed, stream, n) for n in range(offset, offset + count)]
    numbers = seeded.uniform(seed, stream, (count,), offset=offset)
    assert numbers.tolist() == [(word >> 8) / 2**24 for word in words]
    below = seeded.integers(seed, stream, (count,), 103, offset=offset)
    assert below.tolist() == [word * 103 >> 32 for word in words]
    for bits in (1, 2, 4, 8):
        each = 32 // bits
        pieces = seeded.digits(seed, stream, (count * each,), bits, offset=offset + 3)
        assert pieces.tolist() == [
            reference(seed, stream, n // each) >> bits * (n % each) & (1 << bits) - 1
            for n in range(offset + 3, offset + 3 + count * each)
        ]
    even = offset - offset % 2
    normal = seeded.normal(seed, stream, (2,), offset=even).double()
    u, v = (reference(seed, stream, n) for n in (even, even + 1))
    radius = math.sqrt(-2 * math.log((u + 1) / 2**32))
    angle = 2 * math.pi * v / 2**32
    expected = torch.tensor([radius * math.cos(angle), radius * math.sin(angle)]).double()
    torch.testing.assert_close(normal, expected, rtol=2**-23, atol=1e-15)  # float32's rounding


@pytest.mark.parametrize("draw", [seeded.uniform, seeded.normal])
@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50))
def test_any_range_is_a_part_of_the_whole(draw, start, count):
    whole = draw(5, 2, (100,))
    assert draw(5, 2, (count,), offset=start).equal(whole[start : start + count])


@pytest.mark.parametrize("draw", [seeded.uniform, seeded.normal])
def test_chunks_and_threads_change_nothing(draw, monkeypatch):
    whole = draw(9, 0, (7, 11, 13), offset=3)
    monkeypatch.setattr(seeded, "CHUNK", 16)
    assert draw(9, 0, (7, 11, 13), offset=3).equal(whole)
    torch.set_num_threads(2)
    try:
        assert draw(9, 0, (7, 11, 13), offset=3).equal(whole)
    finally:
        torch.set_num_threads(1)


def test_seeds_and_streams_differ():
    drawn = [seeded.uniform(seed, stream, (64,)) for seed in (0, 1, 2**32) for stream in (0, 1)]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 6


def test_moments():
    # bounds of five standard deviations of the estimates; the draw itself never changes
    n = 1 << 18
    u = seeded.uniform(1, 0, (n,)).double()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    z = seeded.normal(1, 0, (n,)).double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(z.pow(power).mean() - moment) < 5 * math.sqrt(spread / n)
    assert abs((z[::2] * z[1::2]).mean()) < 5 * math.sqrt(2 / n)  # the two of a pair
    k = seeded.integers(1, 0, (n,), 5)
    assert (k.bincount() / n - 0.2).abs().max() < 5 * math.sqrt(0.16 / n)


def test_frozen_values():
    # a change of any of these breaks every file that leans on them
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert seeded.integers(0, 0, (4,), 2**31).tolist() == [word >> 1 for word in words]
    found = [number.hex() for number in seeded.normal(0, 0, (4,)).tolist()]
    assert found == [
        "0x1.fb76660000000p-1", "-0x1.d96d600000000p-1",
        "-0x1.3c373e0000000p-1", "-0x1.eda3640000000p-2",
    ]  # fmt: skip


def test_shapes_alone_on_the_meta_device():
    with torch.device("meta"):
        numbers = seeded.normal(0, 0, (1 << 20, 1 << 15))
    assert numbers.shape == (1 << 20, 1 << 15)
    assert numbers.is_meta
    assert seeded.uniform(0, 0, (0, 3)).shape == (0, 3)
