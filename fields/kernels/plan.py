"""What a fused kernel is told of a field: its matrices, and what happens between them.

A plan holds the field's own tensors, or small ones made of them by torch (the pairs of a complex
matrix, say), so that gradients reach the parameters whatever they went through before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Activation = Literal[
    "linear",
    "relu",
    "gelu",
    "sine",
    "finer",
    "finer-official",
    "gauss",
    "wire",
    "spder-sqrt",
    "spder-arctan",
    "spder-log",
]
"""Names of what follows a matrix; `fields.kernels.reference.activate` has the formulas."""


@dataclass(frozen=True, eq=False)
class Layer:
    """u = omega (W x + b), then an activation of u.

    Args:
        weight: W, shape (out, in), or (networks, out, in) for many networks at once.
        bias: b, shape (out) or (networks, out); None for none.
        activation: Its name. "wire" takes pairs, all real parts first, then all imaginary ones.
        omega: Factor on W x + b; 1 for those that have none.
        ratio: For "wire", the inverse width s over omega.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Activation = "linear"
    omega: float = 1.0
    ratio: float = 1.0

    @property
    def out_features(self) -> int:
        """Rows of W."""
        return self.weight.shape[-2]

    @property
    def in_features(self) -> int:
        """Columns of W."""
        return self.weight.shape[-1]


@dataclass(frozen=True, eq=False)
class Mlp:
    """A chain of layers, the last of which is linear with omega 1.

    Points have shape (points, in), and values (points, out). For many networks at once both have
    the networks as their first axis; points may then also be common to all, shape (points, in).
    """

    layers: tuple[Layer, ...]

    @property
    def in_features(self) -> int:
        """Numbers per point."""
        return self.layers[0].in_features

    @property
    def out_features(self) -> int:
        """Values per point."""
        return self.layers[-1].out_features

    @property
    def networks(self) -> int | None:
        """How many networks it is at once; None for a single one without that axis."""
        weight = self.layers[0].weight
        return len(weight) if weight.ndim == 3 else None

    def tensors(self) -> list[Tensor]:
        """Weight and bias of each layer in turn, as far as there is a bias."""
        pairs = ((layer.weight, layer.bias) for layer in self.layers)
        return [tensor for pair in pairs for tensor in pair if tensor is not None]

    def holding(self, tensors: Sequence[Tensor]) -> Mlp:
        """The same plan with other tensors, in the order of `tensors`."""
        left = iter(tensors)
        return Mlp(
            tuple(
                dataclasses.replace(
                    layer,
                    weight=next(left),
                    bias=None if layer.bias is None else next(left),
                )
                for layer in self.layers
            )
        )


@dataclass(frozen=True, eq=False)
class GridPlan:
    """Interpolated features of several levels, then a linear map plus an MLP.

    Args:
        tables: Features by level, coarse to fine: (features, *nodes) of a dense one, (features,
            size of the table) of a hashed one.
        resolutions: Nodes per axis by level.
        linear: The linear map from all features, level by level, to the values.
        mlp: The MLP beside it, with the same inputs and outputs; None if there is none.
    """

    tables: tuple[Tensor, ...]
    resolutions: tuple[tuple[int, ...], ...]
    linear: Layer
    mlp: Mlp | None

    @property
    def in_features(self) -> int:
        """Coordinates per point."""
        return len(self.resolutions[0])

    @property
    def out_features(self) -> int:
        """Values per point."""
        return self.linear.out_features

    @property
    def dense(self) -> bool:
        """Whether no level is hashed."""
        levels = zip(self.tables, self.resolutions, strict=True)
        return all(is_dense(table, nodes) for table, nodes in levels)

    def tensors(self) -> list[Tensor]:
        """The tables, then the maps: linear first, then the MLP's in turn."""
        maps = Mlp((self.linear, *(self.mlp.layers if self.mlp else ())))
        return [*self.tables, *maps.tensors()]

    def holding(self, tensors: Sequence[Tensor]) -> GridPlan:
        """The same plan with other tensors, in the order of `tensors`."""
        count = len(self.tables)
        maps = Mlp((self.linear, *(self.mlp.layers if self.mlp else ()))).holding(tensors[count:])
        linear, *layers = maps.layers
        mlp = Mlp(tuple(layers)) if self.mlp else None
        return GridPlan(tuple(tensors[:count]), self.resolutions, linear, mlp)


Plan = Mlp | GridPlan


def is_dense(table: Tensor, nodes: Sequence[int]) -> bool:
    """Whether a level's table holds its nodes one by one, and is not hashed."""
    return tuple(table.shape[1:]) == tuple(nodes)


def twice_differentiable(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of a plain torch function that can be differentiated again.

    A kernel's `backward` calls it where autograd is on, which is so under `create_graph`: second
    derivatives go through the twin.

    Args:
        function: The twin, a function of all inputs.
        inputs: What it takes; None stays None.
        grad: Gradient of its values.

    Returns:
        A gradient for each input that wants one, else None.
    """
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    with torch.enable_grad():
        found = torch.autograd.grad(
            function(*inputs), wanted, grad, create_graph=True, allow_unused=True
        )
    left = iter(found)
    return tuple(next(left) if x is not None and x.requires_grad else None for x in inputs)
