"""Bytes of an `.inr` file -> facts, symbols, or a field, checked at every step.

`inspect` and `symbols` need no torch; `decode` builds the field.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from inr.codec import format as container
from inr.codec import metadata
from inr.errors import CorruptFile, LimitExceeded, UnsupportedFile
from inr.limits import Limits
from inr.signals import domain_from_header, exif
from inr.signals.image import ImageDomain

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fields.base import Field
    from inr.codec.entropy import Row
    from inr.signals.base import Domain


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file says of itself.

    Args:
        domain: Where the signal lives.
        field: Registered name of the field.
        hyperparameters: Values in the order of the field's constructor.
        psnr: Quality stated by the encoder in dB, if any.
        metadata: Texts about the signal, by their names (see `inr.codec.metadata.KEYS`).
        container: The parsed container.
        boundaries: Quality in dB, as stated by the encoder, of what the layers before each later
            one make; None where nothing is stated. A file that is not layered has none.
    """

    domain: Domain
    field: str
    hyperparameters: list[Any]
    psnr: float | None
    metadata: dict[str, str]
    container: container.Container
    boundaries: list[float | None]

    @property
    def present(self) -> int:
        """How many layers are there: all, unless the file was taken in part."""
        return len(self.container.bodies(container.PARAMETERS))

    @property
    def layers(self) -> int:
        """How many layers the whole file has, as far as it says so."""
        return max(self.present, len(self.boundaries) + 1)

    @property
    def quality(self) -> float | None:
        """Stated quality in dB of the layers that are there."""
        if self.boundaries:
            return [*self.boundaries, self.psnr][self.present - 1]
        return None if self.container.cut else self.psnr


def inspect(
    data: bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    partial: bool = False,
) -> Contents:
    """Check a file's integrity and read its header.

    Args:
        data: Its bytes.
        limits: What it may ask for.
        partial: Whether the first bytes of a file will do, if they hold its first layer.

    Raises:
        InputError: the file is damaged, unsupported or beyond `limits`.
    """
    parsed = container.unpack(data, limits, partial=partial)
    if partial and not parsed.bodies(container.PARAMETERS):
        raise CorruptFile("is cut short or damaged before the end of its first layer")
    with container.read_as(parsed.minor):
        return _contents(parsed, limits)


def _contents(parsed: container.Container, limits: Limits) -> Contents:
    from fields import registry

    kind, items, name, given, *rest = parsed.header
    domain = domain_from_header(kind, items)
    limits.check_samples(domain.shape, domain.channels)
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
    domain = _with_profiles(domain, parsed, limits)
    psnr = quality / 100 if quality is not None else None
    boundaries = _boundaries(facts.get("l", []), parsed)
    said = _only(parsed, container.METADATA)
    texts = {} if said is None else metadata.unpack(said, limits)
    return Contents(domain, name, hyperparameters, psnr, texts, parsed, boundaries)


def _boundaries(stated: Any, parsed: container.Container) -> list[float | None]:
    """The quality of each layer but the last, from hundredths of a dB."""
    if not isinstance(stated, list) or not all(
        x is None or (type(x) is int and 0 <= x <= 0xFFFF) for x in stated
    ):
        raise CorruptFile("has a header with malformed layers")
    present = len(parsed.bodies(container.PARAMETERS))
    if stated and (present > len(stated) + 1 or (present <= len(stated) and not parsed.cut)):
        raise CorruptFile(f"has {present} layers, and a header that tells of {len(stated) + 1}")
    return [None if x is None else x / 100 for x in stated]


def claimed_sizes(contents: Contents, limits: Limits = Limits()) -> list[int]:  # noqa: B008
    """How many parameters each row of a file is said to have; none of them is decoded."""
    from inr.codec import entropy

    sizes: list[int] = []
    with container.read_as(contents.container.minor):
        for body in contents.container.bodies(container.PARAMETERS):
            sizes += entropy.claimed_sizes(body, limits)
            limits.check("the number of parameter rows", len(sizes), limits.rows)
        limits.check("the number of parameters", sum(sizes), limits.symbols)
    return sizes


def symbols(contents: Contents, limits: Limits = Limits()) -> list[Row]:  # noqa: B008
    """Decode all quantised parameters of a file."""
    from inr.codec.entropy import decode_rows

    claimed_sizes(contents, limits)
    rows: list[Row] = []
    with container.read_as(contents.container.minor):
        for body in contents.container.bodies(container.PARAMETERS):
            rows += decode_rows(body, limits)
    return rows


def decode(
    data: bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    partial: bool = False,
) -> Field:
    """Rebuild the field of a file, its domain attached, on the CPU.

    Args:
        data: Its bytes.
        limits: What it may ask for.
        partial: Whether the first bytes of a file will do: those layers that are there whole make a
            coarser field. `inspect` tells how many they are.

    Raises:
        InputError: the file is damaged, unsupported or beyond `limits`.
    """
    return build(inspect(data, limits, partial=partial), limits)


def build(contents: Contents, limits: Limits = Limits()) -> Field:  # noqa: B008
    """Rebuild the field of a file that was inspected; see `decode`."""
    with container.read_as(contents.container.minor):
        return _build(contents, limits)


