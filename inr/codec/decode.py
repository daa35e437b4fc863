"""Bytes of an `.inr` file -> facts, symbols, or a field, checked at every step.

`inspect` and `symbols` need no torch; `decode` builds the field.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inr.codec import format as container
from inr.errors import CorruptFile, LimitExceeded, UnsupportedFile
from inr.limits import Limits
from inr.signals import domain_from_header
from inr.signals.image import ImageDomain

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fields.base import Field
    from inr.codec.entropy import Row
    from inr.signals.base import Domain

ICC_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file says of itself.

    Args:
        domain: Where the signal lives.
        field: Registered name of the field.
        hyperparameters: Values in the order of the field's constructor.
        psnr: Quality stated by the encoder in dB, if any.
        container: The parsed container.
    """

    domain: Domain
    field: str
    hyperparameters: list[Any]
    psnr: float | None
    container: container.Container


def inspect(data: bytes, limits: Limits = Limits()) -> Contents:  # noqa: B008
    """Check a file's integrity and read its header.

    Raises:
        InputError: the file is damaged, unsupported or beyond `limits`.
    """
    from fields import registry

    parsed = container.unpack(data, limits)
    kind, items, name, given, *rest = parsed.header
    domain = domain_from_header(kind, items)
    limits.check_samples(domain.shape)
    if not isinstance(name, str) or not isinstance(given, list) or len(given) > 32:
        raise CorruptFile("has a header that names no field")
    if name not in registry.FIELDS:
        raise UnsupportedFile(f"holds a field named {name[:40]!r}, which this build does not know")
    hyperparameters = [list(domain.shape) if value is None else value for value in given]
    facts = rest[0] if rest else {}
    if not isinstance(facts, dict):
        raise CorruptFile("has a header with malformed facts")
    quality = facts.get("q")
    if quality is not None and (type(quality) is not int or not 0 <= quality <= 0xFFFF):
        raise CorruptFile("has a header with a malformed quality")
    domain = _with_profile(domain, parsed)
    psnr = quality / 100 if quality is not None else None
    return Contents(domain, name, hyperparameters, psnr, parsed)


def symbols(contents: Contents, limits: Limits = Limits()) -> list[Row]:  # noqa: B008
    """Decode all quantised parameters of a file."""
    from inr.codec.entropy import decode_rows

    rows: list[Row] = []
    for body in contents.container.bodies(container.PARAMETERS):
        rows += decode_rows(body, limits)
    return rows


def decode(data: bytes, limits: Limits = Limits()) -> Field:  # noqa: B008
    """Rebuild the field of a file, its domain attached, on the CPU.

    Raises:
        InputError: the file is damaged, unsupported or beyond `limits`.
    """
    import torch

    from fields import registry
    from fields.base import FieldError, hyperparameter_names
    from inr.codec.quantize import dequantize

    contents = inspect(data, limits)
    cls = registry.field_class(contents.field)
    names = hyperparameter_names(cls)
    if len(contents.hyperparameters) > len(names):
        given = len(contents.hyperparameters)
        raise CorruptFile(f"gives {given} hyperparameters to {contents.field}, not {len(names)}")
    # a file from before a hyperparameter existed has its default
    arguments = dict(zip(names, contents.hyperparameters, strict=False))
    sizes = (len(contents.domain.shape), contents.domain.channels)
    try:
        with torch.device("meta"):  # shapes only: nothing is allocated before it is counted
            outline = cls(*sizes, **arguments)
        numbers = sum(t.numel() for t in (*outline.parameters(), *outline.buffers()))
        limits.check("the number of parameters", numbers, limits.symbols)
        limits.check("the count of numbers drawn from a seed", outline.drawn, limits.drawn)
        expected = row_sizes(outline)
        rows = symbols(contents, limits)
        if [len(row.symbols) for row in rows] != expected:
            raise CorruptFile(f"holds parameters that do not make a {contents.field}")
        # an array of float64 is a function in float64
        field = outline.to(getattr(torch, contents.domain.precision)).to_empty(device="cpu")
        field.regenerate()
        field.load_stored(join_rows(field, [dequantize(row) for row in rows]))
    except (FieldError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptFile(f"describes no valid {contents.field}: {reason}") from None
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LimitExceeded(f"{contents.field} cannot be built: {reason}") from None
    field.domain = contents.domain
    return field


def row_sizes(field: Field) -> list[int]:
    """Number of parameters in each row of a field, in file order."""
    sizes: list[int] = []
    for stored in field.stored_parameters():
        n = stored.tensor.numel()
        rows = stored.tensor.shape[0] if stored.per_row else 1
        sizes += [n // rows] * rows
    return sizes


def join_rows(field: Field, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Inverse of `split_rows`: named tensors from flat rows."""
    import numpy as np
    import torch

    values: dict[str, Tensor] = {}
    at = 0
    for stored in field.stored_parameters():
        count = stored.tensor.shape[0] if stored.per_row else 1
        flat = np.concatenate([np.asarray(row) for row in rows[at : at + count]])
        values[stored.name] = torch.from_numpy(flat).reshape(stored.tensor.shape)
        at += count
    return values


def _with_profile(domain: Domain, parsed: container.Container) -> Domain:
    """Attach the colour profile, where an ancillary chunk carries one."""
    bodies = parsed.bodies(container.COLOUR_PROFILE)
    if not bodies or not isinstance(domain, ImageDomain):
        return domain
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(bodies[0], ICC_BYTES)
    except zlib.error:
        raise CorruptFile("has a colour profile that cannot be unpacked") from None
    if inflate.unconsumed_tail or not inflate.eof or len(bodies) > 1:
        raise CorruptFile("has a colour profile that is too large or cut short")
    return dataclasses.replace(domain, icc=profile)
