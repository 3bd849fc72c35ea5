"""Records on the Hub, through its own client, against a Hub on this machine."""

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from typer.testing import CliRunner

from bench.errors import RecordError
from bench.record import MOST_BYTES, read, read_folder, read_values
from leaderboard import card, hub
from leaderboard.cli import app
from leaderboard.errors import HubError
from tests.hub import HubServer, impatient

REPO = "org/results"


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def stems(results):
    return {
        f"results/{record.stem}{suffix}"
        for record in read_folder(results)[0].values()
        for suffix in (".json", ".parquet")
    }


def test_what_is_published_is_pulled(server, results, tmp_path):
    sent = invoke("publish", "--to", REPO, "--results", results)
    assert sent.exit_code == 0, sent.output
    held = server.files("dataset", REPO)
    assert set(held) == stems(results) | {"README.md"}
    assert "### sample, native-v1" in held["README.md"].decode() and "| dcp |" in held["README.md"].decode()
    taken = invoke("pull", "--from", REPO, "--results", tmp_path / "mine")
    assert taken.exit_code == 0 and "2 records in org/results" in taken.output
    ours, theirs = (list(read_folder(folder)[0].values()) for folder in (results, tmp_path / "mine"))
    assert ours == theirs
    for path, record in read_folder(tmp_path / "mine")[0].items():
        assert read_values(path, record)
    assert set(hub.pull(REPO, tmp_path / "mine").values()) == {("unchanged", "")}


def test_publishing_only_shown_sends_nothing(server, results):
    shown = invoke("publish", "--to", REPO, "--model", "dcp=org/dcp", "--results", results, "--dry-run")
    assert shown.exit_code == 0 and "Nothing was sent." in shown.output
    assert (
        "org/results/README.md" in shown.output and "org/dcp/.eval_results/dcp__sample__native-v1.yaml" in shown.output
    )
    assert not server.requests


def test_pulling_keeps_what_is_newer_and_refuses_what_is_damaged(server, enter, results, tmp_path, changed):
    for method, day in (("old", 1), ("new", 3)):
        enter(results, method, record=changed(created=f"2025-03-0{day}T00:00:00Z"))
    server.put("dataset", REPO, hub.contents(results))
    held = server.files("dataset", REPO)
    stem = "results/identity__sample__native-v1"
    server.put("dataset", REPO, {f"{stem}.json": held[f"{stem}.json"].replace(b"identity", b"identitx")})
    server.put("dataset", REPO, {"results/dcp-2.json": held["results/dcp__sample__native-v1.json"]})
    server.put("dataset", REPO, {"results/dcp-2.parquet": held["results/dcp__sample__native-v1.parquet"]})

    mine = tmp_path / "mine"
    for method in ("old", "new"):
        enter(mine, method, record=changed(created="2025-03-02T00:00:00Z"))
    own = enter(mine, "own")
    (mine / "dcp__sample__native-v1.json").write_text("damaged")
    pulled = invoke("pull", "--from", REPO, "--results", mine)
    assert pulled.exit_code == 1
    assert {name.split("_")[0]: change for name, (change, _) in hub.pull(REPO, mine).items()} == {
        "dcp": "unchanged",
        "dcp-2.json": "refused",
        "identity": "refused",
        "new": "unchanged",
        "old": "kept",
    }
    for line in ("newer: new__", "kept: old__", "new: dcp__", "refused: identity__"):
        assert line in pulled.output
    assert "was changed after it was written" in pulled.output and "should have the name dcp__sample" in pulled.output
    assert own.exists() and not (mine / "dcp-2.json").exists()


def test_pulling_fetches_nothing_that_is_no_record(server, results, tmp_path):
    held = hub.contents(results)
    stem = "results/dcp__sample__native-v1"
    odd = {
        f"{stem}.parquet": b"0" * (MOST_BYTES[".parquet"] + 1),
        "results/large.json": b"0" * (MOST_BYTES[".json"] + 1),
        "results/\x1b[2J.json": b"{}",
        f"results/{'x' * 300}.json": b"{}",
        "results/*.json": b"{}",
        "results/deep/x.json": b"{}",
        "results/folder.json/x.json": b"{}",
        "results/program.py": b"print()",
        "elsewhere.json": b"{}",
    }
    server.put("dataset", REPO, held | odd)
    done = invoke("pull", "--from", REPO, "--results", tmp_path / "mine")
    assert done.exit_code == 1 and "\x1b" not in done.output
    assert sorted(line.partition(" (")[0] for line in done.stderr.splitlines() if "refused" in line) == [
        "refused: *.json",
        "refused: dcp__sample__native-v1.json",
        "refused: large.json",
        f"refused: {'x' * 300}.json",
        "refused: \ufffd[2J.json",
    ]
    assert "dcp__sample__native-v1.parquet has more than 8 MB" in done.stderr
    fetched = {path.rpartition("/")[2] for path in server.requests if "/resolve/" in path}
    assert fetched == {f"identity__sample__native-v1{suffix}" for suffix in MOST_BYTES}
    assert [path.name for path in (tmp_path / "mine").glob("*.json")] == ["identity__sample__native-v1.json"]


