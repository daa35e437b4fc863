"""Who takes part in the shoot-out: settings of the papers, and how each field is made smaller.

Hyperparameters are the authors' for the task where they give any, those of their images where not.
Every field has one dial, its size relative to the authors' (see `Field.scaled`), which is turned
until it stores as many scalars as all others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
        full: The authors' sizes, which the dial turns; what is not there is as the field suggests
            it for the signal.
        paper: PSNR that the SL2A paper reports on 16 DIV2K images (512 x 512), where it does.
    """

    name: str
    field: str
    lr: float
    fixed: Hyperparameters = dataclasses.field(default_factory=dict)
    kinds: Mapping[str, Hyperparameters] = dataclasses.field(default_factory=dict)
    full: Hyperparameters = dataclasses.field(default_factory=lambda: {"hidden_features": 256})
    paper: float | None = None

    def lr_for(self, kind: str) -> float:
        """The authors' learning rate for a kind of signal."""
        return float(self.kinds.get(kind, {}).get("lr", self.lr))

    def sized(self, kind: str, signal: GridSignal, scalars: int) -> Hyperparameters:
        """Hyperparameters of the largest field of at most `scalars` stored scalars.

        Raises:
            UsageError: even the smallest one has more.
        """
        from fields.sizes import at_most

        domain = signal.domain
        whole_size = self.given(kind, domain.shape)
        best = at_most(scalars, self.field, domain.shape, domain.channels, whole_size)
        if best is None:
            raise UsageError(f"{self.name} has more than {scalars} scalars at any size")
        return best

    def given(self, kind: str, shape: tuple[int, ...]) -> Hyperparameters:
        """Hyperparameters at the authors' size, and beside theirs what the field suggests."""
        from fields import registry

        suggested = registry.field_class(self.field).suggest(shape)
        own = {k: v for k, v in self.kinds.get(kind, {}).items() if k != "lr"}
        return {**suggested, **self.fixed, **own, **self.full}


FINR = {
    "rank": 128,
    # the authors' networks of three hidden layers, with SIREN's consistent start
    "base_options": {"hidden_features": 256, "hidden_layers": 2, "first_omega": 100.0},
}

CODES = {"latents": 4096, "target_options": {"hidden_features": 64}}

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
    Contestant(
        "wavelet", "wavelet", 1e-2, full={"atoms": 256, "hidden_features": 128, "low_features": 64}
    ),
    Contestant("spder", "spder", 1e-4, kinds={"sound": {"first_omega": 3000.0}}),
    Contestant(
        "spder-arctan",
        "spder",
        1e-4,
        {"damping": "arctan"},
        {"sound": {"first_omega": 3000.0, "lr": 5e-5}},
    ),
    Contestant(
        "fkan",
        "fkan",
        1e-4,
        full={
            "fourier_features": 128,
            "frequencies": 270,
            "hidden_features": [256, 256, 256, 512],
        },
    ),
    Contestant(
        "sl2a",
        "sl2a",
        1e-3,
        full={"hidden_features": 256, "rank": 128, "degree": 256},
        paper=36.88,
    ),
    Contestant("chebykan", "chebykan", 1e-3, full={"hidden_features": 64}),
    Contestant("finr", "finr", 1e-3, full=FINR),
    Contestant("relu-pe", "relu-pe", 1e-3, paper=35.27),
    Contestant(
        "rff",
        "rff",
        1e-3,
        kinds={"shape": {"sigma": 12.0, "lr": 5e-4}},
        full={"hidden_features": 256, "features": 256},
    ),
    Contestant("fouriernet", "fouriernet", 1e-2),
    Contestant("gabornet", "gabornet", 1e-2),
    Contestant("bacon", "bacon", 5e-3),
    Contestant("doh", "doh", 1e-2, full=CODES),
    Contestant("pranc", "pranc", 1e-2, full=CODES),
    Contestant("grid", "grid", 1e-2, full={}),
    Contestant("tanh", "tanh", 1e-3, {"hidden_layers": 3}),
    Contestant(
        "multistage",
        "multistage",
        5e-4,
        {"stages": 2, "base": "siren", "crossings": 0.05},
        full={"base_options": {"hidden_features": 180}},
    ),
    Contestant(
        "progressive",
        "progressive",
        5e-4,
        {"stages": 2},
        full={"base_options": [{"hidden_features": 120}, {"hidden_features": 224}]},
    ),
    Contestant("siren-spectrum", "siren", 5e-4, {"init": "spectrum"}),
    Contestant(
        "windows",
        "windows",
        5e-4,
        {"count": 4},
        full={"base_options": {"hidden_features": 128, "init": "spectrum"}},
    ),
)
"""Rates are the authors' for whole-signal steps where they have one: FINER's study of five methods,
else each method's own; D'OH and PRANC, whose image code is not public, have ours. On sounds, SIREN
and SPDER take first_omega 3000, their authors' grid of [-100, 100]; the others have no setting of
their own for sound and run as for images."""

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
