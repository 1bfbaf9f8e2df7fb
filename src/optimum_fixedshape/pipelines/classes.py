"""The pipeline classes: transformers' own, with `FixedShapePipeline` before them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from .base import FixedShapePipeline, StandIn
from .bases import pipeline_base


class TextClassificationPipeline(FixedShapePipeline, pipeline_base("TextClassificationPipeline")):  # type: ignore[misc]
    """transformers' `TextClassificationPipeline` on a fixed graph."""

    fixed_task = "text-classification"


class FeatureExtractionPipeline(FixedShapePipeline, pipeline_base("FeatureExtractionPipeline")):  # type: ignore[misc]
    """transformers' `FeatureExtractionPipeline` on a fixed graph."""

    fixed_task = "feature-extraction"


class FillMaskPipeline(FixedShapePipeline, pipeline_base("FillMaskPipeline")):  # type: ignore[misc]
    """transformers' `FillMaskPipeline` on a fixed graph."""

    fixed_task = "fill-mask"


class TokenClassificationPipeline(FixedShapePipeline, pipeline_base("TokenClassificationPipeline")):  # type: ignore[misc]
    """transformers' `TokenClassificationPipeline` on a fixed graph."""

    fixed_task = "token-classification"

    def preprocess(self, sentence: Any, offset_mapping: Any = None, **params: Any) -> Iterator[Any]:
        """Yields the windows that ``stride=`` asks for, else the whole text, where transformers would cut it."""
        reader = self
        if "tokenizer_params" not in params and self.cuts_nothing:
            reader = copy.copy(self)
            reader.tokenizer = StandIn(self.tokenizer, call=self.tokenizer, model_max_length=-1)
        base: Any = super(TokenClassificationPipeline, reader)
        yield from base.preprocess(sentence, offset_mapping, **params)


class QuestionAnsweringPipeline(FixedShapePipeline, pipeline_base("QuestionAnsweringPipeline")):  # type: ignore[misc]
    """transformers 4.57's `QuestionAnsweringPipeline` on a fixed graph, on every transformers."""

    fixed_task = "question-answering"

    def preprocess(self, example: Any, *, max_seq_len: int | None = None, **params: Any) -> Iterator[Any]:
        """Yields windows of the question and a part of the context, no longer than the graph holds."""
        limit = self.tokenizer.limit
        if limit is not None and max_seq_len is not None:
            max_seq_len = min(max_seq_len, limit)
        yield from super().preprocess(example, max_seq_len=max_seq_len, **params)


class ZeroShotClassificationPipeline(FixedShapePipeline, pipeline_base("ZeroShotClassificationPipeline")):  # type: ignore[misc]
    """transformers' `ZeroShotClassificationPipeline` on a fixed graph."""

    fixed_task = "zero-shot-classification"

    def _parse_and_tokenize(self, sequence_pairs: Any, **kwargs: Any) -> Any:
        """transformers cuts the text to the tokenizer's length; here it is cut only if somebody said so."""
        if self.cuts_nothing:
            kwargs.setdefault("truncation", False)
        return super()._parse_and_tokenize(sequence_pairs, **kwargs)
