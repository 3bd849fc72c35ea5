"""Visitors of a page: who they are, what each may take, and whose turn it is."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from threading import Condition, Lock
from typing import Any

from dehaze.errors import DehazeError


def address(scope: Mapping[str, Any], proxies: int = 0) -> str:
    """Return the address of the visitor behind an ASGI request, for IPv6 its network of 64 bits, "" if there is none.

    Each of some trusted `proxies` in front of the page has appended to X-Forwarded-For who called it. A client can
    forge all that stands further left.
    """
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    hops = [hop.strip() for hop in ",".join(lines).split(",")]
    seen = (scope.get("client") or ("",))[0]
    if 0 < proxies <= len(hops) and hops[-proxies]:
        seen = hops[-proxies]
    try:
        found = ip_address(seen)
    except ValueError:
        return seen
    # A visitor usually has all of such a network.
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


class Allowance:
    """Count what each visitor takes of some goods, and let no more than `limits` through within `seconds`."""

    def __init__(self, limits: Mapping[str, float], seconds: float, clock: Callable[[], float] = time.monotonic):
        self.limits, self.seconds, self._clock = limits, seconds, clock
        self._taken: dict[str, deque[tuple[float, Mapping[str, float]]]] = {}  # when and what, by visitor
        self._lock = Lock()

    def take(self, visitor: str, share: Mapping[str, float]) -> None:
        """Count what a visitor asks for. Raises DehazeError if it is too much; the first always passes."""
        with self._lock:
            now = self._clock()
            for taken in self._taken.values():
                while taken and taken[0][0] <= now - self.seconds:
                    taken.popleft()
            self._taken = {name: taken for name, taken in self._taken.items() if taken}
            taken = self._taken.setdefault(visitor, deque())
            for good, limit in self.limits.items():
                if taken and share.get(good, 0) + sum(one.get(good, 0) for _, one in taken) > limit:
                    wait = max(1, round((taken[0][0] + self.seconds - now) / 60))
                    raise DehazeError(
                        f"Each visitor has {limit:g} {good} in {self.seconds / 60:g} minutes, and this would be more. "
                        f"Come back in {wait} minute{'s' * (wait > 1)}."
                    )
            taken.append((now, share))


class Turns:
    """Let one request work at a time. Next is the oldest request of the visitor who was served longest ago."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[object]] = {}  # tickets by visitor; the first visitor is the next
        self._working: object | None = None  # the ticket whose turn it is; it stays in the line until its turn ends
        self._changed = Condition()

    @contextmanager
    def __call__(self, visitor: str) -> Iterator[None]:
        """Wait for the visitor's turn, and end it."""
        ticket = object()
        with self._changed:
            self._waiting.setdefault(visitor, deque()).append(ticket)
            try:
                self._changed.wait_for(lambda: self._working is None and self._next() is ticket)
            except BaseException:
                self._leave(visitor, ticket)
                raise
            self._working = ticket
        try:
            yield
        finally:
            with self._changed:
                self._working = None
                self._leave(visitor, ticket)

    def _leave(self, visitor: str, ticket: object) -> None:
        tickets = self._waiting.pop(visitor)
        tickets.remove(ticket)
        if tickets:
            self._waiting[visitor] = tickets  # behind the other visitors, also those who came meanwhile
        self._changed.notify_all()

    def _next(self) -> object:
        return next(iter(self._waiting.values()))[0]


turns = Turns()  # of this process: its memory holds one photograph at work,
scoring = Turns()  # and beside it one small copy that is scored
probing = Turns()  # and one clip whose header is read


class Stop:
    """Requests to end a run of a page after the photograph or frame at hand.

    Where gradio cancels a run instead, the page closes its stream of messages, and those of what it runs next may be
    lost with it.
    """

    _MOST = 1000  # runs; of those that never began for want of room the oldest are forgotten

    def __init__(self) -> None:
        self._running: dict[str | None, bool] = {}  # by page: whether its run was asked to end

    def begin(self, request: Any) -> None:
        """Note that a page starts a run."""
        self._running[request.session_hash] = False
        while len(self._running) > self._MOST:
            del self._running[next(iter(self._running))]

    def ask(self, request: Any) -> bool:
        """Ask the run of a page to end; tell whether there is one."""
        if running := request.session_hash in self._running:
            self._running[request.session_hash] = True
        return running

    def asked(self, request: Any) -> bool:
        """Tell whether the run of a page shall end."""
        return request is not None and self._running.get(request.session_hash, False)

    def end(self, request: Any) -> None:
        """Note that the run of a page is over."""
        if request is not None:
            self._running.pop(request.session_hash, None)
