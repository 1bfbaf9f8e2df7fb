"""Images from anywhere, upright and with as many channels as the graph takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from optimum_fixedshape._compat import imported
from optimum_fixedshape.errors import InvalidInputError
from optimum_fixedshape.fitting import Array

_ORIENTATION = 0x0112
_TURNED = range(2, 9)
"""Values of the EXIF tag that say that an image is stored mirrored or turned."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_CHANNELS = (1, 3, 4)


def load_images(images: Any, channels: int) -> list[Any]:
    """Returns images as transformers' processors take them: PIL images where they can be, else arrays.

    Args:
        images: One image, several in any iterable, or an array of several. An image is a path, a URL, a PIL image of
            any mode, or an array or tensor ``(height, width)``, ``(height, width, channels)`` or
            ``(channels, height, width)``.
        channels: 1 makes every image grey; otherwise grey ones become RGB, and alpha is dropped.

    Raises:
        InvalidInputError: One is no image, cannot be read, or has no pixels.
        MissingExtraError: Pillow is not installed.
    """
    return [load_image(image, channels) for image in _several(images)]


def load_image(image: Any, channels: int, *, timeout: float | None = None) -> Any:
    """Returns one image; see `load_images`. `timeout` is how many seconds to wait for a URL."""
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _array(image, channels)
    upright = _opened(image, timeout)
    if not upright.width or not upright.height:
        raise _invalid(image, "it has no pixels")
    # As an array with its one channel: transformers 4.57 takes no images without channels.
    return np.asarray(upright.convert("L"))[..., None] if channels == 1 else upright


def _several(images: Any) -> Iterable[Any]:
    if isinstance(images, (str, Path)) or hasattr(images, "convert"):
        return [images]
    if hasattr(images, "ndim"):
        return images if images.ndim == 4 else [images]
    return images if isinstance(images, Iterable) else [images]


def _opened(image: Any, timeout: float | None) -> Any:
    pillow = imported("PIL.Image", "vision", "Reading images")
    from transformers.image_utils import load_image as opened

    if not isinstance(image, (str, Path, pillow.Image)):
        raise _invalid(image, "it is neither a path, a URL, a PIL image nor an array")
    try:
        if isinstance(image, pillow.Image):
            return _as_it_is(image) or opened(_of_eight_bits(image))
        if os.path.isfile(image):
            with pillow.open(image) as file:
                return _as_it_is(file) or opened(_of_eight_bits(file))
        return opened(str(image), timeout=timeout)
    except (OSError, SyntaxError, TypeError, ValueError) as error:  # Pillow's parsers raise any of these
        raise _invalid(image, f"{error}") from error


def _as_it_is(image: Any) -> Any:
    """The image, where it is upright and RGB already: transformers would copy it twice."""
    image.load()  # some formats say only at their end how the image is turned
    return image if image.mode == "RGB" and image.getexif().get(_ORIENTATION) not in _TURNED else None


def _of_eight_bits(image: Any) -> Any:
    """The image, or where it has 16 bits for a pixel, the upper eight: Pillow would clip them."""
    values = np.asarray(image) if image.mode.startswith("I") else None
    if values is None or (image.mode == "I" and values.max(initial=0) < 256):
        return image
    upper = (values.astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
    return imported("PIL.Image", "vision", "Reading images").fromarray(upper)


def _array(image: Array, channels: int) -> Array:
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not image.size:
        raise _invalid(image, f"its shape is {image.shape}, and an image has pixels in two or three axes")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise _invalid(image, "it has pixels that are NaN or infinite")
    axis = 2 if image.shape[2] in _CHANNELS or image.shape[0] not in _CHANNELS else 0
    found = image.shape[axis]
    if found == 4 and channels != 4:
        image, found = image.take(range(3), axis), 3
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis)
    if found == 3 and channels == 1:
        grey = np.tensordot(image, _GREY, (axis, 0))
        return np.expand_dims(grey.round().astype(image.dtype) if image.dtype.kind in "iu" else grey, axis)
    return image


def _invalid(image: Any, problem: str) -> InvalidInputError:
    item = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else repr(image)[:200]
    return InvalidInputError(f"Not an image that can be used: {item}: {problem}.", item=item)
