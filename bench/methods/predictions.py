"""Take restored images from a folder of predictions, made by any method anywhere."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from PIL import Image

from bench.datasets import Dataset, Sample, images_by_id, some, upright_size
from bench.errors import DatasetError, RunError
from bench.methods.base import Restored
from bench.protocol import Protocol, eight_bit
from bench.record import Method
from dehaze.io.photo import read_photo


class Predictions:
    """Take restored images from a folder.

    The folder holds one image for each sample, named as the sample (`ID.png`, or another format) and of the size that
    the protocol gives the hazy image. Raises DatasetError that names what is missing, left over, or of another size.
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
            raise DatasetError(f"holds images of sizes that do not fit {protocol.name}: {some(wrong)}.", subject=folder)
        self._hashes = {id_: sha256(path.read_bytes()).hexdigest() for id_, path in self._files.items()}
        lines = "".join(f"{id_}\t{hash_}\n" for id_, hash_ in sorted(self._hashes.items()))
        self.method = replace(method, source="predictions", revision=f"sha256:{sha256(lines.encode()).hexdigest()}")

    def restore_image(self, sample: Sample, hazy: Image.Image) -> Restored:
        data = self._files[sample.id].read_bytes()
        if sha256(data).hexdigest() != self._hashes[sample.id]:
            raise RunError("The prediction changed while the run went on.", "Run again.")
        return Restored(eight_bit(read_photo(data).pixels))


def _find(folder: Path, dataset: Dataset) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError("is no folder.", "Give the folder that holds the restored images.", subject=folder)
    files = images_by_id(folder)
    expected = {sample.id for sample in dataset.samples}
    if missing := sorted(expected - files.keys()):
        raise DatasetError(f"has no restored image for {some(missing)} of {dataset.name}.", subject=folder)
    if extra := sorted(files.keys() - expected):
        raise DatasetError(f"holds {some(extra)}, which {dataset.name} does not have.", "Take it out.", subject=folder)
    return files
