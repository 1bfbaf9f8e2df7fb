"""Results on padded images, read as results on the images themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from optimum_fixedshape.fitting import Array

from .fixed import named_arguments

_MAPS = ("logits", "pred_masks", "masks_queries_logits", "predicted_depth")
_BOXES = "pred_boxes"
_SIZES = ("source_sizes", "target_sizes")  # the first is ZoeDepth's word for the size of the original


def on_the_original(read: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `post_process_...` method that leaves the padding out before `read`, image by image.

    Boxes of a graph with a ``pixel_mask`` are relative to the image already; those of all others to the whole canvas.
    Without ``target_sizes`` nobody knows how much of it is image, and nothing changes.
    """

    @functools.wraps(read)
    def method(processor: Any, *args: Any, **kwargs: Any) -> Any:
        call = named_arguments(read, args, kwargs)
        sizes = {name: call[name] for name in _SIZES if call.get(name) is not None}
        originals = next(iter(sizes.values()), ())
        contents = [processor.content_size(*size) for size in originals]
        if not any(contents) or _rows_of(call["outputs"]) != {len(contents)}:
            return read(processor, **call)
        outputs, results = call["outputs"], []
        for index, content in enumerate(contents):
            own = {name: each[index : index + 1] for name, each in sizes.items()}
            results += read(processor, **{**call, **own, "outputs": _share(outputs, index, content, processor.canvas)})
        return results

    return method


def _share(outputs: Any, index: int, content: tuple[int, int], canvas: Any) -> Any:
    """What a model answers for one image, as if it had seen nothing but the image."""
    fields = {name: _row(value, index) for name, value in outputs.items()}
    height, width = content[0] / canvas.height, content[1] / canvas.width
    for name in _MAPS:
        if name in fields and fields[name].ndim >= (3 if name == "predicted_depth" else 4):
            fields[name] = _cropped(fields[name], height, width)
    if _BOXES in fields and not canvas.has_mask:
        boxes = fields[_BOXES]
        scale = [1 / width, 1 / height] * 2
        fields[_BOXES] = boxes * (boxes.new_tensor(scale) if hasattr(boxes, "new_tensor") else scale)
    return type(outputs)(fields)  # by position: pipelines add fields that the class does not know


def _row(value: Any, index: int) -> Any:
    return value[index : index + 1] if getattr(value, "ndim", 0) else value


def _rows_of(outputs: Mapping[str, Any]) -> set[int]:
    return {len(outputs[name]) for name in (*_MAPS, _BOXES) if outputs.get(name) is not None}


def _cropped(maps: Array, height: float, width: float) -> Array:
    rows, columns = maps.shape[-2:]
    return maps[..., : max(round(rows * height), 1), : max(round(columns * width), 1)]
