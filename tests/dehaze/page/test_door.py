import asyncio
import errno
import json

import pytest

from dehaze.page.door import MAX_BODY, UNANSWERED, Door, Limits
from dehaze.page.folder import FULL, PageFolder
from dehaze.page.visitors import Allowance


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    folder = PageFolder()
    folder.open()
    yield folder
    folder.close()


@pytest.fixture
def photo(folder):
    path = folder.served / "photo.jpg"
    path.write_bytes(b"x")
    return str(path)


class Page:
    """What lies behind the door: it notes what comes through."""

    def __init__(self, folder, error=None, **options):
        self.seen, self.error, self.queued = [], error, []
        uploads = options.pop("uploads", Allowance({"megabytes": 10}, 600))
        self.door = Door(
            self.app,
            folder=folder,
            static=["/static/a.jpg"],
            waiting=lambda: iter(self.queued),
            uploads=uploads,
            **options,
        )

    async def app(self, scope, receive, send):
        message = await receive()
        self.seen.append((scope["path"], message.get("body", b""), dict(scope["headers"])))
        if self.error:
            raise self.error
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(self, method, path, body=b"", headers=(), visitor="a", pieces=1):
        return asyncio.run(self.asking(method, path, body, headers, visitor, pieces))

    async def asking(self, method, path, body=b"", headers=(), visitor="a", pieces=1):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        size = -(-len(body) // pieces) or 1
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages[-1]["more_body"] = False
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "client": (visitor, 1), "headers": list(headers)}
        await self.door(scope, receive, send)
        return sent[0]["status"], b"".join(message["body"] for message in sent[1:]).decode()


def event(path):
    return {"data": [{"path": path, "url": "https://example.org/a.jpg", "orig_name": "a.jpg"}, "api", 1], "fn_index": 3}


@pytest.mark.parametrize("route", ["run/predict", "api/dehaze", "call/dehaze", "call/v2/dehaze", "queue/join"])
def test_events_pass_with_files_of_the_page_alone(folder, photo, route):
    page = Page(folder)
    assert page.ask("POST", f"/gradio_api/{route}", event(photo), pieces=3)[0] == 200
    _, body, headers = page.seen[0]
    file = {"path": photo, "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}  # nothing to fetch
    assert json.loads(body) == event(photo) | {"data": [file, "api", 1]}
    assert int(headers[b"content-length"]) == len(body)
    assert page.ask("POST", f"/gradio_api/{route}", event("/static/a.jpg"))[0] == 200
    for other in ("/etc/passwd", "/proc/self/fd/3", "https://example.org/a.jpg", "", f"{folder.served}/gone.jpg"):
        for body in (event(other), {"data": [[{"deep": event(other)}]]}, {"photo": {"path": other}}, [{"path": other}]):
            status, said = page.ask("POST", f"/gradio_api/{route}", body)
            assert status == 403 and "no such file here" in json.loads(said)["detail"]
            assert not other or other not in said
    assert len(page.seen) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no JSON", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"path":' * 900 + b"1" + b"}" * 900, 400),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
@pytest.mark.parametrize("route", ["queue/join", "cancel", "reset"])
def test_inputs_that_are_none_are_refused(folder, body, status, route):
    page = Page(folder)
    assert page.ask("POST", f"/gradio_api/{route}", body, pieces=5)[0] == status
    assert not page.seen


POSTS = ["component_server", "process_recording", "vibe-edit/", "stream/x", "run-history/connect", "/run/x"]
GETS = ["proxy=https://example.org", "stream/a/b/c", "dev/reload", "runs", "deep_link", "file/etc/passwd"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", f"/gradio_api/{name}") for name in POSTS),
        *(("POST", path) for path in ("/login", "/", "/queue")),
        *(("GET", f"/gradio_api/{name}") for name in GETS),
        *(("GET", path) for path in ("/monitoring", "/logout")),
        ("PUT", "/gradio_api/upload"),
        ("DELETE", "/"),
    ],
)
def test_what_the_page_does_not_offer_is_closed(folder, method, path):
    page = Page(folder)
    assert page.ask(method, path)[0] == 404
    assert not page.seen


def test_files_are_served_from_the_page_alone(folder, photo):
    page = Page(folder)
    for good in (photo, "/static/a.jpg"):
        assert page.ask("GET", f"/gradio_api/file={good}")[0] == 200
    for bad in ("/etc/passwd", "/proc/self/fd/3", "https://example.org", "app.py", "", str(folder.path / "lock")):
        assert page.ask("GET", f"/gradio_api/file={bad}")[0] == 403
        assert page.ask("HEAD", f"/gradio_api/file={bad}")[0] == 403
    for path in ("/", "/config", "/gradio_api/info", "/assets/index.js", "/gradio_api/queue/data"):
        assert page.ask("GET", path)[0] == 200


