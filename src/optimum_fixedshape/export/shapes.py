"""Which shapes to export a model at: those asked for, or what the model and its processors say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from optimum_fixedshape.contract import BATCH, SEQUENCE, Mismatch
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.repo import Sizes, sizes_of
from optimum_fixedshape.roles import CHOICES
from optimum_fixedshape.tasks import Task

from .defaults import default_size, positions_of

Combination = dict[str, int]

_DEFAULT_BATCH = 8
_DEFAULT_LENGTHS = (16, 32, 64, 128)
_LENGTHS_ON_THE_FLY = (16, 64, 192, 512, 2048, 8192)
_LONGEST_WITHOUT_POSITIONS = 512


def combinations_of(
    shapes: Sizes | None, row: Task, config: Any, keys: Sequence[str] = (), processor: Any = None
) -> list[Combination]:
    """Returns every combination of the sizes in `shapes`, largest first.

    Args:
        shapes: Sizes by shape key. For texts None takes 8 rows of 16, 32, 64 and 128 tokens, as far as the model holds
            them. All other sizes that are left out are those that the model, or else `processor`, was made for.
        row: The task.
        config: The model's configuration, which says how many tokens it holds.
        keys: The shape keys of the model's inputs; by default those of texts.
        processor: The model's processor.

    Raises:
        ShapeMismatchError: A key is unknown or missing, or a size is none that the model has.
    """
    texts = [BATCH, CHOICES, SEQUENCE] if row.name == "multiple-choice" else [BATCH, SEQUENCE]
    keys = list(keys) or texts
    most = positions_of(config.get_text_config()) if SEQUENCE in keys else None
    is_text = set(keys) == set(texts)
    if shapes is None and is_text:
        lengths = [length for length in _DEFAULT_LENGTHS if most is None or length <= most]
        shapes = {BATCH: _DEFAULT_BATCH, SEQUENCE: lengths or [most or 1]}
    shapes = shapes or {}
    if unknown := [key for key in shapes if key not in keys]:
        raise ShapeMismatchError(f"shapes= knows {', '.join(keys)} for {row.name}, got {', '.join(unknown)}.")
    if is_text and SEQUENCE not in shapes:
        raise ShapeMismatchError(f"shapes= needs {SEQUENCE}, an int or a list of ints.")
    sizes = sizes_of({key: shapes[key] if key in shapes else default_size(key, config, processor) for key in keys})
    if bad := [size for size in sizes.get(SEQUENCE, ()) if most is not None and size > most]:
        limit = f"1 to {most}, the positions that the model has"
        mismatches = tuple(Mismatch(SEQUENCE, None, limit, str(size)) for size in bad)
        raise ShapeMismatchError(f"{SEQUENCE} must be {limit}, got {bad}.", mismatches=mismatches)
    found = [dict(zip(keys, each, strict=True)) for each in product(*(sizes[key] for key in keys))]
    return sorted(found, key=lambda each: (each.get(SEQUENCE, 0), *each.values()), reverse=True)


def shapes_up_to(config: Any) -> Sizes:
    """Returns shapes that hold what the original model holds, one row at a time: for exports on the fly.

    Models that place more than 8192 tokens are exported for 8192, models that do not count them for 512.
    """
    most = min(positions_of(config) or _LONGEST_WITHOUT_POSITIONS, _LENGTHS_ON_THE_FLY[-1])
    return {BATCH: 1, SEQUENCE: [*(length for length in _LENGTHS_ON_THE_FLY if length < most), most]}
