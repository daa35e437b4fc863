"""Clips: files in and out, frame rates, places in time, memory, and the command line."""

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
import zipfile
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inr
from apps.cli.main import main
from fields.base import Field
from inr import presets
from inr.codec.decode import inspect
from inr.errors import CorruptFile, InputError, LimitExceeded, OutputError, UsageError
from inr.files import atomic_folder
from inr.limits import Limits
from inr.metrics import psnr
from inr.rendering import render
from inr.signals import base, clips, domain_from_header, ffmpeg, kind_of
from inr.signals.video import (
    HIGHEST_RATE,
    Video,
    VideoDomain,
    frames_of,
    open_video,
    rational,
)

TINY = ("--field", "siren", "--field.hidden_features", "8", "--steps", "1", "--max-loss-db", "3")


def pan(photo: np.ndarray, frames: int = 12, height: int = 24, width: int = 32) -> np.ndarray:
    """A camera that moves over a photograph: (frames, height, width, 3), uint8."""
    return np.stack(
        [
            photo[170 + k : 170 + k + height, 240 + 2 * k : 240 + 2 * k + width]
            for k in range(frames)
        ]
    )


@pytest.fixture(scope="session")
def clip(coffee) -> np.ndarray:
    return pan(coffee)


@pytest.fixture
def here(tmp_path, monkeypatch, clip):
    """An empty folder to work in, but for a clip as an array, with its frame rate."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", frames=clip, fps=12.5)
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return call


def movie(path, frames: np.ndarray, rate=Fraction(25)):
    """Write a file through ffmpeg."""
    domain = VideoDomain(*frames.shape, rate)
    clips.write(path, frames, domain, frames.shape[:3], rate)
    return path


def animation(path, frames: np.ndarray, durations) -> None:
    first, *others = [PIL.Image.fromarray(frame) for frame in frames]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, **options)


class Ramp(Field):
    """Known everywhere: the values are the coordinates (t, y, x)."""

    widest = 3

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, coords):
        return coords + 0 * self.nothing


# -------------------------------------------------------------------------------- domain


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([1, 3]),
    st.fractions(Fraction(1, 1000), HIGHEST_RATE, max_denominator=10_000),
    st.sampled_from([8, 16]),
)
def test_headers_go_round(frames, height, width, channels, rate, depth):
    domain = VideoDomain(frames, height, width, channels, rate, depth)
    items = domain.header()
    assert domain_from_header("video", items) == domain
    assert all(type(n) is int for n in items)
    for i in range(len(items)):
        for wrong in (-1, 0, 1.0, "3", None, 1 << 31):
            with pytest.raises(CorruptFile):
                VideoDomain.from_header([*items[:i], wrong, *items[i + 1 :]])


@pytest.mark.parametrize(
    "items",
    [
        None, {}, [], [2, 3, 4, 3, 25, 1], [2, 3, 4, 3, 25, 1, 8, 8], [2, 3, 4, 2, 25, 1, 8],
        [2, 3, 4, 4, 25, 1, 8], [2, 3, 4, 3, 50, 2, 8], [2, 3, 4, 3, 1, 1001, 8],
        [2, 3, 4, 3, 100_001, 1, 8], [2, 3, 4, 3, 25, 1, 10], [True, 3, 4, 3, 25, 1, 8],
    ],
)  # fmt: skip
def test_malformed_headers_are_refused(items):
    with pytest.raises(CorruptFile):
        VideoDomain.from_header(items)


@pytest.mark.parametrize("depth", [8, 16])
def test_samples_go_through_values_unchanged(depth):
    top = 2**depth - 1
    samples = np.arange(top + 1).astype(f"u{depth // 8}").reshape(4, -1, 8, 1)
    video = Video.from_array(samples)
    values = video.values.numpy()
    assert (values.min(), values.max()) == (-1, 1)
    assert np.array_equal(video.domain.to_samples(values), samples)
    assert video.domain.to_samples(np.array([np.nan, -9.0, 9.0])).tolist() == [0, 0, top]
    assert video.domain.peak == top


def test_facts_and_costs():
    domain = VideoDomain(50, 10, 20, 3, Fraction(30000, 1001))
    assert domain.seconds == pytest.approx(1.668333)
    assert domain.describe() == {
        "frames": 50, "height": 10, "width": 20, "mode": "RGB", "depth": 8, "fps": 29.97,
        "length_seconds": 1.668333,
    }  # fmt: skip
    assert domain.density(1000) == pytest.approx({"kbps": 8 / 1.668333, "bpp": 0.8}, rel=1e-5)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (25.0, Fraction(25)), (29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)), (12.5, Fraction(25, 2)), (0.5, Fraction(1, 2)), (30, 30),
    ],
)  # fmt: skip
def test_rates_become_ratios(fps, expected):
    assert rational(fps) == expected


@pytest.mark.parametrize("fps", [0.0, -1.0, 1e-4, 1e6, math.nan, math.inf])
def test_impossible_rates_are_refused(fps):
    with pytest.raises(UsageError, match=r"fps is .*: give frames per second, up to 100,000"):
        rational(fps)


@given(
    st.integers(2, 400),
    st.fractions(1, 120, max_denominator=1001),
    st.fractions(1, 240, max_denominator=1001),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_piece_lies_within_the_clip_at_its_own_rate(frames, rate, fps, a, b):
    domain = VideoDomain(frames, 8, 8, 1, rate)
    start, end = sorted((a * domain.seconds, b * domain.seconds))
    try:
        count, first, length = domain.window(fps, start, end)
    except UsageError:
        assert (end - start) * fps < 1
        return
    assert count >= 1
    assert first == pytest.approx(start * rate)
    assert length / count == pytest.approx(float(rate / fps))  # exactly the rate
    assert first + length <= frames * (1 + 1e-6)
    assert (end - start) * float(fps) - count < 1  # less than a frame is left out


# ------------------------------------------------------------------------------- reading


def test_an_array_with_its_rate(here, clip):
    assert kind_of("a.npz") == "video"
    video = inr.open("a.npz")
    assert video.domain == VideoDomain(12, 24, 32, 3, Fraction(25, 2))
    assert np.array_equal(video.samples, clip)
    assert video.notes == ()
    assert open_video((here / "a.npz").read_bytes()).domain == video.domain
    assert inr.open("a.npz", fps=30.0).domain.rate == 30
    np.savez("b.npz", frames=clip[..., 0])
    grey = inr.open("b.npz")
    assert grey.domain == VideoDomain(12, 24, 32, 1, Fraction(25))
    assert "25 are assumed; see --video.fps" in grey.notes[0]
    np.save("c.npy", clip.astype(">u2"))
    deep = open_video("c.npy")
    assert (deep.domain.depth, deep.samples.dtype) == (16, np.uint16)
    assert np.array_equal(deep.samples, clip)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda clip: clip[:1], "holds one frame: that is a picture; fit it as an image"),
        (lambda clip: clip / 255, "samples of type float64 are not supported"),
        (lambda clip: clip.astype(np.int16), "samples of type int16"),
        (lambda clip: np.full((3, 4, 5), np.nan), "samples of type float64"),
        (lambda clip: clip[..., :2], r"an array of shape \(12, 24, 32, 2\) is no clip"),
        (lambda clip: clip[0, 0], "is no clip"),
        (lambda clip: clip[:0], "is no clip"),
    ],
)
def test_arrays_that_are_no_clip(here, clip, made, told):
    np.savez("x.npz", frames=made(clip))
    with pytest.raises(InputError, match=f"x.npz: .*{told}"):
        open_video("x.npz")


@pytest.mark.parametrize("fps", [0.0, math.nan, "fast", [1.0, 2.0]])
def test_arrays_of_an_impossible_rate(here, clip, fps):
    np.savez("x.npz", frames=clip, fps=fps)
    with pytest.raises(InputError, match="x.npz: its fps"):
        open_video("x.npz")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(25, 2)])
def test_films_keep_size_number_and_rate(tmp_path, clip, suffix, rate):
    path = movie(tmp_path / f"x{suffix}", clip, rate)
    assert kind_of(path) == kind_of(path.read_bytes()) == "video"
    video = inr.open(path)
    domain = video.domain
    assert domain.shape == clip.shape[:3]
    # Matroska has instants in milliseconds
    assert float(domain.rate) == pytest.approx(float(rate), rel=2e-3)
    if suffix in (".mp4", ".mov"):
        assert domain.rate == rate
    error = np.square(video.samples.astype(float) - clip).mean()
    assert psnr(error, 255) > 30
    assert inr.open(path.read_bytes()).domain == domain
    assert video.notes == ()


def test_grey_films_stay_grey(tmp_path, clip):
    program = ffmpeg._program()[0]
    raw = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", "32x24", "-r", "10", "-i", "-")
    out = ("-pix_fmt", "gray", "-c:v", "ffv1", str(tmp_path / "g.mkv"))
    subprocess.run([program, "-v", "error", *raw, *out], input=clip[..., 0].tobytes(), check=True)
    video = inr.open(tmp_path / "g.mkv")
    assert video.domain == VideoDomain(12, 24, 32, 1, Fraction(10))
    assert np.abs(video.samples[..., 0].astype(int) - clip[..., 0]).max() == 0


def test_what_a_film_loses_is_told(tmp_path, clip):
    program = ffmpeg._program()[0]
    path = tmp_path / "s.mkv"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x24", "-r", "10", "-i", "-")
    tone = ("-f", "lavfi", "-i", "sine=d=1")
    out = ("-pix_fmt", "yuv420p10le", "-c:v", "ffv1", "-vf", "setsar=2/1", "-shortest", str(path))
    subprocess.run([program, "-v", "error", *raw, *tone, *out], input=clip.tobytes(), check=True)
    notes = inr.open(path).notes
    assert [re.search(r"sound|8 bits|square", note).group() for note in map(str, notes)] == [
        "sound",
        "8 bits",
        "square",
    ] or len(notes) == 3


def test_films_are_turned_upright(tmp_path, clip):
    path = movie(tmp_path / "x.mp4", clip)
    program = ffmpeg._program()[0]
    turned = tmp_path / "turned.mp4"
    subprocess.run(
        [program, "-v", "error", "-display_rotation", "90", "-i", path, "-c", "copy", turned],
        check=True,
    )
    video = inr.open(turned)
    assert video.domain.shape == (12, 32, 24)
    upright = np.rot90(inr.open(path).samples, 1, (1, 2)).astype(int)
    assert np.abs(upright - video.samples).max() <= 8


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations(tmp_path, clip, suffix):
    path = tmp_path / f"x{suffix}"
    animation(path, clip, 40)
    assert kind_of(path) == "video"
    video = inr.open(path)
    assert video.domain == VideoDomain(12, 24, 32, 3, Fraction(25))
    worst = 40 if suffix == ".gif" else 0  # 256 colours
    assert np.abs(video.samples.astype(int) - clip).mean() <= worst / 4
    animation(path, clip, [40, 60] * 6)
    uneven = inr.open(path)
    assert uneven.domain.rate == 20
    assert "from 40 to 60 ms each: they are taken at their mean rate, 20 per" in uneven.notes[0]


def test_a_transparent_animation_is_put_on_white(tmp_path, clip):
    alpha = np.zeros((*clip.shape[:3], 1), np.uint8)
    alpha[:, 4:] = 255
    animation(tmp_path / "x.png", np.concatenate([clip, alpha], axis=-1), 100)
    video = inr.open(tmp_path / "x.png")
    assert (video.samples[:, :4] == 255).all()
    assert np.array_equal(video.samples[:, 4:], clip[:, 4:])
    assert video.notes == ("it is put on white where it is transparent",)


def test_an_animation_of_one_frame_is_a_picture(tmp_path, clip):
    animation(tmp_path / "x.gif", clip[:1], 40)
    assert kind_of(tmp_path / "x.gif") == "image"
    assert inr.open(tmp_path / "x.gif").domain.kind == "image"
    with pytest.raises(InputError, match="holds one frame"):
        open_video(tmp_path / "x.gif")


def test_a_folder_in_the_order_of_its_numbers(tmp_path, clip):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, frame in enumerate(clip):
        PIL.Image.fromarray(frame).save(folder / f"image{k + 1}.png")
    (folder / "notes.txt").write_text("not a picture")
    assert kind_of(folder) == "video"
    video = inr.open(folder)
    assert np.array_equal(video.samples, clip)
    assert "25 are assumed" in video.notes[0]
    assert inr.open(folder, fps=10.0).domain.rate == 10
    PIL.Image.fromarray(clip[0, :8]).save(folder / "image5.png")
    with pytest.raises(InputError, match=r"frames: image5.png is 32 x 8 x 3, image1.png 32 x 24"):
        inr.open(folder)
    (folder / "image6.png").write_bytes(b"\x89PNG nothing")
    (folder / "image5.png").unlink()
    with pytest.raises(InputError, match=r"image6.png: is no picture"):
        inr.open(folder)
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="frames: holds 0 pictures"):
        open_video(folder)


def test_damaged_films_are_told_in_one_line(tmp_path, clip, coffee, capfd):
    path = movie(tmp_path / "x.mp4", pan(coffee, 40, 64, 80))
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    cases = {
        "head.mp4": data[:40],
        "cut.mp4": data[:half],
        "holes.mp4": bytes(b ^ 255 if i > half and i % 50 == 0 else b for i, b in enumerate(data)),
        "empty.mp4": b"",
        "text.mp4": b"once upon a time " * 9,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(bytes(content))
        with pytest.raises(InputError) as error:
            open_video(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300 + len(str(tmp_path))
    with pytest.raises(InputError, match=r"nix.mp4: no such file or folder; check the name$"):
        open_video(tmp_path / "nix.mp4")
    assert capfd.readouterr() == ("", "")


def test_a_file_without_video_says_so(tmp_path):
    program = ffmpeg._program()[0]
    path = tmp_path / "s.mkv"
    subprocess.run(
        [program, "-v", "error", "-f", "lavfi", "-i", "sine=d=0.1", str(path)], check=True
    )
    with pytest.raises(InputError, match=r"s.mkv: holds no video$"):
        inr.open(path)


def test_a_playlist_opens_nothing(tmp_path, clip):
    path = movie(tmp_path / "x.mp4", clip)
    for name, text in (
        ("l.m3u8", f"#EXTM3U\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n"),
        ("l.ffconcat", f"ffconcat version 1.0\nfile '{path}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            open_video(tmp_path / name)


@pytest.mark.parametrize("name", ["-i.mp4", "concat:a|b.mp4", "a b.mp4", "%03d.mp4"])
def test_names_mean_nothing_to_ffmpeg(tmp_path, monkeypatch, clip, name):
    monkeypatch.chdir(tmp_path)
    movie(tmp_path / name, clip)
    assert open_video(name).domain.frames == 12


def test_limits_hold_before_and_while_reading(tmp_path, clip):
    path = movie(tmp_path / "x.mp4", clip)
    np.savez(tmp_path / "x.npz", frames=clip)
    animation(tmp_path / "x.gif", clip, 40)
    for name in ("x.mp4", "x.npz", "x.gif"):
        with pytest.raises(LimitExceeded, match=f"{name}: the size .* limit is 5,000"):
            open_video(tmp_path / name, Limits(samples=5000))
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield clip[0]

    with pytest.raises(LimitExceeded, match="take a part of it"):
        clips.collect(endless(), Limits(samples=5000))
    assert len(seen) == 7
    with pytest.raises(LimitExceeded, match="its size in bytes"):
        open_video(path, Limits(source_bytes=100))


def test_a_long_clip_stays_in_a_file(clip, monkeypatch):
    monkeypatch.setattr(clips, "HELD_BYTES", 1000)
    monkeypatch.setattr(base, "KEPT_VALUES", 1000)
    samples = clips.collect(iter(clip), Limits())
    assert isinstance(samples, np.memmap)
    video = Video.from_array(samples)
    assert isinstance(video.samples, np.memmap)
    assert np.array_equal(video.samples, clip)
    with pytest.raises(InputError, match="frame 2 is 32 x 9 x 3 in uint8, the first 32 x 24 x 3"):
        clips.collect(iter([clip[0], clip[0, :9]]), Limits())
    # a fit and its metrics look at parts only
    looked = []
    convert = VideoDomain.to_values

    def watched(self, part):
        looked.append(part.size)
        return convert(self, part)

    monkeypatch.setattr(VideoDomain, "to_values", watched)
    monkeypatch.setattr("inr.rendering.BAND_POINTS", 24 * 32 * 3)
    monkeypatch.setattr("fields.decompositions.PART_NUMBERS", 24 * 32 * 3 * 3)
    preset = presets.load("video/finr")
    preset = dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, batch=500))
    fit = inr.fit(video, preset, steps=0)
    assert max(looked) <= clip.size // 4
    assert sum(looked) >= clip.size
    small = Video.from_array(clip)
    monkeypatch.setattr(base, "KEPT_VALUES", 1 << 26)
    again = inr.fit(small, preset, steps=0)
    assert fit.metrics == pytest.approx(again.metrics, rel=1e-4)


# --------------------------------------------------------------------- rendering, writing


def test_frames_lie_at_the_centres_of_their_cells():
    field = Ramp()
    field.domain = VideoDomain(10, 6, 8, 3, Fraction(10))
    whole = (0.0, 0.0, 6.0, 8.0)
    for fps in (Fraction(10), Fraction(20), Fraction(25, 2), Fraction(5)):
        place = field.domain.window(fps)
        frames = np.stack([*frames_of(field, (6, 8), place, whole)])
        assert len(frames) == place[0] == round(fps)
        t = (np.arange(len(frames)) + 0.5) * float(10 / fps) / 5 - 1
        assert np.abs(frames[:, 0, 0, 0] / 127.5 - 1 - t).max() < 0.5 / 127
    # a part is a part of the whole at the same rate
    part = np.stack([*frames_of(field, (6, 8), field.domain.window(Fraction(20), 0.2, 0.6), whole)])
    double = np.stack([*frames_of(field, (6, 8), field.domain.window(Fraction(20)), whole)])
    assert np.array_equal(part, double[4:12])
    assert np.array_equal(render(field), np.stack([*frames_of(field, (6, 8), (10, 0, 10), whole)]))
    crop = np.stack([*frames_of(field, (4, 4), (10, 0, 10), (2.0, 4.0, 2.0, 2.0))])
    assert np.array_equal(crop, render(field, (10, 4, 4), crop=(0, 2, 4, 10, 2, 2)))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_exact_formats_are_exact(tmp_path, clip, depth, channels):
    samples = clip[..., :channels].astype(f"u{depth // 8}") * (1 if depth == 8 else 257)
    rate = Fraction(30000, 1001)
    domain = VideoDomain(*samples.shape, rate, depth)
    for name in ("x.npz", "x.npy"):
        clips.write(tmp_path / name, samples, domain, samples.shape[:3], rate)
        again = open_video(tmp_path / name)
        assert np.array_equal(again.samples, samples)
        assert again.domain.rate == (rate if name == "x.npz" else 25)
    with atomic_folder(tmp_path / "frames") as part:
        clips.write(part, samples, domain, samples.shape[:3], rate)
    assert sorted(p.name for p in (tmp_path / "frames").iterdir())[10] == "frame0010.png"
    assert np.array_equal(open_video(tmp_path / "frames").samples, samples)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_play(tmp_path, clip, suffix, channels):
    samples = clip[:, :23, :31, :channels].astype(np.uint16) * 257
    domain = VideoDomain(*samples.shape, Fraction(20), 16)
    path = tmp_path / f"x{suffix}"
    clips.write(path, samples, domain, samples.shape[:3], Fraction(20))
    again = inr.open(path)
    # colours at half the size need even sides: the last row and column are there twice
    sides = (23, 31) if suffix == ".gif" else (24, 32)
    assert again.domain.shape == (12, *sides)
    assert again.domain.rate == 20
    if suffix != ".gif":
        shown = again.samples[:, :23, :31, :channels].astype(float) * 257
        assert psnr(np.square(shown - samples).mean(), 65535) > 28


def test_colours_survive_the_round_trip(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 120, 200]], np.uint8)
    frames = np.broadcast_to(colours[None, None].repeat(8, 2), (4, 16, 32, 3))
    for suffix in (".mp4", ".webm"):
        shown = inr.open(movie(tmp_path / f"x{suffix}", frames)).samples
        assert np.abs(shown[:, :, 4::8].astype(int) - frames[:, :, 4::8]).max() <= 12


def test_failures_of_writing_leave_nothing(tmp_path, clip):
    domain = VideoDomain(*clip.shape)
    with pytest.raises(OutputError, match="ffmpeg wrote nothing"):
        movie(tmp_path / "no" / "x.mp4", clip)

    def broken():
        yield clip[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clips.write(tmp_path / "x.mp4", broken(), domain, clip.shape[:3], domain.rate)
    (tmp_path / "x.mp4").touch()
    with pytest.raises(OutputError, match="exists already"), atomic_folder(tmp_path):
        pass
    (tmp_path / "x.mp4").unlink()
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "frames") as part:
        clips.write(part, broken(), domain, clip.shape[:3], domain.rate)
    assert [*tmp_path.iterdir()] == []


# -------------------------------------------------------------------------- command line


def test_fit_and_decode(run, here, clip):
    assert run("fit", "a.npz", "-q")[0] == 0
    contents = inspect((here / "a.inr").read_bytes())
    assert (contents.field, contents.domain.rate) == ("finr", Fraction(25, 2))
    assert contents.psnr > 34
    code, out, _ = run("decode", "a.inr", "-o", "a2.npz")
    assert (code, "12 frames of 32 x 24 pixels at 12.5 per second" in out) == (0, True)
    again = inr.open("a2.npz")
    assert again.domain == inr.open("a.npz").domain
    error = np.square(again.samples.astype(float) - clip).mean()
    assert math.floor(100 * psnr(error, 255)) == round(100 * contents.psnr)
    assert np.array_equal(again.samples, render(inr.load("a.inr")))


@pytest.fixture
def tiny(here):
    assert main(["fit", "a.npz", *TINY, "-q"]) == 0
    return here


def test_decode_at_double_the_frame_rate_plays(run, tiny):
    code, out, _ = run("decode", "a.inr", "--fps", "25", "--json")
    facts = json.loads(out)
    assert (code, facts["frames"], facts["fps"], facts["output"]) == (0, 24, 25.0, "a.mp4")
    # a player decodes every frame
    count, seconds = imageio_ffmpeg.count_frames_and_secs("a.mp4")
    assert (count, seconds) == (24, pytest.approx(0.96, abs=0.05))
    again = open_video("a.mp4")
    assert again.domain == VideoDomain(24, 24, 32, 3, Fraction(25))


def test_decode_options(run, tiny):
    whole = render(inr.load("a.inr"), (12, 48, 64))
    assert run("decode", "a.inr", "--size", "64x48", "-o", "x.npz", "-q")[0] == 0
    assert np.array_equal(open_video("x.npz").samples, whole)
    assert run("decode", "a.inr", "--scale", "2", "-o", "x.npy", "-q")[0] == 0
    assert np.array_equal(np.load("x.npy"), whole)
    options = ("--start", "0.16", "--end", "0.48", "--crop", "8,4,16,12", "--scale", "2")
    assert run("decode", "a.inr", *options, "-o", "frames/", "-q")[0] == 0
    part = open_video("frames").samples
    assert np.array_equal(part, whole[2:6, 8:32, 16:48])
    assert run("decode", "a.inr", "-o", "frames")[0] == 5
    assert run("decode", "a.inr", "-o", "frames", "--skip-existing", "-q")[0] == 0


def test_decode_to_standard_output(tiny, capfdbinary):
    capfdbinary.readouterr()
    assert main(["decode", "a.inr", "-o", "-", "-q"]) == 0
    assert inr.open(capfdbinary.readouterr().out).domain.frames == 12


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rate", "8000"), "--rate is for sound: a.inr holds clips"),
        (("--shape", "3,3,3"), "a.inr holds clips"),
        (("--fps", "0"), "--fps is 0: give frames per second"),
        (("--fps", "nan"), "fps"),
        (("--fps", "often"), "fps"),
        (("--start", "9"), "--start is 9.0: give seconds from 0 to 0.96"),
        (("--end", "0"), "no frame lies between 0 s and 0 s"),
        (("--size", "9x"), "--size is '9x'"),
        (("--crop", "20,0,16,8"), "--crop: give X,Y,WIDTH,HEIGHT within 32 x 24 pixels"),
        (("--scale", "2", "--size", "4x4"), "exclude each other"),
        (("--size", "99999x99999"), "do not fit into .mp4"),
        (("--size", "99999x99999", "-o", "x.npz"), "too many"),
        (("--size", "1x1"), "do not fit into .mp4"),
        (("-o", "x.wav"), "clips are not written as '.wav'"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, tiny, options, told):
    before = sorted(tiny.iterdir())
    code, _, err = run("decode", "a.inr", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert sorted(tiny.iterdir()) == before


def test_bad_input_writes_nothing(run, here, clip):
    np.savez("one.npz", frames=clip[:1])
    np.savez("nan.npz", frames=np.full((3, 4, 5), np.nan))
    (here / "cut.mp4").write_bytes(movie(here / "x.mp4", clip).read_bytes()[:500])
    before = sorted(here.iterdir())
    for name, told in (
        ("one.npz", "one.npz: holds one frame: that is a picture; fit it as an image"),
        ("nan.npz", "nan.npz: samples of type float64"),
        ("cut.mp4", "cut.mp4: is damaged, cut short or no video"),
    ):
        code, _, err = run("fit", name)
        assert (code, err.count("\n"), told in err) == (3, 1, True)
    assert sorted(here.iterdir()) == before


def test_options_that_kinds_share_have_one_type():
    from apps.cli import decode

    for name, kinds in decode._takers().items():
        assert len({kind.module.OPTIONS[name][0] for kind in kinds}) == 1, name
    text = decode.parser().format_help()
    assert "pictures and clips" in text or "pictures, clips" in text


def test_video_without_ffmpeg_is_told(monkeypatch, tmp_path, clip):
    path = movie(tmp_path / "x.mp4", clip)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        InputError, match=r"x.mp4: video needs .* pip install 'inr-studio\[video\]'"
    ):
        open_video(path)


# ----------------------------------------------------------------------------- real clips


def test_the_real_film(shared):
    video = inr.open(shared / "video" / "bikes.mp4")
    assert video.domain == VideoDomain(250, 272, 640, 3, Fraction(25))
    assert isinstance(video.samples, np.memmap)
    known = np.load(shared / "video" / "bikes_32f_320x136.npz")["frames"]
    halved = np.stack(
        [
            np.asarray(PIL.Image.fromarray(frame).resize((320, 136), PIL.Image.Resampling.LANCZOS))
            for frame in video.samples[100:132:8]
        ]
    )
    assert psnr(np.square(halved.astype(float) - known[::8]).mean(), 255) > 45


def test_the_default_field_on_a_real_clip(shared):
    frames = np.load(shared / "video" / "bikes_32f_320x136.npz")["frames"]
    video = Video.from_array(frames[:, ::2, ::2])
    fit = inr.fit(video)
    # rounding takes up to 1 dB of what the start has
    assert -1.2 < fit.metrics["psnr_float"] - fit.field.start_psnr < 2
    assert sum(p.numel() for p in fit.field.parameters()) < 0.2 * video.samples.size


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_damaged_containers_never_do_more_than_fail(film, data):
    damaged = bytearray(film)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    try:
        clip = open_video(bytes(damaged[:cut]), Limits(samples=1 << 20))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert clip.domain.frames > 1


@pytest.fixture(scope="session")
def film(coffee, tmp_path_factory) -> bytes:
    return movie(tmp_path_factory.mktemp("film") / "x.mp4", pan(coffee, 6, 16, 16)).read_bytes()


def test_a_zip_that_lies_about_its_size(tmp_path, clip):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("frames.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (999, 24, 32, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(clip.tobytes())
    with pytest.raises(InputError, match="standard input: is cut short"):
        open_video(buffer.getvalue())
