import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dehaze.networks.blocks.ss2d import SS2D, scan


def recurrence(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Step by step, as the formula is written."""
    state, outputs = x.new_zeros(len(x), x.shape[2], b.shape[-1], x.shape[3]), []
    for t in range(x.shape[1]):
        state = log_decay[:, t, :, None, None].exp() * state + b[:, t, None, :, None] * x[:, t, :, None]
        outputs.append((c[:, t, None, None] @ state)[:, :, 0])
    return torch.stack(outputs, 1)


def inputs(length: int, dtype: torch.dtype, strength: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = (2, length, 3, 4), (2, length, 3), (2, length, 5), (2, length, 5)
    x, decay, b, c = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    values = x, -strength * decay.abs(), b / 5**0.5, c / 5**0.5
    return [value.to(dtype).requires_grad_() for value in values]


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("length", "strength"), [(1, 1), (31, 1), (32, 0.1), (33, 0.01), (1100, 0.01), (131, 5)])
def test_the_chunked_scan_is_the_recurrence(length, strength, dtype, tolerance):
    """Also where the decay is so strong that sums of its logarithms could not be exponentiated apart."""
    values = inputs(length, dtype, strength)
    results = [function(*values) for function in (scan, recurrence)]
    assert relative(*results) < tolerance
    weight = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    gradients = [torch.autograd.grad((result * weight).sum(), values) for result in results]
    for ours, expected in zip(*gradients, strict=True):
        assert ours.isfinite().all()
        assert (ours - expected).abs().max() <= tolerance * max(1, expected.abs().max())


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1000])
def test_the_chunk_changes_nothing(chunk):
    """With chunks of 7 tokens, a state is handed on every 49."""
    values = inputs(130, torch.float64, 0.05)
    torch.testing.assert_close(scan(*values, chunk), recurrence(*values), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("tokens", [1, 12, 4096])
@torch.no_grad()
def test_directions_are_rows_columns_and_both_backwards(tokens, monkeypatch):
    """Against the recurrence in four orders written out, whether few tokens or many are worked on at a time."""
    monkeypatch.setattr("dehaze.networks.blocks.rows.PART_TOKENS", tokens)
    torch.manual_seed(0)
    block, x = SS2D(8, heads=2, state=4), torch.rand(2, 5, 7, 8)
    rows = torch.arange(35)
    columns = rows.view(5, 7).T.flatten()
    value = F.silu(block.value(x))
    total = value.flatten(1, 2) * block.through
    for direction, order in enumerate([rows, columns, rows.flip(0), columns.flip(0)]):
        read = value.flatten(1, 2)[:, order]
        b, c, step = block.controls[direction](read).split([4, 4, 2], -1)
        step = F.softplus(step + block.step[direction])
        decay = -step * block.log_rate[direction].exp()
        total[:, order] += recurrence(read.unflatten(-1, (2, 4)) * step[..., None], decay, b, c).flatten(2)
    expected = block.out(block.norm(total.view_as(x)) * F.silu(block.gate(x)))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-4)


def test_every_token_reaches_every_other():
    torch.manual_seed(0)
    block, x = SS2D(8, heads=2, state=4).double(), torch.rand(1, 5, 7, 8).double().requires_grad_()
    for row, column in [(0, 0), (2, 3), (4, 6)]:
        reached = torch.autograd.grad(block(x)[0, row, column].sum(), x)[0].abs().sum(-1)
        assert (reached > 0).all()


def test_an_image_turned_by_half_gives_the_result_turned():
    """Where all directions have the same parameters, none is preferred."""
    torch.manual_seed(0)
    block = SS2D(8, heads=2, state=4)
    with torch.no_grad():
        for control in block.controls[1:]:
            control.load_state_dict(block.controls[0].state_dict())
        for parameter in (block.step, block.log_rate):
            parameter.copy_(parameter[:1].expand_as(parameter).clone())
        x = torch.rand(1, 6, 9, 8)
        torch.testing.assert_close(block(x.flip(1, 2)).flip(1, 2), block(x))
        torch.testing.assert_close(block(x.transpose(1, 2)).transpose(1, 2), block(x))


@torch.inference_mode()
def test_multiply_adds_are_linear_in_the_number_of_tokens():
    block, costs = SS2D(8, heads=2), []
    for side in (64, 128, 256):
        with FlopCounterMode(display=False) as counter:
            block(torch.zeros(1, side, side, 8))
        costs.append(counter.get_total_flops() / side**2)
    assert costs[2] < 1.01 * costs[1] < 1.02 * costs[0]


def test_half_precision_around_it_changes_little():
    torch.manual_seed(0)
    block, x = SS2D(16, heads=2), torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        exact = block(x)
        with torch.autocast("cpu", torch.bfloat16):
            near = block(x)
    assert relative(near.float(), exact) < 0.05
