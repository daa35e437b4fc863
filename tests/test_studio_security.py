"""What strangers try on the studio: other places' files, pages of others, floods, bombs."""

import re
import secrets
import socket
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

from apps.studio.picker import plain
from apps.studio.service import Bounds, Service
from apps.studio.visitors import Studio, adopt, display_name, escape, visitor
from inr.errors import InputError, UsageError
from tests.conftest import ROOT
from tests.studio_server import Server, ask, call, file_of, shared, upload

pytest.importorskip("gradio")

CANARY = "8d2f1c-this-must-not-leave"


@pytest.fixture(scope="module")
def server() -> Server:
    server = shared()
    (server.folder / "secret.txt").write_text(CANARY)
    (server.root / "jobs" / "secret.txt").write_text(CANARY)
    (server.root / "work" / "secret.txt").write_text(CANARY)
    yield server
    for name in ("jobs", "work"):
        (server.root / name / "secret.txt").unlink()


# ---------------------------------------------------------------------- other places

PLACES = [
    *("{f}/etc/passwd", "{f}//etc/passwd", "{f}/../../../../etc/passwd", "{f}../../etc/passwd"),
    *("{f}{out}", "{f}{jobs}", "{f}{work}", "{f}secret.txt", "{f}./secret.txt", "{f}{lock}"),
    *("{f}{uploads}/../jobs/secret.txt", "{f}{uploads}/..%2fjobs%2fsecret.txt"),
    *("{f}{uploads}/%2e%2e/jobs/secret.txt", "{f}{uploads}/..%5cjobs%5csecret.txt"),
    *("{f}{uploads}/%252e%252e/jobs/secret.txt", "{f}{uploads}/x/../../jobs/secret.txt"),
    *("{f}{uploads}", "{f}{uploads}/", "{f}{uploads}%00.png", "{f}{jobs}%00.png"),
    *(
        "{f}%2fetc%2fpasswd",
        "{f}%252fetc%252fpasswd",
        "{f}\\etc\\passwd",
        "{f}C:\\Windows\\win.ini",
    ),
    *(
        "{f}C:/Windows/win.ini",
        "{f}\\\\host\\share\\x",
        "{f}//host/share/x",
        "{f}%5c%5chost%5cshare",
    ),
    *("{f}file:///etc/passwd", "{f}http://127.0.0.1:{port}/config", "{f}http://169.254.169.254/"),
    *("{f}https://example.org/", "{f}ftp://example.org/x", "{f}gopher://127.0.0.1:{port}/_GET"),
    *("{f}/proc/self/environ", "{f}/proc/self/cwd/secret.txt", "{f}~/.ssh/id_rsa", "{f}{home}"),
    *("/gradio_api/file/{out}", "/gradio_api/file//etc/passwd", "/file={out}", "/file/etc/passwd"),
    *("/static/../../../../etc/passwd", "/static/..%2f..%2f..%2f..%2fetc%2fpasswd"),
    *("/static//etc/passwd", "/static/%2fetc%2fpasswd", "/assets/..%2f..%2froutes.py"),
    *("/assets/../../routes.py", "/assets/....//....//routes.py", "/svelte/..%2f..%2froutes.py"),
    *("/gradio_api/proxy=http://127.0.0.1:{port}/config", "/gradio_api/proxy=https://example.org/"),
    *("/gradio_api/custom_component/x/client/type/..%2f..%2froutes.py", "/gradio_api/dev/reload"),
    *("/gradio_api/stream/a/b/c/playlist-file", "/gradio_api/stream/../file={out}", "//etc/passwd"),
    *("/gradio_api/deep_link?session_hash=a", "/?deep_link=../jobs", "/config?deep_link=..%2fjobs"),
    *("/monitoring", "/monitoring/summary", "/gradio_api/vibe-code", "/gradio_api/runs", "/docs"),
    *("/gradio_api/upload/../file={out}", "/pwa_icon/1", "http://example.org/", "/manifest.json"),
]


