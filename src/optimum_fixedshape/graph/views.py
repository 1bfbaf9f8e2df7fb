"""The way of a tensor through reshapes, transposes and factors, followed with numbers: shapes are constants here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

from optimum_fixedshape.fitting import Array

from .index import Index

Shape = tuple[int, ...]

_FACTORS: Final = {"Mul": 1, "Div": -1}
_TO_HEADS: Final = (0, 2, 1, 3)


@dataclass(frozen=True)
class View:
    """A tensor that another one is, seen with its axes in another order and multiplied by a factor."""

    source: str
    factor: float


class Views:
    """Reads, in a graph of fixed shapes, which tensors are views of which."""

    def __init__(self, graph: GraphProto) -> None:
        self.index = Index(graph)
        values = (*graph.input, *graph.value_info, *graph.output)
        self.shapes = {value.name: _shape(value.type.tensor_type.shape) for value in values}
        self.shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.dtypes = {value.name: value.type.tensor_type.elem_type for value in values}

    def shape(self, name: str) -> Shape:
        """Returns the shape of a tensor, or no axes where it is open or unknown."""
        return self.shapes.get(name, ())

    def constant(self, name: str) -> Array | None:
        """Returns a constant of the graph."""
        tensor = self.index.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def factor(self, node: NodeProto) -> tuple[str, float] | None:
        """Returns what a node multiplies by one number, and the number; None for all other nodes."""
        if node.op_type not in _FACTORS:
            return None
        for place, name in enumerate(node.input):
            number = self.constant(name)
            if number is not None and number.size == 1 and (place == 1 or node.op_type == "Mul"):
                return node.input[1 - place], float(number.item()) ** _FACTORS[node.op_type]
        return None

    def heads_of(self, name: str, *, are_keys: bool = False) -> View | None:
        """Returns the tensor ``(batch, length, heads * features)`` that `name` is split from.

        Args:
            name: A tensor ``(batch, heads, length, features)``, or with its last two axes swapped.
            are_keys: Whether they are swapped.
        """
        batch, heads, length, features = _swapped(self.shape(name)) if are_keys else self.shape(name)
        whole = (batch, length, heads * features)
        path: list[NodeProto] = []
        factor = 1.0
        while (node := self.index.producers.get(name)) is not None:
            if scaled := self.factor(node):
                name, factor = scaled[0], factor * scaled[1]
            elif self.shape(name) != whole and (before := self._viewed(node)) is not None:
                path.append(node)
                name = before
            else:
                break
        if self.shape(name) != whole:
            return None
        numbers = np.arange(math.prod(whole)).reshape(whole)
        expected = numbers.reshape(batch, length, heads, features).transpose(_TO_HEADS)
        seen = self._seen(numbers, path[::-1])
        return View(name, factor) if np.array_equal(seen, expected.swapaxes(2, 3) if are_keys else expected) else None

    def joined(self, name: str) -> str | None:
        """Returns the tensor ``(batch, length, all features)`` that ``(batch, heads, length, features)`` becomes."""
        batch, heads, length, features = self.shape(name)
        whole, numbers = (batch, length, heads * features), np.arange(batch * heads * length * features)
        seen = numbers.reshape(batch, heads, length, features)
        expected = seen.transpose(_TO_HEADS).reshape(whole)
        while self.shape(name) != whole:
            behind = self.index.consumers[name]
            if len(behind) != 1 or self._viewed(behind[0]) != name:
                return None
            seen, name = self._seen(seen, behind), behind[0].output[0]
        return name if np.array_equal(seen, expected) else None

    def _viewed(self, node: NodeProto) -> str | None:
        """What a node shows with its axes in another order."""
        is_view = node.op_type in ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
        return node.input[0] if is_view and self.shape(node.output[0]) else None

    def _seen(self, numbers: Array, path: list[NodeProto]) -> Array:
        for node in path:
            orders = [attribute.ints for attribute in node.attribute if attribute.name == "perm"]
            if node.op_type == "Transpose":
                numbers = numbers.transpose(orders[0] if orders else None)
            numbers = numbers.reshape(self.shape(node.output[0]))
        return numbers


def _swapped(shape: Shape) -> Shape:
    return (*shape[:2], *shape[:1:-1])


def _shape(stated: object) -> Shape:
    dims = stated.dim  # type: ignore[attr-defined]
    sizes = tuple(dim.dim_value for dim in dims)
    return sizes if all(size > 0 for size in sizes) else ()
