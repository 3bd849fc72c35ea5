"""The leaderboard and the form, driven as a visitor does, in front of a Hub on this machine."""

import shutil
from urllib.parse import urlparse

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import expect
from typer.testing import CliRunner

from bench import cli as bench
from leaderboard.page import CSS, board, submit
from leaderboard.page.explorer import Restored
from tests.hub import HubServer

BROWSER_MS = 120_000  # for machines that do much else at the same time
REPO = "org/results"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        server.connect(patch, tmp_path_factory.mktemp("cache"))
        server.put("dataset", REPO, {"README.md": b"# Results\n"})
        yield server


@pytest.fixture(scope="module")
def scored(dataset, pack, tmp_path_factory):
    """The folder of a record of the small set."""
    folder = tmp_path_factory.mktemp("scored")
    options = [str(pack(folder / "first.zip", 96)), "--dataset", dataset, "--method", "First"]
    assert CliRunner().invoke(bench.app, ["score", *options, "--output", str(folder / "results")]).exit_code == 0
    return folder / "results"


@pytest.fixture
def url(hub, results, dataset, scored, enter, changed, make, tmp_path, monkeypatch):
    """Serve both tabs, with methods on the sample set and one on each of two others."""
    shutil.copytree(scored, results, dirs_exist_ok=True)
    monkeypatch.setattr(submit, "available", lambda data_root: [dataset])
    more = {"psnr": lambda i: 13 + 0.3 * i, "niqe": lambda i: 3 + 0.5 * (i % 2)}
    enter(results, "theirs", more, license="MIT", record=changed(contaminated=("sample",)))
    make("dcp", {"psnr": 20.0}, dataset="harbour").write(results)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    with gr.Blocks(analytics_enabled=False) as page:
        with gr.Tab("Leaderboard"):
            board.leaderboard(results, lambda *_: Restored(Image.new("RGB", (64, 48), "navy"), as_scored=True))
        with gr.Tab("Submit"):
            submit.form(results, REPO)
    page.queue().launch(prevent_thread_lock=True, quiet=True, css_paths=CSS)
    yield page.local_url
    page.close()


@pytest.fixture
def page(browser, url):
    """Open the page; at the end there must have been no error, and no request to anybody else."""
    troubles = []
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(BROWSER_MS)
    expect.set_options(timeout=BROWSER_MS)
    page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: foreign(request.url) and troubles.append(f"asked {request.url}"))

    def foreign(asked):
        return urlparse(asked).scheme not in ("data", "blob") and urlparse(asked).netloc != urlparse(url).netloc

    page.goto(url)
    page.locator("#methods [role=gridcell]").first.wait_for()
    yield page
    context.close()
    assert not troubles


def column(page, table, index):
    cells = page.locator(f"{table} [role=gridcell][data-col='{index}']")
    cells.first.wait_for()
    return cells.all_inner_texts()


def too_wide(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0


def test_visitor_filters_the_board_and_looks_at_single_images(page):
    """On a phone. By hand, psnr: dcp 15.5 > identity 15.1 > theirs 14.8."""
    names = page.locator("#methods [role=gridcell][data-col='0']")
    expect(names).to_have_text(["dcp ‡", "identity ‡", "theirs † ‡"])
    assert column(page, "#methods", 1) == ["1 (100%)", "2 (50%)", "3 (0%)"]
    page.locator("#metrics").get_by_label("niqe").check()
    page.locator("#metrics").get_by_label("psnr").uncheck()
    expect(names).to_have_text(["theirs † ‡", "dcp ‡", "identity ‡"])
    page.locator("#without").get_by_label("trained on").check()
    expect(names).to_have_text(["dcp ‡", "identity ‡"])
    expect(page.locator("#exports a")).to_have_text(["CSV", "LaTeX", "Markdown", "BibTeX"])
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    assert started.value.suggested_filename == "sample-native-v1.csv"

    expect(page.locator("#verdict")).to_contain_text("B (dcp) is better than A (identity) on 8 of 10 images")
    page.get_by_label("B", exact=True).click()
    page.get_by_role("option", name="theirs").click()
    expect(page.locator("#verdict")).to_contain_text("B (theirs) is better than A (identity) on 5 of 10 images")
    worst = column(page, "#images", 3)
    assert [float(value) for value in worst] == sorted(float(value) for value in worst)
    expect(page.locator("#pictures")).to_be_hidden()
    page.locator("#images [role=gridcell]").first.click()
    expect(page.locator("#pictures img")).to_have_count(4)
    expect(page.locator("#remark")).to_contain_text("made now")
    assert not too_wide(page)

    page.get_by_label("Data set").first.click()
    page.get_by_role("option", name="harbour").click()
    expect(page.locator("#notes")).to_contain_text("harbour: 10 images")
    expect(page.locator("#verdict")).to_contain_text("is missing")  # no values lie beside this record
    expect(page.locator("#pictures")).to_be_hidden()


def test_visitor_hands_in_a_record(page, hub, enter, tmp_path, changed):
    page.get_by_role("tab", name="Submit").click()

    def hand_in(path):
        files = [str(path), str(path.with_suffix(".parquet"))]
        page.locator("#record input[type=file]").set_input_files(files)
        expect(page.locator("#record")).to_contain_text("parquet")
        page.get_by_role("button", name="Check the record").click()

    hand_in(enter(tmp_path / "bad", record=changed(dataset__fingerprint="ab" * 32)))
    expect(page.locator("#findings")).to_contain_text("not the bytes of sample")
    expect(page.locator("#findings .wrong")).to_have_count(1)
    expect(page.locator("#send")).to_be_disabled()

    page.locator("#record").get_by_label("Clear").first.click()
    hand_in(enter(tmp_path / "good", trained_on=("SUN",)))
    expect(page.locator("#findings")).to_contain_text("would be sent to org/results")
    assert not hub.files("dataset", REPO, "refs/pr/1")
    page.locator("#send").click()
    expect(page.locator("#answer a")).to_have_attribute("href", f"{hub.endpoint}/datasets/org/results/discussions/1")
    assert "results/mine__sample__native-v1.parquet" in hub.files("dataset", REPO, "refs/pr/1")
    assert set(hub.files("dataset", REPO)) == {"README.md"}
    expect(page.locator("#send")).to_be_disabled()
    assert not too_wide(page)


def test_visitor_has_restored_images_scored(page, hub, pack, tmp_path):
    page.get_by_role("tab", name="Submit").click()
    page.get_by_role("tab", name="Restored images").click()
    page.get_by_label("Method", exact=True).fill("Second")

    def hand_in(path):
        page.locator("#predictions input[type=file]").set_input_files(path)
        expect(page.locator("#predictions")).to_contain_text("zip")
        page.get_by_role("button", name="Score and check").click()

    hand_in(pack(tmp_path / "half.zip", 64, "a"))
    expect(page.locator("#findings .wrong")).to_contain_text("half.zip has no restored image for b")
    expect(page.locator("#send")).to_be_disabled()

    page.locator("#predictions").get_by_label("Clear").first.click()
    hand_in(pack(tmp_path / "whole.zip", 64))
    expect(page.locator("#findings")).to_contain_text("Second__folder-set__native-v1.json")
    expect(page.locator("#findings .wrong")).to_have_count(0)
    expect(page.locator("#checked")).to_contain_text("parquet")
    before = len(hub.files("dataset", REPO))
    page.locator("#send").click()
    expect(page.locator("#answer")).to_contain_text("Proposed")
    assert len(hub.files("dataset", REPO)) == before
    assert not too_wide(page)
