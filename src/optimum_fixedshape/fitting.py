"""Fit arrays to a rung. Pure functions on NumPy arrays; `unfitting` undoes it on the outputs.

`prepare` completes what the caller left out, `fit` pads and splits. A role decides how an axis is filled: rows and
choices by repeating a real one, so that no slot ever sees an empty mask; tokens and samples by the fill value of their
input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .contract import BATCHES, FILLED, PAST, REPEATED, Mismatch, ShapeContract, TensorSpec
from .errors import MissingInputError, ShapeMismatchError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_UNKNOWN = -1
_MAYBE_EMPTY = BATCHES | {PAST}


@dataclass(frozen=True)
class Fill:
    """What stands in the padded places of each input.

    Attributes:
        pad_token_id: For ``input_ids``.
        pad_token_type_id: For ``token_type_ids``.
    """

    pad_token_id: int = 0
    pad_token_type_id: int = 0

    def value(self, name: str) -> int:
        """The value that fills the input called `name`; masks and all other inputs are filled with 0."""
        return {"input_ids": self.pad_token_id, "token_type_ids": self.pad_token_type_id}.get(name, 0)


def pad_id_of(tokenizer_or_config: Any) -> int:
    """Returns the id that pads: the pad token's, else the end token's, else 0."""
    for name in ("pad_token_id", "eos_token_id"):
        found = getattr(tokenizer_or_config, name, None)
        found = next(iter(found), None) if isinstance(found, list) else found
        if found is not None and found >= 0:
            return int(found)
    return 0


Spans = Mapping[str, slice]


class Feed(NamedTuple):
    """Arrays that are exact in every dimension, and how many of their rows are real.

    Attributes:
        arrays: The graph's own name of each input to its array, ready for ``session.run(None, feed.arrays)``.
        rows: The first `rows` rows are real; the rest repeat the last real one. With two towers, the rows of the first.
        spans: For each role that counts rows, which of all its rows these are.
    """

    arrays: Arrays
    rows: int
    spans: Spans


def prepare(arrays: Mapping[str, Any], contract: ShapeContract) -> tuple[Arrays, dict[str, int]]:
    """Returns the graph's inputs as arrays of its dtypes, with what the caller left out, and their sizes.

    What is left out is what transformers' models make of it: every token is real in a missing ``attention_mask``,
    missing ``token_type_ids`` are 0, missing ``position_ids`` count from 0. One row goes with any number of rows of the
    other inputs, as in PyTorch. Names that the graph does not take are left out.

    Args:
        arrays: Input name to an array, or nested lists, of any rows and any length, all in step with each other.
        contract: Any rung of the ladder: only names, dtypes, roles and the axes that cannot be filled matter.

    Raises:
        MissingInputError: An input is missing and cannot be made.
        ShapeMismatchError: A rank, a dtype or an axis contradicts the graph or another input.
    """
    given = {spec.name: _cast(_array(arrays[spec.name], spec), spec) for spec in contract.inputs if spec.name in arrays}
    given = _broadcast(given, contract)
    sizes = _sizes(given, contract)
    ready = {
        spec.name: given[spec.name] if spec.name in given else _made(spec, sizes, given=tuple(arrays))
        for spec in contract.inputs
    }
    return ready, sizes


def fit(arrays: Mapping[str, Array], rung: ShapeContract, fill: Fill) -> Iterator[Feed]:
    """Yields the feeds of one rung that together hold every row of `arrays`, in order.

    Args:
        arrays: What `prepare` returned, or several of it that `collate` joined; at least one row.
        rung: A contract that holds the arrays' sizes; rows beyond its batch make further feeds.
        fill: What stands in the padded places.
    """
    padded = {spec.name: _padded(arrays[spec.name], spec, fill) for spec in rung.inputs}
    rows = {role: padded[spec.name].shape[axis] for spec, axis, role in _batched(rung.inputs)}
    batch = {role: rung.sizes.get(role) or rows[role] for role in rows}
    starts = [range(0, rows[role], batch[role]) for role in rows]
    for start in product(*starts):
        spans = {role: slice(at, min(at + batch[role], rows[role])) for role, at in zip(rows, start, strict=True)}
        feed = {spec.session_name: _slot(padded[spec.name], spec, spans, batch) for spec in rung.inputs}
        yield Feed(feed, next((span.stop - span.start for span in spans.values()), 1), spans)


def collate(
    items: Sequence[Mapping[str, Array]], contract: ShapeContract, sizes: Mapping[str, int], fill: Fill
) -> Arrays:
    """Returns the rows of several items in one set of arrays, each item padded to `sizes` first.

    Args:
        items: What `prepare` returned for each of them.
        contract: Names and roles. Every input has a batch axis.
        sizes: The size of every filled role but the rows.
        fill: What stands in the padded places.
    """
    return {
        spec.name: np.concatenate([_padded(item[spec.name], spec, fill, sizes) for item in items], axis)
        for spec, axis, _ in _batched(contract.inputs)
    }


def _array(value: Any, spec: TensorSpec) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        mismatch = Mismatch(spec.name, None, "rows of one length", "rows of different lengths")
        raise ShapeMismatchError(f"{mismatch}. Pad them first.", mismatches=(mismatch,)) from error


def _cast(array: Array, spec: TensorSpec) -> Array:
    if spec.dtype not in np.sctypeDict or array.dtype == spec.dtype:
        return array
    wanted = np.dtype(spec.dtype)
    is_exact = array.dtype.kind in "iub" and wanted.kind in "iubf"
    if is_exact or not array.size or np.can_cast(array.dtype, wanted, "same_kind"):
        return array.astype(wanted)
    mismatch = Mismatch(spec.name, None, spec.dtype, str(array.dtype))
    raise ShapeMismatchError(f"{mismatch}. The values would change; convert them first.", mismatches=(mismatch,))


def _batched(specs: Iterable[TensorSpec]) -> Iterator[tuple[TensorSpec, int, str]]:
    for spec in specs:
        if role := spec.batch_role:
            yield spec, spec.roles().index(role), role


def rows_between(array: Array, axis: int, start: int, stop: int) -> Array:
    """Returns the part of an array from `start` to `stop` along `axis`."""
    return array[(slice(None),) * axis + (slice(start, stop),)]


def _broadcast(arrays: Arrays, contract: ShapeContract) -> Arrays:
    known = [
        (spec.name, axis, role)
        for spec, axis, role in _batched(contract.inputs)
        if spec.name in arrays and arrays[spec.name].ndim == len(spec.axes or ())
    ]
    rows: dict[str, int] = {}
    for name, axis, role in known:
        rows[role] = max(rows.get(role, 1), arrays[name].shape[axis])
    return arrays | {
        name: np.repeat(arrays[name], rows[role], axis)
        for name, axis, role in known
        if arrays[name].shape[axis] == 1 < rows[role]
    }


def _sizes(arrays: Mapping[str, Array], contract: ShapeContract) -> dict[str, int]:
    sizes: dict[str, int] = {}
    wrong = []
    for spec in contract.inputs:
        if spec.name not in arrays or spec.axes is None:
            continue
        shape = arrays[spec.name].shape
        if len(shape) != len(spec.axes):
            wrong.append(Mismatch(spec.name, None, f"{len(spec.axes)} axes, as {spec}", f"shape {shape}"))
            continue
        for i, (axis, size) in enumerate(zip(spec.axes, shape, strict=True)):
            if axis.role in FILLED:
                if sizes.setdefault(axis.role or "", size) != size:
                    wrong.append(Mismatch(spec.name, i, f"{axis.role} {sizes[axis.role or '']}", str(size)))
                elif not size and axis.role not in _MAYBE_EMPTY and any(sizes.get(role) for role in BATCHES):
                    wrong.append(Mismatch(spec.name, i, f"{axis.role} 1 or more", "0"))
            elif axis.size is not None and axis.size != size:
                wrong.append(Mismatch(spec.name, i, str(axis.size), str(size)))
    if wrong:
        what = "; ".join(map(str, wrong))
        raise ShapeMismatchError(f"The arrays do not fit the graph: {what}", mismatches=tuple(wrong))
    return sizes


def _counted(shape: Sequence[int], dtype: str) -> Array:
    return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape)


_MADE: Mapping[str, Callable[[Any, str], Array]] = {
    "attention_mask": np.ones,
    "token_type_ids": np.zeros,
    "position_ids": _counted,
    "pixel_mask": np.ones,
    "bbox": np.zeros,
}


def _made(spec: TensorSpec, sizes: Mapping[str, int], *, given: Sequence[str]) -> Array:
    shape = [sizes.get(axis.role or "", axis.size or _UNKNOWN) for axis in spec.axes or ()]
    make = _MADE.get(spec.name)
    if make and sizes and _UNKNOWN not in shape:
        return make(shape, spec.dtype)
    raise MissingInputError(
        f"The graph needs the input {spec}, and it cannot be made from what came: {', '.join(given) or 'nothing'}.",
        missing=(spec.name,),
        given=tuple(given),
    )


def _padded(array: Array, spec: TensorSpec, fill: Fill, sizes: Mapping[str, int] | None = None) -> Array:
    for i, axis in enumerate(spec.axes or ()):
        size = axis.size if sizes is None else sizes.get(axis.role or "")
        missing = 0 if size is None else size - array.shape[i]
        if missing <= 0 or axis.role in BATCHES:
            continue
        if axis.role in REPEATED:
            array = np.concatenate([array, np.repeat(array.take([-1], i), missing, i)], i)
        elif spec.name == "position_ids":
            ahead = np.arange(1, missing + 1, dtype=array.dtype)
            array = np.concatenate([array, array.take([-1], i) + ahead], i)
        else:
            width = [(0, missing if i == j else 0) for j in range(array.ndim)]
            array = np.pad(array, width, constant_values=fill.value(spec.name))
    return array


def _slot(array: Array, spec: TensorSpec, spans: Spans, batch: Mapping[str, int]) -> Array:
    role = spec.batch_role
    if role is None:
        return array
    axis, span = spec.roles().index(role), spans[role]
    part = rows_between(array, axis, span.start, span.stop)
    missing = batch[role] - part.shape[axis]
    return np.concatenate([part, np.repeat(part.take([-1], axis), missing, axis)], axis) if missing else part
