"""What is measured of a graph before it is trusted: how far it is from the one that it was made of, and its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from optimum_fixedshape.contract import BATCH, SEQUENCE, ShapeContract
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.feeds import generate_inputs
from optimum_fixedshape.fitting import Array
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.graph.weights import walk_graphs
from optimum_fixedshape.sessions import SessionPool

from .plans import Plan

if TYPE_CHECKING:
    import onnx

_MEASURED_UP_TO = 2048  # tokens: attention takes their square in memory, and nobody may ever run the larger rungs
_TOLERANCE = 1e-2  # of the largest number: rounding is far below, and what another row says far above
_SEE_ALL_ROWS: Final = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def measured_facts(plan: Plan, path: Path, pool: SessionPool) -> dict[str, Any]:
    """Returns how far the graph at `path` is from the one that it was made of; nothing for one that is very large.

    What is returned is its ``difference``, and as its ``fidelity`` what that is to be read against.

    Args:
        plan: The graph that was made.
        path: Where it is.
        pool: Opens the session of the one that it was made of, or has it.
    """
    if not _is_measured(plan):
        return {}
    from optimum_fixedshape.differences import measure_distance

    # Vocabularies are told from the original's file: here what looks them up may be fused, or quantized.
    made = replace(plan.fixed, external_data=read_contract(path).external_data)
    distance = measure_distance(plan.path, path, contract=made, pool=pool)
    return {"difference": distance.largest, "fidelity": distance.facts()}


def check_rows(plan: Plan, original: onnx.ModelProto, pool: SessionPool) -> None:
    """Raises an error if the original does not run at the sizes of a plan, or if its rows depend on each other.

    They do where a length is baked in, and all rows are folded into pieces of that length without a word: then a
    row answers otherwise together with others than it does alone.

    Args:
        plan: The graph to be made, with the sizes it is to have.
        original: The graph that it is made of.
        pool: Opens its session, or has it.

    Raises:
        ShapeMismatchError: It does not run, or a row depends on another.
    """
    if not _is_measured(plan):
        return
    session = pool.get(plan.path, plan.contract)
    inputs = plan.fixed.inputs
    made = generate_inputs(plan.fixed, padded=False)  # tables of positions are used to their end
    together = _run(session, {spec.session_name: made[spec.name] for spec in inputs}, plan, "it does not run")
    rows = plan.fixed.sizes.get(BATCH) or 1
    if rows < 2 or not _has_open_rows(plan.contract) or _sees_all_rows(original):
        return
    for row in (0, rows - 1):
        own = {spec.session_name: _row_of(made[spec.name], row, spec.axis_of(BATCH)) for spec in inputs}
        alone = _run(session, own, plan, f"row {row} does not run alone")
        for spec, of_all, of_one in zip(plan.contract.outputs, together, alone, strict=True):
            if _are_rows(of_all, of_one, rows) and (apart := _apart(of_all[row : row + 1], of_one)) > _TOLERANCE:
                raise _error(plan, f"{spec.name} of row {row} changes by {apart:.1%} if it runs alone")


def _run(session: Any, feed: dict[str, Array], plan: Plan, failure: str) -> list[Array]:
    try:
        return list(session.run(None, feed))
    except Exception as error:  # onnxruntime's errors share no public base class
        raise _error(plan, f"{failure}: {error}") from error


def _error(plan: Plan, reason: str) -> ShapeMismatchError:
    sizes = ", ".join(f"{key} {size}" for key, size in plan.sizes.items()) or "the sizes that it has"
    return ShapeMismatchError(
        f"{plan.path} cannot be used at {sizes}: {reason}. Other sizes are baked into it than its inputs say. Pin it "
        "to those that it was made for, or export it again."
    )


def _is_measured(plan: Plan) -> bool:
    return (plan.fixed.sizes.get(SEQUENCE) or 0) <= _MEASURED_UP_TO


def _has_open_rows(contract: ShapeContract) -> bool:
    axes = [axis for spec in contract.inputs for axis in spec.axes or () if axis.role == BATCH]
    return bool(axes) and all(axis.size is None for axis in axes)


def _sees_all_rows(model: onnx.ModelProto) -> bool:
    """Whether a model takes the range of its numbers from all rows at once, as dynamically quantized ones do."""
    return any(node.op_type in _SEE_ALL_ROWS for graph in walk_graphs(model.graph) for node in graph.node)


def _row_of(array: Array, row: int, axis: int | None) -> Array:
    return array if axis is None else array.take([row], axis)


def _are_rows(together: Array, alone: Array, rows: int) -> bool:
    shapes = getattr(together, "shape", ()), getattr(alone, "shape", ())
    return shapes[0][:1] == (rows,) and shapes[1] == (1, *shapes[0][1:]) and together.dtype.kind == "f"


def _apart(ours: Array, theirs: Array) -> float:
    """The largest difference, as a share of the largest number."""
    known = np.isfinite(ours) & np.isfinite(theirs)
    difference = np.abs(np.subtract(ours, theirs, dtype=np.float64), where=known, out=np.zeros(ours.shape))
    scale = max(np.abs(each[known], dtype=np.float64).max(initial=0.0) for each in (ours, theirs))
    return float(difference.max(initial=0.0) / scale) if scale else 0.0
