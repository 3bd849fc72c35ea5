"""Train a small CLIP model that estimates haze density, on rendered haze (all of it ours).

Captions state how dense the haze of an image is and whether it is uniform. The prompts of `dehaze.density` are trained
to give the mean density of the image and the local density of its patches.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.density import CLEAR_PROMPTS, HAZY_PROMPTS, HazeDensity, encode_images, encode_texts, haziness, mean_prompts
from dehaze.haze import RendererConfig
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.validation import spearman

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

IMAGE_SIDE, PATCH_SIDE = 128, 8  # px
TEXT_LENGTH = 32  # tokens
CONTRAST_WEIGHT, SCORE_WEIGHT, DENSITY_WEIGHT = 0.2, 0.5, 1.0

# Upper bound of the mean density in [0,1] for each grade, and three phrases for it.
GRADES = (
    (0.03, ("no haze", "clear air", "good visibility")),
    (0.2, ("light haze", "thin mist", "a little haze")),
    (0.4, ("haze", "mist", "some fog")),
    (0.65, ("dense haze", "fog", "heavy smog")),
    (1.01, ("thick fog", "very dense fog", "thick smog")),
)
MAX_UNIFORM_STD = 0.12  # standard deviation of the density in [0,1]; haze above it is non-uniform
FRAMES = ("a photo with {}", "a photo of a scene with {}", "a scene in {}")
UNEVEN_FRAMES = ("a photo with patches of {}", "a photo with {} in some places", "a scene in uneven {}")


def captions() -> list[str]:
    """List all captions: for each grade 9 of uniform haze, then 9 of non-uniform haze."""
    return [
        frame.format(word)
        for _, words in GRADES
        for frames in (FRAMES, UNEVEN_FRAMES)
        for frame in frames
        for word in words
    ]


CAPTIONS_PER_KIND = 9  # of one grade, uniform or non-uniform


def kinds(density: Tensor) -> Tensor:
    """Return the kind [B] of each density [B,1,H,W] in [0,1]: twice its grade, plus 1 if it is non-uniform."""
    bounds = torch.tensor([bound for bound, _ in GRADES[:-1]], device=density.device)
    grade = torch.bucketize(density.mean((1, 2, 3)), bounds, right=True)
    return 2 * grade + (density.std((1, 2, 3)) > MAX_UNIFORM_STD)


@cache
def make_tokenizer() -> "CLIPTokenizer":
    """Make a CLIP tokenizer with one token for each word of captions and prompts; it spells other words by letters.

    The tokens are the same each time, so that a run can resume. The trainer of the library numbers them anew.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    merges = byte_pairs({word for text in (*captions(), *HAZY_PROMPTS, *CLEAR_PROMPTS) for word in text.split()})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocabulary,
        merges,  # pyright: ignore[reportArgumentType] - tokenizers takes pairs
        model_max_length=TEXT_LENGTH,
    )


