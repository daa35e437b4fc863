"""Sound: files in and out at every depth, level, offset and timing, and the command line."""

import io
import json
import math
import subprocess
import sys
import time
import wave

import cbor2
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inr
from apps.cli.main import main
from fields.base import Field
from inr import presets
from inr.backend import computing
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.errors import CorruptFile, InputError, InrError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.presets import Recipe
from inr.rendering import BAND_POINTS, render_bands
from inr.signals import KINDS, domain_from_header, kind_of
from inr.signals.audio import (
    DEPTH_NAMES,
    DTYPES,
    FLOAT,
    MAX_RATE,
    WRITABLE,
    Audio,
    AudioDomain,
    check_format,
    open_audio,
    render_audio,
    write_audio,
)
from inr.signals.image import Image
from inr.signals.spectral import LogSpectralDistance, Silence
from tests.conftest import ASSETS

RATE = 8000
TINY = ("--field", "siren", "--field.hidden_features", "8", "--field.hidden_layers", "1")
TINY += ("--field.first_omega", "300")
SUBTYPES = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32", FLOAT: "FLOAT"}


class Chirp(Field):
    """Known at every instant: sin(2 pi (f t + k t^2 / 2)) in t seconds since sample 0."""

    widest = 1

    def __init__(self, n: int, rate: float, *, f: float = 100.0, k: float = 800.0) -> None:
        super().__init__(1, 1)
        self.n, self.rate, self.f, self.k = n, rate, f, k
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def at(self, t):
        return np.sin(2 * np.pi * (self.f * t + self.k * t * t / 2))

    def forward(self, coords):
        samples = ((coords.double() + 1) * self.n - 1) / 2
        t = samples / self.rate
        return torch.sin(2 * math.pi * (self.f * t + self.k * t * t / 2))


def chirp(n: int = RATE, rate: int = RATE) -> Chirp:
    field = Chirp(n, rate)
    field.domain = AudioDomain(n, 1, rate, FLOAT, -1.0, 1.0)
    return field


def tone(n: int = 600, channels: int = 1) -> np.ndarray:
    t = np.arange(n)[:, None] / RATE
    return 0.4 * np.sin(2 * np.pi * 200 * t * (1 + np.arange(channels))) + 0.1


