"""What strangers may try against the running page, by raw HTTP: everything is refused, and the page lives on."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "bench" / "sample" / "real" / "golden-temple.jpg"
WAIT = 120  # seconds, for machines that do much else at the same time


class Site:
    """The page in a process of its own, and what a client says to it."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        self.folder, self.log = folder, (folder.parent / f"{port}.log").open("wb+")
        command, output = [sys.executable, "app.py"], {"stdout": self.log, "stderr": self.log}
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, **output)
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=WAIT)
        for _ in range(WAIT * 10):
            assert self.process.poll() is None, self.said()
            try:
                self.config = self.client.get("/config").json()
                break
            except httpx.TransportError:
                time.sleep(0.1)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode()

    def end(self, how=signal.SIGTERM):
        self.client.close()
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.log.close()
        return code

    def function(self, api_name):
        """Return the number of an event, by its name or, of those without one, its place among them."""
        return next(one["id"] for one in self.config["dependencies"] if one["api_name"] == api_name)

    def upload(self, path, visitor="192.0.2.1"):
        answer = self.post("upload", visitor, files={"files": (Path(path).name, Path(path).read_bytes())})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def post(self, route, visitor="192.0.2.1", **content):
        """Post as a visitor whom a proxy on this machine names."""
        return self.client.post(f"/gradio_api/{route}", headers={"X-Forwarded-For": visitor}, **content)

    def join(self, path, model="dcp", strength=1, session="s", visitor="192.0.2.1", **more):
        photo = path if isinstance(path, dict) or path is None else {"path": str(path)}
        body = {"data": [photo, model, strength], "fn_index": self.function("dehaze"), "session_hash": session} | more
        return self.post("queue/join", visitor, json=body)

    def answer(self, session):
        """Wait for the end of the event of a session; return whether it succeeded, and what it gave."""
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                if line.startswith("data:") and (message := json.loads(line[5:]))["msg"] == "process_completed":
                    return message["success"], message["output"]
        raise AssertionError("the stream ended")

    def restore(self, path, session, **options):
        assert self.join(path, session=session, **options).status_code == 200
        return self.answer(session)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site") / "files")
    yield site
    assert site.end() == 0
    assert not list(site.folder.glob("dehaze-page-*"))  # no visitor's file is left


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "temple.png"
    Image.open(SAMPLE).resize((240, 180)).save(path)
    return path


@contextmanager
def alive(site, photo):
    """At the end, the page must answer as ever."""
    yield
    success, output = site.restore(site.upload(photo), "after", visitor="192.0.2.99")
    assert success and output["data"][0]["path"].endswith("temple_dehazed.png")


def routes(site, photo):
    """List the ways to give the page a file: the queue, past the queue, by the name of the function, in an old form."""
    data = [photo, "dcp", 1]
    number, run = site.function("dehaze"), {"fn_index": site.function("run")}
    yield "queue/join", {"data": data, "fn_index": number, "session_hash": "x"}
    yield "queue/join", {"data": [photo, "dcp"], **run, "session_hash": "x"}
    yield "run/predict", {"data": data, "fn_index": number}
    yield "api/predict", {"data": data, "fn_index": number}
    yield "run/dehaze", {"data": data}
    yield "call/dehaze", {"data": data}
    yield "call/v2/dehaze", {"photo": photo, "model": "dcp", "strength": 1}


