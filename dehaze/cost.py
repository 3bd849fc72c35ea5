"""Count the multiply-adds of a restoration."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


@torch.inference_mode()
def multiply_adds(restore: Callable[[Tensor], object], hazy: Tensor) -> int:
    """Count the multiply-adds of convolutions, matrix products and attention that `restore` spends on `hazy` [B,3,H,W].

    `restore` is a network, or `Dehazer.restore_tensor` to count padding and tiles as well. Networks that route patches
    spend more on one image than on another of the same size: give them a photograph.
    """
    with FlopCounterMode(display=False) as counter:
        restore(hazy)
    return counter.get_total_flops() // 2
