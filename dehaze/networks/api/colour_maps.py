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

from dehaze.adjust import Change

STRIP_ROWS = 64  # px; some MB of a large photograph


class ColourMaps(NamedTuple):
    """The maps of a photograph, of any resolution h×w; matrices go row by row."""

    dark_matrix: Tensor  # K for dark pixels [B,9,h,w]
    dark_offset: Tensor  # B for dark pixels [B,3,h,w]
    bright_matrix: Tensor
    bright_offset: Tensor
    density_logit: Tensor  # of the density 1 − t [B,1,h,w]

    @classmethod
    def from_channels(cls, affine: Tensor, density_logit: Tensor) -> "ColourMaps":
        """Name the channels of a network's head [B,24,h,w]: rows of K and B in turn, for dark, then bright pixels."""
        dark, bright = affine.unflatten(1, (2, 3, 4)).unbind(1)
        parts = (part for rows in (dark, bright) for part in (rows[:, :, :3].flatten(1, 2), rows[:, :, 3]))
        return cls._make((*parts, density_logit))

    def map_colours(self, change: Callable[[Tensor], Tensor]) -> "ColourMaps":
        """Apply `change` to every matrix [B,9,h,w] and offset [B,3,h,w]."""
        return self._make((*map(change, self[:4]), *self[4:]))


def apply_maps(hazy: Tensor, maps: ColourMaps) -> tuple[Tensor, Tensor]:
    """Apply maps of any resolution to `hazy` [B,3,H,W].

    Returns `I + K·(I − ½) − B`, not clipped, and the density 1 − t [B,1,H,W] in [0,1].
    """
    # A strip of rows at a time, with the rows of the maps that it needs: all at once would fill memory and caches. Each
    # channel is contiguous: cut out of channels_last, it takes twice as long.
    maps = ColourMaps(*(field.to(hazy.dtype).contiguous() for field in maps))
    rows = maps.density_logit.shape[-2]
    restored, density = torch.empty_like(hazy), torch.empty_like(hazy[:, :1])
    for strip, enlarge in _strips(rows, hazy):
        pixels = hazy[:, :, strip]
        guide, centred = pixels.amin(1, keepdim=True), pixels - 0.5
        for channel in range(3):
            dark = _row(maps.dark_matrix, maps.dark_offset, channel)
            bright = _row(maps.bright_matrix, maps.bright_offset, channel)
            result = pixels[:, channel : channel + 1]
            for column, (of_dark, of_bright) in enumerate(zip(dark, bright, strict=True)):
                map_ = torch.lerp(enlarge(of_dark), enlarge(of_bright), guide)
                # The last column is the offset.
                result = result - map_ if column == 3 else result.addcmul(map_, centred[:, column : column + 1])
            restored[:, channel : channel + 1, strip] = result
        density[:, :, strip] = enlarge(maps.density_logit).sigmoid()
    return restored, density


def _row(matrix: Tensor, offset: Tensor, row: int) -> tuple[Tensor, ...]:
    """Return the three factors of one row of the matrix and its offset, each [B,1,h,w]."""
    return (*matrix.split(1, 1)[3 * row : 3 * row + 3], offset.split(1, 1)[row])


def _strips(rows: int, like: Tensor) -> Iterator[tuple[slice, Callable[[Tensor], Tensor]]]:
    """Yield strips of the rows of `like`, and the function that enlarges a map [B,1,rows,w] to each bilinearly."""
    height, width = like.shape[-2:]
    if rows == height:
        yield slice(None), partial(_enlarge_width, width=width)
        return
    place = ((torch.arange(height) + 0.5) * (rows / height) - 0.5).clamp_(0, rows - 1)
    above = place.long()
    below, share = (above + 1).clamp_max(rows - 1), place - above
    for first in range(0, height, STRIP_ROWS):
        strip = slice(first, first + STRIP_ROWS)
        needed = slice(int(above[strip][0]), int(below[strip][-1]) + 1)
        indices = ((index[strip] - needed.start).to(like.device) for index in (above, below))
        yield strip, partial(_enlarge, needed, width, *indices, share[strip, None].to(like))


def _enlarge(needed: slice, width: int, above: Tensor, below: Tensor, share: Tensor, map_: Tensor) -> Tensor:
    wide = _enlarge_width(map_[:, :, needed], width)
    return wide.index_select(2, above).lerp_(wide.index_select(2, below), share)


def _enlarge_width(map_: Tensor, width: int) -> Tensor:
    """Enlarge a map [B,C,h,w] to [B,C,h,width] bilinearly."""
    if map_.shape[-1] == width:
        return map_
    return F.interpolate(map_, (map_.shape[-2], width), mode="bilinear", align_corners=False)


def change_maps(maps: ColourMaps, change: Change) -> ColourMaps:
    """Return the maps whose result J is changed, `gains·(I + share·(J − I) + offset)`; the curve is the caller's."""
    # g·(I + s·(K·(I − ½) − B) + o) = I + K'·(I − ½) − B' with K' = g·s·K + g − 1 and B' = g·(s·B − o) − (g − 1)/2.
    gains = change.gains[..., None, None]
    row_gains, matrix_change = gains.repeat_interleave(3, 1), torch.diag_embed(change.gains - 1).flatten(1)

    def changed(field: Tensor) -> Tensor:
        field = change.share * field.to(change.share.dtype)
        if field.shape[1] == 9:
            return torch.addcmul(matrix_change[..., None, None], row_gains, field)
        return torch.addcmul((1 - gains) / 2, gains, field - change.offset)

    return maps.map_colours(changed)
