"""Signals to try the studio with, which come with it: no network is needed."""

from __future__ import annotations

from pathlib import Path

from inr.errors import InputError, UsageError

ASSETS = Path(__file__).parents[2] / "assets"

EXAMPLES: dict[str, tuple[str, str]] = {
    "camera": ("camera.png", "A cameraman in grey, 512 x 512: edges, grass and a smooth sky."),
    "astronaut": ("astronaut.png", "A portrait in colour, 512 x 512."),
    "coffee": ("coffee.png", "A cup of coffee in colour, 600 x 400."),
    "bell": ("bell.flac", "A bell that is struck three times: four seconds, mono, 22,050 Hz."),
    "knot": ("knot.ply", "A trefoil knot: a closed mesh of 4,800 triangles."),
    "phantom": ("phantom.nii.gz", "A head of ellipsoids, 72 x 88 x 68 voxels of 2 mm."),
    "ball": ("ball.npz", "A bouncing ball: 32 frames of 96 x 64, two seconds."),
    "waves": ("waves.npz", "Waves behind two slits: a plane of 128 x 160 numbers."),
    "camera.inr": ("camera.inr", "The cameraman as an .inr file of half a bit per pixel."),
}
"""By name: the file in `assets/`, and a line for people."""


def path_of(name: str) -> Path:
    """Where an example lies.

    Raises:
        UsageError: there is none of that name.
        InputError: its file is missing.
    """
    if name not in EXAMPLES:
        raise UsageError(f"no example is named {name!r}: choose from {', '.join(EXAMPLES)}")
    path = ASSETS / EXAMPLES[name][0]
    if not path.is_file():
        raise InputError(f"{path.name}: is missing among the assets: install the package anew")
    return path
