"""What a file says of its signal: texts of strangers, EXIF data, where they show and where not."""

import html.parser
import io
import json
import struct
import unicodedata
import warnings
import zlib

import cbor2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr
from apps.cli import info
from apps.cli.main import main
from apps.cli.voice import escaped
from apps.view.page import page
from inr.codec import format as container
from inr.codec import metadata
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.errors import CorruptFile, InputError, InrError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.signals import exif
from inr.signals.image import Image, open_image, stream_tiff, write_image
from tests.conftest import ROOT
from tests.mutate import seal

EXPOSURE, PLACE = 0x8769, 0x8825

# --------------------------------------------------------------------------------- texts

WELL = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(st.dictionaries(st.sampled_from(["title", "author", "comment", "software"]), WELL))
@settings(max_examples=100, deadline=None)
def test_texts_come_back(values):
    assert metadata.unpack(metadata.pack(values)) == values


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "x"}, "no 'name': choose from title"),
        ({"title": ""}, "title has 0 bytes"),
        ({"comment": "ä" * 2049}, "comment has 4,098 bytes"),
        ({"author": "\udcff"}, "author is no valid Unicode"),
        ({"date": "yesterday"}, "date is 'yesterday'"),
        ({"date": "2026-13"}, "date is '2026-13'"),
        ({"date": "2026-02-30"}, "date is '2026-02-30'"),
        ({"date": "2026-11-21T25:00"}, "date is"),
        ({"date": "٢٠٢٦"}, "date is"),
        ({"date": ""}, "date has 0 bytes"),
        ({"source_sha256": "ab"}, "64 hexadecimal digits"),
        ({"source_sha256": "A" * 64}, "64 hexadecimal digits"),
    ],
)
def test_what_is_not_written(given, told):
    with pytest.raises(UsageError, match=told) as caught:
        metadata.pack(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "date", ["2026", "2026-11", "2026-11-21", "2026-11-21T09:30", "2026-11-21T09:30:00+01:00"]
)
def test_dates_of_iso_8601(date):
    assert metadata.check_date(date) == date


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        (b"", CorruptFile, "plain CBOR"),
        (b"\xff", CorruptFile, "plain CBOR"),
        (cbor2.dumps(["title"]), CorruptFile, "no texts"),
        (cbor2.dumps({"title": 7}), CorruptFile, "no texts"),
        (cbor2.dumps({"title": ["x"]}), CorruptFile, "no texts"),
        (cbor2.dumps({1: "x"}), CorruptFile, "CBOR|no texts"),
        (b"\xa1\x65title\x62\xed\xa0", CorruptFile, "plain CBOR"),  # half a surrogate
        (b"\xbf\x65title\x61x\xff", CorruptFile, "plain CBOR"),  # indefinite
        (b"\xa2\x65title\x61x\x65title\x61y", CorruptFile, "plain CBOR"),  # twice
        (b"\xa1\x65title\x78\x01x", CorruptFile, "not canonical"),
        (cbor2.dumps({"title": "x"}) + b"\0", CorruptFile, "CBOR|canonical"),
        (b"\xa1\x65title\x7a\xff\xff\xff\xff", CorruptFile, "plain CBOR"),
        (cbor2.dumps({"title": "x" * 4097}), LimitExceeded, "size of a text"),
        (cbor2.dumps({"x" * 70_000: "x"}), LimitExceeded, "size of the metadata"),
    ],
)
def test_malformed_chunks_are_refused(tiny, body, error, told):
    with pytest.raises(error, match=told):
        inspect(with_chunk(tiny, container.METADATA, body))


def test_a_text_of_exactly_the_limit_and_names_of_others(tiny):
    whole = "x" * Limits().text_bytes
    body = cbor2.dumps({"title": whole, "mood": "blue"}, canonical=True)
    assert inspect(with_chunk(tiny, container.METADATA, body)).metadata == {"title": whole}
    with pytest.raises(CorruptFile, match="2 chunks m"):
        twice = [(container.METADATA, body)] * 2
        inspect(seal(raw_header(tiny), [*container.unpack(tiny).chunks, *twice]))


