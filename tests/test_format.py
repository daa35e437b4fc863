"""Versions of the format, limits, and what `docs/FORMAT.md` says of hyperparameters."""

import dataclasses
import hashlib
import math
import re
import typing
import zlib

import cbor2
import numpy as np
import pytest
import torch

import fields
import inr
from fields import registry
from fields.base import hyperparameter_names
from inr.codec import format as container
from inr.codec import metadata
from inr.codec.decode import decode, inspect, symbols
from inr.codec.encode import encode
from inr.codec.entropy import Row, encode_rows
from inr.errors import CorruptFile, InputError, LimitExceeded, UnsupportedFile
from inr.limits import Limits
from inr.signals.image import Image
from tests.conftest import ROOT
from tests.mutate import seal
from tests.test_images import WIDE_RGB
from tests.test_metadata import camera_exif

GOLDEN = sorted((ROOT / "tests" / "golden").glob("v1-*.inr"))
FORMAT = (ROOT / "docs" / "FORMAT.md").read_text()
READS = rf"this build reads 1\.{container.MINOR}"


@pytest.fixture(scope="module")
def rich(coffee) -> bytes:
    """A file that has all a file can have, of a network of known size."""
    torch.manual_seed(0)
    image = Image.from_array(coffee[170:182, 240:256], icc=WIDE_RGB, exif=camera_exif())
    field = fields.Siren(2, 3, hidden_features=12, hidden_layers=2)
    field.domain = image.domain
    return encode(field, metadata={"title": "coffee", "comment": "c" * 200})


def of_version(data: bytes, minor: int, header: list | None = None, *more: tuple) -> bytes:
    """The file with another minor version, other items in its header, and more chunks."""
    parsed = container.unpack(data)
    raw = cbor2.dumps(parsed.header if header is None else header, canonical=True)
    body = bytearray(seal(raw, [*parsed.chunks, *more])[: -container.DIGEST_BYTES])
    body[4] = 1 | minor << 4
    return bytes(body) + container._digest(body)


# ----------------------------------------------------------------------------- versions


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_are_written_again_byte_for_byte(path):
    data = path.read_bytes()
    parsed = container.unpack(data)
    assert (data[4], parsed.version) == (1, "1.0")
    assert container.pack(parsed) == data


def test_writers_take_the_smallest_version_that_knows_what_they_write(coffee):
    image = Image.from_array(coffee[:12, :16])
    usual = fields.Siren(2, 3, hidden_features=8)
    field = fields.Gauss(2, 3, hidden_features=8)
    with torch.no_grad():  # zeros are coded as ever
        for parameter in (*usual.parameters(), *field.parameters()):
            parameter.zero_()
    usual.domain = image.domain
    assert inspect(encode(usual)).container.version == "1.1"  # leaves out how it was trained
    profile = dataclasses.replace(image.domain, icc=WIDE_RGB)
    for domain, said, version in (
        (image.domain, None, "1.0"),
        (image.domain, {}, "1.0"),
        (profile, None, "1.0"),
        (image.domain, {"title": "coffee"}, "1.1"),
        (dataclasses.replace(profile, exif=camera_exif()), None, "1.1"),
    ):
        field.domain = domain
        data = encode(field, metadata=said)
        assert inspect(data).container.version == version
        assert container.pack(container.unpack(data)) == data
    field.domain = image.domain
    plain = container.unpack(encode(field))
    for change, minor in (
        ({}, 0),
        ({"header": [*plain.header[:4], {"q": 100}]}, 0),
        ({"header": [*plain.header[:4], {"q": 100, "new": 7}]}, container.MINOR),
        ({"minor": 1}, 1),  # as who coded the parameters says
    ):
        changed = dataclasses.replace(plain, **change)
        assert container.unpack(container.pack(changed)).minor == minor


