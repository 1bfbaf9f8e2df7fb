"""What each axis stands for, and on what evidence."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from optimum_fixedshape.caches import Place, place_of
from optimum_fixedshape.contract import Axis
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.roles import with_frames

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


FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
IMAGE = ("batch_size", "num_channels", "height", "width")
LAYOUTS = [
    ("pixel_values", [1, 3, 32, 48], IMAGE),
    ("pixel_values", [1, 32, 48, 3], ("batch_size", "height", "width", "num_channels")),
    ("input.1", ["n", 32, 48, 1], ("batch_size", "height", "width", "num_channels")),
    ("pixel_values", [None, None, None, None], IMAGE),
    ("pixel_values", [1, 12, 32, 48], IMAGE),
    ("pixel_values", [1, 8, 3, 32, 48], ("batch_size", "num_frames", *IMAGE[1:])),
    ("pixel_values", [1, 3, 8, 32, 48], ("batch_size", "num_channels", "num_frames", "height", "width")),
    ("clip", [1, 8, 32, 48, 3], ("batch_size", "num_frames", "height", "width", "num_channels")),
    ("pixel_values", [1, 256, 588], ("batch_size", "num_patches", None)),
    ("input_values", [1, 64, 128], ("batch_size", "nb_max_frames", "feature_size")),
    ("input_features", [1, 80, 3000], ("batch_size", "feature_size", "nb_max_frames")),
    ("input_features", [1, 500, 160], ("batch_size", "nb_max_frames", "feature_size")),
    ("input_features", [1, 1, 1001, 64], ("batch_size", None, "nb_max_frames", "feature_size")),
    ("mel", [1, 80, 3000], ("batch_size", "feature_size", "nb_max_frames")),
    ("waveform", [1, 16000], ("batch_size", "audio_sequence_length")),
    ("history", [1, 96, 7], (None, None, None)),
]


@pytest.mark.parametrize(("name", "shape", "roles"), LAYOUTS, ids=str)
def test_sizes_tell_the_layout(name, shape, roles):
    assert read(make_model([tensor_value(name, shape)])).inputs[0].roles() == roles


def test_masks_follow_what_they_mask():
    for name, shape, size in (("input_values", [1, 900], 900), ("input_features", [1, 500, 160], 500)):
        contract = read(make_model([tensor_value(name, shape), tensor_value("attention_mask", [1, size], INT)]))
        assert contract.input("attention_mask").roles()[1] == contract.input(name).roles()[1]


def test_two_towers_count_their_rows_apart():
    contract = read(
        make_model(
            [
                tensor_value("input_ids", [4, 8], INT),
                tensor_value("pixel_values", [2, 3, 8, 8]),
                tensor_value("attention_mask", [4, 8], INT),
            ],
            [
                tensor_value("logits_per_image", [2, 4]),
                tensor_value("logits_per_text", [4, 2]),
                tensor_value("text_embeds", [4, 16]),
                tensor_value("image_embeds", [2, 16]),
            ],
        )
    )
    assert [spec.batch_role for spec in contract.inputs] == ["text_batch_size", "image_batch_size", "text_batch_size"]
    assert roles_of(contract.outputs) == {
        "logits_per_image": ("image_batch_size", "text_batch_size"),
        "logits_per_text": ("text_batch_size", "image_batch_size"),
        "text_embeds": ("text_batch_size", None),
        "image_embeds": ("image_batch_size", None),
    }
    assert read(
        make_model(
            [tensor_value("input_features", [2, 1, 64, 32]), tensor_value("input_ids", [3, 8], INT)],
            [tensor_value("logits_per_text", [3, 2])],
        )
    ).outputs[0].roles() == ("text_batch_size", "audio_batch_size")


def test_frames_and_patches_follow_samples_and_tokens():
    sound = read(make_model([tensor_value("input_values", [1, 10])], [tensor_value("logits", [1, 4, 5])]))
    assert sound.outputs[0].roles() == ("batch_size", None, None)
    frames = with_frames(sound, ((3, 2),)).outputs[0].axes[1]
    assert (frames.role, frames.length_for(7)) == ("audio_sequence_length", 3)
    assert with_frames(sound, ((3, 3),)) == sound
    page = [tensor_value("input_ids", [1, 4], INT), tensor_value("bbox", [1, 4, 4], INT)]
    page.append(tensor_value("pixel_values", [1, 3, 8, 8]))
    document = read(make_model(page, [tensor_value("start_logits", [1, 9]), tensor_value("logits", [1, 4, 2])]))
    assert [spec.axes[1].extra for spec in document.outputs] == [5, 0]
    assert [spec.roles()[1] for spec in document.outputs] == ["sequence_length"] * 2


@pytest.mark.parametrize("name", ["past_key_values.3.key", "past_key_3", "past_3_key", "k_cache_3", "kv_cache.3.k"])
def test_usual_names_of_caches(name):
    assert place_of(name) == Place(is_cross=False, layer=3, is_value=False)


@pytest.mark.parametrize("name", ["present.3.encoder.value", "cross_v_cache_3"])
def test_names_of_caches_of_an_encoder(name):
    assert place_of(name) == Place(is_cross=True, layer=3, is_value=True)


@pytest.mark.parametrize("name", ["logits", "key_padding_mask", "position_ids", "past_key_values", "cache_position"])
def test_names_that_are_no_caches(name):
    assert place_of(name) is None
