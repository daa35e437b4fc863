"""What a task sees of its job: a folder, a device, whom to tell, and what is asked of it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

LENGTH = 4
"""Bytes of a message's length, ahead of it."""

LARGEST = 64 << 20
"""Bytes of a message at most."""


class Wire:
    """JSON messages over a socket, each after its length; one reader, any number of writers."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._writing = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            OSError: nobody listens any more.
        """
        data = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
        with self._writing:
            self.end.sendall(len(data).to_bytes(LENGTH, "big") + data)

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None when there will be none."""
        try:
            head = self._exactly(LENGTH)
            if head is None:
                return None
            length = int.from_bytes(head, "big")
            body = self._exactly(length) if length <= LARGEST else None
        except OSError:
            return None
        return None if body is None else json.loads(body)

    def close(self) -> None:
        """Close it; whoever waits for a message gets None."""
        with contextlib.suppress(OSError):  # the other end has gone already
            self.end.shutdown(socket.SHUT_RDWR)
        self.end.close()

    def _exactly(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            part = self.end.recv(min(count - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)


class Desk:
    """A job as its task sees it.

    Args:
        wire: Where its events go.
        job: The job's id.
        folder: The job's own folder.
        device: "cpu" or "cuda:N".

    Attributes:
        asked: What the user wants of the running job: None, "stop" or "pause".
        look: The page's live controls.
    """

    def __init__(self, wire: Wire, job: str, folder: Path, device: str) -> None:
        self.folder = folder
        self.device = device
        self.asked: str | None = None
        self.look: dict[str, Any] = {}
        self._wire = wire
        self._job = job

    def emit(self, event: dict[str, Any]) -> None:
        """Tell the page something."""
        self._wire.send({"job": self._job} | event)
