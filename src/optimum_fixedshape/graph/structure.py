"""A graph that holds together: every name is made once and before it is read, every node has what its operator needs.

What rewrites graphs may rely on it. Operators that the installed onnx does not know are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, defs

_LATEST_VERSION = 10_000  # no set of operators is near it
_HOLDS: Final = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}
"""Where an attribute of a type keeps its one value."""


def find_flaw(model: ModelProto) -> str | None:
    """Returns what is wrong with the graph of `model`, in words, or None where nothing is."""
    versions = {"" if opset.domain == "ai.onnx" else opset.domain: opset.version for opset in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    if unheard := [version for version in versions.values() if not 0 <= version <= _LATEST_VERSION]:
        return f"it is of version {unheard[0]} of an operator set"
    try:
        _check_graph(model.graph, frozenset(), versions, own)
        for function in model.functions:
            _check_nodes(function.node, set(function.input), frozenset(), versions, own)
    except _FlawError as flaw:
        return str(flaw)
    return None


class _FlawError(Exception):
    """What is wrong, in words."""


_Versions = Mapping[str, int]
_Functions = set[tuple[str, str]]


def _check_graph(graph: GraphProto, around: frozenset[str], versions: _Versions, own: _Functions) -> None:
    weights = [*(tensor.name for tensor in graph.initializer), *(t.values.name for t in graph.sparse_initializer)]
    inputs = [value.name for value in graph.input]
    for names, kind in ((weights, "initializers"), (inputs, "inputs"), ([o.name for o in graph.output], "outputs")):
        if "" in names or len(set(names)) < len(names):
            raise _FlawError(f"two {kind} have the same name, or one has none")
    known = {*weights, *inputs}
    _check_nodes(graph.node, known, around, versions, own)
    if missing := [output.name for output in graph.output if output.name not in known and output.name not in around]:
        raise _FlawError(f"nothing makes the output {missing[0][:200]!r}")


def _check_nodes(
    nodes: Iterable[NodeProto], known: set[str], around: frozenset[str], versions: _Versions, own: _Functions
) -> None:
    """Checks nodes in their order, and adds what they make to `known`."""
    for node in nodes:
        title = f"the {node.op_type[:200]} node {node.name[:200]!r}"
        for name in node.input:
            if name and name not in known and name not in around:
                raise _FlawError(f"{title} reads {name[:200]!r}, which nothing before it makes")
        _check_operator(node, title, versions, own)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _check_graph(graph, around | known, versions, own)
                if node.op_type == "If" and len(graph.output) != len(node.output):
                    raise _FlawError(f"{title} makes {len(node.output)} tensors, and a branch {len(graph.output)}")
        for name in filter(None, node.output):
            if name in known:
                raise _FlawError(f"{title} makes {name[:200]!r}, which was made before")
            known.add(name)


def _check_operator(node: NodeProto, title: str, versions: _Versions, own: _Functions) -> None:
    names = [attribute.name for attribute in node.attribute]
    if not node.op_type or "" in names or len(set(names)) < len(names):
        raise _FlawError(f"{title} has no operator, or an attribute twice")
    for attribute in node.attribute:
        held = _HOLDS.get(attribute.type)
        if held and not attribute.ref_attr_name and not attribute.HasField(held):
            raise _FlawError(f"{title} has no value for its attribute {attribute.name[:200]!r}")
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (node.domain, node.op_type) in own:
        return
    if domain not in versions:
        raise _FlawError(f"{title} is of the domain {domain[:200]!r}, whose version the model does not tell")
    if (schema := _schema(node.op_type, versions[domain], domain)) is None:
        return
    for count, least, most, what in (
        (len(node.input), schema.min_input, schema.max_input, "inputs"),
        (len(node.output), schema.min_output, schema.max_output, "outputs"),
    ):
        if not least <= count <= most:
            raise _FlawError(f"{title} has {count} {what}, and its operator takes {least} to {most}")
    if node.op_type == "Constant" and not domain and len(node.attribute) != 1:
        raise _FlawError(f"{title} has {len(node.attribute)} values")
    for name, expected in schema.attributes.items():
        found = next((attribute for attribute in node.attribute if attribute.name == name), None)
        if found is None and expected.required:
            raise _FlawError(f"{title} has no attribute {name!r}")
        if found is not None and found.type not in (int(expected.type.value), AttributeProto.UNDEFINED):
            raise _FlawError(f"{title} has an attribute {name!r} of another type than its operator takes")


@cache
def _schema(op_type: str, version: int, domain: str) -> Any:
    try:
        return defs.get_schema(op_type, version, domain)
    except (defs.SchemaError, ValueError, TypeError, OverflowError):  # not one that this onnx knows
        return None
