"""Texts and labels that nobody trained: each label makes a hypothesis about the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers.pipelines.zero_shot_classification import ZeroShotClassificationArgumentHandler

from optimum_fixedshape.fitting import Array

from .path import PLAIN, Params
from .rows import Rows
from .texts import Encoded, Text, TextPath

_TEMPLATE = "This example is {}."


class HypothesisPath(TextPath):
    """The answers of transformers' `ZeroShotClassificationPipeline`: the pairs of all texts share batches."""

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """As of all texts, where it is transformers that makes hypotheses of labels."""
        return type(pipe._args_parser) is ZeroShotClassificationArgumentHandler and super().takes(pipe)

    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the answer to each item, in order, or `PLAIN`."""
        labels: Any = preprocess.get("candidate_labels")
        template = preprocess.get("hypothesis_template", _TEMPLATE)
        can_be_read = isinstance(labels, (list, tuple)) and labels and all(isinstance(item, str) for item in items)
        if not can_be_read or template.format(labels[0]) == template:
            return [PLAIN] * len(items)
        hypotheses = [template.format(label) for label in labels]
        pairs = [(item, hypothesis) for item in items for hypothesis in hypotheses]
        logits: list[Any] = super().answers(pairs, rows, {}, {})
        several, answers = bool(postprocess.get("multi_label")), []
        for first, item in zip(range(0, len(pairs), len(labels)), items, strict=True):
            mine = logits[first : first + len(labels)]
            is_whole = item and not any(each is PLAIN for each in mine)
            answers.append(self._answer(item, labels, np.stack(mine), several) if is_whole else PLAIN)
        return answers

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns a call that cuts nothing: the rest is left to transformers, and so is a missing pad token."""
        return None if self.pipe.tokenizer.pad_token is None else {"truncation": False}

    def text_of(self, item: Any) -> Text | None:
        """Returns the text with one hypothesis about it."""
        pair: Text = item
        return pair

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the logits of each pair."""
        most = self.pipe.tokenizer.model_max_length
        for run in runs:
            for row, (index, length) in enumerate(zip(run.members, run.lengths, strict=True)):
                if length <= most or self.pipe.cuts_nothing:
                    yield index, run.output[row].astype(np.float32, copy=False)

    def _answer(self, text: str, labels: Sequence[str], logits: Array, several: bool) -> dict[str, Any]:
        """What transformers makes of the logits ``(labels, classes)`` of a text."""
        entailment = self.pipe.entailment_id
        if several or len(labels) == 1:
            pairs = np.exp(logits[:, [-1 if entailment == 0 else 0, entailment]])
            scores = (pairs / pairs.sum(-1, keepdims=True))[:, 1]
        else:
            entailed = np.exp(logits[:, entailment])
            scores = entailed / entailed.sum(-1, keepdims=True)
        order = scores.argsort()[::-1]
        return {"sequence": text, "labels": [labels[index] for index in order], "scores": scores[order].tolist()}
