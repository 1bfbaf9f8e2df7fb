"""A call of a fixed tokenizer: what the plain one gives when it pads to the rung, field by field."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from transformers.utils import PaddingStrategy

from optimum_fixedshape import InputTooLongError, ShapeLadder
from optimum_fixedshape.processors.text import fix_tokenizer

from . import words
from .equality import assert_same

KINDS = words.FAST + words.SLOW
CALLS = {
    "one text": (("a short text",), {}),
    "texts": ((["one", "one, two and three", ""],), {}),
    "a pair": (("a", "b c"), {}),
    "two lists": ((["a b", "c"], ["d", "e f g"]), {}),
    "tuples": (([("a", "b c"), ("d", "e")],), {}),
    "words": ((["so", "many", "words"],), {"is_split_into_words": True}),
    "lists of words": (([["a", "b"], ["words"]],), {"is_split_into_words": True}),
    "a pair of words": ((["a", "b"], ["c"]), {"is_split_into_words": True}),
    "target": ((), {"text_target": ["a b", "c"]}),
    "text and target": (("a",), {"text_target": "b c"}),
    "text and a longer target": ((["a", "b"],), {"text_target": ["a b c d e f", "g"]}),
    "no text": (("",), {}),
    "no special tokens": ((["a b c", ""],), {"add_special_tokens": False}),
}
FIELDS = {"return_special_tokens_mask": True, "return_length": True}
SETTINGS = {
    "lists": {},
    "numpy": {"return_tensors": "np"},
    "torch": {"return_tensors": "pt"},
    "left": {"padding_side": "left", **FIELDS},
    "all fields": {"return_attention_mask": True, **FIELDS},
    "all fields as arrays": {"return_tensors": "np", **FIELDS},
    "ids only": {"return_token_type_ids": False, "return_attention_mask": False},
    "longest": {"padding": "longest"},
    "true": {"padding": True, "truncation": True},
    "first": {"truncation": "only_first"},
}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return words.ladder_of(tmp_path_factory.mktemp("ladder"), (8, 16, 32))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_call(ladder, kind, setting):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    for args, extra in CALLS.values():
        kwargs = {**extra, **SETTINGS[setting]}
        if kind in words.FAST and setting in ("left", "all fields", "all fields as arrays"):
            kwargs["return_offsets_mapping"] = True
        names = [name for name in plain.model_input_names if name in words.INPUTS]
        assert fixed.model_input_names == names
        words.assert_padded(fixed(*args, **kwargs), plain, *args, rungs=(8, 16, 32), **kwargs)


@pytest.mark.parametrize("kind", words.SLOW)
def test_no_text_at_all_without_a_rust_backend(ladder, kind):
    """transformers pads nothing here, and returns an empty row."""
    encoded = words.fixed(kind, ladder)("", add_special_tokens=False)
    assert encoded["input_ids"] == [words.plain(kind).pad_token_id] * 8
    assert encoded["attention_mask"] == [0] * 8


def test_arguments_by_position(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.plain("wordpiece")
    args = (["a", "b"], ["c", "d"], None, None, False)
    words.assert_padded(fixed(*args), plain, *args, rungs=(8, 16, 32))
    assert_same(fixed("a b c", None, None, None, True, False), plain("a b c"))


@pytest.mark.parametrize("padding", [False, "do_not_pad", PaddingStrategy.DO_NOT_PAD])
@pytest.mark.parametrize("kind", KINDS)
def test_no_padding(ladder, kind, padding):
    fixed, plain = words.fixed(kind, ladder), words.plain(kind)
    for text in ("a b c", ["a", "b c"]):
        assert_same(fixed(text, padding=padding, **FIELDS), plain(text, padding=padding, **FIELDS))
    assert_same(fixed("a b c", padding=padding, return_tensors="np"), plain("a b c", return_tensors="np"), tolerance=0)


@pytest.mark.parametrize("exact_length", [True, False])
def test_ragged_arrays_stay_as_they_are(ladder, exact_length):
    fixed, plain = words.fixed("wordpiece", ladder, exact_length=exact_length), words.plain("wordpiece")
    arrays = fixed(["a", "b c"], padding=False, return_tensors="np")
    for name, rows in plain(["a", "b c"]).items():
        assert arrays[name].dtype == object
        assert [row.tolist() for row in arrays[name]] == rows


@pytest.mark.parametrize("kind", words.FAST)
def test_no_words(ladder, kind):
    no_words = {"is_split_into_words": True}
    words.assert_padded(
        words.fixed(kind, ladder)([], **no_words), words.reference(kind), [], rungs=(8, 16, 32), **no_words
    )


@pytest.mark.parametrize(
    ("asked", "length"), [({}, 32), ({"max_length": 9}, 16), ({"max_length": 4}, 8), ({"max_length": 99}, 32)]
)
def test_padding_to_a_length(ladder, asked, length):
    fixed, plain = words.fixed("wordpiece", ladder), words.plain("wordpiece")
    for text in ("a", ["a", "b c"]):
        ours = fixed(text, padding="max_length", **asked)
        assert_same(ours, plain(text, padding="max_length", max_length=length))


def test_a_max_length_beside_padding_cuts_nothing(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.plain("wordpiece")
    text = "one two three four five six seven"
    for padding in (True, "max_length"):
        assert_same(fixed(text, padding=padding, max_length=4), plain(text, padding="max_length", max_length=16))


def test_a_shorter_model_max_length_is_kept(ladder):
    plain = words.plain("wordpiece")
    fixed = words.fixed("wordpiece", ladder)
    fixed.model_max_length = 6
    text = "one two three four five six seven"
    cut = plain(text, truncation=True, max_length=6)
    assert_same(fixed(text, truncation=True), plain.pad(cut, padding="max_length", max_length=8))
    assert_same(fixed("a", padding="max_length"), plain("a", padding="max_length", max_length=8))


def test_a_wrong_padding_is_refused(ladder):
    with pytest.raises(ValueError, match="middle is not a valid PaddingStrategy"):
        words.fixed("wordpiece", ladder)("a", padding="middle")


def test_a_rung_wins_over_a_multiple(ladder):
    fixed = words.fixed("wordpiece", ladder)
    assert len(fixed("a", pad_to_multiple_of=5)["input_ids"]) == 8
    assert len(fixed.pad(fixed("a", padding=False), pad_to_multiple_of=5)["input_ids"]) == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_no_rows(ladder, kind, tensors):
    fixed = words.fixed(kind, ladder)
    encoded = fixed([], return_tensors=tensors)
    assert list(encoded) == fixed.model_input_names or set(encoded) == set(fixed.model_input_names)
    for rows in encoded.values():
        assert (
            (rows == [])
            if tensors is None
            else (tuple(rows.shape), str(rows.dtype).split(".")[-1]) == ((0, 8), "int64")
        )
    assert not encoded.encodings
    both = fixed([], [], padding="max_length", return_tensors="np", return_special_tokens_mask=True)
    assert both["special_tokens_mask"].shape == (0, 32)


@pytest.mark.parametrize(("onnx_type", "dtype"), [(TensorProto.INT64, "int64"), (TensorProto.INT32, "int32")])
def test_arrays_have_the_dtypes_of_the_graph(tmp_path, onnx_type, dtype):
    fixed = words.fixed("wordpiece", words.ladder_of(tmp_path, dtype=onnx_type))
    for padding in (True, False):
        arrays = fixed(["a b", "c d"], padding=padding, return_tensors="np")
        assert {str(array.dtype) for array in arrays.values()} == {dtype}
        tensors = fixed(["a b", "c d"], padding=padding, return_tensors="pt")
        assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    assert isinstance(fixed("a")["input_ids"][0], int)
    padded = fixed.pad({"input_ids": np.array([[1, 2], [3, 4]])})
    assert {str(array.dtype) for array in padded.values()} == {dtype}


@pytest.mark.parametrize("inputs", [("input_ids",), ("input_ids", "attention_mask"), ("token_type_ids", "input_ids")])
def test_only_what_the_graph_takes_is_made(tmp_path, inputs):
    plain = words.plain("wordpiece")
    fixed = words.fixed("wordpiece", words.ladder_of(tmp_path, inputs=inputs))
    names = [name for name in plain.model_input_names if name in inputs]
    assert list(fixed("a")) == names == fixed.model_input_names
    theirs = plain("a", padding="max_length", max_length=8)
    assert_same(fixed("a"), {name: theirs[name] for name in names})
    everything = fixed("a", return_token_type_ids=True, return_attention_mask=True)
    assert_same(everything, theirs)


def test_a_mask_is_made_for_a_graph_that_takes_one(ladder):
    plain = words.reference("no pad").__class__(tokenizer_object=words.plain("bpe")._tokenizer, pad_token="<pad>")
    plain.model_input_names = ["input_ids"]
    assert list(plain("a")) == ["input_ids"]
    fixed = fix_tokenizer(plain, ladder)
    assert fixed("a")["attention_mask"] == [1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_dynamic_graph_changes_nothing(tmp_path, kind):
    contract = words.contract(tmp_path, batch="batch", length="sequence")
    fixed, plain = words.fixed(kind, ShapeLadder((contract,))), words.plain(kind)
    assert fixed.limit is None
    for args, extra in CALLS.values():
        for more in ({}, FIELDS):
            assert_same(fixed(*args, **extra, **more), plain(*args, **extra, **more))
    long = "a " * 600
    assert_same(fixed(long, truncation=True), plain(long, truncation=True))
    pad = {"padding": "max_length", "max_length": 9, "return_tensors": "np"}
    assert_same(fixed(["a", "b c"], **pad), words.reference(kind)(["a", "b c"], **pad), tolerance=0)
    assert fixed([], return_tensors="np")["input_ids"].shape[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_padding_encoded_rows(ladder, kind):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    one, some = plain("a b c"), plain(["a", "b c"])
    for rows in (one, some, [one, plain("a")], dict(some)):
        for kwargs in ({}, {"return_tensors": "np"}, {"padding_side": "left"}, {"padding": "longest"}):
            ours = fixed.pad(_copied(rows), **kwargs)
            theirs = plain.pad(_copied(rows), **{**kwargs, "padding": "max_length", "max_length": 8})
            nested = rows is not one or not kwargs.get("return_tensors")
            assert not nested or {*words.lengths_of(ours)} == {8}
            assert_same(ours, theirs, tolerance=0)
    assert_same(fixed.pad(_copied(some), False), plain.pad(_copied(some), False))
    assert_same(fixed.pad(_copied(some), "max_length", 9), plain.pad(_copied(some), "max_length", 16))
    with pytest.raises(InputTooLongError, match="Item 1 has sequence_length 40"):
        fixed.pad({"input_ids": [[1], [1] * 40]})
    assert fixed.pad({"input_ids": []}) == {"input_ids": []}


def _copied(rows):
    return [dict(row) for row in rows] if isinstance(rows, list) else dict(rows)
