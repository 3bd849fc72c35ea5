"""The log of a run: one row of figures for each validation, in a CSV file whose columns never shift."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from dehaze.io.files import write_whole


class Log:
    """Rows of a run, each with its `step`. Every change writes the whole file, so that no half row is left."""

    def __init__(self, path: Path):
        self._path = path
        with path.open(newline="", encoding="utf-8") if path.exists() else io.StringIO() as file:
            self._rows: list[Mapping[str, object]] = list(csv.DictReader(file))

    def keep_until(self, step: int) -> None:
        """Drop the rows of later steps: a run that goes on from an older checkpoint writes them again."""
        self._rows = [row for row in self._rows if int(str(row["step"])) <= step]

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row and write the file. A new column is empty in earlier rows. Raises OutputError."""
        self._rows.append(row)
        columns = list(dict.fromkeys(name for each in self._rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(self._path, text.getvalue().encode())
