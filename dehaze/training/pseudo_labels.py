"""Label real hazy photographs with what a model makes of them: `python -m dehaze.training.pseudo_labels PHOTO …`.

The pairs are for `python -m dehaze.training --pairs`. Rendered haze is never quite like the real; a model that keeps
what it does to real haze, while it learns from the rendered, forgets less of it (self-training, here ours). Look at the
labels before you train on them, and take out those that are worse than their photograph.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import dehaze
from dehaze.errors import DehazeError
from dehaze.filters.flatness import deviation, evenness
from dehaze.filters.guided import guided_coefficients
from dehaze.io import names
from dehaze.io.photo import read_photo

LONG_SIDE = 800
# In px of 800. What varies by less than EVEN nearby is sky, fog or water; by more than UNEVEN, a thing to be seen.
REACH, NEAR = 48, 12
EVEN, UNEVEN = 0.010, 0.022
EPSILON = 1.5e-4
CALMED = 0.7  # wholly calm, a label teaches to leave haze where there is nothing to see
# Restored again as far as the density goes from the first to the second: a second time, and a third.
AGAIN = ((0.20, 0.40), (0.45, 0.65))


def calm(hazy: Tensor, restored: Tensor) -> Tensor:
    """Take blotches, noise and JPEG blocks out of `restored` [B,3,H,W] where `hazy` [B,3,H,W] is even, both in [0,1].

    There the guided filter leaves what follows the hazy photograph over a long way, and its noise not at all.
    """
    factor, offset = guided_coefficients(hazy.mean(1, keepdim=True).expand_as(hazy), restored, REACH, EPSILON)
    followed = hazy.mean(1, keepdim=True) * factor + offset
    return torch.lerp(restored, followed, evenness(deviation(hazy, NEAR), NEAR, EVEN, UNEVEN)).clamp(0, 1)


def pseudo_label(dehazer: dehaze.Dehazer, hazy: Tensor) -> Tensor:
    """Restore `hazy` [1,3,H,W] in [0,1], and again where it is dense, for what is left after once.

    The label is then calmed where there is nothing to see (ours).
    Raises DehazeError where the model does not estimate a density.
    """
    restored, density = dehazer.restore(hazy)
    if density is None:
        raise DehazeError("labels need a model that estimates how dense haze is, as `api` does")
    label = restored
    for little, much in AGAIN:
        restored, _ = dehazer.restore(restored)
        label = torch.lerp(label, restored, ((density - little) / (much - little)).clamp(0, 1))
    return torch.lerp(label, calm(hazy, label), CALMED)


def write_pairs(photos: Iterable[Path], output: Path, dehazer: dehaze.Dehazer) -> int:
    """Write photographs, at most 800 px long, and their labels as a folder of pairs; return how many these are.

    Labels that are there already stay, so that a killed run goes on. Raises ImageError where a photograph cannot be
    read, OutputError where one cannot be written, DehazeError where two have the same name.
    """
    named: dict[str, Path] = {}
    for path in photos:
        if named.setdefault(path.stem, path) != path:
            raise DehazeError(f"{path} and {named[path.stem]} would be one pair; give one of them another name")
    for folder in ("hazy", "clear"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for name, path in tqdm(named.items(), unit="photo", disable=None):
        label = output / "clear" / f"{name}.png"
        if label.exists():
            continue
        with read_photo(path).image() as photo:
            photo = photo.convert("RGB")
            photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        hazy = read_photo(photo)
        hazy.save(output / "hazy" / f"{name}.png")
        hazy.with_tensor(pseudo_label(dehazer, hazy.tensor())).save(label)
    return len(named)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dehaze.training.pseudo_labels", description=__doc__)
    parser.add_argument("photos", nargs="+", help="files, folders or patterns")
    parser.add_argument("--output", required=True, type=Path, help="folder for hazy/ and clear/")
    parser.add_argument("--model", default="api", help="the model that restores them")
    parser.add_argument("--weights", default="shipped", help='a folder or file, "shipped" (default), or a Hub id')
    options = parser.parse_args()
    try:
        dehazer = dehaze.load(options.model, weights=options.weights)
        count = write_pairs(names.find(options.photos).photos, options.output, dehazer)
    except (DehazeError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} pairs in {options.output}")


if __name__ == "__main__":
    main()
