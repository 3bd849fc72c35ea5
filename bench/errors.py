"""Errors that say what happened and what to do, in fields that each interface words for its reader."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dehaze.errors import DehazeError


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

    @classmethod
    def like(cls, error: "BenchError | DehazeError", advice: str = "", setting: str = "") -> Self:
        """Return an error of this class with the fields of another, and more sentences of advice and setting."""
        advice, setting = (f"{one} {more}".strip() for one, more in ((error.advice, advice), (error.setting, setting)))
        return cls(error.reason, advice, subject=error.subject, setting=setting)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the error of another process that `to_json` wrote, with its errno as cause. Raises ValueError."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.keys() != {"reason", "advice", "setting", "subject", "file", "errno"}:
            raise ValueError("these are not the fields of an error")
        subject = Path(fields["subject"]) if fields["file"] else fields["subject"]
        error = cls(fields["reason"], fields["advice"], subject=subject, setting=fields["setting"])
        if fields["errno"] is not None:
            error.__cause__ = OSError(fields["errno"], os.strerror(fields["errno"]))
        return error

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


class DrawingError(BenchError):
    """There is nothing to draw."""


class RecordError(BenchError):
    """The result record cannot be read, written or compared."""


class DamagedRecordError(RecordError):
    """What the file holds is not what was written."""


class MetricError(BenchError):
    """A metric cannot be had or cannot be computed."""


class UnknownMetricError(MetricError, UsageError):
    """No metric has this name, or none that scores single images."""


class RunError(BenchError):
    """The run cannot go on; what was done is kept."""


def to_json(error: "BenchError | DehazeError") -> str:
    """Return the fields of an error as one line of JSON, with the errno of an OSError that caused it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return json.dumps(
        {
            "reason": error.reason,
            "advice": error.advice,
            "setting": error.setting,
            "subject": None if error.subject is None else str(error.subject),
            "file": isinstance(error.subject, Path),
            "errno": cause.errno if cause else None,
        }
    )
