"""The proof that every value of a graph has a fixed shape: a walk from its inputs, node by node.

On the way arithmetic on sizes is folded, and branches that a folded condition chooses are put in place of their ``If``.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from optimum_fixedshape.errors import FixedShapeError, InvalidModelError
from optimum_fixedshape.graph.editing import branch_of, needed_of, without_output
from optimum_fixedshape.graph.folding import Array, Opsets, evaluate, infer_by_session, is_foldable, is_small
from optimum_fixedshape.graph.index import reads

MOST_ELEMENTS = 2**34

_DATA_DEPENDENT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("NonZero", "Compress"), "how many places it gives depends on the data"),
    "NonMaxSuppression": "how many boxes it keeps depends on the data",
    "Unique": "how many values it gives depends on the data",
    **dict.fromkeys(("Loop", "Scan"), "how often its body runs, and what it gathers, depends on the data"),
    **dict.fromkeys(("StringSplit", "TfIdfVectorizer"), "its size depends on the data"),
    **dict.fromkeys(("If",), "its branches give different shapes, and the data chooses between them"),
}
_NO_TENSOR = "it gives a sequence, a map or an optional value, which has no fixed shape"
_UNKNOWN = "its shape is computed from the data, or is known neither to onnx nor to onnxruntime"
# The bodies of these are not looked into: they would have to be proven for every time they run.
_REPEATED: Final = frozenset({"Loop", "Scan", "SequenceMap"})


class ContradictionError(Exception):
    """A node cannot run at these sizes.

    Attributes:
        node: The node.
        reason: Why, in words.
    """

    def __init__(self, node: NodeProto, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


@dataclass
class Scope:
    """What is known of the values of a graph.

    Attributes:
        types: The type of each value, with its shape.
        values: The values that are constant and small.
        baked: Names of constants that follow no size: whatever the graph is pinned to, they stay as they are.
        used: Names that some node reads, or the graph gives.
    """

    types: MutableMapping[str, TypeProto] = field(default_factory=dict)
    values: MutableMapping[str, Array] = field(default_factory=dict)
    baked: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def inner(self) -> Scope:
        """Returns the scope of a graph inside a node, which sees all that is outside."""
        return Scope(ChainMap({}, self.types), ChainMap({}, self.values), self.baked)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a value."""
        return tuple(dim.dim_value for dim in self.types[name].tensor_type.shape.dim)


@dataclass
class Walked:
    """What a walk has left of a graph.

    Attributes:
        nodes: The nodes that could not be folded, in order.
        weights: Those of branches that were put in place of their ``If``.
    """

    nodes: list[NodeProto]
    weights: list[TensorProto]


