"""MNCD, the multi-negative contrastive dehazing loss of API (arXiv 2601.01992), with a spatial and a frequency half.

The paper states the negatives and the two domains. The formulas are ours, after AECR-Net (CVPR 2021) for the spatial
half, FADformer (ECCV 2024) for the frequency half, and C2PNet (CVPR 2023) for hard negatives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MNCD(nn.Module):
    """Pull a restored image to the clear image and push it from the negatives, in features and in frequencies.

    Both halves are Σ_i w_i·|φ_i(J) − φ_i(C)| / (Σ_k ω_k·|φ_i(J) − φ_i(N_k)| + ε), where |·| is the mean absolute value
    within a sample; the loss is the mean over the samples. In the spatial half, φ_i are the taps of `features`; with
    None there is no spatial half. In the frequency half, φ is the orthonormal 2-D FFT of real images, as real and
    imaginary parts, always in float32.

    `spatial` and `frequency` are the weights of the halves. `weights` are w_i, counted from the deepest tap, whose
    weight is 1: AECR-Net's five for VGG19, the last four for VGG16, fewer for a shorter VGG. ω_k is the softmax of
    −d_k/`temperature` over the negatives of a sample, where d_k is the mean absolute difference of N_k and C: of two
    negatives, the one nearer to C by one temperature weighs e times as much. A negative that is nearer to C than J is
    has no weight, unless all are: pushing a network from the better result of its moving average harms it. `eps` keeps
    the ratio finite where J equals a negative, such as the output of an untrained network.
    """

    def __init__(
        self,
        features: nn.Module | None,
        *,
        spatial: float = 0.1,
        frequency: float = 0.1,
        weights: Sequence[float] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1),
        temperature: float = 0.1,
        eps: float = 1e-3,
    ):
        super().__init__()
        self.features = features
        self.spatial, self.frequency = spatial, frequency
        self.weights, self.temperature, self.eps = tuple(weights), temperature, eps

    def forward(self, restored: Tensor, clear: Tensor, negatives: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weighted terms "spatial" and "frequency" of images [B,3,H,W] in [0,1].

        Gradients reach only `restored`. Raises ValueError without negatives or with more taps than weights.
        """
        if not negatives:
            raise ValueError("a contrast needs negatives: give at least the hazy image")
        with torch.no_grad():
            references = torch.cat([clear, *negatives])  # the positive is the first
            hardness = self.hardness(restored, clear, negatives)
        terms = {}
        if self.features is not None:
            with torch.no_grad():
                targets = self.features(references)
            taps = self.features(restored)
            if len(taps) > len(self.weights):
                raise ValueError(f"{len(taps)} taps need as many weights; there are {len(self.weights)}")
            pairs = zip(self.weights[-len(taps) :], taps, targets, strict=True)
            terms["spatial"] = self.spatial * sum(w * self._ratio(tap, target, hardness) for w, tap, target in pairs)
        terms["frequency"] = self.frequency * self._ratio(_spectrum(restored), _spectrum(references), hardness)
        return terms

    def hardness(self, restored: Tensor, clear: Tensor, negatives: Sequence[Tensor]) -> Tensor:
        """Return ω [K,B], the weight of each negative in each sample; it sums to 1 over the negatives."""
        reached, *distances = [(image - clear).abs().mean((1, 2, 3)) for image in (restored, *negatives)]
        distances = torch.stack(distances)
        worse = distances >= reached
        worse |= ~worse.any(0)
        return torch.softmax((-distances / self.temperature).masked_fill(~worse, -torch.inf), 0)

    def _ratio(self, anchor: Tensor, references: Tensor, hardness: Tensor) -> Tensor:
        """Return the mean ratio for an anchor [B,…] and references [(1+K)·B,…], the first B of which are positives."""
        within = tuple(range(1, anchor.ndim))
        near, *far = [
            (anchor - reference).abs().mean(within, dtype=torch.float32) for reference in references.split(len(anchor))
        ]
        return (near / ((hardness * torch.stack(far)).sum(0) + self.eps)).mean()


def _spectrum(images: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.rfft2(images.float(), norm="ortho"))
