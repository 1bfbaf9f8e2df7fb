"""Many callers, one batch: each gets the own answer or the own error, whoever else is there."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from threading import Barrier, Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_fixedshape import pipeline
from optimum_fixedshape.batching import Batcher
from optimum_fixedshape.batching.queue import key_of
from optimum_fixedshape.errors import BatcherClosedError, InputTooLongError, InvalidArgumentError, QueueFullError

from . import pictures, tiny
from .equality import assert_same

TEXTS = ["Go", "A quiet library", "Rain fell on the market.", "Seven engineers measured the bridge", "Zürich", "Nobody"]
LONG = " ".join(tiny.SENTENCES)
PATIENCE = 30  # seconds until a test that hangs is given up


class Gate:
    """Answers items with their squares; each batch waits until it is let through."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.is_open = is_open

    def __call__(self, items: list[int], **params: Any) -> list[int]:
        self.batches.append(items)
        self.started.release()
        if not self.is_open:
            assert self.let.acquire(timeout=PATIENCE)
        return [item**2 for item in items]

    def open(self) -> None:
        self.is_open = True
        self.let.release(1000)

    def wait_until_started(self) -> None:
        assert self.started.acquire(timeout=PATIENCE)


def hold(gate: Gate, batcher: Batcher[int, int]) -> Future[int]:
    """Keeps the batcher's thread busy with one item until the gate opens."""
    first = batcher.submit(0)
    gate.wait_until_started()
    return first


def answers_of(futures: list[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures]


# Batches


def test_what_comes_while_a_batch_runs_shares_the_next():
    gate = Gate()
    with Batcher(gate, batch_size=4) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in range(1, 10))]
        gate.open()
        assert answers_of(futures) == [number**2 for number in range(10)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_only_equal_arguments_share_a_batch_and_the_oldest_comes_first():
    gate = Gate()
    with Batcher(gate, batch_size=4) as batcher:
        futures = [hold(gate, batcher)]
        futures += [batcher.submit(number, top_k=number % 2) for number in range(1, 7)]
        gate.open()
        answers_of(futures)
    assert gate.batches == [[0], [1, 3, 5], [2, 4, 6]]


def test_only_equal_buckets_share_a_batch():
    gate = Gate()
    with Batcher(gate, batch_size=2, bucket_of=lambda number: number > 9) as batcher:
        futures = [hold(gate, batcher), *map(batcher.submit, (1, 10, 2, 3, 11, 12))]
        gate.open()
        answers_of(futures)
    assert gate.batches == [[0], [1, 2], [10, 11], [3], [12]]


def test_an_item_without_a_bucket_is_an_error_of_its_caller():
    with Batcher(Gate(is_open=True), batch_size=2, bucket_of=len) as batcher, pytest.raises(TypeError, match="len"):
        batcher(1)


def test_a_flood_of_one_caller_delays_others_by_what_was_there_before_them():
    gate = Gate()
    with Batcher(gate, batch_size=4, max_queue=1000) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in range(1, 9))]
        futures += [batcher.submit(-1, top_k=1)]
        futures += [batcher.submit(number) for number in range(9, 200)]
        gate.open()
        answers_of(futures)
    assert gate.batches.index([-1]) == 3


def test_workers_answer_several_batches_at_once():
    both = Barrier(2)

    def answer(items: list[int]) -> list[int]:
        both.wait(PATIENCE)  # passes only if two batches are there
        return items

    with Batcher(answer, batch_size=1, workers=2) as batcher:
        assert answers_of([batcher.submit(number) for number in range(6)]) == list(range(6))


def test_a_free_worker_waits_for_those_who_were_there_a_moment_ago():
    gate = Gate()
    with Batcher(gate, batch_size=4, max_delay_ms=PATIENCE * 1000) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in (1, 2, 3))]
        gate.let.release()  # four were open together, three are left: it waits for one more
        futures[0].result(PATIENCE)
        futures.append(batcher.submit(4))
        gate.open()
        answers_of(futures)
    assert gate.batches == [[0], [1, 2, 3, 4]]


