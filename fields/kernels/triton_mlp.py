"""Fused MLPs on NVIDIA GPUs through Triton: a whole network per launch, gradients included.

What is computed, and in which precision (Z stands for fp16, the default, bf16, tf32 or fp32):

- First layer, biases, argument of the activation: float32. Low precision there costs a factor of
  four to seven in accuracy, for sines have arguments of up to 50.
- All other matrix products: operands in Z, sums in float32. "tf32" is the accurate one: three
  products of parts of the numbers, for a single one has no more digits than fp16 and cuts the rest.
- Values: one kernel; what lies between layers never leaves the multiprocessor.
- Gradients: by chunks of points, for each of which the network is computed again while what the
  activations' derivatives need is kept (`triton_activations` says what), then the gradients by u
  go back through the layers in one kernel and are written in Z, then the weights' gradients are
  matrix products over the points, shared out among programs whose sums are added in a fixed order.
  There are no atomic additions: the same inputs on the same GPU give the same bits.
- Gradient operands in Z are scaled by a power of two such that the largest gradient by a value is
  in [16, 32), found on the GPU for each chunk and network, and undone in float32: gradients of any
  size keep their digits. What grows 2,000-fold on its way back is held at the largest fp16.
- Width 256, and networks whose whole-network kernel would not fit the registers, are trained layer
  by layer, each a matrix product with bias, omega and activation in its epilogue (`config`).

Tensors are padded to powers of two inside the kernels: weights and biases of padded units read as
0, so whatever their activation gives is multiplied by 0, and their gradients are not stored.

With many networks at once the second axis of the launch grid is the network.

The functions for Triton carry `no_type_check`, see `triton_activations`. None of this has been
measured on a GPU; `tests/triton_aot.py` prints what the compiler makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from fields.kernels import reference
from fields.kernels.plan import Mlp, twice_differentiable
from fields.kernels.triton_activations import INTERPRETED, activated, pulled, value

Precision = Literal["fp16", "bf16", "tf32", "fp32"]

WIDTHS = (16, 32, 64, 128, 256)
"""Units per layer as the kernels have them; a network's own width is padded to the next."""

DEPTH = 9
"""Most layers with an activation: the first, and eight hidden ones."""

INPUTS = 64
OUTPUTS = 16
NETWORKS = 65_535
"""What the second and third axes of a CUDA grid may have at most."""

CHUNK_BYTES = 1 << 29
"""Bytes that are kept at once for the backward pass of a chunk of points."""

PADDED_OUTPUTS = tl.constexpr(16)
SUM_BLOCK = tl.constexpr(256)
FEW_INPUTS = tl.constexpr(8)
"""Up to here the first layer is a sum of outer products, without tensor cores."""


def refusal(plan: Mlp) -> str | None:
    """Why these kernels cannot take a network, in half a sentence; None if they can."""
    *hidden, last = plan.layers
    if not 1 <= len(hidden) <= DEPTH:
        return f"{len(hidden)} layers with an activation are not 1 to {DEPTH}"
    widths = sorted({layer.out_features for layer in hidden})
    if len(widths) > 1:
        return f"the hidden layers differ in width ({', '.join(map(str, widths))})"
    if widths[0] > WIDTHS[-1]:
        pairs = " (numbers: two per complex unit)" if hidden[0].activation == "wire" else ""
        return f"a width of {widths[0]}{pairs} is more than {WIDTHS[-1]}"
    if len({layer.activation for layer in hidden}) > 1:
        return "the hidden layers differ in their activation"
    if hidden[0].activation == "linear":
        return "hidden layers without an activation"
    if hidden[0].activation == "wire" and widths[0] % 2:
        return f"a width of {widths[0]} makes no pairs"
    if last.activation != "linear" or last.omega != 1:
        return "the last layer is more than a linear map"
    if not 1 <= plan.in_features <= INPUTS:
        return f"{plan.in_features} inputs are more than {INPUTS}"
    if not 1 <= plan.out_features <= OUTPUTS:
        return f"{plan.out_features} outputs are more than {OUTPUTS}"
    if (plan.networks or 0) > NETWORKS:
        return f"{plan.networks} networks are more than {NETWORKS}"
    if any(x.dtype != torch.float32 for x in plan.tensors()):
        return "parameters are not float32"
    return None


# --- what the kernels share


@triton.jit
@no_type_check
def _rows(pointer, rows, cols, HEIGHT: tl.constexpr, BREADTH: tl.constexpr, EXACT: tl.constexpr):
    """A tile of a matrix stored row by row, 0 where the matrix ends."""
    at = pointer + rows[:, None] * BREADTH + cols[None, :]
    if EXACT:
        return tl.load(at)
    else:
        return tl.load(at, mask=(rows < HEIGHT)[:, None] & (cols < BREADTH)[None, :], other=0.0)


@triton.jit
@no_type_check
def _turned(pointer, rows, cols, HEIGHT: tl.constexpr, BREADTH: tl.constexpr, EXACT: tl.constexpr):
    """The transpose of that: shape (columns, rows)."""
    at = pointer + cols[:, None] + rows[None, :] * BREADTH
    if EXACT:
        return tl.load(at)
    else:
        return tl.load(at, mask=(cols < BREADTH)[:, None] & (rows < HEIGHT)[None, :], other=0.0)


@triton.jit
@no_type_check
def _vector(pointer, cols, LENGTH: tl.constexpr):
    return tl.load(pointer + cols, mask=cols < LENGTH, other=0.0)


@triton.jit
@no_type_check
def _lowered(x, DTYPE: tl.constexpr):
    """In the operands' type; too large for fp16 becomes its largest, and NaN stays NaN."""
    if DTYPE == tl.float16:  # noqa: SIM300
        x = tl.clamp(x, -65504.0, 65504.0, propagate_nan=tl.PropagateNan.ALL)
    return x.to(DTYPE)


@triton.jit
@no_type_check
def _precise(a, b, total, KIND: tl.constexpr):
    """Total plus the product of a, operands, and b, float32, which keeps its digits.

    For 16-bit operands b becomes two, a number and what its rounding has left: 22 bits of fp16 (up
    to 65,504, an infinity beyond that makes NaN), 16 of bf16. For float32 ones Triton does the like
    with products of tf32.
    """
    if a.dtype == tl.float32:
        return tl.dot(a, b, total, input_precision="ieee" if KIND == "ieee" else "tf32x3")
    else:
        high = b.to(a.dtype)
        left = (b - high.to(tl.float32)).to(a.dtype)
        return tl.dot(a, left, tl.dot(a, high, total))