def test_the_golden_file_of_1_1_says_what_it_said():
    found = inspect((GOLDEN[0].parent / "v1.1-said-rgb8.inr").read_bytes())
    assert found.container.version == "1.1"
    assert found.metadata == {
        "title": "A cup of coffee <small>",
        "author": "Ä. Ö. Ü.",
        "date": "2026-11-21T09:30:00+01:00",
        "comment": "two\nlines",
        "software": "make_golden",
        "source_sha256": "0123456789abcdef" * 4,
    }
    exif = found.domain.exif
    assert hashlib.sha256(found.domain.icc).hexdigest()[:16] == "97335bc91ee27b95"
    assert (exif[:4], len(exif)) == (b"MM\0*", 334)
    assert hashlib.sha256(exif).hexdigest()[:16] == "f60a9afbcac0d84b"


def test_later_minor_versions_are_read_as_far_as_they_are_known(rich):
    now = decode(rich)
    later = of_version(rich, 9, None, (b"x", b"ancillary"))
    assert inspect(later).container.version == "1.9"
    again = decode(later)
    assert all(a.equal(b) for a, b in zip(now.parameters(), again.parameters(), strict=True))
    assert again.domain == now.domain
    header = container.unpack(rich).header
    decode(of_version(rich, 9, [*header[:4], {"future": [1, 2]}, "another item"]))


FUTURE = {
    "chunk": (None, ((b"X", b""),), "chunk X is unknown"),
    "field": (lambda h: [*h[:2], "neural-2031", *h[3:]], (), "'neural-2031'"),
    "kind": (lambda h: ["smell", *h[1:]], (), "'smell'"),
    "domain": (lambda h: [h[0], [*h[1], 7], *h[2:]], (), "domain"),
    "hyperparameters": (lambda h: [*h[:3], h[3] + [1] * 9], (), "13 hyperparameters"),
    "choice": (lambda h: [*h[:3], [*h[3][:5], "novel", *h[3][6:]]], (), "novel"),
    "fact": (lambda h: [*h[:4], {"q": "great"}], (), "quality"),
    "entropy model": (None, ((b"P", b"\x01\x05\x00\x0f"),), "entropy model"),
}


@pytest.mark.parametrize("case", FUTURE)
def test_what_a_later_version_brought_is_refused_by_its_name(rich, case):
    change, more, told = FUTURE[case]
    header = None if change is None else change(container.unpack(rich).header)
    with pytest.raises(UnsupportedFile, match=rf"^needs format 1\.3: {READS}.*{told}") as caught:
        decode(of_version(rich, 3, header, *more))
    assert str(caught.value).count("needs format") == 1
    # a file that claims to be of a version we know has no such excuse
    with pytest.raises(InputError, match=told) as caught:
        decode(of_version(rich, 1, header, *more))
    assert "1.3" not in str(caught.value)


def test_a_damaged_file_of_the_future_is_called_damaged(rich):
    data = bytearray(of_version(rich, 3, None, (b"X", b"body")))
    data[-20] ^= 1
    with pytest.raises(CorruptFile):
        inspect(bytes(data))


def test_major_versions(rich):
    for byte, error, told in (
        (0x02, UnsupportedFile, rf"needs format 2\.0: {READS}"),
        (0x5F, UnsupportedFile, rf"needs format 15\.5: {READS}"),
        (0x00, CorruptFile, r"claims format 0\.0"),
        (0x10, CorruptFile, r"claims format 0\.1"),
    ):
        with pytest.raises(error, match=told):
            inspect(rich[:4] + bytes([byte]) + rich[5:])


def test_a_header_of_ours_has_nothing_behind_its_facts(rich):
    header = container.unpack(rich).header
    with pytest.raises(CorruptFile, match="too long"):
        inspect(of_version(rich, 1, [*header[:4], {}, 1]))


# ------------------------------------------------------------------------------- limits


