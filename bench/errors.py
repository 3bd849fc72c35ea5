"""Errors that say what happened and what to do, in fields that each interface words for its reader."""

from pathlib import Path


class BenchError(Exception):
    """Base of every error that the harness and the leaderboard raise on purpose.

    The fields are those of `dehaze.errors.DehazeError`, which importing would load torch: `subject` is a file or a
    name, `reason` reads on from it, `advice` says what to do, `setting` adds what only whoever runs the program can
    change.
    """

    def __init__(self, reason: str, advice: str = "", *, subject: object = None, setting: str = ""):
        super().__init__(reason)
        self.subject, self.reason, self.advice, self.setting = subject, reason, advice, setting

    def __str__(self) -> str:
        return self._sentence(self.subject, self.setting)

    def for_visitors(self, name: str | None = None) -> str:
        """Word the error for somebody who sees neither folders nor settings.

        `name` stands for the subject; by default a file is called by its name alone.
        """
        subject = self.subject.name if isinstance(self.subject, Path) else self.subject
        return self._sentence(subject if name is None or subject is None else name, "")

    def _sentence(self, subject: object, setting: str) -> str:
        start = [] if subject is None else [str(subject)]
        return " ".join(filter(None, [*start, self.reason, self.advice, setting]))


class UsageError(BenchError):
    """The options of a command contradict each other, or name what does not exist."""


class DatasetError(BenchError):
    """The data set cannot be scored as it lies."""


class UnknownDatasetError(DatasetError, UsageError):
    """No data set has this name."""


class ProtocolError(UsageError):
    """No protocol has this name."""


class RecordError(BenchError):
    """The result record cannot be read, written or compared."""


class RunError(BenchError):
    """The run cannot go on; what was done is kept."""
