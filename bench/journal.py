"""The journal of an unfinished run: one line an image, on disk before the next image begins.

A run killed at any moment loses at most the image it was working on. The first line holds what the run was made with; a
journal made with anything else is not continued.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.record import Row, row_from_json, row_to_json


class Journal:
    """Open the journal at `path`, continue it if it was made with `inputs`, else begin it anew.

    `rows` holds what was done before, by image; `stale` names the inputs in which a journal that lay there differed.
    Raises OSError if the file cannot be written.
    """

    def __init__(self, path: Path, inputs: dict[str, Any], resume: bool = True):
        self.path = path
        self.rows: dict[str, Row] = {}
        self.stale: list[str] = []
        header = json.dumps(inputs, sort_keys=True).encode()
        lines = path.read_bytes().split(b"\n") if resume and path.exists() else []
        # What follows the last line end is a line that a crash cut short.
        complete = lines[:-1]
        if complete and complete[0] == header:
            self._read(complete[1:])
        else:
            self.stale = _differences(complete[0], inputs) if complete else []
            complete = [header]
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(complete) == 1:
            path.write_bytes(header + b"\n")
        else:
            os.truncate(path, sum(len(line) + 1 for line in complete))
        self._file = path.open("ab", buffering=0)
        os.fsync(self._file.fileno())

    def append(self, row: Row) -> None:
        """Add a row and wait until it is on disk. Raises OSError, for one if the disk is full."""
        line = row_to_json(row) + b"\n"
        while line:  # an unbuffered write may take only a part
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what it holds stays for the next run."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _read(self, lines: list[bytes]) -> None:
        for line in lines:
            try:
                row = row_from_json(line)
            except ValueError:
                continue  # damaged on disk: this image is done again
            self.rows[row.id] = row


def _differences(header: bytes, inputs: dict[str, Any]) -> list[str]:
    try:
        before = json.loads(header)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        return ["its first line, which is damaged"]
    return sorted(_different(before, inputs))


def _different(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Name the fields, of inner dictionaries too, that differ between two dictionaries."""
    for name in one.keys() | other.keys():
        values = one.get(name), other.get(name)
        if all(isinstance(value, dict) for value in values):
            yield from _different(*values, prefix=f"{prefix}{name}.")
        elif values[0] != values[1]:
            yield prefix + name
