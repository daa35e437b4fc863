"""How small parameters are stored: entropy models, their tables, and rounding by what it does."""

import copy
import itertools

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
from inr.codec.encode import encode, split_rows
from inr.codec.entropy import Row, best_model, decode_rows, encode_rows, frequencies
from inr.codec.format import read_varint, varint
from inr.codec.quantize import step_size
from inr.codec.rounding import EFFORTS, SAMPLES_PER_PARAMETER
from inr.errors import CorruptFile, TargetNotReached, UsageError
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.image import Image
from tests.test_codec import independent_decode

FIELDS = {
    "grid": Preset("grid", {"resolution": [48, 64], "levels": 4}, Recipe(lr=0.01)),
    "siren": Preset("siren", {"hidden_features": 20, "hidden_layers": 3}, Recipe(lr=2e-3)),
    "finr": Preset("finr", {"rank": 8, "base_options": {"hidden_features": 16}}, Recipe(lr=2e-3)),
    "doh": Preset(
        "doh",
        {"target_options": {"hidden_features": 20, "hidden_layers": 2}, "latents": 300},
        Recipe(lr=0.01),
    ),
    "wire": Preset("wire", {"hidden_features": 16, "hidden_layers": 1}, Recipe(lr=5e-3)),
    "finer-wavelet": Preset(
        "finer-wavelet", {"hidden_features": 16, "hidden_layers": 1}, Recipe(lr=1e-3)
    ),
    "wavelet": Preset("wavelet", {"hidden_features": 12}, Recipe(lr=5e-3)),
    "windows": Preset(
        "windows",
        {"count": 3, "base_options": {"hidden_features": 12, "hidden_layers": 1}},
        Recipe(lr=2e-3),
    ),
}


@pytest.fixture(scope="module")
def fitted(camera) -> dict[str, tuple[Image, fields.Field]]:
    """Fields of many kinds, each fitted to a piece of a photograph for a moment."""
    image = Image.from_array(camera[100:148, 200:264])
    made = {}
    for name, preset in FIELDS.items():
        torch.manual_seed(0)
        made[name] = (image, inr.fit(image, preset, steps=60 if name == "grid" else 25).field)
    return made


# ------------------------------------------------------------------------------- tables


