"""Sounds from anywhere, as one row of samples at the rate that a feature extractor wants."""

from __future__ import annotations

import io
import numbers
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from optimum_fixedshape._compat import imported
from optimum_fixedshape.errors import InvalidInputError

Samples: TypeAlias = npt.NDArray[np.float32]

_MOST_CHANNELS = 32
_SECONDS_TO_WAIT = 60
_SHOWN = 80
_LEFT_OPEN = 0x7FFF0000


def load_sound(item: Any, sampling_rate: int) -> Samples:
    """Returns a sound as mono samples of shape ``(samples,)``, between -1 and 1 where it came from a file or from PCM.

    Args:
        item: A path, an ``http(s)`` URL, the bytes of a file, an open file, an array or list of samples at
            `sampling_rate`, a dict of ``array`` or ``raw`` and ``sampling_rate``, or what `datasets` makes of its
            ``Audio`` columns. Of two axes the shorter one is the channels, whose mean is taken. Integers are PCM.
        sampling_rate: The rate that is needed, in Hz; sounds at another rate are resampled.

    Raises:
        InvalidInputError: It is no sound, cannot be read, has no samples, or has samples that are NaN or infinite.
        MissingExtraError: A file is to be read or resampled, and the extra ``audio`` is not installed.
    """
    samples, rate = _read(item, sampling_rate)
    mono = _mono(_as_float(samples, item), item)
    if not mono.size:
        raise _invalid(item, "it has no samples")
    if not np.isfinite(mono).all():
        raise _invalid(item, "it has samples that are NaN or infinite")
    return mono if rate == sampling_rate else _resampled(mono, rate, sampling_rate, item)


def is_sound(item: Any) -> bool:
    """Whether `item` is one sound, not a batch of them: a row of numbers, or anything that is no list or array."""
    if hasattr(item, "shape"):
        return len(item.shape) < 2
    if isinstance(item, Sequence) and not isinstance(item, (str, bytes, bytearray, memoryview)):
        return len(item) > 0 and isinstance(item[0], numbers.Real)
    return True


def read_bytes(item: Any) -> Any:
    """Returns what a decoder opens: a path as text, or an open file for a URL, bytes or an open file.

    Raises:
        OSError: The URL cannot be read, or there is no such file.
    """
    if isinstance(item, (bytes, bytearray, memoryview)):
        return io.BytesIO(item)
    if isinstance(item, (str, PathLike)) and not str(item).startswith(("http://", "https://")):
        with open(item, "rb"):
            return str(item)
    if isinstance(item, str):
        import requests

        response = requests.get(item, timeout=_SECONDS_TO_WAIT)
        response.raise_for_status()
        return io.BytesIO(response.content)
    return item


def shown(item: Any) -> str:
    """Returns an item in words, for messages."""
    if isinstance(item, (str, PathLike)):
        return repr(str(item))
    if hasattr(item, "shape"):
        return f"{type(item).__name__} of shape {tuple(item.shape)}"
    if isinstance(item, (bytes, bytearray, memoryview, list, tuple)):
        return f"{type(item).__name__} of {len(item)}"
    return repr(item)[:_SHOWN]


def _read(item: Any, sampling_rate: int) -> tuple[Any, int]:
    """Samples of any type and layout, and their rate."""
    if isinstance(item, Mapping):
        return _read_mapping(item, sampling_rate)
    if hasattr(item, "get_all_samples"):
        decoded = item.get_all_samples()
        return decoded.data, int(decoded.sample_rate)
    if isinstance(item, (list, tuple)) or hasattr(item, "__array__"):
        return item, sampling_rate
    if isinstance(item, (str, PathLike, bytes, bytearray, memoryview)) or hasattr(item, "read"):
        return _read_file(item)
    raise _invalid(item, f"{type(item).__name__} is neither a file nor samples")


def _read_mapping(item: Mapping[str, Any], sampling_rate: int) -> tuple[Any, int]:
    for name in ("raw", "array"):
        if item.get(name) is not None:
            return item[name], _checked_rate(item, item.get("sampling_rate", sampling_rate))
    for name in ("bytes", "path"):
        if item.get(name) is not None:
            return _read_file(item[name])
    raise _invalid(item, "a dict needs 'array' or 'raw' with 'sampling_rate', or 'bytes' or 'path'")


def _checked_rate(item: Any, rate: Any) -> int:
    try:
        whole = int(rate)
    except (OverflowError, TypeError, ValueError):
        whole = 0
    if whole < 1 or whole != rate:
        raise _invalid(item, f"sampling_rate must be a whole number of Hz above 0, got {rate!r}")
    return whole


def _read_file(item: Any) -> tuple[Any, int]:
    soundfile = imported("soundfile", "audio", "Reading a sound file")
    try:
        with soundfile.SoundFile(read_bytes(item)) as file:
            promised = max(file.frames, _stated_frames(file))
            samples = file.read(dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _invalid(item, f"it cannot be read: {error}") from error
    if len(samples) < promised:
        raise _invalid(item, f"it is cut short: {len(samples)} of {promised} samples are there")
    return samples.T, rate


def _stated_frames(file: Any) -> int:
    """What the header of a WAV file says where its data are fewer; 0 where a program that streams left it open."""
    stated = re.search(r"^data : (\d+) \(should be \d+\)", file.extra_info, re.MULTILINE)
    size = int(stated[1]) if stated else 0
    align = re.search(r"Block Align\s*: (\d+)", file.extra_info)
    return size // int(align[1]) if align and size < _LEFT_OPEN else 0


def _as_float(samples: Any, item: Any) -> Samples:
    try:
        array = np.asarray(samples.detach().cpu() if hasattr(samples, "detach") else samples)
    except ValueError as error:
        raise _invalid(item, "its channels have different lengths") from error
    if array.dtype.kind not in "iuf":
        raise _invalid(item, f"its samples are {array.dtype}, not numbers")
    if array.dtype.kind == "f" or isinstance(samples, (list, tuple)):
        return np.asarray(array, np.float32)
    bits = array.dtype.itemsize * 8
    middle = 2 ** (bits - 1) if array.dtype.kind == "u" else 0
    return np.asarray((array.astype(np.float64) - middle) / 2 ** (bits - 1), np.float32)


def _mono(samples: Samples, item: Any) -> Samples:
    if samples.ndim == 1 or not samples.size:
        return samples.reshape(-1)
    channels = min(samples.shape) if samples.ndim == 2 else 0
    if samples.ndim != 2 or channels > _MOST_CHANNELS:
        raise _invalid(item, f"shape {samples.shape} is neither (samples,) nor (channels, samples)")
    mean: Samples = samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float32)
    return mean


def _resampled(samples: Samples, rate: int, wanted: int, item: Any) -> Samples:
    soxr = imported("soxr", "audio", f"Resampling from {rate} to {wanted} Hz")
    resampled: Samples = soxr.resample(samples, rate, wanted)
    if not resampled.size:
        raise _invalid(item, f"its {len(samples)} samples at {rate} Hz are none at {wanted} Hz")
    return resampled


def _invalid(item: Any, problem: str) -> InvalidInputError:
    return InvalidInputError(f"Not a sound that can be used: {shown(item)}: {problem}.", item=shown(item))
