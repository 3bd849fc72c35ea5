"""Weights from the Hub, through its own client, against a Hub on this machine."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from dehaze.errors import WeightsError
from dehaze.hub import MAX_BYTES, load_network, save_weights
from dehaze.networks.api.network import API, APIConfig
from tests.hub import HubServer, impatient

TINY = APIConfig(widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1))
CARD = "---\nlicense: apache-2.0\ndatasets: [clear-photographs]\n---\n# A card\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(0)
    save_weights(API(TINY), tmp_path / "weights")
    (tmp_path / "weights/README.md").write_text(CARD)
    return tmp_path / "weights"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        server.put_folder("model", "org/tiny", folder)
        yield server


def downloads(hub):
    return [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]


def test_a_hub_model_loads_and_is_kept(hub, folder):
    network, found = load_network("api", "org/tiny")
    expected = load_network("api", folder)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    commit = hub.repositories["model", "org/tiny"].resolve("main")
    assert found.revision == commit
    assert found.card["license"] == "apache-2.0"
    assert len(downloads(hub)) == 3
    load_network("api", f"org/tiny@{commit}")
    assert len(downloads(hub)) == 3  # from the cache


def test_a_revision_is_kept_to(hub, folder):
    first = hub.repositories["model", "org/tiny"].resolve("main")
    torch.manual_seed(1)
    save_weights(API(TINY), folder)
    hub.put_folder("model", "org/tiny", folder)
    assert load_network("api", "org/tiny")[1].sha256 != load_network("api", f"org/tiny@{first}")[1].sha256


def test_other_files_of_the_repository_are_left_there(hub):
    hub.put("model", "org/tiny", {"pytorch_model.bin": b"a pickle"})
    load_network("api", "org/tiny")
    assert not any("pytorch_model.bin" in request for request in downloads(hub))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_what_is_too_large_is_not_fetched(hub, monkeypatch, name):
    monkeypatch.setitem(MAX_BYTES, name, 10)
    with pytest.raises(WeightsError, match=f"{name} of org/tiny has .* bytes, more than the 10"):
        load_network("api", "org/tiny")
    assert not downloads(hub)


def test_an_unknown_hub_model_is_explained(hub):
    with pytest.raises(WeightsError, match="org/none is no model of the Hub"):
        load_network("api", "org/none")
    with pytest.raises(WeightsError, match="Check the connection and the revision"):
        load_network("api", "org/tiny@gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 500},
        {"truncate": True, "methods": ("GET",)},
        {"delay": 1.0, "methods": ("GET",)},
    ],
    ids=["404", "429", "500", "truncated", "slow"],
)
def test_each_fault_is_one_clear_error(hub, monkeypatch, fault):
    impatient(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.fail("/resolve/", **fault)
    with pytest.raises(WeightsError, match=r"org/tiny cannot be fetched .* Check the connection") as caught:
        load_network("api", "org/tiny")
    assert "\n" not in str(caught.value)
    hub.heal()
    assert load_network("api", "org/tiny")[0].config == TINY  # nothing half fetched is kept


def test_what_was_fetched_is_there_without_a_connection(hub):
    load_network("api", "org/tiny")
    hub.fail("/", status=500)
    assert load_network("api", "org/tiny")[0].config == TINY


def test_a_hub_model_without_its_weights_says_which_file_is_missing(hub):
    hub.put("model", "org/tiny", {"model.safetensors": None})
    with pytest.raises(WeightsError, match=r"model\.safetensors does not exist"):
        load_network("api", "org/tiny")


def test_without_a_connection_the_message_says_what_to_do(hub, monkeypatch):
    impatient(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="Check the connection"):
        load_network("api", "org/tiny")
