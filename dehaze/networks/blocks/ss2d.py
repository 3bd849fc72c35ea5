"""SS2D: a selective state-space model that scans an image in four directions (VMamba, Liu et al. 2024).

The recurrence is computed in the chunked matrix form of state-space duality (Mamba-2, Dao and Gu 2024), so that CPU and
GPU alike spend their time in matrix products, and time is linear in the number of tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 32  # on CPUs a step of training takes half as long again with 64, and more than twice as long with 16

PART = 4096  # tokens of all images together, at least; with fewer the calls themselves take longer than what they do


def scan(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, chunk: int = CHUNK) -> Tensor:
    """Return y_t = c_t·h_t of the recurrence h_t = exp(log_decay_t)·h_{t−1} + b_t ⊗ x_t, with h_0 = 0.

    `x` [B,L,H,P] holds H heads of P values, each head with its own `log_decay` [B,L,H] ≤ 0; `b` and `c` [B,L,N] are
    shared by the heads. Any L ≥ 1. Returns [B,L,H,P].
    """
    state = x.new_zeros(len(x), 1, x.shape[2], b.shape[-1], x.shape[3])
    results = []
    # Some chunks at a time: what lies between fits the processor's cache, and memory does not grow with L.
    tokens = chunk * max(chunk, PART // (len(x) * chunk))
    for part in zip(*(value.split(tokens, 1) for value in (x, log_decay, b, c)), strict=True):
        y, state = _scan_chunks(*part, state, chunk)
        results.append(y)
    return torch.cat(results, 1)


def _scan_chunks(
    x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scan from a state [B,1,H,N,P] on; return y, as `scan` does, and the state at the end."""
    length = x.shape[1]
    x, log_decay, b, c = (_in_chunks(value, chunk) for value in (x, log_decay, b, c))
    x, decayed = x.transpose(2, 3), log_decay.cumsum(2).transpose(2, 3)  # [B,K,H,T,P], [B,K,H,T]

    # Within a chunk each token sees those before it directly, as in attention without a softmax.
    y = ((c @ b.transpose(-1, -2))[:, :, None] * _decay_matrix(decayed)) @ x

    # What came before the chunk it sees in the state at its beginning, to which all earlier chunks have added.
    left = (decayed[..., -1:] - decayed).exp()
    added = b.transpose(-1, -2)[:, :, None] @ (x * left[..., None])  # [B,K,H,N,P]
    added = torch.cat([state, added], 1).transpose(1, 2)
    whole = F.pad(decayed[..., -1].transpose(1, 2).cumsum(2), (1, 0))
    states = (_decay_matrix(whole) @ added.flatten(3)).unflatten(3, added.shape[3:]).transpose(1, 2)
    y = y + (c[:, :, None] @ states[:, :-1]) * decayed.exp()[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[:, -1:]


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """Split [B,L,…] into [B,K,T,…]; what the last chunk lacks is 0, which changes nothing before it."""
    length = x.shape[1]
    chunk = min(chunk, length)
    missing = -length % chunk
    if missing:
        x = torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], 1)
    return x.unflatten(1, (-1, chunk))


def _decay_matrix(decayed: Tensor) -> Tensor:
    """Return exp(d_t − d_u) for u ≤ t and 0 above the diagonal, from the sums d [...,T] of the logarithms."""
    above = torch.ones(decayed.shape[-1], decayed.shape[-1], dtype=torch.bool, device=decayed.device).triu(1)
    # Masked before the exponential: above the diagonal it would overflow.
    return (decayed[..., :, None] - decayed[..., None, :]).masked_fill(above, float("-inf")).exp()


class SS2D(nn.Module):
    """Carry information over the whole image, [B,H,W,C] to the same: by rows, by columns, and both backwards.

    In each direction a state of `state` values for each channel decays and takes up the tokens that it passes, both as
    the tokens say, with one decay for each head of C/`heads` channels; the four results are added and gated.
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
        value = F.silu(self.value(x))
        y = value * self.through
        for direction in range(4):  # one after the other: together they would take four times the memory
            y = y + self._pass(value, direction).to(y.dtype)
        return self.out(self.norm(y) * F.silu(self.gate(x)))

    def _pass(self, value: Tensor, direction: int) -> Tensor:
        """Scan [B,H,W,C] in one direction, to the same."""
        # Steps and decays multiply up over thousands of tokens: in float32 whatever the precision around them.
        b, c, step = self.controls[direction](value).float().split([self.state, self.state, self.heads], -1)
        step = F.softplus(step + self.step[direction])
        log_decay = -step * self.log_rate[direction].exp()
        taken = value.unflatten(-1, (self.heads, -1)) * step[..., None].to(value.dtype)
        sequences = [_as_sequence(part, direction).float() for part in (taken, log_decay, b, c)]
        del taken, log_decay, b, c  # large photographs fill the memory
        with torch.autocast(value.device.type, enabled=False):
            scanned = scan(*sequences)
        return _as_image(scanned.flatten(2), direction, value.shape[1:3])


def _as_sequence(x: Tensor, direction: int) -> Tensor:
    """Read [B,H,W,…] as [B,L,…]: by rows (0), by columns (1), and both backwards (2, 3)."""
    x = (x.transpose(1, 2) if direction % 2 else x).flatten(1, 2)
    return x.flip(1) if direction > 1 else x


def _as_image(x: Tensor, direction: int, size: tuple[int, int]) -> Tensor:
    """Undo `_as_sequence` for an image of `size` (height, width)."""
    x = x.flip(1) if direction > 1 else x
    height, width = size
    return x.unflatten(1, (width, height)).transpose(1, 2) if direction % 2 else x.unflatten(1, (height, width))
