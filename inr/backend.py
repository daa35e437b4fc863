"""Give a field the backend that computes it, for as long as something is fitted or drawn."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from fields.kernels import select
from fields.kernels.build import NoKernel
from fields.kernels.select import Choice
from inr.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")


def prefer(backend: str) -> None:
    """Set the backend of this process, where a call names none; "auto" at first.

    Args:
        backend: "auto", "triton", "cpp", "tinycudann", "compile" or "eager" (see
            `fields.kernels.select`).

    Raises:
        UsageError: there is none of that name.
    """
    try:
        select.prefer(backend)
    except NoKernel as error:
        raise UsageError(str(error)) from None


@contextlib.contextmanager
def computing(
    field: Any, backend: str | None = None, *, device: str = "cpu", may_build: bool = False
) -> Iterator[Choice]:
    """Within it a field computes by a backend, and after it by plain torch.

    Args:
        field: One that has a backend keeps it.
        backend: Its name; None for that of the process.
        device: Where it computes.
        may_build: Whether kernels may be compiled for it, which takes some seconds, once.

    Raises:
        UsageError: that backend cannot compute this field here.
    """
    if not hasattr(field, "chain"):
        yield Choice("numpy", "it needs no torch")
        return
    chain = field.chain()
    if chain.engine is not None:
        yield chain.engine.choice
        return
    from fields.kernels.engine import attach

    try:
        choice = attach(field, backend, device=device, may_build=may_build)
    except NoKernel as error:
        raise UsageError(str(error)) from None
    try:
        yield choice
    finally:
        chain.engine = None


def computed(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute its first argument, a field, by the backend of the process."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with computing(args[0]):
            return function(*args, **kwargs)

    return wrapper
