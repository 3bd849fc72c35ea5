"""Files that are opened, written whole, and cleared up after whoever was killed."""

import multiprocessing
import os
import signal
import socket
import stat

import pytest

from dehaze.errors import ImageError, OutputError
from dehaze.io import files

FORK = multiprocessing.get_context("fork")


def write_and(act, path):
    """Write a file, and act between its last byte and its name."""
    os.replace = act
    files.write_whole(path, b"new" * 100_000)


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def odd(tmp_path):
    """Make what is no file but has a photograph's name, each under what it is called."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        listener.listen()
        return {
            "a named pipe": tmp_path / "pipe.jpg",
            "a socket": tmp_path / "socket.jpg",
            "a folder": tmp_path / "folder.jpg",
            "a device": "/dev/null",
        }


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a folder", "a device"])
def test_what_is_no_file_is_named_and_never_waited_for(odd, kind):
    with pytest.raises(ImageError, match=rf"{odd[kind]} is {kind}"):
        files.open_file(odd[kind])


@pytest.mark.parametrize("kind", ["a named pipe", "a folder", "a device"])
def test_what_took_the_place_of_a_file_is_not_waited_for(odd, tmp_path, monkeypatch, kind):
    (tmp_path / "file").touch()
    seen = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: seen)
    with pytest.raises(ImageError, match=rf"{odd[kind]} is {kind}"):
        files.open_file(odd[kind])


def test_a_device_is_refused_unopened(monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ImageError, match="is a device"):
        files.open_file("/dev/zero")


def test_what_a_killed_run_left_is_removed(tmp_path):
    process = FORK.Process(target=write_and, args=(kill, tmp_path / "a.png"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [300_000]
    (tmp_path / ".other.tmp").touch()
    files.remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".other.tmp"]


def test_what_another_process_still_writes_stays(tmp_path):
    written, go_on = FORK.Event(), FORK.Event()
    replace = os.replace

    def wait(*paths):
        written.set()
        assert go_on.wait(60)
        replace(*paths)

    process = FORK.Process(target=write_and, args=(wait, tmp_path / "a.png"))
    process.start()
    assert written.wait(60)
    files.remove_abandoned(tmp_path)
    go_on.set()
    process.join()
    assert process.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").stat().st_size == 300_000


def test_a_file_removed_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    flock, swept = files.fcntl.flock, []

    def late(file, how):
        if not swept:
            swept.append(file.name)
            os.unlink(file.name)
        return flock(file, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    files.write_whole(tmp_path / "a.png", b"new")
    assert swept and [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize("missing", ["locks", "fcntl"])
def test_without_locks_files_are_written_as_well(tmp_path, monkeypatch, missing):
    def refuse(*_):
        raise OSError("no locks here")

    if missing == "fcntl":  # as on Windows
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", refuse)
    files.write_whole(tmp_path / "a.png", b"new")
    files.remove_abandoned(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_a_pipe_named_as_an_unfinished_file_does_not_stop_the_clearing(tmp_path):
    os.mkfifo(tmp_path / ".dehaze-0.tmp")
    files.remove_abandoned(tmp_path)
    assert stat.S_ISFIFO((tmp_path / ".dehaze-0.tmp").stat().st_mode)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"gone/a\.png cannot be written: No such file"):
        files.write_whole(tmp_path / "gone" / "a.png", b"new")
