"""Activations inside Triton kernels: what follows u = omega z, and how a gradient passes it.

Sines are taken by range reduction in float32 (turns, u / 2 pi, minus their nearest whole number)
and the fast unit of the GPU, whose absolute error is about 5e-7 there. The library's sine is exact
to the last bit for any argument, but brings a slow path of hundreds of instructions into every
element, ten times the code. Rounding is done by adding and taking away 1.5 * 2^23 and integers are
read off the bits of that sum, for the instructions that round and convert run on the same unit as
the sine, at a quarter of the speed of additions.

What training keeps of a unit ("kept"):

- sine: the reduced phase in turns times 65,536, an int16. Two bytes give back both sine and cosine
  with a root mean square error of 2e-5, less than the rounding of fp16 operands (2e-4).
- ReLU: its output; the derivative is whether that is positive.
- all others: u in float32. Their derivatives are no functions of a bounded phase.

Numbers of a tile have shape (points, units). Of "wire" the units come in pairs, real and imaginary
part side by side, so that both are in one thread's registers. Units beyond the network's width have
z = 0: all activations and derivatives are finite there, and their weights are 0.

The functions carry `no_type_check` so that a run-time type checker, as the tests install one,
leaves them as Triton needs them.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, which knows no inline assembly."""

TURN = tl.constexpr(0.15915494309189535)
"""1 / 2 pi."""

ROUNDER = tl.constexpr(12582912.0)
"""1.5 * 2^23: the sum with a number below 2^22 has the number, rounded, in its low bits."""

ROUNDER_BITS = tl.constexpr(0x4B400000)
"""The same as bits."""

FLOOR = tl.constexpr(1e-20)
"""`fields.kernels.reference.FLOOR`."""


@triton.jit
@no_type_check
def reduced(turns):
    """Turns minus their nearest whole number, -0.5 to 0.5."""
    return turns - ((turns + ROUNDER) - ROUNDER)


