"""CLIPHaze (arXiv 2408.12317, later DehazeMatic): global and local context in parallel, mixed by CLIP's view of haze.

From the paper: the block of two parallel paths (TrambaDA), a state-space model and window attention, and the module
that aggregates them (CAM) by CLIP's haze density and by its embedding of the image. Ours: widths, layers, and how
density and embedding enter.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, ValidationInfo
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.errors import WeightsError
from dehaze.networks.base import TakesInstruction
from dehaze.networks.blocks.rows import by_rows
from dehaze.networks.blocks.ss2d import SS2D
from dehaze.networks.blocks.window_attention import WindowAttention
from dehaze.networks.limits import Count, Width

HEAD_CHANNELS = 24  # of each head of the state-space model
MIN_DENSITY = 0.02  # and 1 − it is the largest: the logit stays within ±3.9
Mix = Literal["local", "global", "sum", "density", "full"]
INSTRUCTIONS = {"density": ("density",), "full": ("density", "embedding")}  # fields of `Haze` by mix
WholeHeads = Annotated[Width, Field(multiple_of=HEAD_CHANNELS)]


def _chosen_by_the_caller(clip: str, info: ValidationInfo) -> str:
    """Return the CLIP model that the caller chose: a foreign file must not choose which other file is loaded."""
    chosen = (info.context or {}).get("clip")
    if chosen is None and clip != "shipped":
        raise WeightsError(
            "names a CLIP model other than the shipped one.",
            subject="The configuration",
            setting="Name one yourself, by the argument clip.",
        )
    return chosen or clip


@dataclass(frozen=True)
class CLIPHazeConfig:
    """Widths and blocks at 1/2, 1/4 and 1/8 of the resolution, and the CLIP model that instructs.

    `blocks` counts those of the five stages, down and up. `clip` is "shipped", a folder or a Hub id of a model with
    embeddings of `embedding` numbers. `mix` combines the paths: only one of them, their sum, CAM by the density, or CAM
    in full; the first three need no CLIP.
    """

    widths: tuple[WholeHeads, WholeHeads, WholeHeads] = (24, 48, 96)
    blocks: tuple[Count, Count, Count, Count, Count] = (2, 2, 4, 2, 2)
    clip: Annotated[str, AfterValidator(_chosen_by_the_caller), Field(validate_default=True)] = "shipped"
    embedding: Width = 128
    mix: Mix = "full"


BASE_CONFIG = CLIPHazeConfig(widths=(48, 96, 192), blocks=(4, 4, 8, 4, 4))


class Aggregation(nn.Module):
    """CAM: mix local and global features [B,H,W,C] by a weight of each pixel and channel, then scale and shift.

    `out = 2(w ⊙ local + (1 − w) ⊙ global)`, `w = σ(conv([local, global, density]))`. Scale and shift are sums of linear
    functions of the density at each pixel and of the embedding, if there is one. The density enters as its logit, which
    separates dense haze from opaque haze. Initially `w` is ½ everywhere and scale and shift do nothing, so that CAM
    starts as the sum of both (ours, like the factor 2, the logit, and scale and shift by density).
    """

    def __init__(self, channels: int, embedding: int | None):
        super().__init__()
        self.weigh = nn.Linear(2 * channels + 1, channels)  # a 1×1 convolution
        self.by_density = nn.Linear(1, 2 * channels)
        self.by_embedding = None if embedding is None else nn.Linear(embedding, 2 * channels, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, local: Tensor, global_: Tensor, density: Tensor, embedding: Tensor | None) -> Tensor:
        haze = density.logit(MIN_DENSITY).to(local.dtype)
        weight = self.weigh(torch.cat([local, global_, haze], -1)).sigmoid()
        scale_and_shift = self.by_density.bias
        if self.by_embedding is not None:
            assert embedding is not None  # the network demands what it takes from CLIP
            # The embedding has length 1, so that its numbers are small.
            scale_and_shift = scale_and_shift + self.by_embedding(embedding * embedding.shape[-1] ** 0.5)[:, None, None]
        scale, shift = scale_and_shift.chunk(2, -1)
        # Written out: the density is one number a pixel, and a linear layer's output of 2C channels would take longer.
        rows = zip((1 + scale, shift), self.by_density.weight[:, 0].chunk(2), strict=True)
        factor, shift = (torch.addcmul(row.to(haze.dtype), haze, step.to(haze.dtype)) for row, step in rows)
        return torch.addcmul(shift, 2 * torch.lerp(global_, local, weight), factor)


class TrambaDA(nn.Module):
    """Add window attention and the state-space model, combined by `mix`, and then an MLP: [B,H,W,C]."""

    def __init__(self, channels: int, mix: Mix, embedding: int, shifted: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.local = None if mix == "global" else WindowAttention(channels, shifted)
        self.global_ = None if mix == "local" else SS2D(channels, channels // HEAD_CHANNELS)
        self.cam = None
        if mix in ("density", "full"):
            self.cam = Aggregation(channels, embedding if mix == "full" else None)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor, density: Tensor | None, embedding: Tensor | None) -> Tensor:
        y = self.norm1(x)
        seen = [path(y) for path in (self.local, self.global_) if path is not None]
        if (cam := self.cam) is None:
            return by_rows(lambda x, *seen: self._finish(x + sum(seen)), x, *seen)
        assert density is not None  # the network demands what it takes from CLIP
        return by_rows(lambda x, *given: self._finish(x + cam(*given, embedding)), x, *seen, density)

    def _finish(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))


class SkipFusion(nn.Module):
    """Mix a decoder's features and the encoder's [B,C,H,W], channel by channel, by the mean of both (DehazeFormer)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 8, 4)
        self.choose = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # A softmax over two is a sigmoid of their difference.
        weight = self.choose((x + skip).mean((2, 3))).sigmoid()[:, :, None, None]
        return torch.lerp(skip, x, weight)


