"""What may happen to a field's numbers on their way, and what comes of it.

Changes are pure functions of a state and a generator of random numbers; at level 0 they change
nothing but what their storage rounds. They work on what a file would store, so that grids and
generated networks are treated as plain ones are.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fields.base import Field
from inr.codec import format as container
from inr.codec.decode import decode
from inr.errors import InrError
from inr.metrics import psnr, psnr_arrays
from inr.signals.image import Image

State = dict[str, np.ndarray]
"""A field's stored tensors by name, float32."""

Row = dict[str, Any]

BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
FLIPS = 1000
BLIND = 40
"""Single bits of a file that are flipped, one at a time: under its checksums, and without them."""


def state_of(field: Field) -> State:
    """What a file stores of a field, copied."""
    return {s.name: s.tensor.detach().numpy().copy() for s in field.stored_parameters()}


def restore(field: Field, state: State) -> None:
    """Set a field's stored tensors."""
    field.load_stored({name: torch.from_numpy(values) for name, values in state.items()})


def count(state: State) -> int:
    """Numbers of a state."""
    return sum(values.size for values in state.values())


def noisy(
    state: State, rng: np.random.Generator, rho: float, only: Collection[str] | None = None
) -> State:
    """Gaussian noise of rho times each tensor's standard deviation, on all tensors or on `only`."""
    out = {}
    for name, values in state.items():
        noise = rng.standard_normal(values.shape, np.float32) * np.float32(rho * values.std())
        out[name] = values + noise if only is None or name in only else values
    return out


def zeroed(state: State, rng: np.random.Generator, part: float) -> State:
    """Each number zero with a probability."""
    return {
        name: np.where(rng.random(v.shape) < part, np.float32(0), v) for name, v in state.items()
    }


def packet_lost(state: State, rng: np.random.Generator, names: Iterable[str], size: int) -> State:
    """So many successive numbers of some tensors zero; all of them where there are no more."""
    parts = {name: state[name] for name in names}
    flat = np.concatenate([values.ravel() for values in parts.values()])
    start = int(rng.integers(0, max(flat.size - size, 0) + 1))
    flat[start : start + size] = 0
    ends = np.cumsum([values.size for values in parts.values()])[:-1]
    pieces = zip(parts.items(), np.split(flat, ends), strict=True)
    return state | {name: piece.reshape(values.shape) for (name, values), piece in pieces}


def bits_flipped(state: State, rng: np.random.Generator, rate: float, storage: str) -> State:
    """Each bit of the raw numbers flipped with a probability; a tensor's scale is spared.

    At a rate of 0 it gives the numbers as the storage rounds them.
    """
    out = {}
    for name, values in state.items():
        raw, scale = written(values, storage)
        octets = raw.reshape(-1).view(np.uint8)
        flips = np.packbits(rng.random((octets.size, 8)) < rate)
        damaged = (octets ^ flips).view(raw.dtype).reshape(raw.shape)
        with np.errstate(invalid="ignore"):  # a flip may make a signalling NaN
            out[name] = damaged.astype(np.float32) * scale
    return out


def written(values: np.ndarray, storage: str) -> tuple[np.ndarray, np.float32]:
    """A tensor as raw numbers and their scale; whole ones are uniform up to the largest."""
    if storage.startswith("fp"):
        return values.astype({"fp32": np.float32, "fp16": np.float16}[storage]), np.float32(1)
    top = 2 ** (BITS[storage] - 1) - 1
    scale = np.float32(float(np.abs(values).max(initial=0)) / top or 1.0)
    return np.clip(np.rint(values / scale), -top, top).astype(np.int8), scale


