"""The quadruplet loss of DRACO-DehazeNet (arXiv 2410.14595), in the form of its code and in the form of its text."""

import torch
from torch import Tensor, nn

FORMS = ("intent", "published")


def encoder() -> nn.Sequential:
    """Return a trainable encoder of the authors' layers: images [B,3,H,W] to features [B,64,H/4,W/4]."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 1), nn.ReLU()),
    )


class Quadruplet(nn.Module):
    """Contrast the results J₁ and J₂ of DRACO with the hazy image I and the clear one C by features φ.

    φ is a trainable encoder, then the frozen `block` from 64 to 64 channels (the authors use the second convolution of
    VGG19 with its rectifier), then 2×2 max pooling.

    `form="published"` is the authors' code: `mean[|φJ₂ − φI| / 32 / (|φJ₂ − φC| + |φJ₁ − φC| + |φJ₁ − φJ₂| + 1e−7)]`
    over features, with one encoder for each of the four images. Its minimum pulls J₂ to the hazy image and from the
    clear one. `form="intent"` (ours) swaps I and C: `|φJ₂ − φC| / 32 / (|φJ₂ − φI| + |φJ₁ − φI| + |φJ₁ − φJ₂|)`, with
    one encoder for all, so that equal images have equal features, and with means over each sample: a ratio of single
    features would diverge where a rectifier is 0 for three of the four images.
    """

    def __init__(self, block: nn.Module, form: str = "intent"):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"no quadruplet loss is called {form!r}; known: {', '.join(FORMS)}")
        self.form = form
        self.encoders = nn.ModuleList(encoder() for _ in range(4 if form == "published" else 1))
        self.block = nn.Sequential(block.requires_grad_(False), nn.MaxPool2d(2))

    def forward(self, hazy: Tensor, first: Tensor, second: Tensor, clear: Tensor) -> Tensor:
        """Return the loss of `hazy`, J₁, J₂ and `clear`, each [B,3,H,W] in [0,1], H and W at least 8."""
        if self.form == "published":
            i, j1, j2, c = (
                self.block(encoder(image)).float()
                for encoder, image in zip(self.encoders, (hazy, first, second, clear), strict=True)
            )
            pull, push = (j2 - i).abs(), (j2 - c).abs() + (j1 - c).abs() + (j1 - j2).abs()
            return (pull / 32 / (push + 1e-7)).mean()
        encoded = self.block(self.encoders[0](torch.cat([hazy, first, second, clear])))
        i, j1, j2, c = encoded.float().flatten(1).chunk(4)
        pull, push = (j2 - c).abs(), (j2 - i).abs() + (j1 - i).abs() + (j1 - j2).abs()
        return (pull.mean(1) / 32 / (push.mean(1) + 1e-7)).mean()
