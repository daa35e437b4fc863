"""What `.inr` files promise, F1 to F7, one section each.

F1  Any bytes give a value or an `InrError`, soon; nothing else, ever.
F2  Little memory is asked for on a stranger's word.
F3  No damage goes unnoticed.
F4  No file makes anything run.
F5  Old files open for good; what is new is skipped, or refused with the version it needs.
F6  All machines decode the same.
F7  What is written has been read again.

`test_attacks.py` (F1, F2), `test_plain_decoder.py` (F6), `test_robust.py` (golden files for F5,
processes for F6) and `test_codec.py` hold them to more.
"""

import ast
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import cbor2
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fields
from apps.cli.main import main
from fields import registry
from inr.codec import format as container
from inr.codec.decode import decode, inspect, symbols
from inr.codec.encode import encode, split_rows
from inr.codec.entropy import Row, encode_rows
from inr.codec.quantize import dequantize, quantize
from inr.errors import CorruptFile, FitError, InrError, UnsupportedFile
from inr.signals import KINDS
from inr.signals.array import ArrayDomain
from inr.signals.image import Image, ImageDomain
from tests import plain_decoder
from tests.conftest import ROOT
from tests.make_attacks import PLAIN, ZEROS, cbor, parameters, row
from tests.mutate import LIES, outcome, seal
from tests.test_contract import SMALL
from tests.test_house import SOURCES, imports, module_name

GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.inr"))
names = pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """What a test, or a command that it runs, does to the number of threads does not last."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*command: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
    )


# ------------------------------------------------------------------------ F1: any bytes

items = st.recursive(
    st.sampled_from(LIES) | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_f1_any_bytes_give_a_value_or_an_error_of_ours(data):
    outcome(decode, data, InrError)
    outcome(decode, container.SIGNATURE + b"\1" + data, InrError)
    outcome(decode, seal(data, [(b"P", data)]), InrError)
    outcome(decode, seal(PLAIN, [(b"P", data)]), InrError)


@given(
    st.one_of(
        items,
        st.tuples(st.sampled_from([*KINDS]), items, st.sampled_from(registry.names()), items),
        st.tuples(st.just("image"), st.just([8, 8, 1, 8]), st.sampled_from(registry.names()), items)
        | st.tuples(
            st.sampled_from([*KINDS]), st.lists(items, min_size=4, max_size=7), items, items
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_f1_any_header_gives_a_value_or_an_error_of_ours(header):
    raw = cbor2.dumps(list(header) if isinstance(header, tuple) else header, canonical=True)
    outcome(decode, seal(raw, [parameters(*ZEROS)]), InrError)


def fuzz(*options: str) -> dict:
    """The tally of `tests/fuzz.py`, which itself exits 1 on anything that breaks F1, F2 or F3."""
    done = run("tests/fuzz.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["slowest_ms"] <= 100
    assert report["memory_growth_mib"] <= 64
    return report


def test_f1_200_000_damaged_files(tmp_path):
    report = fuzz("--count", "200000", "--deep", "4000", "--save", str(tmp_path))
    assert report["files"] == 204_000
    assert report["outcomes"]["CorruptFile"] > 150_000
    assert report["outcomes"]["deep value"] > 100  # the lies reach the end of decoding


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_f1_half_a_million_damaged_files(tmp_path):
    options = ["--count", "500000", "--deep", "100000", "--seed", "7", "--jobs", "2"]
    report = fuzz(*options, "--save", str(tmp_path))
    assert report["files"] == 600_000


# --------------------------------------------------------------------------- F2: memory


def confined(folder, files: dict[str, bytes], more_mib: int = 0) -> dict[str, dict]:
    """What comes of files in a process whose address space may grow by 64 MiB, and by more."""
    for name, data in files.items():
        (folder / f"{name}.inr").write_bytes(data)
    paths = [str(folder / f"{name}.inr") for name in files]
    done = run("tests/confined.py", "--more", str(more_mib), *paths)
    assert done.returncode == 0, done.stderr[-3000:]
    return {facts["name"]: facts for facts in map(json.loads, done.stdout.splitlines())}


def test_f2_memory_is_bounded_by_what_a_file_declares(tmp_path):
    """At most 64 MiB and twice the parameters, though a few bytes declare millions of zeros."""
    many = 2048 * 4096  # of a table without a code of its own: 32 MiB
    header = cbor("image", [8, 8, 1, 8], "grid", [[2048, 4096], 1, 1, 24, 1, 0])
    honest = seal(header, [parameters(row(1), row(1), row(many))])
    liar = seal(header, [parameters(row(1), row(1), row(many - 1))])
    facts = confined(tmp_path, {"honest": honest, "liar": liar}, 2 * 4 * many >> 20)
    assert facts["honest"]["error"] == ""
    assert facts["honest"]["mib"] <= 64 + 2 * 4 * many / 2**20
    assert facts["liar"]["error"] == "CorruptFile"
    assert facts["liar"]["mib"] <= 1  # that the numbers do not fit is seen before any is made


def test_f2_damage_in_large_files_takes_little_memory(tmp_path):
    """A file of 1 MiB with right checksums and lies in its parameter chunk, 40 ways."""
    rng = np.random.default_rng(0)
    resolution = [700, 1000]
    header = cbor("image", [*resolution, 1, 8], "grid", [resolution, 1, 1, 24, 1, 0])
    numbers = np.rint(rng.laplace(0, 700, resolution)).astype(np.int32).ravel()
    rows = [Row(192, np.ones(1, np.int32)), Row(192, np.zeros(1, np.int32)), Row(100, numbers)]
    body = encode_rows(rows)
    assert 1 << 19 < len(body) <= 1 << 20
    files = {"whole": seal(header, [(b"P", body)])}
    for i in range(40):
        damaged = bytearray(body)
        at = rng.integers(0, 80 if i % 2 else len(body))
        damaged[at : at + 1 + i % 4] = rng.bytes(1 + i % 3)
        files[f"lie-{i}"] = seal(header, [(b"P", bytes(damaged))])
    declared = 4 * math.prod(resolution)
    for facts in confined(tmp_path, files, 2 * declared >> 20).values():
        assert facts["mib"] <= 64 + 2 * declared / 2**20
        assert "allocate" not in facts["says"]


# --------------------------------------------------------------------------- F3: damage


def test_f3_every_single_bit_flip_is_refused():
    """All 33,968 of a file of 4 kB, of which several have right checksums but for the digest."""
    data = (ROOT / "tests" / "golden" / "v1-windows-grey8.inr").read_bytes()
    assert 4096 <= len(data) < 4300
    flipped = bytearray(data)
    for i in range(8 * len(data)):
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(InrError):
            inspect(bytes(flipped))
        flipped[i // 8] ^= 1 << i % 8
    assert bytes(flipped) == data


@names
def test_f3_every_cut_and_every_byte_more_is_refused(path):
    data = path.read_bytes()
    for n in range(len(data)):
        with pytest.raises(InrError):
            inspect(data[:n])
    for more in (b"\0", b"Z", data[-9:], data):
        with pytest.raises(CorruptFile, match="behind its end"):
            inspect(data + more)


def layered() -> bytes:
    """A file whose rows are shared out over three parameter chunks."""
    parsed = container.unpack((ROOT / "tests" / "golden" / "v1-grid-grey8.inr").read_bytes())
    rows = [Row(step, np.asarray(s)) for step, s in plain_decoder.rows_of(parsed.chunks[0][1])]
    parts = [encode_rows(part) for part in (rows[:4], rows[4:6], rows[6:])]
    return seal(cbor2.dumps(parsed.header, canonical=True), [(b"P", part) for part in parts])


def test_f3_no_bit_flip_changes_what_a_part_of_a_file_decodes_to():
    """Read in part, a damaged file gives layers that are as they were, or none."""
    data = layered()
    whole = [row.symbols.tobytes() for row in symbols(inspect(data))]
    flipped, taken = bytearray(data), 0
    for i in range(0, 8 * len(data), 3):
        flipped[i // 8] ^= 1 << i % 8
        try:
            found = [r.symbols.tobytes() for r in symbols(inspect(bytes(flipped), partial=True))]
        except InrError:
            pass
        else:
            assert found == whole[: len(found)]
            taken += 1
        flipped[i // 8] ^= 1 << i % 8
    assert taken > 1000  # damage behind the first layer


# ------------------------------------------------------------------------- F4: execution

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "yaml.load"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_f4_nothing_that_could_run_a_file_is_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for imported in imports(path):
        assert imported.partition(".")[0] not in FORBIDDEN_MODULES, f"{path}: {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN_CALLS, f"{path}:{node.lineno}: {called}"
            if called.endswith(("np.load", "numpy.load")):
                assert "allow_pickle=True" not in ast.unparse(node), f"{path}:{node.lineno}"


def literal(path: str, name: str) -> dict:
    """A table of a module, read without running it: it raises unless all of it is written out."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name} in {path}")


