"""`suggest_ladder`: from the lengths that texts have to the ladder that computes the fewest tokens for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgumentError

_Counts = npt.NDArray[np.int64]
Lengths = Iterable[int] | Mapping[int, int]


@dataclass(frozen=True)
class LadderSuggestion:
    """The best ladder for some lengths, beside two that are easily had.

    Shares are those of the computed tokens that are real, 0 to 1: what is left is padding.

    Attributes:
        rungs: The tokens of each rung, shortest first.
        real: The share with these rungs.
        real_with_one: The share with the largest rung alone.
        real_with_doubling: The share with a rung for each power of two up to the largest rung.
        texts: How many lengths there were.
        too_long: How many of them were above the limit, and count as texts that are cut to it.
    """

    rungs: tuple[int, ...]
    real: float
    real_with_one: float
    real_with_doubling: float
    texts: int
    too_long: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the suggestion as plain types, ready for JSON."""
        return asdict(self)


def suggest_ladder(
    lengths: Lengths, max_rungs: int = 8, *, multiple_of: int = 4, limit: int | None = None
) -> LadderSuggestion:
    """Returns the ladder of at most `max_rungs` rungs that computes the fewest tokens for texts of these lengths.

    Each text is computed at the length of the smallest rung that holds it. No other choice of rungs is better: all are
    weighed, by dynamic programming. Where fewer rungs do as well, there are fewer.

    Args:
        lengths: The tokens of each text, special ones included; or how many texts there are of each length.
        max_rungs: How many rungs there may be.
        multiple_of: Rungs are multiples of it, but for `limit`; kernels are fastest at multiples of 4 or 8.
        limit: The largest rung that the model can have, such as its positions. Longer texts count as cut to it.

    Raises:
        InvalidArgumentError: There are no lengths, one is below 1, or an argument is.
    """
    for name, value in {"max_rungs": max_rungs, "multiple_of": multiple_of, "limit": limit}.items():
        if value is not None and value < 1:
            raise InvalidArgumentError(f"{name} must be 1 or more, got {value}.")
    counts, too_long = _cut_to(_counted(lengths), limit)
    present = np.flatnonzero(counts)
    sizes = np.unique(_rounded_up(present, multiple_of, limit))
    # Texts that a rung of each size holds.
    held = np.cumsum(counts)[np.minimum(sizes, len(counts) - 1)]
    rungs = sizes[_best_rungs(sizes, held, max_rungs)]
    doubling = [2**power for power in range(int(rungs[-1]).bit_length()) if 2**power < rungs[-1]]
    return LadderSuggestion(
        tuple(rungs.tolist()),
        real=_real_share(counts, rungs),
        real_with_one=_real_share(counts, rungs[-1:]),
        real_with_doubling=_real_share(counts, [*doubling, *rungs[-1:]]),
        texts=int(counts.sum()),
        too_long=too_long,
    )


def real_share(lengths: Lengths, rungs: Sequence[int]) -> float:
    """Returns the share of the computed tokens that are real, 0 to 1, where texts of these lengths run on these rungs.

    Args:
        lengths: As for `suggest_ladder`. Those above the largest rung count as cut to it.
        rungs: The tokens of each rung.

    Raises:
        InvalidArgumentError: There are no lengths or no rungs, or one is below 1.
    """
    if not len(rungs) or min(rungs) < 1:
        raise InvalidArgumentError(f"rungs must be sizes of 1 or more, got {list(rungs)}.")
    return _real_share(_cut_to(_counted(lengths), max(rungs))[0], rungs)


def _counted(lengths: Lengths) -> _Counts:
    """How many texts there are of each length, counted from 0."""
    if isinstance(lengths, Mapping):
        sizes, weights = (np.array([*each], np.int64) for each in (lengths.keys(), lengths.values()))
    else:
        sizes = np.array(lengths if isinstance(lengths, (list, np.ndarray)) else [*lengths])
        weights = np.ones(len(sizes), np.int64)
    if not weights.sum() or weights.min() < 0:
        raise InvalidArgumentError("There are no lengths to suggest a ladder for.")
    if sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise InvalidArgumentError(f"Lengths are whole numbers of 1 or more, got {sizes.min()}.")
    counts = np.zeros(int(sizes.max()) + 1, np.int64)
    np.add.at(counts, sizes, weights)
    return counts


def _cut_to(counts: _Counts, limit: int | None) -> tuple[_Counts, int]:
    """The counts with all that is longer than `limit` at its place, and how many these are."""
    if limit is None or limit >= len(counts) - 1:
        return counts, 0
    cut, too_long = counts[: limit + 1].copy(), int(counts[limit + 1 :].sum())
    cut[limit] += too_long
    return cut, too_long


def _rounded_up(sizes: npt.NDArray[Any], multiple_of: int, limit: int | None) -> npt.NDArray[Any]:
    rounded: npt.NDArray[Any] = -(-sizes // multiple_of) * multiple_of
    largest = int(rounded[-1])  # a limit may be beyond what an array holds
    rounded = np.minimum(rounded, largest if limit is None else min(limit, largest))
    return rounded


def _real_share(counts: _Counts, rungs: Sequence[int] | npt.NDArray[Any]) -> float:
    lengths, sizes = np.arange(len(counts)), np.sort(np.asarray(rungs))
    computed = sizes[np.minimum(np.searchsorted(sizes, lengths), len(sizes) - 1)]
    return float((counts * lengths).sum() / (counts * computed).sum())


def _best_rungs(sizes: npt.NDArray[Any], held: _Counts, most: int) -> list[int]:
    """Indices of the sizes that make the best ladder, ascending; the last size is always among them.

    With one more rung, the best ladder up to size j is the best one of fewer rungs up to some i < j, and j itself for
    the texts between the two. As j grows, the best i never falls, so that each search begins at the last one's end.
    """
    computed = sizes * held
    chosen: list[npt.NDArray[np.int64]] = []
    while len(chosen) + 1 < most:
        fewer, below = computed, np.full(len(sizes), -1)
        computed, start = fewer.copy(), 0
        for j in range(1, len(sizes)):
            costs = fewer[start:j] + sizes[j] * (held[j] - held[start:j])
            best = int(np.argmin(costs))
            start += best
            if costs[best] < fewer[j]:
                computed[j], below[j] = costs[best], start
        if computed[-1] == fewer[-1]:
            break
        chosen.append(below)
    path = [len(sizes) - 1]
    for below in reversed(chosen):  # each has a rung to add: without it, the one above would have saved nothing either
        path.insert(0, int(below[path[0]]))
    return path
