"""Pictures: JPEG, WebP, AVIF and JPEG 2000, as Pillow has them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.compare.codec import Codec
from inr.errors import InputError, UsageError
from inr.metrics import psnr_arrays
from inr.signals.base import Signal
from inr.signals.image import Image, open_image


@dataclass(frozen=True)
class PictureCodec(Codec):
    """A format that Pillow writes.

    Args:
        form: Pillow's name of it.
        library: What codes it, and Pillow's name of that library.
        told: What is fixed, for people.
        options: What is fixed, for Pillow.
    """

    form: str
    library: tuple[str, str]
    told: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def about(self) -> str:
        import PIL
        import PIL.features

        name, feature = self.library
        found = PIL.features.version(feature)
        if found is None:
            raise UsageError(
                f"{self.name} needs a Pillow with {name}, as its wheels have it: "
                "pip install --force-reinstall pillow"
            )
        return f"Pillow {PIL.__version__}, {name} {found}, {self.told}"

    def label(self, setting: float) -> str:
        return f"rate 1/{setting:g}" if self.form == "JPEG2000" else f"quality {setting:g}"

    def encode(self, signal: Signal, setting: float) -> bytes:
        import PIL.Image

        assert isinstance(signal, Image)
        samples = signal.samples
        picture = PIL.Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        options = dict(self.options)
        if self.form == "JPEG2000":
            options |= {"quality_layers": [setting], "mct": int(samples.shape[2] == 3)}
        else:
            options["quality"] = int(setting)
        buffer = io.BytesIO()
        try:
            picture.save(buffer, self.form, **options)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or "its encoder failed"
            raise InputError(f"cannot be held ({reason})") from error
        return buffer.getvalue()

    def decode(self, data: bytes, signal: Signal) -> np.ndarray:
        samples = open_image(data).samples
        if signal.channels == 1 and samples.shape[2] == 3:  # WebP knows no grey
            import PIL.Image

            samples = np.asarray(PIL.Image.fromarray(samples).convert("L"))[..., None]
        return samples


JPEG = ("libjpeg-turbo", "libjpeg_turbo")
AVIF = ("libavif", "avif")
QUALITIES = (10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95)
AVIF_QUALITIES = (20, 30, 40, 50, 60, 70, 80, 90)

CODECS = (
    PictureCodec(
        "jpeg", QUALITIES, "JPEG", JPEG, "4:2:0, optimised tables",
        {"subsampling": "4:2:0", "optimize": True},
    ),
    PictureCodec(
        "jpeg-444", QUALITIES, "JPEG", JPEG, "4:4:4, optimised tables",
        {"subsampling": "4:4:4", "optimize": True},
    ),
    PictureCodec(
        "webp", (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95), "WEBP", ("libwebp", "webp"),
        "4:2:0, method 6", {"method": 6},
    ),
    PictureCodec(
        "avif", AVIF_QUALITIES, "AVIF", AVIF, "4:4:4, speed 6",
        {"subsampling": "4:4:4", "speed": 6, "max_threads": 1},
    ),
    PictureCodec(
        "avif-420", AVIF_QUALITIES, "AVIF", AVIF, "4:2:0, speed 6",
        {"subsampling": "4:2:0", "speed": 6, "max_threads": 1},
    ),
    PictureCodec(
        "jp2", (160, 120, 80, 60, 48, 40, 30, 24, 20, 16, 12, 8), "JPEG2000",
        ("OpenJPEG", "jpg_2000"), "wavelet 9/7, bare code stream",
        {"quality_mode": "rates", "irreversible": True, "no_jp2": True},
    ),
)  # fmt: skip


def prepared(signal: Signal) -> tuple[Image, list[str]]:
    """The picture as all codecs get it: 8-bit grey or RGB, without profile; and what was left out.

    Raises:
        InputError: it has more bits, or shows what lies behind it.
    """
    assert isinstance(signal, Image)
    samples, notes = signal.samples, []
    if signal.domain.depth != 8:
        depth = "float" if signal.domain.depth == 32 else "16-bit"
        raise InputError(f"is a {depth} picture, which JPEG and WebP cannot hold: save it as 8-bit")
    if signal.channels in (2, 4):
        if samples[..., -1].min() < 255:
            raise InputError("is transparent, which JPEG cannot hold: flatten it first")
        samples = samples[..., :-1]
        notes.append("its alpha channel is opaque and left out")
    if signal.domain.icc:
        notes.append("its colour profile is left out of all files")
    return Image.from_array(np.ascontiguousarray(samples)), notes


def measure(signal: Signal, decoded: np.ndarray) -> dict[str, float]:
    """PSNR in dB over all samples, R = 255."""
    assert isinstance(signal, Image)
    return {"psnr": psnr_arrays(signal.samples, decoded, 255)}
