"""Attention of graphs with fixed shapes, as ``torch.onnx`` exports it, made one operator of onnxruntime's.

What is looked for is told by what it computes, not by how it is spelled: sizes are constants here, so that the way of a
tensor through reshapes and transposes can be followed with numbers, and a mask can be tried.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimum_fixedshape.fitting import Array

from .editing import needed_of
from .index import reads
from .masks import TokenMask, token_mask_of
from .views import Shape, Views

_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Scores:
    """What a softmax is taken of: products of queries and keys, times a factor, plus biases."""

    product: NodeProto
    factor: float = 1.0
    biases: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Attention:
    """One attention: the tensors before and behind it, each ``(batch, length, features)``."""

    query: str
    key: str
    value: str
    output: str
    heads: int
    factor: float
    biases: tuple[str, ...]


def fuse_attention(model: ModelProto, *, packs_projections: bool = True) -> ModelProto:
    """Returns the model with each attention in one operator, ``Attention`` or ``MultiHeadAttention``.

    ``Attention``, which has the three projections inside, is made where they have one input and constant weights, and
    what is hidden is hidden by a mask of tokens. All other attention becomes ``MultiHeadAttention`` and keeps its
    biases. Graphs with open shapes come back without a change; `model` is left as it is.

    Args:
        model: Any model with its weights inside.
        packs_projections: Make ``Attention`` at all.
    """
    fused = ModelProto()
    fused.CopyFrom(model)
    reader = _Reader(model)
    found = [each for node in model.graph.node if node.op_type == "Softmax" and (each := reader.read(node))]
    if not found:
        return fused
    writer = _Writer(reader, packs_projections)
    made = {each.output: list(writer.write(each)) for each in found}
    nodes = [new for node in model.graph.node for new in made.get("".join(node.output[:1]), [node])]
    _replace(fused.graph, nodes, writer.weights)
    if all(opset.domain != _DOMAIN for opset in fused.opset_import):
        fused.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return fused


class _Reader:
    """Reads attention from a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.views = Views(model.graph)

    def read(self, softmax: NodeProto) -> _Attention | None:
        """Returns the attention around a softmax, or None where it is none, or has another form."""
        views, name = self.views, softmax.output[0]
        axis = next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1)
        behind = views.index.consumers[name]
        scores = self._scores(softmax.input[0])
        if scores is None or axis not in (-1, 3) or [node.op_type for node in behind] != ["MatMul"]:
            return None
        (query, key), (shares, value) = scores.product.input, behind[0].input
        shapes = [views.shape(each) for each in (query, key, value)]
        if shares != name or not _fit(shapes) or views.dtypes.get(query) != TensorProto.FLOAT:
            return None
        parts = [views.heads_of(query), views.heads_of(key, are_keys=True), views.heads_of(value)]
        output = views.joined(behind[0].output[0])
        whole = [part for part in parts if part]
        if len(whole) < len(parts) or output is None or whole[2].factor != 1:
            return None
        factor = scores.factor * whole[0].factor * whole[1].factor
        biases = tuple(bias for bias in scores.biases if not self._is_zero(bias))
        query, key, value = (part.source for part in whole)
        return _Attention(query, key, value, output, shapes[0][1], factor, biases)

    def _scores(self, name: str) -> _Scores | None:
        """The scores that a tensor is, or None; factors stand before biases."""
        node = self.views.index.producers.get(name)
        if node is None:
            return None
        if node.op_type == "MatMul":
            return _Scores(node)
        if scaled := self.views.factor(node):
            found = self._scores(scaled[0])
            return replace(found, factor=found.factor * scaled[1]) if found and not found.biases else None
        if node.op_type == "Add" and len(self.views.shape(name)) == 4:
            for place, bias in enumerate(reversed(node.input)):
                if found := self._scores(node.input[place]):
                    return replace(found, biases=(*found.biases, bias))
        return None

    def _is_zero(self, name: str) -> bool:
        constant = self.views.constant(name)
        return constant is not None and not constant.any()

    @functools.cached_property
    def _masks(self) -> dict[str, TokenMask | None]:
        return {}

    def mask_of(self, found: _Attention) -> TokenMask | None:
        """Returns the mask of tokens that hides all that an attention hides, or None where there is another bias."""
        if len(found.biases) != 1:
            return None
        (bias,) = found.biases
        if bias not in self._masks:
            self._masks[bias] = token_mask_of(bias, self.model, self.views)
        return self._masks[bias]


