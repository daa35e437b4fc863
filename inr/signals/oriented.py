"""Points of a surface with its normals, without a mesh: a signed distance by the eikonal equation.

The loss is SIREN's (V. Sitzmann et al., "Implicit Neural Representations with Periodic Activation
Functions", NeurIPS 2020, arXiv:2006.09661, eq. 6 and its published code): the field is 0 on the
points and nowhere else, its gradient there is the normal, and of length 1 everywhere.
"""

from __future__ import annotations

import copy
import math
import sys
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from inr.errors import FitError
from inr.meshes import Cloud
from inr.metrics import psnr
from inr.signals.base import Points, Signal
from inr.signals.shape import MARGIN, RESOLUTION, STATISTICS, ShapeDomain, digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fields.base import Field, SignalStatistics

ON, OFF, NORMAL, EIKONAL = 3000.0, 100.0, 100.0, 50.0
"""Weights of the loss: value on the surface, value off it, normals, length of the gradient."""

SHARPNESS = 100.0
"""Off the surface, exp(-SHARPNESS |value|) is to vanish."""

OFFSET = 0.01
"""How far along their normals, in coordinates, points have neighbours of known distance."""

HELD_OUT = 1 << 16


class OrientedPoints(Signal):
    """A surface that is known at points; coordinates beyond them are the field's to settle.

    Its values are distances over half the cube's side, negative inside: the slope is 1.

    Args:
        cloud: The points.
        detail: Cells per axis of the surface that `metrics` compares.
    """

    domain: ShapeDomain
    shown = ("chamfer_share",)
    complete = False

    def __init__(self, cloud: Cloud, *, detail: int = RESOLUTION) -> None:
        import torch

        low, high = cloud.bounds
        half = float((high - low).max()) / 2 * MARGIN
        centre = (low + high) / 2
        self.domain = ShapeDomain(
            "sdf", half, (float(centre[0]), float(centre[1]), float(centre[2])), half,
            len(cloud.points), 0,
        )  # fmt: skip
        self.cloud = cloud
        self.detail = detail
        self.diagonal = float(np.linalg.norm(high - low))
        self.coords = torch.from_numpy(self.domain.to_coords(cloud.points).astype(np.float32))
        self.normals = torch.from_numpy(cloud.normals.astype(np.float32))

    @property
    def count(self) -> int:
        return sys.maxsize  # no batch has all of space

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.float32

    @property
    def preset(self) -> str:
        return "shape/siren-eikonal"

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"{len(self.coords):,} points with normals: signed distance by SIREN's loss",)

    def to(self, device: str) -> Self:
        moved = copy.copy(self)
        moved.coords, moved.normals = self.coords.to(device), self.normals.to(device)
        return moved

    def digest(self) -> str:
        return digest(self.cloud.points, self.cloud.normals)

    def statistics(self) -> SignalStatistics:
        """The distance to a ball about the points: what their fit is to begin with, at best."""
        import torch

        from fields.base import SignalStatistics

        axis = torch.linspace(-1, 1, STATISTICS)
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
        radius = float(self.coords.norm(dim=-1).mean())
        return SignalStatistics(places.norm(dim=-1, keepdim=True) - radius)

    def full_batch(self) -> Points:
        import torch

        return self.random_batch(2 * len(self.coords), torch.Generator().manual_seed(0))

    def random_batch(self, points: int, generator: Any) -> Points:
        """Half of them on the surface, half anywhere in the cube.

        Values are 1 on the surface, else 0, then the normal.
        """
        import torch

        half = max(1, points // 2)
        n = len(self.coords)
        chosen = torch.randint(n, (half,), generator=generator) if half < n else torch.arange(n)
        chosen = chosen.to(self.coords.device)
        anywhere = (torch.rand((len(chosen), 3), generator=generator) * 2 - 1).to(self.coords)
        normals = self.normals[chosen]
        on = torch.cat([torch.ones_like(normals[:, :1]), normals], dim=1)
        return Points(
            torch.cat([self.coords[chosen], anywhere]), torch.cat([on, torch.zeros_like(on)])
        )

    def probe(self, points: int) -> Points:
        """Points of the surface and their neighbours along the normals, where distance is known."""
        import torch

        n = len(self.coords)
        chosen = torch.linspace(0, n - 1, max(1, min(n, points // 3)), dtype=torch.float64).long()
        steps = OFFSET * torch.tensor([-1.0, 0.0, 1.0])
        coords = [self.coords[chosen] + step * self.normals[chosen] for step in steps]
        values = steps.repeat_interleave(len(chosen))[:, None]
        return Points(torch.cat(coords), values.to(self.coords))

    def loss(self, field: Field, batch: Any) -> Tensor:
        """Sum over points; the trainer divides by `count`, which is 4 numbers a point.

        Raises:
            FitError: the field has no gradient everywhere.
        """
        import torch

        if field.smoothness < 1:
            raise FitError(
                "points with normals need a field that has derivatives: siren, finer, gauss"
            )
        with torch.enable_grad():
            coords = batch.coords.detach().requires_grad_()
            values = field(coords)
            gradient = torch.autograd.grad(values.sum(), coords, create_graph=True)[0]
        on = batch.values[:, :1] > 0
        aligned = torch.nn.functional.cosine_similarity(gradient, batch.values[:, 1:], dim=-1)
        each = (
            torch.where(on, ON * values.abs(), OFF * torch.exp(-SHARPNESS * values.abs()))[:, 0]
            + torch.where(on[:, 0], NORMAL * (1 - aligned), torch.zeros_like(aligned))
            + EIKONAL * (gradient.norm(dim=-1) - 1).abs()
        )
        return each.sum() * batch.values.shape[1]

    def quality(self, field: Field) -> float:
        """PSNR (R = 2) on `probe`."""
        import torch

        probe = self.probe(HELD_OUT)
        like = next(field.parameters())
        with torch.no_grad():
            error = [
                (Points(t.coords.to(like), t.values).evaluate(field) - t.values.to(like)).double()
                for t in probe.tiles(HELD_OUT // 4)
            ]
        return psnr(float(torch.cat(error).square().mean()), 2.0)

    def metrics(self, field: Field) -> dict[str, float]:
        """How well a field's surface holds the points.

        `psnr` and `psnr_float` as `quality` has it. `chamfer`: mean distance of the points to the
        surface, in the file's units; `chamfer_share` of their bounding box's diagonal.
        `normal_consistency`: mean |cosine| between the gradient at the points and their normals.
        """
        from inr.solid import nearest
        from inr.surface import extract, normals

        quality = self.quality(field)
        found = {"psnr": quality, "psnr_float": quality}
        surface = extract(field, self.detail)
        chosen = np.linspace(0, len(self.cloud.points) - 1, min(len(self.cloud.points), HELD_OUT))
        chosen = chosen.astype(np.int64)
        points = self.cloud.points[chosen]
        chamfer = math.inf
        if len(surface.faces):
            vertices = self.domain.to_units(surface.vertices)
            chamfer = float(np.sqrt(nearest(points, vertices, surface.faces)[0]).mean())
        gradients = normals(field, self.domain.to_coords(points))
        cosines = (gradients * self.cloud.normals[chosen]).sum(1)
        return found | {
            "chamfer": chamfer,
            "chamfer_share": chamfer / self.diagonal,
            "normal_consistency": float(np.abs(cosines).mean()),
        }

    def verdict(self, field: Field, metrics: dict[str, float]) -> list[str]:
        """Say so where the field has no surface."""
        if not math.isfinite(metrics["chamfer"]):
            return ["the field is 0 nowhere, so that it has no surface: give more steps"]
        return []
