"""Any kind of input, of any length and number: the original's answers, in the caller's order, out of full batches."""

from __future__ import annotations

import functools

import datasets
import pytest
import torch
from transformers.pipelines.pt_utils import KeyDataset, KeyPairDataset

from optimum_fixedshape import pipeline
from optimum_fixedshape.contract import SEQUENCE, Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InputTooLongError
from optimum_fixedshape.pipelines.ahead import items_at_once

from . import tiny
from .equality import assert_same
from .pipes import TASKS, make_pipes, text_of

TEXTS = ["Rain fell on the market.", "A quiet library", "Go", "Seven engineers measured the bridge, twice."]
PAIRS = [{"text": text, "text_pair": "on time"} for text in TEXTS]
LABELS = {"candidate_labels": ["weather", "trade"]}
CONTEXT = " ".join(tiny.SENTENCES)
ITEMS = {
    "text-classification": TEXTS,
    "token-classification": TEXTS,
    "question-answering": [
        {"question": "Who counts boats?", "context": CONTEXT},
        {"question": "What?", "context": "Go"},
    ],
    "fill-mask": ["The [MASK] is late.", "Rain [MASK] on the market.", "[MASK]"],
    "feature-extraction": TEXTS,
    "zero-shot-classification": TEXTS,
}
LONG = "Anne of St. Gallen rang the bells of Zürich, while nobody in the quiet library expected a tram to be late"


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index % len(self.items)] if index < 100 else None  # many datasets go on behind their end


