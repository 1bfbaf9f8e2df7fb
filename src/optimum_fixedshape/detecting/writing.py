"""Models that give a word for each token: which of them write, which fill masks, and what a decoder reads beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from optimum_fixedshape.tasks.table import Task

from .clues import Clues

_CAUSAL_MASKS: Final = {"Trilu", "GroupQueryAttention"}
_AGAINST = 0.6
_HARDLY = 0.05

_Clue = tuple[Callable[[Clues], bool], str, str, float]
"""What to look for, what it speaks for, what is said of it, and what the other kind is worth then."""


def _has_bias(clues: Clues, *, wanted: bool) -> bool:
    return any(clues.end(spec.session_name).has_bias is wanted for spec in clues.contract.outputs)


_WRITES, _FILLS = "text-generation", "fill-mask"
_CLUES: Final[tuple[_Clue, ...]] = (
    (lambda clues: clues.has_cache, _WRITES, "keeps a cache of keys and values", _HARDLY),
    (
        lambda clues: "token_type_ids" in clues.by_name,
        _FILLS,
        "takes kinds of tokens, as few models that write do",
        0.4,
    ),
    (
        lambda clues: "position_ids" in clues.by_name and "token_type_ids" not in clues.by_name,
        _WRITES,
        "takes positions, as exports of models that write do",
        _AGAINST,
    ),
    (
        lambda clues: not _CAUSAL_MASKS.isdisjoint(clues.operators),
        _WRITES,
        "hides later tokens from earlier ones",
        _AGAINST,
    ),
    (
        lambda clues: _has_bias(clues, wanted=True),
        _FILLS,
        "its last layer has a bias, as few models that write do",
        _AGAINST,
    ),
    (
        lambda clues: _has_bias(clues, wanted=False),
        _WRITES,
        "its last layer has no bias, as few models that fill masks do",
        _AGAINST,
    ),
)


def weigh_writing(task: Task, clues: Clues) -> tuple[float, tuple[str, ...]]:
    """Returns what is to be multiplied with the score of a task, and why: 1 for tasks that have nothing of this."""
    if clues.takes == "tokens+states":
        return _weigh_decoder(task, clues)
    if task.name not in (_WRITES, _FILLS):
        return (_HARDLY if clues.has_cache and clues.takes == "tokens" else 1.0), ()
    weight, told = 1.0, []
    for holds, speaks_for, said, others in _CLUES:
        if holds(clues):
            told.append(said)
            weight *= 1.0 if task.name == speaks_for else others
    return weight, tuple(told)


def _weigh_decoder(task: Task, clues: Clues) -> tuple[float, tuple[str, ...]]:
    """Decoders behind an encoder: only of texts some places may be masked, as sounds and images are never shorter."""
    is_masked = "encoder_attention_mask" in clues.by_name
    said = ("its encoder's states come with a mask" if is_masked else "its encoder's states come without a mask",)
    return (1.0 if is_masked == (task.modality == "text") else _AGAINST), said
