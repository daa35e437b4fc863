"""The `.inr` file: entropy coding, quantisation, container, and what strangers do to it."""

import itertools
import math
import random

import cbor2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr
from inr.codec import entropy
from inr.codec import format as container
from inr.codec.decode import decode, inspect, symbols
from inr.codec.encode import encode, pack, split_rows
from inr.codec.entropy import Row, decode_rows, encode_rows, frequencies
from inr.codec.quantize import dequantize, quantize, step_index, step_shares, step_size
from inr.errors import CorruptFile, FitError, InrError, LimitExceeded, UnsupportedFile, UsageError
from inr.limits import Limits
from inr.signals.array import ArraySignal
from inr.signals.image import Image, ImageDomain
from tests.mutate import mutate, outcome, resealed, seal


@pytest.fixture(scope="module")
def files(coffee) -> dict[str, bytes]:
    """Small files of each field."""
    torch.manual_seed(0)
    made = {}
    image = Image.from_array(coffee[170:194, 240:272])
    for name, more in (
        ("siren", {"hidden_features": 12, "hidden_layers": 1}),
        ("grid", {"resolution": [24, 32], "levels": 3}),
    ):
        field = fields.create(name, 2, 3, **more)
        field.adapt(image.statistics())
        field.domain = image.domain
        # the untrained one is kept close to itself, or little would be stored
        made[name] = encode(field, image, target_psnr=34.0) if name == "grid" else encode(field)
    return made


@pytest.fixture(scope="module")
def precise() -> tuple[ArraySignal, fields.Field]:
    """A float64 function, and a field that is it to the last bits."""
    torch.manual_seed(0)
    field = fields.Siren(1, 1, hidden_features=12, hidden_layers=1).double()
    x = torch.from_numpy((2 * np.arange(300) + 1) / 300 - 1)
    values = field(x[:, None]).detach()[:, 0]
    # the array's range is to be [-1, 1], so that its normalised values are the field's
    with torch.no_grad():
        middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
        field.out.bias -= middle
        for parameter in field.out.parameters():
            parameter /= half
        signal = ArraySignal.from_array(field(x[:, None])[:, 0].numpy())
    field.domain = signal.domain
    return signal, field


# ----------------------------------------------------------------------------- entropy


def independent_decode(words: list[int], tables: list[list[int]], counts: list[int]) -> list[int]:
    """constriction's range decoder in plain integers: 64-bit state, 32-bit words, 24-bit tables.

    It shares no code with the coder and works on the integer tables alone.
    """
    mask = (1 << 64) - 1
    source = iter([*words, 0, 0, 0, 0])
    point = next(source) << 32 | next(source)
    low, width = 0, mask
    out = []
    for table, count in zip(tables, counts, strict=True):
        starts = [0]
        for f in table:
            starts.append(starts[-1] + f)
        for _ in range(count):
            scale = width >> 24
            at = ((point - low) & mask) // scale
            k = next(i for i in range(len(table)) if at < starts[i + 1])
            out.append(k - len(table) // 2)
            low = (low + scale * starts[k]) & mask
            width = scale * table[k]
            if width < 1 << 32:
                low, width = low << 32 & mask, width << 32 & mask
                point = (point << 32 | next(source)) & mask
    return out


rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.one_of(
            st.lists(st.integers(-3, 3), max_size=60),
            st.lists(st.integers(-300, 300), max_size=40),
            st.lists(st.integers(-32767, 32767), max_size=20),
            st.lists(st.integers(-entropy.MAX_MAGNITUDE, entropy.MAX_MAGNITUDE), max_size=9),
            st.integers(0, 200).map(lambda n: [0] * n),
            st.integers(1, 200).map(lambda n: [0] * n + [1]),
        ),
    ),
    max_size=6,
)


@given(rows_strategy)
@settings(max_examples=300, deadline=None)
def test_rows_round_trip(items):
    rows = [Row(step, np.array(s, np.int32)) for step, s in items]
    again = decode_rows(encode_rows(rows))
    assert [r.step for r in again] == [r.step for r in rows]
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(again, rows, strict=True))


