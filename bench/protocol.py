"""Protocols by name and version: what happens to the images around the model, and what exactly is compared.

One pair of images scores SSIM 0.755 or 0.882 by definition alone, so a figure is always written with its protocol. A
protocol that has produced records never changes: a change is a new version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import log10
from types import MappingProxyType

import numpy as np
from PIL import Image

from bench.errors import ProtocolError
from bench.metrics import reference
from bench.metrics.base import Metric, Score
from bench.stats import bootstrap_mean
from dehaze.io.photo import to_8_bits
from dehaze.registry import Registry


@dataclass(frozen=True)
class Protocol:
    """The steps around a model. Images are 8-bit sRGB; what a protocol leaves alone it inherits from here.

    `long_side` is the largest long side in pixels, `square` the side of the square that every image becomes. `scores`
    are definitions of metrics that differ from those of `bench.metrics`; in `pooled` are the metrics, in dB of the mean
    squared error, that have one value for the whole set.
    """

    name: str
    definition: str
    long_side: int | None = None
    square: int | None = None
    scores: Mapping[str, Score] = field(default_factory=lambda: MappingProxyType({}))
    pooled: tuple[str, ...] = ()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height at which an image of this size is restored and scored."""
        if self.square:
            return self.square, self.square
        if self.long_side is None or max(width, height) <= self.long_side:
            return width, height
        scale = self.long_side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the hazy or the clear image (RGB) as the model and the metrics see it."""
        if self.square:
            return _squared(image, self.square)
        size = self.size(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)

    def define(self, metric: Metric) -> Metric:
        """Return `metric` computed as the protocol has it."""
        return replace(metric, score=self.scores.get(metric.spec.name, metric.score))

    def aggregate(self, name: str, values: np.ndarray) -> tuple[float | None, float | None, float | None, int]:
        """Sum up the per-image values of the metric `name`: mean, 95 % bootstrap interval, and how many made them.

        Infinite values are left out, but for a pooled metric, where images that agree add an error of 0. The mean is
        None without a finite value, the bounds are None with fewer than two values or where one of them is infinite.
        """
        if name in self.pooled:
            return _pooled(values)
        finite = values[np.isfinite(values)]
        low, high = bootstrap_mean(finite) if finite.size > 1 else (None, None)
        return (float(finite.mean()) if finite.size else None), low, high, finite.size


def _squared(image: Image.Image, side: int) -> Image.Image:
    """Return the image at side×side, its shape given up, as the loader of DRACO-DehazeNet makes it.

    Nearest neighbour to four times the side, then bilinear without a filter: the middle 2×2 of every 4×4.
    """
    large = np.asarray(image.resize((4 * side, 4 * side), Image.Resampling.NEAREST))
    middle = large.reshape(side, 4, side, 4, 3)[:, 1:3, :, 1:3]
    return Image.fromarray(((middle.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8))


def _pooled(decibels: np.ndarray) -> tuple[float | None, float | None, float | None, int]:
    errors = 10 ** (-decibels / 10)
    if not errors.any():
        return None, None, None, 0
    low, high = bootstrap_mean(errors) if errors.size > 1 else (0.0, 0.0)
    worst, best = (_decibels(high), _decibels(low)) if low else (None, None)
    return _decibels(errors.mean()), worst, best, errors.size


def _decibels(error: float) -> float:
    return -10 * log10(error)


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 or uint16 `pixels` as uint8, rounded: 65535 becomes 255."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"pixels are {pixels.dtype}, not uint8 or uint16: quantise them first")
    return to_8_bits(pixels)


_PROTOCOLS: Registry[Protocol] = Registry("protocol", ProtocolError)
for _protocol in (
    Protocol(
        "native-v1",
        "8-bit sRGB at native size; PSNR and SSIM on RGB (Gaussian 11, sigma 1.5, valid region, range 1); "
        "mean of per-image values",
    ),
    Protocol(
        "long800-v1",
        "as native-v1 after both images are brought to a long side of 800 pixels (Pillow LANCZOS, never enlarged), "
        "before the model sees them",
        long_side=800,
    ),
    Protocol(
        "ffa-v1",
        "as native-v1, but SSIM with the Gaussian window on every pixel, black beyond the border; FFA-Net, AECR-Net, "
        "C2PNet, DEA-Net",
        scores={"ssim": reference.ssim_padded},
    ),
    Protocol(
        "dehazeformer-v1",
        "as native-v1, but SSIM after average pooling by round(min(height, width) / 256); DehazeFormer, gUNet, "
        "ConvIR, FSNet",
        scores={"ssim": reference.ssim_pooled},
    ),
    Protocol(
        "luma-v1",
        "as native-v1, but PSNR and SSIM on luma (BT.601, 16 to 235, not rounded; peak and range 255); older tables",
        scores={"psnr": reference.psnr_luma, "ssim": reference.ssim_luma},
    ),
    Protocol(
        "fixed-camera-v1",
        "as long800-v1, but SSIM after the restored image is brought to the clear one by a gain and an offset of each "
        "channel (least squares), clipped: for one place in haze and on a clear day, in another light",
        long_side=800,
        scores={"ssim": reference.ssim_fitted},
    ),
    Protocol(
        "draco-v1",
        "both images brought to 256×256 (nearest neighbour to 1024×1024, then bilinear) before the model sees them; "
        "PSNR of the mean squared error of the whole set; SSIM as native-v1, but with constants for a range of 2; "
        "DRACO-DehazeNet",
        square=256,
        scores={"ssim": partial(reference.ssim, peak=2.0)},
        pooled=("psnr",),
    ),
):
    _PROTOCOLS.register(_protocol.name)(_protocol)


def get(name: str) -> Protocol:
    """Return the protocol called `name`; an unknown name raises ProtocolError and suggests the nearest ones."""
    return _PROTOCOLS.get(name)


def names() -> list[str]:
    """List the protocols."""
    return _PROTOCOLS.names()
