"""What `inr decode` does with an array: --shape, written as `.npy` while it is rendered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from inr.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from fields.base import Field
    from inr.signals.array import ArrayDomain

OPTIONS = {"shape": (str, "samples per axis, such as 128,128,64")}


def options(args: Namespace) -> dict[str, Any]:
    """What the user asked for, as `inr.rendering.render` takes it.

    Raises:
        UsageError: the shape is malformed.
    """
    if args.shape is None:
        return {"size": None}
    try:
        return {"size": tuple(int(word) for word in args.shape.split(","))}
    except ValueError:
        raise UsageError(f"--shape is {args.shape!r}: give numbers such as 128,128,64") from None


class Array:
    """One rendering.

    Args:
        field: The decoded field.
        how: What `options` returned.
    """

    suffix = ".npy"

    def __init__(self, field: Field, how: dict[str, Any]) -> None:
        from inr.rendering import target_shape

        self.field = field
        self.domain: ArrayDomain = field.domain
        try:
            self.shape = target_shape(self.domain, how["size"], None, None)
        except UsageError as error:
            raise UsageError(f"--shape: {error}") from None
        self.facts = {"shape": list(self.shape), "channels": self.domain.channels}
        self.text = " x ".join(map(str, self.shape))

    def check(self, suffix: str, *, to_file: bool) -> None:
        """Refuse what the format cannot hold."""
        if suffix.lower() != ".npy":
            raise UsageError(f"arrays are not written as {suffix!r}: write .npy")

    def to_bytes(self, suffix: str) -> bytes:
        """The bytes of a `.npy` file."""
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, np.concatenate([*self._pieces()]))
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Render into a file."""
        from inr.files import write_npy
        from inr.signals.array import DTYPES

        channels = (self.domain.channels,) if self.domain.channels > 1 else ()
        write_npy(path, self.shape + channels, DTYPES[self.domain.dtype], self._pieces())

    def _pieces(self) -> Iterator[np.ndarray]:
        from inr.rendering import render_bands

        starts = [0.0] * len(self.shape)
        lengths = [float(n) for n in self.domain.shape]
        for _, samples in render_bands(self.field, self.domain, self.shape, starts, lengths):
            yield samples if self.domain.channels > 1 else samples[..., 0]
