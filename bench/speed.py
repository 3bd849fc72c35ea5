"""What a model costs by the size of the photograph: seconds, multiply-adds, memory.

Each row is measured in a process of its own, so that a failure costs one row and memory is that of one model.
"""

import csv
import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from bench import environment
from bench.datasets import SAMPLE
from bench.errors import UsageError
from bench.record import write_atomic
from bench.schema import name_in_look
from dehaze import outside
from dehaze.cost import multiply_adds
from dehaze.errors import DehazeError
from dehaze.io.photo import read_photo
from dehaze.memory import keep_freed_memory
from dehaze.outside import Interface, count_parameters, seen_by_torch

PHOTO = SAMPLE / "real" / "rio-corcovado.jpg"
MEGAPIXELS = (0.25, 1.0, 4.0, 12.0, 24.0)

_LEAST_RUNS = 3  # however long they take


@dataclass(frozen=True)
class Job:
    """What to measure, with `dehaze.outside.load`; `threads` is as torch chooses where it is None."""

    model: str
    megapixels: float
    photo: Path = PHOTO
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    runs: int = 20  # at most
    seconds: float = 20.0  # no further run is begun after these
    weights: str = "shipped"
    tile: int | None = None
    interface: Interface = field(default_factory=Interface)
    look: str = "faithful"

    @property
    def name(self) -> str:
        """The model in its look, as records name it."""
        return name_in_look(self.model, self.look)


@dataclass(frozen=True)
class Cost:
    """What restoring one photograph costs, or why that is not known.

    The seconds are percentiles over `runs` runs of `Dehazer.restore`, photograph and result in main memory: the
    network, its padding and tiles, and the way to the device and back. `peak_bytes` is the most memory that took beyond
    the loaded model: on CUDA what torch allocated there, on CPUs what the process grew by, photograph and result
    included (known on Linux alone).
    """

    model: str
    megapixels: float
    width: int | None = None
    height: int | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    peak_bytes: int | None = None
    runs: int = 0
    seconds_p10: float | None = None
    seconds_p50: float | None = None
    seconds_p90: float | None = None
    failure: str | None = None


def measure_apart(job: Job) -> Cost:
    """Measure in a process of its own; what goes wrong there, be it the end of that process, is the row's failure."""
    nothing = Cost(job.name, job.megapixels, device=job.device, dtype=job.dtype, threads=job.threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=keep_freed_memory) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            return replace(nothing, failure="the process was killed, as systems do where memory runs out")
        except DehazeError as error:
            return replace(nothing, failure=str(error))
        except Exception as error:  # whatever a model raises belongs to this row alone
            return replace(nothing, failure=" ".join(f"{type(error).__name__}: {error}".split()))


def measure(job: Job) -> Cost:
    """Measure in this process; raises what loading and restoring raise."""
    if job.threads:
        torch.set_num_threads(job.threads)
    dehazer = outside.load(
        job.model, job.weights, job.device, job.dtype, job.tile, interface=job.interface, look=job.look
    )
    multiply_adds(dehazer.restore_tensor, torch.zeros(1, 3, 64, 64))  # first use loads what no photograph pays for
    idle = _memory(dehazer.device)
    hazy = _photograph(job.photo, job.megapixels)
    count = multiply_adds(dehazer.restore_tensor, hazy)
    dehazer.restore_tensor(hazy)  # counting warmed it up but for what torch chooses anew without the counter

    _forget_peak(dehazer.device)
    seconds: list[float] = []
    while len(seconds) < job.runs and (len(seconds) < _LEAST_RUNS or sum(seconds) < job.seconds):
        _synchronise(dehazer.device)
        began = time.perf_counter()
        dehazer.restore_tensor(hazy)
        _synchronise(dehazer.device)
        seconds.append(time.perf_counter() - began)
    peak = _memory(dehazer.device, peak=True)
    p10, p50, p90 = np.percentile(seconds, [10, 50, 90]).tolist()
    height, width = hazy.shape[-2:]
    return Cost(
        model=job.name,
        megapixels=job.megapixels,
        width=width,
        height=height,
        device=str(dehazer.device),
        dtype=str(dehazer.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        parameters=count_parameters(dehazer.network),
        multiply_adds=count if seen_by_torch(dehazer.network) else None,
        peak_bytes=None if idle is None or peak is None else peak - idle,
        runs=len(seconds),
        seconds_p10=p10,
        seconds_p50=p50,
        seconds_p90=p90,
    )


def check_name(path: Path) -> None:
    """Raise RunError if `write` has no format for this name."""
    if path.suffix not in (".json", ".csv"):
        raise UsageError("has an unknown suffix.", "End it in .json or .csv.", subject=path)


def write(path: Path, costs: Sequence[Cost]) -> None:
    """Write the rows as JSON, with what they were measured with, or as CSV. Raises RunError for another suffix."""
    check_name(path)
    rows = [asdict(cost) for cost in costs]
    if path.suffix == ".json":
        facts = environment.describe("cpu")
        facts = {name: facts[name] for name in ("dehaze", "python", "platform", "torch", "cpu", "code")}
        if torch.cuda.is_available():
            facts["accelerator"] = torch.cuda.get_device_name()
        text = json.dumps({"environment": facts, "rows": rows}, indent=2) + "\n"
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, [field.name for field in fields(Cost)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_atomic(path, text.encode())


def table(costs: Sequence[Cost]) -> Table:
    """Show the rows that have figures, for the terminal."""
    about, figures = ("model", "megapixels", "on", "parameters"), ("G multiply-adds", "peak MB", "runs")
    shown = Table(*about, *figures, "seconds p10", "p50", "p90", box=None, padding=(0, 2, 0, 0))
    for cost in costs:
        if cost.failure is None and cost.threads is not None:  # they go together
            shown.add_row(
                cost.model,
                f"{cost.megapixels:g}",
                f"{cost.device}, {cost.dtype}, {cost.threads} thread{'s' * (cost.threads > 1)}",
                "–" if cost.parameters is None else f"{cost.parameters:,}",
                "–" if cost.multiply_adds is None else f"{cost.multiply_adds / 1e9:.3g}",
                "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f}",
                str(cost.runs),
                *(f"{value:.3g}" for value in (cost.seconds_p10, cost.seconds_p50, cost.seconds_p90)),
            )
    return shown


def _photograph(path: Path, megapixels: float) -> Tensor:
    """Read a photograph and bring it to a size, its proportions kept: a tensor [1,3,H,W] in [0,1]."""
    photo = read_photo(path)
    height, width = photo.pixels.shape[:2]
    scale = (megapixels * 1e6 / (width * height)) ** 0.5
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = Image.fromarray(photo.pixels).resize(size, Image.Resampling.LANCZOS)
    return read_photo(resized).tensor()


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM, the peak, to VmRSS: see proc(5)


def _memory(device: torch.device, peak: bool = False) -> int | None:
    """Return the bytes in use now, or the most since `_forget_peak`; None where no one tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.exists():
        return None
    field = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(field))
