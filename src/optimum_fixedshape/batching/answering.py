"""Runs a batch, and gives each caller the own answer or the own error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optimum_fixedshape.errors import InvalidArgumentError

from .queue import Call


def answer_calls(answer: Callable[..., Sequence[Any]], calls: list[Call]) -> None:
    """Gives every call its answer, or its own error, and empties the list.

    If a batch fails its halves are tried, and so on: what fails in the end has failed alone.

    Args:
        answer: Takes a list of items and the calls' arguments; returns one answer an item.
        calls: Started calls with equal arguments.
    """
    answers, error = _try(answer, calls)
    if error is None:
        for call, each in zip(calls, answers, strict=True):
            call.pending.set_result(each)
    elif len(calls) == 1 or not isinstance(error, Exception):
        fail_calls(calls, error)  # a thread that ends without a word would leave its callers waiting
    else:
        middle = len(calls) // 2
        answer_calls(answer, calls[:middle])
        answer_calls(answer, calls[middle:])
    calls.clear()  # an error holds the frames it came through, which must not hold the error
    del error


def fail_calls(calls: Sequence[Call], error: BaseException) -> None:
    """Gives an error to every call."""
    for call in calls:
        call.pending.set_exception(error)


def _try(answer: Callable[..., Sequence[Any]], calls: Sequence[Call]) -> tuple[Sequence[Any], BaseException | None]:
    try:
        answers = answer([call.item for call in calls], **calls[0].params)
        if len(answers) != len(calls):
            raise InvalidArgumentError(f"A batcher needs one answer an item, got {len(answers)} for {len(calls)}.")
    except BaseException as error:
        return (), error
    return answers, None
