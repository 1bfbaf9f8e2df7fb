"""How far two graphs are apart: in the real places, and infinitely where one has no number."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimum_fixedshape.differences import measure_difference
from optimum_fixedshape.distances import largest_difference
from optimum_fixedshape.errors import GraphNotFoundError, ShapeMismatchError
from optimum_fixedshape.graph.pin import pin_graph
from optimum_fixedshape.graph.quantize import to_int8
from optimum_fixedshape.graph.reader import read_contract

from . import legacy, onnx_models, stock

ROWS, TOKENS = 3, 6


@pytest.fixture
def saved(tmp_path):
    def save(model, name="model.onnx"):
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save


def summing(added: np.ndarray, *, batch=ROWS, length=TOKENS) -> onnx.ModelProto:
    """Each token's id, and what is added at its place, wherever the mask says that something is real."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["column"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["real"]),
        helper.make_node("Sub", ["one", "real"], ["padding"]),
        helper.make_node("Mul", ["real", "added"], ["at_real"]),
        helper.make_node("Mul", ["padding", "added_to_padding"], ["at_padding"]),
        helper.make_node("Sum", ["column", "at_real", "at_padding"], ["last_hidden_state"]),
    ]
    inputs = [onnx_models.value(name, TensorProto.INT64, [batch, length]) for name in legacy.NAMES[:2]]
    output = onnx_models.value("last_hidden_state", TensorProto.FLOAT, [batch, length, 1])
    weights = {"last": np.array([-1]), "one": np.float32(1), "added": added[0], "added_to_padding": added[1]}
    return onnx_models.build(nodes, inputs, [output], weights)


def test_a_graph_is_no_way_from_itself_and_from_itself_pinned(saved):
    model = legacy.bert()
    pinned = saved(pin_graph(model, {"batch_size": ROWS, "sequence_length": TOKENS}), "pinned.onnx")
    assert measure_difference(saved(model), pinned, contract=read_contract(pinned)) < 1e-5


def test_a_quantized_graph_is_some_way_from_the_original(saved):
    model = legacy.bert()
    quantized = saved(to_int8(model), "int8.onnx")
    assert 0.01 < measure_difference(saved(model), quantized, contract=read_contract(quantized)) < 10


@pytest.mark.parametrize(
    ("real", "padding", "apart"), [(0, 5, 0), (0.25, 0, 0.25), (0.25, 7, 0.25), (np.nan, 0, np.inf)]
)
def test_only_what_is_real_counts(saved, real, padding, apart):
    one = saved(summing(np.zeros(2, np.float32)), "one.onnx")
    other = saved(summing(np.array([real, padding], np.float32)), "other.onnx")
    assert measure_difference(one, other, contract=read_contract(other)) == pytest.approx(apart)
    assert measure_difference(other, one, contract=read_contract(one)) == pytest.approx(apart)


def test_the_original_may_leave_its_shapes_open(saved):
    one = saved(summing(np.zeros(2, np.float32), batch="N", length="L"), "one.onnx")
    other = saved(summing(np.float32([0.5, 0])), "other.onnx")
    assert measure_difference(one, other, contract=read_contract(other)) == 0.5


def test_every_output_counts_where_there_is_no_mask(saved):
    def scaled(by):
        nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Mul", ["x", "by"], ["z"])]
        tensors = [onnx_models.value(name, TensorProto.FLOAT, [2, 3]) for name in "xyz"]
        return onnx_models.build(nodes, tensors[:1], tensors[1:], {"by": np.float32([by])})

    one, other = saved(scaled(1), "one.onnx"), saved(scaled(1.5), "other.onnx")
    apart = [measure_difference(one, other, contract=read_contract(other), seeds=[seed]) for seed in range(3)]
    assert min(apart) > 0.1
    assert measure_difference(one, other, contract=read_contract(other)) == max(apart)


def test_decoders_with_a_cache_are_compared_by_their_new_tokens_and_caches(saved):
    path = stock.graphs("gpt2") / "model.onnx"
    model = onnx.load(path)
    sizes = {"batch_size": 2, "past_sequence_length": 5, "sequence_length": 3, "total_sequence_length": 8}
    pinned = saved(pin_graph(model, sizes), "pinned.onnx")
    assert measure_difference(path, pinned, contract=read_contract(pinned)) < 1e-4
    for weight in model.graph.initializer:
        if list(weight.dims) == [32] and weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.1), weight.name))
    changed = saved(pin_graph(model, sizes), "changed.onnx")
    assert measure_difference(path, changed, contract=read_contract(changed)) > 0.01


def test_graphs_of_other_outputs_cannot_be_compared(saved):
    one = saved(onnx_models.embedder(2, 4, width=4), "one.onnx")
    other = saved(onnx_models.embedder(2, 4, width=5), "other.onnx")
    with pytest.raises(ShapeMismatchError, match=r"\[2, 4, 4\].*and \[2, 4, 5\].*of the same model"):
        measure_difference(one, other, contract=read_contract(other))
    with pytest.raises(GraphNotFoundError):
        measure_difference(one, other.with_name("none.onnx"), contract=read_contract(other))


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1.0, 2.0], [1.5, 2.0], 0.5),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0),
        ([NAN, 1.0], [0.0, 1.0], INF),
        ([0.0, 1.0], [NAN, 1.0], INF),
        ([INF], [-INF], INF),
        ([INF], [3.0], INF),
        ([True, False], [True, True], 1),
        ([3, 9], [5, 9], 2),
        (["a"], ["a"], 0),
        (["a"], ["b"], INF),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0),
    ],
    ids=str,
)
def test_the_largest_difference_of_two_arrays(one, other, apart):
    assert largest_difference(np.array(one), np.array(other)) == apart


def test_values_that_are_no_arrays_are_the_same_or_not():
    assert largest_difference([{0: 0.5}], [{0: 0.5}]) == 0
    assert largest_difference([{0: 0.5}], [{0: 0.4}]) == INF
