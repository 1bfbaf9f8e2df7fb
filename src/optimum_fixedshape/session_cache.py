"""Optimized graphs with weights packed for this CPU, kept on disk: they open fast, and memory holds a weight once.

A folder of graphs has one entry, made graph by graph as each is first opened::

    <cache>/<key of folder, onnxruntime and CPU>/
        weights-<token>.bin   every content once, only ever added to: what processes have mapped stays as it is
        contents.json         where in it each content is
        <key of graph>.onnx   reads the weights
        <key of graph>.json   written last: what the graph was made from

Entries are read without a lock and written under one. Whatever is not as it should be is made again, or not used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import mmap
import os
import platform
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from .errors import FixedShapeError
from .graph.tensors import check_tensors

logger = logging.getLogger(__name__)

VARIABLE = "OPTIMUM_FIXEDSHAPE_CACHE"
MOST_BYTES = 16 * 2**30
_OFF = ("", "0")
_LONGEST_WAIT = 120.0  # seconds, for another process that makes the same entry
_LONGEST_BUILD = 24 * 3600.0
_ROOM = 4  # times the weights: the saved file, and the pool with weights and their packed forms
_CPU_FACTS = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "isa", "uarch"),
)

Save = Callable[[Path, str], None]
"""Writes the optimized graph to a path, and its weights beside it, to a file of a name."""


@dataclass(frozen=True)
class _Source:
    """A file that a graph was made from."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class _Record:
    """What is known of a graph in the cache.

    Attributes:
        sources: The graph that it was made from, and the files with its weights.
        sha256: Of the graph.
        weights: Name of the file with its weights.
        weights_bytes: How long that file is at least.
    """

    sources: tuple[_Source, ...]
    sha256: str
    weights: str
    weights_bytes: int


def cache_folder() -> Path | None:
    """Returns where optimized graphs are kept, or None if the environment turns that off."""
    told = os.environ.get(VARIABLE)
    if told is not None:
        return None if told in _OFF else Path(told).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "optimum-fixedshape"


def cached_graph(path: Path, files: Sequence[Path], settings: Sequence[str], save: Save) -> Path | None:
    """Returns the graph at `path` as the cache has it, made now if it was not there; None if there is no way.

    Why there is none, a debug message says: the cache is off, cannot be written, or belongs to somebody else, or
    onnxruntime cannot save the graph.

    Args:
        path: The graph.
        files: The files that hold its weights.
        settings: Whatever else decides how the graph is optimized.
        save: Makes what is kept.
    """
    root = cache_folder()
    if root is None:
        return None
    try:
        entry = _Entry(root, path, settings)
        sources = tuple(map(_source_of, (path, *files)))
        found = entry.find(sources)
        if found is None:
            found = entry.make(sources, save)
            evict(root, keep=entry.folder)
        with suppress(OSError):  # the cache may be on a disk that is only read
            os.utime(entry.folder)
        return found
    except Exception as error:  # onnxruntime's errors share no public base class; the graph itself is always there
        logger.debug("%s is opened without the cache: %s", path, error)
        return None


