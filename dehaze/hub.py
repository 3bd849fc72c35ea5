"""Weights: shipped with the package, in a local file, or on the Hugging Face Hub. Safetensors only, always strict.

A repository of the Hub holds `model.safetensors`, `config.json`, whose entry `model` names the network, and its card.
"""

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
    """Where a network's weights lie: the file, its SHA-256, the configuration, and what the model's card states.

    `model` is the network that the configuration names, None where it names none: a repository of the Hub does.
    """

    file: Path
    sha256: str
    config: dict[str, Any]
    card: dict[str, Any]
    revision: str | None = None
    model: str | None = None


def save_weights(network: nn.Module, folder: Path, name: str = WEIGHTS_FILE) -> None:
    """Write the weights of a network, under this name, and `config.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(asdict(network.config), indent=2) + "\n")
    save_file({key: value.detach().contiguous() for key, value in network.state_dict().items()}, folder / name)


def shipped(name: str) -> bool:
    """Tell whether weights of the model `name` ship with the package."""
    return (shipped_folder(name) / WEIGHTS_FILE).is_file()


def shipped_folder(name: str) -> Path:
    """Return where weights of the model `name` lie if they ship; not every system takes a colon in a file's name."""
    return SHIPPED / name.replace(":", "_")


def find_weights(name: str, weights: str | Path) -> Weights:
    """Find the weights of the model `name`.

    `weights` is "shipped", a local `.safetensors` file (its `config.json` lies beside it), a local folder of both, or a
    Hub id `org/name`, with `@revision` where wanted. Raises WeightsError that says what is missing and what to do.
    """
    if weights == "shipped":
        folder = shipped_folder(name)
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

    `name` may be a Hub id `org/name[@revision]`, whose configuration says which network it is. Networks without
    parameters (`identity`, `dcp`) take no weights, and None is returned for them. Every tensor must match in name and
    shape (strict); otherwise WeightsError says which do not.
    """
    if "/" in name:
        return _load_from_hub(name, weights)
    network_class = NETWORKS.get(name)
    if network_class.config_class is None:
        if weights != "shipped":
            raise WeightsError(f"{name!r} has no weights; leave --weights out")
        return network_class().eval(), None
    found = find_weights(name, weights)
    if found.model not in (None, name):
        raise WeightsError(f"{found.file} holds the model {found.model!r}, not {name!r}: name that one")
    return build_network(name, network_class, found), found


def _load_from_hub(id_: str, weights: str | Path) -> tuple[nn.Module, Weights]:
    if weights != "shipped":
        raise WeightsError(f"{id_} stands for its own weights: leave the others out, or name the model, such as 'api'")
    match = HUB_ID.fullmatch(id_)
    if not match:
        raise WeightsError(f"{id_!r} is neither a model nor a Hub id org/name@revision")
    found = _download(match["repo"], match["revision"])
    if found.model is None:
        raise WeightsError(f"{CONFIG_FILE} of {id_} names no model: name it yourself, with {id_} as its weights")
    return build_network(found.model, NETWORKS.get(found.model), found), found


def build_network(name: str, network_class: type[nn.Module], found: Weights) -> nn.Module:
    """Build a network with the weights found for it, on the CPU, in eval mode; strict, as `load_network` states."""
    try:
        network = network_class(network_class.config_class(**_with_tuples(found.config)))
    except TypeError as error:
        raise WeightsError(f"{CONFIG_FILE} beside {found.file} is not of the model {name!r}: {error}") from error
    read_weights(network, found.file, name)
    return network.eval()


def read_weights(network: nn.Module, file: Path, name: str) -> None:
    """Read a file into a network; WeightsError says how it does not fit the model `name`, or that it is damaged."""
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is damaged or not a safetensors file ({error}); download or copy it again"
        ) from error
    if differences := _differences(network.state_dict(), tensors):
        raise WeightsError(
            f"{file} does not fit the model {name!r}: it {differences}. Name the model that the file belongs to."
        )
    network.load_state_dict(tensors, strict=True)


def _with_tuples(value: Any) -> Any:
    """Make tuples of the lists in a value: JSON has no tuples, which frozen configurations hold."""
    if isinstance(value, dict):
        return {key: _with_tuples(part) for key, part in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


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
        model = values.pop("model", None)
        if not isinstance(model, str | None):
            raise ValueError("its model is not a name")
    except ValueError as error:
        raise WeightsError(
            f"{config} is not valid JSON: {error}; copy it again from where the weights came from"
        ) from error
    return Weights(file, hashlib.sha256(file.read_bytes()).hexdigest(), values, read_card(folder), revision, model)


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


def repository(name: str, weights: str | Path = "shipped", card: str | None = None) -> dict[str, bytes]:
    """Return what a Hub repository of the model `name` holds, by path: weights, configuration, card and its pictures.

    `card` replaces the text of the card beside the weights. The links in it that lead out of the folder become plain
    text. Raises WeightsError if the weights are not the model's, or the card does not say under which licence they are.
    """
    from huggingface_hub import ModelCard

    _, found = load_network(name, weights)
    if found is None:
        raise WeightsError(f"{name!r} has no weights to push: it needs none")
    folder = found.file.parent
    if card is None:
        if not (folder / CARD_FILE).is_file():
            raise WeightsError(f"{folder} holds no {CARD_FILE}: write one, or give another with --card")
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
    card = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", card)
    try:
        licensed = ModelCard(card).data.license
    except ValueError as error:
        raise WeightsError(f"the front matter of the card cannot be read: {error}") from error
    if not licensed:
        raise WeightsError("the card names no license: add one to its front matter, such as 'license: apache-2.0'")
    pictures = [folder / shown for shown in re.findall(r"!\[[^\]]*\]\(([\w.-]+)\)", card)]
    config = {"model": found.model or name, **found.config}
    return {
        WEIGHTS_FILE: found.file.read_bytes(),
        CONFIG_FILE: json.dumps(config, indent=2).encode() + b"\n",
        CARD_FILE: card.encode(),
        **{path.name: path.read_bytes() for path in pictures if path.is_file()},
    }


def push(repo: str, files: dict[str, bytes]) -> str:
    """Commit the `files` of `repository` to the Hub's model `repo`, made if it is not there; return the address.

    Raises WeightsError if the Hub does not take them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True)
        steps = [CommitOperationAdd(path, content) for path, content in files.items()]
        return str(api.create_commit(repo, steps, commit_message="Weights, configuration and card").commit_url)
    except Exception as error:  # the client's own kinds, and those of its HTTP library where a transfer breaks off
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{repo} could not be written ({reason}): check the name, the connection, and the login "
            "('hf auth login', with a token that may write)"
        ) from error
