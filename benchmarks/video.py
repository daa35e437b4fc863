"""Clips from end to end: F-INR's start in cosines at several qualities, and one SIREN.

Each is fitted and encoded as `inr fit` does, with the preset of its name. PSNR is that of the
8-bit decode, R = 255, over all samples, as the file has it. The peak of memory is the process's
own up to then, so that the largest clip comes last.

    python benchmarks/video.py [--only bikes_32f] [--seconds 180] [--threads 2]

Clips are read from $INR_SHARED, ../shared if unset.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import time
from pathlib import Path

import torch
from common import ROOT, machine, table

import inr
from inr import presets
from inr.codec.decode import inspect
from inr.codec.encode import encode
from inr.fitting.fit import build_field
from inr.presets import Preset
from inr.signals.base import Signal

CLIPS = {
    "carphone_60f": "carphone_60f_176x144.npz",
    "bikes_32f": "bikes_32f_320x136.npz",
    "bikes": "bikes.mp4",
}
"""By short name, the file."""


def contestants(seconds: float) -> dict[str, tuple[Preset, float | None]]:
    """By label, a preset and the seconds of training that it gets behind its start."""
    default = presets.load("video/finr")
    tucker = default.hyperparameters | {"decomposition": "tucker"}
    found: dict[str, tuple[Preset, float | None]] = {"default": (default, None)}
    for target in (30.0, 33.0, 39.0):
        given = default.hyperparameters | {"start_psnr": target}
        found[f"start_psnr {target:g}"] = (Preset("finr", given, default.recipe), None)
    found["default, 30 s of Adam"] = (default, 30.0)
    found["Tucker"] = (Preset("finr", tucker, default.recipe), None)
    exact = dataclasses.replace(default.recipe, quantize_db=0.0)
    found["rounded to within 0.1 dB"] = (Preset("finr", default.hyperparameters, exact), None)
    found["SIREN 256x3"] = (presets.load("video/siren"), seconds)
    return found


def run(signal: Signal, preset: Preset, seconds: float | None) -> list[str]:
    """Fit and encode; the cells of a row of the table."""
    begin = time.perf_counter()
    build_field(signal, preset, 0)
    start = time.perf_counter() - begin
    # the same again: a fit's own clock starts behind it
    fit = inr.fit(signal, preset, seconds=seconds, device="cpu")
    begin = time.perf_counter()
    data = encode(fit.field, signal, rounding=fit.rounding)
    encoding = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return [
        f"{inspect(data).psnr:.2f} dB",
        f"{len(data):,}",
        f"{start + fit.seconds:.1f} s",
        f"{encoding:.1f} s",
        f"{peak:,.0f} MiB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=tuple(CLIPS))
    parser.add_argument("--seconds", type=float, default=180.0, help="of SIREN's training")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine(), flush=True)
    root = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data" / "video"
    for name, file in CLIPS.items():
        if args.only not in (None, name):
            continue
        signal = inr.open(root / file)
        rows = []
        for label, (preset, seconds) in contestants(args.seconds).items():
            if name == "bikes" and label not in ("default", "start_psnr 30"):
                continue  # the bounds decide, and the others take long
            rows.append([label, *run(signal, preset, seconds)])
            print("  ".join(rows[-1]), flush=True)
        head = [name, "PSNR", "bytes", "fit", "encoding", "peak memory"]
        print("\n" + table(head, rows) + "\n", flush=True)


if __name__ == "__main__":
    main()
