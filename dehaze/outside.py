"""Models from outside the project: Python code, TorchScript, ONNX, entry points of installed packages.

Loading such a model runs its code. Only command lines call `load`, with the name that the user typed. `dehaze.load`,
the page, records and data sets know the models of the project alone.
"""

import hashlib
import inspect
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from dehaze import dehazer, hub
from dehaze.dehazer import Dehazer
from dehaze.errors import OutsideError, UnknownModelError
from dehaze.memory import out_of_memory
from dehaze.networks import NETWORKS
from dehaze.networks.base import Network
from dehaze.outside_code import entry_points, files_read, import_file, import_module, source_sha256, where_raised

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Pixels = np.ndarray  # H×W×3, uint8
Outsider = nn.Module | Callable[[Pixels], Pixels]

_TORCHSCRIPT, _ONNX = "torchscript:", "onnx:"
_SCALES = {"01": (1.0, 0.0), "11": (2.0, -1.0), "255": (255.0, 0.0)}  # factor and summand for values in [0,1]
_STRAY = 0.5  # beyond [0,1]: a network that overshoots stays within, another range does not
_MOST_STRAYS = 0.1  # share of the values
_SIZES = ("multiple_of", "min_size", "max_size", "margin", "tile_size")


@dataclass(frozen=True)
class Interface:
    """How a module takes and returns images, where that is not RGB in [0,1] of any size.

    `multiple_of` is what heights and widths are padded to in px; `value_range` is [0,1], [−1,1] or [0,255].
    """

    multiple_of: int = 1
    value_range: str = "01"
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if self.value_range not in _SCALES:
            raise ValueError(f"there is no range {self.value_range!r}: give {', '.join(_SCALES)}")
        if self.channels not in ("rgb", "bgr"):
            raise ValueError(f"there are no channels {self.channels!r}: give rgb or bgr")


@dataclass(frozen=True)
class Source:
    """What decides the output of a model from outside, beside its weights: its code, what runs it, its interface."""

    code_sha256: str | None
    runtime: str | None
    interface: Interface


class Outside(Network):
    """Run a model from outside the project as a network.

    A module gets a tensor [B,3,H,W] in the range and channels of its interface, any other callable an array H×W×3 of
    uint8; either returns the like.
    """

    config_class = Source

    def __init__(self, model: Outsider, source: Source):
        super().__init__()
        self.model, self.config = model, source
        if isinstance(model, Network):  # which says what it needs
            for size in _SIZES:
                setattr(self, size, getattr(model, size))
        elif isinstance(model, Onnx) and model.side:
            self.multiple_of = self.min_size = self.max_size = model.side
        if source.interface.multiple_of > 1:
            self.multiple_of = self.min_size = source.interface.multiple_of

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]. Raises OutsideError if the model does not return such an image."""
        swapped = self.config.interface.channels == "bgr"
        given = hazy.flip(1) if swapped else hazy
        made = self._run_module(given) if isinstance(self.model, nn.Module) else self._run_function(given)
        return made.flip(1) if swapped else made

    def _run_module(self, hazy: Tensor) -> Tensor:
        name = self.config.interface.value_range
        factor, summand = _SCALES[name]
        given = (hazy if name == "01" else hazy * factor + summand).contiguous()
        made = self._call(given, hazy)
        if not isinstance(made, Tensor):
            advice = "Name a function or module that returns the restored image alone."
            raise OutsideError(f"The model returns a {type(made).__name__}, not a tensor.", advice)
        if made.shape != given.shape:
            shapes = f"{[*made.shape]} for {[*given.shape]}"
            raise OutsideError(f"The model returns the shape {shapes}.", "It must return an image of the same size.")
        if not made.is_floating_point():
            raise OutsideError(f"The model returns {made.dtype}.", "It must return floating-point values.")
        _check_range(made, given, factor, summand)
        return made if name == "01" else (made - summand) / factor

    def _run_function(self, hazy: Tensor) -> Tensor:
        restored = []
        for pixels in (hazy * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy():
            made = self._call(np.ascontiguousarray(pixels), hazy)
            if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.shape != pixels.shape:
                what = f"an array {made.dtype} {[*made.shape]}" if isinstance(made, np.ndarray) else type(made).__name__
                raise OutsideError(
                    f"The function returns {what}.", f"It must return an array uint8 {[*pixels.shape]}, as it got."
                )
            restored.append(torch.from_numpy(made.copy()))
        return torch.stack(restored).permute(0, 3, 1, 2).to(hazy.device).float() / 255

    def _call(self, given: Any, hazy: Tensor) -> Any:
        try:
            return self.model(given)
        except Exception as error:
            if out_of_memory(error) or isinstance(error, OutsideError):
                raise
            height, width = hazy.shape[-2:]
            raise OutsideError(
                f"The model raises {where_raised(error, None)} for an image of {width}×{height} px.",
                "If it takes multiples of some size alone, give it with --multiple-of.",
            ) from error


class Onnx(nn.Module):
    """Run an ONNX file by onnxruntime; `side` is the one height and width in px that it takes, None if it takes any."""

    def __init__(self, session: "InferenceSession", side: int | None):
        super().__init__()
        self.session, self.side = session, side
        (self.input,), (self.output,) = session.get_inputs(), session.get_outputs()
        self.dtype = np.float16 if self.input.type == "tensor(float16)" else np.float32

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W], image by image."""
        images = hazy.cpu().numpy().astype(self.dtype)
        made = [self.session.run([self.output.name], {self.input.name: image[None]})[0] for image in images]
        return torch.cat([torch.as_tensor(image) for image in made]).to(hazy.device, hazy.dtype)


