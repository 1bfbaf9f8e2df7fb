"""What is done to each graph between its export and its file, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx

Step = Callable[[onnx.ModelProto], onnx.ModelProto]


def stepped(models: Iterable[onnx.ModelProto], steps: Iterable[Step]) -> Iterator[onnx.ModelProto]:
    """Yields each model as the steps leave it, and keeps none of them."""
    todo = tuple(steps)
    for model in models:
        for step in todo:
            model = step(model)
        yield model
