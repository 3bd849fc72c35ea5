"""API: the density-aware haze removal network (arXiv 2601.01992).

The paper's idea is to treat regions of different haze density by the importance of their patches; every layer is ours.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.adjust import Adjustments
from dehaze.networks.api.colour_maps import ColourMaps, apply_maps, change_maps
from dehaze.networks.base import PredictsMaps, RoutesPatches, change_fields
from dehaze.networks.limits import Count, Width

PATCH_SIZE = 32  # px at full resolution


@dataclass(frozen=True)
class APIConfig:
    """Widths at 1/4, 1/8 and 1/16 of the resolution, residual blocks on the way down and up, and dense experts.

    `importance=False` is the plain backbone: every patch passes through the dense experts, with the same weight.
    With `two_sizes`, the maps of the colours are the mean of those at full and at half size.
    """

    widths: tuple[Width, Width, Width] = (64, 96, 112)
    down_blocks: tuple[Count, Count, Count] = (1, 2, 3)
    up_blocks: tuple[Count, Count] = (2, 2)
    experts: Count = 2
    heads: Annotated[int, Field(ge=1)] = 2
    importance: bool = True
    two_sizes: bool = True

    def __post_init__(self):
        if self.widths[0] % self.heads:
            raise ValueError(f"a width of {self.widths[0]} cannot be split into {self.heads} heads: give a multiple")


class Prediction(NamedTuple):
    """What the network predicts."""

    maps: ColourMaps  # at 1/4 of the resolution
    importance: Tensor | None  # of each patch [B,1,H/32,W/32] in (0,1); None in the plain backbone


class ResidualBlock(nn.Module):
    """Add two 3×3 convolutions, gated per channel by the mean of their output, to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        # The mean in two steps: in one, torch copies bfloat16 to float32 first.
        return torch.addcmul(x, y, self.gate(F.avg_pool2d(y, 2).mean((2, 3), keepdim=True)))


