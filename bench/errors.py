"""Exceptions of the harness: what happened and what to do about it."""


class BenchError(Exception):
    """Base of every error that the harness raises on purpose."""


class DatasetError(BenchError):
    """The data set cannot be scored as it lies."""


class ProtocolError(BenchError):
    """No protocol has this name."""


class RecordError(BenchError):
    """The result record cannot be read or written."""


class RunError(BenchError):
    """The run cannot go on; what was done is kept."""
