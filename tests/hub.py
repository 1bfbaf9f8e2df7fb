"""A Hugging Face Hub on 127.0.0.1, serving folders to real, unmodified clients.

``LocalHub(root)`` serves every ``root/<namespace>/<name>/`` as a model repository with one branch, ``main``, whose
commit hash is a SHA-1 of its content: change a file and the commit changes, and the old hash is gone. Every file is a
regular git file: no LFS, no Xet, no redirect to a CDN. Errors carry the headers of the real Hub, so that clients raise
their own exceptions.

Clients read ``HF_ENDPOINT`` when they are imported, which is why they run in a subprocess::

    with LocalHub(tmp_path) as hub:
        hub.run("from huggingface_hub import snapshot_download; snapshot_download('acme/tiny')")
        assert hub.sent("model.onnx") < 10_000
"""

import base64
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 1 << 16
DATE = "2024-01-01T00:00:00.000Z"
FRONT_MATTER = re.compile(r"---\n(.*?)\n---\s", re.DOTALL)
RANGE = re.compile(r"bytes=(?=\d|-\d)(\d*)-(\d*)")
REPO, REV = r"(?P<repo>[^/]+(?:/[^/]+)?)", r"(?P<rev>[^/]+)"

# Method, pattern of the path, name of the method of _Handler that answers: the first match counts.
ROUTES = [
    ("GET", rf"/{REPO}/resolve/{REV}/(?P<path>.+)", "file"),
    ("HEAD", rf"/{REPO}/resolve/{REV}/(?P<path>.+)", "file"),
    ("GET", rf"/api/models/{REPO}/revision/{REV}", "model_info"),
    ("GET", rf"/api/models/{REPO}/tree/{REV}(?:/(?P<path>.+))?", "tree"),
    ("POST", rf"/api/models/{REPO}/paths-info/{REV}", "paths_info"),
    ("POST", rf"/api/models/{REPO}/preupload/{REV}", "preupload"),
    ("POST", rf"/api/models/{REPO}/commit/{REV}", "commit"),
    ("GET", rf"/api/models/{REPO}", "model_info"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", r"/api/whoami-v2", "whoami"),
]


class Request(NamedTuple):
    """A request that was received: its path is unquoted and has no query."""

    method: str
    path: str
    range: str | None


class LocalHub:
    """A Hub that serves ``root``: a context manager.

    ``token`` reads and writes everything as user ``"tester"``; ``read_token`` reads everything, and gets a 403 when it
    writes. Without a token, public repositories can be read, and those in ``private`` do not seem to exist.
    """

    token, read_token = "hf_write", "hf_read"

    def __init__(self, root: Path, private: Iterable[str] = ()):
        self.root = Path(root)
        self.private = set(private)
        self.lock = threading.RLock()
        self._requests: list[Request] = []
        self._sent: Counter[str] = Counter()

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(prefix="hub-home-")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._home.cleanup()

    def environ(self, **env: str) -> dict[str, str]:
        """The environment of a client of this hub: nothing of the caller's own Hugging Face settings, then ``env``."""
        foreign = ("HF_", "HUGGING", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        disabled = {f"HF_HUB_DISABLE_{name}": "1" for name in ("PROGRESS_BARS", "TELEMETRY", "XET")}
        direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return inherited | disabled | direct | {"HF_ENDPOINT": self.url, "HF_HOME": self._home.name} | env

    def run(self, code: str, **env: str) -> str:
        """What ``code`` prints, run by a new interpreter, warnings being errors; its stderr is raised if it fails.

        Runs of one hub share the cache, ``HF_HOME``, unless ``env`` says otherwise.
        """
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
        options = {"capture_output": True, "text": True, "timeout": 300, "cwd": self._home.name}
        done = subprocess.run(command, env=self.environ(**env), check=False, **options)
        if done.returncode:
            raise RuntimeError(f"client exited with {done.returncode}:\n{done.stderr}")
        return done.stdout

    @property
    def requests(self) -> list[Request]:
        """What was asked for so far: (method, path, Range header or None)."""
        with self.lock:
            return list(self._requests)

    def sent(self, suffix: str = "") -> int:
        """Bytes of bodies sent so far for the paths that end with ``suffix``."""
        with self.lock:
            return sum(count for path, count in self._sent.items() if path.endswith(suffix))

    def reset(self):
        """Forget the requests and the bytes sent."""
        with self.lock:
            self._requests.clear()
            self._sent.clear()


@dataclass(frozen=True)
class Repo:
    """A folder, seen as a git repository."""

    id: str
    folder: Path

    def files(self) -> dict[str, Path]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    def oid(self, path: str = "") -> str:
        """The hash of the files under ``path``: that of the whole repository is its commit."""
        content = [f"{name} {blob_oid(file)}" for name, file in self.files().items() if name.startswith(path)]
        return hashlib.sha1("\n".join(content).encode()).hexdigest()

    def entries(self) -> dict[str, dict]:
        """Files and folders, as the Hub describes them."""
        files = self.files()
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        entries = {name: {"type": "directory", "oid": self.oid(f"{name}/"), "size": 0} for name in folders}
        for name, file in files.items():
            entries[name] = {"type": "file", "oid": blob_oid(file), "size": file.stat().st_size}
        last = {"id": self.oid(), "title": "commit", "date": DATE}
        return {name: {"path": name, "lastCommit": last, **entry} for name, entry in sorted(entries.items())}

    def card(self) -> dict[str, str]:
        """The fields of README.md's front matter whose value is on their line."""
        readme = self.folder / "README.md"
        front = FRONT_MATTER.match(readme.read_text(encoding="utf-8")) if readme.is_file() else None
        return dict(re.findall(r"^(\w+): *['\"]?([^'\"\n]+)", front[1], re.MULTILINE)) if front else {}

    def apply(self, operation: dict):
        """Do one line of a commit."""
        match operation:
            case {"key": "header"}:
                pass
            case {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}:
                target = self.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)  # a link must not be written through
                target.write_bytes(base64.b64decode(content))
            case {"key": "deletedFile" | "deletedFolder", "value": {"path": path}}:
                target = self.folder / path
                if not target.exists():
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            case _:
                raise HubError(400, "Unsupported operation")


class HubError(Exception):
    """An answer other than success, with the headers from which clients choose their exception."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


def blob_oid(file: Path) -> str:
    """Git's name for the content of ``file``: clients compare it with their own before an upload."""
    stat = file.stat()
    return _blob_oid(file, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _blob_oid(file: Path, size: int, _modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(b"blob %d\0" % size)).hexdigest()


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The (start, stop) that a Range header asks for; None for the whole file."""
    found = RANGE.fullmatch(header or "")
    if not found:
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise HubError(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
    return start, stop


def chunks(file: Path, start: int, stop: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        for position in range(start, stop, CHUNK):
            yield stream.read(min(CHUNK, stop - position))


class _Handler(BaseHTTPRequestHandler):
    """One connection: finds the route, checks what it may see, and calls the method."""

    protocol_version = "HTTP/1.1"  # connections are kept alive
    disable_nagle_algorithm = True

    def __init__(self, hub: LocalHub, *args):
        self.hub = hub
        super().__init__(*args)

    def handle(self):
        with suppress(ConnectionError):  # a client may hang up in the middle of a file
            super().handle()

    def log_message(self, *args):
        """Keep quiet: see LocalHub.requests."""

    def dispatch(self):
        url = urlsplit(self.path)
        self.name, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.hub.lock:
            self.hub._requests.append(Request(self.command, self.name, self.headers.get("Range")))
        try:
            self.answer(url.path)
        except HubError as error:
            self.send_json({"error": str(error)}, error.status, **error.headers)

    do_GET = do_HEAD = do_POST = dispatch  # noqa: N815

    def answer(self, path: str):
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.token not in ("", self.hub.token, self.hub.read_token):
            raise HubError(401, "Invalid credentials in Authorization header")
        for method, pattern, name in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                fields = {key: unquote(value) for key, value in found.groupdict(default="").items()}
                if "repo" in fields:
                    fields["repo"] = self.open_repo(fields["repo"], fields.pop("rev", "main"))
                return getattr(self, name)(**fields)
        raise HubError(404, "No such route")

    def open_repo(self, repo_id: str, revision: str) -> Repo:
        repo = Repo(repo_id, self.hub.root / repo_id)
        if "/" not in repo_id or not repo.folder.is_dir() or (repo_id in self.hub.private and not self.token):
            raise HubError(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if revision not in ("main", repo.oid()):
            raise HubError(404, "Invalid rev id", "RevisionNotFound")
        return repo

    def check_write(self):
        if not self.token:
            raise HubError(401, "Invalid username or password.")
        if self.token != self.hub.token:
            raise HubError(403, "You don't have the rights to write with this token")

    # Answers

    def file(self, repo: Repo, path: str):
        headers = {"X-Repo-Commit": repo.oid()}
        source = repo.files().get(path)
        if source is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **headers)
        size = source.stat().st_size
        part = byte_range(self.headers.get("Range"), size)
        start, stop = part or (0, size)
        headers |= {"ETag": f'"{blob_oid(source)}"', "Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.send(206 if part else 200, headers, chunks(source, start, stop))

    def model_info(self, repo: Repo):
        card = repo.card()
        siblings = [{"rfilename": name} for name in repo.files()]
        info = {"id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": repo.oid()}
        info |= {"private": repo.id in self.hub.private, "gated": False, "disabled": False, "siblings": siblings}
        info |= {"createdAt": DATE, "lastModified": DATE, "downloads": 0, "likes": 0, "tags": []}
        info |= {"library_name": card.get("library_name", "transformers"), "pipeline_tag": card.get("pipeline_tag")}
        self.send_json(info)

    def tree(self, repo: Repo, path: str):
        prefix = f"{path}/" if path else ""
        recursive = self.query.get("recursive", [""])[0].lower() == "true"  # requests sends "True", httpx "true"
        below = [entry for name, entry in repo.entries().items() if name.startswith(prefix)]
        if path and not below:
            raise HubError(404, "Path does not exist", "EntryNotFound")
        self.send_json([entry for entry in below if recursive or "/" not in entry["path"].removeprefix(prefix)])

    def paths_info(self, repo: Repo):
        wanted = parse_qs(self.body.decode()).get("paths", [])
        self.send_json([entry for name, entry in repo.entries().items() if name in wanted])

    def preupload(self, repo: Repo):
        self.check_write()
        entries = repo.entries()
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
        self.send_json({"files": [mode | {"oid": entries.get(mode["path"], {}).get("oid")} for mode in modes]})

    def commit(self, repo: Repo):
        self.check_write()
        with self.hub.lock:
            for line in self.body.splitlines():
                repo.apply(json.loads(line))
        commit = repo.oid()
        self.send_json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo.id}/commit/{commit}"})

    def create_repo(self):
        self.check_write()
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        answer = {"name": repo_id, "url": f"{self.hub.url}/{repo_id}"}
        with self.hub.lock:
            if (self.hub.root / repo_id).exists():
                return self.send_json(answer | {"error": "You already created this model repo"}, 409)
            (self.hub.root / repo_id).mkdir(parents=True)
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.hub.private.add(repo_id)
        self.send_json(answer)

    def validate_yaml(self):
        empty = not FRONT_MATTER.match(json.loads(self.body)["content"])
        warnings = [{"message": "empty or missing yaml metadata in repo card"}] if empty else []
        self.send_json({"errors": [], "warnings": warnings})

    def whoami(self):
        if not self.token:
            raise HubError(401, "Invalid username or password.")
        role = "write" if self.token == self.hub.token else "read"
        self.send_json({"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {"role": role}}})

    # Sending

    def send_json(self, content, status: int = 200, **headers: str):
        body = json.dumps(content).encode()
        self.send(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}, [body])

    def send(self, status: int, headers: dict[str, str], body: Iterable[bytes]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in body if self.command != "HEAD" else ():
            with self.hub.lock:  # counted before it is written: the client may be done, and ask, right after
                self.hub._sent[self.name] += len(chunk)
            self.wfile.write(chunk)
