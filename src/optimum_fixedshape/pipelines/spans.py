"""Spans of text as answers: which tokens one may touch, which are the best, and the characters they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Spans:
    """The best spans of one window, best first: first and last tokens and probabilities, each (spans,).

    `null_score` is the probability that the window holds no answer: that of the span of token 0 alone.
    """

    firsts: Array
    lasts: Array
    scores: Array
    null_score: float


def block_tokens(sequences: Sequence[int | None], ids: Sequence[int], *, context: int, cls: int | None) -> list[int]:
    """Returns 1 for each token that no answer may touch, else 0, (tokens,).

    CLS stays free: models point at it where there is no answer. Where the context comes first (0), transformers frees
    every token, the question's too.
    """
    pairs = zip(sequences, ids, strict=True)
    return [int(context == 1 and sequence != context and token != cls) for sequence, token in pairs]


def read_row(array: Any) -> Array:
    """Returns the one row of a (1, tokens) array or tensor as NumPy, (tokens,); bfloat16 becomes float32."""
    is_bfloat16 = isinstance(array, torch.Tensor) and array.dtype == torch.bfloat16
    row: Array = np.asarray(array.float() if is_bfloat16 else array)[0]
    return row


def normalize_logits(logits: Array, free: Array) -> Array:
    """Returns the softmax over the free tokens, (tokens,); the others get next to nothing."""
    logits = np.where(free, logits, -10000.0)
    powers = np.exp(logits - logits.max())
    probabilities: Array = powers / powers.sum()
    return probabilities


def rank_scores(scores: Array, *, count: int) -> Array:
    """Returns the flat positions of the highest scores, highest first, (count or fewer,).

    Which of several equal scores get in is up to NumPy, so that only transformers' choice of its functions is exact.
    """
    costs = -scores.ravel()
    if count == 1:
        return np.array([costs.argmin()])
    best: Array = np.argpartition(costs, count)[:count] if count < costs.size else np.arange(costs.size)
    order: Array = best[np.argsort(costs[best])]
    return order


def find_spans(start_logits: Array, end_logits: Array, free: Array, *, count: int, max_answer_len: int) -> Spans:
    """Returns the best spans of one window.

    Args:
        start_logits: Logit of each token as the first of the answer, (tokens,).
        end_logits: Logit of each token as the last of the answer, (tokens,).
        free: Which tokens an answer may touch, (tokens,).
        count: How many spans to rank; those that touch another token are dropped afterwards.
        max_answer_len: Length of the longest span, in tokens.
    """
    start, end = normalize_logits(start_logits, free), normalize_logits(end_logits, free)
    null_score = (start[0] * end[0]).item()
    start[0] = end[0] = 0
    tokens = np.arange(start.size)
    steps = tokens - tokens[:, None]
    scores = np.where((steps >= 0) & (steps < max_answer_len), np.multiply.outer(start, end), 0)
    firsts, lasts = np.unravel_index(rank_scores(scores, count=count), scores.shape)
    # transformers lets token 0 pass, free or not: it shows among answers that score 0.
    usable = free | ((tokens == 0) & free.any())
    kept = usable[firsts] & usable[lasts]
    firsts, lasts = firsts[kept], lasts[kept]
    return Spans(firsts, lasts, scores[firsts, lasts], null_score)


def locate_span(encoding: Any, first: int, last: int, *, context: int, align_to_words: bool) -> tuple[int, int]:
    """Returns the characters (first, last + 1) of a span of tokens, widened to whole words where both are known."""
    words = [encoding.token_to_word(token) for token in (first, last) if align_to_words and token >= 0]
    known = [chars for word in words if word is not None and (chars := encoding.word_to_chars(word, context))]
    start, end = known if len(known) == 2 else (encoding.offsets[first], encoding.offsets[last])
    return start[0], end[1]
