"""Items are prepared one ahead, in order, and no thread is left behind."""

from __future__ import annotations

import threading

import pytest

from optimum_fixedshape.pipelines.lean.ahead import prepared_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prepared-ahead")]


def test_in_order_and_from_another_thread() -> None:
    made = list(prepared_ahead(range(50), lambda item: (item, threading.current_thread().name)))
    assert [item for item, _ in made] == list(range(50))
    assert all(name.startswith("prepared-ahead") for _, name in made)
    assert threads() == []


def test_one_item_needs_no_thread() -> None:
    assert list(prepared_ahead([1], lambda item: threading.current_thread())) == [threading.current_thread()]
    assert list(prepared_ahead([], lambda item: item)) == []


def test_one_ahead_and_no_more() -> None:
    begun: list[int] = []
    ready = prepared_ahead(range(9), begun.append)
    next(ready)
    next(ready)
    ready.close()
    assert len(begun) <= 4
    assert threads() == []


def test_errors_come_in_their_place() -> None:
    ready = prepared_ahead([1, 2, 0, 4], lambda item: 4 // item)
    assert [next(ready), next(ready)] == [4, 2]
    with pytest.raises(ZeroDivisionError):
        next(ready)
    assert threads() == []
