import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dehaze.errors import DehazeError
from dehaze.page.folder import FULL, PageFolder, disk_is_full, full_disk_explained, reserve


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def folder(base):
    folder = PageFolder()
    folder.open()
    yield folder
    folder.close()


def test_temporary_files_are_made_there_and_are_gone_at_the_end(base):
    before = tempfile.gettempdir()
    folder = PageFolder()
    folder.open()
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder.served)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        assert Path(file.name).parent == folder.private
    assert (folder.path.stat().st_mode & 0o777) == 0o700
    folder.close()
    folder.close()
    assert list(base.iterdir()) == []
    assert (tempfile.gettempdir(), os.environ["GRADIO_TEMP_DIR"]) == (before, str(base))


START = """
import time
from dehaze.page.folder import PageFolder
folder = PageFolder()
folder.open()
(folder.served / "photo.jpg").write_bytes(b"x")
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_process_that_is_gone_left_is_removed_by_the_next(base, ended_by):
    command = START if ended_by == signal.SIGKILL else f"import signal, sys\n{CATCH}\n{START}"
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    living = PageFolder()  # which leaves the other's alone
    assert (left / "served" / "photo.jpg").exists()
    process.send_signal(ended_by)
    process.wait(30)
    assert left.exists() == (ended_by == signal.SIGKILL)
    following = PageFolder()
    assert not left.exists() and living.path.exists()
    for folder in (living, following):
        folder.open()
        folder.close()


CATCH = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"


def aged(path, seconds, monkeypatch):
    """Let some seconds pass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    now = path.stat().st_ctime
    monkeypatch.setattr("dehaze.page.folder.time.time", lambda: now + seconds)
    return path


def test_files_and_folders_go_by_age(folder, monkeypatch):
    upload = aged(folder.served / "0a1b" / "photo.jpg", 3599, monkeypatch)
    private = folder.private / "tmpabc"
    private.write_bytes(b"x")
    folder.sweep(3600)
    assert upload.exists() and private.exists()
    aged(upload, 3602, monkeypatch)
    folder.sweep(3600)
    assert not upload.parent.exists() and not private.exists()
    assert folder.served.exists() and folder.private.exists()


def test_broken_uploads_go_sooner(folder, monkeypatch):
    broken = aged(folder.served / "tmp1234", 200, monkeypatch)
    named = folder.served / "0a1b" / "tmp1234.jpg"
    named.parent.mkdir()
    named.write_bytes(b"x")
    folder.sweep(3600)
    assert not broken.exists() and named.exists()


def test_only_its_own_regular_files_are_held(folder, tmp_path):
    photo = folder.served / "0a1b" / "my photo.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"x")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder.served / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder.served / "inner.jpg").symlink_to(photo)
    (folder.served / "linked").symlink_to(photo.parent)
    os.mkfifo(folder.served / "pipe")
    assert folder.holds(str(photo))
    with photo.open("rb") as open_file, tempfile.TemporaryFile() as nameless:
        others = [f"/proc/self/fd/{file.fileno()}" for file in (open_file, nameless)]
        others += [f"/proc/{os.getpid()}/fd/{open_file.fileno()}", f"/dev/fd/{open_file.fileno()}"]
        others += [f"/proc/self/root{photo}", f"/proc/self/cwd/../../../../{photo}"]
        others += ["link.jpg", "inner.jpg", "linked/my photo.jpg", "pipe", "0a1b", "", ".", "gone.jpg", "x" * 5000]
        others = [other if other.startswith("/") else f"{folder.served}/{other}" for other in others]
        others += [str(tmp_path / "secret.jpg"), "/etc/passwd", "", ".", str(folder.path / "lock")]
        others += [
            f"{folder.served}/../served/0a1b/my photo.jpg",
            f"/{photo}",
            f"{photo}/",
            f"{photo}\0",
            f"{photo}\0.jpg",
        ]
        others += [os.path.relpath(photo), f"file://{photo}", "https://example.org/a.jpg"]
        assert not [other for other in others if folder.holds(other)]


def test_room_is_taken_before_it_is_needed(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        reserve(file, 10_000)
        assert file.seek(0, os.SEEK_END) == 10_000
        with pytest.raises(OSError):
            reserve(file, 1 << 60)


def test_a_full_disk_is_explained_wherever_it_shows():
    def fail():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise DehazeError("Cannot write /tmp/a.png") from error

    with pytest.raises(DehazeError, match="disk is full") as error, full_disk_explained():
        fail()
    assert str(error.value) == FULL
    with pytest.raises(KeyError), full_disk_explained():
        raise KeyError
    assert not disk_is_full(PermissionError(errno.EACCES, "Permission denied"))
