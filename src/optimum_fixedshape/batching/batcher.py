"""`Batcher`: what callers see, and the threads that work for them.

A free worker runs what waits. While it is busy calls gather, so batches fill themselves under load, and a lone caller
waits for nobody. Only where several calls were open together a moment ago does a worker wait until as many are there
again, and not for long: callers that were answered together come back one by one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any, Generic, Self, TypeVar, cast

from optimum_fixedshape.errors import BatcherClosedError, InvalidArgumentError, QueueFullError

from .answering import answer_calls, fail_calls
from .queue import Call, CallQueue, Pending, key_of

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_IDLE_SECONDS = 5.0  # a thread with nothing to do ends, so that a batcher that nobody closed can be collected


class Batcher(Generic[Item, Answer]):
    """Answers single items in batches. Threads and event loops share it; processes do not.

    Call it from a thread, ``batcher(item)``; await it in a task, ``await batcher.acall(item)``; or take a future,
    ``batcher.submit(item)``. Whoever stops waiting (a task or a future is cancelled) leaves the queue if the item was
    not started; others in its batch notice nothing.

    First come, first served: the oldest item decides of which arguments and bucket a batch is, and the next oldest
    of the same fill it. If a batch fails its halves are tried, down to the items that fail alone, so an error reaches
    only the callers whose items cause it.

    Args:
        answer: Takes a list of items, and keyword arguments; returns one answer an item, in order. `workers` threads
            call it.
        batch_size: How many items it gets at most.
        bucket_of: Of an item, where only some should share a batch: those of equal buckets do.
        max_delay_ms: How long at most a free worker waits for callers that were there a moment ago; 0: not at all.
        max_queue: How many items may wait to be started. Whoever comes then waits for a place.
        timeout: Seconds that a call waits for a place in a full queue; None: as long as it takes, 0: not at all.
        workers: How many batches are answered at the same time.

    Raises:
        InvalidArgumentError: A number is too small.
    """

    def __init__(
        self,
        answer: Callable[..., Sequence[Answer]],
        *,
        batch_size: int,
        bucket_of: Callable[[Item], Hashable] | None = None,
        max_delay_ms: float = 1.0,
        max_queue: int = 1024,
        timeout: float | None = None,
        workers: int = 1,
    ) -> None:
        least = {"batch_size": 1, "max_delay_ms": 0, "max_queue": 1, "timeout": 0, "workers": 1}
        given = (batch_size, max_delay_ms, max_queue, timeout or 0, workers)
        for (name, smallest), value in zip(least.items(), given, strict=True):
            if value < smallest:
                raise InvalidArgumentError(f"{name} must be {smallest} or more, got {value}.")
        self.batch_size, self.workers = batch_size, workers
        self.max_delay_ms, self.timeout = max_delay_ms, timeout
        self._answer, self._bucket_of = answer, bucket_of
        self._queue = CallQueue(max_queue)
        self._changed = threading.Condition(threading.Lock())
        self._threads: set[threading.Thread] = set()
        self._process: int | None = None  # where they run
        self._free = 0  # threads that wait for calls
        self._enough = 1  # how many calls one is woken for
        self._crowd = 1  # calls that were open, running or waiting, when the last batch ended
        self._closed = False

    @property
    def max_queue(self) -> int:
        """How many items may wait to be started."""
        return self._queue.room

    def __call__(self, item: Item, **params: Any) -> Answer:
        """Returns the answer to one item; waits for it.

        Args:
            item: What `answer` gets in a list.
            **params: Arguments for `answer`; only calls with equal ones share a batch.

        Raises:
            QueueFullError: There was no place in the queue for `timeout` seconds. It is a `TimeoutError`.
            BatcherClosedError: The batcher is closed, or closes before the item is started.
        """
        pending = self.submit(item, **params)
        try:
            return pending.result()
        finally:
            pending.cancel()  # where the wait was interrupted
            del pending  # an error's traceback holds this frame, which must not hold the error

    async def acall(self, item: Item, **params: Any) -> Answer:
        """Returns the answer to one item, like a call; the event loop runs on meanwhile."""
        call = self._enter(item, params)
        try:
            if call.place is not None:
                await asyncio.wait([asyncio.wrap_future(call.place)], timeout=self.timeout)
                self._check_place(call)
            return cast("Answer", await asyncio.wrap_future(call.pending))
        finally:
            call.pending.cancel()
            del call

    def submit(self, item: Item, **params: Any) -> Future[Answer]:
        """Returns a future of the answer as soon as the item has a place in the queue; raises what a call raises."""
        call = self._enter(item, params)
        if call.place is not None:
            try:
                wait([call.place], self.timeout)
                self._check_place(call)
            except BaseException:
                call.pending.cancel()
                raise
        return call.pending

    def close(self, *, drain: bool = True) -> None:
        """Takes no more calls, and returns when what was started is answered and the threads have ended.

        Args:
            drain: Whether items that wait in the queue are answered, too. Otherwise, and where an item has no place in
                it, callers get a `BatcherClosedError`.
        """
        if self._is_elsewhere():  # pragma: no cover  # a forked process, which leaves no coverage
            return
        with self._changed:
            self._closed = True
            left = self._queue.clear(inside=not drain)
            self._changed.notify_all()
            threads = self._threads - {threading.current_thread()}
        waiting = [call for call in left if call.pending.set_running_or_notify_cancel()]
        fail_calls(waiting, BatcherClosedError("The batcher was closed before this item was started."))
        for thread in threads:
            thread.join()

    async def aclose(self, *, drain: bool = True) -> None:
        """Closes it like `close`; the event loop runs on meanwhile."""
        await asyncio.to_thread(self.close, drain=drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.aclose(drain=kind is None)

    def __reduce__(self) -> Any:
        raise TypeError("A Batcher lives with its threads and cannot be copied or pickled: make one in each process.")

    def _enter(self, item: Item, params: Mapping[str, Any]) -> Call:
        if self._is_elsewhere():  # pragma: no cover  # a forked process, which leaves no coverage
            raise BatcherClosedError(
                "The batcher was in use before this process was forked, and its threads stayed behind. Way out: make "
                "a pipeline and a batcher in each process, after the fork."
            )
        kind = (key_of(params) if params else None, self._bucket_of(item) if self._bucket_of else None)
        call = Call(item, params, kind, Pending(self._leave))
        with self._changed:
            if self._closed:
                raise BatcherClosedError("The batcher is closed. Way out: make a new one, or close it later.")
            if not self._free and len(self._threads) < self.workers:
                self._start_thread()
            self._queue.add(call)
            if self._free and len(self._queue) >= self._enough:
                self._changed.notify()
        return call

    def _leave(self, pending: Pending) -> None:
        with self._changed:
            self._queue.remove(pending)

    def _check_place(self, call: Call) -> None:
        with self._changed:
            if not self._queue.turn_away(call.pending):
                return
        raise QueueFullError(
            f"{self.max_queue} items wait already, and in {self.timeout} seconds no place became free. Ways out: try "
            "again later; a larger timeout= or max_queue=; or more machines.",
            max_queue=self.max_queue,
            timeout=self.timeout,
        )

    def _is_elsewhere(self) -> bool:
        """Whether this process is a fork of the one that the threads are in."""
        return self._process not in (None, os.getpid())

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"batcher-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.add(thread)
        self._process = os.getpid()
        _IN_USE.add(self)

    def _work(self) -> None:
        calls: list[Call] = []
        try:
            while calls := self._next_calls():
                started = len(calls)
                answer_calls(self._answer, calls)
                with self._changed:
                    self._crowd = started + len(self._queue)
        except BaseException:  # something stops this thread from outside, between batches or in one
            self._replace_thread([call for call in calls if not call.pending.done()])
            raise

    def _replace_thread(self, unanswered: list[Call]) -> None:
        fail_calls(unanswered, BatcherClosedError("The batcher's thread was stopped while it answered this item."))
        with self._changed:
            self._threads.discard(threading.current_thread())
            if len(self._queue):  # pragma: no cover  # where an item came in between, which is a race
                self._start_thread()

    def _next_calls(self) -> list[Call]:
        """Started calls for one batch; none where the thread should end."""
        with self._changed:
            while True:
                self._gather()
                if calls := self._queue.take(self.batch_size):
                    if len(self._queue):
                        self._changed.notify()  # what is left is for another thread
                    return calls
                changed = self._closed or self._wait(_IDLE_SECONDS, enough=1)
                if not len(self._queue) and (self._closed or not changed):
                    self._threads.discard(threading.current_thread())
                    return []

    def _gather(self) -> None:
        """Waits until as many calls are there as were a moment ago."""
        until = monotonic() + self.max_delay_ms / 1000
        enough = min(self.batch_size, self._crowd)
        while 0 < len(self._queue) < enough and not self._closed and (left := until - monotonic()) > 0:
            self._wait(left, enough=enough)

    def _wait(self, seconds: float, *, enough: int) -> bool:
        """Returns whether something has changed: so many calls are there, or it is closed."""
        self._free += 1
        self._enough = enough
        try:
            return self._changed.wait(seconds)
        finally:
            self._free -= 1
            self._enough = 1


_IN_USE: weakref.WeakSet[Batcher[Any, Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Threads that are daemons are stopped wherever they are when the interpreter ends: in a session, too."""
    for batcher in list(_IN_USE):
        batcher.close()
