"""A model goes to the Hub and comes back by its id alone, through the Hub's own client."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

import dehaze
from dehaze.cli import app
from dehaze.errors import WeightsError
from dehaze.hub import SHIPPED, load_network, push, read_card, repository, save_weights, sha256, shipped_folder
from dehaze.networks.api.network import API, APIConfig
from tests.hub import HubServer, impatient

TINY = APIConfig(widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1))
CARD = "---\nlicense: mit\n---\n# Tiny\n\n![How it does](shown.jpg)\n\nBy [records](../../results), see [us](https://a.b).\n"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_weights(API(TINY), tmp_path / "weights")
    for name, data in {"README.md": CARD.encode(), "shown.jpg": b"picture", "notes.txt": b"private"}.items():
        (tmp_path / "weights" / name).write_bytes(data)
    return tmp_path / "weights"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


def invoke(*arguments, **options):
    return CliRunner().invoke(app, ["push", "api", "--to", "org/tiny", *map(str, arguments)], **options)


def test_what_is_pushed_loads_by_its_id(hub, folder):
    address = push("org/tiny", repository("api", folder))
    commit = hub.repositories["model", "org/tiny"].resolve("main")
    assert address == f"{hub.endpoint}/org/tiny/commit/{commit}"
    for id_ in ("org/tiny", f"org/tiny@{commit}"):
        dehazer = dehaze.load(id_, device="cpu")
        assert (dehazer.name, dehazer.revision, dehazer.card["license"]) == ("api", commit, "mit")
        expected = load_network("api", folder)[0].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in dehazer.network.state_dict().items())


def test_a_repository_holds_what_a_reader_needs_and_no_more(folder):
    files = repository("api", folder)
    assert set(files) == {"model.safetensors", "config.json", "README.md", "shown.jpg"}
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"]) == {"model": "api", **json.loads((folder / "config.json").read_text())}
    card = files["README.md"].decode()
    assert "By records, see [us](https://a.b)." in card and "![How it does](shown.jpg)" in card


def test_the_shipped_model_can_be_pushed():
    files = repository("api")
    assert {"model.safetensors", "config.json", "README.md", "examples.jpg"} == set(files)
    assert ModelCard(files["README.md"].decode()).data.license == "apache-2.0"
    assert "](../" not in files["README.md"].decode()


def test_what_cannot_be_pushed_is_explained(folder):
    with pytest.raises(WeightsError, match="dcp has no weights to push"):
        repository("dcp")
    with pytest.raises(WeightsError, match="names no license"):
        repository("api", folder, "# A card\n")
    with pytest.raises(WeightsError, match="front matter of the card cannot be read"):
        repository("api", folder, "---\n- a list\n---\n")
    (folder / "README.md").unlink()
    with pytest.raises(WeightsError, match=r"holds no README\.md"):
        repository("api", folder)


def test_a_card_of_other_weights_is_refused(folder):
    shipped = (shipped_folder("api") / "README.md").read_text(encoding="utf-8")
    assert repository("api", "shipped", shipped)
    with pytest.raises(WeightsError, match=r"The card is of other weights than .*its weights_sha256 is not theirs"):
        repository("api", folder, shipped)
    result = invoke("--weights", folder, "--card", "-", "--dry-run", input=shipped)
    assert result.exit_code == 1 and "of other weights" in result.output


@pytest.mark.parametrize("folder", [path.parent for path in SHIPPED.glob("*/README.md")], ids=lambda path: path.name)
def test_shipped_cards_name_their_weights(folder):
    assert read_card(folder).get("weights_sha256") == sha256(folder / "model.safetensors")


def test_ids_that_cannot_be_loaded_are_explained(hub, folder):
    hub.put_folder("model", "org/nameless", folder)
    with pytest.raises(WeightsError, match="names no model"):
        load_network("org/nameless", "shipped")
    with pytest.raises(WeightsError, match="stands for its own weights"):
        load_network("org/tiny", folder)
    with pytest.raises(WeightsError, match="neither a model nor a Hub id"):
        load_network("a/b/c", "shipped")
    config = json.loads((folder / "config.json").read_text())
    hub.put("model", "org/nameless", {"config.json": json.dumps({"model": "draco", **config}).encode()})
    with pytest.raises(WeightsError, match="holds the model 'draco', not 'api'"):
        load_network("api", "org/nameless")


def test_the_command_sends_or_only_shows(hub, folder):
    shown = invoke("--weights", folder, "--dry-run")
    assert shown.exit_code == 0 and "model.safetensors" in shown.output and "Nothing was sent" in shown.output
    assert not hub.requests
    sent = invoke("--weights", folder, "--card", "-", input="---\nlicense: mit\n---\n# By stdin\n")
    assert sent.exit_code == 0, sent.output
    assert hub.files("model", "org/tiny")["README.md"].decode().endswith("# By stdin\n")
    assert "shown.jpg" not in hub.files("model", "org/tiny")


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 500}, {"truncate": True}])
def test_a_push_that_fails_is_one_clear_error(hub, folder, monkeypatch, fault):
    impatient(monkeypatch)
    hub.fail("/commit/", **fault)
    failed = invoke("--weights", folder)
    assert failed.exit_code == 1
    assert "org/tiny cannot be written" in failed.output and "may write" in failed.output
