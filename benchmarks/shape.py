"""Meshes from end to end: fitted and encoded as `inr fit` does, measured on the decoded file.

IoU at the level 0, Chamfer distance in shares of the diagonal, and normal consistency are those of
`Shape.metrics`, on the field as the file has it. The surface is that of `inr decode`, in 256 cells
per axis: how many parts it has, and whether it is closed.

    python benchmarks/shape.py [--only armadillo] [--steps 3000] [--threads 2]
    python benchmarks/shape.py --large     # a million faces: loading, inspecting, drawing points

Meshes are read from $INR_SHARED, ../shared if unset.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import torch
import trimesh
from common import ROOT, machine, table

import inr
from inr.codec.encode import encode
from inr.meshes import read_mesh, write_mesh
from inr.signals.shape import RESOLUTION, open_shape
from inr.surface import extract

MESHES = (
    "armadillo.obj", "stanford-bunny.obj", "camelhead.off", "suzanne.obj", "spot.obj",
    "3holes.off", "fandisk.obj",
)  # fmt: skip


def run(path: Path, steps: int | None) -> list[str]:
    """The cells of one mesh's row."""
    begin = time.perf_counter()
    signal = open_shape(path)
    opening = time.perf_counter() - begin
    fit = inr.fit(signal, steps=steps, device="cpu")
    begin = time.perf_counter()
    data = encode(fit.field, signal)
    encoding = time.perf_counter() - begin
    field = inr.decode(data)
    found = signal.metrics(field)
    begin = time.perf_counter()
    surface = extract(field, RESOLUTION, thickness=signal.domain.thickness)
    extracting = time.perf_counter() - begin
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    parts = len(mesh.split(only_watertight=False))
    print(f"{path.name}: {'; '.join(signal.notes)}", flush=True)
    return [
        f"{found['iou']:.4f}",
        f"{100 * found['chamfer_share']:.4f} %",
        f"{found['normal_consistency']:.4f}",
        f"{found['psnr']:.2f} dB",
        f"{len(data):,}",
        f"{opening:.1f} s",
        f"{fit.seconds:.1f} s",
        f"{encoding:.1f} s",
        f"{extracting:.1f} s",
        f"{parts}{'' if mesh.is_watertight else ', open'}",
        f"{surface.visited:.1%}",
    ]


def large(path: Path) -> None:
    """Seconds that a mesh of more than a million faces takes before its fit."""
    mesh = read_mesh(path)
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    while len(whole.faces) < 1_000_000:
        whole = whole.subdivide()
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".ply", ".obj"):
            target = Path(folder) / f"large{suffix}"
            write_mesh(target, whole.vertices, whole.faces)
            begin = time.perf_counter()
            signal = open_shape(target)
            opened = time.perf_counter()
            signal.random_batch(8192, torch.Generator().manual_seed(0))
            drawn = time.perf_counter()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            print(
                f"{len(whole.faces):,} faces of {suffix}, {target.stat().st_size / 2**20:.0f} MB: "
                f"read and inspected in {opened - begin:.1f} s, {signal.count:,} points drawn in "
                f"{drawn - opened:.1f} s; at most {peak:,.0f} MB so far",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one mesh, by a part of its name")
    parser.add_argument("--steps", type=int, help="optimiser steps; the preset's if not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="load and sample a million faces")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data" / "mesh"
    print(machine())
    if args.large:
        large(folder / "armadillo.obj")
        return
    names = [name for name in MESHES if args.only is None or args.only in name]
    header = [
        "mesh", "IoU", "Chamfer / diagonal", "normals", "PSNR", "bytes", "opened", "fitted",
        "encoded", "extracted", "parts", "visited",
    ]  # fmt: skip
    print(table(header, [[name, *run(folder / name, args.steps)] for name in names]))


if __name__ == "__main__":
    main()
