import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.networks.blocks.window_attention import WindowAttention


def plainly(block: WindowAttention, window: Tensor) -> Tensor:
    """Attend within one window [8,8,C], token by token, with the bias from each pair's distance."""
    tokens = window.flatten(0, 1)
    query, key, value = F.linear(tokens, block.qkv.weight, block.qkv.bias).chunk(3, -1)
    scores = query @ key.T / window.shape[-1] ** 0.5
    for i in range(64):
        for j in range(64):
            apart = torch.tensor([i // 8 - j // 8, i % 8 - j % 8], dtype=window.dtype)
            scores[i, j] += block.bias(apart.sign() * (1 + apart.abs()).log())[0]
    return block.out(scores.softmax(-1) @ value).view(8, 8, -1)


@torch.no_grad()
def test_a_window_is_attended_as_the_formula_says():
    torch.manual_seed(0)
    block = WindowAttention(6).double()
    x = torch.randn(2, 8, 16, 6).double()
    torch.testing.assert_close(block(x)[1, :, 8:], plainly(block, x[1, :, 8:]))


@torch.no_grad()
def test_a_shifted_window_lies_across_four():
    torch.manual_seed(0)
    block = WindowAttention(6, shifted=True).double()
    x = torch.randn(1, 16, 16, 6).double()
    torch.testing.assert_close(block(x)[0, 4:12, 4:12], plainly(block, x[0, 4:12, 4:12]))


@pytest.mark.parametrize("shifted", [False, True])
def test_what_lies_outside_the_window_does_not_count(shifted):
    block, x = WindowAttention(4, shifted), torch.rand(1, 16, 24, 4, requires_grad=True)
    y = block(x)
    assert y.shape == x.shape
    reached = torch.autograd.grad(y[0, 0, 9].sum(), x)[0][0].abs().sum(-1) > 0
    # At the border the shifted window sees the four rows inside, and their mirror image.
    expected = torch.zeros(16, 24, dtype=torch.bool)
    expected[: 5 if shifted else 8, 4 if shifted else 8 : 12 if shifted else 16] = True
    assert torch.equal(reached, expected)


@torch.no_grad()
def test_windows_of_one_colour_give_one_colour():
    block = WindowAttention(4, shifted=True)
    y = block(torch.full((1, 16, 16, 4), 0.3))
    torch.testing.assert_close(y, y[:, :1, :1].expand_as(y))
