"""FADE: how foggy a photograph looks, from statistics of its 8×8 patches and no reference.

Choi, You and Bovik, "Referenceless prediction of perceptual fog density and perceptual image defogging", IEEE TIP 2015.
Twelve features of each patch are compared with two Gaussians, one of fog-free and one of foggy patches. Details that
the paper leaves open follow the authors' released MATLAB code, so that its scores are met.

Where a photograph is flat (clipped skies), the last bit of rounding decides which signs a patch's products have, and so
whether the patch counts. This is the release's own: implementations that agree to nine digits elsewhere differ there by
some percent, up to a fifth for a photograph.

The authors' Gaussians come with their release and its terms, and are not part of this project: `fade` reads them from a
folder. `fade_refit` is the same score against Gaussians fitted by `bench.metrics.fade_fit`, which ship.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import inf
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bench.errors import MetricError
from bench.metrics.base import Metric, MetricSpec

PATCH = 8
BAND_PIXELS = 2**16
MIN_SIZE = 16  # two patches: the contrast filter copies ten pixels beyond each border

FEATURES = (
    "mscn_variance",
    "positive_product_variance",
    "negative_product_variance",
    "sigma",
    "coefficient_of_variation",
    "contrast_energy_grey",
    "contrast_energy_blue_yellow",
    "contrast_energy_red_green",
    "entropy",
    "dark_channel",
    "saturation",
    "colourfulness",
)

RELEASE = "http://live.ece.utexas.edu/research/fog/FADE_release.zip"
RELEASE_FILES = ("natural_fogfree_image_features_ps8.mat", "natural_foggy_image_features_ps8.mat")

_UNPACK = f"Unpack {RELEASE} and give the folder that holds {' and '.join(RELEASE_FILES)}."

_DEFINITION = (
    "Perceptual fog density D = D_f / (D_ff + 1) of Choi, You and Bovik 2015: distances of twelve patch statistics, "
    "8-bit RGB, from Gaussians of fog-free and of foggy photographs"
)
SPECS = {
    "fade": MetricSpec(
        "fade",
        reference=False,
        direction="down",
        unit="",
        low=0.0,
        high=inf,
        definition=f"{_DEFINITION}; the Gaussians the authors released",
    ),
    "fade_refit": MetricSpec(
        "fade_refit",
        reference=False,
        direction="down",
        unit="",
        low=0.0,
        high=inf,
        definition=f"{_DEFINITION}; Gaussians fitted by this project, not to be compared with published FADE",
    ),
}


@dataclass(frozen=True)
class Gaussian:
    """A multivariate normal of patch features: `mean` [12] and `covariance` [12, 12]."""

    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self):
        n = len(FEATURES)
        if self.mean.shape != (n,) or self.covariance.shape != (n, n):
            raise MetricError(
                f"FADE statistics need a mean [{n}] and a covariance [{n}, {n}], got {list(self.mean.shape)} and "
                f"{list(self.covariance.shape)}."
            )
        try:
            np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError as error:
            raise MetricError("FADE statistics have a singular covariance.", "Fit them to more photographs.") from error


@dataclass(frozen=True)
class Statistics:
    """What FADE compares with: patches of fog-free and of foggy photographs."""

    fog_free: Gaussian
    foggy: Gaussian


@dataclass(frozen=True)
class FogDensity:
    """FADE of one image: D = D_f / (D_ff + 1), and D of each patch [H // 8, W // 8], NaN where it is undefined."""

    density: float
    map: np.ndarray


def spec(name: str) -> MetricSpec:
    """Describe one of `SPECS`."""
    return SPECS[name]


def build(name: str, *, fade_stats: Path | None = None) -> Metric:
    """Return `fade`, with the released statistics in the folder `fade_stats`, or `fade_refit`, with ours."""
    if name == "fade_refit":
        statistics = refitted_statistics()
    elif fade_stats is None:
        raise MetricError(
            "needs the statistics released by its authors, and none were given.",
            f"{_UNPACK} Or use fade_refit, which needs none.",
            subject=name,
            setting="The folder is named by --fade-stats DIR.",
        )
    else:
        statistics = released_statistics(fade_stats)

    def score(images: Tensor) -> Tensor:
        return torch.tensor([fog_density(image, statistics).density for image in images], dtype=torch.float64)

    return Metric(SPECS[name], score)


def fog_density(image: Tensor, statistics: Statistics) -> FogDensity:
    """Measure the fog density of one RGB image [3, H, W] in [0, 1], rounded to 8 bits; sides of 16 pixels or more.

    The density is NaN where no patch has all features, or where the image has no structure. Raises `MetricError` on
    smaller images.
    """
    patches = features(image)
    if not _has_structure(image):
        return FogDensity(np.nan, np.full(patches.shape[:2], np.nan))
    # A patch without a positive or a negative product has no such variance: the release leaves it out of the means.
    defined = np.isfinite(patches).all(axis=-1)
    if not defined.any():
        return FogDensity(np.nan, np.full(defined.shape, np.nan))
    fog_free = distances(patches, statistics.fog_free)
    foggy = distances(patches, statistics.foggy)
    fog_free_mean, foggy_mean = fog_free[defined].mean(), foggy[defined].mean()
    return FogDensity(density=float(fog_free_mean / (foggy_mean + 1)), map=fog_free / (foggy + 1))


def distances(patches: np.ndarray, gaussian: Gaussian) -> np.ndarray:
    """Return the Mahalanobis-like distance [...] of each patch's features [..., 12] from `gaussian`.

    sqrt(dᵀ ((Σ + v·11ᵀ) / 2)⁻¹ d) with d the difference from the mean and v the variance of the patch's twelve features
    among themselves, which the release adds to every entry of Σ. The rank-one update is inverted by Sherman–Morrison.
    """
    difference = patches - gaussian.mean
    variance = patches.var(axis=-1, ddof=1)
    whiten = np.linalg.inv(np.linalg.cholesky(gaussian.covariance)).T
    whitened, ones = difference @ whiten, whiten.sum(axis=0)
    along_ones = whitened @ ones
    squared = (whitened**2).sum(axis=-1) - variance * along_ones**2 / (1 + variance * (ones @ ones))
    return np.sqrt(2 * np.maximum(squared, 0))


def features(image: Tensor) -> np.ndarray:
    """Return log(1 + f) of the twelve `FEATURES` f of each 8×8 patch, [H // 8, W // 8, 12], of an image [3, H, W].

    The image is RGB in [0, 1] and is rounded to 8 bits, as MATLAB reads it; rows and columns beyond the last whole
    patch are cut off. NaN where a feature is undefined. Raises `MetricError` if a side is under 16 pixels.
    """
    height, width = (side // PATCH * PATCH for side in image.shape[-2:])
    if min(height, width) < MIN_SIZE:
        size = f"{image.shape[-1]}×{image.shape[-2]}"
        raise MetricError(
            f"needs images of at least {MIN_SIZE}×{MIN_SIZE} pixels, got {size}.", "Leave it out.", subject="FADE"
        )
    pixels = _pixels(image)
    # Bands of patch rows keep the memory small and the arrays in the cache.
    rows = max(1, BAND_PIXELS // (width * PATCH)) * PATCH
    bands = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
    energy = np.concatenate([_filter_energy(pixels, band) for band in bands], axis=1)
    largest = energy.max(axis=(1, 2))
    return np.log1p(
        np.concatenate([_band_features(pixels, band, _contrast(energy[:, band], largest)) for band in bands])
    )


def _has_structure(image: Tensor) -> bool:
    """Return whether the grey levels of the whole patches differ: else half the features are rounding noise."""
    levels = grey(_pixels(image))
    return bool(levels.min() < levels.max())


def _pixels(image: Tensor) -> np.ndarray:
    """Return the whole patches of an image [3, H, W] in [0, 1], rounded to 8 bits."""
    height, width = (side // PATCH * PATCH for side in image.shape[-2:])
    return np.ascontiguousarray((image[:, :height, :width].float() * 255).round().byte().cpu().numpy())


def _band_features(pixels: np.ndarray, band: slice, contrast: np.ndarray) -> np.ndarray:
    """Return the twelve features f of the patches in a band of rows, given its contrast energies [3, h, W]."""
    mscn, sigma, variation = _normalise(pixels, band.start, band.stop)
    row_above = (band.start - 1) % pixels.shape[1]  # the first row's neighbour is the last row: MATLAB's circshift
    mscn_above, _, _ = _normalise(pixels, row_above, row_above + 1)
    product = _patches(mscn * np.concatenate([mscn_above, mscn[:-1]]))

    red, green, blue = pixels[:, band].astype(np.float64)
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    saturation = np.divide(high - low, high, out=np.zeros_like(high), where=high > 0)
    return np.stack(
        [
            _patches(mscn).var(axis=-1, ddof=1),
            _one_sided_variance(product),
            _one_sided_variance(-product),
            _patches(sigma).mean(axis=-1),
            _patches(variation).mean(axis=-1),
            *(_patches(plane).mean(axis=-1) for plane in contrast),
            _entropy(_patches(grey(pixels[:, band]).astype(np.uint8))),
            _patches(low).mean(axis=-1) / 255,
            _patches(saturation).mean(axis=-1),
            _colourfulness(_patches(red - green), _patches(0.5 * (red + green) - blue)),
        ],
        axis=-1,
    )


def _patches(plane: np.ndarray) -> np.ndarray:
    """Cut a plane [H, W] into its distinct patches [H // 8, W // 8, 64]."""
    rows, columns = plane.shape[0] // PATCH, plane.shape[1] // PATCH
    return plane.reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2).reshape(rows, columns, PATCH * PATCH)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return the grey levels [H, W] of 8-bit RGB pixels [3, H, W] in whole numbers, as MATLAB's rgb2gray."""
    red, green, blue = pixels.astype(np.float64)
    return np.floor(0.298936021293776 * red + 0.587043074451121 * green + 0.114020904255103 * blue + 0.5)


def _normalise(pixels: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean-subtracted contrast-normalised (MSCN) grey, its local deviation, and that by the local mean.

    Of the rows from `start` to `stop`. Gaussian window of 7×7 with σ 7/6, border replicated.
    """
    window = np.exp(-(np.arange(-3.0, 4.0) ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    levels = grey(pixels[:, np.arange(start - 3, stop + 3).clip(0, pixels.shape[1] - 1)])

    def smooth(plane: np.ndarray) -> np.ndarray:
        columns = ndimage.correlate1d(plane, window, axis=0)[3:-3]
        return ndimage.correlate1d(columns, window, axis=1, mode="nearest")

    mean = smooth(levels)
    sigma = np.sqrt(np.abs(smooth(levels * levels) - mean * mean))
    with np.errstate(divide="ignore", invalid="ignore"):  # black patches: NaN, as in MATLAB
        return (levels[3:-3] - mean) / (sigma + 1), sigma, sigma / mean


def _one_sided_variance(patches: np.ndarray) -> np.ndarray:
    """Return the sample variance of the values ≥ 0 of each patch [..., 64]: 0 if there is one, NaN if there is none."""
    count = (patches >= 0).sum(axis=-1)
    kept = np.maximum(patches, 0)  # the others then add nothing to the sums
    total, squares = kept.sum(axis=-1), np.einsum("...i,...i", kept, kept)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (squares - total**2 / count) / np.maximum(count - 1, 1)
    return np.maximum(variance, 0)


def _filter_energy(pixels: np.ndarray, band: slice) -> np.ndarray:
    """Return the Laplacian-of-Gaussian energy [3, h, W] of grey, blue–yellow and red–green in a band of rows.

    20 taps of σ 3.25, along rows and along columns. Single precision, as it is held for the whole image.
    """
    sigma = 3.25
    x = np.arange(-3 * sigma, 3 * sigma, 1.0)  # lopsided by half a pixel, as released
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    kernel = (x**2 / sigma**4 - 1 / sigma**2) * gauss / gauss.sum()
    kernel -= kernel.mean()
    kernel /= (0.5 * x**2 * kernel).sum()

    # Beyond the border the image goes on with an unmirrored copy of the ten pixels inside it.
    border = len(kernel) // 2
    rows, columns = (np.r_[0:border, 0:side, side - border : side] for side in pixels.shape[1:])
    inner = slice(border, -border)
    red, green, blue = pixels[:, rows[band.start : band.stop + 2 * border]].astype(np.float64)
    planes = np.stack([0.299 * red + 0.587 * green + 0.114 * blue, 0.5 * (red + green) - blue, red - green])
    vertical = ndimage.convolve1d(planes, kernel, axis=1)[:, inner]
    horizontal = ndimage.convolve1d(planes[:, inner, columns], kernel, axis=2)[:, :, inner]
    return np.sqrt(vertical**2 + horizontal**2).astype(np.float32)


def _contrast(energy: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return the contrast energies [3, h, W]: semi-saturated at 0.1 of the image's `largest`, less the noise."""
    noise = 255 * np.array([9.225496406318721e-4, 8.969246659629488e-4, 2.069284034165411e-4])
    largest = largest[:, None, None].astype(np.float64)
    level = energy + 0.1 * largest
    response = np.divide(energy * largest, level, out=np.zeros_like(level), where=level > 0) - noise[:, None, None]
    return np.where(response > 1e-7, response, 0.0)


def _entropy(patches: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy in bits of the 8-bit values of each patch [..., 64]."""
    flat = patches.reshape(-1, patches.shape[-1])
    bits = -np.log2(np.arange(1, flat.shape[1] + 1) / flat.shape[1])
    entropy = np.empty(len(flat))
    for start in range(0, len(flat), 4096):  # a histogram of 256 bins each
        chunk = flat[start : start + 4096]
        value = np.arange(len(chunk))[:, None] * 256 + chunk
        count = np.bincount(value.ravel())[value]
        entropy[start : start + 4096] = bits[count - 1].mean(axis=-1)
    return entropy.reshape(patches.shape[:-1])


def _colourfulness(red_green: np.ndarray, blue_yellow: np.ndarray) -> np.ndarray:
    """Return colourfulness (Hasler and Süsstrunk 2003) of patches [..., 64] of two opponent planes."""
    spread = np.sqrt(red_green.var(axis=-1, ddof=1) + blue_yellow.var(axis=-1, ddof=1))
    return spread + 0.3 * np.hypot(red_green.mean(axis=-1), blue_yellow.mean(axis=-1))


@cache
def refitted_statistics() -> Statistics:
    """Return the Gaussians fitted by this project."""
    return statistics_from_json((files("bench.metrics") / "data" / "fade_refit.json").read_text())


def statistics_from_json(text: str) -> Statistics:
    """Read what `bench.metrics.fade_fit` writes."""
    entries = json.loads(text)
    return Statistics(
        *(
            Gaussian(np.array(entries[kind]["mean"]), np.array(entries[kind]["covariance"]))
            for kind in ("fog_free", "foggy")
        )
    )


def released_statistics(folder: Path) -> Statistics:
    """Read the two statistics files of the authors' release; raises `MetricError` if `folder` does not hold them."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    def gaussian(file: str, kind: str) -> Gaussian:
        path = Path(folder) / file
        if not path.is_file():
            raise MetricError("does not exist, and fade needs it.", _UNPACK, subject=path)
        try:
            entries = loadmat(path)
            return Gaussian(entries[f"mu_{kind}param"].ravel(), entries[f"cov_{kind}param"])
        except (MatReadError, MetricError, ValueError, KeyError, TypeError, NotImplementedError) as error:
            reason = f"is not the statistics file of the release ({error})."
            raise MetricError(reason, f"Get it from {RELEASE}.", subject=path) from error

    fog_free, foggy = RELEASE_FILES
    return Statistics(gaussian(fog_free, "fogfree"), gaussian(foggy, "foggy"))
