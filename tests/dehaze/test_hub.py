import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dehaze import list_models
from dehaze.errors import WeightsError
from dehaze.haze.generator import HazeGenerator
from dehaze.hub import Weights, build_network, find_weights, load_network, read_card, save_weights
from dehaze.networks import NETWORKS
from dehaze.networks.api.network import API, APIConfig
from dehaze.networks.cliphaze import CLIPHazeConfig
from dehaze.networks.progressive import ProgressiveConfig

TINY = APIConfig(widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1))
CARD = "---\nlicense: apache-2.0\ndatasets: [clear-photographs]\n---\n# A card\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(0)
    save_weights(API(TINY), tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    return tmp_path


def test_what_is_saved_is_loaded(folder):
    for weights in (folder, folder / "model.safetensors", str(folder / "model.safetensors")):
        network, found = load_network("api", weights)
        assert network.config == TINY
        assert not network.training
        tensors = load_file(folder / "model.safetensors")
        assert all(torch.equal(value, tensors[key]) for key, value in network.state_dict().items())
        assert len(found.sha256) == 64
        assert found.card["license"] == "apache-2.0"


def test_models_without_weights_take_none():
    network, found = load_network("dcp", "shipped")
    assert found is None
    assert not list(network.parameters())
    with pytest.raises(WeightsError, match="has no weights"):
        load_network("dcp", "some.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_single(folder, dtype):
    file = folder / "model.safetensors"
    halves = {key: value.to(dtype) for key, value in load_file(file).items()}
    save_file(halves, file)
    network, _ = load_network("api", folder)
    assert all(torch.equal(value, halves[key].float()) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", list_models())
def test_what_ships_is_loaded_bit_by_bit(name):
    network, found = load_network(name, "shipped")
    expected = load_file(found.file) if found else {}
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert all(not value.is_meta for value in (*network.parameters(), *network.buffers()))


NETWORK_CLASSES = {name: NETWORKS.get(name) for name in NETWORKS.names() if NETWORKS.get(name).config_class}


@pytest.mark.parametrize("name", NETWORK_CLASSES.keys() | {"ahg"})
def test_no_configuration_asks_for_just_any_number(name, tmp_path):
    """Each number of each network's configuration has a limit that is checked before the network is made."""
    network_class = NETWORK_CLASSES.get(name, HazeGenerator)
    with torch.device("meta"):
        config = json.loads(json.dumps(asdict(network_class().config)))
    for value, put in numbers(config):
        for wrong in (10**9, -1, value + 0.5, str(value)):
            put(wrong)
            with pytest.raises(WeightsError, match=f"not of the model '{name}'"):
                build_network(name, network_class, Weights(tmp_path / "none", "", config, {}))
        put(value)


def numbers(values: dict | list) -> Iterator[tuple[int, Callable]]:
    """Yield each whole number of nested values, and what puts another into its place."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        if isinstance(value, dict | list):
            yield from numbers(value)
        elif type(value) is int:
            yield value, partial(values.__setitem__, key)


@pytest.mark.parametrize("name", ["cliphaze_t", "progressive:cliphaze_t"])
def test_the_caller_alone_chooses_another_clip(name, tmp_path):
    config = CLIPHazeConfig(widths=(24, 24, 24), blocks=(1, 0, 0, 0, 0), clip="org/hers")
    network_class = NETWORKS.get(name)
    saved = network_class(config if name == "cliphaze_t" else ProgressiveConfig(backbone=config))
    save_weights(saved, tmp_path)
    with pytest.raises(WeightsError, match=r"other than the shipped one\. Name one yourself"):
        load_network(name, tmp_path)
    network, _ = load_network(name, tmp_path, clip="org/mine")
    assert getattr(network, "backbone", network).config.clip == "org/mine"


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(WeightsError, match="There are no weights at nowhere"):
        find_weights("api", "nowhere")
    with pytest.raises(WeightsError, match=r"gone\.safetensors does not exist"):
        find_weights("api", folder / "gone.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json does not exist"):
        find_weights("api", folder / "model.safetensors")


def test_a_pickle_is_never_opened(tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="only safetensors are loaded"):
        find_weights("api", file)


def test_a_folder_without_a_card_has_an_empty_one(folder):
    (folder / "README.md").unlink()
    assert read_card(folder) == {}


@pytest.mark.parametrize(
    ("front_matter", "card"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: no\npaper: 2601.01992", {"license": "no", "paper": "2601.01992"}),  # texts, whatever they look like
        ("tags: [a, b]\ndatasets: c", {"tags": ["a", "b"], "datasets": "c"}),
        ("license: mit\nmodel-index:\n- name: x\n  results: []", {"license": "mit"}),
        ("more: &a [x]\nevenmore: [*a, *a]\ntags: *a", {"tags": ["x"]}),
        ("", {}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_card_says_what_its_front_matter_does(folder, front_matter, card, end):
    text = f"---\n{front_matter}\n---\n# A card\n\n---\nlicense: none\n---\n"
    (folder / "README.md").write_bytes(text.replace("\n", end).encode())
    assert read_card(folder) == card


@pytest.mark.parametrize("text", ["# A card\n", "", "---\nlicense: mit\n", "A card\n---\nlicense: mit\n---\n"])
def test_a_card_without_front_matter_says_nothing(folder, text):
    (folder / "README.md").write_text(text)
    assert read_card(folder) == {}