class _Writer:
    """Writes operators for attention; what several of them read is written once."""

    def __init__(self, reader: _Reader, packs_projections: bool) -> None:
        self.reader, self.views, self.packs_projections = reader, reader.views, packs_projections
        self.weights: list[TensorProto] = []
        self._made: set[str] = set()

    def write(self, found: _Attention) -> Iterator[NodeProto]:
        """Yields the nodes that take the place of an attention."""
        mask = self.reader.mask_of(found)
        packed = self._packed(found) if self.packs_projections and (mask or not found.biases) else []
        settings: dict[str, Any] = {"num_heads": found.heads, "scale": found.factor, "domain": _DOMAIN}
        keys, bias, title = "", "", f"{found.output}.attention"
        if mask:
            settings["mask_filter_value"] = mask.low
            keys = f"{mask.name}.int32"
            yield from self._once(helper.make_node("Cast", [mask.name], [keys], to=TensorProto.INT32))
        elif found.biases:
            bias = yield from self._bias(found)
        if packed:
            inputs = _trimmed([*packed, keys])
            yield helper.make_node("Attention", inputs, [found.output], name=title, **settings)
        else:
            inputs = _trimmed([found.query, found.key, found.value, "", keys, bias])
            yield helper.make_node("MultiHeadAttention", inputs, [found.output], name=title, **settings)

    def _once(self, node: NodeProto) -> Iterator[NodeProto]:
        if node.output[0] not in self._made:
            self._made.add(node.output[0])
            yield node

    def _bias(self, found: _Attention) -> Generator[NodeProto, None, str]:
        """The sum of all biases, with as many places as there are scores."""
        name, *others = found.biases
        for other in others:
            total = f"{name}+{other}"
            yield from self._once(helper.make_node("Add", [name, other], [total]))
            name = total
        places = (1, 1, self.views.shape(found.query)[1], self.views.shape(found.key)[1])
        shape = np.broadcast_shapes(*(self.views.shape(bias) for bias in found.biases))
        if (full := np.broadcast_shapes(shape, places)) == shape:
            return name
        expanded = f"{name}.expanded"
        if expanded not in self._made:
            self.weights.append(numpy_helper.from_array(np.array(full), f"{expanded}.shape"))
        yield from self._once(helper.make_node("Expand", [name, f"{expanded}.shape"], [expanded]))
        return expanded

    def _packed(self, found: _Attention) -> list[str]:
        """Input, weights and biases of the three projections in one, or nothing where they are no such three."""
        parts = [self._projection(name) for name in (found.query, found.key, found.value)]
        known = [part for part in parts if part]
        if len(known) < len(parts) or len({part.source for part in known}) > 1:
            return []
        if len(self.views.shape(known[0].source)) != 3:
            return []
        names = [f"{found.output}.{part}" for part in ("weights", "biases")]
        arrays = [np.concatenate([getattr(part, each) for part in known], axis=-1) for each in ("weights", "biases")]
        self.weights += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
        return [known[0].source, *names]

    def _projection(self, name: str) -> _Projection | None:
        """The product with constant weights, and the constant bias if there is one, that a tensor is."""
        producers, biases = self.views.index.producers, None
        node = producers.get(name, NodeProto())
        if node.op_type == "Add":
            constants = [(place, self.views.constant(each)) for place, each in enumerate(node.input)]
            place, biases = next(((place, each) for place, each in constants if each is not None), (0, None))
            node = producers.get(node.input[1 - place], NodeProto())
            if biases is None:
                return None
        weights = self.views.constant(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None or weights.ndim != 2:
            return None
        if biases is None:
            biases = np.zeros(weights.shape[1], weights.dtype)
        return _Projection(node.input[0], weights, biases) if biases.shape == weights.shape[1:] else None


@dataclass(frozen=True)
class _Projection:
    source: str
    weights: Array
    biases: Array


def _fit(shapes: list[Shape]) -> bool:
    """Whether these are the shapes of queries, of keys with their last axes swapped, and of values."""
    if any(len(shape) != 4 for shape in shapes):
        return False
    batch, heads, _, features = shapes[0]
    length = shapes[1][3]
    return shapes[1:] == [(batch, heads, features, length), (batch, heads, length, features)]


def _trimmed(names: list[str]) -> list[str]:
    while not names[-1]:
        names.pop()
    return names


def _replace(graph: GraphProto, nodes: list[NodeProto], weights: list[TensorProto]) -> None:
    """Puts nodes into a graph in place of its own, and takes out what nothing reads any more."""
    outputs = [output.name for output in graph.output]
    kept = needed_of(nodes, outputs)
    read = {name for node in kept for name in reads(node)}.union(outputs)
    tensors = [tensor for tensor in (*graph.initializer, *weights) if tensor.name in read]
    made = GraphProto(node=kept, initializer=tensors)
    for part in ("node", "initializer", "value_info"):
        graph.ClearField(part)
    graph.MergeFrom(made)
