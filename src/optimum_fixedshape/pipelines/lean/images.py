"""Images and their labels: from Pillow's bytes to the graph's batch in one pass, and from logits to labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optimum_fixedshape.contract import BATCH
from optimum_fixedshape.fitting import Array
from optimum_fixedshape.processors.image import FixedShapeImageProcessor
from optimum_fixedshape.processors.images import load_image

from .ahead import prepared_ahead
from .classification import default_function, labelled, scores_of
from .path import PLAIN, LeanPath, Params

_OUTPUT = "logits"
_COLOURS = 3


class _Pixels(NamedTuple):
    """Images that run together: their places among all, and the graph's rows."""

    places: Sequence[int]
    rows: Array


class ImageClassificationPath(LeanPath):
    """The answers of transformers' `ImageClassificationPipeline`."""

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether the graph takes images alone, row by row, and gives the logits of labels."""
        model, processor = pipe.model, pipe.image_processor
        contract = model.contract
        return (
            isinstance(processor, FixedShapeImageProcessor)
            and contract.input_names == (processor.canvas.name,)
            and model.ladder.shares_runs
            and any(spec.name == _OUTPUT and spec.roles() == (BATCH, None) for spec in contract.outputs)
            and model.config.problem_type != "regression"  # which transformers 4 and 5 read differently
        )

    def answers(self, items: Sequence[Any], rows: int, preprocess: Params, postprocess: Params) -> list[Any]:
        """Returns the labels of each image with their scores, or `PLAIN`."""
        answers = [PLAIN] * len(items)
        config = vars(self.pipe.model.config)
        labels = config["id2label"]
        most = min(postprocess.get("top_k", 5), len(labels))
        function = postprocess.get("function_to_apply") or default_function(config)
        for pixels, logits in self._runs(items, rows, preprocess.get("timeout")):
            best = labelled(scores_of(logits, function), labels, most, False)
            for place, answer in zip(pixels.places, best, strict=True):
                answers[place] = answer
        return answers

    def _runs(self, items: Sequence[Any], rows: int, timeout: float | None) -> Iterator[tuple[_Pixels, Array]]:
        """The images that can be taken, each set with its logits."""
        runtime = self.pipe.model.runtime
        name = self.pipe.image_processor.canvas.name
        batch = runtime.ladder.largest.batch_size or rows
        starts = range(0, len(items), batch)
        for pixels in prepared_ahead(starts, lambda start: self._pixels(items, start, start + batch, timeout)):
            if pixels:
                yield pixels, runtime.run([{name: pixels.rows}])[0][_OUTPUT]

    def _pixels(self, items: Sequence[Any], start: int, stop: int, timeout: float | None) -> _Pixels | None:
        processor = self.pipe.image_processor
        channels = processor.canvas.channels
        opened = {place: _opened(items[place], channels, timeout) for place in range(start, min(stop, len(items)))}
        images = {place: image for place, image in opened.items() if image is not None}
        rows = processor.lean_rows(list(images.values())) if images else None
        return None if rows is None else _Pixels(list(images), rows)


def _opened(item: Any, channels: int, timeout: float | None) -> Any:
    """An image, or None where transformers should look at it, or say what is wrong with it."""
    if not isinstance(item, (str, Path)) and not hasattr(item, "convert"):
        return None
    try:
        return load_image(load_image(item, _COLOURS, timeout=timeout), channels)  # the pipeline itself sees colours
    except Exception:  # it is raised again in the place of this item, when those before it are answered
        return None
