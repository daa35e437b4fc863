"""Seconds of `inr decode` on a stored photograph, from the start of the interpreter.

    python benchmarks/decode.py photo.inr [--rounds 9]

Fit one before: `inr fit kodim03.png`. Contenders alternate, each a process of its own: an
interpreter that does nothing, one that imports torch alone, `inr decode`, and the same with torch.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WITH_TORCH = """
import sys, inr
from inr.signals.image import write_image
from pathlib import Path
field = inr.load(sys.argv[1])
write_image(Path(sys.argv[2]), inr.render(field), field.domain)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "decoded.png")
        python = sys.executable
        contenders = {
            "interpreter": [python, "-c", "pass"],
            "import torch": [python, "-c", "import torch"],
            "inr decode": [python, "-m", "apps.cli.main", "decode", args.file, "-fqo", target],
            "with torch": [python, "-c", WITH_TORCH, args.file, target],
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, command in contenders.items():
                begin = time.perf_counter()
                subprocess.run(command, check=True)
                seconds[name].append(time.perf_counter() - begin)
    start = statistics.median(seconds.pop("interpreter"))
    print(f"interpreter: {start:.3f} s; behind it, median (least to most):")
    for name, values in seconds.items():
        low, middle, high = (
            x - start for x in (min(values), statistics.median(values), max(values))
        )
        print(f"{name:<14}{middle:.2f} s ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
