"""Weights: shipped with the package, in a local file, or on the Hugging Face Hub. Safetensors only, always strict.

A repository of the Hub holds `model.safetensors`, `config.json`, whose entry `model` names the network, and its card.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from typing_extensions import TypedDict

from dehaze.errors import WeightsError
from dehaze.io.files import write_whole
from dehaze.networks import NETWORKS
from dehaze.networks.base import Configured, Network

Built = TypeVar("Built", bound=Configured)

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
FRONT_MATTER = re.compile(r"\s*---\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)

# Files can come from anyone: no more than this is downloaded or read.
MAX_BYTES = {WEIGHTS_FILE: 2**29, CONFIG_FILE: 2**20, CARD_FILE: 2**20}  # bytes
MAX_HEADER_BYTES = 2**20  # bytes of a safetensors file's header
MAX_FRONT_MATTER_CHARACTERS = 2**16  # characters: YAML can take a second for as many
FLOAT_DTYPES = ("F32", "F16", "BF16")  # as safetensors calls the data types that become float32 without loss


class Card(TypedDict, total=False):
    """What the front matter of a model card states; other entries are not read.

    `weights_sha256` is the hash of the weights that the card's figures are of.
    """

    license: str
    paper: str
    datasets: str | list[str]
    tags: str | list[str]
    weights_sha256: str


@dataclass(frozen=True)
class Weights:
    """Where a network's weights lie: the file, its SHA-256, the configuration, and what the model's card states.

    `model` is the network that the configuration names, None where it names none: a repository of the Hub does.
    """

    file: Path
    sha256: str
    config: dict[str, Any]
    card: Card
    revision: str | None = None
    model: str | None = None


def save_weights(network: Configured, folder: Path, name: str = WEIGHTS_FILE) -> None:
    """Write the weights of a network, under this name, and `config.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(asdict(network.config), indent=2) + "\n")
    tensors = {key: value.detach().contiguous() for key, value in network.state_dict().items()}
    write_whole(folder / name, save(tensors))  # readable to others, which `save_file` does not leave it


def shipped(name: str) -> bool:
    """Return whether weights of the model `name` ship with the package."""
    return (shipped_folder(name) / WEIGHTS_FILE).is_file()


def shipped_folder(name: str) -> Path:
    """Return the folder of the model's shipped weights, which need not exist."""
    # Not every system allows a colon in a file's name.
    return SHIPPED / name.replace(":", "_")


def find_weights(name: str, weights: str | Path) -> Weights:
    """Find the weights of the model `name`.

    `weights` is "shipped", a local `.safetensors` file (its `config.json` lies beside it), a local folder of both, or a
    Hub id `org/name`, with `@revision` where wanted. Raises WeightsError that says what is missing and what to do.
    """
    if weights == "shipped":
        folder = shipped_folder(name)
        if not shipped(name):
            raise WeightsError("ships without weights.", "Give a .safetensors file or a Hub id.", subject=name)
        return _read_folder(folder, folder / WEIGHTS_FILE)
    path = Path(weights)
    if path.is_dir():
        return _read_folder(path, path / WEIGHTS_FILE)
    if path.suffix == ".safetensors":
        return _read_folder(path.parent, path)
    if path.is_file():
        raise WeightsError(
            "is not a .safetensors file. A pickle can run code, so only safetensors are loaded.", subject=path
        )
    if match := HUB_ID.fullmatch(str(weights)):
        return _from_hub(**match.groupdict())
    raise WeightsError(
        f"There are no weights at {weights}.", "Give 'shipped', a .safetensors file or a Hub id org/name@revision."
    )


def load_network(name: str, weights: str | Path, clip: str | Path | None = None) -> tuple[Network, Weights | None]:
    """Build the network `name` with its weights, on the CPU, in eval mode.

    `name` may be a Hub id `org/name[@revision]`, whose configuration names the network. Networks without parameters
    (`identity`, `dcp`) take no weights, and get None. `clip` is the CLIP model that
    instructs, as `load_density` takes it; without it a configuration can name only the shipped one. Every tensor must
    match in name, shape and data type (strict); otherwise WeightsError says which do not.
    """
    if "/" in name:
        return _load_from_hub(name, weights, clip)
    network_class = NETWORKS.get(name)
    if network_class.config_class is None:
        if weights != "shipped":
            raise WeightsError("has no weights.", "Leave the weights out.", subject=name)
        return network_class().eval(), None
    found = find_weights(name, weights)
    if found.model not in (None, name):
        raise WeightsError(f"holds the model {found.model!r}, not {name!r}.", "Name that one.", subject=found.file)
    return build_network(name, network_class, found, clip), found


def _load_from_hub(id_: str, weights: str | Path, clip: str | Path | None) -> tuple[Network, Weights]:
    if weights != "shipped":
        raise WeightsError(
            "stands for its own weights.", "Leave the others out, or name the model, such as 'api'.", subject=id_
        )
    match = HUB_ID.fullmatch(id_)
    if not match:
        raise WeightsError("is neither a model nor a Hub id org/name@revision.", subject=id_)
    found = _from_hub(**match.groupdict())
    if found.model is None:
        raise WeightsError(
            "names no model.", f"Name it yourself, with {id_} as its weights.", subject=f"{CONFIG_FILE} of {id_}"
        )
    network_class = NETWORKS.get(found.model)
    if network_class.config_class is None:
        raise WeightsError(
            f"names the model {found.model!r}, which has no weights.", "Load that.", subject=f"{CONFIG_FILE} of {id_}"
        )
    return build_network(found.model, network_class, found, clip), found


def build_network(name: str, network_class: type[Built], found: Weights, clip: str | Path | None = None) -> Built:
    """Build a network with the weights found for it, on the CPU, in eval mode; strict, as `load_network` states."""
    try:
        chosen = {"clip": None if clip is None else str(clip)}
        config = validated(network_class.config_class, found.config, extra="forbid", context=chosen)
    except ValueError as error:
        raise WeightsError(
            f"is not of the model {name!r} ({error}).",
            "Name the model that it belongs to, or copy it again.",
            subject=found.file.with_name(CONFIG_FILE),
        ) from error
    with torch.device("meta"):  # which takes no memory, however large the network
        outline = network_class(config)
    tensors = read_tensors(outline, found.file, name)
    network = network_class(config)
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def read_weights(network: nn.Module, file: Path, name: str) -> None:
    """Read a file into a network; WeightsError says how it does not fit the model `name`, or that it is damaged."""
    network.load_state_dict(read_tensors(network, file, name), strict=True)


def read_tensors(network: nn.Module, file: Path, name: str, ignored: Collection[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a network, which may be on the meta device, from a safetensors file whose header fits it.

    The file may hold others, of the `ignored` names. Raises WeightsError as `read_weights` does.
    """
    with readable(file):
        with file.open("rb") as start:
            if (length := int.from_bytes(start.read(8), "little")) > MAX_HEADER_BYTES:
                raise ValueError(f"a safetensors header of {length:,} bytes is too long")
        with safe_open(file, "pt") as opened:
            given = {key: opened.get_slice(key) for key in sorted({*opened.keys()} - {*ignored})}
            if differences := _differences(network.state_dict(), given):
                raise WeightsError(
                    f"does not fit the model {name!r}: it {differences}.",
                    "Name the model that the file belongs to.",
                    subject=file,
                )
            return {key: opened.get_tensor(key) for key in given}


def _differences(expected: Mapping[str, Tensor], given: Mapping[str, Any]) -> str:
    """Describe how a file's tensors differ from a network's; an empty text if they do not."""
    both = [key for key in expected if key in given]
    found = {
        "lacks": [key for key in expected if key not in given],
        "has the unknown": [key for key in given if key not in expected],
        "has another shape for": [key for key in both if [*expected[key].shape] != given[key].get_shape()],
        "has another data type for": [key for key in both if given[key].get_dtype() not in FLOAT_DTYPES],
    }
    more = {what: f" and {len(keys) - 1} more" if len(keys) > 1 else "" for what, keys in found.items()}
    return ", ".join(f"{what} {one_line(keys[0])}{more[what]}" for what, keys in found.items() if keys)


def validated(kind: Any, values: Mapping[str, Any], **options: Any) -> Any:
    """Make a dataclass or typed dictionary from JSON's values; ValueError names the one that does not fit.

    Types are strict: neither a text nor a boolean counts as a number. `options` are pydantic's.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True, **options)
    except ValidationError as error:
        raise ValueError(_first_fault(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    what = fault["msg"].removeprefix("Value error, ")
    return one_line(": ".join([*filter(None, [".".join(map(str, fault["loc"]))]), what[:1].lower() + what[1:]]))


def check_file(path: Path, largest: int) -> None:
    """Raise WeightsError unless `path` is a file of at most `largest` bytes."""
    if not path.is_file():
        reason = "is not a file." if path.exists() else "does not exist."
        raise WeightsError(reason, f"Weights are {WEIGHTS_FILE} with {CONFIG_FILE} beside it.", subject=path)
    if (size := path.stat().st_size) > largest:
        raise _too_large(path, size, largest)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise errors of reading a file as WeightsError of one sentence."""
    try:
        yield
    except (OSError, ValueError, RecursionError, SafetensorError, yaml.YAMLError) as error:
        raise WeightsError(
            f"cannot be read ({one_line(error)}).", "Download or copy it again.", subject=path
        ) from error


def one_line(text: object) -> str:
    """Return a text as one short printable line: what files hold can have line breaks, terminal codes, megabytes."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)[:400]).split())[:200]


def read_config(path: Path, largest: int = MAX_BYTES[CONFIG_FILE]) -> dict[str, Any]:
    """Read a JSON object from a file of at most `largest` bytes; raises WeightsError."""
    check_file(path, largest)
    with readable(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        return values


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raises WeightsError if it cannot be read."""
    with readable(path), path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_card(folder: Path) -> Card:
    """Read the front matter of the model card in `folder`; an empty dictionary where there is none."""
    path = folder / CARD_FILE
    if not os.path.lexists(path):
        return {}
    check_file(path, MAX_BYTES[CARD_FILE])
    with readable(path):
        return front_matter(path.read_text(encoding="utf-8"))


def front_matter(card: str) -> Card:
    """Parse the front matter of a model card; raises ValueError or YAMLError where it cannot be read."""
    found = FRONT_MATTER.match(card)
    if not found:
        return {}
    if len(found[1]) > MAX_FRONT_MATTER_CHARACTERS:
        raise ValueError(f"its front matter has more than {MAX_FRONT_MATTER_CHARACTERS:,} characters")
    # The base loader reads every value as text and builds no objects.
    values = yaml.load(found[1], Loader=yaml.BaseLoader) or {}
    if not isinstance(values, dict):
        raise ValueError("its front matter is not a mapping")
    try:  # not by way of JSON, where a value that is repeated by aliases would be written out
        return TypeAdapter(Card).validate_python(values, strict=True)
    except ValidationError as error:
        raise ValueError(_first_fault(error)) from error


def _too_large(subject: object, size: int, largest: int) -> WeightsError:
    reason = f"has {size:,} bytes, more than the {largest:,} that are read of such a file."
    return WeightsError(reason, "Give another.", subject=subject)


def _read_folder(folder: Path, file: Path, revision: str | None = None) -> Weights:
    check_file(file, MAX_BYTES[WEIGHTS_FILE])
    path = folder / CONFIG_FILE
    values = read_config(path)
    model = values.pop("model", None)
    known = NETWORKS.names()
    if model is not None and model not in known:
        raise WeightsError(
            f"names the model {one_line(model)!r}, which is none of {', '.join(known)}.",
            "Correct that entry.",
            subject=path,
        )
    return Weights(file, sha256(file), values, read_card(folder), revision, model)


def _from_hub(repo: str, revision: str | None) -> Weights:
    folder = download(repo, revision, MAX_BYTES)
    return _read_folder(folder, folder / WEIGHTS_FILE, revision=folder.name)


def download(repo: str, revision: str | None, largest: Mapping[str, int]) -> Path:
    """Download the files of a Hub repository that `largest` names; return their folder.

    `largest` maps each path to the most bytes it may have. Raises WeightsError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        offered = HfApi().get_paths_info(repo, list(largest), revision=revision)
    except Exception:  # without a connection, what is in the cache is taken
        offered = []
    for entry in offered:
        if (size := getattr(entry, "size", 0)) > largest[entry.path]:
            raise _too_large(f"{entry.path} of {repo}", size, largest[entry.path])
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(largest)))
    except RepositoryNotFoundError as error:
        raise WeightsError(
            "is no model of the Hub that you can read.", "Check the name, or log in.", subject=repo
        ) from error
    except Exception as error:  # the client's own kinds, and those of its HTTP library where a transfer breaks off
        raise WeightsError(
            f"cannot be fetched from the Hub ({type(error).__name__}) and is not in the local cache.",
            "Check the connection and the revision, or give local files.",
            subject=repo,
        ) from error


def repository(name: str, weights: str | Path = "shipped", card: str | None = None) -> dict[str, bytes]:
    """Return the files of a Hub repository of the model `name`, by path: weights, configuration, card and pictures.

    `card` replaces the text of the card beside the weights. Its links that lead out of the folder become plain text.
    Raises WeightsError if the weights are not the model's, or the card names no licence or other weights.
    """
    _, found = load_network(name, weights)
    if found is None:
        raise WeightsError("has no weights to push.", subject=name)
    folder = found.file.parent
    if card is None:
        if not (folder / CARD_FILE).is_file():
            raise WeightsError(f"holds no {CARD_FILE}.", "Write one, or give another card.", subject=folder)
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
    card = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", card)
    try:
        stated = front_matter(card)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise WeightsError(
            f"cannot be read ({one_line(error)}).", "Correct it.", subject="The front matter of the card"
        ) from error
    if not stated.get("license"):
        raise WeightsError(
            "names no license.", "Add one to its front matter, such as 'license: apache-2.0'.", subject="The card"
        )
    if stated.get("weights_sha256", found.sha256) != found.sha256:
        raise WeightsError(
            f"is of other weights than {found.file}: its weights_sha256 is not theirs.",
            "Give the card of these weights; 'python -m leaderboard card --weights FOLDER' makes one.",
            subject="The card",
        )
    pictures = [folder / shown for shown in re.findall(r"!\[[^\]]*\]\(([\w.-]+)\)", card)]
    config = {"model": found.model or name, **found.config}
    return {
        WEIGHTS_FILE: found.file.read_bytes(),
        CONFIG_FILE: json.dumps(config, indent=2).encode() + b"\n",
        CARD_FILE: card.encode(),
        **{path.name: path.read_bytes() for path in pictures if path.is_file()},
    }


def push(repo: str, files: dict[str, bytes]) -> str:
    """Commit the `files` of `repository` to the Hub's model `repo`, created if needed; return the commit's address.

    Raises WeightsError if the Hub refuses them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True)
        steps = [CommitOperationAdd(path, content) for path, content in files.items()]
        return str(api.create_commit(repo, steps, commit_message="Weights, configuration and card").commit_url)
    except Exception as error:  # the client's own kinds, and those of its HTTP library where a transfer breaks off
        reason = one_line(error) or type(error).__name__
        raise WeightsError(
            f"cannot be written ({reason}).",
            "Check the name, the connection, and the login ('hf auth login', with a token that may write).",
            subject=repo,
        ) from error
