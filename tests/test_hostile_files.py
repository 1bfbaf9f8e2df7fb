"""Files that are no models, are damaged, or mean harm: refused, or read as onnx reads them."""

from __future__ import annotations

import io
import os

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from optimum_fixedshape.errors import FixedShapeError, InvalidModelError
from optimum_fixedshape.graph.reader import read_contract

from .graphs import (
    BY_HAND,
    FIXED32,
    FIXED64,
    GROUP,
    GROUP_END,
    LENGTH,
    MIB,
    PLAIN,
    VARINT,
    assert_agrees,
    external_weight,
    make_model,
    message,
    nested_sequences,
    read,
    tag,
    tensor_value,
    typed_value,
    varint,
    weight,
    with_input,
    with_tensor,
    with_type,
)

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
