"""Decode files in a process that may hardly grow: one line of JSON for each.

    python tests/confined.py [--more MIB] FILE ...

After all that decoding imports is loaded, the address space may grow by GROWTH (and so much more)
and no further, so that memory that is asked for counts, and not only what is touched of it.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from inr.codec.decode import decode
from inr.errors import InrError

GROWTH = 64 << 20
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.inr"))


def memory(what: str) -> int:
    """Bytes of this process: VmSize asked for, VmRSS resident, VmHWM at most resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{what}:")[2].split()[0])


def forget_peak() -> None:
    """VmHWM starts again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def confine(growth: int = GROWTH) -> None:
    """Refuse all memory beyond what this process has, and `growth` bytes."""
    bound = memory("VmSize") + growth
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def told(call: Callable[[bytes], Any], data: bytes) -> dict[str, str]:
    """The error's class and words, or none."""
    try:
        call(data)
    except InrError as error:
        return {"error": type(error).__name__, "says": str(error)}
    return {"error": "", "says": ""}


def main() -> None:
    """Report on each file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--more", type=int, default=0, metavar="MIB")
    parser.add_argument("paths", nargs="+")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for golden in GOLDEN:  # imports all that decoding needs, so that it is not held against a file
        decode(golden.read_bytes())
    confine(GROWTH + (args.more << 20))
    for path in args.paths:
        data = Path(path).read_bytes()
        forget_peak()
        before, spent = memory("VmRSS"), []
        for _ in range(3):  # CPU time, the least of three: a busy machine's hiccups are not counted
            begin = time.process_time()
            report: dict[str, Any] = told(decode, data)
            spent.append(time.process_time() - begin)
        report["ms"] = round(1e3 * min(spent), 2)
        report["mib"] = round((memory("VmHWM") - before) / 2**20, 2)
        print(json.dumps({"name": Path(path).stem} | report), flush=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
