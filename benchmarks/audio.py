"""Sound: what `inr fit` reaches by default, and what its parts gain.

First table: every sound fitted with its default preset, its file decoded and compared. Second
table, with --compare: windows against one network, and starts against each other, at about equal
floating-point work, on the first seconds of each sound.

    python benchmarks/audio.py SOUND... [--compare] [--clip 3] [--steps 1000]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import resource
import time
from pathlib import Path

from common import machine, table

import inr
from inr import presets
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.presets import Preset
from inr.signals.audio import Audio, open_audio

STARTS = ("spectrum", "winner", "siren")
HEAD = ("sound", "s", "field", "PSNR", "SNR", "LSD", "silent", "bytes", "kbps", "fit s", "coding s")


def row(name: str, label: str, sound: Audio, preset: Preset, seed: int) -> tuple[str, ...]:
    """Fit, encode, decode, and what came of it."""
    fit = inr.fit(sound, preset, seed=seed, device="cpu")
    begin = time.perf_counter()
    data = encode(fit.field, sound)
    coding = time.perf_counter() - begin
    found = sound.metrics(decode(data))
    seconds = sound.domain.seconds
    return (
        name,
        f"{seconds:.1f}",
        label,
        f"{found['psnr']:.2f}",
        f"{found['snr']:.2f}",
        f"{found['lsd']:.2f}",
        f"{found['silent']:.0%}",
        f"{len(data):,}",
        f"{8 * len(data) / seconds / 1000:.0f}",
        f"{fit.seconds:.1f}",
        f"{coding:.1f}",
    )


def variants(count: int, steps: int) -> dict[str, Preset]:
    """Windows and single networks of about the same work a step, each with every start.

    A step of one network of 3 hidden layers has the work of one of windows where its weights are
    as many as one window's; so its steps take fewer samples.
    """
    windows = presets.load("audio/windows")
    windows = dataclasses.replace(windows, recipe=dataclasses.replace(windows.recipe, steps=steps))
    single = presets.load("audio/siren")
    made = {}
    for start in STARTS:
        options = windows.hyperparameters["base_options"] | {"init": start}
        given = windows.hyperparameters | {"base_options": options}
        made[f"windows, {start}"] = dataclasses.replace(windows, hyperparameters=given)
    ratio = weights(**windows.hyperparameters["base_options"]) / weights(**single.hyperparameters)
    batch = max(1, min(count, round(windows.recipe.batch * ratio)))
    recipe = dataclasses.replace(single.recipe, batch=batch, steps=steps)
    for start in STARTS:
        omega = 3000.0 if start == "siren" else 30.0
        given = single.hyperparameters | {"init": start, "first_omega": omega}
        made[f"siren, {start}"] = Preset("siren", given, recipe)
    return made


def weights(hidden_features: int, hidden_layers: int, **_: object) -> int:
    """Weights of the hidden layers of a sine network, where its work is."""
    return hidden_layers * hidden_features**2


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sounds", nargs="+")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--clip", type=float, default=3.0, help="seconds that are compared")
    parser.add_argument("--steps", type=int, default=1000, help="steps that are compared")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(machine())
    rows = []
    for path in args.sounds:
        sound = open_audio(path)
        name = Path(path).stem
        if not args.compare:
            preset = presets.load(sound.preset or presets.DEFAULTS["audio"], "audio")
            rows.append(row(name, preset.field, sound, preset, args.seed))
            continue
        domain = sound.domain
        head = sound.samples[: math.ceil(args.clip * domain.rate)]
        clip = Audio.from_array(head, domain.rate, depth=domain.depth)
        for label, preset in variants(clip.count, args.steps).items():
            rows.append(row(name, label, clip, preset, args.seed))
    print(table(HEAD, rows))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"Largest resident memory: {used / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
