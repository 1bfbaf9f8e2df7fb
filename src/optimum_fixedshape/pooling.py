"""Pooling: from the features of tokens to one vector a text, as sentence-transformers computes it. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from .errors import InvalidArgumentError
from .fitting import Array

_LEAST_COUNT, _LEAST_NORM = 1e-9, 1e-12  # what sentence-transformers and torch divide by at least


@dataclass(frozen=True)
class Pooling:
    """How features become a vector.

    Attributes:
        modes: One of `MODES`, or several whose vectors are put side by side.
        normalize: Whether vectors are brought to length 1.
        include_prompt: Whether the tokens of a prompt before the text count, too.

    Raises:
        InvalidArgumentError: A mode is unknown, or there is none.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    include_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.modes or (unknown := [mode for mode in self.modes if mode not in MODES]):
            given = ", ".join(map(repr, unknown)) if self.modes else "none"
            raise InvalidArgumentError(f"pooling must be of {', '.join(MODES)}, got {given}.")

    def __call__(self, features: Array, mask: Array, *, prompt_tokens: int = 0) -> Array:
        """Returns vectors ``(rows, modes x width)`` in float32.

        Args:
            features: ``(rows, tokens, width)``.
            mask: ``(rows, tokens)``, 1 at real tokens and 0 at padding, on whichever side.
            prompt_tokens: How many tokens at the start of each text are a prompt, special tokens before it included.
        """
        features, real = features.astype(np.float32, copy=False), mask.astype(bool)
        places = np.arange(1, real.shape[1] + 1) - real.argmax(1)[:, None]  # of real tokens, counted from 1
        counted = real if self.include_prompt else real & (places > prompt_tokens)
        parts = [MODES[mode](features, counted, places) for mode in self.modes]
        vectors: Array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(_LEAST_NORM))
        return vectors


def _first(features: Array, counted: Array, places: Array) -> Array:
    return _token(features, np.argmax(counted, axis=1))


def _last(features: Array, counted: Array, places: Array) -> Array:
    return _token(features, counted.shape[1] - 1 - counted[:, ::-1].argmax(1))


def _largest(features: Array, counted: Array, places: Array) -> Array:
    vectors: Array = features.max(1, where=counted[:, :, None], initial=-np.inf)
    return vectors


def _mean(features: Array, counted: Array, places: Array) -> Array:
    return _weighted_sum(features, counted, _at_least(counted.sum(1)))


def _mean_by_root(features: Array, counted: Array, places: Array) -> Array:
    return _weighted_sum(features, counted, np.sqrt(_at_least(counted.sum(1))))


def _mean_by_place(features: Array, counted: Array, places: Array) -> Array:
    weights = counted * places
    return _weighted_sum(features, weights, _at_least(weights.sum(1)))


def _token(features: Array, places: Array) -> Array:
    vectors: Array = features[np.arange(len(features)), places]
    return vectors


def _weighted_sum(features: Array, weights: Array, divisors: Array) -> Array:
    vectors: Array = np.matmul(weights.astype(np.float32)[:, None, :], features)[:, 0] / divisors[:, None]
    return vectors


def _at_least(counts: Array) -> Array:
    least: Array = np.maximum(counts.astype(np.float32), np.float32(_LEAST_COUNT))
    return least


MODES: Final[Mapping[str, Callable[[Array, Array, Array], Array]]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_place,
    "lasttoken": _last,
}
"""Each mode of sentence-transformers under its own name there, in the order in which it puts them side by side."""
