"""Rows that are longer than any rung: overlapping windows, and one answer out of theirs. Pure functions on arrays.

A window repeats the row's special tokens and, in a pair, the whole shorter text; it moves along the longest stretch of
text. Outputs that follow the tokens take each token from the window that sees most of its surroundings; all others are
averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .contract import SEQUENCE, ShapeContract, TensorSpec
from .errors import InputTooLongError, ShapeMismatchError
from .fitting import Array, Arrays

_Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Windows:
    """How one row is cut.

    Attributes:
        length: Tokens of the whole row.
        tokens: For each window the places in the row that its tokens come from.
        owner: For each place in the row the window that answers for it.
        role: The role of the axis that is cut.
    """

    length: int
    tokens: tuple[_Index, ...]
    owner: _Index
    role: str = SEQUENCE


def plan_windows(special_tokens: Sequence[int] | Array, limit: int, role: str = SEQUENCE) -> Windows:
    """Returns the windows of a row that is longer than `limit`; neighbours share half of a window's text.

    Args:
        special_tokens: ``(tokens,)``, 1 where the tokenizer added a special token.
        limit: Tokens of one window.
        role: What the axis stands for; of a sound nothing is special.

    Raises:
        InputTooLongError: What every window must repeat leaves no room for the rest.
    """
    special = np.asarray(special_tokens).astype(bool)
    start, stop = _longest_stretch(~special)
    room = limit - (len(special) - (stop - start))
    if room < 1:
        raise InputTooLongError(
            f"The row has {len(special)} tokens, of which every window must repeat {limit - room}, and a window holds "
            f"{limit}. Ways out: shorten the shorter text of a pair; or export a larger rung.",
            size=len(special),
            limit=limit,
            axis=role,
        )
    starts = np.array([*range(start, stop - room, room - room // 2), stop - room])
    before, after = np.arange(start), np.arange(stop, len(special))
    tokens = tuple(np.concatenate([before, np.arange(first, first + room), after]) for first in starts)
    # Windows are equally long, so a token is farthest from the edges of the one whose middle is nearest.
    halfway = (starts[1:] + starts[:-1] + room - 1) / 2
    owner = np.searchsorted(halfway, np.arange(len(special)))
    return Windows(len(special), tokens, owner, role)


def cut_windows(arrays: Mapping[str, Array], contract: ShapeContract, windows: Windows) -> list[Arrays]:
    """Returns one set of arrays for each window of a row.

    Args:
        arrays: The row, each ``(1, tokens, ...)``; names that the graph does not take are left out.
        contract: Says which axis of an array follows the tokens.
        windows: What `plan_windows` returned.
    """
    axes = {spec.name: spec.axis_of(windows.role) for spec in contract.inputs if spec.name in arrays}
    return [
        {name: arrays[name] if axis is None else arrays[name].take(index, axis) for name, axis in axes.items()}
        for index in windows.tokens
    ]


def merge_windows(outputs: Sequence[Mapping[str, Array]], contract: ShapeContract, windows: Windows) -> Arrays:
    """Returns the outputs of a row from those of its windows.

    ``logits`` of the whole row are the mean of the windows' logits. Other outputs of the whole row, such as
    embeddings, are weighted by the tokens that each window answers for.

    Raises:
        ShapeMismatchError: An output relates tokens to tokens, which no window can know, or is no number to average.
    """
    weights = np.bincount(windows.owner, minlength=len(outputs)) / windows.length
    merged = {}
    for spec in contract.outputs:
        parts = [output[spec.name] for output in outputs]
        follows = spec.roles().count(windows.role)
        if problem := _problem(parts[0], follows, windows.role):
            raise ShapeMismatchError(
                f"Output {spec} {problem} and cannot be merged from windows. Ways out: overflow='truncate', or a "
                "larger rung."
            )
        if follows:
            merged[spec.name] = _stitched(parts, spec, windows)
        else:
            mean = np.average(parts, axis=0, weights=None if spec.name == "logits" else weights)
            merged[spec.name] = mean.astype(parts[0].dtype)
    return merged


def _problem(part: Array, follows: int, role: str) -> str | None:
    if follows and role != SEQUENCE:
        return "holds frames of the sound"
    if follows > 1:
        return "relates tokens to tokens"
    return None if follows or part.dtype.kind == "f" else "has no floating point numbers to average"


def _longest_stretch(text: Array) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], text.astype(np.int8), [0]])))
    stretches = edges.reshape(-1, 2)
    if not len(stretches):
        return len(text), len(text)
    longest = int(np.argmax(stretches[:, 1] - stretches[:, 0]))
    return int(stretches[longest, 0]), int(stretches[longest, 1])


def _stitched(parts: Sequence[Array], spec: TensorSpec, windows: Windows) -> Array:
    axis = spec.axis_of(windows.role) or 0
    shape = list(parts[0].shape)
    shape[axis] = windows.length
    whole = np.empty(shape, parts[0].dtype)
    into, columns = np.moveaxis(whole, axis, 0), [np.moveaxis(part, axis, 0) for part in parts]
    for window, (places, column) in enumerate(zip(windows.tokens, columns, strict=True)):
        mine = windows.owner[places] == window
        into[places[mine]] = column[mine]
    return whole
