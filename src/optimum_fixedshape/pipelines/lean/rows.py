"""Encoded texts on a ladder: grouped by rung, in full batches, from Rust's encodings to the graph's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
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
        self._fills = {name: model.runtime.fill.value(name) for name in _READ}

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
        lengths = list(map(len, encodings))
        runtime = self._model.runtime
        for run in runtime.plan(lengths, rows):
            chunk = [encodings[index] for index in run.members]
            rung = runtime.ladder.rungs[run.rung]
            session = runtime.session(run.rung)
            output = session.run([rung.outputs[self._output].session_name], self._feed(chunk, rung, run))[0]
            yield Rows(run.members, [lengths[index] for index in run.members], output[: len(chunk)])

    def _feed(self, encodings: Sequence[Any], rung: ShapeContract, run: Run) -> Arrays:
        shape = (run.rows, run.length)
        readers = _READ if "token_type_ids" in self._tokenizer.model_input_names else _WITHOUT_TYPES
        return {spec.session_name: self._column(spec, encodings, shape, readers) for spec in rung.inputs}

    def _column(
        self, spec: TensorSpec, encodings: Sequence[Any], shape: tuple[int, int], readers: Mapping[str, Any]
    ) -> Array:
        if spec.name == "position_ids":
            return np.broadcast_to(np.arange(shape[1], dtype=spec.dtype), shape)
        fill, read = self._fills[spec.name], readers[spec.name]
        values = np.full(shape, fill, spec.dtype) if fill else np.zeros(shape, spec.dtype)
        for row, encoding in enumerate(encodings):
            values[row, : len(encoding)] = read(encoding)
        if len(encodings) < shape[0]:
            values[len(encodings) :] = values[len(encodings) - 1]
        return values


def _ones(encoding: Any) -> int:
    return 1


def _zeros(encoding: Any) -> int:
    return 0


_READ: Mapping[str, Any] = {
    "input_ids": attrgetter("ids"),
    "attention_mask": _ones,
    "token_type_ids": attrgetter("type_ids"),
}
_WITHOUT_TYPES = {**_READ, "token_type_ids": _zeros}
