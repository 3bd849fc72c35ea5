import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dehaze.dehazer import Dehazer
from dehaze.networks.base import EstimatesDensity, Network


class Blur(Network):
    """A local network (box blur of radius 4) with the smallest interface, to test what surrounds networks."""

    multiple_of, min_size, margin, tile_size = 8, 24, 8, 96

    def forward(self, hazy: torch.Tensor) -> torch.Tensor:
        assert hazy.shape[-1] % self.multiple_of == hazy.shape[-2] % self.multiple_of == 0
        assert min(hazy.shape[-2:]) >= self.min_size
        return F.avg_pool2d(hazy, 9, 1, 4, count_include_pad=False)


class Halve(EstimatesDensity):
    """Halve the brightness and know the density 0.25 everywhere."""

    def restore_with_density(self, hazy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return hazy / 2, torch.full_like(hazy[:, :1], 0.25)


def dehazer(network: Network, **options) -> Dehazer:
    return Dehazer("test", network, torch.device("cpu"), torch.float32, **options)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Forget the precision of the run before: accelerate keeps one for the process."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def blur() -> Dehazer:
    return dehazer(Blur())


@pytest.fixture
def halve() -> Dehazer:
    return dehazer(Halve())


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Write 24 small scenes of coloured blocks on a ramp of depth."""
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("images", "depth"):
        (folder / name).mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        blocks = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((80, 60), Image.Resampling.NEAREST).save(folder / "images" / f"{i:02}.jpg")
        near = np.tile(np.linspace(0, 255, 30).astype(np.uint8)[:, None], (1, 40))
        Image.fromarray(near).save(folder / "depth" / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """Save a CLIP as the small one of our own is made, of a width of 32, two layers and random weights."""
    from dehaze.training.recipes.clip import make_clip, save_clip

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    save_clip(make_clip(width=32, layers=2), folder)
    return folder


@pytest.fixture
def pairs(data, tmp_path):
    """Four pairs of a grey image as hazy, and the photograph itself as clear."""
    folder = tmp_path / "pairs"
    for name in ("hazy", "clear"):
        (folder / name).mkdir(parents=True)
    for photo in sorted((data / "images").iterdir())[:4]:
        (folder / "clear" / photo.name).write_bytes(photo.read_bytes())
        with Image.open(photo) as clear:
            Image.new("RGB", clear.size, (128, 128, 128)).save(folder / "hazy" / f"{photo.stem}.png")
    return folder
