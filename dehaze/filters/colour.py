"""Colour: luminance, and the balance of colour and brightness that a restored photograph needs as a whole (ours).

A network cannot tell grey walls in yellow smog from yellow walls in grey fog, nor a dim scene in bright haze from a
bright one.
"""

from torch import Tensor
from torch.nn import functional as F

LUMINANCE_WEIGHTS = (0.299, 0.587, 0.114)  # Rec. 601

# Pairs are ramps: no effect at the first value, the full effect from the second on.
HAZY_MEAN_DENSITY = (0.20, 0.40)  # at which a photograph counts as hazy
DENSE_MEAN_DENSITY = (0.50, 0.62)  # at which no sky is seen, so that blue is a cast
COLOURED_CHROMA = (0.05, 0.10)  # length of the airlight's logarithmic chroma, without its blue
MIN_MEAN = 0.36  # display value that a result's mean is lifted to at most
MIN_MEAN_SHARE = (0.6, 0.8)  # of the hazy photograph's mean that the result's is to have: in thin haze, in dense haze
MAX_LIFT = 2.0  # gain
SKY_DIRECTION = (-(0.5**0.5), 0.0, 0.5**0.5)  # of chroma in which daylight turns blue, of length 1


def ramp(x: Tensor, span: tuple[float, float]) -> Tensor:
    """Return 0 up to the first value of the span, 1 from the second on, and linear values between them."""
    return ((x - span[0]) / (span[1] - span[0])).clamp(0, 1)


def _chroma(colour: Tensor) -> Tensor:
    """Return the logarithms of the channels [B,3] less their mean."""
    logarithm = colour.clamp_min(1e-3).log()
    return logarithm - logarithm.mean(1, keepdim=True)


def _along(direction: Tensor, colour: Tensor) -> Tensor:
    """Return how far `colour` [B,3] goes in a `direction`, and 0 where it goes the other way."""
    return (colour * direction).sum(1, keepdim=True).clamp_min(0)


def luminance(colour: Tensor) -> Tensor:
    """Return the luminance [B,1,...] of colours [B,3,...]."""
    red, green, blue = (channel * weight for channel, weight in zip(colour.split(1, 1), LUMINANCE_WEIGHTS, strict=True))
    return red + green + blue


def _mean(image: Tensor, weight: Tensor) -> Tensor:
    return (image * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)


def balance(hazy: Tensor, restored: Tensor, density: Tensor) -> Tensor:
    """Return gains [B,3] that take the haze's colour out of `restored` and lift it where it is too dark.

    `hazy` and `restored` [B,3,H,W] and `density` 1 − t [B,1,H,W] in [0,1]; small copies will do. Where the airlight is
    coloured, the gains divide its colour out of the scene's mean (after von Kries and the grey world). A blue airlight
    does not count, since the sky is blue, unless the haze is so dense that no sky is seen. Without haze, gains are 1.
    """
    hazy, restored, density = hazy.float(), restored.float().clamp(0, 1), density.float()
    sky = hazy.new_tensor(SKY_DIRECTION)
    amount = density.mean((1, 2, 3))[:, None]
    dense = ramp(amount, DENSE_MEAN_DENSITY)
    added = (hazy - (1 - density) * restored) / density.clamp_min(0.05)  # A in I = J·t + A·(1 − t)
    airlight, scene = _mean(added, density**2), _mean(restored, density**2)

    colour = _chroma(airlight)
    but_blue = colour - _along(sky, colour) * sky
    cast = ramp(but_blue.norm(dim=1, keepdim=True), COLOURED_CHROMA) * ramp(amount, HAZY_MEAN_DENSITY)
    direction = F.normalize(colour, dim=1)
    tint = -cast * _along(direction, _chroma(scene)) * direction
    tint = tint - dense * _along(sky, _chroma(scene) + tint) * sky
    gains = tint.exp()
    gains = gains * (luminance(scene) + 1e-3) / (luminance(scene * gains) + 1e-3)

    before, after = (luminance(image.mean((2, 3))) for image in (hazy, restored))
    least, most = MIN_MEAN_SHARE
    wanted = ((least + (most - least) * dense) * before).clamp_max(MIN_MEAN) / after.clamp_min(1e-3)
    return gains * wanted.clamp(1, MAX_LIFT) ** ramp(amount, HAZY_MEAN_DENSITY)
