"""What several tests of the harness make: a record."""

from bench.record import DatasetInfo, Method, Record, Summary


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
