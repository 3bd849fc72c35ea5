"""Adjust a restored photograph as its owner likes it (all ours).

Every adjustment is found on small copies of the photograph and of its restoration, and is then applied at full size:
either to the maps of a network that predicts maps, or to the restored pixels.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import luminance
from dehaze.filters.flatness import flat_cell_mean, local_deviation, local_maximum, local_mean

LOOKS = ("photo", "faithful")
MIN_STRENGTH, MAX_STRENGTH = -1.0, 1.5
COPY_PIXELS, COPY_SHARE = 150_000, 1 / 16  # of the copies that a change is found on: at most, and of the photograph

FLAT_RADIUS = 3  # px of the copy, within which a region is flat or not
FLAT_DEVIATION = 0.006  # local deviation in [0,1] up to which a region is flat; from twice as much on it is textured
SHADOW_FLOOR = 0.03  # display value in [0,1] that the darkest pixel nearby keeps
MIN_SHADOW_SHARE = 0.6  # of the removal, which shadows do not weaken any further
CAST_QUANTILE = 0.1  # of the pixels may lie on the other side of grey afterwards
MAX_CAST = 0.5  # of the logarithmic chroma that is taken out


@dataclass(frozen=True)
class Adjustments:
    """What is done to a restored photograph, each from 0, nothing, to 1, in full.

    `skies` makes skies and fog as smooth as they were taken: where the photograph is flat, what the network changes
    wavers, and grain grows. `shadows` removes less haze where the darkest pixel would turn black. `colour` takes out
    the cast that coloured haze, such as dust, leaves on everything. `brightness` exposes the result as a camera would
    have exposed the clear view (`dehaze.tone`).
    """

    skies: float = 0.0
    shadows: float = 0.0
    colour: float = 0.0
    brightness: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            if not 0 <= (amount := getattr(self, field.name)) <= 1:
                raise ValueError(f"{field.name} is {amount}; it must lie between 0 (none) and 1 (in full)")


def check_strength(strength: float) -> None:
    """Raise ValueError for a strength beyond the limits."""
    if not MIN_STRENGTH <= strength <= MAX_STRENGTH:
        raise ValueError(
            f"strength is {strength}; it must lie between {MIN_STRENGTH:g} (more haze), 0 (the input), 1 (the full "
            f"restoration) and {MAX_STRENGTH:g}"
        )


def of_look(look: str, finish: Adjustments) -> Adjustments:
    """Return the adjustments of a look for a network whose own are `finish`.

    "faithful" shows the scene at the photograph's exposure, as pairs are scored; "photo" as a camera would have taken
    the clear view. Raises ValueError for another look.
    """
    if look not in LOOKS:
        raise ValueError(f"no look is called {look!r}; choose {' or '.join(LOOKS)}")
    return finish if look == "faithful" else replace(finish, brightness=1.0)


def adjust(
    hazy: Tensor, restored: Tensor, density: Tensor | None, adjustments: Adjustments, strength: float = 1.0
) -> Tensor:
    """Adjust the full restoration `restored` [B,3,H,W] of `hazy` [B,3,H,W] in [0,1]; return it clipped to [0,1].

    `density` 1 − t [B,1,h,w] in [0,1], of any size, is None where it is unknown; `strength` lies in [−1, 1.5].
    """
    if strength == 1 and adjustments == Adjustments():
        return restored.clamp(0, 1)
    pixels = hazy.shape[-2:].numel()
    scale = min(COPY_SHARE, COPY_PIXELS / pixels) ** 0.5
    size = [max(1, round(length * scale)) for length in hazy.shape[-2:]]
    hazy_copy, restored_copy = (F.interpolate(image, size=size, mode="area") for image in (hazy, restored))
    density = None if density is None else F.interpolate(density, size=size, mode="area")
    change = find_change(hazy_copy, restored_copy, density, adjustments, strength)
    return finish(apply_change(hazy, restored, change), change.curve)


class Change(NamedTuple):
    """How a restored image J of a hazy image I is changed: `gains·(I + share·(J − I) + offset)`, then the curve."""

    share: Tensor  # [B,1,h,w]
    offset: Tensor  # [B,3,h,w]
    gains: Tensor  # [B,3]
    curve: Tensor | None  # [B,K]; None leaves the brightness alone


def find_change(
    hazy: Tensor, restored: Tensor, density: Tensor | None, adjustments: Adjustments, strength: float = 1.0
) -> Change:
    """Find the change that the adjustments and a strength in [−1, 1.5] make.

    `hazy`, `restored` [B,3,h,w] and `density` 1 − t [B,1,h,w] in [0,1] are small copies, a quarter of the photograph's
    size or less.
    """
    share = torch.full_like(hazy[:, :1], strength) if strength >= 0 else -added_share(hazy, density, -strength)
    if adjustments.shadows:
        share = torch.lerp(share, share.minimum(shadow_share(hazy, restored)), adjustments.shadows)
    offset = torch.zeros_like(hazy)
    if adjustments.skies:
        flat = adjustments.skies * flatness(hazy)
        offset = flat * flat_cell_mean(share * (restored - hazy), flat, 2 * FLAT_RADIUS + 2)
        share = share * (1 - flat)
    result = (hazy + share * (restored - hazy) + offset).clamp(0, 1)
    gains, amount = torch.ones_like(hazy[:, :, 0, 0]), min(max(strength, 0.0), 1.0)
    if adjustments.colour * amount and density is not None:
        gains = cast_gains(hazy, result, density) ** (adjustments.colour * amount)
        result = (gains[..., None, None] * result).clamp(0, 1)
    curve = None
    if adjustments.brightness * amount:
        from dehaze.tone import load_tone_head  # a network; networks name adjustments

        curve = load_tone_head().to(hazy.device)(hazy, result, density)
        straight = torch.linspace(0, 1, curve.shape[1], device=curve.device)
        curve = torch.lerp(straight.expand_as(curve), curve, adjustments.brightness * amount)
    return Change(share, offset, gains, curve)


def added_share(hazy: Tensor, density: Tensor | None, strength: float) -> Tensor:
    """Return the share of the removal I − J that adds haze of the same kind to I: [B,1,h,w].

    With I = J·t + A·(1 − t), the image behind 1 + `strength` times the haze is I + s·(I − J) with
    s = t·(1 − t^strength) / (1 − t). Without a density, s is the strength.
    """
    if density is None:
        return torch.full_like(hazy[:, :1], strength)
    density = density.clamp(0.01, 0.99)
    return (1 - density) * (1 - (1 - density) ** strength) / density


def flatness(hazy: Tensor) -> Tensor:
    """Return how flat each place of `hazy` [B,3,h,w] is: [B,1,h,w] in [0,1]."""
    flat = (2 - local_deviation(hazy, FLAT_RADIUS) / FLAT_DEVIATION).clamp(0, 1)
    return local_mean(flat, FLAT_RADIUS // 2)


def shadow_share(hazy: Tensor, restored: Tensor) -> Tensor:
    """Return the share of the removal that leaves the darkest pixel nearby at `SHADOW_FLOOR` or above.

    `hazy` and `restored` [B,3,h,w]; the result [B,1,h,w] is at least `MIN_SHADOW_SHARE`. After the dark channel prior
    (He 2009).
    """
    before = _darkest(hazy)
    removed = (before - _darkest(restored)).clamp_min(1e-3)
    share = ((before - SHADOW_FLOOR) / removed).clamp(MIN_SHADOW_SHARE, MAX_STRENGTH)
    return local_mean(share, FLAT_RADIUS)


def _darkest(image: Tensor) -> Tensor:
    """Return the minimum within 1 px of the brightest channel of `image` [B,3,h,w]: [B,1,h,w]."""
    return -local_maximum(-image.amax(1, keepdim=True), 1)


def cast_gains(hazy: Tensor, restored: Tensor, density: Tensor) -> Tensor:
    """Return gains [B,3] that take the colour of the haze out of `restored` as far as all of it has that colour.

    A dust storm tints everything; a sunset or a face leaves something grey or blue in the picture. So what is taken out
    is the least tint, along the airlight's colour, of nine tenths of the pixels, and never more than the airlight's
    own. `hazy`, `restored` [B,3,h,w] and `density` [B,1,h,w] in [0,1].
    """
    added = (hazy - (1 - density) * restored) / density.clamp_min(0.05)  # A in I = J·t + A·(1 − t)
    weight = density.square()
    airlight = _chroma(((added * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)).clamp(0.02, 1))
    own = airlight.norm(dim=1, keepdim=True)
    direction = airlight / own.clamp_min(1e-6)
    tints = (_chroma(restored.clamp_min(0.02).flatten(2)) * direction[..., None]).sum(1)
    tint = tints.quantile(CAST_QUANTILE, dim=1, keepdim=True).clamp_min(0).minimum(own).clamp_max(MAX_CAST)
    gains = (-tint * direction).exp()
    before, after = (luminance(colour.mean((2, 3))) for colour in (restored, restored * gains[..., None, None]))
    return gains * before / after.clamp_min(1e-3)


def _chroma(colour: Tensor) -> Tensor:
    """Return the logarithms of the channels [B,3,...] less their mean."""
    logarithm = colour.log()
    return logarithm - logarithm.mean(1, keepdim=True)


def apply_change(hazy: Tensor, restored: Tensor, change: Change) -> Tensor:
    """Apply a change to a restored image [B,3,H,W] of the hazy image [B,3,H,W]; the curve is applied by `finish`."""
    share, offset = (
        F.interpolate(field, hazy.shape[-2:], mode="bilinear", align_corners=False)
        for field in (change.share, change.offset)
    )
    return change.gains[..., None, None] * torch.addcmul(hazy + offset, share, restored - hazy)


def finish(image: Tensor, curve: Tensor | None) -> Tensor:
    """Clip an image [B,3,H,W] to [0,1] in place, and apply the curve if there is one."""
    image = image.clamp_(0, 1)
    if curve is None:
        return image
    from dehaze.tone import apply_curve

    return apply_curve(image, curve)
