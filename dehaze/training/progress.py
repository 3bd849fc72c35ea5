"""Show how a run goes: a bar on a terminal, a line each minute elsewhere, and figures of speed for its log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

Batch = TypeVar("Batch")
INTERVAL = 60.0  # seconds between lines


class Progress:
    """Count the steps of a run and measure its speed.

    `say` prints a line. The figures are of the time since they were asked for last, and leave out what runs between
    `pause` and the next batch: validation is no training.
    """

    def __init__(self, step: int, steps: int, batch: int, say: Callable[[str], None], shown: bool = True):
        self.step, self.steps, self.batch, self._say, self._shown = step, steps, batch, say, shown
        terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=not terminal)
        self._lines = shown and not terminal
        now = time.perf_counter()
        self._since, self._first, self._started, self._told = step, step, now, now
        self._worked = self._waited = self._total = 0.0
        self._from: float | None = None  # when the current stretch of work began

    def batches(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and measure how long each is waited for."""
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            if self._from is None:
                self._from = asked
            try:
                batch = next(batches)
            except StopIteration:
                self._bar.close()
                return
            self._waited += time.perf_counter() - asked
            yield batch

    def advance(self, losses: Mapping[str, float]) -> None:
        """Count a step; show it if it is time."""
        self.step += 1
        self._bar.update()
        self._bar.set_postfix({key: f"{value:.4f}" for key, value in losses.items()}, refresh=False)
        if self._lines and time.perf_counter() - self._told >= INTERVAL:
            self._told = time.perf_counter()
            self._say(self.line(losses))

    def pause(self) -> None:
        """Stop the clock until the next batch is asked for."""
        if self._from is not None:
            spent = time.perf_counter() - self._from
            self._worked, self._total, self._from = self._worked + spent, self._total + spent, None

    def line(self, losses: Mapping[str, float]) -> str:
        """Describe how far the run is, how fast, and how long the rest takes."""
        spent = self._total + (0.0 if self._from is None else time.perf_counter() - self._from)
        done = self.step - self._first
        left = timedelta(seconds=round((self.steps - self.step) * spent / max(1, done)))
        terms = ", ".join(f"{key} {value:.4f}" for key, value in losses.items())
        speed = done * self.batch / max(spent, 1e-9)
        return f"step {self.step} of {self.steps}: {terms}; {speed:.1f} crops/s, {left} left"

    def figures(self) -> dict[str, float]:
        """Return the crops a second, and the share of the time that was spent waiting for data, since the last call."""
        self.pause()
        crops, worked, waited = (self.step - self._since) * self.batch, self._worked, self._waited
        self._since, self._worked, self._waited = self.step, 0.0, 0.0
        if not worked:
            return {}
        return {"crops_per_second": round(crops / worked, 2), "data_wait": round(min(1.0, waited / worked), 4)}
