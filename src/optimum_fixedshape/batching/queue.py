"""The calls that wait for a batch: bounded, in order, and left from the middle. Not for several threads by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any


class Pending(Future[Any]):
    """The answer that somebody waits for.

    Args:
        leave: Is told when nobody waits any more, and the item was not started.
    """

    def __init__(self, leave: Callable[[Pending], None]) -> None:
        super().__init__()
        self._leave = leave

    def cancel(self) -> bool:
        """Returns whether it is cancelled: what was started is not."""
        cancelled = super().cancel()
        if cancelled:
            self._leave(self)
        return cancelled


@dataclass(eq=False, slots=True)
class Call:
    """One item to answer.

    Attributes:
        item: What `answer` gets in a list.
        params: The arguments it gets.
        kind: Equal for calls that may share a batch.
        pending: Gets the answer, or an error. It knows nothing of the call, which goes when it is answered.
        place: Done when the call is in the queue, or never will be; None where it got in at once.
    """

    item: Any
    params: Mapping[str, Any]
    kind: Hashable
    pending: Pending
    place: Future[None] | None = None


class CallQueue:
    """Calls in the order they came; those that find it full wait outside, in order, for a place.

    Args:
        room: How many calls may be inside.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._inside: dict[Pending, Call] = {}
        self._outside: dict[Pending, Call] = {}

    def __len__(self) -> int:
        return len(self._inside)

    def add(self, call: Call) -> None:
        """Puts a call at the end, inside or outside."""
        if len(self._inside) < self.room:
            self._inside[call.pending] = call
        else:
            self._outside[call.pending] = call
            call.place = Future()
            call.place.set_running_or_notify_cancel()  # whoever gives up waiting for a place cannot undo it

    def remove(self, pending: Pending) -> None:
        """Takes a call out, wherever it is; the first outside gets its place."""
        self._outside.pop(pending, None)
        self._inside.pop(pending, None)
        self._admit()

    def turn_away(self, pending: Pending) -> bool:
        """Takes a call out if it is still outside, and returns whether it was."""
        return self._outside.pop(pending, None) is not None

    def take(self, most: int) -> list[Call]:
        """Takes out the oldest call, and the next oldest of its kind; those that nobody waits for are dropped."""
        if not self._inside:
            return []
        kind = next(iter(self._inside.values())).kind
        taken = list(islice((call for call in self._inside.values() if call.kind == kind), most))
        for call in taken:
            del self._inside[call.pending]
        self._admit()
        return [call for call in taken if call.pending.set_running_or_notify_cancel()]

    def clear(self, *, inside: bool) -> list[Call]:
        """Takes out and returns the calls that are outside; with `inside` the others, too."""
        cleared = [*(self._inside.values() if inside else ()), *self._outside.values()]
        if inside:
            self._inside.clear()
        self._outside.clear()
        for call in cleared:
            _tell(call)
        return cleared

    def _admit(self) -> None:
        for call in list(islice(self._outside.values(), self.room - len(self._inside))):
            del self._outside[call.pending]
            self._inside[call.pending] = call
            _tell(call)


def _tell(call: Call) -> None:
    """Whoever waits for a place need not wait any longer."""
    if call.place is not None and not call.place.done():
        call.place.set_result(None)


def key_of(value: Any) -> Hashable:
    """Returns what is equal for equal arguments of equal types; unknown objects are equal to themselves only."""
    if isinstance(value, Mapping):
        return type(value), tuple((name, key_of(each)) for name, each in sorted(value.items(), key=repr))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(key_of, value))
    return type(value), value if isinstance(value, (str, bytes, int, float, type(None))) else id(value)
