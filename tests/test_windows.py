"""Rows cut into windows and put together again: no token is lost, and each answer comes from where it is best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_fixedshape.contract import BATCH, SAMPLES, SEQUENCE, Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InputTooLongError, ShapeMismatchError
from optimum_fixedshape.windows import cut_windows, merge_windows, plan_windows

ROW = (Axis(1, role=BATCH), Axis(6, role=SEQUENCE))
INPUTS = (TensorSpec("input_ids", "int64", ROW), TensorSpec("flags", "int64", (Axis(1, role=BATCH), Axis(2))))


def contract(*outputs: TensorSpec) -> ShapeContract:
    return ShapeContract(INPUTS, outputs)


def single(tokens: int) -> np.ndarray:
    """The special tokens mask of one text: [CLS] text [SEP]."""
    return np.array([1, *[0] * tokens, 1])


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """A row of one or two texts with special tokens around them, and a limit that it exceeds and that can be kept."""
    mask = [1] * draw(st.integers(0, 2))
    for text in draw(st.lists(st.integers(2, 60), min_size=1, max_size=2)):
        mask += [0] * text + [1] * draw(st.integers(0, 2))
    special = np.array(mask)
    return special, draw(st.integers(len(special) - len(longest_text(special)) + 1, len(special) - 1))


def longest_text(special: np.ndarray) -> range:
    ends = np.flatnonzero([1, *special, 1])
    first = int(np.diff(ends).argmax())
    return range(ends[first], ends[first + 1] - 1)


@settings(max_examples=100, deadline=None)
@given(rows())
def test_every_token_is_owned_once_by_a_window_that_holds_it(row):
    special, limit = row
    windows = plan_windows(special, limit)
    assert windows.length == len(special) == len(windows.owner)
    for places in windows.tokens:
        assert len(places) == limit
        assert (np.diff(places) > 0).all()
        assert set(np.flatnonzero(special)) <= set(places), "every window repeats the special tokens"
    for place, owner in enumerate(windows.owner):
        assert place in windows.tokens[owner]
    assert set(windows.owner) <= set(range(len(windows.tokens)))
    assert (np.diff(windows.owner) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(rows())
def test_the_owner_sees_most_of_a_tokens_surroundings(row):
    special, limit = row
    windows = plan_windows(special, limit)
    text = longest_text(special)
    for place in text:
        seen = {}
        for number, places in enumerate(windows.tokens):
            mine = [p for p in places if p in text]
            if place in mine:
                # The ends of the whole text are no edges: nothing lies beyond them.
                left = place - mine[0] if mine[0] > text[0] else len(special)
                right = mine[-1] - place if mine[-1] < text[-1] else len(special)
                seen[number] = min(left, right)
        assert seen[windows.owner[place]] == max(seen.values())


def test_windows_share_half_of_their_text():
    windows = plan_windows(single(10), 8)
    assert [places.tolist() for places in windows.tokens] == [
        [0, 1, 2, 3, 4, 5, 6, 11],
        [0, 4, 5, 6, 7, 8, 9, 11],
        [0, 5, 6, 7, 8, 9, 10, 11],
    ]
    assert windows.owner.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_a_pair_repeats_its_shorter_text():
    special = np.array([1, 0, 0, 1, *[0] * 9, 1])
    windows = plan_windows(special, 9)
    assert all(set(places) >= {0, 1, 2, 3, 13} for places in windows.tokens)
    assert {len(places) for places in windows.tokens} == {9}


def test_a_row_of_many_tokens_is_planned_in_no_time_and_little_memory():
    windows = plan_windows(single(1_000_000), 128)
    assert len(windows.tokens) == pytest.approx(1_000_000 / 63, abs=2)


@pytest.mark.parametrize(
    ("special", "limit", "repeated"),
    [(np.array([1, 0, 0, 0, 1, 0, 0, 0, 0, 1]), 6, 6), (single(5), 2, 2), (np.ones(9), 4, 9)],
    ids=["pair", "single", "only special tokens"],
)
def test_no_room_is_an_error_that_names_the_limit(special, limit, repeated):
    message = rf"row has {len(special)} tokens, of which every window must repeat {repeated}, .* holds {limit}\. Ways"
    with pytest.raises(InputTooLongError, match=message) as caught:
        plan_windows(special, limit)
    assert (caught.value.size, caught.value.limit, caught.value.axis) == (len(special), limit, SEQUENCE)


def test_inputs_are_cut_along_the_tokens_alone():
    windows = plan_windows(single(8), 6)
    ids, flags = np.arange(10)[None] * 10, np.array([[7, 8]])
    pieces = cut_windows({"input_ids": ids, "flags": flags, "unknown": ids}, contract(), windows)
    assert [set(piece) for piece in pieces] == [{"input_ids", "flags"}] * len(windows.tokens)
    for piece, places in zip(pieces, windows.tokens, strict=True):
        np.testing.assert_array_equal(piece["input_ids"], [places * 10])
        np.testing.assert_array_equal(piece["flags"], flags)


@settings(max_examples=50, deadline=None)
@given(rows(), st.sampled_from(["float32", "float16", "int64"]))
def test_what_follows_the_tokens_comes_from_their_owners(row, dtype):
    special, limit = row
    windows = plan_windows(special, limit)
    spec = TensorSpec("last_hidden_state", dtype, (*ROW, Axis(2)))
    outputs = [
        {"last_hidden_state": np.stack([places, np.full(limit, number)], -1)[None].astype(dtype)}
        for number, places in enumerate(windows.tokens)
    ]
    merged = merge_windows(outputs, contract(spec), windows)["last_hidden_state"]
    assert merged.dtype == dtype
    np.testing.assert_array_equal(merged[0, :, 0], np.arange(len(special)))
    np.testing.assert_array_equal(merged[0, :, 1], windows.owner)


def test_what_stands_for_the_whole_row_is_averaged():
    windows = plan_windows(single(10), 8)
    specs = [TensorSpec(name, "float32", (Axis(1, role=BATCH), Axis(2))) for name in ("logits", "pooler_output")]
    values = [np.array([[number, 1]], "float32") for number in (1, 2, 6)]
    merged = merge_windows([{"logits": v, "pooler_output": v} for v in values], contract(*specs), windows)
    np.testing.assert_allclose(merged["logits"], [[3, 1]])
    np.testing.assert_allclose(merged["pooler_output"], [[(6 * 1 + 2 * 2 + 4 * 6) / 12, 1]], rtol=1e-6)
    assert {array.dtype for array in merged.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TensorSpec("attentions.0", "float32", (*ROW, Axis(6, role=SEQUENCE))), "relates tokens to tokens"),
        (TensorSpec("label", "int64", ROW[:1]), "no floating point numbers to average"),
    ],
    ids=["token by token", "integers"],
)
def test_what_cannot_be_merged_is_an_error(spec, message):
    windows = plan_windows(single(10), 8)
    outputs = [{spec.name: np.zeros([1] * len(spec.axes), spec.dtype)}] * len(windows.tokens)
    with pytest.raises(ShapeMismatchError, match=message):
        merge_windows(outputs, contract(spec), windows)


def test_frames_of_a_sound_cannot_be_merged():
    windows = plan_windows(np.zeros(50, bool), 20, SAMPLES)
    spec = TensorSpec("last_hidden_state", "float32", (ROW[0], Axis(20, role=SAMPLES), Axis(2)))
    outputs = [{spec.name: np.zeros((1, 20, 2), np.float32)}] * len(windows.tokens)
    with pytest.raises(ShapeMismatchError, match="holds frames of the sound and cannot be merged from windows"):
        merge_windows(outputs, contract(spec), windows)
