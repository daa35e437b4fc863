"""`inr studio`: fit, explore, compare and compress in a browser."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from apps.cli.common import new_parser, parse
from apps.cli.voice import Voice, complain
from fields.kernels import build
from inr.errors import InputError, UsageError

PREFIX = "inr-studio-"
LOCK = "lock"

YOUNG_SECONDS = 60.0
"""A folder without a lock may be one that is just being made."""

SHORTEST = 8
"""Characters of a password at least."""

MOST_DEVICES = 16

END_SECONDS = 0.5
"""What open pages are given to hear that it is over."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy")


@dataclass(frozen=True)
class Place:
    """Where the server is, and who gets in.

    Args:
        host: Address that it listens at.
        port: Port; 0 for any.
        login: User and password, or None.
        exposed: Whether strangers may reach it.
    """

    host: str
    port: int
    login: tuple[str, str] | None
    exposed: bool


def run(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; both end the process.

    Raises:
        UsageError: it cannot be served so.
    """
    args = parse(parser(), argv)
    voice = Voice(args)
    place = _place(args)
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("the studio needs the package gradio: pip install 'inr-studio[studio]'")
    if args.mcp and importlib.util.find_spec("mcp") is None:
        raise UsageError("--mcp needs the package mcp: pip install 'inr-studio[mcp]'")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise UsageError(f"--threads is {args.threads}: give a number from 1 to 1024")
    devices = _devices(args.device)
    _build_kernels()
    code = 0
    try:
        with _own_folder() as root, _environment(root, args.threads):
            _serve(root, place, devices, args, voice)
    except KeyboardInterrupt:
        complain("interrupted")
        code = 130
    except SystemExit as end:  # SIGTERM, or the terminal was closed
        code = int(end.code or 0)
    # all is tidy: to take torch and Gradio apart would take seconds
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _build_kernels() -> None:
    """Compile the CPU kernels before anybody waits for a fit, in a process that loads torch."""
    if build.compiler() is None or all(map(build.built, build.KERNELS)):
        return
    complain("compiling CPU kernels for this machine, once; this takes some seconds")
    command = [sys.executable, "-m", "apps.cli.main", "doctor", "--build", "--json"]
    # what goes wrong, a fit tells
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603


def parser() -> ArgumentParser:
    """The parser."""
    p = new_parser("studio", "Fit, explore, compare and compress in a browser.")
    p.add_argument("--host", type=str, default="127.0.0.1", help="address to listen at")
    p.add_argument("--port", type=int, default=7860, help="port to listen at; 0: any free one")
    p.add_argument(
        "--device",
        type=str,
        default="auto",
        help="auto (all GPUs, else the CPU), cpu, or cuda:N, several with commas: one fit on each",
    )
    p.add_argument(
        "--auth",
        type=str,
        help="ask for USER:PASSWORD; @FILE reads that from a file, where `ps` does not show it",
    )
    p.add_argument(
        "--expose",
        action="store_true",
        help="listen at an address that others reach, even without a password",
    )
    p.add_argument("--mcp", action="store_true", help="offer the four functions as MCP tools too")
    p.add_argument("--browser", action="store_true", help="open the page; default: on a desktop")
    p.add_argument("--no-browser", action="store_true", help="do not open the page")
    p.add_argument("--threads", type=int, help="CPU threads of a fit")
    return p


# ---------------------------------------------------------------------- what was asked for


def _place(args: Namespace) -> Place:
    """Where to listen.

    Raises:
        UsageError: strangers could come in, or nobody can listen there.
    """
    from apps.studio.gate import free_port, is_loopback

    login = _login(args.auth)
    if args.mcp and login:
        raise UsageError("--mcp and --auth exclude each other: MCP cannot give this password")
    if args.browser and args.no_browser:
        raise UsageError("--browser and --no-browser exclude each other: give one of them")
    if not is_loopback(args.host) and not login and not args.expose:
        raise UsageError(
            f"--host is {args.host}: whoever reaches that address could use this machine; "
            "give --auth USER:PASSWORD, or --expose if that is meant"
        )
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port is {args.port}: give a number from 0 to 65535")
    try:
        port = free_port(args.host, args.port)
    except socket.gaierror:
        raise UsageError(f"--host is {args.host!r}: give an address of this machine") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"--port {args.port} at {args.host}: {reason}; give another, or 0 for any free one"
        ) from None
    return Place(args.host, port, login, bool(args.expose))


def _login(text: str | None) -> tuple[str, str] | None:
    """User and password.

    Raises:
        UsageError: they are none, or too short.
        InputError: the file cannot be read.
    """
    if text is None:
        return None
    if text.startswith("@"):
        from inr.files import read_bytes

        try:
            lines = read_bytes(text[1:], 4096).decode().splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{text[1:]}: is no text in UTF-8") from None
        text = lines[0] if lines else ""
    user, _, password = text.partition(":")
    if not user or len(password) < SHORTEST:
        raise UsageError(
            f"--auth: give USER:PASSWORD, or @FILE with that in its first line, and a password of "
            f"at least {SHORTEST} characters"
        )
    return user, password


def _devices(text: str) -> list[str]:
    """Where fits run.

    Raises:
        UsageError: there is no such device.
    """
    if text == "cpu":
        return ["cpu"]
    import torch

    if text == "auto":
        count = min(torch.cuda.device_count() if torch.cuda.is_available() else 0, MOST_DEVICES)
        return [f"cuda:{n}" for n in range(count)] or ["cpu"]
    from inr.fitting.fit import choose_device

    words = text.split(",")
    if len(words) > MOST_DEVICES:
        raise UsageError(f"--device names {len(words)}: give {MOST_DEVICES} at most")
    return [choose_device(word.strip()) for word in words]


# ---------------------------------------------------------------------- what is set up


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A private folder for all that is kept; it is deleted in the end."""
    import fcntl

    _sweep(Path(tempfile.gettempdir()))
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    try:
        with (root / LOCK).open("w") as lock:  # open while this process lives
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in ("uploads", "work"):
                (root / name).mkdir(mode=0o700)
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Delete what killed servers of this user left."""
    import fcntl

    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = path.lstat()
            if facts.st_uid != os.geteuid() or path.is_symlink() or not path.is_dir():
                continue
            lock = path / LOCK
            if not lock.exists():
                if time.time() - facts.st_mtime > YOUNG_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its owner lives
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _environment(root: Path, threads: int | None) -> Iterator[None]:
    """Set what Gradio, its libraries and the workers read, and put it back in the end.

    Handlers may return files of the working directory and of the folder for temporary ones: the
    first is empty, the second holds nothing that is not the studio's.
    """
    before, folder = dict(os.environ), Path.cwd()
    path, temporary = list(sys.path), tempfile.tempdir
    mask = os.umask(0o077)
    for name in list(os.environ):
        if name.startswith("GRADIO_") or name.lower() in PROXIES:
            del os.environ[name]  # they could share it, or show other folders
    sys.path[:] = [str(Path(entry).resolve()) for entry in sys.path]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(root / "uploads"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
        "TMPDIR": str(root),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_given_paths()]),
    }
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    tempfile.tempdir = str(root)
    os.chdir(root / "work")
    try:
        yield
    finally:
        os.chdir(folder)
        tempfile.tempdir, sys.path[:] = temporary, path
        os.environ.clear()
        os.environ.update(before)
        os.umask(mask)


def _given_paths() -> list[str]:
    words = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(word).resolve()) for word in words if word]


# ---------------------------------------------------------------------- what is served


def _serve(root: Path, place: Place, devices: list[str], args: Namespace, voice: Voice) -> None:
    """Serve until a signal raises what ends it."""
    from apps.studio import gate
    from apps.studio.service import Service

    signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(129))
    service = Service(root / "jobs", devices, debug=args.debug)  # its workers start meanwhile
    page = None
    try:
        page = _launched(root, place, service, bool(args.mcp))
        gate.sweeper(root / "uploads", lambda: list(page.upload_file_set))
        url = f"http://{_in_url(place.host)}:{place.port}/"
        tools = {"mcp": f"{url}gradio_api/mcp/"} if args.mcp else {}
        voice.event(
            {"event": "ready", "url": url, "devices": devices} | tools,
            f"INR Studio: {url} (Ctrl-C ends it)",
            *(f"MCP tools: {text}" for text in tools.values()),
        )
        if _opens_browser(args):
            import webbrowser

            webbrowser.open(url)
        with gate.stay_local(place.host):
            threading.Event().wait()
    finally:
        _end(page, service)


def _launched(root: Path, place: Place, service: Any, mcp: bool) -> Any:
    """The page, being served.

    Raises:
        UsageError: the port was taken meanwhile.
    """
    from starlette.middleware import Middleware

    from apps.studio import page as studio_page
    from apps.studio.gate import Gate, Rules, is_loopback

    closed = is_loopback(place.host) and not place.login and not place.exposed
    hosts = {"127.0.0.1", "localhost", "::1", place.host.strip("[]").lower()} if closed else ()
    rules = Rules(root / "uploads", studio_page.UPLOAD_BYTES, frozenset(hosts), mcp)
    page = studio_page.build(service, root / "uploads")
    options = studio_page.options()
    # a home that holds the folder for temporary files must not hide it
    options["blocked_paths"] = [
        path for path in options["blocked_paths"] if not root.is_relative_to(Path(path).resolve())
    ]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            page.launch(
                **options,
                app_kwargs={"middleware": [Middleware(Gate, rules=rules)]},
                auth=[place.login] if place.login else None,
                server_name=_in_url(place.host),
                server_port=place.port,
                mcp_server=mcp,
                inbrowser=False,
                prevent_thread_lock=True,
            )
    except OSError:
        raise UsageError(f"--port {place.port}: was taken meanwhile; give another") from None
    if mcp:
        tools: Any = page.mcp_server_obj
        tools._execute_tool_without_progress = _all_outputs
    return page


async def _all_outputs(job: Any) -> list[Any]:
    """What a tool answers; Gradio's own makes one text of several outputs."""
    import asyncio

    result = await asyncio.to_thread(job.result)
    return list(result) if isinstance(result, tuple) else [result]


def _opens_browser(args: Namespace) -> bool:
    if args.browser or args.no_browser or args.json:
        return bool(args.browser)
    desktop = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and desktop


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _end(page: Any, service: Any) -> None:
    """End it all, whatever pages are open, and however often that is asked for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)  # requests that are cut off
    service.close()
    server = getattr(page, "server", None)
    if server is not None:
        server.should_exit = server.force_exit = True
        server.thread.join(END_SECONDS)
