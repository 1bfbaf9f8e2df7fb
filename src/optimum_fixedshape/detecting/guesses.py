"""What a graph may be for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

CLOSE: Final = 0.8
"""Guesses are close if the score of one is at least this share of the other's."""


@dataclass(frozen=True)
class TaskGuess:
    """One task that a graph may be for.

    Attributes:
        task: transformers' name of the task.
        model: Our model class, such as ``"ORTModelForMaskedLM"``.
        score: How well the graph fits, from 0 to 1: 1 where all names are the standard ones and all sizes fit.
        evidence: Why, in words.
        names: The graph's names of inputs and outputs to the standard ones, where these differ; one to one.
    """

    task: str
    model: str
    score: float
    evidence: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        renamed = ", ".join(f"{name} is {standard}" for name, standard in self.names.items())
        return f"{self.task} ({self.model}, {self.score:.2f}): {'; '.join(filter(None, [*self.evidence, renamed]))}"


@dataclass(frozen=True)
class TaskGuesses:
    """All tasks that a graph may be for.

    Attributes:
        ranked: The guesses, best first; none where the graph looks like no model of a task.
    """

    ranked: tuple[TaskGuess, ...]

    @property
    def best(self) -> TaskGuess | None:
        """The likeliest guess, or None."""
        return self.ranked[0] if self.ranked else None

    @property
    def close(self) -> tuple[TaskGuess, ...]:
        """The best guess, and those that are nearly as good; see `CLOSE`."""
        return tuple(guess for guess in self.ranked if guess.score >= CLOSE * self.ranked[0].score)

    @property
    def is_ambiguous(self) -> bool:
        """Whether the graph does not tell the best guess from another."""
        return len(self.close) > 1

    def describe(self) -> str:
        """Returns the guesses for people, one a line, behind a line that says what to make of them."""
        if self.best is None:
            return "The graph looks like no model of a task that is known here."
        names = [guess.task for guess in self.close]
        if self.is_ambiguous:
            head = f"The graph may be for any of these, and does not tell which: {', '.join(names)}."
        else:
            head = f"The graph is most likely for {self.best.task}."
        return "\n".join([head, *(f"  {guess}" for guess in self.ranked)])

    def __iter__(self) -> Iterator[TaskGuess]:
        return iter(self.ranked)

    def __len__(self) -> int:
        return len(self.ranked)
