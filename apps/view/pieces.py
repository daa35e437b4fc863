"""From numbers to what pages carry: samples of bounded number, pictures, colour maps, spectra."""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apps.view.page import PALETTE, Section

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import GridSignal

LEVELS = 4095
"""Values on a page's lattices are told apart in so many steps."""

NUMBERS_PER_BYTE = 2
"""Numbers of a lattice that find room in a byte of a page, at most about."""

ERRORS_SHOWN = 0.999
"""Share of errors within the colours of a map; the others have the last colour."""

SPECTRUM_NUMBERS = 1 << 24
"""Of a larger lattice the middle is transformed, so that memory is bounded."""

SPECTRUM_SIDE = 512
SPECTRUM_RANGE = 100.0
"""Decibels below the highest that a picture of a spectrum shows."""


class Sampled(NamedTuple):
    """A field on a lattice of bounded size, and its original there.

    Args:
        decoded: Shape (*shape, channels), in the signal's own type.
        original: The same of the original, where there is one.
        factors: Samples of the source per sample here, for each axis.
        name: What the field's samples are called.
        means: Whether a sample is the mean over its cell; else the cell's middle one.
    """

    decoded: np.ndarray
    original: np.ndarray | None
    factors: tuple[int, ...]
    name: str = "decoded"
    means: bool = True

    @property
    def error(self) -> np.ndarray:
        """Decoded less original, float64."""
        assert self.original is not None
        return self.decoded.astype(np.float64) - self.original.astype(np.float64)

    @property
    def notes(self) -> list[str]:
        """What is to be said of the lattice."""
        if max(self.factors) == 1:
            return []
        blocks = " x ".join(map(str, self.factors))
        what = "the mean over" if self.means else "one of"
        return [f"Shown at reduced size: each sample is {what} {blocks} of the signal's."]


