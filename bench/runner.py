"""The loop: restore one image at a time, score its 8-bit values, keep every result at once, sum up at the end."""

import errno
import hashlib
import io
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from bench import environment
from bench.datasets import Dataset, Sample, contaminated, some
from bench.errors import BenchError, DamagedRecordError, RecordError, RunError
from bench.journal import Journal
from bench.methods.base import Restorer
from bench.metrics import Metric, MetricSpec
from bench.protocol import Protocol, eight_bit
from bench.record import (
    Failure,
    Record,
    Row,
    Speed,
    Summary,
    earlier,
    read_rows,
    set_aside,
    stem,
    write_atomic,
    write_rows,
)
from dehaze.errors import DehazeError
from dehaze.io.photo import read_photo
from dehaze.processes import Processes


class Watcher:
    """What a run tells while it goes; this one keeps silent."""

    def start(self, title: str, total: int, done: int) -> None:
        """Begin: `done` of `total` images are there from an earlier run."""

    def image(self, row: Row) -> None:
        """One more image is restored and scored."""

    def end(self, text: str) -> None:
        """The last image is done; `text` says where the time went."""

    def note(self, text: str) -> None:
        """Something worth knowing that stops nothing."""


def run(
    restorer: Restorer,
    dataset: Dataset,
    protocol: Protocol,
    metrics: Mapping[str, Metric],
    output: Path,
    *,
    options: Mapping[str, str] | None = None,
    resume: bool = True,
    pictures: Path | None = None,
    watcher: Watcher | None = None,
    processes: Processes | None = None,
) -> Record | None:
    """Score one method on one data set and write its record and per-image values into `output`.

    `options` is what the metrics were made with beyond their names; it decides with everything else that decides the
    values whether an earlier, unfinished or finished run is continued. Images that failed before are tried again.
    `pictures` is a folder for the restored images, as `RECORD/ID.png`; images whose picture is missing are done again.
    Of several `processes` each takes its share, all in the same `output`; the main one returns the record, the others
    None unless it was there before.
    An image that fails is a row with its reason; RunError is raised if nothing can be scored or kept.
    """
    watcher, processes = watcher or Watcher(), processes or Processes()
    metrics = {name: protocol.define(metric) for name, metric in metrics.items()}
    applicable = {name: metric for name, metric in metrics.items() if dataset.pairs or not metric.spec.reference}
    if not applicable:
        raise RunError(
            "has no clear images, and no metric is left.", "Add one without reference.", subject=dataset.name
        )
    if left_out := [name for name in metrics if name not in applicable]:
        watcher.note(f"{dataset.name} has no clear images: {', '.join(left_out)} left out")

    facts = environment.describe(restorer.device)
    inputs = {
        "method": asdict(restorer.method),
        "dataset": asdict(dataset.info),
        "protocol": protocol.name,
        "metrics": sorted(applicable),
        "options": dict(options or {}),
        "dtype": restorer.dtype,
        "environment": {name: fact for name, fact in facts.items() if name not in environment.HOW_FAST},
    }
    inputs = json.loads(json.dumps(inputs))  # as it comes back from a file
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    names = restorer.method.name, dataset.name, protocol.name
    rows_path, journal_path = (output / f"{stem(*names)}.{suffix}" for suffix in ("parquet", "journal"))
    title = "{} on {} ({})".format(*names)
    if pictures is not None:
        pictures = pictures / stem(*names)

    def wanting(sample: Sample) -> bool:
        return sample.id not in done or (pictures is not None and not _picture(pictures, sample).exists())

    done: dict[str, Row] = {}
    try:
        finished = earlier(output, *names)  # asked now, so that nothing is scored in vain
    except DamagedRecordError as error:
        finished = None
        if processes.is_main and (kept := set_aside(rows_path.with_suffix(".json"))):
            watcher.note(f"{error} It is now {kept.name}, and the run makes another")
    if resume and finished and finished.key == key:
        done = {
            row.id: replace(row, tile=finished.tiled.get(row.id))
            for row in read_rows(rows_path, key, len(dataset.samples))
        }
        if not any(map(wanting, dataset.samples)):
            watcher.note(f"{title}: already scored; --no-resume scores it again")
            return finished
    try:
        journal = Journal(journal_path, inputs, resume, processes)
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror}.", subject=output) from error
    except RecordError as error:
        raise RunError.like(error) from error
    if journal.stale:
        watcher.note(f"{title}: the unfinished run differed in {', '.join(journal.stale)} and is not continued")
    done |= journal.rows

    # Shared by their place in the set, whatever is done: so no process needs to know what another does meanwhile.
    share = dataset.samples[processes.index :: processes.count]
    todo = [sample for sample in share if wanting(sample)]
    of = "" if processes.count == 1 else f", one of {processes.count} processes"
    watcher.start(title + of, len(share), len(share) - len(todo))
    clock = _Clock()
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            reader = _Reader(todo, protocol, pool)
            for sample in todo:
                row = _score(sample, reader, restorer, applicable, pictures, clock)
                journal.append(row)
                done[sample.id] = row
                watcher.image(row)
        watcher.end(f"{title}{of}: {clock}")
        processes.wait()
        if not processes.is_main:
            return None
        done |= journal.collect()
        if missing := [sample.id for sample in dataset.samples if sample.id not in done]:
            raise RunError(
                f"holds nothing of the other processes for {some(missing)}.",
                "Let all of them see that folder, and use the same data and versions.",
                subject=output,
            )
        rows = [done[sample.id] for sample in dataset.samples]
        record = _record(restorer, dataset, protocol, applicable, rows, facts | dict(options or {}), key)
        write_rows(rows_path, rows, list(applicable), key)
        record.write(output)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise RunError(f"cannot be written: {why}.", _kept(done), subject=journal.path) from error
    except BenchError as error:
        raise RunError.like(error, _kept(done)) from error
    finally:
        journal.close()
    journal.remove()
    return record


