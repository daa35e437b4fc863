"""What was fitted, held against what a file decodes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inr.errors import InputError

if TYPE_CHECKING:
    from inr.signals.base import Domain, Signal


def held_against(signal: Signal, domain: Domain, name: str) -> Signal:
    """The original, seen as a decoded domain has it.

    Args:
        signal: What is given as the original.
        domain: Of the file.
        name: What the original is called.

    Raises:
        InputError: it is of another size or type.
    """
    import numpy as np

    from apps.view.shape import as_fitted
    from inr.signals.base import GridSignal

    if not isinstance(signal, GridSignal):
        try:
            return as_fitted(signal, domain)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    dtype = domain.to_samples(np.zeros((1, domain.channels), domain.precision)).dtype
    held = _lattice(domain, str(dtype))
    given = _lattice(signal.domain, str(signal.samples.dtype))
    if held != given:
        raise InputError(
            f"{name}: is {given}, but the .inr file holds {held}: give what was fitted"
        )
    return signal


def _lattice(domain: Domain, dtype: str) -> str:
    return f"{' x '.join(map(str, domain.shape))} of {domain.channels} x {dtype}"
