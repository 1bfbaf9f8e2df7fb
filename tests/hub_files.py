"""What the Hub of tests/hub.py serves: folders seen as git repositories, whose large files may be kept by LFS."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

CHUNK = 1 << 16
DATE = "2024-01-01T00:00:00.000Z"
FRONT_MATTER = re.compile(r"---\n(.*?)\n---\s", re.DOTALL)
RANGE = re.compile(r"bytes=(?=\d|-\d)(\d*)-(\d*)")


@dataclass(frozen=True)
class Repo:
    """A folder, seen as a git repository at one branch.

    ``lfs`` are patterns of the files that LFS keeps; ``foreign`` are files that are listed, and served, under names of
    their own; ``store`` is where the content of files in LFS is uploaded to.
    """

    id: str
    folder: Path
    lfs: Iterable[str]
    foreign: Mapping[str, Path]
    store: Path

    def files(self) -> dict[str, Path]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found} | self.foreign

    def in_lfs(self, path: str) -> bool:
        return any(fnmatch(PurePosixPath(path).name, pattern) for pattern in self.lfs)

    def oid(self, path: str = "") -> str:
        """The hash of the files under ``path``: that of the whole repository is its commit."""
        content = [f"{name} {blob_oid(file)}" for name, file in self.files().items() if name.startswith(path)]
        return hashlib.sha1("\n".join(content).encode()).hexdigest()

    def etag(self, path: str) -> str:
        """What clients compare with their own hash of a file, before an upload and after a download."""
        file = self.files()[path]
        return sha256(file) if self.in_lfs(path) else blob_oid(file)

    def entries(self) -> dict[str, dict]:
        """Files and folders, as the Hub describes them."""
        files = self.files()
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        entries = {name: {"type": "directory", "oid": self.oid(f"{name}/"), "size": 0} for name in folders}
        for name, file in files.items():
            size = file.stat().st_size
            entries[name] = {"type": "file", "oid": blob_oid(file), "size": size}
            if self.in_lfs(name):
                pointer = pointer_of(sha256(file), size)
                entries[name] |= {"oid": hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()}
                entries[name] |= {"lfs": {"oid": sha256(file), "size": size, "pointerSize": len(pointer)}}
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
                self._place(path).write_bytes(base64.b64decode(content))
            case {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid}}:
                if not (self.store / oid).is_file():
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                shutil.copyfile(self.store / oid, self._place(path))
            case {"key": "deletedFile" | "deletedFolder", "value": {"path": path}}:
                target = self.folder / path
                if not target.exists():
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            case _:
                raise HubError(400, "Unsupported operation")

    def _place(self, path: str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link must not be written through
        return target


class HubError(Exception):
    """An answer other than success, with the headers from which clients choose their exception."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


def pointer_of(oid: str, size: int) -> bytes:
    """What git keeps in place of a file in LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()


def blob_oid(file: Path) -> str:
    """Git's name for the content of ``file``: clients compare it with their own before an upload."""
    return _hash_of("sha1", file, file.stat().st_size, file.stat().st_mtime_ns)


def sha256(file: Path) -> str:
    """The name of the content of ``file`` in LFS."""
    return _hash_of("sha256", file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.cache
def _hash_of(kind: str, file: Path, size: int, _modified: int) -> str:
    start = b"blob %d\0" % size if kind == "sha1" else b""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, start)).hexdigest()


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
