"""Who takes part in the shoot-out: settings of the papers, and how each field is made smaller.

Hyperparameters are the authors' for the task where they give any, those of their images where not.
Every field has one dial, its size relative to the authors', which is turned until it stores as many
scalars as all others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inr.errors import UsageError

if TYPE_CHECKING:
    from inr.signals.base import GridSignal

Hyperparameters = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A field with its settings.

    Args:
        name: What tables call it.
        field: Registered name.
        lr: The authors' learning rate.
        fixed: Hyperparameters for every kind of signal.
        kinds: Further ones by kind ("image", "sound", "shape"); "lr" among them is the rate.
        dial: From a size relative to the authors' and the signal's shape to hyperparameters.
        paper: PSNR that the SL2A paper reports on 16 DIV2K images (512 x 512), where it does.
    """

    name: str
    field: str
    lr: float
    fixed: Hyperparameters = dataclasses.field(default_factory=dict)
    kinds: Mapping[str, Hyperparameters] = dataclasses.field(default_factory=dict)
    dial: Callable[[float, tuple[int, ...]], Hyperparameters] = lambda size, shape: {
        "hidden_features": part(256, size)
    }
    paper: float | None = None

    def lr_for(self, kind: str) -> float:
        """The authors' learning rate for a kind of signal."""
        return float(self.kinds.get(kind, {}).get("lr", self.lr))

    def sized(self, kind: str, signal: GridSignal, scalars: int) -> Hyperparameters:
        """Hyperparameters of the largest field of at most `scalars` stored scalars.

        Raises:
            UsageError: even the smallest one has more.
        """
        low, high = 0.005, 16.0
        best: Hyperparameters | None = None
        for _ in range(24):
            middle = math.sqrt(low * high)
            given = self.given(kind, signal.domain.shape, middle)
            if stored_scalars(self.field, signal, given) <= scalars:
                best, low = given, middle
            else:
                high = middle
        if best is None:
            raise UsageError(f"{self.name} has more than {scalars} scalars at any size")
        return best

    def given(self, kind: str, shape: tuple[int, ...], size: float) -> Hyperparameters:
        """Hyperparameters at a size: what the field suggests for the shape, then ours."""
        from fields import registry

        suggested = registry.field_class(self.field).suggest(shape)
        own = {k: v for k, v in self.kinds.get(kind, {}).items() if k != "lr"}
        return {**suggested, **self.fixed, **own, **self.dial(size, shape)}


def stored_scalars(field: str, signal: GridSignal, hyperparameters: Hyperparameters) -> int:
    """Scalars that a file of this field holds."""
    import torch

    from fields import registry

    domain = signal.domain
    with torch.device("meta"):
        built = registry.create(field, len(domain.shape), domain.channels, **hyperparameters)
    return sum(stored.tensor.numel() for stored in built.stored_parameters())


def part(whole: int, size: float, least: int = 2) -> int:
    """A width at a relative size."""
    return max(least, round(whole * size))