def _unshuffle(x: Tensor, side: int) -> Tensor:
    """Return `F.pixel_unshuffle(x, side)` in channels_last; after another layout convolutions are slow on CPUs."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // side, side, width // side, side)
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).permute(0, 3, 1, 2)


def residual_blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class DenseExpert(nn.Module):
    """Return the change of tokens [N,T,C] of N patches by attention within patches and an MLP."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        for last in (self.out, self.mlp[-1]):
            nn.init.zeros_(last.get_parameter("weight"))  # experts start out as no change

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, channels = x.shape
        qkv = self.qkv(self.norm1(x)).view(count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        # Written out: on CPUs the fused attention's backward pass is several times slower for so few tokens.
        scores = query @ key.transpose(-1, -2) * (channels // self.heads) ** -0.5
        attended = (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2)
        change = self.out(attended.reshape(count, tokens, channels))
        return change + self.mlp(self.norm2(x + change))


class PatchImportance(nn.Module):
    """Estimate the importance of each patch, in (0,1), from density, contrast and features.

    A small MLP sees the mean and the deviation of the density, the contrast of the image and the pooled features of the
    patch. The mean density is also added directly, so that importance starts out as density.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(channels + 3, 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 1))
        self.slope = nn.Parameter(torch.tensor(2.0))
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, hazy: Tensor, features: Tensor, density: Tensor) -> Tensor:
        patch = PATCH_SIZE // 4
        mean = F.avg_pool2d(density, patch)
        spread = _deviation(density, mean, patch)
        luminance = hazy.mean(1, keepdim=True)
        contrast = _deviation(luminance, F.avg_pool2d(luminance, PATCH_SIZE), PATCH_SIZE)
        seen = torch.cat([mean, spread, contrast, F.avg_pool2d(features, patch)], 1)
        return torch.sigmoid(self.mlp(seen).tanh() + self.slope * (mean - 0.5))


def enlarge_with_soft_borders(mask: Tensor, side: int) -> Tensor:
    """Enlarge a mask of patches [B,1,r,c] of 0 and 1 to [B,1,r·side,c·side], `side` being even.

    A patch of 0 stays 0; a patch of 1 falls from 1 in its middle to 0 at the border with a patch of 0.
    """
    halves = F.pad(F.interpolate(mask, scale_factor=2.0, mode="nearest"), (1, 1, 1, 1), mode="replicate")
    nodes = -F.max_pool2d(-halves, 2, stride=1)  # minimum of the patches that meet at a middle, border or corner
    size = [2 * side * length + 1 for length in mask.shape[-2:]]
    return F.interpolate(nodes, size=size, mode="bilinear", align_corners=True)[..., 1::2, 1::2]


def _patches(x: Tensor) -> Tensor:
    """Cut [B,C,h,w] into patches, tokens [N,T,C]."""
    batch, channels, height, width = x.shape
    side = PATCH_SIZE // 4
    tokens = x.permute(0, 2, 3, 1).reshape(batch, height // side, side, width // side, side, channels)
    return tokens.transpose(2, 3).reshape(-1, side * side, channels)


def _image(tokens: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Put tokens [N,T,C] of patches together to [B,C,h,w]."""
    side = PATCH_SIZE // 4
    x = tokens.view(batch, height // side, width // side, side, side, -1).transpose(2, 3)
    return x.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def _deviation(x: Tensor, mean: Tensor, patch: int) -> Tensor:
    return (F.avg_pool2d(x.square(), patch) - mean.square()).clamp_min(1e-6).sqrt()


class API(PredictsMaps[ColourMaps], RoutesPatches):
    """Remove haze by a map of the colours that follows the haze, with most effort where it is dense.

    `J = I + K·(I − ½) − B`: K (3×3) and B (3) change slowly over the image and with the pixel's dark channel
    (`api.colour_maps`), so that a dark branch gets other values than the white sky behind it. The network predicts them
    at 1/4 of the resolution, and they are enlarged bilinearly: they are smooth, as haze is, and cannot blur texture.
    With K a multiple of the identity, and equal for dark and bright pixels, this is the soft reconstruction of
    DehazeFormer and gUNet; the full matrix can also restore saturation. K changes the contrast around ½ and B the
    brightness, so both are learned separately (ours).

    A U-Net of residual blocks at 1/4, 1/8 and 1/16 of the resolution sees the image (pixel unshuffle). A density head
    estimates 1 − t. From the density each patch of 32 px gets an importance, which scales the features and routes the
    patch through the dense experts (attention within the patch, and an MLP) or through one light layer. In training the
    more important half of the patches takes the experts, afterwards those above the threshold that training found.

    The maps of the colours are the mean of two predictions with the same weights, from the image and from a copy of
    half the size, where the network sees twice as far (ours). The density is that of the image: from the copy, it tells
    the visibility less well.
    """

    config_class = APIConfig
    margin = 16
    tile_size = 1536
    maps_scale = 4
    finish = Adjustments(skies=1.0, shadows=1.0)

    def __init__(self, config: APIConfig | None = None):
        super().__init__()
        self.config = config = config or APIConfig()
        self.multiple_of = self.min_size = 2 * PATCH_SIZE if config.two_sizes else PATCH_SIZE
        widths = config.widths
        self.stem = nn.Conv2d(48, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(map(residual_blocks, config.down_blocks, widths))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.decoders = nn.ModuleList(map(residual_blocks, config.up_blocks, widths))
        self.density_head = nn.Sequential(
            nn.Conv2d(widths[0], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 3, padding=1)
        )
        self.experts = nn.ModuleList(DenseExpert(widths[0], config.heads) for _ in range(config.experts))
        if config.importance:
            self.importance_head = PatchImportance(widths[0])
            self.light = nn.Linear(widths[0], widths[0])
        self.register_buffer("threshold", torch.tensor(0.5) if config.importance else None)
        self.head = nn.Conv2d(widths[0], 24, 3, padding=1)
        for parameter in self.head.parameters():  # an untrained network returns its input
            nn.init.zeros_(parameter)

    def predict(self, hazy: Tensor) -> Prediction:
        """Predict maps and importance for `hazy` [B,3,H,W] in [0,1], H and W multiples of `multiple_of`."""
        prediction = self._predict(hazy)
        if not self.config.two_sizes:
            return prediction
        of_half = self._predict(F.avg_pool2d(hazy, 2)).maps

        def mean(field: Tensor, small: Tensor) -> Tensor:
            return (field + F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)) / 2

        maps = change_fields(mean, prediction.maps, of_half)
        return prediction._replace(maps=maps._replace(density_logit=prediction.maps.density_logit))

    def _predict(self, hazy: Tensor) -> Prediction:
        x = self.encoders[0](self.stem(_unshuffle(hazy - 0.5, 4)))
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        for i in reversed(range(len(self.ups))):
            x = F.interpolate(self.ups[i](x), scale_factor=2.0, mode="bilinear", align_corners=False) + skips[i]
            if i:
                x = self.decoders[i](x)
        density = self.density_head(x)
        importance = None
        if self.config.importance:
            # Detached: importance must not change the features and the density that it is estimated from.
            importance = self.importance_head(hazy, x.detach(), density.detach().sigmoid())
            x = x * (1 + F.interpolate(importance, size=x.shape[-2:], mode="bilinear", align_corners=False))
        x = self.decoders[0](self._route(x, importance))
        return Prediction(ColourMaps.from_channels(self.head(x), density), importance)

    def _route(self, x: Tensor, importance: Tensor | None) -> Tensor:
        """Pass the important patches of `x` [B,C,h,w] through the dense experts, the others through a light layer."""
        batch, _, height, width = x.shape
        tokens = _patches(x)
        if importance is None:
            return _image(self._experts(tokens), batch, height, width)
        weight = importance.flatten()
        dense = self._choose(weight)
        # Hard borders between light and dense patches would show. Autocast pads in float32.
        share = _patches(enlarge_with_soft_borders(dense.view_as(importance).to(x.dtype), PATCH_SIZE // 4).to(x.dtype))
        # Straight through: 0 in the forward pass, and in the backward pass the importance learns.
        share = share + (weight - weight.detach())[:, None, None].to(x.dtype)
        routed = torch.addcmul(tokens, self.light(tokens), 1 - share)
        hard, chosen = tokens[dense], share[dense]
        routed[dense] = (routed[dense] + (self._experts(hard) - hard) * chosen).to(routed.dtype)
        return _image(routed, batch, height, width)

    def _experts(self, tokens: Tensor) -> Tensor:
        for expert in self.experts:
            tokens = tokens + expert(tokens)
        return tokens

    def _choose(self, weight: Tensor) -> Tensor:
        """Return the mask of the patches that the dense experts see, like `weight` [N]."""
        assert self.threshold is not None  # wherever patches have an importance
        if not self.training:
            return weight > self.threshold
        order = weight.detach().argsort(descending=True)
        half = len(order) // 2
        self.threshold.lerp_(weight.detach()[order[max(half - 1, 0) : half + 1]].float().mean(), 0.01)
        return torch.zeros_like(weight, dtype=torch.bool).index_fill(0, order[:half], True)

    def maps(self, hazy: Tensor) -> ColourMaps:
        """Predict the maps at 1/4 of the resolution."""
        return self.predict(hazy).maps

    apply_maps = staticmethod(apply_maps)
    change_maps = staticmethod(change_maps)

    def importance(self, hazy: Tensor) -> Tensor:
        """Return the importance of each patch of 32 px, [B,1,H/32,W/32] in (0,1); all 1 in the plain backbone."""
        importance = self.predict(hazy).importance
        batch, _, height, width = hazy.shape
        return hazy.new_ones(batch, 1, height // PATCH_SIZE, width // PATCH_SIZE) if importance is None else importance
