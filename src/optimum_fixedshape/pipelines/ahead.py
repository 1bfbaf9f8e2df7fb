"""How many items are looked at together, so that those of like size share runs."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np

from optimum_fixedshape.contract import BATCH, BATCHES, IMAGES, SOUNDS, ShapeContract

# A list is answered as a whole; whoever goes through a dataset waits for the first answers, and through a generator
# perhaps for the next item.
_LOOK_AHEAD_BATCHES = ((list, 64), (Sized, 16))
_LOOK_AHEAD_BYTES = 64 * 2**20


def take(steps: Iterator[Any], most: int) -> tuple[list[Any], Exception | None]:
    """Returns up to `most` results, and the error that ended them early: what came before it is still answered."""
    taken = []
    try:
        for step in islice(steps, most):
            taken.append(step)  # noqa: PERF402 - extend() would lose what came before an error
    except Exception as error:
        return taken, error
    return taken, None


def items_at_once(contract: ShapeContract, inputs: Any, batch_size: int) -> int:
    """Returns how many items to prepare before they run: enough to fill batches of every rung, bounded in memory."""
    counted = [contract.sizes[role] for role in (BATCH, IMAGES, SOUNDS) if role in contract.sizes]
    if not counted:
        return 1
    rows = counted[0] or batch_size
    batches = next((most for kind, most in _LOOK_AHEAD_BATCHES if isinstance(inputs, kind)), 1)
    tensors = (*contract.inputs, *contract.outputs)
    sizes = ([axis.size or 1 for axis in spec.axes or () if axis.role not in BATCHES] for spec in tensors)
    row = 4 * sum(int(np.prod(each)) for each in sizes)
    return max(rows, min(batches * rows, _LOOK_AHEAD_BYTES // row))
