"""Clips from anywhere, as the frames that a graph asks for and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from optimum_fixedshape._compat import imported
from optimum_fixedshape.errors import InvalidInputError

from .sounds import read_bytes, shown

Frames: TypeAlias = npt.NDArray[np.uint8]
Rule: TypeAlias = Callable[[int, float | None], Sequence[int]]
"""From the frames of a clip and the frames of a second, which frames to take."""

_CHANNELS = (1, 3, 4)


def sample_clip(item: Any, rule: Rule) -> Any:
    """Returns some frames of a clip; of a file, no others are kept in memory.

    Args:
        item: A path, an ``http(s)`` URL, the bytes of a file, an open file, an array or tensor of shape ``(frames,
            height, width, channels)`` or ``(frames, channels, height, width)``, or a list of frames, each a PIL image,
            an array or the path of an image.
        rule: Which frames to take, in rising order.

    Raises:
        InvalidInputError: It is no clip, cannot be read, or has no frames.
        MissingExtraError: A file is to be read, and the extra that reads it is not installed.
    """
    if is_file(item):
        return _from_file(item, rule)
    count = len(item) if hasattr(item, "shape") or isinstance(item, (list, tuple)) else 0
    if hasattr(item, "shape") and len(item.shape) != 4:
        raise invalid(item, f"shape {tuple(item.shape)} is not that of frames: 4 axes")
    if not count:
        raise invalid(item, "it has no frames")
    wanted = list(rule(count, None))
    if hasattr(item, "shape"):
        array = np.asarray(item.detach().cpu() if hasattr(item, "detach") else item)[wanted]
        return array if array.shape[-1] in _CHANNELS else _channels_last(array, item)
    return [_frame(item[index], item) for index in wanted]


def is_file(item: Any) -> bool:
    """Whether `item` is a path, a URL, the bytes of a file or an open file."""
    return isinstance(item, (str, PathLike, bytes, bytearray, memoryview)) or hasattr(item, "read")


def is_clip(item: Any) -> bool:
    """Whether `item` is one clip, not a batch of them."""
    if is_file(item):
        return True
    if hasattr(item, "shape"):
        return len(item.shape) < 5
    return bool(item) and not isinstance(item[0], (list, tuple)) and _is_frame(item[0])


def invalid(item: Any, problem: str) -> InvalidInputError:
    """Returns an error that names the item."""
    return InvalidInputError(f"Not a clip that can be used: {shown(item)}: {problem}.", item=shown(item))


def _is_frame(item: Any) -> bool:
    if isinstance(item, (str, PathLike)):
        return str(item).lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"))
    return not is_file(item) and len(getattr(item, "shape", (0, 0, 0))) < 4


def _channels_last(array: Any, item: Any) -> Any:
    if array.shape[1] not in _CHANNELS:
        raise invalid(item, f"shape {array.shape} has no axis of 1, 3 or 4 channels")
    return np.moveaxis(array, 1, -1)


def _frame(frame: Any, item: Any) -> Any:
    """A frame as an array with its channels last."""
    if isinstance(frame, (str, PathLike)):
        image = imported("PIL.Image", "vision", "Reading image files")
        try:
            with image.open(frame) as opened:
                return np.asarray(opened.convert("RGB"))
        except OSError as error:
            raise invalid(item, f"a frame cannot be read: {error}") from error
    if hasattr(frame, "convert"):
        return np.asarray(frame.convert("RGB"))
    if len(getattr(frame, "shape", ())) != 3:
        raise invalid(item, f"{shown(frame)} is not a frame")
    array = np.asarray(frame.detach().cpu() if hasattr(frame, "detach") else frame)
    return array if array.shape[-1] in _CHANNELS else _channels_last(array[None], item)[0]


def _from_file(item: Any, rule: Rule) -> Frames:
    with _opened(item) as (stream, decoded):
        rate = float(stream.average_rate) if stream.average_rate else None
        count = stream.frames or sum(1 for _ in decoded())
        wanted = list(rule(count, rate)) if count else []
        places = set(wanted)
        last = max(wanted, default=-1)
        taken = {}
        for index, frame in enumerate(decoded()):
            if index in places:
                taken[index] = frame.to_ndarray(format="rgb24")
            if index >= last:
                break
    if not wanted:
        raise invalid(item, "it has no frames")
    if len(taken) < len(places):
        raise invalid(item, f"it is cut short: {count} frames are promised, and frame {last} is not there")
    return np.stack([taken[index] for index in wanted])


@contextmanager
def _opened(item: Any) -> Iterator[tuple[Any, Callable[[], Iterator[Any]]]]:
    """The first stream of pictures, and what decodes it from its start."""
    av = imported("av", "video", "Reading video files")
    try:
        with av.open(read_bytes(item)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise invalid(item, "it has no pictures")

            def decoded() -> Iterator[Any]:
                container.seek(0)
                yield from container.decode(stream)

            yield stream, decoded
    except (OSError, av.error.FFmpegError) as error:
        raise invalid(item, f"it cannot be read: {error}") from error