def test_a_lone_caller_waits_for_nobody():
    with Batcher(Gate(is_open=True), batch_size=4, max_delay_ms=1e9) as batcher:
        assert [batcher.submit(number).result(PATIENCE) for number in range(50)] == [n**2 for n in range(50)]


@settings(max_examples=25, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(-50, 50), st.sampled_from([{}, {"a": 1}, {"a": [1, 2]}])), max_size=60),
    batch_size=st.integers(1, 9),
    workers=st.integers(1, 3),
    max_queue=st.integers(1, 20),
)
def test_any_mix_of_calls_is_answered_as_if_alone(calls, batch_size, workers, max_queue):
    def answer(items: list[int], **params: Any) -> list[Any]:
        assert len(items) <= batch_size
        if any(item % 7 == 3 for item in items):
            raise ArithmeticError(items)
        return [(item, params) for item in items]

    def ask(call: tuple[int, dict[str, Any]]) -> Any:
        try:
            return batcher(call[0], **call[1])
        except ArithmeticError as error:
            return error.args[0]

    with (
        Batcher(answer, batch_size=batch_size, workers=workers, max_queue=max_queue) as batcher,
        ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(ask, calls))
    assert found == [[item] if item % 7 == 3 else (item, params) for item, params in calls]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": [1, "x"]}, {"a": [1, "x"]}, True),
        ({"a": [1]}, {"a": (1,)}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": {"b": None}}, {"a": {"b": None}}, True),
        ({"a": np.zeros(2)}, {"a": np.zeros(2)}, False),
    ],
)
def test_arguments_are_equal_if_nobody_could_tell_them_apart(one, other, same):
    assert (key_of(one) == key_of(other)) is same
    assert key_of(one) == key_of(dict(one))


# Errors


def test_an_error_reaches_only_its_caller():
    gate = Gate()

    def answer(items: list[int]) -> list[int]:
        squares = gate(items)
        if {3, 6} & {*items}:
            raise ValueError(f"bad: {items}")
        return squares

    with Batcher(answer, batch_size=8) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in range(1, 9))]
        gate.open()
        wait(futures, PATIENCE)
    assert [future.result() for number, future in enumerate(futures) if number not in (3, 6)] == [
        0,
        1,
        4,
        16,
        25,
        49,
        64,
    ]
    for number in (3, 6):
        error = futures[number].exception()
        assert str(error) == f"bad: [{number}]"
        assert error.__context__ is None


def test_a_wrong_number_of_answers_is_an_error():
    with (
        Batcher(lambda items: [*items, 0], batch_size=4) as batcher,
        pytest.raises(InvalidArgumentError, match="got 2"),
    ):
        batcher(1)


def test_what_stops_a_thread_is_told_to_its_callers_and_work_goes_on():
    gate = Gate()

    def answer(items: list[int]) -> list[int]:
        if 13 in items:
            raise SystemExit("stop")
        return gate(items)

    with Batcher(answer, batch_size=2) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in (13, 1, 2))]
        gate.open()
        assert [type(future.exception(PATIENCE)) for future in futures[1:3]] == [SystemExit] * 2
        assert futures[3].result(PATIENCE) == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_stopped_from_outside_is_replaced():
    with Batcher(Gate(is_open=True), batch_size=2) as batcher:
        assert batcher(2) == 4
        (thread,) = batcher._threads
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        found = [batcher.submit(number) for number in range(10)]
        done = wait(found, PATIENCE).done
        assert len(done) == 10
        assert {type(future.exception()) for future in found} <= {type(None), SystemExit, BatcherClosedError}
        assert batcher.submit(3).result(PATIENCE) == 9
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_answers_and_errors_leave_nothing_behind():
    class Thing:
        pass

    def answer(items: list[Thing], *, fail: bool = False) -> list[int]:
        if fail:
            raise ValueError("no")
        return [0] * len(items)

    gc.collect()
    gc.disable()
    try:
        with Batcher(answer, batch_size=4) as batcher:
            things = [Thing() for _ in range(8)]
            known = [weakref.ref(thing) for thing in things]
            futures = [batcher.submit(thing) for thing in things]
            answers_of(futures)
            for thing in things:
                with pytest.raises(ValueError, match="no"):
                    batcher(thing, fail=True)
            del thing, things
        assert [ref() for ref in known] == [None] * 8  # though the futures are still there, and nothing was collected
        del futures
    finally:
        gc.enable()


