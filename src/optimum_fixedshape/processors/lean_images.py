"""Pixels in the fewest passes: of image processors that resize, crop, rescale and normalize, and do nothing else.

Pillow resizes as transformers has it do, so that every byte is the same. What follows is a function of one byte: 256
values for each channel, worked out once in transformers' own order, are looked up and written to the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from optimum_fixedshape._compat import imported
from optimum_fixedshape.fitting import Array

from .canvas import Canvas
from .image_sizes import Size, size_of

_STEPS = frozenset({"preprocess", "_preprocess", "resize", "center_crop", "rescale", "normalize"})
_MODES = {1: "L", 3: "RGB"}
_CHANNELS = (1, 3, 4)
_WARPS_FROM = 384
Edges = Mapping[str, int]


@dataclass(frozen=True)
class Resize:
    """How an image comes to its size.

    Attributes:
        to: The size that an image of a size is resized to.
        crop: The middle that is cut out afterwards, or None.
    """

    to: Callable[[Size], Size]
    crop: Size | None = None


@dataclass(frozen=True)
class Values:
    """What becomes of a byte.

    Attributes:
        factor: What it is multiplied with, or None.
        mean: What is then taken from it, for each channel; None where nothing is normalized.
        std: What is then divided by, for each channel; None likewise.
    """

    factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def affine(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns the same as ``byte * factor + term``: the factor and the term of each channel."""
        mean, std = self.mean or (0.0,) * channels, self.std or (1.0,) * channels
        factor = 1.0 if self.factor is None else self.factor
        return tuple(factor / each for each in std), tuple(-m / s for m, s in zip(mean, std, strict=True))


@dataclass(frozen=True)
class Steps:
    """All that an image processor does to an image.

    Attributes:
        resize: None where it does not resize.
        resample: Pillow's number of the filter.
        crops: The middles that are cut out, one after the other.
        values: What becomes of a byte.
        canvas: What the graph takes.
    """

    resize: Resize | None
    resample: int
    crops: tuple[Size, ...]
    values: Values
    canvas: Canvas

    def rows(self, images: Sequence[Any]) -> Array | None:
        """Returns the images as rows of the graph's shape, layout and dtype; None where one is none that this takes.

        Args:
            images: As `images.load_images` gives them.
        """
        size, canvas = self.canvas.size, self.canvas
        if size is None:
            return None
        shape = (*size, canvas.channels) if canvas.is_channels_last else (canvas.channels, *size)
        rows = np.empty((len(images), *shape), canvas.dtype)
        table = _table(self.values, canvas.channels, canvas.dtype)
        for image, row in zip(images, rows, strict=True):
            pixels = self._pixels(image)
            if pixels is None or pixels.shape[:2] != size:
                return None
            planes = np.moveaxis(row, -1, 0) if canvas.is_channels_last else row
            for channel, plane in enumerate(planes):
                np.take(table[channel], pixels[..., channel], out=plane, mode="clip")
        return rows

    def _pixels(self, image: Any) -> Array | None:
        """The bytes of an image ``(height, width, channels)``, resized and cropped."""
        picture = _picture(image, self.canvas.channels)
        if picture is None:
            return None
        if self.resize:
            height, width = self.resize.to((picture.height, picture.width))
            picture = picture.resize((width, height), resample=self.resample)
        pixels = np.asarray(picture).reshape(picture.height, picture.width, self.canvas.channels)
        for height, width in self.crops:
            if height > pixels.shape[0] or width > pixels.shape[1]:
                return None
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            pixels = pixels[top : top + height, left : left + width]
        return pixels


@dataclass(frozen=True)
class _Rule:
    """How processors of a class resize.

    Attributes:
        resize: Makes a `Resize` of a processor and the edges that it was told; None where they are others.
        crops: Whether ``do_center_crop`` means something to the class on every transformers.
    """

    resize: Callable[[Any, Edges], Resize | None]
    crops: bool = False


def steps_of(processor: Any, plain: type, canvas: Canvas) -> Steps | None:
    """Returns what an image processor does, or None where it may do anything else.

    Args:
        processor: An image processor that does not keep the proportions of its images.
        plain: Its class in transformers.
        canvas: What the graph takes.
    """
    rule = _rule_of(processor, plain)
    values = values_of(processor, plain, canvas.channels)
    if rule is None or values is None or getattr(processor, "backend", "pil") != "pil":
        return None
    resize, crops = None, []
    resample = getattr(processor, "resample", None)
    if getattr(processor, "do_resize", None):
        resize = rule.resize(processor, size_of(processor, "size"))
        if resize is None or not isinstance(resample, int):
            return None
        crops += [resize.crop] if resize.crop else []
        crops += [canvas.size] if resize.crop and canvas.size else []
    if getattr(processor, "do_center_crop", None):
        crop = size_of(processor, "crop_size")
        if not rule.crops or crop.keys() != {"height", "width"}:
            return None
        crops.append((crop["height"], crop["width"]))
    if getattr(processor, "do_pad", None):
        return None
    return Steps(resize, int(resample or 0), tuple(crops), values, canvas)