def needs(data: bytes) -> dict[str, int]:
    """By name of a limit, what a file takes of it."""
    parsed = container.unpack(data)
    sizes = {kind: len(body) for kind, body in parsed.chunks}
    rows = symbols(inspect(data))
    field = decode(data)
    coded = sum(len(row.symbols) for row in rows)
    return {
        "file_bytes": len(data),
        "header_bytes": len(cbor2.dumps(parsed.header, canonical=True)),
        "nesting": 2,
        "chunks": len(parsed.chunks),
        "metadata_bytes": sizes[container.METADATA],
        "text_bytes": 200,
        "profile_bytes": len(field.domain.icc),
        "exif_bytes": len(field.domain.exif),
        "rows": len(rows),
        "symbols": coded,
        "rank": 2,
        "layers": 2,
        "width": 12,
        "symbols_per_byte": math.ceil(coded / (sizes[container.PARAMETERS] + 16)),
        "samples": 12 * 16,
        "values": 12 * 16 * 3,
    }


LIMITS = [f.name for f in dataclasses.fields(Limits)]
ELSEWHERE = {"drawn", "source_bytes", "tensors"}
"""Limits of which this file takes nothing: they have tests of their own below."""


@pytest.mark.parametrize("name", [name for name in LIMITS if name not in ELSEWHERE])
def test_each_limit_is_held_and_a_file_just_within_it_passes(rich, name):
    most = needs(rich)[name]
    decode(rich, dataclasses.replace(Limits(), **{name: most}))
    with pytest.raises((LimitExceeded, CorruptFile)) as caught:
        decode(rich, dataclasses.replace(Limits(), **{name: most - 1}))
    # nesting and claims per byte are what the format itself forbids
    assert isinstance(caught.value, LimitExceeded) or name in ("nesting", "symbols_per_byte")


def test_the_format_bounds_what_no_limit_may_widen(rich):
    wide = dataclasses.replace(
        Limits(), header_bytes=1 << 30, nesting=99, profile_bytes=1 << 30, exif_bytes=1 << 30
    )
    parsed = container.unpack(rich)
    header = cbor2.dumps(parsed.header, canonical=True)
    deep: object = 0
    for _ in range(container.NESTING + 1):
        deep = [deep]
    with pytest.raises(LimitExceeded, match="header's size"):
        inspect(seal(cbor2.dumps("x" * container.HEADER_BYTES), []), wide)
    with pytest.raises(CorruptFile, match="plain CBOR"):
        inspect(seal(cbor2.dumps([*parsed.header[:3], deep], canonical=True), []), wide)
    for kind, most, told in (
        (container.COLOUR_PROFILE, metadata.PROFILE_BYTES, "colour profile of more than"),
        (container.EXIF, 1 << 20, "EXIF data of more than"),
    ):
        bomb = zlib.compress(bytes(most + 1))
        chunks = [*[c for c in parsed.chunks if c[0] != kind], (kind, bomb)]
        with pytest.raises(CorruptFile, match=told):
            inspect(seal(header, chunks), wide)
    whole = zlib.compress(WIDE_RGB + bytes(metadata.PROFILE_BYTES - len(WIDE_RGB)))
    chunks = [c for c in parsed.chunks if c[0] != container.COLOUR_PROFILE]
    held = inspect(seal(header, [*chunks, (container.COLOUR_PROFILE, whole)]))
    assert len(held.domain.icc) == metadata.PROFILE_BYTES


def test_numbers_from_a_seed_are_counted(coffee):
    target = {"hidden_features": 16, "hidden_layers": 1}
    field = fields.create("doh", 2, 3, target="siren", target_options=target, latents=40)
    field.domain = Image.from_array(coffee[:12, :16]).domain
    data = encode(field)
    decode(data, Limits(drawn=field.drawn))
    with pytest.raises(LimitExceeded, match="drawn from a seed"):
        decode(data, Limits(drawn=field.drawn - 1))


def test_tensors_are_counted_while_they_are_made():
    data = seal(header_of("siren", 8, 62, 30.0, 30.0, "clean"), [])
    with pytest.raises(CorruptFile, match="do not make a siren"):
        decode(data, Limits(tensors=128))
    with pytest.raises(LimitExceeded, match="number of tensors is 128: the limit is 127"):
        decode(data, Limits(tensors=127))