def sampled(field: Field, original: GridSignal | None, most: int) -> Sampled:
    """Render a field on its own lattice, or one coarser by whole factors, of `most` samples."""
    from inr.rendering import render

    shape = field.domain.shape
    factor = 1
    while math.prod(math.ceil(n / factor) for n in shape) > most:
        factor += 1
    factors = tuple(min(factor, n) for n in shape)
    size = tuple(n // f for n, f in zip(shape, factors, strict=True))
    lengths = tuple(n * f for n, f in zip(size, factors, strict=True))
    decoded = render(field, size, crop=(*(0 for _ in shape), *lengths))
    if original is None:
        return Sampled(decoded, None, factors)
    truth = original.samples[tuple(slice(n) for n in lengths)]
    return Sampled(decoded, block_means(truth, factors), factors)


def block_means(samples: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Means over blocks, in the samples' type; the shape is a multiple of the factors."""
    if max(factors) == 1:
        return np.asarray(samples)
    size = [n // f for n, f in zip(samples.shape, factors, strict=False)]
    blocks = [n for pair in zip(size[1:], factors[1:], strict=True) for n in pair]
    inner = tuple(range(2, 2 * len(size), 2))
    made = np.empty((*size, samples.shape[-1]), samples.dtype)
    for i in range(size[0]):  # a row of blocks at a time: samples may lie in a large file
        rows = samples[i * factors[0] : (i + 1) * factors[0]].astype(np.float64)
        means = rows.reshape(factors[0], *blocks, -1).mean((0, *inner))
        made[i] = means if samples.dtype.kind == "f" else np.rint(means)
    return made


# ------------------------------------------------------------------------------- pictures


def eight_bits(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """Samples as bytes, `low` black and `high` white."""
    if samples.dtype == np.uint8 and (low, high) == (0, 255):
        return samples
    scaled = (samples.astype(np.float64) - low) * (255 / ((high - low) or 1))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def png(samples: np.ndarray, icc: bytes = b"") -> str:
    """A picture of shape (height, width, 1 to 4 channels), uint8, as a data URI."""
    import PIL.Image

    picture = PIL.Image.fromarray(samples.squeeze(-1) if samples.shape[-1] == 1 else samples)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **({"icc_profile": icc} if icc else {}))
    return data_uri("image/png", buffer.getvalue())


def coloured(values: np.ndarray, low: float, high: float, name: str) -> str:
    """Values of shape (height, width) under a colour map, as a PNG with a palette."""
    import PIL.Image

    picture = PIL.Image.fromarray(eight_bits(values, low, high))
    picture.putpalette(_colours(name).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return data_uri("image/png", buffer.getvalue())


def _colours(name: str) -> np.ndarray:
    """The colour map as 256 RGB triples, uint8."""
    stops = np.array([[int(s[i : i + 2], 16) for i in (1, 3, 5)] for s in PALETTE[name]])
    places = np.linspace(0, len(stops) - 1, 256)
    whole = [np.interp(places, range(len(stops)), stops[:, c]) for c in range(3)]
    return np.rint(np.stack(whole, -1)).astype(np.uint8)


def bar(name: str, low: float, high: float, unit: str = "") -> dict[str, str]:
    """The legend of a colour map."""
    return {"map": name, "low": number(low), "high": f"{number(high)} {unit}".strip()}


def error_map(error: np.ndarray, unit: str, *, highest: float | None = None) -> dict[str, Any]:
    """A pane of the mean absolute error over channels.

    Args:
        error: Shape (frames, height, width, channels).
        unit: Of the values.
        highest: Error at which colours end; see `ERRORS_SHOWN` if not given.
    """
    size = np.abs(error).mean(-1)
    top = float(np.quantile(size, ERRORS_SHOWN)) or float(size.max()) or 1.0
    top = top if highest is None else highest
    return {
        "name": "error",
        "label": "error (absolute, mean over channels)" if error.shape[-1] > 1 else "error",
        "frames": [coloured(frame, 0, top, "inferno") for frame in size],
        "bar": bar("inferno", 0, top, unit),
    }


def number(value: float) -> str:
    """A figure for a legend."""
    return f"{value:.4g}"


def data_uri(mime: str, data: bytes) -> str:
    """Data as an address that holds it."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


# -------------------------------------------------------------------------------- numbers


def deflated(values: np.ndarray) -> dict[str, str]:
    """Numbers for a script: float32 or uint32 as they are; uint16 by their small differences."""
    if values.dtype == np.uint16:
        steps = np.diff(values.ravel(), prepend=values.dtype.type(0))
        raw, name = np.stack([steps & 255, steps >> 8]).astype(np.uint8).tobytes(), "d2"
    else:
        name = {"f": "f4", "u": "u4"}[values.dtype.kind]
        raw = values.astype(f"<{name}").tobytes()
    return {"type": name, "data": base64.b64encode(zlib.compress(raw, 6)).decode()}


def lattice(
    name: str,
    samples: np.ndarray,
    limits: tuple[float, float],
    colours: str,
    shown: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A signal of the widget `slices`.

    Args:
        name: What it is called.
        samples: Shape (depth, height, width, channels).
        limits: Lowest and highest of them.
        colours: Colour map.
        shown: Values at its ends; those of the page's window if not given.
    """
    low, high = limits
    whole = samples.dtype.kind in "iu" and 0 < high - low <= LEVELS
    levels = round(high - low) if whole else LEVELS
    scale = levels / ((high - low) or 1)
    stored = np.rint((samples.astype(np.float64) - low).clip(0, high - low) * scale)
    return {
        "name": name,
        "low": low,
        "high": high,
        "levels": levels,
        "map": colours,
        "shown": shown,
        "channels": [deflated(channel.astype(np.uint16)) for channel in np.moveaxis(stored, -1, 0)],
    }


def slices(title: str, found: Sampled, look: Mapping[str, Any], colours: str) -> Section:
    """Original, decode and error of a lattice of two or three axes as slices.

    Args:
        title: Heading.
        found: The samples, of two or three axes.
        look: `spacing` and `names` per axis, and `planes`, names of the slices across it.
        colours: Colour map of the values.
    """

    def three(samples: np.ndarray) -> np.ndarray:
        return samples if samples.ndim == 4 else samples[None]

    shown = [("original", found.original), (found.name, found.decoded)]
    given = [(name, three(samples)) for name, samples in shown if samples is not None]
    limits = (
        min(float(samples.min()) for _, samples in given),
        max(float(samples.max()) for _, samples in given),
    )
    signals = [lattice(name, s, limits, colours) for name, s in given]
    if found.original is not None:
        error = three(found.error)
        error = error if found.decoded.dtype.kind == "f" else error.astype(np.int64)
        most = float(np.abs(error).max()) or 1.0
        usual = float(np.quantile(np.abs(error), ERRORS_SHOWN)) or most
        signals.append(lattice("error", error, (-most, most), "signed", (-usual, usual)))
    middle = given[0][1]
    window = np.quantile(middle, [0.001, 0.999]).tolist()
    if window[0] == window[1]:
        window = list(limits)
    spacing = [s * f for s, f in zip(look["spacing"], found.factors, strict=True)]
    data = {
        "shape": middle.shape[:3],
        "spacing": [1.0, *spacing][-3:],
        "names": ["", *look["names"]][-3:],
        "planes": ["", *look["planes"]][-3:],
        "window": window,
        "signals": signals,
    }
    return Section(title, "slices", data, found.notes)


# -------------------------------------------------------------------------------- spectra


def spectra(found: Sampled, side: int = SPECTRUM_SIDE) -> list[Section]:
    """Power by frequency of original, decode and error; for planes as pictures, too.

    Args:
        found: The samples.
        side: Pixels along a picture's sides at most.
    """
    import torch

    from apps.bench.shootout import radial_power

    found, notes = _middle(found)
    shown = [("original", found.original), (found.name, found.decoded)]
    given = [(name, samples.astype(np.float64)) for name, samples in shown if samples is not None]
    if found.original is not None:
        given.append(("error", found.error))
    if max(found.decoded.shape[:-1]) < 8:
        return []
    # bands are wider than a coefficient: rounding would leave some without one
    bins = max(2, min(128, *(3 * n // 8 for n in found.decoded.shape[:-1] if n >= 8)))
    curves = []
    for name, samples in given:
        centred = samples - samples.mean(tuple(range(samples.ndim - 1)))
        power = np.array(radial_power(torch.from_numpy(centred), bins))
        levels = 10 * np.log10(np.maximum(power, 1e-300))
        levels[power <= 1e-20 * power.max()] = np.nan  # nothing is there, or the mean alone
        colour = {"original": 0, found.name: 1, "error": 2}[name]
        curves.append(
            {"name": name, "colour": colour, "values": deflated(levels.astype(np.float32))}
        )
    data = {
        "label": "mean power by frequency",
        "x": [0, 1, "frequency / Nyquist"],
        "y": "dB",
        "series": curves,
    }
    sections = [Section("Power by frequency", "plot", data, notes)]
    if found.decoded.ndim == 3 and min(found.decoded.shape[:2]) >= 4:
        sections.append(_planes(given, side))
    return sections


def _middle(found: Sampled) -> tuple[Sampled, list[str]]:
    """The middle rows of what is too large, and a word on it."""
    rows = len(found.decoded)
    kept = max(1, SPECTRUM_NUMBERS * rows // max(found.decoded.size, 1))
    if kept >= rows:
        return found, []
    part = slice((rows - kept) // 2, (rows - kept) // 2 + kept)
    truth = None if found.original is None else found.original[part]
    cut = found._replace(decoded=found.decoded[part], original=truth)
    return cut, [f"Of the middle {kept} of {rows}."]


def _planes(given: Sequence[tuple[str, np.ndarray]], side: int) -> Section:
    """Pictures of log power, the zero frequency in the middle, all on one scale."""
    pictures = []
    for name, samples in given:
        grey = samples.mean(-1)
        power = np.square(np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean(), norm="ortho"))))
        factors = [math.ceil(n / side) for n in power.shape]
        kept = power[tuple(slice(n - n % f) for n, f in zip(power.shape, factors, strict=True))]
        pictures.append((name, block_means(kept[..., None], factors)[..., 0]))
    top = 10 * math.log10(max(float(power.max()) for _, power in pictures) or 1.0)
    panes = []
    for name, power in pictures:
        levels = 10 * np.log10(np.maximum(power, 1e-30))
        panes.append(
            {
                "name": name,
                "label": f"{name}: log power, zero frequency in the middle",
                "frames": [coloured(levels, top - SPECTRUM_RANGE, top, "inferno")],
                "bar": bar("inferno", round(top - SPECTRUM_RANGE), round(top), "dB"),
            }
        )
    height, width = pictures[0][1].shape
    # both axes run from -1 to 1 in parts of Nyquist's frequency
    data = {"size": [width, height], "aspect": width / height, "panes": panes}
    return Section("Fourier spectra", "panes", data)
