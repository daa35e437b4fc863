"""Rendering: registration with other tools, bounded memory, and no seams between bands."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fields
import inr.rendering
from fields.base import Field
from inr.errors import UsageError
from inr.rendering import bands, render, target_shape
from inr.signals.base import Domain
from inr.signals.image import Image, ImageDomain, open_image, stream_tiff

BICUBIC, BILINEAR, BOX = (PIL.Image.Resampling[n] for n in ("BICUBIC", "BILINEAR", "BOX"))
SIZES = [(128, 160), (127, 161), (129, 128)]


def exact(samples: np.ndarray) -> Field:
    """A field that reproduces a picture at its own size without any fitting."""
    image = Image.from_array(samples)
    shape = image.domain.shape
    field = fields.create("grid", 2, image.channels, **fields.Grid.suggest(shape))
    field.adapt(image.statistics())
    field.domain = image.domain
    return field


class Plane(Field):
    """A linear function, whose mean over any box is its value at the box's centre."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        weights = torch.linspace(-0.4, 0.3, in_features * out_features)
        self.weights = torch.nn.Parameter(weights.reshape(in_features, out_features))

    @property
    def widest(self) -> int:
        return self.out_features

    def forward(self, coords):
        return coords @ self.weights


class Block(Domain):
    """Any lattice of normalised floats."""

    kind = "block"

    def __init__(self, *shape: int) -> None:
        self.shape, self.channels = shape, 2

    header = from_header = describe = peak = grain = to_values = None

    def to_samples(self, values):
        return values


def shift(a: np.ndarray, b: np.ndarray, whiten: bool = True) -> tuple[float, float]:
    """How far a lies from b in pixels (down, right), by phase correlation in steps of 1/100.

    Only frequencies below a quarter of the sampling rate count: above them resizers differ.
    Where there is little texture, the plain correlation (without whitening) is steadier.
    """
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in a.shape))
    spectra = [np.fft.fft2((x - x.mean()) * window) for x in (a.astype(float), b.astype(float))]
    cross = spectra[0] * spectra[1].conj()
    rows, columns = (np.fft.fftfreq(n) for n in a.shape)
    low = np.hypot(*np.meshgrid(rows, columns, indexing="ij")) < 0.25
    cross = np.where(low, cross / np.maximum(np.abs(cross), 1e-9) if whiten else cross, 0)
    coarse = np.unravel_index(np.fft.ifft2(cross).real.argmax(), a.shape)
    centre = [c - n if c > n / 2 else c for c, n in zip(coarse, a.shape, strict=True)]
    fine = [c + np.arange(-100, 101) / 100 for c in centre]
    left = np.exp(2j * np.pi * np.outer(fine[0], rows))
    right = np.exp(2j * np.pi * np.outer(columns, fine[1]))
    best = np.unravel_index((left @ cross @ right).real.argmax(), (201, 201))
    return float(fine[0][best[0]]), float(fine[1][best[1]])


def worst_shift(a: np.ndarray, b: np.ndarray) -> float:
    """The largest shift of the whole or of a quadrant.

    A wrong scale moves opposite quadrants opposite ways, and the whole not at all.
    """
    assert a.shape == b.shape
    height, width = a.shape[0] // 2, a.shape[1] // 2
    quarters = [
        (slice(y, y + height), slice(x, x + width))
        for y in (0, a.shape[0] - height)
        for x in (0, a.shape[1] - width)
    ]
    parts = [d for q in quarters for d in shift(a[q], b[q], whiten=False)]
    return max(abs(d) for d in (*shift(a, b), *parts))


def resized(samples: np.ndarray, shape, how, box=None) -> np.ndarray:
    """Pillow's resize; box is (y, x, height, width)."""
    if box is not None:
        box = (box[1], box[0], box[1] + box[3], box[0] + box[2])
    return np.asarray(PIL.Image.fromarray(samples).resize((shape[1], shape[0]), how, box=box))


# ---------------------------------------------------------------------------- registration


