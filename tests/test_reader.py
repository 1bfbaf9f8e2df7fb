"""The reader agrees with onnx on every model, and raises `InvalidModelError` on everything else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, TypeProto, helper

from optimum_fixedshape.contract import Axis
from optimum_fixedshape.errors import FixedShapeError, InvalidModelError, ShapeMismatchError
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


@pytest.mark.parametrize("model", BY_HAND.values(), ids=BY_HAND)
def test_agrees_with_onnx_on_models_made_by_hand(model):
    assert_agrees(read(model), model)


@pytest.mark.parametrize("number", TensorProto.DataType.values())
def test_agrees_with_onnx_on_every_element_type(number):
    model = make_model([tensor_value("x", [1], number)])
    contract = read(model)
    assert_agrees(contract, model)
    numpy_dtype = helper.tensor_dtype_to_np_dtype(number) if number else None
    if numpy_dtype is not None and numpy_dtype.isbuiltin == 1 and number != TensorProto.STRING:
        assert contract.inputs[0].dtype == numpy_dtype.name


@pytest.mark.parametrize(
    "folder", ["light", "simple", "pytorch-operator", "pytorch-converted", ORT_MODELS], ids=lambda f: Path(f).name
)
def test_agrees_with_onnx_on_the_models_that_come_with_it(folder):
    paths = sorted((ONNX_MODELS / folder).rglob("*.onnx"))
    assert paths
    for path in paths:
        assert_agrees(read_contract(path), onnx.load(path, load_external_data=False))


def test_reads_fields_in_any_order():
    parts = [
        onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key="k", value="v")]),
        onnx.ModelProto(graph=make_model([tensor_value("x", [1, 3])], [], [weight("w")]).graph),
        onnx.ModelProto(producer_name="late", ir_version=10, opset_import=[helper.make_opsetid("", 20)]),
    ]
    data = b"".join(part.SerializeToString() for part in parts)
    assert_agrees(read(data), onnx.load_model_from_string(data))


def test_the_last_of_several_types_counts():
    for data in (
        with_type(message(1), message(4)),
        with_type(message(4), message(1)),
        with_type(message(9), message(5)),
    ):
        assert_agrees(read(data), onnx.load_model_from_string(data))


def test_reads_numbers_that_lie_across_windows():
    nodes = message(1, message(3, b"n" * 140)) * 120
    opsets = message(8, tag(2, VARINT), varint(2**64 - 1)) * 700
    for shift in range(150):
        data = message(2, b"p" * shift) + opsets + message(7, nodes, message(11, message(1, b"x")))
        assert_agrees(read(data), onnx.load_model_from_string(data))


def test_takes_a_path_as_text_or_object_and_an_open_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(PLAIN)
    from_path = read_contract(path)
    assert from_path == read_contract(str(path))
    assert from_path.path == path
    with path.open("rb") as file:
        file.seek(7)
        from_file = read_contract(file)
        assert not file.closed
    assert from_file.path is None
    assert from_file.inputs == from_path.inputs


def test_takes_files_that_answer_with_fewer_bytes_than_asked_for():
    class Drip(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    model = BY_HAND["other types"]
    assert_agrees(read_contract(Drip(model.SerializeToString())), model)


def test_reads_the_header_of_an_800_mb_file_without_its_weights(tmp_path):
    weights_size = 800 * MIB
    header = weight("w", raw=False)
    header.ClearField("float_data")
    tensor = header.SerializeToString() + tag(9, LENGTH) + varint(weights_size)
    ends = make_model([tensor_value("x", [1, 3])], [tensor_value("y", [1, 3])]).graph.SerializeToString()
    graph = tag(5, LENGTH) + varint(len(tensor) + weights_size) + tensor
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.write(tag(7, LENGTH) + varint(len(graph) + weights_size + len(ends)) + graph)
        file.seek(weights_size, os.SEEK_CUR)
        file.write(ends + onnx.ModelProto(opset_import=[helper.make_opsetid("", 21)]).SerializeToString())
    assert path.stat().st_size > weights_size

    tracemalloc.start()
    try:
        contract = read_contract(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB
    assert contract.input_names == ("x",)
    assert contract.output_names == ("y",)
    assert contract.opset == {"": 21}


def test_reading_imports_no_framework():
    heavy = "{'onnx', 'torch', 'transformers', 'onnxruntime', 'numpy', 'google.protobuf'}"
    program = f"import sys, optimum_fixedshape.graph.reader; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


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


FOREIGN = {
    "empty": (b"", "expected a graph, got the end of the file"),
    "text": (b"hello world, this is no model\n", "wire type"),
    "html": (b"<!DOCTYPE html><html></html>", "wire type"),
    "zip": (b"PK\x03\x04" + bytes(100), "expected"),
    "safetensors": (varint(64)[:1] + bytes(7) + b'{"w":{"dtype":"F32"}}', "expected"),
    "tensor file": (weight("w").SerializeToString(), "wire type"),
    "no graph": (onnx.ModelProto(ir_version=10).SerializeToString(), "expected a graph, got the end of the file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
}
DAMAGED = {
    "start of a group": (PLAIN + tag(99, GROUP), "wire type 3"),
    "end of a group": (PLAIN + tag(99, GROUP_END), "wire type 4"),
    "wire type 6": (PLAIN + tag(99, 6), "wire type 6"),
    "wire type 7": (PLAIN + tag(99, 7), "wire type 7"),
    "field number 0": (PLAIN + tag(0, VARINT) + b"\1", "field number 0"),
    "field number beyond 29 bits": (PLAIN + tag(2**29, VARINT) + b"\1", "field number 536870912"),
    "length beyond the file": (
        PLAIN + tag(99, LENGTH) + varint(1000) + b"abc",
        "at most 3 more bytes in model, got 1000",
    ),
    "absurd length": (PLAIN + tag(99, LENGTH) + varint(2**64 - 1), "at most 0 more bytes in model"),
    "length beyond its message": (message(7, tag(11, LENGTH), varint(50)) + bytes(50), "more bytes in graph, got 50"),
    "varint of 11 bytes": (PLAIN + tag(5, VARINT) + b"\xff" * 10 + b"\1", "an integer of at most 64 bits"),
    "varint of 65 bits": (PLAIN + tag(5, VARINT) + b"\xff" * 9 + b"\x7f", "an integer of at most 64 bits"),
    "varint without an end": (PLAIN + tag(5, VARINT) + b"\x80", "an integer of at most 64 bits"),
    "tag without a value": (PLAIN + tag(5, VARINT), "an integer of at most 64 bits"),
    "varint beyond its message": (message(7, message(11, tag(9, VARINT))) + b"\1", "an integer of at most 64 bits"),
    "cut 64-bit value": (PLAIN + tag(99, FIXED64) + bytes(7), "at most 7 more bytes in model, got 8"),
    "cut 32-bit value": (PLAIN + tag(99, FIXED32) + bytes(3), "at most 3 more bytes in model, got 4"),
    "graph as a number": (tag(7, VARINT) + b"\1", "model.graph as ONNX codes it, got wire type 0"),
    "version as text": (message(1, b"10") + PLAIN, "model.ir_version as ONNX codes it, got wire type 2"),
    "node as a number": (message(7, tag(1, VARINT), b"\1"), "graph.node as ONNX codes it, got wire type 0"),
    "weights as a number": (with_tensor(tag(9, FIXED32), bytes(4)), "initializer.raw_data as ONNX codes it"),
    "two graphs": (PLAIN + message(7), "model.graph once, got it a second time"),
    "two types": (with_input(message(2), message(2)), "input.type once"),
    "two tensor types": (with_type(message(1), message(1)), "type.tensor once"),
    "two shapes": (with_type(message(1, message(2), message(2))), "tensor.shape once"),
    "name not in UTF-8": (with_input(message(1, b"\xff\xfe")), "name in UTF-8"),
    "producer not in UTF-8": (PLAIN + message(2, b"\xc3"), "producer_name in UTF-8"),
    "long name": (with_input(message(1, b"x" * 65537)), "name of at most 65536 bytes, got 65537"),
    "long metadata": (PLAIN + message(14, message(2, b"x" * (4 * MIB + 1))), "value of at most 4194304 bytes"),
    "too much metadata": (PLAIN + message(14, message(2, b"x" * 4 * MIB)) * 9, "a header of reasonable size"),
    "too many inputs": (message(7, message(11) * 270_000), "a header of reasonable size"),
    "too many axes": (with_type(message(1, message(2, message(1) * 65))), "at most 64 axes"),
    "too many elements": (
        with_type(message(1, message(2, message(1, tag(1, VARINT), varint(2**40))))),
        "2**34 elements",
    ),
    "absurd elements": (with_type(message(1, message(2, message(1, tag(1, VARINT), varint(2**62)) * 64))), "2**3968"),
    "unknown element type": (with_type(message(1, tag(1, VARINT), varint(29))), "element type from 0 to 28, got 29"),
    "negative element type": (with_type(message(1, tag(1, VARINT), varint(2**64 - 1))), "element type from 0 to 28"),
    "unknown key type": (with_type(message(5, tag(1, VARINT), varint(99))), "element type from 0 to 28, got 99"),
    "deep type": (with_type(nested_sequences(17)), "types nested at most 16 deep"),
    "very deep type": (with_type(nested_sequences(5000)), "types nested at most 16 deep"),
    "unknown data location": (with_tensor(tag(14, VARINT), b"\2"), "data location 2"),
    "external data nowhere": (with_tensor(tag(14, VARINT), b"\1"), "data location 1 with 0 files"),
}


@pytest.mark.parametrize(("data", "problem"), (FOREIGN | DAMAGED).values(), ids=FOREIGN | DAMAGED)
def test_what_is_no_model_is_an_error_that_says_why(data, problem, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError) as raised:
        read_contract(path)
    assert str(raised.value).startswith(f"{path} is not a valid ONNX model: at byte ")
    assert problem in str(raised.value)
    assert raised.value.path == str(path)
    assert isinstance(raised.value, FixedShapeError | ValueError)


def test_message_names_the_file_the_byte_and_the_way_out():
    with pytest.raises(InvalidModelError) as raised:
        read(PLAIN + tag(7, VARINT) + b"\1")
    assert raised.value.path is None
    assert str(raised.value) == (
        f"The stream is not a valid ONNX model: at byte {len(PLAIN)}, expected model.graph as ONNX codes it, "
        "got wire type 0. It is no ONNX file, or was cut short or damaged on its way: download or export it again."
    )


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd", "../weights", "a/../../weights", "..", ".", "", "a/..", "..\\weights", "a\\..\\..\\weights",
        "\\weights", "C:\\weights", "C:weights", "\\\\server\\share\\weights", "//server/share/weights", ".. /weights",
        "a/.../weights", "weights\0.bin",
    ],
)  # fmt: skip
def test_external_data_stays_in_the_folder(location):
    with pytest.raises(InvalidModelError, match="external data"):
        read(make_model(initializers=[external_weight("w", location)]))
    with pytest.raises(InvalidModelError, match="external data"):
        read(make_model(initializers=[external_weight("w", location, "weights.bin")]))


def test_folders_pipes_and_missing_files(tmp_path):
    with pytest.raises(InvalidModelError, match="is not a file") as raised:
        read_contract(tmp_path)
    assert raised.value.path == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_contract(tmp_path / "missing.onnx")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InvalidModelError, match="is not a file"):
            read_contract(tmp_path / "pipe")


def test_file_that_shrinks_while_it_is_read():
    class Shrinking(io.BytesIO):
        def read(self, size=-1):
            return super().read(size) if self.tell() < 20 else b""

    with pytest.raises(InvalidModelError, match="got the end of the file"):
        read_contract(Shrinking(BY_HAND["long metadata"].SerializeToString()))


def read_or_refuse(data):
    """Reads bytes that may be anything: the reader refuses them in its own way, or agrees with onnx."""
    try:
        contract = read(data)
    except InvalidModelError:
        return
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        return
    assert_agrees(contract, model)


SMALL = [model.SerializeToString() for name, model in BY_HAND.items() if name != "long metadata"]


@pytest.mark.parametrize("name", ["other types", "dynamic", "external data"])
def test_every_cut_and_every_changed_byte(name):
    data = BY_HAND[name].SerializeToString()
    for at in range(len(data)):
        read_or_refuse(data[:at])
        for change in (0x01, 0x02, 0x08, 0x80, 0xFF):
            read_or_refuse(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])


def place(data):
    return st.integers(0, len(data))


@st.composite
def damaged_models(draw):
    data = draw(st.sampled_from(SMALL))
    for _ in range(draw(st.integers(1, 5))):
        start, end = sorted((draw(place(data)), draw(place(data))))
        change = draw(st.sampled_from(["flip", "insert", "delete", "truncate", "splice", "repeat"]))
        if change == "flip" and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif change == "insert":
            data = data[:start] + draw(st.binary(min_size=1, max_size=12)) + data[start:]
        elif change == "delete":
            data = data[:start] + data[end:]
        elif change == "truncate":
            data = data[:start]
        elif change == "splice":
            other = draw(st.sampled_from(SMALL))
            data = data[:start] + other[draw(place(other)) :]
        else:
            data = data[:end] + data[start:]
    return data


wire_fields = st.recursive(
    st.binary(max_size=12) | st.integers(0, 2**64 - 1).map(varint),
    lambda inner: st.lists(
        st.builds(lambda number, body: message(number, body), st.integers(1, 16), inner)
        | st.builds(lambda number, value: tag(number, VARINT) + varint(value), st.integers(1, 16), st.integers(0, 30)),
        max_size=4,
    ).map(b"".join),
    max_leaves=12,
)
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
dims = st.lists(st.none() | st.integers(-(2**63), 9) | names, max_size=6)
elements = st.sampled_from(TensorProto.DataType.values())
tensors = st.builds(tensor_value, names, st.none() | dims, elements)
types = st.recursive(
    tensors.map(lambda value: value.type),
    lambda inner: st.one_of(
        inner.map(helper.make_sequence_type_proto),
        inner.map(helper.make_optional_type_proto),
        st.builds(helper.make_map_type_proto, st.sampled_from([TensorProto.INT64, TensorProto.STRING]), inner),
    ),
    max_leaves=3,
)
values = st.lists(tensors | st.builds(typed_value, names, types), max_size=5)
weights = st.lists(names.map(weight), max_size=5)
opsets = st.lists(st.tuples(names, st.integers(-(2**63), 2**63 - 1)), max_size=3)


@FUZZ
@given(values, values, weights, opsets, st.dictionaries(names, names))
def test_every_well_formed_model_is_read_as_onnx_reads_it(inputs, outputs, initializers, opsets, metadata):
    model = make_model(inputs, outputs, initializers, opsets=opsets)
    helper.set_model_props(model, metadata)
    assert_agrees(read(model), model)


@FUZZ
@given(damaged_models())
def test_damaged_models_are_refused_or_read_as_onnx_reads_them(data):
    read_or_refuse(data)


@FUZZ
@given(st.binary(max_size=200) | wire_fields | wire_fields.map(lambda graph: message(7, graph)))
def test_random_bytes_are_refused_or_read_as_onnx_reads_them(data):
    read_or_refuse(data)


def roles_of(specs):
    return {spec.name: spec.roles() for spec in specs}


def test_standard_names_tell_their_roles():
    ids, batch = TensorProto.INT64, "batch_size"
    contract = read(
        make_model(
            [
                tensor_value("input_ids", [1, 128], ids),
                tensor_value("attention_mask", [1, 4, 128], ids),
                tensor_value("pixel_values", [1, 3, 224, 200]),
                tensor_value("input_values", [1, 16000]),
            ]
        )
    )
    assert roles_of(contract.inputs) == {
        "input_ids": (batch, "sequence_length"),
        "attention_mask": (batch, "num_choices", "sequence_length"),
        "pixel_values": (batch, "num_channels", "height", "width"),
        "input_values": (batch, "audio_sequence_length"),
    }
    assert {axis.evidence for spec in contract.inputs for axis in spec.axes} == {"standard name"}
    assert contract.sizes["width"] == 200


def test_other_names_are_guessed_from_rank_and_type():
    contract = read(
        make_model(
            [
                tensor_value("input.1", [1, 3, 8, 9]),
                tensor_value("tokens", [1, 16], TensorProto.INT32),
                tensor_value("threshold", []),
                tensor_value("table", [4, 5]),
                typed_value("anything", ANY_SHAPE),
            ]
        )
    )
    assert roles_of(contract.inputs) == {
        "input.1": ("batch_size", "num_channels", "height", "width"),
        "tokens": ("batch_size", "sequence_length"),
        "threshold": (),
        "table": (None, None),
        "anything": (),
    }
    assert contract.input("tokens").axes[1] == Axis(16, None, "sequence_length", "guessed from rank 2 and int32")


def test_the_caller_overrides_roles():
    model = make_model([tensor_value("input_ids", [7, 1], TensorProto.INT64)], [tensor_value("y", [7, 5])])
    contract = read(model, roles={"input_ids": ("sequence_length", "batch_size"), "y": ("sequence_length", None)})
    assert contract.input("input_ids").axes[0] == Axis(7, None, "sequence_length", "set by the caller")
    assert contract.outputs[0].roles() == ("sequence_length", None)
    assert contract.batch_size == 1
    for wrong in ({"input_ids": ("batch_size",)}, {"y": ("batch_size", None, None)}):
        with pytest.raises(ShapeMismatchError, match="axes, but the graph has"):
            read(model, roles=wrong)


def test_outputs_follow_the_symbols_of_the_inputs():
    contract = read(
        make_model(
            [tensor_value("input_ids", ["b", "s"], TensorProto.INT64)],
            [
                tensor_value("last_hidden_state", ["b", "s", 32]),
                tensor_value("swapped", ["s", "b"]),
                tensor_value("logits", ["b", "other", 2]),
                tensor_value("spans", ["n", "m", 2]),
                tensor_value("hidden_states.3", ["b", None, 32]),
            ],
        )
    )
    assert roles_of(contract.outputs) == {
        "last_hidden_state": ("batch_size", "sequence_length", None),
        "swapped": ("sequence_length", "batch_size"),
        "logits": ("batch_size", "sequence_length", None),
        "spans": (None, None, None),
        "hidden_states.3": ("batch_size", "sequence_length", None),
    }
    assert contract.outputs[1].axes[0].evidence == "shares the symbol 's' with an input"


def test_outputs_of_fixed_graphs_follow_equal_sizes():
    contract = read(
        make_model(
            [tensor_value("input_ids", [2, 16], TensorProto.INT64)],
            [tensor_value("logits", [2, 9]), tensor_value("scores", [2, 16, 9]), tensor_value("frames", [2, 8, 9])],
        )
    )
    assert roles_of(contract.outputs) == {
        "logits": ("batch_size", None),
        "scores": ("batch_size", "sequence_length", None),
        "frames": ("batch_size", None, None),
    }
