"""Padding, splitting, joining and cutting, on arrays alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimum_fixedshape.contract import BATCH, IMAGES, SAMPLES, SEQUENCE, TEXTS, Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import MissingInputError, ShapeMismatchError
from optimum_fixedshape.fitting import Fill, collate, fit, pad_id_of, prepare
from optimum_fixedshape.unfitting import cut, join

CHOICES = "num_choices"


def spec(name, *axes, dtype="int64"):
    return TensorSpec(name, dtype, tuple(Axis(size, role=role) for size, role in axes))


def text(batch=None, length=None, names=("input_ids", "attention_mask"), dtype="int64"):
    """A contract that gives each id back, and one number for each row."""
    axes = ((batch, BATCH), (length, SEQUENCE))
    outputs = (spec("tokens", *axes), spec("rows", (batch, BATCH)))
    return ShapeContract(tuple(spec(name, *axes, dtype=dtype) for name in names), outputs)


def ids(rows, length, dtype=np.int64):
    return np.arange(1, rows * length + 1, dtype=dtype).reshape(rows, length)


# What came is completed


def test_what_is_left_out_is_what_transformers_makes_of_it():
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    ready, sizes = prepare({"input_ids": ids(2, 3)}, text(8, 16, names))
    assert list(ready) == list(names)
    assert sizes == {BATCH: 2, SEQUENCE: 3}
    assert ready["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert ready["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert ready["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_positions_do_not_depend_on_the_mask():
    left_padded = {"input_ids": ids(1, 4), "attention_mask": np.array([[0, 0, 1, 1]])}
    ready, _ = prepare(left_padded, text(names=("input_ids", "attention_mask", "position_ids")))
    assert ready["position_ids"].tolist() == [[0, 1, 2, 3]]


def test_inputs_come_back_in_the_graphs_order_and_dtype():
    given = {"token_type_ids": [[0, 1]], "input_ids": [[7, 8]], "unknown": 1}
    ready, _ = prepare(given, text(names=("input_ids", "attention_mask", "token_type_ids"), dtype="int32"))
    assert {name: str(array.dtype) for name, array in ready.items()} == {
        "input_ids": "int32",
        "attention_mask": "int32",
        "token_type_ids": "int32",
    }


@pytest.mark.parametrize("single", ["input_ids", "attention_mask", "position_ids"])
def test_one_row_goes_with_any_number(single):
    given = {name: ids(1 if name == single else 3, 2) for name in ("input_ids", "attention_mask", "position_ids")}
    ready, sizes = prepare(given, text(names=tuple(given)))
    assert sizes[BATCH] == 3
    assert ready[single].tolist() == [[1, 2]] * 3


@pytest.mark.parametrize(
    ("dtype", "wanted", "is_taken"),
    [
        (np.int32, "int64", True),
        (np.int64, "int32", True),
        (np.bool_, "int64", True),
        (np.int64, "float32", True),
        (np.float64, "float32", True),
        (np.float32, "float16", True),
        (np.float32, "int64", False),
        (np.float32, "bool", False),
        ("U3", "int64", False),
    ],
)
def test_dtypes(dtype, wanted, is_taken):
    given = {"input_ids": np.ones((1, 2)).astype(dtype)}
    contract = text(names=("input_ids",), dtype=wanted)
    if is_taken:
        assert str(prepare(given, contract)[0]["input_ids"].dtype) == wanted
    else:
        with pytest.raises(
            ShapeMismatchError, match=rf"input_ids: expected {wanted}, got .*convert them first"
        ) as caught:
            prepare(given, contract)
        assert caught.value.mismatches[0].name == "input_ids"


def test_texts_and_unknown_types_are_handed_on():
    texts = np.array([["a"]])
    assert prepare({"input_ids": texts}, text(names=("input_ids",), dtype="string"))[0]["input_ids"] is texts
    assert prepare({"input_ids": texts}, text(names=("input_ids",), dtype="sequence(int64)"))[0]["input_ids"] is texts


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input_ids": [1, 2]}, r"input_ids: expected 2 axes, as input_ids: int64\[4, 8\], got shape \(2,\)"),
        (
            {"input_ids": [[1, 2], [3]]},
            "input_ids: expected rows of one length, got rows of different lengths. Pad them",
        ),
        (
            {"input_ids": ids(2, 3), "attention_mask": ids(2, 4)},
            "attention_mask axis 1: expected sequence_length 3, got 4",
        ),
        ({"input_ids": ids(2, 3), "attention_mask": ids(3, 3)}, "attention_mask axis 0: expected batch_size 2, got 3"),
        ({"input_ids": ids(2, 0)}, "input_ids axis 1: expected sequence_length 1 or more, got 0"),
    ],
)
def test_arrays_that_contradict_each_other(arrays, message):
    with pytest.raises(ShapeMismatchError, match=message):
        prepare(arrays, text(4, 8))


def test_axes_that_nothing_fills_must_match():
    contract = ShapeContract((spec("pixels", (None, BATCH), (32, "height"), dtype="float32"),), ())
    with pytest.raises(ShapeMismatchError, match="pixels axis 1: expected 32, got 31"):
        prepare({"pixels": np.zeros((2, 31), np.float32)}, contract)


@pytest.mark.parametrize("names", [("input_ids", "pixel_values"), ("input_ids", "labels")])
def test_what_cannot_be_made_is_missing(names):
    with pytest.raises(MissingInputError, match=f"needs the input {names[1]}: .*from what came: input_ids") as caught:
        prepare({"input_ids": ids(1, 2)}, text(names=names))
    assert (caught.value.missing, caught.value.given) == ((names[1],), ("input_ids",))


def test_a_mask_of_unknown_rank_cannot_be_made():
    inputs = (spec("input_ids", (None, BATCH), (None, SEQUENCE)), spec("attention_mask", (None, BATCH), (None, None)))
    with pytest.raises(MissingInputError, match="attention_mask"):
        prepare({"input_ids": ids(1, 2)}, ShapeContract(inputs, ()))


# Padding and splitting


def test_each_input_is_filled_with_its_own_value():
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "other_mask")
    contract = text(2, 5, names)
    arrays = {name: ids(1, 3) for name in names}
    (feed,) = fit(arrays, contract, Fill(pad_token_id=9, pad_token_type_id=7))
    assert feed.rows == 1
    assert {name: array.tolist()[0] for name, array in feed.arrays.items()} == {
        "input_ids": [1, 2, 3, 9, 9],
        "attention_mask": [1, 2, 3, 0, 0],
        "token_type_ids": [1, 2, 3, 7, 7],
        "position_ids": [1, 2, 3, 4, 5],
        "other_mask": [1, 2, 3, 0, 0],
    }
    assert all(array.tolist()[1] == array.tolist()[0] for array in feed.arrays.values()), (
        "missing rows repeat a real one"
    )


def test_choices_are_repeated_so_that_no_slot_is_empty():
    axes = ((2, BATCH), (3, CHOICES), (4, SEQUENCE))
    contract = ShapeContract((spec("input_ids", *axes), spec("attention_mask", *axes)), (spec("logits", *axes[:2]),))
    arrays = {name: np.ones((1, 2, 3), np.int64) for name in ("input_ids", "attention_mask")}
    (feed,) = fit(arrays, contract, Fill())
    assert feed.arrays["attention_mask"].tolist() == [[[1, 1, 1, 0]] * 3] * 2
    joined = join([[np.arange(6).reshape(2, 3)]], [{BATCH: slice(0, 1)}], contract)
    assert cut(joined, contract, 0, {BATCH: 1, CHOICES: 2, SEQUENCE: 3})[0].tolist() == [[0, 1]]


def test_inputs_without_a_batch_axis_go_to_every_feed():
    contract = ShapeContract((spec("input_ids", (2, BATCH), (3, SEQUENCE)), spec("scale", (1, None))), ())
    feeds = list(fit({"input_ids": ids(5, 3), "scale": np.array([6])}, contract, Fill()))
    assert [feed.rows for feed in feeds] == [2, 2, 1]
    assert [feed.arrays["scale"].tolist() for feed in feeds] == [[6]] * 3


def test_the_batch_may_be_any_axis():
    contract = ShapeContract(
        (spec("input_ids", (3, SEQUENCE), (2, BATCH)),), (spec("tokens", (3, SEQUENCE), (2, BATCH)),)
    )
    arrays = {"input_ids": ids(2, 5)}
    feeds = list(fit(arrays, contract, Fill(9)))
    assert [feed.arrays["input_ids"].tolist() for feed in feeds] == [
        [[1, 2], [6, 7], [9, 9]],
        [[3, 4], [8, 9], [9, 9]],
        [[5, 5], [10, 10], [9, 9]],
    ]
    joined = join([[feed.arrays["input_ids"]] for feed in feeds], [feed.spans for feed in feeds], contract)
    assert cut(joined, contract, 0, {SEQUENCE: 2, BATCH: 5})[0].tolist() == arrays["input_ids"].tolist()


sizes = st.integers(1, 5)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4), st.none() | sizes, st.none() | st.integers(5, 8))
def test_what_goes_in_comes_out(items, batch, length):
    """The identity graph: whatever is padded, split, joined and cut gives every item back as it was."""
    contract = text(batch, length)
    prepared = [prepare({"input_ids": ids(rows, tokens) + 100 * i}, contract) for i, (rows, tokens) in enumerate(items)]
    target = {SEQUENCE: length or max(tokens for _, tokens in items)}
    arrays = collate([arrays for arrays, _ in prepared], contract, target, Fill())
    feeds = list(fit(arrays, contract, Fill()))
    for feed in feeds:
        assert not contract.mismatches(feed.arrays)
        assert feed.arrays["attention_mask"].any(axis=1).all(), "no row is all padding"
    pieces = [[feed.arrays["input_ids"], feed.arrays["input_ids"][:, 0]] for feed in feeds]
    joined = join(pieces, [feed.spans for feed in feeds], contract)
    start = 0
    for (arrays, own), (rows, _) in zip(prepared, items, strict=True):
        tokens, firsts = cut(joined, contract, start, own)
        assert tokens.tolist() == arrays["input_ids"].tolist()
        assert firsts.tolist() == arrays["input_ids"][:, 0].tolist()
        start += rows


# Outputs


def test_an_output_without_a_batch_axis_is_kept_if_it_is_always_the_same():
    contract = ShapeContract((), (spec("constant", (2, None), dtype="float32"),))
    same = np.array([1, np.nan], np.float32)
    assert join([[same], [same.copy()]], [{}, {}], contract)[0] is same
    with pytest.raises(ShapeMismatchError, match=r"constant: float32\[2\] has no axis known as the batch.*roles="):
        join([[same], [same + 1]], [{}, {}], contract)


def test_outputs_that_are_no_arrays_are_kept():
    contract = ShapeContract((), (TensorSpec("maps", "sequence(map(int64, float32))", None),))
    maps = [{0: 0.5, 1: 0.5}]
    assert cut(join([[maps]], [{}], contract), contract, 0, {BATCH: 1}) == [maps]


def test_a_cut_output_does_not_keep_the_padded_one_alive():
    contract = text(4, 100)
    (whole,) = join([[ids(4, 100), ids(1, 4)[0]]], [{BATCH: slice(0, 4)}], contract)[:1]
    assert cut([whole, whole[:, 0]], contract, 0, {BATCH: 4, SEQUENCE: 2})[0].base is None


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"pad_token_id": 3, "eos_token_id": 2}, 3),
        ({"pad_token_id": None, "eos_token_id": 2}, 2),
        ({"pad_token_id": -1, "eos_token_id": [5, 6]}, 5),
        ({"pad_token_id": None, "eos_token_id": []}, 0),
        ({}, 0),
    ],
)
def test_the_pad_id(facts, expected):
    assert pad_id_of(type("Config", (), facts)()) == expected


# Two towers, frames and patches


def towers(images, texts, length):
    """A contract that gives the product of each image and each text, and both by themselves."""
    return ShapeContract(
        (
            spec("pixel_values", (images, IMAGES), (2, "height"), dtype="float32"),
            spec("input_ids", (texts, TEXTS), (length, SEQUENCE)),
        ),
        (
            spec("logits_per_image", (images, IMAGES), (texts, TEXTS)),
            spec("logits_per_text", (texts, TEXTS), (images, IMAGES)),
            spec("text_embeds", (texts, TEXTS), (length, SEQUENCE)),
        ),
    )


def ask_towers(arrays):
    images, texts = arrays["pixel_values"].sum(1), arrays["input_ids"].sum(1)
    return [np.outer(images, texts), np.outer(texts, images), arrays["input_ids"]]


@given(images=st.integers(1, 7), texts=st.integers(1, 7), batches=st.tuples(*[st.sampled_from([None, 1, 2, 3, 8])] * 2))
def test_every_pair_of_two_towers_is_answered(images, texts, batches):
    contract = towers(*batches, 4)
    given = {"pixel_values": ids(images, 2, np.float32), "input_ids": ids(texts, 3)}
    ready, sizes = prepare(given, contract)
    feeds = list(fit(ready, contract, Fill()))
    assert not any(contract.mismatches(feed.arrays) for feed in feeds)
    outputs = join([ask_towers(feed.arrays) for feed in feeds], [feed.spans for feed in feeds], contract)
    for ours, theirs in zip(cut(outputs, contract, 0, sizes), ask_towers(given), strict=True):
        assert np.array_equal(ours, theirs)
    assert sum(feed.spans[IMAGES].start == 0 for feed in feeds) == -(-texts // (batches[1] or texts))


def test_frames_are_cut_to_those_of_the_samples():
    frames = Axis(4, role=SAMPLES, steps=((3, 2),))
    logits = TensorSpec("logits", "float32", (Axis(1, role=BATCH), frames, Axis(5)))
    contract = ShapeContract((spec("input_values", (1, BATCH), (10, SAMPLES), dtype="float32"),), (logits,))
    for samples, real in [(10, 4), (9, 4), (8, 3), (3, 1), (2, 0)]:
        (ours,) = cut([np.arange(20).reshape(1, 4, 5)], contract, 0, {BATCH: 1, SAMPLES: samples})
        assert ours.tolist() == np.arange(20).reshape(1, 4, 5)[:, :real].tolist()


def test_patches_stay_behind_the_tokens_that_are_cut():
    places = Axis(7, role=SEQUENCE, extra=3)
    contract = ShapeContract(
        (spec("input_ids", (1, BATCH), (4, SEQUENCE)),),
        (TensorSpec("attentions", "int64", (Axis(1, role=BATCH), Axis(1), places, places)),),
    )
    (ours,) = cut([np.arange(49).reshape(1, 1, 7, 7)], contract, 0, {BATCH: 1, SEQUENCE: 2})
    kept = [0, 1, 4, 5, 6]
    assert ours[0, 0].tolist() == np.arange(49).reshape(7, 7)[np.ix_(kept, kept)].tolist()
