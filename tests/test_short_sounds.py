"""Whisper's spectrograms of short sounds are transformers' own, and cost only what is heard."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.processors.audio import fix_feature_extractor
from optimum_fixedshape.processors.short_sounds import length_with_silence

SECONDS, RATE, FEATURES, FRAMES = 2, 16000, 80, 200


def graph() -> ShapeLadder:
    axes = (Axis(1, role="batch_size"), Axis(FEATURES, role="feature_size"), Axis(FRAMES, role="nb_max_frames"))
    return ShapeLadder((ShapeContract((TensorSpec("input_features", "float32", axes),), ()),))


@pytest.mark.parametrize("samples", [1, 159, 160, 401, 7999, 16000, 31000, 31360, 32000, 40000])
@pytest.mark.parametrize("volume", [0.0, 1e-6, 0.5])
def test_spectrograms_are_those_of_transformers(samples: int, volume: float) -> None:
    sound = np.random.default_rng(samples).standard_normal(samples).astype(np.float32) * np.float32(volume)
    plain = transformers.WhisperFeatureExtractor(feature_size=FEATURES, chunk_length=SECONDS)
    fixed = fix_feature_extractor(plain, graph(), overflow="truncate")
    ours = fixed(sound, sampling_rate=RATE, return_tensors="np")["input_features"]
    theirs = plain(sound, sampling_rate=RATE, return_tensors="np")["input_features"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_long_sounds_and_those_with_dither_are_computed_whole() -> None:
    kind = transformers.WhisperFeatureExtractor
    plain = kind(feature_size=FEATURES, chunk_length=SECONDS)
    assert length_with_silence(plain, kind, 8000) == 8640
    assert length_with_silence(plain, kind, 31900) is None
    assert length_with_silence(kind(dither=0.1), kind, 8000) is None