def test_the_ruler_sees_a_quarter_of_a_pixel(camera):
    def averaged(y: int, x: int) -> np.ndarray:
        return camera[y : y + 400, x : x + 480].reshape(100, 4, 120, 4).mean((1, 3))

    for whiten in (True, False):
        assert shift(averaged(8, 8), averaged(8, 8), whiten) == (0, 0)
        for y, x in ((1, 0), (0, -1), (-2, 1), (4, 7)):  # further down shows things higher up
            seen = shift(averaged(8 + y, 8 + x), averaged(8, 8), whiten)
            assert seen == pytest.approx((-y / 4, -x / 4), abs=0.03)


def test_the_ruler_sees_samples_on_corners(camera):
    piece = camera[100:228, 200:360]
    values = torch.from_numpy(piece).float()[None, None]
    sizes = {"size": (256, 320), "mode": "bilinear"}
    corners = torch.nn.functional.interpolate(values, **sizes, align_corners=True)[0, 0].numpy()
    assert worst_shift(corners, resized(piece, (256, 320), BILINEAR)) > 0.1


@pytest.mark.parametrize("size", SIZES)
def test_same_size_is_the_picture_itself(camera, coffee, size):
    for picture in (camera, coffee):
        piece = np.ascontiguousarray(picture[100 : 100 + size[0], 200 : 200 + size[1]])
        field = exact(piece)
        np.testing.assert_array_equal(render(field).squeeze(), piece)
        assert Image.from_array(piece).metrics(field)["psnr"] == np.inf


