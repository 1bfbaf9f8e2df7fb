"""What the operators before an output tell, and what else is known of a graph as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import SAMPLES, SEQUENCE, Axis, ShapeContract
from optimum_fixedshape.graph.lookups import Lookups
from optimum_fixedshape.graph.outline import Node, Outline
from optimum_fixedshape.roles import HEIGHT, MEL_FRAMES, WIDTH

from .inputs import IDS, NamedInput, name_inputs, what_is_taken

_SAME_NUMBERS: Final = {
    *("Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
}
_PROBABILITIES: Final = {"LogSoftmax", "Sigmoid", "Softmax"}
_LINEAR: Final = {
    *("DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "MatMulInteger", "MatMulIntegerToFloat"),
    *("MatMulNBits", "QGemm", "QLinearMatMul", "Conv", "ConvInteger", "FusedConv", "QLinearConv"),
}
_WITH_BIAS: Final = {"Conv", "FusedConv", "FusedGemm", "Gemm", "QGemm"}
_LONGEST_WALK: Final = 64


class Head(Enum):
    """How an output is made."""

    UNKNOWN = "made in a way that is not known"
    PROBABILITIES = "ends in {}"
    LINEAR = "ends in {}"
    OTHER = "ends in {}, no linear layer"


@dataclass(frozen=True)
class End:
    """The last operation before an output that changes numbers.

    Attributes:
        head: Its kind.
        op_type: The operator, or ``""``.
        has_bias: Whether a linear layer adds a bias; None where it is no linear layer.
    """

    head: Head = Head.UNKNOWN
    op_type: str = ""
    has_bias: bool | None = None

    def __str__(self) -> str:
        return self.head.value.format(self.op_type)


def end_of(outline: Outline, name: str) -> End:
    """Returns how the output called `name` is made."""
    node = _maker(outline, name)
    if node is None or node.inside:
        return End()
    op_type, biased = node.op_type, node.op_type in _WITH_BIAS and len(node.inputs) > 2
    if op_type in ("Add", "Mul"):  # a bias, or the scale of a quantized product
        makers = [_maker(outline, read) for read in node.inputs[:2]]
        linear = next((m for m in makers if m and (m.op_type in _LINEAR or _is_scaled(outline, m))), None)
        has_weight = any(_is_weight(outline, read) for read in node.inputs[:2])
        if linear and (has_weight or op_type == "Mul"):
            return End(Head.LINEAR, "MatMul", op_type == "Add")
        return End(Head.OTHER, op_type)
    if op_type in _LINEAR:
        return End(Head.LINEAR, op_type, biased)
    return End(Head.PROBABILITIES if op_type in _PROBABILITIES else Head.OTHER, op_type)


def _maker(outline: Outline, name: str) -> Node | None:
    """The node that makes a tensor, seen through those that only lay its numbers out anew."""
    for _ in range(_LONGEST_WALK):
        node = outline.producer(name)
        if node is None or node.op_type not in _SAME_NUMBERS or not node.inputs:
            return node
        name = node.inputs[0]
    return None


def _is_scaled(outline: Outline, node: Node) -> bool:
    makers = (_maker(outline, read) for read in node.inputs[:2]) if node.op_type == "Mul" else ()
    return any(maker is not None and maker.op_type == "MatMulInteger" for maker in makers)


def _is_weight(outline: Outline, name: str) -> bool:
    for _ in range(_LONGEST_WALK):
        node = outline.producer(name)
        if name in outline.weights or node is None or node.op_type not in _SAME_NUMBERS or not node.inputs:
            break
        name = node.inputs[0]
    return name in outline.weights


class Clues:
    """All that is known of a graph.

    Args:
        contract: Its inputs and outputs.
        outline: Its operators, where its file is at hand.
    """

    def __init__(self, contract: ShapeContract, outline: Outline | None) -> None:
        self.contract = contract
        self.outline = outline
        self._lookups = Lookups(outline) if outline else None
        self.inputs: tuple[NamedInput, ...] = name_inputs(contract, self._lookups)
        self.takes = what_is_taken(self.inputs)
        self._ends: dict[str, End] = {}

    def end(self, name: str) -> End:
        """Returns how the output called `name` in the graph is made."""
        if name not in self._ends:
            self._ends[name] = end_of(self.outline, name) if self.outline else End()
        return self._ends[name]

    @cached_property
    def has_cache(self) -> bool:
        """Whether keys and values of a cache go in or come out."""
        return any(place_of(spec.name) for spec in (*self.contract.inputs, *self.contract.outputs))

    @cached_property
    def by_name(self) -> Mapping[str, NamedInput]:
        """The inputs by their standard names."""
        return {found.name: found for found in self.inputs}

    @cached_property
    def operators(self) -> frozenset[str]:
        """The kinds of operators in the graph, and in its subgraphs."""
        return frozenset(node.op_type for node in self.outline.walk()) if self.outline else frozenset()

    @cached_property
    def tokens(self) -> Axis | None:
        """The axis of tokens, of frames or of samples of the main input."""
        names = (*IDS, "input_values", "input_features")
        axes = next((self.by_name[name].spec.axes for name in names if name in self.by_name), None) or ()
        along = (axis for axis in axes if axis.role in (SEQUENCE, SAMPLES, MEL_FRAMES))
        return next(along, axes[-1] if axes else None)

    @cached_property
    def words(self) -> tuple[int, int]:
        """Rows and width of the vocabulary's table, or zeros."""
        ids = next((self.by_name[name] for name in IDS if name in self.by_name), None)
        tables = self._lookups.tables(ids.spec.session_name) if self._lookups and ids else ()
        rows, width = max((table.shape for table in tables), default=(0, 0))
        return rows, width

    def rows_of(self, *names: str) -> Axis | None:
        """Returns the first axis of the first of these inputs that is there, else of the first input that has one."""
        specs = (self.by_name[name].spec for name in names if name in self.by_name)
        return next((spec.axes[0] for spec in specs if spec.axes), self._rows)

    @cached_property
    def _rows(self) -> Axis | None:
        return next((found.spec.axes[0] for found in self.inputs if found.spec.axes), None)

    @cached_property
    def pixels(self) -> tuple[int | None, int | None]:
        """Height and width of an image, where they are fixed."""
        sizes = self.contract.sizes
        return sizes.get(HEIGHT), sizes.get(WIDTH)
