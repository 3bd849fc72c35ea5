"""Where an image is even, as skies, fog and water are, and shows whatever a network wavers in."""

from torch import Tensor
from torch.nn import functional as F

MAPS = (3, 0.006, 0.014)  # what `evenness` takes for an image of the size of the maps
FINE, COARSE = 2, 16  # px of the maps: cells of the close and of the wide average


def _mean(x: Tensor, radius: int) -> Tensor:
    # `box_filter` takes float64, which not every device has.
    return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def evenness(image: Tensor, near: int, even: float, uneven: float) -> Tensor:
    """Return where `image` [B,3,H,W] in [0,1] is even: [B,1,H,W], 1 where it is, 0 where there is something to see.

    It falls from 1 to 0 while the standard deviation within `near` px rises from `even` to `uneven`, in the channel
    where that is highest.
    """
    variance = _mean(image.square(), near) - _mean(image, near).square()
    deviation = variance.clamp_min(0).sqrt().amax(1, keepdim=True)
    deviation = F.max_pool2d(deviation, 2 * (near // 3) + 1, stride=1, padding=near // 3)
    return _mean(((uneven - deviation) / (uneven - even)).clamp(0, 1), near // 2)


def evened(maps: Tensor, even: Tensor) -> Tensor:
    """Take out of maps [B,C,h,w] what wavers from place to place where the image is `even` [B,1,h,w] in [0,1].

    There an average over what is even nearby takes the place of a closer one; the finest detail is kept. Averages are
    weighted by evenness (normalised convolution, Knutsson and Westin 1993).
    """

    def average(cell: int) -> Tensor:
        cells = [-(-length // cell) for length in even.shape[-2:]]
        weighted, weight = (_mean(F.adaptive_avg_pool2d(x, cells), 1) for x in (maps * even, even))
        return F.interpolate(weighted / (weight + 1e-4), size=even.shape[-2:], mode="bilinear", align_corners=False)

    return maps + even * (average(COARSE) - average(FINE))
