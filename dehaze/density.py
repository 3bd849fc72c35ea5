"""Haze density and image embeddings from CLIP (for CLIPHaze, arXiv 2408.12317).

The paper shows that CLIP tells haze from clear air without training for it. Prompts and layers are ours, after CLIP
Surgery (Li et al. 2023).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypedDict

from dehaze.errors import WeightsError
from dehaze.hub import (
    CONFIG_FILE,
    HUB_ID,
    WEIGHTS_FILE,
    check_file,
    download,
    one_line,
    read_config,
    read_tensors,
    shipped_folder,
    validated,
)
from dehaze.networks.base import TakesInstruction
from dehaze.networks.limits import Width

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

HAZY_PROMPTS = (
    "a photo of a scene in the fog",
    "a hazy photo",
    "a photo with dense haze",
    "a foggy scene",
    "a photo taken in thick smog",
)
CLEAR_PROMPTS = (
    "a clear photo of a scene",
    "a photo on a sunny day",
    "a photo with no haze",
    "a scene in clear air",
    "a photo taken with good visibility",
)

TOKENIZER_FILE = "tokenizer.json"
MAX_CLIP_BYTES = {WEIGHTS_FILE: 2**32, CONFIG_FILE: 2**20, TOKENIZER_FILE: 2**24}  # bytes that are read of each
POSITION_TENSORS = (
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)  # in older files, no weights

# Mean and standard deviation of RGB that CLIP models are trained with.
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Haze(NamedTuple):
    """CLIP's estimates: `density` [B,1,H,W] and `score` [B] in [0,1], and `embedding` [B,D] of length 1."""

    density: Tensor
    score: Tensor
    embedding: Tensor


class HazeDensity(nn.Module):
    """Estimate how hazy images are, and where, by comparing them with prompts of haze and of clear air.

    The score compares the image's embedding with the mean of either set, at the model's own temperature (100 in
    OpenAI's). The density does so for each patch and its neighbours. The embedding is the image's without its component
    along the direction from clear to hazy, normalised. Images of any size are resized to about as many pixels as the
    model was trained with, in whole patches. Gradients reach the images.
    """

    prompts: Tensor

    def __init__(
        self,
        model: "CLIPModel",
        tokenizer: "CLIPTokenizer",
        hazy: Sequence[str] = HAZY_PROMPTS,
        clear: Sequence[str] = CLEAR_PROMPTS,
    ):
        super().__init__()
        self.model = model
        with torch.no_grad():  # once: the prompts stay the same
            texts = encode_texts(model, tokenizer([*hazy, *clear], padding=True, return_tensors="pt"))
        self.register_buffer("prompts", mean_prompts(texts, len(hazy)), persistent=False)

    def forward(self, image: Tensor) -> Haze:
        """Return density, score and embedding of `image` [B,3,H,W] in [0,1] from one pass."""
        with torch.autocast(image.device.type, enabled=False):  # at a temperature of 100 rounding would show
            patches, whole = encode_images(self.model, image.float())
            local, score = (haziness(self.model, x, self.prompts) for x in (patches, whole))
            # Haze is smooth and single patches err: each is averaged with those around it.
            density = F.avg_pool2d(local[:, None], 3, stride=1, padding=1, count_include_pad=False).sigmoid()
            direction = F.normalize(self.prompts[0] - self.prompts[1], dim=0)
            embedding = F.normalize(whole - (whole @ direction)[:, None] * direction, dim=-1)
        density = F.interpolate(density, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return Haze(density, score.sigmoid(), embedding)

    def map(self, image: Tensor) -> Tensor:
        """Return the haze density [B,1,H,W] in [0,1] of `image` [B,3,H,W] in [0,1]."""
        return self(image).density


def encode_texts(model: "CLIPModel", tokens: Mapping[str, Tensor]) -> Tensor:
    """Return the embeddings [N,D], of length 1, of tokenised texts (`input_ids` and `attention_mask` [N,T])."""
    given = {key: value.to(model.device) for key, value in tokens.items()}
    return F.normalize(model.text_projection(model.text_model(**given).pooler_output).float(), dim=-1)


def mean_prompts(texts: Tensor, hazy: int) -> Tensor:
    """Return the means [2,D], of length 1, of the embeddings of the first `hazy` prompts and of the others."""
    return F.normalize(torch.stack([texts[:hazy].mean(0), texts[hazy:].mean(0)]), dim=-1)


def encode_images(model: "CLIPModel", image: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings, of length 1, of the patches [B,h,w,D] and of each whole image [B,D], both in CLIP's space.

    In the last layer patches attend to patches with similar values, instead of by queries and keys, and its MLP is left
    out (CLIP Surgery): both would mix other places into a patch.
    """
    config: Any = model.config.vision_config  # transformers allows a dictionary or None, too
    vision: Any = model.vision_model
    scale = config.image_size / math.sqrt(image.shape[-2] * image.shape[-1])
    grid = [max(1, round(side * scale / config.patch_size)) for side in image.shape[-2:]]
    size = [cells * config.patch_size for cells in grid]
    if size != list(image.shape[-2:]):
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    seen = vision((image - mean) / std, output_hidden_states=True, interpolate_pos_encoding=True)
    whole = model.visual_projection(seen.pooler_output)

    last, before = vision.encoder.layers[-1], seen.hidden_states[-2]
    attention = last.self_attn
    value = attention.v_proj(last.layer_norm1(before)).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    alike = (value @ value.transpose(-1, -2) * attention.scale).softmax(-1).to(value.dtype)
    tokens = before + attention.out_proj((alike @ value).transpose(1, 2).flatten(2))
    tokens = vision.post_layernorm(tokens[:, 1:])  # the first is the class token
    patches = model.visual_projection(tokens).unflatten(1, grid)
    return F.normalize(patches.float(), dim=-1), F.normalize(whole.float(), dim=-1)


def haziness(model: "CLIPModel", embeddings: Tensor, prompts: Tensor) -> Tensor:
    """Return the logit of "hazy" against "clear", for embeddings [...,D] and the `mean_prompts` [2,D]."""
    return model.logit_scale.exp() * (embeddings @ (prompts[0] - prompts[1]))


class Tower(TypedDict, total=False):
    """The entries of a tower's configuration that its layers depend on; others are not read."""

    hidden_size: Width
    intermediate_size: Annotated[int, Field(ge=1, le=2**16)]
    projection_dim: Width
    num_hidden_layers: Annotated[int, Field(ge=1, le=64)]
    num_attention_heads: Annotated[int, Field(ge=1)]
    hidden_act: Literal["quick_gelu", "gelu"]
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)]


