"""What is done to graphs beside fixing their shapes: fused, and made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .contract import ShapeContract
from .errors import InvalidArgumentError, ShapeMismatchError
from .fitting import Arrays, Fill, fit, pad_id_of, prepare
from .graph.pin import contract_of

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Change:
    """What is done to each graph beside pinning it.

    Attributes:
        optimize: Fuse what belongs together.
        dtype: What it is made smaller to.
        calibration: Inputs that show the ranges of its numbers.
        config: The model's ``config.json``.

    Raises:
        InvalidArgumentError: There is no such dtype, or calibration without one that needs it.
    """

    optimize: bool
    dtype: Literal["fp16", "int8"] | None
    calibration: tuple[Mapping[str, Any], ...] | None
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.dtype not in (None, "fp16", "int8"):
            raise InvalidArgumentError(f'dtype must be "fp16", "int8" or None, got {self.dtype!r}.')
        if self.calibration is not None and self.dtype != "int8":
            raise InvalidArgumentError(f'calibration= is for dtype="int8", got dtype={self.dtype!r}. Leave it out.')


def prepared_model(model: onnx.ModelProto, contract: ShapeContract, change: Change) -> onnx.ModelProto:
    """Returns a model as it comes, its shapes open, with what is done before it is pinned: all rungs then share it.

    Fusions are only found while the arithmetic on sizes is there, and ranges that were found once for all rungs give a
    row the same answer in each. A graph whose shapes are fixed already finds them in those samples that it holds.

    Raises:
        ShapeMismatchError: A calibration sample contradicts the graph, or a fixed graph holds none.
        MissingInputError: There are none, or one lacks an input.
    """
    if change.optimize:
        from optimum_fixedshape.graph.optimize import optimize_graph

        # Static quantization reads products with weights, and would leave those inside attention as they are.
        model = optimize_graph(model, config=change.config, packs_projections=change.calibration is None)
    if change.dtype == "int8":
        from optimum_fixedshape.graph.quantize import to_int8

        held = _held(contract, change) if contract.is_fixed else change
        model = to_int8(model, calibration=_samples_for(contract, held))
    return model


def changed_model(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """Returns a model of fixed shapes, with all that is done to it; itself where that is nothing.

    Of several rungs each finds the ranges of its numbers in those calibration samples that it holds.

    Raises:
        ShapeMismatchError: It holds no calibration sample.
        MissingInputError: There are none, or one lacks an input.
    """
    return finished_model(prepared_model(model, contract_of(model), change), change)


def finished_model(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """Returns a model of fixed shapes with what is done to it last: half precision.

    Whole numbers above 2048, as sizes may be, it does not hold.
    """
    if change.dtype != "fp16":
        return model
    from optimum_fixedshape.graph.quantize import to_float16

    return to_float16(model)


def _held(contract: ShapeContract, change: Change) -> Change:
    """A change with those calibration samples that a graph holds."""
    held, refused = [], []
    for sample in change.calibration or ():
        try:
            _check_held(sample, contract, change)
            held.append(sample)
        except ShapeMismatchError as error:
            refused.append(error)
    if refused and not held:
        sizes = ", ".join(f"{role} {size}" for role, size in contract.sizes.items())
        raise ShapeMismatchError(
            f"No sample of calibration= fits the graph of {sizes}: {refused[0]} Add samples of that size.",
            mismatches=refused[0].mismatches,
        )
    return replace(change, calibration=tuple(held)) if refused else change


def _check_held(sample: Mapping[str, Any], contract: ShapeContract, change: Change) -> None:
    for feed in _feeds(sample, contract, change):
        if wrong := contract.mismatches(feed):
            raise ShapeMismatchError(f"{'; '.join(map(str, wrong))}.", mismatches=wrong)


def _samples_for(contract: ShapeContract, change: Change) -> list[Arrays] | None:
    """The calibration samples as a session of the graph takes them."""
    if change.calibration is None:
        return None
    return [feed for sample in change.calibration for feed in _feeds(sample, contract, change)]


def _feeds(sample: Mapping[str, Any], contract: ShapeContract, change: Change) -> list[Arrays]:
    arrays, _ = prepare(sample, contract)
    return [feed.arrays for feed in fit(arrays, contract, Fill(pad_id_of(_Facts(change.config))))]


class _Facts:
    """A configuration file as an object with attributes."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.__dict__.update(facts)