def _fkan(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    return {
        "fourier_features": part(128, size),
        "frequencies": part(270, size),
        "hidden_features": [part(n, size) for n in (256, 256, 256, 512)],
    }


def _sl2a(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    widths = {"hidden_features": part(256, size), "rank": part(128, size)}
    return widths | {"degree": part(256, size)}


def _finr(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    width = part(256, size)
    # the authors' networks of three hidden layers, with SIREN's consistent start
    base = {"hidden_features": width, "hidden_layers": 2, "first_omega": 100.0}
    return {"rank": part(128, size), "base_options": base}


def _rff(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    return {"hidden_features": part(256, size), "features": part(256, size)}


def _wavelet(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    counts = {"atoms": 256, "hidden_features": 128, "low_features": 64}
    return {name: part(n, size) for name, n in counts.items()}


def _doh(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    target = {"hidden_features": part(64, math.sqrt(size))}
    return {"target_options": target, "latents": part(4096, size)}


def _grid(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    return {"resolution": [part(n, size) for n in shape]}


def _multistage(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    return {"base_options": {"hidden_features": part(180, size)}}


def _windows(size: float, shape: tuple[int, ...]) -> Hyperparameters:
    return {"base_options": {"hidden_features": part(128, size), "init": "spectrum"}}


WIRE_IMAGES = {"hidden_layers": 3, "first_omega": 20.0, "hidden_omega": 20.0, "scale": 30.0}
"""What the authors recommend for images; the field's default is their setting for tomography."""

WIRE_SOLIDS = {"first_omega": 10.0, "hidden_omega": 10.0, "scale": 40.0}
"""WIRE's setting for occupancy."""

FACTORS = ("cosines",)
"""Fields that are of use only as parts of others: they take part in those."""

CONTESTANTS = (
    Contestant(
        "siren", "siren", 5e-4, kinds={"sound": {"first_omega": 3000.0, "lr": 1e-4}}, paper=33.47
    ),
    Contestant(
        "siren-clean", "siren", 5e-4, {"bias_init": "clean"}, {"sound": {"first_omega": 3000.0}}
    ),
    Contestant("siren-winner", "siren", 1e-4, {"init": "winner"}),
    Contestant("winner-code", "siren", 1e-4, {"init": "winner", "winner_form": "code"}),
    Contestant(
        "finer", "finer", 5e-4, kinds={"shape": {"first_bias": 1.0, "lr": 1e-4}}, paper=36.35
    ),
    Contestant("finer-official", "finer", 5e-4, {"variant": "official"}),
    Contestant("finer-winner", "finer", 1e-4, {"init": "winner"}),
    Contestant("finer-gauss", "finer-gauss", 1e-3),
    Contestant("finer-wavelet", "finer-wavelet", 1e-3),
    Contestant("gauss", "gauss", 5e-3, paper=34.96),
    Contestant("wire", "wire", 5e-3, {"hidden_layers": 3}),
    Contestant("wire-official", "wire", 5e-3, WIRE_IMAGES, {"shape": WIRE_SOLIDS}, paper=30.63),
    Contestant("wire-2d", "wire", 5e-3, {"hidden_layers": 3, "kind": "2d"}),
    Contestant("wavelet", "wavelet", 1e-2, dial=_wavelet),
    Contestant("spder", "spder", 1e-4, kinds={"sound": {"first_omega": 3000.0}}),
    Contestant(
        "spder-arctan",
        "spder",
        1e-4,
        {"damping": "arctan"},
        {"sound": {"first_omega": 3000.0, "lr": 5e-5}},
    ),
    Contestant("fkan", "fkan", 1e-4, dial=_fkan),
    Contestant("sl2a", "sl2a", 1e-3, dial=_sl2a, paper=36.88),
    Contestant(
        "chebykan", "chebykan", 1e-3, dial=lambda size, _: {"hidden_features": part(64, size)}
    ),
    Contestant("finr", "finr", 1e-3, dial=_finr),
    Contestant("relu-pe", "relu-pe", 1e-3, paper=35.27),
    Contestant("rff", "rff", 1e-3, kinds={"shape": {"sigma": 12.0, "lr": 5e-4}}, dial=_rff),
    Contestant("fouriernet", "fouriernet", 1e-2),
    Contestant("gabornet", "gabornet", 1e-2),
    Contestant("bacon", "bacon", 5e-3),
    Contestant("doh", "doh", 1e-2, dial=_doh),
    Contestant("pranc", "pranc", 1e-2, dial=_doh),
    Contestant("grid", "grid", 1e-2, dial=_grid),
    Contestant("tanh", "tanh", 1e-3, {"hidden_layers": 3}),
    Contestant(
        "multistage",
        "multistage",
        5e-4,
        {"stages": 2, "base": "siren", "crossings": 0.05},
        dial=_multistage,
    ),
    Contestant("siren-spectrum", "siren", 5e-4, {"init": "spectrum"}),
    Contestant("windows", "windows", 5e-4, {"count": 4}, dial=_windows),
)
"""Rates are the authors' for whole-signal steps where they have one: FINER's study of five methods,
else each method's own; D'OH and PRANC, whose image code is not public, have ours. On sounds, SIREN
and SPDER take first_omega 3000, their authors' grid of [-100, 100]; the others have no setting of
their own for sound and run as for images."""

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
