"""The small CLIP of our own: what it is made of, and that a few steps teach it haze."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dehaze.density import CLEAR_PROMPTS, HAZY_PROMPTS, load_density
from dehaze.haze import scatter
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.clip import (
    CAPTIONS_PER_KIND,
    FRAMES,
    GRADES,
    UNEVEN_FRAMES,
    CLIPObjective,
    byte_pairs,
    captions,
    contrast,
    kinds,
    make_clip,
    make_tokenizer,
    validate,
)

tiny = partial(make_clip, width=32, layers=2)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Random scenes of 64 px in haze that is denser to one side."""
    draws = torch.Generator().manual_seed(0)
    clear = torch.rand(6, 3, 64, 64, generator=draws)
    ends = torch.rand(6, 1, 1, 2, generator=draws)
    density = F.interpolate(ends, size=(64, 64), mode="bilinear", align_corners=True)
    hazy = scatter(clear, 1 - density, torch.full((6, 3, 1, 1), 0.9))
    return {"index": torch.arange(6), "hazy": hazy, "clear": clear, "density": density}


def test_captions_come_in_blocks_of_one_kind():
    texts = captions()
    assert len(texts) == len(set(texts)) == 2 * len(GRADES) * CAPTIONS_PER_KIND
    assert texts[0] == "a photo with no haze"
    for grade, (_, words) in enumerate(GRADES):
        for uneven, frames in enumerate((FRAMES, UNEVEN_FRAMES)):
            block = texts[CAPTIONS_PER_KIND * (2 * grade + uneven) :][:CAPTIONS_PER_KIND]
            assert set(block) == {frame.format(word) for frame in frames for word in words}


def test_kinds_follow_mean_and_spread():
    even = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9]).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    assert kinds(even).tolist() == [0, 2, 4, 6, 8]
    halves = torch.cat([torch.zeros(1, 1, 8, 4), torch.full((1, 1, 8, 4), 0.6)], 3)
    assert kinds(halves).tolist() == [5]


def test_every_word_of_ours_is_one_token():
    tokenizer = make_tokenizer()
    for text in [*captions(), *HAZY_PROMPTS, *CLEAR_PROMPTS]:
        assert len(tokenizer.tokenize(text)) == len(text.split())
    others = tokenizer("a zebra's stripes, 3 of 4!")["input_ids"]
    assert others.count(tokenizer.eos_token_id) == 1  # where the text ends, and nothing unknown before it


def test_the_tokenizer_is_the_same_in_every_process():
    """The most frequent pair first, ties by the alphabet, as worked out by hand."""
    assert byte_pairs({"abc", "ab"}) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]
    assert byte_pairs({"haha", "ha"}) == [("h", "a</w>"), ("a", "ha</w>"), ("h", "aha</w>")]
    words = [word for text in captions() for word in text.split()]
    assert byte_pairs(words) == byte_pairs(reversed(words))


def test_its_size():
    model = make_clip()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count <= 8_000_000
    assert 4 * count <= 20e6


def test_contrast_of_known_similarities():
    """Two images of one kind share their captions; a perfect answer costs what the sharing leaves open."""
    kind = torch.tensor([0, 0, 3])
    same = (kind[:, None] == kind).float()
    open_ = (2 * torch.tensor(2.0).log() + 0) / 3
    assert contrast(100 * same, kind).item() == pytest.approx(open_.item(), abs=1e-4)
    assert contrast(torch.zeros(3, 3), kind).item() == pytest.approx(np.log(3), abs=1e-5)


@pytest.mark.slow
def test_a_few_steps_teach_it_haze(batch):
    torch.manual_seed(0)
    network = tiny()
    objective = CLIPObjective(network, copy.deepcopy(network)).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    before = validate(network, [batch])
    first = objective(batch, 0.0)
    assert set(first) == {"contrast", "score", "density"}
    for _ in range(30):
        terms = objective(batch, 0.5)
        sum(terms.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = validate(network, [batch])
    for term in first:
        assert terms[term] < first[term]
    assert after["density_error"] < before["density_error"]
    assert after["score_rank"] > 0.9


def test_every_parameter_learns(batch):
    network = tiny()
    sum(CLIPObjective(network, network)(batch, 0.0).values()).backward()
    positions = {"text_model.embeddings.position_embedding.weight", "text_model.embeddings.token_embedding.weight"}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # The keys' bias adds the same to all scores of a query, which the softmax takes out.
        if name not in positions and not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_a_run_leaves_a_clip_that_loads_like_any_other(data, tmp_path):
    from transformers import CLIPModel, CLIPProcessor

    recipe = replace(RECIPES.get("clip"), network=tiny, steps=2, batch=2, crop=64)
    folder = train(recipe, data, tmp_path, workers=0, precision="bf16")
    model, report = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    processor = CLIPProcessor.from_pretrained(folder)
    photo = Image.new("RGB", (160, 200))
    given = processor(text=["a hazy photo"], images=[photo], return_tensors="pt")
    assert model(**given).logits_per_image.shape == (1, 1)
    assert given["pixel_values"].shape == (1, 3, 128, 128)
    assert {path.suffix for path in Path(folder).iterdir()} == {".json", ".md", ".safetensors"}
    assert load_density(folder).map(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)