class Endless(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def table(items):
    return datasets.Dataset.from_list([{"text": item} for item in items])


LISTS = {"list": list, "column of a dataset": lambda items: table(items)["text"]}
STREAMS = {
    "generator": lambda items: (item for item in items),
    "dataset of torch": Items,
    "iterable dataset of torch": Endless,
    "KeyDataset": lambda items: KeyDataset([{"key": item} for item in items], "key"),
}
LIBRARY = {
    "Dataset": lambda items: datasets.Dataset.from_list(items),
    "IterableDataset": lambda items: datasets.Dataset.from_list(items).to_iterable_dataset(),
    "KeyDataset": lambda items: KeyDataset(datasets.Dataset.from_list(items), "text"),
    "column of an IterableDataset": lambda items: datasets.Dataset.from_list(items).to_iterable_dataset()["text"],
}


@pytest.fixture(scope="module")
def pipes(exported):
    return functools.cache(functools.partial(make_pipes, exported))


@pytest.fixture(scope="module")
def answers(pipes):
    """The original's answers to ITEMS, asked one by one."""

    def ask(task):
        named = LABELS if task == "zero-shot-classification" else {}
        return pipes(task).ask_original((item for item in ITEMS[task]), **named)

    return functools.cache(ask)


def arguments_of(task):
    return LABELS if task == "zero-shot-classification" else {}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", [*LISTS, *STREAMS])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_every_kind_of_input(pipes, answers, task, kind, batch_size):
    inputs = (LISTS | STREAMS)[kind](ITEMS[task])
    found = pipes(task).ours(inputs, batch_size=batch_size, num_workers=2, **arguments_of(task))
    assert isinstance(found, list) is (kind in LISTS)
    assert_same(list(found), answers(task))


@pytest.mark.parametrize("kind", LIBRARY)
def test_the_datasets_library(pipes, answers, kind):
    rows = [{"text": text} for text in TEXTS]
    assert_same(list(pipes("text-classification").ours(LIBRARY[kind](rows))), answers("text-classification"))


def test_pairs_of_texts(pipes):
    both = pipes("text-classification")
    expected = both.ask_original(PAIRS)
    rows = [{"a": pair["text"], "b": pair["text_pair"]} for pair in PAIRS]
    for inputs in (PAIRS, Items(PAIRS), KeyPairDataset(rows, "a", "b"), datasets.Dataset.from_list(PAIRS)):
        assert_same(list(both.ours(inputs)), expected)
    assert_same(both.ours(PAIRS[0]), both.ask_original(PAIRS[0]))


@pytest.mark.parametrize("task", TASKS)
def test_nothing_and_a_single_item(pipes, answers, task):
    both, named = pipes(task), arguments_of(task)
    assert both.ours([], **named) == []
    assert list(both.ours(iter_of([]), **named)) == []
    assert_same(both.ours(ITEMS[task][:1], **named), both.ask_original(ITEMS[task][:1], **named))
    assert_same(both.ours(ITEMS[task][0], **named), both.ask_original(ITEMS[task][0], **named))


def iter_of(items, read=None):
    for index, item in enumerate(items):
        if read is not None:
            read.append(index)
        yield item


def test_streams_have_the_length_of_their_input_and_start_again(pipes, answers):
    ours = pipes("text-classification").ours
    stream = ours(Items(TEXTS))
    assert len(stream) == len(TEXTS)
    assert_same(list(stream), answers("text-classification"))
    assert_same(list(stream), answers("text-classification"))
    with pytest.raises(TypeError, match="no len"):
        len(ours(iter_of(TEXTS)))


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5])
def test_generators_are_read_one_batch_ahead(pipes, batch_size):
    read = []
    stream = iter(pipes("text-classification").ours(iter_of(["Go"] * 40, read), batch_size=batch_size))
    ahead = max(batch_size or 1, 2)
    for answered in range(1, 41):
        next(stream)
        in_hand = min(-(-answered // ahead) * ahead, 40)
        assert in_hand <= len(read) <= in_hand + 1, "transformers 5 takes the first item to look at it"
    assert next(stream, "end") == "end"


def test_a_stream_that_is_left_and_taken_up_again_loses_nothing(pipes, answers):
    stream = pipes("text-classification").ours(iter_of(TEXTS))
    first = next(iter(stream))
    assert_same([first, *stream], answers("text-classification"))


def runs(pipe):
    return [stats.runs for stats in pipe.model.stats], sum(stats.rows for stats in pipe.model.stats)


def test_lists_run_in_full_batches_grouped_by_rung(pipes):
    both = pipes("text-classification")
    lengths = [3, 12, 8, 9, 5, 16, 7, 3, 14, 4]
    texts = [text_of(length, both.pair.tokenizer) for length in lengths]
    pipe = pipeline("text-classification", model=both.pair.folder)
    assert_same(pipe(texts), both.ask_original(texts))
    assert [dict(stats.sizes)[SEQUENCE] for stats in pipe.model.stats] == [16, 8]
    assert runs(pipe) == ([2, 3], 10)


def test_long_lists_stay_in_full_batches(pipes):
    both = pipes("text-classification")
    pipe = pipeline("text-classification", model=both.pair.folder)
    texts = [f"Go {number}" for number in range(101)]
    assert_same(pipe(texts), both.ask_original(texts))
    assert runs(pipe) == ([0, 51], 101)


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
def test_every_length_that_the_graph_holds(pipes, task):
    both = pipes(task)
    texts = ["", *(text_of(length, both.pair.tokenizer) for length in range(3, 17))]
    assert_same(both.ours(texts), both.ask_original(iter_of(texts)))
    for text in texts:
        assert_same(both.ours(text), both.ask_original(text))


@pytest.mark.parametrize("at", [0, 1, 57, 99])
def test_a_text_that_is_too_long_is_named(pipes, at):
    both = pipes("text-classification")
    texts = ["Go"] * 100
    texts[at] = text_of(17, both.pair.tokenizer)
    message = rf"Item {at}: The item has sequence_length 17, .* \(rungs: 8, 16\)\. Ways out: truncation=True"
    for inputs in (texts, iter_of(texts), Items(texts)):
        with pytest.raises(InputTooLongError, match=message) as caught:
            list(both.ours(inputs))
        error = caught.value
        assert (error.index, error.size, error.limit, error.axis) == (at, 17, 16, SEQUENCE)
    both.assert_same(TEXTS)


def test_what_came_before_an_error_is_still_answered(pipes, answers):
    stream = iter(pipes("text-classification").ours(iter_of([*TEXTS[:3], LONG, "Go"])))
    assert_same([next(stream) for _ in range(3)], answers("text-classification")[:3])
    with pytest.raises(InputTooLongError, match="Item 3"):
        next(stream)


@pytest.mark.parametrize("before", [2, 3])
def test_what_came_before_an_error_of_the_stream_is_still_answered(pipes, answers, before):
    def texts():
        yield from TEXTS[:before]
        raise ConnectionError("The stream broke.")

    stream = iter(pipes("text-classification").ours(texts()))
    assert_same([next(stream) for _ in range(before)], answers("text-classification")[:before])
    with pytest.raises(ConnectionError, match="The stream broke"):
        next(stream)


def test_a_graph_without_rows_takes_one_item_at_a_time():
    assert items_at_once(ShapeContract((TensorSpec("x", "float32", (Axis(3),)),), ()), TEXTS, 8) == 1
