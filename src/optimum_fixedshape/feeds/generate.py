"""Random inputs for any graph: exact in every dim, and such as its model could have been given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from optimum_fixedshape.contract import ShapeContract, TensorSpec
from optimum_fixedshape.errors import MissingInputError, ShapeMismatchError
from optimum_fixedshape.graph.outline import Outline, outline_of
from optimum_fixedshape.graph.reader import read_contract

from .making import Part, maker_of
from .plan import Array, Plan

_MOST_NUMBERS: Final = 2**28  # 1 GiB in single precision: a file may state any size
_DTYPES: Final = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    *("float16", "float32", "float64", "bool", "string")
}
"""What onnxruntime takes from NumPy arrays."""


def generate_inputs(
    contract: ShapeContract | str | Path,
    seed: int = 0,
    *,
    sizes: Mapping[str, int] | None = None,
    padded: bool = True,
) -> dict[str, Array]:
    """Returns an array for each input of a graph, by the contract's names: random, and the same for the same seed.

    They are what a session of the graph takes: exact in every dim, ids below the size of the vocabulary, masks that
    leave out the end of most rows (where ids, pixels and samples are 0), pixels and spectrograms as after
    normalization, numbers of a cache as small as those of a model.

    Args:
        contract: The graph, or the path of its file. Vocabularies are told from the file, where it is there.
        seed: Another seed gives other numbers, and other lengths of rows.
        sizes: Sizes of dynamic axes by role, such as ``{"sequence_length": 16}``, or by the graph's own symbol;
            by default small ones.
        padded: Whether rows end before the arrays do, where the graph has a mask to be told so.

    Raises:
        MissingInputError: An input is no tensor, or of a type that NumPy or onnxruntime's arrays do not have.
        ShapeMismatchError: `sizes` names no axis of the graph, or contradicts it.
        InvalidModelError: The file is no ONNX graph.
    """
    if not isinstance(contract, ShapeContract):
        contract = read_contract(contract)
    return make_inputs(contract, outline_of(contract), seed, sizes=sizes, padded=padded)


def make_inputs(
    contract: ShapeContract,
    outline: Outline | None,
    seed: int = 0,
    *,
    sizes: Mapping[str, int] | None = None,
    padded: bool = True,
) -> dict[str, Array]:
    """Returns what `generate_inputs` does, for a graph whose file was read before: once for many inputs.

    Args:
        contract: The graph.
        outline: What it computes, which tells vocabularies; None where that is not known.
        seed: As in `generate_inputs`.
        sizes: As in `generate_inputs`.
        padded: As in `generate_inputs`.

    Raises:
        MissingInputError, ShapeMismatchError: As in `generate_inputs`.
    """
    for spec in contract.inputs:
        if spec.dtype not in _DTYPES:
            _refuse(spec)
    plan = Plan(contract, outline, dict(sizes or {}), seed, padded)
    numbers = sum(math.prod(plan.shape(spec)) for spec in contract.inputs)
    if numbers > _MOST_NUMBERS:
        raise ShapeMismatchError(
            f"The inputs hold {numbers} numbers, expected at most {_MOST_NUMBERS}. Pass smaller sizes= where axes are "
            "dynamic, or make the inputs yourself."
        )
    return {spec.name: _make(plan, spec, place) for place, spec in enumerate(contract.inputs)}


def _make(plan: Plan, spec: TensorSpec, place: int) -> Array:
    shape = plan.shape(spec)
    part = Part(plan, spec, shape, np.random.default_rng([plan.seed, place]))
    array = np.asarray(maker_of(spec, plan)(part))
    return array if spec.dtype == "string" else np.ascontiguousarray(array.astype(spec.dtype)).reshape(shape)


def _refuse(spec: TensorSpec) -> NoReturn:
    raise MissingInputError(
        f"No array can be made for {spec}: expected a tensor of one of the types {', '.join(sorted(_DTYPES))}. Feed it "
        "yourself, as an onnxruntime.OrtValue.",
        missing=(spec.name,),
    )
