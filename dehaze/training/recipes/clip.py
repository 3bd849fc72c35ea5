"""A small CLIP of our own that knows haze: images and texts are contrasted by rendered haze, graded and placed.

Captions name how dense the haze of an image is, and whether it lies evenly. The prompts that `dehaze.density` compares
with are held against the image as a whole, whose mean density they must tell, and against its patches, each with a
density of its own. All of it is ours.
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

from dehaze.density import CLEAR, HAZY, HazeDensity, encode_images, encode_texts, haziness, mean_prompts
from dehaze.haze import RendererConfig
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.validation import spearman

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

IMAGE, PATCH = 128, 8  # px
TEXT = 32  # tokens
CONTRAST, SCORE, DENSITY = 0.2, 0.5, 1.0

# Below each bound of the mean density, what the haze is called; three words for each.
GRADES = (
    (0.03, ("no haze", "clear air", "good visibility")),
    (0.2, ("light haze", "thin mist", "a little haze")),
    (0.4, ("haze", "mist", "some fog")),
    (0.65, ("dense haze", "fog", "heavy smog")),
    (1.01, ("thick fog", "very dense fog", "thick smog")),
)
UNEVEN = 0.12  # standard deviation of the density, above which haze does not lie evenly
FRAMES = ("a photo with {}", "a photo of a scene with {}", "a scene in {}")
UNEVEN_FRAMES = ("a photo with patches of {}", "a photo with {} in some places", "a scene in uneven {}")


def captions() -> list[str]:
    """List all captions: for each grade, even and uneven, 9 of them, one block after the other."""
    return [
        frame.format(word)
        for _, words in GRADES
        for frames in (FRAMES, UNEVEN_FRAMES)
        for frame in frames
        for word in words
    ]


PER_KIND = 9  # captions of one grade, even or uneven


def kinds(density: Tensor) -> Tensor:
    """Return of which kind the haze of each density [B,1,H,W] in [0,1] is, [B]: twice its grade, plus 1 if uneven."""
    bounds = torch.tensor([bound for bound, _ in GRADES[:-1]], device=density.device)
    grade = torch.bucketize(density.mean((1, 2, 3)), bounds, right=True)
    return 2 * grade + (density.std((1, 2, 3)) > UNEVEN)


@cache
def make_tokenizer() -> "CLIPTokenizer":
    """Make the tokenizer: CLIP's, with a token for each word of captions and prompts; other words go letter by letter.

    Always the same, so that a run can be resumed: the library's own trainer numbers tokens anew each time.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    merges = byte_pairs({word for text in (*captions(), *HAZY, *CLEAR) for word in text.split()})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({token: i for i, token in enumerate(tokens)}, merges, model_max_length=TEXT)


def byte_pairs(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs that byte-pair encoding merges, in this order, until each of the words is one token."""
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
    """Make the model with random weights: a vision tower of this width and depth, and a text tower of 128 and 2."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = make_tokenizer()
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    vision |= {"num_attention_heads": width // 32, "image_size": IMAGE, "patch_size": PATCH, "projection_dim": 128}
    text = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": TEXT, "projection_dim": 128}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text |= {"pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    # Attention written out: the fused one's backward pass is slow on CPUs.
    return CLIPModel._from_config(config, attn_implementation="eager")


def save_clip(model: "CLIPModel", folder: Path) -> None:
    """Write the model with its tokenizer and image processor, as `CLIPModel.from_pretrained(folder)` reads it."""
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    square = {"height": IMAGE, "width": IMAGE}
    images = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=square)
    model.save_pretrained(folder)
    CLIPProcessor(images, make_tokenizer()).save_pretrained(folder)


class CLIPObjective(nn.Module):
    """Contrast images with captions, and hold images and patches against the prompts of haze and of clear air."""

    def __init__(self, network: "CLIPModel", average: nn.Module):
        super().__init__()
        self.network = network
        texts = [*captions(), *HAZY, *CLEAR]
        self.tokens = dict(make_tokenizer()(texts, padding=True, return_tensors="pt"))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        density = batch["density"]
        patches, whole = encode_images(self.network, batch["hazy"])
        texts = encode_texts(self.network, self.tokens)
        count = len(captions())
        draws = torch.Generator().manual_seed(int(batch["index"][0]))  # so that a resumed run draws the same
        kind = kinds(density)
        drawn = torch.randint(PER_KIND, (len(kind),), generator=draws).to(kind.device)
        with torch.autocast(density.device.type, enabled=False):
            captioned = texts[:count][PER_KIND * kind + drawn]
            similarity = self.network.logit_scale.exp() * whole @ captioned.T
            prompts = mean_prompts(texts[count:], len(HAZY))
            score, map_ = (haziness(self.network, x, prompts) for x in (whole, patches))
            local = F.adaptive_avg_pool2d(density, map_.shape[-2:])[:, 0]
            return {
                "contrast": CONTRAST * contrast(similarity, kind),
                "score": SCORE * F.binary_cross_entropy_with_logits(score, density.mean((1, 2, 3))),
                "density": DENSITY * F.binary_cross_entropy_with_logits(map_, local),
            }


def contrast(similarity: Tensor, kind: Tensor) -> Tensor:
    """Return the contrastive loss of images (rows) and captions (columns), in both directions.

    All captions of an image's kind [B] are right for it, in equal shares (UniCL, Yang et al. 2022).
    """
    same = (kind[:, None] == kind).to(similarity.dtype)
    right = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(similarity, right) + F.cross_entropy(similarity.T, right)) / 2


@torch.no_grad()
def validate(network: "CLIPModel", batches: Iterable[Batch]) -> dict[str, float]:
    """Tell how well the model knows rendered haze.

    Returns the rank correlation of the map with the density within an image, where that has some spread
    (`density_rank`), and the map's mean absolute error (`density_error`); and over all images the rank correlation of
    the score with the mean density (`score_rank`).
    """
    haze, seen = HazeDensity(network, make_tokenizer()), []
    ranks, errors = [], []
    for batch in batches:
        density, found = batch["density"], haze(batch["hazy"])
        errors.append((found.density - density).abs().mean((1, 2, 3)))
        spread = density.std((1, 2, 3)) > 0.02
        ranks.append(spearman(*(F.avg_pool2d(x[spread], PATCH) for x in (found.density, density))))
        seen.append(torch.stack([found.score, density.mean((1, 2, 3))], 1))
    score, mean = torch.cat(seen).T
    return {
        "density_rank": round(torch.cat(ranks).mean().item(), 4),
        "density_error": round(torch.cat(errors).mean().item(), 4),
        "score_rank": round(spearman(score[None], mean[None]).item(), 4),
    }


RECIPE = Recipe(
    network=make_clip,
    objective=CLIPObjective,
    validate=validate,
    save=save_clip,
    steps=2_000,
    # More uneven haze than for a dehazer: its place is what patches learn from.
    renderer=RendererConfig(perlin_share=0.3, brownian_share=0.25, ramp_share=0.3, clear_share=0.15),
    crop=IMAGE,
    batch=32,
    learning_rate=1e-3,
)
