"""Plain torch that defines what every kernel computes: the twin that kernels are held to.

It works in any floating-point type, on any device, and autograd differentiates it any number of
times. A kernel is right where its values and its gradients by parameters and coordinates are those
of this file in float64, within what its arithmetic allows (see `fields.kernels.select`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.kernels.plan import GridPlan, Layer, Mlp, is_dense

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737, 1546526257)
"""Factors of the spatial hash; the first three are those of instant-ngp's paper, the others
continue tiny-cuda-nn's list for more axes."""

FLOOR = 1e-20
"""SPDER's root is taken of no less, so that derivatives at a phase of 0 are finite; the gradient
there is 1e-10 instead of 0. The authors' floor, 1e-43, is no normal number of float32 (it may be
flushed to 0), and the second derivative overflows there; at 1e-20 it is 2.5e29."""


def activate(u: Tensor, layer: Layer) -> Tensor:
    """A layer's activation of u = omega (W x + b)."""
    name = layer.activation
    if name == "linear":
        return u
    if name == "relu":
        return torch.relu(u)
    if name == "gelu":
        return torch.nn.functional.gelu(u)
    if name == "sine":
        return torch.sin(u)
    if name == "finer":
        return torch.sin(u * (u.abs() / layer.omega + 1))
    if name == "finer-official":
        return torch.sin(u * (u.abs() / layer.omega + 1).detach())
    if name == "gauss":
        return torch.exp(-u.square())
    if name == "wire":
        # exp(i u - (s / omega)^2 |u|^2) of u = omega z
        real, imag = u.chunk(2, dim=-1)
        modulus = torch.exp(-(layer.ratio**2) * (real.square() + imag.square()) - imag)
        return torch.cat([modulus * torch.cos(real), modulus * torch.sin(real)], dim=-1)
    if name == "spder-sqrt":
        return torch.sin(u) * u.abs().clamp_min(FLOOR).sqrt()
    if name == "spder-arctan":
        return torch.sin(u) * torch.atan(u)
    assert name == "spder-log"
    return torch.sin(u) * torch.log1p(u.abs())


def mlp(plan: Mlp, points: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*nets d_out"]:
    """Values of a network, or of many.

    Args:
        plan: The network.
        points: Shape (*any, in); for many networks (points, in), the same for all, or (networks,
            points, in).

    Returns:
        Shape (*any, out), or (networks, points, out).
    """
    x = points
    for layer in plan.layers:
        u = x @ layer.weight.mT
        if layer.bias is not None:
            u = u + (layer.bias if plan.networks is None else layer.bias[:, None])
        x = activate(layer.omega * u, layer)
    return x


def mlp_error(plan: Mlp, points: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    """Sum of squared errors, of all networks if there are many."""
    return (mlp(plan, points) - targets).square().sum()


def grid(plan: GridPlan, coords: Float[Tensor, "p d"]) -> Float[Tensor, "p c"]:
    """Values at scattered coordinates."""
    levels = zip(plan.tables, plan.resolutions, strict=True)
    return head(plan, torch.cat([gather(table, nodes, coords) for table, nodes in levels]).T)


def grid_on_lattice(
    plan: GridPlan, axes: Sequence[Float[Tensor, " _"]]
) -> Float[Tensor, "*shape c"]:
    """Values on the product of one coordinate vector per axis.

    Dense levels are interpolated one axis at a time, at the cost of a resize.
    """
    features = []
    for table, nodes in zip(plan.tables, plan.resolutions, strict=True):
        if is_dense(table, nodes):
            for i, axis in enumerate(axes):
                table = lerp(table, 1 + i, axis)
        else:
            points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
            table = gather(table, nodes, points.flatten(0, -2))
            table = table.unflatten(1, [len(axis) for axis in axes])
        features.append(table)
    return head(plan, torch.cat(features).movedim(0, -1))


def grid_error(plan: GridPlan, coords: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    """Sum of squared errors at scattered coordinates."""
    return (grid(plan, coords) - targets).square().sum()


def grid_error_on_lattice(
    plan: GridPlan, axes: Sequence[Tensor], targets: Tensor
) -> Float[Tensor, ""]:
    """Sum of squared errors on a lattice; targets have shape (*lengths of axes, out)."""
    return (grid_on_lattice(plan, axes) - targets).square().sum()


def head(plan: GridPlan, features: Float[Tensor, "*batch z"]) -> Float[Tensor, "*batch c"]:
    """The linear map and the MLP on features, level by level."""
    out = torch.nn.functional.linear(features, plan.linear.weight, plan.linear.bias)
    return out if plan.mlp is None else out + mlp(plan.mlp, features)


def cell(x: Tensor, n: int) -> tuple[Int[Tensor, " p"], Float[Tensor, " p"]]:
    """Index of the node below each coordinate and the weight of the node above it.

    Nodes are the centres of n equal cells of [-1, 1]; beyond the outer ones nothing changes.
    """
    position = ((x + 1) * (n / 2) - 0.5).clamp(0, n - 1)
    below = position.detach().floor().clamp(max=max(n - 2, 0)).long()
    return below, position - below


def lerp(table: Tensor, dim: int, x: Tensor) -> Tensor:
    """Interpolate linearly along one axis whose nodes are cell centres."""
    n = table.shape[dim]
    below, weight = cell(x, n)
    weight = weight.reshape([-1 if i == dim else 1 for i in range(table.ndim)])
    low = table.index_select(dim, below)
    return torch.lerp(low, table.index_select(dim, (below + 1).clamp(max=n - 1)), weight)


def gather(
    table: Float[Tensor, "f ..."], nodes: Sequence[int], points: Float[Tensor, "p d"]
) -> Float[Tensor, "f p"]:
    """Interpolate multilinearly at scattered points; the table is dense or hashed."""
    dense = is_dense(table, nodes)
    flat = table.flatten(1)
    cells = [cell(points[:, i], n) for i, n in enumerate(nodes)]
    total = flat.new_zeros(len(flat), len(points))
    for corner in itertools.product((0, 1), repeat=len(nodes)):
        weight = torch.ones_like(points[:, 0])
        index = torch.zeros_like(cells[0][0])
        for i, ((below, above), up, n) in enumerate(zip(cells, corner, nodes, strict=True)):
            node = (below + up).clamp(max=n - 1)
            index = index * n + node if dense else index ^ ((node * PRIMES[i]) & 0xFFFFFFFF)
            weight = weight * (above if up else 1 - above)
        total = total + flat[:, index if dense else index % flat.shape[1]] * weight
    return total
