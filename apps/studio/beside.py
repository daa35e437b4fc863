"""Several decodes of one signal beside each other and the original, as the page shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.studio.live.base import View
from apps.view.page import Section, within
from apps.view.pieces import ERRORS_SHOWN, Sampled, bar, error_map, sampled, spectra

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Signal

BYTES_PER_VALUE = 0.8
"""What a value of a picture's pixels costs in a page, about; those of errors have one."""

FRAMES = 24
"""Frames of a clip that are shown, at most."""

RESOLUTION = 96
"""Cells per axis of the surfaces of shapes."""

GREY = np.full((1, 1, 1), 128, np.uint8)
"""Stands for what is not there yet."""


@dataclass(frozen=True)
class Decode:
    """One of the decodes.

    Args:
        name: What people call it; no two have the same.
        told: A few words on it: its quality, its size, or that it is to come.
        made: A field that has a domain, or the samples of the whole signal in its own type, of
            which channels may be missing; None where there is nothing yet.
    """

    name: str
    told: str
    made: Field | np.ndarray | None


def beside(signal: Signal, decodes: Sequence[Decode], room: int) -> list[Section]:
    """What is shown of all decodes together.

    Args:
        signal: What they are of.
        decodes: The decodes, in order.
        room: Bytes that the sections may weigh, about.

    Returns:
        Sections of the same titles and panes whatever is still to come; for kinds other than
        pictures none while nothing is there.
    """
    kind = signal.domain.kind
    there = [one for one in decodes if one.made is not None]
    if kind == "image":
        return within(room, lambda share: _pictures(signal, decodes, share))
    if not there:
        return []
    build = {"audio": _sounds, "video": _clips, "shape": _shapes}.get(kind, _merged)
    return within(room, lambda share: build(signal, there, share))


