"""A graph by the names of its tensors: what makes them, what reads them, what they come from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto

from optimum_fixedshape.graph.weights import walk_graphs

_SAME_TENSOR: Final = {"Identity", "Cast", "DequantizeLinear"}


def words(name: str) -> set[str]:
    """Returns the words that a name is made of."""
    return set(re.split(r"[^a-zA-Z0-9]+", name))


def reads(node: NodeProto) -> Iterator[str]:
    """Returns the names that a node reads, and those that the graphs inside it read."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in walk_graphs(attribute.g) if attribute.type == AttributeProto.GRAPH else ():
            yield from (output.name for output in graph.output)
            yield from (name for inside in graph.node for name in inside.input if name)


class Sources(NamedTuple):
    """Which inputs a tensor depends on by their values, which by their sizes, and what else its values come from."""

    values: set[str]
    sizes: set[str]
    passed: set[str]


class Index:
    """A graph by the names of its tensors."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            for name in set(reads(node)):
                self.consumers[name].append(node)
            if node.op_type == "Constant" and node.attribute[0].type == AttributeProto.TENSOR:
                self.constants[node.output[0]] = node.attribute[0].t
        self.inputs = {value.name for value in graph.input} - self.constants.keys()
        self.past = {name for name in self.inputs if "past" in words(name)}

    def root(self, name: str, through: set[str]) -> str:
        """Returns the tensor that `name` is, seen through nodes of these types."""
        while name in self.producers and self.producers[name].op_type in through:
            name = self.producers[name].input[0]
        return name

    def computes(self, name: str) -> bool:
        """Returns whether `name` is worked out, so that it is neither an input nor a constant."""
        producer = self.producers.get(self.root(name, _SAME_TENSOR))
        return producer is not None and producer.op_type not in ("Constant", "ConstantOfShape")

    def sources(self, *names: str) -> Sources:
        """Returns what the tensors depend on."""
        found = Sources(set(), set(), set())
        seen, todo = set(), [(name, False) for name in names]
        while todo:
            name, by_size = step = todo.pop()
            if step in seen:
                continue
            seen.add(step)
            if not by_size:
                found.passed.add(name)
            if name in self.inputs:
                (found.sizes if by_size else found.values).add(name)
            elif name in self.producers:
                node = self.producers[name]
                todo += [(read, by_size or node.op_type in ("Shape", "Size")) for read in reads(node)]
        return found

    def counts(self, *names: str) -> bool:
        """Returns whether the tensors are made from sizes of inputs, and from no input's values."""
        sources = self.sources(*names)
        return bool(sources.sizes) and not sources.values

    def table(self, name: str) -> tuple[int, int]:
        """Returns rows and width of the constant matrix that `name` is, or zeros."""
        constant = self.constants.get(self.root(name, _SAME_TENSOR))
        return (constant.dims[0], constant.dims[1]) if constant is not None and len(constant.dims) == 2 else (0, 0)

    def length(self, name: str) -> int:
        """Returns how many elements a vector of sizes has, or 0 where that is not plain to see."""
        if name in self.constants:
            return int(np.prod(self.constants[name].dims))
        producer = self.producers.get(name, NodeProto())
        parts = [self.length(part) for part in producer.input] if producer.op_type == "Concat" else [0]
        return 1 if producer.op_type == "Unsqueeze" else sum(parts) * all(parts)