def test_f4_names_in_files_are_looked_up_in_a_table_that_is_written_out():
    assert literal("fields/registry.py", "FIELDS") == registry.FIELDS
    for module, _, attribute in (path.partition(":") for path, _ in registry.FIELDS.values()):
        assert module.startswith("fields.")
        assert attribute.isidentifier()
    assert all(kind.module.startswith("inr.signals.") for kind in KINDS.values())


def test_f4_a_file_imports_nothing():
    before = set(sys.modules)
    for name in ("antigravity", "fields.siren:Siren", "os:system", "this", "inr.signals.dicom"):
        for header in (("image", name), (name, "siren")):
            kind, field = header
            with pytest.raises(InrError):
                decode(seal(cbor(kind, [8, 8, 1, 8], field, []), [parameters(*ZEROS)]))
        with pytest.raises(InrError):
            decode(seal(cbor("image", [8, 8, 1, 8], "windows", [2, 0.5, name, []]), []))
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


# --------------------------------------------------------------------------- F5: versions


@names
def test_f5_a_later_minor_version_is_read_and_what_it_adds_is_skipped(path):
    data = path.read_bytes()
    parsed = container.unpack(data)
    header = cbor2.dumps(parsed.header, canonical=True)
    chunks = [(b"z", b"of 1.15"), *parsed.chunks, (b"z", b"")]
    later = seal(header, chunks, version=15 << 4 | 1)
    for ours, theirs in zip(symbols(inspect(data)), symbols(inspect(later)), strict=True):
        assert ours.step == theirs.step
        assert np.array_equal(ours.symbols, theirs.symbols)
    assert all(
        a.equal(b)
        for a, b in zip(decode(data).parameters(), decode(later).parameters(), strict=True)
    )


def test_f5_what_cannot_be_read_says_which_version_it_needs():
    data = GOLDEN[0].read_bytes()
    parsed = container.unpack(data)
    header = cbor2.dumps(parsed.header, canonical=True)
    strange = cbor2.dumps([*parsed.header[:2], "field-of-2031", []], canonical=True)
    for file, told in (
        (seal(header, parsed.chunks, version=2), "format 2.0"),
        (seal(header, parsed.chunks, version=0x73), "format 3.7"),
        (seal(header, [*parsed.chunks, (b"Q", b"")], version=0x71), "format 1.7"),
        (seal(strange, parsed.chunks, version=0x71), "format 1.7"),
        (seal(header, [(b"P", b"\1\1\1\xfe")], version=0x71), "format 1.7"),  # an unknown model
    ):
        with pytest.raises(UnsupportedFile, match=told):
            decode(file)
    with pytest.raises(UnsupportedFile, match="field-of-2031"):
        decode(seal(strange, parsed.chunks))
    with pytest.raises(CorruptFile):
        decode(seal(header, [(b"P", b"\1\1\1\xfe")]))


# --------------------------------------------------------------- F6: the same everywhere


def sampled(field: fields.Field) -> np.ndarray:
    """Samples of a field on at most 24 places per axis, as float64."""
    domain = field.domain
    like = next(field.parameters())
    axes = [
        torch.from_numpy(domain.cell_centres(i, 0, n, min(n, 24))).to(like)
        for i, n in enumerate(domain.shape)
    ]
    with torch.no_grad():
        return domain.to_samples(field.on_grid(axes).cpu().numpy()).astype(np.float64)


@names
def test_f6_neither_threads_nor_tiles_change_what_is_decoded(path, monkeypatch):
    """Under one thread and two, in tiles of two sizes: within 1/255 of the range."""
    data = path.read_bytes()
    reference = sampled(decode(data))
    for count, points in ((2, 1 << 20), (2, 97), (1, 97)):
        torch.set_num_threads(count)
        monkeypatch.setattr("fields.base.points_per_tile", lambda field, points=points: points)
        field = decode(data)
        assert np.abs(sampled(field) - reference).max() <= field.domain.peak / 255


