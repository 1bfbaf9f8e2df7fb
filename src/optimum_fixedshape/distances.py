"""How far answers are from those of the original: in numbers, against their spread, and as answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

ANSWERS: Final = frozenset({"logits"})
"""Outputs whose largest number along the last axis is the answer."""
EMBEDDINGS: Final = frozenset({"last_hidden_state", "pooler_output", "text_embeds", "image_embeds", "embeddings"})
"""Outputs whose direction is the answer."""


class Distance:
    """Collects pairs of answers, and says how far they are apart.

    Attributes:
        largest: The largest absolute difference so far.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self._answers = self._changed = 0
        self._cosine: float | None = None

    def add(self, name: str, exact: Any, found: Any) -> None:
        """Adds what two models answer to the same inputs.

        Args:
            name: The standard name of the output.
            exact: What the original answers, an array or any other value.
            found: What is compared with it, of the same shape.
        """
        self.largest = max(self.largest, largest_difference(exact, found))
        if not isinstance(exact, np.ndarray) or exact.dtype.kind != "f" or not exact.size:
            return
        numbers, others = exact.astype(np.float64), found.astype(np.float64)
        known = numbers[np.isfinite(numbers)]
        self._count += known.size
        self._sum += float(known.sum())
        self._squares += float((known**2).sum())
        if name in ANSWERS and 2 <= exact.ndim <= 3 and exact.shape[-1] > 1:
            changed = numbers.argmax(axis=-1) != others.argmax(axis=-1)
            self._answers += changed.size
            self._changed += int(changed.sum())
        if name in EMBEDDINGS and 2 <= exact.ndim <= 3:
            lengths = np.linalg.norm(numbers, axis=-1) * np.linalg.norm(others, axis=-1)
            cosines = np.divide((numbers * others).sum(axis=-1), lengths, where=lengths > 0, out=np.ones(lengths.shape))
            self._cosine = min(1.0 if self._cosine is None else self._cosine, float(cosines.min()))

    def facts(self) -> dict[str, float]:
        """Returns what the largest difference is to be read against.

        ``spread`` is the standard deviation of the original's numbers, ``answers_changed`` the share of rows (or
        tokens) whose largest logit is another one, and ``lowest_cosine`` that of the embedding whose direction changed
        the most. What the outputs do not tell is left out.
        """
        mean = self._sum / self._count if self._count else 0.0
        facts = {"spread": max(self._squares / self._count - mean**2, 0.0) ** 0.5} if self._count else {}
        if self._answers:
            facts["answers_changed"] = self._changed / self._answers
        if self._cosine is not None:
            facts["lowest_cosine"] = self._cosine
        return facts


def fidelity_text(facts: Mapping[str, float]) -> str:
    """Returns the `facts` of a distance in words."""
    words = {
        "spread": "numbers of spread {:.2g}",
        "answers_changed": "{:.1%} of answers changed",
        "lowest_cosine": "lowest cosine {:.4f}",
    }
    return ", ".join(text.format(facts[name]) for name, text in words.items() if name in facts)


def largest_difference(one: Any, other: Any) -> float:
    """Returns the largest absolute difference between two arrays of one shape; 0 for empty ones.

    NaN in one alone is infinitely far from the other, NaN in both is the same; so is infinity. Texts, and values that
    are no arrays, are the same or infinitely far.
    """
    if not isinstance(one, np.ndarray) or one.dtype.kind not in "biuf":
        same = np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
        return 0.0 if same else np.inf
    exact, found = one.astype(np.float64), other.astype(np.float64)
    same = (exact == found) | (np.isnan(exact) & np.isnan(found))
    with np.errstate(invalid="ignore"):  # of infinities, which are far from all but themselves
        apart = np.where(same, 0.0, np.abs(exact - found))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
