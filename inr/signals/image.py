"""Photographs and other pictures: 8- and 16-bit grey or colour with or without alpha, and float.

Pixel (i, j) of an H x W image covers the cell [i, i+1) x [j, j+1); its sample lies at the centre.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

import numpy as np

from inr.errors import CorruptFile, InputError, UsageError
from inr.limits import Limits
from inr.metrics import psnr
from inr.render import bands
from inr.signals.base import Domain, GridSignal

if TYPE_CHECKING:
    import PIL.Image

    from fields.base import Field

MODES = {1: "grey", 2: "grey+alpha", 3: "RGB", 4: "RGBA"}
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}


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
    """

    kind: ClassVar[str] = "image"
    height: int
    width: int
    channels: int
    depth: int = 8
    low: float = 0.0
    high: float = 255.0
    icc: bytes = b""

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
            if not all(type(v) is float and math.isfinite(v) for v in items[4:]):
                raise CorruptFile("the value range in the header is malformed")
            low, high = items[4:]
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
        return facts

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
        if self.depth < 32:
            scaled = np.rint(scaled)
        return scaled.astype(DTYPES[self.depth])


class Image(GridSignal):
    """An image to be fitted; `Image.from_array` makes one from numpy."""

    domain: ImageDomain

    @classmethod
    def from_array(cls, samples: np.ndarray, *, icc: bytes = b"") -> Self:
        """Make a signal from samples of shape (height, width) or (height, width, channels).

        Args:
            samples: uint8 or uint16 (full range), or finite floats (range taken from the data).
            icc: ICC colour profile, if there is one.

        Raises:
            InputError: the shape, the type or a value does not make an image.
        """
        import torch

        samples = samples[..., None] if samples.ndim == 2 else samples
        if samples.ndim != 3 or samples.shape[2] not in MODES or 0 in samples.shape:
            raise InputError(f"an array of shape {samples.shape} is no image of 1 to 4 channels")
        if samples.dtype == np.bool_:
            samples = samples.astype(np.uint8) * 255
        if samples.dtype in (np.uint8, np.uint16):
            depth = 8 * samples.dtype.itemsize
            low, high = 0.0, float(2**depth - 1)
        elif samples.dtype.kind == "f":
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
        domain = ImageDomain(height, width, channels, depth, low, high, icc)
        samples = np.ascontiguousarray(samples)
        return cls(domain, samples, torch.from_numpy(domain.to_values(samples)))

    def metrics(self, field: Field) -> dict[str, float]:
        """`psnr` of the decode in the image's own type and range, `psnr_float` before rounding.

        Both clip to the range; R is 255 for 8 bits, 65,535 for 16, the data's range for floats.
        """
        exact = rounded = 0.0
        for rows, values in bands(field, self.axes()):
            clipped = values.clamp(-1, 1)
            exact += float((clipped - self.values[rows]).double().square().sum())
            decoded = self.domain.to_samples(values.cpu().numpy()).astype(np.float64)
            rounded += float(np.square(decoded - self.samples[rows]).sum())
        n = self.samples.size
        return {"psnr": psnr(rounded / n, self.domain.peak), "psnr_float": psnr(exact / n, 2.0)}


def open_image(source: str | Path | bytes, limits: Limits = Limits()) -> Image:  # noqa: B008
    """Read a picture from a path or from the bytes of a file.

    PNG, JPEG, WebP, TIFF, AVIF, BMP, PNM and whatever else Pillow, tifffile or imageio read.
    Palettes become RGB(A), CMYK becomes RGB, the EXIF orientation is applied, the ICC profile is
    kept.

    Raises:
        InputError: not a single still picture, damaged, or holding values that cannot be fitted.
        LimitExceeded: more pixels than `limits` allow.
    """
    name = "standard input" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        data = source
    else:
        from inr.files import read_bytes

        data = read_bytes(source)
    if not data:
        raise InputError(f"{name}: is empty")
    suffix = "" if isinstance(source, bytes) else Path(source).suffix
    try:
        samples, icc = _decode(data, suffix, limits)
        return Image.from_array(samples, icc=icc)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory") from None


def _decode(data: bytes, suffix: str, limits: Limits) -> tuple[np.ndarray, bytes]:
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(data, limits)
    import warnings

    import PIL.Image

    try:
        with warnings.catch_warnings():  # our own limit replaces Pillow's warning about bombs
            warnings.simplefilter("ignore")
            picture = PIL.Image.open(io.BytesIO(data))
    except (PIL.UnidentifiedImageError, PIL.Image.DecompressionBombError):
        return _decode_other(data, suffix, limits), b""
    except Exception as error:
        raise InputError(f"cannot be read as a picture ({error})") from None
    limits.check_samples((picture.height, picture.width))
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        raise InputError(f"holds {frames} frames: extract the one to fit")
    try:
        orientation = picture.getexif().get(0x0112, 1)
        icc = picture.info.get("icc_profile") or b""
        deep = data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10"
        samples = _decode_deep_png(data) if deep else _from_pillow(picture)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"is damaged ({error})") from None
    if picture.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        icc = b""  # it described the colours before their conversion to RGB
    return _orient(samples, orientation), icc


def _from_pillow(picture: PIL.Image.Image) -> np.ndarray:
    mode = picture.mode
    see_through = "transparency" in picture.info
    if mode == "I":
        samples = np.asarray(picture)
        if samples.min() >= 0 and samples.max() <= 65535:
            return samples.astype(np.uint16)
        return samples.astype(np.float32)
    if mode == "F":
        return np.asarray(picture, np.float32)
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if mode in ("P", "RGB"):
        target = "RGBA" if see_through else "RGB"
    elif mode in ("1", "L"):
        target = "LA" if see_through else "L"
    else:
        target = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}.get(
            mode, "RGB"
        )
    return np.asarray(picture if target == mode else picture.convert(target))