def load(
    name: str,
    weights: str | Path = "shipped",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tile: int | None = None,
    fast: bool = False,
    interface: Interface = Interface(),
    look: str | None = None,
) -> Dehazer:
    """Load the model that a user typed: one of the project as `dehaze.load` does, or one from outside.

    Loading one from outside runs its code.

    `name` is `FILE.py:NAME`, `package.module:NAME`, `torchscript:FILE`, `onnx:FILE`, or an entry point of the group
    `dehaze.models`. NAME is an `nn.Module`, a class or function that makes one without arguments, or a function from
    uint8 H×W×3 to the same; `weights` is a file of the module's state dict. It runs in float32 unless `dtype` says
    otherwise. `look` is that of `dehaze.load`, by default "photo"; results of a model from outside are never adjusted.
    Raises UnknownModelError, OutsideError, ValueError.
    """
    if not is_outside(name):
        if interface != Interface():
            raise ValueError(f"{name} is a model of the project: --multiple-of, --range and --channels are for others")
        return dehazer.load(name, weights, device, dtype, tile, fast, look=look or "photo")
    if look == "photo":
        raise ValueError(f"{name} is a model from outside, whose results are not adjusted: leave the look photo out")
    state = None if weights == "shipped" else Path(weights)
    if name.startswith((_TORCHSCRIPT, _ONNX)):
        kind, _, path = name.partition(":")
        file = Path(path)
        if not file.is_file():
            raise UnknownModelError("does not exist." if not file.exists() else "is not a file.", subject=file)
        if state:
            raise ValueError(f"{file.name} holds its weights: leave --weights out")
        if kind == "onnx":
            model, runtime, device = _load_onnx(file, device, tile)
        else:
            model, runtime, device = _load_torchscript(file), None, dehazer.find_device(device)
        return _dehazer(model, file.name, device, dtype, tile, fast, interface, None, _files_sha256(file), runtime)
    with files_read() as data:
        target, object_, code_sha256 = _import(name)
        model = _made(object_, target)
    if state:
        _load_state(model, state, target)
    sha256 = _state_sha256(model, data)
    return _dehazer(model, target, device, dtype, tile, fast, interface, code_sha256, sha256)


def wrap(model: Outsider, name: str | None = None, device: str | torch.device | None = None) -> Dehazer:
    """Return a Dehazer around a module, in eval mode from now on, or a function; by default on the module's device."""
    named = name or getattr(model, "__name__", type(model).__name__)
    if isinstance(model, nn.Module):
        model = model.eval()
        first = next(model.parameters(), None)
        device = device or (None if first is None else first.device)
    sha256 = _state_sha256(model, ())
    return _dehazer(model, named, device, None, None, False, Interface(), source_sha256(model), sha256)


def is_outside(name: str) -> bool:
    """Tell whether a typed name is of a model from outside the project. No entry point takes a name of the project."""
    known = NETWORKS.names()
    wrappers = {other.partition(":")[0] for other in known if ":" in other}
    if name in known or name.partition(":")[0] in wrappers:
        return False
    return ":" in name or name.endswith((".py", ".pt", ".pth", ".onnx")) or name in entry_points()


def count_parameters(network: Network) -> int | None:
    """Count the parameters of a network; None where torch does not see them: functions, ONNX, frozen TorchScript."""
    count = sum(parameter.numel() for parameter in network.parameters())
    if not isinstance(network, Outside) or count:
        return count
    return None if not seen_by_torch(network) or isinstance(network.model, torch.jit.ScriptModule) else count


