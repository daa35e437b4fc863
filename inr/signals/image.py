"""Photographs and other pictures: 8- and 16-bit grey or colour with or without alpha, and float.

Pixel (i, j) of an H x W image covers the cell [i, i+1) x [j, j+1); its sample lies at the centre.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

import numpy as np

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits
from inr.metrics import bits_per_pixel
from inr.signals import exif as exif_data
from inr.signals.base import Domain, GridSignal

if TYPE_CHECKING:
    import PIL.Image


MODES = {1: "grey", 2: "grey+alpha", 3: "RGB", 4: "RGBA"}
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}
FLOAT_MAX = float(np.finfo(np.float32).max)

ICC_BYTES = 4 << 20
"""Largest colour profile that is kept; an `.inr` file takes no larger one."""

READABLE = (
    "AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF",
    "WEBP",
)  # fmt: skip
"""What Pillow may open. Its others hold no pictures, or start programs (EPS runs Ghostscript)."""

ALPHA = {
    "AVIF": True, "BMP": False, "JPEG": False, "JPEG2000": True, "PPM": False, "TGA": True,
    "WEBP": True,
}  # fmt: skip
"""What Pillow may write, each with whether alpha survives."""

KEEPABLE = ("icc", "exif")

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_HEAD = b"\x93NUMPY"
EXIF_MARKER = b"Exif\0\0"
"""What stands before EXIF data in a JPEG."""

JPEG_EXIF_BYTES = 65_533 - len(EXIF_MARKER)

EXIF_HOLDERS = {"AVIF", "JPEG", "WEBP"}
"""What Pillow writes EXIF data into, beside PNG."""

PILLOW = threading.Lock()  # its limit on pixels and Python's warning filters are global


@dataclass(frozen=True)
class ImageDomain(Domain):
    """Size, channels, depth and value range of an image.

    Args:
        height: Rows.
        width: Columns.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA (alpha not premultiplied).
        depth: Bits per sample: 8 or 16 (unsigned integers) or 32 (float).
        low: Value that -1 stands for.
        high: Value that 1 stands for.
        icc: ICC colour profile, where the source carried one; empty otherwise.
        exif: EXIF data that were kept of the source, from their TIFF header on; mostly empty.
    """

    kind: ClassVar[str] = "image"
    height: int
    width: int
    channels: int
    depth: int = 8
    low: float = 0.0
    high: float = 255.0
    icc: bytes = b""
    exif: bytes = b""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.height, self.width)

    def header(self) -> list[Any]:
        items: list[Any] = [self.height, self.width, self.channels, self.depth]
        return [*items, self.low, self.high] if self.depth == 32 else items

    @classmethod
    def from_header(cls, items: Any) -> Self:
        is_list = isinstance(items, list) and len(items) in (4, 6)
        if not is_list or not all(type(n) is int for n in items[:4]):
            raise CorruptFile("the image domain in the header is malformed")
        height, width, channels, depth = items[:4]
        if not (0 < height < 1 << 31 and 0 < width < 1 << 31 and channels in MODES):
            raise CorruptFile(f"the header claims an image of {height} x {width} x {channels}")
        if depth not in DTYPES or (depth == 32) != (len(items) == 6):
            raise CorruptFile(f"the header claims {depth} bits per sample")
        low, high = 0.0, float(2**depth - 1)
        if depth == 32:
            low, high = items[4:]
            floats = type(low) is float and type(high) is float
            if not (floats and -FLOAT_MAX <= low <= high <= FLOAT_MAX):
                raise CorruptFile("the value range in the header is malformed")
        return cls(height, width, channels, depth, low, high)

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "mode": MODES[self.channels],
            "depth": self.depth if self.depth < 32 else "float32",
        }
        if self.depth == 32:
            facts |= {"low": self.low, "high": self.high}
        if self.icc:
            facts["icc_bytes"] = len(self.icc)
        if self.exif:
            facts["exif_bytes"] = len(self.exif)
        return facts

    def density(self, file_bytes: int) -> dict[str, float]:
        return {"bpp": bits_per_pixel(file_bytes, self.height * self.width)}

    @property
    def peak(self) -> float:
        return (self.high - self.low) or 1.0

    @property
    def grain(self) -> float:
        return 2 / 255 if self.depth == 8 else 2 / 65535

    def to_values(self, samples: np.ndarray) -> np.ndarray:
        """Normalise samples to float32 in [-1, 1]; a flat float image becomes 0."""
        if self.high == self.low:
            return np.zeros(samples.shape, np.float32)
        middle = (self.high + self.low) / 2
        half = (self.high - self.low) / 2
        return ((samples.astype(np.float64) - middle) / half).astype(np.float32)

    def to_samples(self, values: np.ndarray) -> np.ndarray:
        clipped = np.clip(values.astype(np.float64), -1, 1)
        scaled = (clipped + 1) * ((self.high - self.low) / 2) + self.low
        if self.depth < 32:  # an integer for NaN must be the same on every machine
            scaled = np.nan_to_num(np.rint(scaled), copy=False)
        return scaled.astype(DTYPES[self.depth])


class Image(GridSignal):
    """An image to be fitted; `Image.from_array` makes one from numpy."""

    domain: ImageDomain

    @classmethod
    def from_array(cls, samples: np.ndarray, *, icc: bytes = b"", exif: bytes = b"") -> Self:
        """Make a signal from samples of shape (height, width) or (height, width, channels).

        Args:
            samples: uint8 or uint16 (full range), or finite floats (range taken from the data).
            icc: ICC colour profile, if there is one. It is dropped where it is plain sRGB (what
                anybody assumes without one), unreadable, or meant for other channels.
            exif: EXIF data, if there are any, from their TIFF header on. What holds of their
                source alone is dropped: orientation, size, thumbnail, maker's notes.

        Raises:
            InputError: the shape, the type or a value does not make an image, or the EXIF data
                are malformed or more than 1 MiB.
        """
        samples = samples[..., None] if samples.ndim == 2 else samples
        if samples.ndim != 3 or samples.shape[2] not in MODES or 0 in samples.shape:
            raise InputError(f"an array of shape {samples.shape} is no image of 1 to 4 channels")
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        if samples.dtype == np.bool_:
            samples = samples.astype(np.uint8) * 255
        if samples.dtype in (np.uint8, np.uint16):
            depth = 8 * samples.dtype.itemsize
            low, high = 0.0, float(2**depth - 1)
        elif samples.dtype.kind == "f":
            with np.errstate(over="ignore"):
                samples = samples.astype(np.float32)
            if not np.isfinite(samples).all():
                raise InputError("the image holds NaN or infinite values: replace them first")
            depth, low, high = 32, float(samples.min()), float(samples.max())
        else:
            raise InputError(
                f"samples of type {samples.dtype} are not supported: "
                "convert them to 8 or 16 bits unsigned, or to float"
            )
        height, width, channels = samples.shape
        icc = icc if icc and _worth_keeping(icc, channels) else b""
        exif = exif and exif_data.cleaned(exif)
        domain = ImageDomain(height, width, channels, depth, low, high, icc, exif)
        samples = np.ascontiguousarray(samples)
        return cls(domain, samples)

    @property
    def notes(self) -> tuple[str, ...]:
        exif = self.domain.exif
        if not exif:
            return ()
        place = ", the place where it was taken among them" if exif_data.has_place(exif) else ""
        return (f"{len(exif):,} bytes of EXIF data are kept{place}",)


def open_image(
    source: str | Path | bytes,
    limits: Limits = Limits(),  # noqa: B008
    *,
    keep: str = "icc",
) -> Image:
    """Read a picture from a path or from the bytes of a file.

    PNG, TIFF, JPEG, WebP, AVIF, BMP, PNM, `.npy` and what else is in `READABLE`. Palettes become
    RGB(A), CMYK becomes RGB, the EXIF orientation is applied. AVIF and JPEG 2000 are read at 8
    bits.

    Args:
        source: Path, or bytes.
        limits: What it may ask for.
        keep: what of the source the file keeps beside its pixels: icc (its colour profile; the
            default), exif (its EXIF data but for thumbnail and maker's notes), icc,exif or none

    Raises:
        InputError: not a single still picture, damaged, or holding values that cannot be fitted.
        LimitExceeded: more pixels than `limits` allow.
        UsageError: `keep` names something else.
    """
    kept = set() if keep == "none" else set(keep.split(","))
    if not kept <= {*KEEPABLE}:
        raise UsageError(f"keep is {keep!r}: give icc, exif, icc,exif or none")
    name = "standard input" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        data = source
    else:
        from inr.files import read_bytes

        data = read_bytes(source, limits.source_bytes)
    if not data:
        raise InputError(f"{name}: is empty")
    try:
        samples, icc = _decode(data, limits)
        return Image.from_array(
            samples,
            icc=icc if "icc" in kept else b"",
            exif=_exif_of(data) if "exif" in kept else b"",
        )
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None


def _decode(data: bytes, limits: Limits) -> tuple[np.ndarray, bytes]:
    """Samples and colour profile; damage of any kind is an InputError of one line."""
    for library in ("imagecodecs", "tifffile"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what matters is an error
    decoder = _decode_pillow
    if data[:4] in TIFF_HEADS:
        decoder = _decode_tiff
    elif data[:6] == NPY_HEAD:
        decoder = _decode_npy
    try:
        with PILLOW, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decoder(data, limits)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"is damaged or unusual ({reason}): save it anew as PNG or TIFF") from None


def _exif_of(data: bytes) -> bytes:
    """What is worth keeping of the EXIF data of a file that has been read as a picture."""
    block = data
    if data[:6] == NPY_HEAD:
        block = b""
    elif data[:4] not in TIFF_HEADS:
        with PILLOW, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = open_pillow(data)
            picture.getexif()  # which reads a PNG to its end, where they may stand
        block = (picture.info.get("exif") or b"").removeprefix(EXIF_MARKER)
    try:
        return block and exif_data.cleaned(block)
    except CorruptFile as error:
        raise InputError(f"{error}: leave them out with --keep icc") from None


def _decode_pillow(data: bytes, limits: Limits) -> tuple[np.ndarray, bytes]:
    import PIL

    try:
        picture = open_pillow(data)
    except PIL.UnidentifiedImageError:
        raise InputError(
            "is no picture of a known format, or cut short: save it anew as PNG or TIFF"
        ) from None
    limits.check_samples((picture.height, picture.width))
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # whose other frames are previews
        raise InputError(f"holds {frames} frames: extract the one to fit")
    orientation = picture.getexif().get(0x0112, 1)
    icc = picture.info.get("icc_profile") or b""
    # Pillow rounds 16-bit colours in a PNG to 8, and mistakes the clear one of 4 or 16 greys
    if picture.format == "PNG" and (data[24] == 16 or (data[24] in (2, 4) and data[25] == 0)):
        import imagecodecs

        samples = imagecodecs.png_decode(data)
    elif picture.format == "PPM" and picture.mode == "RGB":
        samples = _decode_ppm(picture, data)
    else:
        samples = _from_pillow(picture)
    return _orient(samples, orientation), icc


def open_pillow(data: bytes, formats: tuple[str, ...] = READABLE) -> PIL.Image.Image:
    """Read a header; Pillow's own limits give way to `Limits`, checked right after.

    Whoever calls it holds `PILLOW`.
    """
    import PIL.Image
    import PIL.PngImagePlugin

    pixels, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    chunk, PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_CHUNK, ICC_BYTES
    try:
        return PIL.Image.open(io.BytesIO(data), formats=formats)
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = pixels
        PIL.PngImagePlugin.MAX_TEXT_CHUNK = chunk


def _decode_ppm(picture: PIL.Image.Image, data: bytes) -> np.ndarray:
    """Colour PNM; Pillow would round binary 16-bit ones to 8 bits."""
    tile: Any = picture.tile[0]  # type: ignore[attr-defined]
    top = tile.args[1] if tile.codec_name == "ppm" else 255
    if top <= 255:
        return _from_pillow(picture)
    shape = (picture.height, picture.width, 3)
    samples = np.frombuffer(data, ">u2", math.prod(shape), tile.offset).reshape(shape)
    return _full_range(samples, top)


def _from_pillow(picture: PIL.Image.Image) -> np.ndarray:
    mode = picture.mode
    if mode == "I":
        samples = np.asarray(picture)
        fits = samples.min() >= 0 and samples.max() <= 65535
        return samples.astype(np.uint16 if fits else np.float32)
    if mode == "F" or mode.startswith("I;16"):
        return np.asarray(picture)
    target = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    target += "A" if picture.has_transparency_data else ""
    return np.asarray(picture.convert(target))


def _decode_npy(data: bytes, limits: Limits) -> tuple[np.ndarray, bytes]:
    samples = np.load(io.BytesIO(data), allow_pickle=False)
    limits.check_samples(samples.shape[:2])
    return samples, b""


def _decode_tiff(data: bytes, limits: Limits) -> tuple[np.ndarray, bytes]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) > 1:
            raise InputError(f"holds {len(tiff.pages)} pages: extract the one to fit")
        page: Any = tiff.pages[0]
        limits.check_samples((page.imagelength, page.imagewidth))
        icc = bytes(page.iccprofile or b"")
        kinds = tifffile.PHOTOMETRIC
        if page.photometric in (kinds.PALETTE, kinds.SEPARATED, kinds.YCBCR, kinds.CIELAB):
            return _from_pillow(open_pillow(data)), icc  # oriented by Pillow
        if page.samplesperpixel not in MODES or page.imagedepth > 1:
            raise InputError(f"holds {page.samplesperpixel} channels: 1 to 4 make a picture")
        samples = page.asarray()
        orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
    if samples.ndim == 2:
        samples = samples[..., None]
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * 255
    elif samples.dtype in (np.uint8, np.uint16):
        if page.bitspersample < 8 * samples.dtype.itemsize:
            samples = _full_range(samples, 2**page.bitspersample - 1)
    elif samples.dtype.kind in "iu":
        samples = samples.astype(np.float32)  # no full range to speak of: the data's own is taken
    if page.photometric == kinds.MINISWHITE and samples.dtype.kind == "u":
        top = np.iinfo(samples.dtype).max
        samples = np.concatenate([top - samples[..., :1], samples[..., 1:]], axis=-1)
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        samples = _unmultiply(samples)
    return _orient(samples, int(orientation)), icc


def _full_range(samples: np.ndarray, top: int) -> np.ndarray:
    """Stretch integers of an odd depth, [0, top], to the whole of 8 or 16 bits."""
    depth = 8 * samples.dtype.itemsize
    stretched = samples.clip(0, top) * ((2**depth - 1) / top)
    return np.rint(stretched).astype(DTYPES[depth])


def _unmultiply(samples: np.ndarray) -> np.ndarray:
    """Divide colours by the alpha in the last channel, as far as it leaves any."""
    top = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    colours, alpha = samples[..., :-1], samples[..., -1:]
    divided = colours.astype(np.float64) * top / np.where(alpha == 0, top, alpha)
    if samples.dtype.kind == "u":
        divided = np.rint(divided).clip(0, top)
    return np.concatenate([divided.astype(samples.dtype), alpha], axis=-1)


def _worth_keeping(icc: bytes, channels: int) -> bool:
    """Whether a colour profile can be read, fits the channels, and says more than 'sRGB'."""
    import PIL.Image
    import PIL.ImageCms as cms

    space = b"GRAY" if channels < 3 else b"RGB "
    if len(icc) > ICC_BYTES or icc[16:20] != space or icc[36:40] != b"acsp":
        return False
    try:
        profile = cms.ImageCmsProfile(io.BytesIO(icc))
        if space == b"GRAY" or "sRGB" not in cms.getProfileDescription(profile):
            return True
        # a profile may call itself sRGB and be linear, say: look at what it does to colours
        steps = np.linspace(0, 255, 6).astype(np.uint8)
        colours = PIL.Image.fromarray(
            np.stack(np.meshgrid(steps, steps, steps), -1).reshape(36, 6, 3)
        )
        moved = cms.profileToProfile(colours, profile, cms.createProfile("sRGB"))
        return int(np.abs(np.asarray(colours, int) - np.asarray(moved, int)).max()) > 2
    except Exception:  # lcms raises several types on damage
        return False


def _orient(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF or TIFF orientation (1 to 8) so that the first row is the top."""
    if orientation in (5, 6, 7, 8):
        samples = np.swapaxes(samples, 0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


# ------------------------------------------------------------------------------- writing


def write_image(
    target: Path | BinaryIO, samples: np.ndarray, domain: ImageDomain, suffix: str = ""
) -> None:
    """Write samples of shape (height, width, channels), the format chosen by the suffix.

    TIFF and `.npy` hold every depth, PNG 8 and 16 bits, others 8. BMP, PNM, TGA, JPEG 2000 and
    `.npy` leave out the colour profile and EXIF data. A path should be a temporary one (see
    `inr.files.atomic_path`); an open file needs a `suffix`.

    Raises:
        UsageError: the format is unknown, or cannot hold these channels or this depth.
    """
    if isinstance(target, Path):
        with target.open("w+b") as file:
            write_image(file, samples, domain, target.suffix)
        return
    _writer(suffix, domain)(target, samples)


def check_format(suffix: str, domain: ImageDomain) -> None:
    """Raise UsageError now if `write_image` would refuse this suffix for this domain."""
    _writer(suffix, domain)


def default_suffix(domain: ImageDomain) -> str:
    """The suffix that keeps everything: '.tif' for floats, '.png' otherwise."""
    return ".tif" if domain.depth == 32 else ".png"


def stream_tiff(
    path: str | Path, shape: Sequence[int], domain: ImageDomain, rows: Iterator[np.ndarray]
) -> None:
    """Write a TIFF from bands of rows as they come, never holding the whole picture.

    Args:
        path: Where to write.
        shape: (height, width).
        domain: Channels, depth, colour profile and EXIF data.
        rows: Bands of shape (n, width, channels), from top to bottom.
    """
    import tifffile

    # plain writes, no memory map: on a full disk that would kill the process
    tags = _tiff_tags(domain)
    dtype = np.dtype(DTYPES[domain.depth]).newbyteorder(tags["byteorder"])
    tifffile.imwrite(
        path,
        (band.astype(dtype, copy=False).tobytes() for band in rows),
        shape=(*shape, domain.channels)[: 2 + (domain.channels > 1)],
        dtype=dtype,
        **tags,
    )
    if domain.exif:
        with Path(path).open("r+b") as file:
            exif_data.add_to_tiff(file, domain.exif)


def _writer(suffix: str, domain: ImageDomain) -> Callable[[BinaryIO, np.ndarray], None]:
    suffix = suffix.lower()
    if suffix == ".npy":
        return np.save
    if suffix in (".tif", ".tiff"):
        return lambda file, samples: _write_tiff(file, samples, domain)
    if suffix == ".png":
        if domain.depth == 32:
            raise UsageError("a PNG cannot hold float values: write .tif or .npy")
        return lambda file, samples: _write_png(file, samples, domain)
    import PIL.Image

    PIL.Image.init()
    kind = PIL.Image.registered_extensions().get(suffix, "")
    if kind not in ALPHA:
        raise UsageError(f"pictures are not written as {suffix!r}: try .png, .jpg or .tif")
    if domain.depth == 32:
        raise UsageError(f"{suffix} cannot hold float values: write .tif or .npy")
    if kind == "JPEG" and len(domain.exif) > JPEG_EXIF_BYTES:
        size = f"{len(domain.exif):,} bytes of EXIF data"
        raise UsageError(f"{suffix} cannot hold {size}: write .png, .webp or .tif")
    if domain.channels in (2, 4) and not ALPHA[kind]:
        raise UsageError(f"{suffix} cannot hold an alpha channel: write .png, .webp or .tif")
    return lambda file, samples: _write_pillow(file, samples, domain, kind)


def _write_pillow(file: BinaryIO, samples: np.ndarray, domain: ImageDomain, kind: str) -> None:
    if samples.dtype == np.uint16:
        samples = np.rint(samples / 257).astype(np.uint8)
    options: dict[str, Any] = {"JPEG": {"quality": 95}, "AVIF": {"quality": 95}}.get(kind, {})
    if kind == "WEBP":
        options = {"lossless": True, "exact": True}  # colours under alpha 0 stay
    turns_rgb = domain.channels == 2 or (domain.channels == 1 and kind == "WEBP")
    if domain.icc and not turns_rgb:  # or it would describe other channels
        options["icc_profile"] = domain.icc
    if domain.exif and kind in EXIF_HOLDERS:
        options["exif"] = EXIF_MARKER + domain.exif
    try:
        _pillow(samples).save(file, format=kind, **options)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None):  # the disk's, not the encoder's
            raise
        size = f"{samples.shape[0]} x {samples.shape[1]}"
        raise UsageError(f"{kind} cannot hold a picture of {size}: write .png or .tif") from error


def _write_png(file: BinaryIO, samples: np.ndarray, domain: ImageDomain) -> None:
    if domain.depth == 8:
        options = {"icc_profile": domain.icc} if domain.icc else {}
        if domain.exif:
            options["exif"] = EXIF_MARKER + domain.exif
        _pillow(samples).save(file, format="PNG", compress_level=6, **options)
        return
    import imagecodecs

    data = imagecodecs.png_encode(np.ascontiguousarray(samples))
    more = b""
    if domain.icc:
        more += _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(domain.icc))
    if domain.exif:
        more += _png_chunk(b"eXIf", domain.exif)
    file.write(data[:33] + more + data[33:])  # right behind signature and IHDR


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + checksum


def _write_tiff(file: BinaryIO, samples: np.ndarray, domain: ImageDomain) -> None:
    import tifffile

    if domain.channels == 1:  # with an axis of its own, rows would become pages
        samples = samples[..., 0]
    tifffile.imwrite(file, samples, compression="zlib", **_tiff_tags(domain))
    if domain.exif:
        exif_data.add_to_tiff(file, domain.exif)


def _tiff_tags(domain: ImageDomain) -> dict[str, Any]:
    return {
        "photometric": "rgb" if domain.channels >= 3 else "minisblack",
        "planarconfig": "contig" if domain.channels > 1 else None,
        "extrasamples": ["unassalpha"] if domain.channels in (2, 4) else None,
        "iccprofile": domain.icc or None,
        "metadata": None,
        "byteorder": exif_data.byte_order(domain.exif),
    }


def _pillow(samples: np.ndarray) -> PIL.Image.Image:
    import PIL.Image

    return PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