# Back-pressure


def test_a_full_queue_makes_threads_wait_in_order():
    gate = Gate()
    with Batcher(gate, batch_size=1, max_queue=2) as batcher, ThreadPoolExecutor(1) as pool:
        futures = [hold(gate, batcher), batcher.submit(1), batcher.submit(2)]
        outside = pool.submit(batcher.submit, 3)
        assert not wait([outside], 0.05).done
        gate.let.release()
        futures.append(outside.result(PATIENCE))
        gate.open()
        assert answers_of(futures) == [0, 1, 4, 9]
    assert gate.batches == [[0], [1], [2], [3]]


@pytest.mark.parametrize("call", ["thread", "submit", "task"])
def test_who_finds_no_place_in_time_is_told_so(call):
    gate = Gate()
    with Batcher(gate, batch_size=1, max_queue=1, timeout=0) as batcher:
        futures = [hold(gate, batcher), batcher.submit(1)]
        ways: dict[str, Callable[[], Any]] = {
            "thread": lambda: batcher(2),
            "submit": lambda: batcher.submit(2),
            "task": lambda: asyncio.run(batcher.acall(2)),
        }
        with pytest.raises(TimeoutError, match=r"1 items wait already.*Ways out") as caught:
            ways[call]()
        assert isinstance(caught.value, QueueFullError)
        assert (caught.value.max_queue, caught.value.timeout) == (1, 0)
        gate.open()
        assert answers_of(futures) == [0, 1]
    assert gate.batches == [[0], [1]]


def test_whoever_leaves_the_queue_gives_the_place_to_the_next():
    gate = Gate()
    with Batcher(gate, batch_size=4, max_queue=2) as batcher, ThreadPoolExecutor(1) as pool:
        futures = [hold(gate, batcher), batcher.submit(1), batcher.submit(2)]
        outside = pool.submit(batcher.submit, 3)
        assert futures[1].cancel()
        assert outside.result(PATIENCE).cancelled() is False
        gate.open()
    assert gate.batches == [[0], [2, 3]]


# Cancelling


def test_cancelled_futures_cost_nothing_and_harm_nobody():
    gate = Gate()
    with Batcher(gate, batch_size=4) as batcher:
        futures = [hold(gate, batcher), *(batcher.submit(number) for number in range(1, 9))]
        assert [futures[number].cancel() for number in (1, 2, 7, 7)] == [True] * 4
        assert not futures[0].cancel()
        gate.open()
        assert answers_of([future for future in futures if not future.cancelled()]) == [0, 9, 16, 25, 36, 64]
        with pytest.raises(CancelledError):
            futures[1].result()
    assert gate.batches == [[0], [3, 4, 5, 6], [8]]


def test_cancelled_tasks_leave_the_queue_inside_and_outside():
    gate = Gate()

    async def run() -> list[Any]:
        async with Batcher(gate, batch_size=4, max_queue=3) as batcher:
            first = asyncio.create_task(batcher.acall(0))
            await asyncio.to_thread(gate.wait_until_started)
            tasks = [asyncio.create_task(batcher.acall(number)) for number in range(1, 7)]
            await asyncio.sleep(0)  # each has taken its place, or waits for one
            for number in (1, 4):
                tasks[number - 1].cancel()
            await asyncio.wait([tasks[0], tasks[3]])
            gate.open()
            return await asyncio.gather(first, *tasks, return_exceptions=True)

    found = asyncio.run(run())
    assert [found[number] for number in (0, 2, 3, 5, 6)] == [0, 4, 9, 25, 36]
    assert [type(found[number]) for number in (1, 4)] == [asyncio.CancelledError] * 2
    assert sorted(number for batch in gate.batches for number in batch) == [0, 2, 3, 5, 6]


