"""Files in and out: `save` a fit, `load` a field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inr.codec.decode import decode
from inr.errors import InputError
from inr.files import read_bytes, write_bytes
from inr.limits import Limits

if TYPE_CHECKING:
    from fields.base import Field
    from inr.fitting.fit import Fit


def save(
    fit: Fit,
    path: str | Path,
    *,
    max_loss_db: float = 0.1,
    overwrite: bool = True,
    metadata: Mapping[str, str] | None = None,
    progressive: bool = False,
) -> int:
    """Compress a fit into a file, verified by decoding before it gets its name.

    Args:
        fit: What `inr.fit` returned.
        path: Where to write.
        max_loss_db: PSNR that quantisation may cost, where the fit has not settled it.
        overwrite: Whether an existing file may be replaced.
        metadata: Texts that the file is to carry, by their names: `title`, `author`, `date`
            (ISO 8601), `comment`, `software`, `source_sha256`.
        progressive: Whether the first bytes of the file are to make a coarser signal (see
            `inr.decode`); this sets `layered` of the fit's field.

    Returns:
        The size of the file in bytes.

    Raises:
        OutputError: the file cannot be written.
        UsageError: the metadata are not what they should be.
    """
    from inr.codec.encode import encode

    fit.field.layered = fit.field.layered or progressive
    data = encode(
        fit.field,
        fit.signal,
        max_loss_db=max_loss_db,
        target_psnr=fit.target,
        rounding=fit.rounding,
        metadata=metadata,
    )
    write_bytes(path, data, overwrite=overwrite)
    return len(data)


def load(path: str | Path, limits: Limits = Limits()) -> Field:  # noqa: B008
    """Read a field from a file; `field.domain` says where it lives.

    Raises:
        InputError: the file is missing, damaged, unsupported or beyond `limits`.
    """
    try:
        return decode(read_bytes(path, limits.file_bytes), limits)
    except InputError as error:
        raise type(error)(named(path, error)) from None


def named(path: str | Path, error: Exception) -> str:
    """The error's line, beginning with the file's name once."""
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"