def seen_by_torch(network: Network) -> bool:
    """Tell whether torch runs the network's operations, and can count them."""
    return not isinstance(network, Outside) or (
        isinstance(network.model, nn.Module) and not isinstance(network.model, Onnx)
    )


def _import(name: str) -> tuple[str, Any, str]:
    """Import what a name stands for; return its name without folder, the object, and the hash of its code."""
    name = entry_points().get(name, name)
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        file = Path(place or attribute)
        wanted = {".onnx": f"{_ONNX}{file}", ".py": f"{file}:NAME"}.get(file.suffix, f"{_TORCHSCRIPT}{file}")
        raise UnknownModelError("does not say what kind of model it is, or which.", f"Give {wanted}.", subject=name)
    if place.endswith(".py"):
        object_, sha256 = import_file(Path(place), attribute)
        return f"{Path(place).name}:{attribute}", object_, sha256
    object_, sha256 = import_module(place, attribute)
    return name, object_, sha256


def _made(object_: Any, name: str) -> Any:
    """Return the module or function that an imported object is, or makes without arguments."""
    if (
        not isinstance(object_, nn.Module)
        and callable(object_)
        and (inspect.isclass(object_) or not _takes_image(object_))
    ):
        try:
            object_ = object_()
        except (Exception, SystemExit) as error:
            raise OutsideError(
                f"cannot be called without arguments: {where_raised(error, None)}.",
                "Name a function without arguments that returns the module.",
                subject=name,
            ) from error
    if isinstance(object_, nn.Module):
        return object_.eval()
    if not callable(object_) or inspect.isclass(object_) or not _takes_image(object_):
        raise OutsideError(
            f"is or returns a {type(object_).__name__}, neither a module nor a function of one image.", subject=name
        )
    return object_


def _takes_image(function: Callable[..., Any]) -> bool:
    """Tell whether a function has an argument without default; whatever has no signature is taken to have one."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(argument.kind in positional and argument.default is argument.empty for argument in arguments)


def _dehazer(
    model: Outsider,
    name: str,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    tile: int | None,
    fast: bool,
    interface: Interface,
    code_sha256: str | None,
    weights_sha256: str | None,
    runtime: str | None = None,
) -> Dehazer:
    dehazer.check_tile(tile)
    network = Outside(model, Source(code_sha256, runtime, interface)).eval()
    if not seen_by_torch(network) and dtype is not None and dehazer.find_dtype(dtype) != torch.float32:
        raise ValueError(f"{name} chooses its own data type: leave --dtype out")
    if not isinstance(model, nn.Module):
        if interface.value_range != "01":
            raise ValueError(f"{name} is a function, which gets uint8: leave --range out")
        device = device or "cpu"  # nobody knows where it computes
    found = dehazer.find_device(device)
    type_ = dehazer.find_dtype(dtype or torch.float32)
    return Dehazer(name, network.to(found), found, type_, tile, fast, weights_sha256=weights_sha256)


def _check_range(made: Tensor, given: Tensor, factor: float, summand: float) -> None:
    low, high = (bound.item() for bound in torch.aminmax(made.float()))
    if not np.isfinite((low, high)).all():
        raise OutsideError("The model returns values that are NaN or infinite.")
    first, last = summand, factor + summand
    stray = _STRAY * factor
    too_dark = last > 2 and high <= 2 < given.max().item()
    if too_dark or low < first - stray or high > last + stray:
        strays = ((made < first - stray) | (made > last + stray)).float().mean().item()
        if too_dark or strays > _MOST_STRAYS:
            raise OutsideError(
                f"The model returns values from {low:.3g} to {high:.3g}, where {first:g} to {last:g} are meant.",
                "Give its range with --range 01, 11 or 255; it gets and returns the same.",
            )


def _load_torchscript(file: Path) -> nn.Module:
    try:
        # torch reads pickles of other things too, and some run code.
        members = zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
        if not any(member.endswith("/constants.pkl") for member in members):
            what = "a checkpoint" if any(member.endswith("/data.pkl") for member in members) else "something else"
            raise OutsideError(
                f"is no TorchScript file: it is {what}, or damaged.",
                "A checkpoint belongs to a class: --model FILE.py:NAME --weights FILE.",
                subject=file,
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends another format
            return torch.jit.load(file, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise OutsideError(
            f"cannot be read as TorchScript ({hub.one_line(error)}).", "Save or copy it again.", subject=file
        ) from error


def _load_onnx(file: Path, device: str | torch.device | None, tile: int | None) -> tuple[Onnx, str, torch.device]:
    try:
        import onnxruntime
    except ImportError:
        raise OutsideError("needs onnxruntime.", "Install it: pip install 'dehaze[onnx]'.", subject=file) from None
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    found = dehazer.find_device(device if device or cuda else "cpu")
    if found.type != "cpu" and not (cuda and found.type == "cuda"):
        raise ValueError(f"onnxruntime here does not run on {found}: give --device cpu, or install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    provider = (
        ("CUDAExecutionProvider", {"device_id": found.index or 0}) if found.type == "cuda" else "CPUExecutionProvider"
    )
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
    except Exception as error:  # onnxruntime has a class for each of its codes
        raise OutsideError(
            f"cannot be read as ONNX ({hub.one_line(error)}).", "Export or copy it again.", subject=file
        ) from error
    return Onnx(session, _fixed_side(file, session, tile)), f"onnxruntime {onnxruntime.__version__}", found


def _fixed_side(file: Path, session: "InferenceSession", tile: int | None) -> int | None:
    """Return the height and width that an ONNX model takes; None for any. Raises OutsideError if `tile` differs."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise OutsideError(
            f"has {len(inputs)} inputs and {len(outputs)} outputs.", "Export it with one image each.", subject=file
        )
    shape, type_ = inputs[0].shape, inputs[0].type
    free = [size if isinstance(size, int) else "?" for size in shape]
    if len(shape) != 4 or free[0] not in (1, "?") or free[1] not in (3, "?") or "float" not in type_:
        raise OutsideError(f"takes {type_} of shape {free}, not one float image [1,3,H,W].", subject=file)
    height, width = free[2:]
    if (height, width) == ("?", "?"):
        return None
    if not isinstance(height, int) or height != width or height < dehazer.MIN_TILE:
        raise OutsideError(
            f"takes images of {width}×{height} px alone.", "Export it with a free height and width.", subject=file
        )
    if height != tile:
        raise OutsideError(f"takes images of {width}×{height} px alone.", f"Give --tile {height}.", subject=file)
    return height


