"""Maps of the colours: for every place, how a pixel of the hazy photograph becomes one of the restored.

Maps [B,25,h,w] hold K (3×3) and B (3) row by row for dark pixels, the same for bright ones, and the logit of the
density. They are applied as `J = I + K·(I − ½) − B`, where K and B are mixed by the pixel's dark channel g:
`K = (1 − g)·K_dark + g·K_bright`, a bilateral grid of two levels (after HDRNet, Gharbi 2017). A 26th map, where there
is one, holds by how much `I` is sharpened before, against its mean in cells of the size of a pixel of the maps.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import LUMINANCE, luminance

DARKER = 0.3  # the share of sharpening for what is darker than its surroundings, so that no dark rims are drawn


def apply_maps(hazy: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Apply maps [B,25,h,w], or [B,26,h,w], of any resolution to `hazy` [B,3,H,W].

    Returns `I + K·(I − ½) − B`, not clipped, and the density 1 − t [B,1,H,W] in [0,1].
    """
    rows, (height, width) = maps.shape[-2], hazy.shape[-2:]
    # Maps are brought up along the rows and then along the columns, few at a time and some of the rows: all at once
    # would fill memory and caches. And each in one piece: cut out of channels_last, they take twice as long.
    maps = maps.to(hazy.dtype).contiguous().split(1, 1)
    maps, (density, *amount) = maps[:24], maps[24:]
    wide = partial(_wide, width=width)
    density = wide(density)
    sharpness = []
    if amount and amount[0].any():
        sharpness = [wide(luminance(F.adaptive_avg_pool2d(hazy, amount[0].shape[-2:]))), wide(*amount)]
    restored, density_there = torch.empty_like(hazy), torch.empty_like(hazy[:, :1])
    for row in range(3):
        dark, bright = ([wide(map_) for map_ in maps[first + 4 * row :][:4]] for first in (0, 12))
        for some, brought_up in _rows(rows, height, hazy):
            pixels = hazy[:, :, some]
            if sharpness:  # anew for every channel, which costs less than another image of the size of the photograph
                pixels = sharpened(pixels, *map(brought_up, sharpness))
            guide, centred, channel = pixels.amin(1, keepdim=True), pixels - 0.5, pixels[:, row : row + 1]
            for column, pair in enumerate(zip(dark, bright, strict=True)):
                map_ = torch.lerp(*map(brought_up, pair), guide)
                channel = channel - map_ if column == 3 else channel.addcmul(map_, centred[:, column : column + 1])
            restored[:, row : row + 1, some] = channel
    for some, brought_up in _rows(rows, height, hazy):
        density_there[:, :, some] = brought_up(density).sigmoid()
    return restored, density_there


def sharpened(pixels: Tensor, mean: Tensor, amount: Tensor) -> Tensor:
    """Return `pixels` [B,3,H,W] sharpened in luminance, by an unsharp mask.

    What they differ by from the `mean` luminance about them [B,1,H,W] is added as many times as the `amount` [B,1,H,W]
    says, and `DARKER` as many where they are darker.
    """
    detail = luminance(pixels) - mean
    return pixels + amount * torch.where(detail < 0, DARKER * detail, detail)


def _wide(map_: Tensor, width: int) -> Tensor:
    """Bring a map [B,C,h,w] up to [B,C,h,width] bilinearly."""
    if map_.shape[-1] == width:
        return map_
    return F.interpolate(map_, (map_.shape[-2], width), mode="bilinear", align_corners=False)


def _rows(few: int, many: int, like: Tensor) -> Iterator[tuple[slice, Callable[[Tensor], Tensor]]]:
    """Yield some of `many` rows at a time, and what brings a map [B,1,few,W] up to them bilinearly."""
    if few == many:
        yield slice(None), lambda map_: map_
        return
    at = ((torch.arange(many, device=like.device) + 0.5) * (few / many) - 0.5).clamp_(0, few - 1)
    above = at.long()
    below, share = (above + 1).clamp_max(few - 1), (at - above).to(like.dtype)[:, None]
    count = max(few, 64)
    for first in range(0, many, count):
        some = slice(first, first + count)
        yield some, partial(_between_rows, above=above[some], below=below[some], share=share[some])


def _between_rows(map_: Tensor, above: Tensor, below: Tensor, share: Tensor) -> Tensor:
    return map_.index_select(2, above).lerp_(map_.index_select(2, below), share)


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


def detail_maps(smooth: Tensor, scene: Tensor, gain: Tensor) -> Tensor:
    """Return the K and B [B,24,h,w] that make `smooth` [B,3,h,w] the `scene` [B,3,h,w], and amplify the detail.

    What a pixel differs by from `smooth`, its result differs by from `scene`, its luminance times `gain` [B,1,h,w].
    """
    # Of S + M·(I − S) with M = 1 + (g − 1)·(weights of luminance in every row), the rows of M add up to g.
    more = gain - 1
    offset = smooth + more * (luminance(smooth) - 0.5) - scene
    rows = [torch.cat([more * weight for weight in LUMINANCE] + [channel], 1) for channel in offset.split(1, 1)]
    return torch.cat(rows, 1).repeat(1, 2, 1, 1)
