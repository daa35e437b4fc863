"""Files that were decoded lately, kept in a worker: whoever zooms asks for the same one again."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.spec import LIMITS
from inr.codec.decode import Contents, build, claimed_sizes, inspect
from inr.codec.light import build_light
from inr.errors import InputError
from inr.files import read_bytes
from inr.io import named

if TYPE_CHECKING:
    from fields.base import Field
    from fields.kernels.grid import NumpyGrid
    from inr.signals.base import Domain

KEPT = 4
KEPT_NUMBERS = 1 << 23
"""Files at most that are kept, and parameters in all of them but the last."""

FIRST_POINTS = 1 << 10
MOST_POINTS = 1 << 16
TRIAL_SECONDS = 0.1
"""A field's speed is measured on more and more points until they take so long."""

_kept: OrderedDict[tuple[Any, ...], Decoded] = OrderedDict()


class Decoded:
    """An `.inr` file and the field in it.

    Args:
        data: The file's bytes.

    Attributes:
        contents: What the file says of itself.

    Raises:
        InputError: it is none, damaged, or beyond the studio's limits.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.contents: Contents = inspect(data, LIMITS)

    @functools.cached_property
    def numbers(self) -> int:
        """Parameters of the field."""
        return sum(claimed_sizes(self.contents, LIMITS))

    @property
    def domain(self) -> Domain:
        """Where the signal lives."""
        return self.contents.domain

    @functools.cached_property
    def field(self) -> Field:
        """The field in torch, on the CPU."""
        return build(self.contents, LIMITS)

    @functools.cached_property
    def drawn(self) -> Field | NumpyGrid:
        """What `inr decode` draws: the same without torch, where there is such a thing."""
        return build_light(self.contents, LIMITS) or self.field

    @functools.cached_property
    def double(self) -> Field:
        """The field in double precision, for places that float32 does not tell apart."""
        made = copy.deepcopy(self.field).double()
        made.domain = self.field.domain
        return made

    @property
    def fine(self) -> Field | NumpyGrid:
        """What is drawn at great magnification."""
        # a grid in numpy computes in the precision of its coordinates
        return self.double if self.drawn is self.field else self.drawn

    @functools.cached_property
    def speed(self) -> float:
        """Points that can be rendered in a second of the processor, about."""
        from inr.rendering import sampled

        axes = len(self.domain.shape)
        points, first = FIRST_POINTS, True
        while True:
            side = max(1, round(points ** (1 / axes)))
            lattice = [np.linspace(-0.9, 0.9, side).astype(self.domain.precision)] * axes
            begin = time.process_time()
            for _ in sampled(self.drawn, lattice):
                pass
            seconds = time.process_time() - begin
            if first:  # what is made once is not its speed
                first = False
                continue
            if seconds >= TRIAL_SECONDS or points >= MOST_POINTS:
                return math.prod(map(len, lattice)) / max(seconds, 1e-9)
            points *= 8


def decoded(path: Path, name: str = "") -> Decoded:
    """The file at a path; one that was asked for lately is there already.

    Args:
        path: Where it lies.
        name: Its name for people, with which errors begin.

    Raises:
        InputError: it is missing, none, damaged, or beyond the studio's limits.
    """
    try:
        return _decoded(path)
    except InputError as error:
        raise type(error)(named(name or path.name, error)) from None


def _decoded(path: Path) -> Decoded:
    try:
        about = path.stat()
    except OSError:
        return Decoded(read_bytes(path, LIMITS.file_bytes))  # which tells what is wrong
    key = (str(path), about.st_ino, about.st_mtime_ns, about.st_size)
    if key not in _kept:
        _kept[key] = Decoded(read_bytes(path, LIMITS.file_bytes))
    _kept.move_to_end(key)
    while len(_kept) > 1 and (
        len(_kept) > KEPT or sum(one.numbers for one in _kept.values()) > KEPT_NUMBERS
    ):
        _kept.popitem(last=False)
    return _kept[key]
