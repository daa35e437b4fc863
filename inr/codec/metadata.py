"""What a file says of its signal for people: title, author and the like, and EXIF data.

Texts come from strangers: whoever shows them escapes them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

from inr.codec.format import plain_cbor
from inr.errors import CorruptFile, InputError, LimitExceeded, UsageError
from inr.limits import Limits

KEYS = ("title", "author", "date", "comment", "software", "source_sha256")
"""What there may be: a name, who made it, when in ISO 8601, whatever is worth saying, what wrote
the file, and the SHA-256 of the file that was fitted, in lower-case hexadecimal."""

PROFILE_BYTES = 4 << 20
"""The format's own bound on a colour profile, unpacked."""

READ_BYTES = 1 << 20


def pack(values: Mapping[str, str]) -> bytes:
    """The body of a metadata chunk.

    Args:
        values: Texts by their names, which are among `KEYS`.

    Raises:
        UsageError: a name is unknown, or a text is not what it should be or too long.
    """
    import cbor2

    limits = Limits()
    for key, text in values.items():
        if key not in KEYS:
            raise UsageError(f"metadata has no {key!r}: choose from {', '.join(KEYS)}")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise UsageError(f"the {key} is no valid Unicode text: write it anew") from None
        if not size or size > limits.text_bytes:
            raise UsageError(f"the {key} has {size:,} bytes: give 1 to {limits.text_bytes:,}")
    if "date" in values:
        check_date(values["date"])
    if not re.fullmatch("[0-9a-f]{64}", values.get("source_sha256", "0" * 64)):
        raise UsageError("source_sha256 is no SHA-256: give 64 hexadecimal digits in lower case")
    return cbor2.dumps(dict(values), canonical=True)


def unpack(body: bytes, limits: Limits = Limits()) -> dict[str, str]:  # noqa: B008
    """What a metadata chunk says, in the order of `KEYS`; names that are not known are left out.

    Raises:
        CorruptFile: it is no map of texts.
        LimitExceeded: it is longer than `limits` allow, or a text in it is.
    """
    limits.check("the size of the metadata", len(body), limits.metadata_bytes)
    values = plain_cbor(body, "metadata chunk", limits)
    texts = isinstance(values, dict) and all(
        isinstance(item, str) for pair in values.items() for item in pair
    )
    if not texts:
        raise CorruptFile("has metadata that are no texts")
    for text in values.values():
        limits.check("the size of a text in the metadata", len(text.encode()), limits.text_bytes)
    return {key: values[key] for key in KEYS if key in values}


def check_date(text: str) -> str:
    """Return a date of ISO 8601, with or without a time of day, or raise UsageError.

    A year, or a year and a month, is a date as well.
    """
    try:
        if not text.isascii():
            raise ValueError(text)
        if not re.fullmatch("[0-9]{4}(-(0[1-9]|1[0-2]))?", text):
            (datetime if "T" in text else date).fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"the date is {text!r}: give one such as 2026-11-21 or 2026-11-21T09:30:00+01:00"
        ) from None
    return text


def source_hash(source: str | Path | bytes) -> str:
    """SHA-256 of a source file, or of its bytes, as `source_sha256` has it.

    Raises:
        InputError: it cannot be read as one file.
    """
    found = hashlib.sha256()
    if isinstance(source, bytes):
        found.update(source)
        return found.hexdigest()
    if Path(source).is_dir():
        raise InputError(f"{source}: is a folder, which has no hash: leave out --source-hash")
    try:
        with Path(source).open("rb") as file:
            while block := file.read(READ_BYTES):
                found.update(block)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{source}: cannot be read for its hash ({reason})") from error
    return found.hexdigest()


def inflate(body: bytes, most: int, limit: int, what: str) -> bytes:
    """Unpack a zlib stream, all of it and nothing else.

    Args:
        body: The stream.
        most: Bytes that the format lets come of it.
        limit: Bytes that the limits in force let come of it.
        what: What it is called in errors.

    Raises:
        CorruptFile: it is damaged, or more comes of it than a file may have.
        LimitExceeded: more comes of it than the limits allow.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(body, min(most, limit) + 1)
    except zlib.error:
        raise CorruptFile(f"has {what} that cannot be unpacked") from None
    if len(data) > most:
        raise CorruptFile(f"has {what} of more than {most:,} bytes")
    if len(data) > limit:
        raise LimitExceeded(f"has {what} of more than {limit:,} bytes, which is the limit")
    if not stream.eof or stream.unused_data:
        raise CorruptFile(f"has {what} cut short or followed by something else")
    return data
