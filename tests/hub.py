"""A Hugging Face Hub on 127.0.0.1, serving folders to real, unmodified clients.

``LocalHub(root)`` serves every ``root/<namespace>/<name>/`` as the branch ``main`` of a model repository, whose commit
hash is a SHA-1 of its content: change a file and the commit changes, and the old hash is gone. Other branches, and pull
requests, are folders beside it. Files that match ``lfs`` are kept by LFS: their content is somewhere else, and clients
are sent there; there is no Xet. Errors carry the headers of the real Hub, so that clients raise their own exceptions.

Clients read ``HF_ENDPOINT`` when they are imported, which is why they run in a subprocess::

    with LocalHub(tmp_path) as hub:
        hub.run("from huggingface_hub import snapshot_download; snapshot_download('acme/tiny')")
        assert hub.sent("model.onnx") < 10_000
"""

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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .hub_files import DATE, FRONT_MATTER, HubError, Repo, byte_range, chunks

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
    ("POST", rf"/api/models/{REPO}/branch/(?P<branch>[^/]+)", "create_branch"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("GET", rf"/lfs/{REPO}/{REV}/(?P<path>.+)", "lfs_file"),
    ("PUT", r"/lfs-upload/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
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
    writes. Without a token, public repositories can be read, and those in ``private`` do not seem to exist. The files
    of those in ``gated`` are for ``token`` alone. ``foreign`` are files that a repository lists under any names, also
    ones that no git repository has.
    """

    token, read_token = "hf_write", "hf_read"

    def __init__(
        self,
        root: Path,
        private: Iterable[str] = (),
        *,
        gated: Iterable[str] = (),
        lfs: Iterable[str] = (),
        foreign: Mapping[str, Mapping[str, Path]] | None = None,
    ):
        self.root = Path(root)
        self.private, self.gated, self.lfs = set(private), set(gated), tuple(lfs)
        self.foreign = foreign or {}
        self.faults: dict[str, list[int | str]] = {}
        self.lock = threading.RLock()
        self._requests: list[Request] = []
        self._sent: Counter[str] = Counter()

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(prefix="hub-home-")
        self._store = tempfile.TemporaryDirectory(prefix="hub-store-")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = self.url.replace("127.0.0.1", "localhost")  # another host, as far as clients can see
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._home.cleanup()
        self._store.cleanup()

    def environ(self, **env: str) -> dict[str, str]:
        """The environment of a client of this hub: nothing of the caller's own Hugging Face settings, then ``env``."""
        foreign = ("HF_", "HUGGING", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        disabled = {f"HF_HUB_DISABLE_{name}": "1" for name in ("PROGRESS_BARS", "TELEMETRY", "XET")}
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        return inherited | disabled | direct | {"HF_ENDPOINT": self.url, "HF_HOME": self._home.name} | env

    def run(self, code: str, **env: str) -> str:
        """What ``code`` prints, run by a new interpreter, warnings being errors; its stderr is raised if it fails.

        Runs of one hub share the cache, ``HF_HOME``, unless ``env`` says otherwise.
        """
        # Of huggingface_hub 2, which sends files to LFS in a way that its own HTTP client would rather not have.
        warnings = ["-W", "error", "-W", "ignore:Use 'content:DeprecationWarning"]
        command = [sys.executable, *warnings, "-c", textwrap.dedent(code)]
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

    def fail(self, suffix: str, *faults: int | str):
        """Let the next requests for paths that end with ``suffix`` fail, one after the other.

        A fault is a status, ``"cut"`` (the connection ends in the middle of the file) or ``"short"`` (half a file, with
        headers that say it is whole).
        """
        with self.lock:
            self.faults[suffix] = list(faults)

    def fault(self, path: str, *, is_body: bool) -> int | str | None:
        """The fault that is next for a path, if it is one of bodies, or one of statuses."""
        with self.lock:
            for suffix, faults in self.faults.items():
                if faults and path.endswith(suffix) and isinstance(faults[0], str) == is_body:
                    return faults.pop(0)
        return None

    def reset(self):
        """Forget the requests and the bytes sent."""
        with self.lock:
            self._requests.clear()
            self._sent.clear()


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
        self.body = self.read_body()
        with self.hub.lock:
            self.hub._requests.append(Request(self.command, self.name, self.headers.get("Range")))
        try:
            if status := self.hub.fault(self.name, is_body=False):
                raise HubError(int(status), "Try again")
            self.answer(url.path)
        except HubError as error:
            self.send_json({"error": str(error)}, error.status, **error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = dispatch  # noqa: N815

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, path: str):
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path.startswith("/lfs/"):
            self.token = self.hub.token  # such addresses are signed: whoever was sent there may read
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
        main = self.repo(repo_id, "main")
        if "/" not in repo_id or not main.folder.is_dir() or (repo_id in self.hub.private and not self.token):
            raise HubError(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if revision in ("main", main.oid()):
            return main
        names = (path.name.partition("@")[2] for path in main.folder.parent.glob(f"{main.folder.name}@*"))
        for branch in (self.repo(repo_id, unquote(name)) for name in names):
            if revision == branch.oid() or self.repo(repo_id, revision).folder == branch.folder:
                return branch
        raise HubError(404, "Invalid rev id", "RevisionNotFound")

    def repo(self, repo_id: str, branch: str) -> Repo:
        folder = self.hub.root / (repo_id if branch == "main" else f"{repo_id}@{quote(branch, safe='')}")
        return Repo(repo_id, folder, self.hub.lfs, self.hub.foreign.get(repo_id, {}), Path(self.hub._store.name))

    def copied(self, repo: Repo, branch: str) -> Repo:
        made = self.repo(repo.id, branch)
        shutil.copytree(repo.folder, made.folder)
        return made

    def check_write(self):
        if not self.token:
            raise HubError(401, "Invalid username or password.")
        if self.token != self.hub.token:
            raise HubError(403, "You don't have the rights to write with this token")

    # Answers

    def file(self, repo: Repo, path: str):
        headers = {"X-Repo-Commit": repo.oid()}
        if repo.id in self.hub.gated and self.token != self.hub.token:
            raise HubError(403 if self.token else 401, f"Access to model {repo.id} is restricted", "GatedRepo")
        source = repo.files().get(path)
        if source is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **headers)
        if not repo.in_lfs(path):
            return self.send_file(source, headers | {"ETag": f'"{repo.etag(path)}"'})
        headers |= {"X-Linked-Etag": f'"{repo.etag(path)}"', "X-Linked-Size": str(source.stat().st_size)}
        headers |= {"Location": f"{self.hub.storage}/lfs/{repo.id}/{repo.oid()}/{quote(path)}", "Content-Length": "0"}
        self.send(302, headers, [])

    def lfs_file(self, repo: Repo, path: str):
        self.send_file(repo.files()[path], {"ETag": '"of the storage"'})

    def send_file(self, source: Path, headers: dict[str, str]):
        size = source.stat().st_size
        part = byte_range(self.headers.get("Range"), size)
        start, stop = part or (0, size)
        fault = self.hub.fault(self.name, is_body=True) if self.command == "GET" else None
        told = stop
        if fault:
            stop = (start + stop) // 2
            told = told if fault == "cut" else stop
            self.close_connection = True
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(told - start)}
        if part:
            headers["Content-Range"] = f"bytes {start}-{told - 1}/{size}"
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
        files, modes = repo.files(), []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = {"path": path, "uploadMode": "lfs" if repo.in_lfs(path) else "regular", "shouldIgnore": False}
            modes.append(mode | {"oid": repo.etag(path) if path in files else None})
        self.send_json({"files": modes})

    def lfs_batch(self, repo: Repo):
        self.check_write()
        objects = [{"oid": each["oid"], "size": each["size"]} for each in json.loads(self.body)["objects"]]
        for each in objects:
            if not (repo.store / each["oid"]).is_file():
                each["actions"] = {"upload": {"href": f"{self.hub.storage}/lfs-upload/{each['oid']}"}}
        self.send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "The content is not what was announced")
        (Path(self.hub._store.name) / oid).write_bytes(self.body)
        self.send(200, {"Content-Length": "0"}, [])

    def commit(self, repo: Repo):
        self.check_write()
        answer = {}
        with self.hub.lock:
            if self.query.get("create_pr"):
                number = 1 + len(list(repo.folder.parent.glob(f"{repo.folder.name}@refs%2Fpr%2F*")))
                repo = self.copied(repo, f"refs/pr/{number}")
                answer = {"pullRequestUrl": f"{self.hub.url}/{repo.id}/discussions/{number}"}
            for line in self.body.splitlines():
                repo.apply(json.loads(line))
        commit = repo.oid()
        answer |= {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo.id}/commit/{commit}"}
        self.send_json(answer)

    def create_branch(self, repo: Repo, branch: str):
        self.check_write()
        with self.hub.lock:
            if self.repo(repo.id, branch).folder.is_dir():
                raise HubError(409, "Reference already exists")
            self.copied(repo, branch)
        self.send_json({})

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
