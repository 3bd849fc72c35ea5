"""Where restored images come from: a model that runs now, or a folder of predictions made elsewhere."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
import torch
from PIL import Image

from bench.datasets import SUFFIXES, Dataset, Sample, some, upright_size
from bench.errors import DatasetError, RunError
from bench.protocol import Protocol, eight_bit
from bench.record import Method
from dehaze import Dehazer
from dehaze.io.photo import read_photo

_LEAST_TILE = 128  # below this side memory is not what is wanting


@dataclass(frozen=True)
class Restored:
    """A restored image, H×W×3 uint8, the seconds it took if they are known, and its tiles' side if memory was short."""

    pixels: np.ndarray
    seconds: float | None = None
    tile: int | None = None


class Restorer(Interface):
    """What the runner needs: who restores, on what, and the restored pixels of one image."""

    method: Method
    device: str
    dtype: str

    def restore(self, sample: Sample, hazy: Image.Image) -> Restored:
        """Restore one image at the size of `hazy`."""
        ...


class Model:
    """Restore with a model of this project, which records call `name`, or as it is called.

    Where memory runs out, the image is restored in tiles, halved until they fit; a model that must see the whole image
    fails on it instead, since tiles would make it another method.
    """

    def __init__(self, dehazer: Dehazer, name: str | None = None):
        self._dehazer = dehazer
        self.device = str(dehazer.device)
        self.dtype = str(dehazer.dtype).removeprefix("torch.")
        card = dehazer.card
        trained_on = card.get("datasets") or ()
        self.method = Method(
            name=name or dehazer.name,
            revision=dehazer.revision,
            weights_sha256=dehazer.weights_sha256,
            parameters=sum(parameter.numel() for parameter in dehazer.network.parameters()),
            license=card.get("license"),
            paper=card.get("paper"),
            trained_on=(trained_on,) if isinstance(trained_on, str) else tuple(trained_on),
        )

    def restore(self, sample: Sample, hazy: Image.Image) -> Restored:
        dehazer, tile = self._dehazer, None
        while True:
            try:
                restoration = dehazer(hazy)
                return Restored(eight_bit(restoration.pixels), restoration.seconds, tile)
            except (MemoryError, RuntimeError) as error:  # torch has a class of its own for some devices alone
                tile = min(tile or dehazer.network.tile_size or 0, max(hazy.size)) // 2
                if not _out_of_memory(error) or tile < _LEAST_TILE:
                    raise
            # Out here, where nothing of the failed attempt is held any more.
            if dehazer.device.type == "cuda":
                torch.cuda.empty_cache()
            dehazer = replace(dehazer, tile=tile)


class Predictions:
    """Take restored images from a folder.

    It holds one image for each sample, called as the sample (`ID.png`, or another format), of the size that the
    protocol gives the hazy image. Raises DatasetError naming what is missing, left over, or of another size.
    """

    device = "none"
    dtype = "uint8"

    def __init__(self, folder: Path, dataset: Dataset, protocol: Protocol, method: Method):
        self._files = _find(folder, dataset)
        wrong = []
        for sample in dataset.samples:
            hazy, restored = upright_size(sample.hazy), upright_size(self._files[sample.id])
            if hazy and restored and protocol.size(*hazy) != restored:
                wrong.append("{} is {}×{}, not {}×{}".format(sample.id, *restored, *protocol.size(*hazy)))
        if wrong:
            raise DatasetError(f"sizes in {folder} do not fit {protocol.name}: {some(wrong)}")
        self._hashes = {id_: sha256(path.read_bytes()).hexdigest() for id_, path in self._files.items()}
        lines = "".join(f"{id_}\t{hash_}\n" for id_, hash_ in sorted(self._hashes.items()))
        self.method = replace(method, source="predictions", revision=f"sha256:{sha256(lines.encode()).hexdigest()}")

    def restore(self, sample: Sample, hazy: Image.Image) -> Restored:
        data = self._files[sample.id].read_bytes()
        if sha256(data).hexdigest() != self._hashes[sample.id]:
            raise RunError("the prediction changed while the run went on")
        return Restored(eight_bit(read_photo(data).pixels))


def _out_of_memory(error: Exception) -> bool:
    texts = ("out of memory", "DefaultCPUAllocator")  # as torch says on Apple's GPUs and on CPUs
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def _find(folder: Path, dataset: Dataset) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder: give the folder that holds the restored images")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            id_ = path.relative_to(folder).with_suffix("").as_posix()
            if id_ in files:
                raise DatasetError(f"{folder} holds {files[id_].name} and {path.name}: keep one of the two")
            files[id_] = path
    expected = {sample.id for sample in dataset.samples}
    if missing := sorted(expected - files.keys()):
        raise DatasetError(f"{folder} has no restored image for {some(missing)} of {dataset.name}")
    if extra := sorted(files.keys() - expected):
        raise DatasetError(f"{folder} holds {some(extra)}, which {dataset.name} does not have: take it out")
    return files
