"""Throw mutated `.inr` files at the parser: a program of its own, with production limits.

    python tests/fuzz.py --count 200000 --deep 10000 --seed 1

Prints JSON: what came of the files, the slowest of them, the growth of memory. Exits 1 on an
exception that is not one of ours. `--count` files are damaged as storage and networks damage them,
`--deep` ones have right checksums around contents that lie, and are decoded whole.
"""

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from inr.codec.decode import decode, inspect, symbols
from inr.errors import InrError
from tests.mutate import mutate, outcome, resealed


def seeds() -> list[bytes]:
    """Files of several fields, also of fields made of others, and of all kinds of signal."""
    import numpy as np
    import torch

    import fields
    from inr.codec.encode import encode
    from inr.signals.array import ArraySignal
    from inr.signals.audio import Audio
    from inr.signals.image import Image
    from inr.signals.shape import TARGETS, ShapeDomain
    from inr.signals.video import Video
    from inr.signals.volume import Volume

    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 24 * 32).reshape(24, 32, 1)
    made = []
    for channels in (1, 2, 3, 4):
        noise = ramp + 0.1 * rng.random((24, 32, channels))
        for samples in (
            (noise * 200).astype(np.uint8),
            (noise * 60000).astype(np.uint16),
            noise.astype(np.float32),
        ):
            image = Image.from_array(samples, icc=b"profile" * 9 if channels == 3 else b"")
            for name, more in (
                ("siren", {"hidden_features": 8, "hidden_layers": 1}),
                ("grid", {"resolution": [24, 32], "levels": 3}),
                ("grid", {"resolution": 40, "levels": 4, "log2_table": 6, "hidden_layers": 0}),
            ):
                torch.manual_seed(0)
                field = fields.create(name, 2, channels, **more)
                field.adapt(image.statistics())
                field.domain = image.domain
                made.append(encode(field, image, target_psnr=30.0))
    for samples in ((ramp[0, :, :] * 9e4).astype(np.int16), ramp[:, :2, 0]):
        sound = Audio.from_array(samples, 8000)
        torch.manual_seed(0)
        field = fields.create("siren", 1, sound.channels, hidden_features=8, hidden_layers=1)
        field.domain = sound.domain
        made.append(encode(field, sound, target_psnr=30.0))
    small = {"hidden_features": 8, "hidden_layers": 1}
    image = Image.from_array((ramp * 200).astype(np.uint8))
    for name, given in (
        ("doh", {"target_options": small, "latents": 30}),
        ("pranc", {"target_options": small, "latents": 30}),
        ("finr", {"rank": 3, "base_options": small}),
        (
            "finr",
            {"decomposition": "tucker", "rank": [2, 3], "base": ["siren", "grid"]}
            | {"base_options": [small, {"resolution": 8, "levels": 2}]},
        ),
        ("multistage", {"stages": 2, "base_options": {"hidden_features": 8}}),
        ("windows", {"count": 3, "base_options": small}),
        (
            "multistage",
            {"stages": 2, "base": ["doh", "finr"]}
            | {"base_options": [{"target_options": small, "latents": 20}, {"rank": 2}]},
        ),
    ):
        torch.manual_seed(0)
        field = fields.create(name, 2, 1, **given)
        field.domain = image.domain
        made.append(encode(field, image, target_psnr=10.0))
    array = ArraySignal.from_array(ramp[..., 0].astype(np.float64))
    field = fields.create("siren", 2, 1, **small).double()
    field.domain = array.domain
    # out of reach, so that it is kept as it is
    made.append(encode(field, array, max_loss_db=0.0))
    block = (ramp.reshape(8, 8, 12) * 900).astype(np.int16)
    clip = np.repeat((ramp.reshape(8, 8, 12, 1) * 200).astype(np.uint8), 3, -1)
    cosines = {"decomposition": "tt", "rank": 3, "base": "cosines", "base_options": {"terms": 8}}
    for signal, name, given in (
        (Volume.from_array(block, affine=np.diag([2.0, 1.0, -3.0, 1.0])), "siren", small),
        (Volume.from_array(block, scaling=(0.5, -7.0)), "finr", cosines | {"init": "svd"}),
        (Video.from_array(clip), "finr", cosines),
    ):
        torch.manual_seed(0)
        field = fields.create(name, 3, signal.channels, **given)
        field.adapt(signal.statistics())
        field.domain = signal.domain
        made.append(encode(field))
    torch.manual_seed(0)
    field = fields.create("siren", 3, 1, **small)
    for target in TARGETS:
        field.domain = ShapeDomain(target, 0.5, (1.0, 2.0, 3.0), 4.0, 8, 12)
        made.append(encode(field))
    field.out.weight.data[0, 0] = 1e6  # beside the others under one step: large symbols
    made.append(encode(field))
    return made


def memory() -> int:
    """Peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--deep", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    files = seeds()
    for data in files:  # everything is loaded and has run once before memory and time are taken
        decode(data)
    for _ in range(200):
        outcome(decode, resealed(rng.choice(files), rng), InrError)

    originals = set(files)
    tally: Counter[str] = Counter()
    slowest = 0.0
    before = memory()
    for i in range(args.count + args.deep):
        deep = i >= args.count
        one, two = rng.choice(files), rng.choice(files)
        data = resealed(one, rng) if deep else mutate(one, two, rng)
        begin = time.process_time()  # what other processes take is not the parser's
        result = outcome(decode if deep else lambda d: symbols(inspect(d)), data, InrError)
        slowest = max(slowest, time.process_time() - begin)
        # damage that changes a file and still decodes would be silent corruption
        assert deep or result != "value" or data in originals
        tally[("deep " if deep else "") + result] += 1
    report = {
        "seeds": len(files),
        "outcomes": dict(tally),
        "slowest_ms": round(1e3 * slowest, 1),
        "memory_growth_mib": round((memory() - before) / 2**20, 1),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
