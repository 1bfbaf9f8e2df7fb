"""Image processors that know the graph: the user's own class, with pixels of the graph's size, layout and dtype."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BaseImageProcessor, BatchFeature

from optimum_fixedshape.fitting import Array
from optimum_fixedshape.ladder import ShapeLadder

from .canvas import Canvas, canvas_of, mismatch
from .fixed import FixedShapeProcessor, check_kind, fix, named_arguments
from .image_results import on_the_original
from .image_sizes import Size, crops_by_itself, keeps_proportions, smaller, told_sizes
from .image_taking import ImageTaking, load_some
from .lean_images import steps_of
from .patches import FixedShapePatchProcessor, patches_of, told_patches

_MASK = "pixel_mask"
_SIZE_ONLY = {"do_rescale": False, "do_normalize": False}


class FixedShapeImageProcessor(ImageTaking):
    """Mixed into the user's image processor class by `fix_image_processor`; adds the graph's shapes to it.

    Results of `post_process_object_detection` and its like are those of the original image.

    Attributes:
        ladder: The graph's contracts.
        canvas: What the graph takes for an image.
    """

    canvas: Canvas
    do_resize: bool
    _letterboxes: bool
    _added = FixedShapeProcessor._added | {"canvas", "_letterboxes"}

    @staticmethod
    def facts_of(plain: type) -> dict[str, Any]:
        """The methods that read results, on the image as it was before it was padded."""
        names = (name for name in dir(plain) if name.startswith("post_process_"))
        return {name: on_the_original(getattr(plain, name)) for name in names}

    @property
    def batch_role(self) -> str | None:
        """What the graph calls the rows of images."""
        return self.ladder.largest.input(self.canvas.name).batch_role

    def preprocess(self, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns what `__call__` returns."""
        call = named_arguments(self._plain_class.preprocess, (images, *args), kwargs)
        tensors = call.pop("return_tensors", None)
        canvas = self.canvas
        loaded = load_some(call.pop("images"), canvas.channels)
        if all(value is None for value in call.values()) and (rows := self.lean_rows(loaded)) is not None:
            return BatchFeature({canvas.name: list(rows) if tensors is None else rows}, tensor_type=tensors)
        size = canvas.size if self._letterboxes else None
        made = self._letterboxed(loaded, size, call) if size else self._resized(loaded, call)
        ready = {canvas.name: [self._to_graph(pixels) for pixels in made.pop("pixel_values")], **made}
        if tensors is not None:
            ready = {name: np.stack(rows) if _are_arrays(rows) else rows for name, rows in ready.items()}
        return BatchFeature(data=ready, tensor_type=tensors)

    def lean_rows(self, loaded: Sequence[Any]) -> Array | None:
        """Returns images as one array of rows for the graph, made in the fewest passes; None where that cannot be done.

        Args:
            loaded: As `images.load_images` gives them.
        """
        steps = None if self._letterboxes else steps_of(self, self._plain_class, self.canvas)
        return None if steps is None else steps.rows(loaded)

    def content_size(self, height: int, width: int) -> Size | None:
        """Returns how much of the graph's height and width an image of this size covers; None where it is all."""
        if not self._letterboxes or self.canvas.size is None:
            return None
        blank = np.zeros((int(height), int(width), self.canvas.channels), np.uint8)
        covered: Size = self._content(blank, _SIZE_ONLY)[0].shape[-2:]
        return covered

    def _plain(self, images: list[Any], call: dict[str, Any]) -> Any:
        base: Any = super()
        if all(hasattr(image, "convert") for image in images):
            call = {"input_data_format": "channels_last", **call}  # 4.57 takes three rows of pixels for channels
        return base.preprocess(images, **call)

    def _resized(self, images: list[Any], call: dict[str, Any]) -> dict[str, Any]:
        made = dict(self._plain(images, {**call, "return_tensors": None}))
        crops = crops_by_itself(self) and self.do_resize and call.keys().isdisjoint({"size", "do_resize"})
        size = self.canvas.size if crops else None
        pixels = [np.asarray(each) for each in made["pixel_values"]]
        return {**made, "pixel_values": [_middle(each, size) for each in pixels] if size else pixels}

    def _letterboxed(self, images: list[Any], canvas: Size, call: dict[str, Any]) -> dict[str, Any]:
        contents = [self._content(image, call) for image in images]
        rows: dict[str, list[Any]] = {"pixel_values": [], _MASK: []}
        for pixels, _ in contents:
            height, width = pixels.shape[-2:]
            if height > canvas[0] or width > canvas[1]:
                raise mismatch(self.canvas, pixels)
            missing = ((0, 0), (0, canvas[0] - height), (0, canvas[1] - width))
            rows["pixel_values"].append(np.pad(pixels, missing))
            rows[_MASK].append(np.pad(np.ones((height, width), np.int64), missing[1:]))
        if not self.canvas.has_mask:
            del rows[_MASK]
        others = contents[0][1].keys() - {"pixel_values", _MASK}
        return rows | {name: [other[name][0] for _, other in contents] for name in others}

    def _content(self, image: Any, call: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
        """The pixels of one image before padding, no larger than the graph takes; and what else came with them."""
        made = _without_padding(self._plain([image], {**call, "return_tensors": None}))
        canvas = self.canvas.size
        height, width = made["pixel_values"][0].shape[-2:]
        if canvas and (height > canvas[0] or width > canvas[1]) and "size" not in call:
            made = _without_padding(self._shrunk([image], call, smaller((height, width), canvas)))
        return made["pixel_values"][0], made

    def _shrunk(self, images: list[Any], call: dict[str, Any], size: Size) -> Any:
        """What the plain processor makes of images when told this size, in the words that it knows."""
        multiple = getattr(self, "ensure_multiple_of", None) or 1
        height, width = (max(edge // multiple, 1) * multiple for edge in size)
        proportions = {"keep_aspect_ratio": False} if hasattr(self, "keep_aspect_ratio") else {}
        asked = {**call, **proportions, "return_tensors": None}
        try:
            return self._plain(images, {**asked, "size": {"height": height, "width": width}})
        except ValueError:
            return self._plain(images, {**asked, "size": {"shortest_edge": min(height, width)}})

    def _to_graph(self, pixels: Array) -> Array:
        canvas = self.canvas
        if (canvas.size and pixels.shape[-2:] != canvas.size) or pixels.shape[0] != canvas.channels:
            raise mismatch(canvas, pixels)
        if canvas.dtype == "uint8":
            pixels = np.clip(np.rint(pixels), 0, 255)
        laid_out = np.ascontiguousarray(np.moveaxis(pixels, 0, -1)) if canvas.is_channels_last else pixels
        return laid_out.astype(canvas.dtype, copy=False)


def fix_image_processor(
    image_processor: Any, ladder: ShapeLadder
) -> FixedShapeImageProcessor | FixedShapePatchProcessor:
    """Returns an image processor of the same class, told what the graph takes. The one given stays as it was.

    Args:
        image_processor: Any image processor of transformers, fixed already or not.
        ladder: The graph's contracts; the largest rung counts.

    Raises:
        ProcessorError: `image_processor` is not one of transformers', or the graph takes no image, or several.
    """
    check_kind(image_processor, BaseImageProcessor, "An image processor")
    is_fixed = isinstance(image_processor, FixedShapeProcessor)
    plain = image_processor.plain() if is_fixed else copy.deepcopy(image_processor)
    if patches := patches_of(ladder):
        in_patches: FixedShapePatchProcessor = fix(
            FixedShapePatchProcessor, plain, ladder, told_patches(plain, patches)
        )
        return in_patches
    canvas = canvas_of(ladder)
    letterboxes = keeps_proportions(plain)
    told = told_sizes(plain, *canvas.size) if canvas.size and not letterboxes else {}
    facts: dict[str, Any] = {"canvas": canvas, "_letterboxes": letterboxes}
    fixed: FixedShapeImageProcessor = fix(
        FixedShapeImageProcessor, plain, ladder, told | _told_of_values(plain, canvas), **facts
    )
    return fixed


def _told_of_values(plain: Any, canvas: Canvas) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if canvas.dtype == "uint8":
        told |= {name: False for name in ("do_rescale", "do_normalize") if getattr(plain, name, False)}
    if canvas.channels == 1:
        told |= {"do_convert_rgb": False} if getattr(plain, "do_convert_rgb", False) else {}
        for name in ("image_mean", "image_std"):
            values = getattr(plain, name, None)
            if values is not None and np.ndim(values) and len(values) != 1:
                told[name] = [float(np.mean(values))]
    return told


def _without_padding(made: Any) -> dict[str, Any]:
    """What a plain processor made of one image, cut to what its own mask says is the image."""
    pixels = np.asarray(made["pixel_values"][0])
    if _MASK in made:
        mask = np.asarray(made[_MASK][0]).astype(bool)
        pixels = pixels[:, : mask.any(1).sum(), : mask.any(0).sum()]
    return {**made, "pixel_values": [pixels]}


def _middle(pixels: Array, size: Size) -> Array:
    """The middle of an image that is larger in one direction: what rules that only know squares leave over."""
    top, left = (max(have - want, 0) // 2 for have, want in zip(pixels.shape[-2:], size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]


def _are_arrays(rows: Any) -> bool:
    return all(isinstance(row, np.ndarray) for row in rows)
