"""Label real hazy photographs with their restorations: `python -m dehaze.training.pseudo_labels PHOTO …`.

Rendered haze differs from real haze. A model that also trains on its own labels of real haze forgets less about it
(self-training, ours). Check the labels before training, and remove those that are worse than their photograph.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import dehaze
from dehaze.errors import DehazeError
from dehaze.filters.flatness import flatness, local_deviation
from dehaze.filters.guided import guided_coefficients
from dehaze.io import names
from dehaze.io.photo import read_photo
from dehaze.terminal import reported_errors
from dehaze.training.cli import run_command

LONG_SIDE = 800  # px of a label
GUIDED_RADIUS = 48  # px
GUIDED_EPSILON = 1.5e-4
DEVIATION_RADIUS = 12  # px
# Local deviation, in [0,1], below which a region is flat (sky, fog, water), and above which it is textured.
FLAT_DEVIATION, TEXTURED_DEVIATION = 0.010, 0.022
SMOOTHED_SHARE = 0.7  # a label that is smoothed in full teaches to leave haze in flat regions
TOLERANCE = 0.005  # of values in [0,1] by which a better label may be darker, noisier or more coloured


def smooth_flat_regions(hazy: Tensor, restored: Tensor) -> Tensor:
    """Remove blotches, noise and JPEG blocks from `restored` [B,3,H,W] where `hazy` [B,3,H,W] is flat, both in [0,1].

    A guided filter keeps what follows the hazy photograph over a long range.
    """
    guide = hazy.mean(1, keepdim=True)
    factor, offset = guided_coefficients(guide.expand_as(hazy), restored, GUIDED_RADIUS, GUIDED_EPSILON)
    flat = flatness(local_deviation(hazy, DEVIATION_RADIUS), DEVIATION_RADIUS, FLAT_DEVIATION, TEXTURED_DEVIATION)
    return torch.lerp(restored, guide * factor + offset, flat).clamp(0, 1)


def make_label(dehazer: dehaze.Dehazer, hazy: Tensor) -> Tensor:
    """Restore `hazy` [1,3,H,W] in [0,1], and smooth its flat regions (ours)."""
    label, _ = dehazer.restore_tensor(hazy)
    return torch.lerp(label, smooth_flat_regions(hazy, label), SMOOTHED_SHARE)


def is_better(dehazer: dehaze.Dehazer, hazy: Tensor, label: Tensor, last: Tensor) -> bool:
    """Tell whether a label [1,3,H,W] of `hazy` [1,3,H,W], all in [0,1], is better than the last one (ours).

    The model sees less haze in it, and it is neither darker, nor noisier in flat regions, nor more coloured. After the
    label pool of Colabator (Fang et al. 2024). Raises DehazeError for a model that does not estimate a density.
    """
    (_, left), (_, left_before) = dehazer.restore_tensor(label), dehazer.restore_tensor(last)
    if left is None or left_before is None:
        raise DehazeError("estimates no haze density.", "Choose a model that does, such as api.", subject=dehazer.name)
    flat = flatness(local_deviation(hazy, DEVIATION_RADIUS), DEVIATION_RADIUS, FLAT_DEVIATION, TEXTURED_DEVIATION)
    darker = last.mean() - label.mean()
    noisier = ((local_deviation(label, 3) - local_deviation(last, 3)) * flat).sum() / flat.sum().clamp_min(1)
    coloured = ((x.amax(1) - x.amin(1)).mean() for x in (label, last))
    more_coloured = next(coloured) - next(coloured)
    return bool(left.mean() < left_before.mean() and max(darker, noisier, more_coloured) <= TOLERANCE)


def write_pairs(photos: Iterable[Path], output: Path, dehazer: dehaze.Dehazer, improve: bool = False) -> int:
    """Write photographs, reduced to a long side of 800 px, and their labels as a folder of pairs; return their count.

    Labels that exist are kept, so that a killed run resumes; with `improve`, each is replaced by a better one. Raises
    ImageError or OutputError for a photograph that cannot be read or written, DehazeError for two of the same name.
    """
    named: dict[str, Path] = {}
    for path in photos:
        if named.setdefault(path.stem, path) != path:
            raise DehazeError(f"has the same name as {named[path.stem]}.", "Rename one of the two.", subject=path)
    for folder in ("hazy", "clear"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for name, path in tqdm(named.items(), unit="photo", disable=None):
        label = output / "clear" / f"{name}.png"
        if label.exists() and not improve:
            continue
        with read_photo(path).image() as photo:
            photo = photo.convert("RGB")
            photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        hazy = read_photo(photo)
        new = make_label(dehazer, hazy.tensor())
        if label.exists() and not is_better(dehazer, hazy.tensor(), new, read_photo(label).tensor()):
            continue
        hazy.save(output / "hazy" / f"{name}.png")
        hazy.with_tensor(new).save(label)
    return len(named)


def main(
    photos: Annotated[list[str], typer.Argument(help="Hazy photographs, folders, or globs in quotes.")],
    output: Annotated[Path, typer.Option(help="Folder for hazy/ and clear/.", file_okay=False)],
    model: Annotated[str, typer.Option(help="The model that makes the labels.")] = "api",
    weights: Annotated[str, typer.Option(help="'shipped', a folder or file, or a Hub id.")] = "shipped",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    improve: Annotated[
        bool,
        typer.Option(
            "--improve", help="Replace a label that exists by one with less haze, if it is no worse otherwise."
        ),
    ] = False,
) -> None:
    """Label real hazy photographs with their restorations, as pairs for `python -m dehaze train --pairs`."""
    with reported_errors():
        dehazer = dehaze.load(model, weights, device, look="faithful")
        count = write_pairs(names.find_photos(photos).photos, output, dehazer, improve)
    print(f"{count} pairs in {output}")


if __name__ == "__main__":
    run_command(main, "dehaze.training.pseudo_labels")
