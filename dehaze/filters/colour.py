"""What haze hides of a scene as a whole, its colour and how bright it is, set to what scenes are like (all ours).

A network sees no difference between grey walls in yellow smog and yellow walls in grey fog, nor between a dim scene in
bright haze and a bright one. From place to place it can go by what is near; on the whole it has to be told.
"""

from torch import Tensor
from torch.nn import functional as F

# Mean densities from which on, and from which fully, a photograph counts as hazy, and as so dense that blue is not the
# sky's; chroma of the airlight (length of the logarithms of its channels less their mean) likewise, but for its blue.
HAZY, DENSE, COLOURED = (0.20, 0.40), (0.50, 0.62), (0.05, 0.10)
# The mean of a result is not to be less than this, or this share of the photograph's mean, rising to the second where
# haze is dense all over; nor is it lifted more.
DARKEST, DARKEST_SHARE, MOST = 0.36, (0.6, 0.8), 2.0
LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601
SKY = (-(0.5**0.5), 0.0, 0.5**0.5)  # the direction in which daylight turns blue, of length 1


def ramp(x: Tensor, span: tuple[float, float]) -> Tensor:
    """Return 0 up to the first value of the span, 1 from the second on, and evenly between them."""
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
    red, green, blue = (channel * weight for channel, weight in zip(colour.split(1, 1), LUMINANCE, strict=True))
    return red + green + blue


def _mean(image: Tensor, weight: Tensor) -> Tensor:
    return (image * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)


def balance(hazy: Tensor, restored: Tensor, density: Tensor) -> Tensor:
    """Return gains [B,3] for the channels of `restored` that take the haze's colour out and lift what is too dark.

    `hazy` and `restored` [B,3,H,W] and `density` 1 − t [B,1,H,W] in [0,1]; small copies will do. The airlight is what
    the haze adds to the scene. Where it is coloured, what the scene on the mean still has of its colour is divided out
    (after von Kries and the grey world). An airlight that is merely blue does not count, for the sky is blue; but where
    haze is dense all over no sky is seen, and what makes the scene blue on the mean is divided out, whatever the
    airlight. Where there is little haze, the gains are 1.
    """
    hazy, restored, density = hazy.float(), restored.float().clamp(0, 1), density.float()
    sky = hazy.new_tensor(SKY)
    amount = density.mean((1, 2, 3))[:, None]
    dense = ramp(amount, DENSE)
    added = (hazy - (1 - density) * restored) / density.clamp_min(0.05)  # A in I = J·t + A·(1 − t)
    airlight, scene = _mean(added, density**2), _mean(restored, density**2)

    colour = _chroma(airlight)
    but_blue = colour - _along(sky, colour) * sky
    cast = ramp(but_blue.norm(dim=1, keepdim=True), COLOURED) * ramp(amount, HAZY)
    direction = F.normalize(colour, dim=1)
    tint = -cast * _along(direction, _chroma(scene)) * direction
    tint = tint - dense * _along(sky, _chroma(scene) + tint) * sky
    gains = tint.exp()
    gains = gains * (luminance(scene) + 1e-3) / (luminance(scene * gains) + 1e-3)

    before, after = (luminance(image.mean((2, 3))) for image in (hazy, restored))
    least, most = DARKEST_SHARE
    wanted = ((least + (most - least) * dense) * before).clamp_max(DARKEST) / after.clamp_min(1e-3)
    return gains * wanted.clamp(1, MOST) ** ramp(amount, HAZY)
