"""Errors that say what happened and what to do, in fields that each interface words for its reader."""

from pathlib import Path


class DehazeError(Exception):
    """Base of every error that this package raises on purpose.

    `subject` is what the error is about, a file or a name; `reason` says what is wrong with it and reads on from the
    subject ("is empty."), or is a sentence of its own where there is none; `advice` says what to do; `setting` adds
    what only the caller of the library or whoever runs the program can change.
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


class ImageError(DehazeError):
    """The input is not a photograph that can be restored."""


class WeightsError(DehazeError):
    """The weights are missing, damaged, or belong to another network."""


class UnknownModelError(DehazeError):
    """No model has this name."""


class OutsideError(DehazeError):
    """A model from outside the project cannot be loaded, or does not return an image."""


class VideoError(DehazeError):
    """The input is not a clip that can be restored."""


class OutputError(DehazeError):
    """The result cannot be written."""
