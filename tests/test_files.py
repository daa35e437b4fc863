"""A final name holds the old file or the new one, whatever happens in between."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from inr import files
from inr.errors import InputError, OutputError
from inr.files import atomic_path, check_target, read_bytes, write_bytes

NAMES = [
    "plain.inr",
    "no suffix",
    ".hidden",
    "glob[*]?.inr",
    "[!a].png",
    "zwölf 十二 🙂.inr",
    "a\nb\x1b[31m\t.inr",
    "tail.\u202egnp.inr",
    os.fsdecode(b"not\xff\xfeunicode.inr"),
    "-o",
    "a" * 250 + ".inr",
    "é" * 125 + ".inr",
]


def child(code: str, *argv: object) -> str:
    """Standard output of some Python in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_path(path) as part:
        part.write_bytes(b"half")
        raise error("half")


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


# ------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("overwrite", [True, False])
def test_any_name_can_be_written(tmp_path, name, overwrite):
    write_bytes(tmp_path / name, b"one", overwrite=overwrite)
    assert read_bytes(tmp_path / name) == b"one"
    assert listing(tmp_path) == [name]


def test_the_suffix_of_the_temporary_file_is_the_final_one(tmp_path):
    with atomic_path(tmp_path / "a.b.png") as part:
        assert part.suffix == ".png"
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        part.write_bytes(b"")


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.inr"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.inr: exists already; .*-f"):
        write_bytes(path, b"new", overwrite=False)
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_was_private_stays_private(tmp_path):
    path = tmp_path / "a.inr"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_bytes(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_links_are_followed(tmp_path):
    there, link = tmp_path / "there", tmp_path / "link.inr"
    there.mkdir()
    link.symlink_to(there / "real.inr")
    for content in (b"dangling", b"replaced"):
        write_bytes(link, content)
        assert link.is_symlink()
        assert (there / "real.inr").read_bytes() == content
    with pytest.raises(OutputError, match=r"link\.inr: exists"):
        write_bytes(link, b"", overwrite=False)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("stage", ["write", "sync", "rename"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_failing_disk_leaves_everything_as_it_was(tmp_path, monkeypatch, error, stage, overwrite):
    path = tmp_path / "a.inr"
    if overwrite:
        path.write_bytes(b"old")
    before = listing(tmp_path)

    def fail(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    def write() -> None:
        with atomic_path(path, overwrite=overwrite) as part:
            part.write_bytes(b"half")
            if stage == "write":
                fail()

    with monkeypatch.context() as patch:
        if stage == "sync":
            patch.setattr(os, "fsync", fail)
        elif stage == "rename":
            patch.setattr(Path, "replace", fail)
            patch.setattr(os, "link", fail)
        with pytest.raises(OutputError, match=r"a\.inr: ") as caught:
            write()
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before
    if overwrite:
        assert path.read_bytes() == b"old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_removes_the_temporary_file(tmp_path, error):
    path = tmp_path / "a.inr"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half(path, error)
    assert listing(tmp_path) == ["a.inr"]
    assert path.read_bytes() == b"old"


def test_a_size_limit_of_the_system_leaves_nothing(tmp_path):
    code = (
        "import resource, sys\n"
        "from inr.files import write_bytes\n"
        "from inr.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(sys.argv[1], bytes(5000))\n"
        "except OutputError as error: print(error)\n"
    )
    path = tmp_path / "a.inr"
    assert "a.inr: larger than files may be here" in child(code, path)
    assert listing(tmp_path) == []


# -------------------------------------------------------------------- where nothing can be


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nix/a.inr", "does not exist; make it"),
        ("file/a.inr", "no folder"),
        ("folder", "is a folder"),
        ("a" * 256, "too long"),
        ("/dev/null", "no regular file"),
        ("/proc/self/fd/nix.inr", "no permission|does not exist"),
    ],
)
def test_impossible_targets_are_told_before_any_work(tmp_path, name, reason):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=reason) as caught:
        write_bytes(tmp_path / name, b"x")
    assert str(caught.value).startswith(str(tmp_path / name))
    if not name.startswith("/proc"):  # root may write there, it says
        with pytest.raises(OutputError, match=reason):
            check_target(tmp_path / name)
    assert listing(tmp_path) == before
    assert not Path("/dev/null").is_file()


def test_a_folder_without_permission():
    """In a child, which gives up root's rights if it has them."""
    code = (
        "import os, sys\n"
        "from inr.files import read_bytes, write_bytes\n"
        "from inr.errors import InrError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for work in (lambda: write_bytes(sys.argv[1] + '/new.inr', b''),\n"
        "             lambda: read_bytes(sys.argv[1] + '/secret')):\n"
        "    try: work()\n"
        "    except InrError as error: print(type(error).__name__, error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_bytes(b"x")
        secret.chmod(0o000)
        Path(folder).chmod(0o555)
        output, source = child(code, folder).splitlines()
        Path(folder).chmod(0o755)
    assert output.startswith(f"OutputError {folder}/new.inr: no permission")
    assert source.startswith(f"InputError {folder}/secret: no permission to read")


def test_a_link_that_leads_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="a: "):
        write_bytes(tmp_path / "a", b"x")
    with pytest.raises(InputError, match="a: "):
        read_bytes(tmp_path / "a")
    assert listing(tmp_path) == ["a", "b"]


# --------------------------------------------------------------------------------- races


def no_links(*args, **kwargs):
    raise OSError(errno.EPERM, "hard links are not supported")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_survives(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.inr"

    def write() -> None:
        with atomic_path(path, overwrite=False) as part:
            part.write_bytes(b"late")
            path.write_bytes(b"first")

    with pytest.raises(OutputError, match="appeared while"):
        write()
    assert path.read_bytes() == b"first"
    assert listing(tmp_path) == ["a.inr"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_one_wins(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.inr"
    start = threading.Barrier(12)
    won: list[int] = []

    def write(index: int) -> None:
        start.wait()
        try:
            write_bytes(path, bytes([index]) * 1000, overwrite=False)
            won.append(index)
        except OutputError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == bytes([won[0]]) * 1000
    assert listing(tmp_path) == ["a.inr"]


def test_without_links_a_failing_rename_leaves_no_empty_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Path, "replace", no_links)
    with pytest.raises(OutputError, match="no permission"):
        write_bytes(tmp_path / "a.inr", b"x", overwrite=False)
    assert listing(tmp_path) == []


# ----------------------------------------------------------------------------- leftovers


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_leftovers_of_the_dead_are_swept(tmp_path, monkeypatch, name):
    path = tmp_path / name
    pid = dead_pid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(ValueError, match="half"):
            write_half(path, ValueError)
    assert len(listing(tmp_path)) == 1
    assert not path.exists()
    write_bytes(path, b"whole")
    assert listing(tmp_path) == [name]


def test_what_others_write_is_not_swept(tmp_path, monkeypatch):
    pid = dead_pid()
    for name, process, host in [
        ("a.inr", os.getpid(), "here"),
        ("a.inr", pid, "another host"),
        ("b.inr", pid, "here"),
        ("a.png", pid, "here"),
    ]:
        monkeypatch.setattr("platform.node", lambda host=host: host)
        prefix = files._prefix(tmp_path / name)
        (tmp_path / f"{prefix}{process}-00000000.part{Path(name).suffix}").write_bytes(b"")
    (tmp_path / ".a.part.inr").write_bytes(b"")
    before = set(listing(tmp_path))
    monkeypatch.setattr("platform.node", lambda: "here")
    write_bytes(tmp_path / "a.inr", b"")
    assert set(listing(tmp_path)) == before | {"a.inr"}


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.inr"
    path.write_bytes(b"old")
    code = (
        "import sys, time\n"
        "from inr.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_bytes(b'half')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert path.read_bytes() == b"old"
    assert len(listing(tmp_path)) == 2
    write_bytes(path, b"new")
    assert listing(tmp_path) == ["a.inr"]


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nix", "no such file"),
        (".", "is a folder"),
        ("a" * 300, "too long"),
        ("file/x", "not a directory"),
    ],
)
def test_unreadable_inputs_are_named(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    with pytest.raises(InputError, match=reason) as caught:
        read_bytes(name)
    assert str(caught.value).startswith(f"{name}: ")


def test_a_limit_on_size(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    assert len(read_bytes(path, 100)) == 100
    with pytest.raises(InputError, match="larger than 99 bytes"):
        read_bytes(path, 99)
    with pytest.raises(InputError, match="larger than 1,000 bytes"):
        read_bytes("/dev/zero", 1000)
