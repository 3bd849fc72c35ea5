import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class HubHandler(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP interface as downloading one model needs."""

    revision = "0123456789abcdef0123456789abcdef01234567"
    folder: Path
    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/tiny/revision/"):
            names = sorted(file.name for file in self.folder.iterdir())
            siblings = [{"rfilename": name} for name in names]
            model = {"id": "org/tiny", "sha": self.revision, "siblings": siblings, "private": False, "tags": []}
            return self.answer(200, json.dumps(model).encode())
        if path.startswith("/api/models/org/tiny/tree/"):
            files = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                for f in self.folder.iterdir()
            ]
            return self.answer(200, json.dumps(files).encode())
        if path.startswith("/org/tiny/resolve/"):
            return self.answer(200, (self.folder / path.rsplit("/", 1)[1]).read_bytes())
        return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        etag = f'"{hash(body):x}"'
        headers = {"Content-Length": str(len(body)), "ETag": etag, "X-Repo-Commit": self.revision, **(headers or {})}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(folder, tmp_path_factory, monkeypatch):
    """Serve `folder` as the Hub's model org/tiny on this machine."""
    from huggingface_hub import constants

    handler = type("Handler", (HubHandler,), {"folder": folder, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    cache = str(tmp_path_factory.mktemp("cache"))
    for name, value in {"ENDPOINT": endpoint, "HF_HUB_CACHE": cache, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "")
    yield handler
    server.shutdown()


def test_a_hub_model_loads_and_is_kept(hub, folder):
    network, found = load_network("api", "org/tiny")
    assert network.config == TINY
    assert found.revision == HubHandler.revision
    assert found.card["license"] == "apache-2.0"
    downloads = [path for path in hub.requests if "/resolve/" in path]
    load_network("api", f"org/tiny@{HubHandler.revision}")
    assert len([path for path in hub.requests if "/resolve/" in path]) <= len(downloads)  # from the cache


def test_an_unknown_hub_model_is_explained(hub):
    with pytest.raises(WeightsError, match="the Hub has no model 'org/none'"):
        load_network("api", "org/none")


def test_without_a_connection_the_message_says_what_to_do(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="check the connection"):
        load_network("api", "org/tiny")
