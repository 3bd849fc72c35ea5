"""Folders and repositories that mean harm: each is refused in one sentence, in little time and memory."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from dehaze.hub import save_weights
from dehaze.networks.api.network import API, APIConfig
from tests import bounded
from tests.hub import HubServer

pytestmark = pytest.mark.slow

TINY = APIConfig(widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1))
CARD = "---\nlicense: mit\ntags: [haze]\n---\n# A card\n"
EVIL = "evil\n\x1b[2J" + "x" * 100_000
BOMB = "x0: &x0 [x]\n" + "".join(f"x{i + 1}: &x{i + 1} [{', '.join(9 * [f'*x{i}'])}]\n" for i in range(9))
Change = Callable[[Path], object]


class Case(NamedTuple):
    """What makes a good folder a hostile one, what its refusal says, and the model that is asked for."""

    change: Change
    message: str
    model: str = "api"


def content(name: str, data: bytes | str) -> Change:
    """Replace a file."""
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def json_of(data: str | bytes, message: str) -> Case:
    """Replace the configuration by any data."""
    return Case(content("config.json", data), message)


def config(message: str, **entries: object) -> Case:
    """Change entries of the configuration."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return Case(change, message)


def of(model: str, message: str, **entries: object) -> Case:
    """Replace the configuration by one of another model."""
    return Case(content("config.json", json.dumps({"model": model, **entries})), message, model)


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


def tensors(message: str, **changed: torch.Tensor | None) -> Case:
    """Add tensors, replace or, where None, remove them; __ stands for a point in their names."""

    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        named = load_file(file) | {key.replace("__", "."): value for key, value in changed.items()}
        save_file({key: value for key, value in named.items() if value is not None}, file)

    return Case(change, message)


def stored(dtype: torch.dtype) -> Case:
    return tensors(r"has another data type for head\.bias", head__bias=torch.zeros(24).to(dtype))


def header(message: str, text: bytes, size: int | None = None, data: bytes = b"") -> Case:
    """Replace the weights by a safetensors file with this header, of this size as it says."""
    length = (len(text) if size is None else size).to_bytes(8, "little")
    return Case(content("model.safetensors", length + text + data), message)


def layout(message: str, **entries: tuple[str, list[int], list[int]]) -> Case:
    """Replace the weights by 16 bytes of tensors, which a header describes by data type, shape and place."""
    described = {
        name: dict(zip(("dtype", "shape", "data_offsets"), entry, strict=True)) for name, entry in entries.items()
    }
    return header(message, json.dumps(described).encode(), data=bytes(16))


def cut(name: str, size: int, message: str) -> Case:
    """Cut a file off, or lengthen it by a hole."""
    return Case(lambda folder: os.truncate(folder / name, size), message)


def card(front_matter: str, message: str) -> Case:
    return Case(content("README.md", f"---\n{front_matter}\n---\n# A card\n"), message)


def folder_for(name: str) -> Case:
    return Case(lambda folder: ((folder / name).unlink(), (folder / name).mkdir()), f"{name} is not a file")


def dangling(name: str) -> Case:
    return Case(lambda folder: ((folder / name).unlink(), (folder / name).symlink_to("gone")), f"{name} does not exist")