@given(rows_strategy)
@settings(max_examples=60, deadline=None)
def test_an_independent_decoder_reads_the_same_symbols(items):
    rows = [Row(step, np.array(s, np.int32)) for step, s in items]
    models = [entropy.best_model(r.symbols) for r in rows]
    coded = [(r, m) for r, m in zip(rows, models, strict=True) if m[0] != entropy.ZEROS]
    body = encode_rows(rows)
    side = len(container.varint(len(rows)))
    side += sum(
        len(container.varint(len(r.symbols))) + 1 + len(m)
        for r, m in zip(rows, models, strict=True)
    )
    whole = side + (len(body) - side) // 4 * 4
    words = np.frombuffer(body[side:whole], "<u4").tolist()
    words += [int.from_bytes(body[whole:].ljust(4, b"\0"), "big")] * (whole < len(body))
    if not coded:
        assert words == []
        return
    tables, counts = [], []
    for row, model in coded:
        bits = model[1] if model[0] == entropy.WIDE else 0
        tables += [frequencies(model).tolist()] + [[(1 << 24) >> bits] * (1 << bits)] * (bits > 0)
        counts += [len(row.symbols)] * (2 if bits else 1)
    found = iter(independent_decode(words, tables, counts))
    for row, model in coded:
        upper = list(itertools.islice(found, len(row.symbols)))
        if model[0] == entropy.WIDE:
            bits = model[1]
            lower = itertools.islice(found, len(row.symbols))  # counted from the table's middle
            lower = [part + (1 << bits) // 2 for part in lower]
            upper = [(h << bits) + low for h, low in zip(upper, lower, strict=True)]
        assert upper == row.symbols.tolist()


@given(st.binary(min_size=3, max_size=3), st.binary(min_size=2, max_size=56))
@settings(max_examples=200, deadline=None)
def test_tables_are_whole_positive_and_exact(geometric, buckets):
    for model in (bytes([1]) + geometric, bytes([2, len(buckets)]) + buckets):
        try:
            table = frequencies(model)
        except CorruptFile:
            assert (model[0] == 1 and model[3] == 0) or not any(buckets)
            continue
        assert table.dtype == np.int64
        assert len(table) % 2 == 1
        assert table.min() >= 1
        assert table.max() <= entropy.CEILING
        assert table.sum() == entropy.TOTAL


def test_tables_are_pinned():
    # any change here changes what old files decode to
    import hashlib

    models = [bytes([1, p, d, k]) for p in (0, 99, 255) for d in (0, 128, 250) for k in (1, 7, 255)]
    models += [bytes([2, 5, 255, 240, 200, 0, 3]), bytes([2, 56, *range(200, 256)])]
    digest = hashlib.sha256(b"".join(frequencies(m).astype("<i8").tobytes() for m in models))
    assert digest.hexdigest()[:32] == "9b08847ad029e105ed60717e4cddc1c4"
    steps = np.array([step_size(i) for i in range(256)], "<f4")
    assert hashlib.sha256(steps.tobytes()).hexdigest()[:32] == "1c6481a4b519bdf569dfc8413f09daaf"


@pytest.mark.parametrize("shape", ["laplace", "gauss", "sparse", "uniform", "heavy"])
def test_coding_is_within_one_percent_of_the_entropy(shape):
    rng = np.random.default_rng(0)
    n = 40_000
    s = {
        "laplace": rng.laplace(0, 4, n),
        "gauss": rng.normal(0, 30, n),
        "sparse": rng.laplace(0, 3, n) * (rng.random(n) < 0.05),
        "uniform": rng.uniform(-100, 100, n),
        "heavy": rng.standard_t(1.5, n) * 2,
    }[shape]
    s = np.clip(np.rint(s), -32000, 32000).astype(np.int32)
    p = np.unique(np.abs(s), return_counts=True)[1] / n
    # entropy of the magnitudes plus a sign each: what a perfectly fitted symmetric table costs
    ideal = (-(p * np.log2(p)).sum() + np.mean(s != 0)) * n / 8
    assert len(encode_rows([Row(0, s)])) <= 1.01 * ideal + 64


def test_zero_rows_cost_a_few_bytes_each():
    assert len(encode_rows([Row(3, np.zeros(100_000, np.int32))])) <= 6


def test_claims_beyond_the_bytes_are_refused():
    body = container.varint(1) + container.varint(10_000_000) + bytes([0, 1, 255, 0, 1])
    with pytest.raises(CorruptFile, match="claims 10,000,000 parameters in 10 bytes"):
        decode_rows(body)
    with pytest.raises(LimitExceeded):
        decode_rows(container.varint(1) + container.varint(1 << 30) + bytes([0, 0]))
    with pytest.raises(LimitExceeded):
        decode_rows(container.varint(5000) + bytes(20_000))


# -------------------------------------------------------------------------- quantisation


def test_steps_are_eighths_of_octaves():
    steps = np.array([float(step_size(i)) for i in range(256)])
    assert np.allclose(np.log2(steps), (np.arange(256) - 192) / 8, atol=1e-7)
    assert all(step_index(s) == i for i, s in enumerate(steps))
    assert step_index(0.0) == 0
    assert step_index(1e9) == 255


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50), st.integers(60, 255))
@settings(deadline=None)
def test_quantisation_error_is_half_a_step(values, index):
    x = np.array(values, np.float32)
    row = quantize(x, index)
    step = float(step_size(row.step))
    rounding = 1e-6 + np.abs(x).max() * 2.0**-23  # of the product, in float32
    error = np.abs(dequantize(row).astype(np.float64) - x).max()
    assert error <= step / 2 * (1 + 1e-6) + rounding
    assert np.abs(row.symbols).max() <= entropy.MAX_MAGNITUDE


