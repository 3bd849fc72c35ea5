from dataclasses import replace
from functools import partial

import pytest
import torch

from dehaze.hub import load_network
from dehaze.networks.cliphaze import CLIPHaze, CLIPHazeBase, CLIPHazeConfig
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES

TINY = CLIPHazeConfig(widths=(24, 24, 24), blocks=(1, 1, 1, 1, 1))


@pytest.mark.slow
def test_a_run_learns_and_its_weights_load(data, tiny_clip, tmp_path):
    """Its configuration says which CLIP instructs, and whoever loads it has to say so too."""
    full = RECIPES.get("cliphaze_t")
    network = partial(CLIPHaze, replace(TINY, clip=str(tiny_clip)))
    recipe = replace(full, network=network, steps=3, batch=2, crop=64, warmup=0)
    weights = train(recipe, data, tmp_path, workers=0, precision="bf16")
    trained, _ = load_network("cliphaze_t", weights, clip=tiny_clip)
    assert trained.config.clip == str(tiny_clip)
    assert trained.head.weight.abs().max() > 0
    assert (tmp_path / "log.csv").read_text().startswith("step,seconds,l1,hazy,restored,harm,learning_rate,")


@pytest.mark.parametrize("mix", ["local", "global", "sum", "density"])
def test_an_ablation_changes_the_mix_alone(mix):
    ablation, full = RECIPES.get(f"cliphaze_t_{mix}"), RECIPES.get("cliphaze_t")
    assert replace(ablation, network=full.network) == full
    with torch.device("meta"):
        assert ablation.network().config == CLIPHazeConfig(mix=mix)
        assert full.network().config == CLIPHazeConfig(mix="full")


def test_the_large_one_is_for_a_gpu():
    recipe = RECIPES.get("cliphaze_b")
    assert recipe.network is CLIPHazeBase
    assert recipe.objective is RECIPES.get("cliphaze_t").objective