NAMED = "names a CLIP model other than the shipped one. Name one yourself, by the argument clip"
FOUR = ("F32", [4], [0, 16])
LESS, MORE = "input should be less than or equal to", "input should be greater than or equal to"
WHOLE = r"widths\.0: input should be a valid integer"
HOSTILE = {
    "deep configuration": json_of('{"widths": ' + "[" * 100_000, r"config\.json cannot be read"),
    "nested configuration": config(WHOLE, widths=[nested(150), 8, 8]),
    "more nested configuration": config("is not of the model 'api'", widths=[nested(500), 8, 8]),
    "huge configuration": json_of("{}" + " " * 2**20, "more than the 1,048,576"),
    "configuration not UTF-8": json_of(b'{"model": "\xff\xfe"}', r"config\.json cannot be read"),
    "configuration of a list": json_of("[]", "it is not a JSON object"),
    "configuration cut off": json_of('{"model": "api", "widths": [8', r"config\.json cannot be read"),
    "empty configuration": json_of("", r"config\.json cannot be read"),
    "folder for a configuration": folder_for("config.json"),
    "dangling configuration": dangling("config.json"),
    "absurd width": config(rf"widths\.0: {LESS} 4096", widths=[10**9, 8, 8]),
    "width of 30 digits": config(rf"widths\.0: {LESS} 4096", widths=[10**30, 8, 8]),
    "width of 9,999 digits": json_of(f'{{"widths": {9999 * "9"}}}', r"config\.json cannot be read"),
    "negative width": config(rf"widths\.0: {MORE} 4", widths=[-8, 8, 8]),
    "no width": config(rf"widths\.1: {MORE} 4", widths=[8, 0, 8]),
    "text for a width": config(WHOLE, widths=["8", 8, 8]),
    "fraction for a width": config(WHOLE, widths=[8.0, 8, 8]),
    "truth for a width": config(WHOLE, widths=[True, 8, 8]),
    "null for a width": config(WHOLE, widths=[None, 8, 8]),
    "NaN for a width": config(WHOLE, widths=[float("nan"), 8, 8]),
    "infinite width": config(WHOLE, widths=[float("inf"), 8, 8]),
    "100,000 widths": config("widths: ", widths=[8] * 100_000),
    "100,000 wrong widths": config("widths", widths=["8"] * 100_000),
    "one width": config("widths: input should be a valid array", widths=8),
    "absurd depth": config(rf"down_blocks\.2: {LESS} 16", down_blocks=[1, 1, 10**7]),
    "absurd experts": config(f"experts: {LESS} 16", experts=10**7),
    "no heads": config(f"heads: {MORE} 1", heads=0),
    "heads that do not divide": config("cannot be split into 3 heads", heads=3),
    "number for a truth": config("importance: input should be a valid boolean", importance=1),
    "null for a truth": config("two_sizes: input should be a valid boolean", two_sizes=None),
    "unknown entry": config("depth: unexpected", depth=3),
    "unknown entry with line breaks": config("evil", **{EVIL: 3}),
    "50,000 unknown entries": config("entry0: unexpected", **{f"entry{i}": i for i in range(50_000)}),
    "as wide as allowed": config("has another shape for", widths=[4096] * 3),
    "as much as allowed": config(
        "lacks", widths=[4096] * 3, down_blocks=[16] * 3, up_blocks=[16] * 2, experts=16, heads=16
    ),
    "as much as allowed, with clip": of("cliphaze_t", "lacks", widths=[4080] * 3, blocks=[16] * 5),
    "CLIP by a path": of("cliphaze_t", NAMED, clip="/etc"),
    "CLIP by an id": of("cliphaze_t", NAMED, clip="org/clip"),
    "CLIP of a backbone": of("progressive:cliphaze_t", NAMED, backbone={"clip": "/etc"}),
    "width between heads": of("cliphaze_t", r"widths\.1: .*multiple of 24", widths=[24, 49, 96]),
    "unknown mix": of("cliphaze_t", "mix: input should be 'local'", mix=EVIL),
    "absurd rounds": of("progressive:api", f"rounds: {LESS} 6", rounds=10**12),
    "text for a backbone": of("progressive:api", "backbone: input should be an object", backbone="api"),
    "other backbone": of("progressive:api", r"backbone\.dilated_depthwise", backbone={"dilated_depthwise": True}),
    "another model": of("draco", "does not fit the model 'draco'"),
    "model without weights": config("holds the model 'dcp'|has no weights", model="dcp"),
    "unknown model": config("names the model 'apj', which is none of", model="apj"),
    "model with line breaks": config("names the model 'evil", model=EVIL),
    "number for a model": config("names the model '3', which is none of", model=3),
    "list for a model": config("which is none of", model=["api"]),
    "no bytes": cut("model.safetensors", 0, "cannot be read"),
    "cut in the length": cut("model.safetensors", 5, "cannot be read"),
    "cut in the header": cut("model.safetensors", 100, "cannot be read"),
    "cut in the data": cut("model.safetensors", 60_000, "cannot be read"),
    "too large": cut("model.safetensors", 2**30, "more than the 536,870,912"),
    "folder for weights": folder_for("model.safetensors"),
    "dangling weights": dangling("model.safetensors"),
    "header of 2^63 bytes": header("is too long", b"{}", size=2**63),
    "header of 1 MB": header("is too long", b"{" + b" " * 2**20 + b"}"),
    "header that is no JSON": header("cannot be read", b"nonsense"),
    "header not UTF-8": header("cannot be read", b'{"\xff": 1}'),
    "deep header": header("cannot be read", b"[" * 99_999),
    "overlapping tensors": layout("cannot be read", a=("F32", [2], [0, 8]), b=("F32", [3], [4, 16])),
    "tensor beyond the end": layout("cannot be read", a=("F32", [2**40], [0, 2**42])),
    "shape that overflows": layout("cannot be read", a=("F32", [2**62, 2**62], [0, 16])),
    "unknown data type": layout("cannot be read", a=("F128", [1], [0, 16])),
    "name with line breaks": layout("has the unknown evil", **{EVIL: FOUR}),
    "9,001 tensors": layout("a and 9000 more", a=FOUR, **{f"b{i}": ("F32", [0], [0, 0]) for i in range(9000)}),
    "missing tensor": tensors(r"lacks head\.bias", head__bias=None),
    "unknown tensor": tensors("has the unknown stranger", stranger=torch.zeros(1)),
    "other shape": tensors(r"has another shape for head\.bias", head__bias=torch.zeros(25)),
    "more dimensions": tensors(r"has another shape for head\.bias", head__bias=torch.zeros(24, 1)),
    "whole numbers": stored(torch.int64),
    "double precision": stored(torch.float64),
    "8 bits": stored(torch.float8_e4m3fn),
    "truths": stored(torch.bool),
    "complex numbers": stored(torch.complex64),
    "pickle": Case(lambda folder: torch.save({}, folder / "model.safetensors"), "cannot be read"),
    "pointer to a large file": Case(content("model.safetensors", "version https://git-lfs.github.com"), "cannot"),
    "huge card": cut("README.md", 2**20 + 1, "more than the 1,048,576"),
    "huge front matter": card("note: " + "a " * 50_000, "front matter has more than 65,536"),
    "broken YAML": card("license: [mit", r"README\.md cannot be read"),
    "deep YAML": card("license: " + "[" * 60_000, r"README\.md cannot be read"),
    "list for front matter": card("- a", "its front matter is not a mapping"),
    "text for front matter": card("a", "its front matter is not a mapping"),
    "bomb for a license": card(f"{BOMB}license: *x9", "license: input should be a valid string"),
    "bomb for tags": card(f"{BOMB}tags: *x9", r"README\.md cannot be read"),
    "itself for tags": card("tags: &a [*a]", r"README\.md cannot be read"),
    "undefined alias": card("license: *a", r"README\.md cannot be read"),
    "object for a license": card("license: !!python/object/apply:os.system [exit]", "license: input should be"),
    "card not UTF-8": Case(content("README.md", b"---\nlicense: \xff\n---\n"), r"README\.md cannot be read"),
    "folder for a card": folder_for("README.md"),
    "dangling card": dangling("README.md"),
}  # fmt: skip
# Those where it matters that a repository names its model itself, and that the Hub's client fetches it.
REPOSITORIES = ["huge configuration", "absurd width", "CLIP by a path", "CLIP by an id", "CLIP of a backbone"]
REPOSITORIES += ["another model", "model without weights", "unknown model", "model with line breaks"]
REPOSITORIES += ["list for a model", "cut in the data", "overlapping tensors", "pickle", "huge card", "broken YAML"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Write a good folder, and the hostile ones."""
    torch.manual_seed(0)
    network, folders = API(TINY), {}
    for name, case in {"good": config("", model="api"), **HOSTILE}.items():
        folders[name] = folder = tmp_path_factory.mktemp("hostile")
        save_weights(network, folder)
        (folder / "README.md").write_text(CARD)
        config("", model="api").change(folder)
        case.change(folder)
    return folders


@pytest.fixture(scope="module")
def from_disk(folders) -> dict[str, bounded.Outcome]:
    calls = {name: [HOSTILE[name].model if name in HOSTILE else "api", str(path)] for name, path in folders.items()}
    return bounded.run("dehaze.hub:load_network", calls)


@pytest.fixture(scope="module")
def from_hub(folders, tmp_path_factory) -> dict[str, bounded.Outcome]:
    with HubServer() as server:
        calls = {}
        for number, name in enumerate(["good", *REPOSITORIES]):
            server.put_folder("model", f"org/model{number}", folders[name])
            calls[name] = [f"org/model{number}", "shipped"]
        return bounded.run("dehaze.hub:load_network", calls, env=server.environment(tmp_path_factory.mktemp("cache")))


def check(outcome: bounded.Outcome, message: str) -> None:
    assert outcome.error == "WeightsError", outcome
    assert re.search(message, outcome.message), outcome
    assert outcome.message.isprintable() and len(outcome.message) < 700, outcome
    assert outcome.seconds < 5 and outcome.megabytes < 1000, outcome


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_sentence(from_disk, name):
    check(from_disk[name], HOSTILE[name].message)


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_hostile_repository_is_refused_in_one_sentence(from_hub, name):
    check(from_hub[name], HOSTILE[name].message)


def test_a_good_one_loads_within_the_same_bounds(from_disk, from_hub):
    assert from_disk["good"].error is None and from_hub["good"].error is None
