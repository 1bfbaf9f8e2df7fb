"""Texts longer than the graph: an error, a cut, or windows in which every token has the original's logits."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_fixedshape import AutoTokenizer, pipeline
from optimum_fixedshape.errors import InputTooLongError

from . import tiny
from .equality import assert_same
from .onnx_models import ALL_INPUTS, export_dynamic
from .pipes import TASKS, Pipes, make_pipes, make_reference, run_in_windows, text_of

LABELS = {"candidate_labels": ["weather", "trade"]}
LONG = "Anne of St. Gallen rang the bells of Zürich, while nobody in the quiet library expected a tram to be late"
LONGER = f"{LONG} for the [MASK] of the harbour, where seven engineers measured {LONG}"
SHORT = "Rain fell on the [MASK]."
CUT = {
    "text-classification": {"truncation": True},
    "token-classification": {},
    "fill-mask": {"tokenizer_kwargs": {"truncation": True}},
    "feature-extraction": {"truncation": True},
    "zero-shot-classification": LABELS,
}


@pytest.fixture(scope="module")
def pipes(exported):
    """Both pipelines; ours with the policy that is asked for."""
    plain = functools.cache(functools.partial(make_pipes, exported))

    def make(task, overflow=None):
        both = plain(task)
        if overflow is None:
            return both
        ours = pipeline(task, model=both.ours.model, tokenizer=both.pair.tokenizer, overflow=overflow)
        return Pipes(ours, both.theirs, both.pair)

    return functools.cache(make)


@pytest.mark.parametrize("task", CUT)
def test_an_error_is_what_comes_unasked(pipes, task):
    named = LABELS if task == "zero-shot-classification" else {}
    both = pipes(task, "error" if task == "token-classification" else None)
    with pytest.raises(InputTooLongError, match=r"Item 1: The item has sequence_length \d+, .*overflow='window'"):
        both.ours([SHORT, LONGER], **named)
    both.assert_same(SHORT, **named)  # a failed call leaves the pipeline as it was


@pytest.mark.parametrize("task", CUT)
def test_truncate_cuts_as_transformers_does(pipes, task):
    # The mask has to survive the cut.
    texts = [f"The [MASK] of {LONGER}", SHORT, f"[MASK] {LONG}"]
    named = LABELS if task == "zero-shot-classification" else {}
    expected = pipes(task).ask_original((text for text in texts), **CUT[task])
    assert_same(pipes(task, "truncate").ours(texts, **named), expected)
    assert_same(pipes(task, "truncate").ours(texts, **CUT[task]), expected)
    if task != "zero-shot-classification" and task != "token-classification":
        assert_same(pipes(task).ours(texts, **CUT[task]), expected)
        assert_same(pipes(task, "window").ours(texts, **CUT[task]), expected)


def test_pairs_are_cut_as_transformers_does(pipes):
    pairs = [{"text": LONG, "text_pair": "on time"}, {"text": "Go", "text_pair": LONG}]
    for truncation in (True, "longest_first"):
        pipes("text-classification").assert_same(pairs, truncation=truncation)
    pipes("text-classification").assert_same(pairs[:1], truncation="only_first")
    pipes("text-classification").assert_same(pairs[1:], truncation="only_second")


def test_the_policy_comes_from_the_call_the_tokenizer_or_the_task(exported, pipes):
    model = pipes("text-classification").ours.model
    cutting = AutoTokenizer.from_model(model, overflow="truncate")
    assert pipeline(model=model).overflow == "error"
    assert pipeline(model=model, tokenizer=cutting).overflow == "truncate"
    assert pipeline(model=model, tokenizer=cutting, overflow="window").overflow == "window"
    assert pipes("token-classification").ours.overflow == "window"


@pytest.mark.parametrize("text", [LONG, LONGER, text_of(17, tiny.tokenizer("wordpiece"))], ids=len)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_every_token_has_the_logits_of_its_window(pipes, text, strategy):
    both = pipes("token-classification")
    encoded, windows, outputs = run_in_windows(both, text)
    logits = np.zeros((1, windows.length, outputs[0]["logits"].shape[-1]), "float32")
    for number, (places, output) in enumerate(zip(windows.tokens, outputs, strict=True)):
        for column, place in enumerate(places):
            if windows.owner[place] == number:
                logits[0, place] = output["logits"][0, column]
    arguments = {"aggregation_strategy": strategy, "ignore_labels": []}
    whole = {**encoded, "logits": torch.from_numpy(logits), "sentence": text}
    settings_of_theirs = both.theirs._sanitize_parameters(**arguments)[2]
    entities = both.ours(text, **arguments)
    assert_same(entities, both.theirs.postprocess([whole], **settings_of_theirs))
    assert_same(both.ours([SHORT, text, "Go"], **arguments)[1], entities)
    for entity in entities:
        assert entity["word"].removeprefix("##")[:1] in text[entity["start"] : entity["end"]].lower()


def test_words_and_offsets_reach_over_the_whole_text(pipes):
    both = pipes("token-classification")
    entities = both.ours(LONGER, ignore_labels=[])
    encoded = both.pair.tokenizer(LONGER, return_offsets_mapping=True)
    assert [entity["index"] for entity in entities] == list(range(1, len(encoded["input_ids"]) - 1))
    assert [(e["start"], e["end"]) for e in entities] == encoded["offset_mapping"][1:-1]
    words = both.ours(LONGER.split(), is_split_into_words=True, ignore_labels=[])
    assert [(e["start"], e["end"]) for e in words[0]] == encoded["offset_mapping"][1:-1]


@pytest.mark.parametrize(("first", "second"), [(LONG, None), (LONGER, None), (LONG, "on time"), ("Go home", LONG)])
def test_classes_are_the_mean_of_the_windows(pipes, first, second):
    both = pipes("text-classification", "window")
    _, _, outputs = run_in_windows(both, first, second)
    mean = torch.stack([output["logits"] for output in outputs]).mean(0)
    expected = both.theirs.postprocess({"logits": mean}, top_k=None, _legacy=False)
    assert_same(both.ours({"text": first, "text_pair": second} if second else first, top_k=None), expected)


def test_labels_are_repeated_in_every_window(pipes):
    both = pipes("zero-shot-classification", "window")
    chunks = []
    for label in LABELS["candidate_labels"]:
        _, _, outputs = run_in_windows(both, LONGER, f"This example is {label}.")
        mean = torch.stack([output["logits"] for output in outputs]).mean(0)
        chunks.append({"candidate_label": label, "sequence": LONGER, "logits": mean})
    assert_same(both.ours(LONGER, **LABELS), both.theirs.postprocess(chunks))


def test_embeddings_are_put_together_token_by_token(pipes):
    both = pipes("feature-extraction", "window")
    _, windows, outputs = run_in_windows(both, LONGER)
    features = both.ours(LONGER, return_tensors=True)
    assert features.shape[1] == windows.length
    for number, (places, output) in enumerate(zip(windows.tokens, outputs, strict=True)):
        mine = windows.owner[places] == number
        assert_same(features[:, places[mine]], output["last_hidden_state"][:, mine])


def test_a_mask_is_filled_where_most_of_its_surroundings_are_seen(pipes):
    both = pipes("fill-mask", "window")
    encoded, windows, outputs = run_in_windows(both, LONGER)
    place = int((encoded["input_ids"][0] == both.pair.tokenizer.mask_token_id).nonzero())
    owner = windows.owner[place]
    column = list(windows.tokens[owner]).index(place)
    assert 4 <= column <= 11, "far from both edges of its window"
    logits = torch.zeros(1, windows.length, outputs[0]["logits"].shape[-1])
    logits[0, place] = outputs[owner]["logits"][0, column]
    expected = both.theirs.postprocess({"logits": logits, "input_ids": encoded["input_ids"]})
    assert_same(both.ours(LONGER), expected)


def test_a_pair_whose_shorter_text_fills_the_window_is_named(pipes):
    pair = {"text": LONG, "text_pair": LONG}
    with pytest.raises(InputTooLongError, match=r"Item 1: The row has .* tokens, of which every window must repeat"):
        pipes("text-classification", "window").ours([SHORT, pair])


@pytest.mark.parametrize("arguments", [{}, {"doc_stride": 128, "max_seq_len": 384}, {"max_seq_len": 1000}])
def test_contexts_of_any_length_are_read(pipes, arguments):
    asked = {"question": "Who measured the bridge?", "context": " ".join(tiny.SENTENCES * 12)}
    both = pipes("question-answering")
    assert_same(both.ours(**asked, **arguments), both.ask_original(**asked, max_seq_len=32))


def test_a_question_that_leaves_no_room_is_named(pipes):
    ours = pipes("question-answering").ours
    with pytest.raises(InputTooLongError, match="Item 1: The question has"):
        ours(question=["Who?", LONGER], context=[LONG, LONG])


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """A tagger whose graph takes any rows and lengths, and whose tokenizer stops at 20 tokens."""
    original, words = tiny.original("bert", "token-classification"), copy.deepcopy(tiny.tokenizer("wordpiece"))
    words.model_max_length = 20
    folder = tmp_path_factory.mktemp("dynamic")
    export_dynamic(original, folder / "model.onnx", inputs=ALL_INPUTS[:3], outputs=["logits"])
    for part in (original.config, words):
        part.save_pretrained(folder)
    return tiny.Pair(original, words, folder, "token-classification")


def test_a_graph_of_any_length_is_cut_where_transformers_cuts(dynamic):
    theirs = make_reference(dynamic.task, dynamic.original, dynamic.tokenizer)
    both = Pipes(pipeline(dynamic.task, model=dynamic.folder), theirs, dynamic)
    both.assert_same([LONG, "Go", LONGER], ignore_labels=[])
    both.assert_same([LONG, "Go", LONGER], ignore_labels=[], batch_size=3)
    both.assert_same(LONGER, stride=3, aggregation_strategy="simple")


def test_a_graph_that_is_pinned_at_load_runs_windows(dynamic, pipes):
    shapes = {"batch_size": 2, "sequence_length": [8, 16]}
    pinned = pipeline(dynamic.task, model=dynamic.folder, model_kwargs={"shapes": shapes})
    texts = [SHORT, LONGER, "Go"]
    assert_same(pinned(texts, ignore_labels=[]), pipes("token-classification").ours(texts, ignore_labels=[]))


texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*LONG.split(), "[SEP]", "[PAD]", "##s", "灯塔", "é", "\u200d"]), max_size=24).map(
        " ".join
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(["text-classification", "token-classification", "feature-extraction"]), rows=st.lists(texts)
)
def test_any_unicode_in_any_number_of_rows(pipes, task, rows):
    both = pipes(task, "error")
    named = {"ignore_labels": []} if task == "token-classification" else {}
    lengths = [len(both.pair.tokenizer(text)["input_ids"]) for text in rows]
    too_long = next((index for index, length in enumerate(lengths) if length > 16), None)
    if too_long is None:
        assert_same(both.ours(rows, **named), both.ask_original((text for text in rows), **named))
    else:
        with pytest.raises(InputTooLongError) as caught:
            both.ours(rows, **named)
        assert caught.value.index == too_long


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(texts, max_size=4), overflow=st.sampled_from(["window", "truncate"]))
@pytest.mark.parametrize("task", TASKS)
def test_no_text_is_too_long_for_a_policy_that_cuts(pipes, task, rows, overflow):
    items = {
        "fill-mask": [f"[MASK] {text}" for text in rows],
        "question-answering": [{"question": "Who?", "context": text} for text in rows],
        "zero-shot-classification": [text or "Go" for text in rows],
    }.get(task, rows)
    named = LABELS if task == "zero-shot-classification" else {}
    assert len(list(pipes(task, overflow).ours((item for item in items), **named))) == len(rows)