def _build(contents: Contents, limits: Limits) -> Field:
    """The field that a file describes, with its parameters; those of missing layers are 0."""
    import numpy as np
    import torch

    from fields import registry
    from fields.base import FieldError, hyperparameter_names
    from inr.codec.entropy import Row
    from inr.codec.quantize import dequantize

    cls = registry.field_class(contents.field)
    names = hyperparameter_names(cls)
    if len(contents.hyperparameters) > len(names):
        given = len(contents.hyperparameters)
        raise CorruptFile(f"gives {given} hyperparameters to {contents.field}, not {len(names)}")
    # a file from before a hyperparameter existed has its default
    arguments = dict(zip(names, contents.hyperparameters, strict=False))
    sizes = (len(contents.domain.shape), contents.domain.channels)
    try:
        # shapes only: nothing is allocated before it is counted
        with torch.device("meta"), _counted(contents.container, limits):
            outline = cls(*sizes, **arguments)
        _check_size(outline, limits)
        expected = row_sizes(outline)
        claimed = claimed_sizes(contents, limits)
        missing = expected[len(claimed) :] if contents.container.cut else []
        if [*claimed, *missing] != expected:
            raise CorruptFile(f"holds parameters that do not make a {contents.field}")
        rows = symbols(contents, limits)
        rows += [Row(0, np.zeros(size, np.int32)) for size in missing]
        # an array of float64 is a function in float64
        field = outline.to(getattr(torch, contents.domain.precision)).to_empty(device="cpu")
        field.regenerate()
        field.load_stored(join_rows(field, [dequantize(row) for row in rows]))
        if missing:
            field.leave_out(_tensors_with(field, len(rows) - len(missing)))
    except (FieldError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CorruptFile(f"describes no valid {contents.field}: {reason}") from None
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LimitExceeded(f"{contents.field} cannot be built: {reason}") from None
    field.domain = contents.domain
    return field


@contextlib.contextmanager
def _counted(parsed: container.Container, limits: Limits) -> Iterator[None]:
    """Refuse, while it is being built, a network of far more tensors than the file has rows.

    Nested fields of many layers would take seconds of a few bytes.
    """
    import threading

    from torch.nn.modules.module import register_module_parameter_registration_hook

    rows = [container.read_varint(body, 0)[0] for body in parsed.bodies(container.PARAMETERS)]
    # missing layers may have any number of rows
    bound = limits.tensors + 4 * min(sum(rows) if not parsed.cut else limits.rows, limits.rows)
    thread, count = threading.get_ident(), itertools.count(1)

    def watch(module: Any, name: str, parameter: Any) -> None:
        if threading.get_ident() == thread:  # other threads may build networks of their own
            limits.check("the number of tensors", next(count), bound)

    handle = register_module_parameter_registration_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _check_size(outline: Field, limits: Limits) -> None:
    """Refuse a field that would take more memory or work than allowed; it has no memory yet."""
    from fields.base import Field

    numbers = sum(t.numel() for t in (*outline.parameters(), *outline.buffers()))
    limits.check("the number of parameters", numbers, limits.symbols)
    limits.check("the count of numbers drawn from a seed", outline.drawn, limits.drawn)
    for part in outline.modules():
        if isinstance(part, Field):
            limits.check("the width of a network", part.widest, limits.width)
            layers = part.hyperparameters.get("hidden_layers", 0)
            limits.check("the number of hidden layers", layers, limits.layers)
    for stored in outline.stored_parameters():
        limits.check("the number of axes of a tensor", stored.tensor.ndim, limits.rank)


def _tensors_with(field: Field, rows: int) -> int:
    """How many stored tensors have a part among the first rows."""
    counts = [stored.rows for stored in field.stored_parameters()]
    starts = [0, *itertools.accumulate(counts)][:-1]
    return sum(start < rows for start in starts)


def row_sizes(field: Field) -> list[int]:
    """Number of parameters in each row of a field, in file order."""
    sizes: list[int] = []
    for stored in field.stored_parameters():
        sizes += [stored.tensor.numel() // stored.rows] * stored.rows
    return sizes


def join_rows(field: Field, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Inverse of `split_rows`: named tensors from flat rows."""
    import numpy as np
    import torch

    values: dict[str, Tensor] = {}
    at = 0
    for stored in field.stored_parameters():
        flat = np.concatenate([np.asarray(row) for row in rows[at : at + stored.rows]])
        values[stored.name] = torch.from_numpy(flat).reshape(stored.tensor.shape)
        at += stored.rows
    return values


def _with_profiles(domain: Domain, parsed: container.Container, limits: Limits) -> Domain:
    """Attach colour profile and EXIF data, where ancillary chunks carry them."""
    if not isinstance(domain, ImageDomain):
        return domain
    found: dict[str, Any] = {}
    if (body := _only(parsed, container.COLOUR_PROFILE)) is not None:
        found["icc"] = metadata.inflate(
            body, metadata.PROFILE_BYTES, limits.profile_bytes, "a colour profile"
        )
    if (body := _only(parsed, container.EXIF)) is not None:
        block = metadata.inflate(body, exif.MOST_BYTES, limits.exif_bytes, "EXIF data")
        found["exif"] = exif.cleaned(block)  # whatever they claim, pixels are not turned again
    return dataclasses.replace(domain, **found) if found else domain


def _only(parsed: container.Container, kind: bytes) -> bytes | None:
    """Body of the one chunk of a type that a file may have once; None if it has none."""
    bodies = parsed.bodies(kind)
    if len(bodies) > 1:
        raise CorruptFile(f"has {len(bodies)} chunks {kind.decode()}, of which there may be one")
    return bodies[0] if bodies else None
