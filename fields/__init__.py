"""Networks that represent a signal as a function of its coordinates.

`fields.Siren(2, 3)` or `fields.create("siren", 2, 3)`; torch loads with the first field.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fields.registry import FIELDS, create, field_class, name_of, names

if TYPE_CHECKING:
    from fields.base import Field, FieldError
    from fields.baselines import Gauss, ReluPe, Rff
    from fields.chebyshev import ChebyKan, Sl2a
    from fields.cosines import Cosines
    from fields.doh import Doh, Pranc
    from fields.finer import Finer, FinerGauss, FinerWavelet
    from fields.finr import Finr
    from fields.fkan import Fkan
    from fields.grid import Grid
    from fields.mfn import Bacon, FourierNet, GaborNet
    from fields.multistage import MultiStage
    from fields.progressive import Progressive
    from fields.siren import Siren
    from fields.spder import Spder
    from fields.tanh import Tanh
    from fields.wavelet import Wavelet, Wire
    from fields.windows import Windows

__all__ = [
    "Bacon",
    "ChebyKan",
    "Cosines",
    "Doh",
    "Field",
    "FieldError",
    "Finer",
    "FinerGauss",
    "FinerWavelet",
    "Finr",
    "Fkan",
    "FourierNet",
    "GaborNet",
    "Gauss",
    "Grid",
    "MultiStage",
    "Pranc",
    "Progressive",
    "ReluPe",
    "Rff",
    "Siren",
    "Sl2a",
    "Spder",
    "Tanh",
    "Wavelet",
    "Windows",
    "Wire",
    "create",
    "field_class",
    "name_of",
    "names",
]

_HOMES = {path.partition(":")[2]: path.partition(":")[0] for path, _ in FIELDS.values()}
_HOMES |= {"Field": "fields.base", "FieldError": "fields.base"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fields' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
