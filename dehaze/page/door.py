"""The door of the page: every request passes it before gradio sees it (ASGI middleware).

It lets in what the page offers and nothing else: gradio has more routes than that, follows paths of /proc into its
upload folder, and fetches addresses that a client names.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from dehaze.errors import DehazeError
from dehaze.page.folder import FULL, PageFolder, disk_is_full
from dehaze.page.visitors import Allowance, address

MAX_BODY = 1_000_000  # bytes of an event's inputs; files are uploaded before
UNANSWERED = "This request cannot be answered. Reload the page and try again."
_SILENT = b'"output":{"error":null'  # how gradio's queue tells of an error that nobody worded
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
logger = logging.getLogger(__name__)
# Routes of gradio, without their prefix, by what they begin with.
_EVENTS = ("run/", "api/", "call/", "queue/join")
_POSTS = (*_EVENTS, "upload", "cancel", "reset", "mcp")
_PAGE = ("config", "theme.css", "assets/", "static/", "svelte/", "favicon.ico", "robots.txt", "manifest.json", "pwa")
_GETS = (*_PAGE, "info", "queue/", "call/", "heartbeat/", "upload_progress", "startup-events", "mcp")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


@dataclass(frozen=True)
class Limits:
    """What one visitor may have under way: events in the queue or at work, events beside it, and uploads."""

    waiting: int = 10
    at_once: int = 8
    uploads: int = 6


class Refused(Exception):
    """The request goes no further: a status of HTTP, and what to do."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class _Answer:
    """An answer on its way; one that fails is held back until it is known whether it says why."""

    def __init__(self, send: Callable[[Message], Awaitable[None]]):
        self._send = send
        self._failed: list[Message] = []
        self.began = False

    async def send(self, message: Message) -> None:
        """Pass a message on, or hold it back."""
        if self._failed or (message["type"] == "http.response.start" and message["status"] >= 400):
            self._failed.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body") and self._explained():
                self.began = True
                for held in self._failed:
                    await self._send(held)
            return
        self.began = True
        if _SILENT in message.get("body", b""):  # an event in the queue that failed
            message = {
                **message,
                "body": message["body"].replace(_SILENT, _SILENT[:-4] + json.dumps(UNANSWERED).encode()),
            }
        await self._send(message)

    def unexplained(self) -> Refused | None:
        """Return what to say where the answer failed without a sentence."""
        return Refused(self._failed[0]["status"], UNANSWERED) if self._failed and not self.began else None

    def _explained(self) -> bool:
        start = self._failed[0]
        if start["status"] != 500 and dict(start["headers"]).get(b"content-type", b"").startswith(b"text/plain"):
            return True
        try:
            said = json.loads(b"".join(message.get("body", b"") for message in self._failed))
        except ValueError:
            return False
        return isinstance(said, dict) and any(isinstance(said.get(key), str) for key in ("error", "detail"))


class Door:
    """Pass on the requests that the page offers, at the pace of one visitor, with the files of its own folder.

    `static` are files that ship and are served as they are. `waiting` lists the addresses (as ASGI scopes) of the
    events in gradio's queue and at work. `uploads` counts megabytes.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        folder: PageFolder,
        static: Collection[Path],
        waiting: Callable[[], Iterator[MutableMapping[str, Any]]],
        uploads: Allowance,
        proxies: int = 0,
        limits: Limits = Limits(),
    ):
        self._app, self._folder, self._static = app, folder, {str(path) for path in static}
        self._waiting, self._uploads, self._proxies, self._limits = waiting, uploads, proxies, limits
        self._under_way: Counter[tuple[str, str]] = Counter()  # requests by visitor and kind

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Callable) -> None:
        if scope["type"] != "http":  # the start and end of the server; the page opens no websockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._pass_on(scope, receive, answer.send)
            refused = answer.unexplained()
        except Refused as error:
            refused = error
        except Exception as error:
            if answer.began:
                raise
            full = disk_is_full(error)
            logger.warning("%s %s failed: %r", scope["method"], scope["path"][:100], error, exc_info=not full)
            refused = Refused(507, FULL) if full else Refused(500, UNANSWERED)
        if refused:
            said = {"detail": str(refused), "error": str(refused)}  # queue and direct calls are read differently
            await JSONResponse(said, refused.status)(scope, receive, send)

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Callable) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/").removeprefix("gradio_api/")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            if path.startswith("file="):
                self._check(path.removeprefix("file="))
            elif path and not path.startswith(_GETS):
                raise Refused(404, "The page has nothing here.")
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST" or not path.startswith(_POSTS):
            raise Refused(404, "The page has nothing here.")
        visitor = address(scope, self._proxies)
        if path == "upload":
            with self._counted(visitor, "upload", self._limits.uploads):
                self._count_upload(scope, visitor)
                try:
                    await self._app(scope, receive, send)
                finally:
                    self._folder.remove_broken_uploads()
        elif path.startswith(("run/", "api/")):
            with self._counted(visitor, "run", self._limits.at_once):
                await self._app(*await self._checked(scope, receive), send)
        elif path.startswith(_EVENTS):
            queued = sum(address(other, self._proxies) == visitor for other in self._waiting())
            with self._counted(visitor, "join", self._limits.waiting - queued):
                await self._app(*await self._checked(scope, receive), send)
        else:
            with self._counted(visitor, "other", self._limits.at_once):
                await self._app(*await self._checked(scope, receive), send)

    @contextmanager
    def _counted(self, visitor: str, kind: str, limit: int) -> Iterator[None]:
        key = visitor, kind
        if self._under_way[key] >= limit:
            raise Refused(429, "You have as many requests under way as one visitor may have. Wait for one to end.")
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            self._under_way += Counter()  # drops what is zero

    def _count_upload(self, scope: MutableMapping[str, Any], visitor: str) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:  # which would count, and not the length
            raise Refused(411, "An upload must state its length.")
        try:
            self._uploads.take(visitor, {"megabytes": int(length) / 1e6})
        except DehazeError as error:
            raise Refused(429, str(error)) from None

    def _check(self, path: str) -> None:
        if path not in self._static and not self._folder.holds(path):
            raise Refused(403, "There is no such file here. Add it again: files are kept for two hours at most.")

    async def _checked(self, scope: MutableMapping[str, Any], receive: Receive) -> tuple[MutableMapping, Receive]:
        """Read an event's inputs and check each file in them; pass on what was read, and not what was sent."""
        sent = await _read(receive)
        try:
            body = json.dumps(self._check_files(json.loads(sent))).encode()
        except (ValueError, RecursionError):
            raise Refused(400, "The inputs are not JSON.") from None
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, replay

    def _check_files(self, value: Any) -> Any:
        """Return a value of JSON whose files are the page's, marked as gradio marks files, without addresses to fetch.

        Raises Refused for a file that is not here, or a session that is no short word.
        """
        if isinstance(value, list):
            return [self._check_files(part) for part in value]
        if not isinstance(value, dict):
            return value
        if not _SESSION.fullmatch(str(value.get("session_hash") or "none")):
            raise Refused(400, "The session is not one of this page.")
        if isinstance(path := value.get("path"), str):
            self._check(path)
            return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
        return {key: self._check_files(part) for key, part in value.items()}


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request was broken off.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise Refused(413, "These inputs are too large. Upload files first.")
        if not message.get("more_body"):
            return body