def test_channels_count_as_well():
    domain = [[1 << 14, 1 << 14], 4096, "u1", 0, 255]
    raw = cbor2.dumps(["array", domain, "siren", [8, 1, 30.0, 30.0, "clean"]], canonical=True)
    with pytest.raises(LimitExceeded, match="the size 16384x16384x4096"):
        inspect(seal(raw, []))


def test_sources_are_bounded(tmp_path, coffee):
    import PIL.Image

    path = tmp_path / "a.png"
    PIL.Image.fromarray(coffee[:12, :16]).save(path)
    size = path.stat().st_size
    inr.open(path, Limits(source_bytes=size, samples=12 * 16))
    for tight in (Limits(source_bytes=size - 1), Limits(samples=12 * 16 - 1)):
        with pytest.raises(InputError):
            inr.open(path, tight)


def header_of(name: str, *given: object) -> bytes:
    return cbor2.dumps(["image", [8, 8, 3, 8], name, list(given)], canonical=True)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("siren", (1_000_000, 1, 30.0, 30.0, "clean"), "hidden_features is 1000000"),
        ("siren", (64, 500, 30.0, 30.0, "clean"), "hidden_layers is 500"),
        ("chebykan", (2048, 0, 64), "width of a network is 131,072"),
        ("finr", ("cp", 4, "chebykan", [2048, 0, 64], "separate", "none"), "width of a network"),
    ],
)
def test_networks_that_are_too_wide_or_deep_are_refused_by_their_header(name, given, told):
    for limits in (Limits.strict(), Limits(width=(1 << 17) - 1)):
        with pytest.raises(InputError, match=told):
            decode(seal(header_of(name, *given), []), limits)


def test_the_widest_networks_that_can_be_fitted_can_be_read():
    for owner, wide in (
        ("chebykan", {"hidden_features": 4096, "degree": 64}),
        ("wavelet", {"atoms": 65_536}),
        ("cosines", {"terms": 8192}),
        ("grid", {"levels": 24, "features": 64}),
    ):
        with torch.device("meta"):
            field = registry.field_class(owner)(5, 3, **wide)
        assert field.widest <= Limits().width


def test_rows_that_cost_nothing_are_counted_over_all_chunks():
    zeros = container.varint(1) + container.varint(Limits().symbols) + bytes([0, 0])
    header = header_of("siren", 8, 1, 30.0, 30.0, "clean")
    with pytest.raises(LimitExceeded, match="number of parameters is"):
        symbols(inspect(seal(header, [(b"P", zeros)] * 64)))
    rows = encode_rows([Row(0, np.zeros(0, np.int32))] * 2048)
    with pytest.raises(LimitExceeded, match="parameter rows"):
        symbols(inspect(seal(header, [(b"P", rows)] * 3)))


def test_strict_limits_suit_a_server(rich):
    strict = Limits.strict()
    for name in LIMITS:
        assert getattr(strict, name) <= getattr(Limits(), name)
    decode(rich, strict)
    for path in GOLDEN:
        inr.load(path, strict)
    with pytest.raises(LimitExceeded, match="number of hidden layers is 40"):
        decode(seal(header_of("siren", 64, 40, 30.0, 30.0, "clean"), []), strict)
    with pytest.raises(LimitExceeded, match="number of parameters is"):
        decode(seal(header_of("siren", 4096, 1, 30.0, 30.0, "clean"), []), strict)


# ---------------------------------------------------------------------------- FORMAT.md


def test_the_page_names_every_hyperparameter_in_order():
    told = dict(re.findall(r"^\*\*([\w-]+)\*\*: `\[(.*?)\]`", FORMAT, re.M | re.S))
    assert sorted(told) == registry.names()
    for name, items in told.items():
        items = re.sub(r"\[.*?\]", "", items)
        words = [item.split()[0] for item in items.split(",")]
        assert words == hyperparameter_names(registry.field_class(name)), name


