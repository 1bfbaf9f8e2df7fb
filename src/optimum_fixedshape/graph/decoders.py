"""Stock decoder graphs made fit for a cache of fixed length: mask and positions become inputs.

In such a cache tokens are right-aligned: n of them lie in the last n of T slots, and new ones follow at slot T.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final, NamedTuple, NoReturn, TypeAlias

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.index import Index, words

OWN_MASK, MASK_INPUT = "attention_mask", "decoder_attention_mask"
OFFSET_INPUT = "position_offset"

_PREFIX: Final = "fixed_cache/"
_TOKENS: Final = {"input_ids", "decoder_input_ids"}
_NO_SELF_KEY: Final = {"value", "encoder", "cross"}
_MOST_TOKEN_TYPES: Final = 16  # a table of fewer rows holds kinds of tokens, which BERT looks up from sizes too
# What may lie between a key and its product with the queries, and between that product and its softmax.
_ON_THE_WAY: Final = {"Add", "Cast", "Clip", "Div", "Expand", "Identity", "Max", "Min", "Mul", "Reshape", "Slice"} | {
    *("Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where")
}
_Dim: TypeAlias = TensorShapeProto.Dimension


def open_cache(model: ModelProto) -> ModelProto:
    """Returns the model with the inputs that a cache of fixed length needs.

    ``decoder_attention_mask``, int64 (batch, past + new), is 1 for the slots that hold tokens and 0 for those that no
    self-attention may look at; a decoder that takes an ``attention_mask`` of its own gets no other.

    ``position_offset``, int64 (batch, 1), is what a token's position is more than its slot: (true position of the
    first new token) - T. It is there only if the graph counts slots to look positions up in a table. Relative biases,
    as in T5, are left alone, because right-aligned slots keep their distances.

    Args:
        model: A decoder that is not merged, with or without a past. It is left as it is.

    Raises:
        InvalidModelError: The self-attention was not found, or the positions cannot be moved.
    """
    index = Index(model.graph)
    if taken := index.inputs & {MASK_INPUT, OFFSET_INPUT}:
        _refuse(f"it already has an input {min(taken)!r}")
    keys = [output for output in model.graph.output if words(output.name) & {"key", *_NO_SELF_KEY} == {"key"}]
    tokens = [value for value in model.graph.input if value.name in _TOKENS]
    if not keys or not tokens:
        _refuse("no self-attention was found, for lack of an input input_ids, or of outputs such as present.0.key")
    is_masked = OWN_MASK in index.inputs
    scores = {} if is_masked else {found.tensor: found for found in (_scores(index, key) for key in keys)}
    lookups = {node.output[0] for node in _counted_lookups(index, keys[0].name)}
    opened = ModelProto()
    opened.CopyFrom(model)
    edits = _Edits(opened.graph)
    batch, new = tokens[0].type.tensor_type.shape.dim
    if not is_masked:
        edits.add_input(MASK_INPUT, batch, _key_axis(keys[0], new) if index.past else new)
    if lookups:
        edits.add_input(OFFSET_INPUT, batch, _Dim(dim_value=1))
    for node in opened.graph.node:
        if node.op_type == "Softmax" and node.input[0] in scores:
            edits.mask(node, scores[node.input[0]])
        elif lookups & set(node.output):
            edits.move(node)
    edits.apply()
    return opened


def _refuse(reason: str) -> NoReturn:
    raise InvalidModelError(
        f"The decoder cannot run on a cache of fixed length: {reason}. Expected a decoder as optimum-onnx exports it, "
        "neither merged nor fused, whose positions come from a table, from an input or from a relative bias."
    )


class _Scores(NamedTuple):
    """A tensor on the way from a key to a softmax, and at last what that softmax reads."""

    tensor: str
    dtype: int
    rank: int
    heads: int


def _scores(index: Index, key: ValueInfoProto) -> _Scores:
    """Returns what the softmax of the self-attention reads that looks at `key`."""
    kind = key.type.tensor_type
    heads = kind.shape.dim[1].dim_value if len(kind.shape.dim) == 4 else 0
    # Exporters merge the transpositions of one tensor, so that the output and the attention may both be made from it.
    start = _Scores(index.root(key.name, {"Identity", "Transpose"}), kind.elem_type, 4, heads)
    product = _ahead(index, start, "MatMul")
    softmax = product and _ahead(index, product[1]._replace(tensor=product[0].output[0]), "Softmax")
    if not softmax:
        _refuse(f"no self-attention was found, because no product with {key.name} leads to a softmax")
    scores = softmax[1]
    if scores.rank != 4 and not (scores.rank == 3 and heads):
        got = f"{scores.rank or 'an unknown number of'} axes and {heads or 'an unknown number of'} heads"
        _refuse(f"the scores of {key.name} have {got}, expected 4 axes, or 3 axes and known heads")
    return scores


def _ahead(index: Index, start: _Scores, op_type: str) -> tuple[NodeProto, _Scores] | None:
    """Returns the nearest node of a type that `start` leads to, and what it reads."""
    seen, todo = {start.tensor}, deque([start])
    while todo:
        step = todo.popleft()
        for node in index.consumers[step.tensor]:
            if node.op_type == op_type:
                return node, step
            if node.op_type in _ON_THE_WAY and node.output[0] not in seen:
                seen.add(node.output[0])
                dtype = node.attribute[0].i if node.op_type == "Cast" else step.dtype
                rank = index.length(node.input[1]) if node.op_type == "Reshape" else step.rank
                todo.append(_Scores(node.output[0], dtype, rank, step.heads))
    return None


def _key_axis(key: ValueInfoProto, new: _Dim) -> _Dim:
    """Returns the axis of past and new slots, under the graph's own name for it where it has one."""
    dims = key.type.tensor_type.shape.dim
    if len(dims) == 4 and dims[2].WhichOneof("value"):
        return dims[2]
    return _Dim(dim_param=f"past_decoder_sequence_length + {new.dim_param or new.dim_value}")


