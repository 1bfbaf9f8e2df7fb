"""Other names for the inputs and outputs of a graph, written into the graph itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from itertools import count

import onnx


def rename_tensors(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Gives tensors of a graph other names, in place, wherever they are used: in nodes and in their subgraphs, too.

    An inner tensor that already has one of the new names gets one of its own.

    Args:
        model: A model, with its external data or without.
        names: The graph's name to the new one. Names that the graph has not are ignored.
    """
    used = {name for graph in _graphs(model.graph) for name in _names_in(graph)}
    wanted = {old: new for old, new in names.items() if old in used and old != new}
    for taken in sorted(set(wanted.values()) & used - wanted.keys()):
        wanted[taken] = next(name for i in count(1) if (name := f"{taken}_{i}") not in used | set(wanted.values()))
    if not wanted:
        return
    for graph in _graphs(model.graph):
        _rename(graph, wanted)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner)


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    for lists in _lists(graph):
        yield from lists
    for tensor in _named(graph):
        yield tensor.name


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for lists in _lists(graph):
        lists[:] = [names.get(name, name) for name in lists]
    for tensor in _named(graph):
        tensor.name = names.get(tensor.name, tensor.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)


def _lists(graph: onnx.GraphProto) -> Iterator[MutableSequence[str]]:
    for node in graph.node:
        yield node.input
        yield node.output


def _named(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto | onnx.TensorProto]:
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    return (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse)