def layers_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Stored tensors by the part of the network that they belong to, in the order of decoding."""
    names = list(names)
    tables = [name for name in names if name.startswith("tables.")]
    if tables:
        maps = [name for name in names if name not in tables]
        return {"maps": maps, "coarse levels": tables[:-1], "finest level": tables[-1:]}
    if "code" in names:
        return {"code": ["code"], "biases": [name for name in names if name != "code"]}
    layers: dict[str, list[str]] = {}
    for name in names:  # networks of several axes have their layers together
        layer = re.sub(r"^axes\.\d+\.|(\.(real|imag))?\.(weight|bias)$", "", name)
        layers.setdefault(layer, []).append(name)
    first, *hidden, last = layers.values()
    return {"first": first, "hidden": [name for layer in hidden for name in layer], "last": last}


class Judge:
    """Looks at what a field decodes to, in 8 bits, under changed parameters.

    Args:
        field: The field; it is left as it was.
        image: What it is compared with.
        draws: Draws of each change.
    """

    def __init__(self, field: Field, image: Image, draws: int = 1) -> None:
        self.field = field
        self.image = image
        self.draws = draws
        self.clean = state_of(field)

    def samples(self, state: State) -> np.ndarray:
        """The decode; values that are no numbers are black."""
        restore(self.field, state)
        with torch.no_grad():
            values = self.field.on_grid(self.image.axes())
        restore(self.field, self.clean)
        return self.image.domain.to_samples(values.numpy())

    def psnr(self, state: State) -> float:
        """Against the picture."""
        return self.compare(self.samples(state))

    def compare(self, samples: np.ndarray) -> float:
        """PSNR of samples against the picture, R = 255."""
        return psnr_arrays(samples, self.image.samples, 255.0)

    def drops(self, change: Callable[[np.random.Generator, float], State], level: float) -> Drops:
        """What some draws of a change cost, against the same change at level 0."""
        base = self.samples(change(np.random.default_rng(0), 0.0))
        quality = self.compare(base)
        found, errors = [], []
        for draw in range(self.draws):
            # one draw has the same random numbers at all levels
            decoded = self.samples(change(np.random.default_rng([1, draw]), level))
            found.append(quality - self.compare(decoded))
            errors.append(np.square(decoded.astype(np.float64) - base).mean())
        return Drops(found, psnr(float(np.mean(errors)), 255.0))


@dataclass(frozen=True)
class Drops:
    """What a damage did.

    Args:
        each: dB lost, by draw.
        moved: PSNR of the damaged decodes against the clean one, from their mean squared error.
    """

    each: list[float]
    moved: float

    @property
    def row(self) -> Row:
        """Cells of the sheet."""
        return {
            "draws": len(self.each),
            "mean_drop": round(statistics.fmean(self.each), 4),
            "worst_drop": round(max(self.each), 4),
            "moved": round(min(self.moved, 999.0), 2),
        }


def refusals(data: bytes, flips: int = FLIPS) -> Row:
    """How many files with one flipped bit are refused, of so many."""
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, 8 * len(data), flips):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << (at % 8)
        try:
            container.unpack(bytes(damaged))
        except InrError:
            refused += 1
    return {"flips": flips, "refused": refused}


def blind_flips(data: bytes, image: Image, flips: int = BLIND) -> Row:
    """What one flipped bit among the coded parameters does where no checksum finds it."""
    rng = np.random.default_rng(0)
    intact = container.unpack(data)
    quality = image.metrics(decode(data))["psnr"]
    coded = sum(len(body) for body in intact.bodies(container.PARAMETERS))
    drops = []
    for at in rng.integers(0, 8 * coded, flips):
        chunks = []
        for kind, body in intact.chunks:
            damaged = bytearray(body)
            if kind == container.PARAMETERS:
                if 0 <= at < 8 * len(body):
                    damaged[at // 8] ^= 1 << (at % 8)
                at -= 8 * len(body)
            chunks.append((kind, bytes(damaged)))
        with_sums = container.pack(dataclasses.replace(intact, chunks=chunks))
        try:
            drops.append(quality - image.metrics(decode(with_sums))["psnr"])
        except InrError:
            continue
    facts: Row = {"blind": flips, "blind_decoded": len(drops)}
    if drops:
        facts["blind_median"] = round(statistics.median(drops), 2)
        facts["blind_worst"] = round(max(drops), 2)
    return facts
