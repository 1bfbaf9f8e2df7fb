"""Sounds and their labels: features without torch, full batches, and from logits to labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from optimum_fixedshape.contract import BATCH, SAMPLES
from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.processors.audio import FixedShapeFeatureExtractor
from optimum_fixedshape.processors.sounds import load_sound

from .ahead import prepared_ahead
from .path import PLAIN, LeanPath, Params, sigmoid, softmax

_OUTPUT = "logits"
_TIED = 1e-5
"""Scores that are apart by no more than this share of them may be in any order in transformers, where torch sorts."""


class AudioClassificationPath(LeanPath):
    """The answers of transformers' `AudioClassificationPipeline`."""

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether the graph takes sounds alone, row by row, and gives the logits of labels."""
        model = pipe.model
        logits = (spec for spec in model.contract.outputs if spec.name == _OUTPUT)
        return (
            isinstance(pipe.feature_extractor, FixedShapeFeatureExtractor)
            and model.ladder.shares_runs
            and any(spec.roles() == (BATCH, None) and spec.dtype == "float32" for spec in logits)
        )

    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the labels of each sound with their scores, or `PLAIN`."""
        answers = [PLAIN] * len(items)
        config = vars(self.pipe.model.config)
        function = postprocess.get("function_to_apply") or _default(config)
        for place, output in self._runs(items, rows):
            scores, best = _best(output[_OUTPUT][0], function, postprocess["top_k"])
            pairs = zip(scores, best, strict=True)
            answers[place] = [{"score": score, "label": config["id2label"][index]} for score, index in pairs]
        return answers

    def _runs(self, items: Sequence[Any], rows: int) -> Iterator[tuple[int, Arrays]]:
        """The outputs of the sounds that can be taken, each with its place."""
        runtime = self.pipe.model.runtime
        # Waveforms share runs with those of like length, spectrograms of one size with any.
        is_one_size = runtime.ladder.largest.batch_size and SAMPLES not in runtime.ladder.largest.sizes
        batch = runtime.ladder.largest.batch_size if is_one_size else max(len(items), rows)
        for taken in prepared_ahead(range(0, len(items), batch), lambda first: self._some(items, first, first + batch)):
            yield from zip(taken, runtime.run(list(taken.values())), strict=True)

    def _some(self, items: Sequence[Any], first: int, stop: int) -> dict[int, Arrays]:
        heard = {place: self._heard(items[place]) for place in range(first, min(stop, len(items)))}
        return {place: arrays for place, arrays in heard.items() if arrays is not None}

    def _heard(self, item: Any) -> Arrays | None:
        """The graph's inputs for one sound, or None where transformers should hear it, or say what is wrong with it."""
        extractor, contract = self.pipe.feature_extractor, self.pipe.model.contract
        rate = extractor.sampling_rate
        try:
            made = extractor(load_sound(item, rate), sampling_rate=rate, return_tensors="np")
        except Exception:  # it is raised again in the place of this item, when those before it are answered
            return None
        if self.pipe.overflow == "window" and self.pipe._windows(made) is not None:
            return None
        return {name: made[name] for name in contract.input_names if name in made}


def _best(logits: Array, function: str, most: int) -> tuple[list[float], list[int]]:
    """The highest scores and their labels, highest first; torch is asked which of two that tie comes first."""
    scores = _FUNCTIONS[function](logits)
    order = np.argsort(-scores, kind="stable")
    highest = scores[order[: most + 1]]
    if (np.diff(highest) < -_TIED * np.abs(highest[1:])).all():
        return scores[order[:most]].tolist(), order[:most].tolist()
    values, indices = _IN_TORCH[function](torch.from_numpy(logits)).topk(most)
    return values.tolist(), indices.tolist()


def _default(config: Mapping[str, Any]) -> str:
    """What transformers 5 makes of logits where the call does not say; transformers 4 always says."""
    return _BY_PROBLEM.get(config["problem_type"], "softmax")


_BY_PROBLEM = {"regression": "none", "multi_label_classification": "sigmoid"}
_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda logits: logits,
}
_IN_TORCH: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}