def test_each_visitor_has_a_limit_of_what_is_under_way(folder):
    page = Page(folder, limits=Limits(waiting=3, at_once=2, uploads=1))
    length = [(b"content-length", b"5")]
    for path, limit, body, headers in (
        ("run/predict", 2, {}, ()),
        ("queue/join", 3, {}, ()),
        ("upload", 1, b"x", length),
    ):

        async def flood(path=path, body=body, headers=headers):
            asked = [page.asking("POST", f"/gradio_api/{path}", body, headers, visitor) for visitor in "aaaaab"]
            return [status for status, _ in await asyncio.gather(*asked)]

        statuses = asyncio.run(flood())
        assert statuses[:5].count(200) == limit and statuses[:5].count(429) == 5 - limit and statuses[5] == 200
        assert page.ask("POST", f"/gradio_api/{path}", body, headers)[0] == 200  # the others have ended

    page.queued = [{"client": ("a", 1), "headers": []}] * 3
    status, said = page.ask("POST", "/gradio_api/queue/join", {})
    assert status == 429 and "Wait for one to end" in said
    assert page.ask("POST", "/gradio_api/queue/join", {}, visitor="b")[0] == 200
    assert page.ask("POST", "/gradio_api/run/predict", {})[0] == 200


def test_uploads_are_counted_and_state_their_length(folder):
    page = Page(folder)
    assert page.ask("POST", "/gradio_api/upload", b"x")[0] == 411
    lying = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    assert page.ask("POST", "/gradio_api/upload", b"x" * 100, lying)[0] == 411
    for status in (200, 429):
        assert page.ask("POST", "/gradio_api/upload", b"x", [(b"content-length", b"9000000")])[0] == status


def test_a_full_disk_is_said(folder):
    page = Page(folder, error=OSError(errno.ENOSPC, "No space left on device"))
    status, said = page.ask("POST", "/gradio_api/upload", b"x", [(b"content-length", b"1")])
    assert (status, json.loads(said)["detail"]) == (507, FULL)
    page.error = KeyError("other")
    status, said = page.ask("POST", "/gradio_api/upload", b"x", [(b"content-length", b"1")])
    assert (status, json.loads(said)["detail"]) == (500, UNANSWERED)


def test_broken_uploads_make_room_at_once(folder):
    page = Page(folder, error=OSError(errno.ENOSPC, "No space left on device"))
    broken, named = folder.served / "tmpabc", folder.served / "0a1b" / "tmpabc.jpg"
    named.parent.mkdir()
    for path in (broken, named):
        path.write_bytes(b"x")
    with (folder.served / "tmpdef").open("wb"):  # another's, under way
        page.ask("POST", "/gradio_api/upload", b"x", [(b"content-length", b"1")])
        assert not broken.exists() and named.exists() and (folder.served / "tmpdef").exists()


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (500, "application/json", b'{"error": null}', UNANSWERED),
        (500, "text/plain", b"Internal Server Error", UNANSWERED),
        (422, "application/json", b'{"detail": [{"loc": ["body"], "input": "x"}]}', UNANSWERED),
        (500, "application/json", b'{"error": "There is no photograph yet."}', "There is no photograph yet."),
        (404, "application/json", b'{"detail": "Not Found"}', "Not Found"),
        (413, "text/plain", b"File size exceeded maximum allowed size", "maximum allowed size"),
    ],
)
def test_each_failure_says_a_sentence(folder, status, kind, body, said):
    page = Page(folder)

    async def app(scope, receive, send):
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    page.door._app = app
    told = page.ask("POST", "/gradio_api/run/predict", {})
    assert told[0] == status and said in told[1]


@pytest.mark.parametrize("session", ["a" * 65, "a b", "\ud800", "é", 5.5, ["a"], {"a": 1}])
def test_a_session_is_a_short_word(folder, session):
    page = Page(folder)
    for route in ("queue/join", "run/predict", "cancel"):
        assert page.ask("POST", f"/gradio_api/{route}", {"session_hash": session})[0] == 400
        assert page.ask("POST", f"/gradio_api/{route}", {"session_hash": "2d647e36-be1d_x"})[0] == 200
        assert page.ask("POST", f"/gradio_api/{route}", {"session_hash": None})[0] == 200
