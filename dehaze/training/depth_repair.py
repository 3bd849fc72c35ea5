"""Repair an estimated depth by the classes of a segmentation (ours).

Single-image depth errs in kinds: a bright wall or snow becomes sky, a sky gets a finite depth, and a tree or a house
leans back, so that haze grows along its height. A class says what is sky and what stands upright.
"""

import torch
from torch import Tensor

from dehaze.filters.guided import guided_coefficients
from dehaze.haze.sky import sky_colour

SKY = 10  # indices of the Cityscapes classes
UPRIGHT = (2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18)  # buildings, plants, poles, people, vehicles
FOOT_ROWS = 3  # px: the foot of an upright thing is as many rows at its lower end
MIN_SKY_DEPTH = 0.4  # in [0,1], where 1 is far; nearer, a bright thing is taken for sky
AT_INFINITY = 1 - 1.5 / 255  # of the depth in [0,1], where 1 is far
MAX_CHANGE = 0.15  # of the depth of an upright thing; where depth and class differ by more, one of them is wrong
SMOOTHING_RADIUS, SMOOTHING_EPSILON = 6, 1e-3  # px; of the guided filter that fits the repair to the photograph


def repair_depth(photo: Tensor, depth: Tensor, classes: Tensor) -> Tensor:
    """Repair `depth` [H,W] in [0,1], where 1 is far, of `photo` [3,H,W] in [0,1] by its `classes` [H,W], integers.

    What is sky by class, colour and depth is at infinity. What is at infinity by depth alone, upright by its class and
    no sky by its colour, takes the depth of its foot. So does anything else that is upright, where the two differ by
    at most `MAX_CHANGE`.
    """
    sky_coloured = sky_colour(photo)[0] > 0.5
    sky = (classes == SKY) & sky_coloured & (depth > MIN_SKY_DEPTH)
    upright = torch.isin(classes, torch.tensor(UPRIGHT)) & ~sky
    false_sky = (depth > AT_INFINITY) & upright & ~sky_coloured
    foot = _depth_of_foot(torch.where(false_sky, torch.nan, depth), classes, upright)
    known = upright & foot.isfinite() & (false_sky | ((foot - depth).abs() <= MAX_CHANGE))
    change = torch.where(known, foot - depth, 0.0)
    # Neighbouring columns have feet of different depths; the photograph says where the thing ends.
    guide = photo.mean(0)
    factor, offset = guided_coefficients(guide, change, SMOOTHING_RADIUS, SMOOTHING_EPSILON)
    smooth = torch.where(false_sky, change, factor * guide + offset)
    return torch.where(sky, 1.0, torch.where(upright, (depth + smooth).clamp(0, AT_INFINITY), depth))


def _depth_of_foot(depth: Tensor, classes: Tensor, upright: Tensor) -> Tensor:
    """Return for each upright place the median depth at the lower end of its column's run of one class.

    Depths that are NaN do not count. The result is NaN where nothing is upright, and where no depth counts.
    """
    foot = torch.full_like(depth, torch.nan)
    for row in reversed(range(depth.shape[0])):
        seen = depth[max(0, row - FOOT_ROWS + 1) : row + 1].nanmedian(0).values
        if row + 1 < depth.shape[0]:
            seen = torch.where((classes[row] == classes[row + 1]) & foot[row + 1].isfinite(), foot[row + 1], seen)
        foot[row] = torch.where(upright[row], seen, torch.nan)
    return foot
