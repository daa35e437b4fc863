"""Pictures in and out: what a file holds must survive, and what cannot be read is said plainly."""

import errno
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cbor2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from inr.errors import CorruptFile, InputError, LimitExceeded, UsageError
from inr.limits import Limits
from inr.signals.image import (
    ICC_BYTES,
    Image,
    ImageDomain,
    check_format,
    default_suffix,
    open_image,
    stream_tiff,
    write_image,
)

ASSETS = Path(__file__).parents[1] / "assets"
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
WIDE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


def noise(channels: int = 3, dtype: type = np.uint8, shape: tuple[int, int] = (11, 14)):
    """Random samples of the whole range, with alpha 0 and full among them."""
    rng = np.random.default_rng(channels)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(*shape, channels)).astype(dtype)
    top = np.iinfo(dtype).max
    samples = rng.integers(0, top, (*shape, channels), dtype, endpoint=True)
    samples[0, :4, -1] = (0, top, 0, 1)
    return samples


def by_pillow(samples: np.ndarray, kind: str, mode: str = "", **options) -> bytes:
    picture = PIL.Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def by_tifffile(samples: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


def png(shape: tuple[int, int], depth: int, colour: int, rows: list[bytes], **chunks) -> bytes:
    """A PNG made by hand: what libraries do not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += b"".join(chunk(name.encode(), body) for name, body in chunks.items())
    data += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return data + chunk(b"IEND", b"")


def profile(name: str, gamma: float, primaries=WIDE, space: bytes = b"RGB ") -> bytes:
    """A small ICC profile (version 2, matrix and one power curve)."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
    }
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags |= {letter + b"XYZ": xyz(primary), letter + b"TRC": curve}
    table, bodies = struct.pack(">I", len(tags)), b""
    for tag, body in tags.items():
        at = 128 + 4 + 12 * len(tags) + len(bodies)
        table += tag + struct.pack(">II", at, len(body))
        bodies += body + bytes(-len(body) % 4)
    header = (
        bytes(4) + b"\2\x10\0\0mntr" + space + b"XYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    )
    header = struct.pack(">I", 128 + len(table + bodies)) + bytes(4) + header[4:] + b"acsp"
    header = header.ljust(68, b"\0") + xyz((0.9642, 1.0, 0.8249))[8:]
    return header.ljust(128, b"\0") + table + bodies


WIDE_RGB = profile("wide", 2.2)
GREY = profile("grey", 2.2, space=b"GRAY")


def fitting(channels: int) -> bytes:
    return GREY if channels < 3 else WIDE_RGB


def written(image: Image, suffix: str) -> bytes:
    file = io.BytesIO()
    write_image(file, image.samples, image.domain, suffix)
    return file.getvalue()


def same(a: Image, b: Image) -> None:
    assert a.domain == b.domain
    assert a.samples.dtype == b.samples.dtype
    np.testing.assert_array_equal(a.samples, b.samples)


def refused(source: str | Path | bytes, error: type[Exception] = InputError, **options) -> str:
    """The message of the refusal: one line that begins with the file's name."""
    name = "standard input" if isinstance(source, bytes) else str(source)
    with pytest.raises(error) as caught:
        open_image(source, **options)
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert text.count(name) == 1
    return text.removeprefix(f"{name}: ")


# ---------------------------------------------------------------- values survive a round trip


@pytest.mark.parametrize("icc", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_and_tiff_keep_values_depth_alpha_and_colour(tmp_path, channels, dtype, suffix, icc):
    image = Image.from_array(noise(channels, dtype), icc=fitting(channels) if icc else b"")
    assert bool(image.domain.icc) == icc
    path = tmp_path / f"picture{suffix}"
    write_image(path, image.samples, image.domain)
    same(open_image(path), image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_floats_survive(channels, suffix):
    image = Image.from_array(1e3 * noise(channels, np.float32) + 5)
    same(open_image(written(image, suffix)), image)


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [
        (".webp", (3, 4)),
        (".bmp", (1, 3)),
        (".ppm", (1, 3)),
        (".pgm", (1,)),
        (".tga", (1, 2, 3, 4)),
        (".jp2", (1, 2, 3, 4)),
        (".npy", (1, 2, 3, 4)),
    ],
)
def test_other_lossless_formats_keep_8_bits(suffix, channels):
    for c in channels:
        image = Image.from_array(noise(c))  # WebP: colours under alpha 0 too
        same(open_image(written(image, suffix)), image)


def test_lossless_webp_keeps_the_profile():
    image = Image.from_array(noise(4), icc=WIDE_RGB)
    same(open_image(written(image, ".webp")), image)


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_lossy_formats_stay_close_and_keep_the_profile(coffee, suffix):
    image = Image.from_array(coffee[100:164, 200:280], icc=WIDE_RGB)
    again = open_image(written(image, suffix))
    assert again.domain == image.domain
    assert np.abs(again.samples.astype(int) - image.samples).mean() < 3


def test_16_bits_are_rounded_where_a_format_holds_8():
    deep = np.array([[[0, 128, 129], [257, 32768, 65535]]], np.uint16)
    again = open_image(written(Image.from_array(deep), ".bmp"))
    assert again.samples.tolist() == [[[0, 0, 1], [1, 128, 255]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_streamed_tiff_equals_a_written_one(tmp_path, channels, dtype):
    image = Image.from_array(noise(channels, dtype), icc=fitting(channels))
    bands = (image.samples[rows] for rows in (slice(0, 3), slice(3, 4), slice(4, 11)))
    stream_tiff(tmp_path / "streamed.tif", image.domain.shape, image.domain, bands)
    same(open_image(tmp_path / "streamed.tif"), image)
    same(open_image(written(image, ".tif")), image)


def test_default_suffix_keeps_everything():
    for samples in (noise(2), noise(4, np.uint16), noise(3, np.float32)):
        image = Image.from_array(samples)
        same(open_image(written(image, default_suffix(image.domain))), image)


@pytest.mark.parametrize("name", ["camera", "astronaut", "coffee"])
def test_real_pictures(name, tmp_path):
    image = open_image(str(ASSETS / f"{name}.png"))
    with PIL.Image.open(ASSETS / f"{name}.png") as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(image.samples.squeeze(), expected)
    assert image.domain.icc == b""  # astronaut's says sRGB
    assert image.values.shape == image.samples.shape
    same(open_image(written(image, ".png")), image)


def test_real_pictures_with_alpha_and_profile(shared):
    for name, channels in (("chelsea", 3), ("logo", 4)):
        path = shared / "image_misc" / f"{name}.png"
        if not path.exists():
            pytest.skip(f"no {path}")
        image = open_image(path)
        with PIL.Image.open(path) as picture:
            np.testing.assert_array_equal(image.samples, np.asarray(picture))
        assert (image.domain.channels, image.domain.icc) == (channels, b"")
        same(open_image(written(image, ".tif")), image)


# ------------------------------------------------------------------------------------- PNG


def test_1_bit_pictures():
    expected = [[0, 255, 0, 0, 255, 255, 0, 255], [255] * 8]
    data = png((2, 8), 1, 0, [bytes([0b01001101]), b"\xff"])
    assert open_image(data).samples[..., 0].tolist() == expected
    bits = np.array(expected)[..., None] > 0
    assert Image.from_array(bits).samples[..., 0].tolist() == expected
    tiff = by_tifffile(bits[..., 0], photometric="minisblack")
    assert open_image(tiff).samples[..., 0].tolist() == expected
    assert open_image(by_pillow(bits[..., :1], "PPM")).samples[..., 0].tolist() == expected


def test_palettes_with_and_without_transparency():
    palette, rows = bytes(range(10, 22)), [bytes([0b00011011])]
    plain = png((1, 4), 2, 3, rows, PLTE=palette)
    rgb = np.arange(10, 22, dtype=np.uint8).reshape(1, 4, 3)
    np.testing.assert_array_equal(open_image(plain).samples, rgb)
    clear = png((1, 4), 2, 3, rows, PLTE=palette, tRNS=bytes([0, 70]))
    rgba = np.concatenate([rgb, np.array([[[0], [70], [255], [255]]], np.uint8)], -1)
    np.testing.assert_array_equal(open_image(clear).samples, rgba)


def test_gif_palettes_with_and_without_transparency():
    indices = np.array([[0, 1, 2, 1]], np.uint8)
    picture = PIL.Image.fromarray(indices).convert("P")
    picture.putpalette([9, 8, 7, 50, 60, 70, 255, 0, 1])
    file = io.BytesIO()
    picture.save(file, "GIF")
    colours = [[9, 8, 7], [50, 60, 70], [255, 0, 1], [50, 60, 70]]
    assert open_image(file.getvalue()).samples[0].tolist() == colours
    file = io.BytesIO()
    picture.save(file, "GIF", transparency=1)
    assert open_image(file.getvalue()).samples[0, :, 3].tolist() == [255, 0, 255, 0]


def test_png_with_one_transparent_colour():
    grey2 = png((1, 4), 2, 0, [bytes([0b00011011])], tRNS=struct.pack(">H", 1))
    assert open_image(grey2).samples[0].tolist() == [[0, 255], [85, 0], [170, 255], [255, 255]]
    grey8 = png((1, 2), 8, 0, [bytes([3, 4])], tRNS=struct.pack(">H", 4))
    assert open_image(grey8).samples[0].tolist() == [[3, 255], [4, 0]]
    rgb8 = png((1, 2), 8, 2, [bytes([1, 2, 3, 1, 2, 4])], tRNS=struct.pack(">3H", 1, 2, 3))
    assert open_image(rgb8).samples[0].tolist() == [[1, 2, 3, 0], [1, 2, 4, 255]]
    rows = [struct.pack(">6H", 1000, 2, 3, 1001, 2, 3)]
    rgb16 = png((1, 2), 16, 2, rows, tRNS=struct.pack(">3H", 1000, 2, 3))
    assert open_image(rgb16).samples[0].tolist() == [[1000, 2, 3, 0], [1001, 2, 3, 65535]]


# ----------------------------------------------------------------------- orientation, colour


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    upright = PIL.ImageOps.exif_transpose(
        PIL.Image.open(io.BytesIO(by_pillow(noise(3), "PNG", exif=exif)))
    )
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        image = open_image(by_pillow(noise(3), kind, exif=exif, **options))
        np.testing.assert_array_equal(image.samples, np.asarray(upright))
    if orientation == 6:  # the camera was turned: its right edge is the top
        np.testing.assert_array_equal(image.samples, np.rot90(noise(3), -1))

    for kind in ("JPEG", "AVIF"):
        data = by_pillow(noise(3), kind, exif=exif)
        expected = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(open_image(data).samples, np.asarray(expected))

    tag = [(274, "H", 1, orientation, True)]
    deep = open_image(by_tifffile(noise(3, np.uint16), photometric="rgb", extratags=tag))
    shape = np.asarray(upright).shape
    assert deep.samples.shape == shape
    palette = PIL.Image.fromarray(noise(3)).quantize(8)
    file = io.BytesIO()
    palette.save(file, "TIFF", tiffinfo={274: orientation})
    stored = PIL.Image.fromarray(np.asarray(palette.convert("RGB")))
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(PIL.ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(open_image(file.getvalue()).samples, expected)


def test_nonsensical_orientation_is_ignored():
    exif = PIL.Image.Exif()
    exif[0x0112] = 77
    image = open_image(by_pillow(noise(3), "PNG", exif=exif))
    np.testing.assert_array_equal(image.samples, noise(3))


def test_cmyk_becomes_rgb_without_its_profile():
    ink = profile("ink", 2.2, space=b"CMYK")
    data = by_pillow(noise(3), "JPEG", "CMYK", icc_profile=ink, quality=95)
    image = open_image(data)
    expected = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(image.samples, np.asarray(expected))
    assert image.domain.icc == b""
    assert open_image(by_pillow(noise(3), "TIFF", "CMYK")).domain.channels == 3


def test_plain_srgb_profiles_are_dropped_and_others_kept():
    builtin = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    assert Image.from_array(noise(3), icc=builtin).domain.icc == b""
    assert Image.from_array(noise(3), icc=WIDE_RGB).domain.icc == WIDE_RGB
    for name, gamma, primaries in (("sRGB linear", 1.0, SRGB), ("not sRGB", 2.2, WIDE)):
        other = profile(name, gamma, primaries)
        assert Image.from_array(noise(3), icc=other).domain.icc == other


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_profiles_that_are_broken_or_of_other_channels_are_dropped(channels):
    others = GREY if channels > 2 else WIDE_RGB
    own = fitting(channels)
    broken = [b"\1", b"junk" * 99, own[:140], own[:128] + b"\xff" * 300]
    for icc in (others, *broken):
        assert Image.from_array(noise(channels), icc=icc).domain.icc == b""
        for kind in ("PNG", "TIFF"):
            assert open_image(by_pillow(noise(channels), kind, icc_profile=icc)).domain.icc == b""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_large_profiles_survive_up_to_what_a_file_may_carry(suffix):
    table = WIDE_RGB[4:] + np.random.default_rng(0).bytes(3 << 20)
    large = struct.pack(">I", 4 + len(table)) + table
    image = Image.from_array(noise(3), icc=large)
    assert image.domain.icc == large
    assert open_image(written(image, suffix)).domain.icc == large
    assert Image.from_array(noise(3), icc=large + bytes(ICC_BYTES)).domain.icc == b""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_profile_at_all_can_be_written(channels, dtype):
    # a domain decoded from a file carries whatever bytes its writer put there
    samples = noise(channels, dtype)
    depth = 8 * samples.dtype.itemsize
    for icc in (GREY, WIDE_RGB, b"\0", b"junk" * 99):
        top = float(2**depth - 1)
        domain = ImageDomain(*samples.shape, depth, 0.0, top, icc)
        for suffix in (".png", ".tif", ".webp", ".avif", ".jp2", *[".jpg"] * (channels % 2)):
            file = io.BytesIO()
            write_image(file, samples, domain, suffix)
            again = open_image(file.getvalue())
            assert again.domain.shape == domain.shape
            if suffix in (".png", ".tif"):
                np.testing.assert_array_equal(again.samples, samples)


# ------------------------------------------------------------------------------------ TIFF


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_tiffs_of_every_compression_and_type(dtype, compression):
    for channels in (1, 3):
        samples = noise(channels, dtype).squeeze()
        kind = "rgb" if channels == 3 else "minisblack"
        for options in ({}, {"predictor": True}, {"tile": (16, 16)}, {"byteorder": ">"}):
            if options.get("predictor") and (compression is None or dtype == np.float16):
                continue
            data = by_tifffile(samples, photometric=kind, compression=compression, **options)
            image = open_image(data)
            assert image.samples.dtype == (np.float32 if samples.dtype.kind == "f" else dtype)
            np.testing.assert_array_equal(image.samples.squeeze(), samples)


def test_tiff_planes():
    samples = noise(3, np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
    data = by_tifffile(planes, photometric="rgb", planarconfig="separate", compression="zlib")
    np.testing.assert_array_equal(open_image(data).samples, samples)


def test_tiff_white_is_zero():
    grey = noise(1)[..., 0]
    for stored, expected in ((grey, 255 - grey), (grey > 99, 255 * (grey <= 99))):
        data = by_tifffile(stored, photometric="miniswhite")
        peer = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L"))
        np.testing.assert_array_equal(peer, expected)
        np.testing.assert_array_equal(open_image(data).samples[..., 0], expected)
    fax = by_pillow((grey > 99)[..., None], "TIFF", compression="group4")
    np.testing.assert_array_equal(open_image(fax).samples[..., 0], 255 * (grey > 99))


def test_tiff_of_odd_depth_is_stretched_to_the_full_range():
    nibbles = np.arange(16, dtype=np.uint8).reshape(2, 8)
    image = open_image(by_tifffile(nibbles, bitspersample=4))
    np.testing.assert_array_equal(image.samples[..., 0], nibbles * 17)
    twelve = np.array([[0, 1, 2048, 4095]], np.uint16)
    image = open_image(by_tifffile(twelve, bitspersample=12))
    assert image.samples[0, :, 0].tolist() == [0, 16, 32776, 65535]


def test_signed_and_wide_integers_take_their_own_range():
    samples = np.array([[-300, 0, 32767]], np.int16)
    image = open_image(by_tifffile(samples))
    assert image.samples.dtype == np.float32
    np.testing.assert_array_equal(image.samples[..., 0], samples)
    assert (image.domain.depth, image.domain.low, image.domain.high) == (32, -300, 32767)
    image = open_image(by_tifffile(samples.clip(0).astype(np.uint32) * 100_000))
    assert image.domain.high == np.float32(3_276_700_000)


def test_premultiplied_alpha_is_divided_out():
    colours = noise(4, np.uint16)
    alpha = np.maximum(colours[..., 3:], 2000)
    stored = np.rint(colours[..., :3] * (alpha / 65535)).astype(np.uint16)
    data = by_tifffile(
        np.concatenate([stored, alpha], -1), photometric="rgb", extrasamples=["assocalpha"]
    )
    samples = open_image(data).samples
    np.testing.assert_array_equal(samples[..., 3:], alpha)
    assert np.abs(samples[..., :3].astype(int) - colours[..., :3]).max() <= 17  # 65535 / 2000 / 2
    clear = np.array([[[9, 9, 9, 0]]], np.uint8)
    image = open_image(by_tifffile(clear, photometric="rgb", extrasamples=["assocalpha"]))
    np.testing.assert_array_equal(image.samples, clear)


def test_tiff_palette():
    palette = PIL.Image.fromarray(noise(3)).quantize(7)
    file = io.BytesIO()
    palette.save(file, "TIFF")
    image = open_image(file.getvalue())
    np.testing.assert_array_equal(image.samples, np.asarray(palette.convert("RGB")))


def test_tiffs_that_are_no_single_picture_are_refused():
    pages = by_tifffile(np.stack([noise(1)[..., 0]] * 3), photometric="minisblack")
    assert "3 pages" in refused(pages)
    assert "5 channels" in refused(
        by_tifffile(noise(5), photometric="minisblack", planarconfig="contig")
    )
    assert "complex" in refused(by_tifffile(noise(1)[..., 0].astype(np.complex64)))


# ---------------------------------------------------------------------------- other formats


def test_avif_with_alpha():
    samples = np.zeros((24, 32, 4), np.uint8)
    samples[:, :16] = (200, 100, 50, 255)
    image = open_image(by_pillow(samples, "AVIF", quality=100, subsampling="4:4:4"))
    assert np.abs(image.samples[2:-2, 2:14].astype(int) - samples[2:-2, 2:14]).max() <= 3
    assert image.samples[:, 20:, 3].max() <= 3


@pytest.mark.parametrize(
    ("magic", "top"),
    [(m, t) for m in ("P2", "P5", "P6") for t in (1, 255, 1023, 65535)] + [("P3", 1), ("P3", 255)],
)
def test_pnm_of_any_depth(magic, top):
    channels = 3 if magic in ("P3", "P6") else 1
    stored = np.array([0, 1, top // 2, top, 1, 0] * channels, ">u2" if top > 255 else np.uint8)
    binary = magic in ("P5", "P6")
    body = stored.tobytes() if binary else " ".join(map(str, stored)).encode()
    image = open_image(f"{magic}\n# a comment\n3 2\n{top}\n".encode() + body)
    full = 65535 if top > 255 else 255
    assert image.samples.dtype == (np.uint16 if top > 255 else np.uint8)
    expected = stored.reshape(2, 3, channels) * (full / top)
    np.testing.assert_allclose(image.samples, expected, atol=1)
    if top == full:
        np.testing.assert_array_equal(image.samples, expected)


def test_float_pnm():
    body = np.array([[1.5, -2.0], [0.25, 8.0]], "<f4")
    image = open_image(b"Pf\n2 2\n-1.0\n" + body.tobytes())
    np.testing.assert_array_equal(image.samples[..., 0], body[::-1])  # stored bottom to top


def test_jpeg_that_carries_previews_is_one_picture():
    file = io.BytesIO()
    first, second = (PIL.Image.fromarray(noise(c)) for c in (3, 4))
    first.save(file, "MPO", save_all=True, append_images=[second.convert("RGB")])
    assert open_image(file.getvalue()).domain.shape == (11, 14)


def test_several_frames_are_refused(tmp_path):
    frames = [PIL.Image.fromarray(noise(3)), PIL.Image.fromarray(255 - noise(3))]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        path = tmp_path / f"moving.{kind.lower()}"
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])
        assert "2 frames" in refused(path)


def test_numpy_files_of_any_order():
    samples = noise(3, np.uint16)
    for array in (samples.astype(">u2"), np.asfortranarray(samples), samples[..., :1].squeeze()):
        file = io.BytesIO()
        np.save(file, array)
        image = open_image(file.getvalue())
        np.testing.assert_array_equal(image.samples.squeeze(), array)
    file = io.BytesIO()
    np.save(file, np.array([[{}]]), allow_pickle=True)
    refused(file.getvalue())


# -------------------------------------------------------------------------- refused sources

FILES = {
    "a.png": by_pillow(noise(3), "PNG"),
    "deep.png": imagecodecs.png_encode(noise(4, np.uint16)),
    "a.jpg": by_pillow(noise(3), "JPEG"),
    "a.webp": by_pillow(noise(3), "WEBP"),
    "a.avif": by_pillow(noise(3), "AVIF"),
    "a.gif": by_pillow(noise(3), "GIF"),
    "a.bmp": by_pillow(noise(3), "BMP"),
    "a.ppm": by_pillow(noise(3), "PPM"),
    "deep.ppm": b"P6 11 14 65535\n" + noise(3, np.uint16).tobytes(),
    "a.tif": by_tifffile(noise(3), photometric="rgb"),
    "zip.tif": by_tifffile(noise(3, np.uint16), photometric="rgb", compression="zlib"),
    "palette.tif": by_pillow(noise(3), "TIFF", "P"),
    "a.npy": written(Image.from_array(noise(3)), ".npy"),
}


@pytest.mark.parametrize("name", FILES)
def test_cut_files_are_refused(tmp_path, name):
    data, path = FILES[name], tmp_path / name
    for keep in (1, 3, 8, 30, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:keep])
        refused(path)
    path.write_bytes(b"")
    assert refused(path) == "is empty"


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused_in_one_line(name):
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = bytearray(FILES[name])
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at] = rng.integers(256)
        try:
            open_image(bytes(data), Limits(samples=1 << 16))
        except InputError as error:
            text = str(error)
        else:
            continue
        assert text.startswith("standard input: ")
        assert "\n" not in text


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.txt", "x", "x.npz", "x.mp4"])
def test_garbage_is_refused(tmp_path, name):
    path = tmp_path / name
    texts = [
        b"garbage",
        bytes(500),
        b"%PDF-1.4\n",
        b"<svg/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"PK\3\4",
    ]
    for data in (*texts, np.random.default_rng(0).bytes(4000)):
        path.write_bytes(data)
        assert "save it anew" in refused(path)


def test_what_is_no_file_is_refused(tmp_path):
    assert "folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "missing.png")
    assert refused(b"") == "is empty"


def test_standard_input_is_read_like_a_file(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        same(open_image(data), open_image(str(tmp_path / name)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_float32_are_refused(value):
    samples = np.zeros((3, 4))
    samples[1, 2] = value
    assert "NaN or infinite" in refused(by_tifffile(samples))
    with pytest.raises(InputError, match="NaN or infinite"):
        Image.from_array(samples)


@pytest.mark.parametrize("name", FILES)
def test_limits_on_pixels_hold_for_every_format(name):
    assert "154" in refused(FILES[name], LimitExceeded, limits=Limits(samples=153))
    open_image(FILES[name], Limits(samples=154))


def test_headers_that_claim_too_much_are_refused_before_memory_is_taken():
    tags = [(256, 4, 1, 90_000), (257, 4, 1, 90_000), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 90_000), (279, 4, 1, 1)]

    def tiff(tags) -> bytes:
        body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + body + bytes(4)

    claims = "90000x90000 is 8,100,000,000"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.uint8))
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header | {"shape": (10**6, 10**6, 3)})
    for data in (
        png((90_000, 90_000), 8, 2, [b""]),
        png((90_000, 90_000), 16, 2, [b""]),
        b"P6 90000 90000 255\n",
        b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 90_000, 90_000, 1, 24) + bytes(24),
        tiff(tags),
        tiff([(t, k, n, 3 if t == 262 else v) for t, k, n, v in tags]),  # a palette
    ):
        assert claims in refused(data, LimitExceeded)
    refused(file.getvalue())
    few = [(t, k, n, {256: 9999, 257: 9999, 277: 60_000}.get(t, v)) for t, k, n, v in tags]
    assert "60000 channels" in refused(tiff(few))


def test_only_our_own_limit_counts(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)  # Pillow warns above it
    for name, data in FILES.items():
        if name != "palette.tif":  # Pillow checks these once more as it decodes
            open_image(data)
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


def test_pictures_can_be_read_side_by_side():
    before = PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(open_image, [*FILES.values()] * 4))
    for image, again in zip(images, images[len(FILES) :], strict=False):
        same(image, again)
    assert before == (PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters))


