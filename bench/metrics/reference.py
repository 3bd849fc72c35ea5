"""Metrics against the clear image: PSNR, SSIM and the CIEDE2000 colour difference.

All are averaged in float64 over strips of rows, so that a photograph of any size needs a few tens of megabytes.
"""

from collections.abc import Callable
from functools import partial
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import MetricError
from bench.metrics.base import Metric, MetricSpec
from dehaze.ssim import WINDOW, ssim_map

STRIP_PIXELS = 2**17

SPECS = {
    "psnr": MetricSpec(
        "psnr",
        reference=True,
        direction="up",
        unit="dB",
        low=0.0,
        high=inf,
        definition="Peak signal-to-noise ratio of RGB, 10·log10(1 / mean squared error); infinite for identical images",
    ),
    "ssim": MetricSpec(
        "ssim",
        reference=True,
        direction="up",
        unit="",
        low=-1.0,
        high=1.0,
        definition="Structural similarity (Wang 2004), Gaussian window of 11 with σ 1.5, valid region, population "
        "variances, range 1, mean of R, G and B; as scikit-image with gaussian_weights",
    ),
    "ciede2000": MetricSpec(
        "ciede2000",
        reference=True,
        direction="down",
        unit="ΔE00",
        low=0.0,
        high=inf,
        definition="Mean over pixels of the CIEDE2000 colour difference in CIELAB (sRGB, D65, 2° observer)",
    ),
}


def spec(name: str) -> MetricSpec:
    """Describe one of `SPECS`."""
    return SPECS[name]


def build(name: str) -> Metric:
    """Return one of `SPECS` ready to be called."""
    return Metric(SPECS[name], {"psnr": psnr, "ssim": ssim, "ciede2000": ciede2000}[name])