def _decode_deep_png(data: bytes) -> np.ndarray:
    """16-bit PNG; Pillow would round the colour ones to 8 bits."""
    import imagecodecs

    return imagecodecs.png_decode(data)


def _decode_tiff(data: bytes, limits: Limits) -> tuple[np.ndarray, bytes]:
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs, it also raises
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            if len(tiff.pages) != 1:
                raise InputError(f"holds {len(tiff.pages)} pages: extract the one to fit")
            page: Any = tiff.pages[0]
            limits.check_samples((page.imagelength, page.imagewidth))
            photometric = page.photometric.name if page.photometric is not None else ""
            if photometric in ("PALETTE", "SEPARATED", "YCBCR", "CIELAB"):
                import PIL.Image

                return _from_pillow(PIL.Image.open(io.BytesIO(data))), b""
            samples = page.asarray()
            if page.planarconfig is not None and page.planarconfig.name == "SEPARATE":
                samples = np.moveaxis(samples, 0, -1)
            if photometric == "MINISWHITE" and samples.dtype.kind == "u":
                samples = np.iinfo(samples.dtype).max - samples
            orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
            icc = bytes(page.iccprofile or b"")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot be read as a TIFF ({error})") from None
    if samples.dtype.kind == "i" or samples.dtype == np.uint32:
        samples = samples.astype(np.float32)  # no full range to speak of: the data's own is taken
    return _orient(samples, int(orientation)), icc


def _decode_other(data: bytes, suffix: str, limits: Limits) -> np.ndarray:
    """What Pillow does not know, imageio's other plugins may (EXR, say)."""
    import imageio.v3

    try:
        samples = np.asarray(imageio.v3.imread(data, extension=suffix or ".bin"))
    except Exception:
        raise InputError("is not a picture that Pillow, tifffile or imageio can read") from None
    limits.check_samples(samples.shape[:2])
    return samples


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

    PNG and TIFF hold every depth that they can; others hold 8 bits. A path should be a temporary
    one (see `inr.files.atomic_path`); an open file needs a `suffix`.

    Raises:
        UsageError: the format is unknown, or cannot hold these channels or this depth.
    """
    if isinstance(target, Path):
        with target.open("wb") as file:
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
        domain: Channels, depth and colour profile.
        rows: Bands of shape (n, width, channels), from top to bottom.
    """
    import tifffile

    out = tifffile.memmap(
        path, shape=(*shape, domain.channels), dtype=DTYPES[domain.depth], **_tiff_tags(domain)
    )
    start = 0
    for band in rows:
        out[start : start + len(band)] = band.reshape(len(band), *out.shape[1:])
        start += len(band)
        out.flush()
    del out


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
    kind = PIL.Image.registered_extensions().get(suffix)
    if kind not in PIL.Image.SAVE:
        raise UsageError(f"no picture format has the suffix {suffix!r}: try .png, .jpg or .tif")
    if domain.depth == 32:
        raise UsageError(f"{suffix} cannot hold float values: write .tif or .npy")
    opaque = kind in ("JPEG", "BMP", "PPM", "PCX")
    if opaque and domain.channels in (2, 4):
        raise UsageError(f"{suffix} cannot hold an alpha channel: write .png, .webp or .tif")
    return lambda file, samples: _write_pillow(file, samples, domain, kind)


def _write_pillow(file: BinaryIO, samples: np.ndarray, domain: ImageDomain, kind: str) -> None:
    if samples.dtype == np.uint16:
        samples = np.rint(samples / 257).astype(np.uint8)
    options: dict[str, Any] = {"icc_profile": domain.icc} if domain.icc else {}
    if kind in ("WEBP", "AVIF"):
        options |= {"lossless": True} if kind == "WEBP" else {"quality": 95}
    if kind == "JPEG":
        options |= {"quality": 95}
    _pillow(samples).save(file, format=kind, **options)


def _write_png(file: BinaryIO, samples: np.ndarray, domain: ImageDomain) -> None:
    if domain.depth == 8:
        options = {"icc_profile": domain.icc} if domain.icc else {}
        _pillow(samples).save(file, format="PNG", compress_level=6, **options)
        return
    import imagecodecs

    data = imagecodecs.png_encode(np.ascontiguousarray(samples))
    if domain.icc:  # the profile's chunk goes right behind the 33 bytes of signature and IHDR
        body = b"iCCP" + b"icc\0\0" + zlib.compress(domain.icc)
        chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        data = data[:33] + chunk + data[33:]
    file.write(data)


def _write_tiff(file: BinaryIO, samples: np.ndarray, domain: ImageDomain) -> None:
    import tifffile

    tifffile.imwrite(file, samples, compression="zlib", **_tiff_tags(domain))


def _tiff_tags(domain: ImageDomain) -> dict[str, Any]:
    return {
        "photometric": "rgb" if domain.channels >= 3 else "minisblack",
        "planarconfig": "contig",
        "extrasamples": ["unassalpha"] if domain.channels in (2, 4) else None,
        "iccprofile": domain.icc or None,
        "metadata": None,
    }


def _pillow(samples: np.ndarray) -> PIL.Image.Image:
    import PIL.Image

    return PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
