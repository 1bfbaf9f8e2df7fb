"""Fit arrays to a rung, and undo it on the outputs. Pure functions on NumPy arrays.

`prepare` completes what the caller left out, `fit` pads and splits, `join` puts the pieces together again and
`cut` removes the padding. A role decides how an axis is filled: rows and choices by repeating a real one, so that
no slot ever sees an empty mask; tokens by the fill value of their input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .contract import BATCH, SEQUENCE, Mismatch, ShapeContract, TensorSpec
from .errors import MissingInputError, ShapeMismatchError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_REPEATED = frozenset({BATCH, "num_choices"})
_PADDED = frozenset({SEQUENCE})
FILLED = _REPEATED | _PADDED
"""Roles whose axes may be smaller than the graph's; every other fixed axis must match exactly."""


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
        found = found[0] if isinstance(found, list) else found
        if found is not None and found >= 0:
            return int(found)
    return 0


class Feed(NamedTuple):
    """Arrays that are exact in every dimension, and how many of their rows are real.

    Attributes:
        arrays: Input name to array, ready for ``session.run(None, feed.arrays)``.
        rows: The first `rows` rows are real; the rest repeat the last real one.
    """

    arrays: Arrays
    rows: int


def prepare(arrays: Mapping[str, Any], contract: ShapeContract) -> tuple[Arrays, dict[str, int]]:
    """Returns the graph's inputs as arrays of its dtypes, with what can be made from the others, and their sizes.

    A missing ``attention_mask`` means that every token is real, missing ``token_type_ids`` are 0, and missing
    ``position_ids`` count the real tokens. Names that the graph does not take are left out.

    Args:
        arrays: Input name to an array of any rows and any length, all in step with each other.
        contract: Any rung of the ladder: only names, dtypes, roles and the axes that cannot be filled matter.

    Raises:
        MissingInputError: An input is missing and cannot be made.
        ShapeMismatchError: A rank, a dtype or an axis contradicts the graph or another input.
    """
    ready = {spec.name: _cast(np.asarray(arrays[spec.name]), spec) for spec in contract.inputs if spec.name in arrays}
    sizes = _sizes(ready, contract)
    for spec in contract.inputs:
        if spec.name not in ready:
            ready[spec.name] = _made(spec, ready, sizes, given=tuple(arrays))
    return ready, sizes


def fit(arrays: Mapping[str, Array], rung: ShapeContract, fill: Fill) -> Iterator[Feed]:
    """Yields the feeds of one rung that together hold every row of `arrays`, in order.

    Args:
        arrays: What `prepare` returned, or several of it that `collate` joined; at least one row.
        rung: A contract that holds the arrays' sizes; rows beyond its batch make further feeds.
        fill: What stands in the padded places.
    """
    padded = {spec.name: _padded(arrays[spec.name], spec, fill) for spec in rung.inputs}
    rows = max((len(a) for s in rung.inputs if s.axis_of(BATCH) == 0 for a in [padded[s.name]]), default=1)
    batch = rung.batch_size or rows
    for start in range(0, rows, batch):
        yield Feed({spec.name: _slot(padded[spec.name], spec, start, batch) for spec in rung.inputs}, min(batch, rows - start))


def collate(items: Sequence[Mapping[str, Array]], contract: ShapeContract, sizes: Mapping[str, int], fill: Fill) -> Arrays:
    """Returns the rows of several items in one set of arrays, each item padded to `sizes` first.

    Args:
        items: What `prepare` returned for each of them.
        contract: Names and roles.
        sizes: The size of every filled role but the rows.
        fill: What stands in the padded places.
    """
    target = {role: size for role, size in sizes.items() if role != BATCH}
    return {
        spec.name: np.concatenate([_padded(item[spec.name], spec, fill, target) for item in items])
        for spec in contract.inputs
    }


