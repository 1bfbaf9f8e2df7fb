"""Texts and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers.pipelines.text_classification import ClassificationFunction

from optimum_fixedshape.fitting import Array

from .path import PLAIN, Params, sigmoid, softmax
from .rows import Rows
from .texts import Encoded, Text, TextPath


class ClassificationPath(TextPath):
    """The answers of transformers' `TextClassificationPipeline`."""

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """As of all texts; of ``return_all_scores`` in a configuration, transformers 4 warns at every call."""
        return not hasattr(pipe.model.config, "return_all_scores") and super().takes(pipe)

    def text_of(self, item: Any) -> Text | None:
        """Returns the text, or the pair of a dict ``{"text": ..., "text_pair": ...}``."""
        if isinstance(item, dict) and item.keys() == {"text", "text_pair"} and all(map(_is_text, item.values())):
            return item["text"], item["text_pair"]
        return super().text_of(item)

    def alone(self, answer: Any) -> Any:
        """Returns a list of the answer, as transformers does here."""
        return [answer]

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields labels and scores; see `labelled`."""
        config = vars(self.pipe.model.config)  # looking up one by one takes transformers longer than a softmax
        function = postprocess.get("function_to_apply")
        if function is None:
            function = default_function(config)
        elif not isinstance(function, ClassificationFunction):
            return
        most, is_old = postprocess.get("top_k", 1), postprocess.get("_legacy", True)
        for run in runs:
            scores = scores_of(run.output, function)
            yield from zip(run.members, labelled(scores, config["id2label"], most, is_old), strict=True)


def labelled(scores: Array, labels: Mapping[int, str], most: int | None, is_old: bool) -> Iterator[Any]:
    """Yields the labels of each row with their scores, as transformers' classification pipelines give them.

    Args:
        scores: ``(rows, labels)``.
        labels: The name of each.
        most: How many of the best; None for all.
        is_old: A call that does not say ``top_k``: one label is not in a list, and all are not sorted.

    Yields:
        `PLAIN` where there are fewer labels than scores, or a score is no number and so has no place in an order.
    """
    if is_old and most == 1:
        for best, row in zip(scores.argmax(axis=-1).tolist(), scores.tolist(), strict=True):
            yield {"label": labels[best], "score": row[best]}
        return
    count = scores.shape[-1]
    orders = [range(count)] * len(scores) if is_old else np.argsort(-scores, axis=-1, kind="stable")[:, :most].tolist()
    is_odd = np.isnan(scores).any(axis=-1) | (len(labels) < count)
    for odd, order, row in zip(is_odd.tolist(), orders, scores.tolist(), strict=True):
        yield PLAIN if odd else [{"label": labels[index], "score": row[index]} for index in order]


def default_function(config: Mapping[str, Any]) -> ClassificationFunction:
    """Returns what makes scores of a model's logits where the call does not say.

    Args:
        config: The attributes of the model's configuration.
    """
    if config["problem_type"] == "regression":
        return ClassificationFunction.NONE
    if config["problem_type"] == "multi_label_classification" or len(config["id2label"]) == 1:
        return ClassificationFunction.SIGMOID
    return ClassificationFunction.SOFTMAX


def scores_of(logits: Array, function: ClassificationFunction) -> Array:
    """Returns scores ``(rows, labels)`` in float32."""
    scores: Array = _FUNCTIONS[function](logits.astype(np.float32, copy=False))
    return scores


_FUNCTIONS: Mapping[ClassificationFunction, Callable[[Array], Array]] = {
    ClassificationFunction.SIGMOID: sigmoid,
    ClassificationFunction.SOFTMAX: softmax,
    ClassificationFunction.NONE: lambda logits: logits,
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
