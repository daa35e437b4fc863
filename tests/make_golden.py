"""Make the golden files of the current format version, once; afterwards they never change.

    python tests/make_golden.py

Refuses to replace a file: a new version of the format gets new names beside the old ones.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import imageio.v3
import numpy as np

import inr
from inr.codec.encode import encode
from inr.codec.format import VERSION
from inr.presets import Preset, Recipe
from inr.signals.image import Image
from tests.conftest import ASSETS, ROOT
from tests.test_robust import golden_facts


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
    for name, (array, preset) in samples.items():
        path = ROOT / "tests" / "golden" / f"v{VERSION}-{name}.inr"
        if path.exists():
            print(f"{path.name} stays")
            continue
        image = Image.from_array(array, icc=b"not a real profile" if "icc" in name else b"")
        fit = inr.fit(image, preset, steps=200 if name.startswith("multi") else 60)
        path.write_bytes(encode(fit.field, image, rounding=fit.rounding))
        field = inr.load(path)
        path.with_suffix(".json").write_text(json.dumps(golden_facts(path)) + "\n")
        pictures = {f"x{scale}": inr.render(field, scale=scale) for scale in (1, 2)}
        np.savez_compressed(path.with_suffix(".npz"), **pictures)
        print(f"{path.name} made, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
