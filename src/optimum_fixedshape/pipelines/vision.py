"""Pipelines that see: images are opened, and frames taken from clips, before transformers asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers.video_processing_utils import BaseVideoProcessor

from optimum_fixedshape.processors.clips import invalid, is_file, sample_clip
from optimum_fixedshape.processors.images import load_image

from .base import FixedShapePipeline


class ImagePipeline(FixedShapePipeline):
    """Opens images itself: what cannot be read is named."""

    def preprocess(self, item: Any, *args: Any, timeout: float | None = None, **params: Any) -> Any:
        """Returns what transformers makes of an image.

        Args:
            item: A path, a URL or a PIL image, or a dict with one under ``image``; all else is transformers' business.
            *args: As in transformers.
            timeout: Seconds to wait for a URL.
            **params: As in transformers.

        Raises:
            InvalidInputError: It cannot be read, or has no pixels.
        """
        base: Any = super()
        return base.preprocess(_opened(item, timeout), *args, **params)


class ClipPipeline(FixedShapePipeline):
    """Takes the frames that transformers takes, from all that holds a clip."""

    image_processor: Any
    dtype: Any

    def preprocess(self, item: Any, num_frames: int | None = None, frame_sampling_rate: int = 1) -> Any:
        """Returns the frames of a clip, as the model takes them.

        Of a file, image processors get the first frames, as in transformers; video processors choose themselves. All
        else is sampled as by `FixedShapeVideoProcessor`.

        Args:
            item: A path, a URL, the bytes of a file, or frames ``(frames, height, width, channels)``.
            num_frames: How many frames; by default the model's.
            frame_sampling_rate: Every which frame of a file is taken.

        Raises:
            InvalidInputError: It cannot be read, or has too few frames.
        """
        chooses = not is_file(item) or isinstance(self.image_processor, BaseVideoProcessor)
        wanted = num_frames or self.model.config.num_frames
        clip = item if chooses else sample_clip(item, partial(_first, item, wanted, frame_sampling_rate))
        return self.image_processor(clip if chooses else list(clip), return_tensors="pt").to(self.dtype)


def _opened(item: Any, timeout: float | None) -> Any:
    if isinstance(item, Mapping) and item.get("image") is not None:
        return {**item, "image": _opened(item["image"], timeout)}
    if isinstance(item, (str, Path)) or hasattr(item, "convert"):
        return load_image(item, 3, timeout=timeout)
    return item


def _first(item: Any, wanted: int, rate: int, frames: int, fps: float | None) -> list[int]:
    last = wanted * rate - 1
    if last >= frames:
        raise invalid(item, f"it has {frames} frames, and {wanted} of them, {rate} apart, need {last + 1}")
    return [int(index) for index in np.linspace(0, last, num=wanted, dtype=np.int64)]
