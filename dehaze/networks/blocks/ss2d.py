"""SS2D: a selective state-space model that scans an image in four directions (VMamba, Liu et al. 2024).

The recurrence is computed in the chunked matrix form of state-space duality (Mamba-2, Dao and Gu 2024), so that CPU and
GPU alike spend their time in matrix products, and time is linear in the number of tokens.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.blocks.rows import PART_TOKENS, by_rows, in_parts, joined

CHUNK_TOKENS = 32  # on CPUs a training step takes 1.5 times as long with 64, and more than twice as long with 16

# On CPUs exp is up to twenty times slower where its result is near 0, as after strong decay; exp2 is not.
LOG2_E = 1 / math.log(2)


def scan(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, chunk: int = CHUNK_TOKENS) -> Tensor:
    """Return y_t = c_t·h_t of the recurrence h_t = exp(log_decay_t)·h_{t−1} + b_t ⊗ x_t, with h_0 = 0.

    `x` [B,L,H,P] holds H heads of P values, each head with its own `log_decay` [B,L,H] ≤ 0; `b` and `c` [B,L,N] are
    shared by the heads. Any L ≥ 1. Returns [B,L,H,P].
    """
    tokens = chunk * max(chunk, PART_TOKENS // (len(x) * chunk))
    parts = zip(*(value.split(tokens, 1) for value in (x, log_decay, b, c)), strict=True)
    return joined(_scan_parts(parts, chunk), x.shape[1])


def _scan_parts(parts: Iterable[Sequence[Tensor]], chunk: int = CHUNK_TOKENS) -> Iterator[Tensor]:
    """Scan a sequence part by part, each a tuple of `scan`'s arguments; yield the results.

    Intermediate results fit the processor's cache, and memory does not grow with the length.
    """
    state = None
    for x, log_decay, b, c in parts:
        with torch.autocast(x.device.type, enabled=False):
            y, state = _scan_chunks(x, log_decay, b, c, state, chunk)
        yield y


def _scan_chunks(
    x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, state: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scan from a state [B,H,1,N·P] on, or from 0; return y, as `scan` does, and the state at the end."""
    length, size = x.shape[1], x.shape[-1]
    x, log_decay, b, c = (_in_chunks(value, chunk) for value in (x, log_decay, b, c))
    x, decayed = x.transpose(2, 3), (log_decay * LOG2_E).transpose(2, 3).cumsum(-1)  # [B,K,H,T,P], [B,K,H,T]
    b, c = b[:, :, None], c[:, :, None]
    each = x.shape[:3]

    # The addition of each chunk to the state, and the states before each chunk and after the last.
    left = (decayed[..., -1:] - decayed).exp2()
    added = ((b * left[..., None]).transpose(-1, -2) @ x).flatten(3).transpose(1, 2)  # [B,H,K,N·P]
    kept = _decay_matrix(F.pad(decayed[..., -1].transpose(1, 2).cumsum(2), (1, 0)))
    states = kept[..., 1:] @ added  # [B,H,K+1,N·P]
    if state is not None:
        states = states + kept[..., :1] * state
    before = states[:, :, :-1].transpose(1, 2).unflatten(3, (-1, size))

    # A token sees the state before its chunk, and the tokens before it in the chunk directly, as in attention without a
    # softmax.
    within = (c @ b.transpose(-1, -2)) * _decay_matrix(decayed)
    y = (c * decayed.exp2()[..., None]) @ before
    y = torch.baddbmm(y.flatten(0, 2), within.flatten(0, 2), x.flatten(0, 2)).unflatten(0, each)
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[:, :, -1:]


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """Split [B,L,…] into [B,K,T,…]; zeros fill the last chunk, which changes nothing before them."""
    length = x.shape[1]
    chunk = min(chunk, length)
    missing = -length % chunk
    if missing:
        x = torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], 1)
    return x.unflatten(1, (-1, chunk))


