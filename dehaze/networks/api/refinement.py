"""Post-processing of the predicted maps: strengthen where haze is left, keep shadows, smooth skies, balance (all ours).

A network that learned from rendered haze leaves dense real haze, makes shadows black, and wavers over skies and fog.
All of this shows in a copy of the photograph at the maps' resolution; pixels here are the copy's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import balance, ramp
from dehaze.filters.flatness import (
    flat_cell_mean,
    flat_mean,
    flatness,
    grow_flat_regions,
    local_deviation,
    local_maximum,
    local_mean,
    raise_to_typical,
)
from dehaze.networks.api.colour_maps import ColourMaps, apply_maps, detail_maps, in_luminance, multiply_result

# Pairs are ramps: no effect at one end, the full effect at the other. Deviations are of values in [0,1].

# Local deviation below which a region counts as flat, and above which as textured: for smoothing, for strengthening.
FLATNESS_RADIUS = 3  # px
SMOOTHED_DEVIATION, UNSTRENGTHENED_DEVIATION = (0.005, 0.010), (0.008, 0.018)
TYPICAL_DEVIATION = 0.018  # mean of a photograph without dense haze
NOISE_VARIANCE_FACTOR = 1.5  # on the variance that white noise leaves in the copy: noise of photographs is correlated
GROWTH_RADIUS, GROWTH_DIFFERENCE = 6, (0.015, 0.035)  # px; difference of a channel from the flat region's mean
FLAT_MEAN_RADIUS, FLAT_CELL_SIZE = 4, 8  # px: of the image and of the maps in flat regions
MAX_DETAIL_GAIN = 4.0  # on luminance in flat regions; detail of colour is mostly noise and stays

QUANTISATION_DEVIATION = 0.0013  # of detail that is half structure, half rounding to 8 bits
NOISE_SHARE = 0.3  # of the variance within a pixel of the copy
# Haze also blurs, so structure is sharpened: by density, by mean density, and less for strong edges.
MAX_SHARPENING = 1.2
SHARPENING_HALF_DEVIATION = 0.04  # at which half as much is sharpened
SHARPENING_DENSITY, SHARPENING_MEAN_DENSITY = (0.0, 0.5), (0.4, 0.5)

DARK_RADIUS, REMOVAL_BLUR_RADIUS = 1, 3  # px
SHADOW_FLOOR = 0.03  # display value that the brightest channel of the darkest pixel nearby is to have
MIN_REMOVAL_CHANGE, MAX_REMOVAL_CHANGE = -0.4, 1.0  # shares of what the maps remove
STRENGTHENING_DENSITY, STRENGTHENING_MEAN_DENSITY = (0.42, 0.70), (0.49, 0.55)


def darkest(image: Tensor) -> Tensor:
    """Return the minimum of the brightest channel of `image` [B,3,H,W] within `DARK_RADIUS` px, [B,1,H,W]."""
    return -local_maximum(-image.amax(1, keepdim=True), DARK_RADIUS)


def removal_change(hazy: Tensor, restored: Tensor) -> Tensor:
    """Return the share by which to remove more haze, so that the darkest pixel nearby reaches `SHADOW_FLOOR`.

    `hazy` and `restored` [B,3,H,W]; the result [B,1,H,W] lies between `MIN_REMOVAL_CHANGE` and `MAX_REMOVAL_CHANGE`,
    and is 0 where nothing was removed. After the dark channel prior (He 2009).
    """
    before = darkest(hazy)
    removed = before - darkest(restored)
    share = ((before - SHADOW_FLOOR) / removed.clamp_min(0.02)).clamp(1 + MIN_REMOVAL_CHANGE, 1 + MAX_REMOVAL_CHANGE)
    return local_mean((share - 1) * (removed >= 0.02), REMOVAL_BLUR_RADIUS)


def refine(hazy: Tensor, maps: ColourMaps) -> ColourMaps:
    """Post-process the maps of the photograph `hazy` [B,3,H,W] in [0,1], of the maps' size or larger.

    Strengthens them in luminance where dense haze is left over texture, so that tints do not grow; weakens them where
    shadows would be black; smooths them over flat regions and amplifies structure there as much as haze of that density
    weakened it, up to a limit; sharpens structure elsewhere; balances colour and brightness of the whole.
    """
    pixels = hazy.shape[-2:].numel() / maps.density_logit.shape[-2:].numel()  # of the photograph, in one of the copy
    height, width = maps.density_logit.shape[-2:]
    hazy, squares = (F.adaptive_avg_pool2d(image, (height, width)) for image in (hazy.float(), hazy.float().square()))
    variance = (squares - hazy.square()).clamp_min(0)  # within a pixel of the copy
    maps = ColourMaps(*(field.float().contiguous() for field in maps))
    density = maps.density_logit.sigmoid()
    mean_density = density.mean((1, 2, 3), keepdim=True)
    deviation = local_deviation(hazy, FLATNESS_RADIUS, NOISE_VARIANCE_FACTOR * variance / pixels)
    comparable = raise_to_typical(deviation, TYPICAL_DEVIATION)
    flat = flatness(comparable, FLATNESS_RADIUS, *SMOOTHED_DEVIATION)
    flat = local_mean(grow_flat_regions(hazy, flat, GROWTH_RADIUS, *GROWTH_DIFFERENCE), 1)
    textured = 1 - torch.maximum(flat, flatness(comparable, FLATNESS_RADIUS, *UNSTRENGTHENED_DEVIATION))

    change = removal_change(hazy, apply_maps(hazy, maps)[0])
    dense = ramp(density, STRENGTHENING_DENSITY) * ramp(mean_density, STRENGTHENING_MEAN_DENSITY) * textured
    weaker, stronger = 1 + change.clamp_max(0), change.clamp_min(0) * dense
    maps = maps.map_colours(lambda field: field * weaker + stronger * in_luminance(field))

    # Noise deviates within a pixel of the copy, JPEG's steps from one pixel to the next, structure in both ways.
    within = local_mean(variance.amax(1, keepdim=True), 1)
    structure = deviation.square().minimum(within)
    structure = structure / (structure + QUANTISATION_DEVIATION**2 + NOISE_SHARE * within)
    blurred = ramp(density, SHARPENING_DENSITY) * ramp(mean_density, SHARPENING_MEAN_DENSITY)
    blurred = blurred / (1 + (deviation / SHARPENING_HALF_DEVIATION) ** 2)
    sharpening = MAX_SHARPENING * blurred * structure * (1 - flat)

    smooth = flat_mean(torch.cat([hazy, density, structure], 1), flat, FLAT_MEAN_RADIUS, times=2)
    smooth, smooth_density, structure = smooth.split((3, 1, 1), 1)
    wide = flat_cell_mean(torch.cat(maps[:4], 1), flat, FLAT_CELL_SIZE)
    scene, _ = apply_maps(smooth, ColourMaps._make((*wide.split((9, 3, 9, 3), 1), *maps[4:])))
    gain = 1 + structure * (1 / (1 - smooth_density).clamp_min(1 / MAX_DETAIL_GAIN) - 1)
    matrix, offset = detail_maps(smooth, scene, gain)
    maps = maps.map_colours(lambda field: torch.lerp(field, matrix if field.shape[1] == 9 else offset, flat))
    maps = multiply_result(maps, balance(hazy, *apply_maps(hazy, maps)))
    return maps._replace(sharpening=sharpening)
