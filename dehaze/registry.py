"""One small registry: names to classes, imported when first asked for."""

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Generic, TypeVar

from dehaze.errors import UnknownModelError

T = TypeVar("T")


class Registry(Generic[T]):
    """Map names to objects, some of which are imported only when used.

    `kind` is the word used in messages ("model"). A name can be registered once.
    """

    def __init__(self, kind: str, unknown: type[Exception] = UnknownModelError):
        self.kind = kind
        self._unknown = unknown
        self._entries: dict[str, T | str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates as `name`."""

        def add(entry: T) -> T:
            self._add(name, entry)
            return entry

        return add

    def register_lazy(self, name: str, target: str) -> None:
        """Register `"package.module:attribute"` as `name` without importing it."""
        self._add(name, target)

    def _add(self, name: str, entry: T | str) -> None:
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice: remove one of the two")
        self._entries[name] = entry

    def names(self) -> list[str]:
        """List the registered names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """Return the entry called `name`; an unknown name raises and suggests the nearest ones."""
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(self.names())}"
            raise self._unknown(f"no {self.kind} is called {name!r}; {hint}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = getattr(import_module(module), attribute)
        return entry