# -------------------------------------------------------------------------- refused targets


@pytest.mark.parametrize(
    ("suffix", "samples", "reason"),
    [
        (".jpg", noise(2), "alpha"),
        (".JPEG", noise(4), "alpha"),
        (".bmp", noise(4), "alpha"),
        (".ppm", noise(2), "alpha"),
        (".png", noise(3, np.float32), "float"),
        (".jpg", noise(3, np.float32), "float"),
        (".gif", noise(3), "'.gif'"),
        (".pdf", noise(3), "'.pdf'"),
        (".docx", noise(3), "'.docx'"),
        ("", noise(3), "''"),
    ],
)
def test_formats_that_cannot_hold_a_picture(tmp_path, suffix, samples, reason):
    image = Image.from_array(samples)
    with pytest.raises(UsageError, match=reason) as early:
        check_format(suffix, image.domain)
    with pytest.raises(UsageError) as late:
        write_image(tmp_path / f"a{suffix}", image.samples, image.domain)
    assert str(early.value) == str(late.value)
    assert "." in str(early.value).partition(": ")[2]  # names formats that would do


def test_sizes_that_a_format_cannot_hold():
    image = Image.from_array(np.zeros((1, 70_000, 3), np.uint8))
    for suffix in (".webp", ".jpg"):
        with pytest.raises(UsageError, match="1 x 70000"):
            written(image, suffix)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".npy"])
