"""Fixed tokenizers at work: feeds for bare sessions, many threads, and whatever hypothesis thinks of."""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from optimum_fixedshape import AutoTokenizer, InputTooLongError, ShapeLadder

from . import tiny, words
from .equality import assert_close, assert_same

KINDS = words.FAST + words.SLOW
TEXTS = ["The tram was late.", "", "Rain fell on the market while the bells rang.", "Seven engineers", "twice"]


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return words.ladder_of(tmp_path_factory.mktemp("ladder"))


@pytest.fixture(scope="module")
def made(ladder):
    @functools.cache
    def make(kind, overflow):
        return words.fixed(kind, ladder, overflow=overflow)

    return make


def sessions_of(ladder):
    return {rung.sequence_length: ort.InferenceSession(str(rung.path)) for rung in ladder.rungs}


@pytest.mark.parametrize("rungs", [[16], [8, 16]])
def test_feeds_for_a_bare_session_give_what_the_original_gives(exported, rungs):
    pair = exported(
        "feature-extraction", shapes={"batch_size": 2, "sequence_length": rungs if len(rungs) > 1 else rungs[0]}
    )
    fixed = AutoTokenizer.from_model(pair.folder)
    sessions = sessions_of(fixed.ladder)
    for items in (TEXTS, [("The tram", "was late."), ("Rain", "fell")], TEXTS[:1], TEXTS[0], iter(TEXTS), []):
        given = [items] if isinstance(items, str) else TEXTS if not isinstance(items, list) else items
        rows = []
        for feed in fixed.feeds(items):
            assert not fixed.ladder.largest.pinned({}).mismatches(feed.arrays) or len(rungs) > 1
            output = sessions[feed.arrays["input_ids"].shape[1]].run(None, feed.arrays)[0]
            rows += list(output[: feed.rows])
        assert len(rows) == len(given)
        for row, item in zip(rows, given, strict=True):
            inputs = pair.tokenizer(*([item] if isinstance(item, str) else item), return_tensors="pt")
            with torch.no_grad():
                theirs = pair.original(**inputs).last_hidden_state[0].numpy()
            assert_close(row[: len(theirs)], theirs, tolerance=1e-4, where=repr(item))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3, "batch"])
def test_feeds_fit_every_graph(tmp_path, kind, batch):
    ladder = words.ladder_of(tmp_path, batch=batch, dtype=TensorProto.INT32)
    fixed, sessions = words.fixed(kind, ladder, overflow="truncate"), sessions_of(ladder)
    ids, counts = [], []
    for feed in fixed.feeds(text for text in TEXTS):
        length = feed.arrays["input_ids"].shape[1]
        assert set(feed.arrays) == set(words.INPUTS)
        ids += [row.tolist() for row in sessions[length].run(None, feed.arrays)[0][: feed.rows]]
        counts.append(feed.rows)
    assert counts == {1: [1] * 5, 3: [3, 2], "batch": [5]}[batch]
    for row, text in zip(ids, TEXTS, strict=True):
        whole = words.reference(kind)(text, truncation=True, padding="max_length", max_length=len(row))
        assert row == whole["input_ids"]


def test_feeds_read_a_generator_as_needed(ladder):
    read = []
    endless = (read.append(n) or f"text {n}" for n in count())
    assert len(list(islice(words.fixed("wordpiece", ladder).feeds(endless), 3))) == 3
    assert len(read) == 6


@pytest.mark.parametrize("overflow", ["error", "window"])
def test_feeds_name_the_item_that_is_too_long(ladder, overflow):
    fixed = words.fixed("wordpiece", ladder, overflow=overflow)
    feeds = fixed.feeds([*TEXTS, "word " * 20, "short"])
    with pytest.raises(InputTooLongError, match="Item 5 has sequence_length 22") as caught:
        list(feeds)
    assert caught.value.index == 5
    assert len(list(fixed.feeds(["word " * 20], truncation=True))) == 1