# ------------------------------------------------------------------------------- encode


def test_quality_is_kept_within_the_stated_loss(coffee):
    image = Image.from_array(coffee[100:164, 200:296])
    fit = inr.fit(image, steps=15)
    before = image.metrics(fit.field)["psnr"]
    sizes = []
    for loss in (0.02, 0.1, 0.5):
        data = encode(fit.field, image, max_loss_db=loss)
        after = image.metrics(decode(data))["psnr"]
        assert before - loss <= after
        assert inspect(data).psnr == pytest.approx(after, abs=0.011)
        sizes.append(len(data))
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_target_may_be_quantised_down_to(files, coffee):
    image = Image.from_array(coffee[170:194, 240:272])
    quality = image.metrics(decode(files["grid"]))["psnr"]
    assert 34.0 <= quality < 36.0  # the field itself is exact


def test_quantised_siren_of_the_usual_size_loses_at_most_a_tenth_of_a_db(camera):
    image = Image.from_array(camera[128:192, 128:192])
    torch.manual_seed(0)
    fit = inr.fit(image, fields.Siren(2, 1), steps=60)
    data = encode(fit.field, image)
    assert image.metrics(decode(data))["psnr"] >= image.metrics(fit.field)["psnr"] - 0.1
    assert len(data) < 198_915 * 1.5  # and takes less than 12 bits a parameter


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_overhead_of_default_settings_is_at_most_64_bytes(channels):
    domain = ImageDomain(512, 768, channels)
    field = fields.create("grid", 2, channels, **fields.Grid.suggest(domain.shape))
    rows = [quantize(row, 200) for row in split_rows(field)]
    assert container.overhead(pack("grid", field, domain, rows, {"q": 3650})) <= 64


def test_what_cannot_be_encoded_is_told(coffee):
    image = Image.from_array(coffee[:16, :16])
    field = fields.Siren(2, 3, hidden_features=8)
    with pytest.raises(UsageError, match="no domain"):
        encode(field, image)
    field.domain = image.domain
    with torch.no_grad():
        field.out.bias[0] = math.nan
    with pytest.raises(FitError, match="NaN"):
        encode(field, image)


def test_source_field_is_left_alone(coffee):
    image = Image.from_array(coffee[:16, :16])
    field = fields.Siren(2, 3, hidden_features=8)
    field.domain = image.domain
    before = [p.clone() for p in field.parameters()]
    encode(field, image)
    assert all(a.equal(b) for a, b in zip(before, field.parameters(), strict=True))


# ---------------------------------------------------------------------------- container


def test_versions_and_chunks_of_the_future(files):
    data = files["siren"]
    with pytest.raises(UnsupportedFile, match="needs format 2.0"):
        container.unpack(data[:4] + b"\x02" + data[5:])
    parsed = container.unpack(data)
    header = cbor2.dumps(parsed.header, canonical=True)
    decode(seal(header, [*parsed.chunks, (b"x", b"ignored")]))
    with pytest.raises(UnsupportedFile, match="chunk X is unknown"):
        decode(seal(header, [*parsed.chunks, (b"X", b"needed")]))
    other = [*parsed.header]
    other[2] = "neural-field-of-2031"
    with pytest.raises(UnsupportedFile, match="neural-field-of-2031"):
        decode(seal(cbor2.dumps(other, canonical=True), parsed.chunks))


