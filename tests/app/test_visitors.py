"""The page as people use it, in a browser."""

import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio.utils import get_upload_folder
from PIL import Image
from playwright.sync_api import expect

import app
import dehaze
from bench import metrics
from dehaze.io.photo import read_photo
from dehaze.page import batch, screen
from tests.app.tools import (
    SIZE,
    await_download,
    await_result,
    download,
    mean_colour,
    mean_of,
    restore,
    set_strength,
    shown_sizes,
    upload,
    write_clip,
    zipped,
)


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_nothing_jumps_while_the_page_opens(visit, size):
    page = visit(*size)
    page.wait_for_timeout(1000)
    moved = """() => new Promise(tell => new PerformanceObserver(list => {
      tell(list.getEntries().reduce((sum, shift) => sum + shift.value, 0));
    }).observe({type: 'layout-shift', buffered: true}))"""
    # An observer is told of no shift if there was none: then a shift of our own is all that it sees.
    page.evaluate("document.querySelector('#intro').style.marginTop = '10px'")
    assert 0 < page.evaluate(moved) < 0.05


def test_visitor_restores_compares_and_downloads(visit, hazy, tmp_path, monkeypatch):
    restorations = []
    original = screen.restored
    monkeypatch.setattr(screen, "restored", lambda *args: restorations.append(args) or original(*args))
    hazy.save(path := tmp_path / "temple.png")
    expected = dehaze.load("api")(path)

    page = visit()
    upload(page, path)
    restore(page)
    await_result(page)

    assert shown_sizes(page, "#slider img") == [list(SIZE), list(SIZE)]
    assert shown_sizes(page, "#density img") == [list(SIZE)]
    cells = page.locator("#scores tbody tr").nth(2).locator("td").all_inner_texts()[:2]
    metric = metrics.get("fade_refit")
    wanted = [float(metric(read_photo(path).tensor())), float(metric(expected.photo.tensor()))]
    assert [float(cell) for cell in cells] == [round(value, 2) for value in wanted]
    expect(page.locator("#scores .words")).to_contain_text("before")
    taken = download(page, tmp_path)
    assert taken.name == "temple_dehazed.png"
    assert np.array_equal(np.asarray(Image.open(taken)), expected.pixels)
    page.locator("#slider").scroll_into_view_if_needed()
    assert np.abs(mean_colour(page, 0.1, 0.4) - mean_of(hazy, 0.1, 0.4)).max() < 3
    assert np.abs(mean_colour(page, 0.6, 0.9) - mean_of(expected.pixels, 0.6, 0.9)).max() < 3

    # Another strength and another look show without the model, and give other photographs.
    before, after = page.eval_on_selector_all("#slider img", "all => all.map(e => e.src)")
    set_strength(page, 0.5)
    page.wait_for_function("src => document.querySelectorAll('#slider img')[1].src !== src", arg=after)
    assert page.locator("#slider img").first.get_attribute("src") == before
    shown_sizes(page, "#slider img")
    page.locator("#slider").scroll_into_view_if_needed()
    blend = dehaze.load("api")(path, 0.5).pixels.astype(float)
    assert np.abs(mean_colour(page, 0.1, 0.4) - mean_of(hazy, 0.1, 0.4)).max() < 3
    assert np.abs(mean_colour(page, 0.6, 0.9) - mean_of(blend, 0.6, 0.9)).max() < 3
    expect(page.locator("#scores tbody td").nth(7)).not_to_have_text(cells[1])
    await_download(page.locator("#download"))
    page.get_by_label("JPEG").first.check()
    expect(page.locator("#download")).to_contain_text("Download JPG")
    page.get_by_label("PNG").first.check()
    expect(page.locator("#download")).to_contain_text("Download PNG")
    halfway = np.asarray(Image.open(download(page, tmp_path))).astype(float)
    assert np.array_equal(halfway, blend)
    page.get_by_label("Faithful").first.check()
    page.get_by_text("Adjust", exact=True).click()
    expect(page.get_by_label("number input for Brightness")).to_have_value("0")
    set_strength(page, 1)
    await_download(page.locator("#download"))
    page.wait_for_timeout(1500)
    faithful = np.asarray(Image.open(download(page, tmp_path)))
    assert np.array_equal(faithful, dehaze.load("api", look="faithful")(path).pixels)
    assert len(restorations) == 1


