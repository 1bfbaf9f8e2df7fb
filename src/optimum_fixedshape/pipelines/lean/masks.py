"""Texts and what belongs in their gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.fitting import Array

from .path import Params, softmax
from .rows import Rows
from .texts import Encoded, Text, TextPath


class MaskPath(TextPath):
    """The answers of transformers' `FillMaskPipeline`."""

    axes: ClassVar[tuple[str | None, ...]] = (BATCH, SEQUENCE, None)

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns what ``tokenizer_kwargs=`` says of truncation."""
        return super().tokenizer_call(preprocess.get("tokenizer_kwargs") or {})

    def text_of(self, item: Any) -> Text | None:
        """Returns a text that has a gap; of one that has none, transformers says what is wrong."""
        has_gap = isinstance(item, str) and self.pipe.tokenizer.mask_token in item
        return item if has_gap else None

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the fillings of each text: a list of them, or one list for each gap where there are several."""
        mask, targets = self.pipe.tokenizer.mask_token_id, postprocess.get("target_ids")
        most = min(postprocess.get("top_k", 5), len(targets) if targets is not None else 2**31)
        for run in runs:
            for row, index in enumerate(run.members):
                ids = np.array(encoded[index].encoding.ids)
                gaps = np.flatnonzero(ids == mask)
                if len(gaps):
                    filled = self._filled(ids, gaps, run.output[row, gaps], targets, most)
                    yield index, filled[0] if len(gaps) == 1 else filled

    def _filled(self, ids: Array, gaps: Array, logits: Array, targets: Any, most: int) -> list[list[dict[str, Any]]]:
        tokenizer, scores = self.pipe.tokenizer, softmax(logits)
        if targets is not None:
            scores = scores[:, targets]
        best = np.argsort(-scores, axis=-1, kind="stable")[:, :most]
        fillings = []
        for gap, order, row in zip(gaps, best, scores, strict=True):
            found = []
            for choice in order:
                token = int(choice if targets is None else targets[choice])
                tokens = np.where(np.arange(len(ids)) == gap, token, ids)
                tokens = tokens[tokens != tokenizer.pad_token_id]
                sequence = tokenizer.decode(tokens, skip_special_tokens=len(gaps) == 1)
                told = {"token": token, "token_str": tokenizer.decode([token]), "sequence": sequence}
                found.append({"score": float(row[choice]), **told})
            fillings.append(found)
        return fillings
