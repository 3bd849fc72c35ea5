"""The pieces of the form by which results come to the board."""

import hashlib
import json
from pathlib import Path

import pytest

from bench.record import read
from leaderboard import submit


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
    named = submit._named(found)
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
    text = submit.render(submit._named(found), None)
    assert found.accepted and "<img" not in text and "<b>" not in text


def test_a_name_that_is_too_long_for_a_file_is_refused(enter, results, uploaded):
    path = enter(uploaded)
    content = json.loads(path.read_text())
    content["method"]["name"] = "m" * 250
    content.pop("sha256")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content | {"sha256": digest}))
    found = submit._received([str(path), str(path.with_suffix(".parquet"))], results)
    assert "too long a name" in found.markdown() and not found.accepted


def test_forms_that_lack_something_are_told(results, uploaded):
    def scored(upload, name, parameters=""):
        about = ("sample", "native-v1", name, "", "", parameters, "")
        return submit._scored(upload, *about, results=results, data_root=None).findings[0].text

    assert "no archive yet" in scored(None, "mine")
    assert "no name" in scored("a.zip", "  ")
    assert "'1.7 M' is none" in scored("a.zip", "mine", "1.7 M")


def test_sets_that_lie_here_are_offered(tmp_path):
    assert submit.available(None) == ["sample"]
    (tmp_path / "O-HAZE").mkdir()
    assert submit.available(tmp_path) == ["sample", "o-haze", "o-haze-41-45"]
    assert submit.available(Path("nowhere")) == ["sample"]
