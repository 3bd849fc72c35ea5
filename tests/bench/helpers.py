"""What several tests of the harness need: a record, a model that counts, metrics."""

from dataclasses import replace

import dehaze
from bench import metrics, protocol, runner
from bench.methods.shipped import Model
from bench.metrics import Metric, MetricError, MetricSpec
from bench.record import DatasetInfo, Method, Record, Summary

NATIVE = protocol.get("native-v1")


def make(**changes) -> Record:
    fields = {
        "method": Method(name="api", parameters=10, trained_on=["rendered"]),
        "dataset": DatasetInfo(name="sample", samples=3, pairs=2, fingerprint="ab"),
        "protocol": "native-v1",
        "metrics": {
            "psnr": Summary(
                mean=20.5, low=19.0, high=22.0, count=2, infinite=0, direction="up", unit="dB", reference=True
            )
        },
        "created": "2025-03-01T12:00:00Z",
    }
    return Record(**fields | changes)


class Counting(Model):
    """The identity, counting the images it is asked for."""

    def __init__(self):
        super().__init__(dehaze.load("identity", device="cpu", look="faithful"))
        self.asked = []

    def restore_image(self, sample, hazy):
        self.asked.append(sample.id)
        return super().restore_image(sample, hazy)


class Notes(runner.Watcher):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def mean_value(name="brightness", fail=()):
    """A metric without reference that fails on images of the given heights."""

    def score(restored):
        if restored.shape[-2] in fail:
            raise MetricError("will not have it")
        return restored.mean(dim=(1, 2, 3))

    return Metric(MetricSpec(name, False, "up", "", 0, 1, "mean of all values"), score)


def psnr():
    return {"psnr": metrics.get("psnr")}


def same(one, other):
    """Tell whether two records are the same but for what depends on the clock."""
    return replace(one, speed=None, created=other.created) == replace(other, speed=None)
