"""Undo on the outputs what `fitting` did to the inputs. Pure functions on NumPy arrays.

`join` puts the outputs of several feeds together, without the rows that were filled in; `cut` removes the padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .contract import BATCH, Axis, ShapeContract, TensorSpec
from .errors import ShapeMismatchError
from .fitting import Array, Spans, rows_between


def join(pieces: Sequence[Sequence[Array]], spans: Sequence[Spans], rung: ShapeContract) -> list[Array]:
    """Returns the outputs of several feeds as those of one, without the rows that were filled in.

    Args:
        pieces: For each feed the outputs of its run, in the graph's order.
        spans: For each feed which rows it holds.
        rung: The rung that ran.

    Raises:
        ShapeMismatchError: An output has no batch axis and differs between the feeds.
    """
    joined = []
    for index, spec in enumerate(rung.outputs):
        parts = [piece[index] for piece in pieces]
        if spec.batch_role:
            joined.append(_whole(parts, spans, spec))
        elif all(_is_same(parts[0], part) for part in parts[1:]):
            joined.append(parts[0])
        else:
            raise ShapeMismatchError(
                f"Output {spec} has no axis known as the batch, and its value differs between the {len(parts)} runs "
                f"that these rows need. Pass at most {rung.batch_size} rows, or say what its axes are: "
                f"from_pretrained(..., roles={{{spec.name!r}: [...]}})."
            )
    return joined


def cut(outputs: Sequence[Array], rung: ShapeContract, start: int, sizes: Mapping[str, int]) -> list[Array]:
    """Returns one item's share of joined outputs: its rows, and each axis that follows an input cut to the item's size.

    Args:
        outputs: What `join` returned.
        rung: The rung that ran.
        start: The item's first row.
        sizes: The item's own sizes, as `prepare` returned them.
    """
    return [_cut(array, spec, start, sizes) for array, spec in zip(outputs, rung.outputs, strict=True)]


def _whole(parts: Sequence[Array], spans: Sequence[Spans], spec: TensorSpec) -> Array:
    """The output of all rows: each part, without what was filled in, at the place of its rows."""
    places = [tuple(span.get(role or "", slice(None)) for role in spec.roles()) for span in spans]
    real = [
        part[tuple(slice(0, place.stop and place.stop - place.start) for place in where)]
        for part, where in zip(parts, places, strict=True)
    ]
    if len(parts) == 1:
        return real[0]
    size = {role: max(span[role].stop for span in spans) for role in spans[0]}
    shape = [size.get(role or "", length) for role, length in zip(spec.roles(), parts[0].shape, strict=True)]
    whole = np.empty(shape, parts[0].dtype)
    for part, where in zip(real, places, strict=True):
        whole[where] = part
    return whole


def _is_same(one: Any, other: Any) -> bool:
    is_number = isinstance(one, np.ndarray) and one.dtype.kind == "f"
    return bool(np.array_equal(one, other, equal_nan=is_number))


def _cut(array: Array, spec: TensorSpec, start: int, sizes: Mapping[str, int]) -> Array:
    if spec.axes is None:
        return array
    share = array
    for i, axis in enumerate(spec.axes):
        if axis.role and axis.role in sizes:
            share = _share(share, i, axis, start, sizes[axis.role])
    return share if share.shape == array.shape else share.copy()


def _share(array: Array, index: int, axis: Axis, start: int, size: int) -> Array:
    if axis.role == BATCH:
        return rows_between(array, index, start, start + size)
    length = axis.length_for(size)
    real = rows_between(array, index, 0, length)
    if not axis.extra:
        return real
    return np.concatenate(
        [real, rows_between(array, index, array.shape[index] - axis.extra, array.shape[index])], index
    )
