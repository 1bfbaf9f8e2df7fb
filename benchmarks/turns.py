"""Contenders take turns, round by round, so that whatever else the machine does slows all of them down alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from .workers import ContenderError, Worker

_SETTLED = 0.05  # seconds after which the threads of the contender before are asleep
_FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Turn:
    """What one worker is asked for in a round: calls by who they stand for; several take turns within the process."""

    worker: Worker
    calls: Mapping[str, str]


@dataclass(frozen=True)
class Spread:
    """Median of the rounds' medians, and what nine in ten of all single values are above or below."""

    median: float
    low: float
    high: float


@dataclass
class Times:
    """Seconds of every call of every round.

    Attributes:
        rounds: By who, a list of seconds for each round.
        failures: Why somebody is not in `rounds`.
    """

    rounds: dict[str, list[list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __contains__(self, who: str) -> bool:
        return who in self.rounds

    def spread(self, who: str) -> Spread:
        """Returns the seconds of one call."""
        every = [seconds for each in self.rounds[who] for seconds in each]
        return Spread(median(map(median, self.rounds[who])), *_tenths(every))

    def ratio(self, slow: str, fast: str) -> Spread:
        """Returns how much longer one takes than another: median of the rounds' ratios."""
        pairs = zip(self.rounds[slow], self.rounds[fast], strict=True)
        each = [median(theirs) / median(ours) for theirs, ours in pairs]
        return Spread(median(each), *_tenths(each))


def take_turns(turns: Sequence[Turn], *, rounds: int, seconds: float = 0.2, budget: float = 60.0) -> Times:
    """Returns the times of all turns; whoever fails is left out.

    Args:
        turns: Who takes part.
        rounds: How often each has its turn; fewer where `budget` is used up, but at least three.
        seconds: About how long a turn is, or one call if that takes longer.
        budget: Seconds for all rounds.
    """
    times, began = Times({who: [] for turn in turns for who in turn.calls}), time.perf_counter()
    left = list(turns)
    for count in range(rounds):
        for turn in left if count % 2 else left[::-1]:  # nobody always comes behind the same one
            time.sleep(_SETTLED)
            try:
                taken = turn.worker.time(list(turn.calls.values()), seconds)
            except ContenderError as error:
                left = [other for other in left if other is not turn]
                for who in turn.calls:
                    del times.rounds[who]
                    times.failures[who] = str(error)
                continue
            for who, call in turn.calls.items():
                times.rounds[who].append(taken[call])
        if count + 1 >= _FEWEST_ROUNDS and time.perf_counter() - began > budget:
            break
    return times


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (10, 90))
    return float(low), float(high)