class _Clock:
    """How long a run took, and how much of it in the model and in the metrics: the rest is the harness's own."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = {"model": 0.0, "metrics": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] += time.perf_counter() - began

    def __str__(self) -> str:
        total = time.perf_counter() - self._began
        parts = self._spent | {"harness": total - sum(self._spent.values())}
        return f"{total:.1f} s, " + ", ".join(f"{stage} {seconds / total:.1%}" for stage, seconds in parts.items())


class _Reader:
    """Read one image ahead in a thread: two are in memory at most, and none is decoded while a model is timed."""

    def __init__(self, samples: Iterable[Sample], protocol: Protocol, pool: Executor):
        self._samples, self._protocol, self._pool = iter(samples), protocol, pool
        self.begin()

    def begin(self) -> None:
        """Begin to read the next image."""
        sample = next(self._samples, None)
        self._coming = sample and self._pool.submit(_read, sample, self._protocol)

    def take(self) -> tuple[Image.Image, Image.Image | None]:
        """Return the hazy and the clear image that were read, or raise what reading them raised."""
        assert self._coming is not None  # taken once for each sample
        return self._coming.result()


def _read(sample: Sample, protocol: Protocol) -> tuple[Image.Image, Image.Image | None]:
    hazy = protocol.prepare(_decode(sample.hazy, sample.hazy_sha256))
    if sample.clear is None or sample.clear_sha256 is None:  # a clear image has its hash
        return hazy, None
    return hazy, protocol.prepare(_decode(sample.clear, sample.clear_sha256, sample.border))


def _kept(done: Mapping[str, Row]) -> str:
    return f"The {len(done)} images done so far are kept: put that right, and run the same command again."


def _score(
    sample: Sample,
    reader: _Reader,
    restorer: Restorer,
    metrics: Mapping[str, Metric],
    pictures: Path | None,
    clock: _Clock,
) -> Row:
    """Restore and score one image; what fails is noted in the row, and only what depends on it is missing."""
    stage = "read"
    size: tuple[int, int] | tuple[None, None] = None, None
    try:
        hazy, clear = reader.take()
        stage, size = "restore", hazy.size
        with clock("model"):
            made = restorer.restore_image(sample, hazy)
        if made.pixels.shape != (hazy.height, hazy.width, 3):
            height, width = made.pixels.shape[:2]
            raise RunError(f"The restored image is {width}×{height}, not {hazy.width}×{hazy.height}.")
    except Exception as error:  # whatever a decoder or a model raises belongs to this image alone
        return Row(id=sample.id, width=size[0], height=size[1], failures=(_failure(sample, stage, error),))
    finally:
        reader.begin()
    if pictures is not None:
        _save(made.pixels, _picture(pictures, sample))

    restored, given = _tensor(made.pixels), _tensor(np.asarray(hazy))
    target = None if clear is None else _tensor(np.asarray(clear))
    values, failures = {}, []
    for name, metric in metrics.items():
        if metric.spec.reference and target is None:
            continue
        try:
            with clock("metrics"):
                values[name] = float(metric(restored, target, given))
        except Exception as error:  # the other metrics still stand
            failures.append(_failure(sample, name, error))
    return Row(
        id=sample.id, width=hazy.width, height=hazy.height, seconds=made.seconds, tile=made.tile,
        failures=tuple(failures), values=values,
    )  # fmt: skip


def _picture(folder: Path, sample: Sample) -> Path:
    if Path(sample.id).is_absolute() or ".." in Path(sample.id).parts:
        raise RunError("leads out of the folder for the pictures.", "Run without saving them.", subject=repr(sample.id))
    return folder / f"{sample.id}.png"


def _save(pixels: np.ndarray, path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)  # level 6 takes several times as long to save a tenth
    write_atomic(path, file.getvalue())


def _decode(path: Path, sha256: str, border: int = 0) -> Image.Image:
    # From bytes: the hash is that of what is scored, and no message carries a local path into the record.
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RunError("The file changed while the run went on.", "Run again.")
    return ImageOps.crop(Image.fromarray(eight_bit(read_photo(data).pixels)), border)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255


def _failure(sample: Sample, stage: str, error: Exception) -> Failure:
    # A record holds no folder; a foreign error needs its kind.
    ours = isinstance(error, BenchError | DehazeError)
    reason = error.for_visitors() if ours else f"{type(error).__name__}: {error}"
    return Failure(id=sample.id, stage=stage, reason=" ".join(reason.split()))


def _record(
    restorer: Restorer,
    dataset: Dataset,
    protocol: Protocol,
    metrics: Mapping[str, Metric],
    rows: list[Row],
    facts: dict[str, str],
    key: str,
) -> Record:
    trained_on = restorer.method.trained_on
    return Record(
        method=restorer.method,
        dataset=dataset.info,
        protocol=protocol.name,
        metrics={name: _summary(metric.spec, protocol, rows) for name, metric in metrics.items()},
        failures=tuple(failure for row in rows for failure in row.failures),
        tiled={row.id: row.tile for row in rows if row.tile},
        contaminated=tuple(contaminated(dataset.name, trained_on)) if trained_on else None,
        speed=_speed(restorer, rows),
        environment=facts,
        key=key,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _summary(spec: MetricSpec, protocol: Protocol, rows: list[Row]) -> Summary:
    values = np.array([row.values[spec.name] for row in rows if spec.name in row.values], dtype=np.float64)
    mean, low, high, count = protocol.aggregate(spec.name, values)
    return Summary(
        mean=mean,
        low=low,
        high=high,
        count=count,
        infinite=values.size - count,
        direction=spec.direction,
        unit=spec.unit,
        reference=spec.reference,
    )


def _speed(restorer: Restorer, rows: list[Row]) -> Speed | None:
    timed = [
        (row.seconds, row.width * row.height / 1e6)
        for row in rows
        if row.seconds is not None and row.width is not None and row.height is not None
    ]
    if not timed:
        return None
    return Speed(
        seconds_median=statistics.median(seconds for seconds, _ in timed),
        megapixels_median=statistics.median(megapixels for _, megapixels in timed),
        device=restorer.device.partition(":")[0],
        dtype=restorer.dtype,
        threads=torch.get_num_threads(),
    )
