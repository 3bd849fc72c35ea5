"""What one visitor of a server may have restored, so that nobody takes it from the others."""

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

from dehaze.errors import DehazeError


class Allowance:
    """Count the megapixels that each visitor has restored, and let no more than so many through within `seconds`."""

    def __init__(self, megapixels: float, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.megapixels, self.seconds, self._clock = megapixels, seconds, clock
        self._taken: dict[str, deque[tuple[float, float]]] = {}  # when and how many, by visitor
        self._lock = Lock()

    def take(self, visitor: str, megapixels: float) -> None:
        """Count what a visitor asks for. Raises DehazeError if it is too much; the first always passes."""
        with self._lock:
            now = self._clock()
            for taken in self._taken.values():
                while taken and taken[0][0] <= now - self.seconds:
                    taken.popleft()
            self._taken = {name: taken for name, taken in self._taken.items() if taken}
            taken = self._taken.setdefault(visitor, deque())
            if taken and sum(size for _, size in taken) + megapixels > self.megapixels:
                wait = taken[0][0] + self.seconds - now
                raise DehazeError(
                    f"Each visitor may have {self.megapixels:g} megapixels restored within {self.seconds / 60:g} "
                    f"minutes, and this would be more. Come back in {max(1, round(wait / 60))} minutes."
                )
            taken.append((now, megapixels))
