"""Sizes that are baked into a graph further down, against what its inputs say: which node, and what would work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Final, NamedTuple

from onnx import GraphProto, NodeProto

from optimum_fixedshape.contract import BATCHES, PAST, SEQUENCE, ShapeContract
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.graph.folding import INTEGERS
from optimum_fixedshape.graph.proof import Scope, label

_SHAPERS: Final = {"Reshape": 1, "Expand": 1, "Tile": 1, "Slice": 2, "Resize": 3, "Pad": 1, "ConstantOfShape": 0}
"""Operators that take a shape, and which of their inputs says it."""
_MOST_TRIES, _MOST_SHOWN = 16, 8


class Trial(NamedTuple):
    """What is known of a graph at some sizes.

    Attributes:
        scope: Its values.
        fixed: Its contract at these sizes.
    """

    scope: Scope
    fixed: ShapeContract


class WrongAxis(NamedTuple):
    """An axis of an output that does not have the size that its own graph says it has.

    Attributes:
        name: The output.
        axis: The axis.
        key: What it follows, as the graph says: a shape key, or the graph's own name.
        expected: The size that it should have.
        found: The size that it has.
    """

    name: str
    axis: int
    key: str
    expected: int
    found: int


@dataclass(frozen=True)
class Baked:
    """Finds out what is baked into a graph.

    Attributes:
        graph: The graph.
        contract: What it says that it takes and gives.
        trial: What is known at the sizes asked for.
        asked: These sizes, by shape key or the graph's own name of an axis.
        at: Tries other sizes; None where the graph cannot run at them.
    """

    graph: GraphProto
    contract: ShapeContract
    trial: Trial
    asked: Mapping[str, int]
    at: Callable[[Mapping[str, int]], Trial | None]

    def at_node(self, node: NodeProto, reason: str) -> ShapeMismatchError:
        """Returns the error for a node that cannot run at the sizes asked for, with sizes that would work."""
        return self._error(node, reason, self._that_work({*_numbers_of(node, self.trial.scope)}))

    def at_tables(self) -> ShapeMismatchError | None:
        """Returns the error for a table of positions that is shorter than a row may be, or None."""
        for node, rows, longest in self._short_tables(self.trial):
            return self.at_node(node, f"its table has {rows} positions, and a row may have {longest} tokens")
        return None

    def _short_tables(self, trial: Trial) -> Iterator[tuple[NodeProto, int, int]]:
        sizes = trial.fixed.sizes
        longest = (sizes.get(SEQUENCE) or 0) + (sizes.get(PAST) or 0)
        names = {spec.session_name for spec in self.contract.inputs if spec.name == "position_ids"}
        for node in self.graph.node:
            if node.op_type == "Gather" and node.input[1] in names and node.input[0] in trial.scope.baked:
                rows = trial.scope.shape(node.input[0])[0]
                if rows < longest:
                    yield node, rows, longest

    def at_outputs(self) -> ShapeMismatchError | None:
        """Returns the error for an output whose shape contradicts what its graph says that it follows, or None.

        Rows have to be as many as the inputs have. Along other axes graphs are often said to follow an input that they
        only depend on (as where images come out at a quarter of their size), so that only those are wrong that stay
        the same whatever the size.
        """
        for wrong in self._wrong_axes(self.trial):
            if wrong.key in BATCHES or self._stays(wrong):
                return self._at_output(wrong)
        return None

    def _at_output(self, wrong: WrongAxis) -> ShapeMismatchError:
        suspects = [node for node in self.graph.node if self._is_suspect(node)]
        numbers = {node.output[0]: {*_numbers_of(node, self.trial.scope)} for node in suspects}
        works = self._that_work(set().union(*numbers.values()))
        there = self.at(works[0]) if works else None
        tests: tuple[Callable[[NodeProto], bool], ...] = (
            lambda node: there is not None and self._splits_rows(node, there.scope),
            lambda node: bool(works) and not numbers[node.output[0]].isdisjoint(works[0].values()),
            lambda node: True,
        )
        blamed = next((node for test in tests for node in suspects if test(node)), None)
        shape = list(self.trial.scope.shape(wrong.name))
        reason = (
            f"the output {wrong.name} would be {shape}, where axis {wrong.axis} should be {wrong.key} {wrong.expected} "
            f"and is {wrong.found}: rows or places would be mixed up without a word"
        )
        return self._error(blamed, reason, works)

    def _wrong_axes(self, trial: Trial) -> Iterator[WrongAxis]:
        symbols = {
            axis.symbol: (axis.role or axis.symbol, there.size or 0)
            for spec, other in zip(self.contract.inputs, trial.fixed.inputs, strict=True)
            for axis, there in zip(spec.axes or (), other.axes or (), strict=True)
            if axis.symbol
        }
        for spec in self.contract.outputs:
            shape = trial.scope.shape(spec.session_name)
            for place, axis in enumerate(spec.axes or ()):
                rows = trial.fixed.sizes.get(axis.role) if axis.role in BATCHES and axis.role else None
                key, size = symbols.get(axis.symbol or "", (axis.role, rows))
                found = shape[place] if place < len(shape) else 0
                if axis.size is None and size is not None and key is not None and found != size:
                    yield WrongAxis(spec.session_name, place, key, size, found)

    def _stays(self, wrong: WrongAxis) -> bool:
        others = (self.at({wrong.key: size}) for size in (2 * wrong.expected, wrong.expected // 2) if size)
        shapes = (trial.scope.shape(wrong.name) for trial in others if trial)
        return all(shape[wrong.axis : wrong.axis + 1] == (wrong.found,) for shape in shapes)

    def _that_work(self, numbers: set[int]) -> list[dict[str, int]]:
        """Sizes that would do in place of those asked for: one of them changed, else two."""
        candidates = sorted({*numbers, 1})[:_MOST_TRIES]
        for together in (1, 2):
            tries = [
                dict(zip(keys, each, strict=True))
                for keys in combinations(self.asked, together)
                for each in product(candidates, repeat=together)
                if all(self.asked[key] != size for key, size in zip(keys, each, strict=True))
            ]
            if found := [each for each in tries[:_MOST_TRIES] if self._works(each)]:
                return found
        return []

    def _works(self, sizes: Mapping[str, int]) -> bool:
        trial = self.at(sizes)
        return trial is not None and not any(self._short_tables(trial)) and not any(self._wrong_axes(trial))

    def _error(self, node: NodeProto | None, reason: str, works: list[dict[str, int]]) -> ShapeMismatchError:
        scope = self.trial.scope
        sizes = ", ".join(f"{key} {size}" for key, size in self.asked.items()) or "the sizes that it has"
        constants = "; ".join(_described(node, scope)) if node else ""
        who = f"{label(node)} does not allow for" if node else "The graph does not allow for"
        baked = f" It has a size baked in: {constants}." if constants else ""
        ways = " or ".join(" with ".join(f"{key} {size}" for key, size in each.items()) for each in works[:_MOST_SHOWN])
        way_out = f"It would work at {ways}. " if ways else ""
        return ShapeMismatchError(
            f"{who} {sizes}: {reason}.{baked} {way_out}For any other size export the model again, with that axis open "
            "or at the size that you need.",
            node=node.name or node.output[0] if node else None,
            op_type=node.op_type if node else None,
            works=tuple(works),
        )

    def _is_suspect(self, node: NodeProto) -> bool:
        place = _SHAPERS.get(node.op_type)
        return place is not None and len(node.input) > place and node.input[place] in self.trial.scope.baked

    def _splits_rows(self, node: NodeProto, right: Scope) -> bool:
        """Whether a node keeps the rows as they are at sizes that work, and not at those that were asked for."""

        def keeps(at: Scope) -> bool:
            given, made = at.shape(node.input[0]), at.shape(node.output[0])
            return given[:1] == made[:1]

        return node.op_type == "Reshape" and keeps(right) and not keeps(self.trial.scope)


def _described(node: NodeProto, scope: Scope) -> Iterator[str]:
    for name in filter(None, node.input):
        if name in scope.baked:
            value = scope.values.get(name)
            if value is not None and value.size <= _MOST_SHOWN:
                yield f"{name} = {value.tolist()}"
            else:
                yield f"{name} of shape {list(scope.shape(name))}"


def _numbers_of(node: NodeProto, scope: Scope) -> Iterator[int]:
    """The numbers that a node has baked in: the sizes it says, and those of its tables."""
    for name in filter(None, node.input):
        if name not in scope.baked:
            continue
        dtype = scope.types[name].tensor_type.elem_type
        if name in scope.values and dtype in INTEGERS and scope.values[name].ndim < 2:
            yield from (int(size) for size in scope.values[name].reshape(-1)[:_MOST_SHOWN] if size > 0)
        else:
            yield from (size for size in scope.shape(name) if size)
