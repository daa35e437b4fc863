"""Throw mutated `.inr` files at the decoder: a program of its own, with production limits.

    python tests/fuzz.py --count 10000000 --deep 1000000 --jobs 2

`--count` files are damaged as storage and networks damage them: each must be refused, or be the
file that it was. `--deep` ones have right checksums around contents that lie, and are decoded
whole. All of it happens in processes whose address space may grow by 64 MiB after the start.

Prints what came of them as JSON, every few seconds on a terminal, and when Ctrl-C ends it early.
Exits 1, and writes the file to --save, on an exception that is not one of ours, damage that is not
noticed, memory beyond the bound, or more than 100 ms of CPU time for one file.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from inr.codec.decode import decode, inspect, symbols
from inr.codec.light import build_light
from inr.errors import InrError
from tests.confined import GOLDEN, confine, forget_peak, memory
from tests.mutate import mutate, outcome, resealed

SLOWEST_MS = 100.0
PULSE = 2.0
"""Seconds between two reports of a process."""


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
        ("progressive", {"stages": 2, "base_options": small}),
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
    for source, name, given in (
        (Volume.from_array(block, affine=np.diag([2.0, 1.0, -3.0, 1.0])), "siren", small),
        (Volume.from_array(block, scaling=(0.5, -7.0)), "finr", cosines | {"init": "svd"}),
        (Video.from_array(clip), "finr", cosines),
    ):
        torch.manual_seed(0)
        field = fields.create(name, 3, source.channels, **given)
        field.adapt(source.statistics())
        field.domain = source.domain
        made.append(encode(field))
    torch.manual_seed(0)
    field = fields.create("siren", 3, 1, **small)
    for target in TARGETS:
        field.domain = ShapeDomain(target, 0.5, (1.0, 2.0, 3.0), 4.0, 8, 12)
        made.append(encode(field))
    field.out.weight.data[0, 0] = 1e6  # beside the others under one step: large symbols
    made.append(encode(field))
    return made


@dataclasses.dataclass
class Tally:
    """What came of the files so far.

    Args:
        outcomes: How many of each outcome.
        slowest_ms: CPU time of the slowest file, the least of three runs of it.
        memory_growth_mib: Largest growth of resident memory.
        files: How many there were.
        crash: Why it ended early, and where the file is; empty if it did not.
    """

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest_ms: float = 0.0
    memory_growth_mib: float = 0.0
    files: int = 0
    crash: str = ""

    def add(self, other: "Tally") -> None:
        """Take in what another process has seen."""
        self.outcomes += other.outcomes
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.memory_growth_mib = max(self.memory_growth_mib, other.memory_growth_mib)
        self.files += other.files
        self.crash = self.crash or other.crash

    def __str__(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def read(cls, line: str) -> "Tally":
        facts = json.loads(line)
        return cls(Counter(facts.pop("outcomes")), **facts)


def shallow(data: bytes) -> None:
    """What `inr verify` does."""
    symbols(inspect(data))


def whole(data: bytes) -> None:
    """What `inr decode` does, both ways: what one refuses, the other may not take."""
    error = None
    try:
        decode(data)
    except InrError as found:
        error = found
    try:
        assert build_light(inspect(data)) is None or error is None, f"taken, although: {error}"
    except InrError:
        assert error is not None, "refused without torch, and taken with it"
    if error is not None:
        assert not isinstance(error.__context__, MemoryError), "asks for too much memory"
        assert "allocate" not in str(error.__context__), "asks for too much memory"
        raise error


def work(args: argparse.Namespace) -> int:
    """One process: mutate, decode, count; a line of JSON at every pulse."""
    import torch

    torch.set_num_threads(1)
    files = seeds() + [path.read_bytes() for path in GOLDEN]
    rng = random.Random(args.seed)
    for data in files:  # everything is loaded and has run once before memory and time are taken
        whole(data)
    for _ in range(500):  # and the caches of entropy models are full
        outcome(whole, resealed(rng.choice(files), rng), InrError)
    confine()
    forget_peak()
    before, pulse, tally = memory("VmRSS"), time.monotonic(), Tally()
    originals = set(files)
    data = b""
    try:
        for i in range(args.count + args.deep):
            deep = i >= args.count
            one, two = rng.choice(files), rng.choice(files)
            data = resealed(one, rng) if deep else mutate(one, two, rng)
            call = whole if deep else shallow
            begin = time.process_time()  # what other processes take is not the parser's
            result = outcome(call, data, InrError)
            spent = time.process_time() - begin
            if 1e3 * spent > tally.slowest_ms:
                tally.slowest_ms = max(tally.slowest_ms, round(1e3 * least(call, data, spent), 1))
                assert tally.slowest_ms <= SLOWEST_MS, f"takes {tally.slowest_ms} ms"
            # damage that changes a file and still decodes would be silent corruption
            assert deep or result != "value" or data in originals, "is damaged, and decodes"
            tally.outcomes[("deep " if deep else "") + result] += 1
            tally.files += 1
            if time.monotonic() > pulse + PULSE:
                pulse = time.monotonic()
                tally.memory_growth_mib = round((memory("VmHWM") - before) / 2**20, 1)
                print(tally, flush=True)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        traceback.print_exc()
        path = Path(args.save) / f"crash-{args.seed}-{tally.files}.inr"
        path.write_bytes(data)
        tally.crash = f"{path}: {type(error).__name__}: {error}"
    tally.memory_growth_mib = round((memory("VmHWM") - before) / 2**20, 1)
    print(tally, flush=True)
    return 1 if tally.crash else 0


def least(call: Any, data: bytes, spent: float) -> float:
    """CPU seconds of a file: the least of three runs, so that a busy machine's hiccups go."""
    for _ in range(2):
        begin = time.process_time()
        outcome(call, data, InrError)
        spent = min(spent, time.process_time() - begin)
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200_000, help="damaged containers")
    parser.add_argument("--deep", type=int, default=10_000, help="lies under right checksums")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--save", default=".", help="folder for a file that does harm")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    return work(args) if args.worker else share_out(args)


