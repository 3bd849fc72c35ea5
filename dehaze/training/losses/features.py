"""Frozen feature backbones by name, with which the contrastive losses compare images."""

import math
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dehaze.errors import WeightsError

# Convolutions of each block, and the taps: those of LPIPS for VGG16, those of AECR-Net for VGG19.
VGG = {
    "vgg16": ((2, 2, 3, 3, 3), ("relu1_2", "relu2_2", "relu3_3", "relu4_3")),
    "vgg19": ((2, 2, 4, 4, 4), ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")),
}
CLIP_ID = "openai/clip-vit-base-patch16"

# Mean and standard deviation of RGB in the training of the backbones.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Features(nn.Module):
    """A frozen backbone: images [B,3,H,W] in [0,1] to a list of feature maps [B,C,h,w], one for each of `taps`.

    Gradients reach the images, never the weights. The backbone stays in eval mode, whatever module holds it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, taps: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        # channels_last is a third faster on CPUs.
        self.backbone = backbone.requires_grad_(False).to(memory_format=torch.channels_last)
        self.taps = taps
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> "Features":
        return super().train(False)

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class VGGFeatures(Features):
    """Activations of a VGG, cut behind the last tap."""

    backbone: nn.Sequential

    def __init__(self, backbone: nn.Sequential, names: tuple[str, ...], taps: tuple[str, ...]):
        super().__init__(backbone, taps, *IMAGENET)
        self.names = names

    def forward(self, images: Tensor) -> list[Tensor]:
        x, tapped = self._normalised(images), []
        for name, layer in zip(self.names, self.backbone, strict=True):
            x = layer(x)
            if name in self.taps:
                tapped.append(x)
        return tapped


class CLIPFeatures(Features):
    """Patch tokens of a CLIP image encoder, arranged as maps.

    Images may have any size: the position embedding is interpolated, and incomplete patches are ignored.
    """

    def __init__(self, backbone: nn.Module, taps: tuple[str, ...]):
        super().__init__(backbone, taps, *OPENAI)
        self.config: Any = backbone.config  # transformers' own

    def forward(self, images: Tensor) -> list[Tensor]:
        pixels = self._normalised(images)
        states = self.backbone(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
        grid = [side // self.config.patch_size for side in images.shape[-2:]]
        # State 0 is the embedding, token 0 the class token.
        tokens = [states[int(tap.removeprefix("layer"))][:, 1:] for tap in self.taps]
        return [token.transpose(1, 2).unflatten(2, grid) for token in tokens]


@overload
def get_features(
    name: Literal["vgg16", "vgg19"], weights: str | Path | None = None, *, last: str | None = None
) -> VGGFeatures: ...
@overload
def get_features(name: str, weights: str | Path | None = None, *, last: str | None = None) -> Features: ...
def get_features(name: str, weights: str | Path | None = None, *, last: str | None = None) -> Features:
    """Return the frozen backbone `name`, "vgg16", "vgg19" or "clip", in float32 on the CPU.

    `weights` of a VGG are a safetensors file with torchvision's names (`features.0.weight`), or None for torchvision's
    weights. `weights` of "clip" are a Hub id or a folder of transformers, or None for OpenAI's ViT-B/16. `last` names
    the last tap ("relu3_3", "layer6"); the layers behind it are dropped. Raises ValueError for an unknown name or tap,
    WeightsError for weights that are missing, damaged, or of another network.
    """
    if name == "clip":
        return _clip(str(weights or CLIP_ID), last)
    if name in VGG:
        return _vgg(name, weights, last)
    raise ValueError(f"no feature backbone is called {name!r}; known: {', '.join([*VGG, 'clip'])}")


def _vgg(name: str, weights: str | Path | None, last: str | None) -> VGGFeatures:
    blocks, all_taps = VGG[name]
    taps = _up_to(last, all_taps)
    layers: dict[str, nn.Module] = {}
    channels = 3
    with torch.device("meta"):  # the weights are replaced below: initial ones would cost time and random numbers
        for block, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512, 512), strict=True), 1):
            for number in range(1, count + 1):
                layers[f"conv{block}_{number}"] = nn.Conv2d(channels, width, 3, padding=1)
                layers[f"relu{block}_{number}"] = nn.ReLU(inplace=True)
                channels = width
            layers[f"pool{block}"] = nn.MaxPool2d(2)
    names, whole = tuple(layers), nn.Sequential(*layers.values())

    # All weights up to the last tap must fit, even if `last` needs fewer: VGG16 and VGG19 begin alike.
    # Torchvision's weights behind the last tap are optional.
    stack = whole[: names.index(all_taps[-1]) + 1]
    needed = stack.state_dict(prefix="features.")
    behind = whole.state_dict(prefix="features.").keys() - needed.keys()
    source, tensors = _read(Path(weights)) if weights else _torchvision(name)
    given = {key: x for key, x in tensors.items() if key not in behind and not key.startswith("classifier.")}
    shared = needed.keys() & given.keys()
    wrong = (needed.keys() ^ given.keys()) | {key for key in shared if needed[key].shape != given[key].shape}
    if wrong:
        raise WeightsError(
            f"does not fit {name}: {len(wrong)} tensors are missing, unknown or misshapen, such as {min(wrong)}.",
            f"Give a safetensors file of {name} up to {all_taps[-1]} with torchvision's names.",
            subject=source,
        )
    stack.load_state_dict({key.removeprefix("features."): x.float() for key, x in given.items()}, assign=True)
    end = names.index(taps[-1]) + 1
    return VGGFeatures(stack[:end], names[:end], taps)


def _read(path: Path) -> tuple[str | Path, dict[str, Tensor]]:
    try:
        return path, load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"cannot be read as safetensors ({error}).",
            "Give another file, or none for torchvision's weights.",
            subject=path,
        ) from error


def _torchvision(name: str) -> tuple[str, dict[str, Tensor]]:
    try:
        from torchvision.models import get_model_weights

        # torchvision publishes pickles; weights_only runs no code from them.
        weights = get_model_weights(name)["IMAGENET1K_V1"]
        return "torchvision's file", weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"cannot be loaded ({error}).",
            "Give a safetensors file of them.",
            subject=f"torchvision's weights of {name}",
        ) from error


def _clip(weights: str, last: str | None) -> CLIPFeatures:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    try:
        config = CLIPVisionConfig.from_pretrained(weights)
        quarters = {math.ceil(config.num_hidden_layers * part / 4) for part in (1, 2, 3, 4)}
        taps = _up_to(last, tuple(f"layer{number}" for number in sorted(quarters)))
        config.num_hidden_layers = int(taps[-1].removeprefix("layer"))  # the layers behind it are not built
        model, report = CLIPVisionModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues] - not with a report
            weights, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"cannot be read as a CLIP model ({error}).",
            "Give a Hub id or a folder with config.json and model.safetensors.",
            subject=weights,
        ) from error
    if missing := report["missing_keys"]:  # transformers fills them with random numbers
        raise WeightsError(
            f"holds no CLIP image encoder: {len(missing)} tensors are missing, such as {min(missing)}.",
            "Give a Hub id or a folder of a CLIP model.",
            subject=weights,
        )
    return CLIPFeatures(model, taps)


def _up_to(last: str | None, taps: tuple[str, ...]) -> tuple[str, ...]:
    if last is None:
        return taps
    if last not in taps:
        raise ValueError(f"no tap is called {last!r}; known: {', '.join(taps)}")
    return taps[: taps.index(last) + 1]