def values_of(processor: Any, plain: type, channels: int) -> Values | None:
    """Returns what becomes of a byte, or None where it may be anything else.

    Args:
        processor: An image processor.
        plain: Its class in transformers.
        channels: Of its images.
    """
    if _rule_of(processor, plain) is None:
        return None
    factor = float(processor.rescale_factor) if getattr(processor, "do_rescale", None) else None
    if not getattr(processor, "do_normalize", None):
        return Values(factor, None, None)
    mean, std = (_for_each(getattr(processor, name, None), channels) for name in ("image_mean", "image_std"))
    return Values(factor, mean, std) if mean and std else None


def _rule_of(processor: Any, plain: type) -> _Rule | None:
    is_stock = plain.__module__.startswith("transformers.models.") and _STEPS.isdisjoint(vars(processor))
    return _RULES.get(plain.__name__.removesuffix("Pil")) if is_stock else None


def _for_each(given: Any, channels: int) -> tuple[float, ...] | None:
    if given is None:
        return None
    values = tuple(map(float, given)) if np.ndim(given) else (float(given),) * channels
    return values if len(values) == channels else None


@lru_cache(maxsize=64)
def _table(values: Values, channels: int, dtype: str) -> Array:
    """What becomes of every byte, (channels, 256), in the order and the types in which transformers computes it."""
    table: Array = np.arange(256, dtype=np.uint8)[:, None].repeat(channels, 1)
    if values.factor is not None:
        table = (table.astype(np.float64) * values.factor).astype(np.float32)
    if values.mean is not None:
        mean, std = np.array(values.mean, np.float32), np.array(values.std, np.float32)
        table = (table.astype(np.float32) - mean) / std
    if dtype == "uint8":
        table = np.clip(np.rint(table), 0, 255)
    return np.ascontiguousarray(table.T.astype(dtype))


def _picture(image: Any, channels: int) -> Any:
    """The image as Pillow's, or None where it may be more than bytes ``(height, width, channels)`` to transformers."""
    if hasattr(image, "convert"):
        return image if image.mode == _MODES.get(channels) else None
    if channels not in _MODES or image.dtype != np.uint8 or image.shape[2] != channels or image.shape[0] in _CHANNELS:
        return None
    return imported("PIL.Image", "vision", "Resizing images").fromarray(image[..., 0] if channels == 1 else image)


def _shortest(edge: int) -> Callable[[Size], Size]:
    """Resizes the shorter edge to `edge`, in proportion."""

    def to(image: Size) -> Size:
        height, width = image
        longest = int(edge * max(image) / min(image))
        return (longest, edge) if width <= height else (edge, longest)

    return to


def _exactly(size: Size) -> Callable[[Size], Size]:
    return lambda image: size


def _as_told(processor: Any, edges: Edges) -> Resize | None:
    if edges.keys() == {"height", "width"}:
        return Resize(_exactly((edges["height"], edges["width"])))
    return Resize(_shortest(edges["shortest_edge"])) if edges.keys() == {"shortest_edge"} else None


def _convnext(processor: Any, edges: Edges) -> Resize | None:
    share = getattr(processor, "crop_pct", None)
    if edges.keys() != {"shortest_edge"} or not share:
        return None
    edge = edges["shortest_edge"]
    square = (edge, edge)
    return Resize(_exactly(square) if edge >= _WARPS_FROM else _shortest(int(edge / share)), square)


def _levit(processor: Any, edges: Edges) -> Resize | None:
    if edges.keys() == {"shortest_edge"}:
        return Resize(_shortest(int((256 / 224) * edges["shortest_edge"])))
    return _as_told(processor, edges)


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("BlipImageProcessor", "PvtImageProcessor", "SiglipImageProcessor"), _Rule(_as_told)),
    **dict.fromkeys(("SegformerImageProcessor", "ViTImageProcessor"), _Rule(_as_told)),
    **dict.fromkeys(("BeitImageProcessor", "BitImageProcessor", "CLIPImageProcessor"), _Rule(_as_told, crops=True)),
    **dict.fromkeys(("DeiTImageProcessor", "MobileNetV1ImageProcessor"), _Rule(_as_told, crops=True)),
    "MobileNetV2ImageProcessor": _Rule(_as_told, crops=True),
    "ConvNextImageProcessor": _Rule(_convnext),
    "LevitImageProcessor": _Rule(_levit, crops=True),
}
"""The classes of transformers, of both stacks, that only resize, crop, rescale and normalize."""