def psnr(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio [B] in dB of images [B, C, H, W] in [0, 1]; infinite where they agree."""
    return -10 * torch.log10(_mean(restored, clear, lambda a, b: (a - b).square()))


def psnr_luma(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `psnr` of the luma (see `luma`) of RGB images [B, 3, H, W], peak 255."""
    return -10 * torch.log10(_mean(restored, clear, lambda a, b: (luma(a) - luma(b)).square()))


def ssim(restored: Tensor, clear: Tensor, peak: float = 1.0) -> Tensor:
    """Return the structural similarity [B] of images [B, C, H, W] in [0, 1], each side at least 11 pixels.

    Wang, Bovik, Sheikh and Simoncelli 2004, eq. 13: Gaussian window of 11 with σ 1.5 where it fits wholly into the
    image, population variances, K1 = 0.01, K2 = 0.03, mean over the channels. `peak` is the range that K1 and K2 are
    parts of. Raises `MetricError` on smaller images.
    """
    _check_window(restored)
    return _mean(restored, clear, partial(ssim_map, peak=peak), halo=len(WINDOW) - 1)


def ssim_fitted(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `ssim` of images [B, 3, H, W] after the restored one is brought to the clear one's exposure.

    A gain and an offset of each channel, by least squares, and clipped to [0, 1].
    """
    return ssim(fitted(restored, clear), clear)


def fitted(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `restored` with the gain and the offset of each channel that bring it nearest to `clear`, in [0, 1]."""
    a, b = (image.double().flatten(2) for image in (restored, clear))
    mean_a, mean_b = a.mean(2, keepdim=True), b.mean(2, keepdim=True)
    variance = (a - mean_a).square().mean(2, keepdim=True)
    covariance = ((a - mean_a) * (b - mean_b)).mean(2, keepdim=True)
    gain = covariance / variance.clamp_min(1e-12)
    return (mean_b + gain * (a - mean_a)).clamp(0, 1).reshape(restored.shape)


def ssim_padded(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `ssim` of images [B, C, H, W] of any size with five pixels of black around them, as FFA-Net's code does.

    The window is then centred on every pixel of the image.
    """
    restored, clear = (F.pad(image, [len(WINDOW) // 2] * 4) for image in (restored, clear))
    return _mean(restored, clear, ssim_map, halo=len(WINDOW) - 1)


def ssim_pooled(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `ssim` of images [B, C, H, W] after average pooling, as DehazeFormer's code does.

    Both sides are divided by round(min(H, W) / 256) and cut to whole numbers; where that does not go up, regions of the
    pooling overlap (adaptive pooling). Raises `MetricError` where a side ends below 11 pixels.
    """
    height, width = restored.shape[-2:]
    ratio = max(1, round(min(height, width) / 256))
    if ratio == 1:
        return ssim(restored, clear)
    size = height // ratio, width // ratio

    def pool(image: Tensor) -> Tensor:
        planes = image.split(1, dim=1)  # one by one, as each is held in float64
        return torch.cat([F.adaptive_avg_pool2d(plane.double(), size) for plane in planes], dim=1)

    return ssim(pool(restored), pool(clear))


def ssim_luma(restored: Tensor, clear: Tensor) -> Tensor:
    """Return `ssim` of the luma (see `luma`) of RGB images [B, 3, H, W], range 255."""
    _check_window(restored)
    return _mean(restored, clear, lambda a, b: ssim_map(luma(a), luma(b)), halo=len(WINDOW) - 1)


def luma(rgb: Tensor) -> Tensor:
    """Return the luma [1, H, W] of sRGB [3, H, W] in [0, 1], in units of 255 levels and not rounded: 16 to 235.

    ITU-R BT.601 with headroom, as MATLAB's rgb2ycbcr and BasicSR have it.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype, device=rgb.device)
    return (torch.einsum("c,chw->hw", weights, rgb)[None] + 16) / 255


def ciede2000(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the mean CIEDE2000 colour difference [B] of sRGB images [B, 3, H, W] in [0, 1].

    CIE 142-2001 with kL = kC = kH = 1; equations and hue conventions as in Sharma, Wu and Dalal 2005.
    """
    return _mean(restored, clear, lambda a, b: _colour_difference(_lab(a), _lab(b)))


def _mean(restored: Tensor, clear: Tensor, score_map: Callable[[Tensor, Tensor], Tensor], halo: int = 0) -> Tensor:
    """Average a map of two images [C, H, W] in float64, strip by strip; the map is `halo` rows shorter than a strip."""
    height, width = restored.shape[-2:]
    rows = max(1, STRIP_PIXELS // width)
    means = []
    for one, other in zip(restored, clear, strict=True):
        total, count = 0.0, 0
        for top in range(0, height - halo, rows):
            strip = slice(top, top + rows + halo)
            scores = score_map(one[:, strip].double(), other[:, strip].double())
            total, count = total + scores.sum(), count + scores.numel()
        means.append(total / count)
    return torch.stack(means)


def _check_window(image: Tensor) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < len(WINDOW):
        reason = f"needs images of at least 11×11 pixels, got {width}×{height}."
        raise MetricError(reason, "Leave it out.", subject="ssim")


def _lab(rgb: Tensor) -> Tensor:
    """Convert sRGB [3, H, W] in [0, 1] to CIELAB (D65, 2°), with the constants of the sRGB and CIELAB definitions."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = torch.tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
        dtype=rgb.dtype,
        device=rgb.device,
    )
    white = torch.tensor([0.95047, 1.0, 1.08883], dtype=rgb.dtype, device=rgb.device)
    xyz = torch.einsum("ij,jhw->ihw", to_xyz / white[:, None], linear)
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _colour_difference(lab1: Tensor, lab2: Tensor) -> Tensor:
    (l1, a1, b1), (l2, a2, b2) = lab1, lab2
    # a is stretched near the grey axis, so that differences of nearly neutral colours are seen.
    stretch = 1 + 0.5 * (1 - _chroma_weight(0.5 * (torch.hypot(a1, b1) + torch.hypot(a2, b2))))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = (torch.rad2deg(torch.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))

    # Hue is an angle: differences and means go the short way round. Grey has none; its chroma of 0 cancels it below.
    turn, mean_h = h2 - h1, (h1 + h2) / 2
    far = turn.abs() > 180
    turn = torch.where(far, turn - 360 * turn.sign(), turn)
    mean_h = torch.where(far, torch.where(mean_h < 180, mean_h + 180, mean_h - 180), mean_h)

    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * _cos(mean_h - 30)
        + 0.24 * _cos(2 * mean_h)
        + 0.32 * _cos(3 * mean_h + 6)
        - 0.20 * _cos(4 * mean_h - 63)
    )
    offset = (mean_l - 50) ** 2
    lightness = (l2 - l1) / (1 + 0.015 * offset / torch.sqrt(20 + offset))
    chroma = (c2 - c1) / (1 + 0.045 * mean_c)
    hue = 2 * torch.sqrt(c1 * c2) * torch.sin(torch.deg2rad(turn / 2)) / (1 + 0.015 * mean_c * t)
    # In the blue region the ellipses of equal difference are tilted.
    tilt = torch.deg2rad(60 * torch.exp(-(((mean_h - 275) / 25) ** 2)))
    rotation = -2 * _chroma_weight(mean_c) * torch.sin(tilt) * chroma * hue
    return (lightness**2 + chroma**2 + hue**2 + rotation).clamp_min(0).sqrt()


def _chroma_weight(chroma: Tensor) -> Tensor:
    return torch.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _cos(degrees: Tensor) -> Tensor:
    return torch.cos(torch.deg2rad(degrees))
