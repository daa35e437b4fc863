"""What stands before Gradio: who may ask, for what, and how much may be sent.

Gradio serves more than the studio uses, to more askers than it should, and keeps what anybody
uploads. All requests pass through `Gate` first, which lets through what is listed here and nothing
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
MCP = f"{API}/mcp"

FACE = ("/", "/login", "/favicon.ico", "/theme.css", "/robots.txt", f"{API}/theme.css")
"""What the page looks like, and the form that asks for a password: open to all."""

FACE_FOLDERS = ("/static/", "/assets/", "/svelte/")

STARTUP = f"{API}/startup-events"
"""Asked for once, by the server itself."""

ASKED = (
    *("app_id", "cancel", "component_server", "info", "login_check", "openapi.json"),
    *("queue/data", "queue/join", "queue/status", "reset", "token", "upload_progress", "user"),
)
ROUTES = ("/config", "/logout", UPLOAD, *(f"{API}/{name}" for name in ASKED))
ROUTE_FOLDERS = tuple(f"{API}/{name}/" for name in ("call", "heartbeat", "run"))

UPLOADS_AT_ONCE = 16
UPLOADS_BYTES = 2 << 30
"""Of all uploads together; what would be more is refused until older ones are gone."""

UPLOAD_SECONDS = 600.0
"""An upload is deleted at this age: visitors' files are copied to where they alone come from."""

FORM_BYTES = 1 << 20
"""What a form adds to the file in it."""

BODY_BYTES = 32 << 20
"""Of all other requests: the largest is a mask that was painted."""

LOGIN_SECONDS = 0.5
"""Between two tries of a password, of all visitors together."""

LOGINS_WAITING = 20

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
"""The page loads nothing from elsewhere, and nobody frames it."""

FILE_POLICY = "default-src 'none'; sandbox"

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass
class Rules:
    """What a gate lets through.

    Args:
        uploads: The folder of Gradio's own files.
        upload_bytes: Bytes of an upload.
        hosts: Names that a browser may know this server by; any if empty. A foreign name that
            leads here is how pages of others get at local servers.
        mcp: Whether tools may be called by MCP.
    """

    uploads: Path
    upload_bytes: int
    hosts: frozenset[str] = frozenset()
    mcp: bool = False
    uploading: int = field(default=0, init=False)


