"""Ladders: several rungs of one model, and which of them an item goes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .caches import ENCODER, FOLLOWING, MERGED, kind_of
from .contract import BATCH, BATCHES, FILLED, PAST, SEQUENCE, Axis, ShapeContract, fields_of
from .errors import ShapeMismatchError

TOKENS_OF_A_RUN = 16
"""What a run costs besides its tokens, in tokens: the call, and reading the weights."""


@dataclass(frozen=True)
class ShapeLadder:
    """Several rungs of one model, in the order of its graphs.

    Attributes:
        rungs: One contract for each shape. All take the same inputs and give the same outputs.
    """

    rungs: tuple[ShapeContract, ...]

    def __post_init__(self) -> None:
        if not self.rungs:
            raise ValueError("A ladder needs at least one rung.")
        first = self.rungs[0]
        for rung in self.rungs[1:]:
            if (rung.input_names, rung.output_names) != (first.input_names, first.output_names):
                raise ShapeMismatchError(
                    f"The rungs are not of one model: {first.path} has {first.input_names} -> {first.output_names}, "
                    f"{rung.path} has {rung.input_names} -> {rung.output_names}."
                )

    def __len__(self) -> int:
        return len(self.rungs)

    __getstate__ = fields_of

    @cached_property
    def largest(self) -> ShapeContract:
        """The rung that takes the longest items, and among those the most rows."""
        return max(self.rungs, key=lambda rung: [_room(size) for _, size in sorted(_item_sizes(rung))] + [_rows(rung)])

    @cached_property
    def shares_runs(self) -> bool:
        """Whether rows of several items can go into one run: every input and output counts the same rows."""
        return all(spec.axis_of(BATCH) is not None for spec in (*self.largest.inputs, *self.largest.outputs))

    def limit(self, role: str) -> int | None:
        """The largest size along `role` that any rung takes, or None where there is no limit."""
        return self._limits.get(role)

    @cached_property
    def _limits(self) -> dict[str, int]:
        sizes = {role: [rung.sizes.get(role) for rung in self.rungs] for rung in self.rungs for role in rung.sizes}
        return {role: max(filter(None, each)) for role, each in sizes.items() if None not in each}

    def holding(self, sizes: Mapping[str, int]) -> list[int]:
        """Indices of the rungs that hold one item of these sizes; the number of rows is no limit.

        Of rungs that differ in what nothing can fill, such as the height of an image, only the largest counts.
        """
        exact = {role: size for role, size in self.largest.sizes.items() if role not in FILLED}
        return [
            index
            for index, rung in enumerate(self.rungs)
            if all(_room(rung.sizes.get(role)) >= size for role, size in sizes.items() if role not in BATCHES)
            and all(rung.sizes.get(role) == size for role, size in exact.items())
        ]

    def choose(self, sizes: Mapping[str, int]) -> int:
        """Returns the index of the rung that costs least for rows of these sizes: by the elements that it computes.

        Of texts, every run counts as `TOKENS_OF_A_RUN` tokens more. Where two rungs tie, the one that needs fewer runs
        wins, and then the one with fewer slots for a cache.

        Args:
            sizes: Rows and the size of one row, by role.

        Raises:
            ValueError: No rung holds an item of these sizes.
        """

        def cost(index: int) -> tuple[int, int, int]:
            rung, runs, computed = self.rungs[index], 1, 1
            for role, size in sizes.items():
                if role == PAST:
                    continue
                least = rung.sizes.get(role) or max(size, 1)
                pieces = -(-max(size, 1) // least) if role in BATCHES else 1
                runs *= pieces
                computed *= pieces * least
            calls = runs * TOKENS_OF_A_RUN if SEQUENCE in sizes else 0
            return computed + calls, runs, rung.sizes.get(PAST) or 0

        return min(self.holding(sizes), key=cost)


def rows_of(sizes: Mapping[str, int]) -> int:
    """Returns how many rows of output these sizes ask for: with two towers one for each pair."""
    return math.prod(size for role, size in sizes.items() if role in BATCHES)


def entrance(rungs: Sequence[ShapeContract]) -> ShapeLadder:
    """Returns what goes into a model of these graphs from outside: of one that writes, an encoder's inputs, or texts.

    Raises:
        ShapeMismatchError: The graphs are not of one model.
    """
    kinds = [kind_of(rung) for rung in rungs]
    if FOLLOWING not in kinds and MERGED not in kinds:
        return ShapeLadder(tuple(rungs))
    encoders = tuple(rung for rung, kind in zip(rungs, kinds, strict=True) if kind == ENCODER)
    return ShapeLadder(encoders) if encoders else ladder_of_texts(rungs[0])


def ladder_of_texts(decoder: ShapeContract) -> ShapeLadder:
    """Returns what goes into a decoder alone: texts of any length, which the model cuts into runs itself."""
    axes = (Axis(None, role=BATCH), Axis(None, role=SEQUENCE))
    names = ("input_ids", "attention_mask")
    texts = tuple(replace(spec, axes=axes) for spec in decoder.inputs if spec.name in names)
    return ShapeLadder((replace(decoder, inputs=texts),))


def _room(size: int | None) -> float:
    return float("inf") if size is None else size


def _rows(rung: ShapeContract) -> float:
    return math.prod(_room(size) for role, size in rung.sizes.items() if role in BATCHES)


def _item_sizes(rung: ShapeContract) -> Iterable[tuple[str, int | None]]:
    return ((role, size) for role, size in rung.sizes.items() if role not in BATCHES)
