"""Pipelines that write: transformers' own from end to end, as `generate()` makes the batches here."""

from __future__ import annotations

from typing import Any

from transformers.pipelines.base import Pipeline

from .base import FixedShapePipeline


class WritingPipeline(FixedShapePipeline):
    """Writes what transformers' class writes; ``overflow="window"`` forgets the first tokens where the text is full."""

    get_iterator = Pipeline.get_iterator
    run_single = Pipeline.run_single

    def __init__(self, model: Any, tokenizer: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, tokenizer, *args, **kwargs)
        this: Any = self
        if self.overflow == "window":
            this._forward_params["overflow"] = "window"


class TextPipeline(WritingPipeline):
    """Writes on; ``overflow="truncate"`` is transformers' ``handle_long_generation="hole"``: cuts a prompt's start."""

    def __init__(self, model: Any, tokenizer: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, tokenizer, *args, **kwargs)
        this: Any = self
        if self.overflow == "truncate" and (limit := self.model.context_length):
            self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, limit)
            this._preprocess_params["handle_long_generation"] = "hole"
