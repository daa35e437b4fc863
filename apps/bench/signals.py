"""What the fields are compared on: a picture, a sound and a solid, built in or from files."""

from __future__ import annotations

import importlib.resources
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from inr.errors import InputError
from inr.signals.base import Domain, GridSignal

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.image import Image

BUILT_IN = {"image": "camera", "sound": "pluck", "shape": "knot"}
"""What each kind is where the user names no file: a photograph of scikit-image's, and two signals
that are computed here."""


@dataclass(frozen=True)
class Source:
    """One signal of a comparison.

    Args:
        kind: "image", "sound" or "shape".
        path: A file, or the name of a built-in one.
        size: Longest side in pixels, samples, or points per axis.
    """

    kind: str
    path: str
    size: int

    @property
    def name(self) -> str:
        """Short name for tables and files."""
        return Path(self.path).stem

    def open(self) -> GridSignal:
        """Read it.

        Raises:
            InputError: the file cannot be read.
        """
        return {"image": _image, "sound": _sound, "shape": _shape}[self.kind](self)


@dataclass(frozen=True)
class LatticeDomain(Domain):
    """A cube of points in a solid's bounding box; no file carries it."""

    kind: ClassVar[str] = "lattice"
    shape: tuple[int, ...]
    channels: int = 1

    def header(self) -> list[Any]:
        return [*self.shape, self.channels]

    @classmethod
    def from_header(cls, items: Any) -> Self:
        return cls(tuple(items[:-1]), items[-1])

    def describe(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        return samples

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values, -1, 1)

    @property
    def peak(self) -> float:
        return 2.0

    @property
    def grain(self) -> float:
        return 2.0


class Occupancy(GridSignal):
    """1 inside a solid, -1 outside, on a lattice."""

    @classmethod
    def from_array(cls, inside: np.ndarray) -> Self:
        """Make a signal from booleans of shape (n, n, n)."""
        samples = np.where(inside, 1, -1).astype(np.float32)[..., None]
        return cls(LatticeDomain(inside.shape), samples)

    def metrics(self, field: Field) -> dict[str, float]:
        """`psnr` and `psnr_float` (R = 2, clipped), and `iou` at the level 0."""
        import torch

        from inr.metrics import psnr

        with torch.no_grad():
            values = field.on_grid(self.axes()).clamp(-1, 1)
        error = float((values - self.values).double().square().mean())
        a, b = values > 0, self.values > 0
        iou = float((a & b).sum() / (a | b).sum().clamp(min=1))
        return {"psnr": psnr(error, 2.0), "psnr_float": psnr(error, 2.0), "iou": iou}


def _image(source: Source) -> GridSignal:
    """A picture, averaged down to the size by whole factors."""
    from inr.signals.image import open_image

    path: str | Path = source.path
    if source.path == BUILT_IN["image"]:
        path = Path(str(importlib.resources.files("assets").joinpath("camera.png")))
    image = open_image(path)
    return averaged(image, max(1, math.ceil(max(image.domain.shape) / source.size)))


def averaged(image: Image, factor: int) -> Image:
    """A picture of cells of factor x factor pixels; what is left at the ends is cut off."""
    if factor == 1:
        return image
    height, width = (n // factor for n in image.domain.shape)
    cells = image.samples[: height * factor, : width * factor].astype(np.float64)
    cells = cells.reshape(height, factor, width, factor, -1).mean((1, 3))
    return type(image).from_array(np.rint(cells).astype(image.samples.dtype))


def _sound(source: Source) -> GridSignal:
    """The first samples of a clip."""
    from inr.signals.audio import Audio, open_audio

    if source.path == BUILT_IN["sound"]:
        return Audio.from_array(pluck(source.size), 16_000)
    clip = open_audio(source.path)
    return Audio.from_array(clip.samples[: source.size], clip.domain.rate)


def _shape(source: Source) -> GridSignal:
    """A solid's occupancy on a cube about its bounding box."""
    n = source.size
    if source.path == BUILT_IN["shape"]:
        return Occupancy.from_array(knot(lattice(n)).reshape(n, n, n))
    from inr.meshes import Mesh, read_mesh
    from inr.solid import Solid

    mesh = read_mesh(source.path)
    if not isinstance(mesh, Mesh):
        raise InputError(f"{source.path}: holds no triangles")
    solid = Solid(mesh)
    middle = (solid.high + solid.low) / 2
    half = (solid.high - solid.low).max() / 2 * 1.1
    return Occupancy.from_array(solid.inside(lattice(n) * half + middle).reshape(n, n, n))


def lattice(n: int) -> np.ndarray:
    """Centres of n^3 equal cells of [-1, 1]^3, row-major, shape (n^3, 3)."""
    axis = (2 * np.arange(n) + 1) / n - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def pluck(samples: int, rate: int = 16_000) -> np.ndarray:
    """Two plucked strings with inharmonic partials and a scratch at each onset, in [-1, 1]."""
    t = np.arange(samples) / rate
    noise = np.random.default_rng(0).standard_normal(samples)
    out = np.zeros(samples)
    for onset, pitch in ((0.0, 196.0), (0.45 * samples / rate, 293.66)):
        since = np.maximum(t - onset, 0)
        sounding = t >= onset
        for k in range(1, 25):
            partial = k * pitch * math.sqrt(1 + 0.0004 * k * k)
            if partial < 0.45 * rate:
                out += (
                    sounding
                    * np.exp(-since * (4 + 2 * k))
                    * np.sin(2 * np.pi * partial * since)
                    / k
                )
        out += 0.3 * sounding * noise * np.exp(-since * 200)
    return (out / np.abs(out).max()).astype(np.float32)


def knot(points: np.ndarray, radius: float = 0.17) -> np.ndarray:
    """Whether points lie within a tube about a trefoil knot."""
    s = np.linspace(0, 2 * np.pi, 600, endpoint=False)
    curve = 0.27 * np.stack(
        [np.sin(s) + 2 * np.sin(2 * s), np.cos(s) - 2 * np.cos(2 * s), -1.5 * np.sin(3 * s)], -1
    )
    parts = np.array_split(points, math.ceil(len(points) / 4096))
    squares = [np.square(p[:, None] - curve).sum(-1).min(1) for p in parts]
    return np.concatenate(squares) < radius**2