@names
def test_f6_a_gpu_decodes_the_same(path):
    """Within 1/255 of the range, and on average far closer: 70 dB below it."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU: CUDA is compared with the CPU only where there is one")
    field = decode(path.read_bytes())
    reference = sampled(field)
    found = sampled(field.to("cuda"))
    peak = float(field.domain.peak)
    assert np.abs(found - reference).max() <= peak / 255
    assert np.square(found - reference).mean() <= 1e-7 * peak**2


# ------------------------------------------------------------------ F7: written and read


def faulty(rows: list[Row]) -> bytes:
    """An entropy coder that errs in one symbol."""
    at = next(i for i, row in enumerate(rows) if row.symbols.size)
    wrong = rows[at].symbols.copy()
    wrong[-1] += 1
    return encode_rows([*rows[:at], Row(rows[at].step, wrong), *rows[at + 1 :]])


def test_f7_nothing_is_written_that_does_not_decode_to_what_was_encoded(
    monkeypatch, coffee, tmp_path, capsys
):
    image = Image.from_array(coffee[:16, :16])
    field = fields.Siren(2, 3, hidden_features=8)
    field.domain = image.domain
    monkeypatch.setattr("inr.codec.encode.encode_rows", faulty)
    for signal in (image, None):
        with pytest.raises(FitError, match="does not decode to what was encoded"):
            encode(field, signal)
    np.save(tmp_path / "a.npy", coffee[:16, :16])
    code = main(["fit", str(tmp_path / "a.npy"), "--steps", "2", "-o", str(tmp_path / "a.inr")])
    assert code == FitError.exit_code
    assert "does not decode to what was encoded" in capsys.readouterr().err
    assert not (tmp_path / "a.inr").exists()


domains = st.one_of(
    st.tuples(
        st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.sampled_from([8, 16])
    ).map(lambda sizes: ImageDomain(*sizes, high=2.0 ** sizes[3] - 1)),
    st.builds(
        ArrayDomain,
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.integers(1, 4),
        st.just("f8") | st.just("f4"),
        st.just(-1.5),
        st.just(2.25),
    ),
)


def check_round_trip(name: str, domain, seed: int, scale: int, sparse: float, steps: bytes) -> None:
    """A field of any parameters and steps comes back as what those steps make of it."""
    torch.manual_seed(seed)
    field = fields.create(name, 2, domain.channels, **SMALL[name])
    field.to(getattr(torch, domain.precision))
    with torch.no_grad():
        for stored in field.stored_parameters():
            values = torch.randn_like(stored.tensor) * 2.0**scale
            stored.tensor.copy_(values * (torch.rand_like(values) >= sparse))
    field.domain = domain
    rows = split_rows(field)
    rounding = [steps[i % len(steps)] for i in range(len(rows))]
    data = encode(field, rounding=rounding)

    again = decode(data)
    assert again.domain == domain
    assert again.hyperparameters == field.hyperparameters
    expected = [quantize(row, step) for row, step in zip(rows, rounding, strict=True)]
    for kept, wanted in zip(split_rows(again), expected, strict=True):
        assert np.array_equal(kept.astype(np.float32), dequantize(wanted))
    for (step, found), wanted in zip(plain_decoder.integers(data), expected, strict=True):
        assert step == wanted.step
        assert np.array_equal(found, wanted.symbols)


UNSHRUNK = (Phase.explicit, Phase.generate)
"""A failure is told as it was found: making it smaller takes minutes, and tells no more."""

round_trip = given(
    name=st.sampled_from(sorted(SMALL)),
    domain=domains,
    seed=st.integers(0, 1 << 30),
    scale=st.integers(-8, 6),
    sparse=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    steps=st.binary(min_size=1, max_size=6),
)


@round_trip
@settings(max_examples=50, deadline=None, phases=UNSHRUNK)
def test_f7_fields_come_back(name, domain, seed, scale, sparse, steps):
    check_round_trip(name, domain, seed, scale, sparse, steps)


@pytest.mark.slow
@pytest.mark.timeout(900)
@round_trip
@settings(max_examples=1000, deadline=None, phases=UNSHRUNK)
def test_f7_a_thousand_fields_come_back(name, domain, seed, scale, sparse, steps):
    check_round_trip(name, domain, seed, scale, sparse, steps)
