"""IICL, the inter and intra contrastive loss of the progressive framework (ICASSP 2023).

The paper contrasts images (inter), and the brightest and darkest patches of one image (intra). The formulas are ours;
the negatives of the inter half follow PNE-Net.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.dcp import luma


class IICL(nn.Module):
    """Pull the last stage of a restoration to the clear image, and push it from the hazy image and earlier stages.

    Inter: `Σ_i w_i·d⁺/(d⁺ + d⁻)` over the taps φ_i of `features`, with `d⁺ = |φ_i(J_T) − φ_i(C)|` and
    `d⁻ = Σ_k ω_k·|φ_i(J_T) − φ_i(N_k)|`, means of absolute values within a sample. The negatives N are the hazy image
    and the earlier stages in order. Each weight ω is twice the one before, or 0 if the negative is nearer to C than J_T
    is; ω sums to 1. The loss is bounded, because all stages are near each other at first and a plain ratio would
    diverge. w_i are counted from the deepest tap, as in MNCD.

    Intra: InfoNCE at `temperature` on the cosine similarity of the deepest tap's mean over each patch of `patch` px.
    The anchors are the `count` restored patches where the hazy image is brightest and the `count` where it is darkest.
    The positive is the clear patch at the same place; the negatives are the hazy patch there and the restored patches
    of the opposite extreme. An image of fewer than two whole patches has no intra half.
    """

    def __init__(
        self,
        features: nn.Module,
        *,
        inter: float = 0.1,
        intra: float = 0.05,
        patch: int = 32,
        count: int = 4,
        weights: Sequence[float] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1),
        temperature: float = 0.1,
    ):
        super().__init__()
        self.features = features
        self.inter, self.intra = inter, intra
        self.patch, self.count = patch, count
        self.weights, self.temperature = tuple(weights), temperature

    def forward(self, hazy: Tensor, stages: Sequence[Tensor], clear: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms "inter" and "intra" of images [B,3,H,W] in [0,1], the stages J₀ … J_T in order.

        Gradients reach only the last stage. Incomplete patches at the right and the bottom are ignored.
        """
        height, width = (length // self.patch * self.patch or length for length in hazy.shape[-2:])
        hazy, clear, *earlier, restored = (image[..., :height, :width] for image in (hazy, clear, *stages))
        with torch.no_grad():
            references = self.features(torch.cat([clear, hazy, *earlier]))
        taps = self.features(restored)
        weights = self.weights[-len(taps) :]
        zero = hazy.new_zeros((), dtype=torch.float32)
        inter = sum((w * inter_contrast(*pair) for w, *pair in zip(weights, taps, references, strict=True)), zero)
        chosen = extreme_patches(hazy, self.patch, self.count)
        intra = zero
        if chosen.shape[1]:
            clear_and_hazy = references[-1][: 2 * len(hazy)]
            means = self._patch_means(torch.cat([taps[-1], clear_and_hazy]), chosen.repeat(3, 1), height)
            intra = intra_contrast(*means.chunk(3), temperature=self.temperature)
        return {"inter": self.inter * inter, "intra": self.intra * intra}

    def _patch_means(self, tap: Tensor, chosen: Tensor, height: int) -> Tensor:
        """Return the means [B,2k,C] of a tap [B,C,h,w] over the patches `chosen` [B,2k] of images of this height."""
        means = F.avg_pool2d(tap.float(), self.patch * tap.shape[-2] // height).flatten(2).mT
        return means.gather(1, chosen[..., None].expand(-1, -1, means.shape[-1]))


def inter_contrast(anchor: Tensor, references: Tensor) -> Tensor:
    """Return the mean of d⁺/(d⁺ + d⁻) for features [B,…], and [(1+K)·B,…] of the positive and K negatives.

    The weight of each negative is twice the one before it, or 0 if the negative is nearer to the positive than the
    anchor is: the loss must not push from a better stage.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a.float() - b.float()).abs().flatten(1).mean(1)

    positive, *negatives = references.split(len(anchor))
    near = distance(anchor, positive)
    far = weight = torch.zeros_like(near)
    for k, negative in enumerate(negatives):
        share = 2**k * (distance(negative, positive) >= near.detach())
        far, weight = far + share * distance(anchor, negative), weight + share
    return (near / (near + far / weight.clamp_min(1) + 1e-6)).mean()


def intra_contrast(restored: Tensor, clear: Tensor, hazy: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE of features of patches [B,2k,C]: the first k are of one extreme, the last k of the other.

    Gradients reach only the anchors, not the restored patches that serve as negatives.
    """
    restored, clear, hazy = (F.normalize(x, dim=-1).unflatten(1, (2, -1)) for x in (restored, clear, hazy))
    opposite = restored.detach().flip(1)
    # Products and sums, because autocast would compute matrix products in half precision.
    near, off = ((restored * other).sum(-1, keepdim=True) for other in (clear, hazy))
    across = (restored[..., None, :] * opposite[..., None, :, :]).sum(-1)
    return -(torch.cat([near, off, across], -1) / temperature).log_softmax(-1)[..., 0].mean()


def extreme_patches(images: Tensor, patch: int, count: int) -> Tensor:
    """Return the indices [B,2k] of the k brightest and then the k darkest patches of images [B,3,H,W].

    Indices count whole patches row by row from 0, sorted from bright to dark; ties keep their order. k is `count`, or
    half the number of patches if that is less, so that no patch is both; it is 0 for an image smaller than a patch.
    """
    if min(images.shape[-2:]) < patch:
        return torch.empty(len(images), 0, dtype=torch.long, device=images.device)
    brightness = F.avg_pool2d(luma(images.float()), patch).flatten(1)
    order = brightness.argsort(dim=1, descending=True, stable=True)
    count = min(count, order.shape[1] // 2)
    return torch.cat([order[:, :count], order[:, order.shape[1] - count :]], 1)
