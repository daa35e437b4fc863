"""INR Studio: fit, compress and decode implicit neural representations.

    image = inr.open("photo.png")
    fit = inr.fit(image, seconds=20)
    inr.save(fit, "photo.inr")
    picture = inr.render(inr.load("photo.inr"), size=(2048, 2048))

Importing this loads no torch; the first call that needs it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inr.codec.decode import decode
    from inr.codec.encode import encode
    from inr.errors import InrError
    from inr.fitting.fit import Fit, fit
    from inr.io import load, save
    from inr.limits import Limits
    from inr.rate.control import Compressed, compress
    from inr.rendering import render
    from inr.signals import open_signal as open

__version__ = "0.1.0"
__all__ = [
    "Compressed",
    "Fit",
    "InrError",
    "Limits",
    "compress",
    "decode",
    "encode",
    "fit",
    "load",
    "open",
    "render",
    "save",
]

_HOMES = {
    "Compressed": "inr.rate.control:Compressed",
    "Fit": "inr.fitting.fit:Fit",
    "InrError": "inr.errors:InrError",
    "Limits": "inr.limits:Limits",
    "compress": "inr.rate.control:compress",
    "decode": "inr.codec.decode:decode",
    "encode": "inr.codec.encode:encode",
    "fit": "inr.fitting.fit:fit",
    "load": "inr.io:load",
    "open": "inr.signals:open_signal",
    "render": "inr.rendering:render",
    "save": "inr.io:save",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inr' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value
