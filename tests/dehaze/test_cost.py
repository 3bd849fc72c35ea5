import torch
from torch import nn

import dehaze
from dehaze.cost import multiply_adds


def test_counts_convolutions_and_matrix_products():
    convolution = nn.Conv2d(3, 8, 3, padding=1, stride=2)
    assert multiply_adds(convolution, torch.rand(2, 3, 16, 20)) == 2 * (8 * 10) * 8 * 3 * 3 * 3
    assert multiply_adds(nn.Linear(20, 5), torch.rand(1, 3, 16, 20)) == 3 * 16 * 20 * 5
    assert multiply_adds(nn.ReLU(), torch.rand(1, 3, 16, 20)) == 0


def test_counts_what_this_image_takes():
    class Routing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 1)

        def forward(self, hazy):
            return self.convolution(hazy) if hazy.mean() > 0.5 else hazy

    assert multiply_adds(Routing(), torch.ones(1, 3, 8, 8)) == 8 * 8 * 9
    assert multiply_adds(Routing(), torch.zeros(1, 3, 8, 8)) == 0


def test_counts_tiles_as_they_are_run():
    class Convolution(type(dehaze.load("identity").network)):
        def forward(self, hazy):
            return nn.functional.conv2d(hazy, torch.eye(3)[..., None, None])

    whole = dehaze.Dehazer("convolution", Convolution(), torch.device("cpu"), torch.float32)
    tiled = dehaze.Dehazer("convolution", Convolution(), torch.device("cpu"), torch.float32, tile=64)
    hazy = torch.rand(1, 3, 64, 112)  # two tiles that share 16 columns
    assert multiply_adds(whole.restore_tensor, hazy) == 64 * 112 * 9
    assert multiply_adds(tiled.restore_tensor, hazy) == 2 * 64 * 64 * 9