def test_a_task_that_runs_out_of_time_leaves_the_queue():
    gate = Gate()

    async def run() -> None:
        async with Batcher(gate, batch_size=4) as batcher:
            first = asyncio.create_task(batcher.acall(0))
            await asyncio.to_thread(gate.wait_until_started)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(batcher.acall(1), 0.01)
            gate.open()
            assert await first == 0

    asyncio.run(run())
    assert gate.batches == [[0]]


# Closing


def test_closing_answers_what_waits():
    gate = Gate()
    batcher = Batcher(gate, batch_size=4)
    futures = [hold(gate, batcher), batcher.submit(1)]
    gate.open()
    batcher.close()
    assert [future.done() for future in futures] == [True, True]
    assert not batcher._threads
    batcher.close()
    with pytest.raises(BatcherClosedError, match="closed"):
        batcher(1)


@pytest.mark.parametrize("drain", [True, False])
def test_closing_turns_away_who_has_no_place_and_perhaps_who_waits(drain):
    gate = Gate()
    batcher = Batcher(gate, batch_size=4, max_queue=1)
    with ThreadPoolExecutor(2) as pool:
        inside = [hold(gate, batcher), batcher.submit(1)]
        outside = pool.submit(batcher, 2)
        while not batcher._queue._outside:
            assert not wait([outside], 0.001).done
        closing = pool.submit(batcher.close, drain=drain)
        with pytest.raises(BatcherClosedError, match="before this item was started"):
            outside.result(PATIENCE)
        gate.open()
        closing.result(PATIENCE)
    assert inside[0].result() == 0
    assert inside[1].result() == 1 if drain else isinstance(inside[1].exception(), BatcherClosedError)
    assert gate.batches == [[0], [1]] if drain else [[0]]


def test_an_error_in_the_block_drops_what_waits():
    gate = Gate()

    def fail() -> None:
        with Batcher(gate, batch_size=1) as batcher:
            futures.extend([hold(gate, batcher), batcher.submit(1)])
            gate.let.release()
            raise KeyboardInterrupt

    futures: list[Future[int]] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert all(future.done() for future in futures)


def test_a_batcher_may_be_closed_from_its_own_thread():
    done = Event()
    batcher = Batcher(Gate(is_open=True), batch_size=1)
    batcher.submit(1).add_done_callback(lambda _: (batcher.close(), done.set()))
    assert done.wait(PATIENCE)


def test_a_batcher_that_nobody_closed_goes_when_it_is_idle(monkeypatch):
    monkeypatch.setattr("optimum_fixedshape.batching.batcher._IDLE_SECONDS", 0.01)
    batcher = Batcher(Gate(is_open=True), batch_size=1)
    assert batcher(2) == 4
    for thread in [*batcher._threads]:
        thread.join(PATIENCE)
    assert not batcher._threads
    assert batcher(3) == 9  # a new thread
    for thread in [*batcher._threads]:
        thread.join(PATIENCE)
    known = weakref.ref(batcher)
    del batcher, thread
    assert known() is None


@pytest.mark.parametrize(
    ("program", "prints"),
    [
        # The main thread ends while others still call.
        (
            """
            def call(number):
                sys.stdout.write(f"{batcher(number)}\\n")
            batcher = Batcher(lambda items: items, batch_size=4)
            threads = [threading.Thread(target=call, args=(7,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            """,
            "7\n7\n7\n",
        ),
        # Nobody waits for the answers.
        (
            """
            batcher = Batcher(lambda items: items, batch_size=4)
            for number in range(3):
                batcher.submit(number).add_done_callback(lambda future: print(future.result()))
            """,
            "0\n1\n2\n",
        ),
        # A fork of a batcher that was in use, and one that was not.
        (
            """
            used, new = (Batcher(lambda items: items, batch_size=4) for _ in range(2))
            used(1)
            if os.fork() == 0:
                used.close()
                try:
                    used(2)
                except BatcherClosedError as error:
                    print("fork" in str(error), new(3), flush=True)
                os._exit(0)
            os.wait()
            print(used(4))
            """,
            "True 3\n4\n",
        ),
    ],
)
def test_an_interpreter_ends_whatever_its_batchers_do(program, prints):
    head = "import os, sys, threading\nfrom optimum_fixedshape.batching import Batcher\n"
    head += "from optimum_fixedshape.errors import BatcherClosedError\n"
    foot = "\nassert not {'torch', 'transformers'} & {*sys.modules}\n"
    code = head + textwrap.dedent(program) + foot
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code]  # Python 3.12 warns of forks
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.stdout, done.returncode) == ("", prints, 0)


