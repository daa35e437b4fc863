"""Make tests/attacks: small files by hand, each abusing one thing of the format.

    python tests/make_attacks.py

Needs no encoder: bytes are put together here, so that the folder is the same whoever makes it.
Replaces the whole folder and its README; `test_attacks.py` holds the decoder to what is said there.
"""

import math
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import cbor2

sys.path.insert(0, str(Path(__file__).parents[1]))

from inr.codec.format import varint
from tests.mutate import digest, seal

FOLDER = Path(__file__).parent / "attacks"
HARMLESS = "harmless"
VERBS = ("info", "verify", "decode")
"""Commands of `inr`, each of which looks deeper into a file than the one before."""


class Attack(NamedTuple):
    """A file, and what must come of it.

    Args:
        data: The file.
        tries: What it tries, for the table.
        error: Name of the error's class; empty where nothing is wrong.
        says: What the error's message must contain.
        found_by: The first of VERBS that looks deep enough to see it.
    """

    data: bytes
    tries: str
    error: str
    says: str
    found_by: str = "info"


# ------------------------------------------------------------------- a file like any other

SIZES = (8, 4, 16, 4, 4, 1)
"""Numbers of each tensor of a SIREN of 4 units and one hidden layer, for a grey picture."""

IMAGE = [8, 8, 1, 8]
SIREN = [4, 1, 30.0, 30.0, "official"]


def cbor(*items: object) -> bytes:
    return cbor2.dumps(list(items), canonical=True)


def row(size: int, model: bytes = b"\0", step: int = 192) -> bytes:
    return varint(size) + bytes([step]) + model


def parameters(*rows: bytes, words: bytes = b"") -> tuple[bytes, bytes]:
    return b"P", varint(len(rows)) + b"".join(rows) + words


ZEROS = [row(n) for n in SIZES]
PLAIN = cbor("image", IMAGE, "siren", SIREN)
CHUNK = parameters(*ZEROS)
WHOLE = seal(PLAIN, [CHUNK])


def image(items: list) -> bytes:
    return seal(cbor("image", items, "siren", SIREN), [CHUNK])


def signal(kind: object, items: list) -> bytes:
    return seal(cbor(kind, items, "siren", SIREN), [CHUNK])


def field(name: object, given: object, *facts: object) -> bytes:
    return seal(cbor("image", IMAGE, name, given, *facts), [CHUNK])


FINR = ["cp", 8, "siren", [8, 62, 30.0, 30.0, "official"], "separate", "none", 0, 0]
"""A network of 63 layers for each axis."""


def signal_of_five_axes(name: str, given: list) -> bytes:
    return seal(cbor("array", [[8] * 5, 1, "u1", 0, 255], name, given), [CHUNK])


def siren(**changes: object) -> bytes:
    names = ("hidden_features", "hidden_layers", "first_omega", "hidden_omega", "bias_init")
    return field("siren", list((dict(zip(names, SIREN, strict=True)) | changes).values()))


def header(raw: bytes) -> bytes:
    return seal(raw, [CHUNK])


def rows(*first: bytes, words: bytes = b"") -> bytes:
    """Some rows in place of the first ones of the file."""
    return seal(PLAIN, [parameters(*first, *ZEROS[len(first) :], words=words)])


def chunks(*more: tuple[bytes, bytes]) -> bytes:
    return seal(PLAIN, [CHUNK, *more])


def frame(length: bytes, head: bytes = PLAIN) -> bytes:
    """A header whose length is written in other bytes."""
    start = WHOLE[:5] + length + zlib.crc32(head).to_bytes(4, "big") + head
    return start + b"Z" + digest(start + b"Z")


def chunk_frame(kind: bytes, length: bytes) -> bytes:
    start = seal(PLAIN, [])[:-9] + kind + length + bytes(4)
    return start + b"Z" + digest(start + b"Z")


# ------------------------------------------------------------------------------- attacks

CORRUPT, UNSUPPORTED, LIMIT = "CorruptFile", "UnsupportedFile", "LimitExceeded"
CUT, PLAIN_CBOR, CANONICAL = "is cut short", "no plain CBOR", "not canonical"
ENDLESS = b"\xff\xff\xff\xff\xff\x01"
BUCKETS = bytes([2, 56, *range(200, 256)])
"""An entropy model of all classes: 65,535 symbols."""


