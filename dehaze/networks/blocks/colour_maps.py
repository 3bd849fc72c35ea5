"""Maps of the colours: for every place, how a pixel of the hazy photograph becomes one of the restored.

Maps [B,25,h,w] hold K (3×3) and B (3) row by row for dark pixels, the same for bright ones, and the logit of the
density. They are applied as `J = I + K·(I − ½) − B`, where K and B are mixed by the pixel's dark channel g:
`K = (1 − g)·K_dark + g·K_bright`, a bilateral grid of two levels (after HDRNet, Gharbi 2017).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.networks.blocks.balance import LUMINANCE


def apply_maps(hazy: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Apply maps [B,25,h,w] of any resolution to `hazy` [B,3,H,W].

    Returns `I + K·(I − ½) − B`, not clipped, and the density 1 − t [B,1,H,W] in [0,1].
    """
    guide, centred = hazy.amin(1, keepdim=True), hazy - 0.5

    def at_full_size(map_: Tensor) -> Tensor:
        if map_.shape[-2:] == hazy.shape[-2:]:
            return map_
        return F.interpolate(map_, size=hazy.shape[-2:], mode="bilinear", align_corners=False)

    # Each map in one piece: cut out of channels_last, they take twice as long.
    *maps, density = maps.to(hazy.dtype).contiguous().split(1, 1)
    restored = []
    for row in range(3):
        channel = hazy[:, row : row + 1]
        # One map at a time: all of them at the size of a large photograph would fill the memory.
        for column, (dark, bright) in enumerate(zip(maps[4 * row :][:4], maps[12 + 4 * row :][:4], strict=True)):
            map_ = torch.lerp(at_full_size(dark), at_full_size(bright), guide)
            channel = channel - map_ if column == 3 else channel.addcmul(map_, centred[:, column : column + 1])
        restored.append(channel)
    return torch.cat(restored, 1), at_full_size(density).sigmoid()


def times(maps: Tensor, gains: Tensor) -> Tensor:
    """Return the maps whose result is that of `maps` [B,25,h,w] times `gains` [B,3]."""
    # Of g·(I + K·(I − ½) − B) = I + K'·(I − ½) − B', K' = gK + g − 1 and B' = gB − (g − 1)/2.
    gains = gains.to(maps.dtype)
    change = torch.cat([torch.diag_embed(gains - 1), (1 - gains).unsqueeze(-1) / 2], -1).flatten(1).repeat(1, 2)
    factors = gains.repeat_interleave(4, 1).repeat(1, 2)
    affine, density = maps.split((24, 1), 1)
    return torch.cat([torch.addcmul(change[..., None, None], affine, factors[..., None, None]), density], 1)


def luminance_maps(affine: Tensor) -> Tensor:
    """Return the K and B [B,24,h,w] that change every channel by what `affine`, of the same shape, do to luminance."""
    rows = affine.unflatten(1, (2, 3, 4))
    red, green, blue = (rows[:, :, row] * weight for row, weight in enumerate(LUMINANCE))
    return (red + green + blue).unsqueeze(2).expand_as(rows).flatten(1, 3)


def detail_maps(smooth: Tensor, scene: Tensor, luminance_gain: Tensor, colour_gain: Tensor) -> Tensor:
    """Return the K and B [B,24,h,w] that make `smooth` [B,3,h,w] the `scene` [B,3,h,w], and amplify the detail.

    What a pixel differs by from `smooth`, its result differs by from `scene`, times the gains [B,1,h,w] of its
    luminance and of its colour.
    """
    # Of S + M·(I − S) with M = c·1 + (l − c)·(weights of luminance in every row), the rows of M add up to l.
    apart = luminance_gain - colour_gain
    red, green, blue = smooth.split(1, 1)
    grey = red * LUMINANCE[0] + green * LUMINANCE[1] + blue * LUMINANCE[2]
    offset = colour_gain * smooth + apart * grey - scene - (luminance_gain - 1) / 2
    rows = []
    for row in range(3):
        rows += [apart * weight + (colour_gain - 1) * (row == column) for column, weight in enumerate(LUMINANCE)]
        rows.append(offset[:, row : row + 1])
    return torch.cat(rows, 1).repeat(1, 2, 1, 1)