@pytest.mark.parametrize(("bound", "words"), [("MOST_FILES", "more than 3 files"), ("ALL_BYTES", "MB together")])
def test_a_data_set_that_would_fill_the_disk_is_refused_before_it_is_fetched(
    server, results, tmp_path, monkeypatch, bound, words
):
    server.put("dataset", REPO, hub.contents(results))
    monkeypatch.setattr(hub, bound, 3)
    with pytest.raises(HubError, match=words):
        hub.pull(REPO, tmp_path / "mine")
    assert not [path for path in server.requests if "/resolve/" in path] and not (tmp_path / "mine").exists()


def test_an_empty_data_set_holds_no_record(server, tmp_path):
    server.put("dataset", REPO, {"README.md": b""})
    assert hub.pull(REPO, tmp_path / "mine") == {}


def test_what_the_hub_said_is_for_those_who_run_this_alone(server, enter, results, tmp_path):
    path = enter(tmp_path / "mine")
    with pytest.raises(HubError, match="hf auth login") as caught:
        hub.propose(path, read(path), "org/none")
    assert caught.value.for_visitors() == "org/none did not take the files. Try again later."


def test_a_record_is_proposed_and_the_main_branch_left_alone(server, enter, results, tmp_path):
    server.put("dataset", REPO, hub.contents(results))
    before = server.files("dataset", REPO)
    path = enter(tmp_path / "mine", trained_on=("SUN",))
    done = invoke("submit", path, "--to", REPO, "--results", results)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"{server.endpoint}/datasets/org/results/discussions/1"
    assert server.files("dataset", REPO) == before
    proposed = server.files("dataset", REPO, "refs/pr/1")
    assert set(proposed) - set(before) == {
        f"results/mine__sample__native-v1{suffix}" for suffix in (".json", ".parquet")
    }
    assert hub.pull(REPO, tmp_path / "review", "refs/pr/1")["mine__sample__native-v1.json"] == ("new", "")
    assert read(tmp_path / "review/mine__sample__native-v1.json") == read(path)


def test_only_checking_sends_nothing(server, enter, results, tmp_path):
    done = invoke("submit", enter(tmp_path / "mine"), "--dry-run", "--results", results)
    assert done.exit_code == 0 and "Nothing was sent." in done.output
    assert "results/mine__sample__native-v1.parquet" in done.output and "right  values:" in done.output
    assert not server.requests
    assert "--to ORG/NAME, or --dry-run" in invoke("submit", enter(tmp_path / "mine"), "--results", results).output


def test_what_is_wrong_is_not_sent(server, enter, results, tmp_path, changed):
    path = enter(tmp_path / "mine", record=changed(dataset__fingerprint="ab" * 32))
    done = invoke("submit", path, "--to", REPO, "--results", results)
    assert done.exit_code == 1 and "wrong  data set: the images are not the bytes" in done.output
    assert not server.requests
    done = invoke("submit", tmp_path / "mine.zip", "--to", REPO)
    assert done.exit_code == 2 and "--dataset what they are of" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("command", ["submit", "publish", "pull"])
@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 500}, {"truncate": True}], ids=["403", "500", "cut"])
def test_each_fault_is_one_clear_line(server, enter, results, tmp_path, monkeypatch, command, fault):
    impatient(monkeypatch)
    server.put("dataset", REPO, hub.contents(results))
    before = server.files("dataset", REPO)
    server.fail("/resolve/" if command == "pull" else "/commit/", **fault)
    arguments = {
        "submit": ["submit", enter(tmp_path / "mine"), "--to", REPO],
        "publish": ["publish", "--to", "org/other"],
        "pull": ["pull", "--from", REPO, "--results", tmp_path / "new"],
    }[command]
    done = invoke(*arguments, *(() if command == "pull" else ("--results", results)))
    assert done.exit_code == 1
    assert "Traceback" not in done.output and "Check the name, the connection and the login" in done.output
    server.heal()
    assert server.files("dataset", REPO) == before
    assert not list((tmp_path / "new").glob("*"))


