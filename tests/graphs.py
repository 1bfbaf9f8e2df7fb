"""Graphs made by hand, the bytes they are made of, and the assertion that our reader and onnx agree on one."""

from __future__ import annotations

import io
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, TypeProto, helper

from optimum_fixedshape.graph.reader import read_contract

ONNX_MODELS = Path(onnx.__file__).parent / "backend" / "test" / "data"


ORT_MODELS = Path(onnxruntime.__file__).parent / "datasets"


MIB = 2**20


def assert_agrees(contract, model):
    """The contract says what onnx's own parser says of the same file."""
    graph = model.graph
    sparse = [tensor for both in graph.sparse_initializer for tensor in (both.values, both.indices)]
    weights = {tensor.name for tensor in graph.initializer} | {both.values.name for both in graph.sparse_initializer}
    fed = [value for value in graph.input if value.name not in weights]
    assert [facts(spec) for spec in contract.inputs] == [expected(value) for value in fed]
    assert [facts(spec) for spec in contract.outputs] == [expected(value) for value in graph.output]
    assert contract.opset == {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    assert contract.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert contract.producer == " ".join(filter(None, (model.producer_name, model.producer_version)))
    external = [tensor for tensor in [*graph.initializer, *sparse] if tensor.data_location == TensorProto.EXTERNAL]
    files = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    assert contract.external_data == tuple(sorted(files))


def facts(spec):
    return spec.name, spec.dtype, spec.shape


def expected(value):
    kind = value.type.WhichOneof("value")
    shape = None
    if kind == "tensor_type" and value.type.tensor_type.HasField("shape"):
        shape = tuple(expected_dim(dim) for dim in value.type.tensor_type.shape.dim)
    return value.name, expected_dtype(value.type), shape


def expected_dim(dim):
    if dim.WhichOneof("value") == "dim_value":
        return dim.dim_value if dim.dim_value > 0 else None
    return dim.dim_param or None


def expected_dtype(type_):
    match type_.WhichOneof("value"):
        case None:
            return "undefined"
        case "tensor_type":
            return element(type_.tensor_type.elem_type)
        case "sparse_tensor_type":
            return f"sparse_tensor({element(type_.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"sequence({expected_dtype(type_.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({expected_dtype(type_.optional_type.elem_type)})"
        case "map_type":
            return f"map({element(type_.map_type.key_type)}, {expected_dtype(type_.map_type.value_type)})"
        case "opaque_type":
            domain, name = (
                getattr(type_.opaque_type, part) if type_.opaque_type.HasField(part) else "undefined"
                for part in ("domain", "name")
            )
            return f"opaque({domain}, {name})"


def element(number):
    name = TensorProto.DataType.Name(number).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def tensor_value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def typed_value(name, type_):
    return helper.make_value_info(name, type_)


def weight(name, **kwargs):
    return helper.make_tensor(name, TensorProto.FLOAT, [2, 3], range(6), **kwargs)


def external_weight(name, *locations, data_location=TensorProto.EXTERNAL):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3], data_location=data_location)
    for location in locations:
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value="4096")
    return tensor


def make_model(inputs=(), outputs=(), initializers=(), sparse=(), opsets=(("", 21),), **props):
    node = helper.make_node("Identity", ["x"], ["y"], name="identity", doc_string="a node that is passed over")
    graph = helper.make_graph(
        [node], "graph", list(inputs), list(outputs), list(initializers), sparse_initializer=list(sparse)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets])
    model.producer_name, model.producer_version = "tester", "1.2"
    helper.set_model_props(model, props)
    return model


def read(data, **kwargs):
    return read_contract(io.BytesIO(data if isinstance(data, bytes) else data.SerializeToString()), **kwargs)


ANY_SHAPE = TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT))


SEQUENCE = helper.make_sequence_type_proto(ANY_SHAPE)


MAP = helper.make_map_type_proto(TensorProto.INT64, ANY_SHAPE)


BY_HAND = {
    "plain": make_model([tensor_value("x", [1, 3])], [tensor_value("y", [1, 3])]),
    "no inputs": make_model([], [tensor_value("y", [2])], [weight("w")]),
    "scalars": make_model([tensor_value("x", [])], [tensor_value("y", [])]),
    "no shape": make_model([typed_value("x", ANY_SHAPE)], [typed_value("y", ANY_SHAPE)]),
    "no type": make_model([onnx.ValueInfoProto(name="x")], [onnx.ValueInfoProto(name="y", type=TypeProto())]),
    "dynamic": make_model([tensor_value("x", ["batch", None, 0, -1, "", 7])], [tensor_value("y", ["batch", "out"])]),
    "initializers as inputs": make_model(
        [tensor_value("x", [1]), tensor_value("w", [2, 3]), tensor_value("s", [9])],
        [tensor_value("y", [1])],
        [weight("w")],
        [helper.make_sparse_tensor(weight("s"), helper.make_tensor("i", TensorProto.INT64, [6], range(6)), [9])],
    ),
    "external data": make_model(
        [tensor_value("x", [1])],
        [tensor_value("y", [1])],
        [
            external_weight("a", "model.onnx_data"),
            external_weight("b", "deep/b.bin"),
            external_weight("c", "deep/b.bin"),
        ],
    ),
    "inline despite a location": make_model(
        initializers=[external_weight("a", "/etc/passwd", data_location=TensorProto.DEFAULT)]
    ),
    "sparse external data": make_model(
        sparse=[onnx.SparseTensorProto(values=external_weight("v", "v.bin"), indices=external_weight("i", "i.bin"))]
    ),
    "other types": make_model(
        [
            typed_value("sequence", SEQUENCE),
            typed_value("map", MAP),
            typed_value("optional", helper.make_optional_type_proto(SEQUENCE)),
            typed_value("maps", helper.make_sequence_type_proto(MAP)),
            typed_value("sparse", helper.make_sparse_tensor_type_proto(TensorProto.DOUBLE, [3, 4])),
            typed_value("bare", TypeProto(sequence_type=TypeProto.Sequence())),
        ],
        [typed_value("y", MAP)],
    ),
    "opsets and metadata": make_model(
        opsets=[("ai.onnx", 17), ("ai.onnx.ml", 3), ("com.microsoft", 1)], names="{0: 'cat'}", empty="", ünïcode="✓"
    ),
    "long metadata": make_model(characters="字" * 100_000),
}


VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)


PLAIN = BY_HAND["plain"].SerializeToString()


def varint(value):
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(head) + bytes([value])


def tag(number, wire):
    return varint(number << 3 | wire)


def message(number, *payload):
    body = b"".join(payload)
    return tag(number, LENGTH) + varint(len(body)) + body


def with_input(*value):
    return message(7, message(11, *value))


def with_type(*type_):
    return with_input(message(2, *type_))


def with_tensor(*tensor):
    return message(7, message(5, *tensor))


def nested_sequences(depth):
    type_ = b""
    for _ in range(depth):
        type_ = message(4, message(1, type_))
    return type_