def interlaced(width: int, kinds: int = 1) -> bytes:
    return b"\5" + varint(width) + bytes([kinds, 1, 2, 3, 9, 9, 9]) + bytes(2 * kinds + 2)


def nested(depth: int, innermost: object = 0) -> object:
    for _ in range(depth):
        innermost = [innermost]
    return innermost


def container_attacks() -> dict[str, Attack]:
    return {
        HARMLESS: Attack(WHOLE, "nothing: the file that the others were made from", "", ""),
        "empty": Attack(b"", "no byte at all", CORRUPT, "is not an .inr file"),
        "signature": Attack(b"\x89PNG" + WHOLE[4:], "another format's name", CORRUPT, "is not an"),
        "signature-only": Attack(WHOLE[:4], "end after the signature", CORRUPT, CUT),
        "version-0": Attack(WHOLE[:4] + b"\0" + WHOLE[5:], "major version 0", CORRUPT, "never was"),
        "version-2": Attack(
            WHOLE[:4] + b"\2" + WHOLE[5:], "major version 2", UNSUPPORTED, "needs format 2.0"
        ),
        "header-length-huge": Attack(
            frame(b"\xff\xff\xff\xff\x0f"), "a header of 4 GiB", LIMIT, "header's size"
        ),
        "header-length-beyond": Attack(
            frame(varint(65_000)), "a header longer than the file", CORRUPT, CUT
        ),
        "header-length-long": Attack(
            frame(bytes([len(PLAIN) | 128, 0])),
            "a length in two bytes for one",
            CORRUPT,
            "shortest",
        ),
        "header-length-endless": Attack(
            frame(ENDLESS), "a length of more than 32 bits", CORRUPT, "more than five bytes"
        ),
        "header-length-zero": Attack(frame(b"\0", b""), "no header", CORRUPT, "header that is no"),
        "header-checksum": Attack(
            WHOLE[:7] + b"\0" + WHOLE[8:], "a wrong checksum", CORRUPT, "checksum of its header"
        ),
        "chunk-length-huge": Attack(
            chunk_frame(b"P", b"\xff\xff\xff\xff\x0f"), "a chunk of 4 GiB", CORRUPT, CUT
        ),
        "chunk-length-long": Attack(
            chunk_frame(b"P", b"\x80\0"), "a length in two bytes for one", CORRUPT, "shortest"
        ),
        "chunk-checksum": Attack(
            chunk_frame(b"P", b"\0"), "a wrong checksum", CORRUPT, "checksum of its chunk P"
        ),
        "chunk-type": Attack(
            chunks((b"\x1b", b"")), "a type that is no letter", CORRUPT, "has no chunk"
        ),
        "chunk-critical": Attack(
            chunks((b"Q", b"")), "a critical chunk nobody knows", UNSUPPORTED, "chunk Q is unknown"
        ),
        "chunks-many": Attack(
            chunks(*[(b"x", b"")] * 1000), "1,001 chunks", LIMIT, "number of chunks"
        ),
        "chunks-none": Attack(
            seal(PLAIN, []), "no parameters", CORRUPT, "do not make a siren", "decode"
        ),
        "chunks-twice": Attack(
            chunks(CHUNK), "all parameters twice", CORRUPT, "do not make a siren", "decode"
        ),
        "end-missing": Attack(WHOLE[:-9], "no end marker", CORRUPT, CUT),
        "end-early": Attack(
            WHOLE[:5] + b"Z" + digest(WHOLE[:5] + b"Z"), "end before the header", CORRUPT, CUT
        ),
        "digest": Attack(WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]), "a wrong digest", CORRUPT, "digest"),
        "trailing": Attack(WHOLE + b"\0", "a byte behind the end", CORRUPT, "behind its end"),
        "polyglot-zip": Attack(
            WHOLE + b"PK\5\6" + bytes(18), "a ZIP archive behind the end", CORRUPT, "behind its end"
        ),
    }


