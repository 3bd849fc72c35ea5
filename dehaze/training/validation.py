"""Scores on validation scenes and pairs, by which weights are chosen."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dehaze.dehazer import Dehazer
from dehaze.density import instruct, load_clip
from dehaze.haze import RendererConfig
from dehaze.networks.base import EstimatesDensity, Network
from dehaze.training.losses.ssim import ssim

Batch = Mapping[str, Tensor]

# All recipes are validated on the same haze, so that their scores compare.
VALIDATION_HAZE = RendererConfig()
VALIDATION_SEED = 999


def psnr(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the PSNR in dB of each image of [B,3,H,W] in [0,1], at most 60 dB, so that a mean exists."""
    return -10 * (restored - clear).square().mean((1, 2, 3)).clamp_min(1e-6).log10()


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation of each pair of maps [B,1,H,W]; ties are ignored."""
    ranks = [x.flatten(1).argsort(1).argsort(1).double() for x in (a, b)]
    x, y = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


@torch.no_grad()
def validate(network: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """Score a dehazing network on batches of `hazy`, `clear` and `density`.

    Returns the mean PSNR in dB of hazy crops (`hazy`), of restored crops (`restored`), and of restored clear crops
    against themselves (`harm`); and `density_error`, the mean absolute error of the density, if the network estimates
    one.
    """
    scores, clip = defaultdict(list), load_clip(network)
    if clip is not None:
        clip = clip.to(next(network.parameters()).device)
    for batch in batches:
        hazy, clear, density = batch["hazy"], batch["clear"], batch["density"]
        scores["hazy"].append(psnr(hazy, clear))
        if isinstance(network, EstimatesDensity):
            restored, estimated = network.restore_with_density(hazy)
            scores["density_error"].append((estimated.float() - density).abs().mean((1, 2, 3)))
        else:
            restored = network(hazy, **instruct(network, clip, hazy))
        scores["restored"].append(psnr(restored.float().clamp(0, 1), clear))
        scores["harm"].append(psnr(network(clear, **instruct(network, clip, clear)).float(), clear))
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items()}


def dehazer_of(network: Network) -> Dehazer:
    """Wrap a network that is trained, so that it restores whole photographs as it will when it ships."""
    device = next(network.parameters()).device
    clip = load_clip(network)
    return Dehazer("trained", network, device, torch.float32, clip=clip and clip.to(device))


@torch.no_grad()
def validate_pairs(network: Network, pairs: Iterable[Batch]) -> dict[str, float]:
    """Score a dehazing network on whole photographs, `hazy` and `clear` [1,3,H,W] in [0,1].

    Returns the mean PSNR in dB before and after (`pairs_hazy`, `pairs_restored`), and the mean SSIM after
    (`pairs_ssim`, as in the loss).
    """
    scores, dehazer = defaultdict(list), dehazer_of(network)
    for pair in pairs:
        hazy, clear = pair["hazy"], pair["clear"]
        restored, _ = dehazer.restore_tensor(hazy)
        scores["pairs_hazy"].append(psnr(hazy, clear))
        scores["pairs_restored"].append(psnr(restored, clear))
        scores["pairs_ssim"].append(ssim(restored, clear))
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items()}


@torch.no_grad()
def show_restored(network: Network, batch: Batch) -> dict[str, Tensor]:
    """Return the columns of the sample sheet: hazy, restored, truth and density, as far as they are known."""
    restored, density = dehazer_of(network).restore_tensor(batch["hazy"])
    columns = {"hazy": batch["hazy"], "restored": restored, "clear": batch.get("clear"), "density": density}
    return {name: images for name, images in columns.items() if images is not None}
