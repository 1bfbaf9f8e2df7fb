"""Graphs on their way to a folder: kept beside it as they get done, so that work that was cut off can go on.

Nothing here has a name that ends in ``.onnx``, so that nobody takes what is half done for a model. Weights are kept by
their content, and therefore once for all graphs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper

from optimum_fixedshape.graph.loading import load_model
from optimum_fixedshape.graph.weights import INLINE_BYTES, walk_graphs

_STATE = "state.json"


class Staging:
    """The folder of graphs that are done. It starts empty unless it was left behind by the same work.

    Args:
        folder: Where it is; made if it is not there.
        key: Says what the work is. Graphs of any other work are thrown away.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._state: dict[str, Any] = {"key": key, "graphs": {}}
        if (found := _read_state(folder / _STATE)).get("key") == key and isinstance(found.get("graphs"), dict):
            self._state = found
        else:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._save()

    def path(self, name: str) -> Path:
        """Returns where the graph called `name` is kept; a session can open it there."""
        return self.folder / f"{name}.graph"

    def has(self, name: str) -> bool:
        """Whether a graph is done, and whole: it is as it was written, and all its weights are there."""
        path, entry = self.path(name), self._state["graphs"].get(name)
        if not isinstance(entry, dict) or not path.is_file():
            return False
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.get("digest"):
            return False
        kept = (self.folder / location for location in _locations(onnx.load_model_from_string(data)))
        return all(file.is_file() and str(file.stat().st_size) == file.name.partition("-")[2] for file in kept)

    def facts(self, name: str) -> Mapping[str, Any]:
        """Returns what was noted of a graph that is done."""
        facts: Mapping[str, Any] = self._state["graphs"][name]["facts"]
        return facts

    def put(self, name: str, model: onnx.ModelProto) -> Path:
        """Writes a graph, and returns where it is. It only counts as done once `finish` is called.

        The model is emptied of its weights.
        """
        for tensor in (tensor for graph in walk_graphs(model.graph) for tensor in graph.initializer):
            if len(tensor.raw_data) > INLINE_BYTES:
                external_data_helper.set_external_data(tensor, location=self._kept(tensor.raw_data))
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
        path = self.path(name)
        _write(path, model.SerializeToString(deterministic=True))
        return path

    def finish(self, name: str, facts: Mapping[str, Any]) -> None:
        """Notes that a graph is done, and what is to be remembered of it."""
        digest = hashlib.sha256(self.path(name).read_bytes()).hexdigest()
        self._state["graphs"][name] = {"digest": digest, "facts": dict(facts)}
        self._save()

    def models(self, names: Iterator[str] | tuple[str, ...]) -> Iterator[tuple[str, onnx.ModelProto]]:
        """Yields each graph with its weights."""
        for name in names:
            yield name, load_model(self.path(name))

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)

    def _kept(self, content: bytes) -> str:
        location = f"{hashlib.sha256(content).hexdigest()}-{len(content)}"
        path = self.folder / location
        if not path.is_file() or path.stat().st_size != len(content):
            _write(path, content)
        return location

    def _save(self) -> None:
        _write(self.folder / _STATE, json.dumps(self._state, indent=1).encode())


def _read_state(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, data: bytes) -> None:
    """Writes a file that is either there as a whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _locations(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in (tensor for graph in walk_graphs(model.graph) for tensor in graph.initializer):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield next(entry.value for entry in tensor.external_data if entry.key == "location")
