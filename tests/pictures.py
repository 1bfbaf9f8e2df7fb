"""Pictures to test image processors with, and graphs' contracts to fit them to."""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from PIL import Image

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.ladder import ShapeLadder

IMAGE = ("batch_size", "num_channels", "height", "width")
CHANNELS_LAST = ("batch_size", "height", "width", "num_channels")


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    """Returns the same noise each time, in any mode of Pillow's."""
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def ladder(
    height: int,
    width: int,
    *,
    channels: int = 3,
    dtype: str = "float32",
    name: str = "pixel_values",
    roles: tuple[str, ...] = IMAGE,
    has_mask: bool = False,
) -> ShapeLadder:
    """Returns the one-rung ladder of a graph that takes two images of this size."""
    sizes = {"batch_size": 2, "num_channels": channels, "height": height, "width": width}
    inputs = [_spec(name, dtype, roles, sizes)]
    if has_mask:
        inputs.append(_spec("pixel_mask", "int64", ("batch_size", "height", "width"), sizes))
    return ShapeLadder((ShapeContract(tuple(inputs), ()),))


def processor(name: str, **settings: Any) -> Any:
    """Returns an image processor of transformers that needs nothing but Pillow."""
    make: Any = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return make(**settings)


def _spec(name: str, dtype: str, roles: tuple[str, ...], sizes: dict[str, int]) -> TensorSpec:
    return TensorSpec(name, dtype, tuple(Axis(sizes[role], role=role) for role in roles))


def patches(name: str, count: int, values: int) -> ShapeLadder:
    """Returns the one-rung ladder of a graph that takes an image in patches."""
    axes = (Axis(1, role="batch_size"), Axis(count, role="num_patches"), Axis(values))
    return ShapeLadder((ShapeContract((TensorSpec(name, "float32", axes),), ()),))
