"""The next batch is prepared while the session runs: both let go of Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")


def prepared_ahead(items: Sequence[Item], prepare: Callable[[Item], Ready]) -> Iterator[Ready]:
    """Yields what `prepare` makes of each item, in order; another thread is one item ahead.

    The thread ends with the iterator, however that ends. What `prepare` raises is raised in the place of its item.

    Args:
        items: Of one alone no thread is made.
        prepare: Called by one thread at a time.
    """
    if len(items) < 2:
        yield from map(prepare, items)
        return
    waiting: deque[Future[Ready]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prepared-ahead") as worker:
        try:
            for item in items:
                waiting.append(worker.submit(prepare, item))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()
