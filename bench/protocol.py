"""Protocols by name and version: what happens to the images around the model, and what exactly is compared.

One pair of images scores SSIM 0.755 or 0.882 by definition alone, so a figure is always written with its protocol. A
protocol that has produced records never changes: a change is a new version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from PIL import Image

from bench.errors import ProtocolError
from bench.metrics.base import Metric, Score
from bench.stats import bootstrap_mean
from dehaze.registry import Registry


@dataclass(frozen=True)
class Protocol:
    """The steps around a model. Images are 8-bit sRGB; what a protocol leaves alone it inherits from here."""

    name: str
    definition: str
    long_side: int | None = None
    scores: Mapping[str, Score] = field(default_factory=lambda: MappingProxyType({}))

    def define(self, metric: Metric) -> Metric:
        """Return `metric` computed as the protocol has it."""
        return replace(metric, score=self.scores.get(metric.spec.name, metric.score))

    def aggregate(self, name: str, values: np.ndarray) -> tuple[float | None, float | None, float | None, int]:
        """Sum up the per-image values of the metric `name`: mean, 95 % bootstrap interval, and how many made them.

        Infinite values are left out. The mean is None without a value, the interval with fewer than two.
        """
        finite = values[np.isfinite(values)]
        low, high = bootstrap_mean(finite) if finite.size > 1 else (None, None)
        return (float(finite.mean()) if finite.size else None), low, high, finite.size

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height at which an image of this size is restored and scored."""
        if self.long_side is None or max(width, height) <= self.long_side:
            return width, height
        scale = self.long_side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the hazy or the clear image (RGB) as the model and the metrics see it."""
        size = self.size(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 or uint16 `pixels` as uint8, rounded: 65535 becomes 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise TypeError(f"pixels are {pixels.dtype}, not uint8 or uint16: quantise them first")
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


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
):
    _PROTOCOLS.register(_protocol.name)(_protocol)


def get(name: str) -> Protocol:
    """Return the protocol called `name`; an unknown name raises ProtocolError and suggests the nearest ones."""
    return _PROTOCOLS.get(name)


def names() -> list[str]:
    """List the protocols."""
    return _PROTOCOLS.names()
