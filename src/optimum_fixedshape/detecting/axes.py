"""How well an output's axis fits a word of the table of tasks: ``"rows"``, ``"tokens"``, ``"labels"`` and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from optimum_fixedshape.contract import IMAGES, SEQUENCE, SOUNDS, TEXTS, Axis
from optimum_fixedshape.roles import CHANNELS

from .clues import Clues, End, Head

_UNKNOWN = 0.8
_IMAGE, _SOUND, _TEXT = ("pixel_values",), ("input_values", "input_features"), ("input_ids",)
_CHARACTERS: Final = 20  # models that spell have at least so many letters, and models of frames fewer labels
_FEW: Final = 100  # labels of tokens, seldom more
_LARGE: Final = 1000
_PADDED: Final = 1.02  # vocabularies are rounded up


def fit_axis(word: str, axis: Axis, clues: Clues) -> float:
    """Returns how well an axis is what `word` says, from 0 to 1."""
    return _FITS[word](axis, clues)


def fit_map(axes: Sequence[Axis], words: Sequence[str], clues: Clues) -> float:
    """Returns how well height and width go together: both are shrunk alike, and a map is no other image."""
    if "height" not in words or "width" not in words:
        return 1.0
    height, width = (axes[words.index(word)].size for word in ("height", "width"))
    high, wide = clues.pixels
    if not (height and width and high and wide):
        return 1.0
    alike = 0.8 <= (high / height) / (wide / width) <= 1.25
    channels = clues.contract.sizes.get(CHANNELS)
    is_image = "labels" in words and axes[words.index("labels")].size == channels and height >= high
    return (1.0 if alike else 0.3) * (0.4 if is_image else 1.0)


def fit_end(words: Sequence[str], end: End) -> float:
    """Returns how well numbers made as `end` says are what the words of their axes say."""
    telling = (_ENDS[word] for word in words if word in _ENDS)
    return next(telling, {}).get(end.head, 1.0)


def _same(axis: Axis, other: Axis | None) -> float:
    """How likely two axes have the same size: surely, surely not, or unknown."""
    if other is None:
        return _UNKNOWN
    if axis.size is not None and other.size is not None:
        return float(axis.size == other.size)
    if axis.symbol and axis.symbol == other.symbol:
        return 1.0
    return _UNKNOWN


def _rows(axis: Axis, clues: Clues, *, of: tuple[str, ...] = (), role: str = "") -> float:
    return 1.0 if role and axis.role == role else _same(axis, clues.rows_of(*of))


def _tokens(axis: Axis, clues: Clues) -> float:
    if axis.role == SEQUENCE:
        return 1.0
    if clues.takes in ("sound", "spectrogram"):
        return _frames(axis, clues)
    if clues.takes == "image+tokens+boxes" and axis.size and clues.tokens and axis.size > (clues.tokens.size or 0):
        return 0.9  # patches of the page come behind its tokens
    return _same(axis, clues.tokens)


def _frames(axis: Axis, clues: Clues) -> float:
    whole = clues.tokens.size if clues.tokens else None
    return _UNKNOWN if axis.size is None or whole is None else float(1 < axis.size <= whole)


def _choices(axis: Axis, clues: Clues) -> float:
    spec = clues.by_name["input_ids"].spec
    return _same(axis, spec.axes[1] if spec.axes else None)


def _labels(axis: Axis, clues: Clues) -> float:
    vocabulary, width = clues.words
    size = axis.size
    if size is None:  # the number of labels is never open
        return 0.0 if axis.role or (clues.tokens and axis.symbol and axis.symbol == clues.tokens.symbol) else 0.5
    if vocabulary and _is_vocabulary(size, vocabulary) and size > 2:
        return 0.05
    if width and size == width:
        return 0.5
    if clues.tokens and size == clues.tokens.size:
        return 0.4
    if clues.takes in ("sound", "spectrogram") and size >= _CHARACTERS:
        return 0.8
    return 0.6 if size > _LARGE else 1.0


def _labels_of_tokens(axis: Axis, clues: Clues) -> float:
    many = axis.size is not None and axis.size >= _FEW and not clues.words[0]
    return min(_labels(axis, clues), 0.7 if many else 1.0)


def _labels_of_frames(axis: Axis, clues: Clues) -> float:
    return _labels(axis, clues) * (0.75 if axis.size is not None and axis.size >= _CHARACTERS else 1.0)


def _vocabulary(axis: Axis, clues: Clues) -> float:
    vocabulary, _ = clues.words
    if axis.size is None:
        return 0.0 if axis.role else 0.6
    if vocabulary:
        return 1.0 if _is_vocabulary(axis.size, vocabulary) else 0.05
    if clues.takes in ("sound", "spectrogram"):
        return 0.85 if axis.size >= _CHARACTERS else 0.5
    if clues.has_cache or axis.size >= _LARGE:
        return 0.9
    return 0.65 if axis.size >= _FEW else 0.4


def _is_vocabulary(size: int, vocabulary: int) -> bool:
    return vocabulary <= size <= max(vocabulary * _PADDED, vocabulary + 64) if size > 64 else size == vocabulary


def _hidden(axis: Axis, clues: Clues) -> float:
    _, width = clues.words
    if axis.size is None:
        return 0.0 if axis.role else 0.5
    if width:
        return 1.0 if axis.size == width else 0.6
    if axis.size % 32 == 0:
        return 0.9 if axis.size >= 128 else 0.7
    return 0.6 if axis.size % 8 == 0 and axis.size >= 16 else 0.25


def _exactly(axis: Axis, clues: Clues, *, size: int) -> float:
    return 0.3 if axis.size is None else float(axis.size == size)


def _patches(axis: Axis, clues: Clues) -> float:
    height, width = clues.pixels
    if axis.size is None or not height or not width:
        return _UNKNOWN
    grids = ((height // patch) * (width // patch) for patch in range(4, 65))
    return 1.0 if any(0 <= axis.size - grid <= 8 for grid in grids) else 0.5


def _pixels(axis: Axis, clues: Clues, *, side: int) -> float:
    """Pixels of a map as large as the image, or somewhat smaller."""
    whole = clues.pixels[side]
    if not axis.size or not whole:
        return _UNKNOWN
    shrunk = whole / axis.size
    return 0.5 if shrunk < 0.5 else 1.0 if shrunk <= 8 else 0.6 if shrunk <= 16 else 0.2


def _grid(axis: Axis, clues: Clues, *, side: int) -> float:
    """Places of a map of features, far fewer than the image has pixels."""
    whole = clues.pixels[side]
    if not axis.size or not whole:
        return _UNKNOWN
    return 1.0 if whole / axis.size >= 16 else 0.5 if whole / axis.size >= 8 else 0.2


def _features(axis: Axis, clues: Clues) -> float:
    return 0.0 if axis.role else 0.9


def _queries(axis: Axis, clues: Clues) -> float:
    return 0.0 if axis.role else 1.0


_FITS: Final[Mapping[str, Callable[[Axis, Clues], float]]] = {
    "rows": _rows,
    "images": partial(_rows, of=_IMAGE, role=IMAGES),
    "texts": partial(_rows, of=_TEXT, role=TEXTS),
    "sounds": partial(_rows, of=_SOUND, role=SOUNDS),
    "tokens": _tokens,
    "frames": _frames,
    "choices": _choices,
    "labels": _labels,
    "labels-of-tokens": _labels_of_tokens,
    "labels-of-frames": _labels_of_frames,
    "vocabulary": _vocabulary,
    "hidden": _hidden,
    "features": _features,
    "patches": _patches,
    "height": partial(_pixels, side=0),
    "width": partial(_pixels, side=1),
    "grid-height": partial(_grid, side=0),
    "grid-width": partial(_grid, side=1),
    "queries": _queries,
    "4": partial(_exactly, size=4),
    "1": partial(_exactly, size=1),
}

_OF_LABELS: Final = {Head.UNKNOWN: 0.9, Head.OTHER: 0.45}
_OF_FEATURES: Final = {Head.UNKNOWN: 0.9, Head.LINEAR: 0.45, Head.PROBABILITIES: 0.1}
_ENDS: Final[Mapping[str, Mapping[Head, float]]] = {
    "labels": _OF_LABELS,
    "labels-of-tokens": _OF_LABELS,
    "labels-of-frames": _OF_LABELS,
    "vocabulary": _OF_LABELS,
    "hidden": _OF_FEATURES,
}
"""What an output that ends in some way is worth, by the word of one of its axes, where that is not 1."""
