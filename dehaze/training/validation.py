"""Scores on scenes kept aside, by which a run is followed and weights are chosen."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dehaze.haze import RendererConfig

# The haze of validation is fixed here, whatever a recipe trains on: only so do scores of different recipes compare.
VALIDATION_HAZE = RendererConfig()
VALIDATION_SEED = 999


def psnr(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the PSNR in dB of each image of [B,3,H,W] in [0,1]; 60 dB at most, so that a mean exists."""
    return -10 * (restored - clear).square().mean((1, 2, 3)).clamp_min(1e-6).log10()


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation of each pair of maps [B,1,H,W], without regard to ties."""
    ranks = [x.flatten(1).argsort(1).argsort(1).double() for x in (a, b)]
    x, y = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


@torch.no_grad()
def validate(network: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Score a dehazing network on batches of `hazy`, `clear` and `density`.

    Returns mean PSNR in dB of the hazy crops (`hazy`), of the restored ones (`restored`), and of clear crops after the
    network against themselves (`harm`); and the mean absolute error of the density, where the network has one.
    """
    scores = defaultdict(list)
    for batch in batches:
        hazy, clear, density = batch["hazy"], batch["clear"], batch["density"]
        scores["hazy"].append(psnr(hazy, clear))
        if hasattr(network, "restore_with_density"):
            restored, estimated = network.restore_with_density(hazy)
            scores["density_error"].append((estimated.float() - density).abs().mean((1, 2, 3)))
        else:
            restored = network(hazy)
        scores["restored"].append(psnr(restored.float().clamp(0, 1), clear))
        scores["harm"].append(psnr(network(clear).float(), clear))
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items()}
