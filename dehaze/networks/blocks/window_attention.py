"""Attention within windows, with DehazeFormer's position bias and shift (Song et al. 2023)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.blocks.rows import in_parts, joined

WINDOW_SIZE = 8  # tokens


class WindowAttention(nn.Module):
    """Attend within windows of 8×8 tokens with one head: [B,H,W,C] to the same, H and W multiples of 8.

    A small MLP turns the distance of two tokens, sign(d)·log(1 + |d|) in each direction, into a bias of their score.
    Shifted windows lie half a window off; the map is mirrored beyond its borders, so that no window mixes opposite ends
    and none needs a mask.
    """

    def __init__(self, channels: int, shifted: bool = False):
        super().__init__()
        self.shift = WINDOW_SIZE // 2 if shifted else 0
        self.scale = channels**-0.5
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1, bias=False))
        place = torch.stack(
            torch.meshgrid(torch.arange(WINDOW_SIZE), torch.arange(WINDOW_SIZE), indexing="ij")
        ).flatten(1)
        apart = (place[:, :, None] - place[:, None]).permute(1, 2, 0).float()
        self.register_buffer("distance", apart.sign() * apart.abs().log1p(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        shift = self.shift
        if shift:
            x = F.pad(x.permute(0, 3, 1, 2), (shift,) * 4, mode="reflect").permute(0, 2, 3, 1)
        rows, columns = x.shape[1] // WINDOW_SIZE, x.shape[2] // WINDOW_SIZE
        bias = self.bias(self.distance)[..., 0]
        x = x.reshape(batch, rows, WINDOW_SIZE, columns, WINDOW_SIZE, channels)
        # Scores that fit the processor's cache take a third of the time.
        x = joined((self._attend(part, bias) for part in in_parts(x)), rows)
        x = x.view(batch, rows * WINDOW_SIZE, columns * WINDOW_SIZE, channels)
        return x[:, shift : shift + height, shift : shift + width]

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend within some rows of windows [B,R,8,W,8,C], to the same."""
        windows = x.transpose(2, 3)
        query, key, value = self.qkv(windows.reshape(-1, WINDOW_SIZE**2, x.shape[-1])).chunk(3, -1)
        # Written out: on CPUs the fused attention's backward pass is several times slower for so few tokens.
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=self.scale)
        seen = self.out(scores.softmax(-1).to(value.dtype) @ value)
        return seen.view(windows.shape).transpose(2, 3)