def stored(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples in [-1, 1) in the type of a depth."""
    if depth == FLOAT:
        return samples.astype(np.float32)
    unit = 1 << (8 * np.dtype(DTYPES[depth]).itemsize - depth)
    return (np.rint(samples * (1 << (depth - 1))) * unit).astype(DTYPES[depth])


def wav(samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16", form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("depth", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac"])
def test_every_depth_goes_round(tmp_path, depth, channels, suffix):
    samples = stored(tone(channels=channels), depth)
    audio = Audio.from_array(samples, RATE, depth=depth)
    path = tmp_path / f"x{suffix}"
    if depth not in WRITABLE[suffix].subtypes:
        with pytest.raises(UsageError, match=r"flac cannot hold 32-bit samples: write \.wav"):
            write_audio(path, samples, audio.domain)
        return
    write_audio(path, samples, audio.domain)
    again = inr.open(path)
    assert soundfile.info(path).subtype == WRITABLE[suffix].subtypes[depth]
    if suffix == ".flac" and depth == FLOAT:
        assert again.domain.depth == 24
        assert np.abs(again.samples / 2**31 - samples).max() <= 2**-23
        return
    assert again.domain == audio.domain
    assert np.array_equal(again.samples, samples)


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_compressed_sound_is_float(form, subtype):
    samples = tone(9000) - 0.1  # Opus removes a constant
    subtype = subtype or "MPEG_LAYER_III"
    audio = inr.open(wav(samples, 48000, subtype, form))
    assert (audio.domain.depth, audio.domain.samples, audio.domain.rate) == (FLOAT, 9000, 48000)
    assert np.abs(audio.samples[1000:-1000] - samples[1000:-1000]).mean() < 0.02


def test_a_wave_file_of_another_hand(tmp_path):
    samples = stored(tone(channels=2), 16)
    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(samples.tobytes())
    audio = inr.open(str(path))
    assert np.array_equal(audio.samples, samples)
    assert (audio.domain.rate, audio.domain.channels) == (22050, 2)


def test_arrays():
    flat = stored(tone(), 16)[:, 0]
    assert Audio.from_array(flat, RATE).domain.shape == (600,)
    assert Audio.from_array(flat.astype(">i2"), RATE).samples.dtype == np.int16
    unsigned = Audio.from_array(np.array([0, 128, 255], np.uint8), RATE)
    assert unsigned.samples.ravel().tolist() == [-32768, 0, 127 << 8]
    assert unsigned.domain.header() == [3, 1, RATE, 8, -128, 127]
    assert Audio.from_array(flat / 2.0, RATE).domain.depth == FLOAT


@pytest.mark.parametrize(
    ("samples", "rate", "depth", "told"),
    [
        (np.zeros((0, 1), np.int16), RATE, None, "is no sound"),
        (np.zeros((2, 44), np.int16), RATE, None, r"shape \(2, 44\) is no sound"),
        (np.zeros((2, 2, 2), np.int16), RATE, None, "is no sound"),
        (np.zeros(9, np.int16), 0, None, "a rate of 0 Hz"),
        (np.zeros(9, np.int16), MAX_RATE + 1, None, "out of range"),
        (np.zeros(9, np.int64), RATE, None, "type int64"),
        (np.zeros(9, bool), RATE, None, "type bool"),
        (np.zeros(9, np.int16), RATE, 24, "type int16, 24 bits"),
        (np.zeros(9, np.int16), RATE, FLOAT, "type int16"),
        (np.zeros(9, np.int32), RATE, 12, "12 bits"),
        (np.array([0.0, np.nan]), RATE, None, "NaN"),
        (np.array([0.0, np.inf]), RATE, None, "infinite"),
        (np.array([0.0, 1e300]), RATE, None, "infinite"),
    ],
)
def test_arrays_that_are_no_sound(samples, rate, depth, told):
    with pytest.raises(InputError, match=told):
        Audio.from_array(samples, rate, depth=depth)


def test_damaged_files_are_told_in_one_line(tmp_path):
    whole = {
        "a.wav": wav(tone(4000)),
        "a.aiff": wav(tone(4000), form="AIFF"),
        "a.flac": wav(tone(4000), form="FLAC"),
        "a.ogg": wav(tone(4000), 48000, "VORBIS", "OGG"),
        "a.au": wav(tone(4000), form="AU")[:0],
    }
    bad = {name: data[: len(data) // 2] for name, data in whole.items()}
    bad |= {
        "noise.wav": bytes(range(256)),
        "text.mp3": b"no sound at all\n" * 20,
        "head.wav": whole["a.wav"][:12],
        "nothing.wav": wav(np.zeros((0, 1))),
        "nan.wav": wav(np.full((9, 1), np.nan), subtype="FLOAT"),
        "inf.wav": wav(np.full((9, 1), np.inf), subtype="FLOAT"),
        "adpcm.wav": wav(np.zeros((900, 1)), subtype="NMS_ADPCM_16"),
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            inr.open(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: "), name
        assert "\n" not in str(caught.value)
        assert "picture" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        inr.open(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="standard input: is cut short"):
        inr.open(bad["a.wav"])


def test_a_stream_into_a_pipe_has_no_length_and_is_read():
    data = wav(tone())
    assert len(inr.open(data[:4] + b"\xff\xff\xff\xff" + data[8:]).samples) == 600


def test_absurd_lengths_are_refused_before_they_are_allocated():
    data = bytearray(wav(tone(), form="FLAC"))
    data[21] |= 0x0F  # the total number of samples in STREAMINFO: 36 bits
    data[22:26] = b"\xff" * 4
    with pytest.raises(LimitExceeded, match="68,719,476,735"):
        inr.open(bytes(data))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(InputError, match="does not say how long it is"):
        inr.open(bytes(data))
    with pytest.raises(LimitExceeded, match="600x2"):
        open_audio(wav(tone(channels=2)), Limits(samples=1199))


def test_without_soundfile_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.wav").write_bytes(wav(tone()))
    assert main(["fit", str(tmp_path / "a.wav")]) == 3
    told = capsys.readouterr().err
    assert "pip install 'inr-studio[audio]'" in told
    assert told.count("\n") == 1


def test_the_kind_is_told_by_the_bytes_then_by_the_name(tmp_path):
    sounds = [
        wav(tone(), form=form, subtype=subtype)
        for form, subtype in (
            ("WAV", "PCM_16"), ("WAVEX", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"), ("CAF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"),
            ("RF64", "PCM_16"), ("MP3", "MPEG_LAYER_III"),
        )
    ]  # fmt: skip
    for data in [*sounds, b"ID3\4" + bytes(20)]:
        assert kind_of(data) == "audio"
        path = tmp_path / "x.png"
        path.write_bytes(data)
        assert kind_of(path) == "audio"
    for data in (
        (ASSETS / "camera.png").read_bytes(),
        b"\xff\xd8\xff\xe0",
        b"RIFF\0\0\0\0WEBPVP8 ",
    ):
        path = tmp_path / "x.wav"
        path.write_bytes(data)
        assert kind_of(data) == kind_of(str(path)) == "image"
    assert kind_of("missing.wav") == kind_of("MISSING.FLAC") == "audio"
    assert kind_of("missing.png") == kind_of("") == kind_of(b"") == "image"


def test_the_kind_needs_nothing_heavy():
    code = (
        "import sys; from inr.signals import kind_of; kind_of('x.wav');"
        "print([m for m in ('torch', 'numpy', 'soundfile', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# -------------------------------------------------------------------------------- domain


headers = st.builds(
    list,
    st.tuples(
        st.integers(1, (1 << 31) - 1),
        st.integers(1, 32),
        st.integers(1, MAX_RATE),
        st.sampled_from([8, 16, 24, 32]),
        st.integers(-128, 0),
        st.integers(0, 127),
    ),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=9,
)


@given(headers)
def test_headers_go_round(items):
    domain = domain_from_header("audio", cbor2.loads(cbor2.dumps(items, canonical=True)))
    assert domain.header() == items


@given(headers, st.integers(0, 5), anything)
def test_a_header_with_one_wrong_item(items, at, wrong):
    items[at] = wrong
    try:
        domain = AudioDomain.from_header(items)
    except CorruptFile as error:
        assert "\n" not in str(error)
        return
    assert domain.header() == items
    assert all(type(n) is int for n in items)
    assert math.isfinite(domain.peak)
    json.dumps(domain.describe(), allow_nan=False)


@given(anything)
def test_any_other_header_is_refused(items):
    with pytest.raises(CorruptFile):
        AudioDomain.from_header(items)


@pytest.mark.parametrize(
    "items",
    [
        [9, 1, 8000, 16, 0.0, 1.0],
        [9, 1, 8000, -32, 0, 1],
        [9, 1, 8000, 16, -32769, 0],
        [9, 1, 8000, 16, 0, 32768],
        [9, 1, 8000, 16, 1, 0],
        [9, 1, 8000, -32, -math.inf, 0.0],
        [9, 1, 8000, -32, 0.0, math.nan],
        [9, 1, 8000, -32, 0.0, 1e39],
        [9, 33, 8000, 16, 0, 1],
        [1 << 31, 1, 8000, 16, 0, 1],
        [9, 1, 0, 16, 0, 1],
        [9, 1, 8000, 12, 0, 1],
        [True, 1, 8000, 16, 0, 1],
        [9, 1, 8000, 16, False, 1],
    ],
)
def test_headers_that_lie(items):
    with pytest.raises(CorruptFile):
        AudioDomain.from_header(items)


@settings(deadline=None)
@given(
    st.sampled_from([8, 16]),
    st.lists(st.integers(-128, 127), min_size=1, max_size=40),
    st.integers(1, 200),
)
def test_level_and_offset_are_restored(depth, numbers, gain):
    full = 1 << (depth - 1)
    samples = np.clip(np.array(numbers) * gain, -full, full - 1) * (256 if depth == 8 else 1)
    audio = Audio.from_array(samples.astype(np.int16), RATE, depth=depth)
    values = audio.values.numpy()
    assert audio.domain.to_samples(values).tolist() == audio.samples.tolist()
    if len(set(samples.tolist())) > 1:  # the clip's own range is all of [-1, 1]
        assert (values.min(), values.max()) == (-1, 1)
    else:
        assert not values.any()


def test_fine_samples_are_restored_as_well_as_float32_can():
    rng = np.random.default_rng(0)
    for depth in (24, 32, FLOAT):
        samples = stored(rng.uniform(0.2, 0.5, (1000, 2)), depth)
        audio = Audio.from_array(samples, RATE, depth=depth)
        back = audio.domain.to_samples(audio.values.numpy())
        assert back.dtype == samples.dtype
        # half a step of float32 below 1, on half the range, plus half the last bit
        error = np.abs(back.astype(float) - samples).max()
        scale = 1.0 if depth == FLOAT else 2.0**31
        assert error <= scale * (2.0**-25 * 0.15 + 2.0 ** -min(abs(depth), 24))


def test_grain_is_the_last_bit_at_the_clips_level():
    quiet = Audio.from_array(np.array([-2, 1, 2], np.int16), RATE)
    assert quiet.domain.grain == 0.5
    assert np.diff(np.sort(quiet.values.numpy().ravel())).min() == pytest.approx(0.5)
    for samples in (np.full(9, 7, np.int16), np.zeros(9, np.float32), np.array([0.0, 1.0])):
        assert 0 < Audio.from_array(samples, RATE).domain.grain < 1e-6


@pytest.mark.parametrize("level", [0, 7, -30000])
def test_a_constant_is_exact(level):
    audio = Audio.from_array(np.full((500, 2), level, np.int16), RATE)
    fit = inr.fit(audio, "siren", steps=0, device="cpu")
    data = encode(fit.field, audio)
    decoded = render_audio(inr.decode(data))
    assert (decoded == level).all()
    assert audio.metrics(fit.field)["snr"] == math.inf
    assert inspect(data).psnr > 600


def test_metrics_are_what_they_say():
    samples = stored(0.3 + tone(2000, 2), 16)
    audio = Audio.from_array(samples, RATE)
    torch.manual_seed(0)
    fit = inr.fit(audio, "siren", steps=2, device="cpu")
    got = audio.metrics(fit.field)
    decoded = render_audio(fit.field).astype(float)
    x = samples.astype(float)
    noise = np.square(decoded - x).mean()
    assert got["psnr"] == pytest.approx(10 * np.log10((x.max() - x.min()) ** 2 / noise), abs=1e-6)
    assert got["snr"] == pytest.approx(10 * np.log10(np.square(x).mean() / noise), abs=1e-6)
    values = fit.field.on_grid(audio.axes()).detach().clamp(-1, 1).double().numpy()
    mse = np.square(values - audio.values.double().numpy()).mean()
    assert got["psnr_float"] == pytest.approx(10 * np.log10(4 / mse), abs=1e-6)
    assert got["psnr"] == pytest.approx(got["psnr_float"], abs=0.1)  # 16 bits: rounding is small


def compared(a: np.ndarray, b: np.ndarray, kind: type, piece: int) -> float:
    """A distance of two sounds that come in pieces."""
    found = kind(a.shape[1])
    for start in range(0, len(a), piece):
        found.add(a[start : start + piece], b[start : start + piece])
    return found.value()


@pytest.mark.parametrize("n", [1, 300, 2047, 2048, 9000])
@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_log_spectral_distance_is_its_formula(n, piece):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0, 0.1, (2, n, 2))
    window = scipy.signal.get_window("hann", 2048)
    distances = []
    for channel in range(2):
        x, y = a[:, channel], b[:, channel]
        if n < 2048:
            x, y = (np.append(s, np.full(2048 - n, x[0])) for s in (x, y))
        for start in range(0, len(x) - 2047, 512):
            logs = [
                np.log10(
                    np.maximum(np.abs(np.fft.fft(s[start : start + 2048] * window)) ** 2, 1e-8)
                )
                for s in (x, y)
            ]
            distances.append(np.sqrt(np.mean((logs[0] - logs[1])[:1025] ** 2)))
    assert compared(a, b, LogSpectralDistance, piece) == pytest.approx(np.mean(distances))


def test_log_spectral_distance_of_known_sounds():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.1, (30000, 1))
    assert compared(a, a, LogSpectralDistance, 4096) == 0
    assert compared(a, a / 10, LogSpectralDistance, 4096) == pytest.approx(2)  # 20 dB
    silence = np.zeros_like(a)
    assert compared(silence, silence, LogSpectralDistance, 4096) == 0


@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_silence_is_where_the_sound_is_lost(piece):
    rng = np.random.default_rng(0)
    a = 0.2 + rng.normal(0, 0.1, (40960, 2))
    b = a.copy()
    assert compared(a, b, Silence, piece) == 0
    b[8192:20480] = 0.2  # three of ten blocks
    assert compared(a, b, Silence, piece) == pytest.approx(0.3)
    assert compared(a, 0.6 * a, Silence, piece) == 0  # softer, not silent
    assert compared(a, -a, Silence, piece) == 0  # wrong, not silent
    a[20480:] = 0.2  # where nothing sounds nothing is lost
    assert compared(a, b, Silence, piece) == pytest.approx(0.6)
    assert compared(np.full((9, 1), 0.5), np.zeros((9, 1)), Silence, piece) == 0


# -------------------------------------------------------------------------------- timing


def test_native_samples_are_the_fields_values():
    audio = Audio.from_array(stored(tone(700, 2), 16), RATE)
    fit = inr.fit(audio, "siren", steps=0, device="cpu")
    with computing(fit.field):  # by the same kernel: others differ in the last bit
        values = fit.field.on_grid(audio.axes()).detach().numpy()
    expected = audio.domain.to_samples(values)
    assert np.array_equal(render_audio(fit.field), expected)
    assert np.array_equal(inr.render(fit.field), expected)
    assert audio.axes()[0].numpy() == pytest.approx((2 * np.arange(700) + 1) / 700 - 1, abs=1e-7)


@pytest.mark.parametrize("rate", [8000, 8001, 11025, 16000, 44100, 48000])
def test_a_higher_rate_registers_in_time(rate):
    field = chirp()
    samples = render_audio(field, rate)[:, 0]
    assert len(samples) == rate
    t = np.arange(rate) / rate
    inside = t <= (RATE - 0.5) / RATE  # beyond the last cell the coordinate stays at its end
    # float32 coordinates are off by 2^-25 of [-1, 1], that is 0.00012 samples: 0.9 kHz makes
    # of them 8e-5 rad at most
    assert np.abs(samples - field.at(t))[inside].max() < 2e-4


def test_half_the_rate_is_the_mean_about_each_instant():
    field = chirp()
    samples = render_audio(field, RATE // 2)[:, 0]
    assert len(samples) == RATE // 2
    t = np.arange(RATE // 2) / (RATE // 2)
    mean = (field.at(t - 0.5 / RATE) + field.at(t + 0.5 / RATE)) / 2
    assert np.abs(samples - mean)[1:-1].max() < 2e-4
    # no delay: at half a sample's, the error would be as large as the signal at 900 Hz
    assert np.abs(samples - field.at(t))[1:-1].max() < 0.1


def test_what_the_lower_rate_cannot_hold_is_weakened():
    n = 12000
    field = Chirp(n, RATE, f=1900.0, k=0.0)
    field.domain = AudioDomain(n, 1, RATE, FLOAT, -1.0, 1.0)
    folded = render_audio(field, 2000)
    assert folded.std() < 0.2 * render_audio(field, RATE).std()


def test_scale_in_python_registers_too():
    field = chirp()
    assert np.array_equal(inr.render(field, scale=2), render_audio(field, 2 * RATE))
    assert np.array_equal(inr.render(field, crop=(100, 50)), render_audio(field)[100:150])


@settings(deadline=None, max_examples=40)
@given(st.integers(500, 20000), st.floats(0, 0.4), st.floats(0.45, 1))
def test_a_piece_is_a_part_of_the_whole(rate, start, end):
    field = chirp(2000, 2000)
    whole = render_audio(field, rate)
    piece = render_audio(field, rate, start=start, end=end)
    first = round(start * rate)
    assert len(whole) == rate
    # the coordinates of both are rounded to float32 on their own: 6e-8 x 1000 samples x 0.9 rad
    assert np.allclose(piece, whole[first : first + len(piece)], atol=2e-4)
    assert abs(len(piece) - (end - start) * rate) <= 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"rate": MAX_RATE + 1}, "rate is"),
        ({"start": -1.0}, "start is -1"),
        ({"start": math.nan}, "start is nan"),
        ({"end": 1.1}, "give seconds from 0 to 1"),
        ({"start": 0.5, "end": 0.5}, "no sample lies between 0.5 s and 0.5 s"),
        ({"start": 1.0}, "no sample lies"),
    ],
)
def test_pieces_that_are_none(arguments, told):
    with pytest.raises(UsageError, match=told):
        render_audio(chirp(), **arguments)


def test_a_picture_is_no_sound():
    fit = inr.fit(Image.from_array(np.zeros((8, 8), np.uint8)), "siren", steps=0, device="cpu")
    with pytest.raises(UsageError, match="none of a sound"):
        render_audio(fit.field)


def test_decoding_goes_in_bands_of_bounded_size(monkeypatch):
    field = chirp(3000)
    largest = 0
    forward = field.on_grid

    def watched(axes):
        nonlocal largest
        largest = max(largest, len(axes[0]))
        return forward(axes)

    monkeypatch.setattr(field, "on_grid", watched)
    sizes = [
        len(samples)
        for _, samples in render_bands(field, field.domain, (3 * BAND_POINTS,), (0,), (3000,))
    ]
    assert sizes == [BAND_POINTS] * 3
    assert largest <= BAND_POINTS
    list(render_bands(field, field.domain, (1,), (0,), (3000,)))
    assert largest <= BAND_POINTS


# ------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("suffix", "domain", "rate", "told"),
    [
        (".mid", (9, 1, RATE, 16, 0, 1), RATE, "not written as '.mid': try .wav"),
        ("", (9, 1, RATE, 16, 0, 1), RATE, "try .wav"),
        (".flac", (9, 9, RATE, 16, 0, 1), RATE, "9 channels"),
        (".flac", (9, 1, RATE, FLOAT, 0.0, 1.5), RATE, "beyond -1 and 1"),
        (".flac", (9, 1, RATE, 16, 0, 1), 700_000, "700,000 Hz"),
        (".ogg", (9, 1, RATE, 16, 0, 1), 500_000, "choose a rate from 8,000 to 192,000"),
    ],
)
def test_formats_refuse_what_they_cannot_hold(tmp_path, suffix, domain, rate, told):
    with pytest.raises(UsageError, match=told):
        check_format(suffix, AudioDomain(*domain), rate)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_every_format_takes_what_it_promises(tmp_path, suffix):
    form = WRITABLE[suffix]
    for depth in form.subtypes:
        for channels in (1, form.channels):
            for rate in (form.lowest_rate, form.highest_rate):
                samples = stored(tone(64, channels) / 2, depth)
                domain = Audio.from_array(samples, rate, depth=depth).domain
                write_audio(tmp_path / f"x{suffix}", samples, domain)
                assert soundfile.info(tmp_path / f"x{suffix}").frames == 64


def test_a_full_disk_is_told(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from inr.signals.audio import AudioDomain, write_audio\n"
        "from inr.errors import OutputError\n"
        "domain = AudioDomain(30000, 1, 8000, 16, 0, 29999)\n"
        "samples = np.arange(30000, dtype=np.int16)[:, None]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_audio(Path(sys.argv[1]), samples, domain)\n"
        "except OutputError as error: print(error)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "x.wav")]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "could not be written whole" in out


# --------------------------------------------------------------------------- the whole road


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(wav(tone(1200, 2)))
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*argv):
        capsys.readouterr()
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_from_a_file_to_a_file(run, here):
    code, out, _ = run("fit", "a.wav", *TINY, "--steps", "30", "--recipe.lr", "0.01", "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    (done,) = [event for event in events if event["event"] == "done"]
    size = (here / "a.inr").stat().st_size
    assert done["kbps"] == pytest.approx(8 * size / 0.15 / 1000, abs=1e-3)
    assert done["bits_per_sample"] == pytest.approx(8 * size / 2400, abs=1e-3)
    assert "bpp" not in done
    assert done["snr_fit"] < done["psnr_fit"]

    (facts,) = [json.loads(line) for line in run("info", "a.inr", "--json")[1].splitlines()]
    assert facts["kind"] == "audio"
    assert (facts["length_seconds"], facts["rate"], facts["channels"]) == (0.15, RATE, 2)
    assert (facts["depth"], facts["kbps"], facts["field"]) == (16, done["kbps"], "siren")
    assert "length_seconds  0.15\n" in run("info", "a.inr")[1]
    assert run("verify", "a.inr")[0] == 0

    code, out, _ = run("decode", "a.inr", "-o", "b.wav", "--json")
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert (event["samples"], event["rate"], event["channels"]) == (1200, RATE, 2)
    samples, rate = soundfile.read(here / "b.wav", dtype="int16")
    assert rate == RATE
    field = inr.load(here / "a.inr")
    assert np.array_equal(samples, inr.render(field))
    audio = inr.open("a.wav")
    assert math.floor(100 * audio.metrics(field)["psnr"]) == round(100 * done["psnr"])


def test_python_goes_the_same_road(here):
    audio = inr.open("a.wav")
    fit = inr.fit(audio, steps=1, device="cpu")
    assert fit.field.hyperparameters["base_options"]["init"] == "spectrum"
    inr.save(fit, here / "a.inr", max_loss_db=3)
    assert inr.load(here / "a.inr").domain == audio.domain


@pytest.fixture
def tiny(here):
    fit = inr.fit(inr.open("a.wav"), presets.Preset("siren", {"hidden_features": 8}), steps=1)
    inr.save(fit, here / "a.inr")
    return here


def test_decode_options(run, tiny):
    options = ("--rate", "16000", "--start", "0.05", "--end", "0.1")
    for name in ("x.wav", "x.flac", "x.npy", "x.aiff", "x.ogg"):
        code, out, _ = run("decode", "a.inr", "-o", name, *options)
        assert code == 0
        assert "0.05 s at 16,000 Hz" in out
    expected = render_audio(inr.load("a.inr"), 16000, start=0.05, end=0.1)
    assert len(expected) == 800
    for name in ("x.wav", "x.flac", "x.aiff"):
        samples, rate = soundfile.read(name, dtype="int16")
        assert rate == 16000
        assert np.array_equal(samples, expected)
    assert np.array_equal(np.load("x.npy"), expected)
    assert soundfile.info("x.ogg").frames == 800


def test_decode_to_standard_output(tiny, capfdbinary):
    capfdbinary.readouterr()
    assert main(["decode", "a.inr", "-o", "-", "-q"]) == 0
    out = capfdbinary.readouterr().out
    assert np.array_equal(inr.open(out).samples, inr.render(inr.load("a.inr")))


def test_the_default_name_is_a_wave_file(run, tiny):
    (tiny / "a.inr").rename("my.song.inr")
    assert run("decode", "my.song.inr")[0] == 0
    assert inr.open("my.song.wav").domain.samples == 1200


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--size", "3x3"), "--size is for pictures, clips and volumes: a.inr holds sound"),
        (("--scale", "2"), "--scale is for pictures"),
        (("--crop", "0,0,1,1"), "--crop is for pictures"),
        (("--rate", "0"), "--rate is 0: give Hz"),
        (("--rate", "fast"), "rate"),
        (("--start", "9"), "--start is 9.0: give seconds from 0 to 0.15"),
        (("--end", "0"), "no sample lies between 0 s and 0 s"),
        (("--rate", "2000000000"), "too many for one file"),
        (("-o", "x.png"), "sound is not written as '.png'"),
        (("-o", "x.flac", "--rate", "1000000"), ".flac cannot hold 1,000,000 Hz"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, tiny, options, told):
    code, _, err = run("decode", "a.inr", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tiny / "a.wav.part").exists()


def test_sound_options_are_not_for_pictures(run, here):
    image = Image.from_array(np.arange(64, dtype=np.uint8).reshape(8, 8))
    inr.save(inr.fit(image, presets.Preset("siren", {"hidden_features": 8}), steps=1), "p.inr")
    code, _, err = run("decode", "p.inr", "--rate", "8000")
    assert code == 2
    assert "--rate is for sound: p.inr holds pictures" in err


def test_each_input_has_the_preset_of_its_kind(run, here):
    soundfile.write("b.flac", tone(700), RATE)
    Image.from_array(np.zeros((8, 8), np.uint8))
    import PIL.Image

    PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("p.png")
    code, _, err = run("fit", "p.png", "b.flac", "--steps", "1", "--max-loss-db", "9", "-q")
    assert code == 0
    assert "b.flac: the fit is silent" in err  # as it is after one step
    made = {name: inspect((here / name).read_bytes()) for name in ("p.inr", "b.inr")}
    assert (made["p.inr"].field, made["p.inr"].domain.kind) == ("grid", "image")
    assert (made["b.inr"].field, made["b.inr"].domain.kind) == ("windows", "audio")

    small = ("--field", "siren", "--field.hidden_features", "9", "-f", "-q")
    assert run("fit", "p.png", "b.flac", "--steps", "1", *small)[0] == 0
    made = [decode((here / name).read_bytes()).hyperparameters for name in ("p.inr", "b.inr")]
    assert [m["hidden_features"] for m in made] == [9, 9]
    assert [m["init"] for m in made] == ["siren", "winner"]


def test_the_default_preset_depends_on_the_input(run, here):
    assert "name: windows" in run("fit", "a.wav", "--print_config")[1]
    assert "name: grid" in run("fit", "x.png", "--print_config")[1]
    assert "name: grid" in run("fit", "--print_config")[1]
    assert "init: winner" in run("fit", "--config", "audio/siren", "--print_config")[1]
    assert "init: spectrum" in run("fit", "-o", "x.png", "--print_config", "--", "a.wav")[1]
    assert "HIDDEN_FEATURES" in run("fit", "a.wav", "--field", "siren", "--help")[1]


@pytest.mark.parametrize("words", [("--init", "winner"), ("--init=winner",)])
def test_winner_in_one_word(run, here, words):
    assert "init: winner" in run("fit", "a.wav", *words, "--print_config")[1]
    picture = run("fit", "x.png", *words, "--print_config")[1]
    assert "name: siren" in picture  # the default field of pictures has no init
    assert "init: winner" in picture
    code, _, err = run("fit", "x.png", "--field", "grid", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert run("fit", "a.wav", *words, *TINY, "--steps", "1", "-q")[0] == 0
    assert "winner" in inspect((here / "a.inr").read_bytes()).hyperparameters


def test_sound_from_standard_input(run, here, monkeypatch):
    data = (here / "a.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("fit", "-", "-o", "x.inr", *TINY, "--steps", "1", "-q")[0] == 0
    assert inspect((here / "x.inr").read_bytes()).domain.kind == "audio"
    code, _, err = run("fit", "-")
    assert code == 2
    assert "say where to write with -o" in err


def test_a_preset_implies_its_kind():
    assert presets.load("audio/windows") == presets.default("audio")
    assert presets.kind_of(presets.path_of("audio/siren")) == "audio"
    assert presets.kind_of(presets.path_of("image/grid")) == "image"
    assert set(presets.DEFAULTS) == set(KINDS)


@pytest.mark.parametrize("depth", ["8", "16", "24", "32", "float"])
def test_any_depth_out(run, tiny, depth):
    assert run("decode", "a.inr", "-o", "x.wav", "--depth", depth)[0] == 0
    assert soundfile.info("x.wav").subtype == SUBTYPES[DEPTH_NAMES[depth]]
    samples, _ = soundfile.read("x.wav")
    exact = inr.render(inr.load("a.inr")) / 2**15
    assert np.abs(samples - exact).max() <= 2.0**-15 + (2.0**-8 if depth == "8" else 0)
    code, _, err = run("decode", "a.inr", "-f", "--depth", "12")
    assert (code, err.count("\n")) == (2, 1)
    assert "--depth is '12': choose from 8, 16, 24, 32, float" in err


def test_what_a_depth_cannot_hold_is_clipped():
    domain = AudioDomain(4, 1, RATE, FLOAT, -1.5, 1.0).at_depth(16)
    found = domain.to_samples(np.array([-1.0, 0.0, 0.6, 1.0]))
    assert found.tolist() == [-32768, -8192, 16384, 32767]


def test_long_sounds_have_a_preset_of_their_own(monkeypatch):
    short = Audio.from_array(tone(4000), RATE)
    assert short.preset is None
    monkeypatch.setattr("inr.signals.audio.LONG", 3999)
    assert short.preset == "audio/windows-long"
    assert "audio/windows-long" in short.notes[0]
    fit = inr.fit(short, steps=1, device="cpu")
    assert fit.field.hyperparameters["base_options"]["hidden_features"] == 24


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_a_file_of_silence_is_refused(level, run, here):
    (here / "mute.wav").write_bytes(wav(np.full((500, 2), level)))
    code, _, err = run("fit", "mute.wav")
    assert code == 3
    assert err == (
        "inr: mute.wav: is silent: all its samples are alike, and there is nothing to fit\n"
    )
    assert not (here / "mute.inr").exists()


def test_a_field_without_the_sounds_frequencies_is_told(run, here):
    """The spectral bottleneck: SIREN at its image setting, on a sound of high frequency."""
    t = np.arange(20000) / RATE
    (here / "h.wav").write_bytes(wav(0.5 * np.sin(2 * np.pi * 1500 * t * (1 + 0.2 * t))[:, None]))
    sound = inr.open("h.wav")
    plain = {"hidden_features": 32, "hidden_layers": 2, "first_omega": 30.0, "init": "siren"}
    mute = inr.fit(sound, presets.Preset("siren", plain, Recipe(lr=1e-3, batch=4096)), steps=60)
    assert mute.metrics["silent"] > 0.9
    (told,) = sound.verdict(mute.field, mute.metrics)
    assert "spectral bottleneck" in told
    assert "--init winner" in told
    good = inr.fit(sound, steps=60)
    assert good.metrics["silent"] == 0
    assert sound.verdict(good.field, good.metrics) == []


# ----------------------------------------------------------------------------- real clips


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("gt_bach", (308207, 1, 44100, FLOAT)),
        ("humpback_6s", (264600, 1, 44100, 16)),
        ("libri_198-209-0000", (222561, 1, 16000, 16)),
        ("vctk_p286_011", (324960, 1, 48000, 16)),
    ],
)
def test_real_clips(shared, name, facts):
    audio = inr.open(shared / "audio" / f"{name}.wav")
    domain = audio.domain
    assert (domain.samples, domain.channels, domain.rate, domain.depth) == facts
    assert (audio.values.min(), audio.values.max()) == (-1, 1)
    back = domain.to_samples(audio.values.numpy())
    error = np.abs(back.astype(float) - audio.samples).max()
    assert error <= (2.0**-23 if domain.depth == FLOAT else 0)  # 16 bits lie within float32's 24


def test_the_humpbacks_offset_survives_a_fit(shared):
    audio = inr.open(shared / "audio" / "humpback_6s.wav")
    piece = Audio.from_array(audio.samples[:2000], audio.domain.rate)
    assert piece.samples.mean() / 2**15 == pytest.approx(0.358, abs=0.01)
    preset = presets.Preset("siren", {"hidden_features": 16, "hidden_layers": 1})
    decoded = render_audio(inr.decode(encode(inr.fit(piece, preset, steps=30).field, piece)))
    assert decoded.mean() == pytest.approx(piece.samples.mean(), rel=0.02)
    assert decoded.dtype == np.int16


def test_siren_is_mute_on_a_cello_and_the_default_is_not(shared):
    whole = inr.open(shared / "audio" / "gt_bach.wav")
    piece = Audio.from_array(whole.samples[88200:105000], whole.domain.rate)
    plain = {"hidden_features": 32, "first_omega": 30.0, "init": "siren"}
    mute = inr.fit(piece, presets.Preset("siren", plain, Recipe(lr=1e-4, batch=2048)), steps=40)
    assert mute.metrics["silent"] == 1
    assert piece.verdict(mute.field, mute.metrics)
    good = inr.fit(piece, steps=80)
    assert good.metrics["psnr"] > mute.metrics["psnr"] + 10
    assert piece.verdict(good.field, good.metrics) == []


def test_a_long_clip_opens_fast(shared):
    begin = time.process_time()
    inr.open(shared / "audio" / "gt_bach.wav")
    assert time.process_time() - begin < 2


def test_errors_are_of_the_closed_set(tmp_path):
    rng = np.random.default_rng(0)
    whole = [wav(tone()), wav(tone(), form="FLAC"), wav(tone(), form="AIFF")]
    for i in range(300):
        data = bytearray(whole[i % 3])
        for at in rng.integers(0, min(len(data), 100), 3):
            data[at] = rng.integers(256)
        try:
            inr.open(bytes(data), Limits(samples=1 << 16))
        except InrError as error:
            assert "\n" not in str(error)
