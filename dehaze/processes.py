"""Several processes on one task: `accelerate launch` or `torchrun` start them, and each finds its place here."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from dehaze.errors import DehazeError

Value = TypeVar("Value")

# What the launchers say: torch's own, then three kinds of MPI.
_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Processes:
    """This process among `count`; `local_index` is its number on its own machine."""

    index: int = 0
    count: int = 1
    local_index: int = 0

    @property
    def is_main(self) -> bool:
        """Tell whether this is the one that sums up and talks."""
        return self.index == 0

    def device(self, asked: str | None) -> str | None:
        """Return the device to work on where `asked` is what the user named: to each process a GPU of its own."""
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if self.count == 1 or accelerator is None:
            return asked
        kind = accelerator.type
        return f"{kind}:{self.local_index % torch.accelerator.device_count()}" if asked in (None, kind) else asked

    def wait(self) -> None:
        """Wait until every process has come here. Raises DehazeError if one never will."""
        if self.count > 1:
            with _told_when_gone():
                torch.distributed.barrier()

    def choose(self, function: Callable[[], Value]) -> Value:
        """Call a function in the main process, and return in every process what it returns, or raise what it raises."""
        if self.count == 1:
            return function()
        answer: list[Value | Exception | None] = [None]
        if self.is_main:
            try:
                answer[0] = function()
            except Exception as error:
                answer[0] = error
        with _told_when_gone():
            torch.distributed.broadcast_object_list(answer)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]  # pyright: ignore[reportReturnType] - what the function returned

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in every process, once each has come here."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        with _told_when_gone():
            torch.distributed.all_gather_object(values, value)
        return values  # pyright: ignore[reportReturnType] - each is filled


@contextmanager
def _told_when_gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise DehazeError(f"Another process has ended ({why}).", "See what it said.") from None


def join() -> Processes:
    """Find this process's place among those that were started together; alone, it costs nothing."""
    if max(int(os.environ.get(name, 1)) for name in _COUNTS) == 1:
        return Processes()
    from accelerate import PartialState

    # They tell each other little more than that they are done, so the way between CPUs serves GPUs as well. One may be
    # done long before the last.
    state = PartialState(cpu=True, timeout=timedelta(days=30))
    return Processes(state.process_index, state.num_processes, state.local_process_index)
