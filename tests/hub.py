"""A Hub of one's own: the Hub's HTTP interface on this machine, so that the real clients run without a network.

    with HubServer() as hub:
        hub.put("dataset", "org/pairs", {"metadata.parquet": b"...", "hazy/1.png": b"..."})
        hub.connect(monkeypatch, tmp_path)      # this process: huggingface_hub and datasets
        subprocess.run(..., env=hub.environment(tmp_path))  # another process, by HF_ENDPOINT
        hub.fail("/resolve/", status=500)       # from now on, whatever has this in its address
        hub.files("dataset", "org/pairs", "refs/pr/1")      # what a commit left there

It answers what listing, resolving, downloading (whole or by range) and committing ask for, straight or as a pull
request, with files inside the commit or by LFS. Repositories live in memory and are made by their first file, or by
`create_repo`. `requests` holds the method and address of everything that was asked.
"""

import base64
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_local_test"
KINDS = ("model", "dataset", "space")


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests whose address holds `part`: a status, half a body, or a pause in its middle."""

    part: str
    methods: tuple[str, ...]
    status: int | None
    headers: dict[str, str]
    truncate: bool
    delay: float
    times: list[int]  # how often yet; counts down in place


@dataclass
class Repository:
    """Files by revision; the name of a revision leads to a commit, and a commit to its files."""

    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, revision: str, files: dict[str, bytes], base: str | None = None) -> str:
        tree = {**self.at(base or revision), **files}
        tree = {path: data for path, data in tree.items() if data is not None}
        content = "".join(f"{path}\0{_sha1(data)}\n" for path, data in sorted(tree.items()))
        oid = _sha1(f"{len(self.commits)}\0{content}".encode())
        self.commits[oid] = tree
        self.revisions[revision] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.revisions.get(revision, revision if revision in self.commits else None)

    def at(self, revision: str) -> dict[str, bytes]:
        return self.commits.get(self.resolve(revision), {})


class HubServer:
    """Serve repositories on this machine until the `with` block ends."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, kind: str, name: str, files: dict[str, bytes | None], revision: str = "main") -> str:
        """Commit `files` (None deletes one) to a repository, which need not be there yet; return the commit."""
        with self._lock:
            return self.repositories.setdefault((kind, name), Repository()).commit(revision, files)

    def put_folder(self, kind: str, name: str, folder: Path) -> str:
        """Commit every file of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.put(kind, name, files)

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision: a branch, a commit, or `refs/pr/1`."""
        return self.repositories[kind, name].at(revision)

    def fail(
        self,
        part: str,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        truncate: bool = False,
        delay: float = 0.0,
        times: int = 1_000_000,
        methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT"),
    ) -> None:
        """Let requests whose address holds `part` fail, the first `times` ones, until `heal`."""
        self.faults.append(Fault(part, methods, status, headers or {}, truncate, delay, [times]))

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.faults.clear()

    def fault(self, method: str, address: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.part in address and method in fault.methods and fault.times[0] > 0:
                    fault.times[0] -= 1
                    return fault
        return None

    def environment(self, folder: Path) -> dict[str, str]:
        """Return an environment that sends another process here, with its caches in `folder`."""
        return os.environ | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(folder),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
        }

    def connect(self, monkeypatch, folder: Path) -> None:
        """Send this process here, with its caches in `folder`; both clients read their settings when imported."""
        import datasets
        from huggingface_hub import HfFileSystem, constants

        values = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_ASSETS_CACHE": str(folder / "assets"),
            "HF_XET_CACHE": str(folder / "xet"),
            "AGENT_HARNESSES_PATH": str(folder / "harnesses.json"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        for name, value in {
            "HF_ENDPOINT": self.endpoint,
            "HF_DATASETS_CACHE": folder / "datasets",
            "DOWNLOADED_DATASETS_PATH": folder / "datasets/downloads",
            "EXTRACTED_DATASETS_PATH": folder / "datasets/extracted",
            "HF_MODULES_CACHE": str(folder / "modules"),
            "HF_HUB_OFFLINE": False,
            "HF_UPDATE_DOWNLOAD_COUNTS": False,
        }.items():
            monkeypatch.setattr(datasets.config, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        HfFileSystem.clear_instance_cache()  # it remembers what another server listed


def impatient(monkeypatch) -> list[float]:
    """Let the clients try again as often as ever, but without waiting; return the waits, in seconds, as they come."""
    from datasets.utils import file_utils
    from huggingface_hub import file_download, hf_file_system
    from huggingface_hub.utils import _http

    waits: list[float] = []
    hasty = SimpleNamespace(**{**vars(time), "sleep": waits.append})
    for module in (_http, file_download, hf_file_system, file_utils):
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", hasty)
    return waits


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _blob(data: bytes) -> str:
    return _sha1(f"blob {len(data)}\0".encode() + data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def handle_request(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        if not size and self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b""
            while length := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        address = urlsplit(self.path)
        path, self.query = unquote(address.path), parse_qs(address.query)
        self.hub.requests.append(f"{self.command} {path}")
        self.cut = False
        self.pause = 0.0
        if fault := self.hub.fault(self.command, path):
            if fault.status is not None:
                return self.answer(fault.status, b'{"error": "on demand"}', fault.headers)
            self.cut, self.pause = fault.truncate, fault.delay
        try:
            self.route(path)
        except KeyError:
            self.missing("RepoNotFound", 401 if "Authorization" not in self.headers else 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def route(self, path: str) -> None:
        if path == "/api/whoami-v2":
            return self.json({"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            wanted = json.loads(self.body)
            name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
            self.hub.put(wanted.get("type", "model"), name, {})
            return self.json({"url": f"{self.hub.endpoint}/{name}", "id": name})
        if path.startswith("/lfs/"):
            self.hub.large[path.removeprefix("/lfs/")] = self.body
            return self.answer(200, b"")
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.json(
                {"transfer": "basic", "objects": [self.upload(o) for o in json.loads(self.body)["objects"]]}
            )
        parts = path.strip("/").split("/")
        if parts[0] == "api" and parts[1].removesuffix("s") in KINDS:
            kind, name, *rest = parts[1].removesuffix("s"), "/".join(parts[2:4]), *parts[4:]
            return self.interface(kind, name, self.hub.repositories[kind, name], rest)
        kind = parts.pop(0).removesuffix("s") if parts[0].removesuffix("s") in KINDS[1:] else "model"
        if len(parts) > 3 and parts[2] == "resolve":
            repository = self.hub.repositories[kind, "/".join(parts[:2])]
            revision, rest = self.revision(repository, parts[3:])
            return self.file(repository, revision, "/".join(rest))
        return self.missing("RepoNotFound")

    def upload(self, wanted: dict) -> dict:
        if wanted["oid"] in self.hub.large:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}

    def revision(self, repository: Repository, parts: list[str]) -> tuple[str, list[str]]:
        """Split a revision, which may hold slashes, from what follows it."""
        for count in (3, 1):
            if repository.resolve("/".join(parts[:count])):
                return "/".join(parts[:count]), parts[count:]
        return parts[0], parts[1:]

    def interface(self, kind: str, name: str, repository: Repository, rest: list[str]) -> None:
        what, *rest = rest or ["revision", "main"]
        if what == "refs":
            branches = [
                {"name": revision, "ref": f"refs/heads/{revision}", "targetCommit": oid}
                for revision, oid in repository.revisions.items()
                if not revision.startswith("refs/")
            ]
            return self.json({"branches": branches, "tags": [], "converts": []})
        revision, rest = self.revision(repository, rest or ["main"])
        oid = repository.resolve(revision)
        if oid is None:
            return self.missing("RevisionNotFound")
        files = repository.commits[oid]
        if what == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            facts = {"id": name, "sha": oid, "siblings": siblings, "private": False, "gated": False, "tags": []}
            return self.json(facts | {"disabled": False, "downloads": 0, "likes": 0, "lastModified": LAST_MODIFIED})
        if what == "tree":
            return self.tree(files, "/".join(rest))
        if what == "paths-info":
            wanted = json.loads(self.body)["paths"] if self.body[:1] == b"{" else parse_qs(self.body.decode())["paths"]
            found = [_entry(path, files[path]) for path in wanted if path in files]
            folders = [path for path in wanted if any(other.startswith(f"{path}/") for other in files)]
            return self.json(found + [_folder(path) for path in folders])
        if what == "preupload":
            wanted = json.loads(self.body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if Path(file["path"]).suffix in LARGE else "regular",
                    "shouldIgnore": False,
                    "oid": _blob(files[file["path"]]) if file["path"] in files else None,
                }
                for file in wanted
            ]
            return self.json({"files": modes})
        if what == "commit":
            return self.commit(kind, name, repository, revision)
        return self.missing("EntryNotFound")

    def tree(self, files: dict[str, bytes], folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in files.items() if path.startswith(prefix)}
        if folder and not inside:
            return self.missing("EntryNotFound")
        parents = {parent for path in inside for parent in _parents(path) if parent.startswith(prefix)}
        entries = [_folder(path) for path in parents] + [_entry(path, data) for path, data in inside.items()]
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
        self.json(sorted(entries, key=lambda entry: entry["path"]))

    def commit(self, kind: str, name: str, repository: Repository, revision: str) -> None:
        files: dict[str, bytes | None] = {}
        for line in self.body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif step["key"] == "deletedFile":
                files[value["path"]] = None
        home = f"{self.hub.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{name}"
        answer = {"success": True}
        target = revision
        if self.query.get("create_pr") == ["1"]:
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.revisions)
            target = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{home}/discussions/{number}"
        oid = repository.commit(target, files, base=revision)
        self.json(answer | {"commitOid": oid, "commitUrl": f"{home}/commit/{oid}"})

    def file(self, repository: Repository, revision: str, path: str) -> None:
        oid = repository.resolve(revision)
        if oid is None:
            return self.missing("RevisionNotFound")
        data = repository.commits[oid].get(path)
        if data is None:
            return self.missing("EntryNotFound")
        headers = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)), len(data) - 1)
            if start >= len(data):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            return self.answer(206, data[start : stop + 1], headers)
        self.answer(200, data, headers)

    def missing(self, code: str, status: int = 404) -> None:
        self.answer(status, b'{"error": "not found"}', {"X-Error-Code": code, "X-Error-Message": "not found"})

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        if self.cut:
            self.close_connection = True
            return
        time.sleep(self.pause)
        try:
            self.wfile.write(body[half:])
        except OSError:  # the client did not wait
            self.close_connection = True

    def log_message(self, *_) -> None:
        pass


LAST_MODIFIED = "2025-01-01T00:00:00.000Z"
LARGE = {".parquet", ".safetensors", ".png", ".jpg", ".jpeg"}


def _parents(path: str) -> list[str]:
    return [parent.as_posix() for parent in Path(path).parents if parent != Path(".")]


def _folder(path: str) -> dict:
    return {"type": "directory", "path": path, "oid": _sha1(path.encode()), "size": 0}


def _entry(path: str, data: bytes) -> dict:
    return {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
