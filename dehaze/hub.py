"""Weights: shipped with the package, in a local file, or on the Hugging Face Hub. Safetensors only, always strict."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dehaze.errors import WeightsError
from dehaze.networks import NETWORKS

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Weights:
    """Where a network's weights lie: the file, its SHA-256, the configuration, and what the model's card states."""

    file: Path
    sha256: str
    config: dict[str, Any]
    card: dict[str, Any]
    revision: str | None = None


def save_weights(network: nn.Module, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` of a network into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(asdict(network.config), indent=2) + "\n")
    save_file({key: value.detach().contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS_FILE)


def shipped(name: str) -> bool:
    """Tell whether weights of the model `name` ship with the package."""
    return (SHIPPED / name / WEIGHTS_FILE).is_file()


def find_weights(name: str, weights: str | Path) -> Weights:
    """Find the weights of the model `name`.

    `weights` is "shipped", a local `.safetensors` file (its `config.json` lies beside it), a local folder of both, or a
    Hub id `org/name`, with `@revision` where wanted. Raises WeightsError that says what is missing and what to do.
    """
    if weights == "shipped":
        folder = SHIPPED / name
        if not shipped(name):
            raise WeightsError(f"no weights of {name!r} ship with this package; give a .safetensors file or a Hub id")
        return _read_folder(folder, folder / WEIGHTS_FILE)
    path = Path(weights)
    if path.is_dir():
        return _read_folder(path, path / WEIGHTS_FILE)
    if path.suffix == ".safetensors":
        return _read_folder(path.parent, path)
    if path.is_file():
        raise WeightsError(
            f"{path} is not a .safetensors file; only safetensors are loaded, since a pickle can run code"
        )
    if match := HUB_ID.fullmatch(str(weights)):
        return _download(match["repo"], match["revision"])
    raise WeightsError(
        f"there are no weights at {weights}: give 'shipped', a .safetensors file or a Hub id org/name@revision"
    )


def load_network(name: str, weights: str | Path) -> tuple[nn.Module, Weights | None]:
    """Build the network `name` with its weights, on the CPU, in eval mode.

    Networks without parameters (`identity`, `dcp`) take no weights, and None is returned for them. Every tensor must
    match in name and shape (strict); otherwise WeightsError says which do not.
    """
    network_class = NETWORKS.get(name)
    if network_class.config_class is None:
        if weights != "shipped":
            raise WeightsError(f"{name!r} has no weights; leave --weights out")
        return network_class().eval(), None
    found = find_weights(name, weights)
    return build_network(name, network_class, found), found


def build_network(name: str, network_class: type[nn.Module], found: Weights) -> nn.Module:
    """Build a network with the weights found for it, on the CPU, in eval mode; strict, as `load_network` states."""
    try:
        # JSON has no tuples, which frozen configurations hold.
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in found.config.items()}
        network = network_class(network_class.config_class(**values))
    except TypeError as error:
        raise WeightsError(f"{CONFIG_FILE} beside {found.file} is not of the model {name!r}: {error}") from error
    try:
        tensors = load_file(found.file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{found.file} is damaged or not a safetensors file ({error}); download or copy it again"
        ) from error
    if differences := _differences(network.state_dict(), tensors):
        raise WeightsError(
            f"{found.file} does not fit the model {name!r}: it {differences}. Name the model that the file belongs to."
        )
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def _differences(expected: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """Say in a few words how two sets of tensors differ in names and shapes; nothing if they do not."""

    def some(keys: list[str]) -> str:
        return f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else keys[0]

    differing = [key for key in expected if key in given and expected[key].shape != given[key].shape]
    found = {
        "lacks": [key for key in expected if key not in given],
        "has the unknown": [key for key in given if key not in expected],
        "has another shape for": differing,
    }
    return ", ".join(f"{what} {some(keys)}" for what, keys in found.items() if keys)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the front matter of the model card in `folder`, an empty dictionary where there is none."""
    from huggingface_hub import ModelCard

    path = folder / CARD_FILE
    return ModelCard.load(path).data.to_dict() if path.is_file() else {}


def _read_folder(folder: Path, file: Path, revision: str | None = None) -> Weights:
    config = folder / CONFIG_FILE
    for path in (file, config):
        if not path.is_file():
            raise WeightsError(f"{path} does not exist; weights are {WEIGHTS_FILE} with {CONFIG_FILE} beside it")
    try:
        values = json.loads(config.read_text())
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise WeightsError(
            f"{config} is not valid JSON: {error}; copy it again from where the weights came from"
        ) from error
    return Weights(file, hashlib.sha256(file.read_bytes()).hexdigest(), values, read_card(folder), revision)


def _download(repo: str, revision: str | None) -> Weights:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE, CARD_FILE]))
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the Hub has no model {repo!r} that you can read: check the name, or log in") from error
    except Exception as error:  # the client's own kinds, and those of its HTTP library where a transfer breaks off
        raise WeightsError(
            f"{repo!r} cannot be had from the Hub ({type(error).__name__}) and is not in the local cache: "
            "check the connection and the revision, or give a local .safetensors file"
        ) from error
    return _read_folder(folder, folder / WEIGHTS_FILE, revision=folder.name)
