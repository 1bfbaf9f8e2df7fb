"""Encoded texts on a ladder: grouped by rung, in full batches, from Rust's encodings to the graph's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from optimum_fixedshape.contract import BATCH, SEQUENCE, ShapeContract, TensorSpec
from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.runtime import Run

_OF_ROWS = ((BATCH, SEQUENCE),)


class Rows(NamedTuple):
    """What one run gave for the rows that are real.

    Attributes:
        members: The places of the rows among all that were asked for.
        lengths: The tokens of each row.
        output: ``(rows, ...)``; an axis that follows the tokens is as long as the rung.
    """

    members: Sequence[int]
    lengths: Sequence[int]
    output: Array


class TextRows:
    """Runs encoded texts for one output of a graph. Safe to share between threads.

    Args:
        model: Has the runtime that runs the graph, which changes with the model's device.
        tokenizer: Makes ``token_type_ids`` where its `model_input_names` say so; else they are 0.
        output: The output to compute.
    """

    known: ClassVar[frozenset[str]] = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})

    def __init__(self, model: Any, tokenizer: Any, output: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._output = model.contract.output_names.index(output)
        self._columns = [tuple(map(_column_of, rung.inputs)) for rung in model.ladder.rungs]
        self._fill = model.runtime.fill

    @classmethod
    def takes(cls, contract: ShapeContract) -> bool:
        """Whether a graph's inputs are such as texts alone can fill, row by row and token by token."""
        names = set(contract.input_names)
        axes = {spec.roles() for spec in contract.inputs}
        return "input_ids" in names and names <= cls.known and axes <= set(_OF_ROWS)

    def run(self, encodings: Sequence[Any], rows: int = 1) -> Iterator[Rows]:
        """Yields the output of all rows, run by run.

        Args:
            encodings: Each with at least one token, and no more than the largest rung holds.
            rows: How many go into a run where the graph leaves that open.
        """
        lengths = [len(encoding) for encoding in encodings]
        for run in self._model.runtime.plan(lengths, rows):
            given = self._given([encodings[index] for index in run.members], run)
            yield Rows(run.members, [lengths[index] for index in run.members], given)

    def run_one(self, encoding: Any) -> Rows:
        """Returns the output of a single row."""
        length = len(encoding)
        run = self._model.runtime.plan_one(length)
        return Rows(run.members, (length,), self._given((encoding,), run))

    def _given(self, encodings: Sequence[Any], run: Run) -> Array:
        runtime = self._model.runtime
        output = runtime.ladder.rungs[run.rung].outputs[self._output].session_name
        given: Array = runtime.session(run.rung).run([output], self._feed(encodings, run))[0]
        return given[: len(encodings)]

    def _feed(self, encodings: Sequence[Any], run: Run) -> Arrays:
        feed, shape = {}, (run.rows, run.length)
        makes_types = "token_type_ids" in self._tokenizer.model_input_names
        for session_name, name, dtype in self._columns[run.rung]:
            if name == "position_ids":
                feed[session_name] = np.broadcast_to(np.arange(run.length, dtype=dtype), shape)
                continue
            fill = self._fill.value(name)
            feed[session_name] = values = np.full(shape, fill, dtype) if fill else np.zeros(shape, dtype)
            for row, encoding in enumerate(encodings):
                values[row, : len(encoding)] = _tokens(encoding, name, makes_types)
            if len(encodings) < run.rows:
                values[len(encodings) :] = values[len(encodings) - 1]
        return feed


class _Column(NamedTuple):
    """An input: the session's name of it, ours, and its dtype."""

    session_name: str
    name: str
    dtype: np.dtype[Any]


def _column_of(spec: TensorSpec) -> _Column:
    return _Column(spec.session_name, spec.name, np.dtype(spec.dtype))


def _tokens(encoding: Any, name: str, makes_types: bool) -> Any:
    """What stands in an input for the tokens of a text."""
    if name == "input_ids":
        return encoding.ids
    if name == "attention_mask":
        return 1
    return encoding.type_ids if makes_types else 0