class Gate:
    """Middleware of ASGI, the innermost, before Gradio's routes.

    Args:
        app: What is guarded.
        rules: What is let through.
    """

    def __init__(self, app: Any, rules: Rules) -> None:
        self.app = app
        self.rules = rules
        self._logins = asyncio.Lock()
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in _once(scope)}
        refusal = (
            self._stranger(path, headers)
            or self._unknown(scope, path)
            or self._without_password(scope, path, headers)
            or self._too_much(path, headers)
        )
        if refusal is not None:
            await _refuse(send, *refusal)
        elif path == "/login":
            await self._login(scope, receive, send)
        else:
            await self._pass(scope, receive, send, path)

    def _stranger(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Refuse pages of others, which a visitor's browser may have open too."""
        host = headers.get("host", "")
        if self.rules.hosts and _name(host) not in self.rules.hosts:
            return 403, "this server has another name"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "pages of another origin have no access"
        crossing = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        # a link leads to the page, and to nothing else
        if crossing and not (path == "/" and headers.get("sec-fetch-mode") == "navigate"):
            return 403, "pages of another origin have no access"
        return None

    def _unknown(self, scope: Scope, path: str) -> tuple[int, str] | None:
        """Refuse what the studio has no use for."""
        if scope["method"] not in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            return 405, "there is no such method"
        if b"deep_link" in scope["query_string"]:
            return 404, "there are no deep links"
        if path.startswith(FILE):
            return None if self._own(path[len(FILE) :]) else (403, "there is no such file")
        folders = FACE_FOLDERS + ROUTE_FOLDERS + ((f"{MCP}/",) if self.rules.mcp else ())
        bare = path.rstrip("/") or "/"
        known = (*FACE, *ROUTES, STARTUP, *((MCP,) if self.rules.mcp else ()))
        if bare in known or (path.startswith(folders) and _plain(path)):
            return None
        return 404, "there is no such page"

    def _own(self, text: str) -> bool:
        """Whether a path is that of a file which Gradio took or made."""
        if not _plain(text) or not text.startswith("/"):
            return False
        try:
            real = Path(text).resolve()
            return real.is_relative_to(self.rules.uploads.resolve()) and real.is_file()
        except (OSError, ValueError):
            return False

    def _without_password(
        self, scope: Scope, path: str, headers: dict[str, str]
    ) -> tuple[int, str] | None:
        """Gradio asks for the password on most routes; this does on all."""
        app = scope["app"]
        if app.auth is None or path in (*FACE, STARTUP) or path.startswith(FACE_FOLDERS):
            return None
        names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
        for part in headers.get("cookie", "").split(";"):
            name, _, token = part.strip().partition("=")
            if name in names and app.tokens.get(token) is not None:
                return None
        return 401, "Not authenticated"

    def _too_much(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        uploading = path.rstrip("/") == UPLOAD
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most(path):
            return 413, f"files of at most {self.rules.upload_bytes >> 20} MB are taken"
        if uploading and self.rules.uploading >= UPLOADS_AT_ONCE:
            return 503, "too many files are being uploaded: try again in a while"
        if uploading and weight(self.rules.uploads) > UPLOADS_BYTES:
            return 507, "there is no room for more files now: try again in a while"
        return None

    def _most(self, path: str) -> int:
        uploading = path.rstrip("/") == UPLOAD
        return self.rules.upload_bytes + FORM_BYTES if uploading else BODY_BYTES

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let passwords be tried slowly."""
        if self._waiting >= LOGINS_WAITING:
            await _refuse(send, 429, "too many tries: wait a while")
            return
        self._waiting += 1
        try:
            async with self._logins:
                await asyncio.sleep(LOGIN_SECONDS if scope["method"] == "POST" else 0)
        finally:
            self._waiting -= 1
        await self._pass(scope, receive, send, "/login")

    async def _pass(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Let a request through, but no more of it than may be sent."""
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException

        uploading = path.rstrip("/") == UPLOAD
        most, taken = self._most(path), 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if uploading and message["type"] == "http.disconnect":
                raise MultiPartException("the upload was broken off")  # and its file is deleted
            if taken <= most:
                return message
            if uploading:
                raise MultiPartException(f"exceeded the maximum allowed size of {most} bytes")
            raise HTTPException(413)

        policy = FILE_POLICY if path.startswith(FILE) else POLICY
        more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
        more.append((b"content-security-policy", policy.encode()))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        self.rules.uploading += uploading
        try:
            await self.app(scope, bounded, marked)
        finally:
            self.rules.uploading -= uploading


def _once(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    """Headers; of those that are repeated the first, but all cookies."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        lower = name.lower()
        if lower == b"cookie" and lower in found:
            found[lower] += b"; " + value
        else:
            found.setdefault(lower, value)
    return found.items()


def _plain(path: str) -> bool:
    """Whether a path goes down only, and is written as paths here are."""
    printable = path.isprintable() and "\\" not in path and "//" not in path
    return printable and not {"..", "."} & set(path.split("/"))


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    bare = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return bare.lower().strip("[]")


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = f'{{"detail":"{reason}"}}'.encode()
    headers = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    # what is still being sent is not waited for
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# ---------------------------------------------------------------------- what was uploaded


def discard(uploads: Path, path: Path) -> None:
    """Delete an upload that is of no use.

    Args:
        uploads: The folder of Gradio's own files.
        path: The upload; what lies elsewhere is left alone.
    """
    with contextlib.suppress(OSError):
        real = path.resolve()
        if real.is_relative_to(uploads.resolve()):
            real.unlink(missing_ok=True)
            real.parent.rmdir()


def sweep(uploads: Path, taken: Iterable[str], seconds: float = UPLOAD_SECONDS) -> None:
    """Delete old uploads, and what broken ones left.

    Args:
        uploads: The folder of Gradio's own files.
        taken: Paths of files that were uploaded; what Gradio made itself it deletes itself.
        seconds: How old they may get.
    """
    now = time.time()
    with contextlib.suppress(OSError):
        broken = [str(path) for path in uploads.iterdir() if path.is_file()]
        for text in [*taken, *broken]:
            with contextlib.suppress(OSError):
                if now - Path(text).stat().st_mtime > seconds:
                    discard(uploads, Path(text))


def sweeper(uploads: Path, taken: Callable[[], Iterable[str]]) -> threading.Event:
    """Sweep every now and then, until the event that is returned is set."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(UPLOAD_SECONDS / 20):
            sweep(uploads, taken())

    threading.Thread(target=run, daemon=True, name="studio-uploads").start()
    return ended


def weight(folder: Path) -> int:
    """Bytes of the files in a folder of folders."""
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size if path.is_file() else 0
    return total


# ---------------------------------------------------------------------- what goes out


_own: list[str] = []
"""Where this process may connect to, besides loopback; empty where it is free."""


@contextlib.contextmanager
def stay_local(host: str) -> Iterator[None]:
    """While this lasts the process connects to no other machine, whatever in it tries.

    Gradio fetches a file whose path is a URL, and libraries ask for their latest versions.

    Args:
        host: The server's own address, which stays within reach.
    """
    if not getattr(sys, "_inr_studio_hook", False):  # a hook stays for good
        sys.addaudithook(_audit)
        sys._inr_studio_hook = True  # type: ignore[attr-defined]
    _own[:] = [host.strip("[]")]
    try:
        yield
    finally:
        _own.clear()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _own:
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
    if text and text not in _own and not is_loopback(text):
        raise PermissionError(f"nothing leaves this machine: {text} was asked for")


def is_loopback(host: str) -> bool:
    """Whether a name or address is one of this machine's own, which no other can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """A port that can be listened on.

    Args:
        host: The address.
        port: The port; 0 for any.

    Raises:
        OSError: it cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host.strip("[]"), port))
        return int(probe.getsockname()[1])