def header_attacks() -> dict[str, Attack]:
    no = (CORRUPT, PLAIN_CBOR)
    loose = (CORRUPT, CANONICAL)
    bare = PLAIN[1:]  # the items of the header without their count
    return {
        "cbor-indefinite": Attack(header(b"\x9f" + bare + b"\xff"), "an array without end", *no),
        "cbor-tag": Attack(header(b"\xd8\x37" + PLAIN), "a tag", *no),
        "cbor-tag-regex": Attack(
            header(b"\x85" + bare + b"\xd8\x23\x64(a+)"), "a tagged regular expression", *no
        ),
        "cbor-bignum": Attack(
            header(b"\x85" + bare + b"\xc2\x58\x40" + b"\xff" * 64), "an integer of 512 bits", *no
        ),
        "cbor-bytes": Attack(
            header(PLAIN.replace(b"\x65siren", b"\x45siren")),
            "a name in bytes",
            CORRUPT,
            "no field",
        ),
        "cbor-duplicate": Attack(
            header(b"\x85" + bare + b"\xa2\x61q\x01\x61q\x02"), "a key that is there twice", *no
        ),
        "cbor-unsorted": Attack(
            header(b"\x85" + bare + b"\xa2\x61r\x01\x61q\x02"), "keys out of order", *loose
        ),
        "cbor-deep": Attack(header(b"\x81" * 2000 + b"\0"), "2,000 arrays in each other", *no),
        "cbor-count": Attack(header(b"\x9b" + b"\xff" * 8), "an array of 2^64 - 1 items", *no),
        "cbor-map-count": Attack(header(b"\xba\x7f\xff\xff\xff"), "a map of 2^31 items", *no),
        "cbor-text-length": Attack(header(b"\x84\x7a\xff\xff\xff\xff"), "a text of 4 GiB", *no),
        "cbor-surrogate": Attack(
            header(b"\x84\x63\xed\xa0\x80" + bare[6:]), "half a character", *no
        ),
        "cbor-long-float": Attack(
            header(PLAIN.replace(b"\xf9\x4f\x80", b"\xfb" + struct.pack(">d", 30.0))),
            "a float that is not in its shortest form",
            *loose,
        ),
        "cbor-long-integer": Attack(
            header(PLAIN.replace(b"\x84\x08\x08", b"\x84\x18\x08\x08")),
            "an integer that is not in its shortest form",
            *loose,
        ),
        "cbor-nan": Attack(
            header(PLAIN.replace(b"\xf9\x4f\x80", b"\xf9\x7e\x01", 1)),
            "a NaN that carries data",
            *loose,
        ),
        "cbor-trailing": Attack(header(PLAIN + b"\0"), "a byte behind the header", *loose),
        "header-map": Attack(header(cbor2.dumps({"kind": "image"})), "a map for the array", *loose),
        "header-short": Attack(header(cbor("image", IMAGE, "siren")), "three items", *loose),
        "facts-list": Attack(field("siren", SIREN, [1]), "facts in an array", CORRUPT, "facts"),
        "facts-quality": Attack(
            field("siren", SIREN, {"q": -1}), "a PSNR below 0", CORRUPT, "malformed quality"
        ),
        "kind-unknown": Attack(signal("smell", IMAGE), "a kind nobody knows", CORRUPT, "'smell'"),
        "kind-escape": Attack(
            signal("\x1b[2J\n" * 400, IMAGE),
            "a name that clears the terminal, 400 times",
            CORRUPT,
            "unknown kind '\\x1b[2J\\n",
        ),
        "kind-list": Attack(
            signal(["image"], IMAGE), "an array for the name", CORRUPT, "unknown kind"
        ),
        "domain-map": Attack(
            signal("image", {"height": 8}), "a map for the domain", CORRUPT, "domain in the header"
        ),
        "domain-huge": Attack(
            image([2**31 - 1, 2**31 - 1, 1, 8]), "2^62 pixels", LIMIT, "2147483647x2147483647"
        ),
        "domain-huger": Attack(image([2**63, 8, 1, 8]), "2^63 rows", CORRUPT, "claims an image"),
        "domain-zero": Attack(image([0, 8, 1, 8]), "no rows", CORRUPT, "claims an image"),
        "domain-negative": Attack(image([-8, 8, 1, 8]), "-8 rows", CORRUPT, "claims an image"),
        "domain-channels": Attack(
            image([8, 8, 10**9, 8]), "a thousand million channels", CORRUPT, "claims an image"
        ),
        "domain-bool": Attack(image([True, 8, 1, 8]), "true for a height", CORRUPT, "malformed"),
        "domain-text": Attack(image(["8", 8, 1, 8]), "a text for a height", CORRUPT, "malformed"),
        "domain-infinite": Attack(
            image([8, 8, 1, 32, 0.0, math.inf]), "a range without end", CORRUPT, "value range"
        ),
        "domain-nan": Attack(
            image([8, 8, 1, 32, math.nan, 1.0]), "a range of NaN", CORRUPT, "value range"
        ),
        "array-axes": Attack(
            signal("array", [[1] * 900, 1, "u1", 0, 255]), "900 axes", CORRUPT, "array"
        ),
        "array-type": Attack(
            signal("array", [[8, 8], 1, "O", 0, 255]),
            "an array of Python objects",
            CORRUPT,
            "unknown type",
        ),
        "array-huge": Attack(
            signal("array", [[2**31 - 1] * 5, 1, "u1", 0, 255]), "2^155 samples", LIMIT, "the size"
        ),
        "audio-huge": Attack(
            signal("audio", [2**31 - 1, 32, 44100, 16, 0, 1]), "2^36 samples", LIMIT, "the size"
        ),
        "video-rate": Attack(
            signal("video", [8, 8, 8, 1, 25, 0, 8]), "frames per 0 seconds", CORRUPT, "fram"
        ),
        "volume-affine": Attack(
            signal("volume", [[8, 8, 8], "u1", 0, 255, [0.0] * 12, [], 1]),
            "a singular affine",
            CORRUPT,
            "no size",
        ),
        "shape-half": Attack(
            signal("shape", ["sdf", 1.0, [0.0, 0.0, 0.0], math.nan, 8, 12]),
            "a cube of NaN",
            CORRUPT,
            "shape",
        ),
    }


