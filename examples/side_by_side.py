"""What the examples measure: how far answers are from PyTorch's, and how long both take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 5


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest difference between the numbers of two answers, which must be the same in all else.

    Raises:
        ValueError: They differ in more than numbers.
    """
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.keys() == theirs.keys():
        return max(largest_difference(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return max(map(largest_difference, ours, theirs), default=0.0)
    if ours != theirs:
        raise ValueError(f"{ours!r} is not {theirs!r}")
    return 0.0


def show_times(calls: Mapping[str, Callable[[], Any]]) -> None:
    """Prints the median time of each call, and how many times as fast as the first it is; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(each) for name, each in times.items()}
    slowest = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"   {name:<40}{1000 * seconds:8.1f} ms   {slowest / seconds:4.1f}x")


def show_use(stats: Sequence[Any], axis: str, unit: str) -> None:
    """Prints which graph took how many rows, smallest first."""
    for rung in sorted(stats, key=lambda rung: rung.sizes[axis]):
        print(f"   the graph of {rung.sizes[axis]} {unit} took {rung.rows}")
