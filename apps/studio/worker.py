"""The studio's child process: it runs tasks one at a time, and tells what happens in JSON.

It is started as `python -m apps.studio.worker FD LANE DEVICE THREADS`, with one end of a socket.
When the other end closes it goes, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

from apps.studio.desk import Desk, Wire
from apps.studio.tasks import SHORT, TASKS, task

NICE = 10
"""The page and its browser come first: a button must answer while all cores fit."""


def main(descriptor: int, lane: str, device: str, threads: int) -> None:
    """Serve until the other end closes.

    Args:
        descriptor: File descriptor of the socket.
        lane: "fit", or "side" for short tasks only.
        device: Where fields are evaluated.
        threads: CPU threads of torch; 0 leaves them as they are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to act on
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # libraries' advice to programmers
    os.nice(NICE)
    with contextlib.suppress(OSError):  # when memory ends, this process goes and not the page
        Path("/proc/self/oom_score_adj").write_text("900")
    wire = Wire(socket.socket(fileno=descriptor))
    orders: queue.Queue[tuple[dict[str, Any], Desk]] = queue.Queue()
    threading.Thread(target=_listen, args=(wire, device, orders), daemon=True).start()
    _warm_up(lane, threads)
    wire.send({"event": "ready"})
    while True:
        order, desk = orders.get()
        wire.send({"job": order["job"]} | _outcome(order, desk))
        _tidy()


def _listen(wire: Wire, device: str, orders: queue.Queue[tuple[dict[str, Any], Desk]]) -> None:
    """Take orders, and what is asked of running ones."""
    desks: dict[str, Desk] = {}
    while True:
        message = wire.receive()
        if message is None:
            os._exit(0)  # whoever wanted this has gone
        job = message["job"]
        if message["do"] == "run":
            desks = {job: Desk(wire, job, Path(message["folder"]), device)}
            desks[job].look = message["look"]
            desks[job].asked = message["asked"]
            orders.put((message, desks[job]))
        elif job in desks and message["do"] == "ask":
            desks[job].asked = message["what"]
        elif job in desks and message["do"] == "look":
            desks[job].look = message["look"]


def _outcome(order: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """Run a task; whatever goes wrong becomes a line."""
    from apps.cli.voice import explained

    try:
        return {"event": "done", "result": task(order["task"])(order["spec"], desk)}
    except Exception as error:
        known = explained(error)
        if order["debug"]:
            traceback.print_exc()
        # our folder's names are nothing to people
        text = str(known).replace(f"{order['folder']}{os.sep}", "")
        source = str(order["spec"].get("source", ""))
        if source:
            text = text.replace(source, str(order["spec"].get("name", "the file")))
        return {"event": "failed", "error": text, "kind": type(known).__name__}


def _warm_up(lane: str, threads: int) -> None:
    """Load what tasks need, and do a step, so that the first job does not wait for it."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    for name in TASKS if lane == "fit" else SHORT:
        task(name)
    if lane != "fit":
        return
    import numpy as np

    import inr
    from inr.signals.image import Image

    picture = np.linspace(0, 255, 3 * 16 * 16).reshape(16, 16, 3).astype(np.uint8)
    inr.fit(Image.from_array(picture), "siren", steps=2, device="cpu")


def _tidy() -> None:
    """Give memory back: a job may have left much, and the next may need it."""
    import ctypes
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
