"""Two towers: images or sounds that are compared with the same texts share runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from optimum_fixedshape.contract import IMAGES, SOUNDS, TEXTS, ShapeContract
from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.runtime import Runtime

from .base import FixedShapePipeline

_ITEMS = (IMAGES, SOUNDS)


class PairsPipeline(FixedShapePipeline):
    """Compares items with texts: the texts of all items are the same in most calls, and run once."""

    def preprocess(self, item: Any, *args: Any, candidate_labels: Any = None, **params: Any) -> Any:
        """Returns what transformers makes of an item and its labels.

        Raises:
            ValueError: There are no labels.
        """
        if not candidate_labels:
            raise ValueError("candidate_labels= must hold at least one label.")
        base: Any = super()
        return base.preprocess(item, *args, candidate_labels=candidate_labels, **params)

    def _named(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**inputs, **inputs["text_inputs"][0]}

    def run_items(self, runtime: Runtime, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
        """Returns the outputs of each item; see `run_pairs`."""
        return run_pairs(runtime, items)


def run_pairs(runtime: Runtime, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
    """Returns each item's outputs in a model with two towers: items with the same texts become rows of one.

    Args:
        runtime: Runs the model.
        items: Each with the arrays of its texts, and of its images or sounds.
    """
    contract = runtime.ladder.largest
    texts = {spec.name for spec in contract.inputs if spec.batch_role == TEXTS}
    same: dict[Hashable, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        same[tuple((item[name].shape, item[name].tobytes()) for name in sorted(texts & item.keys()))].append(index)
    results: list[Arrays] = [{}] * len(items)
    for members in same.values():
        first = items[members[0]]
        joined = {
            name: array if name in texts else np.concatenate([items[index][name] for index in members])
            for name, array in first.items()
        }
        outputs = runtime.run([joined])[0]
        start = 0
        for index in members:
            rows = next(len(items[index][name]) for name in first if name not in texts)
            results[index] = _rows_of_tower(outputs, contract, start, rows)
            start += rows
    return results


def _rows_of_tower(outputs: Mapping[str, Array], contract: ShapeContract, start: int, rows: int) -> Arrays:
    """The outputs of some of the images or sounds, and of all texts."""
    share = {}
    for spec in contract.outputs:
        axis = next((i for i, role in enumerate(spec.roles()) if role in _ITEMS), None)
        array = outputs[spec.name]
        share[spec.name] = array if axis is None else array.take(range(start, start + rows), axis)
    return share
