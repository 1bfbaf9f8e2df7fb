"""Which mask of tokens a bias of attention is: found by trying masks, however the graph spells it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from optimum_fixedshape.fitting import Array

from .editing import needed_of
from .index import reads
from .views import Shape, Views

logger = logging.getLogger(__name__)

_WHOLE_NUMBERS: Final = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_MOST_NODES: Final = 40
_HIDDEN: Final = -1e4
"""A bias above it may not hide what it is added to."""


@dataclass(frozen=True)
class TokenMask:
    """A mask that hides the same tokens from all.

    Attributes:
        name: The input of the graph, ``(batch, sequence)``, 1 for tokens and 0 for what is hidden.
        low: What is added to the scores of what is hidden; to those of tokens nothing is.
    """

    name: str
    low: float


def token_mask_of(bias: str, model: ModelProto, views: Views) -> TokenMask | None:
    """Returns the mask that a bias is made of, or None where it is not one of tokens alone.

    Args:
        bias: A tensor ``(batch, 1, queries or 1, sequence)`` that is added to the scores.
        model: Its graph, of fixed shapes.
        views: What is known of it.
    """
    shape = views.shape(bias)
    nodes = needed_of(model.graph.node, [bias])
    inputs = {name for node in nodes for name in reads(node)} & views.index.inputs
    if len(shape) != 4 or len(inputs) != 1 or len(nodes) > _MOST_NODES:
        return None
    (name,) = inputs
    if views.shape(name) != (shape[0], shape[3]) or views.dtypes.get(name) not in _WHOLE_NUMBERS:
        return None
    try:
        run = _runner(model, nodes, name, bias)
        low = float(run(np.zeros((shape[0], shape[3]))).min())
        same = all(np.array_equal(run(mask), _expected(mask, low, shape)) for mask in _tried(shape[0], shape[3]))
    except Exception as error:  # onnxruntime's errors share no public base class
        logger.debug("%s was not tried as a mask: %s", bias, error)
        return None
    return TokenMask(name, low) if same and np.isfinite(low) and low <= _HIDDEN else None


def _tried(rows: int, tokens: int) -> Iterator[Array]:
    """Masks of all kinds: nothing hidden, everything hidden, and holes anywhere."""
    random = np.random.default_rng(0)
    yield from (np.ones((rows, tokens)), np.zeros((rows, tokens)))
    yield from random.integers(0, 2, (3, rows, tokens))


def _expected(mask: Array, low: float, shape: Shape) -> Array:
    return np.broadcast_to(np.where(mask[:, None, None, :] == 1, np.float32(0), np.float32(low)), shape)


def _runner(model: ModelProto, nodes: Sequence[NodeProto], name: str, bias: str) -> Callable[[Array], Array]:
    """A function that gives the bias that some nodes make of a mask."""
    import onnxruntime as ort

    read = {each for node in nodes for each in reads(node)}
    graph = helper.make_graph(
        nodes,
        "mask",
        [value for value in model.graph.input if value.name == name],
        [ValueInfoProto(name=bias)],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    own = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is refused is no mask that we know
    session = ort.InferenceSession(own.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(graph.input[0].type.tensor_type.elem_type))
    return lambda mask: np.asarray(session.run(None, {name: mask.astype(dtype)})[0])
