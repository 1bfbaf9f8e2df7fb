"""How each kind of feature extractor is told the size of the spectrogram that it makes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimum_fixedshape.roles import MEL, MEL_FRAMES

_WINDOW, _HOP = 400, 160
"""Samples of a frame and between frames in the Audio Spectrogram Transformer, which has no attributes for them."""


@dataclass(frozen=True)
class Spectrogram:
    """One kind of spectrogram.

    Attributes:
        layout: The roles of the last two axes, as the extractor makes them.
        bins: The attribute that sets how many features a frame has, or None where none does alone.
        own_frames: How many frames the extractor makes of every sound; it cuts what is longer. None: as many as it has.
        frames_of: How many frames a sound of so many samples has.
        told: The attributes that make an extractor give so many frames.
        is_cut_later: Whether models that write cut what is longer themselves.
    """

    layout: tuple[str, str] = (MEL_FRAMES, MEL)
    bins: str | None = None
    own_frames: Callable[[Any], int | None] = lambda plain: None
    frames_of: Callable[[Any, int], int] = lambda plain, samples: 0
    told: Callable[[Any, int], Mapping[str, Any]] = lambda plain, frames: {}
    is_cut_later: bool = False

    def bins_of(self, plain: Any) -> int:
        """Returns how many features a frame has."""
        own = getattr(plain, self.bins or "num_mel_bins", None) or plain.feature_size
        return int(own) * (1 if self.bins else getattr(plain, "stride", 1))


AS_LONG_AS_THE_SOUND = Spectrogram()
_WHISPER = Spectrogram(
    layout=(MEL, MEL_FRAMES),
    bins="feature_size",
    own_frames=lambda plain: plain.nb_max_frames,
    frames_of=lambda plain, samples: -(-samples // plain.hop_length),
    told=lambda plain, frames: {
        "nb_max_frames": frames,
        "n_samples": frames * plain.hop_length,
        "chunk_length": _seconds(frames * plain.hop_length, plain.sampling_rate),
    },
    is_cut_later=True,
)
_CLAP = Spectrogram(
    bins="feature_size",
    own_frames=lambda plain: plain.nb_max_samples // plain.hop_length + 1,
    frames_of=lambda plain, samples: -(-samples // plain.hop_length) + 1,
    told=lambda plain, frames: {
        "nb_max_samples": (frames - 1) * plain.hop_length,
        "max_length_s": _seconds((frames - 1) * plain.hop_length, plain.sampling_rate),
    },
)
_TRANSFORMER = Spectrogram(
    bins="num_mel_bins",
    own_frames=lambda plain: plain.max_length,
    frames_of=lambda plain, samples: max(samples - _WINDOW, 0) // _HOP + 1,
    told=lambda plain, frames: {"max_length": frames},
)
_KINDS: tuple[tuple[frozenset[str], Spectrogram], ...] = (
    (frozenset({"nb_max_frames", "n_samples"}), _WHISPER),
    (frozenset({"nb_max_samples", "max_length_s"}), _CLAP),
    (frozenset({"max_length", "num_mel_bins"}), _TRANSFORMER),
)
"""Kinds of extractors by the attributes that they have."""


def spectrogram_of(plain: Any) -> Spectrogram:
    """Returns what kind of spectrogram an extractor makes."""
    attributes = vars(plain).keys()
    return next((kind for names, kind in _KINDS if names <= attributes), AS_LONG_AS_THE_SOUND)


def rebuilt(plain: Any, changed: Mapping[str, Any]) -> Any:
    """Returns a new extractor with some attributes changed, and all that is computed from them."""
    attributes = {name: value for name, value in plain.to_dict().items() if name in vars(plain)}
    return type(plain)(**attributes | dict(changed))


def take_tables(fixed: Any, source: Any) -> None:
    """Gives `fixed` the arrays that another extractor has computed, such as its mel filters."""
    tables = {name: copy.copy(value) for name, value in vars(source).items() if isinstance(value, np.ndarray)}
    fixed.__dict__.update(tables)


def _seconds(samples: int, rate: int) -> float:
    return samples / rate if samples % rate else samples // rate