def test_a_full_disk_is_reported_as_such(suffix):
    class Full(io.BytesIO):
        def write(self, _data) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    image = Image.from_array(noise(3))
    with pytest.raises(OSError, match="No space") as caught:
        write_image(Full(), image.samples, image.domain, suffix)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_a_stream_with_an_error():
    image = Image.from_array(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(OSError, match="No space"):
        stream_tiff("/dev/full", (64, 64), image.domain, iter([image.samples]))


# ------------------------------------------------------------------------- arrays and domains


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2), complex), "complex"),
        (np.array([["a"]]), "supported"),
    ],
)
def test_arrays_that_are_no_image(samples, reason):
    with pytest.raises(InputError, match=reason):
        Image.from_array(samples)


@pytest.mark.parametrize("depth", [8, 16])
def test_every_integer_survives_normalisation(depth):
    samples = np.arange(2**depth).astype(f"u{depth // 8}")
    domain = ImageDomain(1, 2**depth, 1, depth, 0.0, float(2**depth - 1))
    values = domain.to_values(samples)
    assert values.dtype == np.float32
    assert (values[0], values[-1]) == (-1, 1)
    again = domain.to_samples(values)
    assert again.dtype == samples.dtype
    np.testing.assert_array_equal(again, samples)
    # and with an error of a little less than half a step
    step = domain.grain * 0.49
    np.testing.assert_array_equal(domain.to_samples(values + np.float32(step)), samples)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
)
@settings(deadline=None, max_examples=100)
def test_floats_survive_normalisation(numbers):
    image = Image.from_array(np.array([numbers], np.float32))
    values = image.values.numpy()
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1
    again = image.domain.to_samples(values)
    scale = max(image.domain.high - image.domain.low, float(np.abs(image.samples).max()))
    error = np.abs(again.astype(np.float64) - image.samples.astype(np.float64))
    assert error.max() <= 2e-7 * scale + 1e-45  # float32's own rounding


