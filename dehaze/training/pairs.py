"""Pairs of a hazy and a clear photograph: real ones, as NH-HAZE's and O-HAZE's for training, or pseudo-labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dehaze.haze import HazeRenderer
from dehaze.training.data import RenderedCrops, Scene, SeededSamples, cut, random_square

SUFFIXES = {".jpg", ".jpeg", ".png"}
EVERY = 10  # of the pairs, one in ten stays aside


@dataclass(frozen=True)
class Pair:
    """A hazy photograph and the clear one of the same scene and size."""

    hazy: Path
    clear: Path


def find_pairs(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """List the pairs of a folder, split into training and validation.

    The folder holds `hazy/` and `clear/` with images of the same names, whatever their suffixes (NH-HAZE's
    `01_hazy.png` becomes `hazy/01.png`). Every tenth pair by name is for validation, from the fifth on. Raises
    FileNotFoundError that names the first hazy image without a clear one, ValueError where their sizes differ.
    """
    clear = {path.stem: path for path in (folder / "clear").glob("*") if path.suffix.lower() in SUFFIXES}
    pairs = []
    for hazy in sorted(path for path in (folder / "hazy").glob("*") if path.suffix.lower() in SUFFIXES):
        if hazy.stem not in clear:
            raise FileNotFoundError(f"{hazy} has no clear image: expected {folder / 'clear' / hazy.stem} (.png, .jpg)")
        pair = Pair(hazy, clear[hazy.stem])
        with Image.open(pair.hazy) as a, Image.open(pair.clear) as b:
            if a.size != b.size:
                raise ValueError(f"{pair.hazy} is {a.size} px and {pair.clear} {b.size}; pairs must be aligned")
        pairs.append(pair)
    if not pairs:
        raise FileNotFoundError(f"{folder}/hazy holds no JPEG or PNG; give the folder above hazy/ and clear/")
    validation = pairs[EVERY // 2 - 1 :: EVERY]
    return [pair for pair in pairs if pair not in validation], validation


def paired_crop(pair: Pair, size: int, generator: torch.Generator, smallest: float) -> dict[str, Tensor]:
    """Cut one random square, as `random_square` draws it, out of both: `hazy` and `clear` [3,size,size] in [0,1]."""
    with Image.open(pair.hazy) as hazy, Image.open(pair.clear) as clear:
        box, mirrored = random_square(hazy.size, smallest, generator)
        crops = {"hazy": cut(hazy, box, size), "clear": cut(clear, box, size)}
    return {name: crop.flip(-1) for name, crop in crops.items()} if mirrored else crops


class PairedCrops(SeededSamples):
    """Crops of pairs: `hazy` and `clear` [3,S,S] in [0,1].

    There is no `density`: nobody knows it, and a recipe goes without it.
    """

    def make(self, source: Pair, generator: torch.Generator) -> dict[str, Tensor]:
        return paired_crop(source, self.size, generator, self.smallest)


class MixedCrops(RenderedCrops):
    """Scenes, rendered hazy, and in `share` of the samples crops of `pairs` instead, whose density is NaN: unknown."""

    def __init__(self, scenes: list[Scene], renderer: HazeRenderer, pairs: list[Pair], share: float, **which: Any):
        super().__init__(scenes, renderer, **which)
        self.pairs, self.share = pairs, share

    def make(self, source: Scene, generator: torch.Generator) -> dict[str, Tensor]:
        mixed, which = torch.rand(2, generator=generator).tolist()
        if mixed >= self.share:
            return super().make(source, generator)
        item = paired_crop(self.pairs[int(which * len(self.pairs))], self.size, generator, self.smallest)
        return item | {"density": torch.full_like(item["hazy"][:1], torch.nan)}
