"""A toy model as somebody outside the project would write and save it."""

import warnings

import torch

CODE = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, fill=0.05):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1, padding_mode="zeros")
        nn.init.constant_(self.body.weight, fill)
        nn.init.constant_(self.body.bias, -0.1)

    def forward(self, x):
        return (x + 0.3 * self.body(x)).clamp(0, 1)

def build():
    return Net()

net = Net().eval()

def restore(pixels):
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (net(x)[0].permute(1, 2, 0) * 255).round().byte().numpy()
"""


def write(folder, code=CODE):
    """Write the toy as net.py."""
    path = folder / "net.py"
    path.write_text(code)
    return path


def module():
    """Make the toy."""
    space = {}
    exec(CODE, space)
    return space["build"]().eval()


def save_torchscript(path, network=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network or module(), torch.rand(1, 3, 16, 24)).save(path)
    return path


def save_onnx(path, size=None, network=None, shape=None):
    """Export by tracing; with `size`, for this height and width alone."""
    free = None if size else {"x": {2: "h", 3: "w"}, "y": {2: "h", 3: "w"}}
    given = torch.rand(shape or (1, 3, *(size or (16, 24))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network or module(), (given,), path, input_names=["x"], output_names=["y"], dynamic_axes=free, dynamo=False
        )
    return path