def test_a_flat_float_picture_survives():
    image = Image.from_array(np.full((3, 4), 7.5, np.float32))
    assert (image.values == 0).all()
    np.testing.assert_array_equal(image.domain.to_samples(image.values.numpy()), image.samples)
    assert image.domain.peak == 1


def test_decoded_values_are_clipped_and_nan_has_a_fixed_meaning():
    values = np.array([-3, 3, np.inf, -np.inf, np.nan], np.float32)
    assert ImageDomain(1, 5, 1).to_samples(values).tolist() == [0, 255, 255, 0, 0]
    domain = ImageDomain(1, 5, 1, 32, -2.0, 6.0)
    np.testing.assert_array_equal(domain.to_samples(values), [-2, 6, 6, -2, np.nan])


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def domains(draw):
    sizes = st.integers(1, 2**31 - 1)
    height, width, channels = draw(sizes), draw(sizes), draw(st.integers(1, 4))
    depth = draw(st.sampled_from([8, 16, 32]))
    low, high = 0.0, float(2**depth - 1)
    if depth == 32:
        low, high = sorted((draw(FINITE), draw(FINITE)))
    return ImageDomain(height, width, channels, depth, low, high)


@given(domains())
@settings(deadline=None)
def test_domain_survives_its_header(domain):
    stored = cbor2.loads(cbor2.dumps(domain.header(), canonical=True))
    again = ImageDomain.from_header(stored)
    assert again == domain
    assert again.describe() == domain.describe()


@pytest.mark.parametrize(
    "items",
    [
        None,
        [],
        {},
        "image",
        [4, 5, 3],
        [4, 5, 3, 8, 0.0],
        [4, 5, 3, 8, 0.0, 255.0],
        [4, 5, 3, 32],
        [0, 5, 3, 8],
        [4, -5, 3, 8],
        [4, 5, 0, 8],
        [4, 5, 5, 8],
        [4, 5, 3, 12],
        [True, 5, 3, 8],
        [4.0, 5, 3, 8],
        [4, 2**31, 3, 8],
        [4, 5, 3, 32, 0, 1],
        [4, 5, 3, 32, 0.0, float("nan")],
        [4, 5, 3, 32, -float("inf"), 1.0],
        [4, 5, 3, 32, 1.0, 0.0],
        [4, 5, 3, 32, 0.0, 1e300],
    ],
)
def test_malformed_headers_are_refused(items):
    with pytest.raises(CorruptFile) as caught:
        ImageDomain.from_header(items)
    assert "\n" not in str(caught.value)


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=9))
@settings(deadline=None)
def test_no_header_crashes(items):
    try:
        domain = ImageDomain.from_header(items)
    except CorruptFile:
        return
    assert domain.header() == items