@triton.jit
@no_type_check
def sine(r):
    """Sine of reduced turns."""
    x = r * 6.283185307179586
    if INTERPRETED:
        return tl.sin(x)
    else:
        return tl.inline_asm_elementwise(
            "sin.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
@no_type_check
def cosine(r):
    """Cosine of reduced turns."""
    x = r * 6.283185307179586
    if INTERPRETED:
        return tl.cos(x)
    else:
        return tl.inline_asm_elementwise(
            "cos.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
@no_type_check
def packed(r):
    """Reduced turns as int16; half a turn becomes minus half a turn, which is the same."""
    return (r * 65536.0 + ROUNDER).to(tl.int32, bitcast=True).to(tl.int16)


@triton.jit
@no_type_check
def unpacked(kept):
    """Reduced turns of what was kept of a sine."""
    if kept.dtype == tl.int16:
        bits = kept.to(tl.int32) + ROUNDER_BITS
        return (bits.to(tl.float32, bitcast=True) - ROUNDER) * (1.0 / 65536.0)
    else:
        return kept


@triton.jit
@no_type_check
def arctangent(x):
    """Of any x, to 2e-7: a polynomial on [0, 1], and pi / 2 minus that of 1 / x beyond."""
    a = tl.abs(x)
    y = tl.where(a > 1.0, 1.0 / tl.maximum(a, 1.0), a)
    s = y * y
    p = -0.004780450 * s + 0.024557108
    p = p * s - 0.059904691
    p = p * s + 0.099427573
    p = p * s - 0.140294194
    p = p * s + 0.199713752
    p = p * s - 0.333320946
    p = (p * s + 0.999999940) * y
    p = tl.where(a > 1.0, 1.5707963267948966 - p, p)
    return tl.where(x < 0.0, -p, p)


@triton.jit
@no_type_check
def normal(x):
    """Share of a normal distribution below x, to 2e-7, and exp(-x^2 / 2).

    M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 7.1.26; the library's error
    function has branches that take hundreds of registers to the stack.
    """
    bell = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164190 * tl.abs(x))
    p = 1.061405429 * t - 1.453152027
    p = p * t + 1.421413741
    p = p * t - 0.284496736
    p = p * t + 0.254829592
    beyond = 0.5 * p * t * bell
    return tl.where(x < 0.0, beyond, 1.0 - beyond), bell


@triton.jit
@no_type_check
def pairs(x):
    """Real and imaginary parts of a tile of pairs, each (points, units / 2)."""
    return tl.split(x.reshape(x.shape[0], x.shape[1] // 2, 2))


@triton.jit
@no_type_check
def unpaired(real, imag):
    """The inverse of `pairs`."""
    return tl.join(real, imag).reshape(real.shape[0], real.shape[1] * 2)


@triton.jit
@no_type_check
def modulation(u, omega, NAME: tl.constexpr):
    """Phase of the sine that FINER takes of u, and what SPDER multiplies its sine with."""
    if NAME == "finer" or NAME == "finer-official":
        return u * (tl.abs(u) / omega + 1.0)
    elif NAME == "spder-sqrt":
        return tl.sqrt(tl.maximum(tl.abs(u), FLOOR))
    elif NAME == "spder-arctan":
        return arctangent(u)
    else:
        tl.static_assert(NAME == "spder-log")
        return tl.log(tl.abs(u) + 1.0)


@triton.jit
@no_type_check
def value(kept, omega, ratio, NAME: tl.constexpr):
    """A unit's output, float32, from what is kept of it."""
    if NAME == "sine":
        return sine(unpacked(kept))
    elif NAME == "relu":
        return kept.to(tl.float32)
    elif NAME == "gauss":
        return tl.exp(-kept * kept)
    elif NAME == "gelu":
        below, _ = normal(kept)
        return kept * below
    elif NAME == "wire":
        real, imag = pairs(kept)
        modulus = tl.exp(-ratio * ratio * (real * real + imag * imag) - imag)
        r = reduced(real * TURN)
        return unpaired(modulus * cosine(r), modulus * sine(r))
    elif NAME == "finer" or NAME == "finer-official":
        return sine(reduced(modulation(kept, omega, NAME) * TURN))
    else:
        return sine(reduced(kept * TURN)) * modulation(kept, omega, NAME)


@triton.jit
@no_type_check
def activated(z, omega, ratio, NAME: tl.constexpr, KEPT: tl.constexpr):
    """Outputs of units with u = omega z, float32, and what training keeps, of type KEPT."""
    if NAME == "sine":
        r = reduced(z * (omega * TURN))
        if tl.int16 == KEPT:
            return sine(r), packed(r)
        else:
            return sine(r), r
    elif NAME == "relu":
        h = tl.maximum(z * omega, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return h, h.to(KEPT)
    else:
        u = z * omega
        return value(u, omega, ratio, NAME), u


@triton.jit
@no_type_check
def pulled(kept, grad, omega, ratio, NAME: tl.constexpr):
    """Gradient by u, float32, from that by the unit's output and what was kept of it."""
    if NAME == "sine":
        return grad * cosine(unpacked(kept))
    elif NAME == "relu":
        return tl.where(kept > 0.0, grad, 0.0)
    elif NAME == "gauss":
        return grad * (-2.0 * kept * tl.exp(-kept * kept))
    elif NAME == "gelu":
        below, bell = normal(kept)
        return grad * (below + kept * 0.3989422804014327 * bell)
    elif NAME == "wire":
        real, imag = pairs(kept)
        by_real, by_imag = pairs(grad)
        square = ratio * ratio
        modulus = tl.exp(-square * (real * real + imag * imag) - imag)
        r = reduced(real * TURN)
        h_real = modulus * cosine(r)
        h_imag = modulus * sine(r)
        # both parts of exp(i u - (s / omega)^2 |u|^2) scale with the modulus; real turns them
        along = by_real * h_real + by_imag * h_imag
        across = by_imag * h_real - by_real * h_imag
        to_real = across - 2.0 * square * real * along
        to_imag = -(2.0 * square * imag + 1.0) * along
        return unpaired(to_real, to_imag)
    elif NAME == "finer" or NAME == "finer-official":
        slope = tl.abs(kept) / omega
        slope = 2.0 * slope + 1.0 if NAME == "finer" else slope + 1.0
        return grad * slope * cosine(reduced(modulation(kept, omega, NAME) * TURN))
    else:
        r = reduced(kept * TURN)
        m = modulation(kept, omega, NAME)
        size = tl.abs(kept)
        if NAME == "spder-sqrt":
            slope = tl.where(size >= FLOOR, 0.5 / m, 0.0)
        elif NAME == "spder-log":
            slope = 1.0 / (1.0 + size)
        else:
            slope = 1.0 / (1.0 + kept * kept)
        if NAME != "spder-arctan":  # those two are even
            slope = tl.where(kept < 0.0, -slope, slope)
        return grad * (cosine(r) * m + sine(r) * slope)