def test_keys_move_the_divider(visit, hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    page = visit()
    upload(page, path)
    restore(page)
    await_result(page)
    divider = page.get_by_role("slider", name="Divider between before and after").first
    divider.focus()

    def place():
        style = page.locator("#slider img").nth(1).get_attribute("style")
        return float(re.search(r"inset\(\S+ \S+ \S+ ([\d.]+)%", style)[1])

    middle = place()
    for _ in range(4):
        divider.press("ArrowRight")
    assert middle + 15 < place() < middle + 35
    expect(divider).to_have_attribute("aria-valuenow", re.compile(r"6\d|7\d"))
    for _ in range(4):
        divider.press("ArrowLeft")
    assert abs(place() - middle) < 3


def test_visitor_compares_models(visit, hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    page = visit()
    upload(page, path)
    page.get_by_role("button", name="Compare models on this photograph").click()
    models = page.locator("#compare-models")
    models.get_by_role("button", name="Compare", exact=True).click()
    count = len(dehaze.list_models()) - 1  # all but the one that changes nothing
    expect(models.locator("tbody tr")).to_have_count(1 + count)
    expect(models.locator(".before-after")).to_have_count(count)
    assert shown_sizes(page, "#compare-models .before-after img") == [list(SIZE)] * 2 * count
    expect(models.get_by_alt_text("After: haze removed")).to_have_count(count)


def test_visitor_restores_many(visit, hazy, tmp_path):
    hazy.save(tmp_path / "a.jpg")
    (tmp_path / "b.zip").write_bytes(zipped({"b.jpg": (tmp_path / "a.jpg").read_bytes(), "c.jpg": b"no photograph"}))
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files([tmp_path / "a.jpg", tmp_path / "b.zip"])
    expect(page.locator("#files").get_by_role("button", name="Remove this file")).to_have_count(2)
    page.get_by_role("button", name="Remove haze from all").click()
    expect(page.locator("#batch")).to_contain_text("3 of 3 done, 1 failed")
    expect(page.locator("#batch")).to_contain_text("c.jpg is not an image")
    await_download(page.locator("#download-all"))
    with zipfile.ZipFile(download(page, tmp_path, "#download-all")) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]
        assert Image.open(archive.open("b_dehazed.jpg")).size == SIZE


def test_visitor_stops_a_batch_and_takes_what_is_done(visit, hazy, tmp_path, monkeypatch):
    at_hand, done = threading.Event(), threading.Event()
    original = batch.restored

    def slowly(*arguments):
        if at_hand.is_set():
            done.wait(60)
        at_hand.set()
        return original(*arguments)

    monkeypatch.setattr(batch, "restored", slowly)
    files = [tmp_path / f"{name}.jpg" for name in "abc"]
    for file in files:
        hazy.save(file)
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files(files)
    expect(page.locator("#files").get_by_role("button", name="Remove this file")).to_have_count(3)
    page.get_by_role("button", name="Remove haze from all").click()
    expect(page.locator("#batch")).to_contain_text("1 of 3 done")
    with page.expect_response(re.compile("/run/")):
        page.get_by_role("button", name="Stop").first.click()
    done.set()
    expect(page.locator("#batch")).to_contain_text("Stopped: 2 of 3 done")
    await_download(page.locator("#download-all"))
    with zipfile.ZipFile(download(page, tmp_path, "#download-all")) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]


