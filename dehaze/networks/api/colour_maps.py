"""Maps of the colours: for every place, how a pixel of the hazy photograph becomes one of the restored.

The result is `J = I + K·(I − ½) − B`. The pixel's dark channel g mixes the matrix K (3×3) and the offset B (3) for dark
and for bright pixels, `K = (1 − g)·K_dark + g·K_bright`: a bilateral grid of two levels (after HDRNet, Gharbi 2017).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import LUMINANCE_WEIGHTS, luminance

DARK_DETAIL_SHARE = 0.3  # of the sharpening, for pixels darker than their surroundings: no dark rims


class ColourMaps(NamedTuple):
    """The maps of a photograph, of any resolution h×w; matrices go row by row."""

    dark_matrix: Tensor  # K for dark pixels [B,9,h,w]
    dark_offset: Tensor  # B for dark pixels [B,3,h,w]
    bright_matrix: Tensor
    bright_offset: Tensor
    density_logit: Tensor  # of the density 1 − t [B,1,h,w]
    sharpening: Tensor  # gain of the unsharp mask before K and B apply [B,1,h,w]; 0: none

    @classmethod
    def from_channels(cls, affine: Tensor, density_logit: Tensor) -> "ColourMaps":
        """Name the channels of a network's head [B,24,h,w]: rows of K and B in turn, for dark, then bright pixels."""
        dark, bright = affine.unflatten(1, (2, 3, 4)).unbind(1)
        parts = (part for rows in (dark, bright) for part in (rows[:, :, :3].flatten(1, 2), rows[:, :, 3]))
        return cls._make((*parts, density_logit, torch.zeros_like(density_logit)))

    def map_colours(self, change: Callable[[Tensor], Tensor]) -> "ColourMaps":
        """Apply `change` to every matrix [B,9,h,w] and offset [B,3,h,w]."""
        return self._make((*map(change, self[:4]), *self[4:]))


def apply_maps(hazy: Tensor, maps: ColourMaps) -> tuple[Tensor, Tensor]:
    """Apply maps of any resolution to `hazy` [B,3,H,W].

    Returns `I + K·(I − ½) − B`, not clipped, and the density 1 − t [B,1,H,W] in [0,1].
    """
    rows, (height, width) = maps.density_logit.shape[-2], hazy.shape[-2:]
    # Maps are enlarged along the rows, then along the columns, few at a time and some of the rows: all at once would
    # fill memory and caches. Each channel is contiguous: cut out of channels_last, it takes twice as long.
    maps = ColourMaps(*(field.to(hazy.dtype).contiguous() for field in maps))
    enlarged = partial(_enlarge_width, width=width)
    density_logit = enlarged(maps.density_logit)
    sharpening = []
    if maps.sharpening.any():
        mean = luminance(F.adaptive_avg_pool2d(hazy, (rows, maps.sharpening.shape[-1])))
        sharpening = [enlarged(mean), enlarged(maps.sharpening)]
    restored, density = torch.empty_like(hazy), torch.empty_like(hazy[:, :1])
    for channel in range(3):
        dark = [enlarged(map_) for map_ in _row(maps.dark_matrix, maps.dark_offset, channel)]
        bright = [enlarged(map_) for map_ in _row(maps.bright_matrix, maps.bright_offset, channel)]
        for some, enlarge in _row_chunks(rows, height, hazy):
            pixels = hazy[:, :, some]
            if sharpening:  # again for every channel: cheaper than to keep another image of the photograph's size
                pixels = sharpen(pixels, *map(enlarge, sharpening))
            guide, centred, result = pixels.amin(1, keepdim=True), pixels - 0.5, pixels[:, channel : channel + 1]
            for column, (of_dark, of_bright) in enumerate(zip(dark, bright, strict=True)):
                map_ = torch.lerp(enlarge(of_dark), enlarge(of_bright), guide)
                # The last column is the offset.
                result = result - map_ if column == 3 else result.addcmul(map_, centred[:, column : column + 1])
            restored[:, channel : channel + 1, some] = result
    for some, enlarge in _row_chunks(rows, height, hazy):
        density[:, :, some] = enlarge(density_logit).sigmoid()
    return restored, density


