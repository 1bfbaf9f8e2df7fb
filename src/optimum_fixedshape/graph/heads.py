"""The end of a classifier: whether its scores are probabilities already, and logits as transformers knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import helper

from optimum_fixedshape.graph.outline import Outline

ACTIVATIONS: Final = ("Softmax", "Sigmoid")
_LAYOUT: Final = ("Flatten", "Identity", "Reshape", "Squeeze")
"""Operators that pass numbers on as they are, and only lay them out anew."""


def activation_of(outline: Outline, output: str) -> str | None:
    """Returns the operator that makes probabilities of an output's scores, or None where they are logits.

    Args:
        outline: The graph.
        output: The graph's own name of the output.
    """
    node = outline.producer(output)
    while node and not node.domain and node.op_type in _LAYOUT:
        node = outline.producer(node.inputs[0])
    return node.op_type if node and not node.domain and node.op_type in ACTIVATIONS else None


def open_head(model: onnx.ModelProto, output: str) -> None:
    """Makes an output of a classifier what transformers calls logits, in place: ``(rows, labels)``, no probabilities.

    A softmax or sigmoid at its end passes its input on, and axes of size 1 behind the labels are dropped. What is laid
    out in another way stays as it is.

    Args:
        model: A model, with its external data or without.
        output: The output.
    """
    (value,) = (value for value in model.graph.output if value.name == output)
    dims = list(value.type.tensor_type.shape.dim)
    has_spent_axes = len(dims) > 2 and all(dim.dim_value == 1 for dim in dims[2:])
    if len(dims) != 2 and not has_spent_axes:
        return
    producers = {name: node for node in model.graph.node for name in node.output}
    last = activation = producers.get(output)
    while activation and not activation.domain and activation.op_type in _LAYOUT:
        activation = producers.get(activation.input[0])
    if activation and not activation.domain and _is_final(model, activation, rank=len(dims)):
        del activation.attribute[:]
        activation.op_type = "Identity"
    if last and has_spent_axes:
        inner = next(name for i in range(len(producers) + 1) if (name := f"{output}_laid_out_{i}") not in producers)
        last.output[:] = [inner if name == output else name for name in last.output]
        model.graph.node.append(helper.make_node("Flatten", [inner], [output], axis=1))
        del value.type.tensor_type.shape.dim[2:]


def _is_final(model: onnx.ModelProto, node: onnx.NodeProto, *, rank: int) -> bool:
    """Whether a node makes probabilities of each row's labels, for this output alone."""
    if node.op_type not in ACTIVATIONS:
        return False
    outputs = {value.name for value in model.graph.output}
    readers = sum(name == node.output[0] for each in model.graph.node for name in each.input)
    if readers + (node.output[0] in outputs) != 1:
        return False
    given: Mapping[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
    axis = given.get("axis", 1 if opset < 13 else -1)  # before 13, all axes from this one on are one
    return node.op_type == "Sigmoid" or axis == 1 or (axis == -1 and rank == 2)
