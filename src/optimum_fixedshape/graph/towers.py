"""A graph with two towers, cut into its parts: what becomes of items, what becomes of texts, and what compares them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from optimum_fixedshape.graph.editing import needed_of
from optimum_fixedshape.graph.index import Index, reads
from optimum_fixedshape.graph.weights import walk_graphs

_TAKE_ANY_SIZE: Final = {
    *(("", name) for name in ("Add", "Cast", "Div", "Exp", "Identity", "MatMul", "Mul", "Neg", "Sub", "Transpose")),
    ("com.microsoft", "FusedMatMul"),
}
"""Operators that give what they are given the size of, where all else they read is a single number."""


@dataclass(frozen=True)
class Towers:
    """The parts of a graph with two towers: models of their own, that name every tensor as the whole does.

    Attributes:
        items: From images or sounds to their embeddings.
        texts: From texts to their embeddings.
        head: From both embeddings to all other outputs.
    """

    items: ModelProto
    texts: ModelProto
    head: ModelProto


def split_towers(model: ModelProto, *, texts: Collection[str]) -> Towers | None:
    """Returns the parts of a graph, or None where it has no two towers that meet in their embeddings alone.

    Each tower ends in the one output that depends on nothing but its own inputs. Each part holds only the weights that
    it reads; those in files of their own stay there.

    Args:
        model: The graph.
        texts: The inputs that texts go into; all others are for items.
    """
    index = Index(model.graph)
    ends: dict[str, list[ValueInfoProto]] = {"texts": [], "items": [], "head": []}
    for output in model.graph.output:
        sources = index.sources(output.name)
        ends[_side(sources.values | sources.sizes, texts)].append(output)
    if len(ends["texts"]) != 1 or len(ends["items"]) != 1 or not ends["head"]:
        return None
    embeds = [*ends["items"], *ends["texts"]]
    cut = {value.name for value in embeds}
    above = [node for node in model.graph.node if cut.isdisjoint(node.output)]
    compared = needed_of(above, [value.name for value in ends["head"]])
    known = {name for node in compared for name in node.output} | index.constants.keys() | cut
    if any(name in index.inputs or (name in index.producers and name not in known) for name in _read(compared)):
        return None
    inputs = [value for value in model.graph.input if value.name in index.inputs]

    def tower(side: str) -> ModelProto:
        nodes = needed_of(model.graph.node, [end.name for end in ends[side]])
        return _part(
            model, nodes, [value for value in inputs if (value.name in texts) == (side == "texts")], ends[side]
        )

    return Towers(tower("items"), tower("texts"), _part(model, compared, embeds, ends["head"]))


def open_rows(head: ModelProto) -> bool:
    """Lets a head say that it takes any number of rows, and returns whether it does; else it stays as it is.

    Args:
        head: Two matrices go in, and comparisons of their rows come out.
    """
    graph = head.graph
    constants = Index(graph).constants
    computing = [node for node in graph.node if node.output[0] not in constants]
    if any((node.domain, node.op_type) not in _TAKE_ANY_SIZE for node in computing):
        return False
    if graph.sparse_initializer or any(size != 1 for tensor in constants.values() for size in tensor.dims):
        return False
    for number, value in enumerate(graph.input):
        value.type.tensor_type.shape.dim[0].dim_param = f"rows_{number}"
    for value in graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del graph.value_info[:]
    return True


def gather_weights(model: ModelProto, path: Path) -> Path:
    """Returns the folder below which all weights of a graph lie that has them in files, whatever leads there.

    Args:
        model: The graph, which then names its files as seen from that folder.
        path: The file that the graph came from.
    """
    entries = [
        entry
        for graph in walk_graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    files = {entry.value: (path.parent / entry.value).resolve() for entry in entries}
    folder = Path(os.path.commonpath([file.parent for file in files.values()])) if files else path.parent
    for entry in entries:
        entry.value = files[entry.value].relative_to(folder).as_posix()
    return folder


def _side(sources: Collection[str], texts: Collection[str]) -> str:
    if not sources:
        return "head"
    of_texts = [name in texts for name in sources]
    return "texts" if all(of_texts) else "head" if any(of_texts) else "items"


def _read(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes for name in reads(node)}


def _part(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto]
) -> ModelProto:
    read = _read(nodes)
    graph = GraphProto(
        name=model.graph.name,
        node=nodes,
        input=inputs,
        output=outputs,
        initializer=[tensor for tensor in model.graph.initializer if tensor.name in read],
        sparse_initializer=[tensor for tensor in model.graph.sparse_initializer if tensor.values.name in read],
    )
    return ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
