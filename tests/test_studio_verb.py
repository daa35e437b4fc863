"""`inr studio`: whom it lets in, what it refuses, what its gate does, how it ends."""

import asyncio
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from apps.cli import studio as verb
from apps.cli.main import main
from apps.studio import gate
from tests.conftest import ROOT
from tests.studio_server import Server, ask, call, file_of

pytest.importorskip("gradio")

USER, PASSWORD = "someone", "correct horse"


# ---------------------------------------------------------------------- the verb


def refused(capsys, *argv, told) -> None:
    assert main(["studio", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_strangers_are_let_in_by_decision_only(capsys, host):
    refused(capsys, "--host", host, told="give --auth USER:PASSWORD, or --expose")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--auth", "someone"], "give USER:PASSWORD"),
        (["--auth", "someone:short"], "at least 8"),
        (["--auth", ":longenough"], "give USER:PASSWORD"),
        (["--port", "65536"], "0 to 65535"),
        (["--port", "x"], '"port"'),
        (["--host", "192.0.2.1", "--expose"], "192.0.2.1"),
        (["--device", "tpu", "--port", "0"], "'tpu'"),
        (["--device", "cuda:99", "--port", "0"], "cuda:99"),
        (["--threads", "0", "--port", "0"], "--threads"),
        (["--mcp", "--auth", "a:bbbbbbbb"], "exclude each other"),
        (["--browser", "--no-browser"], "exclude each other"),
        (["--share"], "--share"),
    ],
)
def test_wrong_options_are_told_in_one_line(capsys, argv, told):
    refused(capsys, *argv, told=told)


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(capsys, "--port", port, told=f"--port {port} at 127.0.0.1: address already in use")


def test_a_password_may_lie_in_a_file(tmp_path, capsys):
    (tmp_path / "login").write_text("someone:with:colons in it\nmore\n")
    assert verb._login(f"@{tmp_path / 'login'}") == ("someone", "with:colons in it")
    (tmp_path / "login").write_bytes(b"\xff\xfe")
    assert main(["studio", "--auth", f"@{tmp_path / 'login'}"]) == 3
    assert main(["studio", "--auth", f"@{tmp_path / 'none'}"]) == 3
    assert "no such file" in capsys.readouterr().err


def test_help_needs_neither_gradio_nor_torch():
    code = (
        "import sys; from apps.cli.main import main; main(['studio', '--help']);"
        "print(*({'gradio', 'torch', 'lightning'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("usage: inr studio")
    assert done.stderr == "\n"


@pytest.mark.parametrize("package", ["gradio", "mcp"])
def test_a_missing_package_is_named(monkeypatch, capsys, package):
    found = verb.importlib.util.find_spec
    monkeypatch.setattr(
        verb.importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    told = {"gradio": "inr-studio[studio]", "mcp": "inr-studio[mcp]"}[package]
    refused(capsys, "--mcp", "--port", "0", told=told)


def test_folders_of_dead_servers_are_swept(tmp_path):
    dead, alive, other, young, old = (tmp_path / f"inr-studio-{c}" for c in "abcde")
    for path in (dead, alive, young, old):
        path.mkdir()
    other.symlink_to(tmp_path)
    for path in (dead, alive):
        (path / "lock").touch()
    os.utime(old, (0, 0))
    (tmp_path / "another").mkdir()
    with (alive / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        verb._sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"inr-studio-b", "inr-studio-c", "inr-studio-d", "another"}


# ---------------------------------------------------------------------- the gate


def test_old_uploads_go_and_gradios_own_files_stay(tmp_path):
    uploads = tmp_path / "uploads"
    paths = {name: uploads / (name * 64) / "x.png" for name in "abc"}
    for path in paths.values():
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    broken, outside = uploads / "tmp1234", tmp_path / "outside"
    broken.touch()
    outside.touch()
    for path in (paths["a"], paths["c"], broken, outside):
        os.utime(path, (0, 0))
    gate.sweep(uploads, [str(paths["a"]), str(paths["b"]), str(outside)])
    assert not paths["a"].parent.exists()
    assert not broken.exists()
    assert all(path.exists() for path in (paths["b"], paths["c"], outside))


def test_nothing_leaves_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as own, gate.stay_local("192.0.2.7"):
        socket.create_connection(own.getsockname(), 5).close()
        socket.getaddrinfo("localhost", 80)
        for attempt in (
            lambda: socket.create_connection(("192.0.2.1", 80), 0.1),
            lambda: socket.getaddrinfo("example.org", 443),
            lambda: httpx.get("http://203.0.113.9/", timeout=0.1),
            lambda: asyncio.run(httpx.AsyncClient(timeout=0.1).get("https://example.org")),
            lambda: socket.create_connection(("2001:db8::1", 80), 0.1),
        ):
            with pytest.raises((OSError, httpx.ConnectError), match="nothing leaves this machine"):
                attempt()
    with socket.socket() as free:
        free.setblocking(False)
        assert free.connect_ex(("192.0.2.1", 80)) != 0  # no hook: the system says what it says


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "", "127.1", "example.org")),
        *((host, False) for host in ("localhost.example.org", "127.0.0.1.example.org")),
    ],
)
def test_what_is_loopback(host, own):
    assert gate.is_loopback(host) is own


