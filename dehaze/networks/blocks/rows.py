"""Work on some rows of an image at a time: what lies between fits the processor's cache, and memory stays small."""

from collections.abc import Callable

import torch
from torch import Tensor

TOKENS = 4096  # in a part, of all images together; with fewer the calls themselves take longer than what they do


def in_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Split [B,R,…,C] into parts of some rows, one at least."""
    tokens_of_a_row = x.numel() // (x.shape[1] * x.shape[-1])
    return x.split(max(1, TOKENS // tokens_of_a_row), 1)


def by_rows(function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """Apply `function`, which looks at each token by itself, to images [B,H,W,…] of the same size, part by part."""
    return torch.cat([function(*parts) for parts in zip(*map(in_parts, images), strict=True)], 1)