def test_a_repository_that_is_not_there_is_said(server, enter, results, tmp_path):
    path = enter(tmp_path / "mine")
    with pytest.raises(HubError, match="org/none cannot be fetched"):
        hub.pull("org/none", tmp_path / "new")
    with pytest.raises(HubError, match="org/none did not take the files"):
        hub.propose(path, read(path), "org/none")


def test_records_that_cannot_be_trusted_are_not_published(server, results):
    (results / "dcp__sample__native-v1.parquet").unlink()
    done = invoke("publish", "--to", REPO, "--results", results)
    assert done.exit_code == 1 and "is missing" in done.output and not server.requests


def test_models_get_their_figures_in_the_hubs_form(server, results):
    done = invoke("publish", "--to", REPO, "--model", "dcp=org/dcp", "--results", results, "--pull-request")
    assert done.exit_code == 1 and "did not take" in done.output  # a request needs a repository
    done = invoke("publish", "--to", REPO, "--model", "dcp=org/dcp", "--results", results)
    assert done.exit_code == 0, done.output
    [(path, text)] = server.files("model", "org/dcp").items()
    assert path == ".eval_results/dcp__sample__native-v1.yaml"
    psnr, niqe = parse_eval_result_entries(yaml.safe_load(text))
    record = read(results / "dcp__sample__native-v1.json")
    assert (psnr.dataset_id, psnr.task_id, psnr.value) == (REPO, "sample__native-v1__psnr", record.metrics["psnr"].mean)
    assert psnr.source_url.endswith("/datasets/org/results/blob/main/results/dcp__sample__native-v1.json")
    assert psnr.date == record.created and "lower is better; mean over 18 images" in niqe.notes
    for model, code, words in (
        ("dcp", 2, "is not NAME=ORG/NAME"), ("none=org/none", 1, "There is no record of none"),
    ):  # fmt: skip
        done = invoke("publish", "--to", REPO, "--model", model, "--results", results)
        assert done.exit_code == code and words in done.output


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [dehazing]\n---\n# Mine\n\nIt removes haze.\n")
    return folder


# SHA-256 of b"weights", as sha256sum prints it.
WEIGHTS = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"


def test_a_card_has_the_figures_of_the_records(enter, results, weights):
    path = enter(results, source="model", weights_sha256=WEIGHTS, trained_on=("SUN",))
    done = invoke("card", "mine", "--weights", weights, "--results", results)
    assert done.exit_code == 0, done.output
    made = ModelCard(done.output)
    psnr, niqe = made.data.eval_results
    summary = read(path).metrics["psnr"]
    assert (made.data.license, made.data.model_name, psnr.dataset_type) == ("mit", "mine", "sample")
    assert (psnr.metric_type, psnr.metric_value, psnr.dataset_config) == ("psnr", summary.mean, "native-v1")
    assert made.text.strip().startswith("# Mine\n\nIt removes haze.\n\n## Figures from the records")
    score = f"{summary.mean:.4g} [{summary.low:.3g}, {summary.high:.3g}]"
    assert f"| sample | native-v1 | 18 | {score} | " in made.text and niqe.metric_name == "niqe ↓"


def test_figures_of_the_records_take_the_place_of_typed_ones(enter, results, weights):
    record = read(enter(results, source="model", weights_sha256=WEIGHTS))
    text = "# Mine\n\nBefore.\n\n<!-- figures: card mine -->\n| psnr |\n| 99.99 |\n<!-- /figures -->\n\nAfter.\n"
    (weights / "README.md").write_text(f"---\nlicense: mit\n---\n{text}")
    made = card.with_figures("mine", [record], weights)
    assert "99.99" not in made and "Figures from the records" not in made
    assert made.index("Before.") < made.index("| sample | native-v1 | 18 |") < made.index("After.")


def test_a_card_finds_the_records_of_its_weights_under_any_name(enter, results, weights):
    """As `bench run --model api --weights MINE --method mine` makes them."""
    record = read(enter(results, source="model", weights_sha256=WEIGHTS))
    made = card.with_figures("api", [record], weights)
    assert "Figures from the records" in made and f"weights_sha256: {WEIGHTS}" in made
    assert "| sample | native-v1 | 18 |" in made


def test_a_card_takes_no_figures_of_other_weights(enter, results, weights):
    records = list(read_folder(results)[0].values())
    with pytest.raises(RecordError, match="There is no record of the model mine"):
        card.with_figures("mine", records, weights)
    records = [read(enter(results, source="model", weights_sha256="ab" * 32))]
    with pytest.raises(RecordError, match="holds other weights"):
        card.with_figures("mine", records, weights)
    (weights / "README.md").unlink()
    with pytest.raises(RecordError, match="does not exist"):
        card.with_figures("mine", records, weights)
