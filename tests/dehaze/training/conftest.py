from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dehaze.training.losses.features import get_features


@pytest.fixture(scope="session")
def features(tmp_path_factory) -> Path:
    """Write a VGG16 of small random weights, of the layout that `get_features` asks for."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    widths = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
    widths |= {17: (256, 512), 19: (512, 512), 21: (512, 512)}
    generator, tensors = torch.Generator().manual_seed(0), {}
    for number, (inputs, outputs) in widths.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        tensors |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(outputs)}
    save_file(tensors, path)
    assert get_features("vgg16", path)
    return path