def test_a_batcher_is_not_pickled():
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(Batcher(len, batch_size=1))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"max_queue": 0}, {"workers": 0}, {"max_delay_ms": -1}, {"timeout": -1}]
)
def test_numbers_that_cannot_be(wrong):
    with pytest.raises(InvalidArgumentError, match=f"{next(iter(wrong))} must be"):
        Batcher(len, **{"batch_size": 1, **wrong})


# Pipelines


@pytest.mark.parametrize(
    ("task", "items", "params"),
    [
        ("text-classification", TEXTS, [{}, {"top_k": None}]),
        ("text-classification", [{"text": "Go", "text_pair": text} for text in TEXTS], [{}]),
        ("token-classification", TEXTS, [{}, {"aggregation_strategy": "simple"}]),
        ("feature-extraction", TEXTS, [{}]),
        ("fill-mask", [f"{text} [MASK]" for text in TEXTS], [{}, {"top_k": 2}]),
        ("question-answering", [{"question": "Who?", "context": text} for text in TEXTS], [{}, {"top_k": 2}]),
        ("zero-shot-classification", TEXTS, [{"candidate_labels": ["a", "b"]}, {"candidate_labels": "a, b"}]),
    ],
)
def test_a_pipeline_in_batches_answers_as_the_pipeline(exported, task, items, params):
    pipe = pipeline(task, model=exported(task).folder)
    calls = [(item, some) for item in items for some in params]
    alone = [pipe([item, item], **some)[0] for item, some in calls]
    with pipe.stream() as batcher, ThreadPoolExecutor(8) as pool:
        assert_same(list(pool.map(lambda call: batcher(call[0], **call[1]), calls)), alone, tolerance=1e-5)
        assert_same(batcher(calls[0][0], **calls[0][1]), alone[0], tolerance=1e-5)

    async def ask() -> list[Any]:
        async with pipe.stream() as batcher:
            return await asyncio.gather(*(batcher.acall(item, **some) for item, some in calls))

    assert_same(asyncio.run(ask()), alone, tolerance=1e-5)


def test_images_in_batches(specimen):
    pipe = pipeline("image-classification", model=specimen("vit").folder)
    images = [pictures.picture(width) for width in range(40, 100, 10)]
    with pipe.stream() as batcher, ThreadPoolExecutor(6) as pool:
        assert_same(list(pool.map(batcher, images)), pipe(images), tolerance=1e-5)


def test_texts_of_one_rung_share_a_batch(exported):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    with pipe.stream() as batcher:
        rungs = [
            batcher._bucket_of(item)
            for item in ("Go", "Seven engineers measured the bridge, twice.", LONG, ("Go", "on"), None)
        ]
    assert rungs == [8, 16, None, 8, 8]


def test_an_error_of_a_pipeline_names_the_one_item_of_its_caller(exported):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    with pipe.stream(batch_size=8) as batcher, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(batcher, LONG if number % 4 == 3 else "Go") for number in range(40)]
    for number, future in enumerate(futures):
        if number % 4 == 3:
            assert str(future.exception()).startswith("Item 0: ")
            assert isinstance(future.exception(), InputTooLongError)
        else:
            assert_same(future.result(), pipe(["Go"])[0], tolerance=1e-5)


def test_a_pipeline_with_a_batcher_is_pickled_without_it(exported):
    pipe = pipeline("text-classification", model=exported("text-classification").folder)
    with pipe.stream() as batcher:
        answer = batcher("Go")
        assert_same(pickle.loads(pickle.dumps(pipe))(["Go"]), [answer], tolerance=1e-6)
