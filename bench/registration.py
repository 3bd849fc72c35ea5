"""Register pairs of a fixed camera, which wind and heat move by a few pixels: by whole pixels, nothing is resampled."""

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.fft import next_fast_len

from bench.datasets.files import PLAIN, read_folder
from bench.errors import DatasetError
from bench.metrics.fixed_camera import gradient_magnitude
from bench.protocol import eight_bit
from dehaze.io.photo import read_photo

TABLE = "index.csv"
LARGEST_SHIFT = 16  # px in either direction


@dataclass(frozen=True)
class Shift:
    """By how many pixels a scene lies further down and right in the clear image than in the hazy one.

    `correlation` is that of the gradient magnitudes where the two overlap.
    """

    down: int
    right: int
    correlation: float

    def crop(self, hazy: np.ndarray, clear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the parts of two images H×W×… that show the same scene."""
        height, width = hazy.shape[0] - abs(self.down), hazy.shape[1] - abs(self.right)
        cut = []
        for image, sign in ((hazy, -1), (clear, 1)):
            top, left = max(0, sign * self.down), max(0, sign * self.right)
            cut.append(image[top : top + height, left : left + width])
        return cut[0], cut[1]


def find_shift(hazy: np.ndarray, clear: np.ndarray, largest: int = LARGEST_SHIFT) -> Shift:
    """Find the shift of at most `largest` px at which the gradients of two uint8 images H×W×3 correlate best."""
    a, b = (_gradients(image) for image in (hazy, clear))
    # Cross-correlation at all shifts at once; padded, so that nothing comes in again from the other side.
    size = [int(next_fast_len(length + largest) or 0) for length in a.shape]
    found = np.fft.irfft2(np.fft.rfft2(b - b.mean(), size) * np.fft.rfft2(a - a.mean(), size).conj(), size)
    shifts = np.arange(-largest, largest + 1)
    nearby = found[np.ix_(shifts, shifts)]
    down, right = (int(shifts[i]) for i in np.unravel_index(nearby.argmax(), nearby.shape))
    one, other = Shift(down, right, 0.0).crop(a, b)
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    return Shift(down, right, float(np.nan_to_num(correlation)))


def register(source: Path, output: Path) -> dict[str, Shift]:
    """Register the pairs of a folder, and write what both images of each show, as PNG, with a table of the shifts.

    Returns the shifts by the pairs' ids. Raises DatasetError if the folder holds no pairs, or `output` is in use.
    """
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise DatasetError("is not empty.", "Give another --output, or remove it.", subject=output)
    samples = read_folder(source, PLAIN)
    if lonely := [sample.id for sample in samples if sample.clear is None]:
        raise DatasetError(f"has no clear image for {lonely[0]}.", "Registration needs pairs.", subject=source)
    unfinished, shifts = output.with_name(f"{output.name}.tmp"), {}
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        for sample in samples:
            assert sample.clear is not None  # as above
            hazy, clear = (eight_bit(read_photo(path).pixels) for path in (sample.hazy, sample.clear))
            shifts[sample.id] = find_shift(hazy, clear)
            for kind, pixels in zip(("hazy", "clear"), shifts[sample.id].crop(hazy, clear), strict=True):
                target = unfinished / kind / f"{sample.id}.png"
                target.parent.mkdir(parents=True, exist_ok=True)  # ids hold the folder where a set has several
                Image.fromarray(pixels).save(target)
        (unfinished / TABLE).write_text(_table(shifts), encoding="utf-8")
        if output.is_dir():
            output.rmdir()
        unfinished.rename(output)
    except OSError as error:
        raise DatasetError(f"cannot be written: {error.strerror}.", subject=output) from None
    return shifts


def _table(shifts: dict[str, Shift]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "down", "right", "gradient_correlation"])
    writer.writerows([id_, shift.down, shift.right, round(shift.correlation, 4)] for id_, shift in shifts.items())
    return text.getvalue()


def _gradients(image: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    return gradient_magnitude(tensor)[0].numpy()