class Prover:
    """Walks graphs of one model.

    Args:
        opsets: Opset version of each domain.
        ir_version: Of the model.
    """

    def __init__(self, opsets: Mapping[str, int], ir_version: int) -> None:
        # Node by node, graphs are of a version that onnxruntime's own checks take, whatever the model says.
        self._ir_version = max(ir_version, 4)
        self._opsets: Opsets = tuple(opsets.items())
        self._versions = opsets

    def walk(self, graph: GraphProto, scope: Scope) -> Walked:
        """Returns what is left of a graph once its arithmetic on sizes is folded, and puts all shapes into `scope`.

        Args:
            graph: A graph whose inputs are in `scope`.
            scope: Gets all that is found out.

        Raises:
            ContradictionError: A node cannot run at these sizes.
            InvalidModelError: The shape of a value cannot be fixed, or the graph is malformed.
        """
        self._learn_constants(graph, scope)
        outputs = {output.name for output in graph.output}
        todo = needed_of(graph.node, outputs)[::-1]
        scope.used.update(outputs, *map(reads, todo))
        walked = Walked([], [])
        while todo:
            node = todo.pop()
            if node.op_type == "If" and node.input and node.input[0] in scope.values:
                taken = {*scope.types, *(name for later in todo for name in later.output)}
                branch = branch_of(node, bool(scope.values[node.input[0]].reshape(-1)[0]), taken)
                walked.weights += branch.initializer
                self._learn_constants(branch, scope)
                scope.used.update(*map(reads, branch.node))
                todo += reversed(branch.node)
            else:
                try:
                    typed = self._typed(node, scope)
                    is_folded = self._fold(typed, scope)
                except (FixedShapeError, ContradictionError):
                    raise
                except (
                    AttributeError,
                    LookupError,
                    TypeError,
                    ValueError,
                ) as error:  # something is missing
                    raise InvalidModelError(f"{label(node)} is malformed: {_one_line(error)}") from error
                if not is_folded or not outputs.isdisjoint(typed.output):
                    walked.nodes.append(typed)
        return walked

    def _learn_constants(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            scope.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            scope.baked.add(tensor.name)
            if is_small(tensor) and tensor.data_location != TensorProto.EXTERNAL:
                scope.values[tensor.name] = _read(tensor)
        for sparse in graph.sparse_initializer:
            scope.types[sparse.values.name] = helper.make_tensor_type_proto(sparse.values.data_type, sparse.dims)

    def _typed(self, node: NodeProto, scope: Scope) -> NodeProto:
        """Puts the types of a node's outputs into `scope`, and returns the node, its branches proven."""
        if missing := [name for name in node.input if name and name not in scope.types]:
            raise InvalidModelError(f"{label(node)} reads {missing[0]!r}, which nothing before it makes.")
        if node.op_type in _REPEATED:
            raise _refusal(node, _DATA_DEPENDENT.get(node.op_type, _NO_TENSOR))
        branches = [attribute for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
        if branches:
            node, found = self._typed_branches(node, scope)
        else:
            _check_reach(node, scope)
            found = self._inferred(node, scope)
        for name in filter(None, node.output):
            if name not in found and (values := self._values_of(node, scope)):
                found[name] = helper.make_tensor_type_proto(
                    helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
                )
            if name not in found and name not in scope.used:
                node = without_output(node, name)  # such as the mask of an old Dropout, whose shape nobody states
                continue
            if name not in found:
                raise _refusal(node, _DATA_DEPENDENT.get(node.op_type, _UNKNOWN))
            if not found[name].HasField("tensor_type"):
                raise _refusal(node, _NO_TENSOR)
            sizes = [dim.dim_value for dim in found[name].tensor_type.shape.dim]
            if (elements := math.prod(sizes)) > MOST_ELEMENTS:
                raise _refusal(node, f"it would give {elements} numbers, {sizes}, more than {MOST_ELEMENTS}")
            scope.types[name] = found[name]
        return node

    def _typed_branches(self, node: NodeProto, scope: Scope) -> tuple[NodeProto, dict[str, TypeProto]]:
        proven = NodeProto()
        proven.CopyFrom(node)
        given = []
        for attribute in proven.attribute:
            inner = scope.inner()
            rebuilt = GraphProto()
            rebuild(attribute.g, self.walk(attribute.g, inner), inner, into=rebuilt)
            attribute.g.CopyFrom(rebuilt)
            given.append([inner.types[output.name] for output in attribute.g.output])
        if len({tuple(each.SerializeToString() for each in types) for types in given}) != 1:
            raise _refusal(node, _DATA_DEPENDENT["If"])
        return proven, dict(zip(node.output, given[0], strict=True))

    def _inferred(self, node: NodeProto, scope: Scope) -> dict[str, TypeProto]:
        """The outputs whose shapes are known, by onnx's own rules or, for other operators, by onnxruntime's."""
        types = {name: scope.types[name] for name in node.input if name}
        values = {name: scope.values[name] for name in node.input if name in scope.values}
        reason = ""
        if schema := self._schema(node):
            try:
                found = shape_inference.infer_node_outputs(
                    schema,
                    node,
                    types,
                    {name: numpy_helper.from_array(array) for name, array in values.items()},
                    opset_imports=[helper.make_opsetid(*opset) for opset in self._opsets],
                )
                known = {name: type_ for name, type_ in found.items() if _is_static(type_)}
                if {*filter(None, node.output)} <= known.keys():
                    return known
            except Exception as error:  # of several kinds; onnxruntime may know better
                reason = _one_line(error)
        known, refusal = infer_by_session(node, types, values, opsets=self._opsets, ir_version=self._ir_version)
        if reason and not known:
            raise ContradictionError(node, reason)
        if refusal and "ShapeInferenceError" in refusal:
            raise ContradictionError(node, refusal)
        return known

    def _schema(self, node: NodeProto) -> Any:
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            return defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
        except defs.SchemaError:
            return None

    def _values_of(self, node: NodeProto, scope: Scope) -> dict[str, Array]:
        given = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size") and not node.domain:
            sizes = np.array(scope.shape(node.input[0]), np.int64)
            ends = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = sizes[ends.get("start", 0) : ends.get("end", len(sizes))]
            return {node.output[0]: sizes if node.op_type == "Shape" else np.array(math.prod(sizes.tolist()), np.int64)}
        dtypes = [scope.types[name].tensor_type.elem_type for name in given]
        if not all(name in scope.values for name in given) or not is_foldable(node, dtypes):
            return {}
        arrays = evaluate(node, scope.values, opsets=self._opsets, ir_version=self._ir_version)
        return dict(zip(filter(None, node.output), arrays, strict=True)) if arrays else {}

    def _fold(self, node: NodeProto, scope: Scope) -> bool:
        """Computes a node ahead if all it reads is known, and returns whether the graph can do without it."""
        if not all(is_small(scope.types[name].tensor_type) for name in node.output if name):
            return False
        values = self._values_of(node, scope)
        scope.values.update(values)
        if node.op_type not in ("Shape", "Size") and all(name in scope.baked for name in node.input if name):
            scope.baked.update(values)
        return bool(values) and node.op_type != "Constant"


def label(node: NodeProto) -> str:
    """Returns what a node is called in messages: its operator and name."""
    return f"{node.op_type} node {node.name or next(filter(None, node.output), '')!r}"


def _refusal(node: NodeProto, reason: str) -> InvalidModelError:
    return InvalidModelError(
        f"The shapes of the graph cannot be fixed: {label(node)} has no fixed shape, because {reason}. Cut the graph "
        "before that node and do the rest outside of it, or export the model without it.",
        node=node.name or next(filter(None, node.output), ""),
        op_type=node.op_type,
    )


def _read(tensor: TensorProto) -> Array:
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise InvalidModelError(f"The constant {tensor.name!r} is damaged: {_one_line(error)}") from error
    return array


def _is_static(type_: TypeProto) -> bool:
    if not type_.HasField("tensor_type"):
        return type_.WhichOneof("value") is not None
    tensor = type_.tensor_type
    return tensor.HasField("shape") and all(dim.WhichOneof("value") == "dim_value" for dim in tensor.shape.dim)


def _check_reach(node: NodeProto, scope: Scope) -> None:
    """Raises what neither library says before it runs: counts that differ, and rows that a table does not have."""
    if node.op_type == "Reshape" and len(node.input) == 2 and node.input[1] in scope.values:
        given, wanted = scope.shape(node.input[0]), scope.values[node.input[1]].tolist()
        zero = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
        kept = [given[i] if not size and not zero and i < len(given) else size for i, size in enumerate(wanted)]
        rest = math.prod(size for size in kept if size != -1)
        if math.prod(given) != rest and (-1 not in kept or not rest or math.prod(given) % rest):
            raise ContradictionError(node, f"{list(given)} does not fit into {wanted}")
    elif node.op_type == "Gather" and node.input[1] in scope.values and scope.values[node.input[1]].size:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        rows, places = scope.shape(node.input[0])[axis], scope.values[node.input[1]]
        if int(places.max()) >= rows or int(places.min()) < -rows:
            raise ContradictionError(node, f"its table has {rows} rows, and row {int(places.max())} is looked up")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def rebuild(graph: GraphProto, walked: Walked, scope: Scope, *, into: GraphProto) -> None:
    """Puts into `into` what a walk has left of `graph`, with every constant that is read and the shape of every value.

    Inputs are as in `graph`, but for those that are weights, which need no input.
    """
    outputs = {output.name for output in graph.output}
    kept = needed_of(walked.nodes, outputs)
    needed = {*outputs, *(name for node in kept for name in reads(node))}
    own = [tensor for tensor in (*graph.initializer, *walked.weights) if tensor.name in needed]
    weights = {tensor.name for tensor in graph.initializer}
    local = scope.values.maps[0] if isinstance(scope.values, ChainMap) else scope.values
    there = {*weights, *(value.name for value in graph.input), *(name for node in kept for name in node.output)}
    folded = sorted(needed & local.keys() - there - {tensor.name for tensor in own})
    into.name, into.doc_string = graph.name, graph.doc_string
    into.node.extend(kept)
    into.input.extend(value for value in graph.input if value.name not in weights)
    into.initializer.extend(own)
    into.initializer.extend(numpy_helper.from_array(local[name], name) for name in folded)
    for repeated in ("sparse_initializer", "quantization_annotation", "metadata_props"):
        getattr(into, repeated).extend(getattr(graph, repeated))
    into.output.extend(ValueInfoProto(name=output.name, type=scope.types[output.name]) for output in graph.output)
    made = (name for node in kept for name in node.output if name and name not in outputs)
    into.value_info.extend(ValueInfoProto(name=name, type=scope.types[name]) for name in made)