def field_attacks() -> dict[str, Attack]:
    wrong = (CORRUPT, "describes no valid", "decode")
    deep: list = ["siren", SIREN]
    for name, first in (("finr", ["cp", 2]), ("windows", [2, 0.5]), ("finr", ["cp", 2])):
        deep = [name, [*first, *deep]]
    return {
        "field-unknown": Attack(
            field("neural-2031", SIREN), "a field nobody knows", UNSUPPORTED, "'neural-2031'"
        ),
        "field-path": Attack(
            field("../../../etc/passwd", SIREN), "a path for a name", UNSUPPORTED, "does not know"
        ),
        "field-class": Attack(
            field("fields.siren:Siren", SIREN), "a class for a name", UNSUPPORTED, "does not know"
        ),
        "field-call": Attack(
            field("os.system", ["reboot"]), "a function for a name", UNSUPPORTED, "does not know"
        ),
        "field-long": Attack(
            field("siren" * 400, SIREN), "a name of 2,000 letters", UNSUPPORTED, "does not know"
        ),
        "field-list": Attack(field(["siren"], SIREN), "an array for a name", CORRUPT, "no field"),
        "options-map": Attack(
            field("siren", {"hidden_features": 4}), "a map of hyperparameters", CORRUPT, "no field"
        ),
        "options-many": Attack(
            field("siren", [4] * 33), "33 hyperparameters", CORRUPT, "names no field"
        ),
        "options-more": Attack(
            field("siren", [4] * 20),
            "more hyperparameters than there are",
            CORRUPT,
            "gives 20",
            "decode",
        ),
        "width-huge": Attack(siren(hidden_features=10**9), "10^9 units", *wrong),
        "width-64-bits": Attack(siren(hidden_features=2**64 - 1), "2^64 - 1 units", *wrong),
        "width-negative": Attack(siren(hidden_features=-4), "-4 units", *wrong),
        "width-bool": Attack(siren(hidden_features=True), "true for a width", *wrong),
        "width-float": Attack(siren(hidden_features=4.5), "4.5 units", *wrong),
        "width-text": Attack(siren(hidden_features="4"), "a text for a width", *wrong),
        "width-null": Attack(siren(hidden_features=None), "the picture's shape for it", *wrong),
        "width-nested": Attack(siren(hidden_features=nested(5)), "arrays for a width", *wrong),
        "layers-huge": Attack(siren(hidden_layers=10**9), "10^9 layers", *wrong),
        "network-huge": Attack(
            siren(hidden_features=8192, hidden_layers=62),
            "4 * 10^9 parameters",
            LIMIT,
            "number of parameters",
            "decode",
        ),
        "omega-nan": Attack(siren(first_omega=math.nan), "NaN for a frequency", *wrong),
        "omega-infinite": Attack(siren(hidden_omega=math.inf), "an endless frequency", *wrong),
        "omega-list": Attack(siren(hidden_omega=[30.0] * 300), "300 frequencies of 1", *wrong),
        "choice": Attack(siren(bias_init="__import__"), "a choice that is none", *wrong),
        "grid-huge": Attack(
            field("grid", [[1 << 20, 1 << 20], 1, 1, 27, 16, 1]),
            "a table of 2^27 for 2^40 nodes",
            LIMIT,
            "number of parameters",
            "decode",
        ),
        "grid-resolution": Attack(field("grid", [1 << 40, 7, 1, 24, 16, 1]), "2^40 nodes", *wrong),
        "grid-levels": Attack(field("grid", [8, 10**9, 1, 24, 16, 1]), "10^9 levels", *wrong),
        "grid-table": Attack(field("grid", [8, 2, 1, 63, 16, 1]), "a table of 2^63", *wrong),
        "grid-list": Attack(field("grid", [["a", {}], 2, 1, 24, 16, 1]), "odd resolutions", *wrong),
        "seed": Attack(
            field("rff", [4, 1, 4, 1.0, "official", 2**64 - 1]), "a seed too big", *wrong
        ),
        "drawn": Attack(
            field("doh", ["siren", [8192, 1, 30.0, 30.0, "official"], 65536, 0, [], 0]),
            "2^42 numbers drawn from a seed",
            LIMIT,
            "drawn from a seed",
            "decode",
        ),
        "doh-in-doh": Attack(
            field("doh", ["doh", ["siren", SIREN, 4, 0, [], 0], 4, 0, [], 0]),
            "a field in its own kind",
            CORRUPT,
            "part of its own kind",
            "decode",
        ),
        "fields-deep": Attack(
            field(*deep), "fields in fields in fields", CORRUPT, "part of its own kind", "decode"
        ),
        "windows-many": Attack(
            field("windows", [10**9, 0.5, "siren", SIREN]), "10^9 parts", *wrong
        ),
        "stages-many": Attack(field("multistage", [10**9, "siren", SIREN]), "10^9 parts", *wrong),
        "parts-odd": Attack(
            field("multistage", [2, ["siren"] * 500, SIREN]), "500 names for 2 parts", *wrong
        ),
        "parts-numbers": Attack(
            field("multistage", [2, "siren", {"": {}}]), "a nameless hyperparameter", *wrong
        ),
        "parts-nested": Attack(
            signal_of_five_axes("multistage", [16, "finr", FINR]),
            "10,080 layers in 16 stages of 5 networks",
            LIMIT,
            "number of tensors",
            "decode",
        ),
        "layers-list": Attack(
            field("fkan", [4, 2, [4] * 900, 1.0, 1.0, "clean"]), "a list of 900 layers", *wrong
        ),
    }