@pytest.mark.parametrize("how", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("size", SIZES)
def test_twice_the_size_registers_with_pillow(camera, size, how):
    piece = np.ascontiguousarray(camera[100 : 100 + size[0], 200 : 200 + size[1]])
    larger = render(exact(piece), scale=2)[..., 0]
    expected = resized(piece, (2 * size[0], 2 * size[1]), how)
    assert worst_shift(larger, expected) <= 0.05
    assert np.abs(larger.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("shape", [(171, 213), (96, 121), (300, 100)])
def test_any_size_registers_with_pillow(camera, shape):
    piece = np.ascontiguousarray(camera[100:227, 200:361])
    other = render(exact(piece), shape)[..., 0]
    assert worst_shift(other, resized(piece, shape, BICUBIC)) <= 0.05


def test_a_crop_is_the_part_of_the_picture(camera):
    piece = np.ascontiguousarray(camera[100:227, 200:361])
    crop = render(exact(piece), crop=(31, 17, 64, 71))
    np.testing.assert_array_equal(crop[..., 0], piece[31:95, 17:88])


@pytest.mark.parametrize("box", [(31, 17, 64, 71), (30.5, 16.25, 63.5, 80.75), (0, 81, 127, 80)])
@pytest.mark.parametrize("scale", [1, 2, 1.7, 3])
def test_a_scaled_crop_registers_with_pillow(camera, box, scale):
    piece = np.ascontiguousarray(camera[100:227, 200:361])
    crop = render(exact(piece), crop=box, scale=scale)[..., 0]
    assert crop.shape == (round(box[2] * scale), round(box[3] * scale))
    assert worst_shift(crop, resized(piece, crop.shape, BICUBIC, box)) <= 0.05


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(deadline=None, max_examples=60)
def test_samples_lie_at_the_centres_of_equal_cells(source, size, where):
    field = Plane(2, 1)
    field.domain = ImageDomain(*source, 1, 32, -1.0, 1.0)
    starts = [n * 0.8 * w for n, w in zip(source, where[:2], strict=True)]
    lengths = [(n - s) * (0.1 + 0.9 * w) for n, s, w in zip(source, starts, where[2:], strict=True)]
    rendered = render(field, size, crop=(*starts, *lengths))
    centres = [
        2 * (start + (np.arange(n) + 0.5) * length / n) / extent - 1
        for start, length, n, extent in zip(starts, lengths, size, source, strict=True)
    ]
    expected = np.stack(np.meshgrid(*centres, indexing="ij"), -1) @ field.weights.detach().numpy()
    np.testing.assert_allclose(rendered, expected, atol=2e-6)


def test_signals_of_one_and_three_axes():
    for shape, size, crop in (((900,), (77,), (5, 300)), ((9, 11, 13), (4, 30, 7), None)):
        field = Plane(len(shape), 2)
        field.domain = Block(*shape)
        starts, lengths = (crop[:1], crop[1:]) if crop else ((0, 0, 0), shape)
        centres = [
            2 * (s + (np.arange(n) + 0.5) * length / n) / extent - 1
            for s, length, n, extent in zip(starts, lengths, size, shape, strict=True)
        ]
        lattice = np.stack(np.meshgrid(*centres, indexing="ij"), -1)
        rendered = render(field, size, crop=crop)
        np.testing.assert_allclose(rendered, lattice @ field.weights.detach().numpy(), atol=2e-6)


# --------------------------------------------------------------------------------- coarser


def test_a_fine_checkerboard_becomes_grey():
    board = (255 * (np.indices((64, 80)).sum(0) % 2)).astype(np.uint8)
    field = exact(board)
    for half in (render(field, scale=0.5), render(field, (16, 20)), render(field, (1, 1))):
        assert set(np.unique(half)) <= {127, 128}
    ninth = render(field, scale=1 / 3)  # cells of 3 x 3 hold 4 or 5 white pixels
    assert 100 <= ninth.min() <= ninth.max() <= 155


def area_mean(samples: np.ndarray, n: int) -> np.ndarray:
    """Exact means over n equal stretches of the first axis, fractions of pixels included."""
    total = np.concatenate([np.zeros_like(samples[:1]), samples.cumsum(0)])
    edges = np.linspace(0, len(samples), n + 1)
    below = np.minimum(edges.astype(int), len(samples) - 1)
    total = total[below] + (edges - below)[:, None] * samples[below]
    return np.diff(total, axis=0) * (n / len(samples))


@pytest.mark.parametrize("shape", [(64, 64), (256, 128), (100, 90), (300, 200)])
def test_thumbnails_average_like_pillow(camera, shape):
    small = render(exact(camera), shape)[..., 0].astype(float)
    mean = area_mean(area_mean(camera.astype(float), shape[0]).T, shape[1]).T
    expected = resized(camera, shape, BOX)
    if 512 % shape[0] == 512 % shape[1] == 0:
        assert np.abs(small - mean).max() <= 0.501
        assert np.abs(small - expected).max() <= 1
        reduced = PIL.Image.fromarray(camera).reduce((512 // shape[1], 512 // shape[0]))
        assert np.abs(small - np.asarray(reduced)).max() <= 1
    else:  # Pillow's BOX takes a pixel or leaves it; half a pixel's share is nearer to the mean
        assert np.abs(small - mean).mean() < 0.6
        assert np.abs(small - mean).mean() < np.abs(expected - mean).mean()


def test_a_thumbnail_of_a_crop(coffee):
    piece = np.ascontiguousarray(coffee[:200, :300])
    small = render(exact(piece), crop=(20, 40, 120, 160), scale=0.25).astype(int)
    assert small.shape == (30, 40, 3)
    assert np.abs(small - resized(piece, (30, 40), BOX, (20, 40, 120, 160))).max() <= 1


# ----------------------------------------------------------------------------------- bands


@pytest.mark.parametrize("points", [40, 300])
@pytest.mark.parametrize("how", [{}, {"scale": 1.5}, {"size": (5, 3)}, {"size": (1, 100)}])
def test_bands_leave_no_seams(coffee, monkeypatch, how, points):
    piece = np.ascontiguousarray(coffee[170:194, 240:267])
    for samples, tolerance in ((piece, 0), ((piece / 255).astype(np.float32), 1e-6)):
        field = exact(samples)
        monkeypatch.setattr(inr.rendering, "BAND_POINTS", 1 << 30)
        whole = render(field, **how, crop=(1.5, 2, 20, 24.25))
        monkeypatch.setattr(inr.rendering, "BAND_POINTS", points)
        banded = render(field, **how, crop=(1.5, 2, 20, 24.25))
        np.testing.assert_allclose(banded, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(700,), (30, 40), (3, 20, 30)])
@pytest.mark.parametrize("points", [1, 50, 10_000])
def test_bands_cover_everything_and_stay_small(monkeypatch, shape, points):
    monkeypatch.setattr(inr.rendering, "BAND_POINTS", points)
    field = Plane(len(shape), 2)
    largest = 0

    def on_grid(axes):
        nonlocal largest
        values = Field.on_grid(field, axes)
        largest = max(largest, values[..., 0].numel())
        return values

    field.on_grid = on_grid
    axes = [torch.linspace(-1, 1, n) for n in shape]
    parts = list(bands(field, axes))
    assert [rows.start for rows, _ in parts] == [0, *[rows.stop for rows, _ in parts[:-1]]]
    values = torch.cat([part for _, part in parts])
    torch.testing.assert_close(values, Field.on_grid(field, axes))
    assert not values.requires_grad
    assert largest <= max(points, shape[-1] if len(shape) == 3 else 1)


def test_a_thumbnail_takes_few_points_at_a_time(monkeypatch):
    monkeypatch.setattr(inr.rendering, "BAND_POINTS", 100)
    field = Plane(2, 1)
    field.domain = ImageDomain(90, 70, 1, 32, -1.0, 1.0)
    sizes = []
    field.on_grid = lambda axes: (
        sizes.append(len(axes[0]) * len(axes[1])) or Field.on_grid(field, axes)
    )
    np.testing.assert_allclose(render(field, (1, 1)), 0, atol=1e-6)
    assert sum(sizes) == 90 * 70
    assert max(sizes) <= 100


def test_gradients_stay_on_between_bands(monkeypatch):
    monkeypatch.setattr(inr.rendering, "BAND_POINTS", 4)
    parts = bands(Plane(2, 1), [torch.zeros(4), torch.zeros(4)])
    next(parts)
    assert torch.is_grad_enabled()
    parts.close()
    assert torch.is_grad_enabled()


# ------------------------------------------------------------------------------------- out


def test_out_may_be_a_file(camera, tmp_path):
    field = exact(np.ascontiguousarray(camera[:64, :80]))
    out = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (128, 160, 1))
    assert render(field, scale=2, out=out) is out
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), render(field, scale=2))
    wider = np.empty((128, 160, 1), np.float32)
    np.testing.assert_array_equal(render(field, scale=2, out=wider), out)