def test_uploads_are_refused_where_there_is_no_room(monkeypatch, tmp_path):
    rules = gate.Rules(tmp_path, 1 << 20)
    guard = gate.Gate(None, rules)
    assert guard._too_much(gate.UPLOAD, {"content-length": "100"}) is None
    monkeypatch.setattr(gate, "UPLOADS_BYTES", 10)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(11))
    assert guard._too_much(gate.UPLOAD, {})[0] == 507
    rules.uploading = gate.UPLOADS_AT_ONCE
    assert guard._too_much(gate.UPLOAD, {})[0] == 503
    for length in ("-1", "1e3", "99999999999", "0x10", "", "1,1"):
        assert guard._too_much(gate.UPLOAD, {"content-length": length})[0] == 413


# ---------------------------------------------------------------------- passwords


@pytest.fixture(scope="module")
def guarded():
    server = Server("--auth", f"{USER}:{PASSWORD}")
    yield server
    server.close()


ROUTES = """
import json, gradio
from gradio.routes import App

with gradio.Blocks() as page:
    gradio.Textbox()
page.config = page.get_config_file()
print(json.dumps({k: [*v] for k, v in App.create_app(page).openapi()["paths"].items()}))
"""


def routes() -> list[tuple[str, str]]:
    """All that Gradio serves, whatever the gate makes of it."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-W", "ignore", "-c", ROUTES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout).items()
    return [(m.upper(), re.sub(r"\{\w+\}", "x", path)) for path, ms in found for m in ms]


def test_without_a_password_no_route_answers(guarded):
    known = [*routes(), ("POST", "/gradio_api/component_server"), ("GET", "/gradio_api/mcp/")]
    assert len(known) > 60
    face = (*gate.FACE, gate.STARTUP, "/login/")
    for method, path in known:
        status, _, body = ask(guarded, path, method, body=b"{}" if method == "POST" else None)
        if path in face:
            continue
        assert status in (401, 403, 404, 405, 422), (method, path, status, body)
        if status == 422:
            assert path.startswith("/login")
        if path.startswith(("/gradio_api/upload", "/gradio_api/queue", "/gradio_api/component")):
            assert status == 401
    assert guarded.uploads() == []


def test_with_the_password_all_is_there(guarded):
    page = httpx.get(guarded.url).text
    assert '"auth_required":true' in page.replace(" ", "")
    assert '"components":[],"dependencies":[]' in page.replace(" ", "")
    with httpx.Client(base_url=guarded.url) as client:
        for wrong in ({"username": USER, "password": "x" * 9}, {"username": "", "password": ""}):
            begin = time.monotonic()
            assert client.post("login", data=wrong).status_code in (400, 422)
            assert time.monotonic() - begin >= gate.LOGIN_SECONDS
            assert client.get("config").status_code == 401
        client.cookies.set(f"access-token-{secrets.token_urlsafe(8)}", "x")
        assert client.get("config").status_code == 401
        right = {"username": USER, "password": PASSWORD}
        assert client.post("login", data=right).status_code == 200
        assert client.get("config").status_code == 200
        path = client.post("gradio_api/upload", files={"files": ("a.inr", b"nothing")}).json()[0]
        cookies = dict(client.cookies)
        said = call(guarded, "info", file_of(path), cookies=cookies)
        assert "a.inr: is not an .inr file" in said
        assert client.get("gradio_api/mcp/").status_code == 404  # it was not asked for
    assert PASSWORD not in page


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_a_signal_ends_it_within_two_seconds_with_all_that_it_had(number, code):
    server = Server()
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    with httpx.Client(base_url=server.url) as client:
        path = client.post("gradio_api/upload", files={"files": ("a.inr", b"nothing")}).json()[0]
        with client.stream("GET", "gradio_api/heartbeat/abcdefgh"):  # an open page
            begin = time.monotonic()
            server.process.send_signal(number)
            assert server.process.wait(30) == code
            assert time.monotonic() - begin < 2
    psutil.wait_procs(children, timeout=2)
    assert not any(child.is_running() for child in children)
    assert not Path(path).exists()
    assert not server.root.exists()
    assert "Traceback" not in server.said()
    server.close()