def byte_pairs(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return the merges of byte-pair encoding, in order, that make each word one token."""
    split, merges = sorted((*word[:-1], f"{word[-1]}</w>") for word in words), []
    while pairs := Counter(pair for word in split for pair in pairwise(word)):
        merges.append(best := min(pairs, key=lambda pair: (-pairs[pair], pair)))
        split = [_merged(word, best) for word in split]
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged = []
    for part in word:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def make_clip(width: int = 192, layers: int = 6) -> "CLIPModel":
    """Make a CLIP model with random weights; its text tower has width 128 and 2 layers."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = make_tokenizer()
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    vision |= {"num_attention_heads": width // 32, "image_size": IMAGE_SIDE, "patch_size": PATCH_SIDE}
    vision |= {"projection_dim": 128}
    text = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": TEXT_LENGTH, "projection_dim": 128}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text |= {"pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    # The backward pass of fused attention is slow on CPUs.
    return CLIPModel._from_config(config, attn_implementation="eager")


def save_clip(model: "CLIPModel", folder: Path) -> None:
    """Write the model with tokenizer and image processor, in the layout of `CLIPModel.from_pretrained`."""
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    square = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size=square)
    model.save_pretrained(folder)
    CLIPProcessor(images, make_tokenizer()).save_pretrained(folder)


class CLIPObjective(nn.Module):
    """Contrast images with captions, and fit the scores of images and patches to the density."""

    def __init__(self, network: "CLIPModel", average: nn.Module):
        super().__init__()
        self.network = network
        texts = [*captions(), *HAZY_PROMPTS, *CLEAR_PROMPTS]
        self.tokens = dict(make_tokenizer()(texts, padding=True, return_tensors="pt"))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        density = batch["density"]
        patches, whole = encode_images(self.network, batch["hazy"])
        texts = encode_texts(self.network, self.tokens)
        count = len(captions())
        draws = torch.Generator().manual_seed(int(batch["index"][0]))  # so that a resumed run draws the same
        kind = kinds(density)
        drawn = torch.randint(CAPTIONS_PER_KIND, (len(kind),), generator=draws).to(kind.device)
        with torch.autocast(density.device.type, enabled=False):
            captioned = texts[:count][CAPTIONS_PER_KIND * kind + drawn]
            similarity = self.network.logit_scale.exp() * whole @ captioned.T
            prompts = mean_prompts(texts[count:], len(HAZY_PROMPTS))
            score, map_ = (haziness(self.network, x, prompts) for x in (whole, patches))
            rows, columns = map_.shape[-2:]
            local = F.adaptive_avg_pool2d(density, (rows, columns))[:, 0]
            return {
                "contrast": CONTRAST_WEIGHT * contrast(similarity, kind),
                "score": SCORE_WEIGHT * F.binary_cross_entropy_with_logits(score, density.mean((1, 2, 3))),
                "density": DENSITY_WEIGHT * F.binary_cross_entropy_with_logits(map_, local),
            }


def contrast(similarity: Tensor, kind: Tensor) -> Tensor:
    """Return the contrastive loss of images (rows) and captions (columns), in both directions.

    All captions of the kind [B] of an image are positives with equal shares (UniCL, Yang et al. 2022).
    """
    same = (kind[:, None] == kind).to(similarity.dtype)
    right = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(similarity, right) + F.cross_entropy(similarity.T, right)) / 2


@torch.no_grad()
def validate(network: "CLIPModel", batches: Iterable[Batch]) -> dict[str, float]:
    """Score the model on rendered haze.

    Returns `density_rank`, the rank correlation of map and density within images of non-uniform haze; `density_error`,
    the mean absolute error of the map; and `score_rank`, the rank correlation of score and mean density of all images.
    """
    haze, seen = HazeDensity(network, make_tokenizer()), []
    ranks, errors = [], []
    for batch in batches:
        density, found = batch["density"], haze(batch["hazy"])
        errors.append((found.density - density).abs().mean((1, 2, 3)))
        spread = density.std((1, 2, 3)) > 0.02
        ranks.append(spearman(*(F.avg_pool2d(x[spread], PATCH_SIDE) for x in (found.density, density))))
        seen.append(torch.stack([found.score, density.mean((1, 2, 3))], 1))
    score, mean = torch.cat(seen).T
    return {
        "density_rank": round(torch.cat(ranks).mean().item(), 4),
        "density_error": round(torch.cat(errors).mean().item(), 4),
        "score_rank": round(spearman(score[None], mean[None]).item(), 4),
    }


@torch.no_grad()
def show(network: "CLIPModel", batch: Batch) -> dict[str, Tensor]:
    """Return the columns of the sample sheet: the image, and the density found in it."""
    found = HazeDensity(network, make_tokenizer()).map(batch["hazy"].to(network.device))
    truth = {"truth": batch["density"]} if "density" in batch else {}
    return {"hazy": batch["hazy"], "density": found, **truth}


RECIPE = Recipe(
    model="clip",
    network=make_clip,
    objective=CLIPObjective,
    validate=validate,
    show=show,
    best="density_rank",
    needs_density=True,
    save=save_clip,
    steps=2_000,
    # More non-uniform haze than for a dehazer: patches learn from its local density.
    renderer=RendererConfig(perlin_share=0.3, brownian_share=0.25, ramp_share=0.3, clear_share=0.15),
    crop=IMAGE_SIDE,
    batch=32,
    learning_rate=1e-3,
)

RECIPES = {"clip": RECIPE}
