"""Single nodes worked out by onnxruntime itself: what shape they give, and for arithmetic on sizes what values.

Sizes are computed by the kernels that would compute them at run time, so that nothing changes when they are computed
ahead: integer division, for one, is not the same in NumPy.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper

logger = logging.getLogger(__name__)

Array: TypeAlias = np.ndarray[Any, Any]
Opsets = tuple[tuple[str, int], ...]

MOST_INTEGERS, MOST_FLOATS = 2**14, 64
"""Elements of a tensor that may be folded: positions of a long text, and a few factors; weights are larger."""

INTEGERS: Final = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
_FLOATS: Final = frozenset({TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE})

_NUMBER_BY_NUMBER: Final = frozenset({"Binarizer", "Imputer", "LabelEncoder", "Normalizer", "Scaler"})
"""Operators of ai.onnx.ml that give what they take, in the same shape, which no library states."""

# What gives the same bits on every machine. Logarithms, powers and sines do not, and one that is an ulp off may fall
# into another bucket of relative positions.
_EXACT: Final = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal"),
        *("Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual"),
        *("Identity", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "NonZero", "Not", "Or", "Range"),
        *("Reshape", "ScatterElements", "ScatterND", "Shape", "Sign", "Size", "Slice", "Split", "Sqrt", "Squeeze"),
        *("Sub", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor"),
    }
)
_EXACT_ON_INTEGERS: Final = frozenset({"CumSum", "Mod", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"})


def is_small(tensor: TensorProto | TypeProto.Tensor) -> bool:
    """Whether a tensor is small enough to be folded, and of a type that sizes are computed in."""
    if isinstance(tensor, TensorProto):
        dtype, count = tensor.data_type, int(np.prod(tensor.dims, dtype=object))
    else:
        dtype, count = tensor.elem_type, int(np.prod([dim.dim_value for dim in tensor.shape.dim], dtype=object))
    return (dtype in INTEGERS and count <= MOST_INTEGERS) or (dtype in _FLOATS and count <= MOST_FLOATS)


def is_foldable(node: NodeProto, dtypes: Sequence[int]) -> bool:
    """Whether a node may be computed ahead, given the types of its inputs."""
    if node.domain not in ("", "ai.onnx"):
        return False
    return node.op_type in _EXACT or (node.op_type in _EXACT_ON_INTEGERS and INTEGERS.issuperset(dtypes))


def evaluate(node: NodeProto, values: Mapping[str, Array], *, opsets: Opsets, ir_version: int) -> list[Array] | None:
    """Returns what a node gives for these values of its inputs, or None where onnxruntime does not run it."""
    given = {name: values[name] for name in node.input if name}
    plain, names = _renamed(node)
    arrays = tuple((names[name], array.dtype.str, array.shape, array.tobytes()) for name, array in given.items())
    return _evaluated(plain.SerializeToString(deterministic=True), arrays, opsets, ir_version)


@functools.lru_cache(maxsize=4096)  # the rungs of a ladder share most of their arithmetic
def _evaluated(node: bytes, arrays: tuple[Any, ...], opsets: Opsets, ir_version: int) -> list[Array] | None:
    given = {name: np.frombuffer(data, dtype).reshape(shape) for name, dtype, shape, data in arrays}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    try:
        session = _session(NodeProto.FromString(node), inputs, [], opsets, ir_version)
        return [np.asarray(array) for array in session.run(None, given)]
    except Exception as error:  # onnxruntime's errors share no public base class
        logger.debug("not folded: %s", error)
        return None


def infer_by_session(
    node: NodeProto,
    types: Mapping[str, TypeProto],
    values: Mapping[str, Array],
    *,
    opsets: Opsets,
    ir_version: int,
) -> tuple[dict[str, TypeProto], str]:
    """Returns what onnxruntime says of the outputs of a node, its own operators included, and why it refuses, if so.

    Args:
        node: The node.
        types: The type of each input.
        values: Those inputs that are known.
        opsets: Opset version of each domain.
        ir_version: Of the model.
    """
    inputs, constants = [], []
    for name in dict.fromkeys(filter(None, node.input)):
        if name in values:
            constants.append(numpy_helper.from_array(values[name], name))
        else:
            inputs.append(ValueInfoProto(name=name, type=types[name]))
    try:
        session = _session(node, inputs, constants, opsets, ir_version, with_ranks=True)
    except Exception as error:
        return {}, str(error).partition("\n")[0]
    outputs = {output.name: output for output in session.get_outputs()}
    found = {}
    for name in filter(None, node.output):
        dtype, shape, rank = _DTYPES.get(outputs[name].type), outputs[name].shape, outputs[_RANK + name].shape
        if dtype and rank == [len(shape)] and all(isinstance(size, int) for size in shape):
            found[name] = helper.make_tensor_type_proto(dtype, shape)
        elif dtype and node.domain == "ai.onnx.ml" and node.op_type in _NUMBER_BY_NUMBER:
            shape = [dim.dim_value for dim in types[node.input[0]].tensor_type.shape.dim]
            found[name] = helper.make_tensor_type_proto(dtype, shape)
    return found, ""


_DTYPES: Final = {
    f"tensor({name})": getattr(TensorProto, number)
    for name, number in {
        **{name: name.upper() for name in ("float", "double", "float16", "bfloat16", "bool", "string")},
        **{f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (4, 8, 16, 32, 64)},
    }.items()
}
"""onnxruntime's names of types."""


_RANK: Final = "rank of "


def _session(
    node: NodeProto,
    inputs: list[ValueInfoProto],
    constants: list[TensorProto],
    opsets: Opsets,
    ir_version: int,
    *,
    with_ranks: bool = False,
) -> Any:
    import onnxruntime as ort

    names = [name for name in node.output if name]
    # A session says [] of a scalar and of what it knows nothing about; how long the shape would be tells them apart.
    ranks = [helper.make_node("Shape", [name], [_RANK + name]) for name in names if with_ranks]
    outputs = [ValueInfoProto(name=name) for name in (*names, *(rank.output[0] for rank in ranks))]
    graph = helper.make_graph([node, *ranks], "node", inputs, outputs, constants)
    model = ModelProto(ir_version=ir_version, graph=graph)
    model.opset_import.extend(helper.make_opsetid(*opset) for opset in opsets)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what a refusal is about is said by our own error
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _renamed(node: NodeProto) -> tuple[NodeProto, dict[str, str]]:
    """The node under names that do not depend on its graph, and the new name of each input."""
    names = {name: f"x{place}" for place, name in enumerate(dict.fromkeys(filter(None, node.input)))}
    plain = NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute)
    plain.input.extend(names.get(name, "") for name in node.input)
    plain.output.extend(f"y{place}" if name else "" for place, name in enumerate(node.output))
    return plain, names
