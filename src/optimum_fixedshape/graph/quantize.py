"""Graphs in fp16 and int8, by onnxruntime's own converters; inputs and outputs keep their types."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from optimum_fixedshape.errors import InvalidModelError, MissingInputError, ShapeMismatchError, warn

from .optimize import check_size, fold_constants, state_types, with_header_of
from .pin import contract_of

logger = logging.getLogger(__name__)

Feeds: TypeAlias = Mapping[str, np.ndarray[Any, Any]]

_OLDEST_OPSET = 13  # before it, a weight has one scale for all of its columns
_HALF_MAX = float(np.finfo(np.float16).max)
_HALF_HIDDEN = 3e4
"""What hides a place in fp16: a score, and another mask, can be added to it and it is finite still."""

_DYNAMIC = ("MatMul", "Gemm", "Attention", "LSTM", "Gather")
_STATIC = ("Conv", "MatMul", "Gemm")
_BETWEEN_CONVOLUTIONS = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
_INTEGER = frozenset(
    {"MatMulInteger", "ConvInteger", "QAttention", "DynamicQuantizeLSTM", "QuantizeLinear", "DequantizeLinear"}
)
_BIAS_OF_ATTENTION = 5  # the place of its input
_ROUNDED_WHOLE = ["MatMul", "Gemm"]


def to_float16(model: ModelProto) -> ModelProto:
    """Returns the model with weights and arithmetic in fp16; `model` is left as it is.

    Inputs and outputs keep their types. Finite constants that fp16 cannot hold, as the masks of most models are, become
    30000 with their sign, so that nothing added to them makes them infinite and rows that are masked all over give no
    NaN. Operators without fp16 stay in fp32. What a model computes can outgrow fp16 (65504) all the same, as T5 does:
    compare the answers.

    The file is half as large. A CPU computes most operators in fp32 again and is slower for it; GPUs and NPUs gain.

    Args:
        model: Any model with its weights inside, up to 2 GB.

    Raises:
        InvalidModelError: The model is larger than 2 GB, or onnxruntime cannot open it on the CPU.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    check_size(model, "onnxruntime's converter")
    prepared = fold_constants(model)
    state_types(prepared)
    for tensor in _constants(prepared.graph):
        _make_finite(tensor)
    converted = convert_float_to_float16(prepared, keep_io_types=True, disable_shape_infer=True)
    OnnxModel(converted).topological_sort()  # its casts stand behind the nodes that read them
    del converted.graph.value_info[:]
    return with_header_of(model, converted)


def to_int8(model: ModelProto, *, calibration: Iterable[Feeds] | None = None) -> ModelProto:
    """Returns the model with weights in int8, a scale for each column, and products computed in int8.

    Without `calibration` (dynamic): matrix products and look-ups are quantized, convolutions are not, since they would
    take several times longer than in fp32. The scale of what comes in is found anew in each run, over the whole of a
    tensor: other rows and padding have a part in it, so that **the answer for a row depends on what stands beside it**,
    by about as much as quantization changes it at all. With MiniLM sentence embeddings of length 1, entries are off by
    up to 0.025 from fp32, and change by up to 0.025 with the company they are in. Graphs of one row, and a ladder of
    close rungs, leave little beside it.

    With `calibration` (static): the scales are found once, from these inputs. Convolutions are quantized too, and the
    answer for a row depends on that row alone: padding is as invisible as in fp32. Scales fit inputs like those of the
    calibration; give some dozens that are like what will come. The graph is in the standard form for quantized models
    (``QuantizeLinear`` and ``DequantizeLinear``), which compilers for NPUs read.

    Weights are signed, 8 bits of them in use. CPUs without VNNI (before about 2019) add in 16 bits and may saturate.

    Args:
        model: Any model with its weights inside, up to 2 GB; better optimized first and pinned afterwards.
        calibration: Inputs by the graph's own names, as a session takes them.

    Warns:
        UserWarning: Most weights belong to convolutions, and stay as they are for want of `calibration`.

    Raises:
        InvalidModelError: The model is larger than 2 GB, onnxruntime cannot open it on the CPU, or it has nothing that
            could be quantized.
        ShapeMismatchError: Inputs in `calibration` do not fit the graph.
        MissingInputError: `calibration` is empty.
    """
    check_size(model, "onnxruntime's quantizer")
    prepared = _prepared(model)
    with tempfile.TemporaryDirectory(prefix="optimum-fixedshape-") as folder, _root_logger_quiet():
        path = Path(folder) / "model.onnx"
        if calibration is None:
            _quantize_dynamic(prepared, path)
        else:
            _quantize_static(prepared, path, _checked(model, calibration))
        quantized = onnx.load(path)
    if not any(node.op_type in _INTEGER for node in quantized.graph.node):
        raise InvalidModelError(
            "The graph has nothing that could be quantized: no matrix product, look-up or convolution with constant "
            f"weights{'' if calibration else ' but convolutions, which need calibration='}. Leave out dtype='int8'."
        )
    if calibration is None:
        _warn_of_convolutions(prepared)
    del quantized.graph.value_info[:]
    return with_header_of(model, quantized)


