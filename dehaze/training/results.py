"""What a run leaves at each validation: scores, a sheet of samples, folders of weights, and its checkpoint."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dehaze import hub
from dehaze.io.files import write_whole
from dehaze.networks.base import Network
from dehaze.training.checkpoint import TrainingState
from dehaze.training.log import Log
from dehaze.training.recipe import Recipe
from dehaze.training.sheet import write_sheet
from dehaze.training.sources import Sources
from dehaze.training.validation import validate_pairs

_SHOWN = 2  # samples of each kind in a sheet
_CARD = """---
{license}
library_name: dehaze
pipeline_tag: image-to-image
weights_sha256: {sha256}
---

# `{model}`: trained by the recipe `{recipe}`

Complete this card before you publish it: what the model does, what it was trained on, where it fails.

| validation at step {step} of {steps} | value |
| --- | --- |
{scores}

| setting | value |
| --- | --- |
{settings}
"""


class Results:
    """Validate a run and write its results into `output`.

    `settings` are those of `settings.describe`; `kept` is how many folders `step-N` stay.
    """

    def __init__(self, recipe: Recipe, sources: Sources, output: Path, settings: Mapping[str, Any], kept: int):
        self._recipe, self._sources, self._output = recipe, sources, output
        self._settings, self._kept = settings, kept
        self._log = Log(output / "log.csv")

    def keep(self, state: TrainingState, figures: Mapping[str, float]) -> dict[str, float]:
        """Validate the moving average, write everything, and return the scores. Raises OutputError.

        The checkpoint is written last, as a run that goes on from an older one writes the rest again.
        """
        scores, output = self._scores(state.average), self._output
        row = {"step": state.step, "seconds": round(state.seconds), **state.losses, **scores, **figures}
        self._log.keep_until(state.step - 1)
        self._log.append(row)
        if rows := self._samples(state.average):
            write_sheet(rows, output / "samples" / f"step-{state.step}.png")
        decisive = "pairs_restored" if "pairs_restored" in scores else self._recipe.best
        if (score := scores.get(decisive)) is not None:
            better = state.best is None or score > state.best
            state.best, state.worse = (score, 0) if better else (state.best, state.worse + 1)
            if better:
                self._write_weights(state, output / "best", scores)
        if state.step:
            self._write_weights(state, output / f"step-{state.step}", scores)
            self._write_weights(state, output / "weights", scores)
            steps = sorted(output.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
            for old in steps[: max(0, len(steps) - self._kept)]:
                shutil.rmtree(old)
        state.save(output / "checkpoint.safetensors")
        return scores

    def _scores(self, network: nn.Module) -> dict[str, float]:
        scores = {}
        if self._sources.held_out_scenes:
            scores |= self._recipe.validate(network, self._sources.rendered(self._recipe, _device(network)))
        if self._sources.held_out_pairs and isinstance(network, Network):
            scores |= validate_pairs(network, self._sources.whole_pairs())
        return scores

    def _samples(self, network: nn.Module) -> list[Mapping[str, Tensor]]:
        """Return rows for the sheet: the same few held-out pairs and scenes, and real hazy photographs, each time."""
        return [self._recipe.show(network, batch) for batch in self._sources.samples(self._recipe, _SHOWN)]

    def _write_weights(self, state: TrainingState, folder: Path, scores: Mapping[str, float]) -> None:
        """Write a folder of weights, configuration and the stub of a card; a reader never finds half a file."""
        made = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(made, ignore_errors=True)
        self._recipe.save(state.average, made)
        card = self._card(state.step, hub.sha256(made / hub.WEIGHTS_FILE), scores)
        (made / hub.CARD_FILE).write_text(card, encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():
            os.replace(file, folder / file.name)
        made.rmdir()

    def _card(self, step: int, sha256: str, scores: Mapping[str, float]) -> str:
        recipe, given, about = self._recipe, self._settings, self._settings["card"]
        sources = {key: Path(given[key]).name for key in ("data", "pairs", "val_pairs", "real", "start") if given[key]}
        shown = sources | {key: getattr(recipe, key) for key in ("batch", "crop", "learning_rate", "seed")}
        shown |= {"freeze": " ".join(recipe.freeze)} if recipe.freeze else {}
        shown |= given["made_with"]
        return _CARD.format(
            license=f"license: {about['license']}" if about["license"] else "# license: choose one",
            sha256=sha256,
            model=recipe.model,
            recipe=about["name"] or recipe.model,
            step=step,
            steps=recipe.steps,
            scores=_rows(scores) or "| none was made | |",
            settings=_rows(shown),
        )


def state_license(folder: Path, license: str) -> None:
    """State the licence in the card of a folder of weights, which may have been written without."""
    card = folder / hub.CARD_FILE
    text = re.sub(r"^(# )?license:.*$", f"license: {license}", card.read_text(encoding="utf-8"), count=1, flags=re.M)
    write_whole(card, text.encode())


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {key} | {value} |" for key, value in values.items())


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