def parameter_attacks() -> dict[str, Attack]:
    model = (CORRUPT, "malformed inside its entropy models", "verify")
    wide = (CORRUPT, "malformed entropy model of wide", "verify")
    shape = (CORRUPT, "do not make a siren", "decode")
    geometric = bytes([1, 128, 128, 3])
    lattice = (CORRUPT, "malformed entropy model of interlaced", "verify")
    nan, infinite = struct.pack("<d", math.nan), struct.pack("<d", math.inf)
    return {
        "chunk-empty": Attack(
            seal(PLAIN, [(b"P", b"")]), "nothing in a chunk", CORRUPT, CUT, "verify"
        ),
        "rows-huge": Attack(
            seal(PLAIN, [(b"P", varint(2**31))]), "2^31 rows", LIMIT, "parameter rows", "verify"
        ),
        "rows-missing": Attack(
            seal(PLAIN, [(b"P", varint(4096))]), "4,096 rows in no bytes", CORRUPT, CUT, "verify"
        ),
        "rows-more": Attack(seal(PLAIN, [parameters(*ZEROS, row(1))]), "one row too many", *shape),
        "symbols-huge": Attack(
            rows(row(2**35 - 1)), "2^35 numbers in 7 bytes", LIMIT, "parameters", "verify"
        ),
        "symbols-zeros": Attack(rows(row((1 << 27) - 64)), "512 MiB of zeros in 7 bytes", *shape),
        "symbols-endless": Attack(
            seal(PLAIN, [(b"P", varint(6) + ENDLESS)]),
            "a count that does not end",
            CORRUPT,
            "five",
            "verify",
        ),
        "symbols-coded": Attack(
            rows(row(10**7, geometric)),
            "10^7 coded numbers in 40 bytes",
            CORRUPT,
            "parameters",
            "verify",
        ),
        "symbols-other": Attack(rows(row(7)), "7 numbers for a tensor of 8", *shape),
        "model-unknown": Attack(rows(row(8, b"\x0f")), "an entropy model nobody knows", *model),
        "model-missing": Attack(
            seal(PLAIN, [(b"P", varint(1) + varint(8) + b"\xc0")]), "no entropy model", *model
        ),
        "geometric-empty": Attack(
            rows(row(8, bytes([1, 0, 0, 0]))),
            "a table of one symbol",
            CORRUPT,
            "empty entropy",
            "verify",
        ),
        "buckets-empty": Attack(
            rows(row(8, bytes([2, 9, *bytes(9)]))),
            "a table without weight",
            CORRUPT,
            "empty entropy",
            "verify",
        ),
        "buckets-few": Attack(
            rows(row(8, bytes([2, 1, 255]))),
            "a table of one class",
            CORRUPT,
            "of 1 classes",
            "verify",
        ),
        "buckets-many": Attack(
            rows(row(8, bytes([2, 255] + [255] * 255))),
            "255 classes",
            CORRUPT,
            "of 255 classes",
            "verify",
        ),
        "buckets-cut": Attack(
            seal(PLAIN, [parameters(row(8, BUCKETS[:30]))]), "a model cut short", *model
        ),
        "wide-none": Attack(rows(row(8, bytes([4, 0]) + BUCKETS)), "lower parts of no bits", *wide),
        "wide-many": Attack(rows(row(8, bytes([4, 33]) + BUCKETS)), "symbols of 48 bits", *wide),
        "wide-nested": Attack(
            rows(row(8, bytes([4, 9] * 2000) + BUCKETS)), "wide models in each other", *wide
        ),
        "interlaced-zero": Attack(rows(row(8, interlaced(0))), "lines of no length", *lattice),
        "interlaced-odd": Attack(rows(row(8, interlaced(3))), "lines of 3 for 8 numbers", *lattice),
        "interlaced-none": Attack(rows(row(0, interlaced(4))), "a lattice of no numbers", *lattice),
        "interlaced-kinds": Attack(
            rows(row(8, interlaced(4, kinds=0))), "no kind of neighbours", *lattice
        ),
        "interlaced-cut": Attack(
            seal(PLAIN, [parameters(row(8, interlaced(4)[:-3]))]), "kinds cut short", *lattice
        ),
        "interlaced-nested": Attack(
            rows(row(8, b"\5\4\1\1" * 2000 + BUCKETS)), "lattices in each other", *lattice
        ),
        "verbatim-nan": Attack(
            rows(row(8, b"\3" + 8 * nan)), "parameters of NaN", CORRUPT, "finite", "verify"
        ),
        "verbatim-infinite": Attack(
            rows(row(8, b"\3" + 8 * infinite)), "endless parameters", CORRUPT, "finite", "verify"
        ),
        "verbatim-cut": Attack(
            rows(row(1 << 24, b"\3" + 8 * nan)), "2^24 floats that are not there", *model
        ),
        "words-impossible": Attack(
            rows(row(8, geometric), words=b"\xff" * 8),
            "words that no encoder writes",
            CORRUPT,
            "cannot be decoded",
            "verify",
        ),
        "words-only": Attack(seal(PLAIN, [(b"P", b"\0" + bytes(400))]), "words of no row", *shape),
    }