@pytest.mark.parametrize("form", PLACES)
def test_other_places_are_refused(server, form):
    path = form.format(
        f="/gradio_api/file=", out=server.folder / "secret.txt", port=server.port,
        jobs=server.root / "jobs" / "secret.txt", work=server.root / "work" / "secret.txt",
        lock=server.root / "lock", uploads=server.root / "uploads", home=Path.home() / ".bashrc",
    )  # fmt: skip
    for method in ("GET", "HEAD"):
        status, _, body = ask(server, path, method)
        assert 400 <= status < 500, body
        assert CANARY.encode() not in body
        assert b"root:" not in body
        assert len(body) < 300


def test_what_was_uploaded_here_is_served_and_never_as_a_page(server):
    page = f"<html><script>alert(1)</script>{secrets.token_hex(8)}</html>".encode()
    for name in ("x.html", "x.svg", "x.inr", "x.xhtml"):
        path = upload(server, name, page)
        status, headers, body = ask(server, f"/gradio_api/file={path}")
        assert (status, body) == (200, page)
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    ["../../../evil.inr", "/etc/cron.d/evil", "..\\..\\evil", "a/b/c.inr", "x\x00y.png", ".", ".."],
)
def test_names_of_uploads_lead_nowhere(server, name):
    before = set(server.folder.rglob("*"))
    body = secrets.token_bytes(8)
    form = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + body
        + b"\r\n--b--\r\n"
    )
    kind = [("Content-Type", "multipart/form-data; boundary=b")]
    status, _, answer = ask(server, "/gradio_api/upload", "POST", kind, form)
    assert status in (200, 400, 500)
    for path in set(server.folder.rglob("*")) - before:
        assert path.is_relative_to(server.root / "uploads")
    if status == 200:
        assert re.search(rb"uploads/[0-9a-f]{64}/[^/]*\"", answer)


@pytest.mark.parametrize("name", ["fit", "info"])
@pytest.mark.parametrize(
    "form",
    [
        *("/etc/passwd", "{out}", "{jobs}", "{uploads}/../jobs/secret.txt", "", "{lock}"),
        *("{uploads}", "http://169.254.169.254/latest", "http://127.0.0.1:{port}/config"),
        *("https://example.org/a", "http://127.0.0.1:{port}/gradio_api/file={out}"),
        *("file://{out}", "\\\\host\\share"),
    ],
)
def test_functions_take_nothing_but_uploads(server, name, form):
    path = form.format(
        out=server.folder / "secret.txt", jobs=server.root / "jobs" / "secret.txt",
        port=server.port, uploads=server.root / "uploads", lock=server.root / "lock",
    )  # fmt: skip
    before = server.uploads()
    said = call(server, name, file_of(path))
    assert "event: error" in said
    assert CANARY not in said
    assert "event: complete" not in said
    assert server.uploads() == before


# ---------------------------------------------------------------------- other pages


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/status"])
@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "https://example.org")],
        [("Origin", "null")],
        [("Origin", "http://localhost:1")],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "cors")],
        [("Host", "example.org")],  # a name of theirs that leads here
        [("Host", "127.0.0.1.example.org:7860"), ("Origin", "http://127.0.0.1.example.org:7860")],
        [("Host", "")],
    ],
)
def test_pages_of_others_get_no_data(server, path, headers):
    status, answered, body = ask(server, path, headers=headers)
    assert status == 403
    assert len(body) < 100
    if ("Origin", "https://example.org") in headers:
        assert "access-control-allow-origin" not in answered


def test_pages_of_others_upload_nothing_and_start_nothing(server):
    before = server.uploads()
    foreign = {"Origin": "https://example.org"}
    for path, more in (
        ("upload", {"files": {"files": ("a.png", b"x")}}),
        ("queue/join", {"json": {"data": [], "fn_index": 0, "session_hash": "a"}}),
        ("component_server", {"json": {"data": [], "component_id": 1, "fn_name": "x"}}),
    ):
        answer = httpx.post(f"{server.url}gradio_api/{path}", headers=foreign, **more)
        assert answer.status_code == 403
    assert server.uploads() == before


