"""Permanent names of fields, resolved lazily: listing them imports no network.

A name here is written into files. It is never reused and never changes its meaning. To add a
field, write one file and one line here.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fields.base import Field

FIELDS: dict[str, tuple[str, str]] = {
    "bacon": ("fields.mfn:Bacon", "band-limited multiplicative network (Lindell et al. 2022)"),
    "chebykan": ("fields.chebyshev:ChebyKan", "Chebyshev Kolmogorov-Arnold net (SS et al. 2024)"),
    "cosines": ("fields.cosines:Cosines", "cosine series, a base for finr (Ahmed et al. 1974)"),
    "doh": ("fields.doh:Doh", "weights from a latent code by projections (Gordon et al. 2024)"),
    "finer": ("fields.finer:Finer", "sines of variable period (Liu et al. 2024)"),
    "finer-gauss": ("fields.finer:FinerGauss", "Gaussians of variable period (FINER++)"),
    "finer-wavelet": ("fields.finer:FinerWavelet", "wavelets of variable period (FINER++)"),
    "finr": ("fields.finr:Finr", "per-axis networks, multiplied (Vemuri et al. 2025)"),
    "fkan": ("fields.fkan:Fkan", "learnable Fourier series, then an MLP (Mehrabian et al. 2025)"),
    "fouriernet": ("fields.mfn:FourierNet", "multiplicative sines (Fathony et al. 2021)"),
    "gabornet": ("fields.mfn:GaborNet", "multiplicative Gabor filters (Fathony et al. 2021)"),
    "gauss": ("fields.baselines:Gauss", "MLP with Gaussian activations (Ramasinghe & Lucey 2022)"),
    "grid": ("fields.grid:Grid", "multi-resolution feature grid with a small MLP"),
    "multistage": ("fields.multistage:MultiStage", "networks in stages (Wang & Lai 2024)"),
    "pranc": ("fields.doh:Pranc", "combination of random networks (Nooralinejad et al. 2023)"),
    "progressive": ("fields.progressive:Progressive", "networks that render one after the other"),
    "relu-pe": ("fields.baselines:ReluPe", "positional encoding and ReLU (Mildenhall et al. 2020)"),
    "rff": ("fields.baselines:Rff", "random Fourier features and ReLU (Tancik et al. 2020)"),
    "siren": ("fields.siren:Siren", "MLP with sine activations (Sitzmann et al. 2020)"),
    "sl2a": ("fields.chebyshev:Sl2a", "Chebyshev layer and low-rank fusion (Heidari et al. 2025)"),
    "spder": ("fields.spder:Spder", "damped sines (Shah & Sitawarin 2024)"),
    "tanh": ("fields.tanh:Tanh", "MLP with tanh, the base of multi-stage networks"),
    "wavelet": (
        "fields.wavelet:Wavelet",
        "low-pass and band-pass wavelets (Roddenberry et al. 2024)",
    ),
    "windows": ("fields.windows:Windows", "small networks side by side along an axis, blended"),
    "wire": ("fields.wavelet:Wire", "complex Gabor wavelets (Saragadam et al. 2023)"),
}


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(FIELDS)


def field_class(name: str) -> type[Field]:
    """The class behind a registered name.

    Raises:
        FieldError: the name is unknown; the message suggests the nearest one.
    """
    from fields.base import FieldError

    if not isinstance(name, str) or name not in FIELDS:
        near = difflib.get_close_matches(str(name), FIELDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names())}"
        raise FieldError(f"no field is named {name!r}: {hint}")
    module, _, attribute = FIELDS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, in_features: int, out_features: int, **hyperparameters: Any) -> Field:
    """Build a field by name; `hyperparameters` are its constructor's keywords."""
    # every registered constructor takes (in_features, out_features, *, ...): the contract suite
    return field_class(name)(in_features, out_features, **hyperparameters)


def name_of(field: Field) -> str:
    """The registered name of a field's class.

    Raises:
        FieldError: the class is not registered, so no file could name it.
    """
    from fields.base import FieldError

    target = f"{type(field).__module__}:{type(field).__name__}"
    for name, (path, _) in FIELDS.items():
        if path == target:
            return name
    raise FieldError(f"{type(field).__name__} is not in fields/registry.py: add its line there")
