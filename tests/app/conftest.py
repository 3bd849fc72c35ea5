import socket
from urllib.parse import urlparse

import pytest
from PIL import Image

import app
from dehaze.page import scores
from leaderboard import quality
from tests.app.tools import BROWSER_MS, SIZE, bomb, connect, encoded, record, zipped


@pytest.fixture(scope="session", autouse=True)
def scorer():
    """Have photographs scored, as the program does."""
    scores.provide(quality)


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


@pytest.fixture(scope="module")
def client(url):
    return connect(url)


@pytest.fixture(scope="module")
def hazy():
    """A real hazy photograph, small."""
    return Image.open(app.SAMPLE / "real" / "golden-temple.jpg").resize(SIZE)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """What people drop in by mistake or malice: the file of each kind, and words of the message that it must give."""
    folder = tmp_path_factory.mktemp("bad")
    whole = (app.SAMPLE / "real" / "golden-temple.jpg").read_bytes()
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><rect width='9' height='9'/></svg>"
    header = whole[: whole.index(b"\xff\xda")]
    kinds = {
        "letter.jpg": (b"Dear Sir or Madam", "letter.jpg is not an image"),
        "half.jpg": (whole[: len(whole) // 2], "half.jpg is damaged or cut short"),
        "header.jpg": (header, "header.jpg is not an image"),
        "noise.jpg": (whole[:2] + bytes(range(256)) * 4, "noise.jpg is not an image"),
        "empty.png": (b"", "empty.png is empty"),
        "huge.png": (encoded((8000, 8000), "1"), "huge.png has 64.0 megapixels (8000×8000), and the limit is 60. Make"),
        "bomb.png": (bomb(60_000, 60_000), "bomb.png has 3600.0 megapixels"),
        "boundless.png": (bomb(2**31 - 1, 2**31 - 1), "boundless.png"),
        "thread.png": (encoded((100_000, 1), "1"), "thread.png has 100000×1 pixels"),
        "dot.png": (encoded((1, 1), "RGB"), "dot.png has 1×1 pixels"),
        "nothing.png": (bomb(0, 0), "nothing.png"),
        "drawing.svg": (svg, "drawing.svg is not an image"),
        "drawing.png": (svg, "drawing.png is not an image"),
        "page.html": (b"<script>alert(1)</script>", "page.html is not an image"),
        "photos.zip": (zipped({"../a.png": b"x"}), "photos.zip is not an image"),
        "paper.pdf": (b"%PDF-1.7\n", "paper.pdf is not an image"),
        "print.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "print.eps is not an image"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "phone.heic"),
        "pickle.npy": (b"\x93NUMPY\x01\0" + bytes(60), "pickle.npy is not an image"),
        "program.jpg": (b"\x7fELF" + bytes(60), "program.jpg is not an image"),
        "deep.tif": (encoded((20, 20), "F", "TIFF", 7.0), "deep.tif holds float values"),
    }
    for name, (data, _) in kinds.items():
        (folder / name).write_bytes(data)
    return {folder / name: message for name, (_, message) in kinds.items()}


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
