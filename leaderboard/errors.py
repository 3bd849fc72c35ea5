"""Exceptions of the leaderboard: what happened and what to do about it."""

from bench.errors import BenchError


class HubError(BenchError):
    """The Hub did not give or take what it was asked for: what happened, why, and what whoever runs this can do."""

    def __init__(self, what: str, why: str = "", advice: str = ""):
        super().__init__(what + (f" ({why})" if why else "") + (f": {advice}" if advice else ""))
        self.what, self.why, self.advice = what, why, advice

    @property
    def brief(self) -> str:
        return f"{self.what}: try again later" if self.advice else self.what


class SubmissionError(BenchError):
    """What was handed in cannot be scored."""

    def __init__(self, text: str, brief: str = ""):
        super().__init__(text)
        self._brief = brief or text

    @property
    def brief(self) -> str:
        return self._brief