def join(pieces: Sequence[Sequence[Array]], rows: Sequence[int], rung: ShapeContract) -> list[Array]:
    """Returns the outputs of several feeds as those of one, without the rows that were filled in.

    Args:
        pieces: For each feed the outputs of its run, in the graph's order.
        rows: For each feed the number of its real rows.
        rung: The rung that ran.

    Raises:
        ShapeMismatchError: An output has no batch axis and differs between the feeds.
    """
    joined = []
    for index, spec in enumerate(rung.outputs):
        parts = [piece[index] for piece in pieces]
        if spec.axis_of(BATCH) == 0:
            parts = [part[:real] for part, real in zip(parts, rows, strict=True)]
            joined.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
        elif all(np.array_equal(parts[0], part, equal_nan=part.dtype.kind == "f") for part in parts[1:]):
            joined.append(parts[0])
        else:
            raise ShapeMismatchError(
                f"Output {spec} has no axis known as the batch, and its value differs between the {len(parts)} runs "
                f"that these rows need. Pass at most {rung.batch_size} rows, or name its axes with roles=."
            )
    return joined


def cut(outputs: Sequence[Array], rung: ShapeContract, start: int, sizes: Mapping[str, int]) -> list[Array]:
    """Returns one item's share of joined outputs: its rows, and every axis that follows an input cut to the item's size.

    Args:
        outputs: What `join` returned.
        rung: The rung that ran.
        start: The item's first row.
        sizes: The item's own sizes, as `prepare` returned them.
    """
    shares = []
    for array, spec in zip(outputs, rung.outputs, strict=True):
        index = []
        for role, length in zip(spec.roles(), array.shape, strict=True) if spec.axes else ():
            size = sizes.get(role or "", length)
            index.append(slice(start, start + size) if role == BATCH else slice(0, min(size, length)))
        share = array[tuple(index)]
        shares.append(share if share.shape == array.shape else share.copy())
    return shares


def _cast(array: Array, spec: TensorSpec) -> Array:
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    if np.can_cast(array.dtype, wanted, "same_kind") or (array.dtype.kind in "iub" and wanted.kind in "iubf"):
        return array.astype(wanted)
    mismatch = Mismatch(spec.name, None, spec.dtype, str(array.dtype))
    raise ShapeMismatchError(f"{mismatch}. The values would change; convert them first.", mismatches=(mismatch,))


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
            elif axis.size is not None and axis.size != size:
                wrong.append(Mismatch(spec.name, i, str(axis.size), str(size)))
    if wrong:
        raise ShapeMismatchError("The arrays do not fit the graph: " + "; ".join(map(str, wrong)), mismatches=tuple(wrong))
    return sizes


def _made(spec: TensorSpec, ready: Mapping[str, Array], sizes: Mapping[str, int], *, given: Iterable[str]) -> Array:
    shape = tuple(sizes.get(axis.role or "", axis.size) for axis in spec.axes or ())
    if not sizes or None in shape or spec.name not in {"attention_mask", "token_type_ids", "position_ids"}:
        raise MissingInputError(
            f"The graph needs the input {spec}, and it cannot be made from what came: {', '.join(given) or 'nothing'}.",
            missing=(spec.name,),
            given=tuple(given),
        )
    if spec.name == "token_type_ids":
        return np.zeros(shape, spec.dtype)  # type: ignore[arg-type]
    mask = ready.get("attention_mask", np.ones(shape, spec.dtype))  # type: ignore[arg-type]
    return mask if spec.name == "attention_mask" else np.maximum(mask.cumsum(-1) - 1, 0).astype(spec.dtype)


def _padded(array: Array, spec: TensorSpec, fill: Fill, sizes: Mapping[str, int] | None = None) -> Array:
    for i, axis in enumerate(spec.axes or ()):
        size = axis.size if sizes is None else sizes.get(axis.role or "")
        missing = 0 if size is None else size - array.shape[i]
        if missing <= 0 or axis.role == BATCH:
            continue
        if axis.role in _REPEATED:
            array = np.concatenate([array, np.repeat(array.take([-1], i), missing, i)], i)
        elif spec.name == "position_ids":
            ahead = np.arange(1, missing + 1, dtype=array.dtype)
            array = np.concatenate([array, array.take([-1], i) + ahead], i)
        else:
            width = [(0, missing if i == j else 0) for j in range(array.ndim)]
            array = np.pad(array, width, constant_values=fill.value(spec.name))
    return array


def _slot(array: Array, spec: TensorSpec, start: int, batch: int) -> Array:
    if spec.axis_of(BATCH) != 0:
        return array
    part = array[start : start + batch]
    return part if len(part) == batch else np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)])