def evict(root: Path, *, keep: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
    """Removes the entries that were not used for longest until the others hold at most `most_bytes`.

    Processes that have them open keep what they have; entries that are being written stay.

    Args:
        root: The cache.
        keep: An entry that stays, whatever its size.
        most_bytes: How much may be left.
    """
    for left in root.glob(".saving-*"):
        if time.time() - left.stat().st_mtime > _LONGEST_BUILD:
            shutil.rmtree(left, ignore_errors=True)
    entries = sorted(
        (path for path in root.iterdir() if path.is_dir() and path.suffix == ".entry"), key=os.path.getmtime
    )
    sizes = {entry: sum(file.stat().st_size for file in entry.iterdir()) for entry in entries}
    excess = sum(sizes.values()) - most_bytes
    for entry in entries:
        if excess <= 0:
            return
        if entry != keep:
            with suppress(TimeoutError), _locked(entry, wait=0.0):
                shutil.rmtree(entry, ignore_errors=True)
            excess -= sizes[entry]


class _Entry:
    """The graphs of one folder, for this onnxruntime on this CPU."""

    def __init__(self, root: Path, path: Path, settings: Sequence[str]) -> None:
        import onnxruntime as ort

        key = [str(path.parent.resolve()), ort.__version__, ort.get_build_info(), _cpu(), *settings]
        self.root = root
        self.folder = root / f"{_digest(json.dumps(key).encode())[:32]}.entry"
        self.graph = self.folder / f"{_digest(path.name.encode())[:32]}.onnx"
        self.record = self.graph.with_suffix(".json")
        self.contents = self.folder / "contents.json"

    def find(self, sources: tuple[_Source, ...]) -> Path | None:
        """Returns the graph, if it is there, as it was written, and made from what is there now."""
        if not self.record.exists() or not all(map(_is_ours, (self.root, self.folder))):
            return None
        try:
            record = _record_from(json.loads(self.record.read_bytes()))
            is_whole = record.sha256 == _digest(self.graph.read_bytes())
            is_whole &= (self.folder / record.weights).stat().st_size >= record.weights_bytes
            if record.sources != sources or not is_whole:
                return None
            check_tensors(self.graph)
        except (OSError, ValueError, TypeError, KeyError, FixedShapeError) as error:
            logger.debug("%s is made again: %s", self.graph, error)
            return None
        return self.graph

    def make(self, sources: tuple[_Source, ...], save: Save) -> Path:
        """Returns the graph, saved now unless another process was faster."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        weights = sum(source.size for source in sources)
        if (free := shutil.disk_usage(self.root).free) < _ROOM * weights:
            raise OSError(f"{self.root} has {free} bytes left, and {_ROOM * weights} may be needed.")
        with _locked(self.folder, wait=_LONGEST_WAIT):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.root, self.folder):
                if not _is_ours(folder):
                    raise PermissionError(f"{folder} belongs to somebody else, or others may write to it.")
            found = self.find(sources)
            if found is None:
                if self.record.exists():  # and is no good, so the weights may not be either
                    self._clear()
                with tempfile.TemporaryDirectory(prefix=".saving-", dir=self.root) as place:
                    saved = Path(place) / "model.onnx"
                    save(saved, "weights.bin")
                    self._add(saved, saved.with_name("weights.bin"), sources)
        return self.graph

    def _add(self, saved: Path, weights: Path, sources: tuple[_Source, ...]) -> None:
        import onnx

        from .graph.prepacked import move_weights
        from .graph.weights import WeightPool

        name, offsets = self._known()
        model = onnx.load_model(saved, load_external_data=False)
        with (self.folder / name).open("ab") as file:
            pool = WeightPool(file, name, file.tell(), offsets=offsets)
            with _mapped(weights) as content:
                move_weights(model, content, location=weights.name, pool=pool)
            file.flush()
            os.fsync(file.fileno())
        graph = model.SerializeToString()
        known = {digest.hex(): offset for digest, offset in pool.offsets.items()}
        record = _Record(sources, _digest(graph), name, pool.size)
        _write(self.contents, json.dumps({"weights": name, "bytes": pool.size, "offsets": known}).encode())
        _write(self.graph, graph)
        _write(self.record, json.dumps(asdict(record)).encode())

    def _known(self) -> tuple[str, dict[bytes, int]]:
        """The weights file to add to, and where in it contents are; a new one where there is none that is whole."""
        try:
            told = json.loads(self.contents.read_bytes())
            if (self.folder / told["weights"]).stat().st_size >= told["bytes"]:
                return told["weights"], {bytes.fromhex(digest): at for digest, at in told["offsets"].items()}
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.debug("%s starts anew: %s", self.folder, error)
        # A name of its own, so that no graph of before can take these weights for its own.
        return f"weights-{uuid.uuid4().hex}.bin", {}

    def _clear(self) -> None:
        for file in self.folder.iterdir():
            try:
                file.unlink()
            except OSError as error:  # some systems keep what is mapped
                logger.debug("%s stays: %s", file, error)


@contextmanager
def _locked(entry: Path, *, wait: float) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(f"{entry}.lock", timeout=wait, mode=0o600):
        yield


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Yields the content of a file, which may be missing or empty where a graph has only small weights."""
    if not path.exists() or not path.stat().st_size:
        yield memoryview(b"")
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        yield view


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole: readers see the one before or this one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _is_ours(folder: Path) -> bool:
    """Whether a folder belongs to this user, and nobody else may write to it, where the system tells."""
    if not hasattr(os, "geteuid"):  # pragma: no cover  # of Windows
        return True
    told = folder.stat()
    return told.st_uid == os.geteuid() and not told.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _source_of(path: Path) -> _Source:
    told = path.stat()
    return _Source(str(path.resolve()), told.st_size, told.st_mtime_ns)


def _record_from(told: Any) -> _Record:
    return _Record(**{**told, "sources": tuple(_Source(**source) for source in told["sources"])})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.cache
def _cpu() -> str:
    """What the packed forms depend on: model and abilities of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = takewhile(str.strip, file)  # all cores have one paragraph each
            return "".join(line for line in first if line.partition(":")[0].strip() in _CPU_FACTS)
    except OSError:  # pragma: no cover  # of systems other than Linux
        return f"{platform.machine()} {platform.processor()}"
