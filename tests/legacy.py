"""Graphs by the exporter that traces, as stock optimum makes them, and sessions of graphs in memory."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from . import onnx_models, tiny

NAMES = ("input_ids", "attention_mask", "token_type_ids")
WIDTH, LENGTH = 4, 12


def traced(original: Any, inputs=NAMES, output="last_hidden_state") -> onnx.ModelProto:
    """Returns a text model with rows and tokens open, its attention written out in single operators."""
    model = type(original)._from_config(original.config, attn_implementation="eager")
    model.load_state_dict(original.state_dict())
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            onnx_models._Named(model, inputs, (output,)).eval(),
            tuple(torch.ones(2, 5, dtype=torch.long) for _ in inputs),
            stream,
            dynamo=False,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: {0: onnx_models.BATCH, 1: onnx_models.LENGTH} for name in (*inputs, output)},
            opset_version=18,
        )
    return onnx.load_from_string(stream.getvalue())


def bert() -> onnx.ModelProto:
    return traced(tiny.original("bert", "feature-extraction"))


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def interface(model: onnx.ModelProto) -> tuple[list[bytes], list[bytes]]:
    """Returns inputs and outputs: names, types, shapes and order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return (
        [value.SerializeToString() for value in model.graph.input if value.name not in weights],
        [value.SerializeToString() for value in model.graph.output],
    )


def masks() -> dict[str, np.ndarray]:
    """Returns masks of `WIDTH` rows: padding on either side, holes, and a row of which nothing is real."""
    right = np.ones((WIDTH, LENGTH), np.int64)
    for row, length in enumerate((3, 7, 12, 1)):
        right[row, length:] = 0
    holes = np.random.default_rng(0).integers(0, 2, right.shape)
    holes[:, 0] = 1
    nothing = right.copy()
    nothing[1] = 0
    return {"right": right, "left": right[:, ::-1].copy(), "holes": holes, "nothing": nothing}


def feed(mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    kinds = np.broadcast_to((np.arange(mask.shape[1]) > 5).astype(np.int64), mask.shape).copy()
    return {"input_ids": random.integers(5, 30000, mask.shape), "attention_mask": mask, "token_type_ids": kinds}
