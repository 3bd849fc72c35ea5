"""The pieces of the form by which results come to the board."""

import errno
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from bench.errors import DatasetError, RunError, to_json
from bench.record import read
from leaderboard.page import submit


def test_a_quota_lets_through_what_it_says(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(submit.time, "monotonic", lambda: now[0])
    quota = submit.Quota(2, 60)
    taken = []
    for now[0] in (0, 50, 59, 60, 61, 110, 111):
        taken.append(quota.take())
    assert taken == [True, True, False, True, False, True, False]


@pytest.fixture
def uploaded(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    return tmp_path / "uploads"


def test_an_upload_is_checked_under_any_name(enter, results, uploaded):
    path = enter(uploaded, trained_on=("SUN",))
    renamed = [path.with_suffix(".parquet").rename(uploaded / "values.PARQUET"), path.rename(uploaded / "a (1).json")]
    found = submit._received([str(one) for one in renamed], results)
    assert found.accepted
    named = submit._named(found, found.accepted)
    assert named.path.name == "mine__sample__native-v1.json" and read(named.path).method.name == "mine"
    assert named.path.with_suffix(".parquet").is_file()
    text = submit.render(named, "org/results")
    assert "results/mine__sample__native-v1.parquet" in text and "would be sent to org/results" in text
    assert "connected to none" in submit.render(named, None)


def test_uploads_that_are_no_record_are_told(enter, results, uploaded):
    path = enter(uploaded)
    for files, words in (
        ([], "this is nothing"),
        ([path], "this is mine__sample__native-v1.json"),
        ([path, path], "one .json and one .parquet"),
    ):
        found = submit._received([str(file) for file in files], results)
        assert not found.accepted and words in found.findings[0].text


def test_what_comes_from_strangers_is_text_on_the_page(enter, results, uploaded):
    path = enter(uploaded, "<img src=x onerror=alert(1)>", trained_on=("<b>",))
    found = submit._received([str(path), str(path.with_suffix(".parquet"))], results)
    text = submit.render(submit._named(found, found.accepted), None)
    assert found.accepted and "<img" not in text and "<b>" not in text


def test_a_name_that_is_too_long_for_a_file_is_refused(enter, results, uploaded):
    path = enter(uploaded)
    content = json.loads(path.read_text())
    content["method"]["name"] = "m" * 190
    content.pop("sha256")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content | {"sha256": digest}))
    found = submit._received([str(path), str(path.with_suffix(".parquet"))], results)
    assert "too long a name" in found.markdown() and not found.accepted


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"upload": None}, "there is no archive yet"),
        ({"name": "  "}, "The method has no name"),
        ({"name": None}, "The method has no name"),
        ({"parameters": "1.7 M"}, "'1.7 M' is no number of parameters"),
        ({"parameters": "9" * 20}, "parameters: Input should be less than or equal to"),
        ({"name": "a\x1b[2Jb"}, "name: Name should have no characters that cannot be seen"),
        ({"name": "x" * 81}, "Method has more than 80 characters"),
        ({"paper": "x" * 301}, "Paper has more than 300 characters"),
        ({"licence": "x" * 81}, "Licence of the weights has more than 80 characters"),
        ({"trained_on": "a," * 200}, "method cannot be described like this: trained_on"),
        ({"trained_on": "x" * 1_000_000}, "Trained on has more than 500 characters"),
        ({"paper": ["x"]}, "Paper is no text"),
        ({"dataset": "folder:/etc"}, "no such data set"),
        ({"dataset": ["sample"]}, "no such data set"),
        ({"dataset": {"a": 1}}, "no such data set"),
        ({"dataset": None}, "no such data set"),
        ({"protocol": "../native-v1"}, "no such protocol"),
        ({"protocol": 1}, "no such protocol"),
    ],
)
def test_what_a_client_sends_is_checked_here_too(results, uploaded, monkeypatch, said, words):
    monkeypatch.setattr(submit.scoring, "score", None)  # nothing of this comes so far
    fields = {"upload": "a.zip", "dataset": "sample", "protocol": "native-v1", "name": "mine", "paper": ""}
    fields |= {"licence": "", "parameters": "", "trained_on": ""} | said
    found = submit._scored(*fields.values(), results=results, data_root=None)
    [finding] = found.findings
    assert words in finding.text and finding.text.isprintable() and not found.accepted