def sharpen(pixels: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
    """Sharpen the luminance of `pixels` [B,3,H,W] by an unsharp mask.

    Their difference from the local `mean` luminance [B,1,H,W] is added `gain` [B,1,H,W] times; where they are darker,
    `DARK_DETAIL_SHARE` as often.
    """
    detail = luminance(pixels) - mean
    return pixels + gain * torch.where(detail < 0, DARK_DETAIL_SHARE * detail, detail)


def _row(matrix: Tensor, offset: Tensor, row: int) -> tuple[Tensor, ...]:
    """Return the three factors of one row of the matrix and its offset, each [B,1,h,w]."""
    return (*matrix.split(1, 1)[3 * row : 3 * row + 3], offset.split(1, 1)[row])


def _enlarge_width(map_: Tensor, width: int) -> Tensor:
    """Enlarge a map [B,C,h,w] to [B,C,h,width] bilinearly."""
    if map_.shape[-1] == width:
        return map_
    return F.interpolate(map_, (map_.shape[-2], width), mode="bilinear", align_corners=False)


def _row_chunks(rows: int, height: int, like: Tensor) -> Iterator[tuple[slice, Callable[[Tensor], Tensor]]]:
    """Yield slices of `height` rows, and the function that enlarges a map [B,1,rows,W] to each bilinearly."""
    if rows == height:
        yield slice(None), lambda map_: map_
        return
    place = ((torch.arange(height, device=like.device) + 0.5) * (rows / height) - 0.5).clamp_(0, rows - 1)
    above = place.long()
    below, share = (above + 1).clamp_max(rows - 1), (place - above).to(like.dtype)[:, None]
    count = max(rows, 64)
    for first in range(0, height, count):
        some = slice(first, first + count)
        yield some, partial(_between_rows, above=above[some], below=below[some], share=share[some])


def _between_rows(map_: Tensor, above: Tensor, below: Tensor, share: Tensor) -> Tensor:
    return map_.index_select(2, above).lerp_(map_.index_select(2, below), share)


def multiply_result(maps: ColourMaps, gains: Tensor) -> ColourMaps:
    """Return the maps whose result is that of `maps` times `gains` [B,3], one a channel."""
    # g·(I + K·(I − ½) − B) = I + K'·(I − ½) − B' with K' = gK + g − 1 and B' = gB − (g − 1)/2.
    gains = gains.to(maps.density_logit.dtype)
    matrix_change, offset_change = torch.diag_embed(gains - 1).flatten(1), (1 - gains) / 2

    def multiply(field: Tensor) -> Tensor:
        of_matrix = field.shape[1] == 9
        change, factor = (matrix_change, gains.repeat_interleave(3, 1)) if of_matrix else (offset_change, gains)
        return torch.addcmul(change[..., None, None], field, factor[..., None, None])

    return maps.map_colours(multiply)


def in_luminance(field: Tensor) -> Tensor:
    """Return the matrix [B,9,h,w] or offset [B,3,h,w] that changes every channel as the given one changes luminance."""
    rows = field.unflatten(1, (3, -1))
    red, green, blue = (rows[:, row] * weight for row, weight in enumerate(LUMINANCE_WEIGHTS))
    return (red + green + blue).unsqueeze(1).expand_as(rows).flatten(1, 2)


def detail_maps(smooth: Tensor, scene: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrix and offset that turn `smooth` [B,3,h,w] into `scene` [B,3,h,w] and amplify the detail.

    The difference of a pixel from `smooth` becomes its difference from `scene`, its luminance times `gain` [B,1,h,w].
    """
    # Of S + M·(I − S) with M = 1 + (g − 1)·(weights of luminance in every row), the rows of M add up to g.
    more = gain - 1
    matrix = torch.cat([more * weight for weight in LUMINANCE_WEIGHTS] * 3, 1)
    return matrix, smooth + more * (luminance(smooth) - 0.5) - scene
