"""The guided filter (He, Sun, Tang 2010; fast: He, Sun 2015)."""

import torch
from torch import Tensor
from torch.nn import functional as F

COPY_RADIUS = 16  # px of the copy; a smaller one would enlarge the bright rims that networks draw along edges
COPY_EPSILON = 1e-5  # variance of values in [0,1]; a larger one would blur faint texture in dense haze


def _mean_along(x: Tensor, radius: int) -> Tensor:
    length = x.shape[-1]
    radius = min(radius, length - 1)
    # float64: a running sum over thousands of pixels loses the small differences that variances are made of.
    sums = x.cumsum(-1, dtype=torch.float64)
    means = torch.empty_like(sums)
    means[..., : length - radius] = sums[..., radius:]
    means[..., length - radius :] = sums[..., -1:]
    means[..., radius + 1 :] -= sums[..., : length - radius - 1]
    position = torch.arange(length, dtype=torch.float64, device=x.device)
    count = (position + radius).clamp_max(length - 1) - (position - radius).clamp_min(0) + 1
    return means.div_(count)


def box_filter(x: Tensor, radius: int) -> Tensor:
    """Return the mean over (2·radius + 1)² neighbourhoods, cut off at the borders, of [..., H, W], as float64.

    The time does not depend on the radius.
    """
    return _mean_along(_mean_along(x, radius).mT.contiguous(), radius).mT


def guided_coefficients(guide: Tensor, x: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the guided filter's mean coefficients (a, b), so that the filtered image is `a·guide + b`.

    `guide` and `x` [..., H, W] in [0,1]. He, Sun, Tang 2010, equations 5, 6 and 8.
    """
    device = guide.device
    if device.type == "mps":  # which has no float64
        guide, x = guide.cpu(), x.cpu()
    guide, x = guide.double(), x.double()
    mean_guide, mean_x = box_filter(guide, radius), box_filter(x, radius)
    covariance = box_filter(guide * x, radius).addcmul_(mean_guide, mean_x, value=-1)
    variance = box_filter(guide * guide, radius).addcmul_(mean_guide, mean_guide, value=-1)
    a = covariance.div_(variance.add_(epsilon))
    b = mean_x.addcmul_(a, mean_guide, value=-1)
    a, b = (box_filter(map_, radius).float().to(device) for map_ in (a, b))
    return a, b


def follow(image: Tensor, copy: Tensor, restored: Tensor) -> Tensor:
    """Apply to `image` [B,3,H,W] in [0,1] the change of a smaller copy of it, from `copy` to `restored` [B,3,h,w].

    A guided filter finds, for each channel and place of the copy, a factor and an offset; both are enlarged (the fast
    guided filter, He, Sun 2015), so that edges and texture are the image's own. This suits networks that apply smooth
    maps. Returns [B,3,H,W], not clipped.
    """
    followed = torch.empty_like(image)
    for channel in range(3):  # one at a time: all maps at the size of a large photograph would fill the memory
        at = (slice(None), slice(channel, channel + 1))
        factor, offset = (
            F.interpolate(map_, size=image.shape[-2:], mode="bilinear", align_corners=False)
            for map_ in guided_coefficients(copy[at], restored[at], COPY_RADIUS, COPY_EPSILON)
        )
        followed[at] = torch.addcmul(offset, image[at], factor)
    return followed