def test_out_must_fit(camera):
    deep = exact(camera[:8, :8].astype(np.uint16) * 257)
    for out in (np.empty((8, 8), np.uint16), np.empty((8, 9, 1), np.uint16)):
        with pytest.raises(UsageError, match=r"out is .*\(8, 8, 1\)"):
            render(deep, out=out)
    with pytest.raises(UsageError, match=r"out is uint8 .* give uint16"):
        render(deep, out=np.empty((8, 8, 1), np.uint8))


def test_every_depth_comes_back_in_its_own_type(camera):
    piece = camera[:24, :24]
    for samples in (piece, piece.astype(np.uint16) * 200, piece.astype(np.float32) - 77.5):
        rendered = render(exact(samples))
        assert rendered.dtype == samples.dtype
        np.testing.assert_allclose(rendered[..., 0], samples, atol=2 if piece is samples else 1)


# ---------------------------------------------------------------------------------- errors

PLANE = Plane(2, 1)
PLANE.domain = ImageDomain(100, 200, 1)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"size": (0, 5)}, "size is (0, 5): give 2 whole numbers from 1 up"),
        ({"size": (5,)}, "size is (5): give 2 whole numbers from 1 up"),
        ({"size": (5, 5, 3)}, "size is (5, 5, 3): give 2 whole numbers from 1 up"),
        ({"size": (5, 2.5)}, "size is (5, 2.5): give 2 whole numbers from 1 up"),
        ({"size": (5, float("nan"))}, "size is (5, nan): give 2 whole numbers from 1 up"),
        ({"size": (5, float("inf"))}, "size is (5, inf): give 2 whole numbers from 1 up"),
        ({"scale": 0}, "scale is 0: give a number above 0, at most 1e+06"),
        ({"scale": -1.5}, "scale is -1.5: give a number above 0, at most 1e+06"),
        ({"scale": float("nan")}, "scale is nan: give a number above 0, at most 1e+06"),
        ({"scale": 1e9}, "scale is 1000000000.0: give a number above 0, at most 1e+06"),
        ({"size": (5, 5), "scale": 2}, "give size or scale, not both"),
        ({"crop": (0, 0, 5)}, "crop is (0, 0, 5): give 4 numbers, starts then lengths"),
    ],
)
def test_bad_arguments_are_named(how, text):
    with pytest.raises(UsageError) as caught:
        render(PLANE, **how)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "crop",
    [
        (-1, 0, 5, 5),
        (0, 0, 101, 5),
        (0, 196.5, 5, 4),
        (0, 0, 0, 5),
        (0, 0, 5, -1),
        (0, float("nan"), 5, 5),
        (0, 0, 5, float("inf")),
    ],
)
def test_crops_outside_the_picture_are_refused(crop):
    with pytest.raises(UsageError) as caught:
        render(PLANE, crop=crop)
    text = str(caught.value)
    assert text.startswith("crop is (")
    assert text.endswith("give starts then lengths within (100, 200)")


