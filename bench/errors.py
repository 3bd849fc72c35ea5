"""Exceptions of the harness: what happened and what to do about it."""

from pathlib import Path


class BenchError(Exception):
    """Base of every error that the harness raises on purpose."""

    @property
    def brief(self) -> str:
        """Return the message for readers elsewhere, as on a web page: without folders of this computer."""
        return str(self)


class DatasetError(BenchError):
    """The data set cannot be scored as it lies."""


class ProtocolError(BenchError):
    """No protocol has this name."""


class RecordError(BenchError):
    """The result record cannot be read or written; `text` continues the name of the file at `path`, if it is of one."""

    def __init__(self, text: str, path: Path | None = None):
        super().__init__(text if path is None else f"{path} {text}")
        self.text, self.path = text, path

    @property
    def brief(self) -> str:
        return self.text if self.path is None else f"{self.path.name} {self.text}"


class RunError(BenchError):
    """The run cannot go on; what was done is kept."""
