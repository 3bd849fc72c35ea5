import numpy as np
import pytest
from PIL import Image

from bench import datasets


@pytest.fixture
def put():
    """Write small images of noise, each different, at the given paths under a folder."""

    def write(root, *names, size=(24, 16)):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(list(name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)

    return write


@pytest.fixture
def pairs(put, tmp_path):
    """Load a set of four pairs of noise."""
    put(tmp_path / "set", *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(4)))
    return datasets.load(f"folder:{tmp_path / 'set'}")