@pytest.fixture(scope="module")
def clips(hazy, tmp_path_factory):
    """A long clip and a short one, whose pixels are twice as wide as high."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "long.mp4", hazy, 240)
    write_clip(folder / "short.mp4", hazy, 4, pixel_aspect=2)
    return folder


def test_visitor_restores_a_clip_and_stops_another(visit, clips):
    page = visit()
    page.get_by_role("tab", name="Video").click()
    state, start = page.locator("#frames"), page.get_by_role("button", name="Remove haze from the clip")

    def give(name):
        page.locator("#clip input[type=file]").first.set_input_files(clips / name)
        page.locator("#clip video").wait_for()
        start.click()

    stop = page.get_by_role("button", name="Stop").last
    stop.click()  # of no run, and so not of the next
    for _ in range(2):
        give("long.mp4")
        expect(state).to_contain_text("of about 240 frames")
        stop.click()
        expect(state).to_have_text("Stopped.")
        page.locator("#clip").get_by_label("Clear").click()

    give("short.mp4")  # what was stopped holds nothing up
    expect(state).to_contain_text("4 frames restored")
    page.wait_for_function("() => document.querySelector('#restored-clip video')?.readyState >= 2")
    assert page.locator("#restored-clip video").evaluate("e => [e.videoWidth, e.videoHeight]") == [2 * SIZE[0], SIZE[1]]
    assert page.locator("#restored-clip video").evaluate("e => e.webkitAudioDecodedByteCount") > 0
    served = get_upload_folder()
    assert [path.name for path in Path(served).rglob("*_dehazed.mp4")] == ["short_dehazed.mp4"]


def test_visitor_tries_an_example(visit):
    page = visit()
    page.get_by_role("button", name="forbidden city").click()
    await_result(page)
    size = list(Image.open(app.SAMPLE / "real" / "forbidden-city.jpg").size)
    assert shown_sizes(page, "#slider img") == [size, size]
    expect(page.locator("#slider").get_by_alt_text("After: haze removed")).to_be_visible()
    page.get_by_text("Who took these photographs").click()
    expect(page.get_by_text("Gary Todd")).to_be_visible()


def test_visitor_is_told_what_is_wrong(visit, bad):
    page = visit()

    def told():
        toast = page.get_by_test_id("toast-text").last
        text = toast.inner_text()
        page.get_by_test_id("toast-close").last.click()
        toast.wait_for(state="detached")
        return text

    restore(page)
    assert "no photograph yet" in told()
    for path, message in list(bad.items())[:6]:  # the others are refused to programs alike
        upload(page, path)
        restore(page)
        assert message in told()
        page.get_by_label("Remove Image").click()


def test_visitor_reads_the_leaderboard(visit):
    page = visit()
    page.get_by_role("tab", name="Leaderboard").click()

    def column(index):
        cells = page.locator(f"#methods [role=gridcell][data-col='{index}']")
        cells.first.wait_for()
        return cells.all_inner_texts()

    assert column(0) == ["identity", "api", "dcp"]  # the best first
    assert column(2) == ["101.1 [100, 102]", "10.5 [9.5, 11.5]", "9.25 [8.25, 10.2]"]
    expect(page.locator("#notes")).to_contain_text("garden: 2 images, 2 of them with a clear one")
    expect(page.locator("#notes")).to_contain_text("native-v1")
    assert shown_sizes(page, "#figure img") == [[1120, 720]]

    header = page.locator("#methods th").nth(2)
    header.click()
    header.get_by_label("Open cell menu").click()
    page.get_by_text("Sort ascending").click()
    expect(page.locator("#methods [role=gridcell]").first).to_have_text("dcp")  # as numbers: 9.25 < 10.5 < 101
    assert column(0) == ["dcp", "api", "identity"]

    page.locator("#methods").get_by_placeholder("Search").fill("api")
    expect(page.locator("#methods [role=gridcell][data-col='0']")).to_have_count(1)

    page.get_by_label("Data set").click()
    page.get_by_role("option", name="harbour").click()
    expect(page.locator("#notes")).to_contain_text("harbour: 2 images")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_needs_no_sideways_scrolling(visit, hazy, tmp_path, scheme):
    hazy.save(path := tmp_path / "temple.jpg")
    page = visit(390, 844, scheme)
    too_wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(too_wide) <= 0
    upload(page, path)
    restore(page)
    await_result(page)
    expect(page.locator("#slider")).to_be_in_viewport(ratio=0.9)  # scrolled to
    assert page.evaluate(too_wide) <= 0
    assert Image.open(download(page, tmp_path)).size == SIZE
    for name in ("Batch", "Video"):
        page.get_by_role("tab", name=name).click()
        page.get_by_role("button", name="Stop").last.wait_for()
        assert page.evaluate(too_wide) <= 0
    page.get_by_role("tab", name="Leaderboard").click()
    page.locator("#methods [role=gridcell]").first.wait_for()
    assert page.evaluate(too_wide) <= 0