def whole_weights(byte: int, scale: int) -> list[int]:
    """Weights of 0 ... K, as docs/FORMAT.md has them: in Python's integers, sharing no code."""
    shape, extent = divmod(byte - 16, 30)
    a, b = [(0, 1), (0, 2), (0, 5), (1, 0), (1, 1), (1, 2), (1, 5), (2, 4)][shape]
    sizes = [1]
    while len(sizes) < 30:
        n = len(sizes)
        sizes.append(min(2 ** ((n + 1) // 2) if n % 2 else 3 * 2 ** (n // 2 - 1), 2**15 - 1))
    eighths = [round(2 ** (20 + j / 8)) for j in range(8)]
    s = eighths[scale % 8] * 2 ** (scale // 8) // 2**20
    found = []
    for k in range(sizes[extent] + 1):
        x = min(k * 2**20 // s, 2**21)
        for _ in range(a):
            x = x * x // 2**12
        w = 2**42 // (2**12 + x)
        for _ in range(b):
            w = w * w // 2**30
        found.append(w)
    return found


@given(st.integers(16, 255), st.integers(0, 255))
@settings(max_examples=25, deadline=None)
def test_tables_of_the_family_are_those_of_the_format(byte, scale):
    weights = whole_weights(byte, scale)
    n = 2 * len(weights) - 1
    total = 2 * sum(weights) - weights[0]
    shares = [1 + (2**24 - n) * w // total for w in weights]
    table = [*shares[:0:-1], *shares]
    top = table.index(max(table))
    table[top] += 2**24 - sum(table)
    excess = table[top] - (2**24 - 2**16)
    if excess > 0:
        table[top] -= excess
        table[top + 1 if top <= n // 2 else top - 1] += excess
    assert frequencies(bytes([byte, scale])).tolist() == table


def test_tables_of_the_family_are_pinned():
    # any change here changes what old files decode to
    import hashlib

    models = [bytes([b, s]) for b in (16, 47, 79, 110, 140, 171, 200, 255) for s in (0, 77, 180)]
    digest = hashlib.sha256(b"".join(frequencies(m).astype("<i8").tobytes() for m in models))
    assert digest.hexdigest()[:32] == "de8f38ca14cfa76b8b09bd3653ab9052"


@pytest.mark.parametrize("spread", [0.2, 1, 30, 3000])
@pytest.mark.parametrize("law", ["normal", "laplace", "uniform"])
def test_a_row_of_a_network_costs_little_more_than_its_law(law, spread):
    # the model is two bytes; the least that symbols of a known law could cost is their entropy
    rng = np.random.default_rng(0)
    n = 2000
    draw = {"normal": rng.normal, "laplace": rng.laplace}.get(law)
    values = rng.uniform(-spread, spread, n) if draw is None else draw(0, spread, n)
    row = np.rint(values).astype(np.int32)
    ideal = _entropy(law, spread) * n / 8
    assert len(encode_rows([Row(0, row)])) <= 1.025 * ideal + 16


def _entropy(law: str, spread: float) -> float:
    """Bits of a rounded variable."""
    k = np.arange(-40_000, 40_001)
    from scipy import stats

    family_ = {
        "normal": stats.norm(0, spread),
        "laplace": stats.laplace(0, spread),
        "uniform": stats.uniform(-spread, 2 * spread),
    }[law]
    p = family_.cdf(k + 0.5) - family_.cdf(k - 0.5)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


# --------------------------------------------------------------------------- interlaced


def lattice(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Symbols whose size varies smoothly over a lattice, flat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    scale = 6 * np.exp(-30 * ((x - 0.4) ** 2 + (y - 0.3) ** 2)) + 0.1
    return np.rint(rng.laplace(0, scale)).astype(np.int32).ravel()


@pytest.mark.parametrize("shape", [(64, 64), (37, 53), (1, 900), (3, 200), (200, 5), (17, 64)])
def test_symbols_on_a_lattice_come_back(shape):
    row = Row(7, lattice(*shape))
    again = decode_rows(encode_rows([row]))[0]
    assert np.array_equal(again.symbols, row.symbols)


def test_neighbours_tell_of_each_other():
    smooth = lattice(128, 128)
    model = best_model(smooth)
    assert model[0] == entropy.INTERLACED
    assert read_varint(model, 1)[0] == 128
    shuffled = np.random.default_rng(1).permutation(smooth)
    assert best_model(shuffled)[0] != entropy.INTERLACED
    with_them, without = (len(encode_rows([Row(0, s)])) for s in (smooth, shuffled))
    assert with_them < 0.85 * without


def interlaced_tables(model: bytes, known: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Places of symbols and their table, in order, as docs/FORMAT.md has them."""
    width, at = read_varint(model, 1)
    counts, buckets = model[at : at + 2], model[at + 2 : at + 4 + model[at + 3]]
    rest = model[at + 2 + len(buckets) :]
    changes = [rest[: 2 * counts[0]], rest[2 * counts[0] :]]
    height = len(known) // width
    step = 1
    while 8 * step <= max(height, width):
        step *= 2
    first = [y * width + x for y in range(0, height, step) for x in range(0, width, step)]
    found = [(first, frequencies(buckets).tolist())]
    while step > 1:
        step //= 2
        for y0, x0 in ((step, step), (step, 0), (0, step)):
            members: dict[int, list[int]] = {}
            kind = 0 if y0 == x0 else 1
            for y in range(y0, height, 2 * step):
                for x in range(x0, width, 2 * step):
                    total = 0
                    ways = (
                        [(1, 1), (1, -1), (-1, 1), (-1, -1)]
                        if kind == 0
                        else [(1, 0), (-1, 0), (0, 1), (0, -1)]
                    )
                    for dy, dx in ways:
                        v, u = y + dy * step, x + dx * step
                        v = v if 0 <= v < height else y - dy * step
                        u = u if 0 <= u < width else x - dx * step
                        if 0 <= v < height and 0 <= u < width:
                            total += abs(int(known[v * width + u]))
                    of = 0 if total == 0 else max(1, total.bit_length() - 1)
                    members.setdefault(min(of, counts[kind] - 1), []).append(y * width + x)
            for of in sorted(members):
                up, tilt = changes[kind][2 * of : 2 * of + 2]
                levels = [
                    min(255, max(1, b + up - 128 + (tilt - 128) * i // 8)) if b and i else b
                    for i, b in enumerate(buckets[2:])
                ]
                table = frequencies(bytes([*buckets[:2], *levels])).tolist()
                found.append((members[of], table))
    return found


@pytest.mark.parametrize("shape", [(64, 64), (50, 63), (1, 3000)])
def test_an_independent_decoder_reads_interlaced_symbols(shape):
    row = lattice(*shape)
    model = best_model(row)
    assert model[0] == entropy.INTERLACED
    body = encode_rows([Row(0, row)])
    side = len(varint(1)) + len(varint(len(row))) + 1 + len(model)
    data = body[side:].ljust((len(body) - side + 3) // 4 * 4, b"\0")
    words = np.frombuffer(data, "<u4").tolist()
    if (len(body) - side) % 4:
        words[-1] = int.from_bytes(data[-4:], "big")
    parts = interlaced_tables(model, row)
    tables, counts = [t for _, t in parts], [len(places) for places, _ in parts]
    found = iter(independent_decode(words, tables, counts))
    for places, _ in parts:
        assert row[places].tolist() == list(itertools.islice(found, len(places)))


@given(st.binary(max_size=40), st.integers(0, 2000))
@settings(max_examples=300, deadline=None)
def test_models_that_lie_are_refused(junk, size):
    for kind in (5, 4, 16, 255):
        body = varint(1) + varint(size) + bytes([0, kind]) + junk
        try:
            rows = decode_rows(body)
        except CorruptFile:
            continue
        assert [len(row.symbols) for row in rows] == [size]


# ------------------------------------------------------------------------------- end


@given(st.lists(st.integers(-5, 5), max_size=40), st.integers(-300, 300))
@settings(max_examples=200, deadline=None)
def test_the_last_word_is_cut_where_nothing_is_lost(items, last):
    rows = [Row(0, np.array([*items, last], np.int32))]
    body = encode_rows(rows)
    assert np.array_equal(decode_rows(body)[0].symbols, rows[0].symbols)
    model = best_model(rows[0].symbols)
    # whole words would take two more of them for few symbols
    if model[0] not in entropy.UNCODED:
        counts = np.bincount(np.abs(rows[0].symbols))
        bits = entropy.cost_bits(counts, model)
        side = len(varint(1)) + len(varint(len(items) + 1)) + 1 + len(model)
        assert len(body) - side <= bits / 8 + 2.5


def test_files_say_the_version_that_they_need():
    old = encode_rows([Row(0, np.zeros(9, np.int32)), Row(1, np.array([1.5]))])
    assert entropy.minor_version(old) == 0
    new = encode_rows([Row(0, np.arange(-40, 40, dtype=np.int32))])
    assert entropy.minor_version(new) == 1


# ------------------------------------------------------------------------------- fields


@pytest.mark.parametrize("name", FIELDS)
def test_a_file_is_within_one_percent_of_the_entropy_and_64_bytes(fitted, name):
    image, field = fitted[name]
    data = encode(field, image, effort=1)
    rows = symbols(inspect(data))
    ideal = models = 0.0
    for row in rows:
        model = best_model(row.symbols)
        models += len(model) + 1 + len(varint(len(row.symbols)))
        if model[0] == entropy.INTERLACED:
            ideal += entropy.interlaced_bits(row.symbols, model) / 8
        elif model[0] not in entropy.UNCODED and model[0] != entropy.WIDE:
            ideal += entropy.cost_bits(np.bincount(np.abs(row.symbols)), model) / 8
        elif model[0] == entropy.WIDE:
            upper = np.bincount(np.abs(row.symbols >> model[1]))
            ideal += (entropy.cost_bits(upper, model) + model[1] * len(row.symbols)) / 8
    (body,) = inspect(data).container.bodies(container.PARAMETERS)
    assert len(body) <= 1.01 * (ideal + models) + 8
    # the rest of the 64 bytes are the container's; a header that names many options has more
    header = cbor2.dumps(inspect(data).container.header, canonical=True)
    assert len(data) - len(body) - len(header) <= 26
    assert name != "grid" or len(data) <= 1.01 * (ideal + models) + 64
    # and the models are small beside what they describe: twelve bytes a row, or a fiftieth
    assert models <= max(12 * len(rows), 0.02 * ideal)


@pytest.mark.parametrize("name", FIELDS)
def test_every_kind_of_field_is_held_to_its_bound(fitted, name):
    image, field = fitted[name]
    before = image.quality(field)
    plain, tuned = (encode(field, image, max_loss_db=0.3, effort=effort) for effort in (1, 3))
    for data in (plain, tuned):
        assert image.quality(decode(data)) >= before - 0.3
    assert len(tuned) <= len(plain)


def test_rounding_by_what_it_does_makes_smaller_files(fitted):
    # 48 x 64 pixels determine neither network; a grid has all of them to go by
    sizes = {}
    for name in ("grid", "siren"):
        image, field = fitted[name]
        sizes[name] = [len(encode(field, image, effort=effort)) for effort in (1, 5)]
    assert sizes["grid"][1] < 0.95 * sizes["grid"][0]
    assert sizes["siren"][1] < 0.95 * sizes["siren"][0]


@pytest.mark.parametrize("name", ["grid", "siren"])
def test_a_size_is_kept_and_used(fitted, name):
    image, field = fitted[name]
    whole = len(encode(field, image, effort=1))
    for part, effort in ((0.5, 1), (0.75, 3)):
        allowed = int(part * whole)
        data = encode(field, image, max_bytes=allowed, effort=effort)
        assert 0.95 * allowed <= len(data) <= allowed
    with pytest.raises(
        TargetNotReached, match=r"smallest file of this field has \d+ bytes, not 60"
    ):
        encode(field, image, max_bytes=60)


def test_a_measure_is_kept(fitted):
    image, field = fitted["siren"]
    wanted = image.metrics(field)["psnr"] - 1.0
    sizes = []
    for effort in (1, 3):
        data = encode(field, image, least=("psnr", wanted), effort=effort)
        assert image.metrics(decode(data))["psnr"] >= wanted
        sizes.append(len(data))
    assert sizes[1] <= sizes[0]
    with pytest.raises(TargetNotReached, match="fit it further"):
        encode(field, image, least=("psnr", wanted + 20))


def test_float64_and_its_gradient():
    torch.manual_seed(0)
    x = (2 * np.arange(400) + 1) / 400 - 1
    signal = ArraySignal.from_array(np.sin(9 * x) * np.exp(-x))
    field = inr.fit(
        signal,
        Preset("siren", {"hidden_features": 8, "hidden_layers": 1}, Recipe(lr=5e-3)),
        steps=80,
    ).field
    before = signal.quality(field)
    for effort in (1, 5):
        again = decode(encode(field, signal, max_loss_db=0.5, effort=effort))
        assert all(p.dtype == torch.float64 for p in again.parameters())
        assert signal.quality(again) >= before - 0.5


def test_the_field_is_left_alone_and_bytes_are_the_same_each_time(fitted):
    image, field = fitted["siren"]
    kept = copy.deepcopy(field)
    first = encode(field, image)
    assert first == encode(field, image)
    assert all(a.equal(b) for a, b in zip(kept.parameters(), field.parameters(), strict=True))
    assert all(p.requires_grad for p in field.parameters())


def test_parameters_are_not_fitted_to_a_few_samples(camera):
    image = Image.from_array(camera[:40, :40])
    field = fields.Siren(2, 1, hidden_features=64, hidden_layers=2)  # 8,513 parameters
    field.domain = image.domain
    count = sum(p.numel() for p in field.parameters())
    assert count * SAMPLES_PER_PARAMETER > image.count  # but these are all the samples there are
    assert len(encode(field, image, target_psnr=5.0)) > 0


@pytest.mark.parametrize("effort", [0, 10, 4.5])
def test_efforts_are_1_to_9(fitted, effort):
    image, field = fitted["siren"]
    with pytest.raises(UsageError, match="give 1 to 9"):
        encode(field, image, effort=effort)
    assert sorted(EFFORTS) == list(range(1, 10))


@pytest.mark.slow
def test_int8_siren_of_256_by_3_loses_at_most_a_tenth_of_a_db(camera):
    # the matrices of 132,609 numbers; the first layer, multiplied by omega = 30, and the biases,
    # 1,281 numbers, have 16 bits
    image = Image.from_array(camera[128:256, 128:256])
    preset = Preset("siren", {"hidden_features": 256, "hidden_layers": 2}, Recipe(lr=5e-4))
    torch.manual_seed(0)
    field = inr.fit(image, preset, steps=100).field
    largest = [32767 if i == 0 or i % 2 else 127 for i in range(8)]
    indices = [
        next(i for i in range(256) if float(np.abs(row).max()) / float(step_size(i)) <= most)
        for row, most in zip(split_rows(field), largest, strict=True)
    ]
    data = encode(field, image, rounding=indices)
    stored = [int(np.abs(row.symbols).max()) for row in symbols(inspect(data))]
    assert all(a <= b for a, b in zip(stored, largest, strict=True))
    assert image.quality(decode(data)) >= image.quality(field) - 0.1