def _decay_matrix(decayed: Tensor) -> Tensor:
    """Return 2^(d_t − d_u) for u ≤ t and 0 above the diagonal, from the sums d [...,T] of the logarithms to base 2."""
    above = torch.full(decayed.shape[-1:] * 2, float("-inf"), dtype=decayed.dtype, device=decayed.device).triu(1)
    # Hidden before the exponential: above the diagonal it would overflow.
    return (decayed[..., :, None] - decayed[..., None, :]).add_(above).exp2_()


class SS2D(nn.Module):
    """Carry information over the whole image, [B,H,W,C] to the same: by rows, by columns, and both backwards.

    In each direction a state of `state` values per channel decays and takes in the tokens that it passes; the tokens
    control both, with one decay for each head of C/`heads` channels. The four results are added and gated.
    """

    def __init__(self, channels: int, heads: int, state: int = 16):
        super().__init__()
        self.heads, self.state = heads, state
        self.value, self.gate = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.controls = nn.ModuleList(nn.Linear(channels, 2 * state + heads, bias=False) for _ in range(4))
        # As in Mamba: steps between 0.001 and 0.1, and states that decay at different rates.
        steps = torch.logspace(-3, -1, 4 * heads + 2)[1:-1].view(heads, 4).T.contiguous()
        self.step = nn.Parameter(steps.expm1().log())  # the inverse of softplus
        self.log_rate = nn.Parameter(torch.linspace(1, 4, 4).log()[:, None].repeat(1, heads))
        self.through = nn.Parameter(torch.ones(channels))
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        value = by_rows(lambda x: F.silu(self.value(x)), x)
        along_rows = self._both_ways(value, 0)
        along_columns = self._both_ways(value.transpose(1, 2), 1).transpose(1, 2)
        return by_rows(self._gather, x, value, along_rows, along_columns)

    def _gather(self, x: Tensor, value: Tensor, along_rows: Tensor, along_columns: Tensor) -> Tensor:
        y = value * self.through + along_rows + along_columns
        return self.out(self.norm(y) * F.silu(self.gate(x)))

    def _both_ways(self, lines: Tensor, direction: int) -> Tensor:
        """Scan [B,R,S,C] line by line, forwards in this direction and backwards in the one two further; add both.

        Both are one scan, with the way back as the second half of its batch, which halves the number of calls.
        """
        tokens, returned = lines.flatten(1, 2), []

        def forwards() -> Iterator[Tensor]:
            for both in _scan_parts(self._controlled(tokens, direction)):
                forward, backward = both.chunk(2)
                returned.append(backward.flip(1))
                yield forward

        result = joined(forwards(), tokens.shape[1])
        result = result + joined(reversed(returned), tokens.shape[1])
        return result.to(lines.dtype).view(lines.shape)

    def _controlled(self, tokens: Tensor, direction: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the arguments of `scan`, part by part: B sequences of tokens [B,L,C] forwards, B more backwards.

        The tokens control input, output and decay of the state.
        """
        weight = torch.stack([control.get_parameter("weight").T for control in self.controls[direction::2]])
        bias, rate = (value[direction::2, None, None] for value in (self.step, self.log_rate.exp()))
        end = tokens.shape[1]
        for forward in in_parts(tokens):
            start = end - forward.shape[1]
            value = torch.stack([forward, tokens[:, start:end].flip(1)])  # [2,B,l,C]
            end = start
            # Steps and decays multiply up over thousands of tokens: in float32 whatever the precision around them.
            controls = (value.flatten(1, 2) @ weight).float().view(*value.shape[:3], -1)
            b, c, step = controls.split([self.state, self.state, self.heads], -1)
            step = F.softplus(step + bias)
            taken = value.float().unflatten(-1, (self.heads, -1)) * step[..., None]
            yield tuple(part.flatten(0, 1) for part in (taken, -step * rate, b, c))
