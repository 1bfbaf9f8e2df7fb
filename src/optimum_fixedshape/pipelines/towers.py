"""Two towers: images or sounds are compared with texts, which are tokenized once and run once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.towers import TwoTowers, run_pairs, towers_of

from .base import FixedShapePipeline, StandIn
from .label_tokens import tokenize_labels


class PairsPipeline(FixedShapePipeline):
    """Compares items with texts: those of most calls are those of the call before."""

    @property
    def towers(self) -> TwoTowers | None:
        """The parts of the model and what they know of texts, or None where the graph runs as a whole."""
        return towers_of(self.model.runtime)

    def preprocess(self, item: Any, *args: Any, candidate_labels: Any = None, **params: Any) -> Any:
        """Returns what transformers makes of an item and its labels.

        Raises:
            ValueError: There are no labels.
        """
        if not candidate_labels:
            raise ValueError("candidate_labels= must hold at least one label.")
        reader: Any = copy.copy(self)
        reader.tokenizer = StandIn(self.tokenizer, call=partial(tokenize_labels, self.tokenizer))
        base: Any = super(PairsPipeline, reader)
        return base.preprocess(item, *args, candidate_labels=candidate_labels, **params)

    def _named(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**inputs, **inputs["text_inputs"][0]}

    def run_items(self, runtime: Runtime, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
        """Returns the outputs of each item; see `towers.run_pairs`."""
        return run_pairs(runtime, items)