def test_large_uploads_are_not_even_copied(enter, results, uploaded, monkeypatch):
    path = enter(uploaded)
    monkeypatch.setattr(submit.shutil, "copyfile", None)
    with path.open("r+b") as file:
        file.truncate(10**9)
    found = submit._received([str(path), str(path.with_suffix(".parquet"))], results)
    assert "has more than 2 MB" in found.findings[0].text


@pytest.fixture
def events(results, uploaded):
    """The functions behind the form's buttons, by name."""
    with gr.Blocks(analytics_enabled=False) as page:
        submit.form(results, "org/results")
    return {function.name: function.fn for function in page.fns.values()}


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret")


def test_a_full_disk_is_told_in_every_event(events, enter, results, uploaded, monkeypatch):
    path = enter(uploaded)
    files = [str(path), str(path.with_suffix(".parquet"))]
    about = ("sample", "native-v1", "mine", "", "", "", "")
    found = submit._received(files, results)

    def told(event, *inputs):
        with pytest.raises(gr.Error) as caught:
            made = events[event](*inputs)
            list(made) if event == "check_predictions" else made
        assert caught.value.message == "The server&#x27;s disk is full. Nothing was lost; try again later."

    monkeypatch.setattr(submit.shutil, "copyfile", full)
    told("check_record", files)
    monkeypatch.setattr(submit, "_folder", full)
    told("check_predictions", "a.zip", *about)
    monkeypatch.undo()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploaded))
    monkeypatch.setattr(submit.hub, "propose", full)
    told("send", found)


def test_a_disk_that_is_full_while_scoring_is_told(events, uploaded, monkeypatch):
    error = RunError("cannot be written: the disk is full.", "Run the same command again.", subject=Path("/srv/x"))
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    done = SimpleNamespace(stderr="", stdout=to_json(error), returncode=1)
    monkeypatch.setattr(submit.scoring.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(gr.Error, match=r"disk is full\. Nothing was lost"):
        list(events["check_predictions"]("a.zip", "sample", "native-v1", "mine", "", "", "", ""))


def test_findings_hold_no_folder_of_the_server(enter, results, uploaded, monkeypatch):
    path = enter(uploaded)
    path.with_suffix(".parquet").write_bytes(b"damaged")
    found = submit._received([str(path), str(path.with_suffix(".parquet"))], results)
    assert found.findings[0].text.startswith("record.parquet is damaged")
    error = DatasetError("lacks 1.png.", "See https://a.b/c/d.", subject=uploaded / "o haze", setting=f"In {uploaded}.")
    about = ("sample", "native-v1", "mine", "", "", "", "")
    for stdout, text in (
        (to_json(error), "o haze lacks 1.png. See https://a.b/c/d."),
        ("", "Scoring ended without a result. Try again later."),
        ("[1]", "Scoring ended without a result. Try again later."),
    ):
        done = SimpleNamespace(stderr=f"Killed in {uploaded}", stdout=stdout, returncode=1)
        monkeypatch.setattr(submit.scoring.subprocess, "run", lambda *_, done=done, **__: done)
        found = submit._scored("a.zip", *about, results=results, data_root=uploaded / "data")
        assert found.findings[0].text == text


def test_sets_that_lie_here_are_offered(tmp_path):
    assert submit.available(None) == ["sample"]
    (tmp_path / "O-HAZE").mkdir()
    assert submit.available(tmp_path) == ["sample", "o-haze", "o-haze-41-45"]
    assert submit.available(Path("nowhere")) == ["sample"]