@triton.jit
@no_type_check
def _first(
    points, flat, rows, inside, cols,
    IN: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """W x + b of the first layer in float32: (points, units)."""
    z = tl.zeros([rows.shape[0], H], tl.float32)
    if IN <= FEW_INPUTS:
        for k in tl.static_range(IN):
            x = tl.load(points + rows * IN + k, mask=inside, other=0.0)
            w = tl.load(flat + cols * IN + k, mask=cols < WIDTH, other=0.0)
            z += x[:, None] * w[None, :]
    else:
        PADDED: tl.constexpr = 16 if IN <= 16 else (32 if IN <= 32 else 64)
        k = tl.arange(0, PADDED)
        x = tl.load(
            points + rows[:, None] * IN + k[None, :],
            mask=inside[:, None] & (k < IN)[None, :],
            other=0.0,
        )
        w = _turned(flat, cols, k, WIDTH, IN, False)
        z = tl.dot(x, w, input_precision="ieee" if EXACT else "tf32x3")
    return z + _vector(flat + WIDTH * IN, cols, WIDTH)[None, :]


# --- values, and what is kept of a chunk


@triton.jit
@no_type_check
def _network(
    points, flat, low, saved, values, given, marks, omegas, ratios, count,
    stride, values_stride, given_stride,
    IN: tl.constexpr, OUT: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr,
    LAYERS: tl.constexpr, NAME: tl.constexpr, BLOCK: tl.constexpr, FLAT: tl.constexpr,
    DTYPE: tl.constexpr, KEPT: tl.constexpr, KIND: tl.constexpr,
    FROM: tl.constexpr, TO: tl.constexpr, SAVE: tl.constexpr, END: tl.constexpr,
):  # fmt: skip
    """Layers FROM up to TO of the network for BLOCK points, then what END says.

    FROM 0 starts at the points, a later one at what was kept of the layer before. END: "none";
    "values" writes them; "error" writes 2 (value - target) into `values`, with the targets in
    `given`, and its share of the sum of squares into `marks`; "error" and "given", which looks at
    the gradients in `given`, also write the bits of the largest |gradient|, which are in the order
    of the numbers, infinities and NaN above all.

    The strides are those between networks, 0 for common points; `saved` has shape (networks,
    LAYERS, count, H), `marks` (2, networks, programs).
    """
    net = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    inside = start + rows < count
    cols = tl.arange(0, H)
    exact: tl.constexpr = WIDTH == H
    flat += net * FLAT
    low += net * FLAT
    saved += (net * LAYERS * count + start) * H
    at = rows[:, None] * H + cols[None, :]

    if FROM == 0:
        points += net * stride + start * IN
        z = _first(points, flat, rows, inside, cols, IN, WIDTH, H, KIND == "ieee")
        h, kept = activated(z, omegas[0], ratios[0], NAME, KEPT)
        if SAVE:
            tl.store(saved + at, kept, mask=inside[:, None])
    else:
        LAST: tl.constexpr = FROM - 1
        kept = tl.load(saved + LAST * count * H + at, mask=inside[:, None], other=0)
        h = value(kept, omegas[LAST], ratios[LAST], NAME)
    begin: tl.constexpr = WIDTH * IN + WIDTH
    step: tl.constexpr = WIDTH * WIDTH + WIDTH
    for layer in tl.static_range(1 if FROM == 0 else FROM, TO):
        offset = begin + (layer - 1) * step
        w = _turned(low + offset, cols, cols, WIDTH, WIDTH, exact)
        z = tl.dot(h.to(DTYPE), w, input_precision=KIND)
        z += _vector(flat + offset + WIDTH * WIDTH, cols, WIDTH)[None, :]
        h, kept = activated(z, omegas[layer], ratios[layer], NAME, KEPT)
        if SAVE:
            tl.store(saved + layer * count * H + at, kept, mask=inside[:, None])

    if END != "none":
        o = tl.arange(0, PADDED_OUTPUTS)
        values += net * values_stride + start * OUT
        given += net * given_stride + start * OUT
        to = rows[:, None] * OUT + o[None, :]
        valid = inside[:, None] & (o < OUT)[None, :]
        if END != "given":
            offset = begin + (LAYERS - 1) * step
            w = _turned(low + offset, o, cols, OUT, WIDTH, False)
            v = tl.dot(h.to(DTYPE), w, input_precision=KIND)
            v += _vector(flat + offset + WIDTH * OUT, o, OUT)[None, :]
        if END == "values":
            tl.store(values + to, v, mask=valid)
        else:
            g = tl.load(given + to, mask=valid, other=0.0)
            mark = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
            if END == "error":
                r = tl.where(valid, v - g, 0.0)
                tl.store(marks + mark, tl.sum(tl.sum(r * r, axis=1), axis=0))
                g = 2.0 * r
                tl.store(values + to, g, mask=valid)
            bits = tl.abs(g).to(tl.int32, bitcast=True)
            largest = tl.max(tl.max(bits, axis=1), axis=0)
            where = marks + tl.num_programs(1) * tl.num_programs(0) + mark
            tl.store(where, largest.to(tl.float32, bitcast=True))


@triton.jit(do_not_specialize=["layer"])
@no_type_check
def _layer(
    flat, low, saved, omega_before, ratio_before, omega, ratio, layer, count,
    IN: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr, LAYERS: tl.constexpr,
    NAME: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr, FLAT: tl.constexpr,
    DTYPE: tl.constexpr, KEPT: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """One layer, from what is kept of the one before to what is kept of it."""
    net = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    inside = start + rows < count
    cols = tl.arange(0, H)
    exact: tl.constexpr = WIDTH == H
    offset = net * FLAT + WIDTH * IN + WIDTH + (layer - 1) * (WIDTH * WIDTH + WIDTH)
    here = saved + ((net * LAYERS + layer) * count + start) * H
    before = here - count * H
    z = tl.zeros([BLOCK, H], tl.float32)
    for k in range(0, H, STEP):
        part = k + tl.arange(0, STEP)
        kept = tl.load(before + rows[:, None] * H + part[None, :], mask=inside[:, None], other=0)
        h = value(kept, omega_before, ratio_before, NAME)
        w = _turned(low + offset, cols, part, WIDTH, WIDTH, exact)
        z = tl.dot(h.to(DTYPE), w, z, input_precision=KIND)
    z += _vector(flat + offset + WIDTH * WIDTH, cols, WIDTH)[None, :]
    _, kept = activated(z, omega, ratio, NAME, KEPT)
    tl.store(here + rows[:, None] * H + cols[None, :], kept, mask=inside[:, None])


@triton.jit
@no_type_check
def _finish(marks, loss, scales, programs, ADD: tl.constexpr, ERROR: tl.constexpr):
    """Per network: the sum of squares, and a scale with its inverse from the largest gradient.

    `marks` are those of `_network`; `loss` (networks) is added to; `scales` (networks, 2). A
    largest gradient that is infinite or no number makes the scale NaN, and so all gradients.
    """
    net = tl.program_id(0)
    here = net * programs
    there = tl.num_programs(0) * programs + here
    total = tl.zeros([SUM_BLOCK], tl.float32)
    largest = tl.zeros([SUM_BLOCK], tl.int32)
    for start in range(0, programs, SUM_BLOCK):
        i = start + tl.arange(0, SUM_BLOCK)
        if ERROR:
            total += tl.load(marks + here + i, mask=i < programs, other=0.0)
        bits = tl.load(marks + there + i, mask=i < programs, other=0.0).to(tl.int32, bitcast=True)
        largest = tl.maximum(largest, bits)
    if ERROR:
        share = tl.sum(total, axis=0)
        if ADD:
            share += tl.load(loss + net)
        tl.store(loss + net, share)
    biased = tl.max(largest, axis=0) >> 23
    exponent = tl.minimum(tl.maximum(biased - 127, -100), 100)
    nan = (biased == 255).to(tl.int32) * 0x7FC00000
    tl.store(scales + 2 * net, (((131 - exponent) << 23) | nan).to(tl.float32, bitcast=True))
    tl.store(scales + 2 * net + 1, (((123 + exponent) << 23) | nan).to(tl.float32, bitcast=True))


# --- back through the layers


@triton.jit
@no_type_check
def _chain(
    grads, low, saved, deltas, scales, omegas, ratios, count, grads_stride,
    IN: tl.constexpr, OUT: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr,
    LAYERS: tl.constexpr, STEPS: tl.constexpr, NAME: tl.constexpr, BLOCK: tl.constexpr,
    FLAT: tl.constexpr, DTYPE: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Scaled gradients by u of the last STEPS layers, from those by the values.

    Omega is not in them: it is a factor of up to 30 that would use up fp16's range.
    """
    net = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    inside = start + rows < count
    cols = tl.arange(0, H)
    o = tl.arange(0, PADDED_OUTPUTS)
    exact: tl.constexpr = WIDTH == H
    begin: tl.constexpr = WIDTH * IN + WIDTH
    step: tl.constexpr = WIDTH * WIDTH + WIDTH
    low += net * FLAT
    saved += (net * LAYERS * count + start) * H
    deltas += (net * LAYERS * count + start) * H
    at = rows[:, None] * H + cols[None, :]

    g = tl.load(
        grads + net * grads_stride + start * OUT + rows[:, None] * OUT + o[None, :],
        mask=inside[:, None] & (o < OUT)[None, :],
        other=0.0,
    )
    g = _lowered(g * tl.load(scales + 2 * net), DTYPE)
    w = _rows(low + begin + (LAYERS - 1) * step, o, cols, OUT, WIDTH, False)
    d = tl.dot(g, w, input_precision=KIND)
    for i in tl.static_range(STEPS):
        layer = LAYERS - 1 - i
        kept = tl.load(saved + layer * count * H + at, mask=inside[:, None], other=0)
        d = _lowered(pulled(kept, d, omegas[LAYERS - 1 - i], ratios[LAYERS - 1 - i], NAME), DTYPE)
        tl.store(deltas + layer * count * H + at, d, mask=inside[:, None])
        if i + 1 < STEPS:
            w = _rows(low + begin + (layer - 1) * step, cols, cols, WIDTH, WIDTH, exact)
            d = tl.dot(d, w, input_precision=KIND) * omegas[LAYERS - 1 - i]


@triton.jit(do_not_specialize=["layer"])
@no_type_check
def _layer_back(
    low, saved, deltas, omega_before, ratio_before, omega, layer, count,
    IN: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr, LAYERS: tl.constexpr,
    NAME: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr, FLAT: tl.constexpr,
    DTYPE: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Scaled gradients by u of the layer before, from those of a layer."""
    net = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    inside = start + rows < count
    cols = tl.arange(0, H)
    exact: tl.constexpr = WIDTH == H
    low += net * FLAT + WIDTH * IN + WIDTH + (layer - 1) * (WIDTH * WIDTH + WIDTH)
    here = ((net * LAYERS + layer) * count + start) * H
    before = here - count * H
    d = tl.zeros([BLOCK, H], tl.float32)
    for k in range(0, H, STEP):
        part = k + tl.arange(0, STEP)
        above = tl.load(
            deltas + here + rows[:, None] * H + part[None, :], mask=inside[:, None], other=0.0
        )
        d = tl.dot(above, _rows(low, part, cols, WIDTH, WIDTH, exact), d, input_precision=KIND)
    at = rows[:, None] * H + cols[None, :]
    kept = tl.load(saved + before + at, mask=inside[:, None], other=0)
    d = pulled(kept, d * omega, omega_before, ratio_before, NAME)
    tl.store(deltas + before + at, _lowered(d, DTYPE), mask=inside[:, None])


@triton.jit
@no_type_check
def _points(
    deltas, flat, found, scales, omega, count, stride,
    IN: tl.constexpr, PADDED_IN: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr,
    LAYERS: tl.constexpr, BLOCK: tl.constexpr, FLAT: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Gradients by the points, from those by the first layer's u; `found` (networks, any, IN)."""
    net = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    rows = tl.arange(0, BLOCK)
    inside = start + rows < count
    cols = tl.arange(0, H)
    k = tl.arange(0, PADDED_IN)
    d = tl.load(
        deltas + (net * LAYERS * count + start) * H + rows[:, None] * H + cols[None, :],
        mask=inside[:, None],
        other=0.0,
    )
    w = _rows(flat + net * FLAT, cols, k, WIDTH, IN, False)
    x = _precise(d, w, tl.zeros([BLOCK, PADDED_IN], tl.float32), KIND)
    x *= omega * tl.load(scales + 2 * net + 1)
    tl.store(
        found + net * stride + start * IN + rows[:, None] * IN + k[None, :],
        x,
        mask=inside[:, None] & (k < IN)[None, :],
    )


# --- gradients by the weights


@triton.jit
@no_type_check
def _put(pointer, x, mask, ADD: tl.constexpr):
    """Write, or add to what an earlier chunk has left there."""
    if ADD:
        x += tl.load(pointer, mask=mask, other=0.0)
    tl.store(pointer, x, mask=mask)


@triton.jit
@no_type_check
def _weights(
    saved, deltas, scales, partial, omegas, ratios, count, share,
    WIDTH: tl.constexpr, H: tl.constexpr, LAYERS: tl.constexpr, NAME: tl.constexpr,
    TILE: tl.constexpr, STEP: tl.constexpr, DTYPE: tl.constexpr, KIND: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """Gradients by a tile of a hidden layer's weights, and by its biases, over `share` points.

    The grid is (splits of the points, (LAYERS - 1) tiles, networks); `partial` has shape (splits,
    networks, LAYERS - 1, WIDTH^2 + WIDTH).
    """
    TILES: tl.constexpr = H // TILE
    layer = tl.program_id(1) // (TILES * TILES) + 1
    down = tl.program_id(1) // TILES % TILES * TILE + tl.arange(0, TILE)
    across = tl.program_id(1) % TILES * TILE + tl.arange(0, TILE)
    net = tl.program_id(2).to(tl.int64)
    here = (net * LAYERS + layer) * count * H
    before = here - count * H
    omega = omegas[1]
    omega_before = omegas[0]
    ratio_before = ratios[0]
    for i in tl.static_range(2, LAYERS):
        omega = tl.where(layer == i, omegas[i], omega)
        omega_before = tl.where(layer == i, omegas[i - 1], omega_before)
        ratio_before = tl.where(layer == i, ratios[i - 1], ratio_before)

    total = tl.zeros([TILE, TILE], tl.float32)
    bias = tl.zeros([TILE, 16], tl.float32)  # 16 equal columns: a sum as a product with ones
    ones = tl.full([STEP, 16], 1.0, DTYPE)
    begin = tl.program_id(0).to(tl.int64) * share
    end = tl.minimum(begin + share, count)
    rows = tl.arange(0, STEP)
    for start in range(begin, end, STEP):
        inside = start + rows < end
        d = tl.load(
            deltas + here + start * H + rows[:, None] * H + down[None, :],
            mask=inside[:, None],
            other=0.0,
        )
        kept = tl.load(
            saved + before + start * H + rows[:, None] * H + across[None, :],
            mask=inside[:, None],
            other=0,
        )
        h = value(kept, omega_before, ratio_before, NAME).to(DTYPE)
        turned = tl.trans(d)
        total = tl.dot(turned, h, total, input_precision=KIND)
        bias = tl.dot(turned, ones, bias, input_precision=KIND)

    back = omega * tl.load(scales + 2 * net + 1)
    SIZE: tl.constexpr = WIDTH * WIDTH + WIDTH
    to = tl.program_id(0).to(tl.int64) * tl.num_programs(2) + net
    to = partial + (to * (LAYERS - 1) + layer - 1) * SIZE
    _put(
        to + down[:, None] * WIDTH + across[None, :],
        total * back,
        (down < WIDTH)[:, None] & (across < WIDTH)[None, :],
        ADD,
    )
    if tl.program_id(1) % TILES == 0:
        first = tl.arange(0, 16) == 0
        _put(
            to + WIDTH * WIDTH + down[:, None] + tl.zeros([1, 16], tl.int32),
            bias * back,
            (down < WIDTH)[:, None] & first[None, :],
            ADD,
        )


@triton.jit
@no_type_check
def _edges(
    points, grads, saved, deltas, scales, partial, omegas, ratios, count, share,
    stride, grads_stride,
    IN: tl.constexpr, PADDED_IN: tl.constexpr, OUT: tl.constexpr, WIDTH: tl.constexpr,
    H: tl.constexpr, LAYERS: tl.constexpr, NAME: tl.constexpr, STEP: tl.constexpr,
    DTYPE: tl.constexpr, KIND: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Gradients by the first and the last layer's weights and biases over `share` points.

    The grid is (splits, networks); `partial` (splits, networks, first and last layer). The points
    have a further coordinate that is 1, whose weights are the biases; they are float32, and their
    products as good as such.
    """
    net = tl.program_id(1).to(tl.int64)
    cols = tl.arange(0, H)
    k = tl.arange(0, PADDED_IN)
    o = tl.arange(0, PADDED_OUTPUTS)
    bottom = net * LAYERS * count * H
    top = bottom + (LAYERS - 1) * count * H
    scale = tl.load(scales + 2 * net)
    first = tl.zeros([H, PADDED_IN], tl.float32)
    last = tl.zeros([H, PADDED_OUTPUTS], tl.float32)
    bias = tl.zeros([PADDED_OUTPUTS], tl.float32)
    begin = tl.program_id(0).to(tl.int64) * share
    end = tl.minimum(begin + share, count)
    rows = tl.arange(0, STEP)
    for start in range(begin, end, STEP):
        inside = start + rows < end
        at = rows[:, None] * H + cols[None, :]
        x = tl.load(
            points + net * stride + start * IN + rows[:, None] * IN + k[None, :],
            mask=inside[:, None] & (k < IN)[None, :],
            other=0.0,
        )
        x = tl.where((k == IN)[None, :], 1.0, x)
        d = tl.load(deltas + bottom + start * H + at, mask=inside[:, None], other=0.0)
        first = _precise(tl.trans(d), x, first, KIND)
        kept = tl.load(saved + top + start * H + at, mask=inside[:, None], other=0)
        h = value(kept, omegas[LAYERS - 1], ratios[LAYERS - 1], NAME).to(DTYPE)
        g = tl.load(
            grads + net * grads_stride + start * OUT + rows[:, None] * OUT + o[None, :],
            mask=inside[:, None] & (o < OUT)[None, :],
            other=0.0,
        )
        bias += tl.sum(g, axis=0)
        last = tl.dot(tl.trans(h), _lowered(g * scale, DTYPE), last, input_precision=KIND)

    back = tl.load(scales + 2 * net + 1)
    BOTTOM: tl.constexpr = WIDTH * IN + WIDTH
    SIZE: tl.constexpr = BOTTOM + OUT * WIDTH + OUT
    partial += (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + net) * SIZE
    real = (cols < WIDTH)[:, None]
    at = tl.where(k < IN, cols[:, None] * IN + k[None, :], WIDTH * IN + cols[:, None])
    _put(partial + at, first * (back * omegas[0]), real & (k <= IN)[None, :], ADD)
    at = BOTTOM + cols[:, None] + o[None, :] * WIDTH
    _put(partial + at, last * back, real & (o < OUT)[None, :], ADD)
    _put(partial + BOTTOM + OUT * WIDTH + o, bias, o < OUT, ADD)


@triton.jit
@no_type_check
def _reduce(
    partial, flat, edge_splits, splits,
    FIRST: tl.constexpr, EDGES: tl.constexpr, HIDDEN: tl.constexpr, FLAT: tl.constexpr,
    BLOCK: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Sums over splits, in their order, into `flat` (networks, FLAT).

    `partial` begins with (edge_splits, networks, EDGES), then has (splits, networks, HIDDEN); in
    `flat` the hidden layers lie between FIRST numbers of the edges and the rest of them.
    """
    EDGE_BLOCKS: tl.constexpr = (EDGES + BLOCK - 1) // BLOCK
    net = tl.program_id(1).to(tl.int64)
    nets = tl.num_programs(1).to(tl.int64)
    edge = tl.program_id(0) < EDGE_BLOCKS
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i = tl.where(edge, i, i - EDGE_BLOCKS * BLOCK)
    size = tl.where(edge, EDGES, HIDDEN)
    count = tl.where(edge, edge_splits, splits)
    here = tl.where(edge, 0, nets * edge_splits * EDGES) + net * size
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, AT_ONCE):  # several at once, or it would wait for each in turn
        split = start + tl.arange(0, AT_ONCE)
        x = tl.load(
            partial + here + (split * nets * size)[:, None] + i[None, :],
            mask=(split < count)[:, None] & (i < size)[None, :],
            other=0.0,
        )
        total += tl.sum(x, axis=0)
    to = tl.where(edge, tl.where(i < FIRST, i, i + HIDDEN), i + FIRST)
    tl.store(flat + net * FLAT + to, total, mask=i < size)


# --- what launches them


@dataclass(frozen=True)
class Config:
    """How a kernel is laid out.

    Args:
        block: Points per program, or per step of one that adds up over points.
        warps: Warps per program, 32 threads each.
        stages: Tiles on their way at once in a loop.
        part: Side of the tile of a weight gradient, or units per step of a layer's product; 0 for
            kernels without either.
    """

    block: int
    warps: int
    stages: int = 1
    part: int = 0


Mode = Literal[
    "values", "keep", "end", "layer", "chain", "layer-back", "points", "weights", "edges"
]


def padded(width: int) -> int:
    """Units that the kernels compute for a width."""
    return next(n for n in WIDTHS if n >= width)


LIGHT = ("sine", "relu")
"""Activations that take few registers: the others get smaller tiles."""

HEAVY = ("gelu", "spder-arctan")
"""Those with long polynomials, which take the most."""


def whole(
    width: int, activation: str, mode: Literal["values", "train"], precision: Precision
) -> bool:
    """Whether whole-network kernels are used rather than one per layer.

    Args:
        width: Units per layer.
        activation: Of the hidden layers.
        mode: "values" alone, or also what training keeps, and gradients.
        precision: Of the operands.
    """
    h = padded(width)
    if precision in ("tf32", "fp32"):
        return h <= 64
    if mode == "train" and activation in HEAVY:
        return h <= 64
    return h <= 128 or (mode == "values" and activation in LIGHT)


def config(width: int, activation: str, mode: Mode, precision: Precision, sm: int) -> Config:
    """Tile sizes of a kernel, chosen by registers, spills and shared memory (`triton_aot.py`).

    A thread of a product of (block, units) holds block * units / (32 warps) sums, and about as many
    numbers again while an activation is computed. 64 of them fit with the light activations, 32
    with all; twice that where a kernel has one layer only.

    Args:
        width: Units per layer.
        activation: Of the hidden layers.
        mode: "values" for the whole network without a trace, "keep" with one, "end" for the first
            or last layer alone, "layer" for one between; "chain" and "layer-back" for gradients
            backwards; "points", "weights", "edges" for gradients by points, by hidden weights, by
            the first and last layer's.
        precision: Of the operands.
        sm: Compute capability of the GPU, 90 for 9.0.
    """
    h = padded(width)
    light = activation in LIGHT
    small = precision in ("fp16", "bf16")
    if mode == "weights":
        tile = 64 if activation in HEAVY and sm < 90 else 128
        return Config(64 if small else 32, 8 if h > 64 else 4, 3, min(h, tile))
    if mode == "edges":
        return Config(64 if small else 32, 8 if h > 64 else 4, 2)
    block = 128 if (light or h <= 64) and not (mode == "points" and h > 128) else 64
    if not small and (sm < 90 or h > 64):
        back = mode in ("chain", "layer", "layer-back")
        block = 32 if back and sm < 90 else 64  # three products where others have one
    if mode in ("layer", "layer-back"):
        return Config(block, 8, 3, min(h, 64 if small else 32))
    if mode == "values" and h == 256 and sm < 90:
        block = 64  # 128 want more shared memory than there is
    return Config(block, 8 if h > 32 else 4)


DTYPES = {"fp16": tl.float16, "bf16": tl.bfloat16, "tf32": tl.float32, "fp32": tl.float32}
TORCH = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "fp32": torch.float32,
}
TRITON = {
    torch.int16: tl.int16,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}


def kept(activation: str, precision: Precision) -> torch.dtype:
    """Type of what training keeps of a unit."""
    if activation == "sine":
        return torch.float32 if precision == "fp32" else torch.int16
    return TORCH[precision] if activation == "relu" else torch.float32


@dataclass(frozen=True)
class _Network:
    """A plan as the kernels want it.

    Args:
        plan: The plan.
        precision: Of the operands.
        flat: Weight and bias of each layer in turn, float32, (networks, any).
        low: The same in the operands' type.
        sm: Compute capability of the GPU.
        processors: Its multiprocessors.
    """

    plan: Mlp
    precision: Precision
    flat: Tensor
    low: Tensor
    sm: int
    processors: int

    @property
    def width(self) -> int:
        return self.plan.layers[0].out_features

    @property
    def layers(self) -> int:
        """Those with an activation."""
        return len(self.plan.layers) - 1

    @property
    def name(self) -> str:
        return self.plan.layers[0].activation

    @property
    def omegas(self) -> tuple[float, ...]:
        return tuple(float(layer.omega) for layer in self.plan.layers[:-1])

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(float(layer.ratio) for layer in self.plan.layers[:-1])

    @property
    def kept(self) -> torch.dtype:
        return kept(self.name, self.precision)

    def config(self, mode: Mode) -> Config:
        return config(self.width, self.name, mode, self.precision, self.sm)

    def whole(self, mode: Literal["values", "train"]) -> bool:
        return self.layers == 1 or whole(self.width, self.name, mode, self.precision)

    def chunk(self, points: int) -> int:
        """Points whose traces are kept at once: for each unit what is kept, and a gradient."""
        unit = self.kept.itemsize + TORCH[self.precision].itemsize
        per_point = len(self.flat) * self.layers * padded(self.width) * unit
        return max(min(points, CHUNK_BYTES // per_point // 128 * 128), 128)

    def told(self, *names: str) -> dict[str, Any]:
        """Constants that kernels are told of it."""
        constants = {
            "IN": self.plan.in_features,
            "OUT": self.plan.out_features,
            "PADDED_IN": max(16, triton.next_power_of_2(self.plan.in_features + 1)),
            "WIDTH": self.width,
            "H": padded(self.width),
            "LAYERS": self.layers,
            "NAME": self.name,
            "FLAT": self.flat.shape[1],
            "DTYPE": DTYPES[self.precision],
            "KEPT": TRITON[self.kept],
            # what Triton does with float32 operands; 16-bit ones it takes as they are
            "KIND": {"fp32": "ieee", "tf32": "tf32x3"}.get(self.precision, "tf32"),
        }
        return {name: constants[name] for name in names}


def _network_of(plan: Mlp, precision: Precision, device: torch.device) -> _Network:
    """Gather a plan's tensors."""
    flat = _gathered(plan)
    if INTERPRETED.value:
        return _Network(plan, precision, flat, flat.to(TORCH[precision]), 90, 1)
    told = torch.cuda.get_device_properties(device)
    sm = 10 * told.major + told.minor
    if sm < 80:
        raise ValueError(f"{told.name} has compute capability {told.major}.{told.minor}, not 8.0")
    processors = told.multi_processor_count
    return _Network(plan, precision, flat, flat.to(TORCH[precision]), sm, processors)


def _gathered(plan: Mlp) -> Tensor:
    """Weight and bias of each layer in turn, (networks, any); 0 for a bias that is not there."""
    count = plan.networks or 1
    parts = []
    for i, layer in enumerate(plan.layers):
        w = layer.weight.detach().reshape(count, layer.out_features, layer.in_features)
        b = w.new_zeros(count, len(w[0])) if layer.bias is None else layer.bias.detach()
        w, b = _paired(plan, i, w, b.reshape(count, -1), _side_by_side)
        parts += [w.flatten(1), b]
    total = sum(part.shape[1] for part in parts)
    flat = parts[0].new_empty(count, -(-total // 16) * 16)  # rows begin at multiples of 64 bytes
    torch.cat(parts, dim=1, out=flat[:, :total])
    return flat


def _scattered(plan: Mlp, flat: Tensor) -> list[Tensor | None]:
    """Views of such numbers in the shapes of `plan.tensors()`."""
    result: list[Tensor | None] = []
    begin = 0
    for i, layer in enumerate(plan.layers):
        rows, cols = layer.out_features, layer.in_features
        w = flat[:, begin : begin + rows * cols].unflatten(1, (rows, cols))
        b = flat[:, begin + rows * cols : begin + rows * cols + rows]
        begin += rows * cols + rows
        w, b = _paired(plan, i, w, b, _apart)
        result.append(w.reshape(layer.weight.shape))
        if layer.bias is not None:
            result.append(b.reshape(layer.bias.shape))
    return result


def _paired(
    plan: Mlp, i: int, w: Tensor, b: Tensor, order: Callable[[Tensor, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """Weight and bias of layer i with another order of the numbers of complex units."""
    if plan.layers[0].activation == "wire":
        if i < len(plan.layers) - 1:
            w, b = order(w, -2), order(b, -1)
        if i > 0:
            w = order(w, -1)
    return w, b


def _side_by_side(x: Tensor, dim: int) -> Tensor:
    """All real, then all imaginary parts along an axis -> real, imaginary, real, ..."""
    return x.unflatten(dim, (2, -1)).transpose(dim - 1, dim).flatten(dim - 1, dim)


def _apart(x: Tensor, dim: int) -> Tensor:
    """The inverse of that."""
    return x.unflatten(dim, (-1, 2)).transpose(dim - 1, dim).flatten(dim - 1, dim)


class _Launch:
    """A kernel with its grid and layout: `_Launch(kernel, grid, config)(*arguments, ...)`."""

    def __init__(self, kernel: Any, grid: tuple[int, ...], config: Config) -> None:
        self.kernel, self.grid = kernel, grid
        self.options = {
            "num_warps": config.warps,
            "num_stages": config.stages,
            # Triton's own default is about to change; products and sums in one rounding are as
            # good or better everywhere here
            "enable_fp_fusion": True,
        }

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        self.kernel[self.grid](*arguments, **constants, **self.options)


def _programs(points: int, config: Config) -> int:
    return triton.cdiv(points, config.block)


NETWORK = (
    "IN", "OUT", "WIDTH", "H", "LAYERS", "NAME", "FLAT", "DTYPE", "KEPT", "KIND",
)  # fmt: skip


class _Pass:
    """The kernels' way through a chunk of points.

    Args:
        network: What is computed.
        count: Most points of a chunk.
        training: Whether gradients follow.
    """

    def __init__(self, network: _Network, count: int, training: bool) -> None:
        self.network, self.training = network, training
        self.whole = network.whole("train" if training else "values")
        self.nets = len(network.flat)
        shape = self.nets, network.layers, count, padded(network.width)
        new = network.flat.new_empty
        traces = training or not self.whole
        # a kernel that keeps nothing still wants a pointer
        self.saved = new(shape if traces else (1,), dtype=network.kept)
        if training:
            self.deltas = new(shape, dtype=TORCH[network.precision])
            self.scales = new(self.nets, 2)
            most = _programs(count, network.config("keep" if self.whole else "end"))
            self.marks = new(2 * self.nets * most)

    def forward(
        self,
        points: Tensor,
        values: Tensor,
        given: Tensor,
        end: Literal["values", "error", "given"],
    ) -> int:
        """`_network` for these points, layer by layer if need be; how many marks it has left."""
        n = self.network
        count = points.shape[-2]
        told = {**n.told(*NETWORK), "SAVE": self.training or not self.whole}
        marks = self.marks if self.training else values

        def run(first: int, last: int, mode: Mode, what: str) -> int:
            layout = n.config(mode)
            programs = _programs(count, layout)
            _Launch(_network, (programs, self.nets), layout)(
                *(points, n.flat, n.low, self.saved, values, given, marks, n.omegas, n.ratios),
                *(count, _stride(points), _stride(values), _stride(given)),
                **told, BLOCK=layout.block, FROM=first, TO=last, END=what,
            )  # fmt: skip
            return programs

        if self.whole:
            return run(0, n.layers, "keep" if self.training else "values", end)
        run(0, 1, "end", "none")
        layout = n.config("layer")
        for i in range(1, n.layers):
            _Launch(_layer, (_programs(count, layout), self.nets), layout)(
                *(n.flat, n.low, self.saved, n.omegas[i - 1], n.ratios[i - 1]),
                *(n.omegas[i], n.ratios[i], i, count),
                **n.told("IN", "WIDTH", "H", "LAYERS", "NAME", "FLAT", "DTYPE", "KEPT", "KIND"),
                BLOCK=layout.block, STEP=layout.part,
            )  # fmt: skip
        return run(n.layers, n.layers, "end", end)

    def backward(self, grads: Tensor, count: int) -> None:
        """Gradients by u of all layers, from those by the values."""
        n = self.network
        layout = n.config("chain")
        _Launch(_chain, (_programs(count, layout), self.nets), layout)(
            *(grads, n.low, self.saved, self.deltas, self.scales, n.omegas, n.ratios),
            *(count, _stride(grads)),
            **n.told("IN", "OUT", "WIDTH", "H", "LAYERS", "NAME", "FLAT", "DTYPE", "KIND"),
            STEPS=n.layers if self.whole else 1, BLOCK=layout.block,
        )  # fmt: skip
        if self.whole:
            return
        layout = n.config("layer-back")
        for i in range(n.layers - 1, 0, -1):
            _Launch(_layer_back, (_programs(count, layout), self.nets), layout)(
                *(n.low, self.saved, self.deltas, n.omegas[i - 1], n.ratios[i - 1]),
                *(n.omegas[i], i, count),
                **n.told("IN", "WIDTH", "H", "LAYERS", "NAME", "FLAT", "DTYPE", "KIND"),
                BLOCK=layout.block, STEP=layout.part,
            )  # fmt: skip

    def finish(self, programs: int, loss: Tensor | None, add: bool) -> None:
        """The scale of the gradients, and the loss if there is one."""
        _Launch(_finish, (self.nets,), Config(0, 4))(
            *(self.marks, self.scales if loss is None else loss, self.scales, programs),
            ADD=add, ERROR=loss is not None,
        )  # fmt: skip

    def by_points(self, found: Tensor, count: int) -> None:
        """Gradients by the points."""
        n = self.network
        layout = n.config("points")
        _Launch(_points, (_programs(count, layout), self.nets), layout)(
            *(self.deltas, n.flat, found, self.scales, n.omegas[0], count, _stride(found)),
            **n.told("IN", "PADDED_IN", "WIDTH", "H", "LAYERS", "FLAT", "KIND"),
            BLOCK=layout.block,
        )  # fmt: skip


class _WeightSums:
    """Sums over points that make the gradients by weights and biases.

    Args:
        network: What is computed.
        count: Most points of a chunk.
    """

    def __init__(self, network: _Network, count: int) -> None:
        self.network = n = network
        self.nets = len(n.flat)
        w, layers = n.width, n.layers
        self.edges = w * n.plan.in_features + w + n.plan.out_features * (w + 1)
        self.hidden = (layers - 1) * (w * w + w)
        # two programs for each multiprocessor, as far as there are points for them
        self.tiles = (layers - 1) * (padded(w) // n.config("weights").part) ** 2
        self.edge_splits = self._splits(count, n.config("edges"), 1)
        self.splits = self._splits(count, n.config("weights"), max(self.tiles, 1))
        size = self.edge_splits * self.edges + self.splits * self.hidden
        self.partial = n.flat.new_empty(size * self.nets)

    def _splits(self, count: int, layout: Config, others: int) -> int:
        wanted = max(2 * self.network.processors // (others * self.nets), 1)
        return min(wanted, _programs(count, layout))

    def add(self, this: _Pass, points: Tensor, grads: Tensor, add: bool) -> None:
        """Add a chunk; the first one writes."""
        n = self.network
        count = points.shape[-2]
        layout = n.config("edges")
        _Launch(_edges, (self.edge_splits, self.nets), layout)(
            *(points, grads, this.saved, this.deltas, this.scales, self.partial),
            *(n.omegas, n.ratios, count, _share(count, self.edge_splits, layout.block)),
            *(_stride(points), _stride(grads)),
            **n.told("IN", "PADDED_IN", "OUT", "WIDTH", "H", "LAYERS", "NAME", "DTYPE", "KIND"),
            STEP=layout.block, ADD=add,
        )  # fmt: skip
        if n.layers > 1:
            layout = n.config("weights")
            hidden = self.partial[self.nets * self.edge_splits * self.edges :]
            _Launch(_weights, (self.splits, self.tiles, self.nets), layout)(
                *(this.saved, this.deltas, this.scales, hidden, n.omegas, n.ratios),
                *(count, _share(count, self.splits, layout.block)),
                **n.told("WIDTH", "H", "LAYERS", "NAME", "DTYPE", "KIND"),
                TILE=layout.part, STEP=layout.block, ADD=add,
            )  # fmt: skip

    def result(self) -> Tensor:
        """The gradients, in the order of `_gathered`."""
        n = self.network
        flat = torch.empty_like(n.flat)
        at_once = min(32, triton.next_power_of_2(max(self.splits, self.edge_splits)))
        block = 2048 // at_once
        blocks = triton.cdiv(self.edges, block) + triton.cdiv(self.hidden, block)
        _Launch(_reduce, (blocks, self.nets), Config(0, 4))(
            *(self.partial, flat, self.edge_splits, self.splits),
            FIRST=n.width * n.plan.in_features + n.width, EDGES=self.edges, HIDDEN=self.hidden,
            FLAT=flat.shape[1], BLOCK=block, AT_ONCE=at_once,
        )  # fmt: skip
        return flat


def _share(count: int, splits: int, block: int) -> int:
    """Points of each split, whole blocks."""
    return triton.cdiv(triton.cdiv(count, splits), block) * block


def _stride(x: Tensor) -> int:
    """Numbers from one network to the next; 0 for what all have in common."""
    return x.stride(0) if x.ndim == 3 else 0


def _values(network: _Network, points: Tensor) -> Tensor:
    """Values, (networks, points, out), of points (points, in) or (networks, points, in)."""
    count = points.shape[-2]
    values = points.new_empty(len(network.flat), count, network.plan.out_features)
    chunk = count if network.whole("values") else network.chunk(count)
    this = _Pass(network, chunk, training=False)
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        to = values[:, part]
        this.forward(points[..., part, :], to, to, "values")
    return values


@dataclass(frozen=True)
class _Gradients:
    """What `_gradients` finds, as far as it was wanted.

    Args:
        flat: By weights and biases, as in `_gathered`.
        points: By the points, (networks, points, in).
        loss: Sum of squared errors of each network.
    """

    flat: Tensor | None
    points: Tensor | None
    loss: Tensor | None


def _gradients(
    network: _Network,
    points: Tensor,
    given: Tensor,
    end: Literal["error", "given"],
    by_points: bool = False,
    by_weights: bool = True,
) -> _Gradients:
    """Gradients by everything that is wanted, chunk by chunk.

    Args:
        network: What is computed.
        points: (points, in), or (networks, points, in).
        given: (networks, points, out): with end "error" targets, with "given" gradients by values.
        end: Which of them.
        by_points: Whether gradients by points are wanted.
        by_weights: Whether those by weights and biases are.
    """
    count = points.shape[-2]
    nets = len(network.flat)
    chunk = min(network.chunk(count), count)
    this = _Pass(network, chunk, training=True)
    sums = _WeightSums(network, chunk) if by_weights else None
    loss = given.new_empty(nets) if end == "error" else None
    found = given.new_empty(nets, count, network.plan.in_features) if by_points else None
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        x, y = points[..., part, :], given[:, part]
        grads = y if loss is None else y.new_empty(y.shape)
        programs = this.forward(x, grads, y, end)
        this.finish(programs, loss, add=start > 0)
        this.backward(grads, x.shape[-2])
        if found is not None:
            this.by_points(found[:, part], x.shape[-2])
        if sums is not None:
            sums.add(this, x, grads, add=start > 0)
    return _Gradients(None if sums is None else sums.result(), found, loss)


# --- torch functions


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Mlp, precision: Precision, points: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.plan, ctx.precision = plan, precision
        ctx.save_for_backward(points, *tensors)
        return _values(_network_of(plan, precision, points.device), points.contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        points, *tensors = ctx.saved_tensors
        plan = ctx.plan.holding(tensors)
        many = plan.networks is not None
        if torch.is_grad_enabled():

            def twin(x: Tensor, *tensors: Tensor) -> Tensor:
                values = reference.mlp(plan.holding(tensors), x)
                return values if many else values[None]

            return None, None, *twice_differentiable(twin, [points, *tensors], grad)
        network = _network_of(plan, ctx.precision, points.device)
        found = _gradients(
            network,
            points.contiguous(),
            grad.contiguous(),
            "given",
            by_points=ctx.needs_input_grad[2],
            by_weights=any(ctx.needs_input_grad[3:]),
        )
        by_points = found.points
        if by_points is not None and points.ndim == 2:
            by_points = by_points.sum(0)
        by_weights = [None] * len(tensors) if found.flat is None else _scattered(plan, found.flat)
        return None, None, by_points, *by_weights


class _Error(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Mlp, precision: Precision, points: Tensor, targets: Tensor, *tensors: Tensor
    ) -> Tensor:
        network = _network_of(plan, precision, points.device)
        points, targets = points.contiguous(), targets.contiguous()
        found = _gradients(network, points, targets, "error")
        assert found.loss is not None
        assert found.flat is not None
        ctx.plan = plan
        ctx.save_for_backward(points, targets, found.flat, *tensors)
        return found.loss.sum() if len(found.loss) > 1 else found.loss.reshape(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        points, targets, flat, *tensors = ctx.saved_tensors
        plan = ctx.plan.holding(tensors)
        nothing = (None, None, None, None)
        if not torch.is_grad_enabled():
            return *nothing, *_scattered(plan, flat * grad)

        def twin(*tensors: Tensor) -> Tensor:
            return (reference.mlp(plan.holding(tensors), points) - targets).square().sum()

        return *nothing, *twice_differentiable(twin, tensors, grad)


def mlp(plan: Mlp, points: Tensor, precision: Precision = "fp16") -> Tensor:
    """Values of a network, or of many; as `fields.kernels.reference.mlp`.

    Differentiable by the plan's tensors and by the points; second derivatives go through the
    reference, in float32. The backward pass computes the network again rather than keep its layers.

    Args:
        plan: The network; `refusal` has to have nothing against it.
        points: float32, on the GPU; shape (*any, in), for many networks (points, in), the same for
            all, or (networks, points, in). Numbers beyond 65,504 make NaN of fp16's gradients.
        precision: Of the operands of all matrix products but the first layer's: "fp16", "bf16",
            "tf32", or "fp32", which is exact and slow.

    Returns:
        float32, shape (*any, out), or (networks, points, out).

    Raises:
        ValueError: the plan is refused, or the tensors have the wrong type, place or shape.
    """
    _check(plan, points, precision)
    many = plan.networks is not None
    shape = (plan.networks, points.shape[-2]) if many else points.shape[:-1]
    if not many:
        points = points.reshape(-1, plan.in_features)
    if points.shape[-2] == 0:
        return reference.mlp(plan, points).reshape(*shape, plan.out_features)
    with _on(points):
        return _Mlp.apply(plan, precision, points, *plan.tensors()).reshape(
            *shape, plan.out_features
        )


def mlp_error(plan: Mlp, points: Tensor, targets: Tensor, precision: Precision = "fp16") -> Tensor:
    """Sum of squared errors, of all networks if there are many.

    Differentiable by the plan's tensors, not by points and targets; if any of them wants a
    gradient, it is computed in the same pass. Nothing waits for the GPU: it can be captured in a
    CUDA graph.

    Args:
        plan: The network.
        points: As for `mlp`.
        targets: float32, shape (*any, out), or (networks, points, out).
        precision: As for `mlp`.

    Returns:
        float32, no axes.

    Raises:
        ValueError: as `mlp`, or the targets' shape is not that of the values.
    """
    _check(plan, points, precision)
    many = plan.networks is not None
    shape = (plan.networks, points.shape[-2]) if many else points.shape[:-1]
    if targets.shape != (*shape, plan.out_features):
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, not {(*shape, plan.out_features)}"
        )
    _check_tensor("targets", targets, points.device)
    if not many:
        points = points.reshape(-1, plan.in_features)
    targets = targets.reshape(plan.networks or 1, -1, plan.out_features)
    if points.shape[-2] == 0:
        return reference.mlp_error(plan, points, targets if many else targets[0])
    with _on(points):
        if torch.is_grad_enabled() and any(x.requires_grad for x in plan.tensors()):
            return _Error.apply(plan, precision, points.detach(), targets.detach(), *plan.tensors())
        network = _network_of(plan, precision, points.device)
        return (_values(network, points.contiguous()) - targets).square().sum()


def _on(points: Tensor) -> AbstractContextManager[Any]:
    """Launches go to the current device, which need not be the tensors'."""
    return torch.cuda.device(points.device) if points.is_cuda else nullcontext()


def _check(plan: Mlp, points: Tensor, precision: str) -> None:
    why = refusal(plan)
    if why is not None:
        raise ValueError(f"Triton kernels cannot take this network: {why}")
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r} is none of {', '.join(DTYPES)}")
    many = plan.networks is not None
    fits = points.ndim >= 1 and points.shape[-1] == plan.in_features
    if many:
        fits = fits and (points.ndim == 2 or (points.ndim == 3 and len(points) == plan.networks))
    if not fits:
        networks = f" for {plan.networks} networks" if many else ""
        raise ValueError(
            f"points have shape {tuple(points.shape)}, which does not go with {plan.in_features} "
            f"inputs{networks}"
        )
    _check_tensor("points", points, points.device)
    for tensor in plan.tensors():
        if tensor.numel() == 0:
            raise ValueError(f"parameters have shape {tuple(tensor.shape)}")
        _check_tensor("parameters", tensor, points.device)


def _check_tensor(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} are {str(tensor.dtype).removeprefix('torch.')}, not float32")
    if tensor.device != device:
        raise ValueError(f"{name} are on {tensor.device}, points on {device}")
    if device.type != "cuda" and not INTERPRETED.value:
        raise ValueError(f"{name} are on {device}: Triton kernels need a CUDA GPU")
