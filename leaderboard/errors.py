"""Exceptions of the leaderboard: what happened and what to do about it."""

from bench.errors import BenchError


class HubError(BenchError):
    """The Hub did not give or take what it was asked for."""


class SubmissionError(BenchError):
    """What was handed in cannot be scored."""
