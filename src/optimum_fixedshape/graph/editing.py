"""Small edits of graphs: what is needed of one, and branches put in place of their ``If``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx import AttributeProto, GraphProto, NodeProto, helper

from optimum_fixedshape.graph.index import reads


def needed_of(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Returns those of the nodes that something in `outputs` comes from, in their order."""
    needed = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]


def branch_of(node: NodeProto, condition: bool, taken: set[str]) -> GraphProto:
    """Returns the branch of an ``If`` that a condition chooses, as nodes for the graph around it.

    Args:
        node: The ``If``.
        condition: What chooses.
        taken: The names of that graph: what is inside gets others.
    """
    wanted = "then_branch" if condition else "else_branch"
    branch = GraphProto()
    branch.CopyFrom(next(attribute.g for attribute in node.attribute if attribute.name == wanted))
    made = [*(tensor.name for tensor in branch.initializer), *(name for inner in branch.node for name in inner.output)]
    prefix = f"{node.output[0]}/"
    _rename(branch, {name: prefix + name for name in made if name and name in taken})
    for output, name in zip(branch.output, node.output, strict=True):
        branch.node.append(helper.make_node("Identity", [output.name], [name], name=f"{prefix}{output.name}"))
    return branch


def without_output(node: NodeProto, output: str) -> NodeProto:
    """Returns a node without one of its outputs."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = ["" if name == output else name for name in node.output]
    while not copy.output[-1]:
        del copy.output[-1]
    return copy


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    if not names:
        return
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for part in (node.input, node.output):
            part[:] = [names.get(name, name) for name in part]
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _rename(attribute.g, names)
