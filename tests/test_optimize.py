"""Fused graphs answer as before, under any mask, and say what was fused."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.feeds import generate_inputs
from optimum_fixedshape.graph.optimize import fold_constants, fused_operators, optimize_graph, state_types
from optimum_fixedshape.graph.pin import pin_graph

from . import legacy, onnx_models, stock

BERT = {"model_type": "bert", "num_attention_heads": 4, "hidden_size": 32}
SIZES = {"batch_size": legacy.WIDTH, "sequence_length": legacy.LENGTH}
ROUNDING = 2e-5  # attention in one operator sums in another order


@pytest.fixture(scope="module")
def bert() -> onnx.ModelProto:
    return legacy.bert()


@pytest.fixture(scope="module")
def fused(bert) -> onnx.ModelProto:
    return optimize_graph(bert, config=BERT)


def test_attention_norms_and_activations_of_a_traced_bert_are_fused(bert, fused):
    assert fused_operators(bert) == {"LayerNormalization": 5}
    assert fused_operators(fused) == {"Attention": 2, "LayerNormalization": 5, "BiasGelu": 2}
    assert len(fused.graph.node) < len(bert.graph.node) / 5


@pytest.mark.parametrize("side", legacy.masks())
@pytest.mark.parametrize("pinned", [False, True], ids=["open", "pinned"])
def test_every_mask_hides_what_it_hid(bert, fused, side, pinned):
    feed = legacy.feed(legacy.masks()[side])
    (expected,) = legacy.opened(bert).run(None, feed)
    (got,) = legacy.opened(pin_graph(fused, SIZES) if pinned else fused).run(None, feed)
    rows = feed["attention_mask"].any(axis=1)  # a row of which nothing is real has no answer; it is a number still
    np.testing.assert_allclose(got[rows], expected[rows], atol=ROUNDING)
    assert np.isfinite(got).all()
    other = {**feed, "input_ids": np.where(feed["attention_mask"] == 1, feed["input_ids"], 99)}
    (changed,) = legacy.opened(fused).run(None, other)
    real = feed["attention_mask"] == 1
    np.testing.assert_allclose(changed[real], expected[real], atol=ROUNDING)


def test_inputs_outputs_and_metadata_stay_and_the_model_is_left_alone(bert):
    helper.set_model_props(bert, {"labels": "two"})
    before = bert.SerializeToString(deterministic=True)
    fused = optimize_graph(bert, config=BERT)
    assert bert.SerializeToString(deterministic=True) == before
    assert legacy.interface(fused) == legacy.interface(bert)
    assert [(entry.key, entry.value) for entry in fused.metadata_props] == [("labels", "two")]
    assert fused.producer_name == bert.producer_name == "pytorch"
    assert {opset.domain for opset in fused.opset_import} == {"", "com.microsoft"}


def test_no_sum_is_fused_with_the_norm_behind_it(fused):
    assert not any("Skip" in node.op_type or "Embed" in node.op_type for node in fused.graph.node)


def test_nothing_is_printed_or_logged(bert, capfd, caplog):
    caplog.set_level(logging.INFO)
    optimize_graph(bert, config=BERT)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("config", [{}, {"model_type": "bert"}, {**BERT, "num_attention_heads": 5}], ids=str)
def test_without_a_config_that_fits_all_but_attention_is_fused(bert, config):
    assert fused_operators(optimize_graph(bert, config=config)) == {"LayerNormalization": 5, "BiasGelu": 2}


def test_attention_of_our_own_exporter_is_fused_too(exported):
    graph = onnx.load(exported("feature-extraction").folder / "model.onnx")
    optimized = optimize_graph(graph, config=BERT)
    assert fused_operators(optimized) == {"Attention": 2, "LayerNormalization": 5, "BiasGelu": 2}
    assert legacy.interface(optimized) == legacy.interface(graph)
    shape = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    feed = legacy.feed(np.ones(shape, np.int64))
    for expected, got in zip(
        legacy.opened(graph).run(None, feed), legacy.opened(optimized).run(None, feed), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=ROUNDING)


FOUND_IN_STOCK = {
    "gpt2": ("model.onnx", "FastGelu"),
    "llama": ("model.onnx", "RotaryEmbedding"),
    "t5": ("decoder_with_past_model.onnx", "SimplifiedLayerNormalization"),
    "whisper": ("encoder_model.onnx", "BiasGelu"),
}


@pytest.mark.parametrize("name", FOUND_IN_STOCK)
def test_stock_exports_of_models_that_write_answer_as_before(name):
    file, operator = FOUND_IN_STOCK[name]
    path = stock.graphs(name) / file
    original = onnx.load(path)
    optimized = optimize_graph(original, config=stock.original(name).config.to_dict())
    assert fused_operators(optimized)[operator] >= 2
    assert legacy.interface(optimized) == legacy.interface(original)
    feed = generate_inputs(path)
    answers = zip(legacy.opened(original).run(None, feed), legacy.opened(optimized).run(None, feed), strict=True)
    for expected, got in answers:
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_graph_with_nothing_to_fuse_says_so():
    with pytest.warns(
        UserWarning, match=r"nothing to fuse in this graph of an unknown architecture: only its constants"
    ):
        optimized = optimize_graph(onnx_models.embedder("N", "L"), config={})
    feed = {"input_ids": np.array([[3, 5]]), "attention_mask": np.array([[1, 0]])}
    assert legacy.opened(optimized).run(None, feed)[1].tolist() == [[3, 3, 3, 3]]


def test_batch_norms_go_into_their_convolutions():
    weights = {
        "kernel": np.random.default_rng(0).standard_normal((4, 3, 3, 3), np.float32),
        **{
            name: np.full(4, number, np.float32)
            for name, number in (("scale", 2), ("bias", 1), ("mean", 3), ("var", 4))
        },
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"]),
    ]
    image = onnx_models.value("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    model = onnx_models.build(nodes, [image], [onnx_models.value("y", TensorProto.FLOAT, ["N", 4, 6, 6])], weights)
    folded = fold_constants(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    pixels = np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32)
    expected, got = (legacy.opened(each).run(None, {"x": pixels})[0] for each in (model, folded))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_weights_that_are_listed_as_inputs_are_none_afterwards():
    model = onnx_models.embedder(1, 4)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )
    folded = fold_constants(model)
    assert [value.name for value in folded.graph.input] == ["input_ids", "attention_mask"]
    assert legacy.opened(folded).run(
        None, {name: np.ones((1, 4), np.int64) for name in ("input_ids", "attention_mask")}
    )


def test_the_types_of_fused_operators_are_stated_too(fused):
    copy = onnx.ModelProto()
    copy.CopyFrom(fused)
    state_types(copy)
    stated = {value.name: value.type.tensor_type.elem_type for value in copy.graph.value_info}
    made = [name for node in copy.graph.node for name in node.output if name]
    assert {*made} - {"last_hidden_state"} == stated.keys()
    assert stated[next(node for node in copy.graph.node if node.op_type == "Attention").output[0]] == TensorProto.FLOAT


def test_a_graph_that_the_cpu_cannot_run_is_refused(capfd):
    model = onnx_models.embedder(1, 4)
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(InvalidModelError, match=r"onnxruntime cannot open the graph on the CPU.*Do it without"):
        fold_constants(model)
    assert capfd.readouterr() == ("", "")