HEADERS = {
    "no list": {"a": 1},
    "short": ["image", [8, 8, 1, 8]],
    "kind": ["smell", [8, 8, 1, 8], "siren", []],
    "kind type": [7, [8, 8, 1, 8], "siren", []],
    "domain": ["image", [8, 8], "siren", []],
    "domain of texts": ["image", ["8", 8, 1, 8], "siren", []],
    "channels": ["image", [8, 8, 5, 8], "siren", []],
    "depth": ["image", [8, 8, 1, 9], "siren", []],
    "negative": ["image", [-8, 8, 1, 8], "siren", []],
    "huge": ["image", [1 << 40, 8, 1, 8], "siren", []],
    "bomb": ["image", [1 << 20, 1 << 20, 1, 8], "siren", [8, 1, 30.0, 30.0, "clean"]],
    "range": ["image", [8, 8, 1, 32, 0.0, math.inf], "siren", []],
    "too few": ["image", [8, 8, 1, 8], "siren", [8]],
    "too many": ["image", [8, 8, 1, 8], "siren", [8] * 20],
    "width": ["image", [8, 8, 1, 8], "siren", [1 << 40, 1, 30.0, 30.0, "clean"]],
    "depth of net": ["image", [8, 8, 1, 8], "siren", [8192, 62, 30.0, 30.0, "clean"]],
    "type": ["image", [8, 8, 1, 8], "siren", ["8", 1, 30.0, 30.0, "clean"]],
    "nan": ["image", [8, 8, 1, 8], "siren", [8, 1, math.nan, 30.0, "clean"]],
    "choice": ["image", [8, 8, 1, 8], "siren", [8, 1, 30.0, 30.0, "evil"]],
    "list": ["image", [8, 8, 1, 8], "siren", [[8], 1, 30.0, 30.0, "clean"]],
    "grid": ["image", [8, 8, 1, 8], "grid", [1 << 20, 24, 64, 27, 16, 1]],
    "grid list": ["image", [8, 8, 1, 8], "grid", [["a", {}], 3, 1, 10, 16, 1]],
    "field type": ["image", [8, 8, 1, 8], ["siren"], []],
    "import": ["image", [8, 8, 1, 8], "os.system", ["ls"]],
    "facts": ["image", [8, 8, 1, 8], "siren", [8, 1, 30.0, 30.0, "clean"], 7],
    "quality": ["image", [8, 8, 1, 8], "siren", [8, 1, 30.0, 30.0, "clean"], {"q": -1}],
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie_are_refused(files, case):
    chunks = container.unpack(files["siren"]).chunks
    with pytest.raises(InrError) as error:
        decode(seal(cbor2.dumps(HEADERS[case], canonical=True), chunks))
    assert "\n" not in str(error.value)


RAW_HEADERS = {
    "empty": b"",
    "not canonical": cbor2.dumps(["image", [8, 8, 1, 8], "siren", []])[:-1] + b"\x98\x00",
    "indefinite": b"\x9f\x01\xff",
    "deep": b"\x81" * 60 + b"\x01",
    "tag": b"\xc1\x1a\x00\x00\x00\x00",
    "bignum": b"\xc2\x49\x01" + b"\0" * 8,
    "big exponent": b"\xc5\x82\x1a\x7f\xff\xff\xff\x01",
    "shared": b"\xd8\x1c\x81\xd8\x1d\x00",
    "regex": b"\xd8\x23\x64(a+)",
    "length": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "text length": b"\x7a\xff\xff\xff\xff",
    "duplicate": b"\xa2\x61a\x01\x61a\x02",
    "trailing": cbor2.dumps([1, 2, 3, 4]) + b"\0",
    "bad text": b"\x84\x62\xff\xfe\x80\x60\x80",
}


@pytest.mark.parametrize("case", RAW_HEADERS)
def test_headers_that_are_no_plain_cbor_are_refused(case):
    with pytest.raises(CorruptFile):
        container.unpack(seal(RAW_HEADERS[case], []))


def test_limits_are_checked_before_anything_else(files):
    data = files["siren"]
    with pytest.raises(LimitExceeded, match="file's size"):
        container.unpack(data, Limits(file_bytes=100))
    with pytest.raises(LimitExceeded, match="number of chunks"):
        parsed = container.unpack(data)
        header = cbor2.dumps(parsed.header, canonical=True)
        container.unpack(seal(header, [(b"x", b"")] * 65))
    with pytest.raises(LimitExceeded, match="number of parameters"):
        decode(data, Limits(symbols=10))


def test_mutated_files_give_only_our_errors(files):
    rng = random.Random(0)
    seeds = list(files.values())
    for _ in range(20_000):
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        outcome(inspect, data, InrError)
    kinds = {outcome(decode, resealed(rng.choice(seeds), rng), InrError) for _ in range(600)}
    assert {"CorruptFile", "UnsupportedFile"} < kinds  # the lies reached the deeper checks


def test_colour_profile_travels_and_cannot_be_a_bomb(coffee):
    import dataclasses
    import zlib

    image = Image.from_array(coffee[:8, :8], icc=b"profile" * 200)
    field = fields.Siren(2, 3, hidden_features=4)
    field.domain = image.domain
    data = encode(field, image)
    assert decode(data).domain == image.domain
    plain = encode(_with_domain(field, dataclasses.replace(image.domain, icc=b"")), image)
    parsed = container.unpack(plain)
    header = cbor2.dumps(parsed.header, canonical=True)
    for bomb in (zlib.compress(bytes(50 << 20)), b"junk", zlib.compress(b"x" * 999)[:-8]):
        with pytest.raises(CorruptFile, match="colour profile"):
            inspect(seal(header, [*parsed.chunks, (container.COLOUR_PROFILE, bomb)]))


def _with_domain(field, domain):
    field.domain = domain
    return field


def test_parameters_may_come_in_several_chunks(files):
    contents = inspect(files["grid"])
    rows = symbols(contents)
    parsed = contents.container
    header = cbor2.dumps(parsed.header, canonical=True)
    parts = [(container.PARAMETERS, encode_rows(part)) for part in (rows[:3], rows[3:])]
    split = decode(seal(header, parts))
    whole = decode(files["grid"])
    assert all(a.equal(b) for a, b in zip(split.parameters(), whole.parameters(), strict=True))


def test_pack_is_canonical(files):
    for data in files.values():
        field = decode(data)
        contents = inspect(data)
        facts = contents.container.header[4] if len(contents.container.header) > 4 else {}
        again = pack(contents.field, field, field.domain, symbols(contents), facts)
        assert again == data


def test_rows_that_lie_on_the_steps_are_not_insensitive():
    # gains of 1 and of 1.003 matter alike, though rounding leaves the first as they are
    other = np.linspace(-1, 1, 64, dtype=np.float32)

    def shares(gain: float) -> list[float]:
        gains = np.full(64, gain, np.float32)
        true = gains * other

        def distortion(rows):
            return float(np.square(rows[0] * rows[1] - true).mean())

        return step_shares([gains, other], distortion)

    exact, odd = shares(1.0), shares(1.003)
    assert exact[0] == pytest.approx(odd[0], rel=2)
    assert exact[0] < 3 * exact[1]


# ----------------------------------------------------------------------- float64


def test_what_no_step_is_fine_enough_for_is_kept_as_it_is(precise):
    signal, field = precise
    assert signal.metrics(field)["relative_l2"] < 1e-14
    data = encode(field, signal)
    again = decode(data)
    assert all(p.dtype == torch.float64 for p in again.parameters())
    assert all(a.equal(b) for a, b in zip(again.parameters(), field.parameters(), strict=True))
    assert signal.metrics(again) == signal.metrics(field)
    assert inspect(data).psnr == pytest.approx(signal.metrics(field)["psnr"], abs=0.01)
    size = sum(p.numel() for p in field.parameters())
    assert 8 * size < len(data) < 9 * size


def test_float64_that_steps_reach_is_coded_as_ever(precise):
    signal, field = precise
    data = encode(field, signal, target_psnr=60.0)
    size = sum(p.numel() for p in field.parameters())
    assert len(data) < 3 * size  # entropy models of so small a field take a third of it
    again = decode(data)
    assert 60 <= signal.metrics(again)["psnr"] < 63  # six rows leave few combinations of steps
    assert all(p.dtype == torch.float64 for p in again.parameters())


def test_verbatim_rows_are_checked(precise):
    numbers = np.array([1.5, -(2.0**-1000), 0.0])
    body = encode_rows([Row(0, numbers), Row(3, np.arange(5, dtype=np.int32))])
    first, second = decode_rows(body)
    assert first.symbols.tobytes() == numbers.tobytes()
    assert second.symbols.tolist() == [0, 1, 2, 3, 4]
    for lie, told in (
        (encode_rows([Row(0, np.array([np.nan]))]), "no finite numbers"),
        (container.varint(1) + container.varint(1 << 20) + bytes([0, 3]) + bytes(800), "cut short"),
    ):
        with pytest.raises(CorruptFile, match=told):
            decode_rows(lie)
