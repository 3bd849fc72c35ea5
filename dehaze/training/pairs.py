"""Training samples from pairs of a hazy and a clear photograph: real pairs (NH-HAZE, O-HAZE) or pseudo-labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dehaze.errors import DehazeError
from dehaze.haze import HazeRenderer
from dehaze.io.photo import read_photo_header
from dehaze.training.data import Photos, RenderedCrops, Scene, SeededSamples, cut, photographs, random_square

VALIDATION_INTERVAL = 10  # pairs
LONG_SIDE = 800  # px of photographs that are restored whole


@dataclass(frozen=True)
class Pair:
    """A hazy and a clear photograph of one scene, of one size."""

    hazy: Path
    clear: Path


def find_pairs(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """List the pairs of a folder, split into training and validation.

    The folder holds `hazy/` and `clear/` with images of the same names, whatever their suffixes (NH-HAZE's
    `01_hazy.png` becomes `hazy/01.png`). Every tenth pair by name is for validation, from the fifth on. Raises
    DehazeError if there is no pair, if a hazy image has no clear one, or if the sizes of a pair differ.
    """
    clear = {path.stem: path for path in photographs(folder / "clear")}
    pairs = []
    for hazy in photographs(folder / "hazy"):
        if hazy.stem not in clear:
            raise DehazeError(
                "has no clear image.", f"Add {folder / 'clear' / hazy.stem} (.png or .jpg).", subject=hazy
            )
        pair = Pair(hazy, clear[hazy.stem])
        one, other = _size(pair.hazy), _size(pair.clear)
        if one and other and one != other:
            raise DehazeError(
                f"has {one[0]}×{one[1]} px, and {pair.clear} has {other[0]}×{other[1]}.",
                "Give aligned pairs.",
                subject=pair.hazy,
            )
        pairs.append(pair)
    if not pairs:
        raise DehazeError("holds no photograph.", "Give the folder above hazy/ and clear/.", subject=folder / "hazy")
    validation = pairs[VALIDATION_INTERVAL // 2 - 1 :: VALIDATION_INTERVAL]
    return [pair for pair in pairs if pair not in validation], validation


def _size(path: Path) -> tuple[int, int] | None:
    """Return width and height, upright; None for a damaged file, which is named with the others of its kind."""
    try:
        header = read_photo_header(path)
    except DehazeError:
        return None
    return header.width, header.height


def paired_crop(
    pair: Pair, size: int, generator: torch.Generator, smallest: float, photos: Photos
) -> dict[str, Tensor]:
    """Cut one square drawn by `random_square` from both images: `hazy` and `clear` [3,size,size] in [0,1].

    The density is unknown, and therefore NaN.
    """
    hazy, clear = photos.read(pair.hazy), photos.read(pair.clear)
    box, mirrored = random_square(hazy.size, smallest, generator)
    crops = {"hazy": cut(hazy, box, size), "clear": cut(clear, box, size)}
    crops = {name: crop.flip(-1) for name, crop in crops.items()} if mirrored else crops
    return crops | {"density": torch.full_like(crops["hazy"][:1], torch.nan)}


def whole(path: Path) -> Tensor:
    """Read a photograph at a long side of at most 800 px, as the protocol long800-v1 does: [1,3,H,W] in [0,1]."""
    photo = Photos().read(path)
    photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255


class PairedCrops(SeededSamples):
    """Crops of pairs: `hazy` and `clear` [3,S,S] in [0,1], and an unknown `density` [1,S,S]."""

    def make(self, source: Pair, generator: torch.Generator) -> dict[str, Tensor]:
        return paired_crop(source, self.size, generator, self.smallest, self.photos)


class MixedCrops(RenderedCrops):
    """Crops of scenes, rendered hazy, and in `share` of the samples crops of `pairs`."""

    def __init__(self, scenes: list[Scene], renderer: HazeRenderer, pairs: list[Pair], share: float, **which: Any):
        super().__init__(scenes, renderer, **which)
        self.pairs, self.share = pairs, share

    def make(self, source: Scene, generator: torch.Generator) -> dict[str, Tensor]:
        mixed, which = torch.rand(2, generator=generator).tolist()
        if mixed >= self.share:
            return super().make(source, generator)
        pair = self.pairs[int(which * len(self.pairs))]
        return paired_crop(pair, self.size, generator, self.smallest, self.photos)