class BesideView(View):
    """A field that is being fitted, beside what others have become.

    Args:
        inner: What is shown of it alone.
        base: Sections of `beside`, in which it is still to come.
        name: What it is called there.
        ahead: Sections that come after those of `base` and before its own.
    """

    def __init__(
        self, inner: View, base: Sequence[Section], name: str, ahead: Sequence[Section]
    ) -> None:
        super().__init__()
        self.inner = inner
        self.base = list(base)
        self.name = name
        self.ahead = list(ahead)
        self.controls = inner.controls

    def sections(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        return self.frame(field, points, look)

    def frame(self, field: Field, points: int, look: Mapping[str, Any]) -> list[Section]:
        made = self.inner.sections(field, points, look)
        base = self.base
        if base and base[0].title == made[0].title == "Picture":
            base, made = [self._merged(made[0]), *base[1:]], made[1:]
        own = [
            Section(f"{self.name}, now: {part.title}", part.widget, part.data, part.notes)
            for part in made
        ]
        return [*base, *self.ahead, *own]

    def _merged(self, own: Section) -> Section:
        """The pictures of all, with the live one and its error in their places."""
        live = {pane["name"]: pane for pane in own.data["panes"]}
        told = {
            self.name: ("fit", f"{self.name}: as it is now"),
            error_of(self.name): ("error", f"{error_of(self.name)}, now, on a scale of its own"),
        }
        panes = []
        for pane in self.base[0].data["panes"]:
            if pane["name"] in told:
                source, label = told[pane["name"]]
                pane = live[source] | {"name": pane["name"], "label": label}
            panes.append(pane)
        part = self.base[0]
        return Section(part.title, part.widget, {**part.data, "panes": panes}, part.notes)


def error_of(name: str) -> str:
    """What a pane of errors is called."""
    return f"error of {name}"


# ------------------------------------------------------------------------------- pictures


def _pictures(signal: Any, decodes: Sequence[Decode], room: int) -> list[Section]:
    """All pictures in panes of one zoom; errors on one scale; the power of the errors."""
    from apps.view.image import picture

    domain = signal.domain
    most = _pixels(domain.channels, len(decodes), room)
    found = [_picture(signal, one, most) for one in decodes]
    truth = next((one.original for one in found if one is not None), None)
    if truth is None:
        truth = sampled_truth(signal, most)
    scale = _common([one.error for one in found if one is not None])
    panes = [picture("original", truth, domain)]
    errors = []
    unit = "" if domain.depth == 32 else f"of {domain.high:.0f}"
    for one, samples in zip(decodes, found, strict=True):
        label = f"{one.name}: {one.told}"
        name = error_of(one.name)
        if samples is None:
            panes.append(_empty(one.name, label))
            errors.append(_empty(name, f"{name}: to come") | {"bar": bar("inferno", 0, scale)})
            continue
        panes.append(picture(one.name, samples.decoded, domain) | {"label": label})
        errors.append(
            error_map(samples.error[None], unit, highest=scale) | {"name": name, "label": name}
        )
    height, width = domain.shape
    data: dict[str, Any] = {
        # the source's size, whatever the pictures' is: zoom and divider stay where they are
        "size": [width, height],
        "panes": [*panes, *errors],
        "clear": domain.channels in (2, 4),
        "compare": [1, 2] if len(decodes) > 1 else [0, 1],
    }
    there = [one for one in found if one is not None]
    notes = list(there[0].notes) if there else []
    notes.append("All errors that are settled have one scale, so that their colours compare.")
    sections = [Section("Picture", "panes", data, notes)]
    if len(there) == len(decodes):
        sections += _error_power(
            [(one.name, s) for one, s in zip(decodes, found, strict=True) if s is not None]
        )
    return sections


def _pixels(channels: int, count: int, room: int) -> int:
    """Pixels of each picture: the original, and so many decodes and their errors."""
    return max(1, int(room / (BYTES_PER_VALUE * (channels * (1 + count) + count))))


def sampled_truth(signal: Any, most: int) -> np.ndarray:
    """The original's means over blocks, as `sampled` has them."""
    factor = _factor(signal.domain.shape, most)
    return _blocks(signal.samples, signal.domain.shape, factor)


def _picture(signal: Any, one: Decode, most: int) -> Sampled | None:
    if one.made is None:
        return None
    if not isinstance(one.made, np.ndarray):
        return sampled(one.made, signal, most)
    shape = signal.domain.shape
    factor = _factor(shape, most)
    # of a picture with an opaque alpha channel other codecs hold the colours
    truth = _blocks(signal.samples[..., : one.made.shape[-1]], shape, factor)
    factors = tuple(min(factor, n) for n in shape)
    return Sampled(_blocks(one.made, shape, factor), truth, factors)


def _factor(shape: Sequence[int], most: int) -> int:
    """By how much a lattice is made coarser, as `apps.view.pieces.sampled` does it."""
    factor = 1
    while math.prod(math.ceil(n / factor) for n in shape) > most:
        factor += 1
    return factor


def _blocks(samples: np.ndarray, shape: Sequence[int], factor: int) -> np.ndarray:
    from apps.view.pieces import block_means

    factors = [min(factor, n) for n in shape]
    kept = tuple(slice(n // f * f) for n, f in zip(shape, factors, strict=True))
    return block_means(samples[kept], factors)


def _empty(name: str, label: str) -> dict[str, Any]:
    from apps.view.pieces import png

    return {"name": name, "label": label, "frames": [png(GREY)]}


def _common(errors: Sequence[np.ndarray]) -> float:
    """The error at which the colours of all maps end."""
    tops = [float(np.quantile(np.abs(error).mean(-1), ERRORS_SHOWN)) for error in errors]
    return max(tops, default=0.0) or 1.0


def _error_power(given: Sequence[tuple[str, Sampled]]) -> list[Section]:
    """Power by frequency of the original and of each error, in one plot."""
    series: list[dict[str, Any]] = []
    base: Section | None = None
    for i, (name, found) in enumerate(given):
        parts = [part for part in spectra(found) if part.widget == "plot"]
        for part in parts:
            base = base or part
            by_name = {one["name"]: one for one in part.data["series"]}
            if not series:
                series.append(by_name["original"])
            series.append(by_name["error"] | {"name": error_of(name), "colour": i + 1})
    if base is None:
        return []
    return [Section("Power of the errors by frequency", "plot", {**base.data, "series": series})]


# ---------------------------------------------------------------------- sounds and clips


def _sounds(signal: Any, decodes: Sequence[Decode], room: int) -> list[Section]:
    """Players, waves and spectrograms of the first seconds; the power of the errors."""
    from apps.view.audio import floats, played, spectrograms
    from inr.signals.audio import render_audio

    domain = signal.domain
    heard = min(domain.channels, 2)
    # base64 takes 4 bytes for 3; spectrograms take the rest
    length = int(room * 0.6 / (2 * heard * (1 + len(decodes))))
    length = min(domain.samples, max(1, length))

    def samples_of(made: Any) -> np.ndarray:
        if isinstance(made, np.ndarray):
            return made[:length]
        return render_audio(made, end=length / domain.rate)[:length]

    truth = floats(signal.samples[:length], domain)
    given = [("original", truth, 0)]
    given += [(one.name, floats(samples_of(one.made), domain), i + 1)
              for i, one in enumerate(decodes)]  # fmt: skip
    loudest = max(1.0, *(float(np.abs(samples).max()) for _, samples, _ in given))
    data = played([(name, s / loudest, colour) for name, s, colour in given], domain.rate)
    means = [(name, samples.mean(-1)) for name, samples, _ in given]
    data["spectrograms"] = spectrograms(means, domain.rate)
    notes = [f"{one.name}: {one.told}." for one in decodes]
    if length < domain.samples:
        notes.append(f"The first {length / domain.rate:.2f} of {domain.seconds:.2f} seconds.")
    if loudest > 1:
        notes.append(f"It goes beyond full scale: all are played {loudest:.2f} times softer.")
    pairs = [(name, Sampled(s, truth, (1,))) for name, s, _ in given[1:]]
    return [Section("Sound", "sound", data, notes), *_error_power(pairs)]


def _clips(signal: Any, decodes: Sequence[Decode], room: int) -> list[Section]:
    """Frames at equal distances; errors on one scale."""
    from apps.view.pieces import block_means, eight_bits, png
    from inr.signals.video import frames_of

    domain = signal.domain
    step = math.ceil(domain.frames / FRAMES)
    chosen = range(0, domain.frames, step)
    pixels = _pixels(domain.channels, len(decodes), room // len(chosen))
    factor = _factor((domain.height, domain.width), pixels)
    factors = (min(factor, domain.height), min(factor, domain.width))
    size = (domain.height // factors[0], domain.width // factors[1])
    rows, columns = size[0] * factors[0], size[1] * factors[1]
    whole = (0.0, 0.0, float(rows), float(columns))

    def frames_at(made: Any) -> np.ndarray:
        one = (next(iter(frames_of(made, size, (1, float(k), 1.0), whole))) for k in chosen)
        return np.stack(list(one))

    kept = [signal.samples[k : k + 1, :rows, :columns] for k in chosen]
    truth = np.concatenate([block_means(frame, (1, *factors)) for frame in kept])
    found = [Sampled(frames_at(one.made), truth, (1, *factors)) for one in decodes]
    scale = _common([one.error for one in found])

    def pane(name: str, label: str, samples: np.ndarray) -> dict[str, Any]:
        frames = [png(eight_bits(frame, 0, domain.peak)) for frame in samples]
        return {"name": name, "label": label, "frames": frames}

    panes = [pane("original", "original", truth)]
    errors = []
    for one, samples in zip(decodes, found, strict=True):
        panes.append(pane(one.name, f"{one.name}: {one.told}", samples.decoded))
        name = error_of(one.name)
        shown = error_map(samples.error, f"of {domain.peak:.0f}", highest=scale)
        errors.append(shown | {"name": name, "label": name})
    rate = float(domain.rate)
    data = {
        "size": [domain.width, domain.height],
        "panes": [*panes, *errors],
        "compare": [1, 2] if len(decodes) > 1 else [0, 1],
        "stack": {
            "label": "frame",
            "fps": rate / step,
            "names": [f"{k}, {k / rate:.2f} s" for k in chosen],
        },
    }
    notes = ["All errors have one scale."]
    if step > 1:
        notes.append(f"One frame in {step} is here.")
    return [Section("Clip", "panes", data, notes)]


# ------------------------------------------------------------- shapes, volumes, arrays


def _shapes(signal: Any, decodes: Sequence[Decode], room: int) -> list[Section]:
    """All surfaces, which turn together, coloured by their distance to the original."""
    from apps.view.pieces import deflated
    from apps.view.shape import BYTES_PER_FACE, DISTANCES_SHOWN, packed, simplified
    from inr.signals.shape import Shape
    from inr.surface import extract

    domain = signal.domain
    most = max(64, room // (BYTES_PER_FACE * (1 + len(decodes))))
    solid = signal.solid if isinstance(signal, Shape) else None
    given: list[tuple[str, tuple[np.ndarray, np.ndarray]]] = []
    notes = []
    if solid is not None:
        given.append(("original", simplified(solid.vertices, solid.faces, most)))
    for one in decodes:
        field: Any = one.made
        surface = extract(field, RESOLUTION, thickness=domain.thickness).oriented(domain.outward)
        if not len(surface.faces):
            notes.append(f"{one.name}: {one.told}; it has no surface.")
            continue
        notes.append(f"{one.name}: {one.told}.")
        given.append((one.name, simplified(domain.to_units(surface.vertices), surface.faces, most)))
    if not given:
        return [Section("Surfaces", "table", {"columns": ["Surfaces"], "rows": []}, notes)]
    points = np.concatenate([vertices for _, (vertices, _) in given])
    low, high = points.min(0), points.max(0)
    first = given[0][1][0]
    meshes = [packed(name, mesh, (low, high)) for name, mesh in given]
    data: dict[str, Any] = {
        "low": low.tolist(),
        "high": high.tolist(),
        "focus": [first.min(0).tolist(), first.max(0).tolist()],
        "meshes": meshes,
    }
    if solid is not None and len(given) > 1:
        distances = [solid.distance(vertices) for _, (vertices, _) in given[1:]]
        top = max(float(np.quantile(away, DISTANCES_SHOWN)) for away in distances) or 1.0
        for mesh, away in zip(meshes[1:], distances, strict=True):
            places = np.rint((away / top).clip(0, 1) * 65535).astype(np.uint16)
            mesh["values"] = deflated(places)
        share = f"or more ({100 * top / solid.diagonal:.2g} % of the diagonal)"
        data["bar"] = bar("viridis", 0, top, share) | {"name": "distance to the original"}
    notes.append(f"Surfaces are drawn with {RESOLUTION} cells per axis.")
    return [Section("Surfaces", "mesh", data, notes)]


def _merged(signal: Any, decodes: Sequence[Decode], room: int) -> list[Section]:
    """Slices or curves, as the pages of `inr view` have them of each."""
    from importlib import import_module

    shown: Any = import_module(f"apps.view.{signal.domain.kind}").sections
    first: Section | None = None
    parts: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    key = ""
    for i, one in enumerate(decodes):
        part: Section = shown(one.made, signal, room // len(decodes))[0]
        key = "signals" if part.widget == "slices" else "series"
        for item in part.data[key]:
            name, _, channel = item["name"].partition(", ")
            rest = f", {channel}" if channel else ""
            if name == "error":
                errors.append(item | {"name": error_of(one.name) + rest, "colour": i + 1})
            elif name == "original":
                if first is None:
                    parts.append(item)
            else:
                parts.append(item | {"name": one.name + rest, "colour": i + 1})
        first = first or part
    assert first is not None
    if key == "signals" and errors:
        usual = max(one["shown"][1] for one in errors)
        errors = [one | {"shown": (-usual, usual)} for one in errors]
    notes = [*first.notes, *(f"{one.name}: {one.told}." for one in decodes)]
    return [Section(first.title, first.widget, {**first.data, key: [*parts, *errors]}, notes)]
