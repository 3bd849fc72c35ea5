"""Render the hazy images of the sample set from its clear ones: `python -m bench.sample.render`.

Each row of `rendering.csv` gives the scattering coefficient β for a depth in [0,1], the optical depth in front of the
nearest point, the airlight in sRGB, and the seed of the Perlin field where the haze is non-uniform.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dehaze.haze import perlin_field, scatter, transmission

FOLDER = Path(__file__).parent


def parameters() -> list[dict[str, str]]:
    """Read the rows of `rendering.csv`."""
    with (FOLDER / "rendering.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def render(row: dict[str, str]) -> np.ndarray:
    """Render one row; return the hazy image H×W×3, uint8."""
    clear = _pixels(FOLDER / "clear" / f"{row['name']}.jpg", "RGB").permute(2, 0, 1)
    far = 1 - _pixels(FOLDER / "depth" / f"{row['name']}.png", "L")
    optical_depth = float(row["beta"]) * far + float(row["base"])
    if row["perlin_seed"]:
        height, width = far.shape
        seeded = torch.Generator().manual_seed(int(row["perlin_seed"]))
        optical_depth = optical_depth * perlin_field(height, width, seeded)
    airlight = torch.tensor([float(row[channel]) for channel in ("red", "green", "blue")]).view(3, 1, 1)
    hazy = scatter(clear, transmission(optical_depth)[None], airlight)
    return hazy.mul(255).round().byte().permute(1, 2, 0).numpy()


def _pixels(path: Path, mode: str) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert(mode))).float() / 255


def main() -> None:
    (FOLDER / "hazy").mkdir(exist_ok=True)
    for row in parameters():
        Image.fromarray(render(row)).save(FOLDER / "hazy" / f"{row['name']}.jpg", quality=95, subsampling="4:4:4")


if __name__ == "__main__":
    main()