def _quantize_dynamic(prepared: ModelProto, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        prepared,
        path,
        op_types_to_quantize=list(_DYNAMIC),
        nodes_to_exclude=_biased_attention(prepared.graph),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


def _quantize_static(prepared: ModelProto, path: Path, calibration: Iterable[Feeds]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    # Sums of a transformer hold masks and outliers, which one scale for all would drown the rest in.
    is_convolutional = not any(node.op_type.endswith("LayerNormalization") for node in prepared.graph.node)
    _keep_biases_apart(prepared)
    quantize_static(
        prepared,
        path,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*_STATIC, *(_BETWEEN_CONVOLUTIONS if is_convolutional else ())],
        nodes_to_exclude=_products_of_activations(prepared.graph),
        per_channel=True,
        activation_type=QuantType.QUInt8,  # with signed ones the CPU falls back to fp32
        weight_type=QuantType.QInt8,
        extra_options={
            "DefaultTensorType": TensorProto.FLOAT,
            # What comes out of them goes into sums and norms, or is the answer: rounding it again costs the most.
            "OpTypesToExcludeOutputQuantization": _ROUNDED_WHOLE,
        },
    )


def _prepared(model: ModelProto) -> ModelProto:
    """A copy as the quantizer wants it: folded, of a late enough opset, types stated and nodes named."""
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    prepared = fold_constants(model)
    opset = next((opset.version for opset in prepared.opset_import if not opset.domain), _OLDEST_OPSET)
    if opset < _OLDEST_OPSET:
        try:
            prepared = onnx.version_converter.convert_version(prepared, _OLDEST_OPSET)
        except Exception as error:  # the converter raises a bare RuntimeError
            raise InvalidModelError(
                f"The graph is of opset {opset}, quantizing needs {_OLDEST_OPSET}, and onnx cannot convert it: "
                f"{error}. Export the model again with opset {_OLDEST_OPSET} or later."
            ) from error
    state_types(prepared)
    taken = {node.name for node in prepared.graph.node}
    for place, node in enumerate(prepared.graph.node):
        node.name = node.name or next(name for name in (f"node_{place}", f"node_{place}_") if name not in taken)
    add_pre_process_metadata(prepared)  # folding is what it asks for
    return prepared


class _Reader:
    """Feeds as onnxruntime's calibration reads them."""

    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feeds | None:
        """Returns the next feed, or None behind the last."""
        return next(self._feeds, None)


def _checked(model: ModelProto, calibration: Iterable[Feeds]) -> Iterator[Feeds]:
    contract = contract_of(model)
    count = 0
    for count, feed in enumerate(calibration, 1):
        if wrong := contract.mismatches(feed):
            raise ShapeMismatchError(
                f"Input {count - 1} of calibration= does not fit the graph: {'; '.join(map(str, wrong))}",
                mismatches=wrong,
            )
        yield feed
    if not count:
        raise MissingInputError(
            "calibration= is empty. Give it some dozens of inputs, each a mapping of names to arrays, or leave it out.",
            missing=contract.input_names,
        )


def _products_of_activations(graph: GraphProto) -> list[str]:
    """Names of matrix products without a weight: those inside attention, which rounding harms and hardly speeds up."""
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]


def _biased_attention(graph: GraphProto) -> list[str]:
    """Names of attention with a bias on its scores, which the quantizer would drop without a word."""
    attention = (node for node in graph.node if node.op_type == "Attention")
    return [node.name for node in attention if len(node.input) > _BIAS_OF_ATTENTION and node.input[_BIAS_OF_ATTENTION]]


def _keep_biases_apart(model: ModelProto) -> None:
    """Gives biases behind matrix products of three axes three axes as well, which changes nothing but this.

    onnxruntime would else make one operator of product and bias, before it sees that the product is quantized, and
    compute it in fp32.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    products = {node.output[0] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights}
    for node in model.graph.node:
        if node.op_type != "Add" or products.isdisjoint(node.input):
            continue
        for place, name in enumerate(node.input):
            other = node.input[1 - place]
            if name in weights and len(weights[name].dims) == 1 and other in products and ranks.get(other, 0) > 2:
                wide = f"{name}_of_{node.name}"
                array = numpy_helper.to_array(weights[name]).reshape(1, 1, -1)
                model.graph.initializer.append(numpy_helper.from_array(array, wide))
                node.input[place] = wide
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read or tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _warn_of_convolutions(prepared: ModelProto) -> None:
    sizes = {tensor.name: len(tensor.raw_data) for tensor in prepared.graph.initializer}
    kernels = {node.input[1] for node in prepared.graph.node if node.op_type == "Conv"}
    if 2 * sum(sizes.get(name, 0) for name in kernels) > sum(sizes.values()):
        warn(
            "Most weights of this graph belong to convolutions. They stay in fp32, because int8 without calibration "
            "makes them slower. Pass calibration=, some dozens of inputs, to quantize them."
        )


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.GRAPH:
            yield from _constants(attribute.g)


def _make_finite(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    array = numpy_helper.to_array(tensor)
    beyond = np.isfinite(array) & (np.abs(array) > _HALF_MAX)
    if beyond.any():
        made = np.where(beyond, np.sign(array) * _HALF_HIDDEN, array).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))


@contextlib.contextmanager
def _root_logger_quiet() -> Iterator[None]:
    """Takes what is logged to the root logger itself, as the quantizer does, to ours at DEBUG; no other is touched."""

    def redirect(record: logging.LogRecord) -> bool:
        logger.debug("onnxruntime: %s", record.getMessage())
        return False

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # without any, the first message would configure the logging of the whole process
    root.addFilter(redirect)
    try:
        yield
    finally:
        root.removeFilter(redirect)
        root.removeHandler(handler)