def test_a_crop_may_end_on_the_border_whatever_the_rounding():
    assert render(PLANE, crop=(0.1 + 0.2, 199.7 - 0.3, 99.7, 0.6)).shape == (100, 1, 1)
    assert 0.7 + 9.3 > 10 - 1e-9
    assert target_shape(PLANE.domain, None, 0.001, (0, 0, 100, 0.01)) == (1, 1)


def test_a_field_without_a_domain_is_refused():
    with pytest.raises(UsageError, match="no domain: fit it to a signal, or load it"):
        render(Plane(2, 1))


def test_a_rendering_beyond_all_memory_is_refused():
    for size in ((1 << 30, 1 << 30), (1 << 62, 1 << 62)):
        with pytest.raises(UsageError, match="does not fit in memory: give a smaller size"):
            render(PLANE, size)


# ---------------------------------------------------------------------------------- memory

MEMORY = """
import sys
import numpy as np
import fields
from inr.rendering import render, render_bands
from inr.signals.image import ImageDomain, stream_tiff

def peak(key="VmHWM"):  # of this process alone, unlike getrusage after a fork
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

side = 8192
field = fields.create("grid", 2, 1, **fields.Grid.suggest((512, 512)))
field.domain = ImageDomain(512, 512, 1)
render(field, (64, 64))
before = peak("VmRSS")
if sys.argv[1] == "array":
    assert render(field, (side, side)).nbytes == side * side
    output = side * side
elif sys.argv[1] == "tiff":
    rows = render_bands(field, field.domain, (side, side), (0.0, 0.0), (512.0, 512.0))
    stream_tiff(sys.argv[2], (side, side), field.domain, (band for _, band in rows))
    output = 0
else:  # everything into a single pixel
    field.domain = ImageDomain(side, side, 1)
    assert render(field, (1, 1)).nbytes == 1
    output = 0
print(peak() - before - output)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc for peak memory")
@pytest.mark.parametrize("into", ["array", "tiff", "pixel"])
def test_a_large_rendering_stays_within_400_mib(tmp_path, into):
    target = tmp_path / "large.tif"
    command = [sys.executable, "-c", MEMORY, into, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400 << 20
    if into == "tiff":
        assert target.stat().st_size > 8192 * 8192
        with PIL.Image.open(target) as picture:
            assert picture.size == (8192, 8192)


def test_a_streamed_rendering_equals_the_array(camera, tmp_path, monkeypatch):
    monkeypatch.setattr(inr.rendering, "BAND_POINTS", 3000)
    field = exact(np.ascontiguousarray(camera[:64, :80]))
    shape = target_shape(field.domain, None, 3, None)
    rows = inr.rendering.render_bands(field, field.domain, shape, (0.0, 0.0), (64.0, 80.0))
    stream_tiff(tmp_path / "a.tif", shape, field.domain, (band for _, band in rows))
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").samples, render(field, scale=3))
