"""What was observed of a signal, where that is not the signal itself.

An operator maps a signal's samples to observations: some of them, their means over blocks, line
integrals, differences. `inr.signals.observed.Observed` is a signal seen through one; it is fitted
like any other, and the field is the signal's. All operators here are linear.

    noisy = Observed(inr.open("noisy.png"), create("denoise"))
    fit = inr.fit(noisy)

To add one, write a class and one line here. The keywords of its constructor are its options, for
Python and the command line alike; the preset `image/NAME` is what suits it.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from inr.errors import UsageError

if TYPE_CHECKING:
    from inr.operators.base import Operator

OPERATORS: dict[str, tuple[str, str]] = {
    "denoise": ("inr.operators.samples:Denoise", "a noisy signal"),
    "inpaint": ("inr.operators.samples:Inpaint", "some of the samples"),
    "superresolve": ("inr.operators.samples:SuperResolve", "means over blocks of samples"),
    "ct": ("inr.operators.tomography:Ct", "a sinogram of parallel beams"),
    "gradient": ("inr.operators.derivatives:Gradient", "first differences of a picture"),
    "laplacian": ("inr.operators.derivatives:Laplacian", "second differences of a picture"),
}
"""By permanent name: where the class is, and what was observed."""


def operator_class(name: str) -> type[Operator]:
    """The class behind a name.

    Raises:
        UsageError: there is no such operator; the message suggests the nearest one.
    """
    if name not in OPERATORS:
        near = difflib.get_close_matches(name, OPERATORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(OPERATORS)}"
        raise UsageError(f"no operator is named {name!r}: {hint}")
    module, _, attribute = OPERATORS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, **options: Any) -> Operator:
    """An operator by name, with its options.

    Raises:
        UsageError: the name or an option is unknown, or an option is out of range.
    """
    try:
        return operator_class(name)(**options)
    except TypeError as error:
        raise UsageError(f"operator {name}: {error}") from None