def _counted_lookups(index: Index, first_key: str) -> list[NodeProto]:
    """Returns the nodes that look positions up by counting slots, and refuses positions that cannot be moved."""
    tables = {
        node.output[0]: (node, node.input[1:], index.table(node.input[0])[1])
        for node in index.graph.node
        if node.op_type in ("Gather", "Slice") and index.table(node.input[0])[0] > _MOST_TOKEN_TYPES
    }
    behind_key = index.sources(first_key).passed
    asked = {name: index.sources(*rows) for name, (_, rows, _) in tables.items()}
    widths = {tables[name][2] for name, sources in asked.items() if sources.values & _TOKENS}
    counted = []
    for name, (node, _, width) in tables.items():
        values, sizes, _ = asked[name]
        if values and values <= _TOKENS and sizes & index.past:
            _refuse(f"{node.name} takes positions from the token ids and the length of the cache at once")
        if sizes and not values and width in widths:
            counted.append(node)
        elif sizes and not values and node.op_type == "Gather" and name in behind_key:
            _refuse(f"{node.name} turns keys by positions that the graph counts, and takes from no input")
    for node in index.graph.node:
        if node.op_type in ("Cos", "Sin") and index.counts(*node.input):
            _refuse(f"{node.name} turns keys by positions that the graph counts, and takes from no input")
    return counted


class _Edits:
    """Nodes to be added to a graph, each before the node that reads what it makes, or else at the start."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.start: list[NodeProto] = []
        self.before: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.biases: dict[_Scores, str] = {}
        self.made = 0

    def add_input(self, name: str, *shape: _Dim) -> None:
        """Adds an int64 input."""
        value = self.graph.input.add(name=name)
        value.type.tensor_type.elem_type = TensorProto.INT64
        value.type.tensor_type.shape.dim.extend(shape)

    def mask(self, softmax: NodeProto, scores: _Scores) -> None:
        """Hides the masked slots from a softmax."""
        kind = scores._replace(tensor="")
        if kind not in self.biases:
            self.biases[kind] = self._bias(kind)
        softmax.input[0] = self._add(self.before[softmax.output[0]], "Add", softmax.input[0], self.biases[kind])

    def move(self, lookup: NodeProto) -> None:
        """Adds the offset to the positions that a ``Gather``, or a ``Slice`` of rows, looks up."""
        before = self.before[lookup.output[0]]
        rows = lookup.input[1]
        if lookup.op_type == "Slice":  # so does Whisper of older versions of transformers
            ends = [self._add(before, "Squeeze", end) for end in lookup.input[1:3]]
            rows = self._add(before, "Range", *ends, self._sizes(1))
        moved = self._add(before, "Add", self._add(before, "Cast", rows, to=TensorProto.INT64), OFFSET_INPUT)
        # Only masked slots come before position 0. They may get any row, but none outside the table. Max would be
        # simpler, but takes no integers before opset 12.
        outside = self._add(before, "Less", moved, self._sizes(0))
        position = self._add(before, "Where", outside, self._sizes(0), moved)
        lookup.CopyFrom(helper.make_node("Gather", [lookup.input[0], position], lookup.output, name=lookup.name))

    def apply(self) -> None:
        """Puts the new nodes into the graph."""
        ordered = list(self.start)
        for node in self.graph.node:
            ordered += [*self.before.get(node.output[0], ()), node]
        copied = GraphProto(node=ordered)
        self.graph.ClearField("node")
        self.graph.node.MergeFrom(copied.node)

    def _bias(self, kind: _Scores) -> str:
        """Returns what is added to scores: (batch, 1, 1, keys), or (batch * heads, 1, keys) as in older BART."""
        # Half of the lowest value: a score below 0 plus all of it is -inf in float16, and a row of nothing but -inf is
        # NaN. Where a causal mask adds its own lowest value it is -inf after all, but no token is hidden from itself.
        half = np.finfo(np.float16 if kind.dtype == TensorProto.FLOAT16 else np.float32).min / 2
        masked = self._add(self.start, "Sub", self._sizes(1), MASK_INPUT)
        masked = self._add(self.start, "Cast", masked, to=kind.dtype)
        lowest = self._tensor(helper.make_tensor("", kind.dtype, [], [float(half)]))
        bias = self._add(self.start, "Mul", masked, lowest)
        bias = self._add(self.start, "Reshape", bias, self._sizes(0, 1, 1, -1))
        if kind.rank == 4:
            return bias
        bias = self._add(self.start, "Expand", bias, self._sizes(1, kind.heads, 1, 1))
        bias = self._add(self.start, "Flatten", bias, axis=2)
        return self._add(self.start, "Reshape", bias, self._sizes(0, 1, -1))

    def _add(self, nodes: list[NodeProto], op_type: str, *inputs: str, **attributes: int) -> str:
        self.made += 1
        name = f"{_PREFIX}{op_type}_{self.made}"
        nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def _sizes(self, *sizes: int) -> str:
        return self._tensor(numpy_helper.from_array(np.array(sizes if len(sizes) > 1 else sizes[0], dtype=np.int64)))

    def _tensor(self, tensor: TensorProto) -> str:
        self.made += 1
        tensor.name = f"{_PREFIX}constant_{self.made}"
        self.graph.initializer.append(tensor)
        return str(tensor.name)
