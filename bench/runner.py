"""The loop: restore one image at a time, score its 8-bit values, keep every result at once, sum up at the end."""

import errno
import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from bench import environment
from bench.datasets import Dataset, Sample, contaminated
from bench.errors import BenchError, RunError
from bench.journal import Journal
from bench.metrics import Metric, MetricSpec
from bench.protocol import Protocol, eight_bit
from bench.record import Failure, Record, Row, Speed, Summary, earlier, read_rows, stem, write_rows
from bench.restorers import Restorer
from dehaze.image import read as read_photo


class Watcher:
    """What a run tells while it goes; this one keeps silent."""

    def start(self, title: str, total: int, done: int) -> None:
        """Begin: `done` of `total` images are there from an earlier run."""

    def image(self, row: Row) -> None:
        """One more image is restored and scored."""

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
    watcher: Watcher | None = None,
) -> Record:
    """Score one method on one data set and write its record and per-image values into `output`.

    `options` is what the metrics were made with beyond their names; it decides with everything else that decides the
    values whether an earlier, unfinished or finished run is continued. Images that failed before are tried again.
    An image that fails is a row with its reason; RunError is raised if nothing can be scored or kept.
    """
    watcher = watcher or Watcher()
    metrics = {name: protocol.define(metric) for name, metric in metrics.items()}
    applicable = {name: metric for name, metric in metrics.items() if dataset.pairs or not metric.spec.reference}
    if not applicable:
        raise RunError(f"{dataset.name} has no clear images and no metric is left: add one without reference")
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
        "environment": facts,
    }
    inputs = json.loads(json.dumps(inputs))  # as it comes back from a file
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    names = restorer.method.name, dataset.name, protocol.name
    rows_path, journal_path = (output / f"{stem(*names)}.{suffix}" for suffix in ("parquet", "journal"))
    title = "{} on {} ({})".format(*names)

    done: dict[str, Row] = {}
    finished = earlier(output, *names)  # asked now, so that nothing is scored in vain
    if resume and finished and finished.key == key:
        done = {row.id: row for row in read_rows(rows_path, key)}
        if len(done) == len(dataset.samples):
            watcher.note(f"{title}: already scored; --no-resume scores it again")
            return finished
    try:
        journal = Journal(journal_path, inputs, resume)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error.strerror}") from None
    if journal.stale:
        watcher.note(f"{title}: the unfinished run differed in {', '.join(journal.stale)} and is not continued")
    done |= {id_: row for id_, row in journal.rows.items() if not row.failures}

    watcher.start(title, len(dataset.samples), sum(sample.id in done for sample in dataset.samples))
    try:
        for sample in dataset.samples:
            if sample.id not in done:
                row = _score(sample, restorer, protocol, applicable)
                journal.append(row)
                done[sample.id] = row
                watcher.image(row)
        rows = [done[sample.id] for sample in dataset.samples]
        trained_on = restorer.method.trained_on
        record = Record(
            method=restorer.method,
            dataset=dataset.info,
            protocol=protocol.name,
            metrics={name: _summary(metric.spec, protocol, rows) for name, metric in applicable.items()},
            failures=tuple(failure for row in rows for failure in row.failures),
            contaminated=tuple(contaminated(dataset.name, trained_on)) if trained_on else None,
            speed=_speed(restorer, rows),
            environment=facts | dict(options or {}),
            key=key,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        write_rows(rows_path, rows, list(applicable), key)
        record.write(output)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise RunError(f"{journal.path} cannot be written: {why}. {_kept(done)}") from None
    except BenchError as error:
        raise RunError(f"{error}. {_kept(done)}") from None
    finally:
        journal.close()
    journal.remove()
    return record


def _kept(done: Mapping[str, Row]) -> str:
    return f"The {len(done)} images done so far are kept: put that right and run the same command again."


def _score(sample: Sample, restorer: Restorer, protocol: Protocol, metrics: Mapping[str, Metric]) -> Row:
    """Restore and score one image; what fails is noted in the row, and only what depends on it is missing."""
    stage, size = "read", {}
    try:
        hazy = protocol.prepare(_decode(sample.hazy, sample.hazy_sha256))
        clear = None
        if sample.clear is not None:
            clear = protocol.prepare(_decode(sample.clear, sample.clear_sha256, sample.border))
        stage, size = "restore", {"width": hazy.width, "height": hazy.height}
        pixels, seconds = restorer.restore(sample, hazy)
        if pixels.shape != (hazy.height, hazy.width, 3):
            raise RunError(f"restored to {pixels.shape[1]}×{pixels.shape[0]}, not {hazy.width}×{hazy.height}")
    except Exception as error:  # whatever a decoder or a model raises belongs to this image alone
        return Row(id=sample.id, **size, failures=(_failure(sample, stage, error),))

    restored, given = _tensor(pixels), _tensor(np.asarray(hazy))
    target = None if clear is None else _tensor(np.asarray(clear))
    values, failures = {}, []
    for name, metric in metrics.items():
        if metric.spec.reference and target is None:
            continue
        try:
            values[name] = float(metric(restored, target, given))
        except Exception as error:  # the other metrics still stand
            failures.append(_failure(sample, name, error))
    return Row(id=sample.id, **size, seconds=seconds, failures=tuple(failures), values=values)


def _decode(path: Path, sha256: str, border: int = 0) -> Image.Image:
    # From bytes: the hash is that of what is scored, and no message carries a local path into the record.
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RunError("the file changed while the run went on")
    return ImageOps.crop(Image.fromarray(eight_bit(read_photo(data).pixels)), border)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255


def _failure(sample: Sample, stage: str, error: Exception) -> Failure:
    # An error of ours, or of a metric, speaks for itself; a foreign one needs its kind.
    ours = type(error).__module__.partition(".")[0] in ("bench", "dehaze")
    text = " ".join(str(error).split())
    return Failure(id=sample.id, stage=stage, reason=text if ours and text else f"{type(error).__name__}: {text}")


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
    timed = [row for row in rows if row.seconds is not None]
    if not timed:
        return None
    return Speed(
        seconds_median=statistics.median(row.seconds for row in timed),
        megapixels_median=statistics.median(row.width * row.height / 1e6 for row in timed),
        device=restorer.device,
        dtype=restorer.dtype,
        threads=torch.get_num_threads(),
    )
