"""Graphs that no exporter of ours writes: dynamic ones from PyTorch, the same with some dims fixed, hand-made ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

ALL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
BATCH, LENGTH = "batch_size", "sequence_length"


class _Named(torch.nn.Module):
    def __init__(self, model, inputs, outputs):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors):
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        hidden = {f"hidden_states.{i}": layer for i, layer in enumerate(found.get("hidden_states") or ())}
        return tuple({**found, **hidden}[name] for name in self.outputs)


def export_dynamic(model: Any, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> Path:
    """Writes `model` with the two axes of every input left open."""
    example = tuple(torch.ones(2, 5, dtype=torch.long) for _ in inputs)
    axes = {0: torch.export.Dim(BATCH, min=1, max=64), 1: torch.export.Dim(LENGTH, min=2, max=64)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Named(model, inputs, outputs).eval(),
            example,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=((axes,) * len(inputs),),
            opset_version=20,
            verbose=False,
        )
    onnx.save(program.model_proto, path)
    return path


def with_dims(source: Path, target: Path, sizes: Mapping[str, int]) -> Path:
    """Writes the graph with the dims that `sizes` names fixed at its inputs and outputs."""
    model = onnx.load(source)
    for tensor in (*model.graph.input, *model.graph.output):
        for dim in tensor.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del model.graph.value_info[:]
    onnx.save(model, target)
    return target


def value(name: str, dtype: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "hand-made", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def embedder(
    batch: int | str, length: int | str, *, width: int = 4, ids: int = TensorProto.INT64, masked: bool = True
) -> onnx.ModelProto:
    """Returns a graph whose outputs can be told by heart.

    ``token_embeddings`` is each id in `width` columns, ``sentence_embedding`` their sum over the real tokens, and
    ``constant`` counts the columns and has no batch axis.
    """
    inputs = [value("input_ids", ids, [batch, length])]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], ["token_embeddings"]),
        helper.make_node("Identity", ["columns"], ["constant"]),
    ]
    summed = "token_embeddings"
    if masked:
        inputs.append(value("attention_mask", ids, [batch, length]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["real", "last"], ["real_column"]),
            helper.make_node("Mul", ["token_embeddings", "real_column"], ["masked"]),
        ]
        summed = "masked"
    nodes.append(helper.make_node("ReduceSum", [summed, "tokens"], ["sentence_embedding"], keepdims=0))
    outputs = [
        value("token_embeddings", TensorProto.FLOAT, [batch, length, width]),
        value("sentence_embedding", TensorProto.FLOAT, [batch, width]),
        value("constant", TensorProto.FLOAT, [width]),
    ]
    weights = {
        "last": np.array([-1]),
        "tokens": np.array([1]),
        "ones": np.ones((1, 1, width), np.float32),
        "columns": np.arange(width, dtype=np.float32),
    }
    return build(nodes, inputs, outputs, weights)
