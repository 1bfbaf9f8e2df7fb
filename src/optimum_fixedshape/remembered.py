"""What was computed once and may be asked for again: bounded, and safe to share between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from .fitting import Array

Key = tuple[bytes, ...]


class RememberedStats(NamedTuple):
    """What is remembered, and how often it was of use.

    Attributes:
        entries: How many arrays.
        size: Bytes of arrays and keys.
        hits: How often what was asked for was there.
        misses: How often it was not.
    """

    entries: int
    size: int
    hits: int
    misses: int


class Remembered:
    """Arrays by key, up to a number of bytes: what was asked for longest ago goes first.

    Args:
        most: Bytes of arrays and keys.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._arrays: OrderedDict[Key, Array] = OrderedDict()
        self._size = self._hits = self._misses = 0
        self._lock = threading.Lock()

    @property
    def stats(self) -> RememberedStats:
        """What is remembered now, and how often it was of use so far."""
        with self._lock:
            return RememberedStats(len(self._arrays), self._size, self._hits, self._misses)

    def get(self, key: Key) -> Array | None:
        """Returns the array of `key`, or None."""
        with self._lock:
            if key not in self._arrays:
                self._misses += 1
                return None
            self._hits += 1
            self._arrays.move_to_end(key)
            return self._arrays[key]

    def put(self, key: Key, array: Array) -> None:
        """Keeps an array, unless it is too large by itself."""
        size = _size_of(key, array)
        with self._lock:
            if key in self._arrays or size > self.most:
                return
            self._arrays[key] = array
            self._size += size
            while self._size > self.most:
                self._size -= _size_of(*self._arrays.popitem(last=False))


def _size_of(key: Key, array: Array) -> int:
    return array.nbytes + sum(map(len, key))
