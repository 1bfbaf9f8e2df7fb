"""Contracts and ladders: what they say, what they refuse, and which rung they choose."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from optimum_fixedshape.contract import Axis, Mismatch, ShapeContract, TensorSpec
from optimum_fixedshape.errors import FixedShapeError, ShapeMismatchError
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.ladder import ShapeLadder

BATCH = Axis(1, None, "batch_size", "standard name")
FREE_BATCH = Axis(None, "batch", "batch_size", "standard name")
FREE_SEQUENCE = Axis(None, "sequence", "sequence_length", "standard name")


def sequence(size):
    return Axis(size, None, "sequence_length", "standard name")


def text_contract(batch=BATCH, tokens=FREE_SEQUENCE, **facts):
    ids, mask = (TensorSpec(name, "int64", (batch, tokens)) for name in ("input_ids", "attention_mask"))
    return ShapeContract((ids, mask), (TensorSpec("logits", "float32", (batch, tokens, Axis(9))),), **facts)


def rung(batch, *tokens):
    return text_contract(Axis(batch, None, "batch_size"), *map(sequence, tokens))


def written(tmp_path, dtype, shape):
    """A graph that gives back its input `x`, on disk."""
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_specs_print_like_signatures():
    assert (
        str(TensorSpec("input_ids", "int64", (FREE_BATCH, Axis(128), Axis(None)))) == "input_ids: int64[batch, 128, ?]"
    )
    assert str(TensorSpec("scale", "float32", ())) == "scale: float32[]"
    assert str(TensorSpec("boxes", "sequence(float32)", None)) == "boxes: sequence(float32)[?]"


def test_specs_know_their_axes():
    spec = TensorSpec("input_ids", "int64", (BATCH, FREE_SEQUENCE))
    assert spec.shape == (1, "sequence")
    assert spec.roles() == ("batch_size", "sequence_length")
    assert (spec.axis_of("sequence_length"), spec.axis_of("height")) == (1, None)
    assert not spec.is_fixed
    assert TensorSpec("scale", "float32", ()).is_fixed
    unranked = TensorSpec("boxes", "float32", None)
    assert (unranked.shape, unranked.roles(), unranked.axis_of("batch_size")) == (None, (), None)
    assert not unranked.is_fixed


def test_contracts_know_their_sizes():
    contract = text_contract()
    assert contract.input_names == ("input_ids", "attention_mask")
    assert contract.output_names == ("logits",)
    assert contract.sizes == {"batch_size": 1, "sequence_length": None}
    assert (contract.batch_size, contract.sequence_length, contract.is_fixed) == (1, None, False)
    assert rung(4, 16).is_fixed
    assert contract.input("attention_mask") is contract.inputs[1]
    with pytest.raises(KeyError):
        contract.input("pixel_values")


def test_size_of_a_role_is_the_baked_one_wherever_it_stands():
    loose, tight = (TensorSpec(name, "int64", (axis,)) for name, axis in (("a", FREE_SEQUENCE), ("b", sequence(8))))
    assert ShapeContract((loose, tight), ()).sizes == {"sequence_length": 8}
    assert ShapeContract((tight, loose), ()).sizes == {"sequence_length": 8}


def test_contracts_are_frozen_and_pickle():
    contract = text_contract(path=Path("model.onnx"), opset={"": 17}, metadata={"k": "v"})
    assert contract.sizes
    assert pickle.loads(pickle.dumps(contract)) == contract
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.producer = "me"


def test_description_names_axes_roles_and_evidence():
    contract = text_contract(path=Path("m/model.onnx"), opset={"": 17, "com.microsoft": 1}, producer="pytorch 2.6")
    assert contract.describe().splitlines() == [
        f"{Path('m/model.onnx')} (opset ai.onnx 17, com.microsoft 1; written by pytorch 2.6)",
        "inputs:",
        "  input_ids: int64[1, sequence]",
        "    1 = batch_size (standard name)",
        "    sequence = sequence_length (standard name)",
        "  attention_mask: int64[1, sequence]",
        "    1 = batch_size (standard name)",
        "    sequence = sequence_length (standard name)",
        "outputs:",
        "  logits: float32[1, sequence, 9]",
        "    1 = batch_size (standard name)",
        "    sequence = sequence_length (standard name)",
    ]


def test_description_of_a_bare_graph():
    assert ShapeContract((), ()).describe() == "graph (opset unknown; written by unknown)\ninputs:\noutputs:"


def test_plain_types_go_through_json(tmp_path):
    path = written(tmp_path, TensorProto.FLOAT, ["batch", 3])
    facts = json.loads(json.dumps(read_contract(path).to_dict()))
    assert facts["path"] == str(path)
    assert facts["opset"] == {"": 21}
    assert facts["inputs"][0]["axes"][0] == {
        **{"size": None, "symbol": "batch", "role": None},
        **{"evidence": "", "steps": [], "extra": 0},
    }
    assert text_contract().to_dict()["path"] is None


@pytest.mark.parametrize(
    ("dtype", "shape", "arrays"),
    [
        (TensorProto.FLOAT, [2, 3], {"x": np.zeros((2, 3), np.float32)}),
        (TensorProto.FLOAT, ["n", 3], {"x": np.zeros((7, 3), np.float32)}),
        (TensorProto.FLOAT, [], {"x": np.ones((), np.float32)}),
        (TensorProto.STRING, [2], {"x": np.array(["a", "b"])}),
        (TensorProto.STRING, [2], {"x": np.array(["a", "b"], object)}),
        (TensorProto.FLOAT, [2, 3], {"x": np.zeros((2, 4), np.float32)}),
        (TensorProto.FLOAT, [2, 3], {"x": np.zeros((2, 3), np.float64)}),
        (TensorProto.FLOAT, [2, 3], {"x": np.zeros(6, np.float32)}),
        (TensorProto.FLOAT, [2], {"x": np.array(["a", "b"])}),
        (TensorProto.FLOAT, [2], {}),
        (TensorProto.FLOAT, [2], {"x": np.zeros(2, np.float32), "z": np.zeros(2, np.float32)}),
    ],
)
def test_mismatches_are_what_a_session_refuses(dtype, shape, arrays, tmp_path):
    path = written(tmp_path, dtype, shape)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    try:
        session.run(None, arrays)
        refused = False
    except (InvalidArgument, ValueError):
        refused = True
    assert bool(read_contract(path).mismatches(arrays)) == refused


def test_mismatches_name_the_input_the_axis_and_both_sides():
    contract = rung(1, 16)
    arrays = {"input_ids": np.zeros((2, 16), np.int32), "labels": np.zeros(1)}
    found = contract.mismatches(arrays)
    assert found == (
        Mismatch("labels", None, "no such input", "an array"),
        Mismatch("input_ids", None, "int64", "int32"),
        Mismatch("input_ids", 0, "1", "2"),
        Mismatch("attention_mask", None, "attention_mask: int64[1, 16]", "nothing"),
    )
    assert str(found[2]) == "input_ids axis 0: expected 1, got 2"
    assert str(found[1]) == "input_ids: expected int64, got int32"
    flat = contract.mismatches({name: np.zeros(16, np.int64) for name in contract.input_names})
    assert [str(mismatch) for mismatch in flat] == [f"{name}: expected 2 axes, got 1" for name in contract.input_names]


def test_pinning_fixes_an_axis_wherever_its_role_stands():
    contract = text_contract(FREE_BATCH, FREE_SEQUENCE)
    pinned = contract.pinned({"batch_size": 2, "sequence_length": 32})
    assert pinned.is_fixed
    assert [spec.shape for spec in (*pinned.inputs, *pinned.outputs)] == [(2, 32), (2, 32), (2, 32, 9)]
    assert pinned.sizes == {"batch_size": 2, "sequence_length": 32}
    assert contract.sizes == {"batch_size": None, "sequence_length": None}
    assert pinned.pinned({"batch_size": 2}) == pinned
    assert contract.pinned({}) == contract


def test_pinning_leaves_what_has_no_role_or_no_rank():
    other, unranked = TensorSpec("other", "float32", (Axis(None, "n"),)), TensorSpec("boxes", "float32", None)
    contract = ShapeContract((TensorSpec("input_ids", "int64", (FREE_BATCH,)), other, unranked), ())
    assert contract.pinned({"batch_size": 2}).inputs[1:] == (other, unranked)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"height": 224}, "The graph has no axis 'height' to pin. It has: batch_size, sequence_length."),
        ({"sequence_length": 0}, "sequence_length must be 1 or more, got 0."),
        (
            {"batch_size": 4},
            "batch_size is baked into the graph as 1 and cannot become 4. Leave it out of shapes=, "
            "or export the model again with the size you need.",
        ),
    ],
)
def test_what_cannot_be_pinned_says_why(sizes, message):
    with pytest.raises(ShapeMismatchError) as raised:
        text_contract().pinned(sizes)
    assert str(raised.value) == message
    assert isinstance(raised.value, FixedShapeError)
    assert isinstance(raised.value, ValueError)


def test_what_cannot_be_pinned_carries_its_mismatch():
    with pytest.raises(ShapeMismatchError) as raised:
        text_contract().pinned({"batch_size": 4})
    assert raised.value.mismatches == (Mismatch("batch_size", None, "1", "4"),)


def test_ladder_holds_rungs_of_one_model():
    with pytest.raises(ValueError, match="at least one rung"):
        ShapeLadder(())
    with pytest.raises(ShapeMismatchError, match="not of one model"):
        ShapeLadder((rung(1, 16), ShapeContract(rung(1, 16).inputs[:1], ())))
    assert len(ShapeLadder((rung(1, 16), rung(1, 32)))) == 2


def test_ladder_holding_counts_item_sizes_and_not_rows():
    ladder = ShapeLadder((rung(1, 16), rung(8, 64), text_contract()))
    assert ladder.holding({"sequence_length": 16, "batch_size": 99}) == [0, 1, 2]
    assert ladder.holding({"sequence_length": 17}) == [1, 2]
    assert ladder.holding({"sequence_length": 10_000}) == [2]
    assert ladder.holding({}) == [0, 1, 2]
    assert ladder.holding({"height": 5}) == [0, 1, 2]


def test_ladder_limit_is_the_largest_size_unless_a_rung_takes_any():
    assert ShapeLadder((rung(1, 16), rung(1, 64), rung(1, 32))).limit("sequence_length") == 64
    assert ShapeLadder((rung(1, 16), text_contract())).limit("sequence_length") is None
    assert ShapeLadder((rung(1, 16),)).limit("height") is None


def test_ladder_largest_takes_the_longest_items_then_the_most_rows():
    long, short = rung(1, 64), rung(32, 16)
    assert ShapeLadder((short, long)).largest is long
    wide = rung(2, 64)
    assert ShapeLadder((long, wide, short)).largest is wide
    free = text_contract()
    assert ShapeLadder((wide, free)).largest is free


@pytest.mark.parametrize(
    ("rows", "tokens", "chosen"),
    [
        (1, 10, (1, 16)),
        (1, 17, (1, 64)),
        (8, 10, (1, 16)),  # eight runs of 16 cost 128 elements, one run of 8 x 64 costs 512
        (8, 60, (8, 64)),  # both cost 512 elements, and one run beats eight
        (3, 60, (1, 64)),
        (9, 60, (1, 64)),
        (16, 60, (8, 64)),
        (0, 10, (1, 16)),
    ],
)
def test_ladder_chooses_what_computes_least_and_then_what_runs_least(rows, tokens, chosen):
    shapes = [(1, 16), (1, 64), (8, 64)]
    ladder = ShapeLadder(tuple(rung(*shape) for shape in shapes))
    assert shapes[ladder.choose({"sequence_length": tokens, "batch_size": rows})] == chosen


def test_ladder_prefers_a_free_rung_where_it_wastes_least():
    ladder = ShapeLadder((rung(1, 64), text_contract(FREE_BATCH)))
    assert ladder.choose({"batch_size": 5, "sequence_length": 20}) == 1
    assert ladder.choose({"batch_size": 1, "sequence_length": 64}) == 0


def test_ladder_has_no_choice_for_what_no_rung_holds():
    with pytest.raises(ValueError):  # noqa: PT011 - the caller, who knows the item, says what is wrong
        ShapeLadder((rung(1, 16),)).choose({"sequence_length": 17})


def test_of_sizes_that_nothing_fills_only_the_largest_counts():
    def image(batch, edge):
        axes = (Axis(batch, role="batch_size"), Axis(edge, role="height"), Axis(edge, role="width"))
        return ShapeContract((TensorSpec("pixel_values", "float32", axes),), ())

    ladder = ShapeLadder((image(1, 8), image(1, 16), image(4, 16)))
    assert [ladder.choose({"batch_size": rows}) for rows in (1, 4)] == [1, 2]