def test_no_other_file_is_read(site, photo, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    mine = Path(site.upload(photo))
    link = mine.with_name("link.png")
    link.symlink_to(secret)
    others = [str(secret), str(SAMPLE.with_name("sources.csv")), "/etc/passwd", str(link), f"{mine}/../../{secret}"]
    others += ["/dev/stdin", "/dev/zero", f"/proc/{site.process.pid}/environ", f"/proc/self/root{secret}"]
    others += [os.path.relpath(secret, ROOT), "https://example.org/a.png", f"file://{secret}", str(mine.parent)]
    with alive(site, photo):
        for other in others:
            for route, body in routes(site, {"path": other}):
                assert site.post(route, json=body).status_code == 403, (other, route)
            full = {"path": other, "meta": {"_type": "gradio.FileData"}, "url": f"{site.url}/config"}
            for route, body in routes(site, full):
                assert site.post(route, json=body).status_code == 403, (other, route)
            assert site.client.get(f"/gradio_api/file={other}").status_code in (403, 404), other


def test_what_other_visitors_send_and_get_stays_theirs(site, photo, tmp_path):
    """A file that is being downloaded is not reached through the descriptors of the process."""
    (tmp_path / "large.jpg").write_bytes(np.random.default_rng(0).bytes(30_000_000))
    large = site.upload(tmp_path / "large.jpg", visitor="192.0.2.5")
    with alive(site, photo), socket.socket() as download:  # which begins, and is not read on
        download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        download.connect(("127.0.0.1", site.client.base_url.port))
        download.sendall(f"GET /gradio_api/file={large} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert download.recv(15) == b"HTTP/1.1 200 OK"
        deadline, open_files = time.monotonic() + WAIT, descriptors(site)
        while large not in open_files.values():
            assert time.monotonic() < deadline
            open_files = descriptors(site)
        for number in open_files:
            for place in (f"/proc/self/fd/{number}", f"/proc/{site.process.pid}/fd/{number}", f"/dev/fd/{number}"):
                assert site.client.get(f"/gradio_api/file={place}").status_code == 403
                assert site.join(place).status_code == 403
                assert site.post("run/predict", json={"data": [{"path": place}]}).status_code == 403


def descriptors(site):
    """Return what each descriptor of the page's process leads to."""
    found = {}
    for number in Path(f"/proc/{site.process.pid}/fd").iterdir():
        with suppress(OSError):  # closed in between
            found[number.name] = os.readlink(number)
    return found


def test_nothing_is_loaded_that_is_not_offered(site, photo):
    mine = site.upload(photo)
    models = ["org/name", "org/name@main", "../../weights", "identity", "ahg", "", "API", None, 5, ["api"], {"a": 1}]
    calls = [({"model": model}, "The model is one of") for model in models]
    calls += [({"strength": value}, "The strength is a number") for value in (2, -1.1, "1", None, [], {}, 1e308)]
    with alive(site, photo):
        for i, (options, message) in enumerate(calls):
            success, output = site.restore(mine, f"unknown{i}", visitor=f"192.0.2.{20 + i}", **options)
            assert not success and output["error"].startswith(message), options
        for i, upload in enumerate(
            (None, [], "", {}, {"path": None}, {"path": 5}, {"path": ["a"]}, [{"path": mine}], 5)
        ):
            body = {"data": [upload, "dcp", 1], "fn_index": site.function("dehaze"), "session_hash": f"odd{i}"}
            assert site.post("queue/join", f"192.0.2.{60 + i}", json=body).status_code == 200
            success, output = site.answer(f"odd{i}")
            assert not success and output["error"].endswith((".", ")"))  # a sentence
            assert "Traceback" not in json.dumps(output) and str(ROOT) not in json.dumps(output)


def test_no_way_leads_around_the_queue(site, photo, tmp_path):
    """Large photographs posted at once are decoded one by one, or not at all."""
    Image.new("RGBA", (6000, 4000)).save(tmp_path / "large.png")  # 24 megapixels in some 100 kB
    large = site.upload(tmp_path / "large.png")
    with alive(site, photo):
        for route in ("run/predict", "api/predict"):
            body = {"data": [{"path": large}, "dcp", 1], "fn_index": site.function("dehaze"), "session_hash": "b"}
            assert site.post(route, json=body).status_code == 404
        with peak(site.process) as alone:
            assert site.restore(large, "alone", visitor="192.0.2.80")[0]
        with ThreadPoolExecutor(3) as pool, peak(site.process) as together:
            done = list(pool.map(lambda i: site.restore(large, f"large{i}", visitor=f"192.0.2.{i}"), range(81, 84)))
    assert all(success for success, _ in done)
    assert together.gigabytes < 1.5 * alone.gigabytes  # three decoded at once would take over twice as much


class Memory:
    gigabytes = 0.0


@contextmanager
def peak(process):
    memory, over = Memory(), threading.Event()
    watched = psutil.Process(process.pid)

    def watch():
        while not over.wait(0.02):
            memory.gigabytes = max(memory.gigabytes, watched.memory_info().rss / 1e9)

    thread = threading.Thread(target=watch)
    thread.start()
    yield memory
    over.set()
    thread.join()


def test_one_visitor_cannot_keep_the_others_waiting(site, photo, tmp_path):
    Image.open(SAMPLE).resize((1200, 900)).save(tmp_path / "megapixel.jpg")
    mine, theirs = site.upload(tmp_path / "megapixel.jpg"), site.upload(photo, visitor="192.0.2.8")
    with ThreadPoolExecutor(16) as pool:
        greedy = list(pool.map(lambda i: site.join(mine, "api", session=f"greedy{i}"), range(101)))
    taken = sum(answer.status_code == 200 for answer in greedy)
    assert 1 <= taken <= 20 and {answer.status_code for answer in greedy} == {200, 429}
    assert "Wait for one to end" in next(answer for answer in greedy if answer.status_code == 429).json()["detail"]
    waiting = [f"greedy{i}" for i, answer in enumerate(greedy) if answer.status_code == 200]

    def ended(session):
        assert site.answer(session)[0]
        return time.monotonic()

    with ThreadPoolExecutor(len(waiting) + 1) as pool:
        others = [pool.submit(ended, session) for session in waiting]
        assert site.restore(theirs, "modest", visitor="192.0.2.8")[0]
        served = time.monotonic()
        before = sum(other.result() < served for other in others)
    assert before <= 3 < len(waiting)  # what was at work and what had ended, and no more


def test_a_flood_of_light_requests_is_held_off(site, photo):
    def ask(_):
        return site.post("run/predict", json={"data": [], "fn_index": 0}).status_code

    with alive(site, photo), ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(ask, range(200)))
    assert set(statuses) <= {200, 404, 429, 500}


def test_what_gradio_has_beside_is_closed(site, photo):
    with alive(site, photo):
        for route in ("component_server", "process_recording", "vibe-edit/", "stream/x/close", "run-history/connect"):
            assert site.post(route, json={}).status_code == 404
        for route in ("proxy=https://huggingface.co/", "file=https://huggingface.co/", "dev/reload", "file/etc/passwd"):
            assert site.client.get(f"/gradio_api/{route}").status_code in (403, 404)
        assert site.client.get("/monitoring").status_code == 404


# Disk and restarts


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_no_file_outlives_a_restart(photo, tmp_path, ended_by):
    folder = tmp_path / "files"
    first = Site(folder)
    uploaded = Path(first.upload(photo))
    success, output = first.restore(uploaded, "a")
    result = Path(output["data"][0]["path"])
    assert success and uploaded.exists() and result.exists()
    first.end(ended_by)
    assert uploaded.exists() == (ended_by == signal.SIGKILL)
    second = Site(folder)
    assert not uploaded.exists() and not result.exists()
    assert second.client.get(f"/gradio_api/file={SAMPLE}").content == SAMPLE.read_bytes()  # examples ship
    assert second.end() == 0 and not list(folder.glob("dehaze-page-*"))


def test_a_taken_port_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | {"GRADIO_SERVER_PORT": port}, capture_output=True,
            text=True,
        )  # fmt: skip
    assert done.returncode == 1 and f"GRADIO_SERVER_PORT is {port}" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB, which takes a system that lets this process mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_and_survived(browser, photo, small_disk, tmp_path):
    site = Site(small_disk)
    filler = small_disk / "filler"
    try:
        page = browser.new_page()
        page.set_default_timeout(WAIT * 1000)
        page.goto(site.url)
        button = page.get_by_role("button", name="Remove haze", exact=True)
        page.locator("#photo input[type=file]").first.set_input_files(photo)
        page.locator("#photo img").wait_for(state="attached")

        fill(filler, leave=100_000)
        button.click()
        toast = page.get_by_test_id("toast-text").last
        words = "The server's disk is full. Nothing was lost; try again later."
        expect(toast).to_contain_text(words, timeout=WAIT * 1000)
        page.get_by_test_id("toast-close").last.click()

        Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8)).save(tmp_path / "big.png")
        upload = site.post("upload", files={"files": ("big.png", (tmp_path / "big.png").read_bytes())})
        assert upload.status_code == 507 and "disk is full" in upload.json()["detail"]

        filler.unlink()  # room is made
        button.click()
        expect(page.locator("#download")).to_contain_text("Download PNG", timeout=WAIT * 1000)
        page.close()
    finally:
        assert site.end() == 0, site.said()


def fill(path, leave):
    """Take the room on a disk but for some bytes."""
    free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
