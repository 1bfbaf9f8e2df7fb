"""Merged decoders taken apart: the graph that starts a cache, and the one that goes on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from onnx import GraphProto, ModelProto, helper

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.index import Index, reads

BRANCH_INPUT: Final = "use_cache_branch"

_SAME_CONDITION: Final = {"Identity", "Cast", "Squeeze", "Reshape"}


@dataclass(frozen=True)
class MergedParts:
    """The two graphs of a merged decoder. Each copies its weights when it is asked for, and not before.

    Attributes:
        model: The merged decoder.
        place: Which of its nodes is the ``If`` that chooses between the two.
    """

    model: ModelProto
    place: int

    @property
    def first(self) -> ModelProto:
        """The graph that starts without a cache, and makes one."""
        return self._part("else_branch")

    @property
    def following(self) -> ModelProto:
        """The graph that goes on with a cache."""
        return self._part("then_branch")

    def _part(self, branch: str) -> ModelProto:
        """Returns the model with the nodes of one branch in place of the ``If``, and nothing that they do not need."""
        graph = self.model.graph
        chooser = graph.node[self.place]
        inner = next(attribute.g for attribute in chooser.attribute if attribute.name == branch)
        renamed = [
            helper.make_node("Identity", [made.name], [wanted])
            for made, wanted in zip(inner.output, chooser.output, strict=True)
            if made.name != wanted
        ]
        nodes = [*graph.node[: self.place], *inner.node, *renamed, *graph.node[self.place + 1 :]]
        index = Index(GraphProto(node=nodes))
        outputs = [output for output in graph.output if index.computes(output.name)]
        needed = {output.name for output in outputs}
        kept = []
        for node in reversed(nodes):
            if needed & set(node.output):
                needed.update(reads(node))
                kept.append(node)
        part = ModelProto(**{field.name: value for field, value in self.model.ListFields() if field.name != "graph"})
        part.graph.name = inner.name
        part.graph.node.extend(reversed(kept))
        part.graph.input.extend(value for value in graph.input if value.name in needed)
        part.graph.output.extend(outputs)
        for source in (graph, inner):
            part.graph.initializer.extend(tensor for tensor in source.initializer if tensor.name in needed)
            part.graph.value_info.extend(value for value in source.value_info if value.name in needed)
        return part


def split_merged(model: ModelProto) -> MergedParts:
    """Returns the branches of a merged decoder as models of their own, each with the weights and inputs that it reads.

    The inputs and outputs keep the merged graph's names, shapes and symbols. An output that a branch makes up, or hands
    on from an input (as optimum does with the encoder's keys and values), is not in its part.

    Args:
        model: A merged decoder, such as ``decoder_model_merged.onnx``. It is left as it is.

    Raises:
        InvalidModelError: There is not exactly one ``If`` on ``use_cache_branch``.
    """
    index = Index(model.graph)
    places = [
        place
        for place, node in enumerate(model.graph.node)
        if node.op_type == "If" and index.root(node.input[0], _SAME_CONDITION) == BRANCH_INPUT
    ]
    if len(places) != 1:
        raise InvalidModelError(
            f"Expected a merged decoder, with one If node on its input {BRANCH_INPUT!r}, got a graph with "
            f"{len(places)} of them. A decoder that is not merged needs no split."
        )
    return MergedParts(model, places[0])