class TextTower(Tower, total=False):
    vocab_size: Annotated[int, Field(ge=1, le=2**20)]
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**12)]
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int


class VisionTower(Tower, total=False):
    image_size: Annotated[int, Field(ge=1, le=2**12)]
    patch_size: Annotated[int, Field(ge=1, le=2**12)]


class Towers(TypedDict, total=False):
    text_config: TextTower
    vision_config: VisionTower
    projection_dim: Width


class BytePairs(TypedDict):
    vocab: dict[str, int]
    merges: list[str] | list[tuple[str, str]]


class TokenizerFile(TypedDict):
    model: BytePairs


def load_density(clip: str | Path = "shipped") -> HazeDensity:
    """Load a CLIP model to estimate haze with, on the CPU, in eval mode, its weights frozen.

    `clip` is "shipped", a local folder or a Hub id `org/name[@revision]` of a CLIP model as `transformers` writes it
    (`openai/clip-vit-base-patch16`): config.json, model.safetensors and tokenizer.json. Every tensor must be there, and
    no other file is read. Raises WeightsError.
    """
    folder, hub_id = Path(clip), HUB_ID.fullmatch(str(clip))
    if clip == "shipped":
        folder = shipped_folder("clip")
        if not folder.is_dir():
            raise WeightsError("No CLIP model ships with this package.", "Give a folder or a Hub id of one.")
    if not folder.is_dir():
        if not hub_id:
            raise WeightsError("is neither a folder of a CLIP model nor a Hub id org/name.", subject=clip)
        folder = download(**hub_id.groupdict(), largest=MAX_CLIP_BYTES)
    for name, largest in MAX_CLIP_BYTES.items():
        check_file(folder / name, largest)
    try:
        config = _read_towers(folder / CONFIG_FILE)
        tokenizer = _read_tokenizer(folder / TOKENIZER_FILE)
        text: Any = config.text_config
        if len(tokenizer) > text.vocab_size:
            raise ValueError(f"{TOKENIZER_FILE} is of another model: it knows more words")
        return HazeDensity(_read_model(config, folder / WEIGHTS_FILE), tokenizer)
    except WeightsError:
        raise
    except Exception as error:  # transformers' own kinds, and those of its tokenizers
        raise WeightsError(
            f"holds no CLIP model that can be loaded ({one_line(error)}).",
            "Download or copy it again, or give another.",
            subject=clip,
        ) from error


def load_clip(network: nn.Module) -> HazeDensity | None:
    """Load the CLIP model that instructs a network, as `load_density` does; None where the network takes none.

    Raises WeightsError, also where the model's embeddings do not fit the network.
    """
    if not isinstance(network, TakesInstruction) or not network.instructions:
        return None
    clip = load_density(network.clip)
    if (found := clip.prompts.shape[-1]) != network.embedding_size:
        raise WeightsError(
            f"gives embeddings of {found} numbers, and the network takes {network.embedding_size}.",
            "Give the CLIP model that the network was trained with.",
            subject=f"The CLIP model {network.clip}",
        )
    return clip


@torch.no_grad()
def instruct(network: nn.Module, clip: HazeDensity | None, hazy: Tensor) -> dict[str, Tensor]:
    """Return what a network takes beside `hazy` [B,3,H,W] in [0,1]: arguments by name, none for most networks.

    A density is a map [B,1,H,W] in [0,1], an embedding [B,D] belongs to the whole image.
    """
    if clip is None or not isinstance(network, TakesInstruction):
        return {}
    seen = clip(hazy)._asdict()
    return {name: seen[name] for name in network.instructions}


def _read_towers(file: Path) -> "CLIPConfig":
    from transformers import CLIPConfig

    config = CLIPConfig(**validated(Towers, read_config(file)))
    vision: Any = config.vision_config
    if vision.patch_size > vision.image_size:
        raise ValueError(f"patches of {vision.patch_size} px do not fit into images of {vision.image_size} px")
    return config


def _read_tokenizer(file: Path) -> "CLIPTokenizer":
    """Build CLIP's own tokenizer with the vocabulary of a file; the file's processing steps are not read."""
    from transformers import CLIPTokenizer

    pairs = validated(TokenizerFile, read_config(file, MAX_CLIP_BYTES[TOKENIZER_FILE]))["model"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else pair for pair in pairs["merges"]]
    return CLIPTokenizer(pairs["vocab"], merges)  # pyright: ignore[reportArgumentType] - tokenizers takes pairs


def _read_model(config: "CLIPConfig", file: Path) -> "CLIPModel":
    from transformers import CLIPModel

    with torch.device("meta"):
        outline = CLIPModel(config)
    tensors = read_tensors(outline, file, "clip", ignored=POSITION_TENSORS)
    with _without_progress_bar():
        model = CLIPModel.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32)
    return model.eval().requires_grad_(False)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide transformers' progress bar, which would flash by."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
