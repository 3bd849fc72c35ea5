import socket
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import expect

import app
import dehaze
from bench import metrics
from bench.record import DatasetInfo, Method, Record, Speed, Summary
from dehaze import image

SIZE = (240, 180)
BROWSER_MS = 120_000  # for machines that do much else at the same time


# What is served


@pytest.fixture(scope="module")
def connections():
    """Record the hosts that this process connects to."""
    hosts = []
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def watch(original):
        def watched(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                hosts.append(address[0])
            return original(self, address)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watch(connect))
        patch.setattr(socket.socket, "connect_ex", watch(connect_ex))
        yield hosts


@pytest.fixture(scope="module")
def url(tmp_path_factory, connections):
    """Serve the page, with a leaderboard of its own, from a folder of its own."""
    results = tmp_path_factory.mktemp("results")
    for dataset in ("garden", "harbour"):
        for method, psnr in (("api", 10.5), ("dcp", 9.25), ("identity", 101.125)):
            record(method, dataset, psnr).write(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("served")))
        page = app.launch(results, prevent_thread_lock=True, quiet=True)
        yield page.local_url
        page.close()


def record(method, dataset, psnr):
    return Record(
        method=Method(name=method),
        dataset=DatasetInfo(name=dataset, samples=2, pairs=2, fingerprint="ab" * 32),
        protocol="native-v1",
        metrics={"psnr": Summary(mean=psnr, low=psnr - 1, high=psnr + 1, count=2, direction="up", reference=True)},
        speed=Speed(seconds_median=0.5, megapixels_median=0.1, device="cpu", dtype="float32", threads=2),
        created="2025-03-01T12:00:00Z",
    )


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def hazy():
    """A real hazy photograph, small."""
    return Image.open(app.SAMPLE / "real" / "golden-temple.jpg").resize(SIZE)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """What people drop in by mistake: the file of each kind, and words of the message that it must give."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    whole = (app.SAMPLE / "real" / "golden-temple.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    Image.new("1", (8000, 8000)).save(folder / "huge.png")
    return {
        folder / "letter.jpg": "letter.jpg is not an image",
        folder / "half.jpg": "half.jpg is damaged or cut short",
        folder / "empty.png": "empty.png is empty",
        folder / "huge.png": "huge.png has 64.0 megapixels (8000×8000), and the limit is 60. Make it smaller.",
    }


# For programs


@pytest.mark.parametrize(("model", "strength"), [("api", 1), ("dcp", 0.5)])
def test_api_gives_the_pixels_of_the_model(client, hazy, tmp_path, model, strength):
    hazy.save(path := tmp_path / "temple.png")
    restored, density, facts = client.predict(handle_file(path), model, strength, api_name="/dehaze")
    expected = dehaze.load(model)(path, strength)

    assert restored.endswith("temple_dehazed.png")
    assert np.array_equal(np.asarray(Image.open(restored)), expected.pixels)
    assert np.abs(np.asarray(Image.open(density)) / 255 - expected.density).max() < 1 / 255
    assert (facts["model"], facts["strength"], facts["megapixels"]) == (model, strength, 0.0432)
    assert facts["seconds"] > 0
    for name in ("niqe", "fade_refit"):
        metric = metrics.get(name)
        assert facts["before"][name] == pytest.approx(float(metric(image.read(hazy).tensor())))
        assert facts["after"][name] == pytest.approx(float(metric(expected.photo.tensor())))


def test_api_keeps_the_kind_of_file(client, hazy, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Old Box Camera"  # orientation: turn by 90°; model
    hazy.save(upright := tmp_path / "IMG 1.JPG", exif=exif)
    restored = Image.open(client.predict(handle_file(upright), "dcp", 1, api_name="/dehaze")[0])
    assert (restored.format, restored.size) == ("JPEG", SIZE[::-1])
    assert (restored.getexif()[0x0110], restored.getexif().get(0x0112, 1)) == ("Old Box Camera", 1)

    samples = np.asarray(hazy).astype(np.uint16) * 257
    deep = image.read(samples).save(tmp_path / "deep.png")
    restored = image.read(client.predict(handle_file(deep), "dcp", 1, api_name="/dehaze")[0])
    assert np.array_equal(restored.pixels, dehaze.load("dcp")(deep).pixels)
    assert restored.pixels.dtype == np.uint16


def test_api_explains_what_is_wrong(client, bad, hazy, tmp_path):
    hazy.save(good := tmp_path / "temple.png")
    calls = [(path, "api", 1, message) for path, message in bad.items()]
    calls += [(good, "dpc", 1, "did you mean dcp"), (good, "dcp", 2, "between 0"), (good, "dcp", "full", "'full'")]
    for path, model, strength, message in calls:
        with pytest.raises(AppError) as error:
            client.predict(handle_file(path), model, strength, api_name="/dehaze")
        assert message in str(error.value)
        assert str(path.parent) not in str(error.value) and "/dehaze" not in str(error.value)


def test_api_is_one_documented_function(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/dehaze"] and not api["unnamed_endpoints"]
    parameters = api["named_endpoints"]["/dehaze"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == ["photo", "model", "strength"]
    assert set(parameters[1]["type"]["enum"]) == set(dehaze.list_models()) - {"identity"}


# For people


@pytest.fixture
def visit(browser, url):
    """Open the page; at the end there must have been no error, and no request to anybody else."""
    contexts, troubles = [], []

    def open_page(width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(BROWSER_MS)
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: foreign(request.url) and troubles.append(f"asked {request.url}"))
        page.goto(url)
        page.get_by_role("button", name="Remove haze", exact=True).wait_for()
        return page

    def foreign(asked):
        return urlparse(asked).scheme not in ("data", "blob") and urlparse(asked).netloc != urlparse(url).netloc

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


def upload(page, path):
    page.locator("#photo input[type=file]").first.set_input_files(path)
    page.locator("#photo img").wait_for(state="attached")


def restore(page):
    page.get_by_role("button", name="Remove haze", exact=True).click()


def await_result(page):
    """Wait for the scores and the download, which come last."""
    page.locator("#scores td").first.wait_for()
    expect(page.locator("#download")).to_contain_text("Download", timeout=BROWSER_MS)
    expect(page.locator("#download")).to_be_enabled(timeout=BROWSER_MS)


def shown_sizes(page, selector):
    page.wait_for_function(
        "s => [...document.querySelectorAll(s)].every(e => e.complete && e.naturalWidth > 0)", arg=selector
    )
    return page.eval_on_selector_all(selector, "all => all.map(e => [e.naturalWidth, e.naturalHeight])")


def download(page, folder):
    with page.expect_download() as started:
        page.locator("#download").click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_visitor_restores_compares_and_downloads(visit, hazy, tmp_path, monkeypatch):
    restorations = []
    original = app.restore
    monkeypatch.setattr(app, "restore", lambda *args: restorations.append(args) or original(*args))
    hazy.save(path := tmp_path / "temple.png")
    expected = dehaze.load("api")(path)

    page = visit()
    upload(page, path)
    restore(page)
    await_result(page)

    assert shown_sizes(page, "#slider img") == [list(SIZE), list(SIZE)]
    assert shown_sizes(page, "#density img") == [list(SIZE)]
    table = page.locator("#scores tbody tr")
    scores = [float(cell) for row in range(2) for cell in table.nth(row).locator("td").all_inner_texts()[:2]]
    metric = metrics.get("fade_refit")
    wanted = [float(metric(image.read(path).tensor())), float(metric(expected.photo.tensor()))]
    assert scores[2:] == [round(value, 2) for value in wanted]
    taken = download(page, tmp_path)
    assert taken.name == "temple_dehazed.png"
    assert np.array_equal(np.asarray(Image.open(taken)), expected.pixels)

    # Another strength shows and gives another photograph, from the same restoration.
    before = page.locator("#slider img").nth(1).get_attribute("src")
    page.get_by_label("number input for Strength").fill("0.5")
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before, timeout=BROWSER_MS)
    await_result(page)
    halfway = np.asarray(Image.open(download(page, tmp_path))).astype(float)
    blend = (np.asarray(hazy).astype(float) + expected.pixels) / 2
    assert np.abs(halfway - blend).max() <= 1
    assert len(restorations) == 1


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
    for path, message in bad.items():
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
    assert column(1) == ["101.1 [100, 102]", "10.5 [9.5, 11.5]", "9.25 [8.25, 10.2]"]
    expect(page.locator("#notes")).to_contain_text("garden: 2 images, 2 of them with a clear one")
    expect(page.locator("#notes")).to_contain_text("native-v1")
    assert shown_sizes(page, "#figure img") == [[1120, 720]]

    header = page.locator("#methods th").nth(1)
    header.click()
    header.get_by_label("Open cell menu").click()
    page.get_by_text("Sort ascending").click()
    expect(page.locator("#methods [role=gridcell]").first).to_have_text("dcp")  # as numbers: 9.25 < 10.5 < 101
    assert column(0) == ["dcp", "api", "identity"]

    page.get_by_placeholder("Search").fill("api")
    expect(page.locator("#methods [role=gridcell][data-col='0']")).to_have_count(1)

    page.get_by_label("Data set and protocol").click()
    page.get_by_role("option", name="harbour, native-v1").click()
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
    page.get_by_role("tab", name="Leaderboard").click()
    page.locator("#methods [role=gridcell]").first.wait_for()
    assert page.evaluate(too_wide) <= 0


# Pieces


@pytest.mark.parametrize(
    ("name", "mode", "result"),
    [
        ("a.jpg", "RGB", "a_dehazed.jpg"),
        ("a.b.JPEG", "L", "a.b_dehazed.jpeg"),
        ("a.png", "RGBA", "a_dehazed.png"),
        ("a.jpg", "RGBA", "a_dehazed.png"),
        ("a.webp", "RGBA", "a_dehazed.webp"),
        ("a.gif", "RGB", "a_dehazed.png"),
        ("a", "RGB", "a_dehazed.png"),
    ],
)
def test_result_keeps_name_and_format(name, mode, result):
    assert app.output_name(app.Path(name), image.read(Image.new(mode, (4, 4)))) == result


def test_previews_are_small_and_opaque():
    pixels = np.full((20, 4000, 4), 65535, np.uint16)
    pixels[..., :3] = 32768
    pixels[:, 2000:, 3] = 0
    picture = app.preview(image.read(pixels))
    assert (picture.mode, picture.size) == ("RGB", (1600, 8))
    assert picture.getpixel((10, 4)) == (128, 128, 128) and picture.getpixel((1590, 4)) == (255, 255, 255)


def test_tiny_photographs_have_no_scores():
    assert app.measure(Image.new("RGB", (8, 8))) == {"niqe": None, "fade_refit": None}
    nothing = {"niqe": None, "fade_refit": None}
    assert "too small to measure" in app.score_table(nothing, nothing, "")


def test_scores_say_which_way_is_better():
    table = app.score_table({"niqe": 4.0, "fade_refit": 1.0}, {"niqe": 5.0, "fade_refit": 0.5}, "done")
    niqe, fade = table.split("NIQE ↓")[1].split("FADE, refitted ↓")
    assert "worse" in niqe and "better" in fade


def test_density_is_dark_where_the_air_is_clear():
    density = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (32, 1))
    picture = np.asarray(app.density_map(density, Image.new("RGB", (64, 32))).convert("L"))
    assert (np.diff(picture.astype(int), axis=1) >= -1).all() and picture[:, -1].min() > 2 * picture[:, 0].max()


def test_sessions_keep_pixels_on_disk():
    photo = image.read(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8))
    kept = app.on_disk(photo)
    assert isinstance(kept.pixels, np.memmap) and np.array_equal(kept.pixels, photo.pixels)
    assert torch.equal(kept.tensor(), photo.tensor())


def test_no_network(url, client, connections):
    """Runs last: whatever was done above, this process talked to itself alone."""
    assert connections and set(connections) <= {"127.0.0.1", "localhost", "::1"}