def test_a_dynamic_graph_gets_feeds_too(tmp_path):
    contract = words.contract(tmp_path, batch="batch", length="sequence")
    fixed = words.fixed("wordpiece", ShapeLadder((contract,)))
    feeds = list(fixed.feeds(TEXTS * 20))
    assert [feed.rows for feed in feeds] == [32, 32, 32, 4]
    assert feeds[0].arrays["input_ids"].shape == (32, 12)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes"])
def test_threads_do_not_meet(ladder, kind):
    fixed = words.fixed(kind, ladder)
    texts = [" ".join(tiny.SENTENCES * 4)] * 2
    asked = [
        {"truncation": truncation, "max_length": length, "padding": padding, "padding_side": side, **more}
        for truncation in (True, "only_first")
        for length in range(4, 17)
        for padding in (True, False, "max_length")
        for side in ("left", "right")
        for more in ({}, {"split_special_tokens": True})
    ]
    expected = [fixed(texts, **kwargs) for kwargs in asked]
    start = threading.Barrier(16)

    def work(thread):
        start.wait()
        for step in range(25):
            index = (thread * 7 + step * 11) % len(asked)
            assert_same(fixed(texts, **asked[index]), expected[index])
            length = 4 + (thread + step) % 9
            assert len(fixed.encode(texts[0], truncation=True, max_length=length)) == length

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
word = st.sampled_from(["the", "tram", "was", "late", "[SEP]", "<s>", "</s>", ",", "Zürich"])
known = st.lists(word, max_size=25).map(" ".join)
rows = st.lists(anything | known, max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=rows,
    pairs=st.none() | st.randoms(use_true_random=False),
    truncation=st.sampled_from([None, False, True, "longest_first", "only_first"]),
    overflow=st.sampled_from(["error", "truncate"]),
    side=st.sampled_from(["left", "right"]),
    special=st.booleans(),
    tensors=st.sampled_from([None, "np"]),
)
def test_anything_at_all(made, kind, texts, pairs, truncation, overflow, side, special, tensors):
    plain, fixed = words.reference(kind), made(kind, overflow)
    assume(kind != "bytes" or not any(text.endswith("</s>") for text in texts))  # of which ByT5 warns
    seconds = [] if pairs is None else [pairs.sample(texts, len(texts))]
    kwargs = {"add_special_tokens": special, "return_special_tokens_mask": True}
    cuts = truncation if truncation is not None else overflow == "truncate"
    if not texts:
        ids = fixed(texts, *seconds, return_tensors="np", **kwargs)["input_ids"]
        assert (ids.shape, ids.dtype) == ((0, 8), np.int64)
        return
    how = {"truncation": cuts, "max_length": 16} if cuts else {"truncation": False}
    try:
        bare = plain(texts, *seconds, **kwargs, **how, verbose=False)
    except Exception as error:  # Rust cannot cut the first text of a pair alone if the second fills the row
        with pytest.raises(type(error)):
            fixed(texts, *seconds, truncation=truncation, **kwargs)
        return
    longest = max(words.lengths_of(bare))
    if longest > 16:
        with pytest.raises(InputTooLongError) as caught:
            fixed(texts, *seconds, truncation=truncation, **kwargs)
        assert caught.value.size == next(length for length in words.lengths_of(bare) if length > 16)
        return
    ours = fixed(texts, *seconds, truncation=truncation, padding_side=side, return_tensors=tensors, **kwargs)
    rung = 8 if longest <= 8 else 16
    theirs = plain.pad(bare, padding="max_length", max_length=rung, padding_side=side, return_tensors=tensors)
    assert_same(ours, theirs, tolerance=0)
    if not (seconds and kind in words.SLOW):  # there every window repeats one text of a pair, which may leave no room
        windows = made(kind, "window")(texts, *seconds, **kwargs)
        assert {*windows["overflow_to_sample_mapping"]} == {*range(len(texts))}
