"""Several processes on one run: `accelerate launch` or `torchrun` start them, and each finds its place here."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch

from bench.errors import RunError

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
        """Wait until every process has come here. Raises RunError if one never will."""
        if self.count > 1:
            try:
                torch.distributed.barrier()
            except RuntimeError as error:
                why = str(error).splitlines()[0]
                raise RunError(f"Another process has ended ({why}).", "See what it said.") from None


def join() -> Processes:
    """Find this process's place among those that were started together; alone, it costs nothing."""
    if max(int(os.environ.get(name, 1)) for name in _COUNTS) == 1:
        return Processes()
    from accelerate import PartialState

    # All that they tell each other is that they are done, so the way between CPUs serves GPUs as well. One may be done
    # long before the last.
    state = PartialState(cpu=True, timeout=timedelta(days=30))
    return Processes(state.process_index, state.num_processes, state.local_process_index)
