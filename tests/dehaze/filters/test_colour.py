import torch

from dehaze.filters.colour import luminance


def test_luminance_is_that_of_rec_601():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    assert luminance(colours).tolist() == torch.tensor([[0.299], [0.587], [0.114], [0.5]]).tolist()