RANGES = re.search(r"### Types and ranges.*?\n\n(\|.*?)\n\n", FORMAT, re.S)


def ranges() -> dict[tuple[str, str], list[str]]:
    """By field and hyperparameter, the type, least and most that the page gives."""
    found = {}
    assert RANGES is not None
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in RANGES[1].split("\n")[2:]]
    # those that name a field overrule those that do not
    for what, *told in sorted(lines, key=lambda cells: " of " in cells[0]):
        owners = what.partition(" of ")[2].split(", ") if " of " in what else registry.names()
        for name in re.findall(r"`(\w+)`", what):
            found |= {
                (owner, name): told
                for owner in owners
                if name in hyperparameter_names(registry.field_class(owner))
            }
    return found


def test_the_page_has_the_range_of_every_hyperparameter():
    expected = {
        (owner, name)
        for owner in registry.names()
        for name in hyperparameter_names(registry.field_class(owner))
    }
    assert set(ranges()) == expected


def accepted(owner: str, name: str, value: object) -> bool:
    """Whether a field takes a value; what else it needs for that is given."""
    cls = registry.field_class(owner)
    more = {}
    if owner == "finr":
        small = {"hidden_features": 8, "hidden_layers": 0}
        more = {"decomposition": "tt", "channel_factors": "shared", "init": "svd", "rank": 2}
        more |= {"base_options": small, "lowest": -100, "highest": 100}
        more |= {"rank": value, "decomposition": "cp", "init": "balanced"} if name == "rank" else {}
    try:
        with torch.device("meta"):
            cls(2, 3, **more | {name: value})
    except (fields.FieldError, TypeError):
        return False
    return True


def number(text: str) -> float:
    """A bound as the page has it: 0.5, 10^6 or 2^63 - 1."""
    power = re.fullmatch(r"(\d+)\^(\d+)(?: - (\d))?", text)
    return int(power[1]) ** int(power[2]) - int(power[3] or 0) if power else float(text)


WHOLE = [(*key, *told) for key, told in sorted(ranges().items()) if "whole" in told[0]]
NUMBERS = [(*key, *told) for key, told in sorted(ranges().items()) if "number" in told[0]]


@pytest.mark.parametrize(("owner", "name", "kind", "least", "most"), WHOLE)
def test_whole_hyperparameters_have_the_ranges_of_the_page(owner, name, kind, least, most):
    if name == "scales":
        pytest.skip("needs one for each tensor: tests of doh look at it")
    low, high = int(number(least)), int(number(most))
    everything = name == "free_up_to"  # leaves nothing to generate
    for value, fits in ((low, True), (high, not everything), (low - 1, False), (high + 1, False)):
        given = [value] if kind.startswith("array") else value
        assert accepted(owner, name, given) == fits, value
    assert not accepted(owner, name, True)


@pytest.mark.parametrize(("owner", "name", "kind", "least", "most"), NUMBERS)
def test_other_numbers_have_the_ranges_of_the_page(owner, name, kind, least, most):
    low, high = float(number(least.removeprefix("> "))), float(number(most))
    assert accepted(owner, name, high)
    assert accepted(owner, name, low) == (not least.startswith(">") or name == "start_psnr")
    for value in (math.nextafter(high, math.inf), low - 1e-9, math.nan, math.inf, "1"):
        assert not accepted(owner, name, value), value


def test_texts_are_those_of_the_page():
    for (owner, name), (kind, *_) in ranges().items():
        hint = typing.get_type_hints(registry.field_class(owner).__init__)[name]
        if typing.get_origin(hint) is typing.Literal:
            own = kind.partition(f"of {owner} ")[2] or kind.partition(";")[0]
            assert tuple(re.findall(r'"(.*?)"', own)) == typing.get_args(hint), (owner, name)
        assert (hint is bool) == (kind == "truth")
