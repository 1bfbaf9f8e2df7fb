"""Pipelines are shared between threads: the same answers, and no error, whatever the others ask at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import InputTooLongError

from . import tiny
from .equality import assert_same

THREADS, CALLS = 16, 500
LONG = " ".join(tiny.SENTENCES)
# Each asks the tokenizer for other settings.
CALLS_OF_A_CLASSIFIER = [
    (("Go",), {}),
    (("A quiet library",), {"top_k": None}),
    (("Rain fell on the market.",), {"padding": "max_length", "max_length": 12}),
    ((LONG,), {"truncation": True}),
    ((LONG,), {"truncation": True, "max_length": 7}),
    ((["Go", "Rain fell on the market.", "Nobody"],), {}),
    (({"text": "Rain fell", "text_pair": LONG},), {"truncation": "only_second"}),
]
CALLS_OF_A_TAGGER = [
    (("Anne of St. Gallen",), {}),
    ((LONG,), {"aggregation_strategy": "simple"}),
    ((LONG,), {"aggregation_strategy": "first", "stride": 4}),
    ((["Anne", "Zürich"],), {"is_split_into_words": True}),
]
CALLS_OF_A_READER = [
    ((), {"question": "Who rang?", "context": LONG[:120], "doc_stride": 2}),
    ((), {"question": "Who?", "context": LONG[-80:], "doc_stride": 3, "top_k": 2}),
]


def ask_from_many_threads(pipe, calls, *, threads, times):
    """Returns what each thread got for its calls, in order; all threads start at once."""
    start = Barrier(threads)

    def work(first):
        start.wait()
        numbers = [(first + step) % len(calls) for step in range(times)]
        return [(number, pipe(*calls[number][0], **calls[number][1])) for number in numbers]

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads)))


@pytest.mark.parametrize(
    ("task", "calls", "times"),
    [
        ("text-classification", CALLS_OF_A_CLASSIFIER, CALLS),
        ("token-classification", CALLS_OF_A_TAGGER, 30),
        ("question-answering", CALLS_OF_A_READER, 20),
    ],
)
def test_many_threads_get_the_answers_of_one(exported, task, calls, times):
    pipe = pipeline(task, model=exported(task).folder)
    alone = [pipe(*args, **kwargs) for args, kwargs in calls]
    for answers in ask_from_many_threads(pipe, calls, threads=THREADS, times=times):
        assert len(answers) == times
        for number, answer in answers:
            assert_same(answer, alone[number], tolerance=1e-6)


def test_errors_of_one_thread_do_no_harm_to_others(exported):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    alone = pipe("Go")

    def work(number):
        if number % 2:
            with pytest.raises(InputTooLongError):
                pipe(LONG)
        return pipe("Go")

    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(work, range(400)):
            assert_same(answer, alone, tolerance=1e-6)


def test_streams_of_one_pipeline_do_not_mix(exported):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    texts = [["Go", "A quiet library", "Rain fell on the market."][number % 3 :] * 20 for number in range(8)]
    alone = [pipe(some) for some in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda some: list(pipe(text for text in some)), texts))
    assert_same(found, alone, tolerance=1e-6)
