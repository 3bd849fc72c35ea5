"""One small registry: names to classes, imported when first asked for."""

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

from dehaze.errors import UnknownModelError

T = TypeVar("T")


class Registry(Generic[T]):
    """Map names to objects, some of which are imported only when used.

    `kind` is the word for messages ("model"). A name can be registered once. A wrapper is a function from entry to
    entry; "wrapper:name" is the wrapped entry.
    """

    def __init__(self, kind: str, unknown: type[Exception] = UnknownModelError):
        self.kind = kind
        self._unknown = unknown
        self._entries: dict[str, T | str] = {}
        self._wrappers: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates as `name`."""

        def add(entry: T) -> T:
            self._add(self._entries, name, entry)
            return entry

        return add

    def register_lazy(self, name: str, target: str) -> None:
        """Register `"package.module:attribute"` or `"package.module:table[key]"` as `name` without importing it."""
        self._add(self._entries, name, target)

    def register_wrapper(self, name: str, target: str) -> None:
        """Register the function `"package.module:attribute"` as the wrapper `name` without importing it."""
        self._add(self._wrappers, name, target)

    def _add(self, entries: dict[str, Any], name: str, entry: T | str) -> None:
        if name in entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice: remove one of the two")
        entries[name] = entry

    def names(self) -> list[str]:
        """List the names, registered and composed, sorted."""
        composed = (f"{wrapper}:{name}" for wrapper in self._wrappers for name in self._entries)
        return sorted([*self._entries, *composed])

    def get(self, name: str) -> T:
        """Return the entry called `name`; an unknown name raises and suggests the nearest ones."""
        names = self.names()
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            advice = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(names)}."
            raise self._unknown(f"No {self.kind} is called {name!r}.", advice)
        wrapper, colon, wrapped = name.partition(":")
        if colon:
            return _imported(self._wrappers[wrapper])(self.get(wrapped))
        entry = self._entries[name]
        if not isinstance(entry, str):
            return entry
        found: T = _imported(entry)
        self._entries[name] = found
        return found


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    attribute, in_table, key = attribute.removesuffix("]").partition("[")
    found = getattr(import_module(module), attribute)
    return found[key] if in_table else found
