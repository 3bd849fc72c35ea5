"""Every recipe runs with every option that the documents name, and refuses those that it has no use for."""

import csv
import inspect
from dataclasses import replace
from functools import partial

import pytest

from dehaze import hub
from dehaze.errors import WeightsError
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.start import make_network

CROP = {"ahg": 32, "clip": 128, "draco": 32, "draco_published": 32}  # px; the others need multiples of 64 or take them


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES.names())
def test_twelve_steps_with_every_option(name, data, pairs, features, tmp_path):
    recipe = RECIPES.get(name)
    changes = {"steps": 12, "batch": 2, "accumulate": 2, "crop": CROP.get(name, 64), "pair_share": 0.5}
    changes |= {"freeze": ("*.bias",), "learning_rate": 1e-4}
    options = {"val_pairs": pairs, "pairs": pairs, "real": data / "images", "features": features, "start": "shipped"}
    options["precision"] = "fp32"  # accelerate keeps the first that a process chose
    if recipe.needs_density:
        del options["pairs"], options["val_pairs"]
    if "features" not in inspect.signature(recipe.objective).parameters:
        with pytest.raises(ValueError, match="compares no features"):
            train(replace(recipe, **changes), data, tmp_path, **options)
        del options["features"]
    if isinstance(recipe.network, partial):  # of another configuration than the weights that ship
        with pytest.raises(WeightsError, match="does not fit the model"):
            make_network(recipe, "shipped")
    if isinstance(recipe.network, partial) or not hub.shipped(recipe.model):
        del options["start"]
    options |= {"name": name, "license": "mit", "workers": 0, "save_every": 12, "keep": 1}
    options |= {"patience": 9, "photo_memory": 0.1, "log_with": ["tensorboard"]}
    try:
        weights = train(replace(recipe, **changes), data, tmp_path, **options)
    except ValueError as error:
        assert "learns nothing from real haze" in str(error)
        del options["real"]
        weights = train(replace(recipe, **changes), data, tmp_path, **options)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "12"][2 - len(rows) :]
    assert float(rows[-1][recipe.best])
    for folder in (weights, tmp_path / "best", tmp_path / "step-12"):
        assert hub.find_weights(recipe.model, folder).card.get("license") == "mit"
    assert (tmp_path / "samples" / "step-12.png").exists() and (tmp_path / name).is_dir()