def test_a_link_leads_to_the_page_and_its_own_origin_has_access(server):
    link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]
    status, headers, body = ask(server, "/", headers=link)
    assert status == 200
    assert b"INR Studio" in body
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    own = [("Origin", server.url.rstrip("/")), ("Sec-Fetch-Site", "same-origin")]
    assert ask(server, "/config", headers=own)[0] == 200


def test_what_the_page_says_of_itself_holds_no_paths(server):
    for path in ("config", "", "gradio_api/info", "gradio_api/app_id", "gradio_api/startup-events"):
        text = httpx.get(f"{server.url}{path}").text
        for place in (server.folder, server.root.name, ROOT, Path.home(), Path(sys.prefix)):
            assert f"{place}/" not in text
        assert CANARY not in text


def test_nobody_hears_it_but_this_machine(server):
    process = psutil.Process(server.process.pid)
    listening = [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    for child in process.children(recursive=True):
        assert child.net_connections() == []


def test_what_it_is_made_of_is_private(server):
    assert server.root.stat().st_mode & 0o77 == 0
    for path in (server.root / "uploads", server.root / "jobs", server.root / "work"):
        assert path.stat().st_mode & 0o77 == 0
    assert Path(f"/proc/{server.process.pid}/cwd").readlink() == server.root / "work"


# ---------------------------------------------------------------------- floods and bombs


def test_a_flood_is_refused_before_it_is_sent(server):
    before = server.uploads()
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000000\r\n\r\n"
        )
        begin = time.monotonic()
        assert b" 413 " in connection.recv(4096)
        assert time.monotonic() - begin < 5
    assert server.uploads() == before


def test_a_flood_of_unknown_length_is_refused_on_the_way(server):
    before, sent = server.uploads(), 0
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.inr"\r\n\r\n'
    block = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked"
            b"\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
            + b"%x\r\n%s\r\n"
            % (len(head), head)
        )
        connection.setblocking(False)
        answer = b""
        end = time.monotonic() + 120
        pending = b""
        while not answer and time.monotonic() < end:
            pending = pending or b"%x\r\n%s\r\n" % (len(block), block)
            try:
                sent_now = connection.send(pending)
                sent, pending = sent + sent_now, pending[sent_now:]
            except BlockingIOError:
                time.sleep(0.005)
            except (BrokenPipeError, ConnectionResetError):
                break
            try:
                answer = connection.recv(4096)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                break
    assert b" 413 " in answer or not answer
    assert 64 << 20 <= sent < 200 << 20
    time.sleep(0.5)
    assert server.uploads() == before


def test_a_broken_upload_leaves_nothing(server):
    before = server.uploads()
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.inr"\r\n\r\n'
            + bytes(1 << 20)
        )
        time.sleep(0.5)
    end = time.monotonic() + 10
    while server.uploads() != before:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("path", ["queue/join", "call/fit", "component_server", "run/fit"])
def test_other_requests_are_short(server, path):
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(
            f"POST /gradio_api/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Type: application/json\r\nContent-Length: 100000000\r\n\r\n".encode()
        )
        assert b" 413 " in connection.recv(4096)


def png_of(width, height) -> bytes:
    """The head of a picture of that size, and next to nothing in it."""

    def chunk(kind, body):
        check = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("function", "name", "data", "told"),
    [
        ("info", "x.inr", b"<html><script>alert(1)</script></html>", "x.inr: is not an .inr file"),
        ("decode", "x.inr", b"<html><img src=x onerror=1></html>", "x.inr: is not an .inr file"),
        ("fit", "x.inr", b"<!doctype html><title>x</title>", "x.inr: "),
        ("fit", "x.png", b"<html><script>alert(2)</script></html>", "x.png: "),
        ("fit", "bomb.png", png_of(40_000, 25_000), "limit is"),
        ("compress", "bomb.png", png_of(1_000_000, 1_000), "limit is"),
    ],
)
def test_what_is_not_what_it_says_is_told_and_not_kept(server, function, name, data, told):
    before = server.uploads()
    path = upload(server, name, data + b"\n" * (1 + len(function)))
    defaults = {
        "info": (),
        "decode": (0, "", "", 0, 0, 0, ""),
        "fit": ("", 5, 0, 0, 0),
        "compress": (900, 0, 0, 1),
    }
    said = call(server, function, file_of(path), *defaults[function])
    assert "event: error" in said
    assert told in said
    assert "<script" not in said
    assert "<img" not in said
    assert server.uploads() == before
    assert [path for path in server.jobs() if path.is_dir()] == []


