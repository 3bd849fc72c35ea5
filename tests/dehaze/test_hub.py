import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dehaze.errors import WeightsError
from dehaze.hub import find_weights, load_network, read_card, save_weights
from dehaze.networks.api import API, APIConfig

TINY = APIConfig(widths=(8, 8, 8, 8), down_blocks=(1, 1, 1, 1), up_blocks=(1, 1, 1))
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


def test_a_truncated_file_is_refused(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="damaged or not a safetensors file"):
            load_network("api", file)


def test_weights_of_another_network_are_refused(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for changed, message in [
        ({**tensors, "stranger": torch.zeros(1)}, "stranger"),
        ({key: value for key, value in tensors.items() if key != "head.bias"}, "head.bias"),
        ({**tensors, "head.bias": torch.zeros(5)}, "head.bias"),
    ]:
        save_file(changed, file)
        with pytest.raises(WeightsError, match=message):
            load_network("api", file)


def test_a_configuration_of_another_network_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"depth": 3}))
    with pytest.raises(WeightsError, match="not of the model 'api'"):
        load_network("api", folder)
    for text in ("{", "[]", ""):
        (folder / "config.json").write_text(text)
        with pytest.raises(WeightsError, match="not valid JSON"):
            load_network("api", folder)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(WeightsError, match="there are no weights at nowhere"):
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
