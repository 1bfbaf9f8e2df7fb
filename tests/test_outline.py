"""The outline of a graph, compared with what onnx says of it."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.outline import Node, Weight, read_outline
from optimum_fixedshape.graph.reader import read_contract

from . import stock
from .graphs import BY_HAND, LENGTH, MIB, ONNX_MODELS, ORT_MODELS, PLAIN, element, message, tag, varint
from .onnx_models import build, embedder, value

LIGHT = sorted((ONNX_MODELS / "light").glob("*.onnx"))
STOCK = [stock.graphs(name) for name in stock.names()]


def outline_of(model):
    return read_outline(io.BytesIO(model if isinstance(model, bytes) else model.SerializeToString()))


def subgraphs(node):
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def free_names(graph):
    """What a subgraph reads and does not make."""
    made = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    made |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in (*node.input, *(n for g in subgraphs(node) for n in free_names(g)))]
    return list(dict.fromkeys(n for n in [*read, *(v.name for v in graph.output)] if n and n not in made))


def expected_node(node):
    inner = list(subgraphs(node))
    return Node(
        node.op_type,
        node.name,
        (*node.input, *(name for graph in inner for name in free_names(graph))),
        tuple(node.output),
        "" if node.domain == "ai.onnx" else node.domain,
        tuple(expected_node(each) for graph in inner for each in graph.node),
    )


def expected_weights(graph):
    """The weights by name: of two branches that use one name for different things, the first counts."""
    own = {tensor.name: Weight(element(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        own[sparse.values.name] = Weight(element(sparse.values.data_type), tuple(sparse.dims))
    inner = {}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            for tensor in (attribute.t for attribute in node.attribute if attribute.HasField("t")):
                own[node.output[0]] = Weight(element(tensor.data_type), tuple(tensor.dims))
        for each in subgraphs(node):
            inner = expected_weights(each) | inner
    return inner | own


def assert_agrees(outline, model):
    weights = expected_weights(model.graph)
    assert outline.nodes == tuple(map(expected_node, model.graph.node))
    assert outline.weights == weights
    assert outline.inputs == tuple(v.name for v in model.graph.input if v.name not in weights)
    assert outline.outputs == tuple(v.name for v in model.graph.output)


@pytest.mark.parametrize("model", BY_HAND.values(), ids=BY_HAND)
def test_agrees_with_onnx_on_models_made_by_hand(model):
    assert_agrees(outline_of(model), model)


@pytest.mark.parametrize(
    "folder", [ONNX_MODELS / "light", ORT_MODELS, *STOCK], ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_agrees_with_onnx_on_real_graphs(folder):
    paths = sorted(folder.rglob("*.onnx"))
    assert paths
    for path in paths:
        model = onnx.load(path, load_external_data=False)
        outline = read_outline(path)
        assert_agrees(outline, model)
        assert outline.inputs == read_contract(path).input_names


def test_what_a_subgraph_reads_is_read_by_the_node_that_holds_it():
    inner = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["scaled"]), helper.make_node("Add", ["scaled", "inner_w"], ["sum"])],
        "then",
        [],
        [value("sum", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), "inner_w")],
    )
    handed_on = helper.make_graph([], "else", [], [value("x", TensorProto.FLOAT, [2])])
    model = build(
        [
            helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=inner, else_branch=handed_on),
            helper.make_node("Neg", ["y"], ["z"]),
        ],
        [value("flag", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, [2])],
        [value("z", TensorProto.FLOAT, [2])],
        {"w": np.ones((1, 2), np.float32)},
    )
    outline = outline_of(model)
    (choice,) = outline.consumers("x")
    assert choice.inputs == ("flag", "x", "x", "w")  # onnx sorts attributes: else comes first
    assert [node.op_type for node in choice.inside] == ["Mul", "Add"]
    assert [node.op_type for node in outline.walk()] == ["If", "Mul", "Add", "Neg"]
    assert outline.weights == {"w": Weight("float32", (1, 2)), "inner_w": Weight("float32", (2,))}
    assert outline.reached_from("x") == {"z"}


def test_consumers_producers_and_what_follows():
    outline = outline_of(embedder("batch", 8))
    assert [node.op_type for node in outline.consumers("input_ids")] == ["Cast"]
    assert outline.consumers("nothing") == ()
    assert outline.producer("masked").inputs == ("token_embeddings", "real_column")
    assert outline.producer("input_ids") is None
    assert outline.producer("ones") is None
    assert outline.reached_from("input_ids") == {"token_embeddings", "sentence_embedding"}
    assert outline.reached_from("attention_mask") == {"sentence_embedding"}
    assert outline.reached_from("columns") == {"constant"}


def test_inputs_that_were_left_out_keep_their_places():
    nodes = [helper.make_node("Clip", ["x", "", "most"], ["y"])]
    inputs = [value(name, TensorProto.FLOAT, []) for name in ("x", "most")]
    outline = outline_of(build(nodes, inputs, [value("y", TensorProto.FLOAT, [])]))
    assert outline.nodes[0].inputs == ("x", "", "most")
    assert outline.consumers("") == ()


def test_a_constant_of_plain_numbers_is_no_weight():
    nodes = [helper.make_node("Constant", [], ["one"], value_float=1.0), helper.make_node("Add", ["x", "one"], ["y"])]
    ends = [value(name, TensorProto.FLOAT, [2]) for name in "xy"]
    model = build(nodes, ends[:1], ends[1:])
    assert outline_of(model).weights == {}
    assert_agrees(outline_of(model), model)


def test_sizes_may_be_packed():
    for dims in (tag(1, LENGTH) + varint(3) + bytes([2, 7, 5]), b"".join(tag(1, 0) + varint(n) for n in (2, 7, 5))):
        weight = message(5, dims, tag(2, 0), varint(1), message(8, b"w"))
        outline = outline_of(message(7, weight))
        assert outline.weights == {"w": Weight("float32", (2, 7, 5))}
        assert_agrees(outline, onnx.load_model_from_string(message(7, weight)))


def test_thirty_thousand_nodes_fit_and_take_little():
    nodes = [
        helper.make_node("Add", [f"layer.{i}/attention/output", f"weight.{i}"], [f"layer.{i + 1}/attention/output"])
        for i in range(30_000)
    ]
    for i, node in enumerate(nodes):
        node.name, node.doc_string = f"/model/encoder/layer.{i}/attention/output/Add", "where it came from " * 40
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File model.py, line 1, in forward" * 20)
    graph = helper.make_graph(nodes, "long", [], [])
    data = io.BytesIO(helper.make_model(graph).SerializeToString())
    tracemalloc.start()
    try:
        outline = read_outline(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(outline.nodes) == 30_000
    assert peak < 64 * MIB


def test_no_weight_is_read(tmp_path):
    size = 800 * MIB
    head = message(8, b"w") + tag(2, 0) + varint(1) + tag(1, 0) + varint(size // 4) + tag(9, LENGTH) + varint(size)
    graph = tag(5, LENGTH) + varint(len(head) + size) + head
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.write(tag(7, LENGTH) + varint(len(graph) + size) + graph)
        file.truncate(file.tell() + size)
    tracemalloc.start()
    try:
        outline = read_outline(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB
    assert outline.weights == {"w": Weight("float32", (size // 4,))}


def deep_graphs(depth):
    graph = b""
    for _ in range(depth):
        graph = message(1, message(4, b"If"), message(5, message(6, graph)))
    return message(7, graph)


HOSTILE = {
    "empty": (b"", "a graph, got the end of the file"),
    "two graphs": (PLAIN + message(7), "graph once, got it a second time"),
    "nested too deep": (deep_graphs(16), "graphs nested at most 16 deep"),
    "nested without end": (deep_graphs(3000), "graphs nested at most 16 deep"),
    "node as a number": (message(7, tag(1, 0), b"\1"), "graph.node as ONNX codes it, got wire type 0"),
    "operator not in UTF-8": (message(7, message(1, message(4, b"\xff"))), "op_type in UTF-8"),
    "negative size": (message(7, message(5, tag(1, 0), varint(2**64 - 1))), "sizes of 0 or more, got 1, -1"),
    "too many axes": (message(7, message(5, tag(1, LENGTH), varint(65), b"\1" * 65)), "at most 64 sizes"),
    "unknown element type": (message(7, message(5, tag(2, 0), varint(99))), "element type from 0 to 28, got 99"),
    "too many nodes": (message(7, message(1) * 270_000), "a header of reasonable size"),
    "too many inputs": (message(7, message(1, message(1) * 1_100_000)), "a header of reasonable size"),
    "too many packed sizes": (
        message(7, message(5, tag(1, LENGTH), varint(1_100_000), b"\1" * 1_100_000)),
        "a header of reasonable size",
    ),
}


@pytest.mark.parametrize(("data", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_what_no_model_holds_is_refused(data, problem):
    start = time.process_time()
    with pytest.raises(InvalidModelError, match=problem):
        outline_of(data)
    assert time.process_time() - start < 20


def test_sixteen_graphs_deep_is_read():
    assert len(list(outline_of(deep_graphs(15)).walk())) == 15


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(InvalidModelError, match="is not a file"):
        read_outline(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_outline(tmp_path / "missing.onnx")


MERGED = (stock.graphs("whisper") / "decoder_model_merged.onnx").read_bytes()
SMALL = [embedder("batch", 8).SerializeToString(), LIGHT[-1].read_bytes(), MERGED]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_graphs_are_refused_or_read_as_onnx_reads_them(data):
    damaged = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        outline = outline_of(bytes(damaged))
    except InvalidModelError:
        return
    try:
        model = onnx.load_model_from_string(bytes(damaged))
    except DecodeError:
        return
    assert outline.outputs == tuple(v.name for v in model.graph.output)
    assert [node.outputs for node in outline.nodes] == [tuple(node.output) for node in model.graph.node]


def test_reading_imports_no_framework():
    heavy = "{'onnx', 'torch', 'transformers', 'onnxruntime', 'numpy', 'google.protobuf'}"
    program = f"import sys, optimum_fixedshape.graph.outline; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
