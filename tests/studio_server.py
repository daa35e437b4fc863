"""A studio in a process of its own, for tests."""

import atexit
import functools
import http.client
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx

from tests.conftest import ROOT

START_SECONDS = 120
"""Beside other work on a small machine; alone it takes a few."""


class Server:
    """`inr studio` on any free port.

    Attributes:
        folder: Its folder for temporary files, in which nobody else writes.
        url: Where it is, with a slash at its end.
        port: The same.
        root: What it keeps.
    """

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="studio-tests-")).resolve()
        environment = os.environ | {"TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}
        command = ["-m", "apps.cli.main", "studio", "--json", "--device", "cpu", "--threads", "1"]
        self.errors = (self.folder / "errors").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, *command, "--port", "0", *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        atexit.register(self.close)
        line = lines.get(timeout=START_SECONDS)
        assert line, self.said()
        event = json.loads(line)
        assert event["event"] == "ready"
        self.url = event["url"]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])
        (self.root,) = self.folder.glob("inr-studio-*")

    def _read(self, lines: queue.Queue[str]) -> None:
        for line in self.process.stdout:
            lines.put(line)
        lines.put("")

    def said(self) -> str:
        """What it wrote to its standard error."""
        return (self.folder / "errors").read_text()

    def uploads(self) -> list[Path]:
        """Files that Gradio holds."""
        return [path for path in (self.root / "uploads").rglob("*") if path.is_file()]

    def jobs(self) -> list[Path]:
        """Folders of visitors."""
        return list((self.root / "jobs").iterdir())

    def close(self) -> None:
        """End it and delete what it left."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared() -> Server:
    """One for all tests that do not mind; it offers its tools by MCP."""
    return Server("--mcp")


def ask(server, path, method="GET", headers=(), body=None) -> tuple[int, dict, bytes]:
    """One request as it stands: no client of HTTP tidies its path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest(method, path, skip_host=any(k.lower() == "host" for k, _ in headers))
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read(1 << 20)
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, data
    connection.close()
    return found


def call(server, name, *data, **more) -> str:
    """Call a public function as curl does; the events that came of it."""
    body = {"data": list(data)}
    answer = httpx.post(f"{server.url}gradio_api/call/{name}", json=body, **more)
    answer.raise_for_status()
    event = answer.json()["event_id"]
    return httpx.get(f"{server.url}gradio_api/call/{name}/{event}", timeout=120, **more).text


def upload(server, name, data, **more) -> str:
    answer = httpx.post(f"{server.url}gradio_api/upload", files={"files": (name, data)}, **more)
    answer.raise_for_status()
    return answer.json()[0]


def file_of(path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}
