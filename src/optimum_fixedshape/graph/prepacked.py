"""Graphs that onnxruntime has saved with their weights packed for this CPU, moved to a weights file that many share.

onnxruntime notes the packed forms of a weight beside the weight itself, in entries that ONNX does not know:
``prepacked_0`` with a value of ``key|offset;length;checksum``, and more triples behind it where a kernel keeps several
buffers. Offsets are those of the same file.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.weights import WeightPool, walk_graphs

_PACKED = "prepacked_"


def move_weights(model: ModelProto, content: memoryview, *, location: str, pool: WeightPool) -> None:
    """Moves all weights of a graph, plain and packed, from the file that it was saved with to a pool.

    Args:
        model: The saved graph; edited in place, so that it reads the pool.
        content: What the file beside it holds.
        location: The file's name, as the graph states it.
        pool: Where equal contents of other graphs are, or will be.

    Raises:
        InvalidModelError: Weights are in some other file, or are noted in another way than the one known here.
    """
    for tensor in _external(model.graph):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") != location:
            raise InvalidModelError(f"The saved graph keeps {tensor.name!r} in {entries.get('location')!r}.")
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = pool.location
            elif entry.key == "offset":
                entry.value = str(pool.put(_part(content, entry.value, entries["length"])))
            elif entry.key.startswith(_PACKED):
                entry.value = _moved(entry.value, content, pool)
            elif entry.key != "length":
                raise InvalidModelError(f"The saved graph notes {entry.key!r} of {tensor.name!r}, which nobody knows.")


def _external(graph: GraphProto) -> Iterator[TensorProto]:
    for inner in walk_graphs(graph):
        yield from (tensor for tensor in inner.initializer if tensor.data_location == TensorProto.EXTERNAL)


def _moved(packed: str, content: memoryview, pool: WeightPool) -> str:
    key, *buffers = packed.split("|")
    return "|".join([key, *(_moved_buffer(buffer, content, pool) for buffer in buffers)])


def _moved_buffer(buffer: str, content: memoryview, pool: WeightPool) -> str:
    if buffer.count(";") != 2:
        raise InvalidModelError(f"The saved graph notes a packed weight as {buffer!r}, which is no place in a file.")
    offset, length, checksum = buffer.split(";")
    return f"{pool.put(_part(content, offset, length))};{length};{checksum}"


def _part(content: memoryview, offset: str, length: str) -> memoryview:
    start, size = int(offset), int(length)
    if start + size > len(content):
        raise InvalidModelError(f"The saved graph has {size} bytes at {start}, of a file of {len(content)}.")
    return content[start : start + size]
