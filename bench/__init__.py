"""Score dehazing methods on data sets and write down what came out."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.datasets import Dataset
    from bench.record import Record
    from dehaze import Dehazer
    from dehaze.outside import Outsider


def evaluate(
    model: "Outsider | Dehazer",
    dataset: "str | Dataset",
    protocol: str = "native-v1",
    metrics: Sequence[str] = ("psnr", "ssim"),
    output: str | Path | None = None,
    *,
    method: str | None = None,
    device: str | None = None,
) -> "Record":
    """Restore every image of a data set with a model, score the results, and return the record.

    `model` is an `nn.Module` that takes and returns a tensor [1,3,H,W] in [0,1], a function that takes and returns an
    array H×W×3 of uint8, or a `Dehazer`, scored in its own look: load it with `look="faithful"` to compare with clear
    images, as `bench run` does. `dataset` is what `bench.datasets.load` returns or takes. `output` is a folder
    for the record and the values of each image. `method` is the name in the record; `device` is by default that of the
    module. Every image is scored anew; one that fails is in the record's `failures`. Raises BenchError, DehazeError.
    """
    # Reading records, which this package does as well, needs no torch.
    from torch import nn

    from bench import datasets, runner
    from bench import protocol as protocols
    from bench.methods.shipped import Model
    from bench.metrics import get
    from dehaze import Dehazer
    from dehaze.outside import wrap

    samples = datasets.load(dataset) if isinstance(dataset, str) else dataset
    scores = {name: get(name) for name in metrics}
    modes = [(part, part.training) for part in model.modules()] if isinstance(model, nn.Module) else []
    try:
        dehazer = model if isinstance(model, Dehazer) else wrap(model, method, device)
        with TemporaryDirectory() as scratch:
            folder = Path(scratch if output is None else output)
            # Nobody can tell whether a function in memory is what it was in an earlier run.
            made = runner.run(Model(dehazer, method), samples, protocols.get(protocol), scores, folder, resume=False)
    finally:
        for part, training in modes:
            part.training = training
    assert made is not None  # one process alone
    return made