class CLIPHaze(TakesInstruction):
    """Remove haze by local and global context, mixed at every pixel as a CLIP model sees the haze.

    A U-Net of five stages at 1/2, 1/4 and 1/8 of the resolution, each of blocks in which window attention and a
    state-space model run in parallel; its result is the soft reconstruction `J = K·I − B + I`, K of one channel.
    Where and how dense the haze is, and what the image shows beside it, the caller takes from CLIP (`dehaze.density`).
    """

    config_class = CLIPHazeConfig
    multiple_of = 64
    min_size = 64
    margin = 24
    tile_size = 1024

    def __init__(self, config: CLIPHazeConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPHazeConfig()
        widths = config.widths
        five = [*widths, *widths[-2::-1]]
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(TrambaDA(width, config.mix, config.embedding, bool(i % 2)) for i in range(count))
            for width, count in zip(five, config.blocks, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for coarse, fine in pairwise(widths[::-1]))
        self.fusions = nn.ModuleList(SkipFusion(width) for width in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], 4 * 4, 3, padding=1)
        for parameter in self.head.parameters():  # an untrained network returns its input
            nn.init.zeros_(parameter)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The fields of `Haze` that this mix takes: without CAM none, by the density alone no embedding."""
        return INSTRUCTIONS.get(self.config.mix, ())

    @property
    def clip(self) -> str:
        """The CLIP model that the weights were trained with."""
        return self.config.clip

    @property
    def embedding_size(self) -> int:
        """How many numbers the embeddings have."""
        return self.config.embedding

    def forward(self, hazy: Tensor, density: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1], H and W multiples of 64; return the same shape, clipped to [0,1].

        `density` [B,1,H,W] and `embedding` [B,D] come from a CLIP model that saw this image, or the whole that it is a
        tile of. Raises ValueError where one of the `instructions` is missing.
        """
        return self.restore_unclipped(hazy, density, embedding).clamp(0, 1)

    def restore_unclipped(self, hazy: Tensor, density: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        """Restore as `forward` does, without clipping: what a loss compares."""
        given = {"density": density, "embedding": embedding}
        if missing := [name for name in self.instructions if given[name] is None]:
            raise ValueError(
                f"this network takes {' and '.join(missing)} beside the image: see dehaze.density.instruct"
            )
        # Pixel unshuffling leaves channels_last; without it the convolutions after it are slow on CPUs.
        x = self.stem(F.pixel_unshuffle(hazy - 0.5, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, down in zip(self.levels, self.downs, strict=False):
            x = self._stage(blocks, x, **given)
            skips.append(x)
            x = down(x)
        x = self._stage(self.levels[len(self.downs)], x, **given)
        after = self.levels[len(self.downs) + 1 :]
        for blocks, up, fusion in zip(after, self.ups, self.fusions, strict=True):
            x = fusion(F.pixel_shuffle(up(x), 2), skips.pop())
            x = self._stage(blocks, x, **given)
        k, b = F.pixel_shuffle(self.head(x), 2).to(hazy.dtype).split([1, 3], 1)
        return k * hazy - b + hazy

    @staticmethod
    def _stage(blocks: nn.Module, x: Tensor, density: Tensor | None, embedding: Tensor | None) -> Tensor:
        """Run blocks, which take [B,h,w,C], on features [B,C,h,w]."""
        if density is not None:
            density = F.interpolate(density, size=x.shape[-2:], mode="area").permute(0, 2, 3, 1)
        x = x.permute(0, 2, 3, 1)
        for block in blocks.children():
            x = block(x, density, embedding)
        return x.permute(0, 3, 1, 2)


class CLIPHazeBase(CLIPHaze):
    """Remove haze as `cliphaze_t` does, with twice the width and the depth."""

    def __init__(self, config: CLIPHazeConfig | None = None):
        super().__init__(config or BASE_CONFIG)
