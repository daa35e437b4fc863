"""Make the golden files of the current format version, once; afterwards they never change.

    python tests/make_golden.py

Refuses to replace a file: a new version of the format gets new names beside the old ones.
"""

import json
import shutil
import sys
import zlib
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import imageio.v3
import numpy as np
import trimesh

import inr
from inr.codec import format as container
from inr.codec import metadata
from inr.codec.decode import inspect
from inr.codec.encode import encode
from inr.meshes import make_mesh
from inr.presets import Preset, Recipe
from inr.signals.array import ArraySignal
from inr.signals.audio import Audio
from inr.signals.exif import cleaned
from inr.signals.image import Image
from inr.signals.shape import Shape
from inr.signals.video import Video
from inr.signals.volume import Volume
from tests.conftest import ASSETS, ROOT
from tests.test_images import WIDE_RGB
from tests.test_metadata import camera_exif
from tests.test_robust import golden_facts

GOLDEN = ROOT / "tests" / "golden"


def main() -> None:
    coffee = np.asarray(imageio.v3.imread(ASSETS / "coffee.png"))[170:210, 240:295]
    camera = np.asarray(imageio.v3.imread(ASSETS / "camera.png"))[100:148, 200:264]
    alpha = np.linspace(0, 65535, coffee[..., :1].size).reshape(coffee[..., :1].shape)
    deep = np.concatenate([coffee.astype(np.uint16) * 257, alpha.astype(np.uint16)], -1)
    siren = Preset("siren", {"hidden_features": 24, "hidden_layers": 2}, Recipe(lr=2e-3))
    hashed = Preset("grid", {"resolution": [48, 64], "levels": 4, "log2_table": 9}, Recipe(lr=0.01))
    small = {"hidden_features": 24, "hidden_layers": 2}
    coded = {"target_options": small, "latents": 500}
    samples = {
        "doh-rgb8": (coffee, Preset("doh", coded, Recipe(lr=0.01, quantize_db=1.0))),
        "finr-tt-rgb8": (
            coffee,
            Preset(
                "finr", {"decomposition": "tt", "rank": 8, "base_options": small}, Recipe(lr=1e-3)
            ),
        ),
        "finr-tucker-grey8": (
            camera,
            Preset(
                "finr",
                {"decomposition": "tucker", "rank": 8, "base_options": small, "encoding": "pe"}
                | {"lowest": 0, "highest": 4, "channel_factors": "shared"},
                Recipe(lr=1e-3),
            ),
        ),
        "multistage-grey8": (
            camera,
            Preset(
                "multistage",
                {"stages": 2, "base_options": {"hidden_features": 24}},
                Recipe(lr=1e-3),
            ),
        ),
        "pranc-grey8": (camera, Preset("pranc", coded, Recipe(lr=0.01))),
        "siren-rgb8": (coffee, siren),
        "windows-grey8": (
            camera,
            Preset(
                "windows",
                {"count": 4, "base_options": small | {"init": "spectrum"}},
                Recipe(lr=2e-3),
            ),
        ),
        "grid-grey8": (camera, "grid"),
        "grid-hashed-grey8": (camera, hashed),
        "grid-rgba16": (deep, "grid"),
        "grid-float": (coffee[..., 0].astype(np.float32) / 100 - 0.5, "grid"),
        "grid-icc-rgb8": (coffee, "grid"),
    }
    t = np.arange(2000) / 8000
    sound = np.rint(12000 * np.sin(2 * np.pi * (200 + 900 * t) * t)).astype(np.int16)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (10, 12, 14)), indexing="ij")
    ball = np.rint(900 * np.exp(-2 * (x**2 + y**2 + z**2)) - 100).astype(np.int16)
    clip = np.stack([np.roll(coffee, k, axis=1) for k in range(6)])
    affine = np.array([[0, 0, 2.0, -9], [0, 1.5, 0, 4], [-3.0, 0, 0, 7], [0, 0, 0, 1]])
    sphere = trimesh.creation.icosphere(2, 1.5)
    cosines = {"decomposition": "tt", "base": "cosines", "channel_factors": "shared"}
    cosines |= {"init": "svd", "start_psnr": 30.0}
    box = Preset("siren", small, Recipe(lr=2e-3, batch=1024))
    signals = {
        name: (Image.from_array(array, icc=b"not a real profile" if "icc" in name else b""), preset)
        for name, (array, preset) in samples.items()
    } | {
        "array": (ArraySignal.from_array(np.stack([x, y * z], -1)), box),
        "audio": (Audio.from_array(sound, 8000), "windows"),
        "shape": (Shape.from_mesh(make_mesh(sphere.vertices + 2, sphere.faces)), box),
        "video": (Video.from_array(clip, Fraction(30000, 1001)), Preset("finr", cosines)),
        "volume": (Volume.from_array(ball, affine=affine, scaling=(0.5, -1024.0)), box),
    }
    image = Image.from_array(coffee)
    stages = {"stages": 2, "base_options": [small, small | {"hidden_features": 48}]}
    larger = np.asarray(imageio.v3.imread(ASSETS / "camera.png"))[90:186, 180:308]
    newer = {
        "grid-layered-grey8": (Image.from_array(larger), "grid"),
        "progressive-rgb8": (image, Preset("progressive", stages, Recipe(lr=2e-3))),
        "siren-rgb8": (image, siren),
    }
    named = {f"v1-{name}": given for name, given in signals.items()}
    for stem, (signal, preset) in (
        named | {f"v1.1-{n}": given for n, given in newer.items()}
    ).items():
        path = GOLDEN / f"{stem}.inr"
        if path.exists():
            print(f"{path.name} stays")
            continue
        name = stem.partition("-")[2]
        fit = inr.fit(signal, preset, steps=200 if name.startswith("multi") else 60)
        fit.field.layered = fit.field.layered or "layered" in name
        path.write_bytes(encode(fit.field, signal, rounding=fit.rounding))
        field = inr.load(path)
        path.with_suffix(".json").write_text(json.dumps(golden_facts(path)) + "\n")
        scales = (0.0625, 0.125) if name == "shape" else (1, 2)
        pictures = {f"x{scale}": inr.render(field, scale=scale) for scale in scales}
        np.savez_compressed(path.with_suffix(".npz"), **pictures)
        print(f"{path.name} made, {path.stat().st_size} bytes")
    said()


def said() -> None:
    """What 1.1 can say of a signal, in a file whose parameters are those of an older one."""
    older, path = GOLDEN / "v1-siren-rgb8.inr", GOLDEN / "v1.1-said-rgb8.inr"
    if path.exists():
        print(f"{path.name} stays")
        return
    contents = inspect(older.read_bytes())
    texts = {
        "title": "A cup of coffee <small>",
        "author": "Ä. Ö. Ü.",
        "date": "2026-11-21T09:30:00+01:00",
        "comment": "two\nlines",
        "software": "make_golden",
        "source_sha256": "0123456789abcdef" * 4,
    }
    header = contents.container.header
    chunks = [
        (container.COLOUR_PROFILE, zlib.compress(WIDE_RGB, 9)),
        (container.METADATA, metadata.pack(texts)),
        *contents.container.chunks,
        (container.EXIF, zlib.compress(cleaned(camera_exif(">")), 9)),
    ]
    path.write_bytes(container.pack(container.Container(header, chunks)))
    for suffix in (".json", ".npz"):  # it decodes to the same
        shutil.copyfile(older.with_suffix(suffix), path.with_suffix(suffix))
    print(f"{path.name} made, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
