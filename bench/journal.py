"""The journal of an unfinished run: one line an image, on disk before the next image begins.

A run killed at any moment loses at most the image it was working on. The first line holds what the run was made with; a
journal made with anything else is not continued. Several processes write a file each, the main one `NAME.journal`, the
others `NAME.journal.1` and so on, in a folder that all of them see; any number of them continues what any number began.
"""

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.record import Row, row_from_json, row_to_json, write_atomic
from dehaze.io.files import remove_abandoned
from dehaze.processes import Processes

_DIGITS = 16  # of each row's hash, before it: a flipped bit may leave a row that reads well


class Journal:
    """Open the journal at `path`, continue it if it was made with `inputs`, else begin it anew.

    `rows` holds what was done before without a failure, by image; `stale` names the inputs in which a journal that lay
    there differed. Raises OSError or RecordError if the file cannot be written.
    """

    def __init__(self, path: Path, inputs: dict[str, Any], resume: bool = True, processes: Processes | None = None):
        processes = processes or Processes()
        self.path = path
        self.stale: list[str] = []
        self._header = json.dumps(inputs, sort_keys=True).encode()
        if processes.is_main:
            self._tidy(inputs, resume)
        processes.wait()
        # The main process may be writing again by now; its images are its own, and nobody else looks for them.
        self.rows = self._read(path)
        own = path if processes.is_main else path.with_name(f"{path.name}.{processes.index}")
        self._file = own.open("ab" if processes.is_main else "wb", buffering=0)
        if not processes.is_main:
            self._write(self._header)

    def append(self, row: Row) -> None:
        """Add a row and wait until it is on disk. Raises OSError, for one if the disk is full."""
        self._write(_line(row))

    def close(self) -> None:
        """Close the file; what it holds stays for the next run."""
        self._file.close()

    def collect(self) -> dict[str, Row]:
        """Return the rows that the other processes wrote, by image."""
        return {id_: row for path in self._others() for id_, row in self._read(path).items()}

    def remove(self) -> None:
        """Close and delete the files of all processes."""
        self.close()
        for path in (*self._others(), self.path):
            path.unlink(missing_ok=True)

    def _tidy(self, inputs: dict[str, Any], resume: bool) -> None:
        """Bring what the files of an earlier run hold into one, without failures and half-written lines or files."""
        rows: dict[str, Row] = {}
        if resume:
            for path in (self.path, *self._others()):
                rows |= {id_: row for id_, row in self._read(path).items() if not row.failures}
            if not rows:
                self.stale = self._differences(inputs)
        remove_abandoned(self.path.parent)
        write_atomic(self.path, b"".join(line + b"\n" for line in (self._header, *map(_line, rows.values()))))
        for path in self._others():
            path.unlink()

    def _others(self) -> list[Path]:
        found = self.path.parent.glob(f"{self.path.name}.*")
        return sorted(path for path in found if path.suffix[1:].isdecimal())

    def _lines(self, path: Path) -> list[bytes]:
        # What follows the last line end is a line that a crash cut short.
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []

    def _read(self, path: Path) -> dict[str, Row]:
        header, *lines = self._lines(path) or [b""]
        rows = {}
        for line in lines if header == self._header else []:
            text = line[_DIGITS:]
            if line[:_DIGITS] == _digest(text):  # else it was damaged on disk, and this image is done again
                row = row_from_json(text)
                rows[row.id] = row
        return rows

    def _write(self, line: bytes) -> None:
        line += b"\n"
        while line:  # an unbuffered write may take only a part
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())

    def _differences(self, inputs: dict[str, Any]) -> list[str]:
        header, *_ = self._lines(self.path) or [self._header]
        try:
            before = json.loads(header)
        except ValueError:
            before = None
        if not isinstance(before, dict):
            return ["its first line, which is damaged"]
        return sorted(_different(before, inputs))


def _line(row: Row) -> bytes:
    text = row_to_json(row)
    return _digest(text) + text


def _digest(text: bytes) -> bytes:
    return sha256(text).hexdigest()[:_DIGITS].encode()


def _different(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Name the fields, of inner dictionaries too, that differ between two dictionaries."""
    for name in one.keys() | other.keys():
        before, after = one.get(name), other.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _different(before, after, prefix=f"{prefix}{name}.")
        elif before != after:
            yield prefix + name
