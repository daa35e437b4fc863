"""Second-order optimisation of small fields: Levenberg and Marquardt's method.

K. Levenberg 1944, D. Marquardt 1963. Where a field has a few thousand parameters, the Jacobian of
all its values is at hand, and a step that solves the linearised problem gains as much as thousands
of gradient steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from inr.errors import FitError

if TYPE_CHECKING:
    from fields.base import Field

MAX_PARAMETERS = 8192
JACOBIAN_BYTES = 32 << 20
"""Size of the rows of the Jacobian that are formed at a time."""

TRIES = 12
"""Dampings that are tried before a step is given up."""


class LevenbergMarquardt:
    """Minimises the mean squared error of a field's values on a lattice.

    theta <- theta - (J^T J / n + damping I)^-1 J^T e / n, of n errors e and their Jacobian J. The
    damping falls to a third after each step and rises fourfold until one lowers the error. All is
    done in the type of the field; float64 is advised.

    Args:
        field: Its trainable parameters are changed in place.
        axes: Coordinates, one vector per axis.
        target: Values to be reached, shape (*lengths of axes, channels).
        damping: The first one; values and target are thought to be near 1.

    Attributes:
        loss: Mean squared error.

    Raises:
        FitError: the field has more than `MAX_PARAMETERS`.
    """

    def __init__(
        self, field: Field, axes: Sequence[Tensor], target: Tensor, damping: float = 1e-2
    ) -> None:
        self.field = field
        self._parameters = {n: p for n, p in field.named_parameters() if p.requires_grad}
        self._count = sum(p.numel() for p in self._parameters.values())
        if self._count > MAX_PARAMETERS:
            raise FitError(
                f"recipe.second_order is for networks of at most {MAX_PARAMETERS} parameters, "
                f"this one has {self._count}: set it to 0"
            )
        grid = torch.meshgrid(*axes, indexing="ij")
        self._points = torch.stack(grid, dim=-1).flatten(0, -2)
        self._target = target.flatten(0, -2)
        self._damping = damping
        self.loss = float(self._errors(self._points, self._target).square().mean())

    def step(self) -> bool:
        """One step; returns whether it lowered the error. If not, nothing has changed."""
        curvature, gradient = self._normal_equations()
        start = parameters_to_vector(self._parameters.values())
        for _ in range(TRIES):
            damped = curvature.clone()
            damped.diagonal().add_(self._damping)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                move = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
                vector_to_parameters(start - move, self._parameters.values())
                loss = float(self._errors(self._points, self._target).square().mean())
                if loss < self.loss:
                    self.loss = loss
                    self._damping = max(self._damping / 3, 1e-16)
                    return True
            self._damping *= 4
        vector_to_parameters(start, self._parameters.values())
        return False

    @torch.no_grad()
    def _errors(self, points: Tensor, target: Tensor) -> Tensor:
        return self.field(points) - target

    @torch.no_grad()
    def _normal_equations(self) -> tuple[Tensor, Tensor]:
        """J^T J / n and J^T e / n, summed over parts of the lattice."""
        size, channels = self._count, self._target.shape[-1]
        curvature = self._target.new_zeros(size, size)
        gradient = self._target.new_zeros(size)
        parameters = {n: p.detach() for n, p in self._parameters.items()}

        def value(given: dict[str, Tensor], point: Tensor) -> Tensor:
            return functional_call(self.field, given, (point,))

        jacobian = vmap(jacrev(value), in_dims=(None, 0))
        rows = max(1, JACOBIAN_BYTES // (size * channels * self._target.element_size()))
        parts = zip(self._points.split(rows), self._target.split(rows), strict=True)
        for points, target in parts:
            blocks = jacobian(parameters, points).values()
            part = torch.cat([b.reshape(len(points) * channels, -1) for b in blocks], dim=1)
            curvature.addmm_(part.T, part)
            gradient.addmv_(part.T, self._errors(points, target).flatten())
        n = math.prod(self._target.shape)
        return curvature / n, gradient / n
