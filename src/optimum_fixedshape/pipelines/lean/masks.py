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

_TIED = 1e-6
"""Scores closer than this part of themselves may change places where they are computed in another order."""


class MaskPath(TextPath):
    """The answers of transformers' `FillMaskPipeline`."""

    axes: ClassVar[tuple[str | None, ...]] = (BATCH, SEQUENCE, None)

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """As of all texts, where the graph's numbers are such that NumPy and torch make the same of them."""
        outputs = pipe.model.contract.outputs
        return any(spec.name == cls.output and spec.dtype == "float32" for spec in outputs) and super().takes(pipe)

    def tokenizer_call(self, preprocess: Params) -> Mapping[str, Any] | None:
        """Returns what ``tokenizer_kwargs=`` says of truncation."""
        return super().tokenizer_call(preprocess.get("tokenizer_kwargs") or {})

    def text_of(self, item: Any) -> Text | None:
        """Returns a text that has a gap; of one that has none, transformers says what is wrong."""
        mask = self.pipe.tokenizer.mask_token
        return item if mask is not None and isinstance(item, str) and mask in item else None

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields the fillings of each text: a list of them, or one list for each gap where there are several."""
        mask, most, targets = (
            self.pipe.tokenizer.mask_token_id,
            postprocess.get("top_k", 5),
            postprocess.get("target_ids"),
        )
        if type(most) is not int or most < 0:
            return
        most = most if targets is None else min(most, len(targets))
        for run in runs:
            for row, index in enumerate(run.members):
                ids = np.array(encoded[index].encoding.ids)
                gaps = np.flatnonzero(ids == mask)
                with np.errstate(invalid="ignore"):  # as torch does
                    scores = softmax(run.output[row, gaps])
                scores = scores if targets is None else scores[:, targets]
                best = _best(scores, most)
                if len(gaps) and best is not None:
                    filled = self._filled(ids, gaps, scores, best, targets)
                    yield index, filled[0] if len(gaps) == 1 else filled

    def _filled(self, ids: Array, gaps: Array, scores: Array, best: Array, targets: Any) -> list[list[dict[str, Any]]]:
        tokenizer = self.pipe.tokenizer
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


def _best(scores: Array, most: int) -> Array | None:
    """Returns the places of the highest scores, highest first ``(gaps, most)``.

    None where there are not so many, or where torch alone knows which of two comes first: they tie, or are no numbers.
    """
    count = scores.shape[-1]
    if most > count:
        return None
    candidates = np.argpartition(-scores, min(most, count - 1), axis=-1)[:, : most + 1]
    found = np.take_along_axis(scores, candidates, -1)
    order = np.argsort(-found, axis=-1)
    highest = np.take_along_axis(found, order, -1)
    if not (np.diff(highest, axis=-1) < -_TIED * highest[:, 1:]).all():
        return None
    best: Array = np.take_along_axis(candidates, order, -1)[:, :most]
    return best
