"""Work on some rows of an image at a time: what lies between fits the processor's cache, and memory stays small."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

TOKENS = 4096  # in a part, of all images together; with fewer the calls themselves take longer than what they do


def in_parts(x: Tensor) -> tuple[Tensor, ...]:
    """Split [B,R,…,C] into parts of some rows, one at least."""
    tokens_of_a_row = x.numel() // (x.shape[1] * x.shape[-1])
    return x.split(max(1, TOKENS // tokens_of_a_row), 1)


def joined(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Join parts [B,r,…] of `rows` rows together, as `torch.cat` does.

    Without a gradient to follow, each is put in its place while the cache still holds it.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(parts), 1)
    whole, first = None, 0
    for part in parts:
        if whole is None:
            whole = part.new_empty(len(part), rows, *part.shape[2:])
        whole[:, first : first + part.shape[1]] = part
        first += part.shape[1]
    return whole


def by_rows(function: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """Apply `function`, which looks at each token by itself, to images [B,H,W,…] of the same size, part by part."""
    return joined((function(*parts) for parts in zip(*map(in_parts, images), strict=True)), images[0].shape[1])
