"""Do files keep what was asked for? Forty pairs of a small signal and a target, of every kind.

    python benchmarks/targets.py [--shared DIR] [--only TEXT] [--write docs/benchmarks/targets.md]

Fits are short (effort 1, few steps): what is measured is where files land, not how good they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import ROOT, machine, table

import inr
from inr import presets
from inr.codec.decode import decode
from inr.errors import TargetNotReached
from inr.presets import Preset
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.base import Signal
from inr.signals.image import Image
from inr.signals.shape import Shape
from inr.signals.video import Video
from inr.signals.volume import Volume

SHARED = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data"


class Pair(NamedTuple):
    """A signal, the field that is to hold it, and a target."""

    signal: str
    field: str
    target: dict[str, float]


class Row(NamedTuple):
    """What became of a pair."""

    pair: Pair
    bytes: int
    value: float
    limit: float
    kept: bool
    used: float | None
    fits: int
    seconds: float


def picture(name: str, place: tuple[slice, slice]) -> Callable[[Path], Signal]:
    def opened(shared: Path) -> Signal:
        path = ROOT / "assets" / name if (ROOT / "assets" / name).exists() else shared / name
        return Image.from_array(np.ascontiguousarray(inr.open(path).samples[place]))

    return opened


def sound(name: str, start: int, count: int) -> Callable[[Path], Signal]:
    def opened(shared: Path) -> Signal:
        whole = inr.open(shared / "audio" / name)
        return Audio.from_array(whole.samples[start : start + count], whole.domain.rate)

    return opened


def clip(shared: Path) -> Signal:
    whole = inr.open(shared / "video" / "carphone_60f_176x144.npz")
    return Video.from_array(np.ascontiguousarray(whole.samples[:8, 40:88, 50:114]))


def volume(shared: Path) -> Signal:
    samples = inr.open(shared / "volume" / "stent_ct.npz").samples[..., 0]
    middle = tuple(slice(n // 2 - 16, n // 2 + 16) for n in samples.shape)
    return Volume.from_array(np.ascontiguousarray(samples[middle]))


def shape(shared: Path) -> Signal:
    from inr.meshes import read_mesh

    return Shape.from_mesh(read_mesh(shared / "mesh" / "3holes.off"), samples=1 << 15, detail=48)


def array(shared: Path) -> Signal:
    samples = inr.open(shared / "kodak" / "kodim05.png").samples[100:148, 200:248]
    return ArraySignal.from_array(samples[..., 1].astype(np.float64) / 3)


SIGNALS: dict[str, Callable[[Path], Signal]] = {
    "camera 96 x 96": picture("camera.png", (slice(60, 156), slice(180, 276))),
    "astronaut 64 x 64": picture("astronaut.png", (slice(60, 124), slice(190, 254))),
    "kodim03 96 x 72": picture("kodak/kodim03.png", (slice(200, 272), slice(120, 216))),
    "kodim05 64 x 64": picture("kodak/kodim05.png", (slice(200, 264), slice(120, 184))),
    "speech 1 s": sound("libri_3s_recombiner.wav", 16000, 16000),
    "music 0.5 s": sound("gt_bach.wav", 22050, 11025),
    "clip 8 x 48 x 64": clip,
    "CT 32 x 32 x 32": volume,
    "solid": shape,
    "array 48 x 48": array,
}

STEPS = {"grid": 200, "siren": 800, "finr": None, "windows": 400, "doh": 800}
"""Of the preset's recipe, of which effort 1 takes a quarter; None: as the preset has it."""