def share_out(args: argparse.Namespace) -> int:
    """Let several processes work, each with seeds of its own, and sum up what they say."""
    options = [sys.executable, __file__, "--worker", "--save", args.save]
    options += ["--count", str(-(-args.count // args.jobs))]
    options += ["--deep", str(-(-args.deep // args.jobs))]
    processes = [
        subprocess.Popen(
            [*options, "--seed", str(args.jobs * args.seed + i)], stdout=subprocess.PIPE, text=True
        )
        for i in range(args.jobs)
    ]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the others end on it and say what they have
    wanted = args.count + args.deep
    begin = time.monotonic()
    latest = [Tally() for _ in processes]
    for i, line in lines_of(processes):
        latest[i] = Tally.read(line)
        done = sum(tally.files for tally in latest)
        if sys.stderr.isatty():
            rate = done / (time.monotonic() - begin)
            print(f"\r{done:,} of {wanted:,}, {rate:,.0f}/s ", end="", file=sys.stderr, flush=True)
    total = Tally()
    for tally in latest:
        total.add(tally)
    facts = {"seed": args.seed, "seconds": round(time.monotonic() - begin, 1)}
    print(json.dumps(facts | vars(total)))
    codes = [process.wait() for process in processes]
    return 130 if total.files < wanted and not any(codes) else max(map(abs, codes))


def lines_of(processes: list[subprocess.Popen]) -> Any:
    """(which process, what it says) as it comes."""
    import selectors

    with selectors.DefaultSelector() as waiting:
        for i, process in enumerate(processes):
            waiting.register(process.stdout, selectors.EVENT_READ, i)
        while waiting.get_map():
            for key, _ in waiting.select():
                line = key.fileobj.readline()
                if line:
                    yield key.data, line
                else:
                    waiting.unregister(key.fileobj)


if __name__ == "__main__":
    sys.exit(main())
