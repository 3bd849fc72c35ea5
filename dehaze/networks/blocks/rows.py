"""Process an image in parts of some rows, so that intermediate results fit the processor's cache."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

PART_TOKENS = 4096  # of all images together; with fewer, the overhead of the calls exceeds their work


def in_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Split [B,R,…,C] into parts of at least one row."""
    tokens_of_a_row = x.numel() // (x.shape[1] * x.shape[-1])
    return x.split(max(1, PART_TOKENS // tokens_of_a_row), 1)


def joined(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Join parts [B,r,…] to [B,rows,…], as `torch.cat` does.

    Without gradients, each part is copied to its place while the cache still holds it.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(parts), 1)
    whole, first = None, 0
    for part in parts:
        if whole is None:
            whole = part.new_empty(len(part), rows, *part.shape[2:])
        whole[:, first : first + part.shape[1]] = part
        first += part.shape[1]
    assert whole is not None  # an image has at least one row
    return whole


def by_rows(function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """Apply a function that treats each token separately to images [B,H,W,…] of the same size, part by part."""
    return joined((function(*parts) for parts in zip(*map(in_parts, images), strict=True)), images[0].shape[1])
