"""Keras weights of DRACO, in a file of the layout that Keras 3 writes, against the Keras graph written out in numpy."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dehaze.cli import app
from dehaze.convert import draco_from_keras, draco_layers, read_keras
from dehaze.errors import WeightsError
from dehaze.hub import load_network

# Shapes of the kernels, layer by layer as the authors' model summary lists them.
CONVOLUTIONS = [
    (3, 3, 3, 32),
    *[(1, 1, 32, 32)] * 6,
    *[(3, 3, 32, 32)] * 3,
    *[(3, 3, 96, 96), (3, 3, 96, 1), (3, 3, 1, 96)] * 2,
    (3, 3, 96, 32),
    *[(3, 3, 32, 3)] * 2,
]
KERNELS = {
    **{f"conv2d_{i}" if i else "conv2d": shape for i, shape in enumerate(CONVOLUTIONS)},
    **{f"depthwise_conv2d_{i}" if i else "depthwise_conv2d": (3, 3, 32, 1) for i in range(3)},
    **{f"dense_{i}" if i else "dense": (2, 32) if i % 2 else (32, 2) for i in range(6)},
    # Encoders of the training loss, which inference does without.
    **{f"conv2d_{19 + i}": (3, 3, 32, 32) if i % 2 else (3, 3, 3, 32) for i in range(8)},
    **{f"dense_{6 + i}": (32, 64) for i in range(4)},
}


@pytest.fixture(scope="module")
def layers() -> dict[str, np.ndarray]:
    generator, values = np.random.default_rng(0), {}
    for name, shape in KERNELS.items():
        inputs = np.prod(shape[:3]) if len(shape) == 4 and shape[-1] > 1 else np.prod(shape[:2])
        kernel = generator.normal(0, (1.5 / inputs) ** 0.5, shape)
        values[f"layers/{name}/vars/0"] = kernel.astype(np.float32)
        values[f"layers/{name}/vars/1"] = generator.normal(0.02, 0.05, shape[2 if "depth" in name else -1]).astype("f4")
    return values


@pytest.fixture
def file(layers, tmp_path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "draco.weights.h5", "w") as written:
        for path, value in layers.items():
            written[path] = value
        written["optimizer/vars/0"] = np.zeros(())
    return tmp_path / "draco.weights.h5"


class Keras:
    """The layers of Keras on one image [H,W,C] in float64, and the authors' model of them."""

    def __init__(self, layers: dict[str, np.ndarray]):
        self.layers = layers

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.layers[f"layers/{name}/vars/{number}"].astype(np.float64) for number in (0, 1))

    def convolution(self, x: np.ndarray, name: str, dilation: int = 1) -> np.ndarray:
        """Cross-correlate with padding "same": zeros, equal on both sides since kernels are odd and strides 1."""
        kernel, bias = self.weights(name)
        height, width, _ = x.shape
        reach = kernel.shape[0] // 2 * dilation
        padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
        depthwise = name.startswith("depthwise")
        result = np.zeros((height, width, len(bias)))
        for row in range(kernel.shape[0]):
            for column in range(kernel.shape[1]):
                top, left = row * dilation, column * dilation
                seen = padded[top : top + height, left : left + width]
                result += seen * kernel[row, column, :, 0] if depthwise else seen @ kernel[row, column]
        return result + bias

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = self.weights(name)
        return x @ kernel + bias

    def draco(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def relu(x):
            return np.maximum(x, 0)

        def sigmoid(x):
            return 1 / (1 + np.exp(-x))

        x = relu(self.convolution(image, "conv2d"))
        names = [
            ("conv2d_1", "depthwise_conv2d", "dense", "dense_1", "conv2d_2"),
            ("conv2d_3", "depthwise_conv2d_1", "dense_2", "dense_3", "conv2d_4"),
            ("conv2d_5", "depthwise_conv2d_2", "dense_4", "dense_5", "conv2d_6"),
        ]
        for first, depthwise, squeeze, excite, last in names:
            y = relu(self.convolution(relu(self.convolution(x, first)), depthwise))
            y = y * sigmoid(self.dense(relu(self.dense(y.mean((0, 1)), squeeze)), excite))
            x = x + relu(self.convolution(y, last))
        k1 = relu(self.convolution(x, "conv2d_17")) + image
        branches = (("conv2d_7", 1), ("conv2d_8", 2), ("conv2d_9", 5))
        y = np.concatenate([relu(self.convolution(x, name, dilation)) for name, dilation in branches], -1)
        channel = relu(self.convolution(relu(self.convolution(y, "conv2d_10")), "conv2d_11"))
        y = y + sigmoid(self.convolution(channel, "conv2d_12"))
        y = relu(self.convolution(y, "conv2d_13"))
        y = y * sigmoid(self.convolution(relu(self.convolution(y, "conv2d_14")), "conv2d_15"))
        x = x + sigmoid(self.convolution(y, "conv2d_16"))
        k2 = relu(self.convolution(x, "conv2d_18")) + k1
        return tuple(np.clip(k * image - k + 1, 0, 1) for k in (k1, k2))


def test_the_converted_network_gives_what_keras_gives(layers):
    image = np.random.default_rng(1).random((19, 23, 3)) ** 0.3  # bright enough that little is clipped
    hazy = torch.from_numpy(image).float().permute(2, 0, 1)[None]
    with torch.inference_mode():
        stages = draco_from_keras(layers).stages(hazy)
    for stage, expected in zip(stages, Keras(layers).draco(image), strict=True):
        assert ((expected > 0) & (expected < 1)).mean() > 0.5
        np.testing.assert_allclose(stage[0].permute(1, 2, 0), expected, atol=1e-4, rtol=0)


def test_each_layer_that_inference_needs_is_taken_once():
    names = list(draco_layers().values())
    training_only = {f"conv2d_{i}" for i in range(19, 27)} | {f"dense_{i}" for i in range(6, 10)}
    assert sorted(names) == sorted(KERNELS.keys() - training_only)


def test_weights_of_another_model_are_refused(layers):
    lacking = {path: value for path, value in layers.items() if path != "layers/dense_3/vars/1"}
    with pytest.raises(WeightsError, match="There is no layers/dense_3/vars/1"):
        draco_from_keras(lacking)
    with pytest.raises(WeightsError, match=r"conv2d_16/vars/0 has the shape \(3, 3, 32, 32\)"):
        draco_from_keras(layers | {"layers/conv2d_16/vars/0": layers["layers/conv2d_7/vars/0"]})


def test_a_file_becomes_weights_that_load(layers, file, tmp_path):
    output = tmp_path / "new" / "d.safetensors"
    result = CliRunner().invoke(app, ["convert", "draco", str(file), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "235,566 parameters" in result.output
    network, _ = load_network("draco", output)
    expected = draco_from_keras(layers).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_what_is_no_keras_file_is_refused(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "noise.h5").write_bytes(b"noise")
    for name, reason in (("noise.h5", r"noise\.h5 cannot be read as a Keras"), ("gone.h5", r"gone\.h5 does not exist")):
        with pytest.raises(WeightsError, match=reason):
            read_keras("draco", tmp_path / name)


def test_without_h5py_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match="pip install h5py"):
        read_keras("draco", tmp_path / "any.h5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["api", "x.h5", "--output", "new/x.safetensors"], "Known: draco"),
        (["draco", "x.h5", "--output", "new/x.pth"], "does not end in .safetensors"),
        (["draco", "x.h5", "--output", "full/x.safetensors"], "Choose another folder"),
    ],
)
def test_wrong_requests_end_with_a_clear_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["convert", *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
