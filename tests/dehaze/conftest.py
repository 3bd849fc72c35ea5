import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dehaze.dehazer import Dehazer


class Blur(nn.Module):
    """A local network (box blur of radius 4) with the smallest interface, to test what surrounds networks."""

    config_class = None
    multiple_of, min_size, margin, tile_size = 8, 24, 8, 96

    def forward(self, hazy: torch.Tensor) -> torch.Tensor:
        assert hazy.shape[-1] % self.multiple_of == hazy.shape[-2] % self.multiple_of == 0
        assert min(hazy.shape[-2:]) >= self.min_size
        return F.avg_pool2d(hazy, 9, 1, 4, count_include_pad=False)


class Halve(nn.Module):
    """Halve the brightness and know the density 0.25 everywhere."""

    config_class = None
    multiple_of, min_size, margin, tile_size = 1, 1, 0, None

    def restore_with_density(self, hazy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return hazy / 2, torch.full_like(hazy[:, :1], 0.25)


def dehazer(network: nn.Module, **options) -> Dehazer:
    return Dehazer("test", network, torch.device("cpu"), torch.float32, **options)


@pytest.fixture
def blur() -> Dehazer:
    return dehazer(Blur())


@pytest.fixture
def halve() -> Dehazer:
    return dehazer(Halve())