NASTY = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</textarea><svg onload=1>",
    "[x](javascript:alert(1))", "![x](http://example.org/x.png)", "**bold** _it_ `code` # head",
    "\x1b[2J\x1b]0;title\x07", "a\nb\r\nc", "\u202egnp.exe", "&lt;b&gt; &amp;", "{{7*7}} ${7*7}",
    "<a href='//example.org'>", "$$x^2$$", "| a | b |\n|---|---|", "- x\n1. y", "<!-- x -->",
    "~~x~~",
    "data:text/html,<script>1</script>", "http://example.org/", "www.example.org", "a@example.org",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_text_of_strangers_is_text(text):
    assert not re.search(r"<\w", escape(text))
    assert display_name(text).isprintable()
    assert "/" not in display_name(text)
    shown = plain(text)
    assert "<" not in shown
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[*_`\[\]()#|~$!]", shown)


# ---------------------------------------------------------------------- visitors


@pytest.fixture
def studio(tmp_path, monkeypatch):
    """Two visitors' folders, and no workers."""
    monkeypatch.setattr("apps.studio.service._Worker", lambda *a: SimpleNamespace(
        ready=False, job=None, lane=a[1], end=lambda: None, send=lambda message: None
    ))  # fmt: skip
    service = Service(tmp_path / "jobs", bounds=Bounds(queued_each=2, queued=3))
    (tmp_path / "uploads").mkdir()
    yield Studio(service, tmp_path / "uploads", None)
    service.close()


ALICE, MALLORY = "a" * 24, "m" * 24


def test_visitors_do_not_find_each_others_jobs_and_files(studio):
    job = studio.service.submit(ALICE, "fit", {})
    (job.folder / "photo.inr").write_bytes(b"x")
    assert studio.service.find(ALICE, job.id) is job
    for owner, id in ((MALLORY, job.id), (ALICE, "x"), (MALLORY, ""), ("", job.id)):
        with pytest.raises(UsageError, match="no such job"):
            studio.service.find(owner, id)
    assert studio.service.jobs(MALLORY) == []
    for path in (job.folder / "photo.inr", "/etc/passwd", job.folder, "uploads/../jobs"):
        with pytest.raises(InputError, match="not there any more"):
            adopt(studio, MALLORY, path)
    link = studio.uploads / "link.inr"
    link.symlink_to(job.folder / "photo.inr")
    with pytest.raises(InputError):
        adopt(studio, MALLORY, link)
    assert len(job.id) >= 22
    assert job.folder.stat().st_mode & 0o77 == 0
    assert ALICE not in str(job.folder)


def test_one_visitor_cannot_take_the_whole_queue(studio):
    for _ in range(2):
        studio.service.submit(MALLORY, "fit", {})
    with pytest.raises(UsageError, match="of yours are waiting"):
        studio.service.submit(MALLORY, "fit", {})
    studio.service.submit(ALICE, "fit", {})
    with pytest.raises(UsageError, match="come back"):
        studio.service.submit("b" * 24, "fit", {})


@pytest.mark.parametrize("token", [None, 7, "", "short", "a" * 65, "../" * 9, "a" * 23 + "/", {}])
def test_tokens_are_long_and_plain(token):
    with pytest.raises(UsageError, match="token"):
        visitor(token)