PAIRS = (
    *(Pair("camera 96 x 96", "grid", {"bpp": b}) for b in (0.25, 1.0, 3.0)),
    *(Pair("camera 96 x 96", "grid", {"psnr": q}) for q in (25, 32, 40)),
    *(Pair("camera 96 x 96", "siren", {"bytes": b}) for b in (800, 3000)),
    Pair("camera 96 x 96", "finer", {"bytes": 2000}),
    Pair("astronaut 64 x 64", "grid", {"bytes": 1500}),
    Pair("astronaut 64 x 64", "siren", {"bpp": 4.0}),
    Pair("astronaut 64 x 64", "siren", {"psnr": 22}),
    Pair("astronaut 64 x 64", "finr", {"bytes": 2500}),
    Pair("astronaut 64 x 64", "finr", {"psnr": 24}),
    Pair("astronaut 64 x 64", "doh", {"bytes": 1200}),
    Pair("astronaut 64 x 64", "wire", {"bytes": 3000}),
    Pair("kodim03 96 x 72", "grid", {"bpp": 0.5}),
    Pair("kodim03 96 x 72", "grid", {"psnr": 30}),
    Pair("kodim03 96 x 72", "doh", {"psnr": 24}),
    Pair("kodim03 96 x 72", "rff", {"bytes": 2500}),
    Pair("kodim05 64 x 64", "grid", {"bytes": 500}),
    Pair("kodim05 64 x 64", "grid", {"psnr": 28}),
    Pair("kodim05 64 x 64", "siren", {"psnr": 18}),
    Pair("kodim05 64 x 64", "wavelet", {"bytes": 2500}),
    *(Pair("speech 1 s", "windows", {"kbps": r}) for r in (8, 24)),
    Pair("speech 1 s", "windows", {"snr": 4}),
    Pair("speech 1 s", "siren", {"bytes": 2000}),
    Pair("music 0.5 s", "windows", {"kbps": 40}),
    Pair("music 0.5 s", "windows", {"psnr": 25}),
    *(Pair("clip 8 x 48 x 64", "finr", {"kbps": r}) for r in (60, 200)),
    *(Pair("clip 8 x 48 x 64", "finr", {"psnr": q}) for q in (28, 36)),
    *(Pair("CT 32 x 32 x 32", "finr", {"bpp": b}) for b in (0.5, 2.0)),
    Pair("CT 32 x 32 x 32", "finr", {"psnr": 34}),
    Pair("solid", "siren", {"bytes": 4000}),
    Pair("solid", "siren", {"iou": 0.9}),
    Pair("array 48 x 48", "siren", {"bytes": 1500}),
)


def preset_of(field: str, kind: str) -> Preset:
    preset = presets.for_field(kind, field)
    steps = STEPS.get(field, 400)
    if steps is None:
        return preset
    return dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, steps=steps))


def run(pair: Pair, shared: Path, effort: int = 1) -> Row:
    """Compress, and judge the file by its bytes alone."""
    signal = SIGNALS[pair.signal](shared)
    preset = preset_of(pair.field, signal.domain.kind)
    begin = time.perf_counter()
    found: Any = inr.compress(signal, preset, effort=effort, **pair.target)
    seconds = time.perf_counter() - begin
    target = found.target
    metrics = signal.metrics(decode(found.data))
    size = len(found.data)
    if target.is_size:
        kept, used = size <= target.value, size / target.value
        return Row(pair, size, size, target.value, kept, used, len(found.trials), seconds)
    value = metrics[target.measure]
    kept = value >= target.value
    return Row(pair, size, value, target.value, kept, None, len(found.trials), seconds)


def lines(rows: list[Row]) -> Iterator[list[str]]:
    for row in rows:
        (name, asked), *_ = row.pair.target.items()
        if row.used is None:
            got = f"{row.value:.4g}"
            used = ""
        else:
            got = f"{row.bytes:,} of {row.limit:,.0f} bytes"
            used = f"{100 * row.used:.1f} %"
        kept = "yes" if row.kept else "NO"
        facts = [row.pair.signal, row.pair.field, f"{name} {asked:g}", got, f"{row.bytes:,}"]
        yield [*facts, used, kept, str(row.fits), f"{row.seconds:.0f}"]


HEAD = ["signal", "field", "target", "reached", "bytes", "used", "kept", "fits", "s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    failed: list[str] = []
    for pair in PAIRS:
        if args.only not in f"{pair.signal} {pair.field} {pair.target}":
            continue
        try:
            rows.append(run(pair, args.shared))
            print(" | ".join(next(lines(rows[-1:]))), flush=True)
        except TargetNotReached as error:
            failed.append(f"{pair.signal}, {pair.field}, {pair.target}: {error}")
            print(failed[-1], flush=True)
    sizes = [row.used for row in rows if row.used is not None]
    summary = (
        f"{len(rows) + len(failed)} pairs, {len(sizes)} of them with a size: "
        f"{sum(not row.kept for row in rows)} on the wrong side, {len(failed)} without a file; "
        f"least of the allowed bytes used {100 * min(sizes, default=1):.1f} %."
    )
    print(summary)
    if args.write:
        text = [PREFACE, f"Machine: {machine()}.\n", summary + "\n"]
        args.write.write_text("\n".join([*text, table(HEAD, list(lines(rows)))]) + "\n")


PREFACE = """# Do files keep their targets?

`python benchmarks/targets.py --write docs/benchmarks/targets.md` compresses small pieces of real
signals of every kind by several fields, each to a size or a quality (`inr.compress`, effort 1 of
shortened recipes, one thread), then judges the bytes of the file alone: its length, and the measure
of what `inr.decode` makes of it. Sizes must never be over, qualities never under, and at least 95 %
of the bytes that were allowed should be used. How good a field is for its bytes is not the question
here: the fits are short. Seconds are of a busy machine.
"""


if __name__ == "__main__":
    main()
