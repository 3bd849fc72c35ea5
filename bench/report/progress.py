"""Show a run while it goes."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import runner
from bench.record import Record, Row
from dehaze.processes import Processes

err = Console(highlight=False, stderr=True, soft_wrap=True)


def run_shown(*what: Any, processes: Processes, **how: Any) -> Record | None:
    """Call `runner.run`; the main process shows how it goes."""
    if not processes.is_main:
        return runner.run(*what, processes=processes, **how)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        return runner.run(*what, processes=processes, watcher=Bar(progress), **how)


class Bar(runner.Watcher):
    """Show a run as a bar: images, rate, time left."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def start(self, title: str, total: int, done: int) -> None:
        self._task = self._progress.add_task(escape(title), total=total, completed=done, rate="")

    def image(self, row: Row) -> None:
        self._progress.advance(self._task)
        speed = self._progress.tasks[self._task].speed
        self._progress.update(self._task, rate=f"{speed:.2f} images/s" if speed else "")

    def end(self, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        self._progress.console.print(escape(text))
