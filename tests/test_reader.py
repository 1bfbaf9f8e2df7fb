"""The contract of a graph, compared with what onnx says of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from optimum_fixedshape.graph.reader import read_contract

from .graphs import (
    BY_HAND,
    LENGTH,
    MIB,
    ONNX_MODELS,
    ORT_MODELS,
    PLAIN,
    VARINT,
    assert_agrees,
    make_model,
    message,
    read,
    tag,
    tensor_value,
    varint,
    weight,
    with_type,
)


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
