"""What a lean path is: it answers what it can, exactly as transformers would, and leaves the rest to transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from optimum_fixedshape.fitting import Array

PLAIN: Any = object()
"""In place of an answer: this item goes the way of transformers' own class."""

Params = Mapping[str, Any]
_PARTS = ("model", "tokenizer", "image_processor", "feature_extractor", "_args_parser")
_METHODS = (
    "_sanitize_parameters",
    "get_iterator",
    "run_single",
    "preprocess",
    "_forward",
    "forward",
    "postprocess",
    "run_items",
    "_named",
    "_windows",
    "_parse_and_tokenize",
    "ensure_exactly_one_mask_token",
    "_ensure_exactly_one_mask_token",
)
KNOWN_TO_PATHS = frozenset({*_PARTS, *_METHODS})
"""Attributes of a pipeline that a path is made from: where one changes, the path is made anew."""


class LeanPath(ABC):
    """Answers items of one pipeline. Safe to share between threads.

    Args:
        pipe: The pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    @classmethod
    def of(cls, pipe: Any) -> Self | None:
        """Returns the path of a pipeline, or None where it, its model or its processors do what a path cannot know.

        The pipeline class that names its `lean_path` is known; one made from it may do all else than its methods.
        """
        known = next(each for each in type(pipe).__mro__ if "lean_path" in each.__dict__)
        is_known = all(
            getattr(type(pipe), name, None) is getattr(known, name, None) and name not in pipe.__dict__
            for name in _METHODS
        )
        return cls(pipe) if is_known and cls.takes(pipe) else None

    @classmethod
    @abstractmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether the pipeline's model and processors are such that the answers are the same."""

    @abstractmethod
    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the answer to each item, in order, or `PLAIN`.

        Args:
            items: What the caller passed.
            rows: How many go into a run where the graph leaves that open.
            preprocess: What transformers' ``_sanitize_parameters`` made of the call's arguments, for `preprocess`.
            postprocess: The same for `postprocess`.
        """

    def alone(self, answer: Any) -> Any:
        """Returns what a call with one item and no arguments gives, of the item's answer."""
        return answer


def softmax(logits: Array) -> Array:
    """Returns probabilities along the last axis, computed as in transformers' pipelines."""
    shifted = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    probabilities: Array = shifted / np.add.reduce(shifted, axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: Array) -> Array:
    """Returns the probability of each label by itself, computed as in transformers' pipelines."""
    probabilities: Array = 1.0 / (1.0 + np.exp(-logits))
    return probabilities