# -------------------------------------------------------------------------- nasty texts

NASTY = [
    *("<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--", "-->", "]]>"),
    *("<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<a href='javascript:1'>x</a>"),
    *('" onmouseover="alert(1)', "' autofocus onfocus='x", "</td></tr></table><h1>owned</h1>"),
    *("&lt;script&gt;", "&#60;script&#62;", "&amp;amp;", "</title>", "</style><style>*{}</style>"),
    *("<base href=//evil>", "<iframe srcdoc='x'>", "{{7*7}}", "${7*7}", "%s%n%x", "{0.__class__}"),
    *("[bold red]rich[/]", "[link=file:///etc/passwd]x[/link]", "`id`", "$(id)", "; rm -rf ~"),
    *("\x1b[2J", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\"),
    *("\x1b[6n", "\x1bP$q\x1b\\", "\x1b[?1049h", "\x1bc", "\x9b2J", "\x9d0;x\x9c", "\x90x\x9c"),
    *("\x07", "\x08\x08\x08", "\r", "line\nfeed", "\r\n", "\t", "\v", "\f", "\0", "a\0b", "\x7f"),
    *("\x85", "\u2028", "\u2029", "\xa0", "\u3000", "\u200b", "\u200d", "\u2060", "\ufeff", "\xad"),
    *("\u202egnp.exe", "\u202dx", "\u202ax", "\u202bx", "\u202c", "\u2066x", "\u2067x\u2069"),
    *("\u2068x", "\u061c", "\u200e", "\u200f", "\U000e0041", "\U000e0001", "\ufff9x\ufffa"),
    *("\ue000", "\U0010ffff", "\uffff", "\ufffe", "\U0001fffe", "\u0378", "\u180e", "\u115f"),
    *("Z\u0351\u036b\u0343" * 30, "\u05d0\u05d1", "\u0627\u0644", "e\u0301", "\ufb01"),
    *("\\", "\\n", "\\x1b[2J", "\\u202e", "C:\\x", "'", '"', "''", '"}', '{"event": "ok"}', "},{"),
    *("x" * 4096, "\x1b" * 4096, "\u202e" * 1365, "-", "--help", "../../etc/passwd", "null", " "),
]  # fmt: skip
HARMLESS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that must not reach a terminal."""


def test_there_are_a_hundred_of_them():
    assert len(set(NASTY)) >= 100


def test_a_terminal_is_not_steered(tmp_path, capsys, tiny):
    paths = []
    for i, text in enumerate(NASTY):
        paths.append(tmp_path / f"{i}.inr")
        body = metadata.pack({"title": text})
        paths[-1].write_bytes(with_chunk(tiny, container.METADATA, body))
    assert info.run([str(path) for path in paths]) == 0
    lines = capsys.readouterr().out.split("\n")
    per_file = len(lines) // len(NASTY)
    assert len(lines) == per_file * len(NASTY) + 1  # a text is one line, whatever is in it
    titles = [line for line in lines if line.startswith("title ")]
    assert len(titles) == len(NASTY)
    assert not {unicodedata.category(c) for line in lines for c in line} & HARMLESS
    assert len(set(titles)) == len(set(NASTY))  # nothing is lost either
    assert info.run(["--json", *map(str, paths)]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert [json.loads(line)["metadata"]["title"] for line in out.splitlines()] == NASTY


class Tags(html.parser.HTMLParser):
    """Tags of a page, and the texts of its table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(f"{tag} {attrs}")
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        if self.cells and self.tags[-1].startswith("td"):
            self.cells[-1] += data


def test_a_page_is_not_written_by_strangers():
    plain = Tags(page("file", "intro", {}, [], {"title": "x"}))
    for text in NASTY:
        shown = Tags(page("file", "intro", {}, [], {"title": escaped(text)}))
        assert shown.tags == plain.tags
        assert shown.cells == [escaped(text)]


def test_view_shows_what_a_file_says(tmp_path, small):
    path = tmp_path / "a.inr"
    said = {"title": "<b>\u202ecup</b>", "source_sha256": "0" * 64}
    path.write_bytes(encode(small, metadata=said))
    assert main(["view", str(path), "-q"]) == 0
    text = path.with_suffix(".html").read_text()
    assert '<th scope="row">title</th><td>&lt;b&gt;\\u202ecup&lt;/b&gt;</td>' in text
    assert f'<th scope="row">source sha256</th><td>{"0" * 64}</td>' in text


# ------------------------------------------------------------------------- command line


def test_fit_says_what_it_is_told(tmp_path, coffee, capsys):
    source, out = tmp_path / "a.png", tmp_path / "a.inr"
    PIL.Image.fromarray(coffee[:24, :32]).save(source)
    fit = ["fit", str(source), "-q", "-f", "--steps", "3", "-o", str(out), "--field", "siren"]
    fit += ["--field.hidden_features", "8", "--field.hidden_layers", "1"]
    told = ["--title", "a cup", "--author=Ä. Ö.", "--date", "2026-11", "--comment", "1\n2"]
    assert main([*fit, *told, "--source-hash"]) == 0
    found = inspect(out.read_bytes()).metadata
    assert list(found.values())[:4] == ["a cup", "Ä. Ö.", "2026-11", "1\n2"]
    assert found["source_sha256"] == metadata.source_hash(source)
    assert found["source_sha256"] == metadata.source_hash(source.read_bytes())
    capsys.readouterr()
    assert main([*fit, "--keep", "all"]) == 2
    assert "keep is 'all': give icc" in capsys.readouterr().err
    assert main([*fit, "--date", "gestern"]) == 2
    assert "date is 'gestern': give one such as" in capsys.readouterr().err
    with pytest.raises(InputError, match="is a folder"):
        metadata.source_hash(tmp_path)


def test_versions_are_shown(tmp_path, small, capsys):
    path = tmp_path / "a.inr"
    older = (ROOT / "tests" / "golden" / "v1-siren-rgb8.inr").read_bytes()
    for data, version in ((older, "1.0"), (encode(small, metadata={"title": "x"}), "1.1")):
        path.write_bytes(data)
        assert main(["info", str(path)]) == 0
        assert f"version         {version}\n" in capsys.readouterr().out
        for verb in ("info", "verify"):
            assert main([verb, "--json", str(path)]) == 0
            assert json.loads(capsys.readouterr().out)["version"] == version
        assert main(["verify", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}: intact, format {version}\n"


def test_save_takes_metadata(tmp_path, coffee):
    fit = inr.fit(Image.from_array(coffee[:16, :16]), steps=2)
    inr.save(fit, tmp_path / "a.inr", metadata={"title": "a corner", "software": "mine 2"})
    found = inspect((tmp_path / "a.inr").read_bytes()).metadata
    assert found == {"title": "a corner", "software": "mine 2"}


# ---------------------------------------------------------------------------------- EXIF


def camera_exif(order: str = "<", orientation: int = 6) -> bytes:
    """What a camera writes, from the TIFF header on."""
    data = PIL.Image.Exif()
    data.endian = order
    for tag, value in ((271, "Canon"), (274, orientation), (305, "camera 1.0")):
        data[tag] = value
    for tag, value in ((282, 300.0), (283, 300.0), (296, 2), (306, "2026:11:21 09:30:00")):
        data[tag] = value
    exposure, place = data.get_ifd(EXPOSURE), data.get_ifd(PLACE)
    exposure |= {33434: 0.0125, 36864: b"0232", 37500: b"maker" * 900, 40962: 640, 40963: 480}
    exposure[37510] = b"ASCII\0\0\0a comment"
    place |= {1: "N", 2: (51.0, 28.0, 38.5), 3: "W", 4: (0.0, 0.0, 5.25)}
    return data.tobytes().removeprefix(b"Exif\0\0")


def picture(kind: str, samples: np.ndarray, block: bytes, **more: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(samples).save(file, kind, exif=b"Exif\0\0" + block, **more)
    return file.getvalue()


def read_back(data: bytes) -> tuple[PIL.Image.Image, dict, dict, dict]:
    """A picture and the directories of its EXIF data, as Pillow reads them without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = PIL.Image.open(io.BytesIO(data))
        found.load()
        main = found.getexif()
        return found, dict(main), dict(main.get_ifd(EXPOSURE)), dict(main.get_ifd(PLACE))


def written(image: Image, suffix: str) -> bytes:
    file = io.BytesIO()
    write_image(file, image.samples, image.domain, suffix)
    return file.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_data_are_kept_on_request(kind, order, coffee):
    samples = coffee[170:190, 240:270]
    data = picture(kind, samples, camera_exif(order))
    assert open_image(data).domain.exif == b""
    assert open_image(data, keep="icc").domain.exif == b""
    image = open_image(data, keep="exif")
    assert image.domain.shape == (30, 20)  # turned
    assert "the place where it was taken" in image.notes[0]
    field = fields.Siren(2, 3, hidden_features=4, hidden_layers=0)
    field.domain = image.domain
    stored = decode(encode(field)).domain
    assert stored == image.domain
    size = image.samples.shape[1::-1]
    for suffix in (".jpg", ".png", ".webp", ".avif", ".tif"):
        found, main, exposure, place = read_back(written(image, suffix))
        assert found.size == size
        assert main.get(274, 1) == 1  # nobody turns it again
        assert (main[271], main[282], main[305]) == ("Canon", 300.0, "camera 1.0")
        assert exposure == {33434: 0.0125, 36864: b"0232", 37510: b"ASCII\0\0\0a comment"}
        assert place == {1: "N", 2: (51.0, 28.0, 38.5), 3: "W", 4: (0.0, 0.0, 5.25)}
    for suffix in (".bmp", ".npy"):
        assert b"Canon" not in written(image, suffix)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_keep_exif_data(tmp_path, dtype, order):
    samples = np.random.default_rng(0).integers(0, 65536, (9, 14, 3)).astype(dtype)
    image = Image.from_array(samples, exif=camera_exif(order))
    files = [written(image, ".tif")]
    stream_tiff(tmp_path / "a.tif", (9, 14), image.domain, iter((samples[:5], samples[5:])))
    files.append((tmp_path / "a.tif").read_bytes())
    if dtype == np.uint16:
        files.append(written(image, ".png"))
    for data in files:
        again = open_image(data, keep="icc,exif")
        np.testing.assert_array_equal(again.samples, samples)
        assert again.domain.exif == image.domain.exif


def test_profiles_are_kept_unless_told_otherwise(coffee):
    from tests.test_images import WIDE_RGB

    data = picture("JPEG", coffee[:16, :24], camera_exif(orientation=1), icc_profile=WIDE_RGB)
    for keep, icc, has_exif in (
        ("icc", WIDE_RGB, False),
        ("exif", b"", True),
        ("icc,exif", WIDE_RGB, True),
        ("none", b"", False),
    ):
        domain = open_image(data, keep=keep).domain
        assert (domain.icc, bool(domain.exif)) == (icc, has_exif)
    with pytest.raises(UsageError, match="keep is 'icc;exif': give"):
        open_image(data, keep="icc;exif")


def test_a_profile_that_only_says_srgb_is_dropped_and_a_changed_one_kept():
    import PIL.ImageCms as cms

    plain = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    grey = np.zeros((4, 4, 3), np.uint8)
    assert Image.from_array(grey, icc=plain).domain.icc == b""
    # the same name, another green
    at = plain.index(b"gXYZ", 128)
    where = struct.unpack(">I", plain[at + 4 : at + 8])[0] + 8
    green = struct.unpack(">3i", plain[where : where + 12])
    changed = plain[:where] + struct.pack(">3i", *(int(v * 0.9) for v in green))
    changed += plain[where + 12 :]
    assert Image.from_array(grey, icc=changed).domain.icc == changed


def test_sources_without_exif_data(tmp_path, coffee):
    file = io.BytesIO()
    PIL.Image.fromarray(coffee[:8, :8]).save(file, "PNG")
    np.save(tmp_path / "a.npy", coffee[:8, :8])
    for source in (file.getvalue(), tmp_path / "a.npy"):
        image = open_image(source, keep="icc,exif")
        assert (image.domain.exif, image.notes) == (b"", ())


def test_a_source_whose_exif_data_are_damaged(coffee):
    block = bytearray(camera_exif())
    block[10 + 4 : 10 + 8] = b"\xff" * 4  # so many letters in the first tag
    data = picture("PNG", coffee[:8, :8], bytes(block))
    assert open_image(data).domain.exif == b""
    with pytest.raises(InputError, match="damaged at tag 271: leave them out with --keep icc"):
        open_image(data, keep="icc,exif")


def test_what_a_jpeg_cannot_hold_is_told(coffee):
    block = PIL.Image.Exif()
    block.get_ifd(EXPOSURE)[37510] = b"x" * 70_000
    image = Image.from_array(coffee[:8, :8], exif=block.tobytes()[6:])
    with pytest.raises(UsageError, match=r"\.jpg cannot hold 70,\d+ bytes of EXIF data"):
        written(image, ".jpg")
    assert read_back(written(image, ".png"))[2][37510] == b"x" * 70_000


def test_cleaning_is_settled_and_orientations_of_strangers_do_nothing(tiny):
    for order in "<>":
        clean = exif.cleaned(camera_exif(order))
        assert exif.cleaned(clean) == clean
        assert len(clean) < 400  # the maker's notes are gone
    lying = zlib.compress(camera_exif(orientation=8))
    domain = decode(with_chunk(tiny, container.EXIF, lying)).domain
    assert domain.exif == exif.cleaned(camera_exif())


def test_damaged_exif_data_are_refused(tiny, coffee):
    block = camera_exif()
    entries = struct.pack("<H", 1) + struct.pack("<HHII", EXPOSURE, 4, 1, 26) + bytes(4)
    head = b"II*\0\x08\0\0\0"
    many = struct.pack("<H", 60) + b"".join(
        struct.pack("<HHII", tag, 7, 20_000, 0) for tag in range(60)
    )
    for damaged, told in (
        (b"JUNK" + block[4:], "no TIFF header"),
        (head, "cut short"),
        (block[:40], "cut short|damaged"),
        (head + b"\xff\xff", "65,535 entries"),
        (head + struct.pack("<HHHI", 1, 271, 2, 1 << 30) + bytes(8), "damaged at tag 271"),
        (head + struct.pack("<HHHI", 1, 271, 99, 1) + bytes(8), "damaged at tag 271"),
        (b"II*\0\xff\xff\xff\xff" + bytes(9), "cut short"),
        # each entry claims the same bytes
        (head + entries + many + bytes(4) + bytes(20_000), "damaged at tag"),
    ):
        with pytest.raises(CorruptFile, match=told):
            inspect(with_chunk(tiny, container.EXIF, zlib.compress(damaged)))
        with pytest.raises(CorruptFile, match=told):
            Image.from_array(coffee[:8, :8], exif=damaged)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.sampled_from("<>"))
@settings(max_examples=300, deadline=None)
def test_any_exif_data_give_a_block_or_an_error(at, change, order):
    block = bytearray(camera_exif(order))
    block[at : at + len(change)] = change
    try:
        clean = exif.cleaned(bytes(block))
    except InrError:
        return
    assert not clean or exif.cleaned(clean) == clean


# ------------------------------------------------------------------------------ helpers


@pytest.fixture(scope="module")
def small(coffee) -> fields.Field:
    field = fields.Siren(2, 3, hidden_features=4, hidden_layers=0)
    field.domain = Image.from_array(coffee[:8, :8]).domain
    with torch.no_grad():  # zeros are coded as ever, under 1.0
        for parameter in field.parameters():
            parameter.zero_()
    return field


@pytest.fixture(scope="module")
def tiny(small) -> bytes:
    return encode(small)


def raw_header(data: bytes) -> bytes:
    return cbor2.dumps(container.unpack(data).header, canonical=True)


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    return seal(raw_header(data), [*container.unpack(data).chunks, (kind, body)])
