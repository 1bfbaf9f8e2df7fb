"""Texts and the features of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.models.base import as_tensor

from .path import Params
from .rows import Rows
from .texts import Encoded, TextPath


class FeaturePath(TextPath):
    """The answers of transformers' `FeatureExtractionPipeline`."""

    output: ClassVar[str] = "last_hidden_state"
    axes: ClassVar[tuple[str | None, ...]] = (BATCH, SEQUENCE, None)

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """As of all texts; transformers reads the first of the outputs, whatever that is."""
        model = pipe.model
        first = next(iter(model.output_of({name: np.empty(0) for name in model.contract.output_names})))
        return first == cls.output and super().takes(pipe)

    def read(self, encoded: Sequence[Encoded], runs: Iterable[Rows], postprocess: Params) -> Iterator[tuple[int, Any]]:
        """Yields ``(1, tokens, width)`` for each text: nested lists, or a tensor if the call asks for one."""
        in_torch = postprocess.get("return_tensors", False)
        for run in runs:
            for row, (index, length) in enumerate(zip(run.members, run.lengths, strict=True)):
                features = run.output[row : row + 1, :length]
                yield index, as_tensor(features.copy(), "cpu") if in_torch else features.tolist()
