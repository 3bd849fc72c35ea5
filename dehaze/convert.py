"""Weights that other people published, brought into this package's form: `python -m dehaze convert`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.markup import escape
from torch import nn

from dehaze.errors import DehazeError, OutputError, WeightsError
from dehaze.hub import CONFIG_FILE, save_weights

console = Console(soft_wrap=True, highlight=False)
complaints = Console(stderr=True, soft_wrap=True, highlight=False)


def draco_layers() -> dict[str, str]:
    """Name the Keras layer of each layer of DRACO.

    Keras numbers layers of one kind in order of use and leaves the first without a number. The file also holds four
    encoders of the training loss, which come after these and are not needed.
    """

    def numbered(kind: str, number: int) -> str:
        return f"{kind}_{number}" if number else kind

    layers = {"stem": "conv2d"}
    for i in range(3):
        layers[f"ddirb.{i}.expand"] = numbered("conv2d", 1 + 2 * i)
        layers[f"ddirb.{i}.depthwise"] = numbered("depthwise_conv2d", i)
        layers[f"ddirb.{i}.squeeze"] = numbered("dense", 2 * i)
        layers[f"ddirb.{i}.excite"] = numbered("dense", 2 * i + 1)
        layers[f"ddirb.{i}.project"] = numbered("conv2d", 2 + 2 * i)
    attention = [f"{part}{number}" for part in ("channel", "pixel") for number in (1, 2, 3)]
    wide = [f"attdrn.{name}" for name in ("branches.0", "branches.1", "branches.2", *attention, "out")]
    return layers | {name: numbered("conv2d", number) for number, name in enumerate([*wide, "head1", "head2"], 7)}


def draco_from_keras(layers: Mapping[str, Any]) -> nn.Module:
    """Build DRACO with the weights of the authors' Keras model.

    `layers` maps `layers/NAME/vars/0` to the kernel of each Keras layer and `…/1` to its bias, as a `.weights.h5` file
    of Keras 3 does. Raises WeightsError that names the first one missing or of another shape.
    """
    from dehaze.networks.draco import DRACO

    network = DRACO()
    expected, tensors = network.state_dict(), {}
    for ours, theirs in draco_layers().items():
        for number, kind in enumerate(("weight", "bias")):
            path = f"layers/{theirs}/vars/{number}"
            try:
                values = np.asarray(layers[path][()], np.float32)
            except KeyError:
                raise WeightsError(f"there is no {path}: this is not a file of DRACO's Keras weights") from None
            key = f"{ours}.{kind}"
            tensor = torch.from_numpy(_from_keras(values, depthwise=theirs.startswith("depthwise")))
            if tensor.shape != expected[key].shape:
                raise WeightsError(f"{path} has the shape {values.shape}: this is not a file of DRACO's Keras weights")
            tensors[key] = tensor
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def _from_keras(values: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """Reorder a bias, a dense kernel (in, out), or a convolution's (height, width, in, out) as torch has it."""
    if values.ndim == 2:  # dense, which here is a 1×1 convolution
        values = values[None, None]
    if values.ndim == 4:  # a depthwise kernel is (height, width, channel, 1)
        values = values.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    return np.ascontiguousarray(values)


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {"draco": draco_from_keras}


def read_keras(name: str, file: Path) -> nn.Module:
    """Build the network `name` from a Keras `.weights.h5` file.

    Raises WeightsError where h5py is not installed, the model has no converter, or the file does not fit.
    """
    if name not in CONVERTERS:
        raise WeightsError(f"no weights of {name!r} can be converted; known: {', '.join(CONVERTERS)}")
    try:
        import h5py
    except ImportError:
        raise WeightsError("reading Keras weights needs h5py: pip install h5py, and start again") from None
    try:
        with h5py.File(file) as layers:
            return CONVERTERS[name](layers)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read as a Keras .weights.h5 file ({error})") from error


def convert(
    model: Annotated[str, typer.Argument(help=f"The model: {', '.join(CONVERTERS)}.")],
    file: Annotated[Path, typer.Argument(help="Keras weights, FILE.weights.h5.")],
    output: Annotated[Path, typer.Option(help="Where to write: a .safetensors file; config.json goes beside it.")],
) -> None:
    """Convert weights that a model's authors published; needs h5py."""
    try:
        if output.suffix != ".safetensors":
            raise OutputError(f"{output} does not end in .safetensors; name the file so")
        if (output.parent / CONFIG_FILE).exists():
            raise OutputError(f"{output.parent} holds a {CONFIG_FILE} already, of other weights; choose another folder")
        network = read_keras(model, file)
        try:
            save_weights(network, output.parent, output.name)
        except OSError as error:
            raise OutputError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
    except DehazeError as error:
        complaints.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    count = sum(parameter.numel() for parameter in network.parameters())
    console.print(f"{output}  {count:,} parameters", markup=False)
