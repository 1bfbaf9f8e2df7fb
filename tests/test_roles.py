"""What each axis stands for, and on what evidence."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from optimum_fixedshape.contract import Axis
from optimum_fixedshape.errors import ShapeMismatchError

from .graphs import (
    ANY_SHAPE,
    make_model,
    read,
    tensor_value,
    typed_value,
)


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