def ancillary_attacks() -> dict[str, Attack]:
    bomb = zlib.compress(bytes((4 << 20) + 1), 9)
    noise = random.Random(0).randbytes(200)
    profile = (CORRUPT, "colour profile")
    tiff = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
    exif = (CORRUPT, "EXIF data")
    said = (CORRUPT, "metadata")
    return {
        "exif-bomb": Attack(
            chunks((b"e", zlib.compress(tiff + bytes(2 << 20), 9))), "EXIF of 2 MiB in 2 kB", *exif
        ),
        "exif-junk": Attack(chunks((b"e", zlib.compress(noise))), "EXIF of noise", *exif),
        "exif-endless": Attack(
            chunks((b"e", zlib.compress(tiff[:8] + b"\xff" * 14))), "65,535 entries", *exif
        ),
        "exif-twice": Attack(
            chunks(*[(b"e", zlib.compress(tiff))] * 2), "EXIF twice", CORRUPT, "2 chunks e"
        ),
        "metadata-list": Attack(chunks((b"m", cbor("title"))), "an array for the map", *said),
        "metadata-tag": Attack(chunks((b"m", b"\xd8\x37\xa0")), "a tag", *said),
        "metadata-deep": Attack(
            chunks((b"m", cbor2.dumps({"title": nested(6)}))), "arrays for a text", *said
        ),
        "metadata-long": Attack(
            chunks((b"m", cbor2.dumps({"title": "x" * 5000}))),
            "a text of 5,000 bytes",
            LIMIT,
            "text",
        ),
        "metadata-count": Attack(
            chunks((b"m", b"\xbb" + b"\xff" * 8)), "a map of 2^64 - 1 texts", *said
        ),
        "metadata-twice": Attack(
            chunks(*[(b"m", cbor2.dumps({"title": "a"}))] * 2), "two titles", CORRUPT, "2 chunks m"
        ),
        "icc-bomb": Attack(chunks((b"c", bomb)), "a profile above 4 MiB in 4 kB", *profile),
        "icc-junk": Attack(chunks((b"c", noise)), "a profile of noise", *profile),
        "icc-cut": Attack(
            chunks((b"c", zlib.compress(noise)[:-4])), "a profile cut short", *profile
        ),
        "icc-trailing": Attack(
            chunks((b"c", zlib.compress(noise) + noise)), "bytes behind the profile", *profile
        ),
        "icc-twice": Attack(
            chunks(*[(b"c", zlib.compress(noise))] * 2), "two profiles", CORRUPT, "2 chunks c"
        ),
    }


def attacks() -> dict[str, Attack]:
    """All of them, by the names of their files."""
    return (
        container_attacks()
        | header_attacks()
        | field_attacks()
        | parameter_attacks()
        | ancillary_attacks()
    )


def readme() -> str:
    """The table beside the files."""
    lines = [
        "# Attacks",
        "",
        "Files made by hand (`tests/make_attacks.py`), each abusing one thing of the format. Each",
        "must be refused with the error and the words below, within 100 ms of CPU time and 64 MiB",
        "of memory: `tests/test_attacks.py` holds the decoder and the command line to that. What",
        "`inr info` sees, `inr verify` and `inr decode` see too. Only `harmless.inr` is like any",
        "other file.",
        "",
        "| file | bytes | what it tries | error | its message contains | seen by |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in attacks().items():
        says = f"`{one.says}`" if one.says else ""
        facts = (name, f"{len(one.data):,}", one.tries, one.error or "none", says)
        lines.append(f"| {' | '.join(facts)} | {one.found_by if one.error else ''} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.inr"):
        old.unlink()
    for name, one in attacks().items():
        (FOLDER / f"{name}.inr").write_bytes(one.data)
    (FOLDER / "README.md").write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()