def _load_state(model: Outsider, file: Path, name: str) -> None:
    """Load a state dict, also from a checkpoint that holds one among other things. No pickle runs code."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} is a function, which loads its weights itself: leave --weights out")
    if not file.is_file():
        raise OutsideError("does not exist." if not file.exists() else "is not a file.", subject=file)
    try:
        safe = file.suffix == ".safetensors"
        held = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, OSError, EOFError, ImportError) as error:
        raise OutsideError(f"cannot be read ({hub.one_line(error)}).", "Copy it again.", subject=file) from error
    except Exception as error:  # pickle.UnpicklingError and whatever a damaged pickle gives
        raise OutsideError(
            "holds more than tensors, which would run code, or is damaged.",
            "Save the state dict alone, or let your function load it.",
            subject=file,
        ) from error
    inner = [held, *(held.values() if isinstance(held, dict) else ())]
    states = [part for part in inner if isinstance(part, dict) and part and all(map(torch.is_tensor, part.values()))]
    if len(states) != 1:
        raise OutsideError(f"holds {len(states)} state dicts, not one.", "Save that of the model alone.", subject=file)
    state = dict(states[0])
    consume_prefix_in_state_dict_if_present(state, "module.")  # of DataParallel
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise OutsideError(f"does not fit {name} ({hub.one_line(error)}).", subject=file) from error


def _state_sha256(model: Outsider, data: Iterable[Path]) -> str | None:
    """Hash the weights of a module, and the data files that its code read; None if there is neither."""
    state = model.state_dict() if isinstance(model, nn.Module) else {}
    files = sorted(hub.sha256(file) for file in data)
    if not state and not files:
        return None
    return hashlib.sha256("\n".join([state_sha256(state), *files]).encode()).hexdigest()


def state_sha256(state: dict[str, Any]) -> str:
    """Return the hash of a state dict: names, data types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not isinstance(value, Tensor):  # what a module adds beside its tensors
            digest.update(f"{name} {value!r}\n".encode())
            continue
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files_sha256(file: Path) -> str:
    """Hash a model's file, and the files beside it that it names: ONNX files can keep their weights there."""
    content = file.read_bytes()
    beside = [other for other in sorted(file.parent.iterdir()) if other.is_file() and other.name.encode() in content]
    parts = [hub.sha256(file), *(hub.sha256(other) for other in beside if other != file)]
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
