"""Short sounds for Whisper: the frames of the silence behind them are one and the same, and computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import WhisperFeatureExtractor

from optimum_fixedshape.fitting import Array


def length_with_silence(extractor: Any, plain: type, samples: int) -> int | None:
    """Returns to how many samples a sound is padded for its last frame to be silence, or None where nothing is gained.

    Args:
        extractor: A feature extractor.
        plain: Its class in transformers.
        samples: Of the sound.
    """
    if plain is not WhisperFeatureExtractor or extractor.dither or extractor.padding_value:
        return None
    length: int = (-(-(samples + extractor.n_fft) // extractor.hop_length) + 1) * extractor.hop_length
    return length if length < extractor.n_samples else None


def with_silence(heard: Array, missing: int) -> Array:
    """Returns a spectrogram ``(features, frames)`` with its last frame so many times more."""
    return np.pad(heard, ((0, 0), (0, missing)), mode="edge")
