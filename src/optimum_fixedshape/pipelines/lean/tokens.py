"""Texts and the labels of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationArgumentHandler

from optimum_fixedshape.contract import BATCH, SEQUENCE

from .path import Params, softmax
from .rows import Rows
from .texts import Encoded, TextPath


class TokenPath(TextPath):
    """The answers of transformers' `TokenClassificationPipeline`, whose own methods put tokens together."""

    axes: ClassVar[tuple[str | None, ...]] = (BATCH, SEQUENCE, None)
    needs_offsets: ClassVar[bool] = True

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """As of all texts, where it is transformers that reads a call's arguments."""
        return type(pipe._args_parser) is TokenClassificationArgumentHandler and super().takes(pipe)

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns what the pipeline says of truncation; None for words, and for windows asked for with ``stride=``."""
        if dict(preprocess) != {"is_split_into_words": False}:
            return None
        tokenizer = self.pipe.tokenizer
        return {"truncation": not self.pipe.cuts_nothing and (tokenizer.model_max_length or 0) > 0}

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the entities of each text."""
        strategy = postprocess.get("aggregation_strategy", AggregationStrategy.NONE)
        ignored = postprocess.get("ignore_labels")
        ignored = ["O"] if ignored is None else ignored
        for run in runs:
            scores = softmax(run.output if run.output.dtype != np.float16 else run.output.astype(np.float32))
            for row, (index, length) in enumerate(zip(run.members, run.lengths, strict=True)):
                entities = self._entities(encoded[index], scores[row, :length], strategy)
                yield index, [each for each in entities if _is_heeded(each, ignored)]

    def _entities(self, each: Encoded, scores: Any, strategy: AggregationStrategy) -> list[dict[str, Any]]:
        encoding = each.encoding
        tokens = (encoding.ids, scores, encoding.offsets, encoding.special_tokens_mask)
        found: list[dict[str, Any]] = self.pipe.aggregate(
            self.pipe.gather_pre_entities(each.text, *tokens, strategy), strategy
        )
        return found


def _is_heeded(entity: Mapping[str, Any], ignored: Any) -> bool:
    return entity.get("entity") not in ignored and entity.get("entity_group") not in ignored
