"""What a run learns from: scenes with depth, pairs, real haze; some of them held out for validation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dehaze.errors import DehazeError
from dehaze.haze import HazeRenderer
from dehaze.training.data import RealHaze, RenderedCrops, Scene, SeededSamples, find_scenes, without_damaged
from dehaze.training.pairs import MixedCrops, Pair, PairedCrops, find_pairs, whole
from dehaze.training.recipe import Recipe
from dehaze.training.validation import VALIDATION_HAZE, VALIDATION_SEED, Batch

MAX_PAIRS = 20  # that are restored whole at each validation


@dataclass(frozen=True)
class Sources:
    """The photographs of a run, by what they are for; every file can be decoded."""

    scenes: list[Scene]
    held_out_scenes: list[Scene]
    pairs: list[Pair]
    held_out_pairs: list[Pair]
    real: RealHaze | None

    def crops(self, recipe: Recipe, first_step: int, real_from: float, memory: int) -> SeededSamples:
        """Return the training samples of a run from a step on, with real haze from the progress `real_from` on."""
        which = {"size": recipe.crop, "smallest": recipe.smallest_crop, "seed": recipe.seed, "memory": memory}
        which |= {"start": first_step * recipe.batch, "stop": recipe.steps * recipe.batch}
        which |= {"real": self.real, "real_from": round(real_from * recipe.steps) * recipe.batch}
        if not self.scenes:
            return PairedCrops(self.pairs, **which)
        renderer = HazeRenderer(recipe.renderer)
        if not self.pairs:
            return RenderedCrops(self.scenes, renderer, **which)
        return MixedCrops(self.scenes, renderer, self.pairs, recipe.pair_share, **which)

    def rendered(self, recipe: Recipe, device: torch.device) -> Iterator[Batch]:
        """Yield the held-out scenes in batches, with the same haze for all recipes."""
        which = {"size": recipe.crop, "seed": VALIDATION_SEED, "start": 0, "stop": len(self.held_out_scenes)}
        crops = RenderedCrops(self.held_out_scenes, HazeRenderer(VALIDATION_HAZE), **which)
        for batch in DataLoader(crops, batch_size=recipe.batch):
            yield {key: value.to(device) for key, value in batch.items()}

    def samples(self, recipe: Recipe, count: int) -> Iterator[Batch]:
        """Yield up to `count` samples each of held-out pairs, of held-out scenes and of real haze, one in a batch."""
        yield from islice(self.whole_pairs(), count)
        yield from islice(self.rendered(replace(recipe, batch=1), torch.device("cpu")), count)
        for path in self.real.files[:count] if self.real else ():
            yield {"hazy": whole(path)}

    def whole_pairs(self) -> Iterator[dict[str, Tensor]]:
        """Yield up to 20 held-out pairs, evenly chosen, as whole photographs."""
        every = -(-len(self.held_out_pairs) // MAX_PAIRS) or 1
        for pair in self.held_out_pairs[::every]:
            yield {name: whole(path) for name, path in vars(pair).items()}


def find_sources(
    say: Callable[[str], None],
    data: Path | None = None,
    pairs: Path | None = None,
    val_pairs: Path | None = None,
    real: Path | None = None,
) -> Sources:
    """Find the photographs of a run, and leave out what is damaged.

    `data` is a folder for `find_scenes`, `pairs` and `val_pairs` are folders for `find_pairs`, `real` holds real hazy
    photographs. Without `val_pairs`, a tenth of the pairs is held out. Raises DehazeError if there is nothing to learn
    from, or if more than one file in a hundred is damaged.
    """
    if data is None and pairs is None:
        raise DehazeError(
            "There is nothing to learn from.", setting="Give --data (clear photographs with depth), --pairs, or both."
        )
    if val_pairs is not None and pairs is None:
        raise DehazeError("There are pairs to validate by and none to learn from.", setting="Give --pairs as well.")
    training, held_out = _usable(([], []) if data is None else find_scenes(data), say)
    known, held_out_pairs = _usable(([], []) if pairs is None else find_pairs(pairs), say)
    if val_pairs is not None:
        first, rest = _usable(find_pairs(val_pairs), say)
        known, held_out_pairs = known + held_out_pairs, first + rest
    if data is not None and not held_out:
        say(f"{len(training)} scenes are too few to hold one out, so none is validated; 11 would do")
    if pairs is not None and not held_out_pairs:
        say(f"{len(known)} pairs are too few to hold one out, so none is validated; 5 would do, or --val-pairs")
    real_haze = None if real is None else RealHaze(real, say)
    return Sources(training, held_out, known, held_out_pairs, real_haze)


def _usable(splits: tuple[list, ...], say: Callable[[str], None]) -> list[list]:
    """Return the splits without what is damaged, which counts over all of them."""
    usable = set(without_damaged([source for split in splits for source in split], say))
    return [[source for source in split if source in usable] for split in splits]
