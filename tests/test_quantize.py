"""Graphs in fp16 and int8: inputs and outputs stay, and so does what the models know."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape.errors import InvalidModelError, MissingInputError, ShapeMismatchError
from optimum_fixedshape.feeds import generate_inputs
from optimum_fixedshape.graph.optimize import optimize_graph
from optimum_fixedshape.graph.pin import pin_graph
from optimum_fixedshape.graph.quantize import to_float16, to_int8

from . import legacy, onnx_models, stock, tiny

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
PAIRS = [
    ("A man is eating food.", "Someone eats a meal."),
    ("The girl plays the violin.", "A woman performs music on a violin."),
    ("The stock market fell sharply today.", "Shares dropped on Wall Street."),
    ("It is raining heavily.", "There is a strong downpour outside."),
    ("How do I bake bread?", "What is the recipe for a loaf of bread?"),
    ("The cat sleeps on the sofa.", "A kitten naps on the couch."),
    ("Engineers built a bridge over the river.", "A river crossing was constructed."),
    ("My laptop's battery dies quickly.", "The notebook computer does not hold a charge."),
]


@pytest.fixture(scope="module")
def bert() -> onnx.ModelProto:
    return legacy.bert()


@pytest.fixture(scope="module")
def minilm() -> onnx.ModelProto:
    return legacy.traced(transformers.AutoModel.from_pretrained(tiny.MINILM).eval())


def counts(model):
    return {
        name: sum(node.op_type == name for node in model.graph.node) for name in {n.op_type for n in model.graph.node}
    }


def encoded(texts, length=24):
    words = tiny.tokenizer("wordpiece")(texts, padding="max_length", max_length=length, return_tensors="np")
    return {name: words[name].astype(np.int64) for name in legacy.NAMES}


def embeddings(model, texts, length=24):
    """Sentence embeddings of length 1, all rows in one run."""
    feed = encoded(texts, length)
    (hidden,) = legacy.opened(model).run(None, feed)
    real = feed["attention_mask"][..., None]
    mean = (hidden * real).sum(axis=1) / real.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def found_partners(made):
    """The share of the questions whose nearest answer is their own."""
    similarity = made[::2] @ made[1::2].T
    return np.mean(similarity.argmax(axis=1) == np.arange(len(similarity)))


TEXTS = [text for pair in PAIRS for text in pair]


def test_int8_embeddings_find_the_same_partners(minilm):
    exact, quantized = embeddings(minilm, TEXTS), to_int8(minilm)
    made = embeddings(quantized, TEXTS)
    assert found_partners(made) == found_partners(exact) == 1
    assert counts(quantized)["MatMulInteger"] == 36  # six layers, six weights each
    assert len(quantized.SerializeToString()) < len(minilm.SerializeToString()) / 3.8  # look-ups as well
    assert (made * exact).sum(axis=1).min() > 0.98
    # One scale serves the whole batch: company and padding change a row by as much as quantizing itself does.
    alone = np.concatenate([embeddings(quantized, [text], 16) for text in TEXTS])
    assert 1e-3 < np.abs(alone - made).max() < 0.05


def test_calibrated_int8_embeddings_do_not_depend_on_company_or_padding(minilm):
    exact = embeddings(minilm, TEXTS)
    quantized = to_int8(minilm, calibration=[encoded(tiny.SENTENCES)])
    made = embeddings(quantized, TEXTS)
    assert found_partners(made) == 1
    assert (made * exact).sum(axis=1).min() > 0.95
    alone = np.concatenate([embeddings(quantized, [text], 16) for text in TEXTS])
    # Single numbers may round to the other side where sums are taken in another order.
    assert np.abs(alone - made).max() < np.abs(made - exact).max() / 4


@pytest.mark.parametrize("optimized", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("dtype", ["fp16", "int8", "calibrated"])
def test_inputs_and_outputs_stay_and_answers_nearly_so(bert, dtype, optimized):
    source = bert
    if optimized:
        source = optimize_graph(bert, config={"model_type": "bert", "num_attention_heads": 4, "hidden_size": 32})
    before = source.SerializeToString(deterministic=True)
    feeds = {side: legacy.feed(mask) for side, mask in legacy.masks().items()}
    changed = {
        "fp16": lambda: to_float16(source),
        "int8": lambda: to_int8(source),
        "calibrated": lambda: to_int8(source, calibration=feeds.values()),
    }[dtype]()
    assert source.SerializeToString(deterministic=True) == before
    assert legacy.interface(changed) == legacy.interface(bert)
    pinned = pin_graph(changed, {"batch_size": legacy.WIDTH, "sequence_length": legacy.LENGTH})
    for feed in feeds.values():
        real = feed["attention_mask"] == 1
        (expected,) = legacy.opened(bert).run(None, feed)
        for graph in (changed, pinned):
            (got,) = legacy.opened(graph).run(None, feed)
            assert np.isfinite(got).all()
            # These weights are spread far wider than trained ones, to tell inputs apart, and int8 is rough on them,
            # most of all where a CPU without VNNI lets sums saturate. Answers to other inputs are 1 and more apart.
            assert np.abs(got - expected)[real].mean() < (0.005 if dtype == "fp16" else 0.4)


def test_weights_are_halved_in_fp16(bert):
    half = to_float16(bert)
    assert len(half.SerializeToString()) < 0.55 * len(bert.SerializeToString())
    assert not [t.name for t in half.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 100]


@pytest.mark.parametrize("hidden", [-3.4028235e38, -1e9], ids=str)
def test_what_hides_a_place_stays_finite_in_fp16(hidden):
    inputs = [
        onnx_models.value("scores", TensorProto.FLOAT, [1, 3]),
        onnx_models.value("mask", TensorProto.BOOL, [1, 3]),
    ]
    nodes = [
        helper.make_node("Where", ["mask", "zero", "hidden"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["once"]),
        helper.make_node("Add", ["once", "bias"], ["twice"]),
        helper.make_node("Softmax", ["twice"], ["shares"]),
    ]
    weights = {"zero": np.float32([0]), "hidden": np.float32([hidden])}
    output = onnx_models.value("shares", TensorProto.FLOAT, [1, 3])
    half = legacy.opened(to_float16(onnx_models.build(nodes, inputs, [output], weights)))
    scores = np.float32([[-30, 2, 1]])
    (some,) = half.run(None, {"scores": scores, "mask": np.array([[True, True, False]])})
    (none,) = half.run(None, {"scores": scores, "mask": np.zeros((1, 3), bool)})
    assert some[0, 2] == 0
    assert np.isfinite(none).all()


def test_convolutions_are_quantized_with_calibration():
    path = LIGHT / "light_squeezenet.onnx"
    source, pixels = onnx.load(path), [generate_inputs(path, seed) for seed in range(2)]
    quantized = to_int8(source, calibration=pixels)
    assert legacy.interface(quantized) == legacy.interface(source)
    assert counts(quantized)["QuantizeLinear"] >= counts(quantized)["Conv"] == counts(source)["Conv"]
    (expected,), (got,) = (legacy.opened(each).run(None, pixels[0]) for each in (source, quantized))
    assert np.abs(got - expected).max() < 0.01  # shares of 1000 classes


def test_without_calibration_convolutions_stay_and_that_is_said():
    source = onnx_models.build(
        [
            helper.make_node("Conv", ["x", "kernel"], ["c"]),
            helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "head"], ["y"]),
        ],
        [onnx_models.value("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [onnx_models.value("y", TensorProto.FLOAT, ["N", 5])],
        {
            "kernel": np.random.default_rng(0).standard_normal((16, 3, 3, 3), np.float32),
            "head": np.random.default_rng(1).standard_normal((16, 5), np.float32),
        },
    )
    with pytest.warns(UserWarning, match="Most weights of this graph belong to convolutions.*Pass calibration="):
        quantized = to_int8(source)
    assert counts(quantized) | {"Conv": 1, "MatMulInteger": 1} == counts(quantized)


def test_a_graph_without_weights_cannot_be_quantized():
    with pytest.raises(InvalidModelError, match="nothing that could be quantized"):
        to_int8(onnx_models.embedder(1, 4))


def test_a_stock_decoder_is_quantized():
    source = onnx.load(stock.graphs("gpt2") / "model.onnx")
    quantized = to_int8(source)
    assert legacy.interface(quantized) == legacy.interface(source)
    assert counts(quantized)["MatMulInteger"] >= 8
    random = np.random.default_rng(0)
    feed = {"input_ids": random.integers(5, 400, (1, 4)), "attention_mask": np.ones((1, 9), np.int64)}
    feed["position_ids"] = np.arange(5, 9)[None]
    feed |= {
        value.name: random.standard_normal((1, 4, 5, 8), np.float32)
        for value in source.graph.input
        if value.name.startswith("past")
    }
    (expected, *_), (got, *_) = (legacy.opened(each).run(None, feed) for each in (source, quantized))
    assert np.corrcoef(expected.ravel(), got.ravel())[0, 1] > 0.96  # as in the test above, without VNNI


def test_nothing_is_left_behind_or_said(bert, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = root.handlers[:], root.filters[:], root.level
    to_float16(bert), to_int8(bert), to_int8(bert, calibration=[legacy.feed(legacy.masks()["right"])])
    assert (root.handlers, root.filters, root.level) == before
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


def test_calibration_is_checked(bert):
    feed = legacy.feed(legacy.masks()["right"])
    with pytest.raises(MissingInputError, match=r"calibration= is empty\. Give it some dozens"):
        to_int8(bert, calibration=[])
    with pytest.raises(ShapeMismatchError, match=r"Input 1 of calibration= does not fit.*token_type_ids.*got nothing"):
        to_int8(bert, calibration=[feed, {name: feed[name] for name in legacy.NAMES[:2]}])
    with pytest.raises(ShapeMismatchError, match="expected int64, got int32"):
        to_int8(bert, calibration=[{name: array.astype(np.int32) for name, array in feed.items()}])


def test_constants_inside_branches_stay_finite_in_fp16():
    def branch(name):
        far = helper.make_node(
            "Constant", [], [f"{name}_far"], value=helper.make_tensor("t", TensorProto.FLOAT, [1], [-1e9])
        )
        nodes = [far, helper.make_node("Add", ["x", f"{name}_far"], [name])]
        return helper.make_graph(nodes, name, [], [onnx_models.value(name, TensorProto.FLOAT, [2])])

    nodes = [helper.make_node("If", ["go"], ["y"], then_branch=branch("a"), else_branch=branch("b"))]
    inputs = [onnx_models.value("x", TensorProto.FLOAT, [2]), onnx_models.value("go", TensorProto.BOOL, [])]
    model = onnx_models.build(nodes, inputs, [onnx_models.value("y", TensorProto.FLOAT, [2])])
    half = to_float16(model)
    (got,) = legacy.opened(half).run(None, {"x": np.zeros(2, np.float32), "go": np.array(True)})
    assert np.isfinite(got).all()


def test_what_the_quantizer_logs_to_the_root_is_ours(bert, caplog):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "optimum_fixedshape")
    to_int8(bert)
    said = [record for record in caplog.records if "not specified" in record.getMessage()]
    assert said
    assert {record.name for record in said} == {"optimum_fixedshape.graph.quantize"}
