"""Convert weights that a model's authors published: `python -m dehaze convert`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from dehaze.errors import OutputError, WeightsError
from dehaze.hub import CONFIG_FILE, one_line, save_weights
from dehaze.networks.base import Network
from dehaze.terminal import as_markup, console, reported_errors

if TYPE_CHECKING:
    import h5py


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


class KerasFile:
    """The arrays of an open Keras `.weights.h5` file, by path.

    HDF5 can also read values from other files, decompress them, or invent them; Keras does none of this, and such
    arrays are refused before any value is read.
    """

    def __init__(self, file: "h5py.File"):
        self._file = file

    def __getitem__(self, path: str) -> "h5py.Dataset":
        import h5py.h5l

        node = self._file
        for name in path.split("/"):
            if not isinstance(node, h5py.Group) or not node.id.links.exists(name.encode()):
                raise KeyError(path)
            if node.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise WeightsError("lies behind a link, which is not followed.", "Save the model again.", subject=path)
            node = node[name]
        if not isinstance(node, h5py.Dataset):
            raise WeightsError("is not an array. This is not a file of Keras weights.", subject=path)
        stored = node.id.get_create_plist()
        if stored.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or stored.get_external_count():
            raise WeightsError(
                "is in chunks or another file, where Keras puts none.", "Save the model again.", subject=path
            )
        if node.id.get_storage_size() < node.nbytes:
            raise WeightsError("claims more values than the file holds.", "Download or copy it again.", subject=path)
        return node


def draco_from_keras(layers: KerasFile | Mapping[str, np.ndarray]) -> Network:
    """Build DRACO with the weights of the authors' Keras model.

    `layers` maps `layers/NAME/vars/0` to the kernel of each Keras layer and `…/1` to its bias, as a `.weights.h5` file
    of Keras 3 does. Raises WeightsError that names the first one missing or of another shape or data type, before any
    is read.
    """
    from dehaze.networks.draco import DRACO

    network = DRACO()
    tensors, fitting = network.state_dict(), []
    for ours, theirs in draco_layers().items():
        for number, kind in enumerate(("weight", "bias")):
            path = f"layers/{theirs}/vars/{number}"
            try:
                values = layers[path]
            except KeyError:
                raise WeightsError(f"There is no {path}. This is not a file of DRACO's Keras weights.") from None
            target = _as_in_keras(tensors[f"{ours}.{kind}"], theirs)
            if values.shape != target.shape or values.dtype != np.float32:
                found = one_line(f"the shape {values.shape} of {values.dtype}")
                raise WeightsError(f"has {found}. This is not a file of DRACO's Keras weights.", subject=path)
            fitting.append((target, values))
    for target, values in fitting:
        target.copy_(torch.from_numpy(values[()]))
    return network.eval()


def _as_in_keras(tensor: Tensor, layer: str) -> Tensor:
    """View a bias, a dense kernel, which here is a 1×1 convolution, or a convolution's as Keras lays it out."""
    if tensor.ndim == 1:
        return tensor
    if layer.startswith("dense"):
        return tensor[:, :, 0, 0].T  # (in, out)
    # (height, width, in, out), or (height, width, channel, 1)
    return tensor.permute(2, 3, 0, 1) if layer.startswith("depthwise") else tensor.permute(2, 3, 1, 0)


CONVERTERS: dict[str, Callable[[KerasFile], Network]] = {"draco": draco_from_keras}


def read_keras(name: str, file: Path) -> Network:
    """Build the network `name` from a Keras `.weights.h5` file.

    Raises WeightsError where h5py is not installed, the model has no converter, or the file does not fit.
    """
    if name not in CONVERTERS:
        raise WeightsError("has no converter.", f"Known: {', '.join(CONVERTERS)}.", subject=name)
    try:
        import h5py
    except ImportError:
        raise WeightsError("Reading Keras weights needs h5py.", setting="Run pip install h5py.") from None
    if not file.is_file():
        raise WeightsError("does not exist.", "Give a Keras .weights.h5 file.", subject=file)
    try:
        with h5py.File(file, "r") as opened:
            return CONVERTERS[name](KerasFile(opened))
    except WeightsError:
        raise
    except Exception as error:  # of a damaged file the library raises whatever its part of it can
        raise WeightsError(
            f"cannot be read as a Keras .weights.h5 file ({one_line(error)}).",
            "Download or copy it again.",
            subject=file,
        ) from error


def convert(
    model: Annotated[str, typer.Argument(help=f"The model: {', '.join(CONVERTERS)}.")],
    file: Annotated[Path, typer.Argument(help="Keras weights, FILE.weights.h5.")],
    output: Annotated[Path, typer.Option(help="Where to write: a .safetensors file; config.json goes beside it.")],
) -> None:
    """Convert weights that a model's authors published; needs h5py."""
    with reported_errors():
        if output.suffix != ".safetensors":
            raise OutputError("does not end in .safetensors.", "Name the file so.", subject=output)
        if (output.parent / CONFIG_FILE).exists():
            raise OutputError(
                f"holds a {CONFIG_FILE} of other weights.", "Choose another folder.", subject=output.parent
            )
        network = read_keras(model, file)
        try:
            save_weights(network, output.parent, output.name)
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror}).", "Choose another output.", subject=output
            ) from error
    count = sum(parameter.numel() for parameter in network.parameters())
    console.print(f"{as_markup(output)}  {count:,} parameters")
