"""MNCD, the multi-negative contrastive dehazing loss of API (arXiv 2601.01992): spatial and frequency halves.

The paper's text gives several negatives and the two domains; the formulas are ours, after AECR-Net (CVPR 2021) for the
spatial half, FADformer (ECCV 2024) for the frequencies and C2PNet (CVPR 2023) for hard negatives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MNCD(nn.Module):
    """Pull a restored image towards the clear one and push it off the negatives, by features and by frequencies.

    Both halves are Σ_i w_i·|φ_i(J) − φ_i(C)| / (Σ_k ω_k·|φ_i(J) − φ_i(N_k)| + ε), where |·| is the mean absolute value
    within a sample, and then the mean over the samples. In the spatial half φ_i are the taps of `features`; with None
    there is no such half. In the frequency half φ is one: real and imaginary parts of the orthonormal 2-D FFT (the half
    spectrum that a real image has), in float32 whatever the precision around it.

    `spatial` and `frequency` weigh the halves. `weights` are w_i, counted from the deepest tap, which thus weighs 1
    in every backbone: AECR-Net's five for VGG19, the last four of them for VGG16, fewer for a VGG that ends earlier.
    ω_k is a softmax of −d_k/`temperature` over a sample's negatives, where d_k is the mean absolute difference of N_k
    and C in pixels of [0,1]: of two negatives, the one nearer to C by 0.1 weighs e times as much. What is nearer to C
    than J itself is no negative of it, unless all are: to be pushed off the moving average's better result spoils a
    network. `eps` keeps the ratio finite where J is one of the negatives, as an untrained network's output is.
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

        Gradients reach `restored` alone. Raises ValueError without negatives or with more taps than weights.
        """
        if not negatives:
            raise ValueError("a contrast needs negatives: give the hazy image at least")
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
            terms["spatial"] = self.spatial * sum(w * self._ratio(*pair, hardness) for w, *pair in pairs)
        terms["frequency"] = self.frequency * self._ratio(_spectrum(restored), _spectrum(references), hardness)
        return terms

    def hardness(self, restored: Tensor, clear: Tensor, negatives: Sequence[Tensor]) -> Tensor:
        """Return ω [K,B], the share of each negative in each sample's; it sums to 1 over the negatives."""
        reached, *distances = [(image - clear).abs().mean((1, 2, 3)) for image in (restored, *negatives)]
        distances = torch.stack(distances)
        worse = distances >= reached
        worse |= ~worse.any(0)
        return torch.softmax((-distances / self.temperature).masked_fill(~worse, -torch.inf), 0)

    def _ratio(self, anchor: Tensor, references: Tensor, hardness: Tensor) -> Tensor:
        """Return the mean ratio for an anchor [B,…] and references [(1+K)·B,…], of which the first B are positives."""
        within = tuple(range(1, anchor.ndim))
        near, *far = [
            (anchor - reference).abs().mean(within, dtype=torch.float32) for reference in references.split(len(anchor))
        ]
        return (near / ((hardness * torch.stack(far)).sum(0) + self.eps)).mean()


def _spectrum(images: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.rfft2(images.float(), norm="ortho"))
