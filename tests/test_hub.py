"""The real clients against the Hub of tests/hub.py: what is committed comes back, straight or as a pull request."""

import subprocess
import sys

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError

from bench import record
from tests.hub import TOKEN, HubServer, impatient


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def test_a_record_goes_up_and_comes_back(hub, api, make, tmp_path):
    made = make("api", {"psnr": 20.0})
    path = made.write(tmp_path / "records")
    api.create_repo("org/results", repo_type="dataset")
    api.upload_file(path_or_fileobj=path, path_in_repo=path.name, repo_id="org/results", repo_type="dataset")
    assert hub.files("dataset", "org/results") == {path.name: path.read_bytes()}
    assert record.read(api.hf_hub_download("org/results", path.name, repo_type="dataset")) == made


def test_a_pull_request_leaves_the_main_branch_alone(hub, api):
    before = hub.put("dataset", "org/results", {"old.json": b"{}", "gone.json": b"[]"})
    steps = [CommitOperationAdd("new.json", b'{"schema": 1}'), CommitOperationDelete("gone.json")]
    options = {"repo_type": "dataset", "commit_message": "Add a record", "create_pr": True}
    first = api.create_commit("org/results", steps, **options)
    second = api.create_commit("org/results", [CommitOperationAdd("other.json", b"{}")], **options)
    assert first.pr_url == f"{hub.endpoint}/datasets/org/results/discussions/1"
    assert (first.pr_revision, second.pr_revision) == ("refs/pr/1", "refs/pr/2")
    assert set(hub.files("dataset", "org/results")) == {"old.json", "gone.json"}
    assert set(hub.files("dataset", "org/results", "refs/pr/1")) == {"old.json", "new.json"}
    assert set(hub.files("dataset", "org/results", "refs/pr/2")) == {"old.json", "gone.json", "other.json"}
    assert api.dataset_info("org/results").sha == before
    assert api.list_repo_files("org/results", repo_type="dataset", revision="refs/pr/1") == ["new.json", "old.json"]


def test_large_files_go_by_lfs(hub, api, tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    content = {"values.parquet": bytes(range(256)) * 40, "deep/notes.txt": b"notes"}
    for name, data in content.items():
        (tmp_path / "folder" / name).write_bytes(data)
    api.create_repo("org/results", repo_type="dataset")
    api.upload_folder(folder_path=tmp_path / "folder", repo_id="org/results", repo_type="dataset")
    assert hub.files("dataset", "org/results") == content
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)


def test_what_is_not_there_is_said_as_the_hub_says_it(hub, api):
    hub.put("model", "org/tiny", {"config.json": b"{}"})
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/tiny", "model.safetensors")


def test_a_refusal_for_now_is_waited_out_as_long_as_asked(hub, api, monkeypatch):
    waits = impatient(monkeypatch)
    hub.put("dataset", "org/results", {"a.json": b"{}"})
    hub.fail("/tree/", status=429, headers={"Retry-After": "7"}, times=2)
    assert api.list_repo_files("org/results", repo_type="dataset") == ["a.json"]
    assert waits == [8.0, 8.0]  # the client adds a second
    hub.fail("/preupload/", status=429, headers={"Retry-After": "3"}, times=1)
    api.upload_file(path_or_fileobj=b"[]", path_in_repo="b.json", repo_id="org/results", repo_type="dataset")
    assert waits == [8.0, 8.0, 4.0]
    assert hub.files("dataset", "org/results")["b.json"] == b"[]"


def test_a_commit_that_fails_leaves_nothing(hub, api, monkeypatch):
    impatient(monkeypatch)
    before = hub.put("dataset", "org/results", {"a.json": b"{}"})
    for status in (500, 429):
        hub.fail("/commit/", status=status)
        with pytest.raises(HfHubHTTPError) as caught:
            api.upload_file(path_or_fileobj=b"[]", path_in_repo="b.json", repo_id="org/results", repo_type="dataset")
        assert caught.value.response.status_code == status
        hub.heal()
        assert api.dataset_info("org/results").sha == before


def test_another_process_is_sent_here_by_its_environment(hub, tmp_path):
    hub.put("model", "org/tiny", {"config.json": b'{"width": 8}'})
    code = "from huggingface_hub import hf_hub_download as get; print(open(get('org/tiny', 'config.json')).read())"
    environment = hub.environment(tmp_path / "home")
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == '{"width": 8}\n', result.stderr
