"""Which shapes to export a model at: those asked for, or as many tokens as the model holds."""

from __future__ import annotations

from itertools import product
from typing import Any

from optimum_fixedshape.contract import BATCH, SEQUENCE, Mismatch
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.repo import Sizes, sizes_of
from optimum_fixedshape.tasks import Task

Combination = dict[str, int]

CHOICES = "num_choices"
_DEFAULT_BATCH, _DEFAULT_CHOICES = 8, 4
_DEFAULT_LENGTHS = (16, 32, 64, 128)
_LENGTHS_ON_THE_FLY = (16, 64, 192, 512, 2048, 8192)
_LONGEST_WITHOUT_POSITIONS = 512

_POSITIONS_START_AFTER_PADDING = frozenset(
    {
        *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
_PADDING_OF_POSITIONS = {"mpnet": 1}
"""Where it is not the config's ``pad_token_id``."""


def combinations_of(shapes: Sizes | None, row: Task, config: Any) -> list[Combination]:
    """Returns every combination of the sizes in `shapes`, largest first.

    Args:
        shapes: Sizes by shape key; None takes 8 rows of 16, 32, 64 and 128 tokens, as far as the model holds them.
        row: The task, which says what keys there are.
        config: The model's configuration, which says how many tokens it holds.

    Raises:
        ShapeMismatchError: A key is unknown or missing, or a size is none that the model has.
    """
    keys = [BATCH, CHOICES, SEQUENCE] if row.name == "multiple-choice" else [BATCH, SEQUENCE]
    most = positions_of(config)
    if shapes is None:
        lengths = [length for length in _DEFAULT_LENGTHS if most is None or length <= most]
        shapes = {BATCH: _DEFAULT_BATCH, SEQUENCE: lengths or [most or 1]}
    if unknown := [key for key in shapes if key not in keys]:
        raise ShapeMismatchError(f"shapes= knows {', '.join(keys)} for {row.name}, got {', '.join(unknown)}.")
    if SEQUENCE not in shapes:
        raise ShapeMismatchError(f"shapes= needs {SEQUENCE}, an int or a list of ints.")
    sizes = sizes_of({BATCH: 1, CHOICES: _DEFAULT_CHOICES, **shapes})
    if bad := [size for size in sizes[SEQUENCE] if most is not None and size > most]:
        limit = f"1 to {most}, the positions that the model has"
        mismatches = tuple(Mismatch(SEQUENCE, None, limit, str(size)) for size in bad)
        raise ShapeMismatchError(f"{SEQUENCE} must be {limit}, got {bad}.", mismatches=mismatches)
    found = [dict(zip(keys, each, strict=True)) for each in product(*(sizes[key] for key in keys))]
    return sorted(found, key=lambda each: (each[SEQUENCE], *each.values()), reverse=True)


def shapes_up_to(config: Any) -> Sizes:
    """Returns shapes that hold what the original model holds, one row at a time: for exports on the fly.

    Models that place more than 8192 tokens are exported for 8192, models that do not count them for 512.
    """
    most = min(positions_of(config) or _LONGEST_WITHOUT_POSITIONS, _LENGTHS_ON_THE_FLY[-1])
    return {BATCH: 1, SEQUENCE: [*(length for length in _LENGTHS_ON_THE_FLY if length < most), most]}


def positions_of(config: Any) -> int | None:
    """Returns how many tokens the model can place, or None where it does not count them."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None or most < 1 or not getattr(config, "position_biased_input", True):
        return None
    if config.model_type not in _POSITIONS_START_AFTER_PADDING:
        return int(most)
    return int(most) - 1 - int(_PADDING_OF_POSITIONS.get(config.model_type, config.pad_token_id or 0))
