"""Rescaling and normalizing inside the graph: what an image processor does to each byte, put in front of its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimum_fixedshape.errors import InvalidModelError


def take_bytes(
    model: onnx.ModelProto, name: str, *, factors: Sequence[float], terms: Sequence[float]
) -> onnx.ModelProto:
    """Returns the model, changed in place, with an input of bytes: ``byte * factor + term`` goes where it went before.

    Args:
        model: A model, with its weights or without.
        name: The input, ``(batch, channels, height, width)``.
        factors: One for each channel.
        terms: Likewise.

    Raises:
        InvalidModelError: There is no such input, or it has no such shape.
    """
    graph = model.graph
    value = next((value for value in graph.input if value.name == name), None)
    dims = [] if value is None else [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if value is None or len(dims) != 4 or dims[1] != len(factors):
        raise InvalidModelError(f"{name} is no input (batch, {len(factors)}, height, width) of this graph.", path=None)
    kind = value.type.tensor_type.elem_type
    numbers, scaled, shifted, last = (f"{name}/{step}" for step in ("numbers", "scaled", "shifted", "values"))
    for node in graph.node:
        node.input[:] = [last if given == name else given for given in node.input]
    constants = {f"{name}/factors": factors, f"{name}/terms": terms}
    for constant, values in constants.items():
        tensor = np.array(values, np.float32).reshape(1, -1, 1, 1)
        graph.initializer.append(numpy_helper.from_array(tensor, constant))
    steps = [
        helper.make_node("Cast", [name], [numbers], to=TensorProto.FLOAT),
        helper.make_node("Mul", [numbers, f"{name}/factors"], [scaled]),
        helper.make_node("Add", [scaled, f"{name}/terms"], [shifted]),
        helper.make_node("Cast", [shifted], [last], to=kind),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    value.type.tensor_type.elem_type = TensorProto.UINT8
    return model
