"""What first happens to the inputs of a graph: the tables that they look rows up in, and convolutions."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Final

from optimum_fixedshape.graph.outline import Node, Outline, Weight

_ALL: Final = tuple(range(64))
_PASSED_ON: Final[Mapping[str, tuple[int, ...]]] = {
    **dict.fromkeys(("Cast", "Clip", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split"), (0,)),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Squeeze", "Tile", "Transpose", "Unsqueeze"), (0,)),
    **dict.fromkeys(("Concat", "Max", "Min", "Sub"), _ALL),
    "Where": (1, 2),
}
"""Operators whose output holds the numbers of these inputs, or, for ``Sub``, none that is further from 0."""

_EMBEDDINGS: Final = {0: 2, 1: 4, 8: 3}
_LOOKED_UP: Final[Mapping[str, Mapping[int, int]]] = {
    "Gather": {1: 0},
    "GatherBlockQuantized": {1: 0},
    "EmbedLayerNormalization": _EMBEDDINGS,
    "QEmbedLayerNormalization": _EMBEDDINGS,
}
"""Operators that look rows up: place of the numbers, and of the table."""

_CONVOLUTIONS: Final = {"Conv", "ConvInteger", "FusedConv"}
_MOST_NODES, _LONGEST_WALK = 1000, 16  # far more than a model needs, so that no file can keep us busy
_SAME_ROWS: Final = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"}


class Lookups:
    """The tables and first convolutions of a graph, by the inputs that go into them.

    Args:
        outline: The graph.
    """

    def __init__(self, outline: Outline) -> None:
        self._weights = outline.weights
        self._producers: dict[str, Node] = {}
        self._readers: defaultdict[str, list[tuple[Node, int]]] = defaultdict(list)
        for node in outline.walk():
            self._producers.update(dict.fromkeys(node.outputs, node))
            if node.op_type in _PASSED_ON or node.op_type in _LOOKED_UP or node.op_type in _CONVOLUTIONS:
                for place, name in enumerate(node.inputs):
                    self._readers[name].append((node, place))

    def tables(self, name: str) -> tuple[Weight, ...]:
        """Returns the tables that the numbers of the input called `name` choose rows of: ``(rows, width)`` each."""
        found: list[Weight] = []
        for node, place in self._reached(name):
            table = _LOOKED_UP.get(node.op_type, {}).get(place)
            if table is not None and table < len(node.inputs):
                found += self._table(node.inputs[table])
        return tuple(found)

    def is_convolved(self, name: str) -> bool:
        """Returns whether a convolution is the first to do anything to the numbers of the input called `name`."""
        return any(node.op_type in _CONVOLUTIONS and place == 0 for node, place in self._reached(name))

    def rows(self, name: str) -> int | None:
        """Returns the rows of the smallest table that `name` looks rows up in, or None where there is none."""
        return min((table.shape[0] for table in self.tables(name)), default=None)

    def _reached(self, name: str) -> Iterator[tuple[Node, int]]:
        """Yields what reads the numbers of a tensor, and at which place, wherever they are laid out anew before."""
        seen, done, todo = {name}, set[int](), deque([name])
        while todo and len(done) < _MOST_NODES:
            for node, place in self._readers.get(todo.popleft(), ()):
                yield node, place
                if id(node) not in done and place in _PASSED_ON.get(node.op_type, ()):
                    done.add(id(node))
                    todo += [output for output in node.outputs if output not in seen]
                    seen.update(node.outputs)

    def _table(self, name: str) -> tuple[Weight, ...]:
        """The matrix called `name`, or that it is made of: tables may be quantized, or be stored on their sides."""
        turned = False
        for _ in range(_LONGEST_WALK):
            node = self._producers.get(name)
            if name in self._weights or node is None or not node.inputs:
                break
            if node.op_type == "Transpose":
                turned = not turned
            elif node.op_type not in _SAME_ROWS:
                break
            name = node.inputs[0]
        weight = self._weights.get(name)
        if weight is None or len(weight.shape) != 2:
            return ()
        return (Weight(weight.dtype, weight.shape[::-1]) if turned else weight,)
