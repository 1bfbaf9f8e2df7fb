"""One weights file for several graphs: the rungs of one model differ in their shapes, hardly in their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import numpy_helper

from optimum_fixedshape.errors import InvalidModelError

WEIGHTS_NAME = "model.onnx_data"
INLINE_BYTES = 1024
_PAGE_BYTES = 4096
_CACHE_LINE_BYTES = 64
_MAPPED_FROM_BYTES = 1 << 20


@dataclass(frozen=True)
class SavedGraphs:
    """What was written.

    Attributes:
        paths: The graphs, in the order they came.
        weights: The file they share, or None where no initializer is large enough to leave its graph.
        weights_bytes: Size of that file.
        shared_bytes: What the file would hold in addition if equal tensors were written again.
    """

    paths: tuple[Path, ...]
    weights: Path | None
    weights_bytes: int
    shared_bytes: int


def save_rungs(
    models: Iterable[tuple[str, onnx.ModelProto]], *, folder: Path, weights_name: str = WEIGHTS_NAME
) -> SavedGraphs:
    """Returns the graphs as written to `folder`, with one file that holds all their weights.

    Initializers above 1 KiB leave their graph, equal ones (by content, under whatever names) are written once, and the
    same models give the same bytes. Nothing in the folder changes before the last model came.

    Args:
        models: File name, such as ``"model_1x128.onnx"``, and model. Each is emptied of its weights as it comes, so
            that a generator never has two models in memory.
        folder: Where the files go; made if it is not there.
        weights_name: Name of the weights file.

    Raises:
        InvalidModelError: A model has left its weights in another file, so that they are not here to be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, partial = folder / weights_name, folder / f".{weights_name}.partial"
    graphs: dict[Path, bytes] = {}
    try:
        with partial.open("wb") as file:
            pool = WeightPool(file, weights_name)
            for name, model in models:
                graphs[folder / name] = _emptied(model, name=name, pool=pool)
                del model  # or it would live on while the generator makes the next one
        if pool.size:
            partial.replace(weights)
    finally:
        partial.unlink(missing_ok=True)
    for path, graph in graphs.items():
        path.write_bytes(graph)
    return SavedGraphs(tuple(graphs), weights if pool.size else None, pool.size, pool.shared)


def walk_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Returns `graph` and every graph inside it: the branches of ``If`` and the bodies of loops."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            yield from walk_graphs(inner)


@dataclass
class WeightPool:
    """A file that holds each content once.

    Attributes:
        file: Where contents are written, at its end.
        location: The file's name, as graphs state it.
        size: Bytes that are in the file.
        shared: Bytes that were not written, because they were there.
        offsets: Where each content starts, by its SHA-256.
    """

    file: BinaryIO
    location: str
    size: int = 0
    shared: int = 0
    offsets: dict[bytes, int] = field(default_factory=dict)

    def put(self, content: bytes | memoryview) -> int:
        """Returns where `content` starts in the file, written to its end if it was not there.

        It is aligned: to a page where it is large, so that it can be mapped, else to a line of the CPU's cache.
        """
        digest = hashlib.sha256(content).digest()
        if digest in self.offsets:
            self.shared += len(content)
            return self.offsets[digest]
        alignment = _PAGE_BYTES if len(content) > _MAPPED_FROM_BYTES else _CACHE_LINE_BYTES
        offset = -(-self.size // alignment) * alignment
        self.file.write(bytes(offset - self.size))
        self.file.write(content)
        self.size = offset + len(content)
        self.offsets[digest] = offset
        return offset


def _emptied(model: onnx.ModelProto, *, name: str, pool: WeightPool) -> bytes:
    for tensor in (tensor for graph in walk_graphs(model.graph) for tensor in graph.initializer):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InvalidModelError(
                f"{name} holds initializer {tensor.name!r} in a file of its own. Load the model with "
                "graph.loading.load_model(path), so that its weights can be written again.",
                path=name,
            )
        content = _raw_bytes(tensor)
        if len(content) > INLINE_BYTES:
            tensor.CopyFrom(_external(tensor, location=pool.location, offset=pool.put(content), length=len(content)))
    return bytes(model.SerializeToString())


def _raw_bytes(tensor: onnx.TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    packed = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return bytes(packed.raw_data) if packed.data_type == tensor.data_type else b""


def _external(tensor: onnx.TensorProto, *, location: str, offset: int, length: int) -> onnx.TensorProto:
    external = onnx.TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        external.external_data.add(key=key, value=str(value))
    return external
